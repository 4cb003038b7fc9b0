"""The cells of rows with image bytes as text: labels, splits, the names of the images, and further columns."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute

from featx.data.boxes import split_box
from featx.data.cells import cell_text, label_text, refuse_one_hot, separated_labels
from featx.data.encoded import image_of_text
from featx.data.image_set import ImageSet, assemble
from featx.data.one_hot import one_hot_labels
from featx.data.scan_options import ScanOptions
from featx.data.sources.row_schema import ImageColumn, RowSchema, class_names, column_at, unnamed_note
from featx.data.sources.row_store import NO_IMAGE, OUTSIDE
from featx.data.split_names import splits_of_cells, splits_of_flags, worded_splits
from featx.data.store import Store
from featx.errors import DatasetError
from featx.text import brief, listed

UNNAMED = -1
"""The number that stands for no class."""


@dataclass
class Rows:
    """The rows of one file or of one split of a data set; all lists have the same length.

    Attributes:
        where: the file or the split, for messages.
        prefix: what the paths of its images begin with: "" or text with a slash at its end.
        split: the split by its name, or "".
        names: the embedded names of the images, "" for none.
        labels: as text, "" for none.
        splits: the cells of the column of splits; () where there is none.
        further: the cells of each further column.
        has_labels: whether there is a column of labels.
        columns: the names of all other columns.
        notes: sentences for the user.
        split_note: another, if the column of splits counts.
    """

    where: str
    prefix: str
    split: str
    names: list[str]
    labels: list[str]
    splits: list[str]
    further: dict[str, list[str]] = field(default_factory=dict)
    has_labels: bool = True
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    split_note: str = ""

    @property
    def paths(self) -> list[str]:
        """The paths of the images: the prefix, the number of the row from 0 on, and the embedded name where there is one."""
        return [f"{self.prefix}{row}/{name}" if name else f"{self.prefix}{row}" for row, name in enumerate(self.names)]


def read_rows(table: Any, schema: RowSchema, *, where: str, prefix: str, split: str) -> Rows:
    """Turn the cells of rows into text.

    Args:
        table: a table of Arrow with the columns ``schema.cells``.
        schema: what the columns hold.
        where: the file or the split, for messages.
        prefix: what the paths of the images begin with.
        split: the split that the name of the file or the data set tells, or "".

    Raises:
        DatasetError: a cell has no text, or a number stands for no class.
    """
    names = [""] * table.num_rows
    if schema.image.path and table.num_rows:
        paths = pyarrow.compute.struct_field(table.column(schema.image.name), schema.image.path)
        names = [_file_name(path) for path in python_values(paths)]
    labels, notes = [""] * table.num_rows, list[str]()
    if schema.label_columns:
        texts = {name: _texts(table, name, where, cell_text, {}, f"column {name!r}") for name in schema.label_columns}
        labels, notes = one_hot_labels(
            texts, where, lambda row, what, why: DatasetError(f"{where}, row {row}: the {what} {why}")
        )
    elif schema.label:
        between = schema.label_separator
        text = label_text if between is None else lambda value: separated_labels(value, between)
        labels = _texts(table, schema.label, where, text, schema.features, "label")
        if class_names(schema.features.get(schema.label)) is None:
            _refuse_one_hot(table, schema.label, where)
    splits = _texts(table, schema.split, where, cell_text, schema.features, "split") if schema.split else []
    columns, split_note = schema.further, ""
    if schema.split and (flags := splits_of_flags(schema.split, set(splits))):
        splits = [flags[cell] for cell in splits]
        shown = listed([f"{cell} as {meant}" for cell, meant in sorted(flags.items())])
        split_note = f"the column {schema.split!r} is read as the split ({shown})"
    elif schema.split and schema.split_is_guessed:
        if all(worded_splits(set(splits)).values()):
            split_note = f"the column {schema.split!r} is read as the split"
        else:
            columns, splits = (*columns, schema.split), []
    further = {}
    for name in columns:
        try:
            further[name] = _texts(table, name, where, cell_text, schema.features, name)
        except DatasetError:  # no text that a file can hold; no one has asked for it
            continue
    has_labels = bool(schema.label or schema.label_columns)
    return Rows(where, prefix, split, names, labels, splits, further, has_labels, columns, tuple(notes), split_note)


def assemble_rows(
    name: str, store: Store, parts: Sequence[Rows], options: ScanOptions, notes: Sequence[str] = ()
) -> ImageSet:
    """Build an ``ImageSet`` from rows, with paths such as ``train/17/beagle.jpg``.

    Raises:
        DatasetError: there are no rows, or some have no split while others do.
    """
    total = sum(len(part.names) for part in parts)
    if not total:
        raise DatasetError(f"{listed([part.where for part in parts], 3)}: there are no rows")
    splits, about = _splits(parts, options)
    paths = [path for part in parts for path in part.paths]
    names = list(dict.fromkeys(column for part in parts for column in part.further))
    further = {
        column: [cell for part in parts for cell in part.further.get(column, [""] * len(part.names))]
        for column in names
    }
    if not any(part.has_labels for part in parts):
        about.append(unnamed_note(name, {column for part in parts for column in part.columns}))
    labels = [label or None for part in parts for label in part.labels]
    about += dict.fromkeys(f"{name}: {note}" for part in parts for note in part.notes)
    if options.split_column or not any(part.split for part in parts):
        about += dict.fromkeys(f"{name}: {part.split_note}" for part in parts if part.split_note)
    return assemble(name, store, paths, labels, splits, [*notes, *about], columns=further, options=options)


def _splits(parts: Sequence[Rows], options: ScanOptions) -> tuple[list[str], list[str]]:
    """The splits of all rows, and notes about them: those of the names of files, or those of the column of splits."""
    by_column = bool(options.split_column) or not any(part.split for part in parts)
    cells = [
        cell for part in parts for cell in (part.splits if by_column and part.splits else _repeated(part, by_column))
    ]
    found = set(cells)
    if "" in found and len(found) > 1:
        without = [part.where for part in parts if (not part.split if not by_column else "" in part.splits)]
        raise DatasetError(
            f"{listed(without, 3)}: no split is named, while others have the splits {listed(sorted(found - {''}))}; name one "
            "everywhere or nowhere"
        )
    known = splits_of_cells(sorted(found))
    if not by_column and set(known.values()) == {"train"}:
        return [""] * len(cells), ["all images are in the split train, so featx splits them by their content"]
    return [known[cell] for cell in cells], []


def _repeated(part: Rows, by_column: bool) -> list[str]:
    return ["" if by_column else part.split] * len(part.names)


def _file_name(path: str | None) -> str:
    """The name of an embedded path, as the end of a path of featx; "" where there is none that is of use."""
    name = (path or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    is_box = split_box(name)[1] is not None
    return "" if "\0" in name or is_box or len(os.fsencode(name)) > 255 else name


def _texts(
    table: Any,
    column: str,
    where: str,
    text: Callable[[Any], str],
    features: Mapping[str, Any],
    what: str,
) -> list[str]:
    names = class_names(features.get(column))
    known: dict[Any, str] = {}
    found = []
    try:
        values = _values(column_at(table, column))
    except (ValueError, pyarrow.ArrowException) as error:
        raise DatasetError(f"{where}: the column {column!r} cannot be read: {brief(error)}") from error
    for row, value in enumerate(values):
        try:
            if isinstance(value, list | dict | set):
                found.append(text(_named(value, names)))
                continue
            if value not in known:
                known[value] = text(_named(value, names))
            found.append(known[value])
        except ValueError as error:
            raise DatasetError(f"{where}, row {row}: the {what} {error}") from error
    return found


def _named(value: Any, names: Sequence[str] | None) -> Any:
    """A value with the names of classes in the place of their numbers; None for the number -1."""
    if names is None or value is None:
        return value
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        if value == UNNAMED:
            return None
        if not 0 <= value < len(names):
            raise ValueError(f"is {value}, but the column has the classes 0 to {len(names) - 1}")
        return names[value]
    return value


def _values(column: Any) -> list[Any]:
    """The values of a column in Python; times as text, since those in nanoseconds have no other form there."""
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pyarrow.types.is_temporal(column.type):
        with contextlib.suppress(pyarrow.ArrowException):  # durations, and times of unknown zones
            column = column.cast(pyarrow.string())
    return python_values(column)


def python_values(array: Any) -> list[Any]:
    """The values of an array of Arrow; text that is not UTF-8, which Parquet does not forbid, with surrogate escapes."""
    try:
        values: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        is_large = pyarrow.types.is_large_string(array.type)
        data = array.cast(pyarrow.large_binary() if is_large else pyarrow.binary()).to_pylist()
        values = [value if value is None else os.fsdecode(value) for value in data]
    return values


def _refuse_one_hot(table: Any, label: str, where: str) -> None:
    try:
        refuse_one_hot(_values(column_at(table, label)))
    except ValueError as error:
        raise DatasetError(f"{where}: the column {label!r} {error}") from error


def cells_of(array: Any, column: ImageColumn) -> tuple[Any, Any]:
    """The arrays of bytes and of paths in an array of images; no paths, None, where it has none."""
    if pyarrow.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if column.is_text:
        found = [None if text is None else image_of_text(text) for text in python_values(array)]
        return pyarrow.array(found, pyarrow.large_binary()), None
    if not column.child:
        return _decoded(array), None
    paths = pyarrow.compute.struct_field(array, column.path) if column.path else None
    return _decoded(pyarrow.compute.struct_field(array, column.child)), paths


def _decoded(array: Any) -> Any:
    if pyarrow.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    is_view = getattr(pyarrow.types, "is_binary_view", lambda _: False)
    is_odd = is_view(array.type) or pyarrow.types.is_null(array.type)
    return array.cast(pyarrow.large_binary()) if is_odd else array


def sizes_of(data: Any, paths: Any) -> np.ndarray:
    """(N,) int64: the bytes of each image; ``NO_IMAGE`` of rows without one, ``OUTSIDE`` of those that have a path alone."""
    lengths = pyarrow.compute.cast(pyarrow.compute.binary_length(data), pyarrow.int64())
    sizes = np.asarray(pyarrow.compute.fill_null(lengths, NO_IMAGE))
    if paths is not None and data.null_count:
        has_path = np.asarray(pyarrow.compute.is_valid(paths))
        sizes = np.where((sizes == NO_IMAGE) & has_path, OUTSIDE, sizes)
    return sizes
