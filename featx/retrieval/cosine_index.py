"""The rows of a feature matrix by cosine, exactly: in memory where they fit; else by FAISS, or block by block."""

from __future__ import annotations

import numpy as np

from featx.heads import nearest
from featx.heads.training_data import Rows
from featx.retrieval import faiss_index

MANY = 200_000
"""Rows above which FAISS holds what does not fit here, where it is installed. What fits is searched faster without it."""


class CosineIndex:
    """Finds the rows with the largest cosine to each of some vectors.

    Args:
        rows: S rows of D standardised features; they are held in memory, at unit length, up to a size.

    Attributes:
        note: for the user, that FAISS would be faster if it were installed; "" otherwise.

    Examples:
        >>> index = CosineIndex(Rows(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])))
        >>> found, cosines = index.search(np.array([[2.0, 0.1]]), 2)
        >>> found.tolist(), cosines.astype(float).round(2).tolist()
        ([[0, 2]], [[1.0, 0.74]])
    """

    def __init__(self, rows: Rows) -> None:
        self._rows, self.note = rows, ""
        self._unit: np.ndarray | None = None
        self._faiss: faiss_index.FaissIndex | None = None
        if rows.fits:
            self._unit = np.empty((len(rows), rows.width), dtype=np.float32)
            for which, block in rows.blocks():
                self._unit[which] = nearest.unit(block)
        elif len(rows) > MANY and faiss_index.is_installed():
            self._faiss = faiss_index.FaissIndex(rows)
        elif len(rows) > MANY:
            self.note = (
                f"{len(rows):,} images of {rows.width:,} features are read again for every few queries; pip install "
                "'featx[faiss]' holds them in memory"
            )

    @property
    def together(self) -> int:
        """The number of queries that are worth searching together."""
        return 8 if self._unit is not None else 64

    def __len__(self) -> int:
        return len(self._rows)

    def search(self, Z: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k rows with the largest cosine to each of q vectors.

        Args:
            Z: (q, D), of any length.
            k: at most S.

        Returns:
            (q, k) int64, the most similar first and equally similar ones in ascending order; and (q, k) float32 cosines.
        """
        queries = nearest.unit(Z)
        if self._faiss:
            return self._faiss.search(queries, k)
        found, cosines = np.empty((len(queries), 0), dtype=np.int64), np.empty((len(queries), 0), dtype=np.float32)
        if self._unit is not None:
            for rows, some, values in nearest.search(queries, self._unit, k):
                if not rows.start:
                    found, cosines = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
                found[rows], cosines[rows] = some, values
            return found, cosines
        for rows, block in self._rows.blocks():
            some, values = nearest.top(queries @ nearest.unit(block).T, min(k, len(block)))
            found = np.concatenate([found, some + rows.start], axis=1)
            cosines = np.concatenate([cosines, values], axis=1)
            best = np.lexsort((found, -cosines))[:, :k]
            found, cosines = np.take_along_axis(found, best, axis=1), np.take_along_axis(cosines, best, axis=1)
        return found, cosines
