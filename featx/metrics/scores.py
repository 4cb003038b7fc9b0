"""The numbers that reports share: ROC areas, average precision, log loss and intervals of proportions. numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

BLOCK_BYTES = 64 << 20
Z = 1.959963984540054  # the standard normal's 97.5 % quantile


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, 1927)."""
    z = Z
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def auroc_and_average_precision(scores: np.ndarray, positives: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision of each column against its own positive rows.

    Args:
        scores: (N, C).
        positives: (C,) arrays of rows.

    Returns:
        (C,) and (C,) float64; NaN where undefined.
    """
    auroc, average_precision = np.full(len(positives), np.nan), np.full(len(positives), np.nan)
    step = max(1, BLOCK_BYTES // (len(scores) * scores.itemsize))
    for first in range(0, len(positives), step):
        # Turned over, a block at a time: a column of a wide matrix would be read from memory once for each of its numbers.
        columns = np.ascontiguousarray(scores[:, first : first + step].T)
        for label, column in enumerate(columns, first):
            auroc[label], average_precision[label] = _areas(column, positives[label])
    return auroc, average_precision


def _areas(scores: np.ndarray, positives: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve, from ranks (Mann and Whitney, 1947), and average precision; ties share a rank.

    Args:
        scores: (N,).
        positives: (P,) rows.
    """
    everyone, own = np.sort(scores), np.sort(scores[positives])
    n, count = len(everyone), len(own)
    if not count or np.isnan(everyone[-1]):
        return math.nan, math.nan
    below = np.searchsorted(everyone, own, side="left")
    precision = (count - np.searchsorted(own, own, side="left")) / (n - below)
    if count == n:
        return math.nan, float(precision.mean())
    ranks = (below + np.searchsorted(everyone, own, side="right") + 1) / 2
    wins = ranks.sum() - count * (count + 1) / 2
    return float(wins / (count * (n - count))), float(precision.mean())


def log_loss(true: np.ndarray) -> float:
    """Mean of -ln of probabilities, which a certain 0 does not make infinite."""
    return float(np.log(1.0 / np.clip(true, np.finfo(np.float64).eps, 1.0)).mean())


def without_nan(values: np.ndarray) -> np.ndarray:
    """The values that are not NaN."""
    known: np.ndarray = values[~np.isnan(values)]
    return known


def mean_known(values: np.ndarray) -> float:
    """Of those that are not NaN; NaN where all are."""
    known = without_nan(values)
    return float(known.mean()) if known.size else math.nan


def deviation(values: np.ndarray) -> float:
    """Standard deviation of those that are not NaN, with a divisor of one less; NaN for fewer than two."""
    known = without_nan(values)
    return float(known.std(ddof=1)) if known.size > 1 else math.nan


def overall(values: np.ndarray) -> float:
    """One number for (C,) classes, each against the rest."""
    return float(values[1]) if len(values) == 2 else mean_known(values)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Elementwise ``part / whole`` in float64; NaN where ``whole`` is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient: np.ndarray = np.asarray(part, dtype=np.float64) / whole
        return quotient


def finite(value: Any) -> Any:
    """As JSON has it: None for NaN and infinity."""
    if not isinstance(value, float):
        return value
    return float(value) if math.isfinite(value) else None
