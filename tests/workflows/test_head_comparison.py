"""A new head and an earlier one, judged on the same images that neither has seen."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import photos, with_labels
from PIL import Image
from task_features import TASKS

from featx.backbones.backbone import load_backbone
from featx.errors import HeadError, ModelNotFoundError, OutputError, StaleCacheError
from featx.extraction.pipeline import extract
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.metrics.classification import ClassificationReport
from featx.metrics.paired import mcnemar
from featx.workflows.fit import fit_head
from featx.workflows.head_comparison import HeadComparison


def compared(features: FeatureSet, earlier: Head | Path, folder: Path, **options: Any) -> HeadComparison:
    against = fit_head(features, Head("ridge", C=0.1), models=folder, compare=earlier, **options).against
    assert against is not None
    return against


def flipped(features: FeatureSet, share: float, *, seed: int = 0) -> FeatureSet:
    """The same with the labels of some training images moved to the next class."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(features.rows("train"))
    rows = rows[: int(share * len(rows))]
    labels = features.labels.copy()
    labels[rows] = (labels[rows] + 1) % len(features.classes)
    return dataclasses.replace(features, labels=labels)


def many() -> FeatureSet:
    """Images in so many dimensions that none are near-duplicates by chance."""
    return photos(train=60, test=60, gap=5.0, dim=40)


def test_a_head_on_mended_labels_is_better_by_mcnemars_test(tmp_path: Path) -> None:
    features = many()
    earlier = Head("knn", k=1).fit(flipped(features, 0.4))
    new = fit_head(features, Head("knn", k=1), models=tmp_path, compare=earlier)
    against = new.against
    assert against is not None
    assert isinstance(against.report, ClassificationReport)
    assert isinstance(against.earlier_report, ClassificationReport)
    assert against.report.accuracy == new.head.evaluate(features, rows=against.rows).accuracy
    assert against.earlier_report.accuracy == earlier.evaluate(features, rows=against.rows).accuracy
    apart = len(against.paired.first_only), len(against.paired.second_only)
    assert against.p_value == mcnemar(*apart) < 0.05
    assert against.verdict == "better"
    assert against.sentence == (
        f"The new head is better (p = {against.p_value:.2g}, McNemar's exact test): on {against.paired.n} images of split "
        f"test, the new head alone is right on {apart[1]} and the earlier head alone on {apart[0]}."
    )
    reverse = compared(
        flipped(features, 0.4), Head("ridge", C=0.1).fit(features), tmp_path, out=tmp_path / "worse.safetensors"
    )
    assert reverse.verdict in ("worse", "undecided")


def test_equal_heads_are_not_called_equal(tmp_path: Path) -> None:
    features = many()
    against = compared(features, Head("ridge", C=0.1).fit(features), tmp_path)
    assert (against.verdict, against.p_value, against.paired.gained) == ("undecided", 1.0, 0)
    assert against.sentence.startswith("No difference is shown (p = 1, McNemar's exact test): on ")
    assert against.sentence.endswith("; this does not prove that the heads are equally good.")


def test_copies_of_training_images_of_either_head_and_their_groups_are_left_out(tmp_path: Path) -> None:
    features = many()
    train, test = features.rows("train"), features.rows("test")
    keys = features.keys.copy()
    keys[test[0]] = keys[train[0]]
    features = dataclasses.replace(features, keys=keys)
    earlier = Head("ridge", C=0.1).fit(features, rows=np.concatenate([train, test[1:4]]))
    groups = np.full(len(features), "", dtype=object)
    groups[test[3:6]] = "p1"
    features = dataclasses.replace(features, groups=groups, group="patient")
    against = compared(features, earlier, tmp_path)
    assert against.left_out["copies of training images"] == 4
    assert against.left_out["in a group with training images"] == 2
    assert not np.isin(test[:6], against.rows).any()


def test_near_duplicates_of_images_that_one_head_alone_was_fitted_to_are_left_out(tmp_path: Path) -> None:
    features = many()
    train, test = features.rows("train"), features.rows("test")
    X = features.features.copy()
    X[test[:2]] = 1.001 * X[train[:2]] + 1e-4
    features = dataclasses.replace(features, features=X)
    both = compared(features, Head("ridge", C=0.1).fit(features), tmp_path)
    assert (both.left_out, both.paired.n) == ({}, len(test))
    own = compared(features, Head("ridge", C=0.1).fit(features, rows=train[1:]), tmp_path)
    assert own.left_out == {"near-duplicates of images that one head alone was fitted to": 1}
    assert test[0] not in own.rows


def test_near_duplicates_of_images_that_only_the_earlier_file_still_has_are_left_out(
    split_photos: Path, tmp_path: Path
) -> None:
    image = Image.open(split_photos / "train" / "dark" / "00.png")
    image.save(split_photos / "val" / "dark" / "again.png", compress_level=1)  # the same pixels in other bytes
    file = extract(split_photos, "lenet5", cache=tmp_path / "cache").file
    earlier = fit_head(file, "ridge", models=tmp_path / "models").path
    assert fit_head(file, "knn", models=tmp_path / "models", compare=earlier).against.left_out == {}
    (split_photos / "train" / "dark" / "00.png").unlink()
    other = extract(split_photos, "lenet5", cache=tmp_path / "cache", out=tmp_path / "new.h5").file
    against = fit_head(other, "knn", models=tmp_path / "models", compare=earlier).against
    assert against.left_out["near-duplicates of images that one head alone was fitted to"] >= 1
    assert "val/dark/again.png" not in FeatureSet.load(other).paths[against.rows]


def test_labels_that_one_head_does_not_know_are_left_out(tmp_path: Path) -> None:
    features = many()
    earlier = Head("ridge", C=0.1).fit(features)
    names = np.array(features.classes)[features.labels]
    names[features.rows("train")[:20]] = "dog"
    names[features.rows("test")[:7]] = "dog"
    against = compared(with_labels(features, names.tolist()), earlier, tmp_path)
    assert against.left_out["with labels or features that one head does not know"] == 7
    assert against.paired.n == against.report.n == against.earlier_report.n


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks_are_compared_by_their_losses(task: str, tmp_path: Path) -> None:
    features = TASKS[task]()
    rng = np.random.default_rng(0)
    noisy = features.features + 3 * rng.normal(size=features.features.shape).astype(np.float32)
    noisy[features.rows("test")] = features.features[features.rows("test")]
    earlier = Head("ridge", C=0.1, task=task).fit(dataclasses.replace(features, features=noisy))
    against = fit_head(features, Head("ridge", C=0.1, task=task), models=tmp_path, compare=earlier).against
    assert against is not None
    assert against.losses is not None
    assert against.losses[1] < against.losses[0]
    assert (against.verdict, against.task) == ("better", task)
    assert against.method == (
        f"the sign-flip test of the {'log loss' if task == 'multilabel' else 'squared error'} of {against.paired.n} images"
    )
    assert (
        f"of the new head is {against.losses[1]:.4g} and that of the earlier head {against.losses[0]:.4g}"
        in against.sentence
    )
    assert against.lines[0][1] == ("RMSE" if task == "regression" else "exact match")
    if task == "regression":
        assert against.losses[1] == pytest.approx(against.report.headline[1] ** 2)
        assert against.paired.both_right == 0
    json.dumps(against.as_dict(), allow_nan=False)


def test_groups_are_compared_by_groups(tmp_path: Path) -> None:
    features = many()
    groups = np.full(len(features), "", dtype=object)
    test = features.rows("test")
    groups[test] = [f"p{number % 9}" for number in range(len(test))]
    features = dataclasses.replace(features, groups=groups, group="patient")
    against = compared(features, Head("knn", k=1).fit(flipped(features, 0.4)), tmp_path)
    assert against.method == "the sign-flip test of 9 groups"
    assert against.p_value == against.paired.p_value


def test_the_dict_has_both_reports_and_the_images_that_each_gets_right_alone(tmp_path: Path) -> None:
    features = many()
    fit = fit_head(features, Head("knn", k=1), models=tmp_path, compare=Head("knn", k=1).fit(flipped(features, 0.4)))
    found = json.loads(json.dumps(fit.as_dict(), allow_nan=False))["compare"]
    assert found["new"]["accuracy"] > found["earlier"]["accuracy"]
    assert len(found["new_only_images"]) == found["new_only"] > found["earlier_only"]
    assert (found["head"], found["split"], found["verdict"], found["losses"]) == ("knn", "test", "better", None)
    assert json.loads(json.dumps(fit_head(features, Head("knn", k=1), models=tmp_path).as_dict()))["compare"] is None


def test_an_earlier_head_is_compared_by_its_file_and_not_overwritten(tmp_path: Path) -> None:
    features = many()
    earlier = fit_head(features, Head("ridge", C=0.1), models=tmp_path).path
    with pytest.raises(OutputError, match="is a file that is read here"):
        fit_head(features, Head("ridge", C=0.1), models=tmp_path, compare=earlier)
    against = compared(features, earlier, tmp_path, out=tmp_path / "new.safetensors")
    assert against.earlier == str(earlier)
    with pytest.raises(ModelNotFoundError, match=r"none\.safetensors"):
        compared(features, tmp_path / "none.safetensors", tmp_path, out=tmp_path / "new.safetensors")


def test_heads_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    features = many()
    earlier = Head("ridge", C=0.1).fit(features)
    with pytest.raises(StaleCacheError, match="this head was fitted to other features"):
        compared(dataclasses.replace(features, identity="beef" * 16), earlier, tmp_path)
    with pytest.raises(
        HeadError, match=r"no image of split test is new to both heads \(copies of training images: 180\)"
    ):
        compared(features, Head("ridge", C=0.1).fit(features, split="all"), tmp_path)
    values = with_labels(features, [str(number) for number in features.labels])
    regression = Head("ridge", C=0.1, task="regression").fit(values)
    with pytest.raises(HeadError, match="ridge is a head for regression, the other one for classification"):
        compared(features, regression, tmp_path)
    with pytest.raises(HeadError, match="--compare judges both heads on a held-out split"):
        compared(dataclasses.replace(features, splits=np.full(len(features), "train")), earlier, tmp_path, cv=2)
    assert not list(tmp_path.iterdir())


def test_the_page_shows_the_images_that_each_head_gets_right_alone(tmp_path: Path) -> None:
    features = many()
    earlier = Head("knn", k=1).fit(flipped(features, 0.4))
    fit = fit_head(features, Head("knn", k=1), models=tmp_path, compare=earlier, report=True)
    assert fit.against is not None
    assert fit.card is not None
    text = fit.card.read_text()
    for part in (
        "Compared with knn",
        "Only the new head is right",
        "The new head is better",
        fit.against.paired.second_only[0],
    ):
        assert part in text


def test_another_layer_is_compared_through_the_feature_file_of_the_earlier_head(
    split_photos: Path, tmp_path: Path
) -> None:
    file = extract(split_photos, load_backbone("lenet5", layers=["features.3"]), cache=tmp_path / "cache").file
    earlier = fit_head(file, "ridge", models=tmp_path / "models").path
    against = fit_head(file, "ridge", layer="features.3", models=tmp_path / "models", compare=earlier).against
    assert against is not None
    assert against.paired.n + sum(against.left_out.values()) == 16
    kept = Head.load(earlier)
    assert against.earlier_report.n == against.report.n
    assert kept.layer_ == "penultimate"


def test_labels_that_were_changed_since_the_earlier_fit_are_counted(split_photos: Path, tmp_path: Path) -> None:
    shutil.copy(split_photos / "val/dark/01.png", split_photos / "val/light/copy.png")  # two labels before and after
    file = extract(split_photos, "lenet5", cache=tmp_path / "cache").file
    earlier = fit_head(file, "ridge", models=tmp_path / "models").path
    rows = [(path, path.parent.name, path.parent.parent.name) for path in sorted(split_photos.rglob("*.png"))]
    cells = [
        f"{path},{'light' if path.name == '00.png' and split == 'val' else label},{split}"
        for path, label, split in rows
    ]
    (tmp_path / "fixed.csv").write_text("\n".join(["path,label,split", *cells]))
    extraction = extract(tmp_path / "fixed.csv", "lenet5", cache=tmp_path / "cache")
    assert extraction.computed == 0
    against = fit_head(extraction.file, "ridge", models=tmp_path / "models", compare=earlier).against
    assert against is not None
    assert against.labels_changed == 1
    assert against.remarks[-1].startswith("1 compared image had another label when the earlier head was fitted")
