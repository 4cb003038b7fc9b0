"""Explanations of predictions by training images."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_heads import tagged
from task_features import measured

import featx
from featx.errors import HeadError, SettingsError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inference import HeadOnBackbone
from featx.retrieval.explanation import Explanation, explain
from featx.retrieval.training_images import training_images


@pytest.fixture
def features(split_photos: Path, in_tmp: Path) -> FeatureSet:
    """LeNet-5's features of the split photographs."""
    return featx.extract(split_photos, "lenet5").load()


def log_odds(head: Head, features: FeatureSet, row: int, label: int) -> float:
    p = head.predict_values(features.features[[row]])[0]
    return float(np.log(p[label] / (1 - p[label])))


def influences(explanation: Explanation) -> dict[str, float]:
    (part,) = explanation.influences
    return {image.path: image.value for image in (*part.supporting, *part.opposing)}


@pytest.mark.parametrize("kind", ["logreg", "ridge", "svm"])
def test_influences_are_what_a_head_that_is_fitted_again_would_lose(
    kind: str, features: FeatureSet, split_photos: Path
) -> None:
    head = Head(kind, C=1e-3, calibrate="none").fit(features)
    row = int(features.rows("val")[0])
    (found,) = explain(head, split_photos / str(features.paths[row]), count=32)
    train = features.rows("train")
    values = influences(found)
    assert values.keys() == set(features.paths[train])
    label = head.classes_.index(str(found.prediction.value))
    for image in train[::5]:
        without = Head(kind, C=1e-3, calibrate="none").fit(features, rows=np.setdiff1d(train, [image]))
        lost = log_odds(head, features, row, label) - log_odds(without, features, row, label)
        assert values[str(features.paths[image])] == pytest.approx(lost, rel=0.1, abs=2e-4)


def test_a_head_file_is_explained_from_its_own_feature_file(features: FeatureSet, split_photos: Path) -> None:
    file = Head("logreg", C=1e-3).fit(features).save("head.safetensors")
    folder = split_photos / "val" / "dark"
    found = explain(file, folder, count=3)
    assert [each.prediction for each in found] == featx.predict(file, folder)
    for each in found:
        assert len(each.neighbours) == 3
        (part,) = each.influences
        assert part.label == each.prediction.value
        supporting, opposing = ([i.value for i in images] for images in (part.supporting, part.opposing))
        assert supporting == sorted(supporting, reverse=True)
        assert opposing == sorted(opposing)
        assert min(supporting) > 0 > max(opposing)
        assert all(image.path.startswith("train/") for image in (*each.neighbours, *part.supporting))


def test_neighbours_are_nearest_in_the_standardised_features(features: FeatureSet, split_photos: Path) -> None:
    head = Head("centroid").fit(features)
    row = int(features.rows("val")[3])
    (found,) = explain(head, split_photos / str(features.paths[row]), count=4)
    Z = (features.features - head.mean_) / head.scale_
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    train = features.rows("train")
    best = train[np.argsort(-(Z[train] @ Z[row]), kind="stable")][:4]
    assert [image.path for image in found.neighbours] == features.paths[best].tolist()
    assert found.influences == ()


def test_the_neighbours_of_a_knn_head_are_those_that_vote(features: FeatureSet, split_photos: Path) -> None:
    head = Head("knn", k=3).fit(features)
    (found,) = explain(head, split_photos / "val" / "light" / "00.png", count=3)
    labels = [image.label for image in found.neighbours]
    assert labels == [found.prediction.value] * 3
    votes = head.predictor_.support_labels  # of the training rows, in order
    at = [features.paths[features.rows("train")].tolist().index(image.path) for image in found.neighbours]
    assert [head.classes_[votes[i]] for i in at] == labels


def on_lenet5(features: FeatureSet, real: FeatureSet) -> FeatureSet:
    """Real features with the labels of other images."""
    count = min(len(features), len(real))
    taken = real.take(np.arange(count))
    labels = features.labels[np.random.default_rng(0).permutation(len(features))[:count]]
    return dataclasses.replace(taken, labels=labels, classes=features.classes)


def test_each_predicted_label_of_several_is_explained(features: FeatureSet, split_photos: Path) -> None:
    several = on_lenet5(tagged(), features)
    head = Head("ridge", C=0.1).fit(several)
    found = explain(head, split_photos / "val" / "dark", count=2, features=several)
    for each in found:
        wanted = each.prediction.value or [each.prediction.top[0][0]]
        assert [part.label for part in each.influences] == wanted
    assert any(len(each.influences) > 1 for each in found)
    assert {label for part in found[0].influences for label in part.supporting[0].label.split("|")}


def test_the_influence_on_a_number_is_in_its_unit(features: FeatureSet, split_photos: Path) -> None:
    numbers = on_lenet5(measured(), features)
    head = Head("ridge", C=1e-3, task="regression").fit(numbers)
    row = int(numbers.rows("val")[0])
    (found,) = explain(head, split_photos / str(numbers.paths[row]), count=40, features=numbers)
    (part,) = found.influences
    assert (part.label, part.probability) == ("value", None)
    assert len({row[0] for row in found.rows()}) == 1  # the predicted number
    best = part.supporting[0]
    rows = np.array([r for r in numbers.rows("train") if numbers.paths[r] != best.path])
    without = Head("ridge", C=1e-3, task="regression").fit(numbers, rows=rows)
    lost = float(
        head.predict_values(numbers.features[[row]])[0, 0] - without.predict_values(numbers.features[[row]])[0, 0]
    )
    assert best.value == pytest.approx(lost, rel=0.05)
    assert "value" in found.as_dict()


def test_an_image_that_fails_is_not_explained(features: FeatureSet) -> None:
    Path("bad.jpg").write_text("no image")
    (found,) = explain(Head("logreg").fit(features), "bad.jpg")
    assert found.rows() == []
    assert "not an image of a known format" in found.as_dict()["error"]


def test_training_images_are_found_by_content_in_another_file(features: FeatureSet, split_photos: Path) -> None:
    file = Head("logreg").fit(features).save("head.safetensors")
    assert features.source
    moved = shutil.move(features.source, "moved.h5")
    image = split_photos / "val" / "dark" / "00.png"
    with pytest.raises(HeadError, match=r"that the head was fitted to is gone, .*; --features FILE .* names one"):
        explain(file, image)
    assert len(explain(file, image, features=moved)[0].neighbours) == 5


def test_training_images_that_are_missing_or_relabelled_are_errors(features: FeatureSet, split_photos: Path) -> None:
    head = Head("logreg").fit(features)
    image = split_photos / "val" / "dark" / "00.png"
    left = features.take(np.setdiff1d(np.arange(len(features)), features.rows("train")[:4]))
    with pytest.raises(HeadError, match="4 of the 32 training images of the head are not among the labelled images"):
        explain(head, image, features=left)
    labels = features.labels.copy()
    labels[features.rows("train")[:4]] = 1 - labels[features.rows("train")[:4]]
    with pytest.raises(HeadError, match="labels, which have changed since it was fitted"):
        explain(head, image, features=dataclasses.replace(features, labels=labels))
    with pytest.raises(StaleCacheError, match="fitted to other features"):
        explain(head, image, features=dataclasses.replace(features, identity="f00d" * 16))


def test_of_copies_the_training_images_are_taken() -> None:
    base = tagged(train=20, test=0)
    head = Head("ridge", C=0.1).fit(base)
    copied = np.concatenate([np.arange(5), np.arange(len(base))])
    splits = np.array(["test"] * 5 + ["train"] * len(base), dtype=object)
    found = training_images(head, dataclasses.replace(base.take(copied), splits=splits))
    assert found.rows.tolist() == list(range(5, 5 + len(base)))


def test_a_promoted_model_is_not_explained(features: FeatureSet) -> None:
    model = featx.promote(Head("logreg").fit(features).save("head.safetensors"), out="model.safetensors").path
    with pytest.raises(HeadError, match="a promoted model is not explained by training images"):
        explain(model, "x.png")


@pytest.mark.parametrize("count", [0, True, 1.5])
def test_a_number_of_images_that_is_none_is_refused(count: object, features: FeatureSet) -> None:
    model = HeadOnBackbone(Head("logreg").fit(features), featx.load_backbone("lenet5"))
    with pytest.raises(SettingsError, match="expected a whole number above 0"):
        explain(model, "x.png", count=count)  # type: ignore[arg-type]
