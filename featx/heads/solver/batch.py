"""The state of many problems that are minimised together: weights, objectives, gradients and preconditioners.

K outputs, P problems, D features. A direction, a gradient or a step is a pair of arrays: (K, P, D) for the weights and (K, P)
for the intercepts.
"""

from __future__ import annotations

import numpy as np

from featx.heads.solver.blockwise import BlockwiseLoss
from featx.heads.solver.line_search import PenaltyAlongLine, line_search
from featx.heads.solver.losses import Loss
from featx.heads.solver.matrices import Matrix
from featx.heads.solver.problems import Problems, Solution
from featx.heads.solver.summed import LossOfBatch, SummedRows

MIN_OBJECTIVE = 1e-12
"""Gaps are relative to the objective, but at least to this many nats per row: smaller objectives are not distinguished."""
SECOND_STEP = 1.5
"""The length that is tried first along the second direction; later the last accepted length. Both are usually accepted."""


class Batch:
    """The problems that are not solved yet.

    Args:
        matrix: (N, D), or rows of one problem that are read elsewhere.
        loss: of K outputs.
        problems: P problems.
        start: (K, P, D) weights and (K, P) intercepts.
        precondition: whether to precondition the weights by the diagonal of the Hessian at the start.
        first_step: (P,) float64, the length of the first step to try; 1 unless given.

    Attributes:
        which: (P,) int64, the index of each problem among those of the start.
        loss: the losses, without penalties.
        penalty: (P,) float64.
        W: (K, P, D), the weights.
        b: (K, P), the intercepts.
        objective: (P,) float64.
        g: (K, P, D), the gradient of the objective by the weights.
        gb: (K, P), the gradient of the objective by the intercepts.
        inverse: (K, P, D), or (1, P, 1) of ones: the preconditioner of the weights, an inverse diagonal of the Hessian.
        b_inverse: (K, P), the preconditioner of the intercepts.
        step_length: (P,) float64, the length to try first along the next direction.
        first_step: (P,) float64, the length of the first step.
        stuck: (P,) bool, whether the last line search failed.
    """

    def __init__(
        self,
        matrix: Matrix | SummedRows,
        loss: Loss,
        problems: Problems,
        start: tuple[np.ndarray, np.ndarray],
        *,
        precondition: bool = False,
        first_step: np.ndarray | None = None,
    ) -> None:
        count = len(problems.fold)
        self.which, self.penalty, self.penalises_bias = np.arange(count), problems.penalty, loss.penalises_bias
        self.W, self.b = start[0].astype(matrix.dtype), start[1].astype(matrix.dtype)
        self.stuck, self._moved = np.zeros(count, dtype=bool), False
        self.step_length = self.first_step = np.ones(count) if first_step is None else first_step
        self.loss: LossOfBatch = (
            matrix.losses()
            if isinstance(matrix, SummedRows)
            else BlockwiseLoss(matrix, loss, problems, width=start[0].shape[2])
        )
        self.objective, (self.g, self.gb) = self.loss.start(self.W, self.b)
        self.objective += self.penalty * self._half_square(self.W, self.b)
        self._add_penalty_gradient(self.g, self.gb)
        groups = problems.preconditioner_group
        self.inverse, self.b_inverse = self._preconditioner(precondition, self.which if groups is None else groups)

    def model_gap(self, slope: np.ndarray) -> np.ndarray:
        """Estimate the gap by the decrease that the quadratic model predicts along a direction, relative to the objective.

        Args:
            slope: (P,) float64, of the objective along the direction.
        """
        gap: np.ndarray = np.maximum(-0.5 * slope, 0) / np.maximum(self.objective, MIN_OBJECTIVE)
        return gap

    def convexity_gap(self) -> np.ndarray:
        """Bound the gap by strong convexity, (P,) float64, relative to the objective.

        The part of an unpenalised intercept is an estimate, not a bound.
        """
        gap: np.ndarray = 0.5 * np.einsum("kpd,kpd->p", self.g, self.g, dtype=np.float64) / self.penalty
        gap += 0.5 * np.einsum("kp,kp,kp->p", self.gb, self.gb, self.b_inverse, dtype=np.float64)
        gap /= np.maximum(self.objective, MIN_OBJECTIVE)
        return gap

    def weight_error(self, gap: np.ndarray) -> np.ndarray:
        """Bound the distance of the weights from their optimum by strong convexity, (P,), relative to their norm."""
        own = np.maximum(self.penalty * self._half_square(self.W, self.b), np.finfo(np.float64).tiny)
        error: np.ndarray = np.sqrt(gap * np.maximum(self.objective, MIN_OBJECTIVE) / own)
        return error

    def hessian_product(self, V: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Multiply the Hessians of the objectives by a direction."""
        h, hb = self.loss.hessian_product(V, c)
        penalty = self.penalty.astype(h.dtype)
        h += penalty[:, None] * V
        return h, hb + penalty * c if self.penalises_bias else hb

    def step(
        self, direction: tuple[np.ndarray, np.ndarray], slope: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Take a step along a direction, by a line search.

        Args:
            direction: overwritten by the step.
            slope: (P,) float64, of the objective along the direction; below 0.

        Returns:
            The steps of weights and intercepts, and the differences of their gradients.
        """
        s, sb = direction
        penalty = PenaltyAlongLine(
            self.penalty * self._half_square(self.W, self.b),
            self.penalty * self._product(self.W, self.b, s, sb),
            self.penalty * self._half_square(s, sb) * 2,
        )
        taken = line_search(
            self.loss, direction, penalty, objective=self.objective, slope=slope, first_length=self.step_length
        )
        self.objective, self.stuck = taken.objective, self.stuck | taken.failed
        if not self._moved:
            self.first_step = taken.length
        self.step_length = taken.length if self._moved else np.full(len(slope), SECOND_STEP)
        self._moved = True
        length = taken.length.astype(s.dtype)
        s *= length[:, None]
        sb *= length
        self.W += s
        self.b += sb
        self.loss.move(length)
        g, gb = taken.loss_gradient
        self._add_penalty_gradient(g, gb)
        y, yb = g - self.g, gb - self.gb
        self.g, self.gb = g, gb
        return s, sb, y, yb

    def remove(self, done: np.ndarray, solution: Solution, *, gap: np.ndarray, iteration: int) -> None:
        """Write the problems that are done, (P,) bool, into a solution of all problems, and remove them."""
        at, stay = self.which[done], ~done
        solution.weight[:, at], solution.bias[:, at] = self.W[:, done], self.b[:, done]
        solution.objective[at], solution.gap[at] = self.objective[done], gap[done]
        solution.iterations[at], solution.first_step[at] = iteration, self.first_step[done]
        for name in ("which", "penalty", "objective", "step_length", "first_step", "stuck"):
            setattr(self, name, getattr(self, name)[stay])
        for name in ("W", "b", "g", "gb", "inverse", "b_inverse"):
            setattr(self, name, np.ascontiguousarray(getattr(self, name)[:, stay]))
        self.loss.select(stay)

    def _add_penalty_gradient(self, g: np.ndarray, gb: np.ndarray) -> None:
        """Turn the gradient of the loss into that of the objective, in place."""
        penalty = self.penalty.astype(g.dtype)
        g += penalty[:, None] * self.W
        if self.penalises_bias:
            gb += penalty * self.b

    def _preconditioner(self, precondition: bool, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Invert the diagonals of the Hessians, means over the problems of a group; see ``inverse`` and ``b_inverse``."""
        diagonal, bias = self.loss.hessian_diagonal(groups, of_weights=precondition)
        inverse: np.ndarray = np.ones((1, len(groups), 1), self.W.dtype)
        penalty = self.penalty.astype(inverse.dtype)
        if diagonal is not None:
            inverse = 1 / (diagonal[:, groups] + penalty[:, None])
        if self.penalises_bias:
            bias = bias + penalty
        return inverse, np.reciprocal(np.maximum(bias, MIN_OBJECTIVE, dtype=inverse.dtype))

    def _product(self, W: np.ndarray, b: np.ndarray, V: np.ndarray, c: np.ndarray) -> np.ndarray:
        """(P,) float64 inner products of the parameters that are penalised."""
        out: np.ndarray = np.einsum("kpd,kpd->p", W, V, dtype=np.float64)
        return out + np.einsum("kp,kp->p", b, c, dtype=np.float64) if self.penalises_bias else out

    def _half_square(self, W: np.ndarray, b: np.ndarray) -> np.ndarray:
        return 0.5 * self._product(W, b, W, b)


def inner_product(u: np.ndarray, ub: np.ndarray, v: np.ndarray, vb: np.ndarray) -> np.ndarray:
    """(P,) float64 inner products of two pairs of (K, P, D) and (K, P)."""
    out: np.ndarray = np.einsum("kpd,kpd->p", u, v).astype(np.float64) + np.einsum("kp,kp->p", ub, vb)
    return out
