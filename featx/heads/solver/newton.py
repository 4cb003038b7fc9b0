"""One L2-penalised linear classifier to the last digits, by Newton steps from a good start.

N rows, D features, K outputs; the Hessian may be that of n other rows in r other columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from featx.heads.solver.batch import Batch, inner_product
from featx.heads.solver.losses import Loss
from featx.heads.solver.matrices import Matrix
from featx.heads.solver.problems import Problems, Solution
from featx.heads.solver.summed import SummedRows

WEIGHT_TOL = 1e-3
"""Distance of the weights from their optimum, relative to their norm, below which no further step is needed."""
MAX_CG_ITER = 300
"""Iterations of conjugate gradients for one Newton step."""


@dataclass(frozen=True, eq=False)
class HessianModel:
    """The rows whose Hessian Newton's steps use: those of the exact problem or a sample of them, in suitable columns.

    Attributes:
        matrix: (n, r), whose products are fast.
        weights: (n,), the weights of the rows, with sum 1.
        loss: of these rows.
        rotate: from (..., D) to (..., r).
        unrotate: from (..., r) to (..., D).
        cg_tol: conjugate gradients stop when an iteration brings less than this share of the mean decrease of all iterations
            so far (Nash & Sofer, 1990).
    """

    matrix: Matrix
    weights: np.ndarray
    loss: Loss
    rotate: Callable[[np.ndarray], np.ndarray]
    unrotate: Callable[[np.ndarray], np.ndarray]
    cg_tol: float = 1e-6


def refine(
    matrix: Matrix | SummedRows,
    loss: Loss,
    problem: Problems,
    start: tuple[np.ndarray, np.ndarray],
    *,
    model: HessianModel,
    tol: float,
    max_iter: int,
) -> Solution:
    """Solve one problem to its last digits by Newton steps with exact gradients and the Hessian of a model.

    Each step is computed by preconditioned conjugate gradients (Nocedal & Wright, 2006, section 7.1). Half the inner product
    of a step and the gradient measures the gap, which L-BFGS can only estimate. No step is taken if strong convexity bounds
    the gap already.

    Args:
        matrix: (N, D) float64, or rows of one problem that are read elsewhere.
        loss: of K outputs.
        problem: one problem.
        start: (K, 1, D) weights and (K, 1) intercepts, near the minimum.
        model: of the Hessian.
        tol: relative gap of the objective at which to stop.
        max_iter: the largest number of steps.
    """
    batch = Batch(matrix, loss, problem, start)
    iteration, gap = 0, batch.convexity_gap()
    # Under a strong penalty the objective hardly depends on the last digits of the weights, so a small gap is not enough.
    solved = gap[0] <= tol and batch.weight_error(gap)[0] <= WEIGHT_TOL
    while not solved:
        direction = _newton_direction(batch, model)
        slope, bound = inner_product(*direction, batch.g, batch.gb), batch.convexity_gap()
        gap = np.where(slope < 0, np.minimum(batch.model_gap(slope), bound), bound)
        if not slope[0] < 0 or iteration == max_iter or batch.stuck[0]:
            break
        solved = gap[0] <= tol
        if not solved or (iteration == 0 and bound[0] <= tol):
            batch.step(direction, slope)
            iteration += 1
    return Solution(batch.W, batch.b, batch.objective, gap, np.array([iteration]), batch.first_step)


def _newton_direction(batch: Batch, model: HessianModel) -> tuple[np.ndarray, np.ndarray]:
    """Compute the step to the minimum of the quadratic model of a batch of one problem: (K, 1, D) and (K, 1)."""
    dtype = model.matrix.dtype
    start = (model.rotate(batch.W).astype(dtype), batch.b.astype(dtype))
    problem = Problems(model.weights[None].astype(dtype), batch.loss.fold, batch.penalty)
    sample = Batch(model.matrix, model.loss, problem, start, precondition=True)
    d, db = _conjugate_gradients(
        sample.hessian_product,
        (-model.rotate(batch.g).astype(dtype), -batch.gb.astype(dtype)),
        (sample.inverse, sample.b_inverse),
        tol=model.cg_tol,
    )
    return model.unrotate(d).astype(batch.W.dtype), db.astype(batch.W.dtype)


def _conjugate_gradients(
    product: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    target: tuple[np.ndarray, np.ndarray],
    inverse: tuple[np.ndarray, np.ndarray],
    *,
    tol: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve H d = target by preconditioned conjugate gradients.

    The model d'Hd / 2 - target'd falls with each iteration but for rounding errors. The first iteration that does not lower it
    is undone and ends the solution, as does a residual whose energy is at the rounding errors of the target.

    Args:
        product: by H, of (K, 1, D) and (K, 1).
        target: (K, 1, D) and (K, 1).
        inverse: the preconditioner.
        tol: share of the mean decrease of the model below which an iteration is the last.

    Returns:
        (K, 1, D) and (K, 1), with a model of at most 0.
    """
    r, rb = target
    dtype, eps = r.dtype.type, float(np.finfo(r.dtype).eps)
    d, db = np.zeros_like(r), np.zeros_like(rb)
    q, qb = inverse[0] * r, inverse[1] * rb  # the search direction
    energy = first = float(inner_product(r, rb, q, qb)[0])
    value = 0.0  # of the model
    for iteration in range(1, MAX_CG_ITER + 1):
        h, hb = product(q, qb)
        curvature = float(inner_product(q, qb, h, hb)[0])
        if not (curvature > 0 and energy > eps**2 * first):
            break
        length = energy / curvature
        longer, longer_b = d + dtype(length) * q, db + dtype(length) * qb
        r, rb = r - dtype(length) * h, rb - dtype(length) * hb
        before, value = value, -0.5 * float(inner_product(longer, longer_b, target[0] + r, target[1] + rb)[0])
        if not value < before:
            break
        d, db = longer, longer_b
        if iteration * (before - value) <= tol * -value:
            break
        z, zb = inverse[0] * r, inverse[1] * rb
        energy, last = float(inner_product(r, rb, z, zb)[0]), energy
        q, qb = z + dtype(energy / last) * q, zb + dtype(energy / last) * qb
    return d, db
