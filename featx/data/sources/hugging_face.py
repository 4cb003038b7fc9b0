"""Hugging Face data sets: a folder that ``datasets`` has saved, or the name of one on the hub; and single Arrow files."""

from __future__ import annotations

import dataclasses
import os
import re
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featx.data.arrow_table import ARROW_ENDINGS
from featx.data.image_set import ImageSet
from featx.data.places import is_remote, local_path
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.sources.hub import hub_name, is_hub_name, prepared_folder, version_of
from featx.data.sources.row_store import RowStore, RowTable
from featx.data.sources.saved_folder import is_saved, split_of_state, splits_of_folder
from featx.data.split_names import is_split_alone
from featx.data.store import ImageFile, Store
from featx.errors import DatasetError, ImageError
from featx.text import did_you_mean, listed, portable

if TYPE_CHECKING:
    from featx.data.sources.arrow_split import ArrowFiles, ArrowSplit
    from featx.data.sources.row_cells import Rows

EXPECTED = "a data set of Hugging Face (hf://org/name, a folder that datasets has saved, or an Arrow file)"

OPTIONS: Collection[str] = ("image_column", "label_column", "label_columns", "split_column", "label_separator")
"""The options of the source; see ``featx.data.scan.Source``."""


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the data are the name of a data set of the hub, a folder of ``datasets``, or an Arrow file with images."""
    text = os.fspath(data)
    if is_remote(text):
        return is_hub_name(text)
    path = local_path(_without_column(text)[0])
    return is_saved(path) or (_is_arrow(path) and _has_images(path))


def scan(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """List the images of a data set; ``scan_images`` describes the columns."""
    found, options = _asked(os.fspath(data), options)
    parts = [_rows_of(found, split, options) for split in found.files]
    from featx.data.sources.row_cells import assemble_rows

    return assemble_rows(found.name, found.store(options), parts, options, found.notes)


def list_images(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> list[ImageFile]:
    """List the images of a data set, in the order of its rows, whatever their labels and splits.

    Raises:
        DatasetError: it cannot be read, or has no column of images.
    """
    found, options = _asked(os.fspath(data), options)
    store = found.store(options)
    parts = [_rows_of(found, split, options, images_alone=True) for split in found.files]
    return [ImageFile(store, path) for part in parts for path in part.paths]


def _asked(text: str, options: ScanOptions) -> tuple[_Found, ScanOptions]:
    """The data set of a user's text or a location, and the options with the column of images that the location names."""
    where, column = _without_column(text)
    column = options.image_column or column
    if column is None and not is_remote(where) and _is_arrow(local_path(where)):
        column = _column_by_content(local_path(where))
    return _find(where), dataclasses.replace(options, image_column=column)


@dataclass(frozen=True)
class _Found:
    """A data set of Hugging Face on this machine.

    Attributes:
        location: as ``Store.location``, without a column.
        name: of the data set.
        folder: in which its files are.
        files: those of each split, by its name.
        notes: sentences for the user.
    """

    location: str
    name: str
    folder: Path
    files: Mapping[str, ArrowFiles]
    notes: tuple[str, ...] = ()

    def store(self, options: ScanOptions) -> HuggingFaceStore:
        """The store of its images."""
        column = options.image_column
        return HuggingFaceStore(f"{self.location}#{column}" if column else self.location, self.files, column)


def _find(text: str, *, newest: bool = True) -> _Found:
    """The data set that a user's text or a location names; ``newest`` as in ``hub.prepared_folder``.

    Raises:
        DatasetError: it is not there, or what reads it is not installed.
    """
    try:
        if not is_remote(text):
            folder = local_path(text).resolve()
            if _is_arrow(folder):
                from featx.data.sources.arrow_split import ArrowFiles

                alone = ArrowFiles(folder.parent, [folder], None, "", {})
                return _Found(str(folder), portable(folder.stem), folder.parent, {"": alone})
            return _Found(str(folder), portable(_name(folder)), folder, splits_of_folder(folder))
        hub = hub_name(text)
        folder, notes = prepared_folder(hub, newest=newest)
        files = splits_of_folder(folder, version_of(folder))
    except ImportError as error:
        raise DatasetError(f"reading {text} needs pyarrow: pip install 'featx[parquet]'") from error
    unknown = [split for split in hub.splits if split not in files]
    if unknown:
        near = did_you_mean(unknown[0], files)
        raise DatasetError(f"{hub}: there is no split {unknown[0]!r}; found {listed(list(files))}{near}")
    chosen = {split: files[split] for split in hub.splits or files}
    return _Found(str(hub), hub.short, folder, chosen, notes)


def _is_arrow(path: Path) -> bool:
    return path.name.lower().endswith(ARROW_ENDINGS) and path.is_file()


def _has_images(file: Path) -> bool:
    """Whether an Arrow file has a column of images, and not only their paths."""
    try:
        from featx.data.sources.arrow_split import schema_of
        from featx.data.sources.row_schema import features_of, image_columns
    except ImportError:
        return False
    try:
        schema = schema_of(file)
        return bool(image_columns(schema, features_of(schema.metadata))) or _column_by_content(file) is not None
    except DatasetError:  # the table's reader states it
        return False


def _column_by_content(file: Path) -> str | None:
    """As ``row_schema.column_by_content``."""
    from featx.data.sources.arrow_split import first_rows
    from featx.data.sources.row_schema import column_by_content, features_of

    rows = first_rows(file)
    return column_by_content(rows.schema, features_of(rows.schema.metadata), lambda names: rows.select(names))


def _name(folder: Path) -> str:
    """The name of a folder; in the cache of ``datasets``, where folders are named by hashes, that of the data set."""
    is_cached = re.fullmatch(r"[0-9a-f]{32,}", folder.name) and len(folder.parts) > 4
    return folder.parts[-4].rpartition("___")[2] if is_cached else folder.name


def _rows_of(found: _Found, split: str, options: ScanOptions, *, images_alone: bool = False) -> Rows:
    """The rows of one split."""
    from featx.data.sources import row_cells, row_schema

    files = found.files[split]
    where = f"{found.location}, split {split}" if split else found.location
    features = row_schema.features_of(files.schema.metadata) or files.features
    schema = row_schema.read_schema(where, files.schema, features, options, images_alone=images_alone)
    names = dict.fromkeys(cell if cell in files.schema.names else cell.partition(".")[0] for cell in schema.cells)
    table = files.cells([name for name in names if name != schema.image.name], schema.image)
    return row_cells.read_rows(
        table, schema, where=where, prefix=f"{split}/" if split else "", split=split or _split_alone(found.folder)
    )


def opens(location: str) -> bool:
    """Whether a location is that of a data set of the hub, or of a folder that ``datasets`` has saved."""
    if is_remote(location):
        return is_hub_name(location)
    path = Path(_without_column(location)[0])
    return is_saved(path) or path.name.lower().endswith(ARROW_ENDINGS)


def open_store(location: str) -> Store:
    """Open the images of a data set again; what is on this machine already counts, without asking the hub."""
    where, column = _without_column(location)
    return HuggingFaceStore(location, _find(where, newest=False).files, column)


def _without_column(location: str) -> tuple[str, str | None]:
    if not is_remote(location) and os.path.lexists(location):
        return location, None
    where, _, column = location.partition("#") if is_remote(location) else location.rpartition("#")
    return (where, column or None) if where else (location, None)


def _split_alone(folder: Path) -> str:
    """The split of a saved data set without splits: the one it was taken from, or that of the folder's name."""
    return split_of_state(folder) or (folder.name if is_split_alone(folder.name) else "")


class HuggingFaceStore(RowStore):
    """The images of a data set by their paths: the split, the number of the row, and the embedded name of the image.

    Args:
        location: as ``Store.location``.
        files: those of each split, by its name.
        column: the column of images; None: the only one that there is.
    """

    def __init__(self, location: str, files: Mapping[str, ArrowFiles], column: str | None) -> None:
        super().__init__(location)
        self._files, self._column = dict(files), column
        self._opened: dict[str, ArrowSplit] = {}
        self._lock = threading.Lock()

    def parsed(self, path: str) -> tuple[str, int]:
        """As ``RowStore.parsed``; the key is the name of the split."""
        split, _, inner = ("", "", path) if "" in self._files else path.partition("/")
        number = inner.partition("/")[0]
        if split not in self._files or not (number.isascii() and number.isdigit() and len(number) < 19):
            raise ImageError("is not there: its path names no row of the data set")
        return split, int(number)

    def table(self, key: str) -> RowTable:
        """As ``RowStore.table``."""
        from featx.data.sources.arrow_split import ArrowSplit
        from featx.data.sources.row_schema import features_of, named_image

        with self._lock:
            if self._files[key].facts_now() != self._files[key].facts:
                self._files = {**self._files, **_find(_without_column(self.location)[0], newest=False).files}
                self._opened.pop(key, None)
            if key not in self._opened:
                files = self._files[key]
                features = features_of(files.schema.metadata) or files.features
                column = named_image(self.location, files.schema, features, self._column)
                self._opened[key] = ArrowSplit(files, column)
            return self._opened[key]

    def name(self, path: str) -> str:
        """As ``Store.name``: the location, and the path in it."""
        return f"{_without_column(self.location)[0]}/{path}"

    def exists(self) -> bool:
        """As ``Store.exists``."""
        return is_remote(self.location) or all(file.exists() for files in self._files.values() for file in files.files)
