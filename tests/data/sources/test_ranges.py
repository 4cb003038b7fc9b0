"""Ranges of a remote file that are fetched ahead of the reader."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from row_files import pets, png

from featx.data.sources import ranges
from featx.data.sources.parquet_file import ParquetFile
from featx.data.sources.ranges import RangesFile


class Server:
    """A place that records what is asked of it, and answers after a moment."""

    location = "https://server/x.parquet"

    def __init__(self, data: bytes, delay: float = 0.0) -> None:
        self.data, self.delay = data, delay
        self.asked: list[tuple[int, int]] = []
        self.now = self.most = 0
        self._lock = threading.Lock()

    def facts(self) -> tuple[int, int, int, int]:
        return len(self.data), 7, 0, 0

    def open(self) -> BinaryIO:
        raise AssertionError("it is read by ranges")

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        with self._lock:
            self.asked.append((offset, size or 0))
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.delay)
        with self._lock:
            self.now -= 1
        return self.data[offset:] if size is None else self.data[offset : offset + size]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "PIECE", 10)
    monkeypatch.setattr(ranges, "AHEAD_BYTES", 50)
    monkeypatch.setattr(ranges, "_GAP", 2)
    monkeypatch.setattr(ranges, "_NEAR", 3)


DATA = np.random.default_rng(0).bytes(1000)


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_reads_gives_the_bytes_of_the_file(seed: int) -> None:
    rng = np.random.default_rng(seed)
    file = RangesFile(Server(DATA), len(DATA))
    edges = np.sort(rng.choice(1000, 12, replace=False))
    file.expect([(int(a), int(b)) for a, b in edges.reshape(-1, 2)])
    for start in rng.integers(0, 1000, 60).tolist():
        size = int(rng.integers(0, 120))
        assert file.seek(start) == start
        assert file.read(size) == DATA[start : start + size]
    assert (file.seek(-5, 2), file.read(), file.read(3)) == (995, DATA[-5:], b"")


def test_ranges_that_are_read_in_order_are_fetched_once_and_several_at_a_time() -> None:
    server = Server(DATA, delay=0.005)
    file = RangesFile(server, len(DATA))
    file.expect([(100, 500), (600, 900)])
    for start in (*range(100, 500, 10), *range(600, 900, 10)):
        file.seek(start)
        assert file.read(10) == DATA[start : start + 10]
    assert sorted(server.asked) == [(start, 10) for start in (*range(100, 500, 10), *range(600, 900, 10))]
    assert server.most >= 4


def test_a_jump_fetches_what_is_needed_and_nothing_after_it() -> None:
    server = Server(DATA)
    file = RangesFile(server, len(DATA))
    file.expect([(0, 1000)])
    for start in (700, 205, 900):
        server.asked.clear()
        file.seek(start)
        assert file.read(10) == DATA[start : start + 10]
        assert len(server.asked) <= 2


def test_near_ranges_are_asked_for_together_and_what_is_not_expected_alone() -> None:
    server = Server(DATA)
    file = RangesFile(server, len(DATA))
    file.expect([(0, 4), (5, 9)])
    assert file.read(9) == DATA[:9]
    file.seek(300)
    assert file.read(20) == DATA[300:320]
    assert server.asked == [(0, 9), (300, 20)]


def test_a_file_that_became_shorter_is_an_error_and_no_endless_wait() -> None:
    file = RangesFile(Server(DATA[:500]), 1000)
    file.seek(495)
    with pytest.raises(OSError, match=r"^the file is shorter than it was$"):
        file.read(20)


def test_a_remote_parquet_file_is_read_by_its_columns(tmp_path: Path) -> None:
    path = pets(tmp_path / "x.parquet", 20, row_group_size=4)
    server = Server(path.read_bytes(), delay=0.002)
    file = ParquetFile(server, None)
    server.asked.clear()
    assert [file.read(row)[0] for row in range(20)] == [png(row) for row in range(20)]
    assert server.most > 1
    assert len(server.asked) == len(set(server.asked))
