"""A remote file of which some ranges are read in order: they are fetched ahead, several at once, to hide the latency."""

from __future__ import annotations

import bisect
import io
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

from featx.data.places import Place

PIECE = 1 << 20
"""The most bytes of one request."""

AHEAD_BYTES, AHEAD_PIECES = 1 << 24, 64
"""How many bytes, and how many pieces, are fetched ahead of the reader."""

_GAP = 1 << 14
"""Bytes between two ranges that are fetched rather than asked for twice."""

_NEAR = 16
"""Pieces around the one that is read: those behind it stay in memory, and a jump over fewer ones counts as reading in order."""

_THREADS = 16


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="featx-ranges")


class RangesFile(io.RawIOBase):
    """A file that fetches ranges ahead while they are read in order; anything else is fetched when it is read.

    Args:
        place: the file.
        size: of the file in bytes.

    Examples:
        >>> import tempfile
        >>> from featx.data.places import LocalFile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(bytes(range(100))), file.flush()
        ...     ranges = RangesFile(LocalFile(file.name), 100)
        ...     ranges.expect([(10, 20), (40, 45)])
        ...     _ = ranges.seek(18)
        ...     list(ranges.read(4))
        [18, 19, 20, 21]
    """

    def __init__(self, place: Place, size: int) -> None:
        super().__init__()
        self._place, self._size, self._at = place, size, 0
        self._pieces: list[tuple[int, int]] = []
        self._starts: list[int] = []
        self._fetched: dict[int, Future[bytes]] = {}
        self._furthest = 0
        self._lock = threading.Lock()

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Name the ranges that will be read, as pairs of the first byte and the one after the last."""
        joined: list[tuple[int, int]] = []
        for begin, end in sorted(ranges):
            if joined and begin - joined[-1][1] <= _GAP:
                joined[-1] = (joined[-1][0], max(joined[-1][1], end))
            else:
                joined.append((begin, end))
        with self._lock:
            self._pieces = [
                (start, min(start + PIECE, end)) for begin, end in joined for start in range(begin, end, PIECE)
            ]
            self._starts = [start for start, _ in self._pieces]
            self._fetched.clear()
            self._furthest = 0

    def readable(self) -> bool:
        """As ``io.IOBase``."""
        return True

    def seekable(self) -> bool:
        """As ``io.IOBase``."""
        return True

    def tell(self) -> int:
        """As ``io.IOBase``."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As ``io.IOBase``."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readall(self) -> bytes:
        """As ``io.RawIOBase``."""
        return self.read(self._size - self._at)

    def readinto(self, buffer: object) -> int:
        """As ``io.RawIOBase``."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Read bytes from the present position on; fewer than ``size`` only at the end.

        Raises:
            OSError: they cannot be read.
        """
        end = self._size if size < 0 else min(self._size, self._at + size)
        parts = []
        while self._at < end:
            data = self._part(end)
            if not data:
                raise OSError("the file is shorter than it was")
            parts.append(data)
            self._at += len(data)
        return b"".join(parts)

    def _part(self, end: int) -> bytes:
        """The bytes from the present position to the end, or to that of a piece."""
        number = bisect.bisect_right(self._starts, self._at) - 1
        if number < 0 or self._at >= self._pieces[number][1]:
            following = self._starts[number + 1] if number + 1 < len(self._starts) else end
            return self._place.read(self._at, min(end, following) - self._at)
        start = self._starts[number]
        return self._piece(number, end).result()[self._at - start : end - start]

    def _piece(self, number: int, end: int) -> Future[bytes]:
        """The bytes of a piece; begins to fetch those that are needed now, and those after them if they are read in order."""
        with self._lock:
            needed = bisect.bisect_left(self._starts, end)
            first, last = number, needed
            if needed > self._furthest >= number - _NEAR:  # in order
                first, ahead = min(number, self._furthest), 0
                while last < len(self._pieces) and ahead < AHEAD_BYTES and last - needed < AHEAD_PIECES:
                    ahead += self._pieces[last][1] - self._pieces[last][0]
                    last += 1
            self._furthest = needed if number > self._furthest + _NEAR else max(self._furthest, needed)
            for each in range(first, last):
                if each not in self._fetched:
                    begin, stop = self._pieces[each]
                    self._fetched[each] = _pool().submit(self._place.read, begin, stop - begin)
            found = self._fetched[number]
            for each in [each for each in self._fetched if not number - _NEAR <= each <= last + AHEAD_PIECES]:
                self._fetched.pop(each).cancel()
            return found
