"""The formats of tables: text with separators, JSON, JSON Lines and Parquet, as columns of raw cells.

What the columns mean is left to ``table_roles``, and what their cells mean to ``table_rows``.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from featx.data.coco import is_coco, rows_of_coco
from featx.data.places import is_remote, local_path, place
from featx.errors import DatasetError
from featx.io.file_kinds import TABLE, misplaced
from featx.text import brief, shortened

TABLE_ENDINGS = (".csv", ".tsv", ".tab", ".txt", ".json", ".jsonl", ".ndjson", ".parquet")
"""The file endings of tables."""

EXPECTED = f"a table ({', '.join(TABLE_ENDINGS)})"

SEPARATORS: Mapping[str, str] = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
"""The separators that are found by themselves, with their names."""

_WORDS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}
"""Words for separators that are hard to type."""

_MOST_CELL = 1 << 24
"""The most characters of one cell of text."""

_BEGINNING = 1 << 20
"""Bytes of a table in which its header must end."""

_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class TableFile(Protocol):
    """A table that is open for reading.

    Attributes:
        where: the file, for messages.
        names: the names of its columns, in their order; one that occurs twice is there twice.
        notes: sentences for the user about how it is read.
        unit: what a row is called in messages: "line" or "entry".
        numbered: whether it has no header, so that its columns have the names "1", "2" and so on.
    """

    where: str
    names: Sequence[str]
    notes: list[str]
    unit: str
    numbered: bool

    def read(self, names: Collection[str]) -> tuple[Sequence[int], dict[str, Sequence[Any]]]:
        """Read some columns.

        Returns:
            The number of the line or entry of each row, and the cells of each column: text, or typed values of JSON and
            Parquet; None where there is no cell.

        Raises:
            DatasetError: the table is malformed, or one of the columns occurs twice.
        """
        ...

    def why_left_out(self, name: str) -> str:
        """Why a column cannot be read as one of text; "" if it can."""
        ...


def open_table(
    table: str | os.PathLike[str],
    *,
    separator: str | None = None,
    numbered: bool = False,
    fits: Callable[[Sequence[str]], bool] = lambda _: False,
) -> TableFile:
    """Open a table.

    Args:
        table: a local path, or a URL.
        separator: of a text table; None: found in its header.
        numbered: whether a text table has no header.
        fits: whether names are those of a table, which decides between separators.

    Raises:
        DatasetError: it cannot be read, or is malformed.
    """
    where = str(table)
    suffix = Path(where).suffix.lower()
    is_text = suffix not in (".json", ".jsonl", ".ndjson", ".parquet")
    if separator is not None and not is_text:
        raise DatasetError(f"--separator has no effect on {where}, whose cells have no separator")
    if numbered and not is_text:
        raise DatasetError(f"{where}: columns have numbers in text tables alone; expected the name of a column")
    with reading(where):
        if suffix == ".parquet":
            return _Parquet(where)
        if suffix == ".json":
            return _json(where)
        if not is_text:
            return _json_lines(where)
        return _Text(where, None if separator is None else checked_separator(separator), numbered, fits)


def checked_separator(text: str) -> str:
    r"""The separator that the user names: one character, or the word tab or space.

    Raises:
        DatasetError: it is neither.

    Examples:
        >>> checked_separator("tab"), checked_separator(";")
        ('\t', ';')
    """
    found = _WORDS.get(text.lower(), text)
    if len(found) != 1 or found in '"\r\n\0':
        raise DatasetError(
            f"--separator is {text[:50]!r}; expected one character such as ; or one of the words tab and space"
        )
    return found


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn what reading a table raises into an error that names it."""
    try:
        yield
    except DatasetError:
        raise
    except UnicodeDecodeError as error:
        if not is_remote(where) and (found := misplaced(local_path(where), EXPECTED, fits=[TABLE])):
            raise DatasetError(found) from error
        raise DatasetError(f"{where} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except UnicodeError as error:
        raise DatasetError(f"{where} is not text in UTF-16, as its first bytes say: {brief(error)}") from error
    except csv.Error as error:
        hint = "; is a closing quote missing?" if "field limit" in str(error) or "end of data" in str(error) else ""
        raise DatasetError(f"{where} is not a well-formed table: {error}{hint}") from error
    except OSError as error:
        raise DatasetError(f"cannot read {where}: {error.strerror or brief(error)}") from error


def refuse_twice(where: str, names: Sequence[str], wanted: Collection[str]) -> None:
    """Refuse two columns of the same name, of which only one could count."""
    for name in wanted:
        if (count := list(names).count(name)) > 1:
            raise DatasetError(f"{where}: there are {count} columns {name!r}; keep one of them")


# Text


class _Text:
    """A table of text; see ``TableFile``."""

    unit = "line"

    def __init__(
        self, where: str, separator: str | None, numbered: bool, fits: Callable[[Sequence[str]], bool]
    ) -> None:
        self.where, self.numbered = where, numbered
        self.notes: list[str] = []
        with _text(where) as file:
            beginning = file.read(_BEGINNING)
        first = beginning.partition("\n")[0].rstrip("\r")
        self._skip = 0
        if first.lower().startswith("sep=") and len(first) == 5:  # Excel's own way to name the separator
            self._skip, separator = 1, separator or first[4]
            beginning = beginning.partition("\n")[2]
        self.separator = separator or self._sniffed(beginning, fits)
        self.first_row = _first_row(beginning, self.separator)
        self.names: Sequence[str] = (
            [str(number) for number in range(1, len(self.first_row) + 1)]
            if numbered
            else [name.strip() for name in self.first_row]
        )

    def read(self, names: Collection[str]) -> tuple[Sequence[int], dict[str, Sequence[Any]]]:
        """As ``TableFile.read``."""
        refuse_twice(self.where, self.names, names)
        places = {name: self.names.index(name) for name in names if name in self.names}
        columns: dict[str, list[Any]] = {name: [] for name in places}
        same: dict[str, str] = {}  # one object for all cells of the same text
        numbers: list[int] = []
        width = len(self.names)
        with reading(self.where), _text(self.where) as file, _long_cells():
            for _ in range(self._skip):
                file.readline()
            reader = _reader(file, self.separator)
            if not self.numbered:
                next((cells for cells in reader if any(cells)), None)
            for cells in reader:
                number = reader.line_num + self._skip
                if len(cells) > width and any(cell.strip() for cell in cells[width:]):
                    found = "the first line" if self.numbered else "the header"
                    raise DatasetError(f"{self.where}, line {number}: more fields than {found} has")
                if not any(cells):
                    continue
                numbers.append(number)
                for name, place_ in places.items():
                    cell = cells[place_].strip() if place_ < len(cells) else None
                    columns[name].append(cell if cell is None else same.setdefault(cell, cell))
        return numbers, {**columns}

    def why_left_out(self, name: str) -> str:
        """As ``TableFile.why_left_out``."""
        return _twice(self.names, name)

    def _sniffed(self, beginning: str, fits: Callable[[Sequence[str]], bool]) -> str:
        usual = "\t" if Path(self.where).suffix.lower() in (".tsv", ".tab") else ","
        headers = {separator: _first_row(beginning, separator) for separator in SEPARATORS}
        if fits(headers[usual]) and len(headers[usual]) > 1:
            return usual
        fitting = [separator for separator, names in headers.items() if len(names) > 1 and fits(names)]
        several = [separator for separator, names in headers.items() if len(names) > 1]
        if len(headers[usual]) > 1 and not fitting:
            return usual
        found = fitting if len(fitting) == 1 else [] if fits(headers[usual]) else several
        if len(found) != 1 or found == [usual]:
            return usual
        self.notes.append(f"{Path(self.where).name}: the cells are separated by a {SEPARATORS[found[0]]}")
        return found[0]


def _first_row(beginning: str, separator: str) -> list[str]:
    try:
        with _long_cells():
            return next((cells for cells in _reader(io.StringIO(beginning, newline=""), separator) if any(cells)), [])
    except csv.Error:
        return []


def _reader(lines: Iterable[str], separator: str) -> Any:
    return csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=separator == " ")


@contextlib.contextmanager
def _text(where: str) -> Iterator[TextIO]:
    """A table as text: UTF-8, or UTF-16 with a byte order mark, as spreadsheets export it."""
    with place(where).open() as raw:
        start = raw.read(4)
        raw.seek(0)
        encoding = next((name for mark, name in _BOMS if start.startswith(mark)), "utf-8")
        with io.TextIOWrapper(raw, encoding=encoding, newline="") as file:
            yield file


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(_MOST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _twice(names: Sequence[str], name: str) -> str:
    count = list(names).count(name)
    return f"there are {count} columns of this name" if count > 1 else ""


# JSON


class _Objects:
    """A table of objects of JSON; see ``TableFile``."""

    numbered = False

    def __init__(
        self,
        where: str,
        unit: str,
        rows: Sequence[tuple[int, Mapping[str, Any]]],
        twice: Mapping[str, int],
        notes: list[str],
    ) -> None:
        if not rows:
            raise DatasetError(f"{where} has no rows")
        self.where, self.unit, self.notes = where, unit, notes
        self._rows, self._repeated = rows, twice
        self.names: Sequence[str] = list(dict.fromkeys(str(name) for _, row in rows for name in row))

    def read(self, names: Collection[str]) -> tuple[Sequence[int], dict[str, Sequence[Any]]]:
        """As ``TableFile.read``."""
        for name in names:
            if name in self._repeated:
                refuse_twice(f"{self.where}, {self.unit} {self._repeated[name]}", [name, name], [name])
        found: dict[str, Sequence[Any]] = {
            name: [row.get(name) for _, row in self._rows] for name in names if name in self.names
        }
        return [number for number, _ in self._rows], found

    def why_left_out(self, name: str) -> str:
        """As ``TableFile.why_left_out``."""
        return "it occurs twice in one object" if name in self._repeated else ""


def _json_lines(where: str) -> _Objects:
    rows: list[tuple[int, Mapping[str, Any]]] = []
    twice: dict[str, int] = {}
    with _text(where) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row = _parsed(line, f"{where}, line {number}", twice, number)
            if not isinstance(row, dict):
                raise DatasetError(
                    f'{where}, line {number}: expected an object such as {{"path": ..., "label": ...}}, found '
                    f"{line.strip()[:100]!r}"
                )
            rows.append((number, row))
    return _Objects(where, "line", rows, twice, [])


def _json(where: str) -> _Objects:
    """A file of JSON: a list of objects, columns as pandas writes them, or annotations in the form of COCO.

    Raises:
        DatasetError: it is something else.
    """
    twice: dict[str, int] = {}
    with _text(where) as file:
        found = _parsed(file.read(), where, twice, 1)
    expected = "expected a list of objects, one for each image"
    notes: list[str] = []
    if is_coco(found):
        found, about = rows_of_coco(found, where)
        notes = [f"{Path(where).name}: {note}" for note in about]
        twice = {}
    elif isinstance(found, dict):
        found = _rows_of_columns(found)
        if found is None:
            raise DatasetError(f"{where}: found a JSON object that is no table; {expected} (pandas: orient='records')")
    if not isinstance(found, list):
        raise DatasetError(f"{where}: found {shortened(found)}; {expected}")
    for number, row in enumerate(found, start=1):
        if not isinstance(row, dict):
            raise DatasetError(f"{where}, entry {number}: found {shortened(row)}; {expected}")
    return _Objects(where, "entry", list(enumerate(found, start=1)), twice, notes)


def _rows_of_columns(found: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of an object of columns, each a list, or an object of cells by the index of the row; None for other objects."""
    columns = list(found.values())
    if columns and all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        return [dict(zip(found, cells, strict=True)) for cells in zip(*columns, strict=True)]
    if columns and all(isinstance(column, dict) and column.keys() == columns[0].keys() for column in columns):
        return [{name: column[index] for name, column in found.items()} for index in columns[0]]
    return None


def _parsed(text: str, where: str, twice: dict[str, int], number: int) -> Any:
    """Parse JSON; names that occur twice in an object go to ``twice``, with the number of its line."""

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice.update({name: number for name, count in counts.items() if count > 1 and name not in twice})
        return found

    try:
        return json.loads(text, object_pairs_hook=noted)
    except RecursionError as error:
        raise DatasetError(f"{where}: the JSON is nested too deeply") from error
    except ValueError as error:  # not JSON, or a number of thousands of digits
        raise DatasetError(f"{where}: not JSON: {brief(error)}") from error


# Parquet


class _Parquet:
    """A Parquet file; see ``TableFile``."""

    unit, numbered = "line", False

    def __init__(self, where: str) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise DatasetError(f"reading {where} needs pyarrow: pip install 'featx[parquet]'") from error
        self.where = where
        self.notes: list[str] = []
        self._arrow = pyarrow
        with self._opened() as file:
            self._schema = file.schema_arrow
        self.names: Sequence[str] = self._schema.names

    def read(self, names: Collection[str]) -> tuple[Sequence[int], dict[str, Sequence[Any]]]:
        """As ``TableFile.read``."""
        refuse_twice(self.where, self.names, names)
        present = [name for name in names if name in self.names]
        columns: dict[str, list[Any]] = {name: [] for name in present}
        with self._opened() as file:
            for batch in file.iter_batches(columns=present):
                for name in present:
                    columns[name] += self._values(batch.column(name))
            rows = file.metadata.num_rows
        return range(1, rows + 1), {**columns}

    def why_left_out(self, name: str) -> str:
        """As ``TableFile.why_left_out``."""
        if fault := _twice(self.names, name):
            return fault
        kind, types = self._schema.field(name).type, self._arrow.types
        if types.is_dictionary(kind):
            kind = kind.value_type
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            inner = kind.value_type
            if types.is_floating(inner) or types.is_nested(inner) or types.is_binary(inner):
                return f"its cells are of type {kind}"
            return ""
        is_bytes = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
        return f"its cells are of type {kind}" if types.is_nested(kind) or is_bytes else ""

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow.parquet

        try:
            with reading(self.where), place(self.where).open() as source, pyarrow.parquet.ParquetFile(source) as file:
                yield file
        except self._arrow.ArrowException as error:
            raise DatasetError(f"{self.where} is not a Parquet file that can be read: {brief(error)}") from error

    def _values(self, column: Any) -> list[Any]:
        """The values of a column in Python; times as text, since those in nanoseconds have no other form there."""
        if self._arrow.types.is_temporal(column.type):
            column = column.cast(self._arrow.string())
        values: list[Any] = column.to_pylist()
        return values
