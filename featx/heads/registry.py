"""The kinds of head: what each suits, what is chosen for it, and who fits it. torch is imported for those that need it."""

from __future__ import annotations

from dataclasses import dataclass

from featx.constants import KERNELS, KINDS, TASKS
from featx.errors import HeadError
from featx.heads.training_data import Model

MOST_ROWS_OF_RBF = 5_000
"""Training rows up to which ``--model auto`` tries a kernel, which costs their square."""

_CLASSES, _LABELS, _EVERY = TASKS[:1], TASKS[:2], TASKS


@dataclass(frozen=True)
class Kind:
    """What there is to know of a kind of head before it is fitted.

    Attributes:
        tasks: that it suits.
        parameter: what is chosen for it: "C", "k", "weight_decay" or "".
        calibrated: its scores are logits as they are.
    """

    tasks: tuple[str, ...]
    parameter: str
    calibrated: bool = False


TABLE = {
    "centroid": Kind(_CLASSES, ""),
    "ridge": Kind(_EVERY, "C"),
    "logreg": Kind(_LABELS, "C", calibrated=True),
    "svm": Kind(_EVERY, "C"),
    "linear": Kind(_EVERY, "", calibrated=True),
    "knn": Kind(_EVERY, "k"),
    "mlp": Kind(_EVERY, "weight_decay", calibrated=True),
}
"""By name, the simplest first: that is the order in which ``--model auto`` prefers what is as good."""


def kind_of(name: str, *, task: str | None = None, kernel: str = "linear") -> Kind:
    """A kind of head.

    Raises:
        HeadError: no such kind, or one that does not suit the task or has no such kernel.
    """
    if name not in KINDS:
        raise HeadError(f"there is no head {name!r}; expected one of {', '.join(KINDS)}")
    if kernel not in KERNELS or (kernel != "linear" and name != "svm"):
        raise HeadError(f"kernel is {kernel!r} for {name}; it is {' or '.join(KERNELS)}, for svm")
    if task is not None and task not in TABLE[name].tasks:
        others = [other for other in TABLE if task in TABLE[other].tasks]
        raise HeadError(f"{name} does not do {task}; expected one of {', '.join(others)}")
    return TABLE[name]


def form_of(name: str, *, task: str, kernel: str) -> str:
    """The key in ``scorers.PREDICTORS`` of what a head scores by."""
    if name == "knn":
        return {"classification": "neighbour", "multilabel": "neighbour-labels", "regression": "neighbour-mean"}[task]
    return "hidden" if name == "mlp" else "kernel" if kernel == "rbf" else "linear"


def model_for(name: str, *, task: str, kernel: str, device: str = "cpu", coarse: bool = False) -> Model:
    """Who fits a kind of head; on a device of torch, and coarsely, where that kind can."""
    if name in ("linear", "mlp"):
        from featx.heads.estimators.mlp import MlpEstimator, SgdLinearEstimator

        return SgdLinearEstimator(device=device) if name == "linear" else MlpEstimator(device=device)
    if name in ("knn", "centroid"):
        from featx.heads.estimators.centroid import NearestCentroidEstimator
        from featx.heads.estimators.knn import KNearestEstimator

        return KNearestEstimator() if name == "knn" else NearestCentroidEstimator()
    if name == "ridge":
        from featx.heads.estimators.ridge import RidgeEstimator

        return RidgeEstimator()
    if name == "svm" and (kernel == "rbf" or task == "regression"):
        from featx.heads.estimators.svm import KernelSvmEstimator, LinearSvrEstimator

        return KernelSvmEstimator() if kernel == "rbf" else LinearSvrEstimator()
    from featx.heads.estimators.linear import LinearPathEstimator

    return LinearPathEstimator(hinge=name == "svm", device=device, coarse=coarse)


def suited(task: str, rows: int) -> list[tuple[str, str]]:
    """(kind, kernel) of the heads that ``--model auto`` compares for a task and so many training rows, the simplest first.

    Not linear, whose optimum without a penalty is one end of logreg's path.
    """
    found = [(name, "linear") for name, kind in TABLE.items() if task in kind.tasks and name != "linear"]
    if rows <= MOST_ROWS_OF_RBF:
        found.insert(found.index(("mlp", "linear")), ("svm", "rbf"))
    return found
