"""The nearest class mean. numpy and scipy only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import sparse

from featx.errors import HeadError
from featx.heads.predictors import LinearPredictor
from featx.heads.training_data import TrainingData


class NearestCentroidEstimator:
    """Fits the nearest class mean (Euclidean) as a linear predictor: -|z - c|^2 / 2 = z c - |c|^2 / 2 - |z|^2 / 2.

    The last term is the same for all classes and is left out. Means are weighted. A class without rows of a weight above 0 has
    its mean at the origin, and a bias so low that it comes last for a row of usual length.

    Attributes:
        candidates: (0.0,), because there is no hyper-parameter.

    Examples:
        >>> from featx.heads.training_data import Rows
        >>> rows = Rows(np.array([[0.0, 1.0], [0.0, 3.0], [4.0, 0.0]]))
        >>> training = TrainingData(rows, np.array([0, 0, 1]), 2, "classification", np.ones(3))
        >>> predictor = NearestCentroidEstimator().fit(training, 0.0)
        >>> predictor.weight
        array([[0., 2.],
               [4., 0.]])
        >>> predictor.bias
        array([-2., -8.])
    """

    candidates = (0.0,)

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Score each row by the class means without the fold that holds it out, from sums that are computed in one pass.

        Yields:
            Each candidate, and the (N, C) float64 scores; NaN for rows that no fold holds out.

        Raises:
            HeadError: the task is not classification.
        """
        fold_of, folds = training.fold_of, range(len(training.folds))
        sums, weights = _class_sums(training, fold_of, len(folds))
        predictors = []
        for fold in folds:
            others = np.arange(-1, len(folds)) != fold
            predictors.append(_predictor(sums[others].sum(axis=0), weights[others].sum(axis=0)))
        scores = np.full((len(training), training.count), np.nan)
        for rows, block in training.rows.blocks(np.float64):
            for fold, predictor in enumerate(predictors):
                here = np.flatnonzero(fold_of[rows] == fold)
                scores[rows.start + here] = predictor.decision_function(block[here])
        for candidate in candidates:
            yield candidate, scores

    def fit(self, training: TrainingData, candidate: float) -> LinearPredictor:  # noqa: ARG002 - no hyper-parameter
        """Compute the mean of each class over all rows.

        Raises:
            HeadError: the task is not classification.
        """
        sums, weights = _class_sums(training, np.full(len(training), -1), 0)
        return _predictor(sums[0], weights[0])


def _class_sums(training: TrainingData, fold_of: np.ndarray, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum rows and weights by fold and class.

    Args:
        training: N rows of D features, classes and weights.
        fold_of: (N,) int64; -1 for rows of no fold, whose sums come first.
        folds: F.

    Returns:
        Weighted sums of the rows, (1 + F, C, D) float64, and sums of the weights, (1 + F, C) float64.
    """
    if training.task != "classification":
        raise HeadError(
            f"a centroid head is for classification, not for {training.task}; --model ridge or knn can do it"
        )
    cell = (fold_of + 1) * training.count + training.y
    cells = (folds + 1) * training.count
    sums = np.zeros((cells, training.rows.width))
    for rows, block in training.rows.blocks(np.float64):
        members = np.arange(len(block))
        sums += sparse.csr_matrix((training.weight[rows], (cell[rows], members)), shape=(cells, len(block))) @ block
    weights = np.bincount(cell, training.weight, cells)
    return sums.reshape(folds + 1, training.count, -1), weights.reshape(folds + 1, training.count)


def _predictor(sums: np.ndarray, weights: np.ndarray) -> LinearPredictor:
    """Make a predictor of (C, D) sums of rows and (C,) sums of weights."""
    centres = sums / np.where(weights > 0, weights, 1)[:, None]
    squares = (centres**2).sum(axis=1)
    # By the Cauchy-Schwarz inequality no class scores below this for a standardised row of the usual length, sqrt(D).
    lowest = -0.5 * squares.max() - math.sqrt(squares.max() * sums.shape[1])
    return LinearPredictor(centres, np.where(weights > 0, -0.5 * squares, lowest))
