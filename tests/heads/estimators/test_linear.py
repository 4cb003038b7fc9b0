"""Fits of logistic regression and the linear SVM to all rows, against scikit-learn."""

from __future__ import annotations

import dataclasses
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from linear_training import (
    CLOSE,
    CS,
    EACH_PRECISION,
    EACH_PROBLEM,
    PROBLEMS,
    draw,
    folded,
    objective,
    problem,
    reference,
    reference_at,
    single,
)
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from featx.heads import training_data
from featx.heads.estimators import linear
from featx.heads.estimators.linear import LinearPathEstimator
from featx.heads.predictors import LinearPredictor, NotConvergedWarning
from featx.heads.solver import lbfgs, matrices
from featx.heads.solver.matrices import Rotated
from featx.heads.training_data import Rows, TrainingData, statistics

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # numpy must not warn


def hinge_objective(training: TrainingData, W: np.ndarray, b: np.ndarray, C: float) -> float:
    """The objective of LIBLINEAR: (|W|^2 + |b|^2) / 2 + C sum_i w_i sum_k max(0, 1 - y_ik s_ik)^2."""
    scores = training.rows.whole(np.float64) @ W.T + b
    positive = training.y[:, None] == (np.arange(len(W)) if len(W) > 1 else [1])
    loss = np.maximum(0, 1 - np.where(positive, 1, -1) * scores) ** 2
    return float(0.5 * (W**2).sum() + 0.5 * (b**2).sum() + C * training.weight @ loss.sum(axis=1))


@cache
def solved(name: str, C: float, exact: bool) -> tuple[LinearPredictor, float, LogisticRegression]:
    """A fit, its estimated gap, and the fit of scikit-learn."""
    with pytest.MonkeyPatch.context() as patch:
        if not exact:
            patch.setattr(matrices, "_SMALL", 0)
        model = LinearPathEstimator()
        predictor = model.fit(problem(name), C)
    return predictor, float(model.solution_.gap[0]), reference_at(name, C)


@cache
def reference_machine(name: str, C: float) -> LinearSVC:
    training, fit = problem(name), LinearSVC(C=C, loss="squared_hinge", dual=False, tol=1e-12, max_iter=100_000)
    return fit.fit(training.rows.whole(np.float64), training.y, training.weight)


def true_gap(name: str, C: float, exact: bool) -> float:
    training, (predictor, _, best) = problem(name), solved(name, C, exact)
    return objective(training, *single(predictor), C) / objective(training, best.coef_, best.intercept_, C) - 1


@EACH_PROBLEM
@EACH_PRECISION
def test_the_objective_is_that_of_scikit_learn_at_every_c(name: str, exact: bool) -> None:
    gaps = {C: true_gap(name, C, exact) for C in CS}
    assert max(gaps.values()) < CLOSE, gaps


@EACH_PROBLEM
@EACH_PRECISION
def test_the_reported_gap_bounds_the_true_gap(name: str, exact: bool) -> None:
    gaps = {C: (true_gap(name, C, exact), solved(name, C, exact)[1]) for C in CS}
    assert all(true <= 20 * gap + 1e-9 for true, gap in gaps.values()), gaps  # the accuracy of the reference
    assert all(gap < CLOSE for _, gap in gaps.values()), gaps


@pytest.mark.parametrize("name", ["two classes", "five classes, weighted", "three classes, wide"])
@pytest.mark.parametrize("C", [1e-6, 1.0, 1e5])
def test_the_objective_is_that_of_scikit_learn_s_own_solver(name: str, C: float) -> None:
    training, (predictor, _, _) = problem(name), solved(name, C, True)
    best = reference(training, C, "lbfgs")
    actual = objective(training, *single(predictor), C)
    assert actual < objective(training, best.coef_, best.intercept_, C) * (1 + CLOSE)


@EACH_PROBLEM
@EACH_PRECISION
@pytest.mark.parametrize("C", [1e-6, 1e-3, 1.0])
def test_coefficients_and_probabilities_are_those_of_scikit_learn(name: str, exact: bool, C: float) -> None:
    training, (predictor, _, best) = problem(name), solved(name, C, exact)
    W, b = single(predictor)
    np.testing.assert_allclose(W, best.coef_, atol=1e-3 * np.abs(best.coef_).max())
    if len(b) > 1:  # with several classes, intercepts are unique up to a constant
        b, expected = b - b.mean(), best.intercept_ - best.intercept_.mean()
    else:
        expected = best.intercept_
    np.testing.assert_allclose(b, expected, atol=2e-3)
    Z = training.rows.whole(np.float64)
    np.testing.assert_allclose(softmax(predictor.decision_function(Z), axis=1), best.predict_proba(Z), atol=3e-4)


@EACH_PROBLEM
@pytest.mark.parametrize("C", [1e3, 1e5])
def test_probabilities_are_those_of_scikit_learn_where_the_penalty_is_weak(name: str, C: float) -> None:
    training, (predictor, _, best) = problem(name), solved(name, C, True)
    Z = training.rows.whole(np.float64)
    np.testing.assert_allclose(softmax(predictor.decision_function(Z), axis=1), best.predict_proba(Z), atol=2e-3)


@pytest.mark.parametrize("C", [1e-3, 1.0])
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_coarse_fit_is_as_exact_as_the_search(name: str, C: float) -> None:
    training = problem(name)
    model = LinearPathEstimator(coarse=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor = model.fit(training, C)
    assert predictor.weight.dtype == predictor.bias.dtype == np.float64
    exact = LinearPathEstimator().fit(training, C)
    reached, least = (objective(training, *single(fitted), C) for fitted in (predictor, exact))
    assert reached <= least * (1 + 1e-4)
    Z = training.rows.whole(np.float64)
    p, expected = (softmax(fitted.decision_function(Z), axis=1) for fitted in (predictor, exact))
    assert np.abs(p - expected).mean() < 5e-3


def test_two_classes_have_opposite_weights_and_a_head_is_float64() -> None:
    predictor, _, _ = solved("two classes", 1.0, False)
    np.testing.assert_array_equal(predictor.weight[0], -predictor.weight[1])
    np.testing.assert_array_equal(predictor.bias[0], -predictor.bias[1])
    assert predictor.weight.dtype == predictor.bias.dtype == np.float64
    assert predictor.weight.shape == (2, 20)


def test_class_weights_are_those_of_scikit_learn() -> None:
    training = draw(300, 8, 3, apart=0.3, y=np.minimum(np.arange(300) % 10, 2))
    share = np.bincount(training.y) / 300
    balanced = dataclasses.replace(training, weight=(1 / (3 * share))[training.y])
    fit = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000, class_weight="balanced")
    fit.fit(training.rows.whole(np.float64), training.y)
    np.testing.assert_allclose(LinearPathEstimator().fit(balanced, 0.5).weight, fit.coef_, atol=1e-4)


@pytest.mark.parametrize("C", [1e-6, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize(
    "name",
    [
        "two classes", "two classes, separable, weighted", "five classes, weighted", "four classes, far apart",
        "three classes, wide", "a class of one row",
    ],
)  # fmt: skip
@EACH_PRECISION
def test_the_support_vector_machine_is_that_of_scikit_learn(
    name: str, C: float, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = problem(name)
    if not exact:
        monkeypatch.setattr(matrices, "_SMALL", 0)
    model = LinearPathEstimator(hinge=True)
    W, b = single(model.fit(training, C))
    best = reference_machine(name, C)
    expected = hinge_objective(training, best.coef_, best.intercept_, C)
    true = hinge_objective(training, W, b, C) / expected - 1
    assert true < CLOSE
    # LIBLINEAR is accurate to 1e-9. A Newton step assumes that no row crosses the margin of the hinge.
    assert true <= 20 * model.solution_.gap[0] + (1e-9 if exact else CLOSE)
    largest = np.abs(best.coef_).max()
    np.testing.assert_allclose(W, best.coef_, atol=2e-3 * largest)
    np.testing.assert_allclose(b, best.intercept_, atol=2e-3 * max(largest, np.abs(best.intercept_).max()))


@pytest.mark.parametrize(("n", "dim"), [(200, 12), (40, 90)])
@pytest.mark.parametrize("C", [1e-6, 1e-2, 10.0])
@EACH_PRECISION
def test_labels_are_fitted_one_by_one(n: int, dim: int, C: float, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exact:
        monkeypatch.setattr(matrices, "_SMALL", 0)
    training = draw(n, dim, 4, apart=0.0, task="multilabel", weighted=True)
    predictor = LinearPathEstimator().fit(training, C)
    assert predictor.weight.shape == (4, dim)
    for label in range(4):
        alone = dataclasses.replace(training, y=training.y[:, label].astype(np.int64), count=2, task="classification")
        best = reference(alone, C)
        actual = objective(alone, predictor.weight[[label]], predictor.bias[[label]], C)
        assert actual < objective(alone, best.coef_, best.intercept_, C) * (1 + CLOSE)
        np.testing.assert_allclose(predictor.weight[label], best.coef_[0], atol=2e-3 * np.abs(best.coef_).max())


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize(("n", "dim"), [(40, 90), (90, 40)])
@pytest.mark.parametrize("C", [1.0, 1e5])
def test_nearly_collinear_columns_reach_the_optimum(noise: float, n: int, dim: int, C: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 1)) + noise * rng.normal(size=(n, dim))
    mean, scale = statistics(X)
    training = TrainingData(Rows(X, mean=mean, scale=scale), rng.integers(0, 2, n), 2, "classification", np.ones(n))
    best = reference(training, C)
    actual = objective(training, *single(LinearPathEstimator().fit(training, C)), C)
    assert actual < objective(training, best.coef_, best.intercept_, C) * (1 + CLOSE)


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("kind", ["a row far out", "heavy tails", "weights of all sizes"])
def test_outliers_and_extreme_weights_reach_the_optimum(kind: str, C: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_cauchy((300, 20)) if kind == "heavy tails" else rng.normal(size=(300, 20))
    X[0] *= 1e4 if kind == "a row far out" else 1
    weight = 10 ** rng.uniform(-6, 2, 300) if kind == "weights of all sizes" else np.ones(300)
    mean, scale = statistics(X)
    training = TrainingData(Rows(X, mean=mean, scale=scale), rng.integers(0, 3, 300), 3, "classification", weight)
    best = reference(training, C)
    actual = objective(training, *single(LinearPathEstimator().fit(training, C)), C)
    assert actual < objective(training, best.coef_, best.intercept_, C) * (1 + CLOSE)


@pytest.mark.parametrize("hinge", [False, True])
@pytest.mark.parametrize(("n", "dim"), [(60, 8), (20, 40)])
def test_rows_of_weight_0_change_nothing(hinge: bool, n: int, dim: int, exact_search: None) -> None:
    training = folded(draw(n, dim, 3, apart=0.3, weighted=True, y=np.arange(n) % 3))
    training.weight[::4] = 0.0
    used = np.flatnonzero(training.weight)
    place = np.cumsum(training.weight > 0) - 1
    few = dataclasses.replace(
        training.take(used),
        folds=tuple((place[np.intersect1d(a, used)], place[np.intersect1d(b, used)]) for a, b in training.folds),
    )
    one, other = (LinearPathEstimator(hinge=hinge).fit(t, 0.1) for t in (training, few))
    np.testing.assert_allclose(one.weight, other.weight, atol=2e-4)
    one, other = (dict(LinearPathEstimator(hinge=hinge).cross_val_scores(t, (0.1,)))[0.1] for t in (training, few))
    np.testing.assert_allclose(one[used], other, atol=1e-4)


def test_a_weight_of_2_is_a_row_twice() -> None:
    training = draw(60, 8, 3, apart=0.3)
    times = 1 + np.arange(60) % 2
    heavy = dataclasses.replace(training, weight=times.astype(np.float64))
    one, other = (
        LinearPathEstimator().fit(heavy, 1.0),
        LinearPathEstimator().fit(training.take(np.repeat(np.arange(60), times)), 1.0),
    )
    np.testing.assert_allclose(one.weight, other.weight, atol=1e-3)


def test_a_fit_that_does_not_converge_warns_with_its_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lbfgs.minimise.__kwdefaults__, "max_iter", 2)
    monkeypatch.setattr(linear, "NEWTON_STEPS", 1)
    training, model = problem("five classes, weighted"), LinearPathEstimator()
    with pytest.warns(
        NotConvergedWarning, match=r"at C=1000 the optimum was not reached: the objective may still fall"
    ):
        predictor = model.fit(training, 1e3)
    best = reference_at("five classes, weighted", 1e3)
    true = objective(training, *single(predictor), 1e3) / objective(training, best.coef_, best.intercept_, 1e3) - 1
    assert 1e-5 < true <= 20 * model.solution_.gap[0]


@pytest.mark.parametrize("hinge", [False, True])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("C", [1e-6, 1.0, 1e5])
def test_classes_without_rows_leave_finite_scores(hinge: bool, count: int, C: float) -> None:
    training = draw(60, 5, count, apart=0.5)
    y = np.where(training.y == count - 1, 0, training.y)
    training = folded(dataclasses.replace(training, y=y))
    model = LinearPathEstimator(hinge=hinge)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # the intercept of a class without rows has no optimum
        ((_, scores),) = model.cross_val_scores(training, (C,))
        predictor = model.fit(training, C)
    assert np.isfinite(scores).all()
    assert np.isfinite(predictor.weight).all()
    assert np.isfinite(predictor.bias).all()
    assert (scores.argmax(axis=1) != count - 1).all()


@pytest.mark.parametrize("hinge", [False, True])
@pytest.mark.parametrize("C", [1e-6, 1.0, 1e5])
def test_features_of_zeros_give_the_shares_of_the_classes(hinge: bool, C: float) -> None:
    y = np.repeat([0, 1, 2], [10, 20, 30])
    training = TrainingData(Rows(np.zeros((60, 4))), y, 3, "classification", np.ones(60))
    predictor = LinearPathEstimator(hinge=hinge).fit(training, C)
    np.testing.assert_array_equal(predictor.weight, 0.0)
    if not hinge:
        np.testing.assert_allclose(softmax(predictor.bias), [1 / 6, 1 / 3, 1 / 2], rtol=1e-3)


@pytest.mark.parametrize("hinge", [False, True])
@pytest.mark.parametrize(("n", "dim"), [(300, 10), (40, 90)])
def test_rows_that_do_not_fit_in_memory_are_fitted_from_their_file(
    hinge: bool, n: int, dim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = draw(n, dim, 3, apart=0.3, dtype=np.float16, weighted=True)
    expected = LinearPathEstimator(hinge=hinge).fit(training, 1.0)
    training.rows.features.tofile(tmp_path / "features")
    training.rows.features = np.memmap(tmp_path / "features", np.float16, "r", shape=(n, dim))
    monkeypatch.setattr(training_data, "MOST_IN_MEMORY", 0)
    monkeypatch.setitem(Rows.blocks.__kwdefaults__, "most", 2000)
    actual = LinearPathEstimator(hinge=hinge).fit(training, 1.0)
    np.testing.assert_allclose(actual.weight, expected.weight, atol=2e-3)
    np.testing.assert_allclose(actual.bias, expected.bias, atol=2e-3)


@pytest.mark.parametrize(("n", "dim"), [(60, 10), (30, 50)])
def test_matrices_too_large_to_rotate_are_fitted_without_rotation(
    n: int, dim: int, exact_search: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = folded(draw(n, dim, 3, apart=0.3))
    expected, scores = (
        LinearPathEstimator().fit(training, 1.0),
        dict(LinearPathEstimator().cross_val_scores(training, (1.0,)))[1.0],
    )
    monkeypatch.setattr(matrices, "_MAX_ROTATED", 5)
    assert Rotated.of(training.rows).basis is None
    np.testing.assert_allclose(LinearPathEstimator().fit(training, 1.0).weight, expected.weight, atol=1e-3)
    ((_, actual),) = LinearPathEstimator().cross_val_scores(training, (1.0,))
    np.testing.assert_allclose(actual, scores, atol=1e-3)
