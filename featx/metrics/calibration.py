"""Calibration: reliability bins and the expected calibration error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.metrics.grouped import number_groups, proportion_interval
from featx.metrics.scores import BLOCK_BYTES, finite, ratio

BIN_COUNT = 15
"""Number of equally wide bins that confidences are sorted into (Guo et al., 2017)."""


@dataclass(frozen=True)
class ReliabilityBin:
    """One bar of a reliability diagram: the predictions whose confidence is above ``low`` and at most ``high``.

    Attributes:
        low: left edge; a confidence of 0 is in the first bin.
        high: right edge.
        count: predictions in the bin: images, or decisions on one label of one image.
        correct: how many of them are correct (for decisions: have the label).
        confidence: their mean confidence; NaN for an empty bin.
        interval: the 95 % interval of the accuracy, by groups where images have some (``proportion_interval``); None for an
            empty bin.
    """

    low: float
    high: float
    count: int
    correct: int
    confidence: float
    interval: tuple[float, float] | None = None

    @property
    def accuracy(self) -> float:
        """Share that is correct, which equals the confidence of a calibrated model; NaN for an empty bin."""
        return self.correct / self.count if self.count else math.nan

    def as_dict(self) -> dict[str, Any]:
        """The bin as ``--json`` prints it."""
        facts = {"low": self.low, "high": self.high, "count": self.count, "confidence": finite(self.confidence)}
        interval = None if self.interval is None else list(self.interval)
        return {**facts, "accuracy": finite(self.accuracy), "interval": interval}


def reliability_bins(
    confidence: np.ndarray, correct: np.ndarray, groups: np.ndarray | None = None, *, each: int = 1
) -> tuple[ReliabilityBin, ...]:
    """Sort predictions into 15 bins by confidence.

    Args:
        confidence: (M,) float, between 0 and 1.
        correct: (M,) bool.
        groups: (M / each,) the group of each image, such as the patient; None: each image is a group of its own.
        each: number of consecutive predictions on one image. They depend on each other, so they are of one group.

    Examples:
        >>> bins = reliability_bins(np.array([0.55, 0.95, 1.0]), np.array([False, True, True]))
        >>> [(round(b.high, 2), b.count, b.correct) for b in bins if b.count]
        [(0.6, 1, 0), (1.0, 2, 2)]
    """
    edges = np.arange(BIN_COUNT + 1) / BIN_COUNT
    counts, hits, sums = np.zeros(BIN_COUNT, dtype=np.int64), np.zeros(BIN_COUNT), np.zeros(BIN_COUNT)
    bin_of = np.empty(len(confidence), dtype=np.uint8)
    step = BLOCK_BYTES // 64
    for start in range(0, len(confidence), step):
        values, correct_here = confidence[start : start + step], correct[start : start + step]
        which = np.minimum(np.searchsorted(edges[1:], values, side="left"), BIN_COUNT - 1)
        bin_of[start : start + step] = which
        counts += np.bincount(which, minlength=BIN_COUNT)
        hits += np.bincount(which, weights=correct_here, minlength=BIN_COUNT)
        sums += np.bincount(which, weights=values, minlength=BIN_COUNT)
    means, groups = ratio(sums, counts), number_groups(groups)
    if groups is None and each > 1:
        groups = np.arange(len(confidence) // each)
    intervals = []
    for i in range(BIN_COUNT):
        here = np.flatnonzero(bin_of == i)
        groups_here = None if groups is None else groups[here // each]
        intervals.append(proportion_interval(correct[here], groups_here) if len(here) else None)
    return tuple(
        ReliabilityBin(
            float(edges[i]), float(edges[i + 1]), int(counts[i]), int(hits[i]), float(means[i]), intervals[i]
        )
        for i in range(BIN_COUNT)
    )


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """The expected calibration error: the mean distance of accuracy and confidence, weighted by count (Guo et al., 2017)."""
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins if b.count) / sum(b.count for b in bins)
