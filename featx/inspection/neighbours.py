"""The exact nearest neighbours of every image of a set by cosine distance. numpy only.

N is the number of images, D the width of the features, K the number of neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.heads import nearest
from featx.reporter import SILENT, Reporter

NEIGHBOURS = 10
"""Neighbours of each image that are found."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest other images of each image, the nearest first.

    Attributes:
        indices: (N, K) int64, rows of the set; an image is never its own neighbour.
        distances: (N, K) float32, cosine distances, 0 to 2.
    """

    indices: np.ndarray
    distances: np.ndarray


def nearest_neighbours(features: FeatureSet, k: int = NEIGHBOURS, *, reporter: Reporter = SILENT) -> Neighbours:
    """Find the k nearest other images of each image, by the cosine of the features of their plain view.

    Args:
        features: N images.
        k: the number of neighbours; at most N - 1 are found.
        reporter: receives the progress, in images.
    """
    count = len(features)
    k = min(k, count - 1)
    indices, distances = np.empty((count, k), dtype=np.int64), np.empty((count, k), dtype=np.float32)
    support = nearest.unit(features.plain)
    for rows, found, cosines in nearest.search(support, support, k + 1):
        own = found == np.arange(rows.start, rows.stop)[:, None]
        own[~own.any(axis=1), -1] = True  # of very many copies, the image itself may be missing
        indices[rows] = found[~own].reshape(-1, k)
        distances[rows] = np.maximum(1 - cosines[~own].reshape(-1, k), 0)
        reporter.progress(rows.stop, count)
    return Neighbours(indices, distances)
