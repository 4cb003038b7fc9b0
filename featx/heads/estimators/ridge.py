"""Least squares with an L2 penalty: all penalties, and what each row would score without itself, from one factorisation.

N rows of D features with weights s, C outputs, targets T (N, C). The optimum for a penalty alpha is that of scikit-learn's
``Ridge``: sum_i s_i |t_i - W z_i - b|^2 + alpha |W|^2. Where N > D, the rows' weighted, centred Gram matrix (D, D) is added up
block by block and factored; else their kernel matrix (N, N).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from featx.errors import HeadError
from featx.heads.predictors import LinearPredictor
from featx.heads.training_data import BLOCK_BYTES, Rows, TrainingData

STRENGTHS = tuple(float(f"{C:.6g}") for C in np.logspace(-6, 5, 45))
"""Values of C = 1 / (2 alpha) that are compared."""
MAX_SIDE = 16_384
"""Of the matrix that is factored: it, its vectors and the factorisation's own memory are 8 bytes x side^2 each."""

_SUM_BYTES = (
    32 << 20
)  # of a block that is multiplied in float32 before it is added to float64 sums: few rows, small errors
_SCORE_BYTES = 128 << 20, 512 << 20  # of held-out scores that one pass over the rows makes, of few rows and of many


class RidgeModel:
    """Ridge regression; for classes and labels, to targets of -1 and 1, one-vs-rest, as scikit-learn's ``RidgeClassifier``.

    The candidate is C = 1 / (2 alpha). ``cross_val_scores`` gives each row's score by a fit to all others, in closed form
    (Allen, 1974), where that tells the truth and costs little: not where rows have copies among the others
    (``training.grouped``), nor where they do not fit in memory. There the folds' scores are given, from sums that were
    added up in one pass.

    Products are made in float64, but for folds of rows that do not fit in memory: in float32, block by block, added up in
    float64.

    Args:
        candidates: values of C, the smallest first.
    """

    def __init__(self, candidates: Sequence[float] = STRENGTHS) -> None:
        self.candidates = tuple(candidates)
        self._last: tuple[TrainingData, bool, _Tall | _Wide] | None = None

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """For each C the (N, C) scores of each row, by a fit without it (or without its fold; NaN where none holds it out).

        Raises:
            HeadError: too large, or rows that do not count.
        """
        penalties = np.array([_penalty(C) for C in candidates])
        by_fold = bool(training.folds) and (training.grouped or not training.rows.fits)
        problem = self._problem(training, by_fold)
        scores = problem.by_fold(penalties) if by_fold else problem.left_out(penalties)
        for candidate, each in zip(candidates, scores, strict=True):
            yield candidate, problem.targets.restored(each)

    def fit(self, training: TrainingData, candidate: float) -> LinearPredictor:
        """Fit to all rows, from the sums and the factorisation that ``cross_val_scores`` made of them, if it did.

        Raises:
            HeadError: too large, or rows that do not count.
        """
        problem = self._problem(training, False)
        weight, bias = problem.whole.solutions(np.array([_penalty(candidate)]))
        targets = problem.targets
        return LinearPredictor(
            problem.outward(weight.T) * targets.scale[:, None], bias * targets.scale + targets.offset
        )

    def _problem(self, training: TrainingData, by_fold: bool) -> _Tall | _Wide:
        """What was made of these rows last, or is now."""
        if self._last is None or self._last[0] is not training or (by_fold and not self._last[1]):
            side = min(len(training), training.rows.width)
            if side > MAX_SIDE:
                raise HeadError(
                    f"{len(training):,} rows of {training.rows.width:,} features; a ridge head factors a matrix of the "
                    f"smaller of the two, at most {MAX_SIDE:,}; --model logreg or linear takes more"
                )
            self._last = None  # let go of the matrices first
            kind = _Tall if len(training) > training.rows.width else _Wide
            self._last = training, by_fold, kind(training, by_fold)
        return self._last[2]


def _penalty(C: float) -> float:
    if not 0 < C < float("inf"):
        raise HeadError(f"C is {C}; expected a positive number")
    return 1.0 / (2.0 * C)


class _Targets:
    """What is fitted: -1 and 1, or numbers less their weighted mean, divided by their weighted deviation.

    Attributes:
        offset: (C,) float64, and
        scale: (C,) float64: targets x scale + offset are the numbers that were asked for. Of two classes, the scores differ
            by scikit-learn's one score, so each is half as large.
    """

    def __init__(self, training: TrainingData) -> None:
        self._y, self._task, self._count = training.y, training.task, training.count
        self.offset, self.scale = np.zeros(training.count), np.ones(training.count)
        if training.task == "classification" and training.count == 2:
            self.scale /= 2
        if training.task == "regression":
            self.offset = np.average(training.y, axis=0, weights=training.weight)
            deviation = np.sqrt(np.average((training.y - self.offset) ** 2, axis=0, weights=training.weight))
            self.scale = np.where(deviation > 0, deviation, 1.0)

    def block(self, rows: slice | np.ndarray) -> np.ndarray:
        """(n, C) float64."""
        y = self._y[rows]
        if self._task == "regression":
            scaled: np.ndarray = (y - self.offset) / self.scale
            return scaled
        has = y[:, None] == np.arange(self._count) if self._task == "classification" else y > 0
        return np.where(has, 1.0, -1.0)

    def restored(self, scores: np.ndarray) -> np.ndarray:
        """(N, C) scores in the numbers' own units, float64."""
        out = scores.astype(np.float64)
        out *= self.scale
        out += self.offset
        return out


@dataclass(frozen=True, eq=False)
class _Path:
    """The solutions for all penalties, in D features (or in the N columns of a kernel matrix).

    Attributes:
        values: (r,) eigenvalues, 0 where they are rounding errors.
        vectors: (D, r) eigenvectors, which map to features.
        cross: (r, C) what the targets are in their directions.
        center: (D,) what is taken from the features, and
        level: (C,) what the score is there.
    """

    values: np.ndarray
    vectors: np.ndarray
    cross: np.ndarray
    center: np.ndarray
    level: np.ndarray

    def solutions(self, penalties: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(D, P x C) weights and (P x C,) biases, of the first penalty first."""
        shrunk = self.cross[:, None, :] * self.inverse(penalties)[:, :, None]
        weights = self.vectors @ shrunk.reshape(len(self.values), -1)
        return weights, np.tile(self.level, len(penalties)) - self.center @ weights

    def inverse(self, penalties: np.ndarray) -> np.ndarray:
        """(r, P) 1 / (value + penalty), but 0 for directions in which rows do not differ: they have no part in a solution."""
        varies = (self.values > 0)[:, None]
        return np.where(varies, 1.0, 0.0) / np.where(varies, self.values[:, None] + penalties, 1.0)


def _eigen(matrix: np.ndarray, precision: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of a symmetric matrix without negative ones, (r,), those within its errors 0; and vectors, (r, r)."""
    values, vectors = np.linalg.eigh(matrix)
    return np.where(values > precision * values.max(initial=0.0), values, 0.0), vectors


@dataclass(frozen=True, eq=False)
class _Sums:
    """Weighted sums over rows: of weights, of z (D,), of t (C,), of z z' (D, D), and of z t' (D, C); float64."""

    weight: float
    rows: np.ndarray
    targets: np.ndarray
    squares: np.ndarray
    cross: np.ndarray

    @classmethod
    def nothing(cls, width: int, count: int) -> _Sums:
        return cls(0.0, np.zeros(width), np.zeros(count), np.zeros((width, width)), np.zeros((width, count)))

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.weight + other.weight,
            self.rows + other.rows,
            self.targets + other.targets,
            self.squares + other.squares,
            self.cross + other.cross,
        )

    def plus(self, block: np.ndarray, targets: np.ndarray, weight: np.ndarray) -> _Sums:
        """With (n, D) more rows, in whose precision the products are made; adds to ``squares`` and ``cross`` in place."""
        root = np.sqrt(weight).astype(block.dtype)
        scaled = block * root[:, None]
        np.add(self.squares, scaled.T @ scaled, out=self.squares)
        np.add(self.cross, scaled.T @ (root[:, None] * targets.astype(block.dtype)), out=self.cross)
        rows, targets = self.rows + scaled.T @ root, self.targets + weight @ targets
        return _Sums(self.weight + float(weight.sum()), rows, targets, self.squares, self.cross)

    def path(self, precision: float) -> _Path:
        """Factor the centred squares: the intercept is not penalised."""
        if not self.weight > 0:
            raise HeadError("no row of weight above 0 is left to fit to; give more than one row or class such a weight")
        center, level = self.rows / self.weight, self.targets / self.weight
        values, vectors = _eigen(self.squares - np.outer(self.rows, center), precision)
        return _Path(values, vectors, vectors.T @ (self.cross - np.outer(self.rows, level)), center, level)


class _Tall:
    """More rows than features."""

    def __init__(self, training: TrainingData, by_fold: bool) -> None:
        self.targets = _Targets(training)
        self._rows, self._weight = training.rows, training.weight
        self._dtype: Any = np.float32 if by_fold and not training.rows.fits else np.float64
        many = 1 if self._dtype is np.float32 else training.rows.width  # float32's errors are of blocks, and even out
        self._precision = float(np.finfo(self._dtype).eps) * many
        self._fold_of = training.fold_of if by_fold else np.full(len(training), -1)
        self._sums = self._added_up(len(training.folds) if by_fold else 0, training.count)

    @cached_property
    def whole(self) -> _Path:
        """Of all rows."""
        path: _Path = sum(self._sums[1:], self._sums[0]).path(self._precision)
        return path

    def outward(self, weight: np.ndarray) -> np.ndarray:
        """(C, D) weights of features."""
        return weight

    def by_fold(self, penalties: np.ndarray) -> Iterator[np.ndarray]:
        """(N, C) scores for each penalty, each row's by the sums over the other folds."""
        paths = []
        for fold in range(1, len(self._sums)):
            others = [sums for at, sums in enumerate(self._sums) if at != fold]
            paths.append(sum(others[1:], others[0]).path(self._precision))
        return _scores(self._rows, self._fold_of, paths, penalties, self._dtype)

    def left_out(self, penalties: np.ndarray) -> Iterator[np.ndarray]:
        """(N, C) scores for each penalty, each row's by a fit to all others.

        A row's residual without it is its residual with it, divided by 1 - its leverage; the intercept is part of both.
        """
        _require_two(self._weight)
        freedom = self._freedom(penalties)
        targets = self.targets.block(slice(None))
        fitted = _scores(self._rows, np.zeros(len(self._rows), dtype=np.int64), [self.whole], penalties, self._dtype)
        for at, scores in enumerate(fitted):
            scores -= targets
            scores /= freedom[:, at, None]
            scores += targets
            yield scores

    def _freedom(self, penalties: np.ndarray) -> np.ndarray:
        """(N, P) 1 - leverage of each row at each penalty."""
        path, total = self.whole, self._weight.sum()
        inverse = path.inverse(penalties)
        freedom = np.empty((len(self._rows), len(penalties)))
        for rows, block in self._rows.blocks(self._dtype, most=BLOCK_BYTES // 2):
            block -= path.center.astype(self._dtype)
            rotated = block @ path.vectors.astype(self._dtype)
            freedom[rows] = 1 - self._weight[rows, None] * (1 / total + np.square(rotated, out=rotated) @ inverse)
        # No leverage leaves less, whatever rounding says: an eigenvalue of I - H but the intercept's is at least this.
        least = penalties / (path.values.max(initial=0.0) + penalties)
        np.maximum(freedom, (1 - self._weight / total)[:, None] * least, out=freedom)
        return freedom

    def _added_up(self, folds: int, count: int) -> list[_Sums]:
        """Sums over the rows that are in no fold, and over each fold's, in one pass."""
        sums = [_Sums.nothing(self._rows.width, count) for _ in range(1 + folds)]
        for rows, block in self._rows.blocks(self._dtype, most=_SUM_BYTES):
            targets, weight = self.targets.block(rows), self._weight[rows]
            for at in range(len(sums)):
                here = np.flatnonzero(self._fold_of[rows] == at - 1)
                if len(here):
                    some = slice(None) if len(here) == len(block) else here
                    sums[at] = sums[at].plus(block[some], targets[some], weight[some])
        return sums


class _Wide:
    """At least as many features as rows: everything in terms of the rows' inner products, (N, N)."""

    def __init__(self, training: TrainingData, by_fold: bool) -> None:  # noqa: ARG002 - the same matrix serves folds
        self.targets = _Targets(training)
        self._training = training
        self._kernel = _inner_products(training.rows)

    @cached_property
    def _counting(self) -> np.ndarray:
        return np.flatnonzero(self._training.weight > 0)

    @cached_property
    def _spectrum(self) -> _Spectrum:
        return _Spectrum.of(self._kernel, self._counting, self._training.weight)

    @cached_property
    def whole(self) -> _Path:
        """Of all rows that count."""
        return self._spectrum.path(self.targets.block(self._counting))

    def outward(self, weight: np.ndarray) -> np.ndarray:
        """(C, D) weights of features, of (C, N) weights of inner products with the rows."""
        out = np.zeros((len(weight), self._training.rows.width))
        for rows, block in self._training.rows.blocks(np.float64):
            out += weight[:, rows] @ block
        return out

    def by_fold(self, penalties: np.ndarray) -> Iterator[np.ndarray]:
        """(N, C) scores for each penalty, each row's by the inner products among the other folds."""
        paths = []
        for train, _ in self._training.folds:
            counting = train[self._training.weight[train] > 0]
            spectrum = _Spectrum.of(self._kernel, counting, self._training.weight)
            paths.append(spectrum.path(self.targets.block(counting)))
        return _scores(Rows(self._kernel), self._training.fold_of, paths, penalties, np.float64)

    def left_out(self, penalties: np.ndarray) -> Iterator[np.ndarray]:
        """(N, C) scores for each penalty, each row's by a fit to all others."""
        weight, counting = self._training.weight, self._counting
        _require_two(weight)
        targets, rest = self.targets.block(counting), np.flatnonzero(weight <= 0)
        for penalty, residuals in zip(penalties, self._spectrum.left_out(targets, penalties), strict=True):
            scores = np.empty((len(weight), targets.shape[1]))
            scores[counting] = targets - residuals
            if len(rest):  # they are left out of every fit
                slope, bias = self.whole.solutions(np.array([penalty]))
                scores[rest] = self._kernel[rest] @ slope + bias
            yield scores


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """Eigenvalues (n-1,) and vectors (n, n-1) of the weighted, centred inner products of n of N rows.

    Each row stands times the root of its weight. All vectors are orthogonal to the roots, along which the intercept fits
    everything; that direction is taken out by a reflection before the factorisation, for it could not be told from others of
    eigenvalue 0 after it.

    Attributes:
        members: (n,) int64, which rows.
        total: N.
        root: (n,) roots of the weights.
        means: (N,) weighted mean of each row's inner products with the n, which is its inner product with their mean.
    """

    members: np.ndarray
    total: int
    root: np.ndarray
    means: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(cls, kernel: np.ndarray, members: np.ndarray, weight: np.ndarray) -> _Spectrum:
        """Of some rows, all with a weight above 0, and the (N, N) inner products of all."""
        if not len(members):
            raise HeadError("no row of weight above 0 is left to fit to; give more than one row or class such a weight")
        share = weight[members] / weight[members].sum()
        means = kernel[:, members] @ share
        centred = kernel[np.ix_(members, members)]
        centred -= means[members] + (means[members] - share @ means[members])[:, None]
        root = np.sqrt(weight[members])
        centred *= root * root[:, None]
        mirror = np.sqrt(share)
        mirror[0] += 1.0  # the reflection along it takes the roots' direction to the first axis
        factor = 1.0 / mirror[0]  # 2 / |mirror|^2
        centred -= np.outer(factor * (centred @ mirror), mirror)
        centred -= np.outer(mirror, factor * (mirror @ centred))
        values, inner = _eigen(centred[1:, 1:], float(np.finfo(np.float64).eps) * len(members))
        vectors = np.concatenate([np.zeros((1, len(values))), inner])
        vectors -= np.outer(mirror, factor * (mirror @ vectors))
        return cls(members, len(kernel), root, means, values, vectors)

    def path(self, targets: np.ndarray) -> _Path:
        """The solutions for (n, C) targets, as weights of all N columns of the kernel matrix."""
        level = self.root**2 @ targets / (self.root @ self.root)
        vectors, center = np.zeros((self.total, len(self.values))), np.zeros(self.total)
        vectors[self.members] = self.root[:, None] * self.vectors
        center[self.members] = self.means[self.members]
        return _Path(self.values, vectors, self.vectors.T @ (self.root[:, None] * targets), center, level)

    def left_out(self, targets: np.ndarray, penalties: np.ndarray) -> Iterator[np.ndarray]:
        """(n, C) residuals of each row by a fit to all others, for each penalty.

        Residual and 1 - leverage both vanish with the penalty; what is divided here is each divided by it, exactly.
        """
        shrunk = penalties / (self.values[:, None] + penalties)
        freedom = np.maximum(np.square(self.vectors) @ shrunk, np.finfo(np.float64).tiny) * self.root[:, None]
        along = self.vectors.T @ (self.root[:, None] * targets)
        for at in range(len(penalties)):
            yield self.vectors @ (shrunk[:, at, None] * along) / freedom[:, at, None]


def _inner_products(rows: Rows) -> np.ndarray:
    """(N, N) float64, of pairs of blocks."""
    out = np.empty((len(rows), len(rows)))
    for left, block in rows.blocks(np.float64, most=2 * BLOCK_BYTES):
        out[left, left] = block @ block.T
        for right, other in rows.take(np.arange(left.start)).blocks(np.float64, most=2 * BLOCK_BYTES):
            out[left, right] = block @ other.T
            out[right, left] = out[left, right].T
    return out


def _scores(
    rows: Rows, fold_of: np.ndarray, paths: Sequence[_Path], penalties: np.ndarray, dtype: Any
) -> Iterator[np.ndarray]:
    """(N, C) scores for each penalty, each row's by the path of its fold; NaN in none.

    A pass over the rows serves as many penalties as ``_SCORE_BYTES`` hold the scores and weights of.
    """
    count = len(paths[0].level)
    each = np.dtype(dtype).itemsize * count * (len(rows) + len(paths) * rows.width)
    step = max(1, _SCORE_BYTES[not rows.fits] // each)
    for start in range(0, len(penalties), step):
        some = penalties[start : start + step]
        solved = [[part.astype(dtype, copy=False) for part in path.solutions(some)] for path in paths]
        out = [np.full((len(rows), count), np.nan, dtype=dtype) for _ in some]
        most = int(BLOCK_BYTES // 2 * min(1.0, rows.width / (count * len(some))))
        for which, block in rows.blocks(dtype, most=most):
            for fold, (weights, biases) in enumerate(solved):
                here = np.flatnonzero(fold_of[which] == fold)
                part = (block if len(here) == len(block) else block[here]) @ weights
                part += biases
                for at, scores in enumerate(out):
                    scores[which.start + here] = part[:, at * count : (at + 1) * count]
        while out:
            yield out.pop(0)


def _require_two(weight: np.ndarray) -> None:
    if np.count_nonzero(weight > 0) < 2:
        raise HeadError("one row of weight above 0 cannot judge itself; give more rows or classes such a weight")
