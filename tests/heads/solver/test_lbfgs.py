"""The batched L-BFGS solver, against closed forms, scikit-learn and scipy."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from sklearn.linear_model import Ridge
from solver_problems import ALL, LOSSES, K, logistic, make_loss, problems, scores_of, solve

from featx.heads.solver import blockwise
from featx.heads.solver.losses import Logistic, SquaredHinge
from featx.heads.solver.matrices import DenseMatrix
from featx.heads.solver.problems import Problems

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # numpy must not warn


class Squares:
    """A loss of size (score - target)^2 / 2 + 1. Its optimum has a closed form."""

    penalises_bias = False

    def __init__(self, target: np.ndarray, size: float = 1.0) -> None:
        self.target, self.size, self.outputs = target, size, len(target)

    def value_and_derivative(self, scores: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        apart = scores - self.target[:, None, rows]
        return 0.5 * self.size * (apart**2).sum(axis=0) + 1, self.size * apart

    def hessian_diagonal(self, scores: np.ndarray, rows: slice) -> np.ndarray:
        return np.full_like(scores, self.size)


class Quartic(Squares):
    """A loss of (score - target)^4 / 4 + 1: flat at its minimum and steep far from it."""

    def value_and_derivative(self, scores: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        apart = scores - self.target[:, None, rows]
        return 0.25 * (apart**4).sum(axis=0) + 1, apart**3

    def hessian_diagonal(self, scores: np.ndarray, rows: slice) -> np.ndarray:
        return 3 * (scores - self.target[:, None, rows]) ** 2


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("precondition", [False, True])
def test_the_optimum_is_found_at_any_scale_of_the_loss(size: float, precondition: bool) -> None:
    rng = np.random.default_rng(0)
    Z, target = rng.normal(size=(60, 4)), rng.normal(size=(2, 60)) + 3
    solution = solve(
        DenseMatrix(Z), Squares(target, size), problems([1e-3 * size], np.full((1, 60), 1 / 60)), precondition=precondition,
        tol=1e-16 * min(size, 1.0),
    )  # fmt: skip
    expected = Ridge(alpha=60 * 1e-3).fit(Z, target.T)
    np.testing.assert_allclose(solution.weight[:, 0], expected.coef_, rtol=1e-3, atol=1e-4)
    if size == 1.0:
        np.testing.assert_allclose(solution.weight[:, 0], expected.coef_, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("precondition", [False, True])
def test_columns_of_very_different_scales_reach_the_closed_form(precondition: bool) -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(100, 6)))[0]
    scale = np.logspace(-3, 3, 6) if precondition else np.logspace(-1, 1, 6)
    Z, target = (axes - axes.mean(axis=0)) * scale, rng.normal(size=(1, 100))
    penalty = 1e-9
    solution = solve(
        DenseMatrix(Z),
        Squares(target),
        problems([penalty], np.full((1, 100), 0.01)),
        precondition=precondition,
        tol=1e-16,
    )
    expected = Ridge(alpha=100 * penalty, solver="svd").fit(Z, target[0])
    objective = (
        0.5 * np.mean((expected.predict(Z) - target[0]) ** 2) + 1 + 0.5 * penalty * expected.coef_ @ expected.coef_
    )
    assert solution.objective[0] / objective - 1 < 1e-10
    np.testing.assert_allclose(scores_of(solution, Z)[0, 0], expected.predict(Z), atol=1e-4)
    assert solution.iterations[0] < 60


def test_a_loss_that_is_flat_at_its_minimum_and_steep_far_away_is_minimised() -> None:
    rng = np.random.default_rng(0)
    Z, target = rng.normal(size=(50, 3)), 50 * rng.normal(size=(1, 50))
    weights, penalty = np.full((1, 50), 0.02), 0.1

    def objective(w: np.ndarray) -> float:
        return float(np.mean((Z @ w[:3] + w[3] - target[0]) ** 4) / 4 + 1 + 0.05 * w[:3] @ w[:3])

    best = scipy.optimize.minimize(objective, np.zeros(4), tol=1e-12).fun
    solution = solve(DenseMatrix(Z), Quartic(target), problems([penalty], weights))
    assert solution.objective[0] / best - 1 < 1e-8


def test_squared_hinges_within_their_margin_are_least_squares_with_a_penalised_intercept() -> None:
    rng = np.random.default_rng(0)
    Z, positive = rng.normal(size=(300, 4)), rng.integers(0, 2, (1, 300)) > 0
    solution = solve(DenseMatrix(Z), SquaredHinge(positive), problems([0.5], np.full((1, 300), 1 / 300)), tol=1e-14)
    sign = np.where(positive[0], 1.0, -1.0)
    assert (sign * scores_of(solution, Z)[0, 0] < 1).all()
    A = np.column_stack([Z, np.ones(300)])
    expected = np.linalg.solve(A.T @ A * 2 / 300 + 0.5 * np.eye(5), A.T @ sign * 2 / 300)
    np.testing.assert_allclose([*solution.weight[0, 0], solution.bias[0, 0]], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("precondition", [False, True])
def test_problems_solved_together_have_the_solutions_of_those_solved_alone(dtype: type, precondition: bool) -> None:
    Z, loss, weights = logistic()
    matrix, weights = DenseMatrix(Z.astype(dtype)), weights.astype(dtype)
    batch = problems([1e-4, 10.0, 1e-2], weights)  # not sorted, so that a problem in the middle is done first
    tol = 1e-12 if dtype == np.float64 else 1e-7
    together = solve(matrix, loss, batch, precondition=precondition, tol=tol)
    assert len(set(together.iterations)) > 1
    for problem in range(6):
        alone = solve(
            matrix, loss, Problems(weights, batch.fold[[problem]], batch.penalty[[problem]]),
            precondition=precondition, tol=tol,
        )  # fmt: skip
        atol = 1e-4 if dtype == np.float64 else 1e-2
        np.testing.assert_allclose(together.weight[:, problem], alone.weight[:, 0], atol=atol)
        np.testing.assert_allclose(together.objective[problem], alone.objective[0], rtol=1e2 * tol)
        np.testing.assert_allclose(together.bias[:, problem], alone.bias[:, 0], atol=atol)


@pytest.mark.parametrize("skipping", [False, True])
def test_problems_of_a_group_share_the_mean_of_their_hessian_diagonals_and_reach_the_same_optima(
    skipping: bool,
) -> None:
    class RecordingMatrix(DenseMatrix):
        def sweep(self, spans: Any, process: Any, *, squared: bool = False) -> list[np.ndarray]:
            parts = super().sweep(spans, process, squared=squared)
            if squared:
                diagonals.append(sum(parts))
            return parts

    diagonals: list[Any] = []
    Z, loss, weights = logistic()
    each = problems([1e-4, 1e-2], weights)
    regions = (slice(0, len(Z) // 3), slice(len(Z) // 3, len(Z))) if skipping else ()
    alike = dataclasses.replace(each, regions=regions, preconditioner_group=np.array([0, 0, 1, 1]))
    expected = solve(RecordingMatrix(Z), loss, each, precondition=True)
    solution = solve(RecordingMatrix(Z), loss, alike, precondition=True)
    own, shared = diagonals
    np.testing.assert_allclose(shared, [own[:2].mean(axis=0), own[2:].mean(axis=0)], rtol=1e-12)
    np.testing.assert_allclose(solution.weight, expected.weight, atol=1e-5)
    np.testing.assert_allclose(solution.objective, expected.objective, rtol=1e-11)


@LOSSES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_objective_of_a_solution_is_that_of_its_weights(kind: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    Z, labels = rng.normal(size=(90, 7)), rng.integers(0, K, 90)
    weights = rng.uniform(0.5, 1, (2, 90))
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(dtype)
    batch, loss = problems([0.3, 1e-4], weights), make_loss(kind, labels)
    solution = solve(DenseMatrix(Z.astype(dtype)), loss, batch, tol=1e-6)
    W, b = solution.weight.astype(np.float64), solution.bias.astype(np.float64)
    value, _ = loss.value_and_derivative(scores_of(solution, Z).astype(np.float64), ALL)
    square = (W**2).sum(axis=(0, 2)) + (b**2).sum(axis=0) * loss.penalises_bias
    expected = (value * weights[batch.fold]).sum(axis=1) + 0.5 * batch.penalty * square
    np.testing.assert_allclose(solution.objective, expected, rtol=1e-12 if dtype == np.float64 else 1e-5)


@LOSSES
def test_the_optimum_is_that_of_scipy(kind: str) -> None:
    rng = np.random.default_rng(0)
    Z, labels, weight = rng.normal(size=(70, 3)), rng.integers(0, K, 70), rng.dirichlet(np.ones(70))
    loss = make_loss(kind, labels)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(K, 4)
        value, derivative = loss.value_and_derivative((w[:, :3] @ Z.T + w[:, 3:])[:, None], ALL)
        counted = np.eye(4)[-1] * loss.penalises_bias + [1, 1, 1, 0]
        residual = derivative[:, 0] * weight
        gradient = np.column_stack([residual @ Z, residual.sum(axis=1)]) + 0.01 * w * counted
        return float(value[0] @ weight + 0.005 * (w**2 * counted).sum()), gradient.ravel()

    best = scipy.optimize.minimize(objective, np.zeros(4 * K), jac=True, options={"gtol": 1e-12, "maxiter": 10_000}).fun
    solution = solve(DenseMatrix(Z), loss, problems([0.01], weight[None]), tol=1e-10)
    assert abs(solution.objective[0] / best - 1) < 1e-9


def test_a_problem_that_starts_at_its_optimum_is_done_within_two_iterations() -> None:
    Z, loss, weights = logistic()
    batch = problems([1e-3, 1.0], weights)
    first = solve(DenseMatrix(Z), loss, batch, tol=1e-14)
    again = solve(DenseMatrix(Z), loss, batch, start=(first.weight, first.bias), tol=1e-8)
    assert (again.iterations <= 2).all()
    assert (again.objective <= first.objective * (1 + 1e-14)).all()
    np.testing.assert_allclose(again.weight, first.weight, atol=1e-6)


def test_features_of_zeros_have_weights_of_zero_and_the_intercept_of_the_class_shares() -> None:
    solution = solve(
        DenseMatrix(np.zeros((8, 3))), Logistic(np.arange(8)[None] < 2), problems([1.0], np.full((1, 8), 1 / 8))
    )
    np.testing.assert_array_equal(solution.weight, 0.0)
    np.testing.assert_allclose(solution.bias, np.log(2 / 6), rtol=1e-5)


def test_too_few_iterations_leave_a_gap_that_bounds_the_true_one() -> None:
    Z, loss, weights = logistic()
    batch = problems([1e-4], weights)
    best = solve(DenseMatrix(Z), loss, batch).objective
    for most in (0, 1, 3):
        solution = solve(DenseMatrix(Z), loss, batch, max_iter=most)
        assert (solution.iterations == most).all()
        true = solution.objective / best - 1
        assert (solution.gap > 1e-6).all()
        assert (true <= 20 * solution.gap).all()


def test_the_objective_never_rises_from_one_iteration_to_the_next() -> None:
    Z, loss, weights = logistic()
    batch = problems([1e-5, 0.1], weights)
    path = np.stack([solve(DenseMatrix(Z), loss, batch, max_iter=most).objective for most in range(12)])
    assert (np.diff(path, axis=0) <= 1e-6 * path[:-1]).all()
    assert (path[-1] < path[0]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_blocks_change_a_solution_only_by_rounding_errors_and_repeat_it_bit_for_bit(
    dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    Z, loss, weights = logistic(700, 5)
    matrix, batch = DenseMatrix(Z.astype(dtype)), problems([1e-3, 1.0], weights.astype(dtype))
    tol = 1e-12 if dtype == np.float64 else 1e-7
    one = solve(matrix, loss, batch, tol=tol)
    monkeypatch.setattr(blockwise, "BLOCK", 1)  # 64 rows each
    monkeypatch.setattr(DenseMatrix, "most", 1)
    many, again = (solve(matrix, loss, batch, tol=tol) for _ in range(2))
    np.testing.assert_allclose(many.objective, one.objective, rtol=1e-12 if dtype == np.float64 else 1e-6)
    np.testing.assert_allclose(many.weight, one.weight, atol=1e-5 if dtype == np.float64 else 1e-2)
    for name in ("weight", "bias", "objective", "gap", "iterations", "first_step"):
        np.testing.assert_array_equal(getattr(many, name), getattr(again, name))


@LOSSES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("precondition", [False, True])
def test_skipping_regions_of_weight_0_changes_no_solution(
    kind: str, dtype: type, precondition: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DenseMatrix, "most", 1)
    rng = np.random.default_rng(0)
    Z, labels = rng.normal(size=(300, 5)).astype(dtype), rng.integers(0, K, 300)
    regions = (slice(0, 90), slice(90, 170), slice(170, 300))
    weights = rng.uniform(0.5, 1, (3, 300))
    weights[0, regions[0]] = weights[1, regions[1]] = (
        0  # the last fold uses all rows, and all folds use the last region
    )
    weights[0, 200] = 0
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(dtype)
    loss, batch = make_loss(kind, labels), problems([1e-2, 1.0], weights)
    tol = 1e-12 if dtype == np.float64 else 1e-6
    expected = solve(DenseMatrix(Z), loss, batch, tol=tol, precondition=precondition)
    skipping = dataclasses.replace(batch, regions=regions)
    solution = solve(DenseMatrix(Z), loss, skipping, tol=tol, precondition=precondition)
    np.testing.assert_allclose(solution.objective, expected.objective, rtol=1e2 * tol)
    np.testing.assert_allclose(solution.weight, expected.weight, atol=1e-5 if dtype == np.float64 else 1e-2)


def test_a_fold_never_reads_a_region_of_weight_0() -> None:
    Z, loss, _ = logistic(100, 4)
    Z[:50] = np.nan
    weights = np.concatenate([np.zeros(50), np.full(50, 0.02)])[None]
    batch = Problems(weights, np.array([0]), np.array([0.1]), (slice(0, 50), slice(50, 100)))
    assert np.isfinite(solve(DenseMatrix(Z), loss, batch).weight).all()


def test_the_first_step_changes_no_optimum() -> None:
    Z, loss, weights = logistic()
    batch = problems([1e-3, 1.0], weights)
    expected = solve(DenseMatrix(Z), loss, batch, tol=1e-14)
    assert (expected.first_step > 0).all()
    assert len(set(expected.first_step)) > 1
    again = solve(DenseMatrix(Z), loss, batch, tol=1e-14, first_step=expected.first_step)
    np.testing.assert_array_equal(again.first_step, expected.first_step)
    for size in (1e-6, 1.0, 1e6):
        solution = solve(DenseMatrix(Z), loss, batch, tol=1e-14, first_step=np.full(4, size))
        np.testing.assert_allclose(solution.objective, expected.objective, rtol=1e-12)
