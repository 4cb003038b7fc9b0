"""The problems that linear heads are the solutions of, as sums of losses with first and second derivatives, at their optimum.

N rows, D features, C classes, labels or targets, K outputs, of which k are coupled by the Hessian.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.special import expit, logsumexp

from featx.heads.predictors import LinearPredictor
from featx.heads.training_data import TrainingData


@dataclass(frozen=True, eq=False)
class Problem:
    """Some outputs of a head that are fitted together, at their optimum.

    The objective is the sum of the losses of all rows, with a penalty of ``strength`` / 2 |w|^2.

    Attributes:
        outputs: (C, K), from outputs to scores.
        weight: (K, D), of the outputs.
        bias: (K,).
        strength: of the penalty on weights.
        bias_strength: of the penalty on the intercepts.
        targets: (N,) or (N, K), of each row.
        importance: (N,) float64, the factor of each row's loss.
        kind: "squared", "logistic", "hinge" or "softmax".
    """

    outputs: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    strength: float
    bias_strength: float
    targets: np.ndarray
    importance: np.ndarray
    kind: str

    def penalty(self, side: int) -> np.ndarray:
        """The second derivatives of the penalty on r weights and an intercept: (r + 1,)."""
        out = np.full(side, self.strength)
        out[-1] = self.bias_strength
        return out

    @property
    def shared(self) -> bool:
        """Whether all outputs have the same Hessian, as with squared errors, and no part in one another's."""
        return self.kind == "squared"

    def derivatives(self, scores: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray, float]:
        """Differentiate the loss of a block of rows by its outputs.

        Args:
            scores: (b, K) outputs.
            rows: which rows.

        Returns:
            (b, K), minus the first derivatives; what makes the second ones: (b, 1), themselves, or (b, C), the probabilities of
            a softmax; and the sum of the losses.
        """
        targets, factor = self.targets[rows], self.importance[rows, None]
        if self.kind == "squared":
            residual = targets - scores
            return factor * residual, factor, 0.5 * float((factor * residual**2).sum())
        if self.kind == "softmax":
            return self._softmax(scores @ self.outputs.T, targets, factor)
        margin = targets[:, None] * scores
        if self.kind == "hinge":
            inside = np.maximum(1 - margin, 0)
            first = 2 * factor * targets[:, None] * inside
            return first, 2 * factor * (inside > 0), float((factor * inside**2).sum())
        p = expit(-margin)  # of the other class
        loss = float((factor * np.logaddexp(0, -margin)).sum())
        return factor * targets[:, None] * p, factor * p * (1 - p), loss

    def _softmax(
        self, scores: np.ndarray, targets: np.ndarray, factor: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        scores -= logsumexp(scores, axis=1, keepdims=True)
        p, true = np.exp(scores), (np.arange(len(targets)), targets)
        first = -p
        first[true] += 1
        return factor * (first @ self.outputs), p, -float(factor[:, 0] @ scores[true])

    def hessian_product(self, parts: np.ndarray, rows: slice, vectors: np.ndarray) -> np.ndarray:
        """Multiply the second derivatives of a block of rows, by what makes them, with (b, k) vectors: (b, k)."""
        if self.kind != "softmax":
            product: np.ndarray = parts * vectors
            return product
        scores = vectors @ self.outputs.T
        product = parts * (scores - (parts * scores).sum(axis=1, keepdims=True))
        return np.asarray(self.importance[rows, None] * (product @ self.outputs))

    def hessian(self, parts: np.ndarray, rows: slice) -> np.ndarray:
        """The second derivatives of a block of rows: (b, k, k)."""
        if self.kind != "softmax":
            return parts[:, :, None]
        middle = parts @ self.outputs
        second = np.einsum("bc,ck,cl->bkl", parts, self.outputs, self.outputs, optimize=True)
        second -= middle[:, :, None] * middle[:, None, :]
        return np.asarray(self.importance[rows, None, None] * second)

    def mean_hessian(self, parts: np.ndarray) -> np.ndarray:
        """The mean of the diagonal of the second derivatives of each row: (N,)."""
        if self.kind != "softmax":
            return np.asarray(parts[:, 0])
        return np.asarray(self.importance * (1 - np.square(parts).sum(axis=1)) / self.outputs.shape[1])


def problems_of(predictor: LinearPredictor, training: TrainingData, kind: str, C: float) -> tuple[Problem, ...]:
    """The problems that a head consists of, in each view of each image."""
    y = np.repeat(training.y, training.views, axis=0)
    importance = np.repeat(training.weight, training.views)
    count, weight, bias = training.count, predictor.weight, predictor.bias
    two = training.task == "classification" and count == 2
    if kind == "ridge":  # alpha = 1 / (2 C)
        targets = y if training.task == "regression" else _signs(y, training) * (0.5 if two else 1.0)
        return (Problem(np.eye(count), weight, bias, 1 / (2 * C), 0.0, targets, importance, "squared"),)
    loss, bias_strength = ("hinge", 1.0) if kind == "svm" else ("logistic", 0.0)
    if two:
        halves = np.array([[-0.5], [0.5]])
        one, shift = weight[1:] - weight[:1], bias[1:] - bias[:1]
        return (Problem(halves, one, shift, 1.0, bias_strength, _signs(y, training)[:, 1], C * importance, loss),)
    if training.task == "multilabel" or kind == "svm":
        signs, unit = _signs(y, training), np.eye(count)
        return tuple(
            Problem(unit[:, [c]], weight[[c]], bias[[c]], 1.0, bias_strength, signs[:, c], C * importance, loss)
            for c in range(count)
        )
    contrasts = linalg.helmert(count).T  # (C, C - 1), orthonormal and orthogonal to a shift of all scores
    return (Problem(contrasts, contrasts.T @ weight, contrasts.T @ bias, 1.0, 0.0, y, C * importance, "softmax"),)


def _signs(y: np.ndarray, training: TrainingData) -> np.ndarray:
    """1 for the classes or labels that each row has, -1 for others: (N, C) float64."""
    positive = y[:, None] == np.arange(training.count) if training.task == "classification" else y > 0.5
    return np.where(positive, 1.0, -1.0)
