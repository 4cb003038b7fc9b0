"""Images that are far from all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.inspection.neighbours import Neighbours

IQR_SHARE = 0.37037
"""Datalab's threshold t: an outlier is further than the third quartile by (1 / t - 1) = 1.7 interquartile ranges."""

_LEAST_SCALE = 1e-12


@dataclass(frozen=True, eq=False)
class Outliers:
    """How far each image is from its nearest neighbours, against the quartiles of the set.

    Attributes:
        distances: (N,) float64, the mean cosine distance to the ten nearest neighbours of other contents, so that copies do
            not hide each other; NaN where there are none.
        threshold: the distance above which an image is an outlier.
        is_issue: (N,) bool; True for images whose features are NaN or infinite.
        scores: (N,) float64 between 0 and 1, low for outliers (Datalab's outlier_score).
        ranked: (n,) int64, the rows of the outliers, the furthest first.
    """

    distances: np.ndarray
    threshold: float
    is_issue: np.ndarray
    scores: np.ndarray
    ranked: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of a table with one row per image, with the names that Datalab uses."""
        return {"is_outlier_issue": self.is_issue, "outlier_score": self.scores}


def find_outliers(neighbours: Neighbours) -> Outliers:
    """Find images whose mean distance to ten neighbours is above the third quartile by 1.7 interquartile ranges.

    The rule and the score are those of Datalab (cleanlab 2.9): score = exp(-distance / the median distance).
    """
    apart = neighbours.apart.astype(np.float64)
    broken = (neighbours.indices == -1).any(axis=1)
    distances = apart.mean(axis=1) if apart.shape[1] else np.full(len(apart), np.nan)
    known = distances[~np.isnan(distances)]
    if not len(known):
        return Outliers(distances, np.nan, broken, np.where(broken, 0.0, 1.0), np.flatnonzero(broken))
    low, median, high = np.percentile(known, [25, 50, 75])
    threshold = float(high + (1 / IQR_SHARE - 1) * (high - low))
    is_issue = broken | (distances > threshold)
    scores = np.exp(-distances / max(median, _LEAST_SCALE))
    scores[broken] = 0
    order = np.argsort(-np.where(broken, np.inf, distances), kind="stable")
    return Outliers(distances, threshold, is_issue, scores, order[is_issue[order]])
