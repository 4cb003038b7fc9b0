"""Several tables as one: a table in the folder of each split, or one beside another, such as ``train.csv`` and ``test.csv``."""

from __future__ import annotations

import itertools
import os
import posixpath
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from featx.data.places import expand, is_remote, local_path
from featx.data.sources.archive_store import common_folder, is_pattern
from featx.data.split_names import worded_splits
from featx.data.table_base import TABLE_ENDINGS, TableFile
from featx.errors import DatasetError
from featx.text import counted, listed

SPLIT = "split"
"""The column that the names of the tables make."""


def is_table_pattern(text: str) -> bool:
    """Whether a name stands for several tables on this machine.

    Examples:
        >>> is_table_pattern("birds/*/_annotations.csv"), is_table_pattern("{train,test}.csv"), is_table_pattern("train.csv")
        (True, True, False)
    """
    if is_remote(text) or not is_pattern(text):
        return False
    return text.lower().endswith(TABLE_ENDINGS) or (
        text.endswith("}")
        and all(part.lower().endswith(TABLE_ENDINGS) for part in text[:-1].rpartition("{")[2].split(","))
    )


def pattern_of_tables(names: Sequence[str]) -> str:
    """One name with braces for several tables; "" where there is none.

    Examples:
        >>> pattern_of_tables(["/birds/train/a.csv", "/birds/test/a.csv"]), pattern_of_tables(["train.csv", "test.csv"])
        ('/birds/{train,test}/a.csv', '{train,test}.csv')
    """
    if set("{},*?[") & set("".join(names)):
        return ""
    begin = _shared([re.findall(r"[^/]*/", name) for name in names])
    endings = [re.findall(r"[./][^./]*", name[len(begin) - 1 :] if begin else name)[::-1] for name in names]
    end = _shared(endings, backwards=True)
    between = [name[len(begin) : len(name) - len(end)] for name in names]
    return f"{begin}{{{','.join(between)}}}{end}"


def _shared(parts: Sequence[Sequence[str]], *, backwards: bool = False) -> str:
    """The parts that all begin with, one after another, or before one another."""
    alike = [each[0] for each in itertools.takewhile(lambda each: len(set(each)) == 1, zip(*parts, strict=False))]
    return "".join(alike[::-1] if backwards else alike)


class JoinedTable:
    """Several tables; see ``featx.data.table_base.TableFile``. Rows are counted from 1 over all of them.

    Args:
        pattern: stands for the tables, as ``expand`` reads it.
        opened: opens one of them.
        takes_splits: whether the names of the tables may tell splits, by the names of all columns.

    Attributes:
        parts: the tables, sorted by their paths.

    Raises:
        DatasetError: there is none, or one cannot be read.
    """

    unit = "row"

    def __init__(
        self, pattern: str, opened: Callable[[str], TableFile], takes_splits: Callable[[Sequence[str]], bool]
    ) -> None:
        self.where = pattern
        files = sorted(path for path in expand(str(local_path(pattern))) if os.path.isfile(path))  # noqa: PTH113 - of str
        if not files:
            raise DatasetError(f"no table matches {pattern}")
        self.parts = [opened(path) for path in files]
        self.numbered = self.parts[0].numbered
        folder = common_folder(os.path.abspath(local_path(pattern)))  # noqa: PTH100 - of str
        inside = [os.path.relpath(path, folder) for path in map(os.path.abspath, files)]
        self._folders = [posixpath.dirname(Path(path).as_posix()) for path in inside]
        self.names: Sequence[str] = list(dict.fromkeys(name for part in self.parts for name in part.names))
        self._splits = _splits_of(inside) if takes_splits(self.names) else []
        if self._splits:
            self.names = [*self.names, SPLIT]
        self._paths: str | None = None
        self.separator = getattr(self.parts[0], "separator", ",")
        self.notes = self._notes()

    def are_relative(self, column: str) -> None:
        """Take the cells of a column for paths that are relative to the folder of their table."""
        self._paths = column

    def read(self, names: Collection[str]) -> tuple[Sequence[int], dict[str, Sequence[Any]]]:
        """As ``TableFile.read``."""
        columns: dict[str, list[Any]] = {name: [] for name in names if name in self.names}
        total = 0
        for number, part in enumerate(self.parts):
            lines, cells = part.read([name for name in names if name in part.names])
            total += len(lines)
            for name, column in columns.items():
                if self._splits and name == SPLIT:
                    column += [self._splits[number]] * len(lines)
                elif name == self._paths:
                    column += [_below(self._folders[number], cell) for cell in cells.get(name, [None] * len(lines))]
                else:
                    column += cells.get(name, [None] * len(lines))
        self.notes = self._notes()
        return range(1, total + 1), {**columns}

    def why_left_out(self, name: str) -> str:
        """As ``TableFile.why_left_out``."""
        return next((why for part in self.parts if name in part.names and (why := part.why_left_out(name))), "")

    def _notes(self) -> list[str]:
        names = list(dict.fromkeys(Path(part.where).name for part in self.parts))
        shown = f"{counted(len(self.parts), 'table')} {names[0]}" if len(names) == 1 else listed(names, most=3)
        splits = f", whose names tell the splits {listed(sorted(set(self._splits)))}" if self._splits else ""
        own = f"{shown} are read as one{splits}"
        return list(dict.fromkeys([own, *(note for part in self.parts for note in part.notes)]))


def _below(folder: str, cell: Any) -> Any:
    if not folder or not isinstance(cell, str) or not cell or cell.startswith(("/", "~", "\\")) or is_remote(cell):
        return cell
    return f"{folder}/{cell}"


def _splits_of(paths: Sequence[str]) -> list[str]:
    """The split that each path of a table names, in its own name or that of a folder; none if not all do, or all the same."""
    words = [[*Path(path).parent.parts, Path(path).stem] for path in paths]
    known = worded_splits(dict.fromkeys(word for each in words for word in each))
    found = [{known[word] for word in each} - {""} for each in words]
    if any(len(each) != 1 for each in found):
        return []
    splits = [each.pop() for each in found]
    return splits if len(set(splits)) > 1 else []
