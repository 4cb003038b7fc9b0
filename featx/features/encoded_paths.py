"""The paths of many images as an array-like of text that takes a fraction of the memory of as many strings. numpy only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

_BLOCK = 1 << 16
"""Paths that are decoded at once while all are gone through."""


class EncodedPaths:
    """(N,) paths, stored as bytes of a fixed width and decoded when they are read, as ``os.fsdecode`` does.

    It is indexed as an object array of str is, and gives such arrays, as ``numpy.asarray`` does; ``take`` selects without
    decoding.

    Args:
        encoded: (N,) bytes.

    Examples:
        >>> paths = EncodedPaths(np.array([b"a/1.png", b"a/2.png", b"b/3.png"]))
        >>> paths[1], paths[[2, 0]].tolist(), (paths == "b/3.png").tolist()
        ('a/2.png', ['b/3.png', 'a/1.png'], [False, False, True])
    """

    dtype = np.dtype(object)
    ndim = 1
    __hash__ = None  # type: ignore[assignment]  # as an array

    def __init__(self, encoded: np.ndarray) -> None:
        self._encoded = encoded

    def __len__(self) -> int:
        return len(self._encoded)

    @property
    def shape(self) -> tuple[int]:
        """(N,)."""
        return (len(self),)

    @property
    def size(self) -> int:
        """N."""
        return len(self)

    def __getitem__(self, which: Any) -> Any:
        found = self._encoded[which]
        return np.asarray(EncodedPaths(found)) if isinstance(found, np.ndarray) else os.fsdecode(found)

    def take(self, rows: np.ndarray) -> EncodedPaths:
        """Select paths, by number or mask, which stay encoded."""
        return EncodedPaths(self._encoded[rows])

    def __iter__(self) -> Iterator[str]:
        for at in range(0, len(self), _BLOCK):
            yield from map(os.fsdecode, self._encoded[at : at + _BLOCK].tolist())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("encoded paths are decoded into a copy")
        out = np.empty(len(self), dtype=object)
        out[:] = self.tolist()
        return out if dtype in (None, object) else out.astype(dtype)

    def __eq__(self, other: object) -> Any:
        return np.asarray(self) == (np.asarray(other) if isinstance(other, EncodedPaths) else other)

    def __ne__(self, other: object) -> Any:
        return ~(self == other)

    def tolist(self) -> list[str]:
        """All paths."""
        return list(self)

    def copy(self) -> np.ndarray:
        """All paths as an array, which may be changed."""
        return np.asarray(self)

    def astype(self, dtype: Any, copy: bool = True) -> np.ndarray:  # noqa: ARG002 - as of an array
        """All paths as an array."""
        return self.__array__(dtype)
