"""Where fits along a path of C start: between or beyond the solutions that are known. numpy only.

K outputs, F folds, P problems (one for each value of C and fold), r features.
"""

from __future__ import annotations

import numpy as np

from featx.heads.solver.problems import Solution

MAX_BYTES = 64 << 20
"""The most bytes of solutions that are kept beside the two nearest to the last."""

Parameters = tuple[np.ndarray, np.ndarray]
"""Weights and intercepts."""


class WarmStarts:
    """The solutions of some folds along a path of C, from which those of other values of C are started.

    Over log C the solutions change smoothly, so a start is interpolated linearly between two values of C, or extrapolated from
    the last two.

    Attributes:
        solved: by log C, the weights (K, F, r), the intercepts (K, F), and (F,) float64, the lengths of the first steps.
    """

    def __init__(self) -> None:
        self.solved: dict[float, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def add(self, log_C: np.ndarray, solution: Solution) -> None:
        """Add the solutions for (n,) log C; the folds of each are consecutive problems."""
        folds = solution.weight.shape[1] // len(log_C)
        for index, place in enumerate(log_C.tolist()):
            at = slice(index * folds, (index + 1) * folds)
            parts = solution.weight[:, at], solution.bias[:, at], solution.first_step[at]
            self.solved[place] = (parts[0].copy(), parts[1].copy(), parts[2].copy())
            most = max(3, MAX_BYTES // max(1, parts[0].nbytes))
            if len(self.solved) > most:
                del self.solved[max(self.solved, key=lambda other: abs(other - place))]

    def first_step(self, log_C: np.ndarray, folds: int) -> np.ndarray:
        """(P,) float64, the lengths of the first steps to try for (n,) log C: those of the nearest solution below."""
        below = [max((p for p in self.solved if p <= place), default=None) for place in log_C.tolist()]
        return np.concatenate([np.ones(folds) if p is None else self.solved[p][2] for p in below])

    def start(self, log_C: np.ndarray, folds: int, outputs: int, width: int) -> Parameters:
        """(K, P, r) and (K, P), the start for (n,) log C."""
        parts = [self._start_at(place, folds, outputs, width) for place in log_C.tolist()]
        return np.concatenate([w for w, _ in parts], axis=1), np.concatenate([b for _, b in parts], axis=1)

    def mean(self, log_C: float) -> Parameters | None:
        """(K, 1, r) and (K, 1), the mean over the folds at a C that was solved; else None."""
        if log_C not in self.solved:
            return None
        weight, bias, _ = self.solved[log_C]
        return weight.mean(axis=1, keepdims=True), bias.mean(axis=1, keepdims=True)

    def _start_at(self, place: float, folds: int, outputs: int, width: int) -> Parameters:
        """(K, F, r) and (K, F), the start for one log C."""
        below = sorted(p for p in self.solved if p <= place)[-2:]
        above = min((p for p in self.solved if p > place), default=None)
        if not below:  # weights are smaller than any that are known
            return np.zeros((outputs, folds, width)), np.zeros((outputs, folds))
        weight, bias, _ = self.solved[below[-1]]
        if below[-1] == place or (above is None and len(below) < 2):
            return weight, bias
        other = below[0] if above is None else above
        share = weight.dtype.type((place - below[-1]) / (other - below[-1]))
        return weight + share * (self.solved[other][0] - weight), bias + share * (self.solved[other][1] - bias)
