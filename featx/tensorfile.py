"""Safetensors files from strangers: header and JSON, each rule of the format checked before anything is made of them.

The format: eight bytes with the header's length, the header (JSON: dtype, shape and place of each tensor, and a map of
strings), the tensors' bytes without gaps. What a file can make featx allocate is bounded by its own size.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from featx.errors import size_text

_MOST_HEADER = 2**25  # bytes; every class name twice, a report of 1,000 classes, and room to spare
_DEEPEST = 16  # JSON in JSON in JSON; featx writes five levels

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
    flat = np.fromfile(file, DTYPES[tensor.dtype], math.prod(tensor.shape))
    return flat.reshape(tensor.shape)


def strict_json(text: str) -> Any:
    """JSON in which no key comes twice, every number is finite and fits 64 bits, and nothing is nested deeply."""
    try:
        value = json.loads(text, object_pairs_hook=_distinct)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    level = [value]
    for _ in range(_DEEPEST):
        for number in level:
            if isinstance(number, float) and not math.isfinite(number):  # NaN, Infinity, 1e999
                raise ValueError(f"its JSON holds {number}")
            if isinstance(number, int) and not -(2**63) <= number < 2**63:
                raise ValueError("its JSON holds a number of more than 64 bits")
        level = [
            item
            for part in level
            if isinstance(part, dict | list)
            for item in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return value
    raise ValueError("its JSON is nested too deeply")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key of its JSON comes twice")
    return found


def shown(value: Any, most: int = 100) -> str:
    """A value from a file as a message may show it: ASCII, on one line, not too long."""
    text = json.dumps(value)
    return text if len(text) <= most else f"{text[:most]}..."
