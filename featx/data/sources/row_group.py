"""The images of one row group of a Parquet file: decoded in order, and unpacked to a temporary file for other orders."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow

from featx.data.sources.row_cells import cells_of, python_values, sizes_of
from featx.data.sources.row_schema import ImageColumn
from featx.data.sources.row_store import Cell

LARGE = 1 << 25
"""From this number of bytes on, a row group that is read in another order than its own is unpacked."""

Batches = Callable[[], Iterator[Any]]
"""Begins to decode a row group, and yields its images in batches of Arrow."""

Learn = Callable[[int, np.ndarray], None]
"""Called with the number of the first row of a batch in the file, and the sizes of its images."""


class RowGroup:
    """The images of a row group, decoded as far as they have been asked for. It is not safe for threads.

    Parquet can be decoded from the beginning of a row group only. So an image that comes before those that are still in memory
    would cost as much as all images before it; from the first such request on, a large row group is read from a copy of its
    images in a temporary file without a name, which the system removes with the process.

    Args:
        batches: begins to decode the row group.
        column: of the images.
        rows: the number of its first row in the file, and of the first one after it.
        size: about the bytes of its images.
        learn: gets the sizes of the images as they are decoded.

    Attributes:
        bytes: of the images that are in memory.
    """

    def __init__(self, batches: Batches, column: ImageColumn, rows: tuple[int, int], size: int, learn: Learn) -> None:
        self._begin, self._column, self._learn = batches, column, learn
        self._start, self._end = rows
        self._is_large = size >= LARGE
        self._unpacked: _Unpacked | None = None
        self.forget()

    def forget(self) -> None:
        """Drop the images that are in memory."""
        self._batches: Iterator[Any] | None = None
        self._cells: dict[int, Cell] = {}
        self._first = self._next = self._start
        self._error: Exception | None = None
        self.bytes = 0

    def read(self, row: int, budget: int) -> Cell:
        """Read the image of one row.

        Args:
            row: its number in the file.
            budget: the most bytes of images to keep in memory; the earliest are dropped.

        Raises:
            OSError: the file is damaged.
            pyarrow.ArrowException: as before.
        """
        if row < self._first and self._unpacked is None and self._is_large:
            self._unpack()
        if self._unpacked is not None:
            return self._unpacked.read(row - self._start)
        if row < self._first:
            self.forget()
        while row >= self._next:
            self._keep_batch(row, budget)
        if not self._is_large:  # it is decoded at once, since a decoder holds the memory of whole pages
            with contextlib.suppress(OSError, pyarrow.ArrowException):  # of a later image
                while self._next < self._end:
                    self._keep_batch(row, budget)
        return self._cells[row]

    def _keep_batch(self, row: int, budget: int) -> None:
        """Decode the next batch, and drop the earliest images, up to a row, that exceed the budget."""
        for number, cell in enumerate(self._decoded(), start=self._next):
            self._cells[number] = cell
            self.bytes += len(cell[0] or b"")
            self._next = number + 1
        if self._next == self._end:
            self._batches = None
        while self.bytes > budget and self._first < min(row, self._next - 1):
            self.bytes -= len(self._cells.pop(self._first)[0] or b"")
            self._first += 1

    def _decoded(self) -> list[Cell]:
        """The images of the next batch."""
        if self._error is not None:
            raise self._error
        self._batches = self._batches or self._begin()
        try:
            batch = next(self._batches, None)
        except Exception as error:
            self._error = error  # the next request would decode all images before the damage again
            raise
        if batch is None:
            self._error = OSError("a row group ends too early")
            raise self._error
        data, paths = cells_of(batch.column(0), self._column)
        self._learn(self._next, sizes_of(data, paths))
        # Copies of the bytes: Arrow's buffers are as large as the page that they were decoded from.
        return list(zip(data.to_pylist(), [None] * len(data) if paths is None else python_values(paths), strict=True))

    def _unpack(self) -> None:
        """Copy all images to a temporary file; where the disk is too small, they are decoded again and again instead."""
        self.forget()
        try:
            unpacked = _Unpacked()
            while self._next < self._end:
                cells = self._decoded()
                for cell in cells:
                    unpacked.add(cell)
                self._next += len(cells)
            self._unpacked = unpacked
        except OSError:
            self._is_large = False
        finally:
            self.forget()


class _Unpacked:
    """The images of a row group in a temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="featx-")  # noqa: SIM115 - it is open as long as the object lives
        self._ends = [0]
        self._without_bytes: dict[int, Cell] = {}

    def add(self, cell: Cell) -> None:
        """Append the next image."""
        if cell[0] is None:
            self._without_bytes[len(self._ends) - 1] = cell
        self._file.write(cell[0] or b"")
        self._ends.append(self._ends[-1] + len(cell[0] or b""))

    def read(self, number: int) -> Cell:
        """Read an image by its number."""
        self._file.flush()
        begin, end = self._ends[number : number + 2]
        data = os.pread(self._file.fileno(), end - begin, begin)
        return self._without_bytes.get(number) or (data, None)
