"""Logistic regression and the linear support vector machine, for a whole path of C at once.

The objectives are scikit-learn's: ``LogisticRegression`` (multinomial, or of two classes with one weight vector; one-vs-rest
for many labels) and ``LinearSVC`` (squared hinge, one-vs-rest, its intercept penalised). N rows, D features, K outputs.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from featx.heads.predictors import LinearPredictor, NotConvergedWarning
from featx.heads.solver.lbfgs import NewtonModel, Problems, Solution, minimise, refine
from featx.heads.solver.losses import Logistic, Loss, Softmax, SquaredHinge
from featx.heads.solver.matrices import Dense, Matrix, Rotated, Streamed, Turned
from featx.heads.training_data import TrainingData

C_PATH = tuple(float(f"{c:.6g}") for c in np.logspace(-6, 5, 45))
"""Values of C that are compared (Kornblith et al., 2019)."""

SEARCH_TOL, FIRST_TOL, ROUGH_TOL, FIT_TOL = 1e-6, 1e-3, 2e-9, 2e-7
"""Relative gaps of the objective: at which a problem of the search is done, as L-BFGS estimates it; at which L-BFGS begins anew
for a head, since the Hessian is another than at the start; at which it ends; and of the head, as a Newton step measures it."""
COARSE_PATH, COARSE_TOL = C_PATH[:-6:3], 1e-4
"""The same, and every third value of C, of a coarse search: its losses are right to a few per cent, in a third of the time."""
NOT_CONVERGED = 1e-6
"""A head whose relative gap is above this is said not to have converged."""
NEWTON_STEPS = 50

LOOSE = 1e-4
"""A problem of the search whose gap is above this is said not to have converged."""
SEARCH_ITERATIONS = 400
"""After which a problem of the search is given up, and that is said: where C is far too large for the rows."""

COLUMNS = 256
"""Problems times outputs that are solved together: a matrix product gains little by more."""
TOGETHER = 3
"""Values of C that are solved together, at most: the further from the path so far, the worse the start."""
SCORES = 12_500_000
"""Scores of problems that are solved together, at most: there are two arrays of them."""
_SKIPPED = 256
"""Held-out rows of a fold from which on it pays to skip them."""
SHARE = 1 << 28
"""Bytes of float32 rows that Hessians are of, where all do not fit in memory."""


class PenalisedModel:
    """A linear head with an L2 penalty, as a ``Model`` of ``training``.

    Args:
        hinge: squared hinge (svm) instead of the logistic loss (logreg).
        device: of torch, where float32 products are taken; "cpu" needs no torch.
        coarse: search and fit coarsely.

    Attributes:
        candidates: values of C.
        solution_: the last fit's: its gap and iterations.
    """

    candidates = C_PATH

    def __init__(self, *, hinge: bool = False, device: str = "cpu", coarse: bool = False) -> None:
        self.hinge, self.device, self.coarse = hinge, device, coarse
        self._tol = SEARCH_TOL
        if coarse:
            self.candidates, self._tol = COARSE_PATH, COARSE_TOL
        self._training: TrainingData | None = None
        self._paths: list[_Path] = []

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """As ``Estimator.cross_val_scores``; neighbouring C are solved together, each started where the path so far leads.

        A second call with the same training goes on from where the first ended.
        """
        self._prepare(training)
        near = self._near
        loss, folds = self._loss(near), len(near.folds)
        weights = np.stack([_fold_weights(near, train) for train, _ in near.folds])
        totals = weights.sum(axis=1)
        weights = (weights / totals[:, None]).astype(self._matrix.dtype)
        chunks = np.array_split(np.arange(folds), min(folds, math.ceil(folds * loss.outputs * len(training) / SCORES)))
        columns = len(chunks[0]) * loss.outputs
        together = max(1, min(TOGETHER, COLUMNS // columns, SCORES // (columns * len(training))))
        self._paths = self._paths or [_Path() for _ in chunks]
        loose: list[float] = []
        for at in range(0, len(candidates), together):
            group = candidates[at : at + together]
            scores = np.full((len(group), len(training), training.count), np.nan)
            for chunk, path in zip(chunks, self._paths, strict=True):
                penalty = (1 / (np.array(group)[:, None] * totals[chunk])).ravel()
                alike = np.repeat(np.arange(len(group)), len(chunk))
                problems = Problems(weights, np.tile(chunk, len(group)), penalty, self._regions, alike)
                solved = self._solved(loss, problems, group, path)
                loose += [
                    C for C, gap in zip(np.repeat(group, len(chunk)), solved.gap, strict=True) if not gap <= LOOSE
                ]
                self._keep_held_out(solved, chunk, scores)
            yield from zip(group, scores, strict=True)
        if loose:
            which = f"{len(loose)} of {len(candidates) * folds} fits of the search, from C={min(loose):g} on,"
            warnings.warn(f"{which} had not converged; their losses are rough", NotConvergedWarning, stacklevel=2)

    def _solved(self, loss: Loss, problems: Problems, group: Sequence[float], path: _Path) -> Solution:
        """Some values of C on some folds, started where their path leads."""
        folds, width = len(problems.fold) // len(group), self._rotated.coordinates.shape[1]
        solved = minimise(
            self._matrix, loss, problems, path.start(np.log(group), folds, loss.outputs, width),
            tol=self._tol, precondition=self._rotated.basis is not None, first_step=path.first_step(len(group), folds),
            most_iterations=SEARCH_ITERATIONS,
        )  # fmt: skip
        path.add(np.log(group), solved)
        return solved

    def fit(self, training: TrainingData, candidate: float) -> LinearPredictor:
        """Fit to all rows: L-BFGS, then Newton steps in float64. Of rows that do not fit in memory, Hessians are a share's.

        A coarse fit to rows in memory is as exact as a problem of the search: L-BFGS alone, to ``SEARCH_TOL``.

        Warns:
            NotConvergedWarning: the optimum was not reached.
        """
        fits = training.rows.fits
        self._prepare(training if fits else self._share(training))
        near, matrix, turned, dtype = self._near, self._matrix, self._rotated, self._matrix.dtype
        near_loss, loss = self._loss(near), self._loss(training)
        penalty = np.array([1 / (candidate * float(training.weight.sum()))])
        problems = _one_problem(near.weight, penalty, dtype)
        start = self._start(candidate, near_loss.outputs)
        preconditioned = turned.basis is not None
        tol = SEARCH_TOL if self.coarse else FIRST_TOL
        first = minimise(matrix, near_loss, problems, start, tol=tol, precondition=preconditioned)
        if self.coarse and fits:
            weight, bias = turned.back(first.weight).astype(np.float64), first.bias.astype(np.float64)
            return self._done(training, candidate, dataclasses.replace(first, weight=weight, bias=bias))
        start = (first.weight, first.bias)
        rough = minimise(matrix, near_loss, problems, start, tol=ROUGH_TOL, precondition=preconditioned)
        iterations = first.iterations + rough.iterations
        if not fits:
            drawn = np.searchsorted(training.rows.index, near.rows.index)
            everything = Turned(Streamed(training.rows, dtype), turned, drawn)
            rough = minimise(
                everything, loss, _one_problem(training.weight, penalty, dtype),
                (rough.weight, rough.bias), tol=FIT_TOL, precondition=preconditioned,
            )  # fmt: skip
            iterations = iterations + rough.iterations
        exact: Matrix = Streamed(training.rows, np.float64)
        whole = _one_problem(training.weight, penalty, np.float64), loss
        begin = (turned.back(rough.weight), rough.bias.astype(np.float64))
        model = NewtonModel(matrix, problems.weights[0], near_loss, turned.turn, turned.back, progress=0.25)
        if fits and dtype == np.float64:  # so few rows that nothing was lost, and no other matrix is needed
            exact, whole, begin = matrix, (problems, near_loss), (rough.weight, rough.bias)
            model = dataclasses.replace(model, turn=_as_it_is, back=_as_it_is, progress=1e-6)
        tol = FIT_TOL / 1000 if exact is matrix else FIT_TOL if fits else NOT_CONVERGED / 2
        solved = _refined(exact, whole, begin, model, tol)
        if fits and exact is not matrix and not solved.gap[0] <= NOT_CONVERGED:
            # float32 was too coarse for the steps
            finer, at = Dense(turned.coordinates, np.float64), (turned.turn(solved.weight), solved.bias)
            weights = _one_problem(near.weight, penalty, np.float64)
            fine = minimise(finer, near_loss, weights, at, tol=FIT_TOL, precondition=preconditioned)
            model = dataclasses.replace(model, matrix=finer, progress=1e-6)
            solved = _refined(exact, whole, (turned.back(fine.weight), fine.bias), model, tol)
        weight = turned.back(solved.weight) if exact is matrix else solved.weight
        solved = dataclasses.replace(solved, weight=weight, iterations=iterations + solved.iterations)
        return self._done(training, candidate, solved)

    def _keep_held_out(self, solved: Solution, chunk: np.ndarray, scores: np.ndarray) -> None:
        """Put into (G, N, C) the scores of each row by the fold that held it out, of G values of C on some folds."""
        for group, out in enumerate(scores):
            for index, fold in enumerate(chunk):
                at, rows = group * len(chunk) + index, self._near.folds[fold][1]
                here = (self._rotated.coordinates[rows] @ solved.weight[:, at].T + solved.bias[:, at]).astype(
                    np.float64
                )
                out[self._order[rows]] = here * [-0.5, 0.5] if here.shape[1] < self._near.count else here

    def _start(self, candidate: float, outputs: int) -> tuple[np.ndarray, np.ndarray]:
        """(K, 1, r) and (K, 1) to start from with all rows: the mean over the folds at that C, or zeros."""
        known = [path.middles[place] for path in self._paths if (place := float(np.log(candidate))) in path.middles]
        if not known:
            return np.zeros((outputs, 1, self._rotated.coordinates.shape[1])), np.zeros((outputs, 1))
        return np.mean([weight for weight, _ in known], axis=0), np.mean([bias for _, bias in known], axis=0)

    def _share(self, training: TrainingData) -> TrainingData:
        """The rows that the search was made on, or as many, evenly drawn."""
        known = self._training
        if known is not None and known.rows.features is training.rows.features:
            return known
        step = math.ceil(len(training) * 4 * training.rows.width / SHARE)
        return training.take(np.arange(0, len(training), step))

    def _done(self, training: TrainingData, candidate: float, solution: Solution) -> LinearPredictor:
        self.solution_ = solution
        gap = float(solution.gap[0])
        if not gap <= (LOOSE if self.coarse else NOT_CONVERGED):
            message = (
                f"at C={candidate:g} the optimum was not reached: the objective may still fall by {gap:.1g} of itself"
            )
            warnings.warn(message, NotConvergedWarning, stacklevel=3)
        weight, bias = solution.weight[:, 0], solution.bias[:, 0]
        if len(weight) == 1 and training.count == 2:  # one score, of the second class against the first
            weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
        return LinearPredictor(weight, bias)

    def _loss(self, training: TrainingData) -> Loss:
        if training.task == "multilabel":
            positive = training.y.T > 0.5
        elif training.count == 2:
            positive = (training.y == 1)[None]
        elif self.hinge:
            positive = np.arange(training.count)[:, None] == training.y
        else:
            return Softmax(training.y, training.count)
        return SquaredHinge(positive) if self.hinge else Logistic(positive)

    def _prepare(self, training: TrainingData) -> None:
        """Rotate the rows, once for a training."""
        if self._training is training:
            return
        self._training, self._paths = training, []
        self._near, self._order, self._regions = _by_fold(training)
        self._rotated = Rotated.of(self._near.rows)
        coordinates = self._rotated.coordinates
        self._matrix: Matrix = Dense(coordinates)
        if self.device != "cpu" and coordinates.dtype == np.float32:
            from featx.heads.solver.on_device import OnDevice

            self._matrix = OnDevice(coordinates, self.device)


def _by_fold(training: TrainingData) -> tuple[TrainingData, np.ndarray, tuple[slice, ...]]:
    """A training, its order, and where its folds' held-out rows lie: next to one another where they are enough to skip."""
    fold_of = training.fold_of
    if len(training) < _SKIPPED * (len(training.folds) + 1) or not training.folds:
        return training, np.arange(len(training)), ()
    order = np.argsort(fold_of, kind="stable")
    starts = np.flatnonzero(np.diff(fold_of[order], prepend=-2))
    regions = tuple(slice(int(at), int(end)) for at, end in zip(starts, [*starts[1:], len(order)], strict=True))
    return training.ordered(order), order, regions


class _Path:
    """Solutions along C so far, of all folds. Over log C they bend little, so that the next lies ahead of the last two."""

    _KEPT = 64 << 20  # bytes of the middles of all C

    def __init__(self) -> None:
        self.last: list[tuple[float, np.ndarray, np.ndarray]] = []
        self.middles: dict[float, tuple[np.ndarray, np.ndarray]] = {}
        self.first: np.ndarray | None = None

    def add(self, places: np.ndarray, solved: Solution) -> None:
        """Solutions at some places, (n,) ascending; those of one place side by side."""
        folds = solved.weight.shape[1] // len(places)
        for index, place in enumerate(places):
            at = slice(index * folds, (index + 1) * folds)
            weight, bias = solved.weight[:, at], solved.bias[:, at]
            self.last = [*self.last[-1:], (float(place), weight, bias)]
            self.first = solved.first_step[at]
            if weight.nbytes // folds * (len(self.middles) + 1) <= self._KEPT:
                self.middles[float(place)] = (weight.mean(axis=1, keepdims=True), bias.mean(axis=1, keepdims=True))

    def first_step(self, count: int, folds: int) -> np.ndarray:
        """(P,) the first step to try at so many places: the last place's."""
        return np.ones(count * folds) if self.first is None else np.tile(self.first, count)

    def start(self, places: np.ndarray, folds: int, outputs: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """(K, P, D) and (K, P) to start from at some places."""
        if not self.last:
            return np.zeros((outputs, len(places) * folds, width)), np.zeros((outputs, len(places) * folds))
        place, weight, bias = self.last[-1]
        before, weight_before, bias_before = self.last[0]
        steps = (places - place) / (place - before) if place > before else np.zeros(len(places))
        steps = np.repeat(np.clip(steps, 0, None), folds).astype(weight.dtype)
        ahead = np.tile(weight, (1, len(places), 1)) + steps[:, None] * np.tile(
            weight - weight_before, (1, len(places), 1)
        )
        return ahead, np.tile(bias, len(places)) + steps * np.tile(bias - bias_before, len(places))


def _as_it_is(weight: np.ndarray) -> np.ndarray:
    return weight


def _refined(
    exact: Matrix, whole: tuple[Problems, Loss], begin: tuple[np.ndarray, np.ndarray], model: NewtonModel, tol: float
) -> Solution:
    problems, loss = whole
    return refine(exact, loss, problems, begin, model=model, tol=tol, most_iterations=NEWTON_STEPS)


def _one_problem(weight: np.ndarray, penalty: np.ndarray, dtype: Any) -> Problems:
    return Problems((weight / weight.sum())[None].astype(dtype), np.zeros(1, dtype=np.int64), penalty)


def _fold_weights(training: TrainingData, train: np.ndarray) -> np.ndarray:
    weights = np.zeros(len(training))
    weights[train] = training.weight[train]
    return weights
