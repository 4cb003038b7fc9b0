"""``scan_images``: one entrance for every source of images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

import numpy as np

from featx.data.columns import beside
from featx.data.foreign import remedy
from featx.data.image_set import ImageSet, check_classes
from featx.data.path_labels import with_path_labels
from featx.data.places import local_path, pattern_of
from featx.data.scan_options import COMMON, NO_OPTIONS, ScanOptions
from featx.data.sources import archive, array_sets, digits, files, folder, hugging_face, parquet, remote, table
from featx.data.sources.joined_tables import pattern_of_tables
from featx.data.store import ImageFile
from featx.data.urls import as_stored, is_url
from featx.errors import DatasetError, FeatxError, system_errors
from featx.io.file_kinds import misplaced
from featx.text import brief, described


class Source(Protocol):
    """What a module of ``featx.data.sources`` offers.

    Attributes:
        EXPECTED: a few words that name the source in an error message.
        OPTIONS: the fields of ``ScanOptions`` that it reads, besides ``COMMON``; ``scan_images`` refuses all others.
    """

    EXPECTED: str
    OPTIONS: Collection[str]

    def matches(self, data: str | os.PathLike[str]) -> bool:
        """Whether the source can scan the data, judged by the look of the path alone."""
        ...

    def scan(self, data: str | os.PathLike[str], options: ScanOptions) -> ImageSet:
        """List the images, sorted by path, without opening one.

        Raises:
            DatasetError: the data cannot be read.
        """
        ...


@runtime_checkable
class Lister(Protocol):
    """What a source offers besides, if it can list images without reading what their labels and splits are."""

    def list_images(self, data: str | os.PathLike[str], options: ScanOptions) -> list[ImageFile]:
        """List all images, in the order of the data; see ``featx.data.scan.list_images``."""
        ...


SOURCES: Sequence[Source] = (hugging_face, array_sets, archive, parquet, folder, table, files, digits, remote)
"""The first source that matches scans the data. A new source is one module and its name here."""


def list_images(source: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS) -> list[ImageFile]:
    """List the images of a data set to predict them, whatever their labels and splits, in the order in which they are stored.

    Args:
        source: as in ``scan_images``.
        options: as there.

    Raises:
        DatasetError: as ``scan_images``; the layout of a folder and the labels of a table do not matter.
    """
    source = located(source)
    kind = next((kind for kind in SOURCES if kind.matches(source)), None)
    if kind is not None:
        options.require_only((*kind.OPTIONS, *COMMON), source, kind.EXPECTED)
    if isinstance(kind, Lister):
        return kind.list_images(source, options)
    images = scan_images(source, options)
    return [images.file(row) for row in images.order(np.arange(len(images))).tolist()]


def list_rows(
    source: str | os.PathLike[str], options: ScanOptions = NO_OPTIONS
) -> tuple[list[ImageFile], dict[str, Sequence[str]], list[str]]:
    """List the images of a data set as ``list_images`` does, with what its table or its rows state about each.

    Args:
        source: as in ``scan_images``.
        options: as there.

    Returns:
        N images; N cells of each column by its name, "" where there is none; and notes. The columns are those of a table, as
        they stand there; of Parquet files, archives and data sets of the hub ``label``, ``split`` and the further columns that
        ``scan_images`` finds. A folder has none, here or on a server.

    Raises:
        DatasetError: as ``list_images``.
    """
    source = located(source)
    kind = next((kind for kind in SOURCES if kind.matches(source)), None)
    if kind is table:
        options.require_only((*table.OPTIONS, *COMMON), source, table.EXPECTED)
        images, cells = table.list_rows(source, options)
        return images, dict(cells), []
    if kind is None or kind in (folder, digits, files, remote):
        return list_images(source, options), {}, []
    if not isinstance(kind, Lister):
        found = scan_images(source, options)
        rows = found.order(np.arange(len(found)))
        return [found.file(row) for row in rows.tolist()], columns_of(found.take(rows)), []
    images = list_images(source, options)
    try:
        found = scan_images(source, options)
    except DatasetError as error:
        return images, {}, [f"labels and further columns of {os.fspath(source)} are not carried along: {error}"]
    row_of = {path: row for row, path in enumerate(found.paths)}
    rows = np.array([row_of.get(image.path, -1) for image in images], dtype=np.int64)
    if (rows < 0).any():
        return images, {}, []
    return images, columns_of(found.take(rows)), []


def columns_of(images: ImageSet) -> dict[str, Sequence[str]]:
    """The labels, the splits and the further columns of images, as far as there are any."""
    labels = np.array([*images.classes, ""], dtype=object)[images.labels]
    own = {"label": labels, "split": images.splits}
    own = {name: cells for name, cells in own.items() if any(cells)}
    return {**own, **beside(images.columns, own)}


def located(source: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """What a user names as it may be stored and shown; ``~`` and ``file://`` are resolved.

    Examples:
        >>> located("file:///photos/my%20cat.jpg"), located("photos")
        ('/photos/my cat.jpg', 'photos')

    Raises:
        DatasetError: it is a malformed URL.
    """
    stored = as_stored(source)
    if is_url(stored):
        try:
            _ = urlsplit(os.fspath(stored)).port
        except ValueError as error:
            raise DatasetError(f"{os.fspath(stored)} is a malformed URL: {brief(error)}") from error
    is_short = isinstance(stored, str) and (stored.startswith("~") or stored.lower().startswith("file://"))
    return str(local_path(stored)) if is_short else stored


def is_data_set(source: str | os.PathLike[str]) -> bool:
    """Whether a source lists images, rather than being one image file, nothing that is there, or an empty path."""
    if not os.fspath(source):  # Path("") would be the present folder
        return False
    source = located(source)
    return any(kind is not files and kind.matches(source) for kind in SOURCES)


@system_errors()
def scan_images(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    options: ScanOptions | None = None,
    **fields: Any,
) -> ImageSet:
    """List the images of a data set without opening one.

    Args:
        source: a folder ``class/...``, a folder ``train|val|test/class/...``, a flat folder (unlabelled), or a table
            (.csv, .tsv, .txt, .json, .jsonl, .parquet) with the columns ``path``, ``label`` and, optionally, ``split``, or
            others that the options name, whose paths are relative to the table; or "digits", the built-in scans ("./digits" is
            a folder of that name). Folders around these are passed over, and names such as ``train2017`` or ``test_set`` mean
            splits; a note states how they were read. An image file, a pattern such as ``photos/*.jpg``, or an iterable of these
            has no labels. Archives, Parquet files with image bytes, Hugging Face data sets (``hf://org/name``) and the URLs of
            any of these are taken as well.
        options: the columns of a table, classes in the names of files, and what else the layout does not tell.
        fields: the same as keyword arguments, by the names of the fields of ``ScanOptions``: ``path_column="file"``.

    Returns:
        The images, sorted by path. If the source names no splits, ``splits`` is "" until ``hash_splits`` decides.

    Raises:
        DatasetError: there is nothing, there are no images, the layout of a folder has two readings, or a table is malformed,
            contradicts itself, or names no file that is there; or an option has no effect on this kind of data.
        SettingsError: there is no option of such a name or type.

    Example:

        images = featx.scan_images("photos")
        images = featx.scan_images("train.csv", path_column="file", label_column="species")
        print(len(images), images.classes)
    """
    options = ScanOptions.of(options, fields)
    is_one = isinstance(source, str | bytes | bytearray | os.PathLike | dict)
    items: list[Any] = list(source) if isinstance(source, Iterable) and not is_one else [source]
    if not items:
        raise DatasetError("found an empty list; expected the path of a folder, of a table or of an image file")
    for item in items:
        if not isinstance(item, str | os.PathLike) or not os.fspath(item):
            found = "an empty path" if isinstance(item, str) else described(item)
            raise DatasetError(
                f"found {found}; expected the path of a folder, of a table or of an image file. Images in several places are "
                "listed in a table"
            )
    items = [located(item) for item in items]
    if len(items) > 1 and (pattern := _pattern_of_shards(items)):
        return _scan_one(pattern, options)
    if len(items) > 1:
        options.require_only(COMMON, f"a list of {len(items)} files", "one of images")
        return with_path_labels(files.scan_files(items, options), options)
    return _scan_one(items[0], options)


def _pattern_of_shards(items: Sequence[str | os.PathLike[str]]) -> str:
    """The pattern for several files of one kind that holds many images, which a shell has made of it; "" for other files."""
    kinds = {next((kind for kind in SOURCES if kind.matches(item)), None) for item in items}
    if len(kinds) > 1 or not kinds & {parquet, archive, table} or any(Path(item).is_dir() for item in items):
        return ""
    names = [os.fspath(item) for item in items]
    if found := pattern_of_tables(names) if table in kinds else pattern_of(names):
        return found
    raise DatasetError(
        f"the {len(items)} files such as {os.fspath(items[0])} have no common pattern; name their folder"
    )


def _scan_one(source: str | os.PathLike[str], options: ScanOptions) -> ImageSet:
    try:
        for kind in SOURCES:
            if kind.matches(source):
                options.require_only((*kind.OPTIONS, *COMMON), source, kind.EXPECTED)
                images = with_path_labels(kind.scan(source, options), options)
                return dataclasses.replace(images, notes=(*images.notes, *check_classes(images)))
    except FeatxError:
        raise
    except OSError as error:
        raise DatasetError(f"cannot read {os.fspath(source)[:200]!r}: {error.strerror or brief(error)}") from error
    expected = _expected()
    if found := misplaced(source, expected):
        raise DatasetError(found)
    if Path(source).is_file() and (how := remedy([Path(source).name])):
        raise DatasetError(f"{Path(source)}: {how}")
    found = f"{Path(source)} is a file" if Path(source).is_file() else f"there is no {Path(source)}"
    raise DatasetError(f"{found}; expected {expected}")


def _expected() -> str:
    """The kinds of data as the end of a sentence, the most common ones first."""
    kinds: dict[Source, None] = dict.fromkeys([folder, table, *SOURCES])
    return f"{', '.join(kind.EXPECTED for kind in kinds if kind is not digits)} or {digits.EXPECTED}"
