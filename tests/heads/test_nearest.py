"""The search for nearest neighbours, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from featx.heads import nearest


@pytest.mark.parametrize(("queries", "support", "k"), [(50, 2000, 5), (50, 2000, 200), (7, 30, 30), (3, 40, 1)])
def test_the_nearest_rows_are_those_of_scikit_learn(queries: int, support: int, k: int) -> None:
    rng = np.random.default_rng(0)
    Z, S = rng.normal(size=(queries, 16)), rng.normal(size=(support, 16))
    distances, expected = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(S).kneighbors(Z)
    ((rows, found, cosines),) = nearest.search(Z, nearest.unit(S), k)
    assert rows == slice(0, queries)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(cosines, 1 - distances, atol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 7, 40, 400])
@pytest.mark.parametrize("levels", [1, 3, 50])
def test_equal_similarities_are_ordered_by_their_number(k: int, levels: int) -> None:
    rng = np.random.default_rng(k)
    similarities = rng.integers(0, levels, (9, 400)).astype(np.float32)
    order = rng.permutation(1000)[:400]
    for given in (None, order):
        named = np.arange(400) if given is None else given
        found, values = nearest.top(similarities, k, order=given)
        for row, similarity in enumerate(similarities):
            expected = np.lexsort((named, -similarity))[:k]
            np.testing.assert_array_equal(found[row], named[expected])
            np.testing.assert_array_equal(values[row], similarity[expected])


def test_a_row_of_zeros_is_like_no_other() -> None:
    support = nearest.unit(np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]))
    ((_, found, cosines),) = nearest.search(np.array([[2.0, 0.0], [0.0, 0.0]]), support, 3)
    np.testing.assert_array_equal(found, [[1, 0, 2], [0, 1, 2]])
    np.testing.assert_array_equal(cosines, [[1, 0, -1], [0, 0, 0]])


@pytest.mark.parametrize("block", [64, 64_000, 1 << 26])
@pytest.mark.parametrize(("count", "k"), [(2, 1), (12, 11), (300, 10), (300, 1)])
def test_the_nearest_others_are_those_of_all_cosines_in_blocks_of_any_size(
    count: int, k: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "BLOCK_BYTES", block)
    support = (
        np.random.default_rng(count).choice([-0.25, 0.25], (count, 16)).astype(np.float32)
    )  # exact, with many ties
    cosines = support @ support.T
    np.fill_diagonal(cosines, -np.inf)
    expected = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    found = list(nearest.search_others(support, k))
    assert np.concatenate([np.arange(count)[rows] for rows, _, _ in found]).tolist() == list(range(count))
    np.testing.assert_array_equal(np.concatenate([numbers for _, numbers, _ in found]), expected)
    np.testing.assert_array_equal(
        np.concatenate([values for _, _, values in found]), np.take_along_axis(cosines, expected, axis=1)
    )
