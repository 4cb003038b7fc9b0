"""Matrices of rows that a solver multiplies by, block by block on all cores: in memory, in a file, or rotated. numpy only.

Both products of an iteration, the rows by the weights and the residuals by the rows, are computed in one sweep over the rows,
so that a block is still in the processor's cache when it is used again. N rows, D features, M columns of weights.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar

import numpy as np
import scipy.linalg
from threadpoolctl import ThreadpoolController

from featx.heads.training_data import Rows
from featx.system import cores

T = TypeVar("T")
Span = tuple[slice, "np.ndarray | None"]
"""A range of rows, and the (M, D) weights by which to multiply them, or None."""
BlockFunction = Callable[[slice, "np.ndarray | None"], np.ndarray]
"""Maps a block of rows, given by its range and its (M, n) scores, to the (m, n) factors of the rows in the sum."""

_BLOCK = 3 << 18
"""Elements of a block of rows and its scores that one core processes at once, so that they stay in its cache."""
_MIN_SHARES = 32
"""The least number of parts that are summed in parallel. It does not depend on the cores, nor do the rounding errors then."""
_THIN = 64
"""Number of columns below which blocks may have few rows."""
_MIN_ROWS = 512
"""The least rows of a block with ``_THIN`` or more columns, because the products of each block are added to a large sum."""
_SMALL = 2_000_000  # elements; a smaller matrix is float64 throughout, which costs little
_MAX_ROTATED = 8192  # the eigenvectors of a larger Gram matrix take longer than they save


@cache
def _pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001 - threads do not survive a fork, so each process has its own
    return ThreadPoolExecutor(cores())


@cache
def _controller() -> ThreadpoolController:
    """The controller of the loaded BLAS libraries. Finding them takes longer than a small product, so it is cached."""
    return ThreadpoolController()


def parallel_map(function: Callable[[Any], T], parts: Sequence[Any]) -> list[T]:
    """Apply a function to each part on all cores, one BLAS thread per core, and return the results in order.

    A single part is processed by the calling thread, with all BLAS threads.

    Examples:
        >>> parallel_map(len, ["a", "bc", "def"])
        [1, 2, 3]
    """
    if len(parts) == 1:
        return [function(parts[0])]
    with _controller().limit(limits=1, user_api="blas"):
        return list(_pool(os.getpid()).map(function, parts))


class Matrix(Protocol):
    """An (N, D) matrix that can be multiplied from both sides.

    Attributes:
        dtype: of the products.
    """

    dtype: Any

    def __len__(self) -> int: ...

    def sweep(self, spans: Sequence[Span], process: BlockFunction, *, squared: bool = False) -> list[np.ndarray]:
        """Go over the rows once, in blocks that are processed in parallel.

        Args:
            spans: ranges of rows, and the weights by which to multiply each.
            process: is called with each block; no block crosses the end of a span.
            squared: whether to sum the squares of the rows' elements.

        Returns:
            For each span (m, D): the sum of its rows, multiplied by the factors that ``process`` returns.
        """
        ...


class _BlockMatrix:
    """A matrix that is read in blocks."""

    dtype: Any
    width: int
    most = _BLOCK

    def __len__(self) -> int:
        raise NotImplementedError

    def _block(self, rows: slice) -> np.ndarray:
        raise NotImplementedError

    def sweep(self, spans: Sequence[Span], process: BlockFunction, *, squared: bool = False) -> list[np.ndarray]:
        """Go over the rows once; see ``Matrix.sweep``."""
        blocks = [self._blocks(rows, 0 if V is None else len(V)) for rows, V in spans]
        together = -(-sum(map(len, blocks)) // max(_MIN_SHARES, 2 * cores()))
        shares = [
            (span, blocks[span][at : at + together])
            for span in range(len(spans))
            for at in range(0, len(blocks[span]), together)
        ]

        def share_sum(share: tuple[int, list[slice]]) -> np.ndarray:
            V = spans[share[0]][1]
            total: np.ndarray | None = None
            for rows in share[1]:
                Z = self._block(rows)
                part = process(rows, None if V is None else V @ Z.T) @ (Z * Z if squared else Z)
                total = part if total is None else np.add(total, part, out=total)
            assert total is not None
            return total

        sums: list[np.ndarray | None] = [None] * len(spans)
        for (span, _), part in zip(shares, parallel_map(share_sum, shares), strict=True):
            so_far = sums[span]
            sums[span] = part if so_far is None else np.add(so_far, part, out=so_far)
        return [np.zeros((0, self.width), self.dtype) if part is None else part for part in sums]

    def _blocks(self, rows: slice, columns: int) -> list[slice]:
        least = 64 if columns < _THIN else _MIN_ROWS
        count = -(-(rows.stop - rows.start) // max(least, self.most // (self.width + 2 * columns)))
        ends = np.linspace(rows.start, rows.stop, count + 1).astype(int).tolist()
        return [slice(at, end) for at, end in itertools.pairwise(ends)]


class DenseMatrix(_BlockMatrix):
    """A matrix in memory.

    Args:
        Z: (N, D) float32 or float64.
        dtype: of the products; by default that of ``Z``. Another dtype is converted block by block, without a copy of ``Z``.

    Examples:
        >>> matrix = DenseMatrix(np.array([[1.0, 2.0], [3.0, 4.0]]))
        >>> matrix.sweep([(slice(0, 2), np.array([[1.0, 1.0]]))], lambda rows, scores: scores)  # Z' (Z v)
        [array([[24., 34.]])]
    """

    def __init__(self, Z: np.ndarray, dtype: Any = None) -> None:
        self.Z, self.width, self.dtype = Z, Z.shape[1], np.dtype(dtype or Z.dtype)

    def __len__(self) -> int:
        return len(self.Z)

    def _block(self, rows: slice) -> np.ndarray:
        return self.Z[rows].astype(self.dtype, copy=False)


class StreamedMatrix(_BlockMatrix):
    """A matrix that is read from its file again in each sweep.

    Args:
        rows: (N, D).
        dtype: of the products.
    """

    most = 1 << 21

    def __init__(self, rows: Rows, dtype: Any) -> None:
        self.rows, self.width, self.dtype = rows, rows.width, np.dtype(dtype)

    def __len__(self) -> int:
        return len(self.rows)

    def _block(self, rows: slice) -> np.ndarray:
        return self.rows.block(rows, self.dtype, forget=True)


@dataclass(frozen=True, eq=False)
class Rotated:
    """Rows in the axes of the eigenvectors of their own Gram matrix: Z = coordinates @ basis, so that |w| is unchanged.

    N rows with N < D span at most N dimensions, which contain the optimum. In these axes the Hessian is nearly diagonal, so
    L-BFGS with a diagonal preconditioner needs far fewer iterations.

    Attributes:
        coordinates: (N, r), where r is at most min(N, D).
        basis: (r, D) with orthonormal rows; None is the identity.

    Examples:
        >>> rotated = Rotated.of(Rows(np.array([[3.0, 4.0, 0.0]])))
        >>> np.abs(rotated.coordinates).round(6), rotated.basis.shape
        (array([[5.]]), (1, 3))
    """

    coordinates: np.ndarray
    basis: np.ndarray | None

    @classmethod
    def of(cls, rows: Rows) -> Rotated:
        """Rotate rows. The features are not overwritten, and one copy of them is made."""
        Z = rows.whole(np.float64 if len(rows) * rows.width <= _SMALL else np.float32)
        N, D = Z.shape
        if min(N, D) > _MAX_ROTATED:
            return cls(Z, None)
        if N < D:
            basis, R = scipy.linalg.qr(Z.T, mode="economic")
            vectors = scipy.linalg.eigh(R @ R.T, driver="evd")[1]
            return cls(np.ascontiguousarray(R.T @ vectors), np.ascontiguousarray((basis @ vectors).T))
        vectors = scipy.linalg.eigh(Z.T @ Z, driver="evd")[1]
        for at in range(0, N, 4096):  # in place
            Z[at : at + 4096] = Z[at : at + 4096] @ vectors
        return cls(Z, np.ascontiguousarray(vectors.T))

    def rotate(self, weight: np.ndarray) -> np.ndarray:
        """Rotate (..., D) weights: (..., r) float64, without the part outside the span of the rows."""
        return weight if self.basis is None else weight @ self.basis.T.astype(np.float64)

    def unrotate(self, weight: np.ndarray) -> np.ndarray:
        """Rotate (..., r) weights back: (..., D) float64."""
        weight = weight.astype(np.float64)
        return weight if self.basis is None else weight @ self.basis.astype(np.float64)


class RotatedMatrix:
    """A matrix in the axes of a sample of its rows. Only weights are rotated, so no copy of the matrix is made.

    Args:
        matrix: (N, D).
        sample: n of its rows, rotated.
        drawn: (n,) int64, the indices of these rows.
    """

    def __init__(self, matrix: Matrix, sample: Rotated, drawn: np.ndarray) -> None:
        self.matrix, self.sample, self.drawn, self.dtype = matrix, sample, drawn, matrix.dtype

    def __len__(self) -> int:
        return len(self.matrix)

    def sweep(self, spans: Sequence[Span], process: BlockFunction, *, squared: bool = False) -> list[np.ndarray]:
        """Go over the rows once; see ``Matrix.sweep``.

        Sums of squares are estimated from the sample. They can be computed only over all rows, and without scores.
        """
        if not squared:
            rotated = [(rows, None if V is None else self.sample.unrotate(V).astype(self.dtype)) for rows, V in spans]
            return [self.sample.rotate(part).astype(self.dtype) for part in self.matrix.sweep(rotated, process)]
        step = max(64, _BLOCK // self.sample.coordinates.shape[1])
        blocks = [slice(at, min(at + step, len(self))) for at in range(0, len(self), step)]
        factors = np.concatenate([process(rows, None) for rows in blocks], axis=1)
        drawn = factors[:, self.drawn] * self.dtype.type(len(self) / len(self.drawn))
        whole = slice(0, len(self.drawn))
        return DenseMatrix(self.sample.coordinates).sweep([(whole, None)], lambda rows, _: drawn[:, rows], squared=True)
