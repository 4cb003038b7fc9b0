"""The features of several backbones side by side as one array-like, which is read by rows. numpy only.

N is the number of images, D the width of all features together, V the number of views of each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from featx.features.stacked_rows import BLOCK_BYTES, StackedRows, is_dense, release_pages

_SCATTERED = 128  # rows gathered at a time, as StackedRows does


class SideBySide(StackedRows):
    """Rows of several feature matrices, joined column by column when they are read, as ``StackedRows`` joins row by row.

    Args:
        blocks: for each backbone its features, (M, d) or (M, V, d), an array or ``StackedRows``; and (N,) int64, which of
            their rows are the rows of all.
        flat: whether the views of an image are rows of their own, one after the other.

    Attributes:
        dtype: the widest of all.
        shape: (N, D), or (N, V, D) for V > 1 views.

    Examples:
        >>> first, second = np.zeros((2, 1), np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
        >>> rows = SideBySide([(first, np.array([0, 1])), (second, np.array([2, 0]))])
        >>> rows.shape, rows[0].tolist(), rows[[1]].tolist()
        ((2, 3), [0.0, 4.0, 5.0], [[0.0, 0.0, 1.0]])
    """

    def __init__(self, blocks: Sequence[tuple[Any, np.ndarray]], *, flat: bool = False) -> None:
        self._blocks = list(blocks)
        first, index = self._blocks[0]
        self._views = 1 if first.ndim == 2 else int(first.shape[1])
        self.dtype: np.dtype[Any] = np.result_type(*[features.dtype for features, _ in self._blocks])
        width = sum(int(features.shape[-1]) for features, _ in self._blocks)
        self._flat = flat and self._views > 1
        if self._flat:
            self.shape: tuple[int, ...] = (len(index) * self._views, width)
        else:
            self.shape = (len(index), width) if first.ndim == 2 else (len(index), self._views, width)

    def take(self, rows: np.ndarray) -> SideBySide:
        """Select rows, by (n,) int64 or a mask, without reading them."""
        if self._flat:
            raise IndexError("views that are rows of their own cannot be selected; select images first")
        return SideBySide([(features, index[rows]) for features, index in self._blocks])

    @property
    def count(self) -> int:
        """The number of matrices side by side."""
        return len(self._blocks)

    def some(self, numbers: Sequence[int]) -> SideBySide:
        """Some of the matrices side by side, without reading them."""
        return SideBySide([self._blocks[number] for number in numbers])

    def view(self, number: int) -> SideBySide:
        """The features of one view of each image, (N, D), without reading them."""
        return SideBySide([(_view_of(features, number), index) for features, index in self._blocks])

    def reshape(self, *shape: int) -> SideBySide:
        """With the views of each image as rows of their own: ``reshape(-1, D)``; no other shape is possible.

        Raises:
            ValueError: another shape is asked for.
        """
        if shape not in ((-1, self.shape[-1]), self.shape):
            raise ValueError(f"features in several files of shape {self.shape} cannot take the shape {shape}")
        return self if shape == self.shape else SideBySide(self._blocks, flat=True)

    def forget(self) -> None:
        """Release the pages of the files that were read, which count as memory of the process."""
        for features, _ in self._blocks:
            release_pages(features)

    def _read(self, rows: np.ndarray, *, consecutive: bool = False) -> np.ndarray:  # noqa: ARG002 - of the other layout
        """The features of (n,) rows from 0 to N - 1, as an array."""
        if self._flat:
            images, inverse = np.unique(rows // self._views, return_inverse=True)
            found = SideBySide(self._blocks)._read(images)
            return cast(np.ndarray, found[inverse, rows % self._views])
        out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        at = 0
        for features, index in self._blocks:
            width = int(features.shape[-1])
            _gather(features, index[rows], out[..., at : at + width])
            at += width
        return out


def _gather(features: Any, rows: np.ndarray, out: np.ndarray) -> None:
    """Copy some rows of features into an array; scattered ones of a file a few at a time, whose pages are released."""
    if not len(rows):
        return
    if (np.diff(rows) == 1).all():
        out[:] = features[int(rows[0]) : int(rows[-1]) + 1]
        return
    step = max(1, BLOCK_BYTES // max(1, out[:1].nbytes)) if is_dense(rows) else _SCATTERED
    for at in range(0, len(rows), step):
        out[at : at + step] = features[rows[at : at + step]]
        if len(rows) > step:
            release_pages(features)


def _view_of(features: Any, number: int) -> Any:
    """One view of features: (M, d) of (M, V, d)."""
    if features.ndim == 2:
        return features
    return features.view(number) if isinstance(features, StackedRows) else features[:, number]
