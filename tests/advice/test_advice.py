"""Advice on whole data sets, and the command that prints it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.torch import save_file

import featx
import featx.advice
from featx.advice.advice import Advice, advise
from featx.advice.decision import RECOMMENDATIONS
from featx.advice.evidence import _same_images
from featx.cli.main import main
from featx.errors import AdviceError
from featx.features.feature_file import FeatureFile

KEYS = {
    "what_to_do", "expected_accuracy",
    "cell", "recommendation", "layer", "expected_gain", "gain_interval", "confidence", "command", "reasons", "depths",
    "log_loss", "together", "baseline", "learning_curve", "seen", "images", "judged", "groups", "classes", "commonest_class",
    "smallest_class", "largest_class", "features", "picture", "notes",
}  # fmt: skip


def labelled(photos: Path, label: Callable[[int], str]) -> Path:
    """A table of the training photos with other labels."""
    paths = sorted((photos / "train").rglob("*.png"))
    lines = [f"{path.relative_to(photos)},{label(number)},train" for number, path in enumerate(paths)]
    (photos / "t.csv").write_text("\n".join(["path,label,split", *lines]))
    return photos / "t.csv"


def test_one_pass_over_the_images_leads_to_a_recommendation(split_photos: Path, in_tmp: Path) -> None:
    found = advise(split_photos, "lenet5", device="cpu")
    facts = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert set(facts) == KEYS
    assert facts["recommendation"] in RECOMMENDATIONS
    assert facts["cell"].split("-")[0] == "little"
    assert list(facts["depths"])[-1] == "penultimate"
    assert (facts["images"], facts["judged"], facts["groups"]) == (32, 32, 32)
    assert (facts["smallest_class"], facts["largest_class"]) == (16, 16)
    assert 0 <= facts["confidence"] <= 1
    assert facts["baseline"]["images"] == 32
    assert set(facts["baseline"]["untrained"]) == set(facts["depths"]) == set(facts["together"])
    assert facts["seen"]["classes"] == 5
    assert 0.2 <= facts["seen"]["confidence"] <= 1
    assert facts["learning_curve"]["points"][-1]["images"] < 32
    assert Path(facts["picture"]).read_bytes().startswith(b"\x89PNG")
    again = featx.extract(split_photos, featx.load_backbone("lenet5", device="cpu", stages=True))
    assert (again.computed, str(again.file)) == (0, facts["features"])
    assert advise(split_photos, "lenet5", device="cpu").as_dict() == found.as_dict(), "one seed, one advice"


def test_the_command_it_gives_runs(split_photos: Path, in_tmp: Path) -> None:
    found = advise(split_photos, "lenet5", device="cpu", models="here")
    for command in found.command.split(" && "):
        program, *arguments = shlex.split(command)
        assert program == "featx"
        done = CliRunner().invoke(main, [*arguments, *(["--epochs", "1"] if "promote" in arguments else [])])
        assert done.exit_code == 0, done.output
    assert list(Path("here").glob("*.safetensors"))


def test_a_feature_file_is_taken_as_it_is(split_photos: Path, in_tmp: Path) -> None:
    whole = advise(split_photos, "lenet5", device="cpu")
    done = CliRunner().invoke(main, ["advise", "--json", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["features"] == str(whole.features), "left out, the newest; files of random weights do not count"
    assert facts["depths"] == whole.accuracies
    assert facts["baseline"] == json.loads(json.dumps(whole.as_dict()))["baseline"]
    plain = featx.extract(split_photos, featx.load_backbone("lenet5", device="cpu"), out="plain.h5").file
    alone = advise(plain, device="cpu")
    assert list(alone.accuracies) == ["penultimate"]
    assert alone.recommendation in ("head", "none")


def test_of_a_file_in_several_views_only_the_plain_one_is_used(split_photos: Path, in_tmp: Path) -> None:
    plain, flip = (
        featx.load_backbone("lenet5", device="cpu", layers=("hidden",), views=name) for name in ("plain", "flip")
    )
    one = advise(featx.extract(split_photos, plain, cache="a").file, device="cpu").as_dict()
    other = advise(featx.extract(split_photos, flip, cache="b").file, device="cpu").as_dict()
    assert "the file has several views of each image (flip); only the plain view was used" in other["notes"]
    for key in ("depths", "log_loss", "together", "baseline", "recommendation", "learning_curve"):
        assert other[key] == one[key], key


def test_a_file_whose_images_or_backbone_are_gone_gets_advice_without_them(split_photos: Path, in_tmp: Path) -> None:
    code = in_tmp / "own.py"
    code.write_text("from featx.backbones.architectures import LeNet5\n\n\ndef net():\n    return LeNet5()\n")
    network = featx.load_backbone(f"{code}:net", weights="random", device="cpu", crop=32, resize=32, stages=True)
    found = advise(featx.extract(split_photos, network, out="own.h5").file, device="cpu")
    assert found.measurements.random_weights is None
    assert found.measurements.classifier is None
    assert any("a stored path is never run" in note for note in found.notes)
    assert found.recommendation in RECOMMENDATIONS
    file = advise(split_photos, "lenet5", device="cpu").features
    for path in split_photos.rglob("*.png"):
        path.unlink()
    for path in Path("cache/untrained").iterdir():
        path.unlink()
    gone = advise(file, device="cpu")
    assert gone.measurements.random_weights is None
    assert gone.measurements.classifier is not None
    assert any("random weights were not compared: " in note for note in gone.notes)


def test_random_labels_are_chance(split_photos: Path, in_tmp: Path) -> None:
    rng = np.random.default_rng(4)
    found = advise(labelled(split_photos, lambda _: str(rng.choice(["one", "two"]))), "lenet5", device="cpu")
    assert (found.cell, found.recommendation, found.decision.layer) == ("chance", "none", "")
    assert found.as_dict()["layer"] is None
    assert found.reasons[0].startswith("no head is better than guessing")
    assert found.command.endswith("--report")


def test_data_that_cannot_be_advised_on_is_an_error(split_photos: Path, in_tmp: Path) -> None:
    with pytest.raises(
        AdviceError, match=r"the labels of \S+ are for multilabel, but advise compares heads for classification"
    ):
        advise(labelled(split_photos, lambda number: "a|b" if number % 2 else "a"), "lenet5", device="cpu")
    with pytest.raises(AdviceError, match="no class has two distinct training images"):
        advise(labelled(split_photos, lambda number: f"c{number}"), "lenet5", device="cpu")
    with pytest.raises(AdviceError, match=r"dark has no labels, but advise compares heads"):
        advise(split_photos / "train" / "dark", "lenet5", device="cpu")
    done = CliRunner().invoke(main, ["advise", "nowhere"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "there is no nowhere" in done.stderr
    done = CliRunner().invoke(main, ["advise", "nowhere.h5"])
    assert done.exit_code == 1
    assert "nowhere.h5" in done.stderr


def test_a_layer_with_the_features_of_the_penultimate_is_left_out(split_photos: Path, in_tmp: Path) -> None:
    found = advise(split_photos, "mobilenet_v1_025", weights="random", device="cpu")
    assert "features.13" in FeatureFile(found.features).layers
    assert "features.13" not in found.accuracies
    assert found.measurements.random_weights is None, "its weights are random already"
    assert found.cell in ("little-unlike", "chance")


def test_weights_that_have_moved_are_named(split_photos: Path, in_tmp: Path) -> None:
    weights = in_tmp / "old.safetensors"
    save_file(featx.load_backbone("lenet5", device="cpu").network.state_dict(), weights)
    file = advise(split_photos, "lenet5", weights=str(weights), device="cpu").features
    weights.rename(in_tmp / "new.safetensors")
    assert advise(file, device="cpu").measurements.classifier is None
    assert advise(file, weights="new.safetensors", device="cpu").measurements.classifier is not None


def real(data: str | Path, weights: Path, **options: Any) -> Advice:
    return advise(data, "mobilenet_v1_075", weights=str(weights), device="cpu", **options)


def smaller(data: str, weights: Path, side: int) -> Path:
    """Features of images of fewer pixels than the network was trained on, which take less time."""
    network = featx.load_backbone(
        "mobilenet_v1_075", weights=str(weights), device="cpu", stages=True, resize=side, crop=side
    )
    return featx.extract(data, network).file


@pytest.mark.real
def test_ants_and_bees_need_only_a_head(hymenoptera: Path, mobilenet_weights: Path, in_tmp: Path) -> None:
    found = real(hymenoptera, mobilenet_weights)
    assert (found.cell, found.recommendation, found.layer) == ("little-similar", "head", "penultimate")
    assert found.confidence > 0.9
    assert max(found.accuracies, key=lambda layer: found.accuracies[layer]) == "penultimate"
    assert found.measurements.random_weights is not None
    assert found.measurements.random_weights.gain > 0.15


@pytest.mark.real
def test_ants_and_bees_with_random_labels_are_chance(hymenoptera: Path, mobilenet_weights: Path, in_tmp: Path) -> None:
    rng = np.random.default_rng(0)
    paths = sorted(path for path in hymenoptera.rglob("*.jpg"))
    rows = [f"{path},{rng.choice(['one', 'two'])},train" for path in paths]
    Path("noise.csv").write_text("\n".join(["path,label,split", *rows]))
    found = real(smaller("noise.csv", mobilenet_weights, 112), mobilenet_weights)
    assert (found.cell, found.recommendation) == ("chance", "none")


@pytest.mark.real
def test_waste_is_worth_fine_tuning_and_few_of_its_images_a_head(
    hymenoptera: Path, mobilenet_weights: Path, in_tmp: Path
) -> None:
    folder = hymenoptera.parent / "trashnet"
    whole = real(folder, mobilenet_weights)
    assert (whole.cell, whole.recommendation) == ("little-similar", "tune-all")
    assert whole.decision.expected_gain > 0.02
    gain, low, _ = whole.measurements.curve.doubling_gain  # type: ignore[union-attr]
    assert gain > low > 0, "the learning curve still rises"
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    rows = [f"{path},{place.name},train" for place in classes for path in sorted(place.glob("*.jpg"))[:12]]
    Path("few.csv").write_text("\n".join(["path,label,split", *rows]))
    few = real("few.csv", mobilenet_weights)
    assert (few.cell, few.recommendation) == ("little-similar", "head")
    assert few.confidence < 0.98, "so few images do not make sure"


@pytest.mark.real
def test_digits_are_unlike_photographs(mobilenet_weights: Path, in_tmp: Path) -> None:
    found = real(smaller("digits", mobilenet_weights, 192), mobilenet_weights)
    assert (found.cell, found.recommendation) == ("little-unlike", "head-inner")
    assert found.layer == "features.11"
    assert found.accuracies["features.11"] > found.accuracies["penultimate"], "the curve peaks before the last layer"
    assert found.measurements.random_weights is not None
    assert found.measurements.random_weights.gain < 0.03


def test_an_image_that_has_changed_is_left_out_of_the_comparison_with_random_weights() -> None:
    features, again = (made.photos(train=2, test=2, classes=("ant", "bee")) for _ in range(2))
    again.keys[2] ^= 1
    again = again.take(np.array([7, 6, 5, 2, 1, 0]))
    rows, same = _same_images(features, np.array([0, 2, 4, 6]), again)
    assert (rows.tolist(), same.tolist()) == ([0, 6], [5, 1])
