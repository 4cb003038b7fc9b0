"""Tables of JSON: an object on each line, or a file in one of the forms of ``json_shapes``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from featx.data.json_shapes import rows_of_json
from featx.data.table_base import Fits, open_text, refuse_twice
from featx.errors import DatasetError
from featx.text import brief, shortened

_LINES = (".jsonl", ".ndjson")


class JsonTable:
    """A table of objects of JSON; see ``featx.data.table_base.TableFile``.

    Args:
        where: the file.
        unit: what a row is called.
        rows: the number and the object of each row.
        twice: names that occur twice in an object, with its number.
        notes: sentences for the user.
        asked: names of columns that the options name; ``label.name`` is the value ``name`` in the objects of the column label.
    """

    numbered = False

    def __init__(
        self,
        where: str,
        unit: str,
        rows: Sequence[tuple[int, Mapping[str, Any]]],
        twice: Mapping[str, int],
        notes: list[str],
        asked: Collection[str] = (),
    ) -> None:
        if not rows:
            raise DatasetError(f"{where} has no rows")
        self.where, self.unit, self.notes = where, unit, notes
        self._rows, self._repeated = rows, twice
        names = list(dict.fromkeys(str(name) for _, row in rows for name in row))
        self._inner = {
            name: name.split(".")
            for name in asked
            if name not in names and any(_inside(row, name.split(".")) is not None for _, row in rows)
        }
        self.names: Sequence[str] = [*names, *self._inner]

    def read(self, names: Collection[str]) -> tuple[Sequence[int], dict[str, Sequence[Any]]]:
        """As ``TableFile.read``."""
        for name in names:
            if name in self._repeated:
                refuse_twice(f"{self.where}, {self.unit} {self._repeated[name]}", [name, name], [name])
        found: dict[str, Sequence[Any]] = {
            name: [_inside(row, self._inner[name]) if name in self._inner else row.get(name) for _, row in self._rows]
            for name in names
            if name in self.names
        }
        return [number for number, _ in self._rows], found

    def why_left_out(self, name: str) -> str:
        """As ``TableFile.why_left_out``."""
        return "it occurs twice in one object" if name in self._repeated else ""


def read_json(where: str, fits: Fits, asked: Collection[str]) -> JsonTable:
    """Read a table of JSON; its content decides whether that is a file of JSON or of JSON lines.

    Args:
        where: a local path, or a URL.
        fits: decides what an object of objects holds.
        asked: as for ``JsonTable``.

    Raises:
        DatasetError: it is no table.
    """
    return _json_lines(where, asked) if _has_lines(where) else _json(where, fits, asked)


def _has_lines(where: str) -> bool:
    """Whether each line is JSON: as its ending states, unless it begins as a list; or if the first of several is an object."""
    is_named_so = Path(where.partition("?")[0]).suffix.lower() in _LINES
    with open_text(where) as file:
        first = next((line for line in file if line.strip()), "")
        if is_named_so:
            return not first.lstrip().startswith("[")
        if not any(line.strip() for line in file):
            return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _json_lines(where: str, asked: Collection[str]) -> JsonTable:
    rows: list[tuple[int, Mapping[str, Any]]] = []
    twice: dict[str, int] = {}
    with open_text(where) as file:
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
    return JsonTable(where, "line", rows, twice, [], asked)


def _json(where: str, fits: Fits, asked: Collection[str]) -> JsonTable:
    twice: dict[str, int] = {}
    with open_text(where) as file:
        content = _parsed(file.read(), where, twice, 1)
    found, notes = rows_of_json(content, where, fits)
    for number, row in enumerate(found, start=1):
        if not isinstance(row, dict):
            raise DatasetError(
                f"{where}, entry {number}: found {shortened(row)}; expected a list of objects, one for each image"
            )
    if found is not content:
        notes = [f"{Path(where).name}: {note}" for note in notes]
        twice = {name: number for name, number in twice.items() if any(name in row for row in found)}
    return JsonTable(where, "entry", list(enumerate(found, start=1)), twice, notes, asked)


def _inside(row: Any, names: Sequence[str]) -> Any:
    """The value at a path of names in nested objects, and of numbers in lists; None if there is none."""
    for name in names:
        if isinstance(row, dict):
            row = row.get(name)
        elif isinstance(row, list) and name.isdecimal() and int(name) < len(row):
            row = row[int(name)]
        else:
            return None
    return row


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
