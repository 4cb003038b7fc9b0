"""Images named by a table: CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import itertools
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from featx.data.cells import cell_text, label_text, path_text
from featx.data.image_set import SPLIT_NAMES, ImageSet, assemble
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.split_names import splits_of_cells
from featx.data.store import FolderStore, ImageFile
from featx.errors import DatasetError
from featx.io.file_kinds import TABLE, misplaced
from featx.text import brief, listed

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
"""The file endings of tables."""

_LONGEST_PATH = 4096
"""The most characters of a path that a system can open."""

_MANY_MISSING = 0.1
"""The share of missing files above which their note is a warning."""

EXPECTED = f"a table ({', '.join(TABLE_ENDINGS)})"

OPTIONS: Collection[str] = ()
"""The options of the source; see ``featx.data.scan.Source``."""


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the data are a file whose ending is that of a table."""
    return Path(data).is_file() and Path(data).suffix.lower() in TABLE_ENDINGS


def scan(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """List the images that a table names; ``scan_images`` describes the columns."""
    table = Path(data)
    notes: list[str] = []
    rows = _distinct_rows(table, notes)
    notes += _note_missing(table, list(rows))
    names = {row.split for row in rows.values()}
    if "" in names and len(names) > 1:
        without = [row.line for row in rows.values() if not row.split]
        raise DatasetError(
            f"{table}: {len(without)} rows have no split (lines {listed(without)}), the others do; "
            "name one in every row or in none"
        )
    known = splits_of_cells(sorted(names))
    notes += (
        f"{table.name}: the split {name!r} is read as {split}"
        for name, split in known.items()
        if split != name and name.lower() not in SPLIT_NAMES
    )
    if any(row.label.startswith("[") and row.label.endswith("]") for row in rows.values()):
        example = next(row.label for row in rows.values() if row.label.startswith("[") and row.label.endswith("]"))
        notes.append(
            f"{table.name}: labels such as {example!r} look like lists, but are text, so each is read as one class; several "
            "labels are written cat|dog, or as a list in .jsonl or .parquet"
        )
    return assemble(
        table.stem,
        FolderStore(table.parent.resolve()),  # of a link, too: the blobs of a hub are links to elsewhere
        list(rows),
        [row.label or None for row in rows.values()],
        [known[row.split] for row in rows.values()],
        notes,
        table=table.parent.resolve() / table.name,
        options=options,
    )


def list_images(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> list[ImageFile]:  # noqa: ARG001 - of every source
    """List the files in the column path of a table, in its order. They need not exist, and no other column is needed.

    Raises:
        DatasetError: the table cannot be read, has no rows or an empty path.
    """
    table, paths = Path(data), []
    store = FolderStore(table.parent)
    for number, row in read_table(table, required=("path",)):
        if not row["path"]:
            raise DatasetError(f"{table}, line {number}: the path is empty")
        paths.append(ImageFile(store, row["path"]))
    if not paths:
        raise DatasetError(f"{table} has no rows")
    return paths


def read_labels(table: Path) -> dict[str, tuple[str, str]]:
    """The label and the split of each image of a table by its path, as they stand there; "" for none.

    Raises:
        DatasetError: the table cannot be read, is malformed, or contradicts itself.
    """
    return {path: (row.label, row.split) for path, row in _distinct_rows(table, []).items()}


class _Row(NamedTuple):
    """What a table states about one image, and in which line."""

    label: str
    split: str
    line: int


def _distinct_rows(table: Path, notes: list[str]) -> dict[str, _Row]:
    """The rows of a table by path; a note counts those that repeat another.

    Raises:
        DatasetError: there are no rows, a path is empty or too long, or two rows contradict each other.
    """
    rows: dict[str, _Row] = {}
    repeated = []
    for number, cells in read_table(table, optional=("split",)):
        if not cells["path"]:
            raise DatasetError(f"{table}, line {number}: the path is empty")
        path = Path(cells["path"]).as_posix()  # "./a.jpg" and "a.jpg" are one image
        if len(path) > _LONGEST_PATH:
            raise DatasetError(
                f"{table}, line {number}: the path has {len(path):,} characters, {path[:40]!r}...; expected at most "
                f"{_LONGEST_PATH:,}"
            )
        row = _Row(cells["label"], cells.get("split", ""), number)
        before = rows.setdefault(path, row)
        if before is not row:
            if before[:2] != row[:2]:
                raise DatasetError(
                    f"{table}: {path!r} is on line {before.line} as label {before.label!r}, split {before.split!r} and on line "
                    f"{number} as label {row.label!r}, split {row.split!r}; keep one of them"
                )
            repeated.append(number)
    if not rows:
        raise DatasetError(f"{table} has no rows")
    if repeated:
        notes.append(f"{table.name}: {len(repeated)} rows repeat an earlier one and are left out ({listed(repeated)})")
    return rows


def _note_missing(table: Path, paths: Sequence[str]) -> Iterator[str]:
    """A note that counts the files that are not there, each of which fails alone.

    Raises:
        DatasetError: none of them is there.
    """
    missing = [path for path in paths if not _is_file(os.path.join(table.parent, path))]  # noqa: PTH118 - Path is slow
    if not missing:
        return
    where = f"that are not there, relative to {table.parent.resolve()}: {listed(missing)}"
    if len(missing) == len(paths):
        hint = "; write paths with / instead of \\" if all("\\" in path for path in paths) else ""
        raise DatasetError(f"{table} names {len(missing)} files {where}{hint}")
    share = len(missing) / len(paths)
    warning = "Warning: " if share > _MANY_MISSING else ""
    yield (
        f"{warning}{table.name} names {len(missing)} of {len(paths)} files ({share:.1%}) {where}. These fail, the others "
        "are used"
    )


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - Path takes several times as long
    except (OSError, ValueError):
        return False


def read_table(
    table: Path, required: Sequence[str] = ("path", "label"), optional: Sequence[str] = ()
) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the rows of a table with their line numbers.

    Text stays as it is, without spaces around it: the class NA stays "NA", and 01 stays "01". Typed cells of JSON and Parquet
    become text as ``featx.data.cells`` describes; a list in the column label is several labels.

    Args:
        table: a .csv, .tsv, .jsonl or .parquet file.
        required: the columns that it must have.
        optional: further columns to read.

    Yields:
        The number of the line, and the text of each column of the row; "" for columns that are neither required nor optional.

    Raises:
        DatasetError: the table cannot be read, is malformed, has a cell of an unexpected type, lacks a column, or has one of
            these columns twice.
    """
    suffix, wanted = table.suffix.lower(), (*required, *optional)
    formats = {".parquet": _read_parquet, ".jsonl": _read_jsonl}
    try:
        for number, row in formats.get(suffix, _read_csv)(table, required, wanted):
            yield number, {name: _text(table, number, name, row[name]) if name in wanted else "" for name in row}
    except UnicodeDecodeError as error:
        if found := misplaced(table, EXPECTED, fits=[TABLE]):
            raise DatasetError(found) from error
        raise DatasetError(f"{table} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise DatasetError(f"{table} is not a well-formed table: {error}") from error
    except OSError as error:
        raise DatasetError(f"cannot read {table}: {error.strerror or brief(error)}") from error


_Rows = Iterator[tuple[int, Mapping[str, Any]]]


def _text(table: Path, number: int, column: str, value: Any) -> str:
    try:
        return {"label": label_text, "path": path_text}.get(column, cell_text)(value)
    except ValueError as error:
        raise DatasetError(f"{table}, line {number}: the {column} {error}") from error


def _read_csv(table: Path, required: Sequence[str], wanted: Sequence[str]) -> _Rows:
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if table.suffix.lower() == ".tsv" else ",", strict=True)
        columns = [name.strip() for name in next(reader, [])]
        _require_columns(table, columns, required, wanted)
        for cells in reader:
            if len(cells) > len(columns):
                raise DatasetError(f"{table}, line {reader.line_num}: more fields than the header has")
            if cells:
                yield reader.line_num, dict(itertools.zip_longest(columns, cells))


def _read_jsonl(table: Path, required: Sequence[str], wanted: Sequence[str]) -> _Rows:
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            _refuse_twice(f"{table}, line {number}", [name for name, _ in pairs], wanted)
        return found

    with table.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=distinct)
            except DatasetError:
                raise
            except RecursionError as error:
                raise DatasetError(f"{table}, line {number}: the JSON is nested too deeply") from error
            except ValueError as error:  # not JSON, or a number of thousands of digits
                raise DatasetError(f"{table}, line {number}: not JSON: {brief(error)}") from error
            if not isinstance(row, dict):
                raise DatasetError(
                    f"{table}, line {number}: expected an object with {' and '.join(required)}, found "
                    f"{line.strip()[:100]!r}"
                )
            _require_columns(f"{table}, line {number}", row, required, wanted)
            yield number, row


def _read_parquet(table: Path, required: Sequence[str], wanted: Sequence[str]) -> _Rows:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(f"reading {table} needs pyarrow: pip install 'featx[parquet]'") from error
    try:
        with pyarrow.parquet.ParquetFile(table) as file:
            names = file.schema_arrow.names
            _require_columns(table, names, required, wanted)
            present = [name for name in dict.fromkeys(wanted) if name in names]
            number = 0
            for batch in file.iter_batches(columns=present):
                columns = {name: _values(pyarrow, batch.column(name)) for name in present}
                for cells in zip(*columns.values(), strict=True):
                    number += 1
                    yield number, {**dict.fromkeys(names), **dict(zip(present, cells, strict=True))}
    except pyarrow.ArrowException as error:
        raise DatasetError(f"{table} is not a Parquet file that can be read: {brief(error)}") from error


def _values(pyarrow: Any, column: Any) -> list[Any]:
    """The values of a column in Python; times as text, since those in nanoseconds have no other form there."""
    if pyarrow.types.is_temporal(column.type):
        column = column.cast(pyarrow.string())
    values: list[Any] = column.to_pylist()
    return values


def _require_columns(where: Path | str, columns: Iterable[str], required: Sequence[str], wanted: Sequence[str]) -> None:
    found = list(columns)
    missing = [name for name in required if name not in found]
    if missing:
        raise DatasetError(
            f"{where}: there is no column {' or '.join(missing)}; found {', '.join(map(repr, found)) or 'none'}, "
            f"expected {', '.join(required)}{' and, optionally, split' if 'label' in required else ''}"
        )
    _refuse_twice(where, found, wanted)


def _refuse_twice(where: Path | str, columns: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse two columns of the same name, of which only one could count."""
    twice = [name for name in dict.fromkeys(wanted) if columns.count(name) > 1]
    if twice:
        raise DatasetError(f"{where}: there are {columns.count(twice[0])} columns {twice[0]!r}; keep one of them")
