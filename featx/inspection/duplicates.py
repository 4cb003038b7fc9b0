"""Exact copies, by the hash of the content, and near-duplicates, by the distance of the features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.heads import nearest
from featx.inspection.complete_linkage import complete_linkage
from featx.inspection.neighbours import Neighbours, unit_rows

SHARE_OF_MEDIAN = 0.5
"""The default threshold, as a share of the median distance to the nearest neighbour."""

MOST_PAIRS = 1_000_000
"""The most pairs that are listed."""

_LEAST_SCALE = 1e-12
_UNKNOWN: Any = None


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
        nearest: (N,) float32, the distance to the nearest other image; NaN where there is none, or where it is unknown.
        notes: for the user, one sentence each.
    """

    threshold: float
    pairs: np.ndarray
    distances: np.ndarray
    exact: np.ndarray
    groups: tuple[np.ndarray, ...]
    group_of: np.ndarray
    scores: np.ndarray
    nearest: np.ndarray = _UNKNOWN
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Fill in unknown distances."""
        if self.nearest is _UNKNOWN:
            object.__setattr__(self, "nearest", np.full(len(self.scores), np.nan, dtype=np.float32))

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of a table with one row per image: first those of Datalab, by its names, then featx's own.

        ``near_duplicate_sets`` holds the row numbers of the near-duplicates of each image, the closest first, with spaces
        between them.
        """
        count = len(self.scores)
        flagged = np.zeros(count, dtype=bool)
        flagged[self.pairs.ravel()] = True
        exact = np.zeros(count, dtype=bool)
        exact[self.pairs[self.exact].ravel()] = True
        sets: list[list[str]] = [[] for _ in range(count)]
        for a, b in self.pairs.tolist():
            sets[a].append(str(b))
            sets[b].append(str(a))
        return {
            "is_near_duplicate_issue": flagged,
            "near_duplicate_score": self.scores,
            "near_duplicate_sets": np.array([" ".join(rows) for rows in sets], dtype=object),
            "distance_to_nearest_neighbor": self.nearest,
            "is_exact_duplicate": exact,
            "duplicate_group": self.group_of,
        }


def find_duplicates(features: FeatureSet, neighbours: Neighbours, *, threshold: float | None = None) -> Duplicates:
    """Find exact copies and near-duplicates.

    Args:
        features: N images.
        neighbours: of these images.
        threshold: cosine distance; by default half the median distance to the nearest neighbour.
    """
    count, contents = len(features), neighbours.contents
    firsts = contents == np.arange(count)
    nearest_apart = neighbours.apart[firsts, 0] if neighbours.apart.shape[1] else np.empty(0)
    nearest_apart = nearest_apart[~np.isnan(nearest_apart)]
    median = float(np.median(nearest_apart)) if len(nearest_apart) else 0.0
    if threshold is None:
        threshold = SHARE_OF_MEDIAN * median
    ends, between = _close_contents(features, neighbours, threshold)
    pairs, distances = _expand(contents, ends, between)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], distances))
    pairs, distances = pairs[order], distances[order]
    keys = features.keys
    exact = (keys[pairs[:, 0]] == keys[pairs[:, 1]]).all(axis=1) & keys[pairs[:, 0]].any(axis=1)
    groups, group_of = _groups(complete_linkage(ends, between, count)[contents])
    nearest_any = (
        neighbours.distances[:, 0] if neighbours.distances.shape[1] else np.full(count, np.nan, dtype=np.float32)
    )
    scores = 1 - np.exp(-nearest_any.astype(np.float64) / max(median, _LEAST_SCALE))
    scores[np.isnan(scores)] = 1
    return Duplicates(threshold, pairs, distances, exact, groups, group_of, scores, nearest_any)


def _close_contents(features: FeatureSet, neighbours: Neighbours, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs of contents that are closer than the threshold: (P, 2) int64 first rows, ascending, and (P,) float32."""
    contents = neighbours.contents
    rows = np.flatnonzero((contents == np.arange(len(contents))) & (neighbours.distances < threshold).any(axis=1))
    unit = unit_rows(features.plain, rows)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for block, cosines in _blocks(unit):
        distances = np.maximum(1 - cosines, 0)
        a, b = np.nonzero(distances < threshold)
        upper = b > a + block.start
        a, b = a[upper], b[upper]
        found.append((np.column_stack([rows[a + block.start], rows[b]]), distances[a, b]))
    if not found:
        return np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32)
    return np.concatenate([pairs for pairs, _ in found]), np.concatenate([distances for _, distances in found])


def _blocks(unit: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    step = nearest.block_rows(len(unit))
    for at in range(0, len(unit), step):
        yield slice(at, at + step), unit[at : at + step] @ unit.T


def _expand(contents: np.ndarray, ends: np.ndarray, between: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn pairs of contents into pairs of images, and add the pairs of images with the same content."""
    members = np.argsort(contents, kind="stable")
    starts = np.searchsorted(contents[members], np.arange(len(contents)))
    sizes = np.bincount(contents, minlength=len(contents))
    several = np.flatnonzero(sizes > 1)
    left, right = np.concatenate([ends[:, 0], several]), np.concatenate([ends[:, 1], several])
    distances = np.concatenate([between, np.zeros(len(several), dtype=np.float32)])
    totals = sizes[left] * sizes[right]
    which = np.repeat(np.arange(len(left)), totals)
    number = np.arange(len(which)) - np.repeat(np.cumsum(totals) - totals, totals)
    a = members[starts[left[which]] + number // sizes[right[which]]]
    b = members[starts[right[which]] + number % sizes[right[which]]]
    kept = (left != right)[which] | (a < b)
    pairs = np.sort(np.column_stack([a, b])[kept], axis=1)
    return pairs, distances[which[kept]]


def _groups(leaders: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Turn the first row of each row's cluster into the clusters of two or more rows, and each row's number among them."""
    found, inverse, sizes = np.unique(leaders, return_inverse=True, return_counts=True)
    numbers = np.where(sizes > 1, np.cumsum(sizes > 1) - 1, -1)
    group_of: np.ndarray = numbers[inverse].astype(np.int64)
    order = np.argsort(inverse, kind="stable")
    groups = [rows for rows in np.split(order, np.cumsum(sizes)[:-1]) if len(rows) > 1] if len(found) else []
    return tuple(groups), group_of
