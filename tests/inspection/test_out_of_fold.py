"""Out-of-fold predictions of labelled images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made import EVERY_HEAD, HEADS, in_views, photos
from made_heads import measured, tagged

from featx.errors import HeadError
from featx.heads.head import Head
from featx.inspection import out_of_fold
from featx.inspection.out_of_fold import OutOfFold, label_strings, predict_out_of_fold


@EVERY_HEAD
def test_every_kind_of_head_predicts_every_image_out_of_fold(name: str) -> None:
    features = photos(train=12, test=5, gap=4.0)
    found = predict_out_of_fold(features, Head(**HEADS[name]))
    assert found.rows.tolist() == list(range(len(features)))
    assert np.isfinite(found.outputs).all()
    np.testing.assert_allclose(found.outputs.sum(axis=1), 1)
    assert np.mean(found.outputs.argmax(axis=1) == found.y) > 0.9
    assert set(found.fold) == set(range(5))
    assert found.head.n_train_ == len(features)


def test_an_image_is_predicted_without_itself() -> None:
    """A head that knows its training images by heart is right about them only if it saw them."""
    features = photos(train=40, test=0, gap=0.0, dim=200)
    found = predict_out_of_fold(features, Head("logreg", C=1e4))
    assert found.head.judge(features, rows=found.rows)[0].accuracy == 1
    assert np.mean(found.outputs.argmax(axis=1) == found.y) < 0.5


def test_a_prediction_is_that_of_a_head_fitted_to_the_other_folds() -> None:
    features = photos(train=40, test=0, gap=1.0)
    found = predict_out_of_fold(features, Head("logreg", C=0.01))
    for fold in range(5):
        test = found.rows[found.fold == fold]
        refit = Head("logreg", C=0.01).fit(features, rows=np.setdiff1d(found.rows, test))
        # The features are standardised by all rows in one case, and by those of the other folds in the other.
        np.testing.assert_allclose(found.outputs[test], refit.predict_rows(features, test), atol=0.06)


def test_copies_and_groups_never_straddle_a_fold() -> None:
    features = photos(train=40, test=0)
    keys = features.keys.copy()
    keys[30:33] = keys[0]
    groups = np.array(["a" if row in (5, 50, 90) else "" for row in range(len(features))], dtype=object)
    found = predict_out_of_fold(
        dataclasses.replace(features, keys=keys, groups=groups, group="patient"), Head("logreg")
    )
    for together in ([0, 30, 31, 32], [5, 50, 90]):
        assert len(set(found.fold[together])) == 1
        assert len(set(found.groups[together])) == 1


@pytest.mark.parametrize("make", [tagged, measured])
def test_other_tasks_and_views(make: object) -> None:
    features = make(train=60, test=20)  # type: ignore[operator]
    task = "multilabel" if make is tagged else "regression"
    for some in (features, in_views(features)):
        found = predict_out_of_fold(some, Head(task=task))
        assert found.task == task
        assert found.outputs.shape == found.y.shape == (80, len(found.classes))
        assert found.given.tolist() == [features.classes[label] for label in features.labels]
        error = np.abs(found.outputs - found.y).mean()
        assert error < (0.25 if task == "multilabel" else 0.7 * np.abs(found.y - found.y.mean()).mean())


def test_unlabelled_pretraining_and_broken_images_take_no_part() -> None:
    features = photos(train=20, test=5)
    features.labels[0] = -1
    features.splits[1] = "pretrain"
    features.features[2] = np.nan
    features.splits[3] = "later"
    found = predict_out_of_fold(features, Head("logreg"))
    assert found.rows.tolist() == list(range(3, len(features)))
    assert found.left_out == 1
    assert np.isfinite(found.outputs).all()


def test_the_only_image_of_a_class_is_left_out() -> None:
    features = photos(train=10, test=0)
    only = dataclasses.replace(features, classes=(*features.classes, "dog"))
    only.labels[0] = 3
    found = predict_out_of_fold(only, Head("logreg"))
    assert 0 not in found.rows
    assert found.left_out == 1
    assert found.outputs.shape == (29, 4)


def test_of_many_images_the_hyper_parameter_is_chosen_on_some_and_all_are_predicted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = photos(train=60, test=0, gap=1.0)
    whole = {kind: predict_out_of_fold(features, Head(kind)) for kind in ("logreg", "knn", "centroid")}
    monkeypatch.setattr(out_of_fold, "MOST_SEARCHED", 90)
    for kind, all_searched in whole.items():
        head = Head(kind)
        found = predict_out_of_fold(features, head)
        assert found.rows.tolist() == list(range(len(features)))
        np.testing.assert_array_equal(found.fold, all_searched.fold)
        assert np.mean(np.abs(found.outputs - all_searched.outputs)) < 0.1
        assert head.get_params() == Head(kind).get_params()
        assert head.n_train_ == len(features)
        again = predict_out_of_fold(features, Head(kind))
        np.testing.assert_array_equal(found.outputs, again.outputs)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": np.full(60, -1)}, "there are no labelled images to learn from"),
        ({"labels": np.zeros(60, dtype=np.int64)}, "this set has one class only"),
        ({"features": np.full((60, 6), np.nan)}, "all labelled images are NaN or infinite"),
        ({"keys": np.ones((60, 16), dtype=np.uint8)}, "no labelled image can be held out"),
    ],
)
def test_what_cannot_be_predicted_is_an_error_in_words(change: dict[str, np.ndarray], match: str) -> None:
    features = dataclasses.replace(photos(train=20, test=0), **change)
    with pytest.raises(HeadError, match=match):
        predict_out_of_fold(features, Head("logreg"))


def test_two_images_of_two_classes_cannot_be_predicted() -> None:
    features = photos(train=1, test=0, classes=("ant", "bee"))
    with pytest.raises(HeadError, match="no labelled image can be held out"):
        predict_out_of_fold(features, Head("logreg"))


def test_fields_that_are_not_given_follow_from_the_others() -> None:
    found = OutOfFold(np.array([2, 5]), np.array([0, 1]), np.eye(2), ("ant", "bee"), "classification", Head())
    assert found.given.tolist() == ["ant", "bee"]
    assert found.groups.tolist() == [0, 1]
    assert found.fold.tolist() == [0, 0]
    assert label_strings(np.array([[1.5], [2e7]]), ("value",), "regression").tolist() == ["1.5", "2e+07"]


def test_rare_classes_are_among_the_images_that_choose_the_hyper_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    features = photos(train=60, test=0, gap=3.0)
    features.labels[:] = 0
    features.labels[:5] = 1
    monkeypatch.setattr(out_of_fold, "MOST_SEARCHED", 30)
    found = predict_out_of_fold(features, Head("logreg"))
    assert len(found.rows) == len(features)


def test_the_skill_is_that_beyond_the_mean() -> None:
    labels, noise = (predict_out_of_fold(photos(gap=gap), Head("logreg")).skill for gap in (4.0, 0.0))
    assert labels > 0.9
    assert noise < 0.05
    numbers = predict_out_of_fold(measured(noise=0.1), Head(task="regression"))
    assert numbers.skill == pytest.approx(1 - np.var(numbers.outputs - numbers.y) / np.var(numbers.y), abs=0.01)
    constant = OutOfFold(np.arange(2), np.array([[1.0], [1.0]]), np.ones((2, 1)), ("value",), "regression", Head())
    assert constant.skill == 0
