"""The images to predict, in parts: those that data sets list, those that come one after the other, and rows of feature files.

Each image has a mark, by which a later run knows that it is the same one: its name, its further cells, and the size and the
time of its file where the system tells these without reading it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featx.data.boxes import split_box
from featx.data.image_set import ImageSet
from featx.data.inputs import ImageInput, image_inputs, items_of
from featx.data.places import is_remote
from featx.data.scan import columns_of, is_data_set, list_rows
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.store import FolderStore, ImageFile
from featx.features.feature_set import FeatureSet
from featx.io.file_kinds import is_feature_file
from featx.text import to_utf8

_AT_ONCE = 256
"""Images whose files are looked at together."""


@dataclass(frozen=True)
class Entry:
    """One image to predict.

    Attributes:
        image: the image.
        cells: those of the further columns.
        mark: what tells the image from another.
    """

    image: ImageInput
    cells: tuple[str, ...]
    mark: bytes


@dataclass(frozen=True, eq=False)
class ListedImages:
    """Images that are listed before any is read.

    Attributes:
        images: N images: of a store, or with a name of their own.
        columns: N cells of each further column.
        notes: sentences for the user.
    """

    images: Sequence[ImageFile | ImageInput]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def entries(self, further: Sequence[str], start: int = 0) -> Iterator[Entry]:
        """The images from one on, with their cells of the columns ``further``."""
        cells = [self.columns.get(name) for name in further]
        for at in range(start, len(self), _AT_ONCE):
            some = [_named(image) for image in self.images[at : at + _AT_ONCE]]
            for number, (image, facts) in enumerate(zip(some, _facts(some), strict=True), start=at):
                texts = tuple(column[number] if column is not None else "" for column in cells)
                yield Entry(image, texts, _mark(image.name, texts, facts))


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Images that come one after the other, and can be iterated over once, such as the list on standard input.

    Attributes:
        images: the images.
    """

    images: Iterator[ImageInput]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def entries(self, further: Sequence[str], start: int = 0) -> Iterator[Entry]:
        """As ``ListedImages.entries``; the images before ``start`` were taken already."""
        del start
        empty = ("",) * len(further)
        for image in self.images:
            yield Entry(image, empty, _mark(image.name, empty, _facts([image])[0]))


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """The rows of a feature file or a feature set, which need no image.

    Attributes:
        features: the file, or the set.
    """

    features: FeatureSet | str


Part = ListedImages | StreamedImages | FeatureRows


def parts_of(data: Any, scan: ScanOptions = NO_OPTIONS) -> list[Part]:
    """Divide what is to be predicted into its parts, in order.

    Args:
        data: what ``featx.predict`` takes; or a list of these, in which a feature file, a feature set and an iterator are parts
            of their own.
        scan: how data sets are read.

    Raises:
        DatasetError: something is no image; a data set cannot be read; or an option has no effect on one of them.
    """
    if isinstance(data, FeatureSet | ImageSet) or (isinstance(data, str | os.PathLike) and is_feature_file(data)):
        data = [data]
    items = items_of(data)
    if isinstance(items, Iterator):
        return [StreamedImages(image_inputs(items))]
    parts: list[Part] = []
    single: list[ImageInput | ImageFile] = []  # consecutive images that no data set lists are one part
    for number, item in enumerate(items):
        part = _part(item, scan)
        if part is None:
            single += _single(item, scan, number)
            continue
        if single:
            parts.append(ListedImages(single))
            single = []
        parts.append(part)
    return [*parts, ListedImages(single)] if single else parts


def _part(item: Any, scan: ScanOptions) -> Part | None:
    """The part that an item is; None if it is an image, or a pattern for some."""
    if isinstance(item, FeatureSet) or (isinstance(item, str | os.PathLike) and is_feature_file(item)):
        scan.require_only((), "the features" if isinstance(item, FeatureSet) else item, "a feature file")
        return FeatureRows(item if isinstance(item, FeatureSet) else os.fspath(item))
    if isinstance(item, ImageSet):
        return ListedImages([item.file(row) for row in range(len(item))], columns_of(item))
    if isinstance(item, Iterator):
        scan.require_only((), "the list on standard input", "no data set")
        return StreamedImages(image_inputs(item))
    if isinstance(item, str | os.PathLike) and is_data_set(item):
        images, columns, notes = list_rows(item, scan)
        return ListedImages(images, columns, tuple(notes))
    return None


def _single(item: Any, scan: ScanOptions, number: int) -> list[ImageInput]:
    """The images of an item that is an image or a pattern; one in memory is named by the number of the item."""
    if isinstance(item, str | os.PathLike):
        scan.require_only((), item, "an image file or a pattern")
        return list(image_inputs([item]))
    (image,) = image_inputs([item])
    is_named = not image.name.startswith("image ") or hasattr(item, "read") or hasattr(item, "filename")
    return [image if is_named else ImageInput(f"image {number}", image.source)]


def _named(image: ImageFile | ImageInput) -> ImageInput:
    return image if isinstance(image, ImageInput) else ImageInput(image.name, image)


def _mark(name: str, cells: Iterable[str], facts: bytes) -> bytes:
    return b"\0".join([to_utf8(name), *map(to_utf8, cells), facts]) + b"\n"


def _facts(images: Sequence[ImageInput]) -> list[bytes]:
    """The size and the time of each image's file, as far as they are known without a request to a server."""
    found = [b""] * len(images)
    by_store: dict[int, list[int]] = {}
    for at, image in enumerate(images):
        source = image.source
        if isinstance(source, Path):
            found[at] = _of_file(source)
        elif isinstance(source, ImageFile) and not (source.store.concurrency or is_remote(source.path)):
            by_store.setdefault(id(source.store), []).append(at)
    for rows in by_store.values():
        sources = [source for row in rows if isinstance(source := images[row].source, ImageFile)]
        facts = sources[0].store.facts([split_box(source.path)[0] for source in sources])
        has_sizes = isinstance(sources[0].store, FolderStore)  # those of rows of a table are known once they were read
        for row, size, mtime in zip(rows, facts.sizes.tolist(), facts.mtimes.tolist(), strict=True):
            found[row] = b"%d %d" % (size if has_sizes else 0, mtime)
    return found


def _of_file(path: Path) -> bytes:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return b"-"
    return b"%d %d" % (found.st_size, found.st_mtime_ns)


def mark_of_row(name: str, cells: Iterable[str], key: bytes) -> bytes:
    """The mark of a row of a feature file: its name, its cells, and the key of its image."""
    return _mark(name, cells, key)
