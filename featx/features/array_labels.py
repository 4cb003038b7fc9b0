"""Labels in Python, as the arrays and tables of other libraries hold them, as the labels of a feature set. numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.data.cells import BETWEEN_LABELS, label_text
from featx.data.image_set import UNLABELLED
from featx.errors import HeadError
from featx.text import counted, described, form, listed

NAMES, NUMBERS, SETS, TABLE = "names", "numbers", "sets", "table"
"""What labels are: one class of each row; a number to predict; a set of labels; or a table of 0 and 1, a column for each."""


@dataclass(frozen=True, eq=False)
class ArrayLabels:
    """The labels of N rows.

    Attributes:
        labels: (N,) int64 into ``classes``; -1 for a row without a label.
        classes: (C,) names. Of several labels, each combination that occurs is one: ``cat|dog``.
        form: one of ``NAMES``, ``NUMBERS``, ``SETS`` and ``TABLE``.
        values: (C,) each class in the labels' own type, where ``form`` is NAMES; (L,) the names of the L columns of a table.
        one_hot: whether the labels were a table whose rows have exactly one 1 each.
        columns: (L,) the names of the L columns of a table, as text.
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    form: str
    values: np.ndarray
    one_hot: bool = False
    columns: tuple[str, ...] = ()


def array_labels(y: Any, classes: Sequence[str] | None = None) -> ArrayLabels:
    """Turn labels into those of a feature set.

    Args:
        y: one of

            - (N,) text: names of classes. None, NaN and "" are no label;
            - (N,) whole numbers or booleans: classes, whose names are the numbers; with ``classes``, indices into these, and -1
              is no label;
            - (N,) floats with fractions: numbers to predict; NaN is no label. Whole floats are whole numbers;
            - N lists, tuples or sets of names: several labels of each row; an empty one is a row that has none of them;
            - (N, C) of 0 and 1: a column for each label. If every row has exactly one 1, it is one-hot: one class for each row.

            Series and data frames of pandas, and tensors on the CPU, are arrays. A frame's column names are the labels.
        classes: names, for indices and for the columns of a table.

    Raises:
        HeadError: labels that are none of these.

    Examples:
        >>> found = array_labels(["bee", "ant", None])
        >>> found.labels.tolist(), found.classes
        ([1, 0, -1], ('ant', 'bee'))
        >>> array_labels([[1, 0], [1, 1]], classes=["cat", "dog"]).classes
        ('cat', 'cat|dog')
        >>> array_labels([0.5, 2.0]).classes, array_labels([["cat"], []]).classes
        (('0.5', '2.0'), ('cat', '|'))
    """
    if classes is None and hasattr(y, "columns"):
        names = list(y.columns)
        classes = [str(name) for name in names] if names != list(range(len(names))) else None
    found = _as_array(y)
    if found.ndim == 2 and found.shape[1] == 1 and found.dtype.kind != "O":
        found = found[:, 0]
    if found.ndim == 2:
        return _table(found, classes)
    if found.ndim != 1:
        raise HeadError(f"labels are {described(y)}; expected one label, or a list of labels, for each row")
    if found.dtype.kind == "O":
        found = _unboxed(found)
    if found.dtype.kind == "O":
        return _sets(found)
    return _single(found, classes)


def _single(found: np.ndarray, classes: Sequence[str] | None) -> ArrayLabels:
    """One class or number for each row."""
    if found.dtype.kind == "f":
        numbers = found[~np.isnan(found)]
        if not np.isfinite(numbers).all():
            raise HeadError("labels hold infinity; expected finite numbers, or NaN for a row without a label")
        if (numbers % 1 != 0).any():
            return _numbers(found)
    if classes is not None and found.dtype.kind in "iuf":
        return _indices(found, classes)
    return _classes(found, classes)


def _as_array(y: Any) -> np.ndarray:
    """An array of labels; lists of unequal lengths become an object array of lists."""
    if hasattr(y, "detach"):  # a tensor that takes part in gradients
        y = y.detach()
    if isinstance(y, str | bytes) or not (hasattr(y, "__len__") or hasattr(y, "__array__")):
        raise HeadError(f"labels are {described(y)}; expected one for each row")
    if isinstance(y, Sequence) and any(isinstance(item, list | tuple | set | frozenset) for item in y):
        if all(isinstance(item, list | tuple) for item in y) and (table := _table_of(y)) is not None:
            return table
        return _objects(y)
    if isinstance(y, Sequence) and any(isinstance(item, str) or item is None for item in y):
        return _objects(y)
    try:
        return np.asarray(y)
    except (ValueError, TypeError) as error:
        raise HeadError(f"labels are {described(y)}, which is no array: {error}") from error


def _table_of(rows: Sequence[Any]) -> np.ndarray | None:
    """Lists of equal lengths as a table, if they hold nothing but 0 and 1; else they are lists of labels, and this is None."""
    if len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        return None
    if not all(
        isinstance(cell, bool | int | float | np.number | np.bool_) and cell in (0, 1) for row in rows for cell in row
    ):
        return None
    return np.array(rows)


def _objects(items: Sequence[Any]) -> np.ndarray:
    found = np.empty(len(items), dtype=object)
    found[:] = [frozenset(item) if isinstance(item, set) else item for item in items]
    return found


def _unboxed(found: np.ndarray) -> np.ndarray:
    """An object array of text or numbers as an array of these, with "" or NaN where one is missing; lists stay as they are."""
    missing = np.array([is_missing(item) for item in found.tolist()], dtype=bool)
    present = found[~missing].tolist()
    if any(isinstance(item, list | tuple | set | frozenset | np.ndarray) for item in present):
        return found
    if all(isinstance(item, str) for item in present):
        out = np.array(np.where(missing, "", found), dtype=object)
        return np.array(out.tolist(), dtype=str) if len(out) else out.astype(str)
    if all(isinstance(item, bool | np.bool_) for item in present) and not missing.any():
        return found.astype(bool)
    if all(isinstance(item, int | float | np.number) and not isinstance(item, bool) for item in present):
        return np.where(missing, np.nan, found).astype(np.float64) if missing.any() else np.array(present)
    kinds = sorted({type(item).__name__ for item in present})
    raise HeadError(f"labels hold {listed(kinds)}; expected one type: text, numbers, or lists of labels")


def is_missing(item: Any) -> bool:
    """Whether an item is None, NaN, or pandas' NA or NaT."""
    if item is None:
        return True
    if isinstance(item, float | np.floating):
        return bool(math.isnan(item))
    return type(item).__name__ in ("NAType", "NaTType")


def _classes(found: np.ndarray, classes: Sequence[str] | None) -> ArrayLabels:
    """Names, numbers or booleans as classes."""
    missing = found == "" if found.dtype.kind in "US" else np.zeros(len(found), dtype=bool)
    if found.dtype.kind == "f":
        missing = np.isnan(found)
    if found.dtype.kind not in "USifub":
        raise HeadError(f"labels are of dtype {found.dtype}; expected text, numbers, or lists of labels")
    values, of_row = np.unique(found[~missing], return_inverse=True)
    if classes is None:
        shown = values.astype(np.int64) if values.dtype.kind == "f" else values
        names = tuple(str(name.decode() if isinstance(name, bytes) else name) for name in shown.tolist())
        at = np.arange(len(values))
    else:
        names, index = tuple(map(str, classes)), {str(name): row for row, name in enumerate(classes)}
        if strange := [str(name) for name in values.tolist() if str(name) not in index]:
            raise HeadError(f"labels hold {listed(strange, most=5)}; the classes are {listed(names, most=8)}")
        at, values = np.array([index[str(name)] for name in values.tolist()], dtype=np.int64), np.array(names)
    labels = np.full(len(found), UNLABELLED, dtype=np.int64)
    labels[~missing] = at[of_row.ravel()] if len(at) else ()
    return ArrayLabels(labels, names, NAMES, values)


def _indices(found: np.ndarray, classes: Sequence[str]) -> ArrayLabels:
    names = tuple(map(str, classes))
    labels = np.where(np.isnan(found), UNLABELLED, found) if found.dtype.kind == "f" else found
    labels = labels.astype(np.int64)
    if len(labels) and not (labels.min() >= UNLABELLED and labels.max() < len(names)):
        raise HeadError(
            f"labels are {labels.min()} to {labels.max()}; expected indices of the {counted(len(names), 'class', 'classes')}, "
            f"or {UNLABELLED} for none"
        )
    return ArrayLabels(labels, names, NAMES, np.array(names))


def _numbers(found: np.ndarray) -> ArrayLabels:
    """Numbers to predict; each is a class of its own, whose name gives the same number again."""
    missing = np.isnan(found)
    values, of_row = np.unique(found[~missing], return_inverse=True)
    labels = np.full(len(found), UNLABELLED, dtype=np.int64)
    labels[~missing] = of_row.ravel()
    return ArrayLabels(labels, tuple(map(repr, values.astype(np.float64).tolist())), NUMBERS, values)


def _sets(found: np.ndarray) -> ArrayLabels:
    """Lists of labels."""
    names: list[str] = []
    for item in found.tolist():
        if is_missing(item):
            names.append("")
            continue
        try:
            names.append(label_text(list(item) if not isinstance(item, str) else [item]))
        except (ValueError, TypeError) as error:
            raise HeadError(f"the labels {described(item)} of a row are no list of names: {error}") from error
    of_text = _classes(np.array(names, dtype=str), None)
    return ArrayLabels(of_text.labels, of_text.classes, SETS, of_text.values)


def _table(found: np.ndarray, classes: Sequence[str] | None) -> ArrayLabels:
    """A column of 0 and 1 for each label."""
    if found.dtype.kind not in "biuf" or not np.isin(found, (0, 1)).all():
        raise HeadError(
            f"labels are {described(found)}; expected (N,) labels, or (N, C) of 0 and 1, a column for each label. "
            "A head predicts one number for each row; fit one to each column of numbers"
        )
    width = found.shape[1]
    if classes is not None and len(classes) != width:
        raise HeadError(
            f"labels have {counted(width, 'column')}, and there {form(len(classes), 'is', 'are')} "
            f"{counted(len(classes), 'class', 'classes')}; expected one name for each column"
        )
    names = tuple(map(str, range(width) if classes is None else classes))
    if any(BETWEEN_LABELS in name for name in names):
        raise HeadError(
            f"a class is named {next(n for n in names if BETWEEN_LABELS in n)!r}; expected no {BETWEEN_LABELS} in it"
        )
    values = np.arange(width) if classes is None else np.array(names)
    if len(found) and (found.sum(axis=1) == 1).all():
        return ArrayLabels(found.argmax(axis=1).astype(np.int64), names, NAMES, values, one_hot=True, columns=names)
    rows, of_row = np.unique(found.astype(np.uint8), axis=0, return_inverse=True)
    sets = tuple(BETWEEN_LABELS.join(np.array(names)[row == 1].tolist()) or BETWEEN_LABELS for row in rows)
    return ArrayLabels(of_row.ravel().astype(np.int64), sets, TABLE, values, columns=names)
