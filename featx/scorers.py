"""How each kind of head scores classes, and how it is fitted, on standardised features.

A scorer turns (N, D) into (N, C) scores; it is arrays alone, so that it is stored without pickle. N is the number of
images, D the width of the embedding, C the number of classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC


class Scorer(Protocol):
    """What every scorer can do."""

    def scores(self, Z: np.ndarray) -> np.ndarray:
        """(N, D) standardised features to (N, C) scores."""
        ...


@dataclass(frozen=True, eq=False)
class LinearScorer:
    """scores = Z W' + b.

    Attributes:
        weight: (C, D) float64.
        bias: (C,) float64.
    """

    weight: np.ndarray
    bias: np.ndarray

    def scores(self, Z: np.ndarray) -> np.ndarray:
        """(N, D) to (N, C)."""
        out: np.ndarray = Z @ self.weight.T + self.bias
        return out


@dataclass(frozen=True, eq=False)
class KernelScorer:
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

    def scores(self, Z: np.ndarray) -> np.ndarray:
        """(N, D) to (N, C)."""
        kernel = rbf_kernel(Z.astype(np.float64), self.support.astype(np.float64), gamma=float(self.gamma))
        out: np.ndarray = kernel @ self.dual.T + self.bias
        return out


@dataclass(frozen=True, eq=False)
class NeighbourScorer:
    """Log of the share of the k nearest rows (cosine) in each class, one vote spread evenly over the classes.

    Attributes:
        support: (S, D) float32.
        support_labels: (S,) int64.
        k: () int64.
        count: () int64, C.
    """

    support: np.ndarray
    support_labels: np.ndarray
    k: np.ndarray
    count: np.ndarray

    def scores(self, Z: np.ndarray) -> np.ndarray:
        """(N, D) to (N, C)."""
        k, count = int(self.k), int(self.count)
        neighbours = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(self.support, self.support_labels)
        votes = np.zeros((len(Z), count))
        votes[:, neighbours.classes_] = neighbours.predict_proba(Z.astype(np.float32)) * k
        shares: np.ndarray = np.log((votes + 1.0 / count) / (k + 1.0))
        return shares


SCORERS: Mapping[str, type[LinearScorer] | type[KernelScorer] | type[NeighbourScorer]] = {
    "linear": LinearScorer,
    "kernel": KernelScorer,
    "neighbour": NeighbourScorer,
}
"""By the name that a head's file keeps."""


class NotConvergedWarning(UserWarning):
    """A solver stopped before its optimum; the head says so in its notes."""


def fit_logreg(Z: np.ndarray, y: np.ndarray, count: int, C: float) -> LinearScorer:
    """Multinomial logistic regression with an L2 penalty: scikit-learn's ``LogisticRegression``, L-BFGS."""
    model = _converging(LogisticRegression(C=C, tol=1e-6, max_iter=10000), Z, y)
    return _per_class(model.coef_, model.intercept_, count)


def fit_svm(Z: np.ndarray, y: np.ndarray, count: int, C: float) -> LinearScorer:
    """Linear support vector machine, squared hinge, one-vs-rest: scikit-learn's ``LinearSVC``."""
    # A primal fit costs D^2, a dual one N^2; random_state only orders the dual's coordinates.
    model = _converging(LinearSVC(C=C, dual=len(Z) < Z.shape[1], max_iter=20000, random_state=0), Z, y)
    return _per_class(model.coef_, model.intercept_, count)


def fit_ridge(Z: np.ndarray, y: np.ndarray, count: int, C: float) -> LinearScorer:
    """Least squares to targets of -1 and 1 with an L2 penalty alpha = 1 / (2 C): scikit-learn's ``RidgeClassifier``."""
    model = RidgeClassifier(alpha=1.0 / (2.0 * C)).fit(Z, y)
    return _per_class(model.coef_, model.intercept_, count)


def fit_centroid(Z: np.ndarray, y: np.ndarray, count: int) -> LinearScorer:
    """Nearest class mean (Euclidean), as a linear scorer: -|z - c|^2 / 2 = z c - |c|^2 / 2, up to a term common to all."""
    centres = np.stack([Z[y == label].mean(axis=0, dtype=np.float64) for label in range(count)])
    return LinearScorer(centres, -0.5 * (centres**2).sum(axis=1))


def fit_rbf(Z: np.ndarray, y: np.ndarray, count: int, C: float) -> KernelScorer:
    """Support vector machine with a Gaussian kernel, one-vs-rest: scikit-learn's ``SVC``, gamma = 1 / (D var(Z))."""
    gamma = 1.0 / (Z.shape[1] * max(float(Z.var()), 1e-12))
    machines = OneVsRestClassifier(SVC(C=C, kernel="rbf", gamma=gamma)).fit(Z, y).estimators_
    used = np.unique(np.concatenate([machine.support_ for machine in machines]))
    dual = np.zeros((len(machines), len(used)))
    for row, machine in enumerate(machines):
        dual[row, np.searchsorted(used, machine.support_)] = machine.dual_coef_[0]
    bias = np.array([machine.intercept_[0] for machine in machines])
    if len(machines) < count:  # two classes, one machine
        dual, bias = np.stack([-dual[0], dual[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
    return KernelScorer(Z[used].astype(np.float32), dual, bias, np.array(gamma))


def fit_knn(Z: np.ndarray, y: np.ndarray, count: int, k: int) -> NeighbourScorer:
    """K nearest neighbours by cosine, equal votes: scikit-learn's ``KNeighborsClassifier``."""
    return NeighbourScorer(Z.astype(np.float32), y.astype(np.int64), np.array(min(k, len(y))), np.array(count))


def row_space(Z: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The rows of Z in coordinates of their own span, where there are fewer rows than columns.

    The optimum of an L2-penalised linear model lies in the span of its rows, and a rotation changes no inner product; so
    the fit (and each fold's) is the same at a cost that follows N instead of D.

    Returns:
        (N, N) coordinates and (N, D) basis with Z = coordinates @ basis, or None where N >= D.
    """
    if len(Z) >= Z.shape[1]:
        return None
    U, S, Vt = np.linalg.svd(Z, full_matrices=False)
    return U * S, Vt


def _converging(model: Any, Z: np.ndarray, y: np.ndarray) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(Z, y)
    if any(issubclass(w.category, ConvergenceWarning) for w in caught):
        name, limit = type(model).__name__, model.max_iter
        warnings.warn(f"{name} at C={model.C:g} had not converged after {limit} iterations", NotConvergedWarning, 3)
    return model


def _per_class(weight: np.ndarray, bias: np.ndarray, count: int) -> LinearScorer:
    """One row per class; scikit-learn gives one row for two classes, whose score is the second's minus the first's."""
    weight, bias = np.atleast_2d(weight).astype(np.float64), np.atleast_1d(bias).astype(np.float64)
    if len(weight) < count:
        weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
    return LinearScorer(weight, bias)
