"""What judges a head: never an image that it was fitted to, and beside it the same answer for every image."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from made_heads import insects

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.seen import SeenImages, with_splits_of_head


def test_images_that_are_added_to_small_classes_let_no_training_image_judge_a_head() -> None:
    moved = 0
    for first in range(0, 600, 50):
        head = Head("centroid").fit(insects(12, first=first))
        later = insects(48, first=first)
        report, rows, _ = head.judge(later)
        trained = set(map(bytes, head.train_keys_))
        assert not any(bytes(key) in trained for key in later.keys[rows])
        known = sum(bytes(key) in trained for key in later.keys[later.splits == "test"])
        notes = [note for note in report.notes if "not judge this head, which was fitted to" in note]
        assert len(notes) == (known > 0)
        assert report.n == (later.splits == "test").sum() - known
        moved += known
    assert moved > 0, "else this shows nothing"


def test_a_group_of_a_training_image_judges_nothing_either() -> None:
    features = insects(60)
    head = Head("centroid").fit(features)
    groups = np.array([f"g{row}" for row in range(60)], dtype=object)
    test = np.flatnonzero(features.splits == "test")
    column = groups.copy()
    column[test[:2]] = "both"  # one of them was trained on, by a split of an earlier featx
    keys = np.r_[head.train_keys_, features.keys[test[:1]]]
    later = dataclasses.replace(features, groups=column, group="nest")
    split, notes = with_splits_of_head(later, "classification", SeenImages(keys))
    assert not np.isin(split.splits[test[:2]], ["test", "val"]).any()
    assert "val" in notes or "test" in notes


def test_splits_that_the_data_set_names_and_a_split_of_training_images_alone_stay() -> None:
    features = insects(60)
    given = dataclasses.replace(features, dataset={"splits": "given"})
    everything = SeenImages(features.keys)
    assert with_splits_of_head(given, "classification", everything)[0].splits is given.splits
    split, notes = with_splits_of_head(features, "classification", everything)
    assert (split.splits.tolist(), notes) == (features.splits.tolist(), {})


def test_the_baseline_is_the_commonest_class_of_the_training_images(tmp_path: Path) -> None:
    features = insects(80)
    head = Head("logreg").fit(features)
    report = head.evaluate(features)
    assert head.constant_ == "ant"
    assert report.baseline.share == np.mean(features.labels[features.splits == "test"] == 0)
    assert report.baseline.is_trained
    assert "; always 'ant' 0.5" in str(report)
    loaded = Head.load(head.save(tmp_path / "head.safetensors"))
    assert loaded.evaluate(features).as_dict() == report.as_dict()
    assert loaded.constant_ == "ant"


@pytest.mark.parametrize(("gap", "shown"), [(0.0, False), (4.0, True)])
def test_a_head_that_is_not_shown_to_beat_its_baseline_is_noted(gap: float, shown: bool) -> None:
    report = Head("ridge").fit(insects(160, gap=gap)).evaluate(insects(160, gap=gap))
    said = any("is not shown to be better than always answering 'ant'" in note for note in report.notes)
    assert said == (not shown)
    assert report.baseline.is_beaten == shown


@pytest.mark.parametrize("gap", [0.0, 4.0])
def test_labels_and_numbers_have_a_baseline_too(gap: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4)).astype(np.float32)
    labels = [
        "|".join(name for name, x in zip("ab", row, strict=False) if x + rng.normal() * (5 - gap) > 0) or "|"
        for row in X
    ]
    several = FeatureSet.from_arrays(X, labels)
    head = Head("logreg", task="multilabel").fit(several)
    report = head.evaluate(several)
    truth = report.as_dict()
    assert 0 < truth["baseline_mAP"] < 1
    assert truth["baseline_answer"] == ("|".join(head.constant_) or "|")
    numbers = FeatureSet.from_arrays(X, gap * X[:, 0] + rng.normal(size=200))
    head = Head("ridge", task="regression").fit(numbers)
    assert head.constant_ == pytest.approx(float(np.mean(numbers_of(numbers))), abs=0.5)
    report = head.evaluate(numbers)
    assert any("always predicting the mean target" in note for note in report.notes) == (gap == 0)


def numbers_of(features: FeatureSet) -> list[float]:
    return [float(features.classes[label]) for label in features.labels[features.splits == "train"]]
