"""Features of several files as one array-like: it reads as an array of all of them does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featx.features.encoded_paths import EncodedPaths
from featx.features.feature_set import FeatureSet
from featx.features.stacked_rows import StackedRows
from featx.heads.training_data import Rows, statistics

SIZES = (5, 1, 7, 4)


def mapped(folder: Path, name: str, values: np.ndarray) -> np.ndarray:
    """An array in a file, mapped into memory."""
    values.tofile(folder / name)
    return np.memmap(folder / name, values.dtype, "r", shape=values.shape)


@pytest.fixture
def whole() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(sum(SIZES), 3)).astype(np.float16)


@pytest.fixture
def stacked(whole: np.ndarray, tmp_path: Path) -> StackedRows:
    ends = np.cumsum(SIZES)
    return StackedRows(
        [
            [[mapped(tmp_path, str(end), whole[end - size : end])]]
            for end, size in zip(ends.tolist(), SIZES, strict=True)
        ]
    )


MASK = np.arange(sum(SIZES)) % 3 == 0


@pytest.mark.parametrize(
    "which",
    [
        0, -1, 6, slice(None), slice(0, 5), slice(3, 9), slice(None, None, -1), slice(2, 12, 3), slice(9, 2), [], [4],
        [16, 0, 5, 5, -2], MASK, np.array([[1, 2], [15, 0]]), (slice(2, 9), 1), (3, 2), (MASK, slice(0, 2)),
        np.array([7, 8, 9]),
    ],
)  # fmt: skip
def test_it_is_indexed_as_an_array(stacked: StackedRows, whole: np.ndarray, which: Any) -> None:
    expected = whole[which]
    found = stacked[which]
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)


@pytest.mark.parametrize("which", [17, -18, [0, 17], np.zeros(5, dtype=bool)])
def test_rows_that_are_not_there_are_refused(stacked: StackedRows, which: Any) -> None:
    with pytest.raises(IndexError, match="row"):
        stacked[which]


def test_it_has_the_facts_of_an_array(stacked: StackedRows, whole: np.ndarray) -> None:
    assert (len(stacked), stacked.shape, stacked.ndim, stacked.dtype) == (17, (17, 3), 2, whole.dtype)
    assert (stacked.nbytes, stacked.itemsize) == (whole.nbytes, 2)
    np.testing.assert_array_equal(np.asarray(stacked), whole)
    np.testing.assert_array_equal(np.stack(list(stacked)), whole)
    assert stacked.astype(np.float64).dtype == np.float64
    blocks = list(stacked.blocks(most=4 * 6))
    assert [len(block) for block in blocks] == [4, 4, 4, 4, 1]


def test_selected_rows_are_read_in_their_order(stacked: StackedRows, whole: np.ndarray) -> None:
    rows = np.array([16, 3, 4, 5, 6, 0])
    some = stacked.take(rows)
    np.testing.assert_array_equal(some[1:4], whole[rows][1:4])
    np.testing.assert_array_equal(some.take(np.array([5, 0]))[:], whole[[0, 16]])
    np.testing.assert_array_equal(stacked.take(MASK)[:], whole[MASK])


def test_views_and_layers_are_put_together(whole: np.ndarray) -> None:
    a, b, c, d = whole[:4], whole[4:8, :2], whole[8:12], whole[12:16, :2]
    one = [[a, b], [c, d]]  # two views of two layers
    two = [[-a, -b], [-c, -d]]
    stacked = StackedRows([one, two])
    expected = np.stack([np.concatenate([x, y], axis=1) for x, y in one], axis=1)
    expected = np.concatenate([expected, -expected])
    assert stacked.shape == (8, 2, 5)
    np.testing.assert_array_equal(stacked[:], expected)
    np.testing.assert_array_equal(stacked.view(1)[[7, 0]], expected[[7, 0], 1])
    flat = stacked.reshape(-1, 5)
    np.testing.assert_array_equal(flat[:], expected.reshape(-1, 5))
    np.testing.assert_array_equal(flat[[3, 15, 2, 3]], expected.reshape(-1, 5)[[3, 15, 2, 3]])
    with pytest.raises(ValueError, match="cannot take the shape"):
        stacked.reshape(5, -1)


def test_heads_read_it_as_an_array(stacked: StackedRows, whole: np.ndarray) -> None:
    index = np.array([0, 1, 2, 7, 9, 16])
    for found, expected in zip(statistics(stacked, index), statistics(whole, index), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(Rows(stacked, index).whole(), Rows(whole, index).whole())


def test_a_feature_set_is_read_in_blocks(stacked: StackedRows, whole: np.ndarray) -> None:
    paths = np.array([f"{row}.png" for row in range(17)], dtype=object)
    features = FeatureSet(
        stacked, np.arange(17) % 2, np.full(17, "train", dtype=object), ("a", "b"), paths, np.zeros((17, 16), np.uint8)
    )
    assert features.width == 3
    np.testing.assert_array_equal(features.plain[:], whole)
    for rows in (None, np.array([0, 1, 2, 3, 12, 16, 15])):
        blocks = [(some.copy(), X.copy(), y) for some, X, y in features.blocks(rows, most=4 * 6)]
        every = np.concatenate([some for some, _, _ in blocks])
        np.testing.assert_array_equal(every, np.arange(17) if rows is None else rows)
        np.testing.assert_array_equal(np.concatenate([X for _, X, _ in blocks]), whole[every])
        np.testing.assert_array_equal(np.concatenate([y for _, _, y in blocks]), every % 2)
    assert isinstance(features.take(np.array([3, 1])).features, np.ndarray)


def test_encoded_paths_are_read_as_an_array_of_text() -> None:
    names = np.array(["a/1.png", "b/caf\udce9.png", "b/ö.png", "c.png"], dtype=object)
    paths = EncodedPaths(np.array([os.fsencode(name) for name in names]))
    assert (len(paths), paths.shape, paths.ndim, paths.dtype, paths.size) == (4, (4,), 1, names.dtype, 4)
    assert paths[1] == names[1]
    for which in (slice(1, 3), [2, 0], np.array([True, False, False, True]), np.array([], dtype=int)):
        np.testing.assert_array_equal(paths[which], names[which])
    assert paths.take(np.array([2, 0])).tolist() == names[[2, 0]].tolist()
    assert paths.tolist() == list(paths) == names.tolist()
    assert (paths == "c.png").tolist() == [False, False, False, True]
    assert (paths != paths.take(np.array([0, 1, 3, 2]))).tolist() == [False, False, True, True]
    assert np.asarray(paths, dtype=str)[3] == "c.png"
    assert np.argsort(paths).tolist() == np.argsort(names).tolist()
