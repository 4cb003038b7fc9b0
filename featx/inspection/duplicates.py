"""Exact copies, by the hash of the content, and near-duplicates, by the distance of whitened features.

N is the number of images, M of distinct contents, L of the nearest contents of each, P of pairs, D the width of the features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.heads import nearest
from featx.inspection.complete_linkage import complete_linkage
from featx.inspection.neighbours import Neighbours
from featx.inspection.whitening import whiten
from featx.reporter import SILENT, Reporter
from featx.text import counted

SHARE = 0.6
"""The default threshold, as a share of the typical distance of an image from the nearest one that is no copy of it."""

JUMP = 1.5
"""Neighbours are taken for copies if the next one is further by this factor."""

MOST_PAIRS = 1_000_000
"""The most pairs that are listed."""

_LEAST_SCALE = 1e-12
_UNKNOWN: Any = None


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Images that are copies of one another, or nearly so.

    Attributes:
        threshold: the distance below which two images are near-duplicates, as ``distances``.
        pairs: (P, 2) int64, pairs of images closer than the threshold or with the same content, the closest first.
        distances: (P,) float32, the cosine distances of their whitened features, 0 to 2; 0 for exact copies, and about 1 for
            two random images.
        exact: (P,) bool, whether the two are the same file, byte for byte.
        groups: rows of each group, ascending; any two images of a group are closer than the threshold (complete linkage).
        group_of: (N,) int64, the number of the group of each image; -1 for none.
        scores: (N,) float64, the near_duplicate_score of Datalab: between 0 and 1, low for images with a close neighbour.
        nearest: (N,) float32, the cosine distance of the features to the nearest other image; NaN where there is none.
        closest: (N,) float32, the smallest distance to another image, as ``distances``; NaN where there is none.
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
    closest: np.ndarray = _UNKNOWN
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Fill in unknown distances."""
        for name in ("nearest", "closest"):
            if getattr(self, name) is _UNKNOWN:
                object.__setattr__(self, name, np.full(len(self.scores), np.nan, dtype=np.float32))

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of a table with one row per image: first those of Datalab, by its names, then featx's own.

        ``near_duplicate_sets`` holds the row numbers of the duplicates of each image, the closest first, with spaces between
        them.
        """
        count = len(self.scores)
        flagged, exact = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        flagged[self.pairs.ravel()] = True
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
            "near_duplicate_distance": self.closest,
            "is_exact_duplicate": exact,
            "duplicate_group": self.group_of,
        }


@dataclass(frozen=True)
class _Close:
    """Pairs of contents.

    Attributes:
        ends: (P, 2) int64, the first rows of each pair, ascending.
        distances: (P,) float32.
        threshold: below which these are all pairs.
    """

    ends: np.ndarray
    distances: np.ndarray
    threshold: float


def find_duplicates(
    features: FeatureSet, neighbours: Neighbours, *, threshold: float | None = None, reporter: Reporter = SILENT
) -> Duplicates:
    """Find exact copies and near-duplicates.

    Copies have the same content hash, or exactly the same features. Near-duplicates are closer than a threshold by the cosine
    of whitened features, whose scale is the set's own. They are sought among the nearest contents of each image by the cosine
    of the plain features, and where half of these are near-duplicates, among all such images.

    Args:
        features: N images.
        neighbours: of these images.
        threshold: distance of whitened features; by default ``SHARE`` of the median distance to the nearest image that is no
            copy. It is lowered where more than ``MOST_PAIRS`` pairs are closer, and a note says so.
        reporter: receives the progress.

    Examples:
        >>> from featx.inspection.neighbours import nearest_neighbours
        >>> Z = np.random.default_rng(0).normal(size=(40, 20))
        >>> Z[30] = Z[4] + 0.01
        >>> features = FeatureSet(
        ...     features=Z,
        ...     labels=np.zeros(40),
        ...     splits=["train"] * 40,
        ...     classes=("ant",),
        ...     paths=[f"{row}.png" for row in range(40)],
        ...     keys=np.zeros((40, 16), dtype=np.uint8),
        ... )
        >>> find_duplicates(features, nearest_neighbours(features)).pairs.tolist()
        [[4, 30]]
    """
    count, contents = len(features), neighbours.contents
    finite = (neighbours.others != -1).all(axis=1)
    rows = np.flatnonzero((contents == np.arange(count)) & finite & (neighbours.others.shape[1] > 0))
    whitened = whiten(features.plain, rows)
    candidates = np.searchsorted(rows, neighbours.others[rows])
    distances = _distances(whitened, candidates)
    wanted = SHARE * typical_distance(distances) if threshold is None else threshold
    close = _close_pairs(whitened, candidates, distances, wanted, reporter)
    notes = []
    if not finite.all():
        notes.append(
            f"{counted(int(np.count_nonzero(~finite)), 'image')} of {count:,} with features that are NaN or infinite cannot be "
            "compared with others; delete the feature file and run featx extract again"
        )
    if close.threshold < wanted:
        notes.append(
            f"more than {MOST_PAIRS:,} pairs of images are closer than {wanted:.3g}; near-duplicates are those closer than "
            f"{close.threshold:.3g}"
        )
    ends = rows[close.ends]
    pairs, between, left_out = _expand(contents, ends, close.distances)
    if left_out:
        notes.append(
            f"copies have {counted(left_out, 'more pair')} than can be listed; each copy is listed with a few others, and the "
            "groups are complete"
        )
    keys = features.keys
    groups, group_of = _groups(complete_linkage(ends, close.distances, count)[contents])
    first = neighbours.distances[:, 0] if neighbours.distances.shape[1] else np.full(count, np.nan, dtype=np.float32)
    return Duplicates(
        threshold=close.threshold,
        pairs=pairs,
        distances=between,
        exact=(keys[pairs[:, 0]] == keys[pairs[:, 1]]).all(axis=1) & keys[pairs[:, 0]].any(axis=1),
        groups=groups,
        group_of=group_of,
        scores=_scores(first, neighbours.apart[rows, :1]),
        nearest=first,
        closest=_closest(contents, rows, distances, pairs, between),
        notes=tuple(notes),
    )


def typical_distance(distances: np.ndarray) -> float:
    """The typical distance of an image from the nearest one that is no copy of it.

    If one of the sorted distances of an image is ``JUMP`` times the one before, those before the last such jump are taken for
    distances to copies, so that sets in which most images have copies have the same scale as others.

    Args:
        distances: (M, L), from each image to others.

    Returns:
        The median over the images; 0 where there are no distances.

    Examples:
        >>> typical_distance(np.array([[0.1, 0.8, 0.9], [0.7, 0.8, 0.9], [0.2, 0.3, 0.8]]))
        0.8
    """
    if not distances.size:
        return 0.0
    ordered = np.sort(distances, axis=1)
    jumps = ordered[:, 1:] >= JUMP * np.maximum(ordered[:, :-1], _LEAST_SCALE)
    after = np.where(jumps.any(axis=1), jumps.shape[1] - np.argmax(jumps[:, ::-1], axis=1), 0) if jumps.size else 0
    return float(np.median(ordered[np.arange(len(ordered)), after]))


def _distances(whitened: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """The distances of each row of (M, D) to others, (M, L) int64: (M, L) float32."""
    out = np.empty(candidates.shape, dtype=np.float32)
    step = max(1, nearest.BLOCK_BYTES // (4 * max(whitened.shape[1] * candidates.shape[1], 1)))
    for at in range(0, len(whitened), step):
        others = whitened[candidates[at : at + step]]
        out[at : at + step] = 1 - np.einsum("nd,nld->nl", whitened[at : at + step], others)
    return np.maximum(out, 0)


def _close_pairs(
    whitened: np.ndarray, candidates: np.ndarray, distances: np.ndarray, threshold: float, reporter: Reporter
) -> _Close:
    """Find the pairs of (M, D) rows that are closer than the threshold, or than a lower one if there are too many.

    A pair is found if one of both is among the candidates of the other, or if each has many candidates that are as close.
    """
    close = distances < threshold
    crowded = np.flatnonzero(np.count_nonzero(close, axis=1) * 2 >= max(close.shape[1], 1))
    a, number = np.nonzero(close)
    found = _Close(np.sort(np.column_stack([a, candidates[a, number]]), axis=1), distances[a, number], threshold)
    if len(crowded) > 1:
        found = _joined(found, _all_pairs(whitened, crowded, threshold, reporter))
    return _limited(found)


def _all_pairs(whitened: np.ndarray, rows: np.ndarray, threshold: float, reporter: Reporter) -> _Close:
    """Find all pairs among some rows that are closer than the threshold, or than a lower one if there are too many."""
    found = _Close(np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32), threshold)
    support = whitened[rows]
    step = nearest.block_rows(len(rows))
    for at in range(0, len(rows), step):
        distances = np.maximum(1 - support[at : at + step] @ support[at:].T, 0)
        a, b = np.nonzero(distances < found.threshold)
        a, b = a[b > a], b[b > a]
        found = _joined(found, _Close(rows[np.column_stack([a, b]) + at], distances[a, b], found.threshold))
        if len(found.distances) > 2 * MOST_PAIRS:
            found = _limited(found)
        reporter.progress(min(at + step, len(rows)), len(rows))
    return found


def _joined(first: _Close, second: _Close) -> _Close:
    threshold = min(first.threshold, second.threshold)
    ends, distances = np.concatenate([first.ends, second.ends]), np.concatenate([first.distances, second.distances])
    kept = distances < threshold
    return _Close(ends[kept], distances[kept], threshold)


def _limited(close: _Close) -> _Close:
    """Keep every pair once, the closest first, and lower the threshold if there are more than ``MOST_PAIRS``."""
    order = np.lexsort((close.distances, close.ends[:, 1], close.ends[:, 0]))
    ends, distances = close.ends[order], close.distances[order]
    once = np.ones(len(ends), dtype=bool)
    once[1:] = (ends[1:] != ends[:-1]).any(axis=1)
    ends, distances = ends[once], distances[once]
    order = np.argsort(distances, kind="stable")
    ends, distances, threshold = ends[order], distances[order], close.threshold
    if len(distances) > MOST_PAIRS:
        threshold = float(distances[MOST_PAIRS])
        kept = distances < threshold
        ends, distances = ends[kept], distances[kept]
    return _Close(ends, distances, threshold)


def _expand(contents: np.ndarray, ends: np.ndarray, between: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Turn pairs of contents into pairs of images, and add the pairs of images with the same content.

    Args:
        contents: (N,) int64, the first row with the same content.
        ends: (P, 2) int64, first rows.
        between: (P,) float32, their distances.

    Returns:
        (Q, 2) int64 and (Q,) float32, the closest first, and the number of pairs that are left out because there are too many.
    """
    members = np.argsort(contents, kind="stable")
    starts = np.searchsorted(contents[members], np.arange(len(contents)))
    sizes = np.bincount(contents, minlength=len(contents))
    total = int((sizes[ends[:, 0]] * sizes[ends[:, 1]]).sum() + (sizes * (sizes - 1) // 2).sum())
    found: list[np.ndarray] = []
    distances: list[np.ndarray] = []
    for first in np.flatnonzero(sizes > 1).tolist():
        own = members[starts[first] : starts[first] + sizes[first]]
        found.append(_own_pairs(own, few=total > MOST_PAIRS))
        distances.append(np.zeros(len(found[-1]), dtype=np.float32))
    several = (sizes[ends] > 1).any(axis=1) & (total <= MOST_PAIRS)
    found.append(ends[~several])
    distances.append(between[~several])
    for (a, b), distance in zip(ends[several].tolist(), between[several].tolist(), strict=True):
        one, other = members[starts[a] : starts[a] + sizes[a]], members[starts[b] : starts[b] + sizes[b]]
        found.append(np.column_stack([one.repeat(len(other)), np.tile(other, len(one))]))
        distances.append(np.full(len(found[-1]), distance, dtype=np.float32))
    pairs, lengths = np.sort(np.concatenate(found), axis=1), np.concatenate(distances)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], lengths))
    return pairs[order], lengths[order], total - len(pairs)


def _own_pairs(rows: np.ndarray, *, few: bool) -> np.ndarray:
    """All pairs of rows, or only those whose places differ by a power of 2: (P, 2)."""
    count = len(rows)
    if not few:
        return np.column_stack([rows[side] for side in np.triu_indices(count, 1)])
    steps = [1 << power for power in range((count - 1).bit_length()) if 1 << power < count]
    return np.concatenate([np.column_stack([rows[:-step], rows[step:]]) for step in steps])


def _groups(leaders: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Turn the first row of each row's cluster into the clusters of two or more rows, and each row's number among them."""
    found, inverse, sizes = np.unique(leaders, return_inverse=True, return_counts=True)
    numbers = np.where(sizes > 1, np.cumsum(sizes > 1) - 1, -1)
    group_of: np.ndarray = numbers[inverse].astype(np.int64)
    order = np.argsort(inverse, kind="stable")
    groups = [rows for rows in np.split(order, np.cumsum(sizes)[:-1]) if len(rows) > 1] if len(found) else []
    return tuple(groups), group_of


def _scores(first: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """The scores of Datalab: 1 - exp(-distance / the median distance between different contents), and 1 without a distance."""
    scale = float(np.median(apart)) if apart.size else 0.0
    scores: np.ndarray = 1 - np.exp(-first.astype(np.float64) / max(scale, _LEAST_SCALE))
    scores[np.isnan(scores)] = 1
    return scores


def _closest(
    contents: np.ndarray, rows: np.ndarray, distances: np.ndarray, pairs: np.ndarray, between: np.ndarray
) -> np.ndarray:
    """The smallest distance of each image to another one: to a candidate of its content, or in a pair."""
    closest = np.full(len(contents), np.nan, dtype=np.float32)
    if distances.shape[1]:
        closest[rows] = distances.min(axis=1)
        closest = closest[contents]
    np.fmin.at(closest, pairs.ravel(), between.repeat(2))
    return closest
