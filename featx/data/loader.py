"""Load image files in threads, in order, a bounded number ahead. Extraction, promotion and prediction use it."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import threading
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
from featx.errors import ImageError, MachineError
from featx.layer_spec import View

Item = TypeVar("Item")
Result = TypeVar("Result")

NO_KEY = bytes(16)
"""The key of an image that could not be read, or not be decoded for a reason that lies in the machine. Such an image has no
lasting failure: the next run tries it again."""

MAX_BYTES = 1 << 30
"""Larger files are not read into memory."""

LARGE_FILE = 1 << 26
"""Of files of this size or more, one at a time is in memory, however many threads read."""

_large_file = threading.RLock()

_AT_ONCE = 4
"""Files per task of a thread, so that handing out tasks costs little."""

_TRIES = 3

_HAS_CHANGE_TIME = os.name != "nt"
_LARGEST = (1 << 63) - 1
"""The largest int64, to which inode numbers are cut."""

_TICK, _COARSE_TICK = 10_000_000, 2_000_000_000
"""Nanoseconds within which two changes of a file may get one time stamp: usually, and on file systems of whole seconds."""


@dataclass(frozen=True)
class FileBytes:
    """The bytes of a whole file, with its size and modification time (ns) when it was read, and its ``file_marks``."""

    data: bytes
    size: int
    mtime_ns: int
    marks: tuple[int, int] = (-1, 0)


@dataclass(frozen=True)
class LoadedImage:
    """One image file, read once.

    Attributes:
        row: its number in the caller's list.
        key: the hash of its bytes; ``NO_KEY`` if it could not be read, or if this machine could not decode it.
        pixels: (3, H, W) uint8, or (V, 3, H, W) for several views; None if it failed or its pixels are not needed.
        error: why it failed, else "".
        size: the number of bytes; -1 if it could not be read.
        mtime_ns: the modification time of the bytes; -1 if it could not be read.
        marks: the ``file_marks`` of the file.
    """

    row: int
    key: bytes
    pixels: np.ndarray | None
    error: str = ""
    size: int = -1
    mtime_ns: int = -1
    marks: tuple[int, int] = (-1, 0)


class Workers(ThreadPoolExecutor):
    """A pool of threads that measures how long they are busy with each stage of the work.

    If an exception leaves the ``with`` block, running tasks finish and waiting ones are cancelled.

    Args:
        count: the number of threads.
        meter: collects the times.
        begin: called in each thread when it starts.
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
        """Run ``work(*args)`` in one of the threads, timed as work of a stage."""

        def timed() -> Result:
            with self.meter.busy(stage, self.count):
                return work(*args)

        return self.submit(timed)


def read_images(
    files: Iterable[tuple[int, Path | Callable[[], bytes]]],
    read: Callable[[int, bytes], np.ndarray] | None,
    *,
    workers: int | Workers,
    known: Container[bytes] = (),
) -> Iterator[LoadedImage]:
    """Read and decode files in threads, in order, a bounded number ahead. A bad file does not stop the others.

    Args:
        files: (row, path); or (row, function that returns the bytes of an image file or raises ImageError).
        read: turns a row and its file's bytes into pixels, or raises ImageError. None: only the keys are needed.
        workers: a pool of threads, or their number; decoding and reading release the interpreter lock.
        known: keys whose pixels are not needed; it may grow meanwhile.
    """
    yield from in_order(files, lambda item: _load(*item, read, known), workers=workers)


def in_order(
    items: Iterable[Item], work: Callable[[Item], Result], *, workers: int | Workers, stage: str = "decode"
) -> Iterator[Result]:
    """Yield what ``work`` makes of each item, in order; threads work a bounded number ahead.

    Args:
        items: read as they are needed.
        work: called in the threads.
        workers: a pool of threads, or their number.
        stage: of the meter of the pool.
    """

    def work_on(some: Sequence[Item]) -> list[Result]:
        return [work(item) for item in some]

    with contextlib.ExitStack() as own:
        pool = workers if isinstance(workers, Workers) else own.enter_context(Workers(workers))
        ahead: deque[Future[list[Result]]] = deque()
        try:
            for some in batched(items, _AT_ONCE):
                ahead.append(pool.start(stage, work_on, some))
                if len(ahead) >= pool.count + 2:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _in_memory(data: bytes) -> FileBytes:
    """Bytes that come from no file: they have a size, but no modification time."""
    return FileBytes(data, len(data), -1)


def _load(
    row: int,
    source: Path | Callable[[], bytes],
    read: Callable[[int, bytes], np.ndarray] | None,
    known: Container[bytes],
) -> LoadedImage:
    with contextlib.ExitStack() as turns:
        try:
            if isinstance(source, Path):
                file = read_file(source, lambda size: wait_for_large_files(size, turns))
            else:
                file = _in_memory(source())
        except ImageError as error:
            return LoadedImage(row, NO_KEY, None, str(error))
        key, pixels, fault = image_key(file.data), None, ""
        if read is not None and key not in known:
            try:
                pixels = read(row, file.data)
            except ImageError as error:
                fault = str(error)
                key = NO_KEY if isinstance(error, MachineError) else key
        return LoadedImage(row, key, pixels, fault, file.size, file.mtime_ns, file.marks)


def wait_for_large_files(size: int, turns: contextlib.ExitStack) -> None:
    """Wait until no other thread has a large file in memory; the turn ends with the stack."""
    if size >= LARGE_FILE:
        turns.enter_context(_large_file)


def read_file(path: Path, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
    """Read an image file that does not change meanwhile.

    If the file has only just been written, renamed or given another time, wait for one tick of the file system's clock first,
    so that the next change gets a different time stamp.

    Args:
        path: of the file.
        admit: called with the size in bytes before the file is read into memory; it may wait.

    Raises:
        ImageError: it cannot be read, is not a regular file (reading a pipe would block), or keeps changing.
    """
    try:
        for _ in range(_TRIES):
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                before = os.fstat(handle)
                if not stat.S_ISREG(before.st_mode):
                    raise ImageError("is not a regular file")
                if before.st_size > MAX_BYTES:
                    raise ImageError(f"has {before.st_size:,} bytes; at most {MAX_BYTES:,} are read")
                admit(before.st_size)
                _let_age(before.st_mtime_ns)
                _let_age_since_change(before.st_ctime_ns)
                with os.fdopen(handle, "rb", closefd=False) as file:
                    # At most one byte more, however fast the file grows; None if reading would block.
                    data = file.read(before.st_size + 1) or b""
                after = os.fstat(handle)
            finally:
                os.close(handle)
            if len(data) == after.st_size == before.st_size and after.st_mtime_ns == before.st_mtime_ns:
                return FileBytes(data, after.st_size, after.st_mtime_ns, file_marks(before))
    except MemoryError as error:
        raise MachineError("cannot be read on this machine: there is too little memory") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    raise ImageError("changes while it is being read")


def file_marks(found: os.stat_result) -> tuple[int, int]:
    """The change time in ns and the inode number, which tell swapped files of equal size and modification time apart.

    Returns:
        Two int64; the time is 0 on Windows, where ``st_ctime`` is the time of creation.
    """
    return found.st_ctime_ns if _HAS_CHANGE_TIME else 0, found.st_ino & _LARGEST


def views_reader(
    transform: Transform, views: Sequence[View], *, max_pixels: int = MAX_PIXELS
) -> Callable[[int, bytes], np.ndarray]:
    """A reader for ``read_images`` that gives the transformed pixels of V views: (V, 3, H, W) uint8."""
    return lambda _row, data: read_views(data, transform, views, max_pixels=max_pixels)


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of ``size`` items; the last one may be shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def default_batch_size(kind: str) -> int:
    """Images per forward pass by type of device: 8 on the CPU, where larger batches only cost memory; 64 elsewhere."""
    return 8 if kind == "cpu" else 64


def _let_age(mtime_ns: int) -> None:
    """Wait until a second edit of a file would get another modification time."""
    _wait_for_tick(mtime_ns)


def _let_age_since_change(ctime_ns: int) -> None:
    """Wait until a second change of a file, of whatever kind, would get another change time."""
    if _HAS_CHANGE_TIME:
        _wait_for_tick(ctime_ns)


def _wait_for_tick(stamp_ns: int) -> None:
    tick = _TICK if stamp_ns % 1_000_000_000 else _COARSE_TICK
    age = time.time_ns() - stamp_ns
    if 0 <= age < tick:
        time.sleep((tick - age) / 1e9)
