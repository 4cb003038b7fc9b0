"""L2-penalised linear classifiers for many penalties and folds at once, by batched L-BFGS (Nocedal, 1980).

A problem is one penalty on the rows of one fold:

    minimise  sum_i s_i loss(y_i, W z_i + b)  +  penalty |W|^2 / 2,     sum_i s_i = 1

scikit-learn's objective, |W|^2 / 2 + C sum_i w_i loss_i, is this one times C sum_i w_i, with penalty = 1 / (C sum_i w_i).

Problems are solved together, because one matrix product with many columns is several times faster than many thin ones. Each
iteration multiplies the rows by the directions of all problems, and the residuals of all problems by the rows. Along a
direction the scores are linear, so the line search needs no matrix product. A problem that is solved leaves the batch.

N rows, D features, K outputs, P problems.
"""

from __future__ import annotations

import numpy as np

from featx.heads.solver.batch import Batch, inner_product
from featx.heads.solver.losses import Loss
from featx.heads.solver.matrices import Matrix
from featx.heads.solver.problems import Problems, Solution
from featx.heads.solver.summed import SummedRows

HISTORY = 10
"""Pairs of steps and gradient differences that L-BFGS stores."""
MAX_ITER = 2000


def minimise(
    matrix: Matrix | SummedRows,
    loss: Loss,
    problems: Problems,
    start: tuple[np.ndarray, np.ndarray],
    *,
    tol: float,
    precondition: bool = False,
    first_step: np.ndarray | None = None,
    max_iter: int = MAX_ITER,
) -> Solution:
    """Solve P problems by L-BFGS.

    Args:
        matrix: (N, D), or rows of one problem that are read elsewhere.
        loss: of K outputs.
        problems: P problems.
        start: (K, P, D) weights and (K, P) intercepts.
        tol: the gap between objective and minimum, relative to the objective, at which a problem is done. The gap is estimated
            by the decrease that the model of L-BFGS predicts, which has to be small twice in a row, or bounded by strong
            convexity.
        precondition: whether to precondition by the diagonal of the Hessian. This pays off if the columns are the principal
            axes of the rows (``Rotated``).
        first_step: (P,) float64, the length of the first step to try, for example that of similar problems; 1 unless given.
        max_iter: iterations after which the remaining problems are abandoned; their ``gap`` is then above ``tol``.

    Examples:
        Two penalties on the same six rows:

        >>> from featx.heads.solver.losses import Logistic
        >>> from featx.heads.solver.matrices import DenseMatrix
        >>> Z = np.array([[-2.0], [-1.0], [-0.5], [0.5], [1.0], [2.0]])
        >>> loss = Logistic(np.array([[False, False, True, False, True, True]]))
        >>> problems = Problems(np.full((1, 6), 1 / 6), fold=np.array([0, 0]), penalty=np.array([0.1, 10.0]))
        >>> solution = minimise(DenseMatrix(Z), loss, problems, (np.zeros((1, 2, 1)), np.zeros((1, 2))), tol=1e-8)
        >>> solution.weight.round(2).ravel()
        array([0.9 , 0.04])
    """
    batch = Batch(matrix, loss, problems, start, precondition=precondition, first_step=first_step)
    history = _History()
    solution = Solution.empty(start[0].shape, matrix.dtype)
    times_small = np.zeros(len(problems.fold), dtype=np.int64)
    for iteration in range(max_iter + 1):
        direction = history.direction(batch)
        slope = inner_product(*direction, batch.g, batch.gb)
        predicted, bound = batch.model_gap(slope), batch.convexity_gap()
        gap = np.where(slope < 0, np.minimum(predicted, bound), bound)
        times_small = np.where(predicted <= tol, times_small + 1, 0)
        done = (times_small >= 2) | (bound <= tol) | batch.stuck | (slope >= 0) | (iteration == max_iter)
        if done.any():
            batch.remove(done, solution, gap=gap, iteration=iteration)
            history.select(~done)
            if done.all():
                break
            times_small, slope = times_small[~done], slope[~done]
            direction = (direction[0][:, ~done], direction[1][:, ~done])
        history.append(*batch.step(direction, slope))
    return solution


class _History:
    """The last steps and gradient differences of all problems, from which L-BFGS models the inverse Hessians.

    Attributes:
        pairs: the oldest first: steps (K, P, D) and (K, P), gradient differences (K, P, D) and (K, P), and (P,) float64 rho,
            the inverse of their inner product, or 0 where that is not positive.
    """

    def __init__(self) -> None:
        self.pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    def append(self, s: np.ndarray, sb: np.ndarray, y: np.ndarray, yb: np.ndarray) -> None:
        """Add a step and the difference of its gradients."""
        curvature = inner_product(s, sb, y, yb)
        rho = np.where(curvature > 0, 1 / np.where(curvature > 0, curvature, 1), 0)
        self.pairs = [*self.pairs, (s, sb, y, yb, rho)][-HISTORY:]

    def select(self, stay: np.ndarray) -> None:
        """Drop the problems that do not ``stay``, (P,) bool."""
        self.pairs = [(s[:, stay], sb[:, stay], y[:, stay], yb[:, stay], rho[stay]) for s, sb, y, yb, rho in self.pairs]

    def direction(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Compute the L-BFGS direction by the two-loop recursion (Nocedal & Wright, 2006, algorithm 7.4)."""
        q, qb = batch.g.copy(), batch.gb.copy()
        alphas = []
        for s, sb, y, yb, rho in reversed(self.pairs):
            alpha = rho * inner_product(s, sb, q, qb)
            q -= alpha[:, None].astype(q.dtype) * y
            qb -= alpha.astype(q.dtype) * yb
            alphas.append(alpha)
        q *= batch.inverse
        qb *= batch.b_inverse
        if self.pairs:
            _, _, y, yb, rho = self.pairs[-1]
            curvature = rho * inner_product(y * batch.inverse, yb * batch.b_inverse, y, yb)
            scale = np.where(curvature > 0, 1 / np.where(curvature > 0, curvature, 1), 1).astype(q.dtype)
            q *= scale[:, None]
            qb *= scale
        for (s, sb, y, yb, rho), alpha in zip(self.pairs, reversed(alphas), strict=True):
            left = (alpha - rho * inner_product(y, yb, q, qb)).astype(q.dtype)
            q += left[:, None] * s
            qb += left * sb
        np.negative(q, out=q)
        np.negative(qb, out=qb)
        return q, qb
