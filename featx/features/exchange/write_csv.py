"""An export as CSV: ``filename,embedding_0,...`` as lightly-train writes it, then the other columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import BinaryIO

from featx.errors import SettingsError
from featx.features.exchange.content import FIRST_COLUMNS, Content

AFTER = FIRST_COLUMNS[1:]
"""The columns that follow the features."""

_NINE_DIGITS = "%.9g"  # they tell any two numbers of single precision apart


def write(file: BinaryIO, content: Content, report: Callable[[int], None]) -> None:
    """Write the file, row by row.

    Args:
        file: open for writing.
        content: what to write, with one layer.
        report: gets the number of rows that are written.

    Raises:
        SettingsError: the features are in several views.
    """
    ((layer, matrix),) = content.layers.items()
    if matrix.ndim != 2:
        views = f"the layer {layer} is in {matrix.shape[1]} views"
        raise SettingsError(f"{views}, and a table holds one; name it without @ in --layer")
    width = matrix.shape[1]
    texts = text_columns(content)
    first, others = texts.pop("path"), list(zip(*texts.values(), strict=True))
    file.write(_line(["filename", *(f"embedding_{number}" for number in range(width)), *texts]))
    numbers = ",".join([_NINE_DIGITS] * width)
    for part, blocks in content.blocks([layer]):
        lines = []
        for row, vector in enumerate(blocks[layer].tolist(), start=part.start):
            lines.append(
                _line([first[row]])[:-1] + b"," + (numbers % tuple(vector)).encode() + b"," + _line(others[row])
            )
        file.write(b"".join(lines))
        report(part.stop)


def write_names(file: BinaryIO, content: Content) -> None:
    """Write the columns alone, as the table beside a matrix."""
    texts = text_columns(content)
    file.write(_line(list(texts)))
    file.writelines(map(_line, zip(*texts.values(), strict=True)))


def text_columns(content: Content) -> dict[str, Sequence[str]]:
    """The columns of an export as text, in their order."""
    texts = content.clean_texts()
    indices = [str(label) if label >= 0 else "" for label in content.labels.tolist()]
    return {name: indices if name == "label_index" else texts[name] for name in (*FIRST_COLUMNS, *content.columns)}


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
