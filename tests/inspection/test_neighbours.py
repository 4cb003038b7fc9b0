"""The nearest other images of each image."""

from __future__ import annotations

import numpy as np
import pytest
from inspections import unlabelled

from featx.inspection.neighbours import nearest_neighbours


def cosine_distances(Z: np.ndarray) -> np.ndarray:
    """(N, N) float64, infinite between an image and itself."""
    unit = Z.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    distances = 1 - unit @ unit.T
    np.fill_diagonal(distances, np.inf)
    return distances


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_the_neighbours_are_those_of_all_pairwise_distances(dtype: str) -> None:
    Z = np.random.default_rng(0).normal(size=(300, 7)).astype(dtype)
    found = nearest_neighbours(unlabelled(Z), 4)
    expected = cosine_distances(Z)
    assert (found.indices == np.argsort(expected, axis=1)[:, :4]).all()
    assert found.distances == pytest.approx(np.sort(expected, axis=1)[:, :4], abs=1e-6)
    assert (found.contents == np.arange(300)).all()
    assert (found.apart == found.distances).all()


def test_copies_are_the_nearest_and_other_contents_count_once() -> None:
    Z = np.random.default_rng(0).normal(size=(6, 5))
    copied = Z[[0, 1, 2, 0, 3, 0, 4, 5, 1]]
    found = nearest_neighbours(unlabelled(copied, contents=[7, 0, 2, 7, 3, 7, 4, 5, 0]), 3)
    assert found.contents.tolist() == [
        0,
        1,
        2,
        0,
        4,
        0,
        6,
        7,
        1,
    ]  # the last has the same features, and no known content
    assert found.indices[[0, 3, 5], :2].tolist() == [[3, 5], [0, 5], [0, 3]]
    assert found.indices[[1, 8], 0].tolist() == [8, 1]
    expected = cosine_distances(copied)
    assert found.distances == pytest.approx(np.maximum(np.sort(expected, axis=1)[:, :3], 0), abs=1e-6)
    assert found.apart == pytest.approx(np.sort(cosine_distances(Z), axis=1)[[0, 1, 2, 0, 3, 0, 4, 5, 1], :3], abs=1e-6)
    assert all(row not in found.indices[row] for row in range(9))


def test_an_image_without_finite_features_has_no_neighbours_and_is_none() -> None:
    Z = np.random.default_rng(0).normal(size=(6, 5))
    Z[2], Z[4, 1] = np.nan, 1e300  # more than float32 can hold
    found = nearest_neighbours(unlabelled(Z))
    assert found.indices.shape == (6, 3)
    assert (found.indices[[2, 4]] == -1).all()
    assert np.isnan(found.distances[[2, 4]]).all()
    assert np.isnan(found.apart[[2, 4]]).all()
    assert set(found.indices[[0, 1, 3, 5]].ravel()) == {0, 1, 3, 5}


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 0), (2, 1), (11, 10), (12, 10)])
def test_a_small_set_has_as_many_neighbours_as_other_images(count: int, expected: int) -> None:
    found = nearest_neighbours(unlabelled(np.random.default_rng(0).normal(size=(count, 5))))
    assert found.indices.shape == found.distances.shape == found.apart.shape == (count, expected)


def test_images_that_are_all_alike_have_neighbours_but_no_other_content() -> None:
    found = nearest_neighbours(unlabelled(np.ones((5, 3))), 2)
    assert found.indices.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]
    assert (found.distances == 0).all()
    assert found.apart.shape == (5, 0)


def test_a_row_of_zeros_is_far_from_all_others() -> None:
    found = nearest_neighbours(unlabelled(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.1]])))
    assert found.distances[0].tolist() == [1, 1]
    assert found.indices[0].tolist() == [1, 2]


def test_the_plain_view_counts() -> None:
    Z = np.random.default_rng(0).normal(size=(20, 3, 5))
    assert (nearest_neighbours(unlabelled(Z)).indices == nearest_neighbours(unlabelled(Z[:, 0])).indices).all()
