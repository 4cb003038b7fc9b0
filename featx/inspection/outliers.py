"""Images that are far from all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.inspection.neighbours import Neighbours


@dataclass(frozen=True, eq=False)
class Outliers:
    """How far each image is from its nearest neighbours, against the quartiles of the set.

    Attributes:
        distances: (N,) float64, the mean cosine distance to the ten nearest neighbours.
        threshold: the distance from which on an image is an outlier.
        is_issue: (N,) bool.
        scores: (N,) float64 between 0 and 1, low for outliers (Datalab's outlier_score).
        ranked: (n,) int64, the rows of the outliers, the furthest first.
    """

    distances: np.ndarray
    threshold: float
    is_issue: np.ndarray
    scores: np.ndarray
    ranked: np.ndarray


def find_outliers(neighbours: Neighbours) -> Outliers:
    """Find images whose mean distance to ten neighbours is above the third quartile by 1.7 interquartile ranges."""
    raise NotImplementedError
