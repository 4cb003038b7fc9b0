"""Nearest class means, against scikit-learn and means of the remaining rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.model_selection import KFold
from sklearn.neighbors import NearestCentroid

from featx.errors import HeadError
from featx.heads.estimators.centroid import NearestCentroidEstimator
from featx.heads.training_data import Rows, TrainingData, statistics


def draw(n: int, dim: int, *, count: int = 3, folds: int = 3) -> TrainingData:
    """Draw overlapping classes; weights from 0.2 to 2."""
    rng = np.random.default_rng(n * dim + count)
    X = rng.normal(size=(n, dim)).astype(np.float32)
    y = np.arange(n) % count
    X[np.arange(n), y] += 1
    mean, scale = statistics(X)
    parts = tuple(KFold(folds, shuffle=True, random_state=0).split(X))
    return TrainingData(Rows(X, mean=mean, scale=scale), y, count, "classification", rng.uniform(0.2, 2, n), parts)


def test_a_centroid_head_predicts_the_classes_of_scikit_learn() -> None:
    training = draw(90, 7, count=4)
    training.weight[:] = 1
    Z = training.rows.whole(np.float64)
    scores = NearestCentroidEstimator().fit(training, 0.0).decision_function(Z)
    np.testing.assert_array_equal(scores.argmax(1), NearestCentroid().fit(Z, training.y).predict(Z))


def test_class_means_are_weighted_and_scores_differ_as_squared_distances_do() -> None:
    training = draw(90, 7, count=4)
    Z = training.rows.whole(np.float64)
    centres = [np.average(Z[training.y == c], axis=0, weights=training.weight[training.y == c]) for c in range(4)]
    distances = ((Z[:, None, :] - np.array(centres)) ** 2).sum(axis=2)
    scores = NearestCentroidEstimator().fit(training, 0.0).decision_function(Z)
    np.testing.assert_allclose(scores - scores[:, :1], (distances[:, :1] - distances) / 2, atol=1e-10)


def test_held_out_rows_are_scored_by_the_means_of_the_other_folds() -> None:
    training = draw(90, 7, count=4)
    ((candidate, scores),) = NearestCentroidEstimator().cross_val_scores(training, (0.0,))
    assert candidate == 0.0
    for train, test in training.folds:
        expected = (
            NearestCentroidEstimator()
            .fit(training.take(train), 0.0)
            .decision_function(training.rows.block(test, np.float64))
        )
        np.testing.assert_allclose(scores[test], expected, atol=1e-10)


def test_a_row_that_no_fold_holds_out_is_in_each_mean_and_has_no_score() -> None:
    training = draw(90, 7)
    always, free = np.arange(5), np.arange(5, 90)
    folds = tuple((np.concatenate([always, free[free % 2 != fold]]), free[free % 2 == fold]) for fold in range(2))
    training = dataclasses.replace(training, folds=folds)
    ((_, means),) = NearestCentroidEstimator().cross_val_scores(training, (0.0,))
    assert np.isnan(means[always]).all()
    for train, test in folds:
        expected = (
            NearestCentroidEstimator()
            .fit(training.take(train), 0.0)
            .decision_function(training.rows.block(test, np.float64))
        )
        np.testing.assert_allclose(means[test], expected, atol=1e-10)


def test_a_class_without_rows_of_a_weight_above_0_comes_last() -> None:
    training = draw(90, 30, count=4)
    training.weight[training.y == 2] = 0.0
    predictor = NearestCentroidEstimator().fit(training, 0.0)
    scores = predictor.decision_function(training.rows.whole(np.float64))
    assert np.isfinite(scores).all()
    assert (scores.argmin(axis=1) == 2).all()


def test_a_centroid_head_for_another_task_is_refused() -> None:
    with pytest.raises(HeadError, match="is for classification, not for regression; --model ridge or knn can do it"):
        NearestCentroidEstimator().fit(dataclasses.replace(draw(30, 7), task="regression"), 0.0)
