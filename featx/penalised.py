"""Logistic regression and the linear support vector machine, for a whole path of C at once.

The objectives are scikit-learn's: ``LogisticRegression`` (multinomial, or of two classes with one weight vector; one-vs-rest
for many labels) and ``LinearSVC`` (squared hinge, one-vs-rest, its intercept penalised). N rows, D features, K outputs.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from featx.rows import Rows
from featx.scorers import LinearScorer, NotConvergedWarning
from featx.solver import (
    Dense,
    Logistic,
    Loss,
    Matrix,
    Model,
    Problems,
    Softmax,
    Solution,
    SquaredHinge,
    cores,
    minimise,
    refine,
)
from featx.training import Training

C_PATH = tuple(float(f"{c:.6g}") for c in np.logspace(-6, 5, 45))
"""Values of C that are compared (Kornblith et al., 2019)."""

SEARCH_TOL, FIRST_TOL, ROUGH_TOL, FIT_TOL = 1e-6, 1e-3, 2e-9, 1e-7
"""Relative gaps of the objective: at which a problem of the search is done, as L-BFGS estimates it; at which L-BFGS begins anew
for a head, since the Hessian is another than at the start; at which it ends; and of the head, as a Newton step measures it."""
NOT_CONVERGED = 1e-6
"""A head whose relative gap is above this is said not to have converged."""
NEWTON_STEPS = 50

LOOSE = 1e-4
"""A problem of the search whose gap is above this is said not to have converged."""
SEARCH_ITERATIONS = 400
"""After which a problem of the search is given up, and that is said: where C is far too large for the rows."""

COLUMNS = 256
"""Problems times outputs that are solved together: a matrix product gains little by more."""
TOGETHER = 5
"""Values of C that are solved together, at most: the further from the path so far, the worse the start."""
SCORES = 12_500_000
"""Scores of problems that are solved together, at most: memory is four times as much."""
SHARE = 1 << 28
"""Bytes of float32 rows that Hessians are of, where all do not fit in memory."""
_SMALL = 2_000_000  # elements: below it, float64 throughout costs nothing
_MOST_ROTATED = 8192  # the eigenvectors of a larger Gram matrix take longer than they save


@dataclass(frozen=True, eq=False)
class Rotated:
    """Rows in the axes of their own Gram matrix: Z = coordinates @ basis, so that |w| is the same in both.

    Where there are fewer rows than columns, they span no more than N dimensions, in which the optimum lies; and everywhere the
    Hessian is nearly diagonal there, so that L-BFGS needs far fewer iterations.

    Attributes:
        coordinates: (N, r), r at most min(N, D).
        basis: (r, D), its rows orthonormal; None is the identity.
    """

    coordinates: np.ndarray
    basis: np.ndarray | None

    @classmethod
    def of(cls, rows: Rows) -> Rotated:
        """Rotate rows; overwrites no features, and keeps one copy."""
        Z = rows.whole(np.float64 if len(rows) * rows.width <= _SMALL else np.float32)
        N, D = Z.shape
        if min(N, D) > _MOST_ROTATED:
            return cls(Z, None)
        if N < D:
            basis, R = scipy.linalg.qr(Z.T, mode="economic")
            vectors = scipy.linalg.eigh(R @ R.T, driver="evd")[1]
            return cls(np.ascontiguousarray(R.T @ vectors), np.ascontiguousarray((basis @ vectors).T))
        vectors = scipy.linalg.eigh(Z.T @ Z, driver="evd")[1]
        for at in range(0, N, 4096):  # in place
            Z[at : at + 4096] = Z[at : at + 4096] @ vectors
        return cls(Z, np.ascontiguousarray(vectors.T))

    def turn(self, weight: np.ndarray) -> np.ndarray:
        """(..., D) to (..., r) float64; what lies outside the rows' span is lost."""
        return weight if self.basis is None else weight @ self.basis.T.astype(np.float64)

    def back(self, weight: np.ndarray) -> np.ndarray:
        """(..., r) to (..., D) float64."""
        weight = weight.astype(np.float64)
        return weight if self.basis is None else weight @ self.basis.astype(np.float64)


class Streamed:
    """A matrix that is read from its file again at each product, blocks of rows side by side on all cores.

    Args:
        rows: (N, D).
        dtype: what is computed in.
    """

    _BLOCK_BYTES = 8 << 20

    def __init__(self, rows: Rows, dtype: Any) -> None:
        self.rows, self.dtype = rows, np.dtype(dtype)

    def __len__(self) -> int:
        return len(self.rows)

    def times(self, V: np.ndarray) -> np.ndarray:
        """As ``Matrix.times``."""
        out = np.empty((len(V), len(self.rows)), self.dtype)

        def work(at: slice, block: np.ndarray) -> None:
            np.matmul(V, block.T, out=out[:, at])

        for _ in self._over(work):
            pass
        return out

    def gathered(self, R: np.ndarray, *, squared: bool = False) -> np.ndarray:
        """As ``Matrix.gathered``."""
        out = np.zeros((self.rows.width, len(R)))

        def work(at: slice, block: np.ndarray) -> np.ndarray:
            part: np.ndarray = (block * block if squared else block).T @ R[:, at].T
            return part

        for part in self._over(work):
            out += part
        return np.ascontiguousarray(out.T).astype(self.dtype)

    def _over(self, work: Callable[[slice, np.ndarray], Any]) -> Iterator[Any]:
        step = max(1, self._BLOCK_BYTES // (self.rows.width * self.dtype.itemsize))

        def one(at: int) -> Any:
            rows = slice(at, min(at + step, len(self.rows)))
            return work(rows, self.rows.block(rows, self.dtype, forget=True))

        with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as pool:
            yield from pool.map(one, range(0, len(self.rows), step))


class Turned:
    """A matrix in the axes of a share of its rows, without a copy of it: only weights are turned.

    Args:
        matrix: (N, D).
        share: n of its rows, rotated.
        drawn: (n,) int64, which ones.
    """

    def __init__(self, matrix: Matrix, share: Rotated, drawn: np.ndarray) -> None:
        self.matrix, self.share, self.drawn, self.dtype = matrix, share, drawn, matrix.dtype

    def __len__(self) -> int:
        return len(self.matrix)

    def times(self, V: np.ndarray) -> np.ndarray:
        """As ``Matrix.times``."""
        return self.matrix.times(self.share.back(V).astype(self.dtype))

    def gathered(self, R: np.ndarray, *, squared: bool = False) -> np.ndarray:
        """As ``Matrix.gathered``; of squares an estimate, by the share's rows alone."""
        if squared:
            part = R[:, self.drawn] * self.dtype.type(len(self.matrix) / len(self.drawn))
            return Dense(self.share.coordinates).gathered(part, squared=True)
        return self.share.turn(self.matrix.gathered(R)).astype(self.dtype)


class PenalisedModel:
    """A linear head with an L2 penalty, as a ``Model`` of ``training``.

    Args:
        hinge: squared hinge (svm) instead of the logistic loss (logreg).

    Attributes:
        candidates: values of C.
        solution_: the last fit's: its gap and iterations.
    """

    candidates = C_PATH

    def __init__(self, *, hinge: bool = False) -> None:
        self.hinge = hinge
        self._training: Training | None = None
        self._paths: list[_Path] = []

    def held_out(self, training: Training, candidates: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        """As ``Model.held_out``; neighbouring C are solved together, each started where the path so far leads.

        A second call with the same training goes on from where the first ended.
        """
        self._prepare(training)
        loss, folds = self._loss(training), len(training.folds)
        weights = np.stack([_fold_weights(training, train) for train, _ in training.folds])
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
                solved = self._solved(loss, Problems(weights, np.tile(chunk, len(group)), penalty), group, path)
                loose += [
                    C for C, gap in zip(np.repeat(group, len(chunk)), solved.gap, strict=True) if not gap <= LOOSE
                ]
                _keep_held_out(training, solved.scores, chunk, scores)
            yield from zip(group, scores, strict=True)
        if loose:
            which = f"{len(loose)} of {len(candidates) * folds} fits of the search, from C={min(loose):g} on,"
            warnings.warn(f"{which} had not converged; their losses are rough", NotConvergedWarning, stacklevel=2)

    def _solved(self, loss: Loss, problems: Problems, group: Sequence[float], path: _Path) -> Solution:
        """Some values of C on some folds, started where their path leads."""
        folds, width = len(problems.fold) // len(group), self._rotated.coordinates.shape[1]
        solved = minimise(
            self._matrix, loss, problems, path.start(np.log(group), folds, loss.outputs, width),
            tol=SEARCH_TOL, precondition=self._rotated.basis is not None, most_iterations=SEARCH_ITERATIONS,
        )  # fmt: skip
        path.add(np.log(group), solved)
        return solved

    def fit(self, training: Training, candidate: float) -> LinearScorer:
        """Fit to all rows: L-BFGS, then Newton steps in float64. Of rows that do not fit in memory, Hessians are a share's.

        Warns:
            NotConvergedWarning: the optimum was not reached.
        """
        near = training if training.rows.fits else self._share(training)
        self._prepare(near)
        near_loss, loss = self._loss(near), self._loss(training)
        matrix, turned, dtype = self._matrix, self._rotated, self._matrix.dtype
        penalty = np.array([1 / (candidate * float(training.weight.sum()))])
        problems = _one_problem(near.weight, penalty, dtype)
        start = self._start(candidate, near_loss.outputs)
        preconditioned = turned.basis is not None
        first = minimise(matrix, near_loss, problems, start, tol=FIRST_TOL, precondition=preconditioned)
        start = (first.weight, first.bias)
        rough = minimise(matrix, near_loss, problems, start, tol=ROUGH_TOL, precondition=preconditioned)
        iterations = first.iterations + rough.iterations
        if near is not training:
            drawn = np.searchsorted(training.rows.index, near.rows.index)
            everything = Turned(Streamed(training.rows, dtype), turned, drawn)
            rough = minimise(
                everything, loss, _one_problem(training.weight, penalty, dtype),
                (rough.weight, rough.bias), tol=FIT_TOL, precondition=preconditioned,
            )  # fmt: skip
            iterations = iterations + rough.iterations
        exact: Matrix = Streamed(training.rows, np.float64)
        begin = (turned.back(rough.weight), rough.bias.astype(np.float64))
        model = Model(matrix, problems.weights[0], near_loss, turned.turn, turned.back, progress=0.25)
        if near is training and dtype == np.float64:  # so few rows that nothing was lost, and no other matrix is needed
            exact, begin = matrix, (rough.weight, rough.bias)
            model = dataclasses.replace(model, turn=_as_it_is, back=_as_it_is, progress=1e-6)
        tol = FIT_TOL / 1000 if exact is matrix else FIT_TOL if near is training else NOT_CONVERGED / 2
        whole = _one_problem(training.weight, penalty, np.float64), loss
        solved = _refined(exact, whole, begin, model, tol)
        if near is training and exact is not matrix and not solved.gap[0] <= NOT_CONVERGED:
            # float32 was too coarse for the steps
            finer, at = Dense(turned.coordinates, np.float64), (turned.turn(solved.weight), solved.bias)
            weights = _one_problem(near.weight, penalty, np.float64)
            fine = minimise(finer, near_loss, weights, at, tol=FIT_TOL, precondition=preconditioned)
            model = dataclasses.replace(model, matrix=finer, progress=1e-6)
            solved = _refined(exact, whole, (turned.back(fine.weight), fine.bias), model, tol)
        weight = turned.back(solved.weight) if exact is matrix else solved.weight
        solved = dataclasses.replace(solved, weight=weight, iterations=iterations + solved.iterations)
        return self._done(training, candidate, solved)

    def _start(self, candidate: float, outputs: int) -> tuple[np.ndarray, np.ndarray]:
        """(K, 1, r) and (K, 1) to start from with all rows: the mean over the folds at that C, or zeros."""
        known = [path.middles[place] for path in self._paths if (place := float(np.log(candidate))) in path.middles]
        if not known:
            return np.zeros((outputs, 1, self._rotated.coordinates.shape[1])), np.zeros((outputs, 1))
        return np.mean([weight for weight, _ in known], axis=0), np.mean([bias for _, bias in known], axis=0)

    def _share(self, training: Training) -> Training:
        """The rows that the search was made on, or as many, evenly drawn."""
        known = self._training
        if known is not None and known.rows.features is training.rows.features:
            return known
        step = math.ceil(len(training) * 4 * training.rows.width / SHARE)
        return training.take(np.arange(0, len(training), step))

    def _done(self, training: Training, candidate: float, solution: Solution) -> LinearScorer:
        self.solution_ = solution
        gap = float(solution.gap[0])
        if not gap <= NOT_CONVERGED:
            message = (
                f"at C={candidate:g} the optimum was not reached: the objective may still fall by {gap:.1g} of itself"
            )
            warnings.warn(message, NotConvergedWarning, stacklevel=3)
        weight, bias = solution.weight[:, 0], solution.bias[:, 0]
        if len(weight) == 1 and training.count == 2:  # one score, of the second class against the first
            weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
        return LinearScorer(weight, bias)

    def _loss(self, training: Training) -> Loss:
        if training.task == "multilabel":
            positive = training.y.T > 0.5
        elif training.count == 2:
            positive = (training.y == 1)[None]
        elif self.hinge:
            positive = np.arange(training.count)[:, None] == training.y
        else:
            return Softmax(training.y, training.count)
        return SquaredHinge(positive) if self.hinge else Logistic(positive)

    def _prepare(self, training: Training) -> None:
        """Rotate the rows, once for a training."""
        if self._training is training:
            return
        self._training, self._paths = training, []
        self._rotated = Rotated.of(training.rows)
        self._matrix = Dense(self._rotated.coordinates)


class _Path:
    """Solutions along C so far, of all folds. Over log C they bend little, so that the next lies ahead of the last two."""

    _KEPT = 64 << 20  # bytes of the middles of all C

    def __init__(self) -> None:
        self.last: list[tuple[float, np.ndarray, np.ndarray]] = []
        self.middles: dict[float, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, places: np.ndarray, solved: Solution) -> None:
        """Solutions at some places, (n,) ascending; those of one place side by side."""
        folds = solved.weight.shape[1] // len(places)
        for index, place in enumerate(places):
            at = slice(index * folds, (index + 1) * folds)
            weight, bias = solved.weight[:, at], solved.bias[:, at]
            self.last = [*self.last[-1:], (float(place), weight, bias)]
            if weight.nbytes // folds * (len(self.middles) + 1) <= self._KEPT:
                self.middles[float(place)] = (weight.mean(axis=1, keepdims=True), bias.mean(axis=1, keepdims=True))

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
    exact: Matrix, whole: tuple[Problems, Loss], begin: tuple[np.ndarray, np.ndarray], model: Model, tol: float
) -> Solution:
    problems, loss = whole
    return refine(exact, loss, problems, begin, model=model, tol=tol, most_iterations=NEWTON_STEPS)


def _one_problem(weight: np.ndarray, penalty: np.ndarray, dtype: Any) -> Problems:
    return Problems((weight / weight.sum())[None].astype(dtype), np.zeros(1, dtype=np.int64), penalty)


def _fold_weights(training: Training, train: np.ndarray) -> np.ndarray:
    weights = np.zeros(len(training))
    weights[train] = training.weight[train]
    return weights


def _keep_held_out(training: Training, solved: np.ndarray, chunk: np.ndarray, scores: np.ndarray) -> None:
    """From (K, G x F, N) scores of G values of C on F folds to (G, N, C): each row's by the fold that held it out."""
    for group, out in enumerate(scores):
        for index, fold in enumerate(chunk):
            rows = training.folds[fold][1]
            here = solved[:, group * len(chunk) + index, rows].T.astype(np.float64)
            out[rows] = here * [-0.5, 0.5] if here.shape[1] < training.count else here
