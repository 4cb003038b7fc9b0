"""Exact copies, by the hash of the content, and near-duplicates, by the distance of the features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.inspection.neighbours import Neighbours

SHARE_OF_MEDIAN = 0.5
"""The default threshold, as a share of the median distance to the nearest neighbour."""


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Images that are copies of one another, or nearly so.

    Attributes:
        threshold: cosine distance below which two images are near-duplicates.
        pairs: (P, 2) int64, all pairs of images closer than the threshold or with the same content, the closest first.
        distances: (P,) float32, their cosine distances; 0 for exact copies.
        exact: (P,) bool, whether the two are the same file, byte for byte.
        groups: rows of each group, ascending; any two images of a group are closer than the threshold (complete linkage).
        group_of: (N,) int64, the number of the group of each image; -1 for none.
        scores: (N,) float64, the near_duplicate_score of Datalab: between 0 and 1, low for images with a close neighbour.
    """

    threshold: float
    pairs: np.ndarray
    distances: np.ndarray
    exact: np.ndarray
    groups: tuple[np.ndarray, ...]
    group_of: np.ndarray
    scores: np.ndarray


def find_duplicates(features: FeatureSet, neighbours: Neighbours, *, threshold: float | None = None) -> Duplicates:
    """Find exact copies and near-duplicates.

    Args:
        features: N images.
        neighbours: of these images.
        threshold: cosine distance; by default half the median distance to the nearest neighbour.
    """
    raise NotImplementedError
