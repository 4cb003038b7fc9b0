"""Rules for the JSON and the arrays of a file: a schema is data, and a check gives the first fault in words.

A rule for a JSON value is one of

- a ``Rule``;
- a mapping: the value is an object with at least these keys, each of which follows its own rule;
- a list of one rule: the value is a list, and each of its items follows the rule;
- a tuple of two rules: the value follows one of them;
- ``When``: the value follows one rule or another, by what it is.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.constants import DTYPES, FOREIGN, JOINT, MAX_CHANNELS, MAX_SIDE
from featx.io.strict_json import shown
from featx.io.tensor_file import Tensor
from featx.layer_spec import LayerSpec

MAX_CLASSES = 32_768
"""The most classes that a stored head or model may have; ImageNet-21k has 21,843."""

TINY = float(np.finfo(np.float64).tiny)
"""The smallest normal float64: the bound of what must be above 0."""


# Values of the JSON


@dataclass(frozen=True)
class Rule:
    """A rule for one value of the JSON, and the same in words.

    Attributes:
        expected: what the value must be, for messages; a function where that is only known when the rule is checked.
        holds: whether a value follows the rule.
    """

    expected: str | Callable[[], str]
    holds: Callable[[Any], bool]

    @property
    def words(self) -> str:
        """What the value must be."""
        return self.expected if isinstance(self.expected, str) else self.expected()


@dataclass(frozen=True)
class When:
    """One of two rules, by what a value is.

    Attributes:
        holds: whether the first rule is for a value.
        then: the first rule, of any form.
        otherwise: the second one.
    """

    holds: Callable[[Any], bool]
    then: Any
    otherwise: Any


def whole(least: int, most: int = 2**63 - 1) -> Rule:
    """A whole number within bounds; neither a boolean nor a float."""
    return Rule(
        f"a whole number, {least} to {most}" if most < 2**63 - 1 else f"a whole number, at least {least}",
        lambda value: type(value) is int and least <= value <= most,
    )


def one_of(*names: str) -> Rule:
    """One of some strings."""
    return member_of(lambda: names)


def member_of(names: Callable[[], Collection[str]]) -> Rule:
    """One of the strings that a function returns when the rule is checked, such as the names in a registry."""
    return Rule(
        lambda: f"one of {', '.join(names())}",
        lambda value: isinstance(value, str) and value in names(),
    )


def each(rule: Rule, most: int) -> Rule:
    """A list of at most so many values that each follow a rule, such as one per channel."""
    return Rule(
        f"a list of 1 to {most:,}, each {rule.words}",
        lambda value: isinstance(value, list) and 1 <= len(value) <= most and all(map(rule.holds, value)),
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_path(value: Any) -> bool:
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= MAX_CLASSES
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


NULL = Rule("null", lambda value: value is None)
TEXT = Rule("a string", lambda value: isinstance(value, str))
PATH = Rule("a path", _is_path)
LAYER = Rule("the name of a layer, with a known set of views if any", LayerSpec.is_valid)
OBJECT = Rule("an object", lambda value: isinstance(value, dict))
NUMBER = Rule("a finite number", _is_number)
POSITIVE = Rule("a number above 0", lambda value: _is_number(value) and value > 0)
SHARE = Rule("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
NAMES = Rule(f"a list of 1 to {MAX_CLASSES:,} different names", _are_names)
CLASSES = Rule(f"a list of 2 to {MAX_CLASSES:,} different names", lambda value: _are_names(value) and len(value) > 1)
FOREIGN_DIGEST = Rule(
    "a SHA-256 after foreign:",
    lambda value: isinstance(value, str) and bool(re.fullmatch(f"{FOREIGN}:[0-9a-f]{{64}}", value)),
)
DIGEST = Rule("a SHA-256", lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value)))
NO_TEXT = Rule("an empty string", lambda value: value == "")
NO_FACTS = Rule("an empty object", lambda value: value == {})

TRANSFORM = {
    "resize": whole(0, MAX_SIDE),
    "crop": whole(1, MAX_SIDE),
    "mean": each(NUMBER, MAX_CHANNELS),
    "std": each(POSITIVE, MAX_CHANNELS),
    "interpolation": TEXT,
}
"""The transform from an image to a network's input."""

BACKBONE = {"name": PATH, "weights": PATH, "parts": {"dtype": one_of(*DTYPES), "transform": TRANSFORM}}
"""How to load a backbone again."""

FOREIGN_BACKBONE = {"name": PATH, "weights": PATH, "parts": {"dtype": one_of(*DTYPES), FOREIGN: OBJECT}}
"""What is known of a network whose features another tool computed."""

JOINT_BACKBONE = {
    "name": PATH,
    "parts": [
        {
            "backbone": (NO_FACTS, (BACKBONE, FOREIGN_BACKBONE)),
            "layer": LAYER,
            "identity": (NO_TEXT, (DIGEST, FOREIGN_DIGEST)),
            "width": whole(1),
            "file": PATH,
        }
    ],
}
"""Several backbones side by side, as ``FeatureSet.join`` describes them."""

ANY_BACKBONE = When(
    lambda value: isinstance(value, dict) and value.get("source") == JOINT,
    JOINT_BACKBONE,
    (NO_FACTS, (BACKBONE, FOREIGN_BACKBONE)),
)
"""One backbone, several side by side, or nothing."""


def value_fault(value: Any, rule: Any, where: str = "") -> str:
    """Find the first rule that a JSON value breaks.

    Args:
        value: what ``strict_json`` parsed.
        rule: as the module's docstring describes.
        where: the value's place in the JSON, such as ``parameters.C``.

    Returns:
        The fault in words; "" if there is none.
    """
    name = where or "its JSON"
    if isinstance(rule, Rule):
        return "" if rule.holds(value) else f"{name} is {shown(value)}; expected {rule.words}"
    if isinstance(rule, When):
        return value_fault(value, rule.then if rule.holds(value) else rule.otherwise, where)
    if isinstance(rule, tuple):
        first, second = (value_fault(value, either, where) for either in rule)
        if first and second and all(isinstance(either, Mapping) for either in rule):
            return first if _lacking(value, rule[0]) < _lacking(value, rule[1]) else second
        return first and second
    if isinstance(rule, list):
        if not isinstance(value, list):
            return f"{name} is {shown(value)}; expected a list"
        return next(filter(None, (value_fault(item, rule[0], f"{name}[{i}]") for i, item in enumerate(value))), "")
    if not isinstance(value, dict):
        return f"{name} is {shown(value)}; expected an object"
    missing = sorted(rule.keys() - value.keys())
    if missing:
        return f"{name} lacks {', '.join(missing)}"
    prefix = f"{where}." if where else ""
    return next(filter(None, (value_fault(value[key], part, prefix + key) for key, part in rule.items())), "")


def _lacking(value: Any, rule: Any) -> int:
    """How many keys of a rule an object, and the objects in it, lack: the more, the less it is meant to follow that rule."""
    if not isinstance(rule, Mapping):
        return 0
    if not isinstance(value, dict):
        return len(rule)
    return sum(_lacking(value[key], part) if key in value else 1 for key, part in rule.items())


# Arrays


@dataclass(frozen=True)
class ArraySpec:
    """What one array of a file must be.

    Attributes:
        dtype: as safetensors names it: "F64", "F32", "I64", "U8" ...
        shape: one letter for each axis, such as "CD"; a letter stands for the same length in all arrays of a file.
        least: the smallest value: a number, or the length that a letter stands for, such as "C" or "C-1".
        most: the largest value, likewise.
    """

    dtype: str
    shape: str
    least: float | str = -math.inf
    most: float | str = math.inf


def shape_fault(
    tensors: Mapping[str, Tensor], specs: Mapping[str, ArraySpec], lengths: Mapping[str, int]
) -> tuple[str, dict[str, int]]:
    """Find the first array that is missing, or of another dtype or shape than specified.

    Args:
        tensors: the arrays in the file's header.
        specs: the arrays that there must be.
        lengths: the lengths that are known from the JSON; each other letter takes its length from the first array with it.

    Returns:
        The fault in words, "" if there is none; and the length of each letter.
    """
    known = dict(lengths)
    for name, spec in specs.items():
        tensor = tensors.get(name)
        if tensor is None:
            return f"there is no array {name}", known
        if len(tensor.shape) == len(spec.shape):
            known.update({c: n for c, n in zip(spec.shape, tensor.shape, strict=True) if c not in known and n > 0})
        expected = tuple(known.get(letter, 1) for letter in spec.shape)
        if (tensor.dtype, tensor.shape) != (spec.dtype, expected):
            return f"array {name} is {tensor.dtype} {tensor.shape}; expected {spec.dtype} {expected}", known
    return "", known


def content_fault(arrays: Mapping[str, np.ndarray], specs: Mapping[str, ArraySpec], lengths: Mapping[str, int]) -> str:
    """Find the first array with a value that is not finite, or beyond its bounds; "" if there is none."""
    for name in specs:
        if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            return f"array {name} holds NaN or infinity"
    for name, spec in specs.items():
        least, most = _bound(spec.least, lengths), _bound(spec.most, lengths)
        if (least, most) == (-math.inf, math.inf):
            continue
        if not ((arrays[name] >= least) & (arrays[name] <= most)).all():
            return f"array {name} holds numbers that are not from {least:g} to {most:g}"
    return ""


def _bound(bound: float | str, lengths: Mapping[str, int]) -> float:
    return lengths.get(bound[0], 0) + int(bound[1:] or 0) if isinstance(bound, str) else bound
