"""Images in ``.npy`` files: arrays of numbers, read without unpickling anything."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy

from featx.data.samples import FLOAT, Values, integers
from featx.errors import ImageError

_MOST_BANDS = 1024
_FEWEST_ROWS = 32
"""An array whose first axis is shorter than the others and than this has its channels first."""


def array_values(data: bytes) -> Values:
    """The samples of an image in a ``.npy`` file.

    Args:
        data: the file: (H, W), which is grey, or (H, W, C) of integers or floats of any byte order.

    Returns:
        All bands in their order. The memory is that of the file.

    Raises:
        ImageError: the file is damaged, holds Python objects, or is no image by its shape or dtype.
    """
    file = io.BytesIO(data)
    try:
        major = npy.read_magic(file)[0]
        read = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
        shape, by_columns, dtype = read(file, max_header_size=4096)
    except Exception as error:  # a header is a Python literal, which may be anything
        raise ImageError("cannot be decoded: an .npy file whose header is damaged") from error
    require_image(shape, dtype)
    size = math.prod(shape) * dtype.itemsize
    if size > len(data) - file.tell():
        raise ImageError(
            f"cannot be decoded: an .npy file that is truncated ({len(data) - file.tell():,} of {size:,} bytes of samples)"
        )
    array = np.frombuffer(data, dtype, math.prod(shape), file.tell()).reshape(shape, order="F" if by_columns else "C")
    if dtype.kind == "b":
        array = array.astype(np.uint8) * np.uint8(255)
    if array.ndim == 2:
        array = array[..., None]
    height, width, bands = array.shape
    type_ = FLOAT if dtype.kind == "f" else integers(8 * dtype.itemsize, signed=dtype.kind == "i")
    return Values((width, height), type_, bands, lambda top, bottom: array[top:bottom])


def colour_bands(values: Values) -> tuple[int, ...]:
    """The bands of an array that are colours: one is grey, three are RGB, and four of 8 bits are RGB and alpha.

    Raises:
        ImageError: there are others, of which nothing tells what they are.
    """
    if values.channels in (1, 3) or (values.channels == 4 and values.type.largest == 255):
        return tuple(range(1, values.channels + 1))
    example = "1,2,3" if values.channels > 2 else "1"
    raise ImageError(f"{values.channels} bands; expected 1 or 3. --bands selects some, such as {example}")


def array_file(array: np.ndarray) -> bytes:
    """The bytes of the ``.npy`` file of an array."""
    file = io.BytesIO()
    npy.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def require_image(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse an array that is no image, by its shape and dtype.

    Raises:
        ImageError: it is none.
    """
    found = f"an array of shape {shape} and dtype {dtype}"
    if dtype.hasobject:
        raise ImageError(f"{found} holds Python objects, which featx never unpickles")
    if dtype.kind not in "uifb" or dtype.itemsize > 8 or dtype.names or dtype.shape:
        raise ImageError(f"{found} is no image; expected integers or floats")
    if len(shape) not in (2, 3) or not all(type(length) is int and length > 0 for length in shape):
        raise ImageError(f"{found} is no image; expected (H, W) or (H, W, C)")
    if len(shape) == 3 and shape[0] < min(shape[1:]) and shape[0] <= _FEWEST_ROWS and shape[2] > 4:
        raise ImageError(
            f"an array of shape {shape} has its channels first; expected (H, W, C): save array.transpose(1, 2, 0)"
        )
    if len(shape) == 3 and shape[2] > _MOST_BANDS:
        raise ImageError(f"{found} has {shape[2]:,} bands; at most {_MOST_BANDS:,} are read")
