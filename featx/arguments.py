"""Arguments that are one thing or several: a bare string is one name, never a sequence of letters. Standard library only."""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Iterable
from typing import Any

from featx.errors import SettingsError
from featx.text import described


def names_of(value: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], what: str) -> list[str]:
    """List the names or paths of an argument that takes one or several.

    Args:
        value: one name or path, or an iterable of them.
        what: the argument's name, for messages.

    Raises:
        SettingsError: it is neither.

    Examples:
        >>> names_of("penultimate", "layers"), names_of(("layer3", "layer4"), "layers")
        (['penultimate'], ['layer3', 'layer4'])
        >>> names_of([3], "layers")
        Traceback (most recent call last):
        featx.errors.SettingsError: layers holds 3; expected a name or a list of names
    """
    if isinstance(value, str | os.PathLike):
        return [os.fspath(value)]
    items = _listed(value, f"{what} is {value!r}; expected a name or a list of names")
    for item in items:
        if not isinstance(item, str | os.PathLike):
            raise SettingsError(f"{what} holds {item!r}; expected a name or a list of names")
    return [os.fspath(item) for item in items]


def path_of(value: Any, what: str) -> str:
    """The path of an argument that takes one path.

    Args:
        value: str or path.
        what: the argument's name, for messages.

    Raises:
        SettingsError: it is anything else, such as a list, or it is empty.

    Examples:
        >>> path_of(["cache/photos.h5"], "features")
        Traceback (most recent call last):
        featx.errors.SettingsError: features is a list, ['cache/photos.h5']; expected one path
        >>> path_of("", "features")
        Traceback (most recent call last):
        featx.errors.SettingsError: features is an empty path
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise SettingsError(f"{what} is {described(value)}; expected one path")
    path = os.fspath(value)
    if not path:
        raise SettingsError(f"{what} is an empty path")
    return path


def counts_of(value: int | Iterable[int], what: str) -> list[int]:
    """List the whole numbers above 0 of an argument that takes one or several.

    Raises:
        SettingsError: it is anything else.

    Examples:
        >>> counts_of(5, "shots"), counts_of([1, 4], "shots")
        ([5], [1, 4])
        >>> counts_of("1,4", "shots")
        Traceback (most recent call last):
        featx.errors.SettingsError: shots is '1,4'; expected a whole number above 0 or a list of them
    """
    wrong = f"{what} is {value!r}; expected a whole number above 0 or a list of them"
    if isinstance(value, str | bytes):
        raise SettingsError(wrong)
    try:
        numbers = [operator.index(item) for item in (value if isinstance(value, Iterable) else [value])]
    except TypeError as error:
        raise SettingsError(wrong) from error
    if any(number < 1 for number in numbers):
        raise SettingsError(wrong)
    return numbers


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, of Python or of numpy, and no truth value."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def backbone_name(data: object, backbone: str | None) -> str:
    """The backbone, by default ``lenet5`` for the built-in digits and ``resnet50`` for everything else."""
    return backbone or ("lenet5" if data == "digits" else "resnet50")


def require_seed(seed: object) -> None:
    """Refuse a seed that random generators do not take.

    Raises:
        SettingsError: it is not a whole number from 0 to 2**32 - 1.
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or not 0 <= int(seed) < 2**32:
        raise SettingsError(f"seed is {seed!r}; expected 0 to {2**32 - 1}")


def _listed(value: Any, wrong: str) -> list[Any]:
    """List an iterable other than bytes."""
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise SettingsError(wrong)
    return list(value)
