"""Scores that the reports share: ROC areas, average precision, log loss, intervals of proportions. numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

BLOCK_BYTES = 64 << 20
"""Largest temporary array, in bytes: wide matrices are scored block by block."""

Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution: the half-width of a 95 % interval, in standard errors."""


def wilson_interval(correct: float, n: float, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson, 1927), by default the 95 % one.

    Args:
        correct: number of successes, 0 to ``n``; of an effective number of trials, not necessarily whole.
        n: number of trials, above 0.
        z: half-width of the interval, in standard errors.

    Returns:
        (low, high), both between 0 and 1.

    Examples:
        >>> [round(bound, 4) for bound in wilson_interval(146, 153)]
        [0.9086, 0.9777]
    """
    # scipy.stats.binomtest(correct, n).proportion_ci(method="wilson") differs in the last bit for most counts, and
    # these numbers are part of head files.
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def auroc_and_average_precision(scores: np.ndarray, positives: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision of each column, one-vs-rest.

    The values are those of scikit-learn's ``roc_auc_score`` and ``average_precision_score``, up to rounding. One sort per
    column gives both, so 1,000 classes take seconds.

    Args:
        scores: (N, C) float.
        positives: C arrays of row numbers: the positive rows of each column.

    Returns:
        AUROC and average precision, each (C,) float64; NaN where undefined.
    """
    auroc, average_precision = np.full(len(positives), np.nan), np.full(len(positives), np.nan)
    step = max(1, BLOCK_BYTES // (len(scores) * scores.itemsize))
    for first in range(0, len(positives), step):
        # A block is transposed at once: reading one column of a wide matrix touches a cache line for each number.
        columns = np.ascontiguousarray(scores[:, first : first + step].T)
        for label, column in enumerate(columns, first):
            auroc[label], average_precision[label] = _ranking_scores(column, positives[label])
    return auroc, average_precision


def _ranking_scores(scores: np.ndarray, positives: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve, from ranks (Mann and Whitney, 1947), and average precision; ties share a rank.

    Args:
        scores: (N,) float.
        positives: (P,) row numbers.
    """
    ordered, positive = np.sort(scores), np.sort(scores[positives])
    n, count = len(ordered), len(positive)
    if not count or np.isnan(ordered[-1]):
        return math.nan, math.nan
    below = np.searchsorted(ordered, positive, side="left")
    precision = (count - np.searchsorted(positive, positive, side="left")) / (n - below)
    if count == n:
        return math.nan, float(precision.mean())
    ranks = (below + np.searchsorted(ordered, positive, side="right") + 1) / 2
    wins = ranks.sum() - count * (count + 1) / 2
    return float(wins / (count * (n - count))), float(precision.mean())


def log_loss(true: np.ndarray) -> float:
    """Mean of -ln p, in nats, of the probabilities given to the true outcomes.

    Probabilities are clipped at the smallest float64 step, as scikit-learn does, so that a 0 does not make the loss infinite.
    """
    return float(np.log(1.0 / np.clip(true, np.finfo(np.float64).eps, 1.0)).mean())


def without_nan(values: np.ndarray) -> np.ndarray:
    """The values that are not NaN, flattened."""
    defined: np.ndarray = values[~np.isnan(values)]
    return defined


def nan_mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN, without numpy's warning, where there are none."""
    defined = without_nan(values)
    return float(defined.mean()) if defined.size else math.nan


def nan_deviation(values: np.ndarray) -> float:
    """Standard deviation (``ddof=1``) of the values that are not NaN; NaN for fewer than two."""
    defined = without_nan(values)
    return float(defined.std(ddof=1)) if defined.size > 1 else math.nan


def overall(values: np.ndarray) -> float:
    """One number for (C,) one-vs-rest scores: that of the second of two classes, otherwise the mean of those defined."""
    return float(values[1]) if len(values) == 2 else nan_mean(values)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Elementwise ``part / whole`` in float64; NaN for 0 / 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient: np.ndarray = np.asarray(part, dtype=np.float64) / whole
        return quotient


def finite(value: Any) -> Any:
    """The value as strict JSON can hold it: None for NaN and infinity.

    Examples:
        >>> finite(0.5), finite(float("nan"))
        (0.5, None)
    """
    if not isinstance(value, float):
        return value
    return float(value) if math.isfinite(value) else None
