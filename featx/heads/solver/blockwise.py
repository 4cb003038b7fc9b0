"""Losses of many linear problems on the same rows, with gradients and Hessians, block by block on all cores.

N rows, D features, K outputs, P problems. Scores are (K, P, N), so that sums over outputs are sums of long vectors.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from featx.heads.solver.losses import Loss
from featx.heads.solver.matrices import BlockFunction, Matrix, Span, parallel_map
from featx.heads.solver.problems import Problems

T = TypeVar("T")

BLOCK = 1 << 17
"""Scores that one thread processes at once, so that they stay in its cache."""


class BlockwiseLoss:
    """The weighted losses of P problems, without their penalties.

    The scores of the current weights, and those of a search direction, are stored. A step along the direction changes the
    scores linearly, so the loss at any length costs no matrix product.

    Args:
        matrix: (N, D).
        loss: of K outputs.
        problems: P problems.
        width: D.

    Attributes:
        fold: (P,) int64, the fold of each problem.
        scores: (K, P, N), of the current weights; 0 before ``start``.
        direction_scores: (K, P, N), of the last direction given to ``value_and_gradient``.
    """

    def __init__(self, matrix: Matrix, loss: Loss, problems: Problems, *, width: int) -> None:
        self.matrix, self.loss, self.width = matrix, loss, width
        self.row_weights, self.fold = problems.weights, problems.fold
        self.regions = problems.regions or (slice(0, len(matrix)),)
        self.used = np.array([self.row_weights[:, rows].any(axis=1) for rows in self.regions])
        shape = (2, loss.outputs, len(self.fold), len(matrix))
        self.scores, self.direction_scores = np.zeros(shape, matrix.dtype)

    def start(self, W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Start at (K, P, D) weights and (K, P) intercepts.

        Returns:
            (P,) float64 losses, and their (K, P, D) and (K, P) gradients.
        """
        # From weights of 0, whose scores are 0, one step of length 1 leads to the start.
        everything = np.arange(len(self.fold))
        value, _, gradient = self.value_and_gradient(everything, np.ones(len(everything)), (W, b))
        self.scores, self.direction_scores = self.direction_scores, self.scores
        return value, gradient

    def value_and_gradient(
        self, which: np.ndarray, length: np.ndarray, direction: tuple[np.ndarray, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Evaluate the loss after a step along a direction, and its gradient, in one sweep over the rows.

        Args:
            which: (p,) int64, the problems.
            length: (p,) float64, of the steps.
            direction: (K, P, D) and (K, P), a new direction of all P problems; the last one unless given.

        Returns:
            (p,) float64 losses, their (p,) float64 derivatives by the length, and their (K, p, D) and (K, p) gradients.
        """
        parts: dict[int, tuple[np.ndarray, ...]] = {}

        def process(rows: slice, M: np.ndarray | None) -> np.ndarray:
            along = None
            if M is not None and direction is not None:
                here = self._using(which, rows)
                along = M.reshape(len(self.scores), -1, M.shape[1]) + direction[1][:, here, None]
                self.direction_scores[:, here, rows] = along
            value, slope, gb, residual = self._block(which, length, rows, along)
            parts[rows.start] = value, slope, gb
            return residual.reshape(-1, residual.shape[2])

        g = self._sweep(which, None if direction is None else direction[0], process)
        value, slope, gb = _ordered_sum(parts)
        return value, slope, (g, gb)

    def value(self, which: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate the loss after a step along the last direction, from the stored scores alone.

        Args:
            which: (p,) int64, the problems.
            length: (p,) float64, of the steps.

        Returns:
            (p,) float64 losses and their (p,) float64 derivatives by the length.
        """
        parts = self._map_blocks(lambda rows: self._block(which, length, rows)[:2])
        value, slope = (np.sum(part, axis=0) for part in zip(*parts, strict=True))
        return value, slope

    def move(self, length: np.ndarray) -> None:
        """Add the scores of a step along the last direction to the scores; ``length`` is (P,) in the matrix's dtype."""

        def move(rows: slice) -> None:  # rows of weight 0 too, whose scores are never read
            self.scores[:, :, rows] += length[:, None] * self.direction_scores[:, :, rows]

        self._map_blocks(move)

    def hessian_product(self, V: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Multiply the Hessians by (K, P, D) weights and (K, P) intercepts: (K, P, D) and (K, P)."""
        everything = np.arange(len(self.fold))
        parts: dict[int, tuple[np.ndarray, ...]] = {}

        def process(rows: slice, M: np.ndarray | None) -> np.ndarray:
            assert M is not None
            here = self._using(everything, rows)
            along = M.reshape(len(c), -1, M.shape[1]) + c[:, here, None]
            product = self.loss.hessian_product(self.scores[:, here, rows], along, rows)
            product *= self.row_weights[self.fold[here], rows]
            parts[rows.start] = (_scattered(len(everything), here, product.sum(axis=2)),)
            return product.reshape(len(M), -1)

        h = self._sweep(everything, V, process)
        (hb,) = _ordered_sum(parts)
        return h, hb

    def hessian_diagonal(self, groups: np.ndarray, *, of_weights: bool) -> tuple[np.ndarray | None, np.ndarray]:
        """Evaluate the diagonals of the Hessians.

        Args:
            groups: (P,) int64 in 0..G-1; the diagonals for weights are means over the problems of a group.
            of_weights: whether to evaluate the diagonals for weights, which takes a sweep over the rows.

        Returns:
            (K, G, D) for weights, or None; and (K, P) for intercepts.
        """
        everything = np.arange(len(self.fold))
        mean = (np.arange(groups.max() + 1)[:, None] == groups).astype(self.scores.dtype)
        mean /= mean.sum(axis=1, keepdims=True)
        parts: dict[int, tuple[np.ndarray, ...]] = {}

        def process(rows: slice, _: np.ndarray | None = None) -> np.ndarray:
            here = self._using(everything, rows)
            A: np.ndarray = self.loss.hessian_diagonal(self.scores[:, here, rows], rows)
            A = A * self.row_weights[self.fold[here], rows]
            parts[rows.start] = (_scattered(len(everything), here, A.sum(axis=2)),)
            averaged: np.ndarray = mean[:, here] @ A
            return averaged.reshape(-1, A.shape[2])

        diagonal = None
        if of_weights:
            spans: list[Span] = [(rows, None) for rows in self.regions if self._uses(everything, rows).any()]
            sums = self.matrix.sweep(spans, process, squared=True)
            diagonal = np.sum(sums, axis=0).reshape(len(self.scores), -1, self.width)
        else:
            self._map_blocks(process)
        (bias,) = _ordered_sum(parts)
        return diagonal, bias

    def select(self, stay: np.ndarray) -> None:
        """Drop the scores of the problems that do not ``stay``, (P,) bool."""
        self.fold = self.fold[stay]
        left = len(self.fold)
        for of_output in self.scores:  # in place, because there may be no memory for a copy
            of_output[:left] = of_output[: len(stay)][stay]
        self.scores, self.direction_scores = self.scores[:, :left], self.direction_scores[:, :left]

    def _block(
        self, which: np.ndarray, length: np.ndarray, rows: slice, along: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Evaluate the loss of a block of n rows for some problems, after a step along the direction.

        Returns:
            (p,) losses, (p,) derivatives by the length, (K, p) gradients by the intercepts, and the weighted residuals of the
            problems that use these rows, (K, <= p, n).
        """
        here = self._using(which, rows)
        chosen = here if len(which) == len(self.fold) else which[here]
        weight = self.row_weights[self.fold[chosen], rows]
        M = self.direction_scores[:, chosen, rows] if along is None else along
        scores = M * length[here].astype(M.dtype)[:, None]
        scores += self.scores[:, chosen, rows]
        value, residual = self.loss.value_and_derivative(scores, rows)
        residual *= weight
        losses = np.einsum("pn,pn->p", value, weight, dtype=np.float64)
        slope = np.einsum("kpn,kpn->p", residual, M).astype(np.float64)
        losses, slope, bias = (_scattered(len(which), here, part) for part in (losses, slope, residual.sum(axis=2)))
        return losses, slope, bias, residual

    def _uses(self, which: np.ndarray, rows: slice) -> np.ndarray:
        """(p,) bool, whether each of some problems has a weight above 0 in the region of a block of rows."""
        region = bisect_right(self.regions, rows.start, key=lambda region: region.start) - 1
        out: np.ndarray = self.used[region, self.fold[which]]
        return out

    def _using(self, which: np.ndarray, rows: slice) -> Any:
        """The index, within ``which``, of the problems that use a block of rows: a slice of all, or int64."""
        uses = self._uses(which, rows)
        return slice(None) if uses.all() else np.flatnonzero(uses)

    def _sweep(self, which: np.ndarray, V: np.ndarray | None, process: BlockFunction) -> np.ndarray:
        """Sweep over the rows that each of some problems uses, with (K, p, D) weights: (K, p, D) sums."""
        used = [(rows, self._using(which, rows)) for rows in self.regions if self._uses(which, rows).any()]
        spans = [(rows, None if V is None else V[:, here].reshape(-1, self.width)) for rows, here in used]
        out = np.zeros((len(self.scores), len(which), self.width), self.scores.dtype)
        for (_, here), part in zip(used, self.matrix.sweep(spans, process), strict=True):
            out[:, here] += part.reshape(len(self.scores), -1, self.width)
        return out

    def _map_blocks(self, function: Callable[[slice], T]) -> list[T]:
        """Apply a function to each block of rows, in parallel if there are several."""
        K, P, _ = self.scores.shape
        n = max(64, BLOCK // (K * P))
        blocks = [slice(at, min(rows.stop, at + n)) for rows in self.regions for at in range(rows.start, rows.stop, n)]
        return parallel_map(function, blocks)


def _scattered(count: int, here: Any, part: np.ndarray) -> np.ndarray:
    """Scatter (..., p) numbers of some problems into (..., count), with zeros for the other problems."""
    if isinstance(here, slice):
        return part
    out = np.zeros((*part.shape[:-1], count), part.dtype)
    out[..., here] = part
    return out


def _ordered_sum(parts: dict[int, tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Sum the results of blocks in the order of their first rows, so that the rounding errors do not depend on threads."""
    in_order = (parts[at] for at in sorted(parts))
    return tuple(np.sum(part, axis=0) for part in zip(*in_order, strict=True))
