"""How each kind of head scores classes, labels or numbers, on standardised features.

A scorer turns (N, D) into (N, C) scores; it is arrays alone, so that it is stored without pickle. N is the number of
images, D the width of the embedding, C the number of classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.metrics.pairwise import rbf_kernel

from featx.heads import nearest


class Predictor(Protocol):
    """What every scorer can do."""

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """(N, D) standardised features to (N, C) scores."""
        ...


@dataclass(frozen=True, eq=False)
class LinearPredictor:
    """scores = Z W' + b.

    Attributes:
        weight: (C, D) float64.
        bias: (C,) float64.
    """

    weight: np.ndarray
    bias: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """(N, D) to (N, C)."""
        out: np.ndarray = Z @ self.weight.T + self.bias
        return out


@dataclass(frozen=True, eq=False)
class HiddenLayerPredictor:
    """scores = max(Z H' + h, 0) W' + b: one hidden layer of U rectified linear units.

    Attributes:
        hidden_weight: H, (U, D) float32.
        hidden_bias: h, (U,) float32.
        weight: W, (C, U) float64.
        bias: b, (C,) float64.
    """

    hidden_weight: np.ndarray
    hidden_bias: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """(N, D) to (N, C)."""
        hidden = np.maximum(Z @ self.hidden_weight.T + self.hidden_bias, 0.0)
        out: np.ndarray = hidden @ self.weight.T + self.bias
        return out


@dataclass(frozen=True, eq=False)
class KernelPredictor:
    """scores = K(Z, support) A' + b, with K(x, z) = exp(-gamma |x - z|^2).

    Attributes:
        support: (S, D) float32.
        dual: (C, S) float64.
        bias: (C,) float64.
        gamma: () float64.
    """

    support: np.ndarray
    dual: np.ndarray
    bias: np.ndarray
    gamma: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """(N, D) to (N, C)."""
        support, out = self.support.astype(np.float64), np.empty((len(Z), len(self.bias)))
        step = nearest.block_rows(2 * len(support))
        for at in range(0, len(Z), step):
            kernel = rbf_kernel(Z[at : at + step].astype(np.float64), support, gamma=float(self.gamma))
            out[at : at + step] = kernel @ self.dual.T + self.bias
        return out


@dataclass(frozen=True, eq=False)
class NeighbourPredictor:
    """Log of each class's share of the votes of the k nearest rows (cosine), one vote more spread evenly over the classes.

    A row votes with its weight times exp(sharpness (cosine - the nearest's cosine)), as in Wu et al. (2018).

    Attributes:
        support: (S, D) float32, rows of length 1 (or 0).
        support_labels: (S,) int64.
        support_weight: (S,) float64, above 0.
        k: () int64.
        sharpness: () float64; 0 for equal votes.
        count: () int64, C.
    """

    support: np.ndarray
    support_labels: np.ndarray
    support_weight: np.ndarray
    k: np.ndarray
    sharpness: np.ndarray
    count: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """(N, D) to (N, C)."""
        out = np.empty((len(Z), int(self.count)))
        for rows, found, cast in _votes(self, Z):
            out[rows] = nearest.log_shares(cast, self.support_labels[found], int(self.count))
        return out


@dataclass(frozen=True, eq=False)
class NeighbourLabelsPredictor:
    """Logit of each label's share of the votes, half a vote more for it and half against; else as ``NeighbourPredictor``.

    Attributes:
        support: (S, D) float32, rows of length 1 (or 0).
        support_labels: (S, C) uint8 of 0 and 1.
        support_weight: (S,) float64, above 0.
        k: () int64.
        sharpness: () float64.
    """

    support: np.ndarray
    support_labels: np.ndarray
    support_weight: np.ndarray
    k: np.ndarray
    sharpness: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """(N, D) to (N, C)."""
        labels = self.support_labels.astype(np.float64)
        out = np.empty((len(Z), labels.shape[1]))
        for rows, found, cast in _votes(self, Z):
            out[rows] = nearest.logit_shares(cast, found, labels)
        return out


@dataclass(frozen=True, eq=False)
class NeighbourMeanPredictor:
    """Mean of the k nearest rows' numbers, each counted by its vote; else as ``NeighbourPredictor``.

    Attributes:
        support: (S, D) float32, rows of length 1 (or 0).
        support_values: (S, C) float64.
        support_weight: (S,) float64, above 0.
        k: () int64.
        sharpness: () float64.
    """

    support: np.ndarray
    support_values: np.ndarray
    support_weight: np.ndarray
    k: np.ndarray
    sharpness: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """(N, D) to (N, C)."""
        out = np.empty((len(Z), self.support_values.shape[1]))
        for rows, found, cast in _votes(self, Z):
            out[rows] = nearest.means(cast, found, self.support_values)
        return out


def _votes(
    predictor: NeighbourPredictor | NeighbourLabelsPredictor | NeighbourMeanPredictor, Z: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Which rows of Z, (n, k) rows of the support nearest to them, and their (n, k) votes."""
    for rows, found, similarities in nearest.search(Z, predictor.support, int(predictor.k)):
        yield rows, found, nearest.votes(similarities, predictor.support_weight[found], float(predictor.sharpness))


PREDICTORS: Mapping[str, type[Any]] = {
    "linear": LinearPredictor,
    "hidden": HiddenLayerPredictor,
    "kernel": KernelPredictor,
    "neighbour": NeighbourPredictor,
    "neighbour-labels": NeighbourLabelsPredictor,
    "neighbour-mean": NeighbourMeanPredictor,
}
"""By the name that a head's file keeps."""


class NotConvergedWarning(UserWarning):
    """A solver stopped before its optimum; the head says so in its notes."""
