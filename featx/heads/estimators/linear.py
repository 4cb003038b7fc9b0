"""Logistic regression and the linear support vector machine, for a whole path of C at once.

The objectives are scikit-learn's: ``LogisticRegression`` (multinomial for classes, with one weight vector for two classes;
one-vs-rest for labels) and ``LinearSVC`` (squared hinge, one-vs-rest, with a penalised intercept).

N rows, D features, r of them after rotation, C classes or labels, K outputs, P problems (one for each value of C and fold).
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from featx.heads.predictors import LinearPredictor, NotConvergedWarning
from featx.heads.solver.finite_newton import finish
from featx.heads.solver.lbfgs import minimise
from featx.heads.solver.losses import Logistic, Loss, Softmax, SquaredHinge
from featx.heads.solver.matrices import DenseMatrix, Matrix, Rotated, RotatedMatrix, StreamedMatrix
from featx.heads.solver.newton import HessianModel, refine
from featx.heads.solver.problems import Problems, Solution
from featx.heads.solver.summed import LossSums, Sample, SumLosses, SummedRows, sum_losses
from featx.heads.solver.warm_starts import Parameters, WarmStarts
from featx.heads.training_data import TrainingData

C_PATH = tuple(float(f"{c:.6g}") for c in np.logspace(-6, 5, 45))
"""Values of C that are compared (Kornblith et al., 2019)."""

SEARCH_TOL = 1e-6
"""Relative gap of the objective at which a fit of the search is done, as L-BFGS estimates it."""
ROUGH_SEARCH_TOL = 1e-4
"""The same where values of C are compared that are far apart."""
FIRST_LOOKS = (8, 4)
"""The value of the path at which the search begins, 1e-4, and the stride of its first looks, a factor of 10."""
FIRST_TOL, ROUGH_TOL = 1e-3, 2e-9
"""Relative gaps of the final fit at which L-BFGS starts anew, because the Hessian has changed since the start, and ends."""
FIT_TOL = 2e-7
"""Relative gap of the final fit, as a Newton step measures it."""
COARSE_PATH, COARSE_LOOKS, COARSE_TOL = C_PATH[:-6:3], (2, 2), 1e-4
"""Path, first looks and tolerance of a coarse search: losses are accurate to a few per cent."""
NOT_CONVERGED = 1e-6
"""Relative gap above which a final fit is reported as not converged."""
NEWTON_STEPS = 50
"""The largest number of Newton steps of a final fit."""

SEARCH_NOT_CONVERGED = 1e-4
"""Relative gap above which a fit of the search is reported as not converged."""
SEARCH_ITERATIONS = 400
"""Iterations after which a fit of the search is abandoned and reported, where C is far too large for the rows."""
HINGE_ITERATIONS, FINISHED_GAP = 30, 10
"""Iterations of the search after which ``finite_newton`` solves the rest, where that is fast; and the duality gap at which
nothing is left to it, in tolerances of the search."""
MAX_FINISHED, MAX_FINISHED_SEARCH = 16_000_000, 500_000
"""Elements of the rows up to which ``finite_newton`` solves what L-BFGS leaves: in the final fit, and in fits of a search."""

MAX_COLUMNS = 256
"""Problems times outputs that are solved together; wider matrix products are hardly faster."""
MAX_TOGETHER = 3
"""Values of C that are solved together; the further they are from the path so far, the worse their start."""
MAX_SCORES = 12_500_000
"""Scores of the problems that are solved together. The solver holds two arrays of this size."""
MAX_STORED = 1 << 28
"""Bytes of scores of rows in a file above which a fit evaluates them again in each step instead of storing them."""
SAMPLE_BYTES = 1 << 28
"""Size of the sample of float32 rows whose Hessian is used where not all rows fit in memory."""
_MIN_SKIPPED = 256
"""Mean number of held-out rows per fold from which it pays off to skip them."""


class LinearPathEstimator:
    """Fits linear heads with an L2 penalty for a path of C.

    All folds of up to three neighbouring values of C are solved together, each started by extrapolation from the two values
    before. The final fit is solved to a gap of 1e-6 by Newton steps with gradients in float64.

    Args:
        hinge: whether to use the squared hinge loss (svm) instead of the logistic loss (logreg).
        device: of torch, for the products in float32; "cpu" does not need torch.
        coarse: whether to compare a third of the values of C and to solve less exactly.

    Attributes:
        candidates: values of C, the smallest first.
        first_looks: the number of the candidate at which a search begins, and its stride.
        solution_: the ``Solution`` of the last fit, with its gap and iterations.

    Examples:
        >>> from featx.heads.training_data import Rows
        >>> rows = Rows(np.array([[-2.0], [-1.0], [-0.5], [0.5], [1.0], [2.0]]))
        >>> training = TrainingData(rows, np.array([0, 0, 1, 0, 1, 1]), 2, "classification", np.ones(6))
        >>> predictor = LinearPathEstimator().fit(training, 1.0)
        >>> predictor.weight.round(2)
        array([[-0.38],
               [ 0.38]])
    """

    candidates = C_PATH
    first_looks = FIRST_LOOKS

    def __init__(self, *, hinge: bool = False, device: str = "cpu", coarse: bool = False) -> None:
        self.hinge, self.device, self.coarse = hinge, device, coarse
        self._tol = SEARCH_TOL
        if coarse:
            self.candidates, self.first_looks, self._tol = COARSE_PATH, COARSE_LOOKS, COARSE_TOL
        self._training: TrainingData | None = None
        self._paths: list[WarmStarts] = []
        self._gram: np.ndarray | None = None
        self._evaluate: tuple[TrainingData, SumLosses] | None = None

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float], *, rough: bool = False
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Score each row by a fit to the training rows of the fold that holds it out.

        A second call with the same training data starts from the solutions of the first. Fits of a ``rough`` call are less
        exact, to compare values of C that are far apart.

        Yields:
            Each C, and its (N, C) float64 scores; NaN for rows that no fold holds out.

        Warns:
            NotConvergedWarning: some fits did not converge, which only counts where they are to be exact.
        """
        tol = max(self._tol, ROUGH_SEARCH_TOL) if rough else self._tol
        self._prepare(training)
        data, outputs = self._data, self._loss.outputs
        weights, totals = _fold_weights(data, self._matrix.dtype)
        chunks = _chunks(len(data.folds), outputs * len(training))
        columns = len(chunks[0]) * outputs
        together = max(1, min(MAX_TOGETHER, MAX_COLUMNS // columns, MAX_SCORES // (columns * len(training))))
        self._paths = self._paths or [WarmStarts() for _ in chunks]
        not_converged: list[float] = []
        for at in range(0, len(candidates), together):
            group = candidates[at : at + together]
            scores = np.full((len(group), len(training), training.count), np.nan)
            for chunk, path in zip(chunks, self._paths, strict=True):
                penalty = (1 / (np.array(group)[:, None] * totals[chunk])).ravel()
                same_C = np.repeat(np.arange(len(group)), len(chunk))
                problems = Problems(weights, np.tile(chunk, len(group)), penalty, self._regions, same_C)
                solution = self._solve_group(problems, group, path, tol)
                not_converged += list(np.repeat(group, len(chunk))[~(solution.gap <= SEARCH_NOT_CONVERGED)])
                self._score_held_out(solution, chunk, scores)
            yield from zip(group, scores, strict=True)
        if not_converged and not rough:
            _warn_of_search(not_converged, len(candidates) * len(data.folds))

    def fit(self, training: TrainingData, candidate: float) -> Any:
        """Fit to all rows: L-BFGS, then Newton steps in float64.

        For rows that do not fit in memory, the Hessian is that of a sample. A coarse fit to rows in memory is as exact as a
        fit of the search: L-BFGS alone, to ``SEARCH_TOL``.

        Args:
            training: N rows.
            candidate: C.

        Warns:
            NotConvergedWarning: the optimum was not reached.
        """
        in_memory = training.rows.fits and training.ranks is None
        self._prepare(training if in_memory else _sample(training, self._training))
        penalty = np.array([1 / (candidate * float(training.weight.sum()))])
        problem = _one_problem(self._data.weight, penalty, self._matrix.dtype)
        first = self._minimise(
            problem,
            _start(self._paths, float(np.log(candidate)), self._loss.outputs, self._rotated.coordinates.shape[1]),
            SEARCH_TOL if self.coarse else FIRST_TOL,
        )
        if self.coarse and in_memory:
            weight, bias = self._rotated.unrotate(first.weight).astype(np.float64), first.bias.astype(np.float64)
            return self._predictor(training, candidate, dataclasses.replace(first, weight=weight, bias=bias))
        exact = self._matrix.dtype == np.float64
        rough, iterations = first, first.iterations
        if not (self.hinge and in_memory and exact):  # whose Newton steps need no better start
            rough = self._minimise(problem, (first.weight, first.bias), ROUGH_TOL)
            iterations = iterations + rough.iterations
        if not in_memory:
            rough = self._minimise_streamed(training, penalty, (rough.weight, rough.bias))
            iterations = iterations + rough.iterations
            solution = self._refine_streamed(training, penalty, rough, NOT_CONVERGED / 2)
        elif exact:
            solution = self._refine_float64(problem, rough)
        else:
            solution = self._refine_streamed(training, penalty, rough, FIT_TOL)
            if not solution.gap[0] <= NOT_CONVERGED:
                solution = self._refine_again(training, penalty, solution)
        solution = dataclasses.replace(solution, iterations=iterations + solution.iterations)
        return self._predictor(training, candidate, solution)

    def _solve_group(self, problems: Problems, group: Sequence[float], path: WarmStarts, tol: float) -> Solution:
        """Solve the problems of some values of C on some folds, and add the solutions to their path."""
        folds, coordinates = len(problems.fold) // len(group), self._rotated.coordinates
        finishes = self.hinge and coordinates.size <= MAX_FINISHED_SEARCH
        start = path.start(np.log(group), folds, self._loss.outputs, coordinates.shape[1])
        solution = minimise(
            self._matrix, self._loss, problems, start,
            tol=tol, precondition=self._rotated.basis is not None, first_step=path.first_step(np.log(group), folds),
            max_iter=HINGE_ITERATIONS if finishes else SEARCH_ITERATIONS,
        )  # fmt: skip
        if isinstance(self._loss, SquaredHinge) and finishes:
            self._gram = coordinates @ coordinates.T + 1.0 if self._gram is None else self._gram
            every = np.arange(len(problems.fold))
            solution = finish(
                coordinates, self._loss, problems, solution, every, tol=FINISHED_GAP * tol, gram=self._gram
            )
        path.add(np.log(group), solution)
        return solution

    def _score_held_out(self, solution: Solution, chunk: np.ndarray, scores: np.ndarray) -> None:
        """Write the scores of the rows that some folds hold out into (G, N, C), for G values of C."""
        for group, out in enumerate(scores):
            for index, fold in enumerate(chunk):
                at, rows = group * len(chunk) + index, self._data.folds[fold][1]
                outputs = self._rotated.coordinates[rows] @ solution.weight[:, at].T + solution.bias[:, at]
                outputs = outputs.astype(np.float64)
                single = outputs.shape[1] < self._data.count
                out[self._order[rows]] = outputs * [-0.5, 0.5] if single else outputs

    def _minimise(self, problem: Problems, start: Parameters, tol: float) -> Solution:
        """Solve one problem by L-BFGS, in rotated columns."""
        return minimise(self._matrix, self._loss, problem, start, tol=tol, precondition=self._rotated.basis is not None)

    def _minimise_streamed(self, training: TrainingData, penalty: np.ndarray, start: Parameters) -> Solution:
        """Solve one problem on all rows by L-BFGS, in the rotated columns of the sample."""
        dtype, preconditioned = self._matrix.dtype, self._rotated.basis is not None
        if _is_summed(training, self._loss.outputs):
            summed, problem = self._summed(training, dtype, rotates=True), _one_problem(np.ones(1), penalty, dtype)
            return minimise(summed, self._loss, problem, start, tol=FIT_TOL, precondition=preconditioned)
        drawn = np.searchsorted(training.rows.index, self._data.rows.index)
        matrix = RotatedMatrix(StreamedMatrix(training.rows, dtype), self._rotated, drawn)
        problem = _one_problem(training.weight, penalty, dtype)
        loss = self._loss_of(training)
        return minimise(matrix, loss, problem, start, tol=FIT_TOL, precondition=preconditioned)

    def _summed(self, training: TrainingData, dtype: Any, *, rotates: bool) -> SummedRows:
        """All rows, whose loss is evaluated anew in each step."""
        weights = self._data.weight / self._data.weight.sum()
        if self._evaluate is None or self._evaluate[0] is not training:
            self._evaluate = training, _sum_losses(training, self.hinge, self._loss_of)
        return SummedRows(self._evaluate[1], dtype, Sample(self._rotated, self._loss, weights), rotates)

    def _refine_float64(self, problem: Problems, rough: Solution) -> Solution:
        """Refine a solution in rotated columns. The rows are float64, so the rotation has lost no digits."""
        if isinstance(self._loss, SquaredHinge):
            solution = finish(self._rotated.coordinates, self._loss, problem, rough, np.zeros(1, dtype=np.int64))
            return dataclasses.replace(solution, weight=self._rotated.unrotate(solution.weight))
        model = HessianModel(self._matrix, problem.weights[0], self._loss, _identity, _identity)
        start, tol = (rough.weight, rough.bias), FIT_TOL / 1000
        solution = refine(self._matrix, self._loss, problem, start, model=model, tol=tol, max_iter=NEWTON_STEPS)
        return dataclasses.replace(solution, weight=self._rotated.unrotate(solution.weight))

    def _refine_streamed(
        self, training: TrainingData, penalty: np.ndarray, rough: Solution, tol: float,
        *, hessian: Matrix | None = None, cg_tol: float = 0.25,
    ) -> Solution:  # fmt: skip
        """Refine a solution on the original rows in float64, read block by block, with a Hessian in rotated columns.

        Args:
            training: all rows.
            penalty: (1,) float64.
            rough: a solution in rotated columns.
            tol: relative gap of the objective.
            hessian: the rotated rows; those of the search, in their own dtype, unless given.
            cg_tol: of the conjugate gradients.
        """
        rotated, weight = self._rotated, _one_problem(self._data.weight, penalty, self._matrix.dtype).weights[0]
        hessian = self._matrix if hessian is None else hessian
        model = HessianModel(hessian, weight, self._loss, rotated.rotate, rotated.unrotate, cg_tol)
        if _is_summed(training, self._loss.outputs):
            matrix: Matrix | SummedRows = self._summed(training, np.float64, rotates=False)
            loss, row_weight = self._loss, np.ones(1)
        else:
            matrix, loss = StreamedMatrix(training.rows, np.float64), self._loss_of(training)
            row_weight = training.weight
        return refine(
            matrix, loss, _one_problem(row_weight, penalty, np.float64),
            (rotated.unrotate(rough.weight), rough.bias.astype(np.float64)),
            model=model, tol=tol, max_iter=NEWTON_STEPS,
        )  # fmt: skip

    def _refine_again(self, training: TrainingData, penalty: np.ndarray, solution: Solution) -> Solution:
        """Refine a solution whose Newton steps float32 was too coarse for: in float64."""
        rows, loss = training.rows, self._loss_of(training)
        if isinstance(loss, SquaredHinge) and len(rows) * rows.width <= MAX_FINISHED:
            problem = _one_problem(training.weight, penalty, np.float64)
            return finish(rows.whole(np.float64), loss, problem, solution, np.zeros(1, dtype=np.int64))
        matrix = DenseMatrix(self._rotated.coordinates, np.float64)
        problem = _one_problem(self._data.weight, penalty, np.float64)
        start, preconditioned = (self._rotated.rotate(solution.weight), solution.bias), self._rotated.basis is not None
        rough = minimise(matrix, self._loss, problem, start, tol=FIT_TOL, precondition=preconditioned)
        return self._refine_streamed(training, penalty, rough, FIT_TOL, hessian=matrix, cg_tol=1e-6)

    def _predictor(self, training: TrainingData, candidate: float, solution: Solution) -> Any:
        """Make a predictor of a solution in the original columns, and warn if it did not converge."""
        self.solution_ = solution
        gap = float(solution.gap[0])
        if not gap <= (SEARCH_NOT_CONVERGED if self.coarse else NOT_CONVERGED):
            _warn_of_fit(candidate, gap)
        weight, bias = solution.weight[:, 0], solution.bias[:, 0]
        if len(weight) == 1 and training.count == 2:  # one output, that of the second class against the first
            weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
        return LinearPredictor(weight, bias)

    def _loss_of(self, training: TrainingData) -> Loss:
        return _make_loss(training, self.hinge)

    def _prepare(self, training: TrainingData) -> None:
        """Sort rows that fit in memory by fold and rotate them, once for each training data."""
        if self._training is training:
            return
        self._training, self._paths, self._gram = training, [], None
        self._data, self._order, self._regions = _sorted_by_fold(training)
        self._loss = self._loss_of(self._data)
        self._rotated = Rotated.of(self._data.rows)
        self._matrix = _matrix_of(self._rotated.coordinates, self.device)


def _sample(training: TrainingData, searched: TrainingData | None) -> TrainingData:
    """Return the rows of the search, or draw a sample of ``SAMPLE_BYTES`` at even distances."""
    if searched is not None and searched.rows.features is training.rows.features:
        return searched
    step = math.ceil(len(training) * 4 * training.rows.width / SAMPLE_BYTES)
    return training.take(np.arange(0, len(training), step))


def _start(paths: Sequence[WarmStarts], log_C: float, outputs: int, width: int) -> Parameters:
    """(K, 1, r) and (K, 1) to start the final fit from: the mean over the folds at that C, or zeros."""
    means = [mean for path in paths if (mean := path.mean(log_C)) is not None]
    if not means:
        return np.zeros((outputs, 1, width)), np.zeros((outputs, 1))
    return np.mean([weight for weight, _ in means], axis=0), np.mean([bias for _, bias in means], axis=0)


def _chunks(folds: int, scores: int) -> list[np.ndarray]:
    """Split the folds, each with so many scores, into chunks that are solved one after the other."""
    return np.array_split(np.arange(folds), min(folds, math.ceil(folds * scores / MAX_SCORES)))


def _sorted_by_fold(training: TrainingData) -> tuple[TrainingData, np.ndarray, tuple[slice, ...]]:
    """Sort rows by the fold that holds them out, so that a fit can skip the consecutive held-out rows of its fold.

    Returns:
        The sorted training data, the (N,) int64 order, and the slices of rows of each fold. With too few held-out rows to
        skip, the training data as it was and no slices.
    """
    fold_of = training.fold_of
    if len(training) < _MIN_SKIPPED * (len(training.folds) + 1) or not training.folds:
        return training, np.arange(len(training)), ()
    order = np.argsort(fold_of, kind="stable")
    starts = np.flatnonzero(np.diff(fold_of[order], prepend=-2))
    regions = tuple(slice(int(at), int(end)) for at, end in zip(starts, [*starts[1:], len(order)], strict=True))
    return training.ordered(order), order, regions


def _make_loss(training: TrainingData, hinge: bool) -> Loss:
    if training.task == "multilabel":
        positive = training.y.T > 0.5
    elif training.count == 2:
        positive = (training.y == 1)[None]
    elif hinge:
        positive = np.arange(training.count)[:, None] == training.y
    else:
        return Softmax(training.y, training.count)
    return SquaredHinge(positive) if hinge else Logistic(positive)


def _is_summed(training: TrainingData, outputs: int) -> bool:
    """Whether the loss of all rows is evaluated anew in each step: by several processes, or without room for scores."""
    stored = 2 * outputs * len(training) * np.dtype(np.float64).itemsize
    return training.ranks is not None or (not training.rows.fits and stored > MAX_STORED)


def _sum_losses(training: TrainingData, hinge: bool, loss_of: Callable[[TrainingData], Loss]) -> SumLosses:
    """The function that evaluates the loss of all rows, here or in several processes."""
    if training.ranks is None:
        return _loss_function(training, loss_of(training), float(training.weight.sum()))
    training.ranks.share(training)

    def total(dtype: Any, W: np.ndarray, b: np.ndarray) -> LossSums:
        sums: LossSums = training.ranks.total("losses", hinge=hinge, dtype=np.dtype(dtype).str, W=W, b=b)
        return sums

    return total


def _loss_function(training: TrainingData, loss: Loss, weight_sum: float) -> SumLosses:
    """The function that evaluates the loss of some rows, reading them from their file again."""
    weights = training.weight / weight_sum

    def evaluate(dtype: Any, W: np.ndarray, b: np.ndarray) -> LossSums:
        return sum_losses(StreamedMatrix(training.rows, dtype), loss, weights, W, b)

    return evaluate


def loss_sums(training: TrainingData, *, hinge: bool, weight_sum: float) -> SumLosses:
    """The function that evaluates the share of some rows in the loss of more.

    Args:
        training: the rows.
        hinge: as ``LinearPathEstimator`` has it.
        weight_sum: the sum of the weights of all rows.
    """
    return _loss_function(training, _make_loss(training, hinge), weight_sum)


def _warn_of_search(not_converged: Sequence[float], fits: int) -> None:
    """Warn of the values of C of fits that did not converge."""
    message = f"{len(not_converged)} of {fits} fits of the search, from C={min(not_converged):g} on, had not converged"
    warnings.warn(f"{message}; their losses are rough", NotConvergedWarning, stacklevel=3)


def _warn_of_fit(candidate: float, gap: float) -> None:
    """Warn of a final fit that did not converge."""
    message = f"at C={candidate:g} the optimum was not reached: the objective may still fall by {gap:.1g} of itself"
    warnings.warn(message, NotConvergedWarning, stacklevel=4)


def _matrix_of(coordinates: np.ndarray, device: str) -> Matrix:
    """The rows as what a solver multiplies by; on a GPU only in float32."""
    if device == "cpu" or coordinates.dtype != np.float32:
        return DenseMatrix(coordinates)
    from featx.heads.solver.on_device import DeviceMatrix

    return DeviceMatrix(coordinates, device)


def _identity(weight: np.ndarray) -> np.ndarray:
    return weight


def _one_problem(weight: np.ndarray, penalty: np.ndarray, dtype: Any) -> Problems:
    """The problem of a fit to all rows, with (N,) weights and (1,) penalty."""
    return Problems((weight / weight.sum())[None].astype(dtype), np.zeros(1, dtype=np.int64), penalty)


def _fold_weights(training: TrainingData, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """(F, N) weights of the training rows of each fold with sum 1, 0 for other rows; and (F,) float64, the sums they had."""
    weights = np.zeros((len(training.folds), len(training)))
    for of_fold, (train, _) in zip(weights, training.folds, strict=True):
        of_fold[train] = training.weight[train]
    totals = weights.sum(axis=1)
    return (weights / totals[:, None]).astype(dtype), totals
