"""``fit_head`` with several feature files: which are taken, what is fitted, and what each backbone adds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from joint_features import part, written

from featx.cli.fit_head import _features_text
from featx.errors import CacheMissError, HeadError, SettingsError
from featx.features.feature_set import FeatureSet
from featx.features.speeds import keep_speed
from featx.heads import block_factors
from featx.heads.head import Head
from featx.workflows.fit import fit_head
from featx.workflows.fit_together import require_together
from featx.workflows.head_files import HeadFiles


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time of a fit; other tests are about them."""
    monkeypatch.setattr(HeadFiles, "write_picture", lambda *_: None)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [written(tmp_path / "cache", each) for each in (part(), part("two"), part("three"))]


def test_files_are_joined_fitted_and_named_after_their_backbones(files: list[Path], tmp_path: Path) -> None:
    fit = fit_head(files[:2], "ridge", models=tmp_path / "m")
    assert fit.path.name == "pets--one+two--ridge.safetensors"
    assert fit.files == tuple(files[:2])
    assert fit.features is None
    same = fit_head([FeatureSet.load(file) for file in files[:2]], "ridge", models=tmp_path / "m")
    assert same.path == fit.path, "the same options on the same features"
    np.testing.assert_array_equal(same.head.scale_, fit.head.scale_)
    assert fit_head(files, "ridge", models=tmp_path / "m").path.name == "pets--one+two+three--ridge.safetensors"


def test_the_file_of_a_backbone_is_found_by_its_name(files: list[Path], tmp_path: Path) -> None:
    fit = fit_head(files[0], "ridge", with_backbones="two", cache=tmp_path / "cache", models=tmp_path / "m")
    assert fit.files == (files[0], files[1])
    with pytest.raises(
        CacheMissError,
        match=r"no other feature file of pets through it in .*cache; .*: three, two\. featx extract .* --backbone four",
    ):
        fit_head(files[0], with_backbones=["two", "four"], cache=tmp_path / "cache", models=tmp_path / "m")
    with pytest.raises(CacheMissError, match=r"--with one: .*no other feature file"):
        fit_head(files[0], with_backbones="one", cache=tmp_path / "cache", models=tmp_path / "m")
    written(tmp_path / "cache", part("two"), name="again.h5")
    with pytest.raises(CacheMissError, match=r"has 2 feature files of pets .*again\.h5.*; name the one to use beside"):
        fit_head(files[0], with_backbones="two", cache=tmp_path / "cache", models=tmp_path / "m")


def test_the_file_of_a_backbone_is_looked_for_beside_the_named_one_first(files: list[Path], tmp_path: Path) -> None:
    cache = written(tmp_path / "cache2", part("three"), root=str(tmp_path / "cache" / "pets")).parent
    fit = fit_head(files[0], "ridge", with_backbones=["two", "three"], cache=cache, models=tmp_path / "m")
    assert fit.files == tuple(files)
    files[2].unlink()
    fit = fit_head(files[0], "ridge", with_backbones="three", cache=cache, models=tmp_path / "m")
    assert fit.files == (files[0], cache / "pets--three.h5")
    with pytest.raises(
        CacheMissError, match=r"in the folder of .*pets--one\.h5 or in .*cache2; there are files .*: three, two"
    ):
        fit_head(files[0], with_backbones="four", cache=cache, models=tmp_path / "m")


def test_a_file_is_not_joined_with_itself_nor_compared_layer_by_layer(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"pets--one\.h5 is named twice; --layer may be repeated"):
        fit_head([files[0], files[0]], models=tmp_path / "m")
    with pytest.raises(SettingsError, match="--layer best compares the layers of one feature file"):
        fit_head(files[:2], layer="best", models=tmp_path / "m")
    with pytest.raises(SettingsError, match="features is an int, 3; expected one path"):
        fit_head([files[0], 3], models=tmp_path / "m")  # type: ignore[list-item]


def test_layers_are_of_every_file_or_of_one_by_its_backbone(tmp_path: Path) -> None:
    one, two = (written(tmp_path, each, layers=("layer3", "penultimate")) for each in (part(), part("two")))
    fit = fit_head([one, two], "ridge", layer=["layer3", "two=penultimate", "two=layer3"], models=tmp_path / "m")
    assert [each["layer"] for each in fit.head.backbone_["parts"]] == ["layer3", "penultimate,layer3"]
    assert fit.path.name == "pets--one-layer3+two-penultimate-layer3--ridge.safetensors"
    assert _features_text(fit) == f"layer3 of {one} and penultimate,layer3 of {two}"
    with pytest.raises(
        SettingsError, match=r"--layer four=layer3: none of the files is of the backbone 'four'; .* one, two"
    ):
        fit_head([one, two], layer="four=layer3", models=tmp_path / "m")


def test_the_views_that_all_files_have_are_taken(tmp_path: Path) -> None:
    flipped, plain = written(tmp_path, part(views=2)), written(tmp_path, part("two"))
    assert fit_head([flipped, plain], "ridge", models=tmp_path / "m").head.layer_ == "penultimate"
    other = written(tmp_path, part("three", views=2))
    assert fit_head([flipped, other], "ridge", models=tmp_path / "m").head.views == "flip"
    assert fit_head([flipped, other], "ridge", views="plain", models=tmp_path / "m").head.views == "plain"


def test_what_each_backbone_adds_is_tested_reported_and_stored(tmp_path: Path) -> None:
    good, noise = part(signal=0.6), part("two", signal=0.0)
    noise.backbone["name"] = "model_2"
    for each, rate in ((good, 300.0), (noise, 150.0)):
        keep_speed(each.backbone, views=1, images_per_second=rate)
    fit = fit_head([good, noise], "ridge", report=True, models=tmp_path / "m")
    found = json.loads(json.dumps(fit.as_dict(), allow_nan=False))["side_by_side"]
    first, second = found["backbones"]
    assert found["judged"] == {"images": 60, "split": "train, cross-validated"}
    assert first["accuracy"] > second["accuracy"] + 0.2
    assert first["adds"]["p_value"] < 0.05 < second["adds"]["p_value"]
    assert first["adds"]["difference"] == pytest.approx(found["together"]["accuracy"] - second["accuracy"])
    assert [first["images_per_second"], second["images_per_second"]] == [300, 150]
    assert found["together"]["images_per_second"] == pytest.approx(100)
    assert Head.load(fit.path).gains_ == found
    assert fit.card is not None
    page = fit.card.read_text()
    assert "Backbones side by side" in page
    assert "model_2 beside the other: " in page
    assert "Model_2" not in page


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_other_tasks_are_compared_by_their_loss(task: str, tmp_path: Path) -> None:
    names = ("1.5", "2.5", "9.25") if task == "regression" else ("cat", "cat|dog", "dog")
    sets = [part(name, classes=names, count=180) for name in ("one", "two")]
    fit = fit_head(sets, "ridge", task=task, models=tmp_path / "m")
    assert fit.gains is not None
    assert fit.gains.together.accuracy is None
    assert fit.gains.together.loss < min(each.loss for each in fit.gains.alone)
    assert all(gain.is_better and "sign-flip test" in gain.method for gain in fit.gains.gains)


def test_a_useless_backbone_is_scaled_down_and_equal_ones_stay_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    noise = part("two", count=300, features=rng.normal(size=(300, 200)).astype(np.float32))
    good = part(count=300, signal=0.5)
    head = Head("ridge").fit(FeatureSet.join([good, noise]))
    assert head.factors_[0] == 1.0 > head.factors_[1]
    same = Head("ridge").fit(FeatureSet.join([good, part("three", count=300, signal=0.5)]))
    assert same.factors_ == (1.0, 1.0)
    monkeypatch.setattr(block_factors, "SIGNIFICANT", 1e9)
    equal = Head("ridge").fit(FeatureSet.join([good, noise]))
    assert equal.factors_ == (1.0, 1.0)
    test = good.rows("test")
    joined = FeatureSet.join([good, noise])
    right = [
        (each.predict_proba(joined.features[test]).argmax(axis=1) == joined.labels[test]).mean()
        for each in (head, equal)
    ]
    assert right[0] > right[1] + 0.02


def test_texts_and_several_processes_are_refused_plainly(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="takes the features of one backbone"):
        fit_head(files[:2], "zeroshot", models=tmp_path / "m")
    with pytest.raises(SettingsError, match="several feature files cannot be combined with torchrun"):
        require_together("logreg", {"features": files[:2]})
    with pytest.raises(SettingsError, match="several feature files cannot be combined with torchrun"):
        require_together("logreg", {"features": files[0], "with_backbones": ("two",)})
    require_together("logreg", {"features": files[0]})


def test_images_that_differ_are_noted_and_no_common_image_is_an_error(files: list[Path], tmp_path: Path) -> None:
    fewer = written(tmp_path, part("two").take(np.arange(80)))
    fit = fit_head([files[0], fewer], "ridge", models=tmp_path / "m")
    assert "80 images that all files hold are used; left out: 10 of pets--one.h5" in fit.notes[0]
    strange = written(tmp_path / "other", part("two", keys=part().keys[::-1] + 1))
    with pytest.raises(HeadError, match=r"no image is in all of pets--one\.h5, pets--two\.h5"):
        fit_head([files[0], strange], models=tmp_path / "m")


def test_an_earlier_head_on_one_of_them_is_compared(files: list[Path], tmp_path: Path) -> None:
    earlier = fit_head(files[0], "ridge", models=tmp_path / "m")
    fit = fit_head(files[:2], "ridge", compare=earlier.path, models=tmp_path / "m")
    assert fit.against is not None
    assert fit.against.paired.n > 0
    back = fit_head(files[0], "logreg", compare=fit.path, models=tmp_path / "m")
    assert back.against is not None
