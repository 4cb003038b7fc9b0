"""Exact search by FAISS's flat index, which is optional. The only module that imports it."""

from __future__ import annotations

import importlib.util

import numpy as np

from featx.heads import nearest
from featx.heads.training_data import Rows

_SPARE = 32
"""Neighbours that are found beyond those that were asked for, among which ties are broken by the row."""


def is_installed() -> bool:
    """Whether FAISS can be imported."""
    return importlib.util.find_spec("faiss") is not None


class FaissIndex:
    """Finds the rows with the largest cosine to each of some vectors, as ``CosineIndex`` does.

    Args:
        rows: S rows of D standardised features, held in memory at unit length.
    """

    def __init__(self, rows: Rows) -> None:
        import faiss

        self._rows = rows
        self._index = faiss.IndexFlatIP(rows.width)
        for _, block in rows.blocks():
            self._index.add(nearest.unit(block))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k rows with the largest cosine to each of (q, D) vectors of unit length.

        Returns:
            (q, k) int64, the most similar first and equally similar ones in ascending order; and (q, k) float32 cosines.
        """
        wanted, count = k, len(self._rows)
        while True:
            wanted = min(wanted + _SPARE, count)
            cosines, found = self._index.search(queries, wanted)
            best = np.lexsort((found, -cosines))[:, :k]
            # Where the last one found is as similar as the k-th, rows with smaller numbers may have been left out.
            tied = cosines[:, -1] >= np.take_along_axis(cosines, best[:, -1:], axis=1)[:, 0]
            if wanted == count or not tied.any():
                return np.take_along_axis(found, best, axis=1), np.take_along_axis(cosines, best, axis=1)
            wanted *= 2
