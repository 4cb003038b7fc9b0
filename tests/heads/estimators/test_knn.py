"""The estimator of k nearest neighbours, against scikit-learn and computation by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from featx.errors import HeadError
from featx.heads import nearest
from featx.heads.estimators import knn
from featx.heads.estimators.knn import KNearestEstimator
from featx.heads.postprocess import fit_scale
from featx.heads.search import losses
from featx.heads.training_data import Rows, TrainingData, statistics

TASKS = pytest.mark.parametrize(("task", "count"), [("classification", 4), ("multilabel", 3), ("regression", 2)])


def draw(n: int, dim: int, *, task: str = "classification", count: int = 3, folds: int = 3) -> TrainingData:
    """Draw overlapping classes, labels or targets; weights from 0.2 to 2."""
    rng = np.random.default_rng(n * dim + count)
    X = rng.normal(size=(n, dim)).astype(np.float32)
    if task == "classification":
        y = np.arange(n) % count
        X[np.arange(n), y] += 1
    elif task == "multilabel":
        y = (X[:, :count] + rng.normal(size=(n, count)) > 0).astype(np.float32)
    else:
        y = 5 + X[:, :1].astype(float) + rng.normal(size=(n, count))
    mean, scale = statistics(X)
    parts = tuple(KFold(folds, shuffle=True, random_state=0).split(X))
    return TrainingData(Rows(X, mean=mean, scale=scale), y, count, task, rng.uniform(0.2, 2, n), parts)


def by_hand(training: TrainingData, train: np.ndarray, test: np.ndarray, k: int, temperature: float) -> np.ndarray:
    """Score test rows by training rows, one row at a time in float64: (n, C)."""
    Z = training.rows.whole(np.float64)
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    out = np.empty((len(test), training.count))
    for at, row in enumerate(test):
        cosine = Z[train] @ Z[row]
        found = np.argsort(-cosine, kind="stable")[:k]
        vote = training.weight[train][found] * np.exp((cosine[found] - cosine[found[0]]) / temperature)
        y = training.y[train][found]
        if training.task == "classification":
            tally = np.array([vote[y == label].sum() for label in range(training.count)])
            out[at] = np.log((tally + 1 / training.count) / (vote.sum() + 1))
        elif training.task == "multilabel":
            out[at] = np.log((vote @ y + 0.5) / (vote @ (1 - y) + 0.5))
        else:
            out[at] = np.average(y, axis=0, weights=vote)
    return out


@TASKS
@pytest.mark.parametrize("temperature", [math.inf, 0.1])
def test_held_out_rows_are_scored_by_the_rows_of_the_other_folds(task: str, count: int, temperature: float) -> None:
    training = draw(90, 7, task=task, count=count)
    found = dict(KNearestEstimator(temperatures=(temperature,)).cross_val_scores(training, (500.0, 10.0, 1.0)))
    assert tuple(found) == (500.0, 10.0, 1.0)
    for k, scores in found.items():
        for train, test in training.folds:
            np.testing.assert_allclose(scores[test], by_hand(training, train, test, int(k), temperature), atol=1e-5)


@TASKS
def test_a_fit_scores_as_by_hand(task: str, count: int) -> None:
    training = draw(90, 7, task=task, count=count)
    few = training.take(np.arange(60))
    predictor = KNearestEstimator(temperatures=(0.1,)).fit(few, 7.0)
    expected = by_hand(training, np.arange(60), np.arange(60, 90), 7, 0.1)
    np.testing.assert_allclose(predictor.decision_function(training.rows.whole()[60:]), expected, atol=1e-5)


def test_equal_votes_are_the_shares_of_scikit_learn() -> None:
    training = draw(90, 7, count=4)
    training.weight[:] = 1
    Z = training.rows.whole()
    scores = KNearestEstimator(temperatures=(math.inf,)).fit(training, 5.0).decision_function(Z)
    shares = KNeighborsClassifier(5, metric="cosine").fit(Z, training.y).predict_proba(Z)
    np.testing.assert_allclose(np.exp(scores), (5 * shares + 1 / 4) / 6, atol=1e-12)


def test_targets_have_the_means_of_scikit_learn() -> None:
    training = draw(90, 7, task="regression", count=2)
    training.weight[:] = 1
    Z = training.rows.whole()
    scores = KNearestEstimator(temperatures=(math.inf,)).fit(training, 5.0).decision_function(Z)
    np.testing.assert_allclose(scores, KNeighborsRegressor(5, metric="cosine").fit(Z, training.y).predict(Z))


def loss(training: TrainingData, scores: np.ndarray) -> float:
    """The weighted held-out loss by which the temperature of the votes is chosen: once the shares of votes are calibrated."""
    if training.task == "regression":
        each = ((scores - training.y) ** 2 / training.y.var(axis=0)).mean(axis=1)
    else:
        temperature, shift = fit_scale(scores, training.y, training.task, weight=training.weight)
        each = losses(scores / temperature - shift, training.y, training.task, smoothed=True)
    return float(np.average(each, weights=training.weight))


@TASKS
def test_each_k_gets_the_temperature_of_least_held_out_loss(task: str, count: int) -> None:
    training, model, temperatures = (
        draw(150, 7, task=task, count=count),
        KNearestEstimator(),
        (math.inf, 0.2, 0.07, 0.02),
    )
    chosen = set()
    for k, scores in model.cross_val_scores(training, model.candidates):
        by_temperature = {}
        for temperature in temperatures:
            ((_, alone),) = KNearestEstimator(temperatures=(temperature,)).cross_val_scores(training, (k,))
            by_temperature[temperature] = loss(training, alone)
        assert loss(training, scores) == pytest.approx(min(by_temperature.values()))
        sharpness = float(model.fit(training, k).sharpness)
        assert by_temperature[1 / sharpness if sharpness else math.inf] == pytest.approx(min(by_temperature.values()))
        chosen.add(sharpness)
    assert len(chosen) > 1


def test_a_given_k_has_the_temperature_that_a_search_would_choose() -> None:
    training, searched = draw(150, 7), KNearestEstimator()
    list(searched.cross_val_scores(training, (7.0,)))
    assert KNearestEstimator().fit(training, 7.0).sharpness == searched.fit(training, 7.0).sharpness
    assert searched.fit(training, 7.0).k == 7


def test_without_folds_the_default_temperature_is_used() -> None:
    training = dataclasses.replace(draw(30, 7), folds=())
    assert float(KNearestEstimator().fit(training, 7.0).sharpness) == pytest.approx(1 / 0.07)


def test_temperatures_chosen_on_other_rows_are_not_reused() -> None:
    model, one, other = KNearestEstimator(), draw(150, 7), draw(90, 30)
    list(model.cross_val_scores(one, model.candidates))
    for k in model.candidates:
        assert model.fit(other, k).sharpness == KNearestEstimator().fit(other, k).sharpness


def test_a_fit_stores_rows_of_length_1_and_no_more_neighbours_than_rows() -> None:
    training = draw(30, 7)
    predictor = KNearestEstimator().fit(training, 200.0)
    assert predictor.k == 30
    assert predictor.support.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(predictor.support, axis=1), 1, atol=1e-6)
    assert predictor.support_labels.dtype == np.int64
    labels = KNearestEstimator().fit(draw(30, 7, task="multilabel"), 3.0)
    assert labels.support_labels.dtype == np.uint8
    assert labels.support_labels.shape == (30, 3)


@TASKS
def test_rows_of_weight_0_are_scored_but_have_no_vote(task: str, count: int) -> None:
    training = draw(90, 7, task=task, count=count)
    no_vote = np.arange(90) % 4 == 1
    training.weight[no_vote] = 0.0
    model = KNearestEstimator(temperatures=(0.1,))
    ((_, scores),) = model.cross_val_scores(training, (5.0,))
    for train, test in training.folds:
        np.testing.assert_allclose(scores[test], by_hand(training, train[~no_vote[train]], test, 5, 0.1), atol=1e-5)
    assert len(model.fit(training, 5.0).support) == 90 - no_vote.sum()


def test_a_row_that_no_fold_holds_out_votes_in_each_and_has_no_score() -> None:
    training = draw(90, 7)
    always, free = np.arange(5), np.arange(5, 90)
    folds = tuple((np.concatenate([always, free[free % 2 != fold]]), free[free % 2 == fold]) for fold in range(2))
    training = dataclasses.replace(training, folds=folds)
    ((_, scores),) = KNearestEstimator(temperatures=(0.1,)).cross_val_scores(training, (5.0,))
    assert np.isnan(scores[always]).all()
    for train, test in folds:
        np.testing.assert_allclose(scores[test], by_hand(training, train, test, 5, 0.1), atol=1e-5)
    list(KNearestEstimator().cross_val_scores(training, (5.0,)))  # rows without a score have no part in the loss


@TASKS
def test_rows_of_zeros_have_finite_scores(task: str, count: int) -> None:
    training = dataclasses.replace(draw(30, 7, task=task, count=count), rows=Rows(np.zeros((30, 7))))
    model = KNearestEstimator()
    for k, scores in model.cross_val_scores(training, model.candidates):
        assert np.isfinite(scores).all()
        assert np.isfinite(model.fit(training, k).decision_function(np.zeros((2, 7)))).all()


def test_small_blocks_change_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    training = draw(90, 7)
    ((_, expected),) = KNearestEstimator().cross_val_scores(training, (5.0,))
    fitted = KNearestEstimator().fit(training, 5.0).decision_function(training.rows.whole())
    monkeypatch.setattr(nearest, "BLOCK_BYTES", 1)
    ((_, found),) = KNearestEstimator().cross_val_scores(training, (5.0,))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(
        KNearestEstimator().fit(training, 5.0).decision_function(training.rows.whole()), fitted, atol=1e-5
    )


def test_the_smoothest_candidate_comes_first() -> None:
    assert KNearestEstimator().candidates == (200, 100, 50, 20, 10, 5, 3, 1)


def test_more_rows_than_a_head_can_store_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "MAX_BYTES", 100)
    with pytest.raises(
        HeadError, match=r"stores every training row, which is 840 bytes for 30 rows; .* ridge or linear stores none"
    ):
        KNearestEstimator().fit(draw(30, 7), 5.0)


def test_rows_of_weight_0_alone_are_refused() -> None:
    training = draw(30, 7)
    training.weight[1:] = 0.0
    with pytest.raises(HeadError, match="no row outside a fold has a weight above 0"):
        list(KNearestEstimator().cross_val_scores(training, (1.0,)))
    training.weight[:] = 0.0
    with pytest.raises(HeadError, match="no row has a weight above 0"):
        KNearestEstimator().fit(dataclasses.replace(training, folds=()), 1.0)
