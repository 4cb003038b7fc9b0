"""The linear support vector machine in a finite number of steps, against scikit-learn's and bounds of its own."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from featx.heads.solver.finite_newton import MAX_STEPS, finish
from featx.heads.solver.losses import SquaredHinge
from featx.heads.solver.problems import Problems, Solution

CS = (1e-6, 1e-2, 1.0, 1e3, 1e5, 1e8)


def draw(n: int, dim: int, *, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, dim) rows and whether each is of the first of two classes, whose means are ``apart`` deviations apart."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.5
    Z = rng.normal(size=(n, dim))
    Z[:, 0] += apart * positive
    return Z, positive


def solve(Z: np.ndarray, positive: np.ndarray, C: float, weight: np.ndarray | None = None) -> Solution:
    n, dim = Z.shape
    weight = np.ones(n) if weight is None else weight
    problems = Problems((weight / weight.sum())[None], np.zeros(1, dtype=np.int64), np.array([1 / (C * weight.sum())]))
    start = Solution.empty((1, 1, dim), np.float64)
    start.weight[:], start.bias[:], start.iterations[:] = 0.0, 0.0, 0
    return finish(Z, SquaredHinge(positive[None]), problems, start, np.zeros(1, dtype=np.int64))


def objective(Z: np.ndarray, positive: np.ndarray, C: float, w: np.ndarray, b: float) -> float:
    slack = np.maximum(0, 1 - np.where(positive, 1, -1) * (Z @ w + b))
    return float(0.5 * (w @ w + b * b) + C * slack @ slack)


@pytest.mark.parametrize("C", CS)
@pytest.mark.parametrize("apart", [0.0, 4.0], ids=["noise", "apart"])
@pytest.mark.parametrize(("n", "dim"), [(107, 768), (60, 60), (60, 30), (20, 2), (150, 20)])
def test_the_optimum_is_reached_at_every_c(n: int, dim: int, apart: float, C: float) -> None:
    Z, positive = draw(n, dim, apart=apart)
    solution = solve(Z, positive, C)
    reached = objective(Z, positive, C, solution.weight[0, 0], solution.bias[0, 0])
    assert solution.objective[0] * C * n == pytest.approx(reached)
    assert 0 <= solution.gap[0] < 1e-9  # of an upper and a lower bound
    assert solution.iterations[0] < MAX_STEPS / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        machine = LinearSVC(C=C, tol=1e-8, max_iter=5000).fit(Z, positive)
    assert reached <= objective(Z, positive, C, machine.coef_[0], machine.intercept_[0]) * (1 + 1e-9)


@pytest.mark.parametrize("C", CS)
def test_copies_of_rows_with_other_labels_and_constant_columns_make_no_step_fail(C: float) -> None:
    Z, positive = draw(40, 50, apart=0.0)
    Z, positive = np.concatenate([Z, Z]), np.concatenate([positive, ~positive])
    Z[:, 10:20] = 0.0
    solution = solve(Z, positive, C)
    assert solution.gap[0] < 1e-6
    assert solution.objective[0] * C * 80 == pytest.approx(80 * C / (1 + 0.0 * C), rel=1e-6)  # no weights help


def test_weights_count_rows_as_often() -> None:
    Z, positive = draw(60, 5, apart=1.0)
    times = np.arange(60) % 3
    repeated = solve(np.repeat(Z, times, axis=0), np.repeat(positive, times), 10.0)
    weighted = solve(Z, positive, 10.0, times.astype(np.float64))
    np.testing.assert_allclose(weighted.weight, repeated.weight, rtol=1e-9)


@pytest.mark.parametrize("C", CS)
def test_products_that_are_given_change_nothing(C: float) -> None:
    Z, positive = draw(60, 90, apart=1.0)
    weight = np.where(np.arange(60) % 3, 1.0, 0.0)
    problems = Problems((weight / weight.sum())[None], np.zeros(1, dtype=np.int64), np.array([1 / (C * weight.sum())]))
    start = solve(Z, positive, 1e-3)
    which, loss = np.zeros(1, dtype=np.int64), SquaredHinge(positive[None])
    plain = finish(Z, loss, problems, start, which)
    given = finish(Z, loss, problems, start, which, gram=Z @ Z.T + 1)
    np.testing.assert_allclose(given.weight, plain.weight, atol=1e-9)
    assert given.iterations[0] == plain.iterations[0]


def test_what_is_within_the_tolerance_stays_as_it_is_and_its_gap_is_told() -> None:
    Z, positive = draw(60, 90, apart=1.0)
    exact = solve(Z, positive, 1e-3)
    near = dataclasses.replace(exact, weight=exact.weight * (1 + 1e-4))
    problems = Problems(np.full((1, 60), 1 / 60), np.zeros(1, dtype=np.int64), np.array([1 / (1e-3 * 60)]))
    which, loss = np.zeros(1, dtype=np.int64), SquaredHinge(positive[None])
    kept = finish(Z, loss, problems, near, which, tol=1e-4)
    np.testing.assert_array_equal(kept.weight, near.weight)
    assert kept.iterations[0] == 0
    apart = objective(Z, positive, 1e-3, near.weight[0, 0], near.bias[0, 0]) / (exact.objective[0] * 1e-3 * 60) - 1
    assert apart <= kept.gap[0] <= 1e-4
    np.testing.assert_allclose(finish(Z, loss, problems, near, which, tol=1e-12).weight, exact.weight, atol=1e-9)
