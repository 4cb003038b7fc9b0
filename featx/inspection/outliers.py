"""Images that are far from all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.inspection.duplicates import Duplicates
from featx.inspection.neighbours import Neighbours

IQR_SHARE = 0.37037
"""Datalab's threshold t: an outlier is further than the third quartile by (1 / t - 1) = 1.7 interquartile ranges."""

_LEAST_SCALE = 1e-12


@dataclass(frozen=True, eq=False)
class Outliers:
    """How far each image is from its nearest neighbours, against the quartiles of the set.

    Attributes:
        distances: (N,) float64, the mean cosine distance to the ten nearest neighbours of other contents, without
            near-duplicates of the image; NaN where there are none.
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


def find_outliers(neighbours: Neighbours, duplicates: Duplicates | None = None) -> Outliers:
    """Find images whose mean distance to ten neighbours is above the third quartile by 1.7 interquartile ranges.

    The rule and the score are those of Datalab (cleanlab 2.9): score = exp(-distance / the median distance).

    Args:
        neighbours: of N images.
        duplicates: of these images; an image's near-duplicates do not count among its neighbours, so that two or three odd
            images that are alike do not hide each other.

    Examples:
        >>> distances = np.full((50, 10), 0.2) + np.linspace(0, 0.05, 50)[:, None]
        >>> distances[7] = 0.9
        >>> find_outliers(Neighbours(np.zeros((50, 10), np.int64), distances)).ranked.tolist()
        [7]
    """
    broken = (neighbours.indices == -1).any(axis=1)
    distances = _mean_distances(neighbours, duplicates)
    known = distances[~np.isnan(distances)]
    low, median, high = np.percentile(known, [25, 50, 75]) if len(known) else (np.nan, np.nan, np.nan)
    threshold = float(high + (1 / IQR_SHARE - 1) * (high - low))
    is_issue = broken | (distances > threshold)
    scores = np.exp(-distances / max(median, _LEAST_SCALE))
    scores[np.isnan(scores)] = 1
    scores[broken] = 0
    order = np.argsort(-np.where(broken, np.inf, distances), kind="stable")
    return Outliers(distances, threshold, is_issue, scores, order[is_issue[order]])


def _mean_distances(neighbours: Neighbours, duplicates: Duplicates | None) -> np.ndarray:
    """The mean distance of each image to the nearest other contents, (N,) float64; NaN where there are none."""
    apart = neighbours.apart.astype(np.float64)
    if not apart.shape[1]:
        return np.full(len(apart), np.nan)
    counted = np.ones(apart.shape, dtype=bool)
    if duplicates is not None:
        group = duplicates.group_of
        counted = (group[:, None] == -1) | (group[neighbours.others] != group[:, None])
        counted[~counted.any(axis=1), -1] = True
    mean: np.ndarray = np.where(counted, apart, 0).sum(axis=1) / counted.sum(axis=1)
    return mean
