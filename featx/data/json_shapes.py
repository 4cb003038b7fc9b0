"""The forms in which people write a table as one file of JSON, as a list of objects, one for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from featx.data.coco import is_coco, rows_of_coco
from featx.data.formats import ENDINGS
from featx.data.split_names import is_split_alone
from featx.data.table_base import Fits
from featx.errors import DatasetError
from featx.text import listed, shortened

_EXPECTED = "expected a list of objects, one for each image"

_Object = dict[str, Any]


def rows_of_json(found: Any, where: str, fits: Fits) -> tuple[list[Any], list[str]]:
    """The rows of parsed JSON.

    It may be a list of objects; columns, rows by their index, or ``orient="split"`` or ``"table"``, as pandas writes them;
    annotations in the form of COCO; objects by the names of images; labels by the names of images; the names of images by
    class; lists of objects by split; or an object around any list of objects.

    Args:
        found: parsed JSON.
        where: the file, for messages.
        fits: decides what an object of objects holds.

    Returns:
        The rows, each of which should be an object; and notes.

    Raises:
        DatasetError: it has none of these forms.

    Examples:
        >>> rows_of_json({"1.jpg": "cat"}, "labels.json", lambda names: "path" in names)
        ([{'path': '1.jpg', 'label': 'cat'}], ['read as names of images with their labels'])
    """
    if isinstance(found, list):
        return found, []
    if is_coco(found):
        return rows_of_coco(found, where)
    if not isinstance(found, dict) or not found:
        raise DatasetError(f"{where}: found {shortened(found)}; {_EXPECTED}")
    for form in (_orient_split, _columns, _by_index, _by_name, _labels_by_name, _by_split, _names_by_class, _wrapped):
        rows = form(found, fits)
        if rows is not None:
            return rows
    raise DatasetError(
        f"{where}: found a JSON object that is no table, with the names {listed(list(map(shortened, found)), most=4)}; "
        f"{_EXPECTED} (pandas: orient='records')"
    )


_Rows = tuple[list[_Object], list[str]]


def _orient_split(found: _Object, fits: Fits) -> _Rows | None:  # noqa: ARG001 - of every form
    """As pandas writes ``orient="split"``."""
    names, data = found.get("columns"), found.get("data")
    if not (isinstance(names, list) and isinstance(data, list)):
        return None
    if not all(isinstance(cells, list) and len(cells) == len(names) for cells in data):
        return None
    return [dict(zip(map(str, names), cells, strict=True)) for cells in data], []


def _columns(found: _Object, fits: Fits) -> _Rows | None:
    """Columns: lists of one length, or objects of cells by the same indices."""
    columns = list(found.values())
    if all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        is_table = fits(list(found)) or not (all(map(_are_names, columns)) or _are_in_folders(columns))
        is_table = is_table and not all(isinstance(cell, dict) for column in columns for cell in column)
        return (
            ([dict(zip(found, cells, strict=True)) for cells in zip(*columns, strict=True)], []) if is_table else None
        )
    if not _alike(columns) or (not fits(list(found)) and (fits(list(columns[0])) or _are_names(list(found)))):
        return None
    return [{name: column[index] for name, column in found.items()} for index in columns[0]], []


def _by_index(found: _Object, fits: Fits) -> _Rows | None:
    """Objects with a column of paths, by an index of no meaning."""
    rows = list(found.values())
    return (rows, []) if all(isinstance(row, dict) and fits(list(row)) for row in rows) else None


def _by_name(found: _Object, fits: Fits) -> _Rows | None:  # noqa: ARG001 - of every form
    """Objects by the names of images."""
    if not _are_names(list(found)) or not all(isinstance(row, dict) and "path" not in row for row in found.values()):
        return None
    return [{"path": name, **row} for name, row in found.items()], ["read as objects by the names of their images"]


def _labels_by_name(found: _Object, fits: Fits) -> _Rows | None:  # noqa: ARG001 - of every form
    if not _are_names(list(found)) or any(isinstance(label, dict) for label in found.values()):
        return None
    return [{"path": name, "label": label} for name, label in found.items()], [
        "read as names of images with their labels"
    ]


def _by_split(found: _Object, fits: Fits) -> _Rows | None:  # noqa: ARG001 - of every form
    if not all(map(is_split_alone, found)) or not all(map(_are_objects, found.values())):
        return None
    return [{"split": split, **row} for split, rows in found.items() for row in rows], [
        "read as lists of images by split"
    ]


def _names_by_class(found: _Object, fits: Fits) -> _Rows | None:  # noqa: ARG001 - of every form
    lists = list(found.values())
    if not all(isinstance(names, list) for names in lists) or not any(lists):
        return None
    if not all(map(_are_names, lists)) and not _are_in_folders(lists):
        return None
    column = "split" if all(map(is_split_alone, found)) else "label"
    return [{"path": path, column: name} for name, paths in found.items() for path in paths], [
        f"read as lists of names of images by {'split' if column == 'split' else 'class'}"
    ]


def _wrapped(found: _Object, fits: Fits) -> _Rows | None:  # noqa: ARG001 - of every form
    """The only list of objects in an object, such as ``{"version": 1, "data": [...]}``."""
    lists = {name: value for name, value in found.items() if _are_objects(value) and value and name != "schema"}
    if len(lists) != 1:
        return None
    name, rows = lists.popitem()
    return rows, [f"read from the objects of {shortened(name)}"] if name != "data" else []


def _alike(values: Sequence[Any]) -> bool:
    """Whether all values are objects with the same names."""
    return all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values)


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _are_in_folders(lists: Sequence[Sequence[Any]]) -> bool:
    """Whether several lists hold names of images in folders, such as ``apple_pie/1005649``, which need no ending."""
    return len(lists) > 1 and all(isinstance(name, str) and "/" in name for names in lists for name in names)


def _are_names(values: Sequence[Any]) -> bool:
    """Whether all values are the names of image files."""
    return all(isinstance(value, str) and value.lower().endswith(ENDINGS) for value in values)
