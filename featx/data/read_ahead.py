"""Read images from servers ahead of those who decode them, many at once, so that latency does not limit the speed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from featx.data.file_bytes import FileBytes
from featx.data.memory import machine_memory
from featx.data.store import ImageFile

Source = TypeVar("Source")

MOST_BYTES = min(1 << 28, machine_memory() // 16)
"""The most bytes of files that are read ahead and not decoded yet, besides the one that is decoded next."""


_MOST_TIMES = 4
"""How many times more reads than at first run at once where those who decode wait nevertheless."""

_WAITED = 0.1
"""The share of the time that those who decode may spend waiting before more is read at once."""


class _ClosedError(Exception):
    """Nobody needs what is being read any more."""


class _TooLargeError(Exception):
    """A file is too large to be read ahead."""


class ReadAhead:
    """Reads images of stores that wait for a network in threads of its own; those of other stores pass through.

    Args:
        too_large: bytes from which a file is not read ahead, but when it is decoded.
        most_bytes: how many bytes may wait to be decoded.
    """

    def __init__(self, too_large: int, most_bytes: int = MOST_BYTES) -> None:
        self._too_large, self._most = too_large, most_bytes
        self._changed = threading.Condition()
        self._held: dict[int, int] = {}
        self._oldest = 0
        self._unfinished: set[int] = set()
        self._closed = False

    def items(
        self,
        sources: Iterable[tuple[int, Source]],
        waiting: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> Generator[tuple[int, Source | FetchedImage], None, None]:
        """Yield the same rows in the same order, with images of servers as ``FetchedImage``, once these are there.

        Args:
            sources: rows and images; of a store, as many as it reads at once are taken before they are needed, and up to four
                times as many while that does not suffice.
            waiting: a context in which a wait for a server is spent.
        """
        ahead: deque[tuple[int, Source | FetchedImage]] = deque()
        pools: dict[int, ThreadPoolExecutor] = {}
        number, room = 0, _Room()
        try:
            for row, source in sources:
                threads = source.concurrency if isinstance(source, ImageFile) else 0
                if isinstance(source, ImageFile) and threads:
                    if threads not in pools:
                        pools[threads] = ThreadPoolExecutor(_MOST_TIMES * threads, thread_name_prefix="featx-read")
                    with self._changed:
                        self._unfinished.add(number)
                    ahead.append((row, FetchedImage(self, number, source, pools[threads])))
                    number, most = number + 1, room.images(threads)
                else:
                    most = 1
                    ahead.append((row, source))
                while ahead and (len(ahead) >= most or not isinstance(ahead[0][1], FetchedImage)):
                    yield room.arrived(ahead.popleft(), waiting)
            while ahead:
                yield room.arrived(ahead.popleft(), waiting)
        finally:
            self.close()
            for pool in pools.values():
                pool.shutdown(wait=False, cancel_futures=True)

    def admit(self, number: int, size: int) -> None:
        """Wait until the bytes of a file fit; the oldest one that is not decoded always does.

        Raises:
            _TooLargeError: it is not to be read ahead.
            _ClosedError: nobody needs it any more.
        """
        if size >= self._too_large:
            raise _TooLargeError
        with self._changed:
            self._held.pop(number, None)
            self._changed.wait_for(
                lambda: self._closed or number == self._oldest or sum(self._held.values()) + size <= self._most
            )
            if self._closed:
                raise _ClosedError
            self._held[number] = size

    def release(self, number: int) -> None:
        """The image of this number is decoded."""
        with self._changed:
            self._held.pop(number, None)
            self._unfinished.discard(number)
            self._oldest = min(self._unfinished, default=number + 1)
            self._changed.notify_all()

    def close(self) -> None:
        """Let all that wait for room go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class FetchedImage:
    """An image that is read ahead, or will be when it is needed, if it is large."""

    def __init__(self, ahead: ReadAhead, number: int, source: ImageFile, pool: ThreadPoolExecutor) -> None:
        self._ahead, self._number, self._source = ahead, number, source
        self.future: Future[FileBytes] = pool.submit(source.read, lambda size: ahead.admit(number, size))

    @contextlib.contextmanager
    def read(self, admit: Callable[[int], None]) -> Iterator[FileBytes]:
        """The bytes of the image, which count as memory held until the block ends; see ``Store.read``."""
        try:
            try:
                file = self.future.result()
            except _TooLargeError:
                file = self._source.read(admit)
            yield file
        finally:
            self._ahead.release(self._number)


Item = TypeVar("Item")


class _Room:
    """How many images are read ahead: more, step by step, while those who decode wait for them."""

    def __init__(self) -> None:
        self._times = 1
        self._since = self._waited = 0.0
        self._arrived = 0

    def images(self, at_once: int) -> int:
        """The number of images, read or being read, that may wait to be decoded.

        Args:
            at_once: how many reads the store is worth at first.
        """
        if self._times < _MOST_TIMES and self._arrived > self._times * at_once:
            now = time.perf_counter()
            if self._waited > _WAITED * (now - self._since):
                self._times *= 2
            self._since, self._waited, self._arrived = now, 0.0, 1
        return self._times * at_once

    def arrived(
        self, item: tuple[int, Item], waiting: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> tuple[int, Item]:
        """An item, once its image is there."""
        _, source = item
        began = time.perf_counter()
        if isinstance(source, FetchedImage) and not source.future.done():
            with waiting():
                source.future.exception()  # waits; whoever takes the image gets the error
        now = time.perf_counter()
        if self._arrived:
            self._waited += now - began
        else:  # the first takes as long as the server takes to answer, however much is read at once
            self._since = now
        self._arrived += 1
        return item
