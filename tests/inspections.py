"""Parts of inspections, made by hand for the tests of other parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.inspection.duplicates import Duplicates


def duplicates_of(
    features: FeatureSet, pairs: Sequence[tuple[int, int]], *, distances: Sequence[float] | None = None
) -> Duplicates:
    """Duplicates with these pairs, the closest first, which are all of each group; exact where their keys are equal."""
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    group_of = np.full(len(features), -1, dtype=np.int64)
    for one, other in array:
        number = max(group_of[one], group_of[other])
        group_of[[one, other]] = number if number >= 0 else group_of.max() + 1
    groups = tuple(np.flatnonzero(group_of == number) for number in range(group_of.max(initial=-1) + 1))
    exact = (features.keys[array[:, 0]] == features.keys[array[:, 1]]).all(axis=1)
    distances = np.where(exact, 0.0, np.linspace(0.01, 0.02, len(array))) if distances is None else distances
    return Duplicates(
        threshold=0.05,
        pairs=array,
        distances=np.array(distances, dtype=np.float32),
        exact=exact,
        groups=groups,
        group_of=group_of,
        scores=np.where(group_of >= 0, 0.1, 0.9),
    )


def unlabelled(Z: np.ndarray, *, contents: Sequence[int] | None = None) -> FeatureSet:
    """Images without labels.

    Args:
        Z: (N, D) or (N, V, D) features.
        contents: the number of each image's content, 0 for an unknown one; by default, all are unknown.
    """
    keys = np.zeros((len(Z), 16), dtype=np.uint8)
    if contents is not None:
        keys[:, :8] = np.array(contents, dtype="<u8")[:, None].view(np.uint8)
    return FeatureSet(
        features=Z,
        labels=np.full(len(Z), -1),
        splits=["train"] * len(Z),
        classes=(),
        paths=[f"{row}.png" for row in range(len(Z))],
        keys=keys,
    )
