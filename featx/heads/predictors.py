"""Predictors: fitted heads as arrays, which turn standardised features into scores.

A predictor turns (N, D) features into (N, C) scores. It consists of arrays alone, so a file holds it without pickle. N is
the number of rows, D the width of the features, C the number of classes, labels or targets, and S the number of support rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from featx.heads import nearest
from featx.io.schema import TINY, ArraySpec


class Predictor(Protocol):
    """A dataclass of arrays that scores standardised features.

    A predictor that is stored in a head's file also has two class attributes: ``FORM``, its name in the file, and ``ARRAYS``,
    an ``ArraySpec`` for each of its fields.
    """

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """Score (N, D) standardised features: (N, C) float64."""
        ...


@dataclass(frozen=True, eq=False)
class LinearPredictor:
    """A linear predictor: scores = Z W' + b.

    Attributes:
        weight: (C, D) float64.
        bias: (C,) float64.
    """

    FORM: ClassVar[str] = "linear"
    ARRAYS: ClassVar[Mapping[str, ArraySpec]] = {"weight": ArraySpec("F64", "CD"), "bias": ArraySpec("F64", "C")}

    weight: np.ndarray
    bias: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """Score (N, D) standardised features: (N, C) float64."""
        out: np.ndarray = Z @ self.weight.T + self.bias
        return out


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Divide (N, D) rows by their Euclidean lengths; a row of zeros stays as it is."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: np.ndarray = rows / np.where(lengths > 0, lengths, 1)
    return unit


@dataclass(frozen=True, eq=False)
class CosinePredictor:
    """A linear predictor of rows of length 1: scores = (z / |z|) W' + b. The features are not standardised.

    Attributes:
        weight: (C, D) float64.
        bias: (C,) float64.

    Examples:
        >>> CosinePredictor(10 * np.eye(2), np.zeros(2)).decision_function(np.array([[3.0, 4.0], [0.0, 0.0]]))
        array([[6., 8.],
               [0., 0.]])
    """

    FORM: ClassVar[str] = "cosine"
    ARRAYS: ClassVar[Mapping[str, ArraySpec]] = LinearPredictor.ARRAYS

    weight: np.ndarray
    bias: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """Score (N, D) features: (N, C) float64. A row of zeros has no direction, and every class the score of its bias."""
        out: np.ndarray = unit_rows(Z) @ self.weight.T + self.bias
        return out


@dataclass(frozen=True, eq=False)
class HiddenLayerPredictor:
    """A network with one hidden layer of U rectified linear units: scores = max(Z H' + h, 0) W' + b.

    Attributes:
        hidden_weight: H, (U, D) float32.
        hidden_bias: h, (U,) float32.
        weight: W, (C, U) float64.
        bias: b, (C,) float64.
    """

    FORM: ClassVar[str] = "hidden"
    ARRAYS: ClassVar[Mapping[str, ArraySpec]] = {
        "hidden_weight": ArraySpec("F32", "UD"),
        "hidden_bias": ArraySpec("F32", "U"),
        "weight": ArraySpec("F64", "CU"),
        "bias": ArraySpec("F64", "C"),
    }

    hidden_weight: np.ndarray
    hidden_bias: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """Score (N, D) standardised features: (N, C) float64."""
        hidden = np.maximum(Z @ self.hidden_weight.T + self.hidden_bias, 0.0)
        out: np.ndarray = hidden @ self.weight.T + self.bias
        return out


def root_scaled(components: np.ndarray) -> np.ndarray:
    """Divide (N, R) rows by the square roots of their lengths, so that their products are y_i y_j / |y|; zeros stay."""
    lengths = np.linalg.norm(components, axis=1, keepdims=True)
    scaled: np.ndarray = components / np.sqrt(np.where(lengths > 0, lengths, 1.0))
    return scaled


_PAIR_BYTES = 32 << 20  # of the products that are in memory at a time


@dataclass(frozen=True, eq=False)
class BilinearPredictor:
    """A linear predictor of features and of the products of R components of them: scores = Z W' + y' A y / |y| + b, y = P z.

    Attributes:
        projection: P, (R, D) float64.
        weight: W, (C, D) float64.
        quadratic: A, (C, R, R) float64, symmetric.
        bias: b, (C,) float64.

    Examples:
        >>> square = BilinearPredictor(np.eye(2), np.zeros((1, 2)), np.eye(2)[None], np.zeros(1))
        >>> square.decision_function(np.array([[3.0, 4.0], [0.0, 0.0]]))  # (9 + 16) / 5
        array([[5.],
               [0.]])
    """

    FORM: ClassVar[str] = "bilinear"
    ARRAYS: ClassVar[Mapping[str, ArraySpec]] = {
        "projection": ArraySpec("F64", "RD"),
        "weight": ArraySpec("F64", "CD"),
        "quadratic": ArraySpec("F64", "CRR"),
        "bias": ArraySpec("F64", "C"),
    }

    projection: np.ndarray
    weight: np.ndarray
    quadratic: np.ndarray
    bias: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """Score (N, D) standardised features: (N, C) float64."""
        out: np.ndarray = Z @ self.weight.T + self.bias
        count = self.projection.shape[0]
        by_pair = self.quadratic.reshape(len(out.T), count * count).T
        step = max(1, _PAIR_BYTES // (8 * count * count))
        for at in range(0, len(Z), step):
            y = root_scaled(Z[at : at + step] @ self.projection.T)
            out[at : at + step] += (y[:, :, None] * y[:, None, :]).reshape(len(y), -1) @ by_pair
        return out


@dataclass(frozen=True, eq=False)
class KernelPredictor:
    """A Gaussian kernel machine: scores = K(Z, support) A' + b, with K(x, z) = exp(-gamma |x - z|^2).

    Attributes:
        support: (S, D) float32, training rows.
        dual: A, (C, S) float64.
        bias: b, (C,) float64.
        gamma: () float64, the inverse squared width of the kernel.
    """

    FORM: ClassVar[str] = "kernel"
    ARRAYS: ClassVar[Mapping[str, ArraySpec]] = {
        "support": ArraySpec("F32", "SD"),
        "dual": ArraySpec("F64", "CS"),
        "bias": ArraySpec("F64", "C"),
        "gamma": ArraySpec("F64", "", 0),
    }

    support: np.ndarray
    dual: np.ndarray
    bias: np.ndarray
    gamma: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """Score (N, D) standardised features: (N, C) float64."""
        from sklearn.metrics.pairwise import rbf_kernel  # takes a second to import, and few heads need it

        support, out = self.support.astype(np.float64), np.empty((len(Z), len(self.bias)))
        step = nearest.block_rows(2 * len(support))
        for at in range(0, len(Z), step):
            kernel = rbf_kernel(Z[at : at + step].astype(np.float64), support, gamma=float(self.gamma))
            out[at : at + step] = kernel @ self.dual.T + self.bias
        return out


_SUPPORT = {
    "support": ArraySpec("F32", "SD"),
    "support_weight": ArraySpec("F64", "S", TINY),
    "k": ArraySpec("I64", "", 1, "S"),
    "sharpness": ArraySpec("F64", "", 0),
}
"""The arrays that all predictors by nearest neighbours share."""


@dataclass(frozen=True, eq=False)
class NeighbourPredictor:
    """Class scores by the k nearest rows: the log of each class's share of their votes.

    Similarity is the cosine. A row votes with its weight times exp(sharpness (cosine - the nearest row's cosine)), as in Wu
    et al. (2018). One more vote is spread evenly over the classes, so that no share is 0.

    Attributes:
        support: (S, D) float32, training rows of length 1 (or 0).
        support_labels: (S,) int64, their classes.
        support_weight: (S,) float64, above 0.
        k: () int64, the number of neighbours.
        sharpness: () float64; 0 for votes that do not depend on the cosine.
        count: () int64, C.
    """

    FORM: ClassVar[str] = "neighbour"
    ARRAYS: ClassVar[Mapping[str, ArraySpec]] = {
        **_SUPPORT,
        "support_labels": ArraySpec("I64", "S", 0, "C-1"),
        "count": ArraySpec("I64", "", "C", "C"),
    }

    support: np.ndarray
    support_labels: np.ndarray
    support_weight: np.ndarray
    k: np.ndarray
    sharpness: np.ndarray
    count: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """Score (N, D) standardised features: (N, C) float64."""
        out = np.empty((len(Z), int(self.count)))
        for rows, neighbours, votes in _votes(self, Z):
            out[rows] = nearest.log_shares(votes, self.support_labels[neighbours], int(self.count))
        return out


@dataclass(frozen=True, eq=False)
class NeighbourLabelsPredictor:
    """Label scores by the k nearest rows: the logit of each label's share of their votes.

    Half a vote is added for each label and half a vote against it. Otherwise this is ``NeighbourPredictor``.

    Attributes:
        support: (S, D) float32, training rows of length 1 (or 0).
        support_labels: (S, C) uint8 of 0 and 1, which labels each row has.
        support_weight: (S,) float64, above 0.
        k: () int64, the number of neighbours.
        sharpness: () float64; 0 for votes that do not depend on the cosine.
    """

    FORM: ClassVar[str] = "neighbour-labels"
    ARRAYS: ClassVar[Mapping[str, ArraySpec]] = {**_SUPPORT, "support_labels": ArraySpec("U8", "SC", 0, 1)}

    support: np.ndarray
    support_labels: np.ndarray
    support_weight: np.ndarray
    k: np.ndarray
    sharpness: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """Score (N, D) standardised features: (N, C) float64."""
        labels = self.support_labels.astype(np.float64)
        out = np.empty((len(Z), labels.shape[1]))
        for rows, neighbours, votes in _votes(self, Z):
            out[rows] = nearest.logit_shares(votes, neighbours, labels)
        return out


@dataclass(frozen=True, eq=False)
class NeighbourMeanPredictor:
    """Numbers by the k nearest rows: the mean of their values, weighted by their votes as in ``NeighbourPredictor``.

    Attributes:
        support: (S, D) float32, training rows of length 1 (or 0).
        support_values: (S, C) float64, their numbers.
        support_weight: (S,) float64, above 0.
        k: () int64, the number of neighbours.
        sharpness: () float64; 0 for votes that do not depend on the cosine.
    """

    FORM: ClassVar[str] = "neighbour-mean"
    ARRAYS: ClassVar[Mapping[str, ArraySpec]] = {**_SUPPORT, "support_values": ArraySpec("F64", "SC")}

    support: np.ndarray
    support_values: np.ndarray
    support_weight: np.ndarray
    k: np.ndarray
    sharpness: np.ndarray

    def decision_function(self, Z: np.ndarray) -> np.ndarray:
        """Score (N, D) standardised features: (N, C) float64."""
        out = np.empty((len(Z), self.support_values.shape[1]))
        for rows, neighbours, votes in _votes(self, Z):
            out[rows] = nearest.means(votes, neighbours, self.support_values)
        return out


def _votes(
    predictor: NeighbourPredictor | NeighbourLabelsPredictor | NeighbourMeanPredictor, Z: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Search the nearest support rows block by block.

    Yields:
        The rows of Z in the block; (n, k) int64, the support rows nearest to them; and their (n, k) votes.
    """
    for rows, neighbours, similarities in nearest.search(Z, predictor.support, int(predictor.k)):
        weight = predictor.support_weight[neighbours]
        yield rows, neighbours, nearest.votes(similarities, weight, float(predictor.sharpness))


class NotConvergedWarning(UserWarning):
    """A solver stopped before it reached its optimum. ``Head.fit`` turns the warning into one of the head's notes."""
