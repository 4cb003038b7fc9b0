"""The fields of a ``FeatureSet`` that is made in Python: what is accepted, and what is said of the rest. numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from featx.data.cells import cell_text
from featx.data.image_set import UNLABELLED
from featx.errors import HeadError
from featx.features.encoded_paths import EncodedPaths
from featx.features.stacked_rows import StackedRows
from featx.text import counted, listed


def checked_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Check the fields of a feature set, and convert those that are not arrays.

    Args:
        fields: ``features``, ``labels``, ``splits``, ``classes``, ``paths``, ``keys``, ``groups`` and ``columns``, as
            ``FeatureSet`` describes them, by name.

    Returns:
        The fields to replace, by name.

    Raises:
        HeadError: a field has an unexpected type or shape, or a label is no index of a class.
    """
    features, classes = _features(fields["features"]), _classes(fields["classes"])
    labels = _labels(fields["labels"], len(classes))
    columns = {name: _column(name, fields[name]) for name in ("splits", "paths")}
    keys = np.asarray(fields["keys"])
    if keys.ndim != 2 or keys.dtype != np.uint8:
        raise HeadError(
            f"keys are {keys.shape} of {keys.dtype}; expected (N, 16) of uint8, zeros where there is no image"
        )
    if fields["groups"] is not None:
        columns["groups"] = _column("groups", fields["groups"])
    lengths = {"features": len(features), "labels": len(labels), "keys": len(keys)}
    further = {str(name): _cells(str(name), value) for name, value in dict(fields["columns"]).items()}
    lengths |= {name: len(column) for name, column in columns.items()}
    lengths |= {f"cells of the column {name!r}": len(column) for name, column in further.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name}: {count}" for name, count in lengths.items())
        raise HeadError(f"a feature set needs one of each per image; found {counts}")
    return {"features": features, "labels": labels, "classes": classes, "keys": keys, "columns": further, **columns}


def _features(value: Any) -> np.ndarray | StackedRows:
    if isinstance(value, StackedRows):
        return value
    found = value if isinstance(value, np.ndarray) else _array("features", value)
    if found.dtype.kind in "biu" or (found.dtype.kind == "f" and found is not value):
        found = found.astype(np.float32)
    if found.dtype.kind != "f" or found.ndim not in (2, 3):
        raise HeadError(
            f"features are {found.shape} of {found.dtype}; expected (N, D) numbers, or (N, V, D) for V views of each image"
        )
    return found


def _labels(value: Any, classes: int) -> np.ndarray:
    """(N,) int64. Whole floats are integers, and NaN is no label."""
    found = value if isinstance(value, np.ndarray) else _array("labels", value)
    expected = (
        f"expected one index of the {counted(classes, 'class', 'classes')} for each image, or {UNLABELLED} for none"
    )
    if found.ndim != 1:
        raise HeadError(
            f"labels are {found.shape} of {found.dtype}; {expected}. Several labels of an image are one class with | between "
            "them, such as cat|dog"
        )
    if found.dtype.kind not in "biuf":
        raise HeadError(
            f"labels are {found.dtype}, such as {str(found[0])!r}; {expected}: classes, labels = np.unique(names, "
            "return_inverse=True)"
        )
    if found.dtype.kind == "f":
        missing = np.isnan(found)
        if (odd := found[~missing][found[~missing] % 1 != 0]).size:
            raise HeadError(
                f"labels are floats such as {odd[0]:g}; {expected}. To predict values, make each a class of its own: classes, "
                "labels = np.unique(values.astype(str), return_inverse=True), and fit Head(task='regression')"
            )
        found = np.where(missing, UNLABELLED, found)
    labels: np.ndarray = found.astype(np.int64, copy=False)
    if len(labels) and not (labels.min() >= UNLABELLED and labels.max() < classes):
        raise HeadError(f"labels are {labels.min()} to {labels.max()}; {expected}")
    return labels


def _classes(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        raise HeadError(f"classes are {value!r}; expected a tuple of names")
    odd = [name for name in value if not isinstance(name, str)]
    if odd:
        raise HeadError(f"classes hold {listed([repr(name) for name in odd], most=3)}; expected names, as str")
    return tuple(map(str, value))


def _column(name: str, value: Any) -> np.ndarray:
    """(N,) names; those of a list become an object array."""
    if isinstance(value, EncodedPaths):
        return cast(np.ndarray, value)
    found = value if isinstance(value, np.ndarray) else _array(name, value, dtype=object)
    if found.ndim != 1:
        raise HeadError(f"{name} are {value!r}; expected one name for each image")
    return found


def _cells(name: str, value: Any) -> np.ndarray:
    """(N,) object array of str; None and NaN are ""."""
    found = _column(f"the column {name!r}", value)
    if found.dtype == object and all(type(cell) is str for cell in found):
        return found
    cells = np.empty(len(found), dtype=object)
    try:
        cells[:] = [cell if type(cell) is str else cell_text(cell) for cell in found.tolist()]
    except ValueError as error:
        raise HeadError(f"the column {name!r} {error}") from error
    return cells


def _array(name: str, value: Any, dtype: Any = None) -> np.ndarray:
    try:
        return np.asarray(value, dtype=dtype)
    except (ValueError, TypeError) as error:
        raise HeadError(f"{name} are no array: {error}") from error
