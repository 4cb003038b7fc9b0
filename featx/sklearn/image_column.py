"""The ``X`` of ``ImageEmbedder``: a column of images, in whichever container scikit-learn's users have it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from featx.data.decode import file_of
from featx.data.inputs import ImageInput, image_in_memory, image_inputs
from featx.data.places import is_remote
from featx.errors import DatasetError, ImageError
from featx.features.array_labels import is_missing
from featx.text import described, listed

_EXPECTED = (
    "a list, an array, a Series or one column of a data frame, with a path, the bytes of an image file, an image of Pillow or "
    "an array (H, W) or (H, W, C) in each row"
)


def is_frame(X: Any) -> bool:
    """Whether X is a data frame, of pandas or polars."""
    return hasattr(X, "columns") and hasattr(X, "shape")


def column_of(X: Any, column: str | int | None) -> list[Any]:
    """The N items of X, one for each row. No image is opened.

    Args:
        X: a list, array, Series or data frame.
        column: of a data frame; None: it has one alone.

    Raises:
        DatasetError: X is no column of images, or has no rows.
    """
    items = list(_items(X, column))
    if not items:
        raise DatasetError(
            "Found array with 0 sample(s) while a minimum of 1 is required by ImageEmbedder: X has no images"
        )
    return [item[0] if isinstance(item, list | tuple) and len(item) == 1 else item for item in items]


def inputs_of(items: Sequence[Any], root: str | os.PathLike[str] | None) -> list[ImageInput]:
    """The images of N items, in order; what is missing becomes one that fails with a reason.

    Args:
        items: paths, URLs, bytes, images of Pillow, arrays, open files, or None and NaN.
        root: the folder that relative paths start from; None: the working folder.

    Raises:
        DatasetError: an item is none of these.
    """
    return [_input_of(item, row, root) for row, item in enumerate(items)]


def _items(X: Any, column: str | int | None) -> Iterable[Any]:
    if is_frame(X):
        return _of_frame(X, column)
    if column is not None:
        raise DatasetError(f"column={column!r} names a column of a data frame, and X is {described(X)}; leave it out")
    if isinstance(X, np.ndarray) or (hasattr(X, "detach") and hasattr(X, "__array__")):
        return _of_array(np.asarray(X))
    if isinstance(X, str | bytes | bytearray | os.PathLike) or hasattr(X, "read") or _is_picture(X):
        raise DatasetError(f"X is one image, {described(X)}; expected a list of images: [image]")
    if isinstance(X, Iterator):
        raise DatasetError(f"X is {described(X)}, which can be read only once; expected a list: list(X)")
    if isinstance(X, dict) or not isinstance(X, Iterable):
        raise DatasetError(f"X is {described(X)}; expected {_EXPECTED}")
    return X


def _is_picture(X: Any) -> bool:
    return not isinstance(X, Sequence) and not hasattr(X, "__len__") and file_of(X) is not None


def _of_frame(X: Any, column: str | int | None) -> Iterable[Any]:
    names = list(X.columns)
    if column is None:
        if len(names) != 1:
            shown = listed([repr(name) for name in names], most=8)
            raise DatasetError(
                f"X has {len(names)} columns ({shown}); expected one, or column=NAME. A ColumnTransformer gives the other "
                "columns to other transformers"
            )
        column = names[0]
    if column not in names:
        raise DatasetError(f"X has no column {column!r}; it has {listed([repr(name) for name in names], most=8)}")
    found = X[column]
    if is_frame(found):
        raise DatasetError(f"X has several columns named {column!r}; expected one")
    return found  # type: ignore[no-any-return]


def _of_array(X: np.ndarray) -> Iterator[Any]:
    """The rows of an array: images (N, H, W) or (N, H, W, C), or paths and objects (N,) or (N, 1)."""
    if X.dtype.kind in "OUS":
        if X.ndim == 2 and X.shape[1] == 1:
            X = X[:, 0]
        if X.ndim != 1:
            raise DatasetError(f"X is an array of shape {X.shape} and dtype {X.dtype}; expected (N,) or (N, 1) images")
        return map(os.fsdecode, X.tolist()) if X.dtype.kind == "S" else iter(X)
    if X.ndim not in (3, 4):
        hint = f"; X.reshape({len(X)}, H, W) makes images of rows of pixels" if X.ndim == 2 else ""
        raise DatasetError(
            f"X is an array of shape {X.shape} and dtype {X.dtype}; expected (N, H, W) or (N, H, W, C) images{hint}"
        )
    return iter(X)


def _input_of(item: Any, row: int, root: str | os.PathLike[str] | None) -> ImageInput:
    if not isinstance(item, str) and is_missing(item):
        return ImageInput("no image", _failing(f"there is no image but {item!r}"))
    if not isinstance(item, str | os.PathLike):
        if hasattr(item, "read") and hasattr(item, "seek"):  # an earlier call has read it
            item.seek(0)
        return image_in_memory(item, row)
    name = os.fspath(item)
    if not name or "\0" in name:
        return ImageInput(repr(name), _failing("this is no path of a file"))
    if is_remote(name):
        found = list(image_inputs(name))
        if len(found) != 1:
            raise DatasetError(f"row {row} is {name}, which holds {len(found)} images; expected one")
        return found[0]
    return ImageInput(name, Path(root or "", name))


def _failing(why: str) -> Callable[[], bytes]:
    def fail() -> NoReturn:
        raise ImageError(why)

    return fail
