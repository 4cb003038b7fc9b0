"""What the columns of a table mean: which one has the paths, the labels, the splits and the boxes of its images."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from featx.data.column_names import LABELS, PATHS, SPLITS, candidates, key_of, named
from featx.data.formats import ENDINGS
from featx.data.places import is_remote, local_path
from featx.data.scan_options import ScanOptions
from featx.data.sources.joined_tables import SPLIT, JoinedTable, is_table_pattern
from featx.data.split_names import split_of_flag
from featx.data.table_base import EXPECTED, TableFile, refuse_twice
from featx.data.table_files import open_table
from featx.data.text_table import SEPARATORS, TextTable
from featx.errors import DatasetError
from featx.io.file_kinds import JSON, TABLE, misplaced
from featx.text import counted, did_you_mean, listed, shortened

_BOXES: Sequence[tuple[Sequence[str], bool]] = (
    (("xmin", "ymin", "xmax", "ymax"), True),
    (("x1", "y1", "x2", "y2"), True),
    (("left", "top", "right", "bottom"), True),
    (("x", "y", "w", "h"), False),
    (("x", "y", "width", "height"), False),
    (("left", "top", "width", "height"), False),
    (("xmin", "ymin", "width", "height"), False),
)
"""Names of columns of boxes, without ``bbox``, ``box`` or ``roi`` before them; and whether the last two are a corner. Corners
come first, since width and height beside them are those of the whole image."""

_BOX_LISTS = ("bbox", "box", "boundingbox")
_BEFORE_BOX = re.compile(r"^(?:bbox|box|bb|roi)(?=[a-z])")
_CORNER = re.compile(r"max|2$|right|end")

NO_BOXES = "none"
"""The value of ``box_columns`` that leaves boxes alone."""


@dataclass(frozen=True)
class Boxes:
    """The columns of boxes.

    Attributes:
        names: four columns, or one of lists of four numbers.
        are_corners: whether the last two numbers are the right and the lower edge, not width and height.
        guessed: whether the names of the columns alone say so.
    """

    names: tuple[str, ...]
    are_corners: bool
    guessed: bool


@dataclass(frozen=True)
class Roles:
    """What the columns of a table mean.

    Attributes:
        path: the column of paths.
        label: the column of labels, or None.
        label_columns: columns of 0 and 1, one for each label.
        split: the column of splits, or None.
        boxes: the columns of boxes, or None.
        guessed: the columns that are taken by their names alone, and are none of ``path``, ``label`` and ``split``: (what it is
            read as, the column).
    """

    path: str
    label: str | None
    label_columns: tuple[str, ...]
    split: str | None
    boxes: Boxes | None
    guessed: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that have a meaning."""
        boxes = self.boxes.names if self.boxes else ()
        each = (self.path, self.label, self.split, *self.label_columns, *boxes)
        return tuple(dict.fromkeys(name for name in each if name))


def open_by(table: str, options: ScanOptions) -> TableFile:
    """Open a table as options describe it.

    A text table has no header if the column of paths is a number, unless the first line numbers the columns, as pandas does for
    columns without names.

    Raises:
        DatasetError: as ``open_table``.
    """
    if is_table_pattern(table):
        return JoinedTable(table, lambda path: open_by(path, options), lambda names: _need_splits(names, options))
    asked = options.columns

    def fits(names: Sequence[str]) -> bool:
        if options.path_column is not None:
            return named(names, options.path_column) is not None
        return bool(candidates(names, PATHS))

    file = open_table(table, separator=options.separator, fits=fits, asked=asked)
    column = options.path_column
    if column is not None and column.isdigit() and not _are_numbered(file, column):
        most = max(int(name) for name in asked if name.isdigit())
        return open_table(
            table, separator=options.separator, numbered=most, fits=lambda names: len(names) >= max(2, most)
        )
    return file


def _are_numbered(file: TableFile, column: str) -> bool:
    """Whether a table has a column of this number by its name."""
    if not isinstance(file, TextTable):
        return column in file.names
    numbers = [name for name in file.names if name]  # the index of pandas has no name
    return column in numbers and any(numbers == list(map(str, range(k, k + len(numbers)))) for k in (0, 1))


def path_column(file: TableFile, options: ScanOptions) -> tuple[str, bool]:
    """The column of paths, and whether it was guessed from a name other than ``path``.

    Raises:
        DatasetError: there is none, or several could be.
    """
    found, is_guess = _path_column(file, options)
    if isinstance(file, JoinedTable) and options.root is None:
        file.are_relative(found)
    return found, is_guess


def _path_column(file: TableFile, options: ScanOptions) -> tuple[str, bool]:
    if options.path_column is not None:
        return _required(file, options.path_column, "--path-column"), False
    found = _guessed(file, PATHS, "--path-column", "paths")
    if found is None:
        raise DatasetError(_without_paths(file.parts[0] if isinstance(file, JoinedTable) else file))
    return found, key_of(found) != "path"


def _need_splits(names: Sequence[str], options: ScanOptions) -> bool:
    """Whether no column tells the splits of several tables, so that their names may."""
    usual = {key for keys in SPLITS for key in keys}
    return options.split_column is None and not any(key_of(name) in usual or split_of_flag(name) for name in names)


def find_roles(file: TableFile, options: ScanOptions) -> Roles:
    """Find what the columns of a table mean.

    Raises:
        DatasetError: a named column is not there or is there twice, there is no column of paths, or several could be one.
    """
    path, is_guess = path_column(file, options)
    guessed = [("path", path)] if is_guess else []
    label: str | None = None
    if options.label_columns:
        if options.label_column is not None:
            raise DatasetError("--label-columns takes the place of --label-column; expected one of them")
        label_columns = tuple(_required(file, name, "--label-columns") for name in options.label_columns)
    else:
        label_columns = ()
        if options.label_column is not None:
            label = _required(file, options.label_column, "--label-column")
        elif not file.numbered and options.label_pattern is None:
            label = _guessed(file, LABELS, "--label-column", "labels", less=[path])
            guessed += [("label", label)] if label is not None and key_of(label) != "label" else []
    split = None
    if options.split_column is not None:
        split = _required(file, options.split_column, "--split-column")
    elif not file.numbered or SPLIT in file.names:
        split = _guessed(file, SPLITS, "--split-column", "splits", less=[path, *([label] if label else [])])
        flags = [name for name in file.names if split_of_flag(name) and name not in (path, label, *label_columns)]
        split = flags[0] if split is None and len(flags) == 1 else split
        guessed += [("split", split)] if split is not None and key_of(split) != "split" else []
    own = {name for name in (path, label, split, *label_columns) if name}
    roles = Roles(path, label, label_columns, split, find_boxes(file, options, own), tuple(guessed))
    refuse_twice(file.where, file.names, roles.names)
    return roles


def find_boxes(file: TableFile, options: ScanOptions, own: Collection[str]) -> Boxes | None:
    """The columns of boxes; None if there are none.

    Args:
        file: the table.
        options: how it is read.
        own: columns that have another meaning.

    Raises:
        DatasetError: a named column is not there.
    """
    if options.box_columns == (NO_BOXES,):
        return None
    if options.box_columns:
        if len(options.box_columns) not in (1, 4):
            raise DatasetError(
                f"--box-columns names {len(options.box_columns)} columns; expected four (x,y,width,height or "
                "xmin,ymin,xmax,ymax), one with lists of four numbers, or none"
            )
        names = tuple(_required(file, name, "--box-columns") for name in options.box_columns)
        return Boxes(names, len(names) == 4 and bool(_CORNER.search(key_of(names[2]))), False)
    if file.numbered:
        return None
    known = {_BEFORE_BOX.sub("", key_of(name)): name for name in reversed(file.names) if name not in own}
    for keys, are_corners in _BOXES:
        if all(key in known for key in keys):
            return Boxes(tuple(known[key] for key in keys), are_corners, True)
    lists = {key_of(name): name for name in reversed(file.names) if name not in own}
    return next((Boxes((lists[key],), False, True) for key in _BOX_LISTS if key in lists), None)


def _required(file: TableFile, wanted: str, option: str) -> str:
    found = named(file.names, wanted)
    if found is None:
        names = [name for name in file.names if name]
        shown = listed([shortened(name) for name in names]) or "none"
        header = f"; the first line has {counted(len(names), 'field')}" if file.numbered else f"; found {shown}"
        raise DatasetError(
            f"{file.where}: there is no column {wanted!r} for {option}{header}{did_you_mean(wanted, names)}"
        )
    refuse_twice(file.where, file.names, [found])
    return found


def _guessed(
    file: TableFile, tiers: Sequence[Collection[str]], option: str, what: str, less: Collection[str] = ()
) -> str | None:
    """The column that a name suggests; None if there is none.

    Raises:
        DatasetError: several are equally likely.
    """
    found = candidates(file.names, tiers, less)
    if len(found) > 1:
        raise DatasetError(
            f"{file.where}: each of the columns {listed([shortened(name) for name in found])} may hold the {what}; "
            f"name one with {option}"
        )
    refuse_twice(file.where, file.names, found)
    return found[0] if found else None


def _without_paths(file: TableFile) -> str:
    """The message about a table in which no column is one of paths."""
    names = [name for name in file.names if name]
    if not names:
        return f"{file.where} is empty; expected a table with the columns path and label"
    if not is_remote(file.where) and (found := misplaced(local_path(file.where), EXPECTED, fits=[TABLE, JSON])):
        return found
    if any("\0" in name for name in names):
        return f"{file.where} is not text in UTF-8, but probably in UTF-16 without its mark; save it as UTF-8"
    shown = listed([shortened(name) for name in names])
    if isinstance(file, TextTable) and all(map(_is_number, names)):
        return (
            f"{file.where} has no names of columns: its first line holds the numbers {shown}. Expected the paths of images: "
            "add a line such as path,label, or number the columns: --path-column 1 --label-column 2. featx import takes vectors"
        )
    if any(_looks_like_path(name) for name in names):
        first = getattr(file, "separator", ",").join(names)
        return (
            f"{file.where} has no header: its first line, {shortened(first)}, names an image. Add a line such as path,label "
            "before it, or number the columns: --path-column 1 --label-column 2" + _other_separator(names)
        )
    return (
        f"{file.where}: there is no column path; found {shown}. Name the column with the paths of the images with "
        "--path-column, and that with their labels with --label-column" + _other_separator(names)
    )


def _other_separator(names: Sequence[str]) -> str:
    """What to do where a header is one cell with something between words that may be a separator."""
    if len(names) != 1:
        return ""
    inside = next((text for text in (*SEPARATORS, " ") if text in names[0].strip()), None)
    if inside is None:
        return ""
    word = {" ": "space", "\t": "tab"}.get(inside, f"'{inside}'")
    return f"; if {word} stands between the cells, add --separator {word}"


def _looks_like_path(cell: str) -> bool:
    """Whether a cell of a header is the path of an image."""
    return any(part.lower().endswith(ENDINGS) for part in (cell, *cell.split()))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
