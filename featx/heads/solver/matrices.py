"""Rows that a solver multiplies by, block by block on all cores: in memory, read from a file, or in other axes. numpy only.

Both products of an iteration, the rows by the weights and the residuals by the rows, are taken in one sweep over the rows: a
block is still in the processor's cache when it is needed again. N rows, D features.
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
"""Rows from one to another, and (M, D) weights whose scores are wanted of them, if any."""
Work = Callable[[slice, "np.ndarray | None"], np.ndarray]
"""What is done with a block of rows: which they are, and their (M, n) scores, to the (m, n) that is gathered."""

_BLOCK = 3 << 18
"""Elements of a block of rows and its scores that one core deals with at once: they stay in its cache."""
_SHARES = 32
"""Parts of the rows, at least, whose sums are taken side by side: always the same, so that the last digits are, too."""
_THIN = 64
"""Columns below which a product is faster by rows."""
_LONG = 512
"""Rows of a block, at least, where there are more columns: each block's products are added to a sum of that many columns."""
_SMALL = 2_000_000  # elements: below it, float64 throughout costs nothing
_MOST_ROTATED = 8192  # the eigenvectors of a larger Gram matrix take longer than they save


@cache
def _pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001 - threads do not follow into a fork, which needs its own
    return ThreadPoolExecutor(cores())


@cache
def _controller() -> ThreadpoolController:
    """Of the BLAS libraries that are loaded; looking for them takes longer than a small product."""
    return ThreadpoolController()


def side_by_side(work: Callable[[Any], T], parts: Sequence[Any]) -> list[T]:
    """A function of each part, in order, on all cores, each with one thread of its own; a single part has all threads."""
    if len(parts) == 1:
        return [work(parts[0])]
    with _controller().limit(limits=1, user_api="blas"):
        return list(_pool(os.getpid()).map(work, parts))


class Matrix(Protocol):
    """Rows, (N, D), that can be multiplied by."""

    dtype: Any

    def __len__(self) -> int: ...

    def sweep(self, spans: Sequence[Span], work: Work, *, squared: bool = False) -> list[np.ndarray]:
        """Go once over rows, several blocks at a time.

        Args:
            spans: which rows, and what their scores are by.
            work: of each block; no block is of two spans.
            squared: gather the squares of the rows' elements.

        Returns:
            For each span (m, D): the sum of its rows, each as often as ``work`` says.
        """
        ...


class _Blockwise:
    """A matrix that comes in blocks."""

    dtype: Any
    width: int
    most = _BLOCK

    def __len__(self) -> int:
        raise NotImplementedError

    def _block(self, rows: slice) -> np.ndarray:
        raise NotImplementedError

    def sweep(self, spans: Sequence[Span], work: Work, *, squared: bool = False) -> list[np.ndarray]:
        """As ``Matrix.sweep``."""
        blocks = [self._blocks(rows, 0 if V is None else len(V)) for rows, V in spans]
        uprights = [np.ascontiguousarray(V.T) if V is not None and len(V) < _THIN else None for _, V in spans]
        together = -(-sum(map(len, blocks)) // max(_SHARES, 2 * cores()))
        shares = [
            (span, blocks[span][at : at + together])
            for span in range(len(spans))
            for at in range(0, len(blocks[span]), together)
        ]

        def over(share: tuple[int, list[slice]]) -> np.ndarray:
            (_, V), upright = spans[share[0]], uprights[share[0]]
            total: np.ndarray | None = None
            for rows in share[1]:
                Z = self._block(rows)
                if upright is not None:
                    R = work(rows, np.ascontiguousarray((Z @ upright).T))
                else:
                    R = work(rows, None if V is None else V @ Z.T)
                part = (Z * Z if squared else Z).T @ R.T
                total = part if total is None else np.add(total, part, out=total)
            assert total is not None
            return total

        sums: list[np.ndarray | None] = [None] * len(spans)
        for (span, _), part in zip(shares, side_by_side(over, shares), strict=True):
            known = sums[span]
            sums[span] = part if known is None else np.add(known, part, out=known)
        return [
            np.zeros((0, self.width), self.dtype) if part is None else np.ascontiguousarray(part.T) for part in sums
        ]

    def _blocks(self, rows: slice, columns: int) -> list[slice]:
        least = 64 if columns < _THIN else _LONG
        count = -(-(rows.stop - rows.start) // max(least, self.most // (self.width + 2 * columns)))
        ends = np.linspace(rows.start, rows.stop, count + 1).astype(int).tolist()
        return [slice(at, end) for at, end in itertools.pairwise(ends)]


class Dense(_Blockwise):
    """A matrix in memory.

    Args:
        Z: (N, D) float32 or float64.
        dtype: what is computed in; a matrix of another is converted block by block, so that it takes no more memory.
    """

    def __init__(self, Z: np.ndarray, dtype: Any = None) -> None:
        self.Z, self.width, self.dtype = Z, Z.shape[1], np.dtype(dtype or Z.dtype)

    def __len__(self) -> int:
        return len(self.Z)

    def _block(self, rows: slice) -> np.ndarray:
        return self.Z[rows].astype(self.dtype, copy=False)


class Streamed(_Blockwise):
    """A matrix that is read from its file again in each sweep.

    Args:
        rows: (N, D).
        dtype: what is computed in.
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
    """Rows in the axes of their own Gram matrix: Z = coordinates @ basis, so that |w| is the same in both.

    Where there are fewer rows than columns, they span no more than N dimensions, in which the optimum lies; and everywhere the
    Hessian is nearly diagonal there, so that L-BFGS needs far fewer iterations.

    Attributes:
        coordinates: (N, r), r at most min(N, D).
        basis: (r, D), its rows orthonormal; None is the identity.
    """

    coordinates: np.ndarray
    basis: np.ndarray | None

    @classmethod
    def of(cls, rows: Rows) -> Rotated:
        """Rotate rows; overwrites no features, and keeps one copy."""
        Z = rows.whole(np.float64 if len(rows) * rows.width <= _SMALL else np.float32)
        N, D = Z.shape
        if min(N, D) > _MOST_ROTATED:
            return cls(Z, None)
        if N < D:
            basis, R = scipy.linalg.qr(Z.T, mode="economic")
            vectors = scipy.linalg.eigh(R @ R.T, driver="evd")[1]
            return cls(np.ascontiguousarray(R.T @ vectors), np.ascontiguousarray((basis @ vectors).T))
        vectors = scipy.linalg.eigh(Z.T @ Z, driver="evd")[1]
        for at in range(0, N, 4096):  # in place
            Z[at : at + 4096] = Z[at : at + 4096] @ vectors
        return cls(Z, np.ascontiguousarray(vectors.T))

    def turn(self, weight: np.ndarray) -> np.ndarray:
        """(..., D) to (..., r) float64; what lies outside the rows' span is lost."""
        return weight if self.basis is None else weight @ self.basis.T.astype(np.float64)

    def back(self, weight: np.ndarray) -> np.ndarray:
        """(..., r) to (..., D) float64."""
        weight = weight.astype(np.float64)
        return weight if self.basis is None else weight @ self.basis.astype(np.float64)


class Turned:
    """A matrix in the axes of a share of its rows, without a copy of it: only weights are turned.

    Args:
        matrix: (N, D).
        share: n of its rows, rotated.
        drawn: (n,) int64, which ones.
    """

    def __init__(self, matrix: Matrix, share: Rotated, drawn: np.ndarray) -> None:
        self.matrix, self.share, self.drawn, self.dtype = matrix, share, drawn, matrix.dtype

    def __len__(self) -> int:
        return len(self.matrix)

    def sweep(self, spans: Sequence[Span], work: Work, *, squared: bool = False) -> list[np.ndarray]:
        """As ``Matrix.sweep``; of squares, wanted of all rows without scores, an estimate by the share's rows alone."""
        if not squared:
            turned = [(rows, None if V is None else self.share.back(V).astype(self.dtype)) for rows, V in spans]
            return [self.share.turn(part).astype(self.dtype) for part in self.matrix.sweep(turned, work)]
        step = max(64, _BLOCK // self.share.coordinates.shape[1])
        blocks = [slice(at, min(at + step, len(self))) for at in range(0, len(self), step)]
        said = np.concatenate([work(rows, None) for rows in blocks], axis=1)
        drawn = said[:, self.drawn] * self.dtype.type(len(self) / len(self.drawn))
        whole = slice(0, len(self.drawn))
        return Dense(self.share.coordinates).sweep([(whole, None)], lambda rows, _: drawn[:, rows], squared=True)
