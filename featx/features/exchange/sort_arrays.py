"""The arrays of a file by their names and shapes: which are vectors, which labels, names, splits or other columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.data.cells import BETWEEN_LABELS
from featx.errors import DatasetError
from featx.features.exchange.vectors import (
    LABEL_COLUMNS,
    NAME_COLUMNS,
    SPLIT_COLUMNS,
    VECTOR_COLUMNS,
    Spool,
    Vectors,
    as_rows,
    first_of,
    keys_of,
    numbers_of,
    require_count,
    require_equal_counts,
    unique_texts,
)
from featx.layer_spec import PENULTIMATE
from featx.text import listed

COORDINATES = ("coords", "coord", "coordinates")
"""Names of arrays of places."""

CLASS_LISTS = ("classes", "classnames", "labelnames", "targetnames", "classtoidx", "categories")
"""Names of lists of the names of classes, in the order of their numbers."""

_SPLIT = r"train|training|val|valid|validation|dev|test"
_SPLIT_FIRST = re.compile(rf"^({_SPLIT})[_./-]?(.*)$", re.IGNORECASE)
_SPLIT_LAST = re.compile(rf"^(.*?)[_./-]({_SPLIT})$", re.IGNORECASE)


def sort_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, list[Any]], tool: str, folder: Path
) -> Vectors:
    """Make vectors of the arrays and lists of one file.

    A single matrix is the penultimate layer, as is the one with a usual name; further ones of as many rows are layers. Arrays
    with one number for each row are columns, and so are tables of 0 and 1 that are named as labels. If every array names a
    split, such as ``train_features`` and ``y_test``, the splits are put one after the other.

    Args:
        path: of the file, for messages.
        arrays: by their names, with / between those of groups.
        texts: lists of text by their names.
        tool: as in ``Vectors``.
        folder: for temporary files.

    Raises:
        DatasetError: there are no vectors, or layers of unequal numbers of rows.
    """
    if each := one_of_each(arrays):
        spool = Spool(folder)
        for name in each:
            spool.append(PENULTIMATE, arrays[name], f"{name} of {path}")
        return Vectors(tool, spool.matrices(), names=each)
    if parts := _by_split(arrays, texts):
        return _joined(path, parts, tool, folder)
    columns, matrices, flat = _sorted(arrays, texts)
    if matrices:
        columns |= {_leaf(name): numbers_of(array) for name, array in flat.items()}
        flat = {}
    if len(matrices) == 1 and _lies_across(next(iter(matrices.values())), columns):
        matrices = {name: matrix.T for name, matrix in matrices.items()}
    found = matrices or {name: array for name, array in flat.items() if array.dtype.kind == "f"}
    vectors = Vectors(tool, chosen(path, found), roles={"vectors": _main(list(found))} if found else {})
    take_columns(vectors, columns, str(path))
    classes = _names_of_classes(texts)
    if vectors.labels is not None and all(text.isdigit() and int(text) < len(classes) for text in vectors.labels):
        vectors.labels = [classes[int(text)] for text in vectors.labels]
    return vectors


def _sorted(
    arrays: Mapping[str, np.ndarray], texts: Mapping[str, list[Any]]
) -> tuple[dict[str, list[Any]], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Columns, matrices, and arrays with one number for each row, by their names."""
    columns = {_leaf(name): values for name, values in texts.items()}
    matrices, flat = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for name, array in arrays.items():
        leaf = _leaf(name)
        if first_of([leaf], COORDINATES) is not None:
            columns |= _places(array)
        elif array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1):
            flat[name] = array
        elif (
            first_of([leaf], LABEL_COLUMNS[:-1]) is not None and array.ndim == 2 and np.isin(array[:100], (0, 1)).all()
        ):
            columns[leaf] = _label_texts(array)
        elif array.dtype.kind == "f" or first_of([leaf], VECTOR_COLUMNS) is not None or len(arrays) == 1:
            matrices[name] = array
    return columns, matrices, flat


def one_of_each(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The names of arrays that hold the vector of one image each; empty if they hold something else.

    Examples:
        >>> one_of_each({"a.jpg": np.zeros((1, 4)), "b.jpg": np.ones((1, 4))}), one_of_each({"features": np.zeros((2, 4))})
        (['a.jpg', 'b.jpg'], [])
    """
    found = list(arrays.values())
    alike = len({array.shape for array in found}) == 1 and len(found) > 1 and found[0].size == found[0].shape[-1] > 1
    known = first_of([_leaf(name) for name in arrays], (*LABEL_COLUMNS, *NAME_COLUMNS, *VECTOR_COLUMNS)) is not None
    return list(arrays) if alike and not known and all(array.dtype.kind == "f" for array in found) else []


def sort_list(path: Path, items: list[Any], tool: str, folder: Path) -> Vectors | None:
    """Vectors of what lies in a list or tuple without names: a matrix, its labels, its names; None if it is something else.

    Args:
        path: of the file, for messages.
        items: arrays and lists of text.
        tool: as in ``Vectors``.
        folder: for temporary files.
    """
    matrices = [item for item in items if isinstance(item, np.ndarray) and item.ndim == 2 and item.dtype.kind == "f"]
    others = [item for item in items if not any(item is matrix for matrix in matrices)]
    if (
        len(matrices) != 1
        or not others
        or not all(len(other) == len(matrices[0]) for other in others if _has_rows(other))
    ):
        return None
    arrays, texts = {"features": matrices[0]}, dict[str, list[Any]]()
    for other in others:
        if isinstance(other, np.ndarray) and other.dtype.kind in "iub":
            arrays.setdefault("label", other.astype(np.int64))
        elif isinstance(other, list) and other and all(isinstance(text, str) for text in other):
            texts.setdefault("path" if len(set(other)) == len(other) else "label", other)
        elif _has_rows(other):
            return None
    return sort_arrays(path, arrays, texts, tool, folder) if len(arrays) + len(texts) > 1 else None


def _has_rows(item: Any) -> bool:
    return (isinstance(item, np.ndarray) and item.ndim > 0) or isinstance(item, list)


def _names_of_classes(texts: Mapping[str, list[Any]]) -> list[str]:
    """The names of classes whose numbers are the labels."""
    name = first_of(list(texts), CLASS_LISTS)
    return [str(text) for text in texts[name]] if name is not None else []


def _lies_across(matrix: np.ndarray, columns: Mapping[str, list[Any]]) -> bool:
    """Whether a matrix has a column, and not a row, for each name and label, as matrices of MATLAB often do."""
    counts = {
        len(values) for name, values in columns.items() if first_of([name], (*NAME_COLUMNS, *LABEL_COLUMNS)) is not None
    }
    return matrix.ndim == 2 and counts == {matrix.shape[1]} and matrix.shape[0] != matrix.shape[1]


def chosen(path: Path, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The layers among the matrices of a file.

    Raises:
        DatasetError: there is none, or several of unequal numbers of rows.
    """
    names = list(found)
    if not names:
        raise DatasetError(f"{path} holds no array of numbers; expected (N, D), one vector for each image")
    if len(names) == 1:
        return {PENULTIMATE: as_rows(found[names[0]], str(path))}
    main = _main(names)
    rows = {name: as_rows(found[name], f"{name} of {path}") for name in names}
    if main:
        rows = {PENULTIMATE: rows.pop(main)} | rows
        count = len(rows[PENULTIMATE])
        rows = {name: matrix for name, matrix in rows.items() if len(matrix) == count}
    layers = {name.replace("/", "."): matrix for name, matrix in rows.items()}
    require_equal_counts(layers, str(path))
    return layers


def _main(names: Sequence[str]) -> str:
    """The matrix that is the penultimate layer: the only one, or the one with a usual name; "" if there is none."""
    leaves = {_leaf(name): name for name in reversed(names)}
    return names[0] if len(names) == 1 else leaves.get(first_of(list(leaves), VECTOR_COLUMNS) or "", "")


def take_columns(vectors: Vectors, columns: Mapping[str, list[Any]], where: str) -> None:
    """Keep the columns of a file that have an item for each vector: names, labels, splits, keys and others."""
    fit = {
        name: unique_texts(values)
        for name, values in columns.items()
        if len(values) == len(vectors) and name and not re.match(r"Unnamed: \d+$|__index_level_\d+__$", name)
    }
    name = first_of(list(fit), NAME_COLUMNS) if vectors.names is None else None
    if name is not None:
        vectors.names, vectors.roles["names"] = fit.pop(name), name
    elif vectors.names is None and (wrong := first_of(list(columns), NAME_COLUMNS)) is not None:
        require_count(len(columns[wrong]), len(vectors), "item", f"{where}: {wrong}")
    plain = [each for each in fit if each != "y" or "x" not in fit]  # x and y are places
    if (label := first_of(plain, LABEL_COLUMNS)) is not None:
        vectors.labels, vectors.roles["labels"] = fit.pop(label), label
    if (split := first_of(list(fit), SPLIT_COLUMNS)) is not None:
        vectors.splits, vectors.roles["splits"] = fit.pop(split), split
    fit.pop("label_index", None)
    if vectors.keys is None and "key" in fit:
        vectors.keys = keys_of(fit["key"])
        if vectors.keys is not None:
            del fit["key"]
    vectors.columns |= fit


def name_columns(vectors: Vectors, own: Mapping[str, str | None], where: str) -> None:
    """Take the columns that the user names for names, labels and splits, in the place of those with a usual name.

    Args:
        vectors: with all columns of their files.
        own: a column or None for ``names``, ``labels`` and ``splits``.
        where: the file, for messages.

    Raises:
        DatasetError: there is no such column.
    """
    before = {name: getattr(vectors, role) for role, name in vectors.roles.items() if role != "vectors"}
    every = {**before, **vectors.columns}
    for role in ("names", "labels", "splits"):
        name = own.get(role)
        if name is None or vectors.roles.get(role) == name:
            continue
        if name not in every:
            raise DatasetError(
                f"{where} has no column {name!r}; it has {listed(list(every)) or 'none besides numbers'}"
            )
        vectors.columns.pop(name, None)
        setattr(vectors, role, every[name])
        vectors.roles[role] = name
    vectors.columns |= {name: cells for name, cells in before.items() if name not in vectors.roles.values()}


def without_split(name: str) -> str:
    """The name of an array without that of its split.

    Examples:
        >>> without_split("y_train"), without_split("trainlabels"), without_split("features"), without_split("test")
        ('y', 'labels', 'features', 'test')
    """
    first, last = _SPLIT_FIRST.match(name), _SPLIT_LAST.match(name)
    return (first[2] if first else last[1] if last else name) or name


def _by_split(
    arrays: Mapping[str, np.ndarray], texts: Mapping[str, list[Any]]
) -> dict[str, tuple[dict[str, np.ndarray], dict[str, list[Any]]]]:
    """The arrays and lists of each split, by its name; empty unless the name of every array names one."""
    parts: dict[str, tuple[dict[str, np.ndarray], dict[str, list[Any]]]] = {}
    every: dict[str, Any] = {**texts, **arrays}
    for name, value in every.items():
        first, last = _SPLIT_FIRST.match(name), _SPLIT_LAST.match(name)
        split, rest = (first[1], first[2]) if first else (last[2], last[1]) if last else ("", name)
        if not split:
            return {}
        held = parts.setdefault(split.lower(), ({}, {}))
        if isinstance(value, np.ndarray):
            held[0][rest or "features"] = value
        else:
            held[1][rest or "path"] = value
    return parts if len(parts) > 1 else {}


def _joined(
    path: Path, parts: Mapping[str, tuple[dict[str, np.ndarray], dict[str, list[Any]]]], tool: str, folder: Path
) -> Vectors:
    """The vectors of several splits, one after the other."""
    spool, splits, names = Spool(folder), list[str](), list[str]()
    labels: list[str] = []
    columns: dict[str, list[str]] = {}
    for split, (arrays, texts) in parts.items():
        found = sort_arrays(path, arrays, texts, tool, folder)
        for layer, matrix in found.layers.items():
            spool.append(layer, matrix, f"{split} of {path}")
        count, before = len(found), len(splits)
        names += found.names or [f"{split}/{number:0{len(str(count))}d}" for number in range(count)]
        labels += found.labels or [""] * count
        splits += [split] * count
        for name in {*columns, *found.columns}:
            columns.setdefault(name, [""] * before).extend(found.columns.get(name, [""] * count))
    result = Vectors(tool, spool.matrices(), names=names, labels=labels if any(labels) else None, splits=splits)
    require_equal_counts(result.layers, str(path))
    result.columns = columns
    result.roles = {role: name for role, name in found.roles.items() if role != "splits"}
    return result


def _leaf(name: str) -> str:
    return name.rpartition("/")[2]


def _places(array: np.ndarray) -> dict[str, list[str]]:
    """The places of the patches of a slide."""
    rows = array.reshape(array.shape[-2:]) if array.ndim > 2 and array.shape[0] == 1 else array
    if rows.ndim != 2 or rows.shape[1] != 2:
        return {}
    return {name: [f"{value:g}" for value in rows[:, at].tolist()] for at, name in enumerate(("x", "y"))}


def _label_texts(table: np.ndarray) -> list[str]:
    """A table of 0 and 1 as the numbers of the columns with a 1, ``|`` between them."""
    return [BETWEEN_LABELS.join(map(str, np.flatnonzero(row).tolist())) or BETWEEN_LABELS for row in np.asarray(table)]
