"""Support vector machines with a kernel, scikit-learn's ``SVC`` and ``SVR``, and support vector regression without one.

N rows of D features, C classes, labels or targets, S support vectors. One machine has one output; n rows are its training rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.linalg
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC, SVR

from featx.errors import HeadError
from featx.heads.predictors import KernelPredictor, LinearPredictor, NotConvergedWarning
from featx.heads.solver.interior_point import GAP, fit_regression
from featx.heads.training_data import Rows, TrainingData
from featx.text import size_text

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Values of C that are compared."""
MAX_ROWS = 20_000
"""The most rows. Their Gram matrix in float64 is 3.2 GB, and that of four folds of five another 2 GB."""

MAX_STEPS, MAX_STEPS_PER_ROW = 100_000, 20
"""The most iterations of libsvm for one machine, whichever is more. Without a limit, a large C takes hours on rows that span
few dimensions."""

SEARCH_GAP, NOT_CONVERGED = 1e-9, 1e-6
"""Relative duality gaps of regression without a kernel: at which a fit of the search is done, and above which a fit is reported
as not converged."""

_CACHE_MB = 500  # of each machine
_BLOCK = 1024  # rows whose kernel with all others is computed at once


class KernelSvmEstimator:
    """Fits support vector machines with the kernel exp(-gamma |x - z|^2), gamma = 1 / (D var(Z)), scikit-learn's "scale".

    The candidate is C. Classes and labels have an ``SVC`` each, one against the rest; for two classes a single one. Targets
    have an ``SVR`` each, with a tube of 0.1, on values standardised by their weighted mean and deviation. The machines of all
    folds and C share one kernel matrix, in float64 because sums over it multiply its rounding errors by C. Gamma is that of all
    rows in every fold.

    Args:
        candidates: values of C, the smallest first.

    Examples:
        >>> rows = Rows(np.array([[0.0], [1.0], [2.0], [3.0]]))
        >>> training = TrainingData(rows, np.array([0, 1, 1, 0]), 2, "classification", np.ones(4))
        >>> predictor = KernelSvmEstimator().fit(training, 10.0)
        >>> predictor.decision_function(np.array([[0.2], [1.5]])).argmax(axis=1)
        array([0, 1])
    """

    def __init__(self, candidates: Sequence[float] = STRENGTHS) -> None:
        self.candidates = tuple(candidates)

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Score each row by machines that are fitted to the training rows of the fold that holds it out.

        Yields:
            Each C, and its (N, C) float64 scores; NaN for rows that no fold holds out.

        Raises:
            HeadError: there are too many rows, or only rows of weight 0 outside a fold.

        Warns:
            NotConvergedWarning: some machines were stopped before their optimum.
        """
        _require_few(training)
        return _held_out_scores(training, candidates, _rbf_kernel(training.rows, _gamma(training.rows)))

    def fit(self, training: TrainingData, candidate: float) -> KernelPredictor:
        """Fit to all rows.

        Raises:
            HeadError: there are too many rows, or only rows of weight 0.

        Warns:
            NotConvergedWarning: some machines were stopped before their optimum.
        """
        _require_few(training)
        gamma = _gamma(training.rows)
        dual, bias = _fit_all_rows(_rbf_kernel(training.rows, gamma), training, candidate)
        support = np.flatnonzero((dual != 0).any(axis=0))
        if not len(support):  # all outputs are constant; the file needs a row
            support = np.zeros(1, dtype=np.int64)
        return KernelPredictor(training.rows.take(support).whole(), dual[:, support], bias, np.array(gamma))


class LinearSvrEstimator:
    """Fits support vector regression without a kernel, with the objective of ``SVR``, by an interior point method.

    The candidate is C. Each target has a machine, with a tube of 0.1, on values standardised by their weighted mean and
    deviation. Rows that are fewer than their columns are rotated into as many columns as rows.

    Args:
        candidates: values of C, the smallest first.

    Examples:
        >>> rows = Rows(np.array([[-1.0], [0.0], [1.0]]))
        >>> training = TrainingData(rows, np.array([[-3.0], [0.0], [3.0]]), 1, "regression", np.ones(3))
        >>> LinearSvrEstimator().fit(training, 100.0).weight.round(2)
        array([[2.76]])
    """

    def __init__(self, candidates: Sequence[float] = STRENGTHS) -> None:
        self.candidates = tuple(candidates)

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Score each row by machines that are fitted to the training rows of the fold that holds it out.

        Yields:
            Each C, and its (N, C) float64 scores; NaN for rows that no fold holds out.

        Raises:
            HeadError: there are too many rows, or only rows of weight 0 outside a fold.

        Warns:
            NotConvergedWarning: some machines were stopped before their optimum.
        """
        _require_few(training)
        return _held_out_linear_scores(training, candidates)

    def fit(self, training: TrainingData, candidate: float) -> LinearPredictor:
        """Fit to all rows.

        Raises:
            HeadError: there are too many rows, or only rows of weight 0.

        Warns:
            NotConvergedWarning: some machines were stopped before their optimum.
        """
        _require_few(training)
        Z, basis = _rotated(training.rows)
        weight, bias, gap = _fit_linear(Z, np.arange(len(training)), training, candidate, tol=GAP)
        if gap > NOT_CONVERGED:
            message = (
                f"at C={candidate:g} the optimum was not reached: the objective may still fall by {gap:.0e} of itself"
            )
            warnings.warn(message, NotConvergedWarning, stacklevel=2)
        return LinearPredictor(weight if basis is None else weight @ basis, bias)


def _held_out_linear_scores(training: TrainingData, candidates: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
    """Score the held-out rows of each fold for each C, by machines without a kernel."""
    Z, _ = _rotated(training.rows)
    not_converged = []
    for candidate in candidates:
        scores = np.full((len(training), training.count), np.nan)
        for train, test in training.folds:
            weight, bias, gap = _fit_linear(Z, train, training, candidate, tol=SEARCH_GAP)
            not_converged += [candidate] if gap > NOT_CONVERGED else []
            scores[test] = Z[test] @ weight.T + bias
        yield candidate, scores
    _warn_of_search(not_converged, len(candidates) * len(training.folds))


def _rotated(rows: Rows) -> tuple[np.ndarray, np.ndarray | None]:
    """(N, m) float64 coordinates of the rows in at most N orthonormal axes, and these (m, D) axes; None for the columns."""
    Z = rows.whole(np.float64)
    if len(Z) >= rows.width:
        return Z, None
    axes, coordinates = scipy.linalg.qr(Z.T, mode="economic", overwrite_a=True)
    return np.ascontiguousarray(coordinates.T), np.ascontiguousarray(axes.T)


def _fit_linear(
    Z: np.ndarray, train: np.ndarray, training: TrainingData, C: float, *, tol: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit a machine without a kernel to each target: (C, m) weights, (C,) intercepts, and the largest relative gap."""
    rows = _rows_with_weight(train, training)
    weight, bias, gap = np.empty((training.count, Z.shape[1])), np.empty(training.count), 0.0
    for output in range(training.count):
        y, mean, deviation = _standardised(training.y[rows, output], training.weight[rows])
        fitted = fit_regression(Z[rows], y, C * training.weight[rows], tol=tol)
        weight[output], bias[output] = fitted.weight * deviation, fitted.bias * deviation + mean
        gap = max(gap, fitted.gap)
    return weight, bias, gap


def _require_few(training: TrainingData) -> None:
    if len(training) <= MAX_ROWS:
        return
    size = size_text(14 * len(training) ** 2)
    regression = training.task == "regression"
    machine = "support vector regression" if regression else "a support vector machine with a kernel"
    alternatives = "--model ridge takes" if regression else "--model svm --kernel linear, logreg or ridge take"
    raise HeadError(
        f"{len(training):,} rows are too many for {machine}: its matrix of all pairs of rows would need {size}; "
        f"expected at most {MAX_ROWS:,} rows; {alternatives} more"
    )


def _held_out_scores(
    training: TrainingData, candidates: Sequence[float], kernel: np.ndarray
) -> Iterator[tuple[float, np.ndarray]]:
    """Score the held-out rows of each fold for each C, from the (N, N) kernel matrix of all rows."""
    not_converged = []
    for candidate in candidates:
        scores = np.full((len(training), training.count), np.nan)
        for train, test in training.folds:
            dual, bias, converged = _fit_machines(kernel, train, training, candidate)
            not_converged += [] if converged else [candidate]
            for at in range(0, len(test), _BLOCK):
                rows = test[at : at + _BLOCK]
                scores[rows] = kernel[np.ix_(rows, train)] @ dual.T + bias
        yield candidate, scores
    _warn_of_search(not_converged, len(candidates) * len(training.folds))


def _warn_of_search(not_converged: Sequence[float], fits: int) -> None:
    """Warn of the values of C of fits that did not converge."""
    if not_converged:
        message = (
            f"{len(not_converged)} of {fits} fits of the search, from C={min(not_converged):g} on, had not converged"
        )
        warnings.warn(f"{message}; their losses are rough", NotConvergedWarning, stacklevel=3)


def _fit_all_rows(kernel: np.ndarray, training: TrainingData, C: float) -> tuple[np.ndarray, np.ndarray]:
    """Fit machines to all rows, and warn if one did not converge: (C, N) dual coefficients and (C,) intercepts."""
    dual, bias, converged = _fit_machines(kernel, np.arange(len(training)), training, C)
    if not converged:
        steps = f"{_max_steps(len(kernel)):,} steps"
        message = f"at C={C:g} the optimum was not reached in {steps}; a smaller C needs fewer"
        warnings.warn(message, NotConvergedWarning, stacklevel=3)
    return dual, bias


def _fit_machines(
    kernel: np.ndarray, train: np.ndarray, training: TrainingData, C: float
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Fit a machine to each class, label or target.

    Args:
        kernel: (N, N) float64.
        train: (n,) int64, the training rows.
        training: all rows.
        C: of the machines.

    Returns:
        (C, n) float64 dual coefficients, (C,) float64 intercepts, and whether all machines converged.
    """
    used = np.flatnonzero(training.weight[train] > 0)
    rows = _rows_with_weight(train, training)
    square = kernel if len(rows) == len(kernel) else kernel[np.ix_(rows, rows)]
    y, weight = training.y[rows], training.weight[rows]
    dual, bias, converged = np.zeros((training.count, len(train))), np.zeros(training.count), True
    two_classes = training.task == "classification" and training.count == 2
    for output in range(1 if two_classes else 0, training.count):
        if training.task == "regression":
            dual[output, used], bias[output], ended = _fit_regressor(square, y[:, output], weight, C)
        else:
            positive = y == output if training.task == "classification" else y[:, output] > 0
            dual[output, used], bias[output], ended = _fit_classifier(square, positive, weight, C)
        converged &= ended
    if two_classes:  # one machine, whose score is that of the second class minus that of the first
        dual, bias = np.stack([-dual[1], dual[1]]) / 2, np.array([-bias[1], bias[1]]) / 2
    return dual, bias, converged


def _rows_with_weight(train: np.ndarray, training: TrainingData) -> np.ndarray:
    rows: np.ndarray = train[training.weight[train] > 0]
    if not len(rows):
        raise HeadError("no row of weight above 0 is left to fit to; give more than one row or class such a weight")
    return rows


def _fit_classifier(
    square: np.ndarray, positive: np.ndarray, weight: np.ndarray, C: float
) -> tuple[np.ndarray, float, bool]:
    """Fit one machine to (n,) bool: (n,) dual coefficients, the intercept, and whether it converged.

    If all rows are alike, the score is the constant 1 or -1.
    """
    if positive.all() or not positive.any():
        return np.zeros(len(positive)), 1.0 if positive[0] else -1.0, True
    return _fit_machine(SVC, square, positive, weight, C)


def _fit_regressor(square: np.ndarray, y: np.ndarray, weight: np.ndarray, C: float) -> tuple[np.ndarray, float, bool]:
    """Fit one machine to (n,) float64: (n,) dual coefficients, the intercept, and whether it converged."""
    standardised, mean, deviation = _standardised(y, weight)
    dual, bias, ended = _fit_machine(SVR, square, standardised, weight, C)
    return dual * deviation, bias * deviation + mean, ended


def _standardised(y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float, float]:
    """(n,) values standardised by their weighted mean and deviation, and these."""
    mean = float(np.average(y, weights=weight))
    deviation = float(np.sqrt(np.average((y - mean) ** 2, weights=weight))) or 1.0
    return (y - mean) / deviation, mean, deviation


def _fit_machine(
    machine: type[Any], square: np.ndarray, y: np.ndarray, weight: np.ndarray, C: float
) -> tuple[np.ndarray, float, bool]:
    """Fit an ``SVC`` or ``SVR``: (n,) dual coefficients, the intercept, and whether it converged.

    Args:
        machine: ``SVC`` or ``SVR``.
        square: (n, n) float64, the kernel matrix.
        y: (n,) bool or float64.
        weight: (n,) float64.
        C: of the machine.
    """
    fitted = machine(C=C, kernel="precomputed", cache_size=_CACHE_MB, max_iter=_max_steps(len(y)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(square, y, sample_weight=weight)
    dual = np.zeros(len(y))
    dual[fitted.support_] = fitted.dual_coef_[0]
    return dual, float(fitted.intercept_[0]), fitted.fit_status_ == 0


def _max_steps(rows: int) -> int:
    return max(MAX_STEPS, MAX_STEPS_PER_ROW * rows)


def _gamma(rows: Rows) -> float:
    """1 / (D var(Z)), from one pass over the rows."""
    total = squares = 0.0
    for _, block in rows.blocks(np.float64):
        total += float(block.sum())
        squares += float(np.square(block, out=block).sum())
    size = max(1, len(rows) * rows.width)
    return 1.0 / (rows.width * max(squares / size - (total / size) ** 2, 1e-12))


def _gram_matrix(rows: Rows) -> np.ndarray:
    """Z Z', the (N, N) float64 inner products of all pairs of rows."""
    Z = rows.whole(np.float64)
    out: np.ndarray = Z @ Z.T
    return out


def _rbf_kernel(rows: Rows, gamma: float) -> np.ndarray:
    """exp(-gamma |x - z|^2) of all pairs of rows, (N, N) float64."""
    out = _gram_matrix(rows)
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
