"""Images of servers are read ahead of the threads that decode them: in order, bounded in number and in bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from featx.data import loader, read_ahead
from featx.data.file_bytes import FileBytes, FileFacts
from featx.data.loader import read_images
from featx.data.store import ImageFile
from featx.errors import ImageError, RemoteError

PIXELS = np.zeros((3, 2, 2), np.uint8)


class SlowStore:
    """Images of so many bytes by their numbers, each of which takes a while to come.

    Attributes:
        together: the most reads that ever ran at once.
        reads: how many there were.
        held: bytes that were read and not decoded yet, and the most of it that ever was.
    """

    location = "slow://images"

    def __init__(self, sizes: Sequence[int], *, concurrency: int = 8, latency: float = 0.01) -> None:
        self.sizes, self.concurrency, self.latency = sizes, concurrency, latency
        self.together = self.running = self.reads = self.held = self.most_held = 0
        self.lock = threading.Lock()

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
        size = self.sizes[int(path)]
        if size < 0:
            raise RemoteError("slow does not answer") if size == -2 else ImageError("is missing")
        admit(size)
        with self.lock:
            self.running += 1
            self.reads += 1
            self.held += size
            self.together = max(self.together, self.running)
            self.most_held = max(self.most_held, self.held)
        time.sleep(self.latency * (1 + int(path) % 3))
        with self.lock:
            self.running -= 1
        return FileBytes(path.encode().ljust(size), size, 0)

    def decoded(self, _row: int, file: FileBytes) -> np.ndarray:
        with self.lock:
            self.held -= file.size
        return PIXELS

    def facts(self, paths: Sequence[str]) -> FileFacts:
        raise NotImplementedError

    def order(self, paths: Sequence[str]) -> np.ndarray:
        return np.arange(len(paths))

    def name(self, path: str) -> str:
        return path

    def exists(self) -> bool:
        return True

    @property
    def files(self) -> list[tuple[int, ImageFile]]:
        return [(row, ImageFile(self, str(row))) for row in range(len(self.sizes))]


def test_images_come_in_order_and_many_are_read_at_once() -> None:
    store = SlowStore([10] * 60)
    found = list(read_images(store.files, store.decoded, workers=2))
    assert [image.row for image in found] == list(range(60))
    assert all(image.pixels is PIXELS for image in found)
    assert 8 <= store.together <= 32


def test_more_is_read_at_once_only_while_those_who_decode_wait() -> None:
    fast, slow = SlowStore([10] * 150, latency=0.001), SlowStore([10] * 150, latency=0.02)

    def slowly(row: int, file: FileBytes) -> np.ndarray:
        time.sleep(0.004)
        return fast.decoded(row, file)

    list(read_images(fast.files, slowly, workers=1))
    list(read_images(slow.files, slow.decoded, workers=1))
    assert fast.together <= 16 < slow.together <= 32


def test_latency_costs_little(tmp_path: Path) -> None:
    store = SlowStore([10] * 100, concurrency=25, latency=0.02)
    started = time.monotonic()
    list(read_images(store.files, store.decoded, workers=1))
    assert time.monotonic() - started < 1.0  # one after the other: 4 s


def test_the_bytes_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "ReadAhead", lambda too_large: read_ahead.ReadAhead(too_large, most_bytes=3000))
    store = SlowStore([1000, 700, 900] * 20, concurrency=16)

    def slowly(row: int, file: FileBytes) -> np.ndarray:
        time.sleep(0.002)
        return store.decoded(row, file)

    assert len(list(read_images(store.files, slowly, workers=2))) == 60
    assert store.most_held <= 3000 + 1000  # and the image that is next


def test_one_image_above_the_bound_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "ReadAhead", lambda too_large: read_ahead.ReadAhead(too_large, most_bytes=100))
    store = SlowStore([5000] * 6)
    assert [image.row for image in read_images(store.files, store.decoded, workers=2)] == list(range(6))
    assert store.most_held <= 2 * 5000


def test_large_files_are_read_where_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "LARGE_FILE", 1000)
    store = SlowStore([10, 2000, 2000, 10, 2000], concurrency=4)
    found = list(read_images(store.files, store.decoded, workers=3))
    assert [image.size for image in found] == [10, 2000, 2000, 10, 2000]
    assert store.most_held <= 2000 + 20


def test_images_of_this_machine_between_those_of_servers_keep_their_places(tmp_path: Path) -> None:
    store, mixed = SlowStore([10] * 30), []
    for row, file in store.files:
        path = tmp_path / f"{row}.bin"
        path.write_bytes(b"here")
        mixed.append((row, file if row % 3 else path))
    found = list(read_images(mixed, None, workers=2))
    assert [image.row for image in found] == list(range(30))
    assert [image.size for image in found] == [10 if row % 3 else 4 for row in range(30)]


def test_an_image_that_fails_does_not_stop_the_others_and_a_server_that_is_gone_does() -> None:
    store = SlowStore([10, -1, 10])
    assert [image.error for image in read_images(store.files, store.decoded, workers=1)] == ["", "is missing", ""]
    gone = SlowStore([10] * 20 + [-2] + [10] * 20)
    found = read_images(gone.files, gone.decoded, workers=1)
    with pytest.raises(RemoteError, match="slow does not answer"):
        list(found)


def test_reading_ahead_ends_when_nobody_needs_it() -> None:
    store = SlowStore([10] * 1000)
    images = read_images(store.files, store.decoded, workers=2)
    for _ in range(3):
        next(images)
    images.close()
    deadline = time.monotonic() + 5
    while store.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert store.running == 0
    assert store.reads < 100


def test_no_more_items_are_taken_than_are_read_ahead() -> None:
    store, taken = SlowStore([10] * 200, concurrency=4), []

    def files() -> object:
        for item in store.files:
            taken.append(item[0])
            yield item

    images = read_images(files(), store.decoded, workers=1)  # type: ignore[arg-type]
    next(images)
    assert len(taken) <= 2 * 4 + 4 * 3 + 1
    images.close()
