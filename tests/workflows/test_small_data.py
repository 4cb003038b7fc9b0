"""The cross-validation that a fit adds where few images are held out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from made import photos

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.workflows.fit import fit_head
from featx.workflows.head_list import list_heads
from featx.workflows.small_data import cross_validates

few = pytest.mark.few


@few
def test_a_fit_with_few_held_out_images_is_cross_validated_and_that_number_is_stored(tmp_path: Path) -> None:
    fit = fit_head(photos(gap=1.0), "ridge", models=tmp_path)
    crossed = fit.cross_validated
    assert (crossed.repeats, crossed.folds, crossed.n, crossed.is_automatic) == (4, 5, 105, True)
    (note,) = [note for note in fit.notes if "to quote" in note]
    assert note.startswith(
        "the split test has only 45 images, so the accuracy to quote is the cross-validated one, on all 105 labelled images "
    )
    assert note.endswith(" s; --cv none leaves it out)")
    found = json.loads(json.dumps(fit.as_dict(), allow_nan=False))["cross_validated"]
    assert found["automatic"] is True
    assert found["estimates"].startswith("what heads fitted to 80 % of so many images reach")
    (entry,) = list_heads(tmp_path)
    assert entry.cross_validated.value == crossed.mean("accuracy")
    assert entry.cross_validated.interval == pytest.approx(crossed.interval("accuracy"))


@few
def test_options_that_name_a_cross_validation_or_none_win(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    none = fit_head(features, "ridge", cv=0, models=tmp_path)
    assert none.cross_validated is None
    assert any(note.endswith("--cv 5 --repeat 4 judges by all labelled images") for note in none.notes)
    asked = fit_head(features, "ridge", cv=3, models=tmp_path)
    assert (asked.cross_validated.repeats, asked.cross_validated.folds) == (1, 3)
    assert not asked.cross_validated.is_automatic
    assert not any("--cv none" in note for note in asked.notes)


@few
def test_what_takes_long_or_helps_little_is_not_cross_validated_by_itself() -> None:
    features = photos(gap=1.0)
    head = Head("ridge").fit(features)
    assert cross_validates(features, head, held_out=199)
    assert not cross_validates(features, head, held_out=200)
    assert not cross_validates(features, head, held_out=0)
    assert not cross_validates(features, Head("linear").fit(features), held_out=20)
    wide = dataclasses.replace(features, features=np.zeros((len(features), 10**7), np.float32))
    assert not cross_validates(wide, head, held_out=20)


def of_splits(train: str, test: str) -> FeatureSet:
    """Features of classes that one letter names each, in each split."""
    labels = list(train + test)
    X = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    X[:, 0] += [3 * ord(label) for label in labels]
    return FeatureSet.from_arrays(X, labels, splits=["train"] * len(train) + ["test"] * len(test))


@few
@pytest.mark.parametrize(
    ("train", "test", "more"),
    [
        ("ab", "a" * 6 + "b" * 6, "6 images of 'a', the saved one to 1"),
        ("a" * 20 + "b", "a" * 5 + "b" * 6, "6 images of 'b', the saved one to 1"),
        ("a" * 4 + "b" * 4, "a" * 8 + "b" * 8, "10 images of 'a', the saved one to 4"),
        ("aabb", "abb", ""),
        ("a" * 8 + "b" * 8 + "ccd", "a" * 2 + "b" * 2 + "cd", ""),
        ("a" * 8 + "b" * 8 + "c", "a" * 2 + "b" * 2 + "cc", ""),
    ],
)
def test_heads_of_many_more_images_of_a_class_do_not_stand_for_this_one(
    train: str, test: str, more: str, tmp_path: Path
) -> None:
    features = of_splits(train, test)
    fit = fit_head(features, "ridge", models=tmp_path)
    assert (fit.cross_validated is None) == bool(more)
    assert any(f"would judge heads fitted to about {more}" in note for note in fit.notes) == bool(more)
    asked = fit_head(features, "ridge", cv=5, models=tmp_path)
    noted = [note for note in asked.notes if note.startswith("the cross-validated heads are fitted to about")]
    assert [note for note in noted if more in note] == noted
    assert len(noted) == bool(more)
    assert not any("alone do not show" in note for note in asked.notes if more)


@few
def test_an_accuracy_of_one_class_alone_is_not_reported(tmp_path: Path) -> None:
    features = of_splits("aab", "a")
    fit = fit_head(features, "ridge", models=tmp_path)
    assert fit.cross_validated is None
    assert any("and there are too few images for a cross-validation" in note for note in fit.notes)
    with pytest.raises(
        HeadError, match="cross-validation needs two classes or more, each with two images or more that"
    ):
        fit_head(features, "ridge", cv=2, models=tmp_path)


@few
def test_held_out_images_that_are_much_harder_are_noted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4)).astype(np.float32)
    y = np.arange(400) % 2
    X[:, 0] += 6 * y
    held_out = np.arange(400) >= 340
    X[held_out, 0] = 6 * (1 - y[held_out])  # another camera
    features = FeatureSet.from_arrays(X, ["ab"[label] for label in y], splits=np.where(held_out, "test", "train"))
    fit = fit_head(features, "centroid", models=tmp_path)
    assert any(
        "the images of split test are harder than the others: accuracy 0.0000 there" in note for note in fit.notes
    )


@few
def test_labels_that_cannot_be_cross_validated_do_not_stop_a_fit(tmp_path: Path) -> None:
    X = np.arange(8, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    features = FeatureSet.from_arrays(
        X, list("aaabbbcd"), splits=["train", "train", "test", "train", "train", "test", "train", "train"]
    )
    fit = fit_head(features, "centroid", models=tmp_path)
    assert fit.report is not None


@few
@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_labels_and_numbers_are_cross_validated_too(task: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(90, 4)).astype(np.float32)
    y = X[:, 0] * 3 if task == "regression" else ["|".join(np.array(["p", "q"])[row[:2] > 0]) or "|" for row in X]
    fit = fit_head(FeatureSet.from_arrays(X, y), Head("ridge", task=task), models=tmp_path)
    name, value = fit.cross_validated.headline
    low, high = fit.cross_validated.interval({"mAP": "mAP", "RMSE": "rmse"}[name])
    assert low <= value <= high


@few
def test_images_that_cross_validation_leaves_out_are_not_among_all(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    features = features.take(np.setdiff1d(np.arange(105), np.flatnonzero(features.labels == 2)[1:]))
    fit = fit_head(features, "ridge", models=tmp_path)
    (note,) = [note for note in fit.notes if "to quote" in note]
    assert f"on {fit.cross_validated.n} of {fit.cross_validated.n + 1} labelled images (" in note


@few
def test_a_small_split_is_no_verdict_where_cross_validation_shows_the_head_to_be_better(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    tests = np.flatnonzero(features.splits == "test")
    few = features.take(np.sort(np.concatenate([np.flatnonzero(features.splits == "train"), tests[:3]])))
    fit = fit_head(few, "ridge", models=tmp_path)
    assert fit.cross_validated.is_better_than_baseline
    assert not fit.report.baseline.is_beaten
    assert not any("the model is not shown to be better" in note for note in fit.notes)
    assert any("the 3 images of split test alone do not show" in note for note in fit.notes)


@few
def test_every_fold_is_compared_with_the_commonest_class_of_the_training_images(tmp_path: Path) -> None:
    features = photos(gap=1.0)
    labels = features.labels.copy()
    labels[features.splits == "test"] = 2  # the commonest of all images, not of the training images
    labels[:3] = 1
    fit = fit_head(dataclasses.replace(features, labels=labels), "ridge", cv=5, repeat=4, models=tmp_path)
    assert fit.report.baseline.answer == "bee"
    assert fit.cross_validated.baseline_text.startswith("always 'bee' 0.2")
    assert {each.answer for each in fit.cross_validated.baseline} == {"bee"}
