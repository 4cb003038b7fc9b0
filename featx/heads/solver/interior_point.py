"""Linear support vector regression by a primal-dual interior point method (Mehrotra, 1992; Ferris and Munson, 2002).

The number of iterations, each a Cholesky decomposition, hardly depends on the data or on C, unlike that of methods that change
one or two dual coefficients at a time.

n rows, m columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.linalg

EPSILON = 0.1
"""Half the width of the tube within which an error costs nothing: scikit-learn's default."""
GAP = 1e-13
"""Relative duality gap at which a fit is done; it bounds how far the objective is above its minimum. Parameters are accurate
to about its root."""
MAX_STEPS = 100
"""Iterations after which a fit is abandoned; 20 to 30 are usual."""
STALLED_GAP, MAX_STALLED = 1e-7, 5
"""Below this gap, iterations in a row that do not lower it, after which rounding errors hide any progress."""


class Regression(NamedTuple):
    """A linear support vector regression.

    Attributes:
        weight: (m,) float64.
        bias: the intercept.
        gap: the duality gap, relative to the objective.
        steps: iterations.
    """

    weight: np.ndarray
    bias: float
    gap: float
    steps: int


def fit_regression(Z: np.ndarray, y: np.ndarray, cost: np.ndarray, *, tol: float = GAP) -> Regression:
    """Minimise |w|^2 / 2 + sum_i cost_i max(0, |y_i - z_i w - b| - EPSILON).

    Args:
        Z: (n, m) float64. With more columns than rows, rotate them into at most n first: an iteration costs n m^2.
        y: (n,) float64, of a deviation near 1.
        cost: (n,) float64, above 0.
        tol: relative duality gap at which to stop.

    Examples:
        >>> fitted = fit_regression(np.array([[-1.0], [0.0], [1.0]]), np.array([-1.2, 0.0, 1.2]), np.full(3, 100.0))
        >>> fitted.weight.round(3), abs(round(fitted.bias, 3))
        (array([1.1]), 0.0)
    """
    state = _State.start(Z, y, cost)
    best = state.regression(0)
    for step in range(1, MAX_STEPS + 1):
        if best.gap <= tol or (best.gap <= STALLED_GAP and step - best.steps > MAX_STALLED):
            break
        try:
            moved = state.step()
        except np.linalg.LinAlgError:
            break
        found = state.regression(step)
        if found.gap < best.gap:
            best = found
        if not moved:
            break
    return best


@dataclass
class _Bounded:
    """The (n,) dual coefficients of one side of the tube, between 0 and their costs, and the multipliers of these bounds."""

    value: np.ndarray
    room: np.ndarray  # cost - value
    low: np.ndarray
    high: np.ndarray

    def complementarity(self) -> float:
        return float(self.value @ self.low + self.room @ self.high)


class _Side:
    """A Newton step of one side of the tube, as a function of the step of the scores."""

    def __init__(self, at: _Bounded, residual: np.ndarray, target: float, before: _Bounded | None = None) -> None:
        """Linearise the conditions value low = target, room high = target, and residual = 0, at a point.

        ``before`` is the predictor's step, whose second-order error is corrected.
        """
        self.at = at
        self.to_low = target - at.value * at.low - (before.value * before.low if before else 0.0)
        self.to_high = target - at.room * at.high - (before.room * before.high if before else 0.0)
        self.inverse = 1 / (at.low / at.value + at.high / at.room)
        self.constant = -residual + self.to_low / at.value - self.to_high / at.room

    def step(self, scores: np.ndarray) -> _Bounded:
        """The step for that of the side's own scores."""
        value = self.inverse * (self.constant - scores)
        low = (self.to_low - self.at.low * value) / self.at.value
        high = (self.to_high + self.at.high * value) / self.at.room
        return _Bounded(value, -value, low, high)


class _State:
    """The point of the iteration.

    Attributes:
        sides: those of errors above and below the tube.
        w, b: the parameters.
        scores: Z w + b.
    """

    def __init__(self, Z: np.ndarray, y: np.ndarray, cost: np.ndarray, sides: tuple[_Bounded, _Bounded]) -> None:
        self.Z, self.y, self.cost, self.sides = Z, y, cost, sides
        self.w, self.b, self.scores = np.zeros(Z.shape[1]), 0.0, np.zeros(len(y))

    @classmethod
    def start(cls, Z: np.ndarray, y: np.ndarray, cost: np.ndarray) -> _State:
        sides = []
        for sign in (1.0, -1.0):
            slope = EPSILON - sign * y
            low = np.maximum(slope, 0) + 1.0
            sides.append(_Bounded(cost / 2, cost / 2, low, low - slope))
        return cls(Z, y, cost, (sides[0], sides[1]))

    def regression(self, steps: int) -> Regression:
        """The parameters, and the gap between their objective and the dual's."""
        beta = self.sides[0].value - self.sides[1].value
        beta = beta - beta.mean()
        excess = float(np.max(np.abs(beta) / self.cost))
        beta = beta / max(1.0, excess)  # feasible, so that its objective is a lower bound
        v = self.Z.T @ beta
        errors = np.maximum(0, np.abs(self.y - self.scores) - EPSILON)
        primal = 0.5 * self.w @ self.w + self.cost @ errors
        dual = beta @ self.y - EPSILON * np.abs(beta).sum() - 0.5 * v @ v
        floor = 1e-12 * float(self.cost.sum())
        gap = max(0.0, float(primal - dual)) / max(float(primal), floor)
        return Regression(self.w.copy(), self.b, gap if np.isfinite(gap) else np.inf, steps)

    def step(self) -> bool:
        """Take one step of Mehrotra's predictor and corrector; False if there was none to take."""
        over, under = self.sides
        residuals = (
            self.scores - self.y + EPSILON - over.low + over.high,
            self.y - self.scores + EPSILON - under.low + under.high,
        )
        count = 4 * len(self.y)
        mean = (over.complementarity() + under.complementarity()) / count
        predictor = [_Side(side, residual, 0.0) for side, residual in zip(self.sides, residuals, strict=True)]
        factor = self._decomposed(predictor)
        *_, steps = self._direction(predictor, factor)
        length = self._longest(steps, 1.0)
        after = sum(
            float((at.value + length * to.value) @ (at.low + length * to.low))
            + float((at.room + length * to.room) @ (at.high + length * to.high))
            for at, to in zip(self.sides, steps, strict=True)
        )
        target = mean * (max(after, 0.0) / count / mean) ** 3
        corrector = [
            _Side(side, residual, target, before)
            for side, residual, before in zip(self.sides, residuals, steps, strict=True)
        ]
        dw, db, steps = self._direction(corrector, factor)
        length = self._longest(steps, 0.995)
        if not (length > 1e-12 and np.isfinite(dw).all()):
            return False
        for at, to in zip(self.sides, steps, strict=True):
            at.value, at.room = at.value + length * to.value, at.room + length * to.room
            at.low, at.high = at.low + length * to.low, at.high + length * to.high
        self.w, self.b = self.w + length * dw, self.b + length * db
        self.scores = self.Z @ self.w + self.b
        return True

    def _decomposed(self, sides: list[_Side]) -> tuple[np.ndarray, np.ndarray, bool]:
        """The Cholesky factor of the (m + 1, m + 1) system, and the diagonal that it is of."""
        diagonal = sides[0].inverse + sides[1].inverse
        weighted = self.Z * diagonal[:, None]
        m = self.Z.shape[1]
        matrix = np.empty((m + 1, m + 1))
        matrix[:m, :m] = weighted.T @ self.Z
        matrix[np.arange(m), np.arange(m)] += 1.0
        matrix[:m, m] = matrix[m, :m] = weighted.sum(axis=0)
        matrix[m, m] = diagonal.sum()
        factor, lower = scipy.linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        return factor, diagonal, lower

    def _direction(
        self, sides: list[_Side], factor: tuple[np.ndarray, np.ndarray, bool]
    ) -> tuple[np.ndarray, float, tuple[_Bounded, _Bounded]]:
        matrix, _, lower = factor
        beta = self.sides[0].value - self.sides[1].value
        h = sides[0].inverse * sides[0].constant - sides[1].inverse * sides[1].constant + beta
        target = np.append(self.Z.T @ h - self.w, h.sum())
        solved = scipy.linalg.cho_solve((matrix, lower), target, check_finite=False)
        dw, db = solved[:-1], float(solved[-1])
        scores = self.Z @ dw + db
        return dw, db, (sides[0].step(scores), sides[1].step(-scores))

    def _longest(self, steps: tuple[_Bounded, _Bounded], share: float) -> float:
        """The longest step, at most 1, that keeps everything positive; ``share`` of the way to a bound."""
        length = 1.0
        for at, to in zip(self.sides, steps, strict=True):
            for name in ("value", "room", "low", "high"):
                now, change = getattr(at, name), getattr(to, name)
                shrinks = change < 0
                if shrinks.any():
                    length = min(length, share * float((-now[shrinks] / change[shrinks]).min()))
        return length
