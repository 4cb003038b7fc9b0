"""Checks of what the methods of ``Head`` are given, with messages for those who expect scikit-learn's ``fit(X, y)``."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.text import described

_HOW = "FeatureSet.load(file) reads one from a feature file, and FeatureSet.from_arrays(X, y) makes one of arrays"


class UnfittedHeadError(HeadError, NotFittedError):  # type: ignore[misc]  # scikit-learn publishes no types
    """A head that is used before it is fitted."""


def checked_rows(features: Any, given: Any, method: str, y: Any = None) -> np.ndarray | None:
    """Check the arguments of a method of ``Head`` that takes a ``FeatureSet`` and some of its rows.

    Args:
        features: the first argument.
        given: the rows, or None.
        method: "fit" or "evaluate", for the message.
        y: the second argument of ``fit(X, y)``, or None.

    Returns:
        The rows, (n,) int64, or None.

    Raises:
        HeadError: not a ``FeatureSet``, labels besides one, or rows that are no whole numbers or out of range.
    """
    if not isinstance(features, FeatureSet):
        also = ". Of arrays, Head.fit requires y to be passed, but the target y is None" if method == "fit" else ""
        raise HeadError(f"Head.{method} got {described(features)}; expected a FeatureSet: {_HOW}{also}")
    if y is not None:
        raise HeadError(f"Head.{method} got y besides a FeatureSet, which has labels itself; give the FeatureSet alone")
    if given is None:
        return None
    rows: np.ndarray = np.asarray(given)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        found = f"rows of shape {rows.shape} and dtype {rows.dtype}"
        raise HeadError(f"{found}; expected (n,) whole numbers; np.flatnonzero gives them")
    outside = rows[(rows < 0) | (rows >= len(features))]
    if len(outside):
        raise HeadError(f"there is no row {outside[0]}; expected 0 to {len(features) - 1}")
    return rows.astype(np.int64)


def as_matrix(given: Any, width: int) -> np.ndarray:
    """Return features that a head is to score as an array: (N, D), or (N, V, D) of V views.

    Args:
        given: an array, or what makes one, such as a list of rows.
        width: D.

    Raises:
        HeadError: it is of another shape or holds no numbers.
    """
    if isinstance(given, FeatureSet):
        raise HeadError(
            "got a FeatureSet; expected an array, such as features.features or features.split('test').features"
        )
    try:
        X: np.ndarray = np.asarray(given)
    except ValueError as error:
        raise HeadError(f"{described(given)} is no array ({error}); expected (N, {width})") from error
    if X.ndim not in (2, 3) or X.shape[-1] != width:
        one = "; X[None] makes a single row of it" if X.shape == (width,) else ""
        raise HeadError(f"features of shape {X.shape}; expected (N, {width}), or (N, V, {width}) for V views{one}")
    if X.dtype.kind not in "fiub":
        raise HeadError(f"features of dtype {X.dtype}; expected numbers, such as float32")
    return X


def require_fitted(head: object, method: str) -> None:
    """Raise UnfittedHeadError unless a head was fitted or loaded."""
    if "predictor_" not in vars(head):
        raise UnfittedHeadError(f"this head is not fitted; call fit before {method}, or Head.load")
