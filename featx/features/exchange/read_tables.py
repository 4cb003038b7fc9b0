"""Tables with embeddings in them: a column for each number (``embedding_0``, ...), or a column of lists."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import DatasetError
from featx.features.exchange.content import MARK
from featx.features.exchange.sort_arrays import take_columns
from featx.features.exchange.vectors import NAME_COLUMNS, VECTOR_COLUMNS, Spool, Vectors, first_of, unique_texts
from featx.layer_spec import PENULTIMATE
from featx.text import brief, counted, listed

_NUMBERED = re.compile(r"^(.*?)[ _\-.]?(\d+)$")
_ROWS, _LINES = 4096, 256
_CELLS = 500_000
"""How much of a table is read at a time: rows of Parquet, lines of JSON, cells of CSV."""
_LONGEST_CELL = 1 << 27
_BEGINNINGS = ("[", "(", "tensor(", "array(", "np.array(", "numpy.array(")
"""How a list of numbers begins in a cell of text."""


def read_table(paths: Sequence[Path], folder: Path, own: Mapping[str, str | None]) -> Vectors:
    """Read one or several tables of the same columns, one after the other.

    Args:
        paths: of the files.
        folder: for temporary files.
        own: the columns that the user names, by what they hold: ``names``, ``labels``, ``splits`` and ``vectors``.

    Raises:
        DatasetError: a table is malformed, or has no embeddings.
    """
    reading = _Reading(folder, own)
    for path in paths:
        read = _READERS[path.suffix.lower()]
        try:
            read(path, reading)
        except (UnicodeDecodeError, csv.Error, ValueError) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{path} is not a table that can be read: {brief(error)}") from error
    return reading.vectors(str(paths[0]), paths[0].suffix.lower()[1:])


class _Reading:
    """What was read of tables so far."""

    def __init__(self, folder: Path, own: Mapping[str, str | None]) -> None:
        self.spool, self.own = Spool(folder), own
        self.texts: dict[str, list[Any]] = {}
        self.origin: dict[str, Any] = {}
        self.count = 0

    def add(self, layers: Mapping[str, np.ndarray], texts: Mapping[str, Sequence[Any]], where: str) -> None:
        """Add some rows."""
        if self.count and list(texts) != list(self.texts):
            raise DatasetError(
                f"{where} has the columns {listed(list(texts))}; expected {listed(list(self.texts))}, as before it"
            )
        for name, matrix in layers.items():
            self.spool.append(name, matrix, where)
            rows = len(matrix)
        for name, values in texts.items():
            self.texts.setdefault(name, []).extend(values)
        self.count += rows

    def vectors(self, where: str, tool: str) -> Vectors:
        """All of it."""
        if not self.count:
            raise DatasetError(f"{where} has no rows")
        found = Vectors("featx" if self.origin else tool, self.spool.matrices(), origin=self.origin)
        take_columns(found, self.texts, where)
        return found


def text_columns(path: Path) -> dict[str, list[str]]:
    """The columns of text, numbers and the like of a Parquet file, as text.

    Raises:
        DatasetError: it cannot be read, or pyarrow is missing.
    """
    pyarrow = _pyarrow(path)
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DatasetError(f"{path} is not a Parquet file that can be read: {brief(error)}") from error
    binary = (pyarrow.types.is_binary, pyarrow.types.is_large_binary)
    names = [field.name for field in table.schema if not any(test(field.type) for test in binary)]
    return {name: unique_texts(_texts(table.column(name), pyarrow)) for name in names}


def numbered_columns(names: Sequence[str]) -> list[str]:
    """The columns with one number of the vectors each, in the order of their numbers: the largest group of equal beginning.

    Examples:
        >>> numbered_columns(["filename", "embedding_0", "embedding_1", "embedding_10", "embedding_2", "label2"])
        ['embedding_0', 'embedding_1', 'embedding_2', 'embedding_10']
    """
    groups: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        if match := _NUMBERED.match(name):
            groups.setdefault(match[1], []).append((int(match[2]), name))
    largest = max(groups.values(), key=len, default=[])
    return [name for _, name in sorted(largest)] if len(largest) > 1 else []


def _csv(path: Path, reading: _Reading) -> None:
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            beginning = file.readline()
            file.seek(0)
            tab = path.suffix.lower() == ".tsv" or beginning.count("\t") > beginning.count(",")
            separator = "\t" if tab else ";" if beginning.count(";") > beginning.count(",") else ","
            reader = csv.reader(file, delimiter=separator, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise DatasetError(f"{path} has the column {twice!r} twice; keep one of them")
            header = _require_header(path, header, beginning)
            step = max(1, _CELLS // len(header or [""]))
            while rows := [row for row, _ in zip(reader, range(step), strict=False)]:
                _add_cells(path, reading, header, [row for row in rows if row], reader.line_num)
    finally:
        csv.field_size_limit(before)


def _require_header(path: Path, header: list[str], line: str) -> list[str]:
    """The names of columns in the first line, which may be their numbers; if it has other numbers it is no header."""
    places = [name.removesuffix(".0") for name in header]
    if places in ([str(at) for at in range(len(header))], ["", *map(str, range(len(header) - 1))]) and len(header) > 2:
        return [f"embedding_{name}" if name else "name" for name in places]
    if len(header) > 2 and all(_is_number(name) for name in header[1:]):
        raise DatasetError(
            f"{path} has numbers in its first line, so it has no header; expected one such as filename,embedding_0,..."
            + (" (a file of numbers alone may end in .txt)" if _is_number(header[0]) and "," in line else "")
        )
    return header


def _add_cells(path: Path, reading: _Reading, header: list[str], rows: list[list[str]], line: int) -> None:
    if not rows:
        return
    wrong = next((row for row in rows if len(row) != len(header)), None)
    if wrong is not None:
        raise DatasetError(
            f"{path} has a row of {counted(len(wrong), 'cell')} before line {line}; expected {len(header)}, as in the header"
        )
    numbered = numbered_columns(header)
    firsts = [next((row[at] for row in rows if row[at].strip()), "") for at in range(len(header))]
    lists = _column_of_lists(path, reading.own, header, firsts, numbered)
    if lists is not None:
        at = header.index(lists)
        matrix = _stacked([_list(row[at], path) for row in rows], path)
        used = {lists}
    else:
        places = [header.index(name) for name in numbered]
        cells = [[row[place] or "nan" for place in places] for row in rows]
        if any("," in cell for cell in cells[0]):  # decimals as much of Europe writes them
            cells = [[cell.replace(",", ".") for cell in row] for row in cells]
        try:
            matrix = np.array(cells, dtype=np.float64)
        except ValueError as error:
            raise DatasetError(
                f"{path} has a cell among {numbered[0]} to {numbered[-1]} that is no number: {brief(error)}"
            ) from error
        used = set(numbered)
    texts = {name: [row[at] for row in rows] for at, name in enumerate(header) if name not in used}
    reading.add({PENULTIMATE: _narrow(matrix)}, texts, str(path))


def _narrow(matrix: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return matrix.astype(np.float32)


def _column_of_lists(
    path: Path, own: Mapping[str, str | None], header: Sequence[str], first: Sequence[str], numbered: Sequence[str]
) -> str | None:
    """The column of a text table whose cells are lists of numbers; None if each number has a column."""
    named = own.get("vectors")
    if named is not None:
        if named not in header:
            raise DatasetError(f"{path} has no column {named!r}; it has {listed(list(header))}")
        return named
    vectors = [name for name, cell in zip(header, first, strict=True) if _is_list(cell)]
    lists = [name for name in vectors if first[header.index(name)].lstrip().startswith(_BEGINNINGS)]
    if numbered and not lists:
        return None
    usual = first_of(vectors, VECTOR_COLUMNS)
    if usual or lists:
        return usual or lists[0]
    raise DatasetError(
        f"{path} has no embeddings: expected columns with numbers such as embedding_0, embedding_1, ..., or one with lists of "
        f"numbers; found {listed(list(header)) or 'none'}"
    )


def _list(cell: str, path: Path) -> list[Any] | None:
    """The numbers in a cell, as JSON, Python, numpy or PyTorch write a list, or with spaces or commas; None for no text."""
    text = cell.strip()
    if not text:
        return None
    try:
        found = json.loads(text)
        if isinstance(found, list):
            return found
    except (ValueError, RecursionError):
        pass
    if "..." in text:
        raise DatasetError(f"{path} has a cell with a list that was cut as it was printed ({text[:40]}...)")
    try:
        return _bare_numbers(text)
    except ValueError:
        raise DatasetError(f"{path} has the cell {text[:40]!r} where a list of numbers should be") from None


def _bare_numbers(text: str) -> list[float]:
    inner = re.sub(
        r"^\s*(?:tensor|(?:np\.|numpy\.)?array)\s*(?=\()|,\s*(?:dtype|device|grad_fn)=.*$", "", text, flags=re.DOTALL
    )
    return [float(part) for part in re.sub(r"[\[\](),;]", " ", inner).split()]


def _is_list(cell: str) -> bool:
    """Whether a cell holds several numbers."""
    if "..." in cell and cell.lstrip().startswith(_BEGINNINGS):
        return True  # refused later, with the reason
    try:
        return len(_bare_numbers(cell.replace("null", "nan"))) > 1
    except ValueError:
        return False


def _stacked(rows: Sequence[Sequence[Any] | None], path: Path) -> np.ndarray:
    """Lists of numbers as a matrix; one that is missing becomes NaN, so that its row alone fails."""
    widths = {len(row) for row in rows if row}
    if len(widths) != 1:
        raise DatasetError(
            f"{path} has vectors of {' and '.join(map(str, sorted(widths)[:3])) or 'no'} numbers; expected one width"
        )
    missing = [np.nan] * widths.pop()
    try:
        return np.array([row if row else missing for row in rows], dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path} has a vector that holds other things than numbers: {brief(error)}") from error


def _jsonl(path: Path, reading: _Reading) -> None:
    with path.open(encoding="utf-8-sig") as file:
        number = 0
        while lines := [line for line, _ in zip(file, range(_LINES), strict=False)]:
            rows = []
            for line in lines:
                number += 1
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DatasetError(f"{path}, line {number}: not JSON: {brief(error)}") from error
                if not isinstance(row, dict):
                    raise DatasetError(f"{path}, line {number}: expected an object, found {line.strip()[:60]!r}")
                rows.append(row)
            if rows:
                _add_objects(path, reading, rows)


def _json(path: Path, reading: _Reading) -> None:
    """A list of objects, or an object with a list of numbers for each name."""
    try:
        found = json.loads(path.read_bytes())
    except RecursionError as error:
        raise DatasetError(f"{path} is nested too deeply to be a table") from error
    if isinstance(found, dict) and found and all(_is_vector(value) for value in found.values()):
        if first_of(list(found), (*NAME_COLUMNS, *VECTOR_COLUMNS)) is None:
            found = [{"path": name, "embedding": vector} for name, vector in found.items()]
    elif isinstance(found, dict) and _are_columns(found):
        found = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    elif isinstance(found, dict):  # rows under one key, such as "samples" or "data"
        rows = [value for value in found.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        found = rows[0] if len(rows) == 1 else found
    if not isinstance(found, list) or not found or not all(isinstance(row, dict) for row in found):
        raise DatasetError(
            f"{path} is no table of vectors: expected a list of objects such as "
            '{"path": "a.jpg", "embedding": [0.1, 0.2]}, or an object with a list of numbers for each name'
        )
    _add_objects(path, reading, found)


def _are_columns(found: Mapping[str, Any]) -> bool:
    lists = [value for value in found.values() if isinstance(value, list)]
    are_rows = len(lists) == 1 and bool(lists[0]) and isinstance(lists[0][0], dict)
    return not are_rows and len(lists) == len(found) and len({len(each) for each in lists}) == 1


def _add_objects(path: Path, reading: _Reading, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if reading.texts:
        names += [name for name in reading.texts if name not in names]
    lists = [name for name in names if any(_is_vector(row.get(name)) for row in rows)]
    column = reading.own.get("vectors") or first_of(lists, VECTOR_COLUMNS) or (lists[0] if lists else None)
    if column is not None:
        if column not in names:
            raise DatasetError(f"{path} has no column {column!r}; it has {listed(names)}")
        matrix, used = _stacked([row.get(column) for row in rows], path), {column}
    else:
        numbered = numbered_columns(names)
        if not numbered:
            raise DatasetError(
                f"{path} has no embeddings: expected lists of numbers, or embedding_0, embedding_1, ...; found {listed(names)}"
            )
        matrix = _stacked([[_number(row.get(name)) for name in numbered] for row in rows], path)
        used = set(numbered)
    texts = {name: [_cell(row.get(name)) for row in rows] for name in (reading.texts or names) if name not in used}
    reading.add({PENULTIMATE: _narrow(matrix)}, texts, str(path))


def _parquet(path: Path, reading: _Reading) -> None:
    pyarrow = _pyarrow(path)
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            metadata = file.schema_arrow.metadata or {}
            if metadata.get(b"featx") == MARK.encode():
                reading.origin = json.loads(metadata.get(b"featx_features", b"{}"))
            plan = _planned(path, reading, file.schema_arrow, pyarrow)
            batches = file.iter_batches(_ROWS, columns=plan.selection(file.schema_arrow, pyarrow))
            _add_batches(path, reading, plan, batches, pyarrow)
    except pyarrow.ArrowException as error:
        raise DatasetError(f"{path} is not a Parquet file that can be read: {brief(error)}") from error


def _arrow(path: Path, reading: _Reading) -> None:
    """A file of ``datasets``, or any stream or file of Arrow."""
    pyarrow = _pyarrow(path)
    try:
        with pyarrow.memory_map(str(path)) as source:
            try:
                opened = pyarrow.ipc.open_stream(source)
                _add_batches(path, reading, _planned(path, reading, opened.schema, pyarrow), opened, pyarrow)
            except pyarrow.ArrowInvalid:
                source.seek(0)
                opened = pyarrow.ipc.open_file(source)
                batches = (opened.get_batch(number) for number in range(opened.num_record_batches))
                _add_batches(path, reading, _planned(path, reading, opened.schema, pyarrow), batches, pyarrow)
    except pyarrow.ArrowException as error:
        raise DatasetError(f"{path} is not a file of Arrow that can be read: {brief(error)}") from error


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(f"reading {path} needs pyarrow: pip install 'featx[parquet]'") from error
    return pyarrow


@dataclass(frozen=True)
class _Plan:
    """Which columns of an Arrow schema are what: that of each layer, those with one number each, and those that are kept."""

    layers: dict[str, str]
    numbered: list[str]
    kept: list[str]

    def selection(self, schema: Any, pyarrow: Any) -> list[str]:
        """The columns to read; of images that are stored as bytes and path, the path."""
        whole = [*self.layers.values(), *self.numbered]
        return whole + [
            f"{name}.path" if pyarrow.types.is_struct(schema.field(name).type) else name for name in self.kept
        ]


def _planned(path: Path, reading: _Reading, schema: Any, pyarrow: Any) -> _Plan:
    is_list = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    lists = [column for column in schema if any(test(column.type) for test in is_list)]
    floats = [column.name for column in lists if pyarrow.types.is_floating(column.type.value_type)]
    whole = [column.name for column in lists if pyarrow.types.is_integer(column.type.value_type)]
    layers, numbered = _layers_of_columns(path, reading, schema, floats or whole, pyarrow)
    used = {*layers.values(), *numbered}
    kept = [column.name for column in schema if column.name not in used and _is_text(column, reading, pyarrow)]
    return _Plan(layers, numbered, kept)


def _is_text(column: Any, reading: _Reading, pyarrow: Any) -> bool:
    """Whether a column is kept: not bytes of images and the like, of which only the path is."""
    types = pyarrow.types
    if types.is_struct(column.type):
        return any(field.name == "path" and types.is_string(field.type) for field in column.type)
    is_bytes = (
        types.is_binary(column.type) or types.is_large_binary(column.type) or types.is_fixed_size_binary(column.type)
    )
    return not is_bytes or bool(reading.origin) or first_of([column.name], NAME_COLUMNS) is not None


def _add_batches(path: Path, reading: _Reading, plan: _Plan, batches: Iterator[Any], pyarrow: Any) -> None:
    for batch in batches:
        if not len(batch):
            continue
        at = batch.schema.get_field_index
        matrices = {layer: _matrix(batch.column(at(name)), path, pyarrow) for layer, name in plan.layers.items()}
        if plan.numbered:
            columns = [batch.column(at(name)).cast(pyarrow.float64()) for name in plan.numbered]
            numbers = [column.to_numpy(zero_copy_only=False) for column in columns]
            matrices[PENULTIMATE] = np.stack(numbers, axis=1).astype(np.float32)
        texts = {name: _texts(batch.column(at(name)), pyarrow) for name in plan.kept}
        reading.add(matrices, texts, str(path))


def _layers_of_columns(
    path: Path, reading: _Reading, schema: Any, lists: Sequence[str], pyarrow: Any
) -> tuple[dict[str, str], list[str]]:
    """The column of each layer, or the columns with one number each."""
    named = reading.own.get("vectors")
    if named is not None:
        if named not in schema.names:
            raise DatasetError(f"{path} has no column {named!r}; it has {listed(schema.names)}")
        return {PENULTIMATE: named}, []
    if reading.origin:
        return {name: name for name in reading.origin.get("layers", {}) if name in schema.names}, []
    if len(lists) == 1:
        return {PENULTIMATE: lists[0]}, []
    if lists:
        main = first_of(lists, VECTOR_COLUMNS)
        others = [
            name for name in lists if name != main and (main is None or re.search("emb|feat", name, re.IGNORECASE))
        ]
        return {**({PENULTIMATE: main} if main else {}), **{name: name for name in others}}, []
    numbers = [
        column.name
        for column in schema
        if pyarrow.types.is_floating(column.type)
        or (pyarrow.types.is_integer(column.type) and _NUMBERED.match(column.name))
    ]
    numbered = numbered_columns(numbers)
    if not numbered:
        raise DatasetError(
            f"{path} has no embeddings: expected a column with lists of numbers, or columns such as embedding_0, embedding_1, "
            f"...; found {listed(schema.names)}"
        )
    return {}, numbered


def _matrix(column: Any, path: Path, pyarrow: Any) -> np.ndarray:
    """The lists of a column as a matrix; NaN where one is missing."""
    lengths = pyarrow.compute.list_value_length(column) if column.null_count else None
    if lengths is None and (pyarrow.types.is_fixed_size_list(column.type) or _are_equal(column, pyarrow)):
        flat = column.flatten()
        if not flat.null_count:
            values = flat.to_numpy(zero_copy_only=False)
            found: np.ndarray = values.reshape(len(column), -1)
            return found if found.dtype in (np.float32, np.float16) else found.astype(np.float32)
    return _stacked(column.to_pylist(), path).astype(np.float32)


def _are_equal(column: Any, pyarrow: Any) -> bool:
    lengths = pyarrow.compute.min_max(pyarrow.compute.list_value_length(column)).as_py()
    return bool(lengths["min"] == lengths["max"] and lengths["min"])


def _texts(column: Any, pyarrow: Any) -> list[Any]:
    if pyarrow.types.is_struct(column.type):
        column = pyarrow.compute.struct_field(column, "path")
    if pyarrow.types.is_temporal(column.type):
        column = column.cast(pyarrow.string())
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return [_cell(value) for value in column.to_pylist()]


def _cell(value: Any) -> Any:
    """A value of a table as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return (
            "|".join(str(item) for item in value) if all(isinstance(item, str) for item in value) else json.dumps(value)
        )
    if isinstance(value, dict):
        named = value.get("path", value.get("label"))
        return named if isinstance(named, str) else ""
    return value


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(item, int | float) for item in value)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_READERS = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
}
