"""Tables of text with separators: which one stands between the cells, which row is the header, and what is a comment."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from featx.data.formats import ENDINGS
from featx.data.table_base import Fits, open_text, reading, refuse_twice, why_twice
from featx.errors import DatasetError
from featx.text import counted

SEPARATORS: Mapping[str, str] = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
"""The separators that are found by themselves, with their names."""

_WORDS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}
"""Words for separators that are hard to type."""

_MOST_CELL = 1 << 24
"""The most characters of one cell of text."""

_BEGINNING = 1 << 20
"""Bytes of a table in which its header must end."""

_COMMENT = "#"

_ROW_NAMES = "path"
"""The name of a first column of names of images that the header leaves out."""

_SAMPLE = 20
"""Rows of which the cells are counted, to find out whether there is such a column."""


class TextTable:
    """A table of text; see ``featx.data.table_base.TableFile``.

    Rows that begin with ``#`` and name no image are comments, as in the list of Oxford-IIIT Pets, if they are the minority. The
    first other row is the header, or a comment before it that fits one.

    Args:
        where: a local path, or a URL.
        separator: one character; None: found in the header.
        numbered: if there is no header, the number of the last column that is asked for; 0 if there is one. Where words are
            cells, and lines have more and fewer of them, that column is the rest of each line.
        fits: decides between separators.
    """

    unit = "line"

    def __init__(self, where: str, separator: str | None, numbered: int, fits: Fits) -> None:
        self.where, self.numbered, self._fits = where, numbered > 0, fits
        self.notes: list[str] = []
        with open_text(where) as file:
            beginning = file.read(_BEGINNING)
        first = beginning.partition("\n")[0].rstrip("\r")
        self._skip = 0
        if first.lower().startswith("sep=") and len(first) == 5:  # Excel's own way to name the separator
            self._skip, separator = 1, separator or first[4]
            beginning = beginning.partition("\n")[2]
        elif first.strip().isdecimal() and _is_count(where, int(first)):
            self._skip, beginning = 1, beginning.partition("\n")[2]
            self.notes.append(f"{Path(where).name}: the first line, {first.strip()}, is read as the number of rows")
        self.separator = separator or self._sniffed(beginning)
        self._header, self.first_row = self._first_row(beginning, self.separator)
        self.names: Sequence[str] = (
            [str(number) for number in range(1, len(self.first_row) + 1)] if numbered else _names(self.first_row)
        )
        if not numbered and _has_row_names(beginning, self.separator, self.names):
            self.names = [_ROW_NAMES, *(name for name in self.names if name)]
            self.notes.append(
                f"{Path(where).name}: the header has no name for the first column, which is read as the path"
            )
        self._last = 0
        if numbered and self.separator == " " and len(self.names) >= numbered:
            self._take_rest(numbered)

    def read(self, names: Collection[str]) -> tuple[Sequence[int], dict[str, Sequence[Any]]]:
        """As ``TableFile.read``."""
        refuse_twice(self.where, self.names, names)
        places = {name: self.names.index(name) for name in names if name in self.names}
        columns: dict[str, list[Any]] = {name: [] for name in places}
        same: dict[str, str] = {}  # one object for all cells of the same text
        numbers: list[int] = []
        comments: list[int] = []
        width, wide = len(self.names), 0
        with reading(self.where), open_text(self.where) as file, _long_cells():
            for number, found in self._rows(file):
                cells = [*found[: self._last - 1], " ".join(found[self._last - 1 :])] if self._last else found
                is_comment = _is_comment(cells)
                if len(cells) > width and any(cell.strip() for cell in cells[width:]):
                    if is_comment:
                        wide += 1
                        continue
                    most = "the first line" if self.numbered else "the header"
                    raise DatasetError(f"{self.where}, line {number}: more fields than {most} has")
                if is_comment:
                    comments.append(len(numbers))
                numbers.append(number)
                for name, place_ in places.items():
                    cell = cells[place_].strip() if place_ < len(cells) else None
                    columns[name].append(cell if cell is None else same.setdefault(cell, cell))
        if 2 * len(comments) > len(numbers):  # names begin so here
            comments = []
        if count := wide + len(comments):
            self.notes.append(f"{Path(self.where).name}: {counted(count, 'line')} of comments (#) left out")
        if comments:
            keep = np.ones(len(numbers), dtype=bool)
            keep[comments] = False
            numbers = list(compress(numbers, keep))
            columns = {name: list(compress(cells, keep)) for name, cells in columns.items()}
        return numbers, {**columns}

    def _take_rest(self, last: int) -> None:
        """Make the last column that is asked for the rest of each line, if lines differ in their number of words."""
        with reading(self.where), open_text(self.where) as file, _long_cells():
            widths = {len(" ".join(cells).split()) for _, cells in self._rows(file) if not _is_comment(cells)}
        if len(widths) > 1:
            self._last, self.names = last, self.names[:last]
            self.notes.append(
                f"{Path(self.where).name}: the lines have {min(widths)} to {max(widths)} words, so the column {last} is the "
                "rest of each line"
            )

    def _rows(self, file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """The rows after the header that have a cell, with their numbers of lines."""
        lines = iter(file)
        for _ in range(self._skip):
            next(lines, None)
        reader = _reader(lines, self.separator)
        before = 0 if self.numbered else self._header + 1
        for cells in reader:
            if not any(cells):
                continue
            if before:
                before -= 1
                continue
            yield reader.line_num + self._skip, cells

    def why_left_out(self, name: str) -> str:
        """As ``TableFile.why_left_out``."""
        return why_twice(self.names, name)

    def _sniffed(self, beginning: str) -> str:
        """The separator that the header tells; where there is none, that of the first row, which may also be a space."""
        usual = "\t" if Path(self.where).suffix.lower() in (".tsv", ".tab") else ","
        headers = {separator: _names(self._first_row(beginning, separator)[1]) for separator in (*SEPARATORS, " ")}
        by_space = headers.pop(" ")
        several = [separator for separator, names in headers.items() if len(names) > 1]
        fitting = [separator for separator in several if self._fits(headers[separator])]
        if usual in fitting or (usual in several and not fitting):
            return usual
        found = fitting if len(fitting) == 1 else [] if self._fits(headers[usual]) else several
        if not several and self.numbered and not self._fits(headers[usual]) and self._fits(by_space):
            found = [" "]
        if len(found) != 1 or found == [usual]:
            return usual
        name = {**SEPARATORS, " ": "space"}[found[0]]
        self.notes.append(f"{Path(self.where).name}: the cells are separated by a {name}")
        return found[0]

    def _first_row(self, beginning: str, separator: str) -> tuple[int, list[str]]:
        """The number of rows of comments before the header, or before the first row of a table without one; and its cells."""
        rows: list[list[str]] = []
        with contextlib.suppress(csv.Error), _long_cells():
            for cells in _reader(io.StringIO(beginning, newline=""), separator):
                if any(cells):
                    rows.append(cells)
                    if not _is_comment(cells):
                        break
        if not rows:
            return 0, []
        is_first = (number for number, cells in enumerate(rows) if not self.numbered and self._fits(_names(cells)))
        number = next(is_first, len(rows) - 1)
        return number, rows[number]


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


def _names(cells: Sequence[str]) -> list[str]:
    """The names of columns in a header, whose first one may have a ``#`` before it.

    Examples:
        >>> _names(["# path", " label "])
        ['path', 'label']
    """
    names = [cell.strip() for cell in cells]
    return [names[0].lstrip("# ") or names[0], *names[1:]] if names else []


def _is_count(where: str, number: int) -> bool:
    """Whether a number before a list, as in the lists of CelebA, is that of its rows, with or without a header."""
    with open_text(where) as file:
        rows = sum(bool(line.strip()) for line in file) - 1
    return number > 0 and number in (rows, rows - 1)


def _has_row_names(beginning: str, separator: str, names: Sequence[str]) -> bool:
    """Whether rows have one more cell than the header, and names of images in the first, as R writes tables."""
    with contextlib.suppress(csv.Error), _long_cells():
        rows = [cells for cells in _reader(io.StringIO(beginning, newline=""), separator) if any(cells)][1:_SAMPLE]
        width = sum(map(bool, names))
        return len(rows) > 0 and all(
            sum(map(bool, cells)) == width + 1 and cells[0].strip().lower().endswith(ENDINGS) for cells in rows
        )
    return False


def _is_comment(cells: Sequence[str]) -> bool:
    """Whether a row begins with ``#`` and names no image."""
    return cells[0].startswith(_COMMENT) and not any(cell.strip().lower().endswith(ENDINGS) for cell in cells)


def _reader(lines: Iterable[str], separator: str) -> Any:
    return csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=separator == " ")


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(_MOST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)
