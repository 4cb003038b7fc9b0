"""Support vector machines on a matrix of inner products that is made once: scikit-learn's ``SVC`` and ``SVR``.

N rows of D features, C classes, labels or targets, S of the rows support vectors.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC, SVR

from featx.errors import HeadError
from featx.heads.predictors import KernelPredictor, LinearPredictor, NotConvergedWarning
from featx.heads.training_data import Rows, TrainingData
from featx.text import size_text

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Values of C that are compared."""
MOST_ROWS = 20_000
"""Of which every pair is kept, 8 bytes each: 3.2 GB, and 2 GB more for the pairs of four folds of five."""

MOST_STEPS, MOST_STEPS_PER_ROW = 100_000, 20
"""Of libsvm for one machine, whichever is more: without an end, a large C on rows that span few dimensions takes hours."""

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

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """For each C the (N, C) scores of each row by machines for the other folds; NaN where no fold holds it out.

        Raises:
            HeadError: too many rows, or none that counts beside a fold.

        Warns:
            NotConvergedWarning: some machines were stopped before their optimum.
        """
        _require_few(training)
        return _held_out(training, candidates, _gaussian(training.rows, _gamma(training.rows)))

    def fit(self, training: TrainingData, candidate: float) -> KernelPredictor:
        """Fit to all rows.

        Raises:
            HeadError: too many rows, or none that counts.

        Warns:
            NotConvergedWarning: as ``cross_val_scores``.
        """
        _require_few(training)
        gamma = _gamma(training.rows)
        dual, bias = _final(_gaussian(training.rows, gamma), training, candidate)
        used = np.flatnonzero((dual != 0).any(axis=0))
        if not len(used):  # constants alone; a file wants a row
            used = np.zeros(1, dtype=np.int64)
        return KernelPredictor(training.rows.take(used).whole(), dual[:, used], bias, np.array(gamma))


class LinearSvrModel:
    """Support vector regression without a kernel: ``RbfModel`` for numbers, on plain inner products.

    Args:
        candidates: values of C, the smallest first.
    """

    def __init__(self, candidates: Sequence[float] = STRENGTHS) -> None:
        self.candidates = tuple(candidates)

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """As ``RbfModel.cross_val_scores``."""
        _require_few(training)
        return _held_out(training, candidates, _inner_products(training.rows))

    def fit(self, training: TrainingData, candidate: float) -> LinearPredictor:
        """As ``RbfModel.fit``."""
        _require_few(training)
        dual, bias = _final(_inner_products(training.rows), training, candidate)
        weight = np.zeros((len(dual), training.rows.width))
        for rows, block in training.rows.blocks(np.float64):
            weight += dual[:, rows] @ block
        return LinearPredictor(weight, bias)


def _require_few(training: TrainingData) -> None:
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
    training: TrainingData, candidates: Sequence[float], kernel: np.ndarray
) -> Iterator[tuple[float, np.ndarray]]:
    stopped = []
    for candidate in candidates:
        scores = np.full((len(training), training.count), np.nan)
        for train, test in training.folds:
            dual, bias, whole = _machines(kernel, train, training, candidate)
            stopped += [] if whole else [candidate]
            for at in range(0, len(test), _BLOCK):
                rows = test[at : at + _BLOCK]
                scores[rows] = kernel[np.ix_(rows, train)] @ dual.T + bias
        yield candidate, scores
    if stopped:
        which = (
            f"{len(stopped)} of {len(candidates) * len(training.folds)} fits of the search, from C={min(stopped):g} on,"
        )
        warnings.warn(f"{which} had not converged; their losses are rough", NotConvergedWarning, stacklevel=2)


def _final(kernel: np.ndarray, training: TrainingData, C: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases as of ``_machines``, of all rows."""
    dual, bias, whole = _machines(kernel, np.arange(len(training)), training, C)
    if not whole:
        message = (
            f"at C={C:g} the optimum was not reached in {_most_steps(len(kernel)):,} steps; a smaller C needs fewer"
        )
        warnings.warn(message, NotConvergedWarning, stacklevel=3)
    return dual, bias


def _machines(
    kernel: np.ndarray, train: np.ndarray, training: TrainingData, C: float
) -> tuple[np.ndarray, np.ndarray, bool]:
    """(C, n) weights of kernels with n training rows, (C,) biases, and whether all machines came to their optimum.

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
    dual, bias, whole = np.zeros((training.count, len(train))), np.zeros(training.count), True
    if training.task == "regression":
        for target in range(training.count):
            dual[target, counting], bias[target], ended = _regressor(square, y[:, target], weight, C)
            whole &= ended
        return dual, bias, whole
    two = training.task == "classification" and training.count == 2
    for label in range(1 if two else 0, training.count):
        has = y == label if training.task == "classification" else y[:, label] > 0
        dual[label, counting], bias[label], ended = _classifier(square, has, weight, C)
        whole &= ended
    if two:  # one machine, whose score is the second's minus the first's
        dual, bias = np.stack([-dual[1], dual[1]]) / 2, np.array([-bias[1], bias[1]]) / 2
    return dual, bias, whole


def _classifier(square: np.ndarray, has: np.ndarray, weight: np.ndarray, C: float) -> tuple[np.ndarray, float, bool]:
    """(n,) and bias of one machine for (n,) bool, and whether it ended; where all rows are alike, -1 or 1 for every image."""
    if has.all() or not has.any():
        return np.zeros(len(has)), 1.0 if has[0] else -1.0, True
    return _solved(SVC, square, has, weight, C)


def _regressor(square: np.ndarray, y: np.ndarray, weight: np.ndarray, C: float) -> tuple[np.ndarray, float, bool]:
    """(n,) and bias of one machine for (n,) float64, and whether it ended."""
    mean = np.average(y, weights=weight)
    deviation = float(np.sqrt(np.average((y - mean) ** 2, weights=weight))) or 1.0
    dual, bias, ended = _solved(SVR, square, (y - mean) / deviation, weight, C)
    return dual * deviation, bias * deviation + mean, ended


def _solved(
    machine: type[Any], square: np.ndarray, y: np.ndarray, weight: np.ndarray, C: float
) -> tuple[np.ndarray, float, bool]:
    """(n,) and bias of one of scikit-learn's machines, and whether it ended before its last step."""
    found = machine(C=C, kernel="precomputed", cache_size=_CACHE, max_iter=_most_steps(len(y)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found.fit(square, y, sample_weight=weight)
    dual = np.zeros(len(y))
    dual[found.support_] = found.dual_coef_[0]
    return dual, float(found.intercept_[0]), found.fit_status_ == 0


def _most_steps(rows: int) -> int:
    return max(MOST_STEPS, MOST_STEPS_PER_ROW * rows)


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
