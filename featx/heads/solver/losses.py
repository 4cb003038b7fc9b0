"""The losses of linear classifiers, with gradients and curvatures, for many problems at once. numpy only."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Loss(Protocol):
    """Of the scores of a block of rows."""

    outputs: int
    penalises_bias: bool

    def judge(self, L: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """(K, P, n) scores, which may be overwritten, to (P, n) losses and their (K, P, n) derivatives."""
        ...

    def curvature(self, L: np.ndarray, rows: slice) -> np.ndarray:
        """(K, P, n) scores to the diagonal of the loss's second derivative, (K, P, n)."""
        ...

    def bend(self, L: np.ndarray, M: np.ndarray, rows: slice) -> np.ndarray:
        """(K, P, n) scores, and (K, P, n) steps, to the loss's second derivative times the steps, (K, P, n)."""
        ...


class Softmax:
    """Multinomial logistic loss of K >= 3 classes.

    Args:
        y: (N,) int64 in 0..K-1.
        count: K.
    """

    penalises_bias = False

    def __init__(self, y: np.ndarray, count: int) -> None:
        self.y, self.outputs = y, count

    def judge(self, L: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """As ``Loss.judge``."""
        y = self.y[rows]
        at = np.arange(len(y))
        L -= L.max(axis=0)
        own = L[y, :, at].T
        np.exp(L, out=L)
        # Apart from the true class's, the terms are small where it is nearly certain, and 1 - p would lose their digits.
        L[y, :, at] = 0
        others = L.sum(axis=0)
        true = np.exp(own)
        total = true + others
        L *= 1 / total
        L[y, :, at] = (-others / total).T
        value = np.where(true > 0.5, np.log1p(others / np.maximum(true, 0.5)), np.log(total) - own)
        return value, L

    def curvature(self, L: np.ndarray, rows: slice) -> np.ndarray:  # noqa: ARG002 - labels do not matter
        """As ``Loss.curvature``."""
        top = L.argmax(axis=0)[None]
        E: np.ndarray = np.exp(L - np.take_along_axis(L, top, axis=0))
        np.put_along_axis(E, top, 0, axis=0)  # 1 - p of the likeliest class, by the others: p would lose the digits
        others = E.sum(axis=0)
        E /= 1 + others
        rest = 1 - E
        np.put_along_axis(E, top, (1 / (1 + others))[None], axis=0)
        np.put_along_axis(rest, top, (others / (1 + others))[None], axis=0)
        E *= rest
        return E

    def bend(self, L: np.ndarray, M: np.ndarray, rows: slice) -> np.ndarray:  # noqa: ARG002 - labels do not matter
        """As ``Loss.bend``."""
        top = L.argmax(axis=0)[None]
        p: np.ndarray = np.exp(L - np.take_along_axis(L, top, axis=0))
        p /= p.sum(axis=0)
        M = M - np.take_along_axis(
            M, top, axis=0
        )  # which changes nothing, but that its product with p keeps its digits
        p *= M - (p * M).sum(axis=0)
        return p


class _EachLabel:
    """A loss of one output for each label, each by itself: the second derivative is its diagonal.

    Args:
        positive: (K, N) bool.
    """

    def __init__(self, positive: np.ndarray) -> None:
        self.sign, self.outputs = np.where(positive, 1, -1).astype(np.int8), len(positive)

    def curvature(self, L: np.ndarray, rows: slice) -> np.ndarray:
        raise NotImplementedError

    def bend(self, L: np.ndarray, M: np.ndarray, rows: slice) -> np.ndarray:
        """As ``Loss.bend``."""
        bent: np.ndarray = self.curvature(L, rows) * M
        return bent


class Logistic(_EachLabel):
    """Logistic loss of one output for each label: two classes, or many labels of their own.

    Args:
        positive: (K, N) bool.
    """

    penalises_bias = False

    def judge(self, L: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """As ``Loss.judge``."""
        sign = self.sign[:, None, rows].astype(L.dtype)
        L *= sign
        E = np.exp(-np.abs(L))
        value = np.log1p(E)
        value -= np.minimum(L, 0)
        residual = np.where(L > 0, E, 1)  # exp(-L) / (1 + exp(-L)), of what cannot overflow
        residual /= 1 + E
        residual *= -sign
        return value.sum(axis=0), residual

    def curvature(self, L: np.ndarray, rows: slice) -> np.ndarray:  # noqa: ARG002 - labels do not matter
        """As ``Loss.curvature``."""
        E: np.ndarray = np.exp(-np.abs(L))
        E /= (1 + E) ** 2
        return E


class SquaredHinge(_EachLabel):
    """Squared hinge loss, one output for each class against the rest; the intercept is penalised, as in LIBLINEAR.

    Args:
        positive: (K, N) bool.
    """

    penalises_bias = True

    def judge(self, L: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """As ``Loss.judge``."""
        sign = self.sign[:, None, rows].astype(L.dtype)
        L *= -sign
        L += 1
        np.maximum(L, 0, out=L)
        value = np.einsum("kpn,kpn->pn", L, L)
        L *= -2 * sign
        return value, L

    def curvature(self, L: np.ndarray, rows: slice) -> np.ndarray:
        """As ``Loss.curvature``."""
        return np.where(self.sign[:, None, rows] * L < 1, 2, 0).astype(L.dtype)
