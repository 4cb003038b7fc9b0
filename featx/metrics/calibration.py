"""Reliability bins and the expected calibration error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.metrics.scores import BLOCK_BYTES, finite, ratio, wilson

BINS = 15
"""Of equal width, into which confidences are sorted (Guo et al., 2017)."""


@dataclass(frozen=True)
class Bin:
    """One bar of a reliability diagram: the images whose confidence is above ``low`` and at most ``high``.

    Attributes:
        low: left edge; a confidence of 0 is in the first bin.
        high: right edge.
        count: images (or decisions on a label) in it.
        right: how many of them are right (or have the label).
        confidence: their mean confidence; NaN where there are none.
    """

    low: float
    high: float
    count: int
    right: int
    confidence: float

    @property
    def accuracy(self) -> float:
        """Share that is right; that of a calibrated model is the confidence. NaN where there are none."""
        return self.right / self.count if self.count else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy (Wilson, 1927); None where there are none."""
        return wilson(self.right, self.count) if self.count else None

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        facts = {"low": self.low, "high": self.high, "count": self.count, "confidence": finite(self.confidence)}
        interval = None if self.interval is None else list(self.interval)
        return {**facts, "accuracy": finite(self.accuracy), "interval": interval}


def reliability_bins(confidence: np.ndarray, right: np.ndarray) -> tuple[Bin, ...]:
    """The bins of (M,) confidences, each with how many of its (M,) bool are true."""
    edges = np.arange(BINS + 1) / BINS
    counts, rights, sums = np.zeros(BINS, dtype=np.int64), np.zeros(BINS), np.zeros(BINS)
    step = BLOCK_BYTES // 64
    for at in range(0, len(confidence), step):
        values, hits = confidence[at : at + step], right[at : at + step]
        which = np.minimum(np.searchsorted(edges[1:], values, side="left"), BINS - 1)
        counts += np.bincount(which, minlength=BINS)
        rights += np.bincount(which, weights=hits, minlength=BINS)
        sums += np.bincount(which, weights=values, minlength=BINS)
    means = ratio(sums, counts)
    return tuple(
        Bin(float(edges[i]), float(edges[i + 1]), int(counts[i]), int(rights[i]), float(means[i])) for i in range(BINS)
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error over some bins (Guo et al., 2017)."""
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins if b.count) / sum(b.count for b in bins)
