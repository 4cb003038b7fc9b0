"""Logistic regression towards the text of each class: the penalty is the distance from the zero-shot weights."""

from __future__ import annotations

import numpy as np

from featx.heads.estimators.linear import LinearPathEstimator
from featx.heads.predictors import CosinePredictor, LinearPredictor
from featx.heads.solver.losses import Loss
from featx.heads.solver.problems import Solution
from featx.heads.texts import ClassTexts
from featx.heads.training_data import TrainingData


class AnchoredEstimator(LinearPathEstimator):
    """Minimises the weighted log loss + |W - W0|^2 / (2 C) + |b|^2 / (2 C) on embeddings of length 1, for a path of C.

    W0 are the zero-shot weights, so that C near 0 is the zero-shot head, and a large C is logistic regression. Substituting
    W = W0 + V leaves an ordinary L2 penalty of V, and adds to the scores of each row those of W0, which are constant. Two
    classes have one weight vector, which is compared with the difference of their texts.

    Args:
        texts: of the classes, in the order of the training data.
        device: as ``LinearPathEstimator`` has it.
        coarse: as ``LinearPathEstimator`` has it.
    """

    def __init__(self, texts: ClassTexts, *, device: str = "cpu", coarse: bool = False) -> None:
        super().__init__(device=device, coarse=coarse)
        self.texts = texts
        self._anchor = LinearPredictor(texts.weight, np.full(len(texts.names), texts.bias))

    def _loss_of(self, training: TrainingData) -> Loss:
        scores = np.empty((len(training), len(self.texts.names)))
        for rows, block in training.rows.blocks(np.float64):
            scores[rows] = self._anchor.decision_function(block)
        loss = super()._loss_of(training)
        single = loss.outputs < scores.shape[1]
        return _WithOffset(loss, (scores[:, 1:] - scores[:, :1] if single else scores).T)

    def _score_held_out(self, solution: Solution, chunk: np.ndarray, scores: np.ndarray) -> None:
        super()._score_held_out(solution, chunk, scores)
        for fold in chunk:
            rows = self._order[self._data.folds[fold][1]]
            anchor = self._anchor.decision_function(self._training_rows(rows))
            for out in scores:
                out[rows] += anchor

    def _training_rows(self, rows: np.ndarray) -> np.ndarray:
        assert self._training is not None
        return self._training.rows.block(rows, np.float64)

    def _predictor(self, training: TrainingData, candidate: float, solution: Solution) -> CosinePredictor:
        away = super()._predictor(training, candidate, solution)
        return CosinePredictor(self._anchor.weight + away.weight, self._anchor.bias + away.bias)


class _WithOffset:
    """A loss whose scores are those of a solver plus constants of each row.

    Args:
        loss: of the sums.
        offset: (K, N) float64, the constants.
    """

    penalises_bias = True

    def __init__(self, loss: Loss, offset: np.ndarray) -> None:
        self.loss, self.offset, self.outputs = loss, offset, loss.outputs

    def value_and_derivative(self, scores: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        return self.loss.value_and_derivative(self._moved(scores, rows), rows)

    def hessian_diagonal(self, scores: np.ndarray, rows: slice) -> np.ndarray:
        return self.loss.hessian_diagonal(self._moved(scores, rows), rows)

    def hessian_product(self, scores: np.ndarray, steps: np.ndarray, rows: slice) -> np.ndarray:
        return self.loss.hessian_product(self._moved(scores, rows), steps, rows)

    def _moved(self, scores: np.ndarray, rows: slice) -> np.ndarray:
        moved: np.ndarray = scores + self.offset[:, None, rows].astype(scores.dtype)
        return moved
