"""What a head is fitted to: rows, targets, weights and folds. numpy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from featx.rows import Rows, each_view, over_views
from featx.scorers import Scorer

Folds = tuple[tuple[np.ndarray, np.ndarray], ...]
"""(training rows, held-out rows), int64 each; no row is held out twice, and some, that no fold can judge, never."""


@dataclass(frozen=True, eq=False)
class Training:
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

    def take(self, images: np.ndarray) -> Training:
        """The same with these images alone, (n,) int64, and without folds."""
        rows = self.rows.take(each_view(images, self.views))
        return dataclasses.replace(self, rows=rows, y=self.y[images], weight=self.weight[images], folds=())

    @cached_property
    def by_rows(self) -> Training:
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

    def ordered(self, order: np.ndarray) -> Training:
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

    def held_out(self, training: Training, candidates: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        """For each candidate the (N, C) float64 scores of each row, by a fit to the folds' rows that leave it out.

        Rows that no fold holds out are NaN.
        """
        ...

    def fit(self, training: Training, candidate: float) -> Scorer:
        """Fit to all rows."""
        ...


def fold_by_fold(model: Model, training: Training, candidates: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
    """``Model.held_out`` of a model whose fits share no work: one fit for each candidate and fold."""
    for candidate in candidates:
        scores = np.full((len(training), training.count), np.nan)
        for train, test in training.folds:
            scorer = model.fit(training.take(train), candidate)
            for rows, block in training.rows.take(test).blocks(np.float64):
                scores[test[rows]] = scorer.scores(block)
        yield candidate, scores
