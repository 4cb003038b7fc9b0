"""The loss of one linear problem on rows whose scores are not stored: each evaluation reads the rows, here or elsewhere.

``BlockwiseLoss`` keeps two scores of each row and output, which are more than memory for many rows. Here the loss is a function
of the parameters alone, so a step along a direction costs another sweep over the rows, which the first length of a line search
seldom needs; and several processes, each with some of the rows, sum what the function returns. numpy only.

N rows, D features, K outputs, one problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from featx.heads.solver.blockwise import BlockwiseLoss
from featx.heads.solver.losses import Loss
from featx.heads.solver.matrices import DenseMatrix, Matrix, Rotated
from featx.heads.solver.problems import Problems

LossSums = tuple[np.ndarray, np.ndarray, np.ndarray]
"""() loss, and its (K, D) gradient by the weights and its (K,) gradient by the intercepts; float64."""
SumLosses = Callable[[Any, np.ndarray, np.ndarray], LossSums]
"""Evaluates the weighted loss of all rows with products of a dtype, at (K, D) weights and (K,) intercepts."""


class LossOfBatch(Protocol):
    """What a batch needs of the losses of its problems; see ``BlockwiseLoss``."""

    fold: np.ndarray

    def start(self, W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Start at some weights and intercepts: the losses and their gradients."""
        ...

    def value_and_gradient(
        self, which: np.ndarray, length: np.ndarray, direction: tuple[np.ndarray, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """The losses after a step, their derivatives by its length, and their gradients."""
        ...

    def value(self, which: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The losses after a step along the last direction, and their derivatives by the length."""
        ...

    def move(self, length: np.ndarray) -> None:
        """Take a step along the last direction."""
        ...

    def hessian_product(self, V: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Multiply the Hessians by a direction."""
        ...

    def hessian_diagonal(self, groups: np.ndarray, *, of_weights: bool) -> tuple[np.ndarray | None, np.ndarray]:
        """The diagonals of the Hessians, for weights and for intercepts."""
        ...

    def select(self, stay: np.ndarray) -> None:
        """Drop the problems that do not ``stay``."""
        ...


def sum_losses(matrix: Matrix, loss: Loss, weights: np.ndarray, W: np.ndarray, b: np.ndarray) -> LossSums:
    """Sum the weighted loss of some rows, and its gradients, in one sweep.

    Args:
        matrix: (N, D).
        loss: of K outputs.
        weights: (N,).
        W: (K, D).
        b: (K,).

    Examples:
        >>> from featx.heads.solver.losses import Logistic
        >>> matrix, loss = DenseMatrix(np.array([[1.0], [-1.0]])), Logistic(np.array([[True, False]]))
        >>> value, g, gb = sum_losses(matrix, loss, np.full(2, 0.5), np.zeros((1, 1)), np.zeros(1))
        >>> value.round(3), g, gb
        (np.float64(0.693), array([[-0.5]]), array([0.]))
    """
    if not len(matrix):
        return np.zeros(()), np.zeros(W.shape), np.zeros(b.shape)
    parts: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    W, b, weights = W.astype(matrix.dtype), b.astype(matrix.dtype), weights.astype(matrix.dtype, copy=False)

    def process(rows: slice, M: np.ndarray | None) -> np.ndarray:
        assert M is not None
        value, residual = loss.value_and_derivative(M[:, None] + b[:, None, None], rows)
        residual *= weights[rows]
        summed = np.einsum("pn,n->", value, weights[rows], dtype=np.float64)
        parts[rows.start] = np.asarray(summed), residual.sum(axis=(1, 2), dtype=np.float64)
        return residual[:, 0]

    (g,) = matrix.sweep([(slice(0, len(matrix)), W)], process)
    in_order = [parts[at] for at in sorted(parts)]  # so that rounding errors do not depend on threads
    value, gb = (np.sum(part, axis=0) for part in zip(*in_order, strict=True))
    return np.asarray(value), g.astype(np.float64), gb


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows in memory that the Hessian is estimated from.

    Attributes:
        rotated: the rows.
        loss: of these rows.
        weights: (n,), of these rows, with sum 1.
    """

    rotated: Rotated
    loss: Loss
    weights: np.ndarray


class SummedLoss:
    """The weighted loss of one problem, as ``BlockwiseLoss`` is that of several.

    Args:
        evaluate: the loss of all rows.
        dtype: of the products and of what is returned.
        sample: the rows that the diagonal of the Hessian is estimated from.
        rotates: whether the parameters are in the sample's axes.

    Attributes:
        fold: (1,) int64.
    """

    def __init__(self, evaluate: SumLosses, dtype: Any, sample: Sample, *, rotates: bool) -> None:
        self._evaluate, self._dtype, self._sample, self._rotates = evaluate, np.dtype(dtype), sample, rotates
        self.fold = np.zeros(1, dtype=np.int64)
        self._at: tuple[np.ndarray, np.ndarray] = np.zeros((1, 1, 1)), np.zeros((1, 1))
        self._direction = self._at
        self._last: tuple[float, tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]] | None = None

    def start(self, W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Start at (K, 1, D) weights and (K, 1) intercepts."""
        self._at = np.zeros(W.shape), np.zeros(b.shape)
        value, _, gradient = self.value_and_gradient(self.fold, np.ones(1), (W, b))
        self.move(np.ones(1))
        return value, gradient

    def value_and_gradient(
        self, which: np.ndarray, length: np.ndarray, direction: tuple[np.ndarray, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Evaluate the loss after a step along a direction; see ``BlockwiseLoss``."""
        del which  # there is one problem
        t = float(length[0])
        if direction is not None:
            self._direction = direction[0].astype(np.float64), direction[1].astype(np.float64)
        elif self._last is not None and self._last[0] == t:
            return self._last[1]
        W, b = (at + t * step for at, step in zip(self._at, self._direction, strict=True))
        value, g, gb = self._evaluate(self._dtype, self._unrotated(W[:, 0]), b[:, 0])
        g = (self._sample.rotated.rotate(g) if self._rotates else g)[:, None]
        gb = gb[:, None]
        slope = np.vdot(g, self._direction[0]) + np.vdot(gb, self._direction[1])
        found = value.reshape(1), np.array([slope]), (g.astype(self._dtype), gb.astype(self._dtype))
        self._last = t, found
        return found

    def value(self, which: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate the loss after a step along the last direction, and its derivative by the length."""
        return self.value_and_gradient(which, length)[:2]

    def move(self, length: np.ndarray) -> None:
        """Add a step along the last direction to the parameters."""
        t = float(length[0])
        W, b = (at + t * step for at, step in zip(self._at, self._direction, strict=True))
        self._at, self._last = (W, b), None

    def hessian_product(self, V: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Not available: Newton's steps use the Hessian of the sample."""
        raise NotImplementedError

    def hessian_diagonal(self, groups: np.ndarray, *, of_weights: bool) -> tuple[np.ndarray | None, np.ndarray]:
        """Estimate the diagonals of the Hessian from the sample: (K, 1, D), in its axes, or None; and (K, 1)."""
        sample, (W, b) = self._sample, self._at
        matrix = DenseMatrix(sample.rotated.coordinates)
        weights = sample.weights[None].astype(matrix.dtype)
        problem = Problems(weights, np.zeros(1, dtype=np.int64), np.ones(1))
        own = BlockwiseLoss(matrix, sample.loss, problem, width=matrix.width)
        own.start((W if self._rotates else sample.rotated.rotate(W)).astype(matrix.dtype), b.astype(matrix.dtype))
        diagonal, bias = own.hessian_diagonal(groups, of_weights=of_weights)
        return None if diagonal is None else diagonal.astype(self._dtype), bias.astype(self._dtype)

    def select(self, stay: np.ndarray) -> None:
        """Drop the problem if it does not ``stay``."""
        self.fold = self.fold[stay]

    def _unrotated(self, weight: np.ndarray) -> np.ndarray:
        return self._sample.rotated.unrotate(weight) if self._rotates else weight


@dataclass(frozen=True, eq=False)
class SummedRows:
    """Stands for the matrix of a problem whose loss is a ``SummedLoss``.

    Attributes:
        evaluate: the loss of all rows.
        dtype: of the products.
        sample: the rows that the diagonal of the Hessian is estimated from.
        rotates: whether the parameters are in the sample's axes.
    """

    evaluate: SumLosses
    dtype: Any
    sample: Sample
    rotates: bool

    def losses(self) -> SummedLoss:
        """The loss of the one problem."""
        return SummedLoss(self.evaluate, self.dtype, self.sample, rotates=self.rotates)
