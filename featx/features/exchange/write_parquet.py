"""An export as Parquet: a row for each image, with a list of fixed size for each layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from featx.data.image_set import UNLABELLED
from featx.features.exchange.content import MARK, Content
from featx.text import to_utf8


def write(file: BinaryIO, content: Content, report: Callable[[int], None]) -> None:
    """Write the file, a row group for each block.

    Args:
        file: open for writing.
        content: what to write.
        report: gets the number of rows that are written.
    """
    import pyarrow
    import pyarrow.parquet

    cells = content.texts()
    cells["label"][content.labels == UNLABELLED] = None  # an array of its own
    texts = {name: _strings(pyarrow, values) for name, values in cells.items()}
    columns = {"path": texts.pop("path"), "label": texts.pop("label")}
    columns["label_index"] = pyarrow.array(content.labels, pyarrow.int64())
    columns |= texts
    names = _layer_columns(content, columns)
    widths = {layer: int(np.prod(content.shape(layer)[1:])) for layer in content.layers}
    schema = pyarrow.schema(
        [(name, array.type) for name, array in columns.items()]
        + [(names[layer], pyarrow.list_(pyarrow.float32(), widths[layer])) for layer in content.layers],
        metadata={"featx": MARK, "featx_features": json.dumps({**content.provenance, "classes": content.classes})},
    )
    writer = pyarrow.parquet.ParquetWriter(
        file,
        schema,
        compression=dict.fromkeys(columns, "snappy") | {f"{name}.list.element": "NONE" for name in names.values()},
        use_dictionary=list(columns),
        write_statistics=list(columns),
    )
    with writer:
        for part, blocks in content.blocks(list(content.layers)):
            rows = {name: array.slice(part.start, part.stop - part.start) for name, array in columns.items()}
            for layer, block in blocks.items():
                flat = pyarrow.array(np.ascontiguousarray(block, dtype=np.float32).reshape(-1))
                rows[names[layer]] = pyarrow.FixedSizeListArray.from_arrays(flat, widths[layer])
            writer.write_table(pyarrow.table(rows, schema=schema), row_group_size=part.stop - part.start)
            report(part.stop)


def _layer_columns(content: Content, columns: dict[str, Any]) -> dict[str, str]:
    """The name of each layer's column: its own, unless another column has it."""
    found: dict[str, str] = {}
    for layer in content.layers:
        name = layer
        while name in columns or name in found.values():
            name += "_"
        found[layer] = name
    return found


def _strings(pyarrow: Any, values: np.ndarray) -> Any:
    """A column of text; of binary where bytes are not UTF-8, which featx reads as the same path."""
    try:
        return pyarrow.array(values.tolist(), pyarrow.string())
    except UnicodeEncodeError:
        cells = [None if value is None else to_utf8(value) for value in values.tolist()]
        return pyarrow.array(cells, pyarrow.binary())
