"""The rows that a head was fitted to, in the coordinates in which they vary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from featx.heads.training_data import FEW_IMAGES, MOST_IN_MEMORY, TrainingData

_BLOCK_BYTES = 32 << 20


class Design:
    """The standardised rows of all views, in r coordinates and with a column of ones for the intercept.

    With fewer rows than features, the coordinates are along the directions in which the rows vary; otherwise they are the
    features.

    Args:
        training: of n images.

    Attributes:
        different: the number of images, copies of one counted once.
        different_without: (n,) int64, that number without each.
    """

    def __init__(self, training: TrainingData) -> None:
        self._rows, self.views, self.images = training.rows, training.views, len(training)
        self.different = training.different
        self.different_without = self.different - _is_alone(training)
        self.basis: np.ndarray | None = None  # (D, r), orthonormal
        self._kept: np.ndarray | None = None
        if len(self._rows) < self._rows.width and self._rows.fits:
            Z = self._rows.whole(np.float64)
            values, vectors = np.linalg.eigh(Z @ Z.T)
            kept = values > np.finfo(np.float64).eps * len(Z) * values.max(initial=0.0)
            root = np.sqrt(values[kept])
            self.basis, self._kept = Z.T @ (vectors[:, kept] / root), _with_ones(vectors[:, kept] * root)
        elif self._rows.fits:
            dtype = np.float64 if 8 * len(self) * self.width <= MOST_IN_MEMORY else np.float32
            self._kept = _with_ones(self._rows.whole(dtype))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def squared_scale(self) -> np.ndarray:
        """(D,), the squares of what the features are divided by."""
        return np.square(self._rows.scale)

    @property
    def side(self) -> int:
        """The number of coordinates with the one of the intercept, r + 1."""
        return (self._rows.width if self.basis is None else self.basis.shape[1]) + 1

    @property
    def width(self) -> int:
        """The number of features, D."""
        return self._rows.width

    def blocks(self, copies: int = 1) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Iterate over the rows in blocks of whole images.

        Args:
            copies: how many arrays of the size of a block, in float64, the caller makes of each.

        Yields:
            The images of the block, its rows, and their (b, r + 1) float64 coordinates, which are not to be changed.
        """
        step = max(1, _BLOCK_BYTES // (8 * self.side * copies * self.views))
        for at in range(0, self.images, step):
            images = slice(at, min(at + step, self.images))
            rows = slice(images.start * self.views, images.stop * self.views)
            if self._kept is None:
                yield images, rows, _with_ones(self._rows.block(rows, np.float64, forget=True))
            else:
                yield images, rows, self._kept[rows].astype(np.float64, copy=False)

    def features(self, rows: slice) -> np.ndarray:
        """The standardised features of some rows, (b, D) float64."""
        return self._rows.block(rows, np.float64)

    def inside(self, weight: np.ndarray) -> np.ndarray:
        """The coordinates of (k, D) vectors: (k, r)."""
        return weight if self.basis is None else weight @ self.basis

    def outside(self, coordinates: np.ndarray) -> np.ndarray:
        """The (k, D) vectors of (k, r) coordinates."""
        return coordinates if self.basis is None else coordinates @ self.basis.T


def _with_ones(rows: np.ndarray) -> np.ndarray:
    """(N, r + 1), the rows with a column of ones."""
    return np.concatenate([rows, np.ones((len(rows), 1), rows.dtype)], axis=1)


def _is_alone(training: TrainingData) -> np.ndarray:
    """Mark the images that have no copy: (n,) bool; of many images, for which it does not matter, all."""
    if training.keys is None or training.different >= FEW_IMAGES:
        return np.ones(len(training), dtype=bool)
    _, number, copies = np.unique(training.keys, axis=0, return_inverse=True, return_counts=True)
    alone: np.ndarray = (copies[number.ravel()] == 1) | ~training.keys.any(axis=1)
    return alone
