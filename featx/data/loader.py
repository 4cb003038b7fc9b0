"""Load image files in threads, in order, a bounded number ahead. Extraction, promotion and prediction use it.

Files of this machine are read by the threads that decode them. Images of servers are read ahead by threads of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from featx.data.decode import MAX_PIXELS
from featx.data.file_bytes import NO_KEY, FileBytes, read_file
from featx.data.joint_pixels import read_all_views
from featx.data.joint_transform import AnyTransform
from featx.data.read_ahead import FetchedImage, ReadAhead
from featx.data.store import ImageFile
from featx.data.throughput import ThroughputMeter
from featx.errors import ImageError, MachineError
from featx.layer_spec import View

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGE_FILE = 1 << 26
"""Of files of this size or more, one at a time is in memory, however many threads read."""

_large_file = threading.RLock()

_AT_ONCE = 4
"""Files per task of a thread, so that handing out tasks costs little."""


@dataclass(frozen=True)
class LoadedImage:
    """One image file, read once.

    Attributes:
        row: its number in the caller's list.
        key: the hash of its bytes; ``NO_KEY`` if it could not be read, or if this machine could not decode it.
        pixels: (3, H, W) uint8, or (V, 3, H, W) for several views, or (V, L) for several networks side by side; None if it
            failed or its pixels are not needed.
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


Readable = ImageFile | Path | Callable[[], bytes]
"""An image of a store, the path of an image file, or a function that returns the bytes of one or raises ImageError."""

_Source = Readable | FetchedImage

PixelReader = Callable[[int, FileBytes], np.ndarray]
"""Turns a row and the bytes of its file into pixels, or raises ImageError."""


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
    files: Iterable[tuple[int, Readable]],
    read: PixelReader | None,
    *,
    workers: int | Workers,
    known: Container[bytes] = (),
) -> Iterator[LoadedImage]:
    """Read and decode files in threads, in order, a bounded number ahead. A bad file does not stop the others.

    Images of stores with a ``concurrency`` are read ahead in so many threads besides, bounded in number and in bytes.

    Args:
        files: (row, image of a store, path, or function that returns the bytes of an image file or raises ImageError).
        read: turns a row and its file's bytes into pixels, or raises ImageError. None: only the keys are needed.
        workers: a pool of threads, or their number; decoding and reading release the interpreter lock.
        known: keys whose pixels are not needed; it may grow meanwhile.
    """
    meter = workers.meter if isinstance(workers, Workers) else ThroughputMeter()
    items = ReadAhead(LARGE_FILE).items(files, lambda: meter.busy("read"))
    with contextlib.closing(items):
        yield from _in_order(_grouped(items), lambda item: _load(*item, read, known), workers=workers)


def _grouped(items: Iterable[tuple[int, _Source]]) -> Iterator[list[tuple[int, _Source]]]:
    """Yield lists of items, each of them a task; an image that was read ahead ends its list, so that it is decoded at once."""
    group: list[tuple[int, _Source]] = []
    for item in items:
        group.append(item)
        if len(group) == _AT_ONCE or isinstance(item[1], FetchedImage):
            yield group
            group = []
    if group:
        yield group


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
    yield from _in_order(batched(items, _AT_ONCE), work, workers=workers, stage=stage)


def _in_order(
    groups: Iterable[Sequence[Item]],
    work: Callable[[Item], Result],
    *,
    workers: int | Workers,
    stage: str = "decode",
) -> Iterator[Result]:
    """As ``in_order``, of items in groups, each of which is one task of a thread."""

    def work_on(some: Sequence[Item]) -> list[Result]:
        return [work(item) for item in some]

    with contextlib.ExitStack() as own:
        pool = workers if isinstance(workers, Workers) else own.enter_context(Workers(workers))
        ahead: deque[Future[list[Result]]] = deque()
        try:
            waiting = deque[int]()
            for some in groups:
                ahead.append(pool.start(stage, work_on, some))
                waiting.append(len(some))
                if sum(waiting) >= _AT_ONCE * (pool.count + 2):
                    waiting.popleft()
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _read(source: _Source, admit: Callable[[int], None], held: contextlib.ExitStack) -> FileBytes:
    if isinstance(source, FetchedImage):
        return held.enter_context(source.read(admit))
    return read_source(source, admit)


def read_source(source: Readable, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
    """Read the bytes of an image.

    Args:
        source: the image.
        admit: called with its size in bytes before a file is read into memory; it may wait.

    Raises:
        ImageError: it is missing or cannot be read.
    """
    if isinstance(source, ImageFile):
        return source.read(admit)
    if isinstance(source, Path):
        return read_file(source, admit)
    data = source()  # from no file: the bytes have a size, but no modification time
    return FileBytes(data, len(data), -1)


def _load(
    row: int,
    source: _Source,
    read: PixelReader | None,
    known: Container[bytes],
) -> LoadedImage:
    with contextlib.ExitStack() as turns:
        try:
            file = _read(source, lambda size: wait_for_large_files(size, turns), turns)
        except ImageError as error:
            return LoadedImage(row, NO_KEY, None, str(error))
        key, pixels, fault = file.key, None, ""
        if read is not None and key not in known:
            try:
                pixels = read(row, file)
            except ImageError as error:
                fault = str(error)
                key = NO_KEY if isinstance(error, MachineError) else key
        return LoadedImage(row, key, pixels, fault, file.size, file.mtime_ns, file.marks)


def wait_for_large_files(size: int, turns: contextlib.ExitStack) -> None:
    """Wait until no other thread has a large file in memory; the turn ends with the stack."""
    if size >= LARGE_FILE:
        turns.enter_context(_large_file)


def views_reader(transform: AnyTransform, views: Sequence[View], *, max_pixels: int = MAX_PIXELS) -> PixelReader:
    """A reader for ``read_images`` that gives the transformed pixels of V views: (V, *transform.shape) uint8."""
    return lambda _row, file: read_all_views(file.data, transform, views, max_pixels=max_pixels, box=file.box)


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of ``size`` items; the last one may be shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def default_batch_size(kind: str) -> int:
    """Images per forward pass by type of device: 8 on the CPU, where larger batches only cost memory; 64 elsewhere."""
    return 8 if kind == "cpu" else 64
