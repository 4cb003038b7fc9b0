"""The losses of linear classifiers, with first and second derivatives, for many problems at once. numpy only.

K outputs, P problems, N rows, of which a block has n. Scores are (K, P, n).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Loss(Protocol):
    """A loss of the scores of a block of rows.

    Attributes:
        outputs: K.
        penalises_bias: whether the L2 penalty includes the intercepts.
    """

    outputs: int
    penalises_bias: bool

    def value_and_derivative(self, scores: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate the losses, (P, n), and their derivatives by the scores, (K, P, n).

        Args:
            scores: (K, P, n); may be overwritten.
            rows: the rows of the block.
        """
        ...

    def hessian_diagonal(self, scores: np.ndarray, rows: slice) -> np.ndarray:
        """Evaluate the diagonal of the second derivative by the scores, (K, P, n)."""
        ...

    def hessian_product(self, scores: np.ndarray, steps: np.ndarray, rows: slice) -> np.ndarray:
        """Multiply the second derivative by the scores with (K, P, n) steps: (K, P, n)."""
        ...


class Softmax:
    """Multinomial logistic loss (cross-entropy) of K >= 3 classes.

    Args:
        y: (N,) int64 in 0..K-1.
        count: K.

    Examples:
        >>> loss = Softmax(np.array([0, 2]), 3)
        >>> value, derivative = loss.value_and_derivative(np.zeros((3, 1, 2)), slice(0, 2))
        >>> value.round(3)  # log 3
        array([[1.099, 1.099]])
        >>> derivative[:, 0, 0].round(3)  # probabilities less the one-hot label
        array([-0.667,  0.333,  0.333])
    """

    penalises_bias = False

    def __init__(self, y: np.ndarray, count: int) -> None:
        self.y, self.outputs = y, count

    def value_and_derivative(self, scores: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate the losses, (P, n), and their derivatives, (K, P, n); overwrites the scores."""
        y, L = self.y[rows], scores
        at = np.arange(len(y))
        L -= L.max(axis=0)
        own = L[y, :, at].T
        np.exp(L, out=L)
        # Where the true class is nearly certain, 1 - p would lose its digits; the sum of the other, small terms keeps them.
        L[y, :, at] = 0
        others = L.sum(axis=0)
        true = np.exp(own)
        total = true + others
        L *= 1 / total
        L[y, :, at] = (-others / total).T
        value = np.where(true > 0.5, np.log1p(others / np.maximum(true, 0.5)), np.log(total) - own)
        return value, L

    def hessian_diagonal(self, scores: np.ndarray, rows: slice) -> np.ndarray:  # noqa: ARG002 - independent of labels
        """Evaluate the diagonal of the second derivative, (K, P, n): p (1 - p)."""
        top = scores.argmax(axis=0)[None]
        E: np.ndarray = np.exp(scores - np.take_along_axis(scores, top, axis=0))
        np.put_along_axis(E, top, 0, axis=0)  # 1 - p of the top class is summed from the others, which keeps its digits
        others = E.sum(axis=0)
        E /= 1 + others
        rest = 1 - E
        np.put_along_axis(E, top, (1 / (1 + others))[None], axis=0)
        np.put_along_axis(rest, top, (others / (1 + others))[None], axis=0)
        E *= rest
        return E

    def hessian_product(self, scores: np.ndarray, steps: np.ndarray, rows: slice) -> np.ndarray:  # noqa: ARG002 - as above
        """Multiply the second derivative with (K, P, n) steps: (K, P, n)."""
        top = scores.argmax(axis=0)[None]
        p: np.ndarray = np.exp(scores - np.take_along_axis(scores, top, axis=0))
        p /= p.sum(axis=0)
        # The second derivative maps a constant to 0, so that subtracting one only keeps digits of the product with p.
        steps = steps - np.take_along_axis(steps, top, axis=0)
        p *= steps - (p * steps).sum(axis=0)
        return p


class _BinaryLosses:
    """A sum of losses of one output per label. Each depends on its own score, so the second derivative is diagonal.

    Args:
        positive: (K, N) bool, whether each row has each label.
    """

    def __init__(self, positive: np.ndarray) -> None:
        self.sign, self.outputs = np.where(positive, 1, -1).astype(np.int8), len(positive)

    def hessian_diagonal(self, scores: np.ndarray, rows: slice) -> np.ndarray:
        raise NotImplementedError

    def hessian_product(self, scores: np.ndarray, steps: np.ndarray, rows: slice) -> np.ndarray:
        """Multiply the second derivative with (K, P, n) steps: (K, P, n)."""
        product: np.ndarray = self.hessian_diagonal(scores, rows) * steps
        return product


class Logistic(_BinaryLosses):
    """Logistic loss of one output per label: for two classes, or for multilabel targets.

    Args:
        positive: (K, N) bool.

    Examples:
        >>> loss = Logistic(np.array([[True, False]]))
        >>> value, derivative = loss.value_and_derivative(np.array([[[0.0, 2.0]]]), slice(0, 2))
        >>> value.round(3), derivative.round(3)
        (array([[0.693, 2.127]]), array([[[-0.5  ,  0.881]]]))
    """

    penalises_bias = False

    def value_and_derivative(self, scores: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate the losses, (P, n), and their derivatives, (K, P, n); overwrites the scores."""
        L = scores
        sign = self.sign[:, None, rows].astype(L.dtype)
        L *= sign
        E = np.exp(-np.abs(L))
        value = np.log1p(E)
        value -= np.minimum(L, 0)
        residual = np.where(L > 0, E, 1)  # exp(-L) / (1 + exp(-L)), written so that it cannot overflow
        residual /= 1 + E
        residual *= -sign
        return value.sum(axis=0), residual

    def hessian_diagonal(self, scores: np.ndarray, rows: slice) -> np.ndarray:  # noqa: ARG002 - independent of labels
        """Evaluate the diagonal of the second derivative, (K, P, n): p (1 - p)."""
        E: np.ndarray = np.exp(-np.abs(scores))
        E /= (1 + E) ** 2
        return E


class SquaredHinge(_BinaryLosses):
    """Squared hinge loss, one output for each class against the rest. The intercept is penalised, as in LIBLINEAR.

    Args:
        positive: (K, N) bool.

    Examples:
        >>> loss = SquaredHinge(np.array([[True, False]]))
        >>> value, derivative = loss.value_and_derivative(np.array([[[0.0, -2.0]]]), slice(0, 2))
        >>> value
        array([[1., 0.]])
    """

    penalises_bias = True

    def value_and_derivative(self, scores: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate the losses, (P, n), and their derivatives, (K, P, n); overwrites the scores."""
        L = scores
        sign = self.sign[:, None, rows].astype(L.dtype)
        L *= -sign
        L += 1
        np.maximum(L, 0, out=L)
        value = np.einsum("kpn,kpn->pn", L, L)
        L *= -2 * sign
        return value, L

    def hessian_diagonal(self, scores: np.ndarray, rows: slice) -> np.ndarray:
        """Evaluate the diagonal of the second derivative, (K, P, n): 2 within the margin, else 0."""
        return np.where(self.sign[:, None, rows] * scores < 1, 2, 0).astype(scores.dtype)
