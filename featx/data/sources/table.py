"""Images named by a table: text with separators, JSON, JSON Lines or Parquet."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.data.boxes import split_box
from featx.data.cells import cell_text, label_text, path_text
from featx.data.columns import storable
from featx.data.image_set import SPLIT_NAMES, ImageSet, assemble
from featx.data.moved_paths import Below
from featx.data.openers import open_store
from featx.data.places import is_remote, local_path
from featx.data.scan_options import NO_OPTIONS, ScanOptions, names_text
from featx.data.sources import folder
from featx.data.sources.archive_store import ArchiveStore, common_folder
from featx.data.sources.joined_tables import is_table_pattern
from featx.data.sources.paths_store import root_of, store_of_paths
from featx.data.split_names import splits_of_cells
from featx.data.store import FolderStore, ImageFile, Store
from featx.data.table_base import EXPECTED, TABLE_ENDINGS, refuse_twice
from featx.data.table_boxes import are_boxes, boxed, read_boxes
from featx.data.table_files import open_table
from featx.data.table_roles import find_boxes, open_by, path_column
from featx.data.table_rows import (
    Exists,
    Rows,
    exists_in,
    further_text,
    meant_paths,
    path_cell,
    read_rows,
    subfolders_with,
)
from featx.data.urls import folder_location, without_secrets
from featx.errors import DatasetError
from featx.text import counted, form, listed, shortened

__all__ = [
    "EXPECTED",
    "OPTIONS",
    "TABLE_ENDINGS",
    "list_images",
    "list_rows",
    "matches",
    "read_cells",
    "read_columns",
    "read_labels",
    "read_table",
    "scan",
]

OPTIONS: Collection[str] = (
    *(
        "path_column",
        "label_column",
        "split_column",
        "label_columns",
        "label_separator",
        "box_columns",
        "root",
        "separator",
    ),
)
"""The options of the source; see ``featx.data.scan.Source``."""

_MANY_MISSING = 0.1
"""The share of missing files above which their note is a warning."""


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the data are a file, or the URL of one, whose ending is that of a table; or a pattern for several files."""
    text = os.fspath(data)
    if is_table_pattern(text):
        return True
    if is_remote(data):
        return text.partition("?")[0].lower().endswith(TABLE_ENDINGS)
    return local_path(text).is_file() and local_path(text).suffix.lower() in TABLE_ENDINGS


def scan(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """List the images that a table names; ``scan_images`` describes the columns."""
    table = _located(data)
    root = _root_of(table, options)
    file = open_by(str(table), options)
    exists = _exists(root)
    rows = read_rows(file, options, exists, _below(root, options))
    store = store_of_paths(root, (split_box(path)[0] for path in rows.paths))
    notes = [*rows.notes, *_note_missing(table, store, rows, options, exists)]
    name = _name(table)
    splits, about = _splits(file.where, rows)
    notes += [*(f"{name}: {note}" for note in about), *_notes_on_labels(name, rows, options)]
    return assemble(
        Path(name).stem,
        store,
        rows.paths,
        [label or None for label in rows.labels],
        splits,
        notes,
        table=table,
        columns=rows.columns,
        options=options if options.root is None else _with_root(options, root.location),
    )


def list_images(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> list[ImageFile]:
    """List the images of a table in its order. They need not be there, and no column but that of the paths is needed.

    Raises:
        DatasetError: the table cannot be read, has no rows or an empty path.
    """
    return _listed(data, options, others=False)[0]


def list_rows(
    data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS
) -> tuple[list[ImageFile], dict[str, list[str]]]:
    """List the images of a table as ``list_images`` does, with the text of all its cells.

    Returns:
        N images, and N cells of each column by its name, in the order of the table. The column of the paths is left out if its
        cells are the names of the images as they are; a column whose name occurs twice is left out, too.

    Raises:
        DatasetError: as ``list_images``.
    """
    return _listed(data, options, others=True)


def _listed(
    data: str | os.PathLike[str], options: ScanOptions, *, others: bool
) -> tuple[list[ImageFile], dict[str, list[str]]]:
    is_near = options.root is None and not is_remote(data)
    root = FolderStore(_folder_of(local_path(data))) if is_near else _root_of(_located(data), options)
    file = open_by(str(data if is_remote(data) else local_path(data)), options)
    column, _ = path_column(file, options)
    boxes = find_boxes(file, options, [column])
    further = [name for name in dict.fromkeys(file.names) if others and name and not file.why_left_out(name)]
    lines, cells = file.read(list(dict.fromkeys([column, *(boxes.names if boxes else ()), *further])))
    if not len(lines):
        raise DatasetError(f"{file.where} has no rows")
    where = [f"{file.where}, {file.unit} {number}" for number in lines]
    texts = [_read(path_cell, value, f"{line}: the {column}") for value, line in zip(cells[column], where, strict=True)]
    paths, _ = meant_paths(texts, _exists(root), _below(root, options))
    if boxes and (not boxes.guessed or are_boxes(boxes, cells)):
        parts = read_boxes(boxes, cells, lambda row, name, why: DatasetError(f"{where[row]}: the {name} {why}"))
        paths = boxed(paths, parts)
    store = store_of_paths(root, (split_box(path)[0] for path in paths))
    images = [ImageFile(store, path) for path in paths]
    found = {name: list(map(_further, cells[name])) for name in further}
    if column in found and all(image.name == text for image, text in zip(images, texts, strict=True)):
        del found[column]
    return images, found


def _further(value: Any) -> str:
    """The text of a cell that is carried along, without what grants access in a URL."""
    text = further_text(value)
    return without_secrets(text) if "://" in text else text


def read_labels(
    table: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS, known: Sequence[str] | None = None
) -> dict[str, tuple[str, str]]:
    """The label and the split of each image of a table by its path, as they stand there; "" for none.

    Args:
        table: a table.
        options: how it was read.
        known: the paths of the images that were found in it; None: the images are looked for.

    Raises:
        DatasetError: the table cannot be read, is malformed, or contradicts itself.
    """
    located = _located(table)
    file = open_by(str(located), options)
    if known is None:
        root = _root_of(located, options)
        rows = read_rows(file, options, _exists(root), _below(root, options))
    else:
        rows = read_rows(file, options, exists_in(known), _among(known, options))
    return {path: (label, split) for path, label, split in zip(rows.paths, rows.labels, rows.splits, strict=True)}


def read_cells(
    table: str | os.PathLike[str], column: str, known: Sequence[str], options: ScanOptions = NO_OPTIONS
) -> tuple[list[tuple[str, str, str]], list[str]]:
    """The cells of one column of a table, with the paths of their images.

    Args:
        table: a table; its paths are those of ``known``, or lead to them as ``scan`` reads them.
        column: its name.
        known: the paths of images, of which some may be boxes.
        options: how the table is read.

    Returns:
        The path, the cell and the line, in words, of each row, none if there is no such column; and the names of all columns.

    Raises:
        DatasetError: the table is malformed.
    """
    file = open_by(str(_located(table)), options)
    paths, _ = path_column(file, options)
    if column not in file.names:
        return [], list(file.names)
    lines, cells = file.read(dict.fromkeys([paths, column]))
    where = [f"{file.unit} {number}" for number in lines]
    texts = [
        _read(path_text, value, f"{file.where}, {line}: the {paths}")
        for value, line in zip(cells[paths], where, strict=True)
    ]
    values = [
        _read(cell_text, value, f"{file.where}, {line}: the {column}")
        for value, line in zip(cells[column], where, strict=True)
    ]
    return list(zip(meant_paths(texts, exists_in(known), _among(known, options))[0], values, where, strict=True)), list(
        file.names
    )


def read_columns(
    table: str | os.PathLike[str], known: Sequence[str], options: ScanOptions = NO_OPTIONS
) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """The further columns of a table whose images are known.

    Args:
        table: a table.
        known: the paths of its images.
        options: how the table was read.

    Returns:
        The cells of each column by the path of the image; and notes on columns that are not kept.

    Raises:
        DatasetError: as ``scan``.
    """
    rows = read_rows(open_by(str(_located(table)), options), options, exists_in(known), _among(known, options))
    columns, notes = storable(rows.columns)
    return {name: dict(zip(rows.paths, cells, strict=True)) for name, cells in columns.items()}, (*rows.notes, *notes)


def read_table(
    table: str | os.PathLike[str], required: Sequence[str] = ("path", "label"), optional: Sequence[str] = ()
) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the rows of a table in featx's own form with their line numbers.

    Text stays as it is, without spaces around it: the class NA stays "NA", and 01 stays "01". Typed cells of JSON and Parquet
    become text as ``featx.data.cells`` describes; a list in the column label is several labels.

    Args:
        table: a table.
        required: the columns that it must have.
        optional: further columns to read.

    Yields:
        The number of the line, and the text of each column of the row; "" for columns that are neither required nor optional.

    Raises:
        DatasetError: the table cannot be read, is malformed, has a cell of an unexpected type, lacks a column, or has one of
            these columns twice.
    """
    file = open_table(table, fits=lambda names: all(name in names for name in required))
    missing = [name for name in required if name not in file.names]
    if missing:
        raise DatasetError(
            f"{file.where}: there is no column {' or '.join(missing)}; found "
            f"{', '.join(map(shortened, file.names)) or 'none'}, "
            f"expected {', '.join(required)}{' and, optionally, split' if 'label' in required else ''}"
        )
    wanted = [name for name in dict.fromkeys([*required, *optional]) if name in file.names]
    refuse_twice(file.where, file.names, wanted)
    lines, cells = file.read(wanted)
    readers = {"label": label_text, "path": path_text}
    rest = dict.fromkeys(file.names, "")
    for row, number in enumerate(lines):
        texts = {
            name: _read(
                readers.get(name, cell_text), cells[name][row], f"{file.where}, {file.unit} {number}: the {name}"
            )
            for name in wanted
        }
        yield int(number), {**rest, **texts}


def _read(text: Callable[[Any], str], value: Any, where: str) -> str:
    try:
        return text(value)
    except ValueError as error:
        raise DatasetError(f"{where} {error}") from error


def _name(table: Path | str) -> str:
    """The name of a data set: that of its table; of several, that of their folder and what their names have in common."""
    if not is_table_pattern(str(table)):
        return Path(str(table)).name
    stem = Path(str(table)).name
    return f"{_folder_of(Path(table)).name}-{'tables.csv' if is_table_pattern(stem) else stem}"


def _folder_of(table: Path) -> Path:
    """The folder of a table, or that of several."""
    return Path(common_folder(str(table.absolute()))) if is_table_pattern(str(table)) else table.parent


def _located(table: str | os.PathLike[str]) -> Path | str:
    """The absolute path of a table, whose own name may be a link; or its URL."""
    if is_remote(table):
        return os.fspath(table)
    path = local_path(table)
    return path.parent.resolve() / path.name  # of a link, too: the blobs of a hub are links to elsewhere


def _root_of(table: Path | str, options: ScanOptions) -> Store:
    """What the paths of a table are relative to.

    Raises:
        DatasetError: the root that the user names is not there.
    """
    if options.root is None:
        return FolderStore(_folder_of(table)) if isinstance(table, Path) else open_store(table.rpartition("/")[0])
    if is_remote(options.root):
        return open_store(folder_location(options.root))
    root = local_path(options.root).resolve()
    store = open_store(str(root))
    if not store.exists():
        raise DatasetError(
            f"--root {options.root}: there is no {root}; expected what the paths of {table} are relative to"
        )
    if isinstance(root_of(store), FolderStore) and not root.is_dir():
        raise DatasetError(f"--root {options.root} is a file; expected a folder, an archive or a URL")
    return store


def _exists(root: Store) -> Exists:
    """Tells whether paths lead to images in a root or elsewhere; each is looked for once."""
    known: dict[str, bool] = {}

    def exists(paths: Sequence[str]) -> np.ndarray:
        unknown = [path for path in dict.fromkeys(paths) if path not in known]
        if unknown:
            there = store_of_paths(root, unknown).facts(unknown).sizes >= 0
            known.update(zip(unknown, there.tolist(), strict=True))
        return np.array([known[path] for path in paths], dtype=bool)

    return exists


def _below(root: Store, options: ScanOptions) -> Below | None:
    """Lists the images below the root that the user names; None if the root is only the folder of the table."""
    if options.root is None:
        return None

    def below() -> list[str]:
        inner = root_of(root)
        if isinstance(inner, ArchiveStore):
            return inner.paths()
        try:
            is_folder = isinstance(inner, FolderStore)
            return [image.path for image in folder.list_images(inner.location)] if is_folder else []
        except DatasetError:
            return []

    return below


def _among(known: Sequence[str], options: ScanOptions) -> Below | None:
    """As ``_below``, where the paths of the images are known."""
    return None if options.root is None else lambda: [split_box(path)[0] for path in known]


def _note_missing(table: Path | str, store: Store, rows: Rows, options: ScanOptions, exists: Exists) -> Iterator[str]:
    """A note that counts the files that are not there, each of which fails alone.

    Raises:
        DatasetError: none of them is there.
    """
    paths = list(dict.fromkeys(split_box(path)[0] for path in rows.paths))
    missing = [path for path, is_there in zip(paths, exists(paths), strict=True) if not is_there]
    if not missing:
        return
    name = table if len(missing) == len(paths) else Path(str(table)).name
    where = f"{form(len(missing), 'is', 'are')} not there, relative to {store.location}: {listed(missing)}"
    if len(missing) == len(paths):
        raise DatasetError(
            f"{name} names {counted(len(missing), 'file')} that {where}{_where_else(table, missing, options)}"
        )
    share = len(missing) / len(paths)
    warning = "Warning: " if share > _MANY_MISSING else ""
    yield (
        f"{warning}{name} names {counted(len(paths), 'file')}, of which {len(missing):,} ({100 * share:.1f} %) {where}. "
        f"{form(len(missing), 'It fails', 'These fail')}, the others are used"
    )


def _where_else(table: Path | str, missing: Sequence[str], options: ScanOptions) -> str:
    """Where the files of a table may be, as the end of a message."""
    if options.root is not None or not isinstance(table, Path):
        return ""
    folders = [subfolders_with(table.parent, path) for path in (missing[0], missing[len(missing) // 2], missing[-1])]
    common = sorted(set.intersection(*folders))
    if len(common) == 1:
        return f"; {missing[0]} is in {common[0]}, so add --root {common[0]}"
    if common:
        return f"; there are files of these names in each of {listed(common)}: --root names one of them"
    if any(folders):
        return (
            f"; they are in several folders, so add --root {table.parent}, which looks for them in all folders below it"
        )
    return "; --root names the folder that they are relative to, or a folder around them"


def _splits(where: str, rows: Rows) -> tuple[list[str], list[str]]:
    """The split of each row, and notes on how names of splits are read.

    Raises:
        DatasetError: some rows have none.
    """
    names = set(rows.splits)
    if "" in names and len(names) > 1:
        without = [line for line, split in zip(rows.lines, rows.splits, strict=True) if not split]
        raise DatasetError(
            f"{where}: {counted(len(without), 'row has', 'rows have')} no split ({form(len(without), 'line', 'lines')} "
            f"{listed(without)}), the others do; name one in every row or in none"
        )
    known = splits_of_cells(sorted(names))
    notes = [
        f"the split {name!r} is read as {split}"
        for name, split in known.items()
        if split != name and name.lower() not in SPLIT_NAMES
    ]
    return [known[split] for split in rows.splits], notes


def _notes_on_labels(name: str, rows: Rows, options: ScanOptions) -> Iterator[str]:
    lists = next((label for label in rows.labels if label[:1] + label[-1:] in ("[]", "{}")), None)
    if lists is not None:
        yield (
            f"{name}: labels such as {lists!r} look like lists or objects, but are text, so each is read as one class; several "
            "labels are written cat|dog, or as a list in .jsonl or .parquet"
        )
    if rows.roles.label is None and not rows.roles.label_columns and options.label_pattern is None:
        others = [shortened(column) for column in rows.columns]
        found = (
            f" (besides, there are the columns {listed(others)}; --label-column names one of them)" if others else ""
        )
        values = {column: {_whole(cell) for cell in set(cells)} for column, cells in rows.columns.items()}
        flags = [column for column, cells in values.items() if cells <= {"0", "1"}]
        if sum(len(values[column]) > 1 for column in flags) > 1:
            found += f". Some hold 0 and 1 alone: --label-columns {names_text(flags)} reads those as labels"
        yield f"{name} has no column of labels, so its images are unlabelled{found}"


def _whole(cell: str) -> str:
    return cell.removesuffix(".0")


def _with_root(options: ScanOptions, location: str) -> ScanOptions:
    """The same options with an absolute root, by which the table can be read from any folder."""
    return dataclasses.replace(options, root=location)
