"""Standardised rows against numpy, in memory and from mapped files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from featx.heads import training_data as rooms
from featx.heads.training_data import Rows, statistics

DTYPES = pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
STATM = Path("/proc/self/statm")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows."""
    monkeypatch.setitem(Rows.blocks.__kwdefaults__, "most", 300)


def draw(n: int = 53, dim: int = 6, dtype: type = np.float32, *, offset: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(n * dim)
    return (rng.normal(size=(n, dim)) * 10.0 ** rng.uniform(-2, 1, dim) + offset).astype(dtype)


def mapped(folder: Path, features: np.ndarray, mode: str = "r") -> np.ndarray:
    features.tofile(folder / "features")
    return np.memmap(folder / "features", features.dtype, mode, shape=features.shape)


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@DTYPES
def test_statistics_are_the_mean_and_the_deviation_of_each_column(dtype: type, small_blocks: None) -> None:
    X = draw(dtype=dtype)
    mean, scale = statistics(X)
    assert mean.dtype == scale.dtype == np.float64
    np.testing.assert_allclose(mean, X.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scale, X.astype(np.float64).std(axis=0), rtol=1e-10)


def test_statistics_of_some_rows_are_theirs_alone(small_blocks: None) -> None:
    X, index = draw(), np.array([50, 3, 3, 17, 18, 19, 20, 2])
    mean, scale = statistics(X, index)
    np.testing.assert_allclose(mean, X[index].astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scale, X[index].astype(np.float64).std(axis=0), rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_statistics_of_large_features_do_not_overflow(dtype: type) -> None:
    X = np.full((1000, 2), np.finfo(dtype).max)
    X[::2] *= -1
    mean, scale = statistics(X)
    np.testing.assert_allclose(mean, 0.0, atol=1e-10 * float(np.finfo(dtype).max))
    np.testing.assert_allclose(scale, float(np.finfo(dtype).max))


def test_a_large_offset_loses_no_digits_of_the_deviation(small_blocks: None) -> None:
    X = np.random.default_rng(0).normal(size=(1000, 3)) + 1e9
    np.testing.assert_allclose(statistics(X)[1], (X - 1e9).std(axis=0), rtol=1e-6)


@DTYPES
@pytest.mark.parametrize("value", [0.0, 0.1, 6e4])
def test_a_constant_column_has_deviation_1_and_becomes_0(dtype: type, value: float, small_blocks: None) -> None:
    X = draw(dtype=dtype)
    X[:, 2] = value
    mean, scale = statistics(X)
    assert scale[2] == 1.0
    for precision in (np.float32, np.float64):
        Z = Rows(X, mean=mean, scale=scale).whole(precision)
        np.testing.assert_allclose(Z[:, 2], 0.0, atol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("many", [False, True], ids=["one", "all"])
def test_what_is_not_finite_spoils_its_own_column_and_no_other(value: float, many: bool, small_blocks: None) -> None:
    X = draw()
    expected = statistics(X)
    X[slice(None) if many else 7, 3] = value
    with np.errstate(all="raise", under="ignore"):  # and nothing is said by numpy
        mean, scale = statistics(X)
    assert not np.isfinite(mean[3] + scale[3])
    for found, clean in zip((mean, scale), expected, strict=True):
        np.testing.assert_array_equal(np.delete(found, 3), np.delete(clean, 3))


def test_without_rows_nothing_is_shifted_or_scaled() -> None:
    mean, scale = statistics(draw(), np.empty(0, dtype=np.int64))
    np.testing.assert_array_equal(mean, np.zeros(6))
    np.testing.assert_array_equal(scale, np.ones(6))
    assert Rows(draw(), np.empty(0, dtype=np.int64)).whole().shape == (0, 6)


@DTYPES
def test_standardised_rows_have_mean_0_and_deviation_1(dtype: type) -> None:
    X = draw(400, 8, dtype)
    mean, scale = statistics(X)
    Z = Rows(X, mean=mean, scale=scale).whole(np.float64)
    np.testing.assert_allclose(Z.mean(axis=0), 0.0, atol=1e-10)
    np.testing.assert_allclose(Z.std(axis=0), 1.0, rtol=1e-10)


def test_rows_are_as_they_are_unless_a_mean_and_scale_are_given() -> None:
    X = draw()
    np.testing.assert_array_equal(Rows(X).whole(), X)


@DTYPES
@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("index", [None, np.arange(5, 31), np.array([9, 8, 8, 52, *range(25), 51])])
def test_whole_blocks_and_block_are_the_same_rows(
    dtype: type, precision: type, index: np.ndarray | None, small_blocks: None
) -> None:
    X = draw(dtype=dtype)
    mean, scale = statistics(X)
    some = Rows(X, index, mean=mean, scale=scale)
    expected = (X[slice(None) if index is None else index].astype(precision) - mean.astype(precision)) / scale.astype(
        precision
    )
    whole = some.whole(precision)
    assert whole.dtype == precision
    np.testing.assert_array_equal(whole, expected)
    blocks = list(some.blocks(precision))
    assert len(blocks) > 1
    assert [at for rows, _ in blocks for at in range(rows.start, rows.stop)] == list(range(len(some)))
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), expected)
    np.testing.assert_array_equal(some.block(slice(2, 7), precision), expected[2:7])
    np.testing.assert_array_equal(some.block(np.array([4, 1]), precision), expected[[4, 1]])


def test_what_is_done_to_a_block_is_not_done_to_the_features() -> None:
    X = draw()
    before = X.copy()
    for _, block in Rows(X).blocks():
        block[:] = -1.0
    Rows(X).whole()[:] = -1.0
    np.testing.assert_array_equal(X, before)


def test_a_block_has_as_many_bytes_as_asked_for_and_one_row_at_least() -> None:
    X = draw(100, 6)
    assert [len(block) for _, block in Rows(X).blocks(np.float32, most=40 * 6 * 4)] == [40, 40, 20]
    assert [len(block) for _, block in Rows(X).blocks(np.float64, most=1)] == [1] * 100


def test_rows_of_rows_are_counted_among_them() -> None:
    X = draw()
    mean, scale = statistics(X)
    some = Rows(X, np.array([10, 20, 30, 40]), mean=mean, scale=scale)
    expected = some.whole()[[3, 1]]
    np.testing.assert_array_equal(some.take(np.array([3, 1])).whole(), expected)
    np.testing.assert_array_equal(some.take(np.array([False, True, False, True])).whole(), expected[::-1])
    assert len(some.take(np.array([3, 1]))) == 2
    assert some.take(np.array([3, 1])).width == 6


def test_rows_fit_in_memory_by_their_size_as_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "MOST_IN_MEMORY", 53 * 6 * 4)
    assert Rows(draw(dtype=np.float16)).fits
    assert not Rows(draw(54, dtype=np.float16)).fits
    assert Rows(draw(54), np.arange(53)).fits


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_mapped_file_gives_what_memory_gives(tmp_path: Path, mode: str, small_blocks: None) -> None:
    X = draw(dtype=np.float16)
    file = mapped(tmp_path, X, mode)
    mean, scale = statistics(file)
    np.testing.assert_array_equal((mean, scale), statistics(X))
    index = np.array([3, 50, 7, 8, 9])
    for some in (None, index):
        expected = Rows(X, some, mean=mean, scale=scale).whole()
        for _ in range(2):  # what was let go of is read again
            np.testing.assert_array_equal(Rows(file, some, mean=mean, scale=scale).whole(), expected)


@pytest.mark.parametrize("mode", ["r+", "c"])
def test_reading_keeps_what_was_written_to_a_map(tmp_path: Path, mode: str) -> None:
    file = mapped(tmp_path, draw(), mode)
    file[2] = 5.0
    first = Rows(file).whole()
    np.testing.assert_array_equal(first[2], 5.0)
    np.testing.assert_array_equal(Rows(file).whole(), first)


@pytest.mark.skipif(not STATM.exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("scattered", [False, True], ids=["all rows", "every other row"])
def test_reading_a_mapped_file_takes_a_block_of_memory_and_not_the_file(
    tmp_path: Path, scattered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Rows.blocks.__kwdefaults__, "most", 2 << 20)
    features = np.ones((32_768, 2048), np.float16)  # 128 MiB
    file = mapped(tmp_path, features)
    index = np.arange(0, len(file), 2) if scattered else None
    del features
    before = most = resident()
    for _ in Rows(file, index).blocks():
        most = max(most, resident())
    statistics(file, index)
    assert max(most, resident()) - before < 32 << 20


def test_rows_that_lie_far_apart_are_read_by_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = draw(3000)
    file, forgotten = mapped(tmp_path, features), []
    monkeypatch.setattr(rooms, "_forget", forgotten.append)
    for step, pieces in [(7, 4), (1, 1)]:
        index = np.arange(0, len(file), step)
        np.testing.assert_array_equal(Rows(file, index).whole(), features[index])
        assert len(forgotten) == pieces, "a page is let go before many more are mapped beside it"
        forgotten.clear()
