"""Images named by a table: CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from featx.data.image_set import SPLIT_NAMES, ImageSet, assemble
from featx.errors import DatasetError
from featx.text import listed

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
"""The file endings of tables."""


EXPECTED = f"a table ({', '.join(TABLE_ENDINGS)})"


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the data are a file whose ending is that of a table."""
    return Path(data).is_file() and Path(data).suffix.lower() in TABLE_ENDINGS


def scan(data: str | os.PathLike[str]) -> ImageSet:
    """List the images that a table names; ``scan_images`` describes the columns."""
    table = Path(data)
    rows = list(read_table(table))
    if not rows:
        raise DatasetError(f"{table} has no rows")
    notes: list[str] = []
    labels: dict[str, tuple[str, str, int]] = {}
    repeated = []
    for number, row in rows:
        path = cell_text(row.get("path"))
        if not path:
            raise DatasetError(f"{table}, line {number}: the path is empty")
        path = Path(path).as_posix()  # "./a.jpg" and "a.jpg" are one image
        entry = (cell_text(row.get("label")), cell_text(row.get("split")), number)
        before = labels.setdefault(path, entry)
        if before is not entry:
            if before[:2] != entry[:2]:
                raise DatasetError(
                    f"{table}: {path!r} is on line {before[2]} as label {before[0]!r}, split {before[1]!r} and on line "
                    f"{number} as label {entry[0]!r}, split {entry[1]!r}; keep one of them"
                )
            repeated.append(number)
    if repeated:
        notes.append(f"{table.name}: {len(repeated)} rows repeat an earlier one and are left out ({listed(repeated)})")
    missing = [path for path in labels if not (table.parent / path).is_file()]
    if missing:
        raise DatasetError(
            f"{table} names {len(missing)} files that are not there, relative to {table.resolve().parent}: {listed(missing)}"
        )
    splits = [SPLIT_NAMES.get(split.lower(), split) for _, split, _ in labels.values()]
    if any(splits) and not all(splits):
        rows_without = [number for _, split, number in labels.values() if not split]
        raise DatasetError(
            f"{table}: {len(rows_without)} rows have no split (lines {listed(rows_without)}), the others do; "
            "name one in every row or in none"
        )
    names = [name or None for name, _, _ in labels.values()]
    images = assemble(table.stem, table.resolve().parent, list(labels), names, splits, notes)
    return dataclasses.replace(images, table=table.resolve())


def list_images(table: Path) -> list[Path]:
    """List the files in the column path of a table, in its order. They need not exist, and no other column is needed.

    Raises:
        DatasetError: the table cannot be read, has no rows or an empty path.
    """
    paths = []
    for number, row in read_table(table, required=("path",)):
        path = cell_text(row.get("path"))
        if not path:
            raise DatasetError(f"{table}, line {number}: the path is empty")
        paths.append(table.parent / path)
    if not paths:
        raise DatasetError(f"{table} has no rows")
    return paths


def read_table(table: Path, required: Sequence[str] = ("path", "label")) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the rows of a table with their line numbers. CSV values stay text: the class NA stays "NA", and 01 stays "01".

    Args:
        table: a .csv, .tsv, .jsonl or .parquet file.
        required: the columns that it must have.

    Raises:
        DatasetError: the table cannot be read, is malformed, or lacks a column.
    """
    suffix = table.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from enumerate(_read_parquet(table, required), start=1)
        elif suffix == ".jsonl":
            yield from _read_jsonl(table, required)
        else:
            with table.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",", strict=True)
                _require_columns(table, [name.strip() for name in reader.fieldnames or []], required)
                for row in reader:
                    if (
                        None in row
                    ):  # DictReader's key for surplus fields; the key "" is the column that pandas writes for its index
                        raise DatasetError(f"{table}, line {reader.line_num}: more fields than the header has")
                    yield reader.line_num, {key.strip(): value for key, value in row.items()}
    except UnicodeDecodeError as error:
        raise DatasetError(f"{table} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise DatasetError(f"{table} is not a well-formed table: {error}") from error
    except OSError as error:
        raise DatasetError(f"cannot read {table}: {error.strerror}") from error


def _read_jsonl(table: Path, required: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with table.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DatasetError(f"{table}, line {number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise DatasetError(
                    f"{table}, line {number}: expected an object with {' and '.join(required)}, found {line.strip()!r}"
                )
            _require_columns(table, row, required, line=number)
            yield number, row


def _read_parquet(table: Path, required: Sequence[str]) -> list[Mapping[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(f"reading {table} needs pyarrow: pip install 'featx[parquet]'") from error
    try:
        columns = pyarrow.parquet.read_table(table)
    except pyarrow.ArrowInvalid as error:
        raise DatasetError(f"{table} is not a Parquet file: {error}") from error
    _require_columns(table, columns.column_names, required)
    rows: list[Mapping[str, Any]] = columns.to_pylist()
    return rows


def _require_columns(table: Path, columns: Iterable[str], required: Sequence[str], *, line: int = 0) -> None:
    found = list(columns)
    missing = [name for name in required if name not in found]
    if missing:
        where = f"{table}, line {line}" if line else str(table)
        raise DatasetError(
            f"{where}: there is no column {' or '.join(missing)}; found {', '.join(map(repr, found)) or 'none'}, "
            f"expected {', '.join(required)}{' and, optionally, split' if 'label' in required else ''}"
        )


def cell_text(value: Any) -> str:
    """The stripped text of a cell; "" if it is empty."""
    return "" if value is None else str(value).strip()
