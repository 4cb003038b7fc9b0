"""The influence of training images on a linear head: its scores, had it been fitted without one of them.

n training images, each in V views (a row for each); D features, C classes, labels or targets. A head's problem has K outputs:
one for two classes and for each label, C - 1 for more classes, whose scores are shifted together without effect.

With g the gradient of an image's loss and H the Hessian of the objective without it, the parameters without it are the old ones
plus H^-1 g: exact for the squared error of a ridge head (Allen, 1974; Cook, 1977), one Newton step for a logistic loss or a
squared hinge (Pregibon, 1981; Rad & Maleki, 2020). A fit without an image also standardises the features anew, and the penalty
is on standardised features: the weight of each feature is corrected for its new penalty, one feature at a time.
"""

from __future__ import annotations

import numpy as np

from featx.errors import HeadError
from featx.heads.fitted import FittedHead
from featx.heads.influence.design import Design
from featx.heads.influence.hessian import MAX_INVERTED, Inverse, Iterative
from featx.heads.influence.problems import Problem, problems_of
from featx.heads.influence.restandardised import Restandardised
from featx.heads.influence.shifted_mean import shifted
from featx.heads.predictors import LinearPredictor
from featx.heads.training_data import TrainingData

NOT_OPTIMAL = 1e-4
"""Relative gap of the objective above which a head was not fitted to these training images."""
KINDS = ("ridge", "logreg", "svm")
"""Kinds of heads that have influences; svm with a linear kernel."""


def has_influence(head: FittedHead) -> bool:
    """Whether the influence of training images on a head is known: ridge, logreg, and svm with a linear kernel."""
    return head.kind in KINDS and isinstance(head.predictor_, LinearPredictor)


class LeaveOneOut:
    """How the scores of a head would change without each of its training images.

    Args:
        head: fitted, of one of ``KINDS``.
        training: what it was fitted to, as ``fitting.prepare`` gives it.
        restandardise: whether the features are standardised anew without the image, as a fit does.

    Raises:
        HeadError: there is no influence on heads of this kind, or the head is not the optimum for these images and labels.

    Examples:
        >>> import numpy as np
        >>> from featx.heads.training_data import Rows
        >>> X = np.array([[-1.0], [0.0], [1.0], [2.0]])
        >>> training = TrainingData(Rows(X), np.array([[0.0], [2.0], [4.0], [1.0]]), 1, "regression", np.ones(4))
        >>> from featx.heads.estimators.ridge import RidgeEstimator
        >>> predictor = RidgeEstimator().fit(training, 0.25)
        >>> loo = LeaveOneOut.of(predictor, training, kind="ridge", C=0.25, restandardise=False)
        >>> without = RidgeEstimator().fit(training.take(np.array([0, 1, 2])), 0.25)
        >>> difference = predictor.decision_function(np.array([[3.0]])) - without.decision_function(np.array([[3.0]]))
        >>> bool(np.isclose(loo.changes(np.array([3.0]), np.array([1.0]))[3], difference[0, 0]))
        True
    """

    def __init__(self, head: FittedHead, training: TrainingData, *, restandardise: bool = True) -> None:
        if not has_influence(head) or head.C_ is None:
            raise HeadError(
                f"there is no influence of training images on a {head.kind} head; {', '.join(KINDS)} have it"
            )
        gap = (head.convergence_ or {}).get("gap", 0.0)
        self._begin(head.predictor_, training, head.kind, head.C_, restandardise, max(NOT_OPTIMAL, 10 * gap))

    @classmethod
    def of(
        cls, predictor: LinearPredictor, training: TrainingData, *, kind: str, C: float, restandardise: bool = True
    ) -> LeaveOneOut:
        """The influences on a predictor that is not part of a head."""
        made = cls.__new__(cls)
        made._begin(predictor, training, kind, C, restandardise, NOT_OPTIMAL)
        return made

    def _begin(
        self, predictor: LinearPredictor, training: TrainingData, kind: str, C: float, restandardise: bool, gap: float
    ) -> None:
        self._design = Design(training)
        self._problems = problems_of(predictor, training, kind, C)
        self._restandardise, self._gap = restandardise, gap
        self._solved: dict[int, _Solved] = {}

    def changes(self, z: np.ndarray, along: np.ndarray) -> np.ndarray:
        """Compute how much lower a combination of the scores of an image would be without each training image.

        Args:
            z: (D,) float64, the standardised features of the image; of several views their mean.
            along: (C,) float64, the combination: ``along @ scores``.

        Returns:
            (n,) float64: what each training image adds to it.

        Raises:
            HeadError: the head is not the optimum for these images and labels.
        """
        total = np.zeros(self._design.images)
        for number, problem in enumerate(self._problems):
            direction = problem.outputs.T @ along
            if direction.any():
                total += self._solution(number).changes(z, direction)
        return total

    def _solution(self, number: int) -> _Solved:
        if number not in self._solved:
            self._solved[number] = _Solved(self._design, self._problems[number], self._restandardise)
            if not self._solved[number].gap <= self._gap:
                raise HeadError(
                    "the head is not the best fit to these training images and labels, which have changed since it was "
                    "fitted; fit a head to them with featx fit-head"
                )
        return self._solved[number]


class _Solved:
    """The Hessian of a problem with k coupled outputs, and the influence of each image on combinations of them.

    Args:
        design: the rows.
        problem: at its optimum.
        restandardise: whether the features are standardised anew without an image.
    """

    def __init__(self, design: Design, problem: Problem, restandardise: bool) -> None:
        self._design, self._problem = design, problem
        self._coupled = 1 if problem.shared else problem.weight.shape[0]
        self._first, parts, loss, gradient = self._derivatives()
        inverted = self._coupled * design.side <= MAX_INVERTED
        self._hessian = (Inverse if inverted else Iterative)(design, problem, parts, self._coupled)
        objective = loss + 0.5 * problem.strength * float((problem.weight**2).sum())
        columns = gradient.reshape(-1, self._coupled * design.side)
        decrement = sum(0.5 * float(column @ self._hessian.solve(column)) for column in columns)
        self.gap = decrement / max(objective, np.finfo(np.float64).tiny)
        self._anew = Restandardised(design, problem.strength, self._coupled, self._hessian) if restandardise else None

    def _derivatives(self) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
        """(N, K) minus first derivatives of all rows, what makes the second ones, the loss, and the (K, r + 1) gradient."""
        design, problem = self._design, self._problem
        inside = np.concatenate([design.inside(problem.weight), problem.bias[:, None]], axis=1)
        first, parts, loss = [], [], 0.0
        gradient = inside * problem.penalty(design.side)
        for _, rows, block in design.blocks(2):
            residual, part, more = problem.derivatives(block @ inside.T, rows)
            first.append(residual)
            parts.append(part)
            loss += more
            gradient -= residual.T @ block
        return np.concatenate(first), np.concatenate(parts), loss, gradient

    def changes(self, z: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """(n,) what each image adds to ``direction @ outputs`` of an image with (D,) features; direction is (K,)."""
        design, problem, k = self._design, self._problem, self._coupled
        target = np.append(design.inside(z[None])[0], 1.0)
        if problem.shared:  # the same Hessian for all outputs: their combination is an output too
            residual, weight, scale = self._first @ direction[:, None], (direction @ problem.weight)[None], np.ones(1)
        else:
            residual, weight, scale = self._first, problem.weight, direction
        solution = self._hessian.solve(np.outer(scale, target).ravel()).reshape(k, -1)
        kernel = np.empty((len(design), k))
        for _, rows, block in design.blocks():
            kernel[rows] = block @ solution.T
        kernel, step = kernel.reshape(design.images, -1), self._hessian.step(residual)
        out: np.ndarray = np.einsum("ni,ni->n", kernel, step)
        if self._anew:
            beyond = z - design.outside(target[None, :-1])[0]  # no image of the fit varies there
            at = design.outside(solution[:, :-1]) + np.outer(scale, beyond) / problem.strength
            out += self._anew.changes(at, weight, kernel, step)
            if problem.bias_strength:
                out += self._shifted(solution[0], kernel, step)
        return out

    def _shifted(self, solution: np.ndarray, kernel: np.ndarray, step: np.ndarray) -> np.ndarray:
        """The (n,) effect of the shift of the features' means without each image on a penalised intercept.

        Args:
            solution: (r + 1,), the inverse Hessian times an image, for one output.
            kernel: (n, V), its products with the rows of each image.
            step: (n, V), by which the parameters differ along these.
        """
        design, problem = self._design, self._problem
        inside, score = design.inside(problem.weight)[0], np.empty(len(design))
        for _, rows, block in design.blocks():
            score[rows] = block[:, :-1] @ inside
        return shifted(
            self._hessian, problem.bias_strength, float(problem.bias[0]), score.reshape(kernel.shape),
            float(solution[-1]), kernel, step,
        )  # fmt: skip
