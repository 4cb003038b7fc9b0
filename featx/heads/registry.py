"""The kinds of head, by name: what each can do, how it is fitted, and what its file holds.

A new kind is one module, with its estimator (and its predictor, where none of ``featx.heads.predictors`` fits), and one call
of ``register_head``. A kind that ships with featx is registered at the end of this module, and its name in
``featx.constants.KINDS`` makes it a choice of ``featx fit-head --model``.

torch is imported only for the kinds that need it, when they are fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from featx.constants import DEFAULT_KINDS, KERNELS, KINDS, TASKS, ZERO_SHOT
from featx.errors import HeadError
from featx.heads.predictors import (
    BilinearPredictor,
    CosinePredictor,
    HiddenLayerPredictor,
    KernelPredictor,
    LinearPredictor,
    NeighbourLabelsPredictor,
    NeighbourMeanPredictor,
    NeighbourPredictor,
)
from featx.heads.texts import ClassTexts
from featx.heads.training_data import Estimator

MAX_RBF_ROWS = 5_000
"""The most training rows for which ``--model auto`` tries a kernel, whose cost grows with their square."""

MAX_BILINEAR_ROWS = 20_000
"""The most training rows for which ``--model auto`` tries a bilinear head, whose two thousand more columns take their time."""

PARAMETERS = ("C", "k", "weight_decay")
"""The hyper-parameters that a kind of head may have. ``C`` and ``k`` can also be given to ``Head``."""


@dataclass(frozen=True)
class EstimatorOptions:
    """What the factory of an estimator gets.

    Attributes:
        task: one of ``TASKS``.
        kernel: one of the kind's kernels.
        device: of torch, such as "cpu" or "cuda:1".
        coarse: whether to compare fewer candidates and to solve less exactly, in less time.
        texts: of the classes, in their order: what a zeroshot head is made of, and what logreg may be regularised towards.
    """

    task: str
    kernel: str = "linear"
    device: str = "cpu"
    coarse: bool = False
    texts: ClassTexts | None = None


@dataclass(frozen=True)
class HeadKind:
    """One kind of head.

    Attributes:
        name: as ``Head(name)`` takes it.
        tasks: those it can do, of ``TASKS``.
        predictor: the class of its predictor, or a function from task and kernel to that class. Its ``FORM`` and ``ARRAYS``
            are what a head's file holds.
        estimator: makes the ``Estimator`` that fits it.
        parameter: the hyper-parameter that is chosen by cross-validation: "C", "k", "weight_decay", or "" for none.
        gives_logits: whether its scores are logits of a probability model that is fitted to its optimum, so that they need no
            temperature. Networks that stop early do not count: their probabilities are too even.
        kernels: those it can have.
        ignores_class_sizes: whether its scores do not depend on how many rows each class has, so that none is to adjust.
        is_fitted: whether it learns from training rows; if not, it is made of the texts of its classes alone.
    """

    name: str
    tasks: tuple[str, ...]
    predictor: type[Any] | Callable[[str, str], type[Any]]
    estimator: Callable[[EstimatorOptions], Estimator]
    parameter: str = ""
    gives_logits: bool = False
    kernels: tuple[str, ...] = ("linear",)
    ignores_class_sizes: bool = False
    is_fitted: bool = True

    def predictor_class(self, task: str, kernel: str = "linear") -> type[Any]:
        """The class of the predictor that a fit gives."""
        return self.predictor if isinstance(self.predictor, type) else self.predictor(task, kernel)

    def form(self, task: str, kernel: str = "linear") -> str:
        """The name of the predictor in a head's file."""
        return str(self.predictor_class(task, kernel).FORM)


HEAD_KINDS: dict[str, HeadKind] = {}
"""All kinds by name, the simplest first: ``--model auto`` prefers the earlier of two that are equally good."""


def register_head(kind: HeadKind) -> HeadKind:
    """Add a kind of head, so that ``Head(kind.name)`` fits, saves and loads it.

    Args:
        kind: the new kind.

    Returns:
        The same kind.

    Raises:
        HeadError: the name is taken; a task, kernel or hyper-parameter is unknown; or a predictor class lacks ``FORM`` or
            ``ARRAYS``, or has the ``FORM`` of another class.

    Examples:
        A head that ignores the features and predicts the share of each class:

        >>> import numpy as np
        >>> from featx.heads import Head, HeadKind, LinearPredictor, register_head
        >>> class PriorEstimator:
        ...     candidates = (0.0,)
        ...     def fit(self, training, candidate):
        ...         shares = np.bincount(training.y, minlength=training.count) / len(training)
        ...         return LinearPredictor(np.zeros((training.count, training.rows.width)), np.log(shares))
        ...     def cross_val_scores(self, training, candidates):
        ...         from featx.heads.training_data import fold_by_fold
        ...         return fold_by_fold(self, training, candidates)
        >>> kind = HeadKind("prior", ("classification",), LinearPredictor, lambda options: PriorEstimator(), gives_logits=True)
        >>> _ = register_head(kind)
        >>> Head("prior")
        Head(kind='prior')
        >>> _ = HEAD_KINDS.pop("prior")
    """
    if kind.name in HEAD_KINDS:
        raise HeadError(f"there is already a head {kind.name!r}; register the new kind by another name")
    for name, values, known in (
        ("tasks", kind.tasks, TASKS),
        ("kernels", kind.kernels, KERNELS),
        ("parameter", (kind.parameter,), ("", *PARAMETERS)),
    ):
        unknown = [value for value in values if value not in known]
        if unknown or not values:
            shown = ", ".join(map(repr, unknown)) or "empty"
            raise HeadError(f"{name} of the head {kind.name!r}: {shown}; expected {', '.join(map(repr, known))}")
    forms = predictor_classes()
    for cls in _classes_of(kind):
        if not (hasattr(cls, "FORM") and hasattr(cls, "ARRAYS")):
            raise HeadError(
                f"{cls.__name__} of the head {kind.name!r} needs FORM and ARRAYS, as in featx.heads.predictors"
            )
        if forms.get(cls.FORM, cls) is not cls:
            raise HeadError(f"{cls.__name__} has the FORM {cls.FORM!r} of {forms[cls.FORM].__name__}; give it another")
    HEAD_KINDS[kind.name] = kind
    return kind


def kind_names() -> tuple[str, ...]:
    """The names of all kinds, in the order of the command line."""
    return (*KINDS, *(name for name in HEAD_KINDS if name not in KINDS))


def predictor_classes() -> dict[str, type[Any]]:
    """The predictor classes of all kinds, by the name that a head's file holds."""
    return {cls.FORM: cls for kind in HEAD_KINDS.values() for cls in _classes_of(kind)}


def get_kind(name: str, *, task: str | None = None, kernel: str = "linear") -> HeadKind:
    """Look up a kind of head.

    Args:
        name: of the kind.
        task: that it has to do, or None.
        kernel: that it has to have.

    Raises:
        HeadError: there is no such kind, or it cannot do the task or has no such kernel.
    """
    if name not in HEAD_KINDS:
        raise HeadError(f"there is no head {name!r}; expected one of {', '.join(kind_names())}")
    kind = HEAD_KINDS[name]
    if kernel not in kind.kernels:
        with_kernels = ", ".join(other for other in kind_names() if len(HEAD_KINDS[other].kernels) > 1)
        raise HeadError(
            f"kernel is {kernel!r} for {name}; expected {' or '.join(KERNELS)}, and only for {with_kernels}"
        )
    if task is not None and task not in kind.tasks:
        able = [other for other in HEAD_KINDS if task in HEAD_KINDS[other].tasks]
        raise HeadError(f"{name} cannot do {task}; expected one of {', '.join(able)}")
    return kind


def full_name(kind: str, kernel: str) -> str:
    """The name of a kind of head with its kernel where that is not linear, as ``svm-rbf``."""
    return kind if kernel == "linear" else f"{kind}-{kernel}"


def default_kind(task: str) -> str:
    """The kind of head that is fitted where none is named; for "auto", where the labels are not known yet, "logreg".

    Examples:
        >>> default_kind("auto"), default_kind("regression")
        ('logreg', 'ridge')
    """
    return DEFAULT_KINDS.get(task, DEFAULT_KINDS["classification"])


def auto_candidates(task: str, rows: int) -> list[tuple[str, str]]:
    """List the heads that ``--model auto`` compares for a task and a number of training rows, the simplest first.

    "linear" is left out: its optimum without a penalty is one end of logreg's path of C.

    Returns:
        (kind, kernel) of each.
    """
    left_out = ("linear", *(["bilinear"] if rows > MAX_BILINEAR_ROWS else []))
    heads = [
        (name, "linear")
        for name, kind in HEAD_KINDS.items()
        if task in kind.tasks and kind.is_fitted and name not in left_out
    ]
    if rows <= MAX_RBF_ROWS:
        heads.insert(heads.index(("mlp", "linear")), ("svm", "rbf"))
    return heads


def _classes_of(kind: HeadKind) -> list[type[Any]]:
    return [kind.predictor_class(task, kernel) for task in kind.tasks for kernel in kind.kernels]


# The kinds that ship with featx. Each factory imports its estimator when it is called.


def _centroid(options: EstimatorOptions) -> Estimator:  # noqa: ARG001 - it has no options
    from featx.heads.estimators.centroid import NearestCentroidEstimator

    return NearestCentroidEstimator()


def _ridge(options: EstimatorOptions) -> Estimator:  # noqa: ARG001 - it has no options
    from featx.heads.estimators.ridge import RidgeEstimator

    return RidgeEstimator()


def _logreg(options: EstimatorOptions) -> Estimator:
    if options.texts is not None:
        from featx.heads.estimators.anchored import AnchoredEstimator

        return AnchoredEstimator(options.texts, device=options.device, coarse=options.coarse)
    from featx.heads.estimators.linear import LinearPathEstimator

    return LinearPathEstimator(device=options.device, coarse=options.coarse)


def _svm(options: EstimatorOptions) -> Estimator:
    if options.kernel == "linear" and options.task != "regression":
        from featx.heads.estimators.linear import LinearPathEstimator

        return LinearPathEstimator(hinge=True, device=options.device, coarse=options.coarse)
    from featx.heads.estimators.svm import KernelSvmEstimator, LinearSvrEstimator

    return KernelSvmEstimator() if options.kernel == "rbf" else LinearSvrEstimator()


def _linear(options: EstimatorOptions) -> Estimator:
    from featx.heads.estimators.mlp import SgdLinearEstimator

    return SgdLinearEstimator(device=options.device)


def _knn(options: EstimatorOptions) -> Estimator:  # noqa: ARG001 - it has no options
    from featx.heads.estimators.knn import KNearestEstimator

    return KNearestEstimator()


def _zeroshot(options: EstimatorOptions) -> Estimator:
    from featx.heads.estimators.zeroshot import ZeroShotEstimator

    return ZeroShotEstimator(options.texts)


def _bilinear(options: EstimatorOptions) -> Estimator:
    from featx.heads.estimators.bilinear import BilinearEstimator

    return BilinearEstimator(options.task, device=options.device, coarse=options.coarse)


def _mlp(options: EstimatorOptions) -> Estimator:
    from featx.heads.estimators.mlp import MlpEstimator

    return MlpEstimator(device=options.device)


_NEIGHBOURS = {
    "classification": NeighbourPredictor,
    "multilabel": NeighbourLabelsPredictor,
    "regression": NeighbourMeanPredictor,
}
_SVM = {"linear": LinearPredictor, "rbf": KernelPredictor}

register_head(HeadKind("centroid", ("classification",), LinearPredictor, _centroid, ignores_class_sizes=True))
register_head(HeadKind("ridge", TASKS, LinearPredictor, _ridge, "C"))
register_head(HeadKind("logreg", ("classification", "multilabel"), LinearPredictor, _logreg, "C", gives_logits=True))
register_head(HeadKind("svm", TASKS, lambda task, kernel: _SVM[kernel], _svm, "C", kernels=KERNELS))  # noqa: ARG005
register_head(HeadKind("linear", TASKS, LinearPredictor, _linear))
register_head(HeadKind("knn", TASKS, lambda task, kernel: _NEIGHBOURS[task], _knn, "k"))  # noqa: ARG005
register_head(HeadKind("bilinear", TASKS, BilinearPredictor, _bilinear, "C", gives_logits=True))
register_head(HeadKind("mlp", TASKS, HiddenLayerPredictor, _mlp, "weight_decay"))
register_head(
    HeadKind(
        ZERO_SHOT,
        ("classification", "multilabel"),
        CosinePredictor,
        _zeroshot,
        gives_logits=True,
        ignores_class_sizes=True,
        is_fitted=False,
    )
)
