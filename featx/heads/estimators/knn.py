"""Heads that compare a row with others: the k nearest by cosine, and the nearest class mean. numpy and scipy only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from featx.errors import HeadError
from featx.heads import nearest
from featx.heads.predictors import NeighbourLabelsPredictor, NeighbourMeanPredictor, NeighbourPredictor
from featx.heads.training_data import Rows, TrainingData
from featx.text import size_text

COUNTS = (200, 100, 50, 20, 10, 5, 3, 1)
"""Numbers of neighbours that are compared, the smoothest head first."""
TEMPERATURES = (math.inf, 0.2, 0.07, 0.02)
"""Of votes exp(cosine / T) that are compared for each k; infinity: equal votes. 0.07 is Wu et al.'s (2018)."""
USUAL_TEMPERATURE = 0.07
"""Where there is nothing to choose by."""
MOST_BYTES = 4 << 30
"""Of float32 rows that are kept, in memory and in the head's file."""

_Chunk = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(n,) rows that ask, (n, K) int64 rows nearest to them, (n, K) float32 their cosines."""


class NeighbourModel:
    """K nearest neighbours by cosine, votes exp(cosine / T) as in Wu et al. (2018) and DINO's evaluation (Caron et al., 2021).

    The candidate is k. To each k belongs the T of least held-out loss: log loss of the shares for classes and labels, squared
    error for numbers. Similarities are computed once for all k and T, by blocks, of float32 rows of length 1. Rows of
    weight 0 ask, but have no vote.

    Args:
        candidates: numbers of neighbours, the largest first.
        temperatures: the T that are compared.
    """

    def __init__(self, candidates: Sequence[float] = COUNTS, *, temperatures: Sequence[float] = TEMPERATURES) -> None:
        self.candidates = tuple(float(k) for k in candidates)
        self.temperatures = tuple(temperatures)
        self._chosen: tuple[TrainingData, dict[float, float]] | None = None

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """For each k, the (N, C) scores of each row by the rows of the other folds, with the best T for that k.

        A row that no fold holds out gets NaN.

        Raises:
            HeadError: too many rows, or none that counts beside a fold.
        """
        _require_few(training.rows)
        if self._chosen is None or self._chosen[0] is not training:
            self._chosen = training, {}
        chunks = list(_nearest_beside(training, max(_whole(k) for k in candidates)))
        for k in candidates:
            best, least = None, math.inf
            for temperature in self.temperatures:
                scores = np.full((len(training), training.count), np.nan)
                for rows, found, similarities in chunks:
                    scores[rows] = _scores(
                        training, found[:, : _whole(k)], similarities[:, : _whole(k)], 1 / temperature
                    )
                loss = _loss(training, scores)
                if best is None or loss < least:
                    best, least = scores, loss
                    self._chosen[1][k] = temperature
            assert best is not None
            yield k, best

    def fit(
        self, training: TrainingData, candidate: float
    ) -> NeighbourPredictor | NeighbourLabelsPredictor | NeighbourMeanPredictor:
        """Keep all rows that count, as float32 rows of length 1; k is at most their number.

        Raises:
            HeadError: too many rows, or none that counts.
        """
        _require_few(training.rows)
        counts = np.flatnonzero(training.weight > 0)
        if not len(counts):
            raise HeadError("no row has a weight above 0, so none has a vote; give some row or class such a weight")
        support = np.empty((len(counts), training.rows.width), dtype=np.float32)
        for rows, block in training.rows.take(counts).blocks():
            support[rows] = nearest.unit(block)
        weight, y = training.weight[counts], training.y[counts]
        k = np.array(min(_whole(candidate), len(counts)))
        sharpness = np.array(1 / self._temperature(training, candidate))
        if training.task == "classification":
            return NeighbourPredictor(support, y.astype(np.int64), weight, k, sharpness, np.array(training.count))
        if training.task == "multilabel":
            return NeighbourLabelsPredictor(support, y.astype(np.uint8), weight, k, sharpness)
        return NeighbourMeanPredictor(support, y.astype(np.float64), weight, k, sharpness)

    def _temperature(self, training: TrainingData, candidate: float) -> float:
        """The T that was chosen for this k on these rows, or is now."""
        if len(self.temperatures) == 1:
            return self.temperatures[0]
        if not training.folds:
            return USUAL_TEMPERATURE
        if self._chosen is None or self._chosen[0] is not training or candidate not in self._chosen[1]:
            for _ in self.cross_val_scores(training, (candidate,)):
                pass
        assert self._chosen is not None
        return self._chosen[1][candidate]


def _whole(candidate: float) -> int:
    return max(1, int(candidate))


def _require_few(rows: Rows) -> None:
    size = 4 * len(rows) * rows.width
    if size > MOST_BYTES:
        raise HeadError(
            f"a knn head keeps every training row, here {size_text(size)} of {len(rows):,}; it takes at most "
            f"{size_text(MOST_BYTES)}; --model logreg, ridge or linear keeps none"
        )


def _nearest_beside(training: TrainingData, most: int) -> Iterator[_Chunk]:
    """The nearest rows to each row, out of those that count of the other folds.

    Rows stand in memory once, in the order of their folds: those beside a fold are then two slices.
    """
    fold_of = training.fold_of
    counts = np.flatnonzero(training.weight > 0)
    order = counts[np.argsort(fold_of[counts], kind="stable")]
    support = np.empty((len(order), training.rows.width), dtype=np.float32)
    place = np.full(len(training), -1)
    place[order] = np.arange(len(order))
    for rows, block in training.rows.blocks():
        here = place[rows] >= 0
        support[place[rows][here]] = nearest.unit(block[here])
    for fold, (_, test) in enumerate(training.folds):
        start, end = np.searchsorted(fold_of[order], [fold, fold + 1])
        beside = np.concatenate([order[:start], order[end:]])
        if not len(beside):
            raise HeadError("no row outside a fold has a weight above 0; give more than one row or class such a weight")
        step = nearest.block_rows(len(beside))
        for at in range(0, len(test), step):
            asking = test[at : at + step]
            similarities = np.empty((len(asking), len(beside)), dtype=np.float32)
            block = nearest.unit(training.rows.block(asking))
            np.matmul(block, support[:start].T, out=similarities[:, :start])
            np.matmul(block, support[end:].T, out=similarities[:, start:])
            yield asking, *nearest.top(similarities, min(most, len(beside)), order=beside)


def _scores(training: TrainingData, found: np.ndarray, similarities: np.ndarray, sharpness: float) -> np.ndarray:
    """As the scorers', (n, C)."""
    cast = nearest.votes(similarities, training.weight[found], sharpness)
    if training.task == "classification":
        return nearest.log_shares(cast, training.y[found], training.count)
    if training.task == "multilabel":
        return nearest.logit_shares(cast, found, training.y)
    return nearest.means(cast, found, training.y)


def _loss(training: TrainingData, scores: np.ndarray) -> float:
    """Weighted log loss of held-out scores' probabilities; for numbers, squared error in units of their variance."""
    judged = np.flatnonzero(training.fold_of >= 0)
    y, scores, weight = training.y[judged], scores[judged], training.weight[judged]
    if training.task == "classification":
        losses = -scores[np.arange(len(y)), y]  # log shares: their exponentials sum to 1
    elif training.task == "multilabel":
        losses = np.logaddexp(0, np.where(y > 0, -scores, scores)).mean(axis=1)
    else:
        variance = y.var(axis=0)
        losses = ((scores - y) ** 2 / np.where(variance > 0, variance, 1)).mean(axis=1)
    return float(weight @ losses)
