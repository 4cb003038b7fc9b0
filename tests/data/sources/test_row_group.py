"""Row groups: in order with little memory, in any order from an unpacked copy, and damaged ones."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from row_files import parquet, pets, png, pyarrow, structs, write

from featx.data.places import LocalFile
from featx.data.scan import scan_images
from featx.data.sources import parquet_store, row_group
from featx.data.sources.parquet_file import ParquetFile
from featx.data.sources.row_group import RowGroup
from featx.data.sources.row_schema import ImageColumn

IMAGE = ImageColumn("image", "bytes", "path")


class Decoding:
    """A row group of images of ten bytes, and how often it was begun and how many batches were decoded."""

    def __init__(self, count: int, fault_at: int | None = None) -> None:
        self.count, self.fault_at = count, fault_at
        self.begun = self.batches = 0
        self.learned: dict[int, list[int]] = {}

    def begin(self) -> Any:
        self.begun += 1
        for start in range(0, self.count, 2):
            if self.fault_at is not None and start >= self.fault_at:
                raise OSError("damaged")
            self.batches += 1
            yield pyarrow.record_batch({"image": structs([self.data(start), self.data(start + 1)])})

    def data(self, row: int) -> bytes:
        return b"%010d" % row

    def group(self, size: int = 0) -> RowGroup:
        def learn(start: int, sizes: np.ndarray) -> None:
            self.learned[start] = sizes.tolist()

        return RowGroup(self.begin, IMAGE, (100, 100 + self.count), size, learn)


def test_a_large_group_is_decoded_in_order_as_far_as_it_is_needed() -> None:
    decoding = Decoding(20)
    group = decoding.group(row_group.LARGE)
    for row in range(6):
        assert group.read(100 + row, 40) == (decoding.data(row), None)
        assert group.bytes <= 40
    assert group.read(103, 40)[0] == decoding.data(3)  # still in memory
    assert (decoding.begun, decoding.batches) == (1, 3)
    assert decoding.learned == {100: [10, 10], 102: [10, 10], 104: [10, 10]}


def test_a_large_group_in_another_order_is_unpacked_once() -> None:
    decoding = Decoding(20)
    group = decoding.group(row_group.LARGE)
    for row in (15, 3, 19, 0, 7, 15, 1):
        assert group.read(100 + row, 40) == (decoding.data(row), None)
    assert decoding.begun == 2
    group.forget()
    assert group.read(104, 40)[0] == decoding.data(4)
    assert (decoding.begun, group.bytes) == (2, 0)


def test_without_space_for_a_copy_images_are_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    decoding = Decoding(20)
    group = decoding.group(row_group.LARGE)
    for row in (15, 3, 0, 7, 2):
        assert group.read(100 + row, 20) == (decoding.data(row), None)


def test_a_small_group_is_decoded_at_once_and_holds_no_decoder() -> None:
    decoding = Decoding(10)
    group = decoding.group()
    assert group.read(104, 1000)[0] == decoding.data(4)
    assert (decoding.batches, group.bytes) == (5, 100)
    assert [group.read(100 + row, 1000)[0] for row in (9, 0)] == [decoding.data(9), decoding.data(0)]
    assert decoding.begun == 1


@pytest.mark.parametrize("size", [0, row_group.LARGE])
def test_images_before_damage_are_read_and_those_after_it_fail_without_another_attempt(size: int) -> None:
    decoding = Decoding(10, fault_at=4)
    group = decoding.group(size)
    assert [group.read(100 + row, 1000)[0] for row in (3, 0)] == [decoding.data(3), decoding.data(0)]
    for row in (4, 9, 5):
        with pytest.raises(OSError, match="damaged"):
            group.read(100 + row, 1000)
    assert decoding.begun == 1


def test_a_group_that_ends_too_early_is_damaged() -> None:
    decoding = Decoding(4)
    group = RowGroup(decoding.begin, IMAGE, (0, 6), 0, lambda *_: None)
    assert group.read(3, 1000)[0] == decoding.data(3)
    with pytest.raises(OSError, match=r"^a row group ends too early$"):
        group.read(5, 1000)


def test_rows_with_a_path_alone_keep_it_in_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_group, "LARGE", 0)
    images = [png(0), None, None, png(3)]
    file = ParquetFile(
        LocalFile(write(tmp_path / "x.parquet", {"image": structs(images, ["a", "b", None, "d"])})), None
    )
    assert [file.read(row, 0) for row in (3, 2, 1, 0)][1:] == [(None, None), (None, "b"), (png(0), None)]


def test_groups_are_kept_within_the_budget_the_last_ones_first(tmp_path: Path) -> None:
    size = len(png(0))
    file = ParquetFile(LocalFile(pets(tmp_path / "x.parquet", 12, row_group_size=3)), None)
    for row in range(12):
        assert file.read(row, 7 * size)[0] == png(row)
        assert file.bytes < 8 * size
    assert file.bytes > 5 * size
    for row in (11, 0, 6, 3, 9, 1):
        assert file.read(row, 7 * size)[0] == png(row)
    file.forget()
    assert file.bytes == 0


def test_many_threads_get_their_own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_store, "_MOST_OPEN", 2)
    for shard in range(4):
        pets(tmp_path / "set" / f"train-{shard:05}-of-00004.parquet", 10, 10 * shard, row_group_size=4)
    images = scan_images(tmp_path / "set")
    wrong = []

    def read(seed: int) -> None:
        for row in np.random.default_rng(seed).permutation(len(images)).tolist():
            number = int(str(images.paths[row]).rpartition("_")[2].removesuffix(".png"))
            if images.file(row).read().data != png(number):
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_sizes_that_one_run_has_learned_are_known_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "home"))
    path = pets(tmp_path / "x.parquet", 5, row_group_size=2)
    first = ParquetFile(LocalFile(path), None)
    assert first.sizes_of(np.arange(5)).tolist() == [-2] * 5
    for row in range(5):
        first.read(row)
    sizes = [len(png(row)) for row in range(5)]
    assert first.sizes_of(np.arange(5)).tolist() == sizes
    assert ParquetFile(LocalFile(path), None).sizes_of(np.arange(5)).tolist() == sizes
    os.utime(path, ns=(1, 1))
    assert ParquetFile(LocalFile(path), None).sizes_of(np.arange(5)).tolist() == [-2] * 5


def test_a_file_that_is_replaced_is_read_anew_by_an_open_store(tmp_path: Path) -> None:
    path = pets(tmp_path / "x.parquet", 3)
    store = scan_images(path).store
    before = store.facts(["0"])
    assert store.read("0").data == png(0)
    pets(tmp_path / "y.parquet", 2, 10).replace(path)
    assert store.read("0").data == png(10)
    assert store.facts(["0"]).inodes != before.inodes
    assert store.facts(["0", "2"]).sizes.tolist() == [len(png(10)), -1]
    parquet.write_table(pyarrow.table({"label": [1]}), path)
    assert store.facts(["0"]).sizes.tolist() == [-1]
    path.unlink()
    assert store.facts(["0"]).sizes.tolist() == [-1]
    assert not store.exists()
