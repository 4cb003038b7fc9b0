"""The problems that the solver is given, and the solutions that it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Problems:
    """P problems on the same N rows, each with the row weights of one of F folds and one penalty.

    Attributes:
        weights: (F, N), the weight of each row in each fold; the weights of a fold sum to 1.
        fold: (P,) int64 in 0..F-1, the fold of each problem.
        penalty: (P,) float64, above 0.
        regions: consecutive slices that cover the rows. A problem skips a region in which its fold has only weights of 0.
        preconditioner_group: (P,) int64 in 0..G-1. Problems of one group, such as the folds of one penalty, share a
            preconditioner: the mean of the diagonals of their Hessians. With None, each problem has its own.
    """

    weights: np.ndarray
    fold: np.ndarray
    penalty: np.ndarray
    regions: tuple[slice, ...] = ()
    preconditioner_group: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Solution:
    """The solutions of P problems with K outputs and D features.

    Attributes:
        weight: (K, P, D).
        bias: (K, P).
        objective: (P,) float64.
        gap: (P,) float64, the estimated distance of the objective from its minimum, relative to the objective.
        iterations: (P,) int64.
        first_step: (P,) float64, the length of the first step along its direction. After no step, the length that would have
            been tried first.
    """

    weight: np.ndarray
    bias: np.ndarray
    objective: np.ndarray
    gap: np.ndarray
    iterations: np.ndarray
    first_step: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: Any) -> Solution:
        """Allocate a solution for weights of shape (K, P, D)."""
        weight, bias, count = np.empty(shape, dtype), np.empty(shape[:2], dtype), shape[1]
        return cls(weight, bias, np.empty(count), np.empty(count), np.empty(count, dtype=np.int64), np.empty(count))
