"""The exact nearest neighbours of every image of a set by cosine distance. numpy and scipy only.

N is the number of images, M of distinct contents, D the width of the features, K the number of neighbours.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.data.splits import join_groups
from featx.features.feature_set import FeatureSet
from featx.heads import nearest
from featx.inspection.whitening import blocks
from featx.reporter import SILENT, Reporter

NEIGHBOURS = 10
"""Neighbours of each image that are found."""

SHARE_OF_MEDIAN = 0.5
"""Images that are closer than this share of the median distance to the nearest neighbour are alike, where a rule of thumb does.

``featx.inspection.duplicates`` looks closer.
"""

_DISTINCT: Any = None
"""What stands for arrays that follow if all contents are distinct."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest other images of each image, the nearest first.

    Copies of one file, and images with exactly the same features, have the same content. An image whose features are NaN or
    infinite has no neighbours and is no neighbour of others: its indices are -1 and its distances NaN.

    Attributes:
        indices: (N, K) int64, rows of the set; an image is never its own neighbour.
        distances: (N, K) float32, cosine distances, 0 to 2.
        contents: (N,) int64, the first row with the same content; by default, all are distinct.
        apart: (N, L) float32, the distances to the nearest images of other contents, one for each content; by default
            ``distances``.
        others: (N, L) int64, the first rows of these contents; by default ``indices``.
    """

    indices: np.ndarray
    distances: np.ndarray
    contents: np.ndarray = _DISTINCT
    apart: np.ndarray = _DISTINCT
    others: np.ndarray = _DISTINCT

    def __post_init__(self) -> None:
        """Fill in what follows if all contents are distinct."""
        if self.contents is _DISTINCT:
            object.__setattr__(self, "contents", np.arange(len(self.indices)))
        if self.apart is _DISTINCT:
            object.__setattr__(self, "apart", self.distances)
        if self.others is _DISTINCT:
            object.__setattr__(self, "others", self.indices)


def nearest_neighbours(features: FeatureSet, k: int = NEIGHBOURS, *, reporter: Reporter = SILENT) -> Neighbours:
    """Find the k nearest other images of each image, by the cosine of the features of their plain view.

    Args:
        features: N images.
        k: the number of neighbours; at most N - 1 are found.
        reporter: receives the progress, in distinct images.

    Examples:
        >>> features = FeatureSet(
        ...     features=np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]),
        ...     labels=np.array([0, 0, 1]),
        ...     splits=["train"] * 3,
        ...     classes=("ant", "bee"),
        ...     paths=["1.png", "2.png", "3.png"],
        ...     keys=np.zeros((3, 16), dtype=np.uint8),
        ... )
        >>> nearest_neighbours(features, 1).indices.tolist()
        [[1], [0], [1]]
    """
    Z = features.plain
    digests = _digests(Z)
    finite = digests != ""
    contents = _first_rows(join_groups(features.keys, digests), finite)
    rows = np.flatnonzero((contents == np.arange(len(Z))) & finite)
    found, distances = _search(unit_rows(Z, rows), min(k, max(len(rows) - 1, 0)), reporter)
    apart = np.full((len(Z), found.shape[1]), np.nan, dtype=np.float32)
    apart[rows] = distances
    nearest_contents = np.full(apart.shape, -1)
    nearest_contents[rows] = rows[found]
    apart[finite], nearest_contents[finite] = apart[contents[finite]], nearest_contents[contents[finite]]
    most = min(k, max(int(np.count_nonzero(finite)) - 1, 0))
    return Neighbours(*_with_copies(contents, finite, nearest_contents, apart, most), contents, apart, nearest_contents)


def unit_rows(Z: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Select rows of (N, D) features, as float32 of length 1: (n, D)."""
    out = np.empty((len(rows), Z.shape[1]), dtype=np.float32)
    for at, block in blocks(Z, rows):
        out[at] = nearest.unit(block)
    return out


def _digests(Z: np.ndarray) -> np.ndarray:
    """Hash each row of (N, D) features: (N,) object array of str; "" for a row with NaN or infinity."""
    out = np.full(len(Z), "", dtype=object)
    for at, values in blocks(Z, np.arange(len(Z))):
        block = np.ascontiguousarray(values) + 0  # -0.0 becomes 0.0
        with np.errstate(over="ignore"):  # numbers that float32 cannot hold are infinite
            finite = np.isfinite(block.astype(np.float32, copy=False)).all(axis=1)
        for row in np.flatnonzero(finite):
            out[at.start + row] = hashlib.blake2b(block[row].data, digest_size=16).hexdigest()
    return out


def _first_rows(groups: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Turn the number of each row's group into the group's first row with finite features, or else its first: (N,) int64."""
    order = np.argsort(~finite, kind="stable")
    _, first, inverse = np.unique(groups[order], return_index=True, return_inverse=True)
    rows = np.empty(len(groups), dtype=np.int64)
    rows[order] = order[first[inverse]]
    return rows


def _search(unit: np.ndarray, k: int, reporter: Reporter) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest others of each row of (M, D) unit features: (M, k) int64 and (M, k) float32 distances."""
    count = len(unit)
    indices, distances = np.empty((count, k), dtype=np.int64), np.empty((count, k), dtype=np.float32)
    if not k:
        return indices, distances
    for rows, found, cosines in nearest.search_others(unit, k):
        indices[rows], distances[rows] = found, np.maximum(1 - cosines, 0)
        reporter.progress(rows.stop, count)
    return indices, distances


def _with_copies(
    contents: np.ndarray, finite: np.ndarray, nearest_contents: np.ndarray, apart: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """List the k nearest images of each row: its copies first, then those of the nearest contents.

    Args:
        contents: (N,) int64, the first row with the same content.
        finite: (N,) bool, rows that have neighbours.
        nearest_contents: (N, L) int64, the first rows of the nearest contents.
        apart: (N, L) float32, their distances.
        k: the number of neighbours.

    Returns:
        (N, k) int64 and (N, k) float32.
    """
    members = np.argsort(contents, kind="stable")
    members = members[finite[members]]
    starts = np.searchsorted(contents[members], np.arange(len(contents)))
    sizes = np.bincount(contents[members], minlength=len(contents))
    place = np.zeros(len(contents), dtype=np.int64)  # of each row among the rows of its content
    place[members] = np.arange(len(members)) - starts[contents[members]]
    indices = np.full((len(contents), k), -1)
    distances = np.full((len(contents), k), np.nan, dtype=np.float32)
    rows = np.flatnonzero(finite)
    ends = np.cumsum(np.column_stack([sizes[contents[rows]] - 1, sizes[nearest_contents[rows]]]), axis=1)
    for number in range(k):
        slot = np.count_nonzero(ends <= number, axis=1)
        before = np.where(slot > 0, ends[np.arange(len(rows)), np.maximum(slot - 1, 0)], 0)
        own = slot == 0
        content = np.where(own, contents[rows], 0)
        content[~own] = nearest_contents[rows[~own], slot[~own] - 1]
        offset = number - before
        offset += own & (offset >= place[rows])
        indices[rows, number] = members[starts[content] + offset]
        distances[rows, number] = 0
        distances[rows[~own], number] = apart[rows[~own], slot[~own] - 1]
    return indices, distances
