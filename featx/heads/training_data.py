"""What a head is fitted to: standardised rows, in memory or read block by block; targets, weights and folds. numpy only."""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from featx.heads.predictors import Predictor

BLOCK_BYTES = 64 << 20
"""Of float32 features, that are dealt with at once where they are read from a file."""
MOST_IN_MEMORY = 1 << 30
"""Bytes of float32 features that are kept in memory, standardised; more are read again at each pass."""
_SCATTERED = (
    128  # rows that are read at once where they lie apart: with each, up to some MB of a mapped file count as memory
)


class Rows:
    """Rows of a feature matrix, each column less its mean and divided by its deviation.

    Args:
        features: (M, D) float16, float32 or float64; may be memory-mapped.
        index: (N,) int64, the rows that count, in their order; all, unless given.
        mean: (D,) float64; 0 unless given.
        scale: (D,) float64, above 0; 1 unless given.
    """

    def __init__(
        self,
        features: np.ndarray,
        index: np.ndarray | None = None,
        *,
        mean: np.ndarray | None = None,
        scale: np.ndarray | None = None,
    ) -> None:
        self.features = features
        self.index = np.arange(len(features)) if index is None else index
        self.mean = np.zeros(features.shape[1]) if mean is None else mean
        self.scale = np.ones(features.shape[1]) if scale is None else scale

    def __len__(self) -> int:
        return len(self.index)

    @property
    def width(self) -> int:
        """D."""
        return int(self.features.shape[1])

    @property
    def fits(self) -> bool:
        """Whether the rows, standardised as float32, may be kept in memory."""
        return 4 * len(self) * self.width <= MOST_IN_MEMORY

    def take(self, rows: np.ndarray) -> Rows:
        """The same with these rows alone, (n,) int64 or bool."""
        return Rows(self.features, self.index[rows], mean=self.mean, scale=self.scale)

    def block(self, rows: slice | np.ndarray, dtype: Any = np.float32, *, forget: bool = False) -> np.ndarray:
        """Some rows, (n, D), standardised in the precision of ``dtype``.

        Args:
            rows: which.
            dtype: of the block.
            forget: let go of the pages of a mapped file, which count as memory of the process.
        """
        index = self.index[rows]
        scattered = len(index) > 0 and np.ptp(index) >= 2 * len(index)
        block = np.empty((len(index), self.width), dtype)
        for at in range(0, len(index), step := _SCATTERED if forget and scattered else max(1, len(index))):
            block[at : at + step] = self._raw(index[at : at + step])
            if forget:
                _forget(self.features)
        block -= self.mean.astype(dtype)
        block /= self.scale.astype(dtype)
        return block

    def blocks(self, dtype: Any = np.float32, *, most: int = BLOCK_BYTES) -> Iterator[tuple[slice, np.ndarray]]:
        """All rows in order, as (which, their standardised (n, D)).

        Args:
            dtype: of the blocks.
            most: bytes of one block, roughly.
        """
        step = max(1, most // (self.width * np.dtype(dtype).itemsize))
        for at in range(0, len(self), step):
            rows = slice(at, min(at + step, len(self)))
            yield rows, self.block(rows, dtype, forget=True)

    def whole(self, dtype: Any = np.float32) -> np.ndarray:
        """All rows, (N, D), standardised."""
        out = np.empty((len(self), self.width), dtype=dtype)
        for rows, block in self.blocks(dtype):
            out[rows] = block
        return out

    def _raw(self, index: Any) -> np.ndarray:
        if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
            index = slice(index[0], index[-1] + 1)  # no copy
        found: np.ndarray = self.features[index]
        return found


def by_rows(features: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M, D) features of M images, or (M, V, D) in V views, as a matrix of rows; and which of its rows some images are.

    Args:
        features: nothing is copied.
        images: (n,) int64.

    Returns:
        (M, D) or (M V, D), and (n,) or (n V,) int64.
    """
    if features.ndim == 2:
        return features, images
    return features.reshape(-1, features.shape[2]), each_view(images, features.shape[1])


def each_view(rows: np.ndarray, views: int) -> np.ndarray:
    """(n,) images to (n V,) rows, where each image is V rows, one after the other."""
    return rows if views == 1 else (rows[:, None] * views + np.arange(views)).ravel()


def over_views(scores: np.ndarray, views: int) -> np.ndarray:
    """(n V, C) scores to (n, C), the mean over the views of each image."""
    return scores if views == 1 else scores.reshape(-1, views, scores.shape[1]).mean(axis=1)


def statistics(features: np.ndarray, index: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each column of some rows: (D,) and (D,) float64, in one pass over the blocks.

    Blocks are merged as by Chan, Golub and LeVeque (1983). The deviation of a constant column is given as 1, so that it becomes
    0. NaN or infinity in a column gives that column NaN.
    """
    mean, squares, count = np.zeros(features.shape[1]), np.zeros(features.shape[1]), 0
    least, most = np.full(features.shape[1], np.inf), np.full(features.shape[1], -np.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        for _, block in Rows(features, index).blocks(np.float64):
            here = block.mean(axis=0)
            least, most = np.minimum(least, block.min(axis=0)), np.maximum(most, block.max(axis=0))
            block -= here
            apart = here - mean
            total = count + len(block)
            squares += np.einsum("nd,nd->d", block, block) + apart**2 * (count * len(block) / total)
            mean += apart * (len(block) / total)
            count = total
    deviation = np.sqrt(squares / max(count, 1))
    return mean, np.where((least == most) | (deviation == 0), 1.0, deviation)


def _forget(features: np.ndarray) -> None:
    """Let go of the pages of a mapped file that were read: they count as memory of the process, and may be read again."""
    mapped = getattr(features, "_mmap", None)
    if getattr(features, "mode", "r") != "r":  # what was changed in memory would be lost
        return
    if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


Folds = tuple[tuple[np.ndarray, np.ndarray], ...]
"""(training rows, held-out rows), int64 each; no row is held out twice, and some, that no fold can judge, never."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a head is fitted to. N images of D features, C classes or labels (or targets of a regression).

    Attributes:
        rows: (N, D), standardised; (N V, D) of images in V views, those of an image in a row.
        y: (N,) int64 in 0..C-1 for classification, (N, C) float32 of 0 and 1 for multilabel, (N, C) float64 for regression.
        count: C.
        task: one of ``TASKS``.
        weight: (N,) float64, how much each image counts, 1 on average.
        folds: to cross-validate on; () where that cannot be done.
        seed: of whatever a fit draws.
        grouped: some rows belong together, as copies of an image do, so that leaving out one alone would tell nothing.
        views: V.
        together: rows, one after the other, that are views of one image, where each view is an image of its own (``by_rows``).
    """

    rows: Rows
    y: np.ndarray
    count: int
    task: str
    weight: np.ndarray
    folds: Folds = ()
    seed: int = 0
    grouped: bool = False
    views: int = 1
    together: int = 1

    def __len__(self) -> int:
        return len(self.y)

    @property
    def fold_of(self) -> np.ndarray:
        """(N,) int64, which fold holds each row out; -1 for those that none does."""
        folds = np.full(len(self), -1)
        for number, (_, held_out) in enumerate(self.folds):
            folds[held_out] = number
        return folds

    def take(self, images: np.ndarray) -> TrainingData:
        """The same with these images alone, (n,) int64, and without folds."""
        rows = self.rows.take(each_view(images, self.views))
        return dataclasses.replace(self, rows=rows, y=self.y[images], weight=self.weight[images], folds=())

    @cached_property
    def by_rows(self) -> TrainingData:
        """The same with each view as an image of its own, which is what a ``Model`` is fitted to."""
        if self.views == 1:
            return self
        return dataclasses.replace(
            self,
            y=self.y.repeat(self.views, axis=0),
            weight=self.weight.repeat(self.views),
            folds=tuple((each_view(train, self.views), each_view(test, self.views)) for train, test in self.folds),
            grouped=True,
            views=1,
            together=self.views,
        )

    def over_views(self, scores: np.ndarray) -> np.ndarray:
        """(N V, C) scores of the rows to those of the images, (N, C): the mean over the views of each."""
        return over_views(scores, self.views)

    def ordered(self, order: np.ndarray) -> TrainingData:
        """The same with its rows, and those of its folds, in another order: (N,) int64, each row once."""
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        folds = tuple((np.sort(place[train]), np.sort(place[held_out])) for train, held_out in self.folds)
        return dataclasses.replace(self.take(order), folds=folds)


class Model(Protocol):
    """One kind of head: how it is fitted, and by what candidates for its one hyper-parameter. Views are rows to it."""

    @property
    def candidates(self) -> tuple[float, ...]:
        """The simplest first; (0.0,) where there is nothing to choose."""
        ...

    def held_out(self, training: TrainingData, candidates: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        """For each candidate the (N, C) float64 scores of each row, by a fit to the folds' rows that leave it out.

        Rows that no fold holds out are NaN.
        """
        ...

    def fit(self, training: TrainingData, candidate: float) -> Predictor:
        """Fit to all rows."""
        ...


def fold_by_fold(
    model: Model, training: TrainingData, candidates: Sequence[float]
) -> Iterator[tuple[float, np.ndarray]]:
    """``Model.held_out`` of a model whose fits share no work: one fit for each candidate and fold."""
    for candidate in candidates:
        scores = np.full((len(training), training.count), np.nan)
        for train, test in training.folds:
            predictor = model.fit(training.take(train), candidate)
            for rows, block in training.rows.take(test).blocks(np.float64):
                scores[test[rows]] = predictor.decision_function(block)
        yield candidate, scores
