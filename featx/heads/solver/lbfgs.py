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

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from featx.heads.solver.losses import Loss
from featx.heads.solver.matrices import Matrix, Span, Work, side_by_side

T = TypeVar("T")

MEMORY = 10
"""Pairs of steps and gradient differences that L-BFGS keeps."""
MOST_ITERATIONS = 2000
BLOCK = 1 << 17
"""Scores that one thread deals with at once: they stay in its cache."""
LEAST = 1e-12
"""Objective, in nats a row, that gaps are at least measured by: below it there is nothing to be told apart."""
WEIGHTS_TOL = 1e-3
"""Distance of the weights from their optimum, relative to their norm, at most."""
ENOUGH = 0.5
"""A step is taken where the slope has fallen to this share of what it was."""
SECOND_STEP = 1.5
"""What is tried first along the second direction, and from then on what the last step was: lengths that were seldom wrong."""
MOST_ROUNDS = 300
"""Of conjugate gradients for one Newton step."""
MOST_TRIALS = 25
"""Steps that are tried along one direction."""


@dataclass(frozen=True, eq=False)
class Problems:
    """P problems on the same rows.

    Attributes:
        weights: (F, N), how much each row counts in each fold; each fold's sum is 1.
        fold: (P,) int64 in 0..F-1, whose weights each problem takes.
        penalty: (P,) float64, above 0.
        regions: the rows in parts; where all rows of a part count nothing in a fold, none of its problems looks at them.
        alike: (P,) int64 in 0..A-1; problems with the same number, such as the folds of one penalty, are preconditioned alike:
            by the mean of their Hessians' diagonals. Each by its own where None.
    """

    weights: np.ndarray
    fold: np.ndarray
    penalty: np.ndarray
    regions: tuple[slice, ...] = ()
    alike: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Solution:
    """Of P problems.

    Attributes:
        weight: (K, P, D).
        bias: (K, P).
        objective: (P,) float64.
        gap: (P,) float64, by how much of itself the objective is estimated to be above its minimum.
        iterations: (P,) int64.
        first_step: (P,) float64, how far the first went along its direction; of no steps, how far it would have tried to.
    """

    weight: np.ndarray
    bias: np.ndarray
    objective: np.ndarray
    gap: np.ndarray
    iterations: np.ndarray
    first_step: np.ndarray


def minimise(
    matrix: Matrix,
    loss: Loss,
    problems: Problems,
    start: tuple[np.ndarray, np.ndarray],
    *,
    tol: float,
    precondition: bool = False,
    first_step: np.ndarray | None = None,
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
        first_step: (P,), what to try first, as problems like these have found it; 1 unless given.
        most_iterations: after which the rest is given up; their ``gap`` says so.
    """
    batch = _Batch(matrix, loss, problems, start, precondition, first_step)
    K, P, D = start[0].shape
    solution = Solution(
        np.empty((K, P, D), matrix.dtype), np.empty((K, P), matrix.dtype), np.empty(P), np.empty(P),
        np.empty(P, dtype=np.int64), np.empty(P),
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
class NewtonModel:
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
    model: NewtonModel,
    tol: float,
    most_iterations: int,
) -> Solution:
    """Solve one problem to its last digits, by Newton steps: gradients are exact, Hessians may be a model's.

    Each direction is found by preconditioned conjugate gradients (Nocedal & Wright, 2006, section 7.1). Half its product with
    the gradient is what is left to gain: unlike L-BFGS's promise that is a measurement. None is needed where strong convexity
    leaves nothing to gain.

    Args:
        matrix: (N, D) float64.
        loss: of K outputs.
        problems: one.
        start: (K, 1, D) and (K, 1), near the minimum.
        model: for the Hessian.
        tol: relative gap of the objective at which to stop.
        most_iterations: steps.
    """
    batch = _Batch(matrix, loss, problems, start)
    iteration, gap = 0, batch.most_gap()
    # Under a strong penalty the objective is blind to the weights' last digits: there a step is taken, however small the gap.
    sure = gap[0] <= tol and batch.most_apart(gap)[0] <= WEIGHTS_TOL
    while not sure:
        direction = _newton(batch, model)
        slope, most = _dot(*direction, batch.g, batch.gb), batch.most_gap()
        gap = np.where(slope < 0, np.minimum(batch.gap(slope), most), most)
        if not slope[0] < 0 or iteration == most_iterations or batch.stuck[0]:
            break
        sure = gap[0] <= tol
        if not sure or (iteration == 0 and most[0] <= tol):
            batch.step(direction, slope)
            iteration += 1
    return Solution(batch.W, batch.b, batch.f, gap, np.array([iteration]), batch.first)


def _newton(batch: _Batch, model: NewtonModel) -> tuple[np.ndarray, np.ndarray]:
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
        precondition: bool = False,
        first_step: np.ndarray | None = None,
    ) -> None:
        dtype = matrix.dtype
        self.matrix, self.loss, self.weights = matrix, loss, problems.weights
        self.fold, self.penalty = problems.fold, problems.penalty
        self.which = np.arange(len(self.fold))
        self.regions = problems.regions or (slice(0, len(matrix)),)
        self.counts = np.array([self.weights[:, rows].any(axis=1) for rows in self.regions])
        self.W, self.b = start[0].astype(dtype), start[1].astype(dtype)
        self.pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self.stuck = np.zeros(len(self.fold), dtype=bool)
        self.t = self.first = np.ones(len(self.fold)) if first_step is None else first_step
        # From weights of 0, whose scores are 0, one step leads to where the problems start.
        every = np.arange(len(self.fold))
        self.L, self.M = np.zeros((2, *self.b.shape, len(matrix)), dtype)
        self.f, _, (self.g, self.gb) = self._look(every, np.ones(len(every)), (self.W, self.b))
        self.L, self.M = self.M, self.L
        self.f += self.penalty * self._half_square(self.W, self.b)
        self._penalise(self.g, self.gb)
        alike = every if problems.alike is None else problems.alike
        self.inverse, self.b_inverse = self._inverses(precondition, alike)

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

    def most_apart(self, gap: np.ndarray) -> np.ndarray:
        """(P,) how far the weights are from their optimum at most, relative to their norm, by strong convexity."""
        own = np.maximum(self.penalty * self._half_square(self.W, self.b), np.finfo(np.float64).tiny)
        apart: np.ndarray = np.sqrt(gap * np.maximum(self.f, LEAST) / own)
        return apart

    def step(self, direction: tuple[np.ndarray, np.ndarray], slope: np.ndarray) -> None:
        """Go along a direction to where its slope is small, and keep what was learned of the curvature."""
        q, qb = direction
        along = self.penalty * self._product(self.W, self.b, q, qb)
        across = self.penalty * self._half_square(q, qb) * 2
        t, (g, gb) = self._search(direction, slope, along, across)
        step = t.astype(q.dtype)
        q *= step[:, None]
        qb *= step
        self.W += q
        self.b += qb
        self._over(lambda rows: self._move(rows, step))
        self._penalise(g, gb)
        y, yb = g - self.g, gb - self.gb
        curved = _dot(q, qb, y, yb)
        rho = np.where(curved > 0, 1 / np.where(curved > 0, curved, 1), 0)
        self.pairs = [*self.pairs, (q, qb, y, yb, rho)][-MEMORY:]
        self.g, self.gb = g, gb

    def leave(self, done: np.ndarray, solution: Solution, gap: np.ndarray, iteration: int) -> None:
        """Write down the problems that are done, and go on with the others."""
        at, stay = self.which[done], ~done
        solution.weight[:, at], solution.bias[:, at] = self.W[:, done], self.b[:, done]
        solution.objective[at], solution.gap[at], solution.iterations[at] = self.f[done], gap[done], iteration
        solution.first_step[at] = self.first[done]
        for name in ("which", "fold", "penalty", "f", "t", "first", "stuck"):
            setattr(self, name, getattr(self, name)[stay])
        for name in ("W", "b", "g", "gb", "inverse", "b_inverse"):
            setattr(self, name, np.ascontiguousarray(getattr(self, name)[:, stay]))
        left = len(self.fold)
        for of_output in self.L:  # in place: there may be no room for another
            of_output[:left] = of_output[: len(stay)][stay]
        self.L, self.M = self.L[:, :left], self.M[:, :left]
        self.pairs = [(s[:, stay], sb[:, stay], y[:, stay], yb[:, stay], rho[stay]) for s, sb, y, yb, rho in self.pairs]

    def curve(self, q: np.ndarray, qb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The Hessian times a direction, (K, P, D) and (K, P)."""
        every = np.arange(len(self.fold))
        parts: dict[int, tuple[np.ndarray, ...]] = {}

        def work(rows: slice, M: np.ndarray | None) -> np.ndarray:
            assert M is not None
            here = self._counted(every, rows)
            along = M.reshape(len(qb), -1, M.shape[1]) + qb[:, here, None]
            bent = self.loss.bend(self.L[:, here, rows], along, rows)
            bent *= self.weights[self.fold[here], rows]
            parts[rows.start] = (_placed(len(every), here, bent.sum(axis=2)),)
            return bent.reshape(len(M), -1)

        h = self._sweep(every, q, work)
        (hb,) = _summed(parts)
        h += self.penalty.astype(h.dtype)[:, None] * q
        return h, hb + self.penalty.astype(h.dtype) * qb if self.loss.penalises_bias else hb

    def _search(
        self, direction: tuple[np.ndarray, np.ndarray], slope: np.ndarray, along: np.ndarray, across: np.ndarray
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """For each problem a step whose slope is small enough, and the gradient of the loss there; ``f`` is the objective's.

        The objective along a direction is convex: its slope rises. A root of it is bracketed, then found by secants. A step as
        long as the last mostly does: it is tried, and its gradient taken, in one sweep over the rows.
        """
        P = len(slope)
        t, low, high = self.t.copy(), np.zeros(P), np.full(P, np.inf)
        at_low, at_high = slope.copy(), np.zeros(P)
        start, f = self.penalty * self._half_square(self.W, self.b), self.f.copy()
        left = np.arange(P)
        value, rise, (g, gb) = self._look(left, t, direction)
        for _ in range(MOST_TRIALS):
            value = value + start[left] + t[left] * along[left] + 0.5 * t[left] ** 2 * across[left]
            rise = rise + along[left] + t[left] * across[left]
            fine = (np.abs(rise) <= ENOUGH * -slope[left]) & (value <= f[left] * (1 + 1e-6))
            self.f[left[fine]] = value[fine]
            below = rise < 0
            low[left[below]], at_low[left[below]] = t[left[below]], rise[below]
            high[left[~below]], at_high[left[~below]] = t[left[~below]], rise[~below]
            left = left[~fine]
            if not len(left):
                break
            t[left] = _next_step(low[left], high[left], at_low[left], at_high[left], slope[left])
            value, rise = self._try(left, t[left])
        # The numbers are too coarse to see a decrease: stay, and leave.
        t[left], self.stuck[left] = 0.0, True
        other = np.flatnonzero(t != self.t)
        if len(other):
            _, _, (g[:, other], gb[:, other]) = self._look(other, t[other])
        if not self.pairs:
            self.first = t
        self.t = t if self.pairs else np.full(P, SECOND_STEP)
        return t, (g, gb)

    def _look(
        self, left: np.ndarray, t: np.ndarray, direction: tuple[np.ndarray, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Loss (p,) of some problems a step along ``M``, its slope (p,), and its gradient, (K, p, D) and (K, p).

        Where a direction of all problems is given, ``M`` first becomes its scores, in the same sweep.
        """
        parts: dict[int, tuple[np.ndarray, ...]] = {}

        def work(rows: slice, M: np.ndarray | None) -> np.ndarray:
            along = None
            if M is not None and direction is not None:
                here = self._counted(left, rows)
                along = M.reshape(len(self.b), -1, M.shape[1]) + direction[1][:, here, None]
                self.M[:, here, rows] = along
            value, slope, gb, residual = self._judged(left, t, rows, along)
            parts[rows.start] = value, slope, gb
            return residual.reshape(-1, residual.shape[2])

        g = self._sweep(left, None if direction is None else direction[0], work)
        value, slope, gb = _summed(parts)
        return value, slope, (g, gb)

    def _try(self, left: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loss (p,) of some problems a step along ``M``, and its slope (p,), without a look at the rows."""
        parts = self._over(lambda rows: self._judged(left, t, rows)[:2])
        value, slope = (np.sum(part, axis=0) for part in zip(*parts, strict=True))
        return value, slope

    def _judged(
        self, left: np.ndarray, t: np.ndarray, rows: slice, along: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of a block of rows, some problems' loss (p,) a step along ``M``, its slope (p,), its gradient by intercepts (K, p).

        And the weighted residuals of those that look at these rows, (K, <= p, n).
        """
        here = self._counted(left, rows)
        chosen = here if len(left) == len(self.fold) else left[here]
        weight = self.weights[self.fold[chosen], rows]
        M = self.M[:, chosen, rows] if along is None else along
        at = M * t[here].astype(M.dtype)[:, None]
        at += self.L[:, chosen, rows]
        value, residual = self.loss.judge(at, rows)
        residual *= weight
        loss = np.einsum("pn,pn->p", value, weight, dtype=np.float64)
        slope = np.einsum("kpn,kpn->p", residual, M).astype(np.float64)
        loss, slope, bias = (_placed(len(left), here, part) for part in (loss, slope, residual.sum(axis=2)))
        return loss, slope, bias, residual

    def _counts(self, left: np.ndarray, rows: slice) -> np.ndarray:
        """(p,) bool, whether a block of rows counts in some problems."""
        region = bisect_right(self.regions, rows.start, key=lambda region: region.start) - 1
        out: np.ndarray = self.counts[region, self.fold[left]]
        return out

    def _counted(self, left: np.ndarray, rows: slice) -> Any:
        """In which of some problems a block of rows counts."""
        counts = self._counts(left, rows)
        return slice(None) if counts.all() else np.flatnonzero(counts)

    def _sweep(self, left: np.ndarray, V: np.ndarray | None, work: Work) -> np.ndarray:
        """(K, p, D), of (K, p, D) directions of some problems: each problem looks at the rows that count in it."""
        K, D = len(self.b), self.W.shape[2]
        seen = [(rows, self._counted(left, rows)) for rows in self.regions if self._counts(left, rows).any()]
        spans = [(rows, None if V is None else V[:, here].reshape(-1, D)) for rows, here in seen]
        out = np.zeros((K, len(left), D), self.L.dtype)
        for (_, here), part in zip(seen, self.matrix.sweep(spans, work), strict=True):
            out[:, here] += part.reshape(K, -1, D)
        return out

    def _move(self, rows: slice, step: np.ndarray) -> None:  # scores that do not count, too: nothing looks at them
        self.L[:, :, rows] += step[:, None] * self.M[:, :, rows]

    def _penalise(self, g: np.ndarray, gb: np.ndarray) -> None:
        """Make the objective's gradient of the loss's, in place."""
        penalty = self.penalty.astype(g.dtype)
        g += penalty[:, None] * self.W
        if self.loss.penalises_bias:
            gb += penalty * self.b

    def _inverses(self, precondition: bool, alike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of the Hessian's diagonal, (K, P, D), or (1, P, 1) of ones; and of its intercepts', (K, P).

        Of problems that are alike the diagonals' mean is taken.
        """
        K, P, D = self.W.shape
        every = np.arange(P)
        mean = (np.arange(alike.max() + 1)[:, None] == alike).astype(self.L.dtype)
        mean /= mean.sum(axis=1, keepdims=True)
        parts: dict[int, tuple[np.ndarray, ...]] = {}

        def work(rows: slice, _: np.ndarray | None = None) -> np.ndarray:
            here = self._counted(every, rows)
            A: np.ndarray = self.loss.curvature(self.L[:, here, rows], rows) * self.weights[self.fold[here], rows]
            parts[rows.start] = (_placed(P, here, A.sum(axis=2)),)
            averaged: np.ndarray = mean[:, here] @ A
            return averaged.reshape(-1, A.shape[2])

        inverse: np.ndarray = np.ones((1, P, 1), self.L.dtype)
        penalty = self.penalty.astype(inverse.dtype)
        if precondition:
            seen: list[Span] = [(rows, None) for rows in self.regions if self._counts(every, rows).any()]
            diagonal = np.sum(self.matrix.sweep(seen, work, squared=True), axis=0).reshape(K, -1, D)
            inverse = 1 / (diagonal[:, alike] + penalty[:, None])
        else:
            self._over(work)
        (bias,) = _summed(parts)
        if self.loss.penalises_bias:
            bias = bias + penalty
        return inverse, np.reciprocal(np.maximum(bias, LEAST, dtype=inverse.dtype))

    def _product(self, W: np.ndarray, b: np.ndarray, V: np.ndarray, c: np.ndarray) -> np.ndarray:
        """(P,) inner products of what is penalised."""
        out: np.ndarray = np.einsum("kpd,kpd->p", W, V, dtype=np.float64)
        return out + np.einsum("kp,kp->p", b, c, dtype=np.float64) if self.loss.penalises_bias else out

    def _half_square(self, W: np.ndarray, b: np.ndarray) -> np.ndarray:
        return 0.5 * self._product(W, b, W, b)

    def _over(self, work: Callable[[slice], T]) -> list[T]:
        """A function of every block of rows, side by side where there are several."""
        K, P, _ = self.L.shape
        n = max(64, BLOCK // (K * P))
        blocks = [slice(at, min(rows.stop, at + n)) for rows in self.regions for at in range(rows.start, rows.stop, n)]
        return side_by_side(work, blocks)


def _placed(count: int, here: Any, part: np.ndarray) -> np.ndarray:
    """(..., p) numbers of some of so many problems among zeros for the others."""
    if isinstance(here, slice):
        return part
    out = np.zeros((*part.shape[:-1], count), part.dtype)
    out[..., here] = part
    return out


def _summed(parts: dict[int, tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """What was found of each block of rows, by where it begins: always summed in the same order."""
    inorder = (parts[at] for at in sorted(parts))
    return tuple(np.sum(part, axis=0) for part in zip(*inorder, strict=True))


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
