"""What a head is fitted to: standardised rows, in memory or read block by block; targets, weights and folds. numpy only.

N is the number of images, V of the views of each (test-time augmentation, TTA), D the width of the features, and C the
number of classes, labels or targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from featx.data.memory import machine_memory
from featx.features.stacked_rows import release_pages
from featx.heads.predictors import Predictor, unit_rows

BLOCK_BYTES = 64 << 20
"""Bytes of float32 features that are processed at a time when they are read from a file."""
MOST_IN_MEMORY = 1 << 30
"""The most bytes of float32 features that are held in memory, standardised, if that is a quarter of it or less; larger data are
read again in each pass."""
_SCATTERED = 128  # rows read at a time when they are scattered: each may bring some MB of a mapped file into memory


class Rows:
    """Some rows of a feature matrix, standardised: each column minus its mean, divided by its standard deviation.

    Args:
        features: (M, D) float16, float32 or float64; may be memory-mapped, or ``StackedRows`` of several files.
        index: (N,) int64, which rows, in their order; all by default.
        mean: (D,) float64; 0 by default.
        scale: (D,) float64, above 0; 1 by default.
        unit: whether each row is divided by its length, at the end.

    Examples:
        >>> import numpy as np
        >>> features = np.array([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0]])
        >>> mean, scale = statistics(features)
        >>> Rows(features, np.array([0, 2]), mean=mean, scale=scale).whole().round(2)
        array([[-1.22, -1.22],
               [ 1.22,  1.22]], dtype=float32)
    """

    def __init__(
        self,
        features: np.ndarray,
        index: np.ndarray | None = None,
        *,
        mean: np.ndarray | None = None,
        scale: np.ndarray | None = None,
        unit: bool = False,
    ) -> None:
        self.features, self.unit = features, unit
        self.index = np.arange(len(features)) if index is None else index
        self.mean = np.zeros(features.shape[1]) if mean is None else mean
        self.scale = np.ones(features.shape[1]) if scale is None else scale

    def __len__(self) -> int:
        return len(self.index)

    @property
    def width(self) -> int:
        """The number of columns, D."""
        return int(self.features.shape[1])

    @property
    def fits(self) -> bool:
        """Whether the rows, standardised as float32, may be held in memory."""
        return self.memory_bytes <= min(MOST_IN_MEMORY, machine_memory() // 4)

    @property
    def memory_bytes(self) -> int:
        """What the rows take as float32."""
        return 4 * len(self) * self.width

    def take(self, rows: np.ndarray) -> Rows:
        """Select some of these rows, by (n,) int64 or bool."""
        return Rows(self.features, self.index[rows], mean=self.mean, scale=self.scale, unit=self.unit)

    def block(self, rows: slice | np.ndarray, dtype: Any = np.float32, *, forget: bool = False) -> np.ndarray:
        """Standardise some of the rows, in the precision of ``dtype``.

        Args:
            rows: which.
            dtype: of the block.
            forget: release the pages of a mapped file afterwards, which count as memory of the process.

        Returns:
            (n, D).
        """
        index = self.index[rows]
        scattered = len(index) > 0 and np.ptp(index) >= 2 * len(index)
        block = np.empty((len(index), self.width), dtype)
        for at in range(0, len(index), step := _SCATTERED if forget and scattered else max(1, len(index))):
            block[at : at + step] = self._raw(index[at : at + step])
            if forget:
                release_pages(self.features)
        block -= self.mean.astype(dtype)
        block /= self.scale.astype(dtype)
        return unit_rows(block) if self.unit else block

    def blocks(self, dtype: Any = np.float32, *, most: int = BLOCK_BYTES) -> Iterator[tuple[slice, np.ndarray]]:
        """Iterate over all rows in order, block by block.

        Args:
            dtype: of the blocks.
            most: bytes of one block, roughly.

        Yields:
            The rows of the block, and their standardised (n, D).
        """
        step = max(1, most // (self.width * np.dtype(dtype).itemsize))
        for at in range(0, len(self), step):
            rows = slice(at, min(at + step, len(self)))
            yield rows, self.block(rows, dtype, forget=True)

    def whole(self, dtype: Any = np.float32) -> np.ndarray:
        """Standardise all rows: (N, D)."""
        out = np.empty((len(self), self.width), dtype=dtype)
        for rows, block in self.blocks(dtype):
            out[rows] = block
        return out

    def _raw(self, index: Any) -> np.ndarray:
        if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
            index = slice(index[0], index[-1] + 1)  # no copy
        rows: np.ndarray = self.features[index]
        return rows


def flatten_views(features: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """View features as a matrix with a row for each view, and find the rows of some images. Nothing is copied.

    Args:
        features: (M, D) of M images, or (M, V, D) in V views.
        images: (n,) int64.

    Returns:
        (M, D) or (M V, D), and (n,) or (n V,) int64.
    """
    if features.ndim == 2:
        return features, images
    return features.reshape(-1, features.shape[2]), view_rows(images, features.shape[1])


def view_rows(images: np.ndarray, views: int) -> np.ndarray:
    """The rows of all views of some images: (n,) to (n V,) int64, where each image is V consecutive rows."""
    return images if views == 1 else (images[:, None] * views + np.arange(views)).ravel()


def mean_over_views(scores: np.ndarray, views: int) -> np.ndarray:
    """Average (n V, C) scores over the views of each image: (n, C)."""
    return scores if views == 1 else scores.reshape(-1, views, scores.shape[1]).mean(axis=1)


@dataclass(frozen=True, eq=False)
class ColumnSums:
    """What mean and standard deviation of each column of some rows follow from.

    Attributes:
        count: of the rows.
        mean: (D,) float64.
        squares: (D,) float64, the sum of squared differences from the mean.
        least: (D,) float64.
        most: (D,) float64.
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray
    least: np.ndarray
    most: np.ndarray

    @classmethod
    def of_blocks(cls, width: int, blocks: Iterable[np.ndarray]) -> ColumnSums:
        """Sum the columns of (n, D) float64 blocks, which are overwritten."""
        sums = cls(0, np.zeros(width), np.zeros(width), np.full(width, np.inf), np.full(width, -np.inf))
        with np.errstate(invalid="ignore", over="ignore"):
            for block in blocks:
                mean, least, most = block.mean(axis=0), block.min(axis=0), block.max(axis=0)
                block -= mean
                sums = sums.merged(cls(len(block), mean, np.einsum("nd,nd->d", block, block), least, most))
        return sums

    def merged(self, other: ColumnSums) -> ColumnSums:
        """The sums of both sets of rows, as by Chan, Golub and LeVeque (1983)."""
        total = self.count + other.count
        if not other.count:
            return self
        with np.errstate(invalid="ignore", over="ignore"):
            difference = other.mean - self.mean
            squares = self.squares + (other.squares + difference**2 * (self.count * other.count / total))
            mean = self.mean + difference * (other.count / total)
        return ColumnSums(total, mean, squares, np.minimum(self.least, other.least), np.maximum(self.most, other.most))

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, as the function ``statistics`` returns them."""
        with np.errstate(invalid="ignore", over="ignore"):
            deviation = np.sqrt(self.squares / max(self.count, 1))
            return self.mean, np.where((self.least == self.most) | (deviation == 0), 1.0, deviation)


def column_sums(features: np.ndarray, index: np.ndarray | None = None) -> ColumnSums:
    """Sum the columns of some rows, in one pass over the blocks."""
    return ColumnSums.of_blocks(features.shape[1], (block for _, block in Rows(features, index).blocks(np.float64)))


def statistics(features: np.ndarray, index: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation of each column of some rows, in one pass over the blocks.

    Blocks are merged by ``ColumnSums``. The deviation of a constant column is given as 1, so that the column becomes 0. A
    column with NaN or infinity gets NaN.

    Returns:
        (D,) and (D,) float64.
    """
    return column_sums(features, index).statistics()


FEW_IMAGES, _PRIOR_IMAGES = 50, 30
"""Below so many images, deviations are steadied; and how many images the mean variance of all columns then counts as."""


def different_images(keys: np.ndarray) -> int:
    """Count the images with (N, 16) content hashes, copies of one image once and those of unknown content (zeros) each.

    Of more than ``FEW_IMAGES``, so many are counted.

    Examples:
        >>> different_images(np.array([[1] * 16, [1] * 16, [2] * 16, [0] * 16, [0] * 16], dtype=np.uint8))
        4
    """
    found, unknown = set[bytes](), 0
    for key in keys:
        unknown += not key.any()
        found.add(key.tobytes())
        if len(found) + unknown > FEW_IMAGES:
            break
    return min(FEW_IMAGES, len(found) + unknown - (unknown > 0))


def steadying(images: int | np.ndarray) -> Any:
    """The share of the mean variance that is added to each column's variance where there are so many images."""
    return np.maximum(0.0, _PRIOR_IMAGES * (1 / np.maximum(images, 1) - 1 / FEW_IMAGES))


def steadied(scale: np.ndarray, images: int, blocks: Sequence[slice]) -> np.ndarray:
    """Shrink the deviations of columns of one unit towards one another, where few images tell little about each.

    A column that hardly varies among a few images would be stretched so much that it decides about all others. So to each
    variance v is added a share of the mean variance of the columns: v + 30 (1 / n - 1 / 50) mean(v), for n < 50 images.

    Args:
        scale: (D,) deviations, as ``statistics`` gives them.
        images: n, copies of one image counted once.
        blocks: columns of one unit, such as those of one layer of a network.

    Returns:
        (D,) float64; ``scale`` itself for 50 images or more.

    Examples:
        >>> import numpy as np
        >>> steadied(np.array([3.0, 1e-6, 1.0]), 10, [slice(0, 3)]).round(2)
        array([4.02, 2.68, 2.68])
    """
    weight = steadying(images)
    if not weight:
        return scale
    out = scale.astype(np.float64)
    for block in blocks:
        variances = np.where(
            scale[block] == 1.0, 0.0, scale[block] ** 2
        )  # a deviation of 1 is that of a constant column
        with np.errstate(over="ignore"):
            grown = np.sqrt(variances + weight * variances.mean())
        out[block] = np.where(np.isfinite(grown) & (grown > 0), grown, scale[block])
    return out


Folds = tuple[tuple[np.ndarray, np.ndarray], ...]
"""(training rows, held-out rows) of each fold, int64. No row is held out twice; a row that no fold can judge, never."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a head is fitted to: N images of D features, with C classes or labels (or targets of a regression).

    Attributes:
        rows: (N, D), standardised; of images in V views (N V, D), where the views of an image are consecutive.
        y: (N,) int64 in 0..C-1 for classification, (N, C) float32 of 0 and 1 for multilabel, (N, C) float64 for regression.
        count: C.
        task: one of ``TASKS``.
        weight: (N,) float64, the weight of each image, 1 on average.
        folds: for cross-validation; () where it is not possible.
        seed: of all random draws of a fit.
        grouped: whether some rows belong together, such as copies of an image, so that leaving out one alone shows nothing.
        groups: (N,) int64, which images belong together; None where that is not known.
        views: V.
        together: the number of consecutive rows that are views of one image, where each view counts as an image
            (``views_as_images``).
        share: of data that do not fit in memory, the images that hyper-parameters are chosen on, with folds and groups, and
            (n,) int64, ascending, which images they are; or None. Then the data as a whole have no folds and no groups.
        keys: (N, 16) uint8, content hashes, the same for copies of one image; None where they are not known.
        ranks: the processes that sum over the rows together, as ``featx.heads.ranks.Ranks``; None: this one does it alone.
    """

    rows: Rows
    y: np.ndarray
    count: int
    task: str
    weight: np.ndarray
    folds: Folds = ()
    seed: int = 0
    grouped: bool = False
    groups: np.ndarray | None = None
    views: int = 1
    together: int = 1
    share: tuple[TrainingData, np.ndarray] | None = None
    keys: np.ndarray | None = None
    ranks: Any = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def different(self) -> int:
        """The number of images, copies of one counted once, as ``different_images`` counts them."""
        return len(self) // self.together if self.keys is None else different_images(self.keys[:: self.together])

    def groups_of(self, images: np.ndarray) -> np.ndarray | None:
        """(n,) int64, which of some images belong together; of data with a ``share``, those must be in it."""
        if self.share is not None:
            part, drawn = self.share
            return part.groups_of(np.searchsorted(drawn, images))
        return None if self.groups is None else self.groups[images]

    def folds_of(self, images: np.ndarray) -> np.ndarray:
        """(n,) int64, the folds that hold some images out; of data with a ``share``, those must be in it."""
        if self.share is not None:
            part, drawn = self.share
            return part.folds_of(np.searchsorted(drawn, images))
        folds: np.ndarray = self.fold_of[images]
        return folds

    @property
    def fold_of(self) -> np.ndarray:
        """(N,) int64, the fold that holds out each image; -1 for an image that no fold holds out."""
        folds = np.full(len(self), -1)
        for number, (_, held_out) in enumerate(self.folds):
            folds[held_out] = number
        return folds

    def take(self, images: np.ndarray) -> TrainingData:
        """Select some of the images, by (n,) int64, without folds; this process alone reads them."""
        rows = self.rows.take(view_rows(images, self.views))
        groups = None if self.groups is None else self.groups[images]
        return dataclasses.replace(
            self,
            rows=rows,
            y=self.y[images],
            weight=self.weight[images],
            groups=groups,
            folds=(),
            share=None,
            keys=None if self.keys is None else self.keys[images],
            ranks=None,
        )

    @cached_property
    def views_as_images(self) -> TrainingData:
        """The same data with each view as an image of its own, which is what an ``Estimator`` is fitted to."""
        if self.views == 1:
            return self
        return dataclasses.replace(
            self,
            y=self.y.repeat(self.views, axis=0),
            weight=self.weight.repeat(self.views),
            folds=tuple((view_rows(train, self.views), view_rows(test, self.views)) for train, test in self.folds),
            grouped=True,
            groups=None if self.groups is None else self.groups.repeat(self.views),
            keys=None if self.keys is None else self.keys.repeat(self.views, axis=0),
            views=1,
            together=self.views,
        )

    def mean_over_views(self, scores: np.ndarray) -> np.ndarray:
        """Average (N V, C) scores of the rows over the views of each image: (N, C)."""
        return mean_over_views(scores, self.views)

    def ordered(self, order: np.ndarray) -> TrainingData:
        """The same data with images and folds in another order: (N,) int64, each image once."""
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        folds = tuple((np.sort(place[train]), np.sort(place[held_out])) for train, held_out in self.folds)
        return dataclasses.replace(self.take(order), folds=folds)


class Estimator(Protocol):
    """Fits one kind of head, for each candidate value of its one hyper-parameter. Each view counts as an image.

    An estimator that solves its problem iteratively also has ``solution_`` after ``fit``, with the arrays ``gap`` and
    ``iterations``, which the head stores as ``convergence_``.

    An estimator that fits each candidate anew may have ``first_looks``: the number of the candidate at which a search begins,
    and how many it goes on by. A search then tries fewer candidates, and passes ``rough=True`` to ``cross_val_scores`` where
    those that it compares are far apart, so that fits need not be exact.
    """

    @property
    def candidates(self) -> tuple[float, ...]:
        """Values of the hyper-parameter, the simplest first; (0.0,) where there is nothing to choose."""
        ...

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Score each row by a fit to the training rows of the fold that holds it out.

        Yields:
            Each candidate, and its (N, C) float64 scores; NaN for rows that no fold holds out.
        """
        ...

    def fit(self, training: TrainingData, candidate: float) -> Predictor:
        """Fit to all rows."""
        ...


def fold_by_fold(
    estimator: Estimator, training: TrainingData, candidates: Sequence[float]
) -> Iterator[tuple[float, np.ndarray]]:
    """``Estimator.cross_val_scores`` for an estimator whose fits share no work: one fit for each candidate and fold."""
    for candidate in candidates:
        scores = np.full((len(training), training.count), np.nan)
        for train, test in training.folds:
            predictor = estimator.fit(training.take(train), candidate)
            for rows, block in training.rows.take(test).blocks(np.float64):
                scores[test[rows]] = predictor.decision_function(block)
        yield candidate, scores
