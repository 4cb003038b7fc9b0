"""Hugging Face data sets: a folder that ``datasets`` has saved, or the name of one on the hub."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from featx.data.image_set import ImageSet
from featx.data.places import is_remote, local_path
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.sources.hub import hub_name, is_hub_name, prepared_folder, version_of
from featx.data.sources.row_store import RowStore, RowTable
from featx.data.sources.saved_folder import is_saved, split_of_state, splits_of_folder
from featx.data.split_names import is_split_alone
from featx.data.store import Store
from featx.errors import DatasetError, ImageError
from featx.text import did_you_mean, listed, portable

if TYPE_CHECKING:
    from featx.data.sources.arrow_split import ArrowFiles, ArrowSplit

EXPECTED = "a data set of Hugging Face (hf://org/name, or a folder that datasets has saved)"

OPTIONS: Collection[str] = ("image_column", "label_column", "label_columns", "split_column", "label_separator")
"""The options of the source; see ``featx.data.scan.Source``."""


def matches(data: str | os.PathLike[str]) -> bool:
    """Whether the data are the name of a data set of the hub, or a folder that ``datasets`` has saved."""
    text = os.fspath(data)
    return is_hub_name(text) if is_remote(text) else is_saved(local_path(text))


def scan(data: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> ImageSet:
    """List the images of a data set; ``scan_images`` describes the columns."""
    try:
        from featx.data.sources import row_cells, row_schema
    except ImportError as error:
        raise DatasetError(f"reading {os.fspath(data)} needs pyarrow: pip install 'featx[parquet]'") from error
    text = os.fspath(data)
    if is_remote(text):
        hub = hub_name(text)
        location, name = str(hub), hub.short
        folder, notes = prepared_folder(hub)
        found = _chosen(location, splits_of_folder(folder, version_of(folder)), hub.splits)
    else:
        folder, notes = local_path(text).resolve(), ()
        location, name = str(folder), portable(folder.name)
        found = splits_of_folder(folder)
    parts = []
    for split, files in found.items():
        where = f"{location}, split {split}" if split else location
        features = row_schema.features_of(files.schema.metadata) or files.features
        schema = row_schema.read_schema(where, files.schema, features, options)
        own = [schema.image.name] if schema.image.path else []
        cells = list(dict.fromkeys([*own, *(cell for cell in schema.cells if cell in files.schema.names)]))
        table = files.columns(cells) if cells else files.columns(files.schema.names[:1])
        split_name = split or _split_alone(folder)
        prefix = f"{split}/" if split else ""
        parts.append(row_cells.read_rows(table, schema, where=where, prefix=prefix, split=split_name))
    location += f"#{options.image_column}" if options.image_column else ""
    store = HuggingFaceStore(location, found, options.image_column)
    return row_cells.assemble_rows(name, store, parts, options, notes)


def opens(location: str) -> bool:
    """Whether a location is that of a data set of the hub, or of a folder that ``datasets`` has saved."""
    if is_remote(location):
        return is_hub_name(location)
    return is_saved(Path(_without_column(location)[0]))


def open_store(location: str) -> Store:
    """Open the images of a data set again; what is on this machine already counts, without asking the hub."""
    where, column = _without_column(location)
    return HuggingFaceStore(location, _found_again(where), column)


def _found_again(location: str) -> Mapping[str, ArrowFiles]:
    try:
        if not is_remote(location):
            return splits_of_folder(Path(location))
        hub = hub_name(location)
        folder, _ = prepared_folder(hub, newest=False)
        return _chosen(location, splits_of_folder(folder, version_of(folder)), hub.splits)
    except ImportError as error:
        raise DatasetError(f"reading {location} needs pyarrow: pip install 'featx[parquet]'") from error


def _without_column(location: str) -> tuple[str, str | None]:
    if not is_remote(location) and os.path.lexists(location):
        return location, None
    where, _, column = location.partition("#") if is_remote(location) else location.rpartition("#")
    return (where, column or None) if where else (location, None)


def _chosen(location: str, found: Mapping[str, ArrowFiles], splits: Collection[str]) -> Mapping[str, ArrowFiles]:
    unknown = [split for split in splits if split not in found]
    if unknown:
        near = did_you_mean(unknown[0], found)
        raise DatasetError(f"{location}: there is no split {unknown[0]!r}; found {listed(list(found))}{near}")
    return {split: files for split, files in found.items() if split in splits} if splits else found


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
                self._files = {**self._files, **_found_again(_without_column(self.location)[0])}
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
