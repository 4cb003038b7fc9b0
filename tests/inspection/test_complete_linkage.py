"""Groups by complete linkage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from featx.inspection.complete_linkage import complete_linkage


def close_pairs(distances: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of items that are closer than the threshold, and their distances."""
    a, b = np.nonzero(np.triu(distances < threshold, 1))
    return np.column_stack([a, b]), distances[a, b]


@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.6, 2.0])
def test_the_groups_are_those_of_scipy(threshold: float) -> None:
    points = np.random.default_rng(0).normal(size=(150, 2))
    distances = pdist(points)
    found = complete_linkage(*close_pairs(squareform(distances), threshold), 150)
    expected = fcluster(linkage(distances, "complete"), threshold, "distance")
    assert len(set(found)) < 150
    assert ((found[:, None] == found) == (expected[:, None] == expected)).all()


def test_a_chain_of_equal_steps_is_cut_into_pairs_from_its_start() -> None:
    chain = np.column_stack([np.arange(6), np.arange(1, 7)])
    assert complete_linkage(chain, np.ones(6), 7).tolist() == [0, 0, 2, 2, 4, 4, 6]
    assert complete_linkage(chain[::-1, ::-1], np.ones(6), 7).tolist() == [0, 0, 2, 2, 4, 4, 6]


def test_items_without_pairs_stay_alone() -> None:
    assert complete_linkage(np.empty((0, 2), dtype=np.int64), np.empty(0), 3).tolist() == [0, 1, 2]
