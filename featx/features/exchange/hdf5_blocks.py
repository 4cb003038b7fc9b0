"""Texts and numbers of HDF5 as the reader of strangers' files passes them on."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

BLOCK = 16 << 20
"""Bytes that are read or written at a time."""


class FaultError(Exception):
    """Why a file is not read."""


def write_blocks(dataset: Any, dtype: str, out: Any) -> None:
    """Write a data set as raw numbers, block by block."""
    row = max(1, math.prod(dataset.shape[1:]) * dataset.dtype.itemsize)
    step = max(1, BLOCK // row)
    if dataset.chunks:
        step = max(dataset.chunks[0], step // dataset.chunks[0] * dataset.chunks[0])
    with np.errstate(over="ignore"):
        for at in range(0, dataset.shape[0], step):
            out.write(np.ascontiguousarray(dataset[at : at + step], dtype=dtype).tobytes())


def text_of(value: Any) -> str:
    """A text of HDF5, which may be bytes."""
    if isinstance(value, bytes):
        return os.fsdecode(value)
    return value if isinstance(value, str) else str(value)
