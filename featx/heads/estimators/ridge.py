"""Ridge regression: all penalties, and the leave-one-out scores, from one eigendecomposition.

N rows of D features with weights s, C outputs, targets T (N, C), P penalties, rank r. The optimum for a penalty alpha is that
of scikit-learn's ``Ridge``: sum_i s_i |t_i - W z_i - b|^2 + alpha |W|^2. With N > D, the rows' weighted, centred second moments
(D, D) are summed block by block and decomposed (primal); otherwise their Gram matrix (N, N) is decomposed (dual).
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
"""The largest side of the matrix that is decomposed. It, its eigenvectors and the workspace take 8 bytes x side^2 each."""

_SUM_BYTES = 32 << 20
"""Size of a block that is multiplied in float32 and then added to sums in float64. Few rows have small rounding errors."""
_SCORE_BYTES = 128 << 20, 512 << 20
"""Size of the held-out scores that one pass over the rows makes: for rows in memory, and for rows in a file."""


class RidgeEstimator:
    """Fits ridge regression.

    Classes and labels are fitted one-vs-rest, with targets of -1 and 1, as by scikit-learn's ``RidgeClassifier``.

    The candidate is C = 1 / (2 alpha). The held-out score of a row is its leave-one-out score, in closed form (Allen, 1974).
    If rows have copies among the others (``training.grouped``), leave-one-out would be too optimistic, and if the rows do not
    fit in memory, it would be too slow: then the folds are used, from sums that are computed in one pass.

    Products are in float64, except for folds of rows that do not fit in memory: they are in float32, summed in float64.

    Args:
        candidates: values of C, the smallest first.

    Examples:
        >>> rows = Rows(np.array([[-1.0], [0.0], [1.0]]))
        >>> training = TrainingData(rows, np.array([[0.0], [2.0], [4.0]]), 1, "regression", np.ones(3))
        >>> predictor = RidgeEstimator().fit(training, 0.25)  # alpha = 2, so the slope of 2 is halved
        >>> predictor.weight.round(6), predictor.bias.round(6)
        (array([[1.]]), array([2.]))
    """

    def __init__(self, candidates: Sequence[float] = STRENGTHS) -> None:
        self.candidates = tuple(candidates)
        self._last: tuple[TrainingData, bool, _PrimalProblem | _DualProblem] | None = None

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Score each row by a fit without it, or without the fold that holds it out.

        Yields:
            Each C, and its (N, C) float64 scores; NaN for rows that no fold holds out, where folds are used.

        Raises:
            HeadError: the matrix is too large, or there are too few rows of a weight above 0.
        """
        penalties = np.array([_penalty(C) for C in candidates])
        use_folds = bool(training.folds) and (training.grouped or not training.rows.fits)
        problem = self._problem(training, use_folds)
        scores = problem.fold_scores(penalties) if use_folds else problem.leave_one_out_scores(penalties)
        for candidate, standardised in zip(candidates, scores, strict=True):
            yield candidate, problem.targets.unstandardised(standardised)

    def fit(self, training: TrainingData, candidate: float) -> LinearPredictor:
        """Fit to all rows; the sums and the eigendecomposition of a preceding search are reused.

        Raises:
            HeadError: the matrix is too large, or there are no rows of a weight above 0.
        """
        problem = self._problem(training, False)
        weight, bias = problem.path.solutions(np.array([_penalty(candidate)]))
        targets = problem.targets
        return LinearPredictor(
            problem.feature_weights(weight.T) * targets.scale[:, None], bias * targets.scale + targets.offset
        )

    def _problem(self, training: TrainingData, use_folds: bool) -> _PrimalProblem | _DualProblem:
        """Return the last problem if it is of the same rows, or a new one."""
        if self._last is None or self._last[0] is not training or (use_folds and not self._last[1]):
            side = min(len(training), training.rows.width)
            if side > MAX_SIDE:
                raise HeadError(
                    f"{len(training):,} rows of {training.rows.width:,} features; a ridge head decomposes a matrix whose side "
                    f"is the smaller of the two, at most {MAX_SIDE:,}; --model logreg or linear takes more"
                )
            self._last = None  # frees its matrices before new ones are made
            kind = _PrimalProblem if len(training) > training.rows.width else _DualProblem
            self._last = training, use_folds, kind(training, use_folds)
        return self._last[2]


def _penalty(C: float) -> float:
    if not 0 < C < float("inf"):
        raise HeadError(f"C is {C}; expected a positive number")
    return 1.0 / (2.0 * C)


class _Targets:
    """Targets to fit: -1 and 1, or the targets of a regression, standardised by their weighted mean and deviation.

    Attributes:
        offset: (C,) float64.
        scale: (C,) float64; standardised x scale + offset are the values to predict. With two classes the difference of the two
            scores is scikit-learn's single score, so that each is half of it.
    """

    def __init__(self, training: TrainingData, standard: tuple[np.ndarray, np.ndarray] | None = None) -> None:
        self._y, self._task, self._count = training.y, training.task, training.count
        if standard is not None:  # of more rows than these
            self.offset, self.scale = standard
            return
        self.offset, self.scale = np.zeros(training.count), np.ones(training.count)
        if training.task == "classification" and training.count == 2:
            self.scale /= 2
        if training.task == "regression":
            self.offset = np.average(training.y, axis=0, weights=training.weight)
            deviation = np.sqrt(np.average((training.y - self.offset) ** 2, axis=0, weights=training.weight))
            self.scale = np.where(deviation > 0, deviation, 1.0)

    def block(self, rows: slice | np.ndarray) -> np.ndarray:
        """The standardised targets of n rows, (n, C) float64."""
        y = self._y[rows]
        if self._task == "regression":
            standardised: np.ndarray = (y - self.offset) / self.scale
            return standardised
        positive = y[:, None] == np.arange(self._count) if self._task == "classification" else y > 0
        return np.where(positive, 1.0, -1.0)

    def unstandardised(self, scores: np.ndarray) -> np.ndarray:
        """Convert (N, C) scores to the units of the targets, float64."""
        out = scores.astype(np.float64)
        out *= self.scale
        out += self.offset
        return out


@dataclass(frozen=True, eq=False)
class _RegularisationPath:
    """The solutions for all penalties, in D features (or in the N columns of a Gram matrix).

    Attributes:
        values: (r,) eigenvalues; 0 for those that are rounding errors.
        vectors: (D, r) eigenvectors, mapped to features.
        cross: (r, C), the products of eigenvectors and targets.
        center: (D,), the mean that is subtracted from the features.
        level: (C,), the score at that mean.
    """

    values: np.ndarray
    vectors: np.ndarray
    cross: np.ndarray
    center: np.ndarray
    level: np.ndarray

    def solutions(self, penalties: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute (D, P x C) weights and (P x C,) biases, grouped by penalty."""
        shrunk = self.cross[:, None, :] * self.inverse(penalties)[:, :, None]
        weights = self.vectors @ shrunk.reshape(len(self.values), -1)
        return weights, np.tile(self.level, len(penalties)) - self.center @ weights

    def inverse(self, penalties: np.ndarray) -> np.ndarray:
        """(r, P) 1 / (eigenvalue + penalty), or 0 for eigenvalues of 0: those directions have no part in a solution."""
        varies = (self.values > 0)[:, None]
        return np.where(varies, 1.0, 0.0) / np.where(varies, self.values[:, None] + penalties, 1.0)


def _eigendecomposition(matrix: np.ndarray, precision: float) -> tuple[np.ndarray, np.ndarray]:
    """Decompose a positive semidefinite matrix: (r,) eigenvalues, 0 for rounding errors, and (r, r) eigenvectors."""
    values, vectors = np.linalg.eigh(matrix)
    return np.where(values > precision * values.max(initial=0.0), values, 0.0), vectors


@dataclass(frozen=True, eq=False)
class _Moments:
    """Weighted sums over rows z with targets t, in float64.

    Attributes:
        weight: the sum of the weights.
        rows: (D,), the sum of z.
        targets: (C,), the sum of t.
        squares: (D, D), the sum of z z'.
        cross: (D, C), the sum of z t'.
    """

    weight: float
    rows: np.ndarray
    targets: np.ndarray
    squares: np.ndarray
    cross: np.ndarray

    @classmethod
    def zeros(cls, width: int, count: int) -> _Moments:
        return cls(0.0, np.zeros(width), np.zeros(count), np.zeros((width, width)), np.zeros((width, count)))

    def __add__(self, other: _Moments) -> _Moments:
        return _Moments(
            self.weight + other.weight,
            self.rows + other.rows,
            self.targets + other.targets,
            self.squares + other.squares,
            self.cross + other.cross,
        )

    def with_block(self, block: np.ndarray, targets: np.ndarray, weight: np.ndarray) -> _Moments:
        """Add (n, D) rows; products are in their dtype. ``squares`` and ``cross`` are added to in place."""
        root = np.sqrt(weight).astype(block.dtype)
        scaled = block * root[:, None]
        np.add(self.squares, scaled.T @ scaled, out=self.squares)
        np.add(self.cross, scaled.T @ (root[:, None] * targets.astype(block.dtype)), out=self.cross)
        rows, targets = self.rows + scaled.T @ root, self.targets + weight @ targets
        return _Moments(self.weight + float(weight.sum()), rows, targets, self.squares, self.cross)

    def path(self, precision: float) -> _RegularisationPath:
        """Decompose the centred squares; centring leaves the intercept unpenalised."""
        if not self.weight > 0:
            raise HeadError("no row of weight above 0 is left to fit to; give more than one row or class such a weight")
        center, level = self.rows / self.weight, self.targets / self.weight
        values, vectors = _eigendecomposition(self.squares - np.outer(self.rows, center), precision)
        cross = vectors.T @ (self.cross - np.outer(self.rows, level))
        return _RegularisationPath(values, vectors, cross, center, level)


def _sum_moments(
    training: TrainingData, targets: _Targets, dtype: Any, fold_of: np.ndarray | None, folds: int
) -> list[_Moments]:
    """Sum the moments of the rows in no fold and of the rows of each fold, in one pass."""
    moments = [_Moments.zeros(training.rows.width, training.count) for _ in range(1 + folds)]
    for rows, block in training.rows.blocks(dtype, most=_SUM_BYTES):
        y, weight = targets.block(rows), training.weight[rows]
        for at in range(len(moments)):
            here = np.arange(len(block)) if fold_of is None else np.flatnonzero(fold_of[rows] == at - 1)
            if len(here):
                some = slice(None) if len(here) == len(block) else here
                moments[at] = moments[at].with_block(block[some], y[some], weight[some])
    return moments


def sum_moments(training: TrainingData, offset: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sum the moments of some rows of more, in float64.

    Args:
        training: the rows.
        offset: (C,) of the targets of all rows.
        scale: (C,) of the targets of all rows.

    Returns:
        The weight, sums, targets, squares and products of ``_Moments``.
    """
    found = _sum_moments(training, _Targets(training, (offset, scale)), np.float64, None, 0)[0]
    return np.asarray(found.weight), found.rows, found.targets, found.squares, found.cross


class _PrimalProblem:
    """Ridge regression with more rows than features.

    Args:
        training: N rows of D features.
        use_folds: whether to sum the moments of each fold apart, for ``fold_scores``.
    """

    def __init__(self, training: TrainingData, use_folds: bool) -> None:
        self.targets = _Targets(training)
        self._rows, self._weight = training.rows, training.weight
        self._dtype: Any = np.float32 if use_folds and not training.rows.fits else np.float64
        many = (
            1 if self._dtype is np.float32 else training.rows.width
        )  # float32's errors are of blocks, and average out
        self._precision = float(np.finfo(self._dtype).eps) * many
        self._fold_of = training.fold_of if use_folds else None
        if training.ranks is None:
            folds = len(training.folds) if use_folds else 0
            self._moments = _sum_moments(training, self.targets, self._dtype, self._fold_of, folds)
        else:
            training.ranks.share(training)
            sums = training.ranks.total("moments", offset=self.targets.offset, scale=self.targets.scale)
            self._moments = [_Moments(float(sums[0]), *sums[1:])]

    @cached_property
    def path(self) -> _RegularisationPath:
        """The solutions for all rows."""
        path: _RegularisationPath = sum(self._moments[1:], self._moments[0]).path(self._precision)
        return path

    def feature_weights(self, weight: np.ndarray) -> np.ndarray:
        """Convert (C, D) weights of a path to (C, D) weights of features; they are the same."""
        return weight

    def fold_scores(self, penalties: np.ndarray) -> Iterator[np.ndarray]:
        """Score each row by the moments without its fold: (N, C) for each penalty."""
        paths = []
        for fold in range(1, len(self._moments)):
            others = [moments for at, moments in enumerate(self._moments) if at != fold]
            paths.append(sum(others[1:], others[0]).path(self._precision))
        assert self._fold_of is not None
        return _scores(self._rows, self._fold_of, paths, penalties, self._dtype)

    def leave_one_out_scores(self, penalties: np.ndarray) -> Iterator[np.ndarray]:
        """Score each row by a fit to all others: (N, C) for each penalty.

        The leave-one-out residual of a row is its residual divided by 1 - its leverage. The intercept is part of both.
        """
        _require_two(self._weight)
        freedom = self._one_minus_leverage(penalties)
        targets = self.targets.block(slice(None))
        fitted = _scores(self._rows, np.zeros(len(self._rows), dtype=np.int64), [self.path], penalties, self._dtype)
        for at, scores in enumerate(fitted):
            scores -= targets
            scores /= freedom[:, at, None]
            scores += targets
            yield scores

    def _one_minus_leverage(self, penalties: np.ndarray) -> np.ndarray:
        """(N, P) 1 - leverage of each row at each penalty."""
        path, total = self.path, self._weight.sum()
        inverse = path.inverse(penalties)
        freedom = np.empty((len(self._rows), len(penalties)))
        for rows, block in self._rows.blocks(self._dtype, most=BLOCK_BYTES // 2):
            block -= path.center.astype(self._dtype)
            rotated = block @ path.vectors.astype(self._dtype)
            freedom[rows] = 1 - self._weight[rows, None] * (1 / total + np.square(rotated, out=rotated) @ inverse)
        # A lower bound guards against rounding errors: the least eigenvalue of I - H, apart from that of the intercept.
        least = penalties / (path.values.max(initial=0.0) + penalties)
        np.maximum(freedom, (1 - self._weight / total)[:, None] * least, out=freedom)
        return freedom


class _DualProblem:
    """Ridge regression with at least as many features as rows, in terms of the (N, N) Gram matrix.

    Args:
        training: N rows of D features.
        use_folds: not used, because the same matrix serves folds.
    """

    def __init__(self, training: TrainingData, use_folds: bool) -> None:  # noqa: ARG002 - see above
        self.targets = _Targets(training)
        self._training = training
        self._gram = _gram_matrix(training.rows)

    @cached_property
    def _used(self) -> np.ndarray:
        """(n,) int64, the rows with a weight above 0."""
        return np.flatnonzero(self._training.weight > 0)

    @cached_property
    def _spectrum(self) -> _GramSpectrum:
        return _GramSpectrum.of(self._gram, self._used, self._training.weight)

    @cached_property
    def path(self) -> _RegularisationPath:
        """The solutions for all rows with a weight above 0."""
        return self._spectrum.path(self.targets.block(self._used))

    def feature_weights(self, weight: np.ndarray) -> np.ndarray:
        """Convert (C, N) dual coefficients to (C, D) weights of features."""
        out = np.zeros((len(weight), self._training.rows.width))
        for rows, block in self._training.rows.blocks(np.float64):
            out += weight[:, rows] @ block
        return out

    def fold_scores(self, penalties: np.ndarray) -> Iterator[np.ndarray]:
        """Score each row by the Gram matrix of the other folds: (N, C) for each penalty."""
        paths = []
        for train, _ in self._training.folds:
            used = train[self._training.weight[train] > 0]
            spectrum = _GramSpectrum.of(self._gram, used, self._training.weight)
            paths.append(spectrum.path(self.targets.block(used)))
        return _scores(Rows(self._gram), self._training.fold_of, paths, penalties, np.float64)

    def leave_one_out_scores(self, penalties: np.ndarray) -> Iterator[np.ndarray]:
        """Score each row by a fit to all others: (N, C) for each penalty."""
        weight, used = self._training.weight, self._used
        _require_two(weight)
        targets, unused = self.targets.block(used), np.flatnonzero(weight <= 0)
        residuals_by_penalty = self._spectrum.leave_one_out_residuals(targets, penalties)
        for penalty, residuals in zip(penalties, residuals_by_penalty, strict=True):
            scores = np.empty((len(weight), targets.shape[1]))
            scores[used] = targets - residuals
            if len(unused):  # no fit includes them, so the fit to all rows is theirs
                dual, bias = self.path.solutions(np.array([penalty]))
                scores[unused] = self._gram[unused] @ dual + bias
            yield scores


@dataclass(frozen=True, eq=False)
class _GramSpectrum:
    """The eigendecomposition of the weighted, centred Gram matrix of n of N rows.

    Each row is multiplied by the root of its weight. All eigenvectors are orthogonal to the vector of these roots, along which
    the intercept fits everything. That direction is removed by a Householder reflection before the decomposition, because
    afterwards it could not be distinguished from other directions of eigenvalue 0.

    Attributes:
        members: (n,) int64, the n rows.
        total: N.
        root: (n,) roots of the weights.
        means: (N,), the weighted mean of each row's inner products with the n rows: its inner product with their mean.
        values: (n-1,) eigenvalues.
        vectors: (n, n-1) eigenvectors.
    """

    members: np.ndarray
    total: int
    root: np.ndarray
    means: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(cls, gram: np.ndarray, members: np.ndarray, weight: np.ndarray) -> _GramSpectrum:
        """Decompose the Gram matrix of some rows.

        Args:
            gram: (N, N), of all rows.
            members: (n,) int64, the rows, all with a weight above 0.
            weight: (N,), of all rows.
        """
        if not len(members):
            raise HeadError("no row of weight above 0 is left to fit to; give more than one row or class such a weight")
        share = weight[members] / weight[members].sum()
        means = gram[:, members] @ share
        centred = gram[np.ix_(members, members)]
        centred -= means[members] + (means[members] - share @ means[members])[:, None]
        root = np.sqrt(weight[members])
        centred *= root * root[:, None]
        normal = np.sqrt(share)
        normal[0] += 1.0  # the reflection with this normal maps the roots' direction to the first axis
        factor = 1.0 / normal[0]  # 2 / |normal|^2
        centred -= np.outer(factor * (centred @ normal), normal)
        centred -= np.outer(normal, factor * (normal @ centred))
        values, inner = _eigendecomposition(centred[1:, 1:], float(np.finfo(np.float64).eps) * len(members))
        vectors = np.concatenate([np.zeros((1, len(values))), inner])
        vectors -= np.outer(normal, factor * (normal @ vectors))
        return cls(members, len(gram), root, means, values, vectors)

    def path(self, targets: np.ndarray) -> _RegularisationPath:
        """The solutions for (n, C) targets, as weights of all N columns of the Gram matrix."""
        level = self.root**2 @ targets / (self.root @ self.root)
        vectors, center = np.zeros((self.total, len(self.values))), np.zeros(self.total)
        vectors[self.members] = self.root[:, None] * self.vectors
        center[self.members] = self.means[self.members]
        cross = self.vectors.T @ (self.root[:, None] * targets)
        return _RegularisationPath(self.values, vectors, cross, center, level)

    def leave_one_out_residuals(self, targets: np.ndarray, penalties: np.ndarray) -> Iterator[np.ndarray]:
        """Compute the (n, C) residuals of each row by a fit to all others, for each penalty.

        Residual and 1 - leverage both vanish with the penalty. Each is divided by the penalty exactly, before their ratio.
        """
        shrunk = penalties / (self.values[:, None] + penalties)
        freedom = np.maximum(np.square(self.vectors) @ shrunk, np.finfo(np.float64).tiny) * self.root[:, None]
        along = self.vectors.T @ (self.root[:, None] * targets)
        for at in range(len(penalties)):
            yield self.vectors @ (shrunk[:, at, None] * along) / freedom[:, at, None]


def _gram_matrix(rows: Rows) -> np.ndarray:
    """Z Z', the (N, N) float64 inner products of all pairs of rows, from pairs of blocks."""
    out = np.empty((len(rows), len(rows)))
    for left, block in rows.blocks(np.float64, most=2 * BLOCK_BYTES):
        out[left, left] = block @ block.T
        for right, other in rows.take(np.arange(left.start)).blocks(np.float64, most=2 * BLOCK_BYTES):
            out[left, right] = block @ other.T
            out[right, left] = out[left, right].T
    return out


def _scores(
    rows: Rows, fold_of: np.ndarray, paths: Sequence[_RegularisationPath], penalties: np.ndarray, dtype: Any
) -> Iterator[np.ndarray]:
    """Score each row by the path of its fold: (N, C) for each penalty; NaN for rows of no fold.

    One pass over the rows serves as many penalties as fit, with their scores and weights, in ``_SCORE_BYTES``.
    """
    count = len(paths[0].level)
    penalty_bytes = np.dtype(dtype).itemsize * count * (len(rows) + len(paths) * rows.width)
    step = max(1, _SCORE_BYTES[not rows.fits] // penalty_bytes)
    for start in range(0, len(penalties), step):
        some = penalties[start : start + step]
        solutions = [[part.astype(dtype, copy=False) for part in path.solutions(some)] for path in paths]
        out = [np.full((len(rows), count), np.nan, dtype=dtype) for _ in some]
        most = int(BLOCK_BYTES // 2 * min(1.0, rows.width / (count * len(some))))
        for which, block in rows.blocks(dtype, most=most):
            for fold, (weights, biases) in enumerate(solutions):
                here = np.flatnonzero(fold_of[which] == fold)
                part = (block if len(here) == len(block) else block[here]) @ weights
                part += biases
                for at, scores in enumerate(out):
                    scores[which.start + here] = part[:, at * count : (at + 1) * count]
        while out:
            yield out.pop(0)


def _require_two(weight: np.ndarray) -> None:
    if np.count_nonzero(weight > 0) < 2:
        raise HeadError("leave-one-out needs two rows of weight above 0; give more rows or classes such a weight")
