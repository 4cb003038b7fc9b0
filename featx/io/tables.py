"""Tables of results, as CSV or Parquet by the ending of the file's name."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import OutputError
from featx.io import atomic
from featx.io.outputs import OutputKind, require_replaceable, write_output
from featx.text import cell, to_utf8

CSV, LINES, PARQUET = ".csv", ".jsonl", ".parquet"
"""The endings of the tables that featx writes; JSON Lines are only those of ``featx predict``."""

_BEGINNING = 1 << 16
_BETWEEN = "|"  # between the items of a list in a cell of CSV, as between the labels of an image


def table_kind(
    noun: str,
    columns: Sequence[str],
    *,
    more: str | tuple[str, ...] = "",
    option: str = "--out",
    lines: bool = False,
) -> OutputKind:
    """A kind of table, as an output.

    An existing CSV table is of this kind, and may be replaced, if its header has these columns; an existing Parquet table, if
    featx wrote the noun into its metadata.

    Args:
        noun: its name in messages, such as "table of predictions".
        columns: the columns that every such table begins with.
        more: what the names of all further columns begin with, or several such beginnings; "": there are none.
        option: the option of the command line that names such a file.
        lines: whether it may also be JSON Lines, whose first object must then have these keys.

    Examples:
        >>> kind = table_kind("table of predictions", ("path", "label"), more="p_")
        >>> kind.article, kind.suffix, kind.other_suffixes
        ('a table of predictions', '.csv', ('.parquet',))
    """

    def is_own(path: Path) -> bool:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING)
        if beginning.startswith(b"PAR1"):
            return _marked(path) == noun
        if lines and beginning.startswith(b"{"):
            return beginning.startswith(b"{" + json.dumps(columns[0]).encode()) and all(
                json.dumps(name).encode() + b":" in beginning for name in columns
            )
        return _has_header(beginning, columns, more)

    endings = (LINES, PARQUET) if lines else (PARQUET,)
    return OutputKind(noun, CSV, is_own, other_suffixes=endings, option=option, missing=_missing)


def write_table(
    path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray], kind: OutputKind, *, exact: bool = False
) -> None:
    r"""Write a table whole or not at all, in the place of an older one of its kind: Parquet for ``.parquet``, else CSV.

    Numbers that are not finite, and None, are empty cells. A list in a cell of CSV has ``|`` between its items.

    Args:
        path: of the file.
        columns: (n,) values of each column: text, numbers, booleans, or lists of these; for Parquet, whatever Arrow knows.
        kind: from ``table_kind``; its columns come first.
        exact: write the text of CSV as it is, so that featx can read paths and labels again. By default it is written for
            people and spreadsheets (``featx.text.cell``): without formulas, and with unprintable characters escaped.

    Raises:
        OutputError: the file cannot be written, another file is at the path, pyarrow is missing, or ``exact`` text is not
            UTF-8 and the table is CSV.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> kind = table_kind("table of cats", ("path", "score"))
        >>> with TemporaryDirectory() as folder:
        ...     write_table(Path(folder, "cats.csv"), {"path": ["=1.jpg", "2.jpg"], "score": [0.5, float("nan")]}, kind)
        ...     Path(folder, "cats.csv").read_text()
        "path,score\n'=1.jpg,0.5\n2.jpg,\n"
    """
    if fault := _missing(path):
        raise OutputError(fault)
    is_parquet = path.suffix.lower() == PARQUET
    write_output(path, _parquet(columns, kind.noun) if is_parquet else _csv(path, columns, kind, exact), kind)


def write_blocks(
    path: Path,
    blocks: Iterable[Mapping[str, Sequence[Any] | np.ndarray]],
    kind: OutputKind,
    types: Mapping[str, Callable[[Any], Any]],
) -> None:
    """Write a Parquet file block by block, whole or not at all, in the place of an older one of its kind.

    Args:
        path: of the file.
        blocks: tables of the same columns; at least one.
        kind: from ``table_kind``.
        types: makes, from the module pyarrow, the type of each column that holds more than text, numbers or booleans.

    Raises:
        OutputError: the file cannot be written, another file is at the path, or pyarrow is missing.
    """
    if fault := _missing(path.with_suffix(PARQUET)):
        raise OutputError(fault)
    import pyarrow
    import pyarrow.parquet

    require_replaceable(path, kind)
    atomic.require_writable(path)
    given = {name: make(pyarrow) for name, make in types.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as file, contextlib.ExitStack() as stack:
            writer: Any = None
            for block in blocks:
                arrays = {
                    name: pyarrow.array(values, given[name]) if name in given else _array(pyarrow, values)
                    for name, values in block.items()
                }
                table = pyarrow.table(arrays).replace_schema_metadata({"featx": kind.noun})
                writer = writer or stack.enter_context(pyarrow.parquet.ParquetWriter(file, table.schema))
                writer.write_table(table)
    except OSError as error:
        why = atomic.reason(error) + atomic.full_disk(path.parent, 0, error)
        raise OutputError(f"cannot write {path}: {why}") from error


def _missing(path: Path) -> str:
    if path.suffix.lower() == PARQUET and find_spec("pyarrow") is None:
        return f"writing {path} needs pyarrow: pip install 'featx[parquet]'; a name that ends in {CSV} needs nothing"
    return ""


def _has_header(beginning: bytes, columns: Sequence[str], more: str | tuple[str, ...]) -> bool:
    """Whether the first line of a CSV table, which may be cut, has the columns of a kind."""
    line, ending, _ = beginning.partition(b"\n")
    is_cut = not ending and len(beginning) == _BEGINNING
    try:
        found = next(csv.reader([line.decode("utf-8", "ignore").rstrip("\r")], strict=not is_cut), [])
    except csv.Error:
        return False
    found = found[:-1] if is_cut else found
    further = found[len(columns) :]
    return found[: len(columns)] == list(columns) and (
        all(name.startswith(more) for name in further) if more else not further
    )


def _marked(path: Path) -> str:
    """The noun that featx wrote into a Parquet file; "" if there is none, or nothing to read it with."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return ""
    try:
        metadata = pyarrow.parquet.read_metadata(path).metadata or {}
    except pyarrow.ArrowException:
        return ""
    return bytes(metadata.get(b"featx", b"")).decode("utf-8", "replace")


def _csv(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray], kind: OutputKind, exact: bool) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name if exact else cell(name) for name in columns])
    writer.writerows(zip(*(_cells(values, exact) for values in columns.values()), strict=True))
    try:
        return text.getvalue().encode()
    except UnicodeEncodeError as error:
        raise OutputError(
            f"{path} cannot hold {_not_utf8(columns)!r}, which is not UTF-8; name a file that ends in {PARQUET} with "
            f"{kind.option}"
        ) from error


def _not_utf8(columns: Mapping[str, Sequence[Any] | np.ndarray]) -> str:
    """The first name or cell of a table that is not UTF-8."""
    texts = [str(value) for name, values in columns.items() for value in (name, *_cells(values, True))]
    return next(text for text in texts if text.encode("utf-8", "ignore").decode() != text)


def _cells(values: Sequence[Any] | np.ndarray, exact: bool) -> list[Any]:
    """The cells of a column of CSV."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return [_number(value) for value in values.tolist()]
    return [_cell(value, exact) for value in (values.tolist() if isinstance(values, np.ndarray) else values)]


def csv_cell(value: Any) -> Any:
    """A cell of CSV for people and spreadsheets, as ``write_table`` writes it.

    Examples:
        >>> csv_cell("=1+1"), csv_cell(0.1234567891), csv_cell(None)
        ("'=1+1", '0.123456789', '')
    """
    return _cell(value, False)


def _cell(value: Any, exact: bool) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple | np.ndarray):
        value = _BETWEEN.join(str(_cell(item, True)) for item in value)
    elif isinstance(value, dict):
        value = json.dumps(value)
    if isinstance(value, str):
        return value if exact else cell(value)
    return "" if value is None else value


def _number(value: float) -> str:
    """A number with nine digits, which tell any two numbers of single precision apart; "" if it is not finite."""
    return f"{value:.9g}" if math.isfinite(value) else ""


def _parquet(columns: Mapping[str, Sequence[Any] | np.ndarray], noun: str) -> bytes:
    import pyarrow
    import pyarrow.parquet

    arrays = {to_utf8(name).decode("utf-8", "replace"): _array(pyarrow, values) for name, values in columns.items()}
    table = pyarrow.table(arrays).replace_schema_metadata({"featx": noun})
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _array(pyarrow: Any, values: Sequence[Any] | np.ndarray) -> Any:
    """A column of Arrow; text with bytes that are not UTF-8 becomes binary, which featx reads as the same path."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return pyarrow.array(values, mask=~np.isfinite(values))
    items = values.tolist() if isinstance(values, np.ndarray) else list(values)
    try:
        return pyarrow.array(items, from_pandas=True)
    except UnicodeEncodeError:
        return pyarrow.array([to_utf8(item) if isinstance(item, str) else item for item in items], pyarrow.binary())
