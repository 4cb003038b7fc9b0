"""Names of vectors in a list or a table beside them, or in one that the user names."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from featx.errors import DatasetError
from featx.features.exchange.read_tables import text_columns
from featx.features.exchange.sort_arrays import take_columns
from featx.features.exchange.vectors import (
    NAME_COLUMNS,
    TABLE_ENDINGS,
    Vectors,
    first_of,
    lines_of,
    require_count,
    unique_texts,
)
from featx.layer_spec import PENULTIMATE
from featx.text import brief, counted, listed

FILE_NAMES = "file_names.txt"
"""The list that thingsvision writes."""

_LISTS = ("filenames.txt", "names.txt", "paths.txt")


def list_beside(path: Path) -> Path | None:
    """The list or table of names that lies beside a file of vectors; beside a table only a list is one."""
    stem = path.stem
    names = [f"{stem}.txt", f"{stem}_names.txt", f"{stem}.names.txt", FILE_NAMES, *_LISTS]
    if path.suffix.lower() not in TABLE_ENDINGS:
        names = [f"{stem}.csv", f"{stem}.json", *names]
    return next((file for name in names if (file := path.with_name(name)) != path and file.is_file()), None)


def is_list_of_names(path: Path) -> bool:
    """Whether a text file holds names and not numbers."""
    if path.suffix.lower() != ".txt":
        return False
    with path.open("rb") as file:
        first = file.readline(4096).split()
    try:
        return not [float(part.strip(b",")) for part in first]
    except ValueError:
        return True


def add_names(found: Vectors, path: Path | None, own: Mapping[str, str | None] | None = None) -> None:
    """Take the names, and the labels and splits if there are any, of a file in the order of the vectors.

    Args:
        found: the vectors, which get them.
        path: a list or a table; nothing is done without one.
        own: the columns that the user names.

    Raises:
        DatasetError: it cannot be read, or has another length.
    """
    if path is None:
        return
    held = _table_of_names(path, own or {})
    require_count(len(held), len(found), "name", str(path))
    found.names, found.keys, found.columns = held.names, held.keys, found.columns | held.columns
    found.labels, found.splits = held.labels or found.labels, held.splits or found.splits
    found.roles |= held.roles
    found.notes.append(f"the names of the vectors are those of {path.name}")


def _table_of_names(path: Path, own: Mapping[str, str | None]) -> Vectors:
    """Names, labels, splits, further columns and keys of a list or table that is as long as the vectors."""
    if not path.is_file():
        raise DatasetError(f"there is no file {path} of names")
    if path.suffix.lower() == ".parquet":
        columns = text_columns(path)
    elif path.suffix.lower() in (".csv", ".tsv"):
        columns = csv_columns(path)
    elif path.suffix.lower() in (".json", ".jsonl"):
        found = _json_columns(path)
        if isinstance(found, list):
            return _named(found)
        columns = found
    else:
        return _named(lines_of(path))
    name = own.get("names") or first_of(list(columns), NAME_COLUMNS)
    if name is None or name not in columns:
        raise DatasetError(f"{path} has no column of names; it has {listed(list(columns)) or 'none'}")
    held = _named(columns.pop(name))
    held.roles["names"] = name
    take_columns(held, columns, str(path))
    return held


def _named(names: list[str]) -> Vectors:
    """Names without vectors."""
    return Vectors("names", {PENULTIMATE: np.empty((len(names), 1), np.float32)}, names=names)


def _json_columns(path: Path) -> list[str] | dict[str, list[str]]:
    """A list of names, or the columns of a list of objects."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = path.suffix.lower() == ".jsonl"
        found = [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON that can be read: {brief(error)}") from error
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        return found
    if isinstance(found, list) and all(isinstance(item, dict) for item in found):
        names = dict.fromkeys(name for item in found for name in item)
        return {name: unique_texts(item.get(name) for item in found) for name in names}
    raise DatasetError(f"{path} is no list of names; expected a list of texts or of objects")


def csv_columns(path: Path) -> dict[str, list[str]]:
    """The columns of a text table by their names, with a tab between cells in a .tsv file and a comma in others.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a table that can be read: {error}") from error
    header, *rows = rows or [[]]
    rows = [row for row in rows if row]
    wrong = next((row for row in rows if len(row) != len(header)), None)
    if wrong is not None:
        raise DatasetError(
            f"{path} has a row of {counted(len(wrong), 'cell')}; expected {len(header)}, as in its header"
        )
    return {name.strip(): [row[at] for row in rows] for at, name in enumerate(header)}
