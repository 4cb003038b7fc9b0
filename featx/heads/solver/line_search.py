"""A line search for many problems at once, on scores that are linear in the length of the step.

P is the number of problems, K of outputs, D of features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.heads.solver.summed import LossOfBatch

CURVATURE_CONDITION = 0.5
"""A step is accepted when the absolute slope has fallen to this share of its start: c2 of the strong Wolfe conditions."""
MAX_EVALUATIONS = 25
"""Step lengths that are tried along one direction."""


@dataclass(frozen=True, eq=False)
class PenaltyAlongLine:
    """The L2 penalty of P problems along their directions: value + slope t + curvature t^2 / 2. Each is (P,) float64."""

    value: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray


@dataclass(frozen=True, eq=False)
class Step:
    """The steps that a line search accepted for P problems.

    Attributes:
        length: (P,) float64; 0 where no step was accepted.
        objective: (P,) float64, at the end of the step.
        loss_gradient: (K, P, D) and (K, P), of the loss without the penalty, at the end of the step.
        failed: (P,) bool, whether no step was accepted: rounding errors hide any decrease.
    """

    length: np.ndarray
    objective: np.ndarray
    loss_gradient: tuple[np.ndarray, np.ndarray]
    failed: np.ndarray


def line_search(
    loss: LossOfBatch,
    direction: tuple[np.ndarray, np.ndarray],
    penalty: PenaltyAlongLine,
    *,
    objective: np.ndarray,
    slope: np.ndarray,
    first_length: np.ndarray,
) -> Step:
    """Find a step that fulfils the strong Wolfe conditions (Nocedal & Wright, 2006, section 3.1), for each problem.

    The objective along a direction is convex, so its slope increases. The search brackets a root of the slope, then narrows
    the bracket by the secant method. The first length is usually accepted, so the loss and its gradient are evaluated there
    in one sweep over the rows.

    Args:
        loss: of P problems.
        direction: (K, P, D) weights and (K, P) intercepts.
        penalty: along the directions.
        objective: (P,) float64, at length 0.
        slope: (P,) float64, of the objective at length 0; below 0.
        first_length: (P,) float64, the length to try first.
    """
    count = len(slope)
    length, low, high = first_length.copy(), np.zeros(count), np.full(count, np.inf)
    slope_low, slope_high = slope.copy(), np.zeros(count)
    reached, failed = objective.copy(), np.zeros(count, dtype=bool)
    left = np.arange(count)
    value, rise, (g, gb) = loss.value_and_gradient(left, length, direction)
    for _ in range(MAX_EVALUATIONS):
        t = length[left]
        value = value + penalty.value[left] + t * penalty.slope[left] + 0.5 * t**2 * penalty.curvature[left]
        rise = rise + penalty.slope[left] + t * penalty.curvature[left]
        accepted = (np.abs(rise) <= CURVATURE_CONDITION * -slope[left]) & (value <= objective[left] * (1 + 1e-6))
        reached[left[accepted]] = value[accepted]
        below = rise < 0
        low[left[below]], slope_low[left[below]] = t[below], rise[below]
        high[left[~below]], slope_high[left[~below]] = t[~below], rise[~below]
        left = left[~accepted]
        if not len(left):
            break
        length[left] = _next_length(low[left], high[left], slope_low[left], slope_high[left], slope[left])
        value, rise = loss.value(left, length[left])
    length[left], failed[left] = 0.0, True
    moved = np.flatnonzero(length != first_length)
    if len(moved):
        _, _, (g[:, moved], gb[:, moved]) = loss.value_and_gradient(moved, length[moved])
    return Step(length, reached, (g, gb), failed)


def _next_length(
    low: np.ndarray, high: np.ndarray, slope_low: np.ndarray, slope_high: np.ndarray, slope: np.ndarray
) -> np.ndarray:
    """Choose the next length to try, (p,): a secant step within the bracket, or a longer step while there is no bracket."""
    bracketed = np.isfinite(high)
    width = np.where(bracketed, high - low, 0)
    rise = np.where(bracketed, slope_high - slope_low, 1)
    inside = low - slope_low * width / np.where(rise > 0, rise, 1)
    inside = np.clip(inside, low + 0.05 * width, high - 0.05 * width, where=bracketed, out=inside)
    fall = np.minimum(slope - slope_low, 0)
    growth = np.where(fall < 0.1 * slope, np.clip(slope / np.where(fall < 0, fall, -1), 1.5, 10), 10)
    length: np.ndarray = np.where(bracketed, inside, np.maximum(low, 1e-12) * growth)
    return length
