"""Safetensors files from strangers: the header is checked against every rule of the format before anything is allocated.

The format: eight bytes with the header's length, the header (JSON: dtype, shape and place of each tensor, and a map of
strings), the tensors' bytes without gaps. What a file can make featx allocate is bounded by its own size. The safetensors
library checks less: it accepts repeated keys, surplus fields, and empty tensors of absurd shapes.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from featx.io.strict_json import shown, strict_json
from featx.text import size_text

_MOST_HEADER = 2**25  # bytes; every class name twice, a report of 1,000 classes, and room to spare

DTYPES = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
        "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
    }.items()
}  # fmt: skip
"""The dtypes that are read, by their names in the format."""


@dataclass(frozen=True)
class Tensor:
    """One entry of a header.

    Attributes:
        dtype: a key of ``DTYPES``.
        shape: its lengths.
        begin: its first byte, from the start of the file.
        end: the byte after its last.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: BinaryIO, size: int) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The map of strings, and the tensors, of a file of so many bytes.

    Raises:
        ValueError: a rule does not hold; it says which.
    """
    length = int.from_bytes(file.read(8), "little") if size >= 8 else size
    if not 2 <= length <= size - 8:
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    if length > _MOST_HEADER:
        raise ValueError(f"a header of {size_text(length)}; at most {size_text(_MOST_HEADER)} make sense")
    entries = strict_json(file.read(length).decode("utf-8"))
    if not isinstance(entries, dict):
        raise ValueError("its header is no object")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not all strings")
    tensors = {name: _tensor(name, entry, 8 + length) for name, entry in entries.items()}
    place = 8 + length
    for tensor in sorted(tensors.values(), key=lambda t: (t.begin, t.end)):
        if tensor.begin != place:
            raise ValueError(f"a gap or overlap of tensors at byte {place}")
        place = tensor.end
    if place != size:
        raise ValueError(f"tensors up to byte {place} in a file of {size}")
    return metadata, tensors


def _tensor(name: str, entry: Any, start: int) -> Tensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {shown(name)} has other parts than dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
            raise ValueError(f"tensor {shown(name)} has {shown(numbers)} where lengths should be")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise ValueError(f"tensor {shown(name)} is of dtype {shown(entry['dtype'])}; known are {', '.join(DTYPES)}")
    itemsize = DTYPES[entry["dtype"]].itemsize
    # An empty array's other lengths cost nothing, but numpy multiplies them all.
    if len(shape) > 8 or len(offsets) != 2 or math.prod(n or 1 for n in shape) >= 2**48:
        raise ValueError(f"tensor {shown(name)} is of shape {shown(shape)} at {shown(offsets)}")
    if offsets[1] - offsets[0] != math.prod(shape) * itemsize:
        raise ValueError(f"tensor {shown(name)} of shape {shown(shape)} is at bytes {shown(offsets)}")
    return Tensor(entry["dtype"], tuple(shape), start + offsets[0], start + offsets[1])


def read_tensor(file: BinaryIO, tensor: Tensor) -> np.ndarray:
    """One tensor.

    Raises:
        ValueError: the file was cut while it was read.
    """
    file.seek(tensor.begin)
    dtype, count = DTYPES[tensor.dtype], math.prod(tensor.shape)
    if isinstance(file, io.BytesIO):
        return np.frombuffer(file.read(count * dtype.itemsize), dtype).reshape(tensor.shape).copy()
    return np.fromfile(file, dtype, count).reshape(tensor.shape)
