"""An export as plain arrays: ``.npy``, one matrix; and ``.safetensors``, a tensor for each layer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from featx.errors import OutputError
from featx.features.exchange.content import MARK, Content
from featx.text import size_text

_DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "uint8": "U8"}
_MOST_HEADER = 30_000_000
"""The most bytes of a header: featx reads 32 MB, and the safetensors library 100 MB."""


def write_npy(file: BinaryIO, content: Content, report: Callable[[int], None]) -> None:
    """Write one matrix in the format of ``numpy.save``.

    Args:
        file: open for writing.
        content: what to write, with one layer.
        report: gets the number of rows that are written.
    """
    ((layer, matrix),) = content.layers.items()
    little = matrix.dtype.newbyteorder("<")
    header = {"descr": little.str, "fortran_order": False, "shape": content.shape(layer)}
    np.lib.format.write_array_header_1_0(file, header)
    for part, blocks in content.blocks([layer]):
        file.write(np.ascontiguousarray(blocks[layer], dtype=little).data)
        report(part.stop)


def write_safetensors(file: BinaryIO, content: Content, report: Callable[[int], None]) -> None:
    """Write a tensor for each layer, ``labels`` (N,) int64 and ``keys`` (N, 16) uint8; names and origin are metadata.

    The names are JSON lists in the metadata: ``paths``, ``splits``, ``classes``, and an object ``columns``.

    Args:
        file: open for writing.
        content: what to write.
        report: gets the number of rows of all layers that are written, as a share of N.

    Raises:
        OutputError: the names are too long for the header of such a file.
    """
    small = {"labels": content.labels, "keys": np.ascontiguousarray(content.keys)}
    names = {layer: layer if layer not in small else f"{layer}_" for layer in content.layers}
    entries: dict[str, Any] = {"__metadata__": _metadata(content)}
    place = 0
    for name, dtype, shape in (
        *((name, array.dtype, array.shape) for name, array in small.items()),
        *((names[layer], matrix.dtype, content.shape(layer)) for layer, matrix in content.layers.items()),
    ):
        size = math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": _DTYPES[dtype.name], "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    header = json.dumps(entries).encode()
    if len(header) > _MOST_HEADER:
        raise OutputError(
            f"the names of {len(content):,} images take {size_text(len(header))} of JSON, and the header of a .safetensors "
            f"file holds {size_text(_MOST_HEADER)}; name a file that ends in .parquet, .h5ad or .npy with --to"
        )
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)
    for array in small.values():
        file.write(np.ascontiguousarray(array).data)
    for number, layer in enumerate(content.layers):
        for part, blocks in content.blocks([layer]):
            file.write(np.ascontiguousarray(blocks[layer]).data)
            report((number * len(content) + part.stop) // len(content.layers))


def _metadata(content: Content) -> dict[str, str]:
    texts: dict[str, Any] = {
        "paths": content.clean(content.paths, "path"),
        "splits": content.clean(content.splits, "split"),
        "classes": content.clean(content.classes, "label"),
        "columns": {name: content.clean(cells, name) for name, cells in content.columns.items()},
        "origin": content.provenance,
    }
    return {"featx": MARK, **{name: json.dumps(value) for name, value in texts.items()}}
