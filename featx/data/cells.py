"""The cells of a table as text: typed values of JSON and Parquet, and the text of CSV."""

from __future__ import annotations

import decimal
import math
import os
from collections.abc import Iterable
from typing import Any

from featx.text import shortened

BETWEEN_LABELS = "|"
"""The separator between the labels of an image. Alone, it means that the image has none of them."""

_EXACT = 2.0**53
"""Whole numbers beyond it are not exact in floating point."""


def cell_text(value: Any) -> str:
    """The stripped text of a cell with one value; "" if it is empty.

    None and NaN are empty. A whole float is an integer, so that a column of integers with a gap, which most libraries store
    as floats, has the same text as one without.

    Args:
        value: str, bytes in UTF-8, a number, a bool, a date, or None.

    Raises:
        ValueError: the value is a list or an object, or its text has characters that no file can store.

    Examples:
        >>> cell_text(3.0), cell_text(2.5), cell_text(float("nan")), cell_text(" cat ")
        ('3', '2.5', '', 'cat')
    """
    if value is None:
        return ""
    text = _text(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds bytes that are not UTF-8: {shortened(value)}") from error
    return text


def path_text(value: Any) -> str:
    """The text of a path, as ``cell_text``; bytes that are not UTF-8 are surrogate escapes (``os.fsdecode``).

    Raises:
        ValueError: as ``cell_text``.
    """
    text = "" if value is None else _text(value)
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ValueError(f"holds what no name of a file can hold: {shortened(text)}") from error
    return text


def label_text(value: Any) -> str:
    """The text of a label: as ``cell_text``, and a list is several labels, sorted, with ``|`` between them.

    An empty list is ``|``: the image has none of the labels. Missing values in a list are left out; a list of nothing else is
    no label.

    Raises:
        ValueError: as ``cell_text``; or a list holds what cannot be one of several labels: lists, objects, booleans, numbers
            with decimals, the same number twice (as a vector of 0 and 1 does), or text with ``|``.

    Examples:
        >>> label_text(["dog", "cat"]), label_text([]), label_text(1.0), label_text("cat|dog")
        ('cat|dog', '|', '1', 'cat|dog')
    """
    if not isinstance(value, list | tuple | set):
        return cell_text(value)
    parts = [_one_of_several(part, value) for part in value]
    if parts and not any(parts):
        return ""
    names = [part for part in parts if part]
    numbers = [part for part, item in zip(parts, value, strict=True) if part and not isinstance(item, str | bytes)]
    if len(set(numbers)) < len(numbers):
        raise ValueError(
            f"holds the list {shortened(value)}, which repeats a number; expected the names of the labels, each once"
        )
    return BETWEEN_LABELS.join(sorted(set(names))) or BETWEEN_LABELS


def refuse_one_hot(values: Iterable[Any]) -> None:
    """Refuse a column of labels whose lists are vectors of 0 and 1, which would be read as the labels 0 and 1.

    Raises:
        ValueError: all lists have the same length of at least two, and hold 0 and 1 alone.

    Examples:
        >>> refuse_one_hot([[0, 1], [1, 0]])
        Traceback (most recent call last):
        ValueError: holds lists of 0 and 1 such as [0, 1]; expected the names of the labels, each once
    """
    lists = [value for value in values if isinstance(value, list | tuple)]
    if not lists or len(lists[0]) < 2 or any(len(each) != len(lists[0]) for each in lists):
        return
    if all(type(item) in (int, float) and item in (0, 1) for each in lists for item in each):
        raise ValueError(
            f"holds lists of 0 and 1 such as {shortened(lists[0])}; expected the names of the labels, each once"
        )


def separated_labels(value: Any, separator: str) -> str:
    """The labels of a cell in which a separator of the user's own stands between them, as ``label_text`` gives them.

    Examples:
        >>> separated_labels("dog, cat", ","), separated_labels("dog", ",")
        ('cat|dog', 'dog')
    """
    if not isinstance(value, str):
        return label_text(value)
    parts = value.split(None if separator.isspace() else separator)
    names = {name for part in parts for name in (each.strip() for each in part.split(BETWEEN_LABELS)) if name}
    text = cell_text(value)
    return BETWEEN_LABELS.join(sorted(names)) if names or not text else BETWEEN_LABELS


def _text(value: Any) -> str:
    if isinstance(value, dict | list | tuple | set):
        raise ValueError(f"holds {_kind(value)} {shortened(value)}; expected text or a number")
    if isinstance(value, bytes | bytearray):
        value = os.fsdecode(bytes(value))
    text = _number_text(value) if isinstance(value, float | decimal.Decimal) else str(value).strip()
    if "\0" in text:
        raise ValueError(f"holds a null character: {shortened(text)}")
    return text


def _one_of_several(part: Any, whole: Iterable[Any]) -> str:
    text = cell_text(part)
    fault = ""
    if isinstance(part, bool):
        fault = "a boolean"
    elif isinstance(part, float | decimal.Decimal) and text and not text.lstrip("-").isdigit():
        fault = "a number with decimals"
    elif BETWEEN_LABELS in text:
        fault = f"the character {BETWEEN_LABELS}, which stands between labels"
    if fault:
        raise ValueError(f"holds the list {shortened(whole)} with {fault}; expected the names of the labels")
    return text


def _number_text(value: float | decimal.Decimal) -> str:
    if math.isnan(value):
        return ""
    if math.isfinite(value) and -_EXACT <= value <= _EXACT and value == int(value):
        return str(int(value))
    return str(value)


def _kind(value: Any) -> str:
    return "the object" if isinstance(value, dict) else "the list"
