"""Image files to pixels, in threads, in order, a bounded number ahead. Feeds extraction, promotion and prediction."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from featx.data.decode import MAX_PIXELS, read_views
from featx.data.image_set import image_key
from featx.data.throughput import ThroughputMeter
from featx.data.transform import Transform
from featx.errors import ImageError
from featx.layer_spec import View

Item = TypeVar("Item")
Result = TypeVar("Result")

NO_KEY = bytes(16)
"""The key of an image whose bytes could not be read."""

MAX_BYTES = 1 << 30
"""A larger file is no image; it is not read into memory."""

_AT_ONCE = 4
"""Files that a thread is handed at once: threads then cost little beside what they do."""

_TRIES = 3
_TICK, _COARSE_TICK = 10_000_000, 2_000_000_000
"""How long two changes of a file may leave the same time stamp, in ns: on most file systems, and on those of whole seconds."""


@dataclass(frozen=True)
class FileBytes:
    """A file that was read whole, with its size and modification time (ns) at that moment."""

    data: bytes
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class LoadedImage:
    """One image file, read once.

    Attributes:
        row: its number in the caller's list.
        key: hash of its bytes, ``NO_KEY`` where it could not be read.
        pixels: (3, H, W) uint8, or (V, 3, H, W) in several views; None where it failed or nobody needs them.
        error: why it failed, else "".
        size: bytes that were read; -1 where it could not be read.
        mtime_ns: modification time of what was read; -1 where it could not be read.
    """

    row: int
    key: bytes
    pixels: np.ndarray | None
    error: str = ""
    size: int = -1
    mtime_ns: int = -1


class Workers(ThreadPoolExecutor):
    """Threads, and a record of how long they were busy with each stage of the work.

    Left by an exception, they finish what they are at and begin nothing more.

    Args:
        count: of threads.
        meter: keeps the record.
        begin: called in each thread at its start.
    """

    def __init__(
        self, count: int, *, meter: ThroughputMeter | None = None, begin: Callable[[], object] | None = None
    ) -> None:
        super().__init__(count, thread_name_prefix="featx", initializer=begin)
        self.count = count
        self.meter = meter or ThroughputMeter()

    def __exit__(self, *error: object) -> None:
        self.shutdown(cancel_futures=True)

    def start(self, stage: str, work: Callable[..., Result], *args: Any) -> Future[Result]:
        """Have ``work(*args)`` done by one of the threads."""

        def timed() -> Result:
            with self.meter.busy(stage, self.count):
                return work(*args)

        return self.submit(timed)


def read_images(
    files: Iterable[tuple[int, Path]],
    read: Callable[[int, bytes], np.ndarray] | None,
    *,
    workers: int | Workers,
    known: Container[bytes] = (),
) -> Iterator[LoadedImage]:
    """Read and decode files in threads, in order, a bounded number ahead. A bad file never stops the others.

    Args:
        files: (row, path).
        read: from a row and its file's bytes to its pixels; raises ImageError. None: the keys alone are wanted.
        workers: threads, or how many; decoders and the disk let go of the interpreter lock.
        known: keys whose pixels nobody needs; it may grow meanwhile.
    """

    def load_all(some: Sequence[tuple[int, Path]]) -> list[LoadedImage]:
        return [load(row, path) for row, path in some]

    def load(row: int, path: Path) -> LoadedImage:
        try:
            file = read_file(path)
        except ImageError as error:
            return LoadedImage(row, NO_KEY, None, str(error))
        key, pixels, fault = image_key(file.data), None, ""
        if read is not None and key not in known:
            try:
                pixels = read(row, file.data)
            except ImageError as error:
                fault = str(error)
        return LoadedImage(row, key, pixels, fault, file.size, file.mtime_ns)

    with contextlib.ExitStack() as own:
        pool = workers if isinstance(workers, Workers) else own.enter_context(Workers(workers))
        ahead: deque[Future[list[LoadedImage]]] = deque()
        try:
            for some in batched(files, _AT_ONCE):
                ahead.append(pool.start("decode", load_all, some))
                if len(ahead) >= pool.count + 2:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def read_file(path: Path) -> FileBytes:
    """The bytes of an image file, which did not change while they were read.

    A file that has only just been written is left to age by one tick of the file system's clock first, so that its time
    stamp tells the next change from this one.

    Raises:
        ImageError: it cannot be read, is no ordinary file (reading a pipe would wait for ever), or keeps changing.
    """
    try:
        for _ in range(_TRIES):
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                before = os.fstat(handle)
                if not stat.S_ISREG(before.st_mode):
                    raise ImageError("is no ordinary file")
                if before.st_size > MAX_BYTES:
                    raise ImageError(f"has {before.st_size:,} bytes; at most {MAX_BYTES:,} are read")
                _let_age(before.st_mtime_ns)
                with os.fdopen(handle, "rb", closefd=False) as file:
                    # No more than that, however fast it grows; None where reading would wait.
                    data = file.read(before.st_size + 1) or b""
                after = os.fstat(handle)
            finally:
                os.close(handle)
            if len(data) == after.st_size == before.st_size and after.st_mtime_ns == before.st_mtime_ns:
                return FileBytes(data, after.st_size, after.st_mtime_ns)
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    raise ImageError("changes while it is being read")


def views_reader(
    transform: Transform, views: Sequence[View], *, max_pixels: int = MAX_PIXELS
) -> Callable[[int, bytes], np.ndarray]:
    """What ``read_images`` takes, for pixels as the backbone wants them, in V views: (V, 3, H, W)."""
    return lambda _row, data: read_views(data, transform, views, max_pixels=max_pixels)


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items; the last may be shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def default_batch_size(kind: str) -> int:
    """Images per pass of a network that runs on its own: 8 on the CPU, where larger batches only cost memory; 64 elsewhere."""
    return 8 if kind == "cpu" else 64


def _let_age(mtime_ns: int) -> None:
    tick = _TICK if mtime_ns % 1_000_000_000 else _COARSE_TICK
    age = time.time_ns() - mtime_ns
    if 0 <= age < tick:
        time.sleep((tick - age) / 1e9)
