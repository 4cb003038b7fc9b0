"""Groups of items by complete linkage, from the pairs of items that are close enough to share a group. numpy and scipy only."""

from __future__ import annotations

import heapq

import numpy as np


def complete_linkage(pairs: np.ndarray, distances: np.ndarray, count: int) -> np.ndarray:
    """Merge the two closest clusters, by the largest distance of their items, as long as all of their items are pairs.

    Any two items of a cluster are one of the pairs. Of equally close clusters, those with the smallest items are merged first.

    Args:
        pairs: (P, 2) int64, two different items in 0..count-1 each; every pair once.
        distances: (P,), of each pair.
        count: the number of items.

    Returns:
        (count,) int64, the smallest item of the cluster of each item.

    Examples:
        >>> complete_linkage(np.array([[0, 1], [1, 2]]), np.array([0.1, 0.2]), 4).tolist()  # 0 and 2 are too far apart
        [0, 0, 2, 3]
    """
    near: dict[int, dict[int, float]] = {}
    for (a, b), distance in zip(pairs.tolist(), distances.tolist(), strict=True):
        near.setdefault(a, {})[b] = distance
        near.setdefault(b, {})[a] = distance
    heap = [
        (distance, min(a, b), max(a, b)) for (a, b), distance in zip(pairs.tolist(), distances.tolist(), strict=True)
    ]
    heapq.heapify(heap)
    merged_into = np.arange(count)
    while heap:
        distance, kept, gone = heapq.heappop(heap)
        if near.get(kept, {}).get(gone) == distance:
            merged_into[gone] = kept
            _merge(near, heap, kept, gone)
    for item in range(count):  # a cluster merges into one of a smaller item, whose own cluster is known by now
        merged_into[item] = merged_into[merged_into[item]]
    return merged_into


def _merge(near: dict[int, dict[int, float]], heap: list[tuple[float, int, int]], kept: int, gone: int) -> None:
    """Merge one cluster into another: only what is near both stays near, at the larger of both distances."""
    of_kept, of_gone = near[kept], near.pop(gone)
    del of_kept[gone]
    for other in of_gone:
        near[other].pop(gone, None)
    for other in [other for other in of_kept if other not in of_gone]:
        del of_kept[other], near[other][kept]
    for other, distance in of_kept.items():
        if of_gone[other] > distance:
            of_kept[other] = near[other][kept] = of_gone[other]
            heapq.heappush(heap, (of_gone[other], min(kept, other), max(kept, other)))
