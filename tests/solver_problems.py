"""Losses and problems for the tests of the batched solver.

N rows, P problems, K outputs.
"""

from __future__ import annotations

import numpy as np
import pytest

from featx.heads.solver.lbfgs import minimise
from featx.heads.solver.losses import Logistic, Loss, Softmax, SquaredHinge
from featx.heads.solver.matrices import DenseMatrix
from featx.heads.solver.problems import Problems, Solution

ALL = slice(None)
LOSSES = pytest.mark.parametrize("kind", ["softmax", "logistic", "hinge"])
K = 4


def make_loss(kind: str, labels: np.ndarray) -> Loss:
    """Make a loss of K outputs for (N,) labels in 0..K-1."""
    if kind == "softmax":
        return Softmax(labels, K)
    positive = labels == np.arange(K)[:, None]
    return Logistic(positive) if kind == "logistic" else SquaredHinge(positive)


def problems(penalty: list[float], weights: np.ndarray) -> Problems:
    """The problems of each penalty with each fold of (F, N) weights."""
    folds = len(weights)
    return Problems(weights, np.tile(np.arange(folds), len(penalty)), np.repeat(np.array(penalty), folds))


def solve(matrix: DenseMatrix, loss: Loss, batch: Problems, *, tol: float = 1e-12, **kwargs: object) -> Solution:
    count, dim = len(batch.penalty), matrix.Z.shape[1]
    start = (np.zeros((loss.outputs, count, dim)), np.zeros((loss.outputs, count)))
    return minimise(matrix, loss, batch, kwargs.pop("start", start), tol=tol, **kwargs)


def scores_of(solution: Solution, Z: np.ndarray) -> np.ndarray:
    """The (K, P, N) scores of (N, D) rows."""
    return np.einsum("kpd,nd->kpn", solution.weight, Z) + solution.bias[..., None]


def logistic(n: int = 80, dim: int = 6) -> tuple[np.ndarray, Logistic, np.ndarray]:
    """Draw (N, D) rows, a logistic loss of one label, and the (2, N) weights of two folds."""
    rng = np.random.default_rng(n * dim)
    Z = rng.normal(size=(n, dim))
    positive = Z[:, 0] + rng.logistic(size=n) > 0
    weights = rng.uniform(0.5, 2, (2, n))
    weights[0, : n // 3] = 0
    return Z, Logistic(positive[None]), weights / weights.sum(axis=1, keepdims=True)
