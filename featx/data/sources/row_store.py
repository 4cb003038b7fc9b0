"""Images in the rows of tables by their paths: the table, the number of the row, and the embedded name of the image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from featx.data.file_bytes import MISSING_FACTS, FileBytes, FileFacts, require_size
from featx.data.places import LocalFile, Place, is_remote, place
from featx.data.sources.remote_images import read_remote
from featx.data.store import FolderStore
from featx.errors import DatasetError, ImageError
from featx.text import counted, form

NO_IMAGE, UNREAD, OUTSIDE = -1, -2, -3
"""In the place of sizes: of rows without an image, of images that have not been read, and of those that have a path alone."""

Cell = tuple[bytes | None, str | None]
"""The bytes of an image and its embedded path."""


class RowTable(Protocol):
    """Rows with images: a Parquet file, or one split of a Hugging Face data set.

    Attributes:
        location: of the file or the folder, to which embedded paths are relative.
        facts: the row of ``FileFacts`` of its file when it was opened, or what stands in for it.
        rows: the number of its rows.
    """

    location: str
    facts: tuple[int, int, int, int]
    rows: int

    def read(self, row: int) -> Cell:
        """Read the bytes of an image, or its path.

        Raises:
            OSError: the file is damaged or gone.
        """
        ...

    def sizes_of(self, rows: np.ndarray) -> np.ndarray:
        """(M,) int64: the sizes of some images in bytes, ``NO_IMAGE``, ``UNREAD`` or ``OUTSIDE``."""
        ...

    def paths(self, rows: np.ndarray) -> list[str]:
        """The embedded paths of the images of some rows."""
        ...


class RowStore(ABC):
    """Images in the rows of tables; see ``featx.data.store.Store``.

    Args:
        location: as ``Store.location``.
    """

    concurrency = 0

    def __init__(self, location: str) -> None:
        self.location = location

    @abstractmethod
    def parsed(self, path: str) -> tuple[str, int]:
        """The key of the table, and the number of the row.

        Raises:
            ImageError: it is no path of a row.
        """

    @abstractmethod
    def table(self, key: str) -> RowTable:
        """The table of a key, opened again if it has changed.

        Raises:
            OSError: it is damaged or gone.
            DatasetError: it has no such column of images.
        """

    @abstractmethod
    def name(self, path: str) -> str:
        """As ``Store.name``."""

    @abstractmethod
    def exists(self) -> bool:
        """As ``Store.exists``."""

    def facts(self, paths: Sequence[str]) -> FileFacts:
        """As ``Store.facts``: the times of the file. The size of an image is 0 where it is not known yet."""
        found = np.full((len(paths), 4), MISSING_FACTS, dtype=np.int64)
        for key, (at, numbers) in self._by_table(paths).items():
            try:
                found[at] = _facts_of(self.table(key), numbers)
            except (OSError, DatasetError):
                continue
        return FileFacts.of_rows(found)

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
        """As ``Store.read``."""
        key, number = self.parsed(path)
        try:
            table = self.table(key)
            if number >= table.rows:
                raise ImageError(f"is not there: there {form(table.rows, 'is', 'are')} {counted(table.rows, 'row')}")
            data, name = table.read(number)
        except (OSError, DatasetError) as error:
            raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
        if data is None:
            if not name:
                raise ImageError("is missing: the row has no image")
            return _read_outside(outside_place(table.location, name), admit)
        require_size(len(data))
        admit(len(data))
        _, mtime, ctime, inode = table.facts
        return FileBytes(data, len(data), mtime, (ctime, inode))

    def order(self, paths: Sequence[str]) -> np.ndarray:
        """As ``Store.order``: by table, and by row in it."""
        keys, numbers = zip(*map(self.parsed, paths), strict=True) if len(paths) else ((), ())
        _, tables = np.unique(np.array(keys, dtype=object).astype(str), return_inverse=True)
        order: np.ndarray = np.lexsort((np.array(numbers, dtype=np.int64), tables))
        return order

    def _by_table(self, paths: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The positions and the rows of those paths that name rows, by the keys of their tables."""
        found: dict[str, tuple[list[int], list[int]]] = {}
        for at, path in enumerate(paths):
            try:
                key, number = self.parsed(path)
            except ImageError:
                continue
            positions, numbers = found.setdefault(key, ([], []))
            positions.append(at)
            numbers.append(number)
        return {key: (np.array(at), np.array(numbers, dtype=np.int64)) for key, (at, numbers) in found.items()}


def _facts_of(table: RowTable, numbers: np.ndarray) -> np.ndarray:
    """(N, 4): the facts of some rows of a table."""
    found = np.full((len(numbers), 4), MISSING_FACTS, dtype=np.int64)
    there = np.flatnonzero(numbers < table.rows)
    sizes = table.sizes_of(numbers[there])
    found[there] = table.facts
    found[there, 0] = np.where(sizes == UNREAD, 0, sizes)
    found[there[sizes == NO_IMAGE]] = MISSING_FACTS
    if (outside := there[sizes == OUTSIDE]).size:
        found[outside] = [outside_place(table.location, path).facts() for path in table.paths(numbers[outside])]
    return found


def outside_place(file: str, path: str) -> Place:
    """The file of an image that is not embedded.

    Args:
        file: the location of the file whose row names the image.
        path: its path: a URL, absolute, or relative to the folder of the file.
    """
    if is_remote(path) or path.startswith("/") or path.lower().startswith("file://"):
        return place(path)
    return place(f"{file.rpartition('/')[0]}/{path}")


def _read_outside(where: Place, admit: Callable[[int], None]) -> FileBytes:
    """Read an image that is not embedded, as ``Store.read``."""
    if isinstance(where, LocalFile):
        return FolderStore("/").read(where.location, admit)
    return read_remote(where.location, None, admit)
