"""The features of several files as one array-like, which stays in the files and is read by rows. numpy only.

N is the number of rows, D the width of the features, V the number of views of each image.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from featx.identity import joint_features

BLOCK_BYTES = 32 << 20
"""Bytes of features that are read at once by default."""

_SCATTERED = 128  # rows gathered at a time: each may bring some MB of a mapped file into the memory of the process

Part = Sequence[Sequence[np.ndarray]]
"""The features of one file: for each view, the (M, d) features of each of the layers that are put side by side."""


class StackedRows:
    """Rows of the features of several files, one file after the other, memory-mapped.

    It is read as an array is: ``rows[5]``, ``rows[100:200]``, ``rows[[7, 3, 7]]`` and ``rows[mask]`` are arrays, read at that
    moment; ``len``, ``shape``, ``dtype`` and ``ndim`` cost nothing. ``numpy.asarray(rows)`` reads all. Pages of the files that
    were read count as memory of the process until ``forget`` releases them; indexing with an array does so itself.

    Args:
        parts: the features of each file. All have the same layers, views and dtype.
        index: (N,) int64, which rows of all, in their order; all by default.
        flat: whether the views of an image are rows of their own, one after the other.

    Attributes:
        dtype: float32 or float16.
        shape: (N, D), or (N, V, D) for V > 1 views.

    Examples:
        >>> first, second = np.zeros((2, 3), np.float32), np.ones((3, 3), np.float32)
        >>> rows = StackedRows([[[first]], [[second]]])
        >>> rows.shape, rows[1:3].tolist(), rows[[4, 0]].sum(axis=1).tolist()
        ((5, 3), [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], [3.0, 0.0])
    """

    def __init__(self, parts: Sequence[Part], index: np.ndarray | None = None, *, flat: bool = False) -> None:
        self._parts, self._index = parts, index
        self._ends = np.cumsum([len(part[0][0]) for part in parts])
        self._views = len(parts[0])
        width = sum(layer.shape[1] for layer in parts[0][0])
        self.dtype: np.dtype[Any] = parts[0][0][0].dtype
        images = int(self._ends[-1]) if index is None else len(index)
        self._flat = flat and self._views > 1
        if self._flat:
            self.shape: tuple[int, ...] = (images * self._views, width)
        else:
            self.shape = (images, width) if self._views == 1 else (images, self._views, width)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """2, or 3 for several views."""
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.itemsize

    def __getitem__(self, which: Any) -> np.ndarray:
        """Read rows; a tuple indexes the array of those rows further.

        Raises:
            IndexError: there is no such row, or a mask has another length.
        """
        if isinstance(which, tuple):
            rows, further = which[0], which[1:]
            if isinstance(rows, slice | np.ndarray | list):
                return self[rows][(slice(None), *further)]
            return self[rows][further]
        if isinstance(which, slice):
            first, last, step = which.indices(len(self))
            return self._read(np.arange(first, last, step), consecutive=step == 1)
        rows = np.asarray(which)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise IndexError(
                    f"a mask of shape {rows.shape} selects rows of {len(self):,}; expected one value for each"
                )
            rows = np.flatnonzero(rows)
        rows = rows.astype(np.int64, casting="same_kind") if rows.size else rows.astype(np.int64)
        rows = np.where(rows < 0, rows + len(self), rows)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"a row is outside 0 to {len(self) - 1:,}")
        if rows.ndim != 1:
            found = self._read(rows.ravel())
            return found.reshape(*rows.shape, *self.shape[1:])
        return self._read(rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks():
            yield from block

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("the features lie in several files; an array of them is a copy")
        out = np.empty(self.shape, dtype=dtype or self.dtype)
        at = 0
        for block in self.blocks():
            out[at : at + len(block)] = block
            at += len(block)
        return out

    def blocks(self, most: int = BLOCK_BYTES) -> Iterator[np.ndarray]:
        """All rows in their order, in blocks of at most ``most`` bytes; pages that were read are released."""
        step = max(1, most // max(1, self.nbytes // max(1, len(self))))
        for at in range(0, len(self), step):
            yield self[at : at + step]
            self.forget()

    def take(self, rows: np.ndarray) -> StackedRows:
        """Select rows, by (n,) int64 or a mask, without reading them."""
        if self._flat:
            raise IndexError("views that are rows of their own cannot be selected; select images first")
        chosen = np.arange(len(self)) if self._index is None else self._index
        return StackedRows(self._parts, chosen[rows])

    def view(self, number: int) -> StackedRows:
        """The features of one view of each image, (N, D), without reading them."""
        return StackedRows([[part[number]] for part in self._parts], self._index)

    def reshape(self, *shape: int) -> StackedRows:
        """With the views of each image as rows of their own: ``reshape(-1, D)``; no other shape is possible.

        Raises:
            ValueError: another shape is asked for.
        """
        if shape not in ((-1, self.shape[-1]), self.shape):
            raise ValueError(f"features in several files of shape {self.shape} cannot take the shape {shape}")
        return self if shape == self.shape else StackedRows(self._parts, self._index, flat=True)

    def astype(self, dtype: Any, copy: bool = True) -> np.ndarray:  # noqa: ARG002 - as of an array
        """All rows, read into memory as another dtype."""
        return self.__array__(dtype)

    def forget(self) -> None:
        """Release the pages of the files that were read, which count as memory of the process."""
        for part in self._parts:
            for layers in part:
                for layer in layers:
                    release_pages(layer)

    def _read(self, rows: np.ndarray, *, consecutive: bool = False) -> np.ndarray:
        """The features of (n,) rows from 0 to N - 1, as an array."""
        if self._flat:
            return self._read_flat(rows)
        raw = rows if self._index is None else self._index[rows]
        if len(raw) and (consecutive or raw[-1] - raw[0] == len(raw) - 1) and (np.diff(raw) == 1).all():
            first, last = int(raw[0]), int(raw[-1]) + 1
            part = int(np.searchsorted(self._ends, first, side="right"))
            if last <= self._ends[part]:
                start = self._start(part)
                return self._joined(part, slice(first - start, last - start))
        out = np.empty((len(raw), *self.shape[1:]), dtype=self.dtype)
        of_part = np.searchsorted(self._ends, raw, side="right")
        for part in np.unique(of_part).tolist():
            mine, start = np.flatnonzero(of_part == part), self._start(part)
            step = max(1, BLOCK_BYTES // (out.nbytes // len(out) or 1)) if is_dense(raw[mine]) else _SCATTERED
            for at in range(0, len(mine), step):
                some = mine[at : at + step]
                out[some] = self._joined(part, raw[some] - start)
                if len(mine) > step:
                    self._forget_part(part)
        return out

    def _read_flat(self, rows: np.ndarray) -> np.ndarray:
        """The features of views: row r is view r mod V of image r // V."""
        images, inverse = np.unique(rows // self._views, return_inverse=True)
        found = StackedRows(self._parts, self._index)._read(images)
        out: np.ndarray = found[inverse, rows % self._views]
        return out

    def _joined(self, part: int, rows: slice | np.ndarray) -> np.ndarray:
        """The features of rows of one file; a slice of a single layer is not copied."""
        views = self._parts[part]
        if len(views) == len(views[0]) == 1:
            return views[0][0][rows]
        return joint_features([[layer[rows] for layer in layers] for layers in views])

    def _start(self, part: int) -> int:
        return int(self._ends[part - 1]) if part else 0

    def _forget_part(self, part: int) -> None:
        for layers in self._parts[part]:
            for layer in layers:
                release_pages(layer)


def release_pages(features: np.ndarray | StackedRows) -> None:
    """Release the pages of mapped features that were read, which count as memory of the process.

    Args:
        features: any features; those in memory stay as they are.
    """
    if isinstance(features, StackedRows):
        features.forget()
        return
    mapped = getattr(features, "_mmap", None)
    if getattr(features, "mode", "r") != "r":  # changes in memory would be lost
        return
    if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


def select(features: np.ndarray, rows: np.ndarray, most: int) -> np.ndarray:
    """Select rows of features. Of features in several files, rows that exceed ``most`` bytes are not read.

    Args:
        features: (N, D) or (N, V, D), an array or ``StackedRows``.
        rows: numbers or a mask.
        most: bytes.
    """
    if isinstance(features, StackedRows):
        chosen = features.take(rows)
        return cast(np.ndarray, chosen) if chosen.nbytes > most else np.asarray(chosen)
    found: np.ndarray = features[rows]
    return found


def is_dense(rows: np.ndarray) -> bool:
    """Whether rows lie near one another, so that reading them does not touch many more pages."""
    return len(rows) > 0 and int(np.ptp(rows)) < 2 * len(rows)
