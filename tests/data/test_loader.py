"""Many image files, read and decoded by threads, in order."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featx.data import loader
from featx.data.file_bytes import NO_KEY, FileBytes, image_key
from featx.data.loader import (
    LoadedImage,
    Workers,
    batched,
    default_batch_size,
    read_images,
)
from featx.data.throughput import ThroughputMeter
from featx.errors import ImageError

AT_ONCE = loader._AT_ONCE

OLD = 1_600_000_000_123_456_789
"""A modification time (ns) long ago."""


def old(path: Path, data: bytes, mtime_ns: int = OLD) -> Path:
    """A file of these bytes that was written long ago."""
    path.write_bytes(data)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


# Many files


def test_without_a_reader_images_have_keys_and_no_pixels(tmp_path: Path) -> None:
    old(tmp_path / "a.jpg", b"no image at all")
    old(tmp_path / "empty.jpg", b"")
    files = [(7, tmp_path / "a.jpg"), (3, tmp_path / "none.jpg"), (5, tmp_path / "empty.jpg")]
    found = list(read_images(files, None, workers=2))
    assert [(i.row, i.key, i.pixels, i.error, i.size, i.mtime_ns) for i in found] == [
        (7, image_key(b"no image at all"), None, "", 15, OLD),
        (3, NO_KEY, None, "cannot be read: No such file or directory", -1, -1),
        (5, image_key(b""), None, "", 0, OLD),
    ]


def test_an_image_that_cannot_be_decoded_has_its_key_size_and_time(tmp_path: Path) -> None:
    def read(_row: int, _file: FileBytes) -> Any:
        raise ImageError("spoilt")

    (image,) = read_images([(0, old(tmp_path / "a.jpg", b"ant"))], read, workers=1)
    assert (image.key, image.pixels, image.error, image.size, image.mtime_ns) == (
        image_key(b"ant"),
        None,
        "spoilt",
        3,
        OLD,
    )


def test_a_fault_of_the_program_is_not_taken_for_a_bad_image(tmp_path: Path) -> None:
    def read(_row: int, _file: FileBytes) -> Any:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(read_images([(0, old(tmp_path / "a.jpg", b"ant"))], read, workers=1))


# Threads


class SpoiltError(Exception):
    """What a test raises."""


def ours() -> list[str]:
    """The threads of workers that are there."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("featx")]


@pytest.fixture
def none_left() -> Iterator[None]:
    """No thread outlives its workers."""
    before = ours()
    yield
    assert ours() == before


@pytest.fixture
def many(tmp_path: Path) -> list[tuple[int, Path]]:
    """A hundred files, each with its number in it."""
    return [(row, old(tmp_path / f"{row}.jpg", b"%d" % row)) for row in range(100)]


def number(_row: int, file: FileBytes) -> np.ndarray:
    return np.full((3, 1, 1), int(file.data), np.uint8)


def test_workers_keep_a_record_of_what_they_do(none_left: None) -> None:
    meter = ThroughputMeter()
    seen: list[tuple[str, int]] = []
    busy = meter.busy

    def noted(stage: str, threads: int = 1) -> Any:
        seen.append((stage, threads))
        return busy(stage, threads)

    meter.busy = noted  # type: ignore[method-assign]
    with Workers(3, meter=meter) as pool:
        assert pool.count == 3
        assert pool.start("decode", pow, 2, 5).result() == 32
        with pytest.raises(ZeroDivisionError, match="by zero"):
            pool.start("forward", divmod, 1, 0).result()
    assert seen == [("decode", 3), ("forward", 3)]
    assert meter.seconds.keys() == {"decode", "forward"}


def test_each_worker_begins_with_what_it_is_told(none_left: None) -> None:
    begun: list[int] = []
    together = threading.Barrier(3)
    with Workers(3, begin=lambda: begun.append(threading.get_ident())) as pool:
        ran = [pool.start("work", together.wait, 20) for _ in range(3)]
        assert sorted(future.result() for future in ran) == [0, 1, 2]
    assert len(set(begun)) == len(begun) == 3


def test_workers_that_are_left_by_an_exception_begin_nothing_more(none_left: None) -> None:
    go, at_work, done = threading.Event(), threading.Event(), []

    def work() -> None:
        at_work.set()
        go.wait(20)
        done.append(1)

    futures: list[Future[None]] = []

    def leave() -> None:
        with Workers(1) as pool:
            futures.extend(pool.start("work", work) for _ in range(10))
            at_work.wait(20)
            threading.Timer(0.05, go.set).start()  # what is being done is waited for
            raise SpoiltError("left")

    with pytest.raises(SpoiltError, match="left"):
        leave()
    assert done == [1]
    assert [future.cancelled() for future in futures] == [False] + [True] * 9
    with pytest.raises(CancelledError):
        futures[-1].result()


def test_images_come_in_order_through_workers_that_others_use_too(
    many: list[tuple[int, Path]], none_left: None
) -> None:
    with Workers(2) as pool:
        seen = []
        for image in read_images(many, number, workers=pool):
            assert image.pixels is not None
            seen.append((image.row, int(image.pixels[0, 0, 0])))
            assert pool.start("forward", pow, 2, 3).result() == 8
        assert seen == [(row, row) for row in range(100)]
        assert pool.start("after", pow, 3, 2).result() == 9  # they are not ended by who was lent them
        assert pool.meter.seconds.keys() == {"decode", "forward", "after"}


@pytest.mark.parametrize("workers", [1, 4])
def test_images_come_in_order_whatever_the_number_of_threads(
    many: list[tuple[int, Path]], workers: int, none_left: None
) -> None:
    assert [image.row for image in read_images(many, number, workers=workers)] == list(range(100))


def test_only_so_many_images_are_read_ahead(many: list[tuple[int, Path]], none_left: None) -> None:
    listed: list[int] = []

    def files() -> Iterator[tuple[int, Path]]:
        for row, path in many:
            listed.append(row)
            yield row, path

    with Workers(2) as pool:
        images = read_images(files(), number, workers=pool)
        next(images)
        assert len(listed) == (2 + 2) * AT_ONCE
        for _ in range(AT_ONCE):
            next(images)
        assert len(listed) == (2 + 3) * AT_ONCE
        images.close()  # type: ignore[attr-defined]


def test_a_reader_that_is_closed_cancels_what_it_has_not_begun(many: list[tuple[int, Path]], none_left: None) -> None:
    go, read = threading.Event(), []

    def slow(row: int, _file: FileBytes) -> np.ndarray:
        read.append(row)
        if row >= AT_ONCE:
            go.wait(20)
        return np.zeros((3, 1, 1), np.uint8)

    with Workers(1) as pool:
        images = read_images(many, slow, workers=pool)
        assert next(images).row == 0
        images.close()  # type: ignore[attr-defined]
        go.set()
        pool.start("work", lambda: None).result()
        assert read in (list(range(AT_ONCE)), list(range(2 * AT_ONCE)))  # the second lot may have been begun before


def test_a_fault_in_one_image_leaves_no_thread_behind(many: list[tuple[int, Path]], none_left: None) -> None:
    def faulty(row: int, _file: FileBytes) -> np.ndarray:
        if row == 20:
            raise SpoiltError("a bug")
        return np.zeros((3, 1, 1), np.uint8)

    for workers in (3, Workers(3)):
        rows: list[int] = []
        with pytest.raises(SpoiltError, match="a bug"):
            rows.extend(image.row for image in read_images(many, faulty, workers=workers))
        assert rows == list(range(20 - 20 % AT_ONCE))  # whole lots alone
        if isinstance(workers, Workers):
            assert workers.start("work", pow, 2, 2).result() == 4
            workers.shutdown()


def test_pixels_that_nobody_needs_are_not_decoded(many: list[tuple[int, Path]], none_left: None) -> None:
    known = {image_key(b"%d" % row) for row in range(0, 100, 2)}
    with Workers(2) as pool:
        decoded = [image.pixels is not None for image in read_images(many, number, workers=pool, known=known)]
    assert decoded == [False, True] * 50


def test_one_large_file_at_a_time_is_in_memory(
    many: list[tuple[int, Path]], none_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, most = [0], {1: 0, 2: 0}

    def counting(row: int, file: FileBytes) -> np.ndarray:
        inside[0] += 1
        most[file.size] = max(most[file.size], inside[0])
        time.sleep(0.002)
        inside[0] -= 1
        return number(row, file)

    monkeypatch.setattr(loader, "LARGE_FILE", 2)
    rows = [image.row for image in read_images(many[10:60], counting, workers=4)]
    assert (rows, most[2]) == (list(range(10, 60)), 1)
    monkeypatch.setattr(loader, "LARGE_FILE", 3)
    assert len(list(read_images(many[10:60], counting, workers=4))) == 50
    assert most[2] > 1


def test_batches_have_one_size_but_the_last() -> None:
    images = [LoadedImage(row, NO_KEY, None) for row in range(7)]
    assert [[image.row for image in batch] for batch in batched(images, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batched([], 3)) == []
    assert (default_batch_size("cpu"), default_batch_size("cuda"), default_batch_size("mps")) == (8, 64, 64)
