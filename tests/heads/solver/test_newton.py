"""Newton steps of the solver, against L-BFGS run to its last digits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from solver_problems import LOSSES, K, make_loss, problems, solve

from featx.heads.solver.losses import Loss, Softmax
from featx.heads.solver.matrices import DenseMatrix
from featx.heads.solver.newton import HessianModel, _conjugate_gradients, refine
from featx.heads.solver.problems import Problems

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # numpy must not warn


def multinomial(dtype: type) -> tuple[DenseMatrix, Softmax, Problems]:
    rng = np.random.default_rng(0)
    Z, labels, weight = rng.normal(size=(150, 8)), rng.integers(0, 3, 150), rng.dirichlet(np.ones(150))
    Z[np.arange(150), labels] += 2
    return DenseMatrix(Z.astype(dtype)), Softmax(labels, 3), problems([1e-6], weight[None].astype(dtype))


def own_hessian(matrix: DenseMatrix, loss: Loss, batch: Problems) -> HessianModel:
    """The Hessian of the problem itself."""
    return HessianModel(matrix, batch.weights[0], loss, lambda weight: weight, lambda weight: weight)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_newton_steps_reach_the_last_digits_with_hessians_of_either_precision(dtype: type) -> None:
    matrix, loss, batch = multinomial(np.float64)
    best = solve(matrix, loss, batch, tol=1e-15, max_iter=20_000)
    rough = solve(matrix, loss, batch, tol=1e-3)
    solution = refine(
        matrix, loss, batch, (rough.weight, rough.bias), model=own_hessian(*multinomial(dtype)), tol=1e-11, max_iter=30
    )
    assert rough.objective[0] / best.objective[0] - 1 > 1e-8
    assert abs(solution.objective[0] / best.objective[0] - 1) < 1e-10
    assert solution.gap[0] <= 1e-11
    assert solution.iterations[0] < 15


@LOSSES
def test_newton_steps_converge_from_a_distant_start(kind: str) -> None:
    rng = np.random.default_rng(0)
    Z, labels = DenseMatrix(rng.normal(size=(70, 3))), rng.integers(0, K, 70)
    loss, batch = make_loss(kind, labels), problems([0.01], np.full((1, 70), 1 / 70))
    best = solve(Z, loss, batch)
    start = (10 * rng.normal(size=(K, 1, 3)), 10 * rng.normal(size=(K, 1)))
    solution = refine(Z, loss, batch, start, model=own_hessian(Z, loss, batch), tol=1e-10, max_iter=50)
    assert abs(solution.objective[0] / best.objective[0] - 1) < 1e-9


@LOSSES
def test_newton_steps_with_the_hessian_of_a_sample_of_the_rows_converge(kind: str) -> None:
    rng = np.random.default_rng(0)
    Z, labels = rng.normal(size=(600, 4)), rng.integers(0, K, 600)
    Z[np.arange(600), labels] += 1
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    matrix, loss, batch = DenseMatrix(Z), make_loss(kind, labels), problems([0.01], np.full((1, 600), 1 / 600))
    some = HessianModel(
        DenseMatrix((Z[::3] @ turn).astype(np.float32)), np.full(200, 1 / 200), make_loss(kind, labels[::3]),
        lambda weight: weight @ turn, lambda weight: weight.astype(np.float64) @ turn.T,
    )  # fmt: skip
    best = solve(matrix, loss, batch)
    start = (np.zeros((K, 1, 4)), np.zeros((K, 1)))
    solution = refine(matrix, loss, batch, start, model=some, tol=1e-8, max_iter=50)
    assert solution.objective[0] / best.objective[0] - 1 < 1e-6
    few = refine(matrix, loss, batch, start, model=some, tol=1e-8, max_iter=1)
    assert few.iterations[0] == 1
    assert 1e-8 < few.objective[0] / best.objective[0] - 1 <= 20 * few.gap[0]


def dense(H: np.ndarray) -> tuple[Callable[..., tuple[np.ndarray, np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    """Products by a matrix whose last row and column are an intercept's, and the inverse of its diagonal."""

    def product(V: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out = H @ np.append(V.ravel(), c)
        return out[:-1].reshape(V.shape), out[-1:].reshape(c.shape)

    diagonal = 1 / np.diag(H)
    return product, (diagonal[:-1].reshape(1, 1, -1), diagonal[-1:].reshape(1, 1))


@pytest.mark.parametrize("condition", [1e0, 1e4, 1e8, 1e16])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_conjugate_gradients_end_with_a_decrease_whatever_the_matrix(
    condition: float, dtype: type, size: float
) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
        H = (turn * np.geomspace(1 / condition, 1, 12)) @ turn.T
        target = rng.normal(size=12) * (size if dtype is np.float64 else size**0.4)
        product, inverse = dense(H.astype(dtype))
        d, db = _conjugate_gradients(
            product, (target[:-1].reshape(1, 1, -1).astype(dtype), target[-1:].reshape(1, 1).astype(dtype)), inverse,
            tol=0.0,
        )  # fmt: skip
        d = np.append(d.ravel(), db).astype(np.float64) / np.abs(target).max()
        target /= np.abs(target).max()
        assert np.isfinite(d).all()
        assert target @ d > 0  # the objective falls along the step
        if condition * np.finfo(dtype).eps < 1e-3:  # or the rounded matrix is not positive definite
            assert 0.5 * d @ H @ d - target @ d < 0
        if condition <= 1e4 and dtype is np.float64:
            np.testing.assert_allclose(H @ d, target, atol=1e-6)


def test_conjugate_gradients_without_a_target_do_not_move() -> None:
    product, inverse = dense(np.eye(3))
    d, db = _conjugate_gradients(product, (np.zeros((1, 1, 2)), np.zeros((1, 1))), inverse, tol=1e-6)
    assert not d.any()
    assert not db.any()
