"""Ridge regression against brute force: one fit of scikit-learn for each row that is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeClassifier, RidgeCV
from sklearn.model_selection import KFold

from featx.errors import HeadError
from featx.heads import training_data
from featx.heads.estimators import ridge
from featx.heads.estimators.ridge import RidgeEstimator
from featx.heads.training_data import Rows, TrainingData, statistics

SHAPES = pytest.mark.parametrize(("n", "dim"), [(60, 7), (24, 40), (20, 20), (21, 20)])
TASKS = pytest.mark.parametrize(
    ("task", "count"), [("classification", 2), ("classification", 4), ("multilabel", 3), ("regression", 2)]
)
STRENGTHS = (1e-4, 0.1, 1e3)


def draw(n: int, dim: int, *, task: str = "classification", count: int = 3, dtype: type = np.float32) -> TrainingData:
    """Draw correlated features, with a constant column and one that is 0 in all rows but one; weights from 0.2 to 2."""
    rng = np.random.default_rng(n * dim + count)
    X = (rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) + 3).astype(dtype)
    X[:, 0], X[:, 1] = 2.5, 0.0
    X[3, 1] = 1.0
    if task == "classification":
        y = rng.integers(0, count, n)
    elif task == "multilabel":
        y = rng.integers(0, 2, (n, count)).astype(np.float32)
    else:
        y = 1e3 + 20 * X[:, 2:3].astype(float) + rng.normal(size=(n, count))
    mean, scale = statistics(X)
    return TrainingData(Rows(X, mean=mean, scale=scale), y, count, task, rng.uniform(0.2, 2, n))


def folded(training: TrainingData, folds: int = 3, *, grouped: bool = True) -> TrainingData:
    """Add folds, which are used if ``grouped``; otherwise leave-one-out is."""
    split = KFold(folds, shuffle=True, random_state=0).split(np.zeros(len(training)))
    return dataclasses.replace(training, folds=tuple(split), grouped=grouped)


def targets(training: TrainingData) -> np.ndarray:
    """The (N, C) targets of ridge regression: -1 and 1, or those of a regression."""
    if training.task == "regression":
        return training.y
    has = training.y[:, None] == np.arange(training.count) if training.task == "classification" else training.y > 0
    return np.where(has, 1.0, -1.0)


def reference(training: TrainingData, train: np.ndarray, test: np.ndarray, C: float) -> np.ndarray:
    """Score test rows by scikit-learn's ``Ridge``, fitted to training rows."""
    Z = training.rows.whole(np.float64)
    fit = Ridge(alpha=1 / (2 * C), solver="svd").fit(Z[train], targets(training)[train], training.weight[train])
    scores = fit.predict(Z[test])
    return scores / 2 if training.task == "classification" and training.count == 2 else scores


def brute_force(training: TrainingData, C: float, left_out: Sequence[np.ndarray]) -> np.ndarray:
    """Score each set of rows by a fit that leaves it out: (N, C)."""
    out = np.full((len(training), training.count), np.nan)
    for test in left_out:
        out[test] = reference(training, np.setdiff1d(np.arange(len(training)), test), test, C)
    return out


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * np.nanstd(expected))


@SHAPES
@TASKS
def test_a_fit_is_the_ridge_of_scikit_learn(n: int, dim: int, task: str, count: int) -> None:
    training = draw(n, dim, task=task, count=count)
    everything = np.arange(n)
    for C in STRENGTHS:
        predictor = RidgeEstimator().fit(training, C)
        assert predictor.weight.shape == (count, dim)
        assert_close(
            predictor.decision_function(training.rows.whole(np.float64)), reference(training, everything, everything, C)
        )


@pytest.mark.parametrize("count", [2, 4])
def test_penalties_are_those_of_the_ridge_classifier(count: int) -> None:
    training = draw(60, 7, count=count)
    Z = training.rows.whole(np.float64)
    expected = RidgeClassifier(alpha=1 / (2 * 0.1)).fit(Z, training.y, training.weight).decision_function(Z)
    scores = RidgeEstimator().fit(training, 0.1).decision_function(Z)
    np.testing.assert_allclose(scores[:, 1] - scores[:, 0] if count == 2 else scores, expected, atol=1e-9)


@SHAPES
@TASKS
def test_without_folds_each_row_is_scored_by_a_fit_to_all_others(n: int, dim: int, task: str, count: int) -> None:
    training = draw(n, dim, task=task, count=count)
    actual = dict(RidgeEstimator().cross_val_scores(training, STRENGTHS))
    assert tuple(actual) == STRENGTHS
    for C in STRENGTHS:
        assert_close(actual[C], brute_force(training, C, [np.array([row]) for row in range(n)]))


@SHAPES
def test_leave_one_out_scores_are_those_of_ridge_cv(n: int, dim: int) -> None:
    training = draw(n, dim, task="regression", count=1)
    Z, alphas = training.rows.whole(np.float64), [1 / (2 * C) for C in STRENGTHS]
    deviation = training.y.std()
    reference = RidgeCV(alphas, store_cv_results=True).fit(Z, training.y[:, 0] / deviation, training.weight)
    residuals = [(scores - training.y)[:, 0] for _, scores in RidgeEstimator().cross_val_scores(training, STRENGTHS)]
    expected = reference.cv_results_.reshape(n, len(alphas)).T  # squared, and times the weight
    actual = np.square(residuals) / deviation**2 * training.weight
    # At the smallest penalty RidgeCV itself is this far from brute force, to which the test above holds closely.
    np.testing.assert_allclose(actual, expected, rtol=1e-3)


@SHAPES
@TASKS
def test_rows_with_copies_are_scored_by_folds_and_never_by_leave_one_out(
    n: int, dim: int, task: str, count: int
) -> None:
    training = folded(draw(n, dim, task=task, count=count))
    for C, scores in RidgeEstimator().cross_val_scores(training, STRENGTHS):
        assert_close(scores, brute_force(training, C, [test for _, test in training.folds]))


def test_leave_one_out_is_used_instead_of_folds_without_copies() -> None:
    training = draw(30, 5)
    for (_, alone), (_, with_folds) in zip(
        RidgeEstimator().cross_val_scores(training, STRENGTHS),
        RidgeEstimator().cross_val_scores(folded(training, grouped=False), STRENGTHS),
        strict=True,
    ):
        np.testing.assert_array_equal(alone, with_folds)


@pytest.mark.parametrize(("n", "dim"), [(60, 7), (24, 40)])
def test_a_row_that_no_fold_holds_out_has_no_score_and_is_in_every_fit(n: int, dim: int) -> None:
    training = draw(n, dim)
    always, free = np.arange(5), np.arange(5, n)
    folds = tuple((np.concatenate([always, free[free % 2 != fold]]), free[free % 2 == fold]) for fold in range(2))
    training = dataclasses.replace(training, folds=folds, grouped=True)
    ((_, scores),) = RidgeEstimator().cross_val_scores(training, (0.1,))
    assert np.isnan(scores[always]).all()
    assert_close(scores, brute_force(training, 0.1, [test for _, test in folds]))


@pytest.mark.parametrize(("n", "dim"), [(60, 7), (24, 40)])
@pytest.mark.parametrize("grouped", [False, True])
def test_rows_of_weight_0_are_scored_and_change_nothing(n: int, dim: int, grouped: bool) -> None:
    training = folded(draw(n, dim), grouped=grouped)
    training.weight[training.y == 1] = 0.0
    left_out = [test for _, test in training.folds] if grouped else [np.array([row]) for row in range(n)]
    model = RidgeEstimator()
    for C, scores in model.cross_val_scores(training, STRENGTHS):
        assert_close(scores, brute_force(training, C, left_out))
        assert_close(scores[:, 1], np.full(n, -1.0))
    few = training.take(np.flatnonzero(training.weight > 0))
    assert_close(model.fit(training, 0.1).weight, RidgeEstimator().fit(few, 0.1).weight)


@pytest.mark.parametrize(("n", "dim"), [(60, 7), (24, 40)])
def test_a_weight_of_2_is_a_row_twice(n: int, dim: int) -> None:
    training = draw(n, dim)
    training.weight[:] = 1 + np.arange(n) % 2
    twice = training.take(np.repeat(np.arange(n), 1 + np.arange(n) % 2))
    twice.weight[:] = 1
    one, other = RidgeEstimator().fit(training, 0.1), RidgeEstimator().fit(twice, 0.1)
    np.testing.assert_allclose(one.weight, other.weight, atol=1e-10)
    np.testing.assert_allclose(one.bias, other.bias, atol=1e-10)


@pytest.mark.parametrize(("n", "dim"), [(60, 7), (24, 40)])
@pytest.mark.parametrize("grouped", [False, True])
def test_a_fit_after_a_search_is_the_fit_without_one(n: int, dim: int, grouped: bool) -> None:
    training, model = folded(draw(n, dim), grouped=grouped), RidgeEstimator()
    list(model.cross_val_scores(training, STRENGTHS))
    np.testing.assert_allclose(model.fit(training, 0.1).weight, RidgeEstimator().fit(training, 0.1).weight, atol=1e-12)
    other = training.take(np.arange(n - 1))
    np.testing.assert_array_equal(model.fit(other, 0.1).weight, RidgeEstimator().fit(other, 0.1).weight)


def test_small_blocks_and_few_penalties_per_pass_change_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = [folded(draw(60, 7), grouped=grouped) for grouped in (False, True)]
    expected = [list(RidgeEstimator().cross_val_scores(training, STRENGTHS)) for training in trainings]
    monkeypatch.setattr(ridge, "_SCORE_BYTES", (1, 1))
    monkeypatch.setattr(ridge, "_SUM_BYTES", 300)
    monkeypatch.setattr(ridge, "BLOCK_BYTES", 300)
    monkeypatch.setattr(Rows.blocks, "__kwdefaults__", {"most": 300})
    for training, scores in zip(trainings, expected, strict=True):
        for (_, actual), (_, other) in zip(RidgeEstimator().cross_val_scores(training, STRENGTHS), scores, strict=True):
            np.testing.assert_allclose(actual, other, atol=1e-10)


def test_rows_that_do_not_fit_in_memory_are_scored_by_folds_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    training = folded(draw(400, 30, dtype=np.float16), grouped=False)
    expected = brute_force(training, 0.1, [test for _, test in training.folds])
    monkeypatch.setattr(training_data, "MOST_IN_MEMORY", 0)
    monkeypatch.setattr(ridge, "_SUM_BYTES", 4000)
    model = RidgeEstimator()
    ((_, scores),) = model.cross_val_scores(training, (0.1,))
    assert_close(scores, expected, 1e-4)
    assert scores.dtype == np.float64
    assert_close(model.fit(training, 0.1).weight, RidgeEstimator().fit(training, 0.1).weight, 1e-4)


@pytest.mark.parametrize("dim", [3, 50])
@pytest.mark.parametrize("C", [1e-300, 1e6, 1e300])
def test_copies_and_constant_columns_give_finite_scores_at_any_penalty(dim: int, C: float) -> None:
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(10, dim)), 3, axis=0)
    X[:, 1:3] = 1.0, 0.0
    mean, scale = statistics(X)
    y = np.arange(30) % 2
    for grouped in (False, True):
        training = folded(
            TrainingData(Rows(X, mean=mean, scale=scale), y, 2, "classification", np.ones(30)), grouped=grouped
        )
        model = RidgeEstimator()
        ((_, scores),) = model.cross_val_scores(training, (C,))
        assert np.isfinite(scores).all()
        predictor = model.fit(training, C)
        assert np.isfinite(predictor.weight).all()
        assert np.isfinite(predictor.bias).all()


@pytest.mark.parametrize("dim", [3, 50])
def test_features_of_zeros_give_the_mean_of_each_target(dim: int) -> None:
    training = TrainingData(Rows(np.zeros((12, dim))), np.arange(12) % 3, 3, "classification", np.ones(12))
    predictor = RidgeEstimator().fit(training, 1e5)
    np.testing.assert_allclose(predictor.decision_function(np.ones((2, dim))), -1 / 3)


def test_two_classes_get_opposite_weights() -> None:
    predictor = RidgeEstimator().fit(draw(60, 7, count=2), 0.1)
    np.testing.assert_allclose(predictor.weight[0], -predictor.weight[1], atol=1e-12)
    assert predictor.bias[0] == pytest.approx(-predictor.bias[1])


def test_candidates_are_powers_of_ten_by_quarters_the_most_penalised_first() -> None:
    candidates = RidgeEstimator().candidates
    assert len(candidates) == 45
    np.testing.assert_allclose(candidates, np.logspace(-6, 5, 45), rtol=1e-5)


@pytest.mark.parametrize("C", [0.0, -1.0, float("inf"), float("nan")])
def test_a_strength_that_is_not_positive_is_refused(C: float) -> None:
    with pytest.raises(HeadError, match="expected a positive number"):
        RidgeEstimator().fit(draw(60, 7), C)


@pytest.mark.parametrize(("n", "dim"), [(60, 7), (24, 40)])
def test_too_few_rows_of_a_weight_above_0_are_refused(n: int, dim: int) -> None:
    training = draw(n, dim)
    training.weight[1:] = 0.0
    with pytest.raises(HeadError, match="leave-one-out needs two rows of weight above 0"):
        list(RidgeEstimator().cross_val_scores(training, (1.0,)))
    training.weight[:] = 0.0
    with pytest.raises(HeadError, match="no row of weight above 0 is left to fit to"):
        RidgeEstimator().fit(training, 1.0)


def test_a_matrix_too_large_to_decompose_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "MAX_SIDE", 20)
    with pytest.raises(HeadError, match=r"24 rows of 40 features; .* at most 20; --model logreg or linear takes more"):
        RidgeEstimator().fit(draw(24, 40), 1.0)
