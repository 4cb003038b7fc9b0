"""Checks of a head's parameters: alone, as the constructor gets them, and together with the task of the data."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

from featx.constants import CALIBRATIONS, TASKS
from featx.errors import HeadError
from featx.heads.conformal import check_alpha
from featx.heads.registry import HEAD_KINDS, HeadKind, get_kind, kind_names
from featx.heads.rejection import check_target
from featx.heads.targets import AUTO
from featx.heads.texts import ClassTexts
from featx.text import described, form

_NAMES = ("kind", "kernel", "task", "calibrate", "device")
_WHOLE_NUMBERS = ("k", "seed")
_NUMBERS = ("C", "logit_adjustment", "reject_below", "target_precision", "conformal")
_FOR_CLASSIFICATION = ("class_weight", "logit_adjustment", "reject_below", "target_precision")

WITHOUT_GUARANTEES: Mapping[str, Any] = {"target_precision": None, "conformal": None, "conformal_per_class": False}
"""The arguments of a head that promises nothing: few rows show no precision, and no metric depends on what is promised."""


def check_parameters(params: Mapping[str, Any]) -> None:
    """Check the arguments of ``Head``, as far as they can be checked without data.

    Args:
        params: all arguments by name.

    Raises:
        HeadError: a value is unknown or out of range, or two values exclude each other.
    """
    _check_types(params)
    kind = get_kind(params["kind"], kernel=params["kernel"])
    if params["task"] not in (AUTO, *TASKS):
        raise HeadError(f"there is no task {params['task']!r}; expected one of {', '.join((AUTO, *TASKS))}")
    if params["C"] is not None and kind.parameter != "C":
        with_c = ", ".join(name for name in kind_names() if HEAD_KINDS[name].parameter == "C")
        raise HeadError(f"C is only for {with_c}; {kind.name} has none, so leave out -C")
    if params["C"] is not None and not 0 < params["C"] < math.inf:
        raise HeadError(f"C is {params['C']}; expected a positive number")
    if params["k"] is not None and (kind.parameter != "k" or params["k"] < 1):
        with_k = ", ".join(name for name in kind_names() if HEAD_KINDS[name].parameter == "k")
        raise HeadError(
            f"k is {params['k']} for {kind.name}; expected a number of neighbours, at least 1, and only for {with_k}"
        )
    if params["calibrate"] not in (None, *CALIBRATIONS):
        raise HeadError(f"calibrate is {params['calibrate']!r}; expected one of {', '.join(CALIBRATIONS)}")
    _check_class_weight(params["class_weight"])
    if params["seed"] is not None and not 0 <= params["seed"] < 2**32:
        raise HeadError(f"seed is {params['seed']}; expected 0 to {2**32 - 1}")
    _check_decisions(params)
    _check_texts(params, kind)


def _check_class_weight(value: Any) -> None:
    if value is None or (isinstance(value, str) and value == "balanced"):
        return
    if not isinstance(value, Mapping):
        found = repr(value) if isinstance(value, str) else described(value)
        raise HeadError(
            f"class_weight is {found}; expected balanced, or a weight for each class: {{{{class: weight}}}}"
        )
    for name, weight in value.items():
        if isinstance(weight, bool) or not isinstance(weight, numbers.Real) or not 0 <= float(weight) < math.inf:
            raise HeadError(f"class_weight[{name!r}] is {described(weight)}; expected a finite number of at least 0")


def _check_texts(params: Mapping[str, Any], kind: HeadKind) -> None:
    """Check what goes together with the texts of classes."""
    texts = params.get("texts")
    if texts is not None and not isinstance(texts, ClassTexts):
        raise HeadError(f"texts are {described(texts)}; expected ClassTexts, which featx.fit_head makes")
    if texts is not None and kind.is_fitted and kind.name != "logreg":
        raise HeadError(
            f"only logreg can be regularised towards the texts of its classes, and this head is {kind.name}"
        )
    if not kind.is_fitted:
        for name in ("class_weight", "calibrate"):
            if params[name] not in (None, "none"):
                raise HeadError(f"a {kind.name} head learns nothing from images, so {name} has no effect; leave it out")


def _check_types(params: Mapping[str, Any]) -> None:
    """Check that names are strings and numbers are numbers."""
    for names, types, expected in (
        (_NAMES, str, "a name"), (_WHOLE_NUMBERS, numbers.Integral, "a whole number"), (_NUMBERS, numbers.Real, "a number")
    ):  # fmt: skip
        for name in names:
            value = params.get(name)
            needed = name in ("kind", "kernel", "task", "logit_adjustment")
            if isinstance(value, bool) or not (isinstance(value, types) or (value is None and not needed)):
                raise HeadError(f"{name} is {described(value)}; expected {expected}")


def _check_decisions(params: Mapping[str, Any]) -> None:
    """Check what turns probabilities into decisions."""
    if not 0 <= params["logit_adjustment"] < math.inf:
        raise HeadError(f"logit_adjustment is {params['logit_adjustment']}; expected a number of at least 0, usually 1")
    if params["reject_below"] is not None and not 0 < params["reject_below"] <= 1:
        raise HeadError(f"reject_below is {params['reject_below']}; expected a share above 0 and at most 1")
    if params["target_precision"] is not None:
        check_target(params["target_precision"])
    if params["conformal"] is not None:
        check_alpha(params["conformal"])
    if not isinstance(params["conformal_per_class"], bool):
        raise HeadError(f"conformal_per_class is {described(params['conformal_per_class'])}; expected True or False")
    if params["conformal_per_class"] and params["conformal"] is None:
        raise HeadError(
            "conformal_per_class covers each class as often as conformal says, which is None; give conformal too, such as 0.1"
        )
    if params["reject_below"] is not None and params["target_precision"] is not None:
        raise HeadError(
            "reject_below and target_precision both decide when a prediction is rejected; expected one of them"
        )


def check_for_task(params: Mapping[str, Any], task: str) -> None:
    """Check the arguments of ``Head`` together with the task of the data.

    Args:
        params: all arguments by name, which ``check_parameters`` accepts.
        task: one of ``TASKS``.

    Raises:
        HeadError: the kind cannot do the task, or an argument is for classification only.
    """
    get_kind(params["kind"], task=task, kernel=params["kernel"])
    given = [name for name in _FOR_CLASSIFICATION if params[name]]
    if task != "classification" and given:
        raise HeadError(
            f"{', '.join(given)} {form(len(given), 'is', 'are')} only for classification, which gives each image one class, "
            f"not for {task}; leave out {' and '.join(f'--{name}'.replace('_', '-') for name in given)}"
        )
    if task == "multilabel" and params["conformal"] is not None:
        raise HeadError(
            "conformal makes a set of classes of which exactly one is right, or an interval; it is not for several labels, of "
            "which an image has any number. Leave out --conformal, or fit a head for each label"
        )
    if task == "regression" and params["conformal_per_class"]:
        raise HeadError(
            "conformal_per_class is only for classification: numbers have no classes; leave out --conformal-per-class"
        )


def check_adjustment(params: Mapping[str, Any]) -> None:
    """Check that classes of unequal size are corrected for once. ``Head(...)`` does not: heads of old files may do it twice.

    Args:
        params: all arguments of ``Head`` by name, which ``check_parameters`` accepts.

    Raises:
        HeadError: logit adjustment would correct a second time.
    """
    if not params["logit_adjustment"]:
        return
    if params["class_weight"]:
        raise HeadError(
            "class_weight='balanced' and logit_adjustment both make rare classes count more, and together they correct twice; "
            "give one of them (--class-weight or --logit-adjustment)"
        )
    if HEAD_KINDS[params["kind"]].ignores_class_sizes:
        raise HeadError(
            f"a {params['kind']} head treats all classes as equally likely already, so logit_adjustment would favour rare "
            "classes; leave out --logit-adjustment, or use another --model"
        )
