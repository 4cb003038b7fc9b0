"""What the rows of a table say: paths that lead to images, boxes, labels, splits, and further cells."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.data.boxes import split_box, with_box
from featx.data.cells import cell_text, label_text, path_text, refuse_one_hot, separated_labels
from featx.data.column_names import IDS, candidates
from featx.data.encoded import is_image_text
from featx.data.formats import ENDINGS
from featx.data.moved_paths import Below, moved_paths
from featx.data.one_hot import one_hot_labels
from featx.data.places import is_remote, local_path
from featx.data.scan_options import ScanOptions
from featx.data.sources.paths_store import stored_path
from featx.data.split_names import splits_of_flags, worded_splits
from featx.data.table_base import TableFile
from featx.data.table_boxes import DECIMAL_COMMA, are_boxes, boxed, read_boxes
from featx.data.table_roles import Roles, find_roles
from featx.data.urls import is_url
from featx.errors import DatasetError
from featx.text import counted, listed, printable, shortened

LONGEST_PATH = 4096
"""The most characters of a path that a system can open."""

Exists = Callable[[Sequence[str]], np.ndarray]
"""Tells of N paths which lead to an image: (N,) bool."""

_USUAL = (".jpg", ".png", ".jpeg", ".JPG", ".tif", ".PNG", ".webp", ".JPEG")
_RARE = tuple(form for ending in ENDINGS for form in (ending, ending.upper()) if form not in _USUAL)
_SAMPLE, _SMALL_SAMPLE = 20, 3
"""Names without an ending for which the usual and all other endings of images are tried."""

_IMAGE_NAME = re.compile(rf"[^\s\"']*?([^\s\"'/\\\\]+(?:{'|'.join(map(re.escape, ENDINGS))}))(?![\w.])", re.IGNORECASE)
"""The path of an image in a text, and the name of its file."""


@dataclass(frozen=True)
class Rows:
    """The images that a table lists, each once.

    Attributes:
        paths: N paths, with boxes where only a part of an image is meant.
        labels: N labels; "" for none.
        splits: N splits as they stand in the table; all "" where it has none.
        lines: N numbers of lines or entries.
        columns: the N cells of each further column.
        roles: what the columns mean.
        notes: sentences for the user.
    """

    paths: list[str]
    labels: list[str]
    splits: list[str]
    lines: list[int]
    columns: dict[str, list[str]]
    roles: Roles
    notes: list[str]


def read_rows(file: TableFile, options: ScanOptions, exists: Exists, below: Below | None = None) -> Rows:
    """Read the images that a table lists.

    Args:
        file: the table.
        options: how it is read.
        exists: decides how a path is meant that can be read in several ways.
        below: as in ``meant_paths``.

    Raises:
        DatasetError: there are no rows; a cell is malformed; or two rows of one image contradict each other.
    """
    roles = find_roles(file, options)
    further = {name: file.why_left_out(name) for name in dict.fromkeys(file.names) if name and name not in roles.names}
    wanted = [*roles.names, *(name for name, fault in further.items() if not fault)]
    lines, cells = file.read(wanted)
    if not len(lines):
        raise DatasetError(f"{file.where} has no rows")
    reader = _Reader(file, lines)
    notes, names = list(file.notes), Path(file.where).name
    roles, flags, about = _settled(roles, cells)
    notes += [f"{names}: {note}" for note in about]
    as_given = reader.texts(roles.path, cells[roles.path], path_cell)
    boxes = read_boxes(roles.boxes, cells, reader.fault) if roles.boxes else [None] * len(lines)
    paths, about = meant_paths(as_given, exists, below)
    if options.path_column is None and candidates([roles.path], IDS):
        _refuse_other_names(file, roles.path, as_given, cells, are_there=bool(exists(paths).all()))
    notes += [f"{names}: {note}" for note in about]
    paths = boxed(paths, boxes)
    labels = reader.labels(roles, cells, options)
    notes += [f"{names}: {note}" for note in reader.notes]
    splits = reader.texts(roles.split, cells[roles.split], cell_text) if roles.split else [""] * len(lines)
    splits = [flags.get(split, split) for split in splits]
    kept, about = _distinct(file, roles, paths, labels, splits, lines)
    notes += about
    columns = {}
    for name in dict.fromkeys(file.names):
        fault = further.get(name, "")
        if fault:
            notes.append(f"{names}: the column {printable(shortened(name))} is not kept: {fault}")
        elif name and name in cells and name not in _used(roles):
            columns[name] = reader.texts(name, [cells[name][row] for row in kept], further_text)
    if roles.path != "path" and any(split_box(paths[row])[0] != as_given[row] for row in kept):
        columns = {roles.path: [as_given[row] for row in kept], **columns}
    return Rows(
        [paths[row] for row in kept],
        [labels[row] for row in kept],
        [splits[row] for row in kept],
        [int(lines[row]) for row in kept],
        columns,
        roles,
        notes,
    )


def _used(roles: Roles) -> tuple[str, ...]:
    """The columns that are stored in another form, and not kept as they are; boxes are."""
    return tuple(name for name in (roles.path, roles.label, roles.split, *roles.label_columns) if name)


def _settled(roles: Roles, cells: dict[str, Sequence[Any]]) -> tuple[Roles, dict[str, str], list[str]]:
    """The roles without guesses that the cells do not bear out, the splits that true and false mean, and notes."""
    guessed = dict(roles.guessed)
    split, boxes = roles.split, roles.boxes
    flags = splits_of_flags(split, set(map(_plain_text, cells[split]))) if split is not None else {}
    if flags:
        guessed.pop("split", None)
    if "split" in guessed and split is not None:
        values = set(map(_plain_text, cells[split]))
        if "" in values or not all(worded_splits(values).values()):
            split = None
            del guessed["split"]
    if boxes and boxes.guessed and not are_boxes(boxes, cells):
        boxes = None
    notes = []
    if flags:
        shown = listed([f"{cell} as {meant}" for cell, meant in sorted(flags.items())])
        notes.append(f"the column {printable(shortened(str(split)))} is read as the split ({shown})")
    if guessed:
        notes.append(
            "; ".join(
                f"the column {printable(shortened(name))} is read as the {what}" for what, name in guessed.items()
            )
        )
    if boxes:
        how = "left, top, right, bottom" if boxes.are_corners else "left, top, width, height"
        several = len(boxes.names) > 1
        what = f"columns {', '.join(boxes.names)} are" if several else f"column {boxes.names[0]} is"
        notes.append(
            f"the {what} read as boxes ({how}), so each row is a part of its image; --box-columns none leaves "
            f"{'them' if several else 'it'} alone"
        )
    return Roles(roles.path, roles.label, roles.label_columns, split, boxes, tuple(guessed.items())), flags, notes


def _refuse_other_names(
    file: TableFile, column: str, ids: Sequence[str], cells: dict[str, Sequence[Any]], *, are_there: bool
) -> None:
    """Refuse ids as names of files where another column names other files; URLs only if not all ids lead to files.

    Raises:
        DatasetError: there is such a column.
    """
    sample = range(0, len(ids), max(1, len(ids) // _SAMPLE))
    if any(ids[row].lower().endswith(ENDINGS) for row in sample):
        return
    for name, values in cells.items():
        found = [_IMAGE_NAME.search(further_text(values[row])) for row in sample] if name != column else []
        named = [match for match in found if match and not (are_there and is_remote(match[0]))]
        others = sum(ids[row] not in match[1] for row, match in zip(sample, found, strict=False) if match)
        if len(named) == len(sample) and 2 * others > len(named):
            inner = " (a value in nested objects is named with dots: data.image)" if isinstance(values[0], dict) else ""
            raise DatasetError(
                f"{file.where}: the column {printable(shortened(column))} may hold the names of images, but "
                f"{printable(shortened(name))} names others, such as {named[0][0]!r}; name the column with --path-column{inner}"
            )


def _distinct(
    file: TableFile,
    roles: Roles,
    paths: Sequence[str],
    labels: Sequence[str],
    splits: Sequence[str],
    lines: Sequence[int],
) -> tuple[list[int], list[str]]:
    """The rows that do not repeat another, and a note that counts the others.

    Raises:
        DatasetError: two rows of one image contradict each other.
    """
    first: dict[str, int] = {}
    kept, repeated = [], []
    for row, path in enumerate(paths):
        before = first.setdefault(path, row)
        if before == row:
            kept.append(row)
            continue
        if (labels[before], splits[before]) != (labels[row], splits[row]):
            one, other = (
                f"{file.unit} {lines[each]} as label {labels[each]!r}, split {splits[each]!r}" for each in (before, row)
            )
            join = f" (pandas: rows.groupby({roles.path!r})[{roles.label!r}].agg('|'.join))" if roles.label else ""
            raise DatasetError(
                f"{file.where}: {shortened(path, 200)} is on {one} and on {other}; keep one of them. Several labels of one "
                f"image are written cat|dog{join}"
            )
        repeated.append(lines[row])
    if not repeated:
        return kept, []
    return kept, [
        f"{Path(file.where).name}: "
        f"{counted(len(repeated), 'row repeats an earlier one and is', 'rows repeat an earlier one and are')} "
        f"left out ({listed(repeated)})"
    ]


# Paths


def path_cell(value: Any) -> str:
    """The text of a cell with a path.

    Raises:
        ValueError: it is empty, too long, or no text.
    """
    text = path_text(value)
    if not text:
        raise ValueError("is empty")
    if is_image_text(text):
        raise ValueError(
            f"holds an image in base64, {text[:30]!r}..., not a path; such images are read from Parquet "
            "(pandas: rows.to_parquet('images.parquet'))"
        )
    if text.lower().startswith("file://"):
        _refuse_other_machine(text)
    if len(text) > LONGEST_PATH:
        raise ValueError(f"has {len(text):,} characters, {text[:40]!r}...; expected at most {LONGEST_PATH:,}")
    return text


def _refuse_other_machine(text: str) -> None:
    try:
        local_path(text)
    except (DatasetError, ValueError) as error:
        raise ValueError(f"is no path of this machine: {error}") from error


def meant_paths(cells: Sequence[str], exists: Exists, below: Below | None = None) -> tuple[list[str], list[str]]:
    r"""The paths that cells of a table stand for, with what is there as a guide.

    A path that is not there may have ``\`` in the place of ``/``, an ending in another case, or, as ids do, none.

    Args:
        cells: N paths, with or without boxes.
        exists: tells which of some paths lead to images.
        below: lists the images below a root that the user names, where ``moved_paths`` looks for the files; None: nowhere.

    Returns:
        N paths as ``stored_path`` gives them, those of missing files too; and notes.
    """
    split = [split_box(cell) for cell in cells]
    unique = list(dict.fromkeys(base for base, _ in split))
    meant = {base: stored_path(base) for base in unique}
    missing = _missing(list(meant), meant, exists)
    notes = []
    slashed = {base: stored_path(base.replace("\\", "/")) for base in missing if "\\" in base}
    if slashed:
        lacking = set(_missing(list(slashed), slashed, exists))
        found = {base: path for base, path in slashed.items() if base not in lacking}
        if found:
            meant |= found
            notes.append(rf"{counted(len(found), 'path')} with \ {'is' if len(found) == 1 else 'are'} read with /")
        missing = [base for base in missing if base not in found]
    if found := _in_other_case({base: slashed.get(base, meant[base]) for base in missing}, exists):
        meant |= found
        are = "is" if len(found) == 1 else "are"
        notes.append(f"{counted(len(found), 'name')} {are} read with the ending in another case")
        missing = [base for base in missing if base not in found]
    # The query of a URL, such as a signature, is that of this file and of no other.
    bare = [base for base in missing if not base.lower().endswith(ENDINGS) and not (is_url(base) and "?" in base)]
    for ending, count, found in _with_endings({base: slashed.get(base, meant[base]) for base in bare}, exists):
        meant |= found
        notes.append(f"{counted(count, 'name')} without an ending {'is' if count == 1 else 'are'} read with {ending}")
        missing = [base for base in missing if base not in found]
    if below is not None and missing:
        moved, about = moved_paths({base: slashed.get(base, meant[base]) for base in missing}, exists, below)
        meant |= moved
        notes += about
    return [meant[base] if box is None else with_box(meant[base], box) for base, box in split], notes


def _missing(bases: list[str], meant: dict[str, str], exists: Exists) -> list[str]:
    there = exists([meant[base] for base in bases])
    return [base for base, is_there in zip(bases, there, strict=True) if not is_there]


def _in_other_case(lost: dict[str, str], exists: Exists) -> dict[str, str]:
    """The paths that are there with the ending in upper or lower case instead, if there are any among a few."""
    swapped = {}
    for base, path in lost.items():
        stem, dot, ending = path.rpartition(".")
        if dot and path.lower().endswith(ENDINGS):
            swapped[base] = stem + dot + (ending.lower() if ending != ending.lower() else ending.upper())
    sample = list(swapped.values())[:: max(1, len(swapped) // _SAMPLE)][:_SAMPLE]
    if not sample or not exists(sample).any():
        return {}
    there = exists(list(swapped.values()))
    return {base: path for (base, path), is_there in zip(swapped.items(), there, strict=True) if is_there}


def _with_endings(bare: dict[str, str], exists: Exists) -> Iterator[tuple[str, int, dict[str, str]]]:
    """For each ending with which some of the paths are there: it, their number, and the paths.

    Only a few paths are tried with every ending, the usual ones first, since a server is asked for each.
    """
    left = list(bare)
    for endings, most in ((_USUAL, _SAMPLE), (_RARE, _SMALL_SAMPLE)):
        sample = left[:: max(1, len(left) // most)][:most]
        tried = [(base, ending) for base in sample for ending in endings]
        there = exists([bare[base] + ending for base, ending in tried])
        counts = Counter(ending for (_, ending), is_there in zip(tried, there, strict=True) if is_there)
        for ending, _ in counts.most_common():
            found_there = exists([bare[base] + ending for base in left])
            found = {base: bare[base] + ending for base, is_there in zip(left, found_there, strict=True) if is_there}
            left = [base for base in left if base not in found]
            if found:
                yield ending, len(found), found


# Cells


def further_text(value: Any) -> str:
    """The text of a cell of a further column: lists and objects as JSON.

    Examples:
        >>> further_text(3.0), further_text(None), further_text(["a", 1])
        ('3', '', '["a", 1]')
    """
    if isinstance(value, dict | list | tuple):
        try:
            return json.dumps(value, ensure_ascii=False, default=str)
        except ValueError:
            return str(value)
    return "" if value is None else cell_text(value)


def _plain_text(value: Any) -> str:
    try:
        return cell_text(value)
    except ValueError:
        return "[]"


class _Reader:
    """Reads the cells of a table, and names the line of one that is malformed.

    Args:
        file: the table.
        lines: N numbers of lines.

    Attributes:
        notes: sentences for the user.
    """

    def __init__(self, file: TableFile, lines: Sequence[int]) -> None:
        self.file, self.lines = file, lines
        self.notes: list[str] = []

    def fault(self, row: int, column: str, what: object) -> DatasetError:
        """The error about one cell."""
        return DatasetError(f"{self.file.where}, {self.file.unit} {self.lines[row]}: the {column} {what}")

    def texts(self, column: str, values: Sequence[Any], text: Callable[[Any], str]) -> list[str]:
        """The text of each cell of a column."""
        known: dict[str, str] = {}  # cells of CSV, most of which occur often
        found = []
        for row, value in enumerate(values):
            if type(value) is str and value in known:
                found.append(known[value])
                continue
            try:
                found.append(text(value))
            except ValueError as error:
                raise self.fault(row, column, error) from error
            if type(value) is str:
                known[value] = found[-1]
        return found

    def labels(self, roles: Roles, cells: dict[str, Sequence[Any]], options: ScanOptions) -> list[str]:
        """The label of each row."""
        if roles.label_columns:
            texts = {name: self.texts(name, cells[name], cell_text) for name in roles.label_columns}
            labels, notes = one_hot_labels(texts, self.file.where, self.fault)
            self.notes += notes
            return labels
        if roles.label is None:
            return [""] * len(self.lines)
        values, separator = cells[roles.label], options.label_separator
        if separator is None:
            labels = _with_points(self.texts(roles.label, values, label_text), self.file)
        else:
            labels = self.texts(roles.label, values, lambda value: separated_labels(value, separator))
        try:
            refuse_one_hot(values)
        except ValueError as error:
            raise DatasetError(f"{self.file.where}: the column {roles.label!r} {error}") from error
        return labels


def _with_points(labels: list[str], file: TableFile) -> list[str]:
    """Labels whose numbers have a comma for the point, as spreadsheets of many countries write them, with points.

    That is so only if the cells are not separated by commas, and every label is such a number.
    """
    given = {label for label in labels if label}
    if getattr(file, "separator", ",") == "," or not any("," in label for label in given):
        return labels
    if not all(map(DECIMAL_COMMA.fullmatch, given)):
        return labels
    return [label.replace(",", ".") for label in labels]


def exists_in(known: Iterable[str]) -> Exists:
    """Tells whether paths are among some that are known, instead of whether they lead to an image."""
    there = {split_box(path)[0] for path in known}
    return lambda paths: np.array([path in there for path in paths], dtype=bool)


def subfolders_with(folder: str | os.PathLike[str], path: str) -> set[str]:
    """The folders in a folder in which there is a file of this path, with or without an ending of images."""
    found = set[str]()
    with contextlib.suppress(OSError, ValueError), os.scandir(folder) as entries:
        inner = sorted(entry.path for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        for each in inner[:100]:
            names = [path, *(path + ending for ending in (".jpg", ".jpeg", ".png", ".JPG"))]
            if any(os.path.isfile(os.path.join(each, name)) for name in names):  # noqa: PTH113, PTH118 - of str
                found.add(each)
    return found
