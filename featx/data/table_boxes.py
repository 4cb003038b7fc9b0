"""Boxes in the cells of a table: four columns of numbers, or one column of lists, as the whole pixels that they touch."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from featx.data.boxes import Box, split_box, with_box
from featx.data.cells import cell_text
from featx.data.table_roles import NO_BOXES, Boxes
from featx.errors import DatasetError
from featx.text import shortened

DECIMAL_COMMA = re.compile(r"[+-]?\d+(?:,\d+)?")
"""A number as spreadsheets of many countries write it."""

_ROUNDING = 1e-6
_LARGEST = 10**9 - 1


def are_boxes(boxes: Boxes, cells: Mapping[str, Sequence[Any]]) -> bool:
    """Whether most cells of columns are the numbers of boxes, so that their names were guessed right."""
    good = bad = 0
    for row in range(_count(boxes, cells)):
        try:
            good += _numbers(boxes, cells, row) is not None
        except ValueError:
            bad += 1
    return good > bad


def read_boxes(
    boxes: Boxes, cells: Mapping[str, Sequence[Any]], fault: Callable[[int, str, object], DatasetError]
) -> list[Box | None]:
    """The box of each row; None where its cells are missing, so that the whole image is meant.

    Raises:
        DatasetError: a box is empty, lies outside of every image, or is no box.
    """
    found: list[Box | None] = []
    column = "box in " + ", ".join(boxes.names)
    fractions = True
    for row in range(_count(boxes, cells)):
        try:
            numbers = _numbers(boxes, cells, row)
            found.append(None if numbers is None else _box(numbers, boxes.are_corners))
        except ValueError as error:
            hint = f"; --box-columns {NO_BOXES} reads no boxes" if boxes.guessed else ""
            raise fault(row, column, f"{error}{hint}") from error
        fractions = fractions and (numbers is None or all(0 <= number <= 1 for number in numbers))
    first = next((row for row, box in enumerate(found) if box is not None), None)
    if fractions and first is not None:
        shown = _numbers(boxes, cells, first)
        raise fault(
            first,
            column,
            f"is {shown}, a part of the image's size like all others; expected pixels: multiply by its width and height first",
        )
    return found


def _numbers(boxes: Boxes, cells: Mapping[str, Sequence[Any]], row: int) -> list[float] | None:
    """The four numbers of a box; None if all are missing.

    Raises:
        ValueError: there are other than four, or one is missing or no number.
    """
    if len(boxes.names) > 1:
        values = [cells[name][row] for name in boxes.names]
    else:
        value = cells[boxes.names[0]][row]
        if isinstance(value, str):
            value = [part for part in re.split(r"[\s,;]+", value.strip().strip("[](){}").strip()) if part]
        elif isinstance(value, dict):
            value = list(value.values())
        values = [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
        if not values:
            return None
        if len(values) != 4:
            raise ValueError(f"holds {shortened(cells[boxes.names[0]][row])}; expected four numbers")
    texts = [cell_text(value) for value in values]
    if not any(texts):
        return None
    numbers = [_number(text) for text in texts]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"is {', '.join(text or 'missing' for text in texts)}; expected four numbers, or none of them")
    return numbers


def _number(text: str) -> float:
    """A number with a point or a comma; NaN for other text."""
    with contextlib.suppress(ValueError):
        return float(text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text)
    return math.nan


def boxed(paths: Sequence[str], boxes: Sequence[Box | None]) -> list[str]:
    """N paths with their boxes; a path that has a box already keeps it."""
    return [
        path if box is None or split_box(path)[1] else with_box(path, box)
        for path, box in zip(paths, boxes, strict=True)
    ]


def _count(boxes: Boxes, cells: Mapping[str, Sequence[Any]]) -> int:
    return len(cells[boxes.names[0]])


def _box(numbers: Sequence[float], are_corners: bool) -> Box:
    """The whole pixels that a box touches; what lies left of the image and above it is cut off.

    Raises:
        ValueError: it is empty, or outside of every image.

    Examples:
        >>> _box([10.4, 20, 29.6, 40], False), _box([-3, 0, 7, 8], True)
        ((10, 20, 30, 40), (0, 0, 7, 8))
    """
    x, y, right, bottom = numbers
    shown = ", ".join(f"{number:g}" for number in numbers)
    if not are_corners:
        right, bottom = x + right, y + bottom
    if right <= x or bottom <= y:
        raise ValueError(f"is {shown}: it has no pixels")
    left, top = max(0, math.floor(x + _ROUNDING)), max(0, math.floor(y + _ROUNDING))
    right, bottom = math.ceil(right - _ROUNDING), math.ceil(bottom - _ROUNDING)
    if right <= 0 or bottom <= 0:
        raise ValueError(f"is {shown}: it lies outside of the image")
    if max(right, bottom) > _LARGEST:
        raise ValueError(f"is {shown}; expected pixels, at most {_LARGEST:,}")
    return left, top, max(1, int(right) - left), max(1, int(bottom) - top)
