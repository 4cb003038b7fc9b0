"""The nearest class mean. numpy only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import sparse

from featx.errors import HeadError
from featx.heads.predictors import LinearPredictor
from featx.heads.training_data import TrainingData


class CentroidModel:
    """Nearest class mean (Euclidean), as a linear scorer: -|z - c|^2 / 2 = z c - |c|^2 / 2, up to a term common to all.

    Rows count by their weight. A class none of whose rows count stands at the origin, with a bias so low that it comes last
    for a row of usual length.
    """

    candidates = (0.0,)

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """The (N, C) scores of each row by the class means without its fold: sums by fold and class, in one pass.

        A row that no fold holds out gets NaN.

        Raises:
            HeadError: a task without classes.
        """
        fold_of, folds = training.fold_of, range(len(training.folds))
        sums, weights = _class_sums(training, fold_of, len(folds))
        scorers = []
        for fold in folds:
            others = np.arange(-1, len(folds)) != fold
            scorers.append(_nearest_mean(sums[others].sum(axis=0), weights[others].sum(axis=0)))
        scores = np.full((len(training), training.count), np.nan)
        for rows, block in training.rows.blocks(np.float64):
            for fold, predictor in enumerate(scorers):
                here = np.flatnonzero(fold_of[rows] == fold)
                scores[rows.start + here] = predictor.decision_function(block[here])
        for candidate in candidates:
            yield candidate, scores

    def fit(self, training: TrainingData, candidate: float) -> LinearPredictor:  # noqa: ARG002 - there is nothing to choose
        """The mean of each class.

        Raises:
            HeadError: a task without classes.
        """
        sums, weights = _class_sums(training, np.full(len(training), -1), 0)
        return _nearest_mean(sums[0], weights[0])


def _class_sums(training: TrainingData, fold_of: np.ndarray, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums of the rows, (1 + F, C, D), and of their weights, (1 + F, C), by fold and class.

    Args:
        training: rows, classes and weights.
        fold_of: (N,) int64, -1 for rows of no fold, whose sums come first.
        folds: F.
    """
    if training.task != "classification":
        raise HeadError(
            f"a centroid head tells classes apart, and this is {training.task}; --model ridge or knn can do it"
        )
    cell = (fold_of + 1) * training.count + training.y
    cells = (folds + 1) * training.count
    sums = np.zeros((cells, training.rows.width))
    for rows, block in training.rows.blocks(np.float64):
        members = np.arange(len(block))
        sums += sparse.csr_matrix((training.weight[rows], (cell[rows], members)), shape=(cells, len(block))) @ block
    weights = np.bincount(cell, training.weight, cells)
    return sums.reshape(folds + 1, training.count, -1), weights.reshape(folds + 1, training.count)


def _nearest_mean(sums: np.ndarray, weights: np.ndarray) -> LinearPredictor:
    """Of (C, D) sums and (C,) weights."""
    centres = sums / np.where(weights > 0, weights, 1)[:, None]
    squares = (centres**2).sum(axis=1)
    # By Cauchy and Schwarz no class scores below this for a standardised row of the usual length, sqrt(D).
    lowest = -0.5 * squares.max() - math.sqrt(squares.max() * sums.shape[1])
    return LinearPredictor(centres, np.where(weights > 0, -0.5 * squares, lowest))
