"""K nearest neighbours by cosine similarity. numpy and scipy only.

N rows of D features, C classes, labels or targets, n queries, k neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from featx.errors import HeadError
from featx.heads import nearest
from featx.heads.predictors import NeighbourLabelsPredictor, NeighbourMeanPredictor, NeighbourPredictor
from featx.heads.search import held_out_losses
from featx.heads.training_data import Rows, TrainingData
from featx.text import size_text

COUNTS = (200, 100, 50, 20, 10, 5, 3, 1)
"""Numbers of neighbours that are compared, the smoothest first."""
TEMPERATURES = (math.inf, 0.2, 0.07, 0.02)
"""Temperatures T of the votes exp(cosine / T) that are compared for each k. Infinity gives equal votes."""
DEFAULT_TEMPERATURE = 0.07
"""Temperature without folds to choose one by, from Wu et al. (2018)."""
MAX_BYTES = 4 << 30
"""The largest size of the float32 rows that a head stores, in memory and in its file."""

_Neighbours = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(n,) int64 query rows, (n, k) int64 rows nearest to them, and (n, k) float32 cosines."""


class KNearestEstimator:
    """Fits k nearest neighbours with votes exp(cosine / T), as Wu et al. (2018) and DINO's evaluation (Caron et al., 2021).

    The candidate is k. Each k has the T with the least held-out loss: log loss of the calibrated shares of votes for classes
    and labels, squared error for targets. Similarities of float32 rows of length 1 are computed once for all k and T, block by
    block. Rows of weight 0 are scored, but have no vote.

    Args:
        candidates: numbers of neighbours, the largest first.
        temperatures: the values of T that are compared.

    Examples:
        >>> rows = Rows(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]))
        >>> training = TrainingData(rows, np.array([0, 0, 1, 1]), 2, "classification", np.ones(4))
        >>> predictor = KNearestEstimator().fit(training, 2)
        >>> predictor.decision_function(np.array([[2.0, 0.1]])).argmax(axis=1)
        array([0])
    """

    def __init__(self, candidates: Sequence[float] = COUNTS, *, temperatures: Sequence[float] = TEMPERATURES) -> None:
        self.candidates = tuple(float(k) for k in candidates)
        self.temperatures = tuple(temperatures)
        self._chosen: tuple[TrainingData, dict[float, float]] | None = None

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Score each row by its nearest rows outside the fold that holds it out, with the best T for each k.

        Yields:
            Each k, and its (N, C) float64 scores; NaN for rows that no fold holds out.

        Raises:
            HeadError: there are too many rows, or only rows of weight 0 outside a fold.
        """
        _require_storable(training.rows)
        if self._chosen is None or self._chosen[0] is not training:
            self._chosen = training, {}
        chunks = list(_nearest_in_other_folds(training, max(_neighbours(k) for k in candidates)))
        for candidate in candidates:
            k, best, least = _neighbours(candidate), None, math.inf
            for temperature in self.temperatures:
                scores = np.full((len(training), training.count), np.nan)
                for rows, found, cosines in chunks:
                    scores[rows] = _scores(training, found[:, :k], cosines[:, :k], 1 / temperature)
                loss = _loss(training, scores)
                if best is None or loss < least:
                    best, least = scores, loss
                    self._chosen[1][candidate] = temperature
            assert best is not None
            yield candidate, best

    def fit(
        self, training: TrainingData, candidate: float
    ) -> NeighbourPredictor | NeighbourLabelsPredictor | NeighbourMeanPredictor:
        """Store all rows with a weight above 0, as float32 rows of length 1; k is at most their number.

        Raises:
            HeadError: there are too many rows, or only rows of weight 0.
        """
        _require_storable(training.rows)
        voters = np.flatnonzero(training.weight > 0)
        if not len(voters):
            raise HeadError("no row has a weight above 0, so none has a vote; give some row or class such a weight")
        support = np.empty((len(voters), training.rows.width), dtype=np.float32)
        for rows, block in training.rows.take(voters).blocks():
            support[rows] = nearest.unit(block)
        weight, y = training.weight[voters], training.y[voters]
        k = np.array(min(_neighbours(candidate), len(voters)))
        sharpness = np.array(1 / self._temperature(training, candidate))
        if training.task == "classification":
            return NeighbourPredictor(support, y.astype(np.int64), weight, k, sharpness, np.array(training.count))
        if training.task == "multilabel":
            return NeighbourLabelsPredictor(support, y.astype(np.uint8), weight, k, sharpness)
        return NeighbourMeanPredictor(support, y.astype(np.float64), weight, k, sharpness)

    def _temperature(self, training: TrainingData, candidate: float) -> float:
        """Return the T with the least held-out loss for this k, which is computed now if no search has done so."""
        if len(self.temperatures) == 1:
            return self.temperatures[0]
        if training.share is not None:
            training = training.share[0].views_as_images
        if not training.folds:
            return DEFAULT_TEMPERATURE
        if self._chosen is None or self._chosen[0] is not training or candidate not in self._chosen[1]:
            for _ in self.cross_val_scores(training, (candidate,)):
                pass
        assert self._chosen is not None
        return self._chosen[1][candidate]


def _neighbours(candidate: float) -> int:
    return max(1, int(candidate))


def _require_storable(rows: Rows) -> None:
    size = 4 * len(rows) * rows.width
    if size > MAX_BYTES:
        raise HeadError(
            f"a knn head stores every training row, which is {size_text(size)} for {len(rows):,} rows; expected at most "
            f"{size_text(MAX_BYTES)}; --model logreg, ridge or linear stores none"
        )


def _nearest_in_other_folds(training: TrainingData, most: int) -> Iterator[_Neighbours]:
    """Find the nearest rows of weight above 0 to each held-out row, outside the fold that holds it out.

    The rows are in memory once, in the order of their folds, so that those outside a fold are two slices.

    Args:
        training: rows and folds.
        most: the largest number of neighbours.
    """
    fold_of = training.fold_of
    voters = np.flatnonzero(training.weight > 0)
    order = voters[np.argsort(fold_of[voters], kind="stable")]
    support = np.empty((len(order), training.rows.width), dtype=np.float32)
    place = np.full(len(training), -1)
    place[order] = np.arange(len(order))
    for rows, block in training.rows.blocks():
        here = place[rows] >= 0
        support[place[rows][here]] = nearest.unit(block[here])
    for fold, (_, test) in enumerate(training.folds):
        start, end = np.searchsorted(fold_of[order], [fold, fold + 1])
        outside = np.concatenate([order[:start], order[end:]])
        if not len(outside):
            raise HeadError("no row outside a fold has a weight above 0; give more than one row or class such a weight")
        step = nearest.block_rows(len(outside))
        for at in range(0, len(test), step):
            queries = test[at : at + step]
            cosines = np.empty((len(queries), len(outside)), dtype=np.float32)
            block = nearest.unit(training.rows.block(queries))
            np.matmul(block, support[:start].T, out=cosines[:, :start])
            np.matmul(block, support[end:].T, out=cosines[:, start:])
            yield queries, *nearest.top(cosines, min(most, len(outside)), order=outside)


def _scores(training: TrainingData, found: np.ndarray, cosines: np.ndarray, sharpness: float) -> np.ndarray:
    """Score n rows by their (n, k) nearest rows and (n, k) cosines, as the predictors do: (n, C)."""
    cast = nearest.votes(cosines, training.weight[found], sharpness)
    if training.task == "classification":
        return nearest.log_shares(cast, training.y[found], training.count)
    if training.task == "multilabel":
        return nearest.logit_shares(cast, found, training.y)
    return nearest.means(cast, found, training.y)


def _loss(training: TrainingData, scores: np.ndarray) -> float:
    """Compute the weighted loss of (N, C) held-out scores, by which ``search`` chooses k too.

    The squared errors of targets are relative to their variances.
    """
    rows = np.flatnonzero(training.fold_of >= 0)
    y, scores, weight = training.y[rows], scores[rows], training.weight[rows]
    if training.task == "regression":
        variance = y.var(axis=0)
        return float(weight @ ((scores - y) ** 2 / np.where(variance > 0, variance, 1)).mean(axis=1))
    return float(weight @ held_out_losses(scores, training, rows))
