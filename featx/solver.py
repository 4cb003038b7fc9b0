"""L2-penalised linear classifiers for many penalties and folds at once, by batched L-BFGS.

A problem is one penalty on the rows of one fold:

    minimise  sum_i s_i loss(y_i, W z_i + b)  +  penalty |W|^2 / 2,     sum_i s_i = 1

so that scikit-learn's objective, |W|^2 / 2 + C sum_i w_i loss_i, is this one times C sum_i w_i, at penalty = 1 / (C sum_i w_i).

Problems are solved together, since one matrix product of many columns runs several times faster than as many thin ones. Each
iteration of L-BFGS (Nocedal, 1980) multiplies the rows by all problems' directions, and all problems' residuals by the rows.
Along a direction the scores are linear, so that the line search costs no product. A problem that is done leaves the batch.

N rows, D features, K outputs of P problems; scores are (K, P, N), so that sums over outputs are sums of long vectors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

MEMORY = 10
"""Pairs of steps and gradient differences that L-BFGS keeps."""
MOST_ITERATIONS = 2000
BLOCK = 1 << 17
"""Scores that one thread deals with at once: they stay in its cache."""
LEAST = 1e-12
"""Objective, in nats a row, that gaps are at least measured by: below it there is nothing to be told apart."""
ENOUGH = 0.3
"""A step is taken where the slope has fallen to this share of what it was."""
MOST_ROUNDS = 300
"""Of conjugate gradients for one Newton step."""
MOST_TRIALS = 25
"""Steps that are tried along one direction."""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_POOL = ThreadPoolExecutor(cores())


class Loss(Protocol):
    """Of the scores of a block of rows."""

    outputs: int
    penalises_bias: bool

    def judge(self, L: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """(K, P, n) scores, which may be overwritten, to (P, n) losses and their (K, P, n) derivatives."""
        ...

    def curvature(self, L: np.ndarray, rows: slice) -> np.ndarray:
        """(K, P, n) scores to the diagonal of the loss's second derivative, (K, P, n)."""
        ...

    def bend(self, L: np.ndarray, M: np.ndarray, rows: slice) -> np.ndarray:
        """(K, P, n) scores, and (K, P, n) steps, to the loss's second derivative times the steps, (K, P, n)."""
        ...


class Softmax:
    """Multinomial logistic loss of K >= 3 classes.

    Args:
        y: (N,) int64 in 0..K-1.
        count: K.
    """

    penalises_bias = False

    def __init__(self, y: np.ndarray, count: int) -> None:
        self.y, self.outputs = y, count

    def judge(self, L: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """As ``Loss.judge``."""
        y = self.y[rows]
        at = np.arange(len(y))
        L -= L.max(axis=0)
        own = L[y, :, at].T
        np.exp(L, out=L)
        # Apart from the true class's, the terms are small where it is nearly certain, and 1 - p would lose their digits.
        L[y, :, at] = 0
        others = L.sum(axis=0)
        true = np.exp(own)
        total = true + others
        L *= 1 / total
        L[y, :, at] = (-others / total).T
        value = np.where(true > 0.5, np.log1p(others / np.maximum(true, 0.5)), np.log(total) - own)
        return value, L

    def curvature(self, L: np.ndarray, rows: slice) -> np.ndarray:  # noqa: ARG002 - labels do not matter
        """As ``Loss.curvature``."""
        top = L.argmax(axis=0)[None]
        E: np.ndarray = np.exp(L - np.take_along_axis(L, top, axis=0))
        np.put_along_axis(E, top, 0, axis=0)  # 1 - p of the likeliest class, by the others: p would lose the digits
        others = E.sum(axis=0)
        E /= 1 + others
        rest = 1 - E
        np.put_along_axis(E, top, (1 / (1 + others))[None], axis=0)
        np.put_along_axis(rest, top, (others / (1 + others))[None], axis=0)
        E *= rest
        return E

    def bend(self, L: np.ndarray, M: np.ndarray, rows: slice) -> np.ndarray:  # noqa: ARG002 - labels do not matter
        """As ``Loss.bend``."""
        top = L.argmax(axis=0)[None]
        p: np.ndarray = np.exp(L - np.take_along_axis(L, top, axis=0))
        p /= p.sum(axis=0)
        M = M - np.take_along_axis(
            M, top, axis=0
        )  # which changes nothing, but that its product with p keeps its digits
        p *= M - (p * M).sum(axis=0)
        return p


class Logistic:
    """Logistic loss of one output for each label: two classes, or many labels of their own.

    Args:
        positive: (K, N) bool.
    """

    penalises_bias = False

    def __init__(self, positive: np.ndarray) -> None:
        self.sign, self.outputs = np.where(positive, 1, -1).astype(np.int8), len(positive)

    def judge(self, L: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """As ``Loss.judge``."""
        sign = self.sign[:, None, rows].astype(L.dtype)
        L *= sign
        E = np.exp(-np.abs(L))
        value = np.log1p(E)
        value -= np.minimum(L, 0)
        residual = np.where(L > 0, E, 1)  # exp(-L) / (1 + exp(-L)), of what cannot overflow
        residual /= 1 + E
        residual *= -sign
        return value.sum(axis=0), residual

    def curvature(self, L: np.ndarray, rows: slice) -> np.ndarray:  # noqa: ARG002 - labels do not matter
        """As ``Loss.curvature``."""
        E: np.ndarray = np.exp(-np.abs(L))
        E /= (1 + E) ** 2
        return E

    def bend(self, L: np.ndarray, M: np.ndarray, rows: slice) -> np.ndarray:
        """As ``Loss.bend``."""
        bent: np.ndarray = self.curvature(L, rows) * M
        return bent


class SquaredHinge:
    """Squared hinge loss, one output for each class against the rest; the intercept is penalised, as in LIBLINEAR.

    Args:
        positive: (K, N) bool.
    """

    penalises_bias = True

    def __init__(self, positive: np.ndarray) -> None:
        self.sign, self.outputs = np.where(positive, 1, -1).astype(np.int8), len(positive)

    def judge(self, L: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """As ``Loss.judge``."""
        sign = self.sign[:, None, rows].astype(L.dtype)
        L *= -sign
        L += 1
        np.maximum(L, 0, out=L)
        value = np.einsum("kpn,kpn->pn", L, L)
        L *= -2 * sign
        return value, L

    def curvature(self, L: np.ndarray, rows: slice) -> np.ndarray:
        """As ``Loss.curvature``."""
        return np.where(self.sign[:, None, rows] * L < 1, 2, 0).astype(L.dtype)

    def bend(self, L: np.ndarray, M: np.ndarray, rows: slice) -> np.ndarray:
        """As ``Loss.bend``."""
        bent: np.ndarray = self.curvature(L, rows) * M
        return bent


class Matrix(Protocol):
    """Rows, (N, D), that can be multiplied by."""

    dtype: Any

    def __len__(self) -> int: ...

    def times(self, V: np.ndarray) -> np.ndarray:
        """(M, D) to (M, N)."""
        ...

    def gathered(self, R: np.ndarray, *, squared: bool = False) -> np.ndarray:
        """(M, N) to (M, D): each row, or its squares, as often as R says."""
        ...


class Dense:
    """A matrix in memory.

    Args:
        Z: (N, D) float32 or float64.
        dtype: what is computed in; a matrix of another is converted block by block, so that it takes no more memory.
    """

    _CONVERTED = 1 << 22  # elements at once

    def __init__(self, Z: np.ndarray, dtype: Any = None) -> None:
        self.Z, self.dtype = Z, np.dtype(dtype or Z.dtype)

    def __len__(self) -> int:
        return len(self.Z)

    def _blocks(self, *, split: bool = False) -> Iterator[tuple[slice, np.ndarray]]:
        same = self.Z.dtype == self.dtype and not split
        step = max(1, len(self.Z) if same else self._CONVERTED // self.Z.shape[1])
        for at in range(0, len(self.Z), step):
            yield slice(at, at + step), self.Z[at : at + step].astype(self.dtype, copy=False)

    def times(self, V: np.ndarray) -> np.ndarray:
        """As ``Matrix.times``."""
        out = np.empty((len(V), len(self.Z)), self.dtype)
        for rows, Z in self._blocks():
            np.matmul(V, Z.T, out=out[:, rows])
        return out

    def gathered(self, R: np.ndarray, *, squared: bool = False) -> np.ndarray:
        """As ``Matrix.gathered``."""
        out = np.zeros((self.Z.shape[1], len(R)), self.dtype)
        for rows, Z in self._blocks(split=squared):
            out += (Z * Z if squared else Z).T @ R[:, rows].T  # up to twice as fast as R @ Z
        return np.ascontiguousarray(out.T)


@dataclass(frozen=True, eq=False)
class Problems:
    """P problems on the same rows.

    Attributes:
        weights: (F, N), how much each row counts in each fold; each fold's sum is 1.
        fold: (P,) int64 in 0..F-1, whose weights each problem takes.
        penalty: (P,) float64, above 0.
    """

    weights: np.ndarray
    fold: np.ndarray
    penalty: np.ndarray


@dataclass(frozen=True, eq=False)
class Solution:
    """Of P problems.

    Attributes:
        weight: (K, P, D).
        bias: (K, P).
        scores: (K, P, N).
        objective: (P,) float64.
        gap: (P,) float64, by how much of itself the objective is estimated to be above its minimum.
        iterations: (P,) int64.
    """

    weight: np.ndarray
    bias: np.ndarray
    scores: np.ndarray
    objective: np.ndarray
    gap: np.ndarray
    iterations: np.ndarray


def minimise(
    matrix: Matrix,
    loss: Loss,
    problems: Problems,
    start: tuple[np.ndarray, np.ndarray],
    *,
    tol: float,
    precondition: bool = False,
    most_iterations: int = MOST_ITERATIONS,
) -> Solution:
    """Solve all problems.

    Args:
        matrix: (N, D).
        loss: of K outputs.
        problems: P of them.
        start: (K, P, D) and (K, P).
        tol: a problem is done when its objective is estimated to be this close to its minimum, relative to itself. The
            estimate is the decrease that L-BFGS's own model promises, twice in a row, or what strong convexity allows at most.
        precondition: by the Hessian's diagonal; pays where the columns are the axes of the rows' own Gram matrix.
        most_iterations: after which the rest is given up; their ``gap`` says so.
    """
    batch = _Batch(matrix, loss, problems, start, precondition)
    K, P, D = start[0].shape
    solution = Solution(
        np.empty((K, P, D), matrix.dtype), np.empty((K, P), matrix.dtype), np.empty((K, P, len(matrix)), matrix.dtype),
        np.empty(P), np.empty(P), np.empty(P, dtype=np.int64),
    )  # fmt: skip
    calm = np.zeros(P, dtype=np.int64)
    for iteration in range(most_iterations + 1):
        direction, slope = batch.direction()
        promised, most = batch.gap(slope), batch.most_gap()
        gap = np.where(slope < 0, np.minimum(promised, most), most)
        calm = np.where(promised <= tol, calm + 1, 0)
        done = (calm >= 2) | (most <= tol) | batch.stuck | (slope >= 0)
        if iteration == most_iterations:
            done[:] = True
        if done.any():
            batch.leave(done, solution, gap, iteration)
            if done.all():
                break
            calm, slope = calm[~done], slope[~done]
            direction = (direction[0][:, ~done], direction[1][:, ~done])
        batch.step(direction, slope)
    return solution


@dataclass(frozen=True, eq=False)
class Model:
    """Where Newton's systems are solved: rows like those of the exact problem, or some of them, in axes that suit.

    Attributes:
        matrix: (n, r), fast to multiply by.
        weights: (n,), their sum 1.
        loss: of these rows.
        turn: from (..., D) to (..., r).
        back: from (..., r) to (..., D).
        progress: conjugate gradients end when a round brings less than this share of the mean of all so far (Nash & Sofer,
            1990).
    """

    matrix: Matrix
    weights: np.ndarray
    loss: Loss
    turn: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]
    progress: float = 1e-6


def refine(
    matrix: Matrix,
    loss: Loss,
    problems: Problems,
    start: tuple[np.ndarray, np.ndarray],
    *,
    model: Model,
    tol: float,
    most_iterations: int,
) -> Solution:
    """Solve one problem to its last digits, by Newton steps: gradients are exact, Hessians may be a model's.

    Each direction is found by preconditioned conjugate gradients (Nocedal & Wright, 2006, section 7.1). Half its product with
    the gradient is what is left to gain: unlike L-BFGS's promise that is a measurement.

    Args:
        matrix: (N, D) float64.
        loss: of K outputs.
        problems: one.
        start: (K, 1, D) and (K, 1), near the minimum.
        model: for the Hessian.
        tol: relative gap of the objective at which to stop.
        most_iterations: steps.
    """
    batch = _Batch(matrix, loss, problems, start, False)
    iteration = 0
    while True:
        direction = _newton(batch, model)
        slope = _dot(*direction, batch.g, batch.gb)
        promised, most = batch.gap(slope), batch.most_gap()
        gap = np.where(slope < 0, np.minimum(promised, most), most)
        # Under a strong penalty the objective is blind to the weights' last digits, and a step costs next to nothing.
        enough = gap[0] <= tol and (iteration > 0 or most[0] > tol)
        if not slope[0] < 0 or enough or iteration == most_iterations or batch.stuck[0]:
            break
        batch.step(direction, slope)
        iteration += 1
    return Solution(batch.W, batch.b, batch.L, batch.f, gap, np.array([iteration]))


def _newton(batch: _Batch, model: Model) -> tuple[np.ndarray, np.ndarray]:
    """The step to the minimum of the quadratic model at a batch of one problem."""
    dtype = model.matrix.dtype
    start = (model.turn(batch.W).astype(dtype), batch.b.astype(dtype))
    problems = Problems(model.weights[None].astype(dtype), batch.fold, batch.penalty)
    near = _Batch(model.matrix, model.loss, problems, start, True)
    r, rb = -model.turn(batch.g).astype(dtype), -batch.gb.astype(dtype)
    d, db = np.zeros_like(r), np.zeros_like(rb)
    q, qb = near.inverse * r, near.b_inverse * rb
    energy, gained = float(_dot(r, rb, q, qb)[0]), 0.0
    for rounds in range(1, MOST_ROUNDS + 1):
        if not energy > 0:
            break
        h, hb = near.curve(q, qb)
        bent = float(_dot(q, qb, h, hb)[0])
        if not bent > 0:
            break
        t = dtype.type(energy / bent)
        gained += energy**2 / bent
        d, db, r, rb = d + t * q, db + t * qb, r - t * h, rb - t * hb
        if rounds * energy**2 / bent <= model.progress * gained:
            break
        z, zb = near.inverse * r, near.b_inverse * rb
        energy, before = float(_dot(r, rb, z, zb)[0]), energy
        more = dtype.type(energy / before)
        q, qb = z + more * q, zb + more * qb
    return model.back(d).astype(batch.W.dtype), db.astype(batch.W.dtype)


class _Batch:
    """The problems that are still being solved."""

    def __init__(
        self,
        matrix: Matrix,
        loss: Loss,
        problems: Problems,
        start: tuple[np.ndarray, np.ndarray],
        precondition: bool,
    ) -> None:
        dtype = matrix.dtype
        self.matrix, self.loss, self.weights = matrix, loss, problems.weights
        self.fold, self.penalty = problems.fold, problems.penalty
        self.which = np.arange(len(self.fold))
        self.W, self.b = start[0].astype(dtype), start[1].astype(dtype)
        self.pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self.stuck = np.zeros(len(self.fold), dtype=bool)
        self.L = self._scores(self.W, self.b)
        self.R = np.empty_like(self.L)
        self.inverse = np.ones((1, len(self.fold), 1), dtype)
        self.b_inverse = self._bias_curvature() ** -1
        if precondition:
            self.precondition()
        self.f = self._try(None, np.arange(len(self.fold)), np.zeros(len(self.fold)))[0]
        self.f += self.penalty * self._half_square(self.W, self.b)
        self.g, self.gb = self._gradient()

    def direction(self) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        """L-BFGS's direction, (K, P, D) and (K, P), and the objective's slope along it, (P,)."""
        q, qb = self.g.copy(), self.gb.copy()
        shares = []
        for s, sb, y, yb, rho in reversed(self.pairs):
            share = rho * _dot(s, sb, q, qb)
            q -= share[:, None].astype(q.dtype) * y
            qb -= share.astype(q.dtype) * yb
            shares.append(share)
        q *= self.inverse
        qb *= self.b_inverse
        if self.pairs:
            _, _, y, yb, rho = self.pairs[-1]
            curved = rho * _dot(y * self.inverse, yb * self.b_inverse, y, yb)
            scale = np.where(curved > 0, 1 / np.where(curved > 0, curved, 1), 1).astype(q.dtype)
            q *= scale[:, None]
            qb *= scale
        for (s, sb, y, yb, rho), share in zip(self.pairs, reversed(shares), strict=True):
            left = (share - rho * _dot(y, yb, q, qb)).astype(q.dtype)
            q += left[:, None] * s
            qb += left * sb
        np.negative(q, out=q)
        np.negative(qb, out=qb)
        return (q, qb), _dot(q, qb, self.g, self.gb)

    def gap(self, slope: np.ndarray) -> np.ndarray:
        """(P,) what the quadratic model says is left to gain, relative to the objective."""
        gap: np.ndarray = np.maximum(-0.5 * slope, 0) / np.maximum(self.f, LEAST)
        return gap

    def most_gap(self) -> np.ndarray:
        """(P,) what strong convexity leaves to gain at most, relative to the objective; of a free intercept, an estimate."""
        left: np.ndarray = 0.5 * np.einsum("kpd,kpd->p", self.g, self.g, dtype=np.float64) / self.penalty
        left += 0.5 * np.einsum("kp,kp,kp->p", self.gb, self.gb, self.b_inverse, dtype=np.float64)
        left /= np.maximum(self.f, LEAST)
        return left

    def step(self, direction: tuple[np.ndarray, np.ndarray], slope: np.ndarray) -> None:
        """Go along a direction to where its slope is small, and keep what was learned of the curvature."""
        q, qb = direction
        self.M = self._scores(q, qb)
        along = self.penalty * self._product(self.W, self.b, q, qb)
        across = self.penalty * self._half_square(q, qb) * 2
        t, f = self._search(slope, along, across)
        step = t.astype(q.dtype)
        q *= step[:, None]
        qb *= step
        self.W += q
        self.b += qb
        self.f = f
        self._over(lambda rows: self._move(rows, step))
        g, gb = self._gradient()
        y, yb = g - self.g, gb - self.gb
        curved = _dot(q, qb, y, yb)
        rho = np.where(curved > 0, 1 / np.where(curved > 0, curved, 1), 0)
        self.pairs = [*self.pairs, (q, qb, y, yb, rho)][-MEMORY:]
        self.g, self.gb = g, gb

    def leave(self, done: np.ndarray, solution: Solution, gap: np.ndarray, iteration: int) -> None:
        """Write down the problems that are done, and go on with the others."""
        at, stay = self.which[done], ~done
        solution.weight[:, at], solution.bias[:, at] = self.W[:, done], self.b[:, done]
        solution.scores[:, at] = self.L[:, done]
        solution.objective[at], solution.gap[at], solution.iterations[at] = self.f[done], gap[done], iteration
        for name in ("which", "fold", "penalty", "f", "stuck"):
            setattr(self, name, getattr(self, name)[stay])
        for name in ("W", "b", "g", "gb", "L", "inverse", "b_inverse"):
            setattr(self, name, np.ascontiguousarray(getattr(self, name)[:, stay]))
        self.R = np.empty_like(self.L)
        self.pairs = [(s[:, stay], sb[:, stay], y[:, stay], yb[:, stay], rho[stay]) for s, sb, y, yb, rho in self.pairs]

    def _search(self, slope: np.ndarray, along: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each problem a step whose slope is small enough, and the objective there; ``R`` holds its residuals.

        The objective along a direction is convex: its slope rises. A root of it is bracketed, then found by secants.
        """
        P = len(slope)
        t, f = np.ones(P), self.f.copy()
        low, high = np.zeros(P), np.full(P, np.inf)
        at_low, at_high = slope.copy(), np.zeros(P)
        left = np.arange(P)
        start = self.penalty * self._half_square(self.W, self.b)
        for _ in range(MOST_TRIALS):
            value, rise = self._try(self.M, left, t[left])
            value += start[left] + t[left] * along[left] + 0.5 * t[left] ** 2 * across[left]
            rise += along[left] + t[left] * across[left]
            fine = (np.abs(rise) <= ENOUGH * -slope[left]) & (value <= self.f[left] * (1 + 1e-6))
            f[left[fine]] = value[fine]
            below = rise < 0
            low[left[below]], at_low[left[below]] = t[left[below]], rise[below]
            high[left[~below]], at_high[left[~below]] = t[left[~below]], rise[~below]
            left = left[~fine]
            if not len(left):
                return t, f
            t[left] = _next_step(low[left], high[left], at_low[left], at_high[left], slope[left])
        # The numbers are too coarse to see a decrease: stay, and leave.
        t[left], self.stuck[left] = 0.0, True
        self._try(self.M, left, t[left])
        return t, f

    def _try(self, M: np.ndarray | None, left: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loss (p,) of some problems a step along ``M``, and its slope (p,); their weighted residuals go to ``R``."""
        every = len(left) == len(self.fold)
        chosen: Any = slice(None) if every else left
        fold, step = self.fold[left], t.astype(self.L.dtype)[:, None]

        def work(rows: slice) -> tuple[np.ndarray, np.ndarray]:
            at = self.L[:, chosen, rows]
            along = None if M is None else M[:, chosen, rows]
            value, residual = self.loss.judge(at.copy() if along is None else at + step * along, rows)
            weight = self.weights[fold, rows]
            residual *= weight
            self.R[:, chosen, rows] = residual
            slope = np.zeros(len(fold)) if along is None else np.einsum("kpn,kpn->p", residual, along)
            return np.einsum("pn,pn->p", value, weight, dtype=np.float64), slope.astype(np.float64)

        parts = self._over(work)
        return sum(value for value, _ in parts), sum(slope for _, slope in parts)

    def _gradient(self) -> tuple[np.ndarray, np.ndarray]:
        """(K, P, D) and (K, P), of the residuals in ``R``."""
        K, P, N = self.R.shape
        penalty = self.penalty.astype(self.R.dtype)
        g = self.matrix.gathered(self.R.reshape(K * P, N)).reshape(K, P, -1)
        g += penalty[:, None] * self.W
        gb = self.R.sum(axis=2)
        if self.loss.penalises_bias:
            gb += penalty * self.b
        return g, gb

    def _scores(self, W: np.ndarray, b: np.ndarray) -> np.ndarray:
        K, P, D = W.shape
        L = self.matrix.times(W.reshape(K * P, D)).reshape(K, P, -1)
        L += b[..., None]
        return L

    def _move(self, rows: slice, step: np.ndarray) -> None:
        self.L[:, :, rows] += step[:, None] * self.M[:, :, rows]

    def curve(self, q: np.ndarray, qb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The Hessian times a direction, (K, P, D) and (K, P)."""
        K, P, N = self.L.shape
        M = self._scores(q, qb)

        def work(rows: slice) -> None:
            M[:, :, rows] = self.loss.bend(self.L[:, :, rows], M[:, :, rows], rows)
            M[:, :, rows] *= self.weights[self.fold, rows]

        self._over(work)
        penalty = self.penalty.astype(M.dtype)
        h = self.matrix.gathered(M.reshape(K * P, N)).reshape(K, P, -1) + penalty[:, None] * q
        hb = M.sum(axis=2)
        return h, hb + penalty * qb if self.loss.penalises_bias else hb

    def precondition(self) -> None:
        """Take the diagonal of the Hessian, here, for L-BFGS's first guess of it."""
        K, P, N = self.L.shape
        A = np.empty_like(self.L)

        def work(rows: slice) -> None:
            A[:, :, rows] = self.loss.curvature(self.L[:, :, rows], rows) * self.weights[self.fold, rows]

        self._over(work)
        H = self.matrix.gathered(A.reshape(K * P, N), squared=True).reshape(K, P, -1)
        self.inverse = 1 / (H + self.penalty.astype(H.dtype)[:, None])

    def _bias_curvature(self) -> np.ndarray:
        """(K, P), above 0: the objective's second derivative by each intercept."""

        def work(rows: slice) -> np.ndarray:
            weight = self.weights[self.fold, rows]
            out: np.ndarray = np.einsum("kpn,pn->kp", self.loss.curvature(self.L[:, :, rows], rows), weight)
            return out

        curvature: np.ndarray = np.sum(self._over(work), axis=0)
        if self.loss.penalises_bias:
            curvature += self.penalty.astype(curvature.dtype)
        np.maximum(curvature, LEAST, out=curvature)
        return curvature

    def _product(self, W: np.ndarray, b: np.ndarray, V: np.ndarray, c: np.ndarray) -> np.ndarray:
        """(P,) inner products of what is penalised."""
        out: np.ndarray = np.einsum("kpd,kpd->p", W, V, dtype=np.float64)
        return out + np.einsum("kp,kp->p", b, c, dtype=np.float64) if self.loss.penalises_bias else out

    def _half_square(self, W: np.ndarray, b: np.ndarray) -> np.ndarray:
        return 0.5 * self._product(W, b, W, b)

    def _over(self, work: Callable[[slice], Any]) -> list[Any]:
        """A function of every block of rows, in threads where there are several."""
        K, P, N = self.L.shape
        n = max(64, BLOCK // (K * P))
        blocks = [slice(at, min(N, at + n)) for at in range(0, N, n)]
        return list(map(work, blocks) if len(blocks) == 1 else _POOL.map(work, blocks))


def _next_step(
    low: np.ndarray, high: np.ndarray, at_low: np.ndarray, at_high: np.ndarray, slope: np.ndarray
) -> np.ndarray:
    """Where to look next for a root of a rising function: within its bracket, or further out where there is none yet."""
    shut = np.isfinite(high)
    width = np.where(shut, high - low, 0)
    rise = np.where(shut, at_high - at_low, 1)
    inside = low - at_low * width / np.where(rise > 0, rise, 1)
    inside = np.clip(inside, low + 0.05 * width, high - 0.05 * width, where=shut, out=inside)
    fallen = np.minimum(slope - at_low, 0)
    flatter = np.where(fallen < 0.1 * slope, np.clip(slope / np.where(fallen < 0, fallen, -1), 1.5, 10), 10)
    step: np.ndarray = np.where(shut, inside, np.maximum(low, 1e-12) * flatter)
    return step


def _dot(u: np.ndarray, ub: np.ndarray, v: np.ndarray, vb: np.ndarray) -> np.ndarray:
    """(P,) float64 inner products of (K, P, D) and (K, P)."""
    out: np.ndarray = np.einsum("kpd,kpd->p", u, v).astype(np.float64) + np.einsum("kp,kp->p", ub, vb)
    return out
