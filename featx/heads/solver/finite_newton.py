"""The linear support vector machine with squared hinge loss to its optimum, in a finite number of Newton steps.

Its objective is quadratic between changes of the active set, the rows within the margin. Each step solves the quadratic of the
present active set exactly, in the active rows or in the columns, whichever are fewer (the dual or the primal problem), and
searches the line to that solution exactly (Keerthi and DeCoste, 2005). A set never comes again, since the objective falls.
L-BFGS needs very many iterations where C is large and rows are fewer than columns; here C hardly matters.

n rows, r columns, K outputs, P problems.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg

from featx.heads.solver.losses import SquaredHinge
from featx.heads.solver.problems import Problems, Solution

MAX_STEPS = 500
"""Newton steps after which a problem is abandoned; ten are usual."""


def finish(
    Z: np.ndarray,
    loss: SquaredHinge,
    problems: Problems,
    solution: Solution,
    which: np.ndarray,
    *,
    tol: float = 0.0,
    gram: np.ndarray | None = None,
) -> Solution:
    """Solve some problems from where another solver has left them.

    Args:
        Z: (n, r) rows.
        loss: of these rows.
        problems: P problems.
        solution: of all of them.
        which: (p,) int64, the problems to solve.
        tol: relative duality gap of an output at which it is left as it is.
        gram: (n, n) inner products of the rows, each with a column of ones, where these have been computed.

    Returns:
        The solution, in which all of these problems is new; their iterations are the Newton steps of all outputs. A gap is the
        duality gap, an upper bound.
    """
    weight, bias = solution.weight.astype(np.float64), solution.bias.astype(np.float64)
    objective, gap, iterations = (part.copy() for part in (solution.objective, solution.gap, solution.iterations))
    for at in which.tolist():
        weights = problems.weights[problems.fold[at]]
        used = np.flatnonzero(weights > 0)
        rows = np.append(Z[used], np.ones((len(used), 1)), axis=1).astype(np.float64)
        square = None if gram is None else gram[np.ix_(used, used)]
        importance, penalty = weights[used].astype(np.float64), float(problems.penalty[at])
        primal, dual, iterations[at] = 0.0, 0.0, 0
        for output in range(loss.outputs):
            machine = _Machine(rows, loss.sign[output, used].astype(np.float64), importance / penalty, square)
            parameters, steps = machine.solve(np.append(weight[output, at], bias[output, at]), tol)
            weight[output, at], bias[output, at] = parameters[:-1], parameters[-1]
            iterations[at] += steps
            primal, dual = primal + machine.primal, dual + machine.dual
        objective[at], gap[at] = penalty * primal, max(0.0, primal - dual) / primal if primal > 0 else 0.0
    return dataclasses.replace(solution, weight=weight, bias=bias, objective=objective, gap=gap, iterations=iterations)


class _Machine:
    """One output of one problem: the minimum of |v|^2 / 2 + sum_i c_i max(0, 1 - y_i z_i v)^2.

    Args:
        rows: z, (n, m), the last column of ones.
        sign: y, (n,) of 1 and -1.
        cost: c, (n,) above 0.
        gram: (n, n) inner products of the rows, or None.

    Attributes:
        primal: the objective at the parameters that ``solve`` returned.
        dual: a lower bound of the minimum.
    """

    def __init__(self, rows: np.ndarray, sign: np.ndarray, cost: np.ndarray, gram: np.ndarray | None = None) -> None:
        self.rows, self.sign, self.cost, self.gram = rows, sign, cost, gram
        self.primal, self.dual = np.inf, -np.inf

    def solve(self, v: np.ndarray, tol: float = 0.0) -> tuple[np.ndarray, int]:
        """Return the parameters at the minimum, (m,), and the number of steps from (m,) parameters to them.

        None is taken where the duality gap, relative to the objective, is at most ``tol`` already.
        """
        scores = self.rows @ v
        step = 0
        if tol > 0:
            active = self.sign * scores < 1
            self.primal = self._primal_value(v, scores)
            self.dual = self._dual_value(2 * (self.cost * (1 - self.sign * scores))[active], active)
            if self.primal - self.dual <= tol * self.primal:
                return v, 0
        while step < MAX_STEPS:
            active = self.sign * scores < 1
            goal, multipliers = self._minimum(active)
            goal_scores = self.rows @ goal
            self.dual = max(self.dual, self._dual_value(multipliers, active))
            step += 1
            length = self._best_length(v, scores, goal - v, goal_scores - scores)
            if not length > 0:
                break
            if length == 1:
                v, scores = goal, goal_scores
            else:
                v, scores = v + length * (goal - v), scores + length * (goal_scores - scores)
            before, self.primal = self.primal, self._primal_value(v, scores)
            if length == 1 and np.array_equal(self.sign * scores < 1, active):
                break  # the minimum of its own active set
            if not self.primal < before:
                break
        self.primal = self._primal_value(v, scores)
        return v, step

    def _minimum(self, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Minimise |v|^2 / 2 + the sum over active rows of c (1 - y z v)^2.

        Returns:
            v (m,), and the multipliers of the active rows, a with v = sum_i a_i y_i z_i.
        """
        rows, sign, cost = self.rows[active], self.sign[active], self.cost[active]
        if len(rows) <= rows.shape[1]:
            gram = rows @ rows.T if self.gram is None else self.gram[np.ix_(active, active)]
            gram[np.diag_indices_from(gram)] += 0.5 / cost
            solved = _solve(gram, sign)
            return solved @ rows, solved * sign
        weighted = rows * (2 * cost)[:, None]
        hessian = weighted.T @ rows
        hessian[np.diag_indices_from(hessian)] += 1.0
        v = _solve(hessian, sign @ weighted)
        return v, 2 * cost * (1 - sign * (rows @ v))

    def _best_length(self, v: np.ndarray, scores: np.ndarray, d: np.ndarray, change: np.ndarray) -> float:
        """The length of least objective along a direction, between 0 and 1.

        The slope is linear between the lengths at which a row enters or leaves the margin, and it rises.
        """
        margin, speed = 1 - self.sign * scores, self.sign * change
        inside = (margin > 0) | ((margin == 0) & (speed < 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = np.where(speed != 0, margin / speed, np.inf)
        crosses = (crossing > 0) & (crossing < 1)
        order = np.flatnonzero(crosses)[np.argsort(crossing[crosses], kind="stable")]
        constant, linear = -2 * self.cost * speed * margin, 2 * self.cost * speed**2
        toggled = np.where(inside, -1.0, 1.0)[order]
        constants = v @ d + constant[inside].sum() + np.append(0, np.cumsum(toggled * constant[order]))
        linears = d @ d + linear[inside].sum() + np.append(0, np.cumsum(toggled * linear[order]))
        ends = np.append(crossing[order], 1.0)
        rising = np.flatnonzero(constants + linears * ends >= 0)
        if not len(rising):
            return 1.0
        at = rising[0]
        begin = ends[at - 1] if at else 0.0
        if at == len(order) and not len(order):  # no row crosses the margin: the goal is the minimum
            return 1.0
        return float(np.clip(-constants[at] / linears[at] if linears[at] > 0 else begin, begin, ends[at]))

    def _primal_value(self, v: np.ndarray, scores: np.ndarray) -> float:
        slack = np.maximum(0, 1 - self.sign * scores)
        return float(0.5 * v @ v + self.cost @ slack**2)

    def _dual_value(self, multipliers: np.ndarray, active: np.ndarray) -> float:
        """The dual objective at multipliers of the active rows, those below 0 raised to it: a lower bound of the minimum."""
        a = np.maximum(multipliers, 0)
        v = (a * self.sign[active]) @ self.rows[active]
        linear, quadratic = a.sum(), 0.5 * v @ v + (a**2 / (4 * self.cost[active])).sum()
        return float(0.25 * linear**2 / quadratic) if quadratic > 0 else 0.0  # at the best multiple of a


def _solve(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Solve a positive definite system; one that rounding errors make singular, by least squares."""
    try:
        solved: np.ndarray = scipy.linalg.cho_solve(scipy.linalg.cho_factor(matrix, check_finite=False), target)
    except np.linalg.LinAlgError:
        solved = np.linalg.lstsq(matrix, target, rcond=None)[0]
    return solved
