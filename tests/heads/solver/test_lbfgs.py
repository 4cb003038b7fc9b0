"""The losses against finite differences, scikit-learn and scipy; the solver against closed forms and scipy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss

from featx.heads.solver import lbfgs
from featx.heads.solver.lbfgs import NewtonModel, Problems, Solution, minimise, refine
from featx.heads.solver.losses import Logistic, Loss, Softmax, SquaredHinge
from featx.heads.solver.matrices import Dense

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # numpy must have nothing to say

ALL = slice(None)
LOSSES = pytest.mark.parametrize("kind", ["softmax", "logistic", "hinge"])
N, P, K = 5, 2, 4


def make(kind: str, labels: np.ndarray) -> Loss:
    """A loss of K outputs, of (N,) labels in 0..K-1."""
    if kind == "softmax":
        return Softmax(labels, K)
    positive = labels == np.arange(K)[:, None]
    return Logistic(positive) if kind == "logistic" else SquaredHinge(positive)


def differences(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray, h: float) -> np.ndarray:
    """(K, P, N) by how much what a function of (K, P, N) gives for a problem and row changes with each of its K scores."""
    out = np.empty_like(at)
    for k in range(len(at)):
        step = np.zeros_like(at)
        step[k] = h
        out[k] = (function(at + step) - function(at - step)) / (2 * h)
    return out


def off_the_hinge(L: np.ndarray) -> np.ndarray:
    """Scores but for those at the margin, where the squared hinge's curvature leaps."""
    return np.where(np.abs(np.abs(L) - 1) < 0.01, 0.0, L)


scores_and_labels = st.tuples(
    arrays(np.float64, (K, P, N), elements=st.floats(-30, 30, width=32)),
    arrays(np.int64, N, elements=st.integers(0, K - 1)),
)


@LOSSES
@settings(max_examples=40, deadline=None)
@given(drawn=scores_and_labels)
def test_the_derivative_is_how_the_loss_changes(kind: str, drawn: tuple[np.ndarray, np.ndarray]) -> None:
    L, labels = off_the_hinge(drawn[0]), drawn[1]
    loss = make(kind, labels)
    value, derivative = loss.judge(L.copy(), ALL)
    assert value.shape == (P, N)
    expected = differences(lambda at: loss.judge(at, ALL)[0], L, 1e-5)
    np.testing.assert_allclose(derivative, expected, rtol=1e-6, atol=3e-7)


@LOSSES
@settings(max_examples=40, deadline=None)
@given(drawn=scores_and_labels)
def test_the_curvature_is_how_the_derivative_changes(kind: str, drawn: tuple[np.ndarray, np.ndarray]) -> None:
    L, labels = off_the_hinge(drawn[0]), drawn[1]
    loss = make(kind, labels)
    before = L.copy()
    found = loss.curvature(L, ALL)
    np.testing.assert_array_equal(L, before)
    expected = np.empty_like(L)
    for k in range(K):
        expected[k] = differences(lambda at, k=k: loss.judge(at, ALL)[1][k], L, 1e-4)[k]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@LOSSES
@settings(max_examples=40, deadline=None)
@given(drawn=scores_and_labels, seed=st.integers(0, 100))
def test_the_bend_along_a_step_is_how_the_derivative_changes_along_it(
    kind: str, drawn: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    L, labels = off_the_hinge(drawn[0]), drawn[1]
    loss, M, h = make(kind, labels), np.random.default_rng(seed).uniform(-1, 1, L.shape), 1e-4
    before = L.copy(), M.copy()
    found = loss.bend(L, M, ALL)
    np.testing.assert_array_equal((L, M), before)
    expected = (loss.judge(L + h * M, ALL)[1] - loss.judge(L - h * M, ALL)[1]) / (2 * h)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@LOSSES
@settings(max_examples=20, deadline=None)
@given(drawn=scores_and_labels)
def test_some_rows_are_judged_as_among_all(kind: str, drawn: tuple[np.ndarray, np.ndarray]) -> None:
    L, labels = drawn
    loss, rows = make(kind, labels), slice(1, 4)
    value, derivative = loss.judge(L.copy(), ALL)
    some_value, some_derivative = loss.judge(L[:, :, rows].copy(), rows)
    np.testing.assert_array_equal(some_value, value[:, rows])
    np.testing.assert_array_equal(some_derivative, derivative[:, :, rows])
    np.testing.assert_array_equal(loss.curvature(L[:, :, rows], rows), loss.curvature(L, ALL)[:, :, rows])


def test_the_softmax_loss_is_the_log_loss() -> None:
    rng = np.random.default_rng(0)
    L, labels = rng.normal(0, 3, (K, P, 50)), rng.integers(0, K, 50)
    value, derivative = Softmax(labels, K).judge(L.copy(), ALL)
    for problem in range(P):
        p = scipy.special.softmax(L[:, problem].T, axis=1)
        assert value[problem].mean() == pytest.approx(log_loss(labels, p, labels=range(K)), rel=1e-12)
        np.testing.assert_allclose(derivative[:, problem].T, p - np.eye(K)[labels], atol=1e-14)


def test_the_logistic_loss_is_the_log_loss_of_each_label_summed() -> None:
    rng = np.random.default_rng(0)
    L, positive = rng.normal(0, 3, (3, P, 50)), rng.integers(0, 2, (3, 50)) > 0
    value, derivative = Logistic(positive).judge(L.copy(), ALL)
    for problem in range(P):
        p = scipy.special.expit(L[:, problem])
        expected = sum(log_loss(positive[k], p[k]) for k in range(3))
        assert value[problem].mean() == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(derivative[:, problem], p - positive, atol=1e-14)


def test_the_hinge_loss_is_the_squared_distance_to_the_margin_of_each_label_summed() -> None:
    rng = np.random.default_rng(0)
    L, positive = rng.normal(0, 3, (3, P, 50)), rng.integers(0, 2, (3, 50)) > 0
    value, _ = SquaredHinge(positive).judge(L.copy(), ALL)
    expected = np.maximum(0, 1 - np.where(positive, 1, -1)[:, None] * L) ** 2
    np.testing.assert_allclose(value, expected.sum(axis=0), rtol=1e-13)


@LOSSES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_scores_give_finite_losses_of_the_right_size(kind: str, dtype: type) -> None:
    labels = np.array([0, 1, 2, 3, 0])
    L = np.zeros((K, 1, 5), dtype)
    L[0, 0] = [1e4, 1e4, -1e4, 0, -1e4]
    L[3, 0] = [-1e4, -1e4, 1e4, 1e4, 1e4]
    loss = make(kind, labels)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        value, derivative = loss.judge(L.copy(), ALL)
        curvature = loss.curvature(L, ALL)
    assert value.dtype == derivative.dtype == curvature.dtype == dtype
    assert np.isfinite(derivative).all()
    assert np.isfinite(curvature).all()
    assert (curvature >= 0).all()
    expected, _ = make(kind, labels).judge(L.astype(np.longdouble), ALL)
    np.testing.assert_allclose(value, expected.astype(np.float64), rtol=1e-6)
    if kind == "softmax":
        np.testing.assert_allclose(value[0], [0, 1e4, 1e4, 0, 2e4], atol=1e-30)


def test_a_nearly_certain_class_keeps_the_digits_of_what_is_missing_to_certainty() -> None:
    L = np.array([30.0, 0.0, -2.0], np.float32).reshape(3, 1, 1)
    value, derivative = Softmax(np.array([0]), 3).judge(L.copy(), ALL)
    missing = np.exp(-30.0) + np.exp(-32.0)
    np.testing.assert_allclose(value, missing, rtol=1e-5)
    np.testing.assert_allclose(derivative[:, 0, 0], [-missing, np.exp(-30.0), np.exp(-32.0)], rtol=1e-5)
    sign = np.array([[True], [False]])
    value, derivative = Logistic(sign).judge(np.array([30.0, -32.0], np.float32).reshape(2, 1, 1), ALL)
    np.testing.assert_allclose(value, missing, rtol=1e-5)
    np.testing.assert_allclose(derivative[:, 0, 0], [-np.exp(-30.0), np.exp(-32.0)], rtol=1e-5)


@pytest.mark.parametrize("certain", [10.0, 15.0, 20.0, 30.0])
def test_the_curvature_of_a_nearly_certain_class_keeps_its_digits(certain: float) -> None:
    L = np.array([certain, 0.0, -2.0]).reshape(3, 1, 1)
    M = np.array([0.5, -1.0, 2.0]).reshape(3, 1, 1)
    for loss in (Softmax(np.array([0]), 3), Logistic(np.array([[True], [False], [False]]))):
        small = L.astype(np.float32), M.astype(np.float32)
        np.testing.assert_allclose(loss.curvature(small[0], ALL), loss.curvature(L, ALL), rtol=1e-4)
        np.testing.assert_allclose(loss.bend(*small, ALL), loss.bend(L, M, ALL), rtol=1e-4)


def test_the_derivatives_of_softmax_sum_to_0_over_the_classes() -> None:
    rng = np.random.default_rng(0)
    L = rng.normal(0, 20, (K, P, 200)).astype(np.float32)
    _, derivative = Softmax(rng.integers(0, K, 200), K).judge(L, ALL)
    np.testing.assert_allclose(derivative.sum(axis=0), 0.0, atol=1e-6)


class Squares:
    """size (score - target)^2 / 2 + 1, so that the optimum is known; its derivative is linear in the scores."""

    penalises_bias = False

    def __init__(self, target: np.ndarray, size: float = 1.0) -> None:
        self.target, self.size, self.outputs = target, size, len(target)

    def judge(self, L: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        apart = L - self.target[:, None, rows]
        return 0.5 * self.size * (apart**2).sum(axis=0) + 1, self.size * apart

    def curvature(self, L: np.ndarray, rows: slice) -> np.ndarray:
        return np.full_like(L, self.size)


class Quartic(Squares):
    """(score - target)^4 / 4 + 1: flat at its minimum and steep far from it."""

    def judge(self, L: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        apart = L - self.target[:, None, rows]
        return 0.25 * (apart**4).sum(axis=0) + 1, apart**3

    def curvature(self, L: np.ndarray, rows: slice) -> np.ndarray:
        return 3 * (L - self.target[:, None, rows]) ** 2


def problems(penalty: list[float], weights: np.ndarray) -> Problems:
    """Each penalty on each fold of (F, N) weights."""
    folds = len(weights)
    return Problems(weights, np.tile(np.arange(folds), len(penalty)), np.repeat(np.array(penalty), folds))


def solve(matrix: Dense, loss: Loss, wanted: Problems, *, tol: float = 1e-12, **kwargs: object) -> Solution:
    count, dim = len(wanted.penalty), matrix.Z.shape[1]
    start = (np.zeros((loss.outputs, count, dim)), np.zeros((loss.outputs, count)))
    return minimise(matrix, loss, wanted, kwargs.pop("start", start), tol=tol, **kwargs)


def scores_of(found: Solution, Z: np.ndarray) -> np.ndarray:
    """(K, P, N) scores of all rows."""
    return np.einsum("kpd,nd->kpn", found.weight, Z) + found.bias[..., None]


def logistic(n: int = 80, dim: int = 6) -> tuple[np.ndarray, Logistic, np.ndarray]:
    """(N, D), a loss of one label, and (2, N) weights of two folds."""
    rng = np.random.default_rng(n * dim)
    Z = rng.normal(size=(n, dim))
    positive = Z[:, 0] + rng.logistic(size=n) > 0
    weights = rng.uniform(0.5, 2, (2, n))
    weights[0, : n // 3] = 0
    return Z, Logistic(positive[None]), weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("precondition", [False, True])
def test_a_step_finds_its_length_whatever_the_loss_is_measured_in(size: float, precondition: bool) -> None:
    rng = np.random.default_rng(0)
    Z, target = rng.normal(size=(60, 4)), rng.normal(size=(2, 60)) + 3
    found = solve(
        Dense(Z), Squares(target, size), problems([1e-3 * size], np.full((1, 60), 1 / 60)), precondition=precondition,
        tol=1e-16 * min(size, 1.0),
    )  # fmt: skip
    expected = Ridge(alpha=60 * 1e-3).fit(Z, target.T)
    np.testing.assert_allclose(found.weight[:, 0], expected.coef_, rtol=1e-3, atol=1e-4)
    if size == 1.0:
        np.testing.assert_allclose(found.weight[:, 0], expected.coef_, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("precondition", [False, True])
def test_columns_of_very_different_size_are_solved_to_the_closed_form(precondition: bool) -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(100, 6)))[0]
    scale = np.logspace(-3, 3, 6) if precondition else np.logspace(-1, 1, 6)
    Z, target = (axes - axes.mean(axis=0)) * scale, rng.normal(size=(1, 100))
    penalty = 1e-9
    found = solve(
        Dense(Z), Squares(target), problems([penalty], np.full((1, 100), 0.01)), precondition=precondition, tol=1e-16
    )
    expected = Ridge(alpha=100 * penalty, solver="svd").fit(Z, target[0])
    objective = (
        0.5 * np.mean((expected.predict(Z) - target[0]) ** 2) + 1 + 0.5 * penalty * expected.coef_ @ expected.coef_
    )
    assert found.objective[0] / objective - 1 < 1e-10
    np.testing.assert_allclose(scores_of(found, Z)[0, 0], expected.predict(Z), atol=1e-4)
    assert found.iterations[0] < 60


def test_a_loss_that_is_flat_at_its_minimum_and_steep_far_away_is_minimised() -> None:
    rng = np.random.default_rng(0)
    Z, target = rng.normal(size=(50, 3)), 50 * rng.normal(size=(1, 50))
    weights, penalty = np.full((1, 50), 0.02), 0.1

    def objective(w: np.ndarray) -> float:
        return float(np.mean((Z @ w[:3] + w[3] - target[0]) ** 4) / 4 + 1 + 0.05 * w[:3] @ w[:3])

    best = scipy.optimize.minimize(objective, np.zeros(4), tol=1e-12).fun
    found = solve(Dense(Z), Quartic(target), problems([penalty], weights))
    assert found.objective[0] / best - 1 < 1e-8


def test_squared_hinges_within_their_margin_are_least_squares_with_a_penalised_intercept() -> None:
    rng = np.random.default_rng(0)
    Z, positive = rng.normal(size=(300, 4)), rng.integers(0, 2, (1, 300)) > 0
    found = solve(Dense(Z), SquaredHinge(positive), problems([0.5], np.full((1, 300), 1 / 300)), tol=1e-14)
    sign = np.where(positive[0], 1.0, -1.0)
    assert (sign * scores_of(found, Z)[0, 0] < 1).all()
    A = np.column_stack([Z, np.ones(300)])
    expected = np.linalg.solve(A.T @ A * 2 / 300 + 0.5 * np.eye(5), A.T @ sign * 2 / 300)
    np.testing.assert_allclose([*found.weight[0, 0], found.bias[0, 0]], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("precondition", [False, True])
def test_problems_solved_together_are_those_solved_alone(dtype: type, precondition: bool) -> None:
    Z, loss, weights = logistic()
    matrix, weights = Dense(Z.astype(dtype)), weights.astype(dtype)
    wanted = problems([1e-4, 10.0, 1e-2], weights)  # out of order: those that are done leave from the middle
    tol = 1e-12 if dtype == np.float64 else 1e-7
    together = solve(matrix, loss, wanted, precondition=precondition, tol=tol)
    assert len(set(together.iterations)) > 1
    for problem in range(6):
        alone = solve(
            matrix, loss, Problems(weights, wanted.fold[[problem]], wanted.penalty[[problem]]),
            precondition=precondition, tol=tol,
        )  # fmt: skip
        atol = 1e-4 if dtype == np.float64 else 1e-2
        np.testing.assert_allclose(together.weight[:, problem], alone.weight[:, 0], atol=atol)
        np.testing.assert_allclose(together.objective[problem], alone.objective[0], rtol=1e2 * tol)
        np.testing.assert_allclose(together.bias[:, problem], alone.bias[:, 0], atol=atol)


@pytest.mark.parametrize("skipping", [False, True])
def test_problems_that_are_alike_share_the_mean_of_their_diagonals_and_end_where_each_would(skipping: bool) -> None:
    class Spied(Dense):
        def sweep(self, spans: Any, work: Any, *, squared: bool = False) -> list[np.ndarray]:
            parts = super().sweep(spans, work, squared=squared)
            if squared:
                diagonals.append(sum(parts))
            return parts

    diagonals: list[Any] = []
    Z, loss, weights = logistic()
    each = problems([1e-4, 1e-2], weights)
    regions = (slice(0, len(Z) // 3), slice(len(Z) // 3, len(Z))) if skipping else ()
    alike = dataclasses.replace(each, regions=regions, alike=np.array([0, 0, 1, 1]))
    expected = solve(Spied(Z), loss, each, precondition=True)
    found = solve(Spied(Z), loss, alike, precondition=True)
    own, shared = diagonals
    np.testing.assert_allclose(shared, [own[:2].mean(axis=0), own[2:].mean(axis=0)], rtol=1e-12)
    np.testing.assert_allclose(found.weight, expected.weight, atol=1e-5)
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-11)


@LOSSES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_solution_says_its_own_objective(kind: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    Z, labels = rng.normal(size=(90, 7)), rng.integers(0, K, 90)
    weights = rng.uniform(0.5, 1, (2, 90))
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(dtype)
    wanted, loss = problems([0.3, 1e-4], weights), make(kind, labels)
    found = solve(Dense(Z.astype(dtype)), loss, wanted, tol=1e-6)
    W, b = found.weight.astype(np.float64), found.bias.astype(np.float64)
    value, _ = loss.judge(scores_of(found, Z).astype(np.float64), ALL)
    square = (W**2).sum(axis=(0, 2)) + (b**2).sum(axis=0) * loss.penalises_bias
    expected = (value * weights[wanted.fold]).sum(axis=1) + 0.5 * wanted.penalty * square
    np.testing.assert_allclose(found.objective, expected, rtol=1e-12 if dtype == np.float64 else 1e-5)


@LOSSES
def test_the_optimum_is_scipy_s_of_the_same_function(kind: str) -> None:
    rng = np.random.default_rng(0)
    Z, labels, weight = rng.normal(size=(70, 3)), rng.integers(0, K, 70), rng.dirichlet(np.ones(70))
    loss = make(kind, labels)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(K, 4)
        value, derivative = loss.judge((w[:, :3] @ Z.T + w[:, 3:])[:, None], ALL)
        counted = np.eye(4)[-1] * loss.penalises_bias + [1, 1, 1, 0]
        residual = derivative[:, 0] * weight
        gradient = np.column_stack([residual @ Z, residual.sum(axis=1)]) + 0.01 * w * counted
        return float(value[0] @ weight + 0.005 * (w**2 * counted).sum()), gradient.ravel()

    best = scipy.optimize.minimize(objective, np.zeros(4 * K), jac=True, options={"gtol": 1e-12, "maxiter": 10_000}).fun
    found = solve(Dense(Z), loss, problems([0.01], weight[None]), tol=1e-10)
    assert abs(found.objective[0] / best - 1) < 1e-9


def test_a_problem_at_its_optimum_leaves_at_once() -> None:
    Z, loss, weights = logistic()
    wanted = problems([1e-3, 1.0], weights)
    first = solve(Dense(Z), loss, wanted, tol=1e-14)
    again = solve(Dense(Z), loss, wanted, start=(first.weight, first.bias), tol=1e-8)
    assert (again.iterations <= 2).all()
    assert (again.objective <= first.objective * (1 + 1e-14)).all()
    np.testing.assert_allclose(again.weight, first.weight, atol=1e-6)


def test_features_without_information_leave_the_intercept_alone() -> None:
    found = solve(Dense(np.zeros((8, 3))), Logistic(np.arange(8)[None] < 2), problems([1.0], np.full((1, 8), 1 / 8)))
    np.testing.assert_array_equal(found.weight, 0.0)
    np.testing.assert_allclose(found.bias, np.log(2 / 6), rtol=1e-5)


def test_too_few_iterations_leave_a_gap_that_is_said() -> None:
    Z, loss, weights = logistic()
    wanted = problems([1e-4], weights)
    best = solve(Dense(Z), loss, wanted).objective
    for most in (0, 1, 3):
        found = solve(Dense(Z), loss, wanted, most_iterations=most)
        assert (found.iterations == most).all()
        true = found.objective / best - 1
        assert (found.gap > 1e-6).all()
        assert (true <= 20 * found.gap).all()


def test_the_objective_never_rises_from_one_iteration_to_the_next() -> None:
    Z, loss, weights = logistic()
    wanted = problems([1e-5, 0.1], weights)
    path = np.stack([solve(Dense(Z), loss, wanted, most_iterations=most).objective for most in range(12)])
    assert (np.diff(path, axis=0) <= 1e-6 * path[:-1]).all()
    assert (path[-1] < path[0]).all()


def multinomial(dtype: type) -> tuple[Dense, Softmax, Problems]:
    rng = np.random.default_rng(0)
    Z, labels, weight = rng.normal(size=(150, 8)), rng.integers(0, 3, 150), rng.dirichlet(np.ones(150))
    Z[np.arange(150), labels] += 2
    return Dense(Z.astype(dtype)), Softmax(labels, 3), problems([1e-6], weight[None].astype(dtype))


def same(matrix: Dense, loss: Loss, wanted: Problems) -> NewtonModel:
    """The problem itself as its model."""
    return NewtonModel(matrix, wanted.weights[0], loss, lambda weight: weight, lambda weight: weight)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_newton_steps_reach_the_last_digits_with_hessians_of_either_precision(dtype: type) -> None:
    matrix, loss, wanted = multinomial(np.float64)
    best = solve(matrix, loss, wanted, tol=1e-15, most_iterations=20_000)
    rough = solve(matrix, loss, wanted, tol=1e-3)
    found = refine(
        matrix, loss, wanted, (rough.weight, rough.bias), model=same(*multinomial(dtype)), tol=1e-11, most_iterations=30
    )
    assert rough.objective[0] / best.objective[0] - 1 > 1e-8
    assert abs(found.objective[0] / best.objective[0] - 1) < 1e-10
    assert found.gap[0] <= 1e-11
    assert found.iterations[0] < 15


@LOSSES
def test_newton_steps_from_far_away_arrive(kind: str) -> None:
    rng = np.random.default_rng(0)
    Z, labels = Dense(rng.normal(size=(70, 3))), rng.integers(0, K, 70)
    loss, wanted = make(kind, labels), problems([0.01], np.full((1, 70), 1 / 70))
    best = solve(Z, loss, wanted)
    start = (10 * rng.normal(size=(K, 1, 3)), 10 * rng.normal(size=(K, 1)))
    found = refine(Z, loss, wanted, start, model=same(Z, loss, wanted), tol=1e-10, most_iterations=50)
    assert abs(found.objective[0] / best.objective[0] - 1) < 1e-9


@LOSSES
def test_newton_steps_with_the_hessian_of_some_of_the_rows_arrive_too(kind: str) -> None:
    rng = np.random.default_rng(0)
    Z, labels = rng.normal(size=(600, 4)), rng.integers(0, K, 600)
    Z[np.arange(600), labels] += 1
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    matrix, loss, wanted = Dense(Z), make(kind, labels), problems([0.01], np.full((1, 600), 1 / 600))
    some = NewtonModel(
        Dense((Z[::3] @ turn).astype(np.float32)), np.full(200, 1 / 200), make(kind, labels[::3]),
        lambda weight: weight @ turn, lambda weight: weight.astype(np.float64) @ turn.T,
    )  # fmt: skip
    best = solve(matrix, loss, wanted)
    start = (np.zeros((K, 1, 4)), np.zeros((K, 1)))
    found = refine(matrix, loss, wanted, start, model=some, tol=1e-8, most_iterations=50)
    assert found.objective[0] / best.objective[0] - 1 < 1e-6
    few = refine(matrix, loss, wanted, start, model=some, tol=1e-8, most_iterations=1)
    assert few.iterations[0] == 1
    assert 1e-8 < few.objective[0] / best.objective[0] - 1 <= 20 * few.gap[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_change_a_solution_by_rounding_alone_and_repeat_it_bit_for_bit(
    dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    Z, loss, weights = logistic(700, 5)
    matrix, wanted = Dense(Z.astype(dtype)), problems([1e-3, 1.0], weights.astype(dtype))
    tol = 1e-12 if dtype == np.float64 else 1e-7
    one = solve(matrix, loss, wanted, tol=tol)
    monkeypatch.setattr(lbfgs, "BLOCK", 1)  # 64 rows each
    monkeypatch.setattr(Dense, "most", 1)
    many, again = (solve(matrix, loss, wanted, tol=tol) for _ in range(2))
    np.testing.assert_allclose(many.objective, one.objective, rtol=1e-12 if dtype == np.float64 else 1e-6)
    np.testing.assert_allclose(many.weight, one.weight, atol=1e-5 if dtype == np.float64 else 1e-2)
    for name in ("weight", "bias", "objective", "gap", "iterations", "first_step"):
        np.testing.assert_array_equal(getattr(many, name), getattr(again, name))


@LOSSES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("precondition", [False, True])
def test_rows_that_count_nothing_in_a_fold_may_be_skipped(
    kind: str, dtype: type, precondition: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dense, "most", 1)
    rng = np.random.default_rng(0)
    Z, labels = rng.normal(size=(300, 5)).astype(dtype), rng.integers(0, K, 300)
    regions = (slice(0, 90), slice(90, 170), slice(170, 300))
    weights = rng.uniform(0.5, 1, (3, 300))
    weights[0, regions[0]] = weights[1, regions[1]] = (
        0  # the last fold counts all rows, the last region counts in all folds
    )
    weights[0, 200] = 0
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(dtype)
    loss, wanted = make(kind, labels), problems([1e-2, 1.0], weights)
    tol = 1e-12 if dtype == np.float64 else 1e-6
    expected = solve(Dense(Z), loss, wanted, tol=tol, precondition=precondition)
    skipping = dataclasses.replace(wanted, regions=regions)
    found = solve(Dense(Z), loss, skipping, tol=tol, precondition=precondition)
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e2 * tol)
    np.testing.assert_allclose(found.weight, expected.weight, atol=1e-5 if dtype == np.float64 else 1e-2)


def test_a_fold_looks_at_no_row_that_counts_nothing_in_it() -> None:
    Z, loss, _ = logistic(100, 4)
    Z[:50] = np.nan
    weights = np.concatenate([np.zeros(50), np.full(50, 0.02)])[None]
    wanted = Problems(weights, np.array([0]), np.array([0.1]), (slice(0, 50), slice(50, 100)))
    assert np.isfinite(solve(Dense(Z), loss, wanted).weight).all()


def test_a_good_first_step_saves_nothing_but_time() -> None:
    Z, loss, weights = logistic()
    wanted = problems([1e-3, 1.0], weights)
    expected = solve(Dense(Z), loss, wanted, tol=1e-14)
    assert (expected.first_step > 0).all()
    assert len(set(expected.first_step)) > 1
    again = solve(Dense(Z), loss, wanted, tol=1e-14, first_step=expected.first_step)
    np.testing.assert_array_equal(again.first_step, expected.first_step)
    for size in (1e-6, 1.0, 1e6):
        found = solve(Dense(Z), loss, wanted, tol=1e-14, first_step=np.full(4, size))
        np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-12)
