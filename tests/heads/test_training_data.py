"""What a head is fitted to, and the cross-validation of models whose fits share nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from featx.heads.predictors import LinearPredictor
from featx.heads.training_data import Rows, TrainingData, fold_by_fold, statistics


@dataclass
class Mean:
    """Scores every row by the weighted mean of the training rows' features, times the candidate."""

    seen: list[TrainingData] = field(default_factory=list)
    candidates = (1.0, 2.0)

    def fit(self, training: TrainingData, candidate: float) -> LinearPredictor:
        self.seen.append(training)
        Z = training.rows.whole(np.float64)
        weight = np.tile(candidate * np.average(Z, axis=0, weights=training.weight), (training.count, 1))
        return LinearPredictor(weight * np.arange(1, training.count + 1)[:, None], np.zeros(training.count))


def draw(task: str = "classification") -> TrainingData:
    rng = np.random.default_rng(0)
    X = rng.normal(3, 2, (31, 4)).astype(np.float32)
    mean, scale = statistics(X)
    y = {
        "classification": rng.integers(0, 3, 30),
        "multilabel": rng.integers(0, 2, (30, 3)).astype(np.float32),
        "regression": rng.normal(size=(30, 3)),
    }[task]
    rows = Rows(X, np.arange(30)[::-1] + 1, mean=mean, scale=scale)
    free = np.arange(3, 30)  # rows 0 to 2 are never held out
    folds = tuple((np.setdiff1d(np.arange(30), free[k::4]), free[k::4]) for k in range(4))
    return TrainingData(rows, y, 3, task, rng.uniform(0.5, 2, 30), folds, seed=7, grouped=True)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_some_rows_of_a_training_are_those_rows_without_folds(task: str) -> None:
    training, some = draw(task), np.array([4, 0, 29])
    taken = training.take(some)
    assert len(training) == 30
    assert len(taken) == len(taken.rows) == 3
    np.testing.assert_array_equal(taken.rows.whole(), training.rows.whole()[some])
    np.testing.assert_array_equal(taken.y, training.y[some])
    np.testing.assert_array_equal(taken.weight, training.weight[some])
    assert taken.folds == ()
    assert (taken.count, taken.task, taken.seed, taken.grouped) == (3, task, 7, True)


def test_fold_by_fold_scores_each_row_by_a_fit_that_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Rows.blocks.__kwdefaults__, "most", 100)  # blocks of a few rows
    training = draw()
    Z = training.rows.whole(np.float64)
    found = list(fold_by_fold(Mean(), training, (1.0, 2.0)))
    assert [candidate for candidate, _ in found] == [1.0, 2.0]
    for candidate, scores in found:
        expected = np.full((30, 3), np.nan)
        for train, test in training.folds:
            mean = candidate * np.average(Z[train], axis=0, weights=training.weight[train])
            expected[test] = (Z[test] @ mean)[:, None] * [1, 2, 3]
        np.testing.assert_allclose(scores, expected, rtol=1e-10)
        assert np.isnan(scores[:3]).all()
        assert not np.isnan(scores[3:]).any()


def test_fold_by_fold_fits_once_for_each_candidate_and_fold_as_they_are_asked_for() -> None:
    model, training = Mean(), draw()
    scores = fold_by_fold(model, training, (1.0, 2.0))
    next(scores)
    assert len(model.seen) == 4
    assert all(seen.folds == () for seen in model.seen)
    list(scores)
    assert len(model.seen) == 8


def test_fold_by_fold_without_folds_scores_nothing() -> None:
    training = draw().take(np.arange(10))
    ((_, scores),) = fold_by_fold(Mean(), training, (1.0,))
    assert np.isnan(scores).all()
    assert scores.shape == (10, 3)
