"""The fields of a feature set from arrays: what ``FeatureSet.from_arrays`` makes of its arguments. numpy only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featx.data.splits import hash_splits
from featx.errors import HeadError
from featx.features.array_labels import NUMBERS, array_labels, is_missing
from featx.text import counted, described

_KEY_BYTES = 16


def array_fields(
    X: Any,
    y: Any,
    *,
    paths: Any,
    classes: Sequence[str] | None,
    splits: Any,
    keys: Any,
    groups: Any,
    columns: Mapping[str, Any] | None,
    name: str,
) -> dict[str, Any]:
    """The fields of a ``FeatureSet``, by name. Arguments and errors as ``FeatureSet.from_arrays``."""
    features = matrix_of(X)
    count = len(features)
    labels = array_labels([None] * count if y is None else y, classes)
    if len(labels.labels) != count:
        raise HeadError(
            f"found {counted(count, 'row')} of features and {counted(len(labels.labels), 'label')}; expected one "
            "label for each row"
        )
    known_keys = vector_keys(features) if keys is None else _keys(keys)
    given = splits is not None
    if splits is None:
        splits = hash_splits(known_keys, labels.labels) if count else np.empty(0, dtype=object)
    elif isinstance(splits, str):
        splits = np.full(count, splits, dtype=object)
    dataset = {"name": name, "root": "", "splits": "given" if given else "hash"}
    fields: dict[str, Any] = {
        "features": features,
        "labels": labels.labels,
        "classes": labels.classes if classes is None or labels.form != "names" else tuple(map(str, classes)),
        "splits": _names("splits", splits),
        "paths": _names("paths", paths) if paths is not None else row_names(X, count),
        "keys": known_keys,
        "dataset": dataset | ({"labels": "numbers"} if labels.form == NUMBERS else {}),
    }
    if groups is not None:
        fields["groups"] = _names("groups", groups)
    if columns:
        fields["columns"] = {str(column): _names(f"the column {column}", cells) for column, cells in columns.items()}
    return fields


def matrix_of(X: Any) -> np.ndarray:
    """Features as an array: (N, D), or (N, V, D) of V views; of floats as they are, of other numbers float32.

    Args:
        X: an array, a data frame of numbers, a tensor on the CPU, or a list of rows.

    Raises:
        HeadError: it is none of these.
    """
    if hasattr(X, "detach"):
        X = X.detach()
    if hasattr(X, "toarray"):
        raise HeadError("features are a sparse matrix; expected a dense one: X.toarray()")
    try:
        found: np.ndarray = np.asarray(X)
    except (ValueError, TypeError) as error:
        raise HeadError(f"features are {described(X)}, which is no array: {error}") from error
    if found.dtype.kind == "O":
        try:
            found = found.astype(np.float64)
        except (ValueError, TypeError) as error:
            raise HeadError(f"features are {described(X)}; expected numbers: {error}") from error
    if found.dtype.kind in "biu":
        found = found.astype(np.float32)
    if found.dtype.kind != "f" or found.ndim not in (2, 3):
        one = "; X[None] makes a single row of it" if found.ndim == 1 and found.dtype.kind == "f" else ""
        raise HeadError(
            f"features are {found.shape} of {found.dtype}; expected (N, D) numbers, or (N, V, D) for V views of each image{one}"
        )
    return found


def vector_keys(features: np.ndarray) -> np.ndarray:
    """Keys of rows without images: (N, 16) uint8, the BLAKE2b-128 of each row's bytes as little-endian float32.

    Equal rows have equal keys, so that they are never in two splits or folds.

    Examples:
        >>> first, second, third = vector_keys(np.array([[0.5, 0.0], [0.5, -0.0], [1.0, 0.0]]))
        >>> bool((first == second).all()), bool((first == third).all())
        (True, False)
    """
    keys = np.empty((len(features), _KEY_BYTES), dtype=np.uint8)
    for row, vector in enumerate(features):
        with np.errstate(over="ignore"):
            data = np.asarray(vector, dtype="<f4") + np.float32(0)  # -0 becomes 0
        keys[row] = np.frombuffer(hashlib.blake2b(data.tobytes(), digest_size=_KEY_BYTES).digest(), dtype=np.uint8)
    return keys


def row_names(X: Any, count: int) -> np.ndarray:
    """Names of rows that have none: the index of a data frame, if it is of text; else numbers from 0, of equal length."""
    index = getattr(X, "index", None)
    if (
        index is not None
        and not callable(index)
        and len(index) == count
        and all(isinstance(name, str) for name in index)
    ):
        return np.array(list(index), dtype=object)
    digits = len(str(max(0, count - 1)))
    return np.array([f"{row:0{digits}d}" for row in range(count)], dtype=object)


def _keys(keys: Any) -> np.ndarray:
    """Keys as an array, from an array, or from hexadecimal text or bytes."""
    if isinstance(keys, np.ndarray) and keys.dtype == np.uint8:
        return keys
    try:
        raw = [key if isinstance(key, bytes) else bytes.fromhex(key) for key in list(keys)]
        if any(len(key) != _KEY_BYTES for key in raw):
            raise ValueError("a key is not of 16 bytes")
    except (TypeError, ValueError) as error:
        raise HeadError(
            f"keys are {described(keys)} ({error}); expected (N, 16) uint8, or 32 hexadecimal digits each"
        ) from error
    return np.frombuffer(b"".join(raw), dtype=np.uint8).reshape(-1, _KEY_BYTES)


def _names(what: str, values: Any) -> np.ndarray:
    """(N,) object array of str; "" where one is missing."""
    try:
        found = [value.item() if isinstance(value, np.generic) else value for value in list(values)]
    except TypeError as error:
        raise HeadError(f"{what} are {described(values)}; expected one for each row") from error
    out = np.empty(len(found), dtype=object)
    out[:] = ["" if is_missing(value) else str(value) for value in found]
    return out
