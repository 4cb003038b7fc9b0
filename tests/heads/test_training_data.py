"""Training data: standardised rows against numpy, and cross-validation fold by fold."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from featx.heads import training_data
from featx.heads.predictors import LinearPredictor
from featx.heads.training_data import Rows, TrainingData, fold_by_fold, statistics


@dataclass
class Mean:
    """Scores every row by the weighted mean of the training rows' features, times the candidate."""

    seen: list[TrainingData] = field(default_factory=list)
    candidates = (1.0, 2.0)

    def fit(self, training: TrainingData, candidate: float) -> LinearPredictor:
        self.seen.append(training)
        Z = training.rows.whole(np.float64)
        weight = np.tile(candidate * np.average(Z, axis=0, weights=training.weight), (training.count, 1))
        return LinearPredictor(weight * np.arange(1, training.count + 1)[:, None], np.zeros(training.count))


def draw(task: str = "classification") -> TrainingData:
    rng = np.random.default_rng(0)
    X = rng.normal(3, 2, (31, 4)).astype(np.float32)
    mean, scale = statistics(X)
    y = {
        "classification": rng.integers(0, 3, 30),
        "multilabel": rng.integers(0, 2, (30, 3)).astype(np.float32),
        "regression": rng.normal(size=(30, 3)),
    }[task]
    rows = Rows(X, np.arange(30)[::-1] + 1, mean=mean, scale=scale)
    free = np.arange(3, 30)  # rows 0 to 2 are never held out
    folds = tuple((np.setdiff1d(np.arange(30), free[k::4]), free[k::4]) for k in range(4))
    return TrainingData(rows, y, 3, task, rng.uniform(0.5, 2, 30), folds, seed=7, grouped=True)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_some_rows_of_a_training_are_those_rows_without_folds(task: str) -> None:
    training, some = draw(task), np.array([4, 0, 29])
    taken = training.take(some)
    assert len(training) == 30
    assert len(taken) == len(taken.rows) == 3
    np.testing.assert_array_equal(taken.rows.whole(), training.rows.whole()[some])
    np.testing.assert_array_equal(taken.y, training.y[some])
    np.testing.assert_array_equal(taken.weight, training.weight[some])
    assert taken.folds == ()
    assert (taken.count, taken.task, taken.seed, taken.grouped) == (3, task, 7, True)


def test_fold_by_fold_scores_each_row_by_a_fit_that_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Rows.blocks.__kwdefaults__, "most", 100)  # blocks of a few rows
    training = draw()
    Z = training.rows.whole(np.float64)
    found = list(fold_by_fold(Mean(), training, (1.0, 2.0)))
    assert [candidate for candidate, _ in found] == [1.0, 2.0]
    for candidate, scores in found:
        expected = np.full((30, 3), np.nan)
        for train, test in training.folds:
            mean = candidate * np.average(Z[train], axis=0, weights=training.weight[train])
            expected[test] = (Z[test] @ mean)[:, None] * [1, 2, 3]
        np.testing.assert_allclose(scores, expected, rtol=1e-10)
        assert np.isnan(scores[:3]).all()
        assert not np.isnan(scores[3:]).any()


def test_fold_by_fold_fits_once_for_each_candidate_and_fold_on_demand() -> None:
    model, training = Mean(), draw()
    scores = fold_by_fold(model, training, (1.0, 2.0))
    next(scores)
    assert len(model.seen) == 4
    assert all(seen.folds == () for seen in model.seen)
    list(scores)
    assert len(model.seen) == 8


def test_fold_by_fold_without_folds_scores_nothing() -> None:
    training = draw().take(np.arange(10))
    ((_, scores),) = fold_by_fold(Mean(), training, (1.0,))
    assert np.isnan(scores).all()
    assert scores.shape == (10, 3)


DTYPES = pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
STATM = Path("/proc/self/statm")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows."""
    monkeypatch.setitem(Rows.blocks.__kwdefaults__, "most", 300)


def draw_features(n: int = 53, dim: int = 6, dtype: type = np.float32, *, offset: float = 3.0) -> np.ndarray:
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
    X = draw_features(dtype=dtype)
    mean, scale = statistics(X)
    assert mean.dtype == scale.dtype == np.float64
    np.testing.assert_allclose(mean, X.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scale, X.astype(np.float64).std(axis=0), rtol=1e-10)


def test_statistics_of_some_rows_are_theirs_alone(small_blocks: None) -> None:
    X, index = draw_features(), np.array([50, 3, 3, 17, 18, 19, 20, 2])
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
    X = draw_features(dtype=dtype)
    X[:, 2] = value
    mean, scale = statistics(X)
    assert scale[2] == 1.0
    for precision in (np.float32, np.float64):
        Z = Rows(X, mean=mean, scale=scale).whole(precision)
        np.testing.assert_allclose(Z[:, 2], 0.0, atol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("many", [False, True], ids=["one", "all"])
def test_what_is_not_finite_spoils_its_own_column_and_no_other(value: float, many: bool, small_blocks: None) -> None:
    X = draw_features()
    expected = statistics(X)
    X[slice(None) if many else 7, 3] = value
    with np.errstate(all="raise", under="ignore"):  # and nothing is said by numpy
        mean, scale = statistics(X)
    assert not np.isfinite(mean[3] + scale[3])
    for found, clean in zip((mean, scale), expected, strict=True):
        np.testing.assert_array_equal(np.delete(found, 3), np.delete(clean, 3))


def test_without_rows_nothing_is_shifted_or_scaled() -> None:
    mean, scale = statistics(draw_features(), np.empty(0, dtype=np.int64))
    np.testing.assert_array_equal(mean, np.zeros(6))
    np.testing.assert_array_equal(scale, np.ones(6))
    assert Rows(draw_features(), np.empty(0, dtype=np.int64)).whole().shape == (0, 6)


@DTYPES
def test_standardised_rows_have_mean_0_and_deviation_1(dtype: type) -> None:
    X = draw_features(400, 8, dtype)
    mean, scale = statistics(X)
    Z = Rows(X, mean=mean, scale=scale).whole(np.float64)
    np.testing.assert_allclose(Z.mean(axis=0), 0.0, atol=1e-10)
    np.testing.assert_allclose(Z.std(axis=0), 1.0, rtol=1e-10)


def test_rows_are_as_they_are_unless_a_mean_and_scale_are_given() -> None:
    X = draw_features()
    np.testing.assert_array_equal(Rows(X).whole(), X)


@DTYPES
@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("index", [None, np.arange(5, 31), np.array([9, 8, 8, 52, *range(25), 51])])
def test_whole_blocks_and_block_are_the_same_rows(
    dtype: type, precision: type, index: np.ndarray | None, small_blocks: None
) -> None:
    X = draw_features(dtype=dtype)
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
    X = draw_features()
    before = X.copy()
    for _, block in Rows(X).blocks():
        block[:] = -1.0
    Rows(X).whole()[:] = -1.0
    np.testing.assert_array_equal(X, before)


def test_a_block_has_at_most_the_requested_bytes_and_at_least_one_row() -> None:
    X = draw_features(100, 6)
    assert [len(block) for _, block in Rows(X).blocks(np.float32, most=40 * 6 * 4)] == [40, 40, 20]
    assert [len(block) for _, block in Rows(X).blocks(np.float64, most=1)] == [1] * 100


def test_rows_of_rows_are_counted_among_them() -> None:
    X = draw_features()
    mean, scale = statistics(X)
    some = Rows(X, np.array([10, 20, 30, 40]), mean=mean, scale=scale)
    expected = some.whole()[[3, 1]]
    np.testing.assert_array_equal(some.take(np.array([3, 1])).whole(), expected)
    np.testing.assert_array_equal(some.take(np.array([False, True, False, True])).whole(), expected[::-1])
    assert len(some.take(np.array([3, 1]))) == 2
    assert some.take(np.array([3, 1])).width == 6


def test_rows_fit_in_memory_by_their_size_as_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "MOST_IN_MEMORY", 53 * 6 * 4)
    assert Rows(draw_features(dtype=np.float16)).fits
    assert not Rows(draw_features(54, dtype=np.float16)).fits
    assert Rows(draw_features(54), np.arange(53)).fits


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_mapped_file_gives_what_memory_gives(tmp_path: Path, mode: str, small_blocks: None) -> None:
    X = draw_features(dtype=np.float16)
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
    file = mapped(tmp_path, draw_features(), mode)
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
    features = draw_features(3000)
    file, forgotten = mapped(tmp_path, features), []
    monkeypatch.setattr(training_data, "release_pages", forgotten.append)
    for step, pieces in [(7, 4), (1, 1)]:
        index = np.arange(0, len(file), step)
        np.testing.assert_array_equal(Rows(file, index).whole(), features[index])
        assert len(forgotten) == pieces, "a page is let go before many more are mapped beside it"
        forgotten.clear()


def test_copies_and_views_of_an_image_count_as_one_and_images_of_unknown_content_each() -> None:
    training = draw()
    keys = np.zeros((30, 16), dtype=np.uint8)
    keys[:24] = np.arange(24)[:, None] // 3 + 1  # 8 images, each there three times
    known = dataclasses.replace(training, keys=keys)
    assert (training.different, known.different) == (30, 14)
    assert known.take(np.array([0, 1, 5, 29])).different == 3
    views = dataclasses.replace(training.take(np.arange(15)), keys=keys[:15], views=2)
    assert (views.different, views.views_as_images.different) == (5, 5)
