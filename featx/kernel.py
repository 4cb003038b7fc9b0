"""Support vector machines on a matrix of inner products that is made once: scikit-learn's ``SVC`` and ``SVR``.

N rows of D features, C classes, labels or targets, S of the rows support vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.svm import SVC, SVR

from featx.errors import HeadError, size_text
from featx.rows import Rows
from featx.scorers import KernelScorer, LinearScorer
from featx.training import Training

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Values of C that are compared."""
MOST_ROWS = 20_000
"""Of which every pair is kept, 8 bytes each: 3.2 GB, and 2 GB more for the pairs of four folds of five."""

_CACHE = 500  # MB of a machine's own
_BLOCK = 1024  # rows whose inner products with all others are made at once


class RbfModel:
    """Support vector machine with the kernel exp(-gamma |x - z|^2), gamma = 1 / (D var(Z)), as scikit-learn's "scale".

    The candidate is C. Classes and labels: ``SVC``, one machine for each against the rest. Numbers: ``SVR`` on targets less
    their weighted mean and divided by their weighted deviation, with a tube of 0.1. All machines of all folds and C share one
    kernel matrix, in float64: sums over it weigh its rounding errors by C. Gamma is that of all rows in every fold.

    Args:
        candidates: values of C, the smallest first.
    """

    def __init__(self, candidates: Sequence[float] = STRENGTHS) -> None:
        self.candidates = tuple(candidates)

    def held_out(self, training: Training, candidates: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        """For each C the (N, C) scores of each row by machines for the other folds; NaN where no fold holds it out.

        Raises:
            HeadError: too many rows, or none that counts beside a fold.
        """
        _require_few(training)
        return _held_out(training, candidates, _gaussian(training.rows, _gamma(training.rows)))

    def fit(self, training: Training, candidate: float) -> KernelScorer:
        """Fit to all rows.

        Raises:
            HeadError: too many rows, or none that counts.
        """
        _require_few(training)
        gamma = _gamma(training.rows)
        dual, bias = _machines(_gaussian(training.rows, gamma), np.arange(len(training)), training, candidate)
        used = np.flatnonzero((dual != 0).any(axis=0))
        if not len(used):  # constants alone; a file wants a row
            used = np.zeros(1, dtype=np.int64)
        return KernelScorer(training.rows.take(used).whole(), dual[:, used], bias, np.array(gamma))


class LinearSvrModel:
    """Support vector regression without a kernel: ``RbfModel`` for numbers, on plain inner products.

    Args:
        candidates: values of C, the smallest first.
    """

    def __init__(self, candidates: Sequence[float] = STRENGTHS) -> None:
        self.candidates = tuple(candidates)

    def held_out(self, training: Training, candidates: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        """As ``RbfModel.held_out``."""
        _require_few(training)
        return _held_out(training, candidates, _inner_products(training.rows))

    def fit(self, training: Training, candidate: float) -> LinearScorer:
        """As ``RbfModel.fit``."""
        _require_few(training)
        dual, bias = _machines(_inner_products(training.rows), np.arange(len(training)), training, candidate)
        weight = np.zeros((len(dual), training.rows.width))
        for rows, block in training.rows.blocks(np.float64):
            weight += dual[:, rows] @ block
        return LinearScorer(weight, bias)


def _require_few(training: Training) -> None:
    if len(training) > MOST_ROWS:
        size = size_text(14 * len(training) ** 2)
        raise HeadError(
            f"{len(training):,} rows are too many for a support vector machine with a kernel: of all pairs of them it would "
            f"take {size}; at most {MOST_ROWS:,} are taken; --model svm --kernel linear, logreg or ridge takes more"
            if training.task != "regression"
            else f"{len(training):,} rows are too many for support vector regression: of all pairs of them it would take "
            f"{size}; at most {MOST_ROWS:,} are taken; --model ridge takes more"
        )


def _held_out(
    training: Training, candidates: Sequence[float], kernel: np.ndarray
) -> Iterator[tuple[float, np.ndarray]]:
    for candidate in candidates:
        scores = np.full((len(training), training.count), np.nan)
        for train, test in training.folds:
            dual, bias = _machines(kernel, train, training, candidate)
            for at in range(0, len(test), _BLOCK):
                rows = test[at : at + _BLOCK]
                scores[rows] = kernel[np.ix_(rows, train)] @ dual.T + bias
        yield candidate, scores


def _machines(kernel: np.ndarray, train: np.ndarray, training: Training, C: float) -> tuple[np.ndarray, np.ndarray]:
    """(C, n) weights of kernels with n training rows, and (C,) biases.

    Args:
        kernel: (N, N) float64.
        train: (n,) int64.
        training: all rows.
        C: of the machines.
    """
    counting = np.flatnonzero(training.weight[train] > 0)
    rows = train[counting]
    if not len(rows):
        raise HeadError("no row of weight above 0 is left to fit to; give more than one row or class such a weight")
    square = kernel if len(rows) == len(kernel) else kernel[np.ix_(rows, rows)]
    y, weight = training.y[rows], training.weight[rows]
    dual, bias = np.zeros((training.count, len(train))), np.zeros(training.count)
    if training.task == "regression":
        for target in range(training.count):
            dual[target, counting], bias[target] = _regressor(square, y[:, target], weight, C)
        return dual, bias
    two = training.task == "classification" and training.count == 2
    for label in range(1 if two else 0, training.count):
        has = y == label if training.task == "classification" else y[:, label] > 0
        dual[label, counting], bias[label] = _classifier(square, has, weight, C)
    if two:  # one machine, whose score is the second's minus the first's
        dual, bias = np.stack([-dual[1], dual[1]]) / 2, np.array([-bias[1], bias[1]]) / 2
    return dual, bias


def _classifier(square: np.ndarray, has: np.ndarray, weight: np.ndarray, C: float) -> tuple[np.ndarray, float]:
    """(n,) and bias of one machine for (n,) bool; where all rows are alike, -1 or 1 for every image."""
    dual = np.zeros(len(has))
    if has.all() or not has.any():
        return dual, 1.0 if has[0] else -1.0
    machine = SVC(C=C, kernel="precomputed", cache_size=_CACHE).fit(square, has, sample_weight=weight)
    dual[machine.support_] = machine.dual_coef_[0]
    return dual, float(machine.intercept_[0])


def _regressor(square: np.ndarray, y: np.ndarray, weight: np.ndarray, C: float) -> tuple[np.ndarray, float]:
    """(n,) and bias of one machine for (n,) float64."""
    mean = np.average(y, weights=weight)
    deviation = float(np.sqrt(np.average((y - mean) ** 2, weights=weight))) or 1.0
    machine = SVR(C=C, kernel="precomputed", cache_size=_CACHE).fit(
        square, (y - mean) / deviation, sample_weight=weight
    )
    dual = np.zeros(len(y))
    dual[machine.support_] = machine.dual_coef_[0] * deviation
    return dual, float(machine.intercept_[0] * deviation + mean)


def _gamma(rows: Rows) -> float:
    """1 / (D var(Z))."""
    total = squares = 0.0
    for _, block in rows.blocks(np.float64):
        total += float(block.sum())
        squares += float(np.square(block, out=block).sum())
    size = max(1, len(rows) * rows.width)
    return 1.0 / (rows.width * max(squares / size - (total / size) ** 2, 1e-12))


def _inner_products(rows: Rows) -> np.ndarray:
    """(N, N) float64."""
    Z = rows.whole(np.float64)
    out: np.ndarray = Z @ Z.T
    return out


def _gaussian(rows: Rows, gamma: float) -> np.ndarray:
    """(N, N) float64, exp(-gamma |x - z|^2)."""
    out = _inner_products(rows)
    squares = out.diagonal().copy()
    for at in range(0, len(out), _BLOCK):
        block = out[at : at + _BLOCK]
        block *= -2
        block += squares
        block += squares[at : at + _BLOCK, None]
        np.maximum(block, 0, out=block)
        block *= -gamma
        np.exp(block, out=block)
    np.fill_diagonal(out, 1.0)
    return out
