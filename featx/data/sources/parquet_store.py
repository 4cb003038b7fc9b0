"""The images of Parquet files by their paths: the file, the number of the row, and the embedded name of the image."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from featx.data.file_bytes import MISSING_FACTS, FileBytes, FileFacts, require_size
from featx.data.places import LocalFile, Place, is_remote, place
from featx.data.sources.parquet_file import BUDGET, NO_IMAGE, OUTSIDE, UNREAD, ParquetFile
from featx.data.store import FolderStore
from featx.errors import DatasetError, ImageError

_PATH = re.compile(r"(?:(.*?\.parquet)/)?(\d{1,18})(?:/.*)?", re.IGNORECASE | re.DOTALL)
"""The file, relative to the base of the store, and the number of the row."""

_MOST_OPEN = 32
"""The most Parquet files that are open at once."""


class ParquetStore:
    """Images in the rows of Parquet files; see ``featx.data.store.Store``.

    Args:
        location: as ``Store.location``.
        base: what the files of the paths are relative to; the file itself where there is one file alone.
        column: the column of images; None: the only one that there is.
    """

    concurrency = 0

    def __init__(self, location: str, base: str, column: str | None) -> None:
        self.location = location
        self._base, self._column = base, column
        self._files: OrderedDict[str, ParquetFile] = OrderedDict()
        self._lock = threading.Lock()

    def facts(self, paths: Sequence[str]) -> FileFacts:
        """As ``Store.facts``: the times of the file. The size of an image is 0 until it has been read once."""
        found = np.full((len(paths), 4), MISSING_FACTS, dtype=np.int64)
        for key, (at, numbers) in self._by_file(paths).items():
            try:
                found[at] = self._facts_of(self._file(key), key, numbers)
            except (OSError, DatasetError):
                continue
        return FileFacts.of_rows(found)

    def _facts_of(self, file: ParquetFile, key: str, numbers: np.ndarray) -> np.ndarray:
        """(N, 4): the facts of some rows of a file."""
        found = np.full((len(numbers), 4), MISSING_FACTS, dtype=np.int64)
        there = np.flatnonzero(numbers < file.rows)
        sizes = file.sizes_of(numbers[there])
        found[there] = file.facts
        found[there, 0] = np.where(sizes == UNREAD, 0, sizes)
        found[there[sizes == NO_IMAGE]] = MISSING_FACTS
        if (outside := there[sizes == OUTSIDE]).size:
            paths = file.paths(numbers[outside])
            found[outside] = [self._outside(key, path).facts() for path in paths]
        return found

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
        """As ``Store.read``."""
        key, number = self._parsed(path)
        try:
            file = self._file(key)
            if number >= file.rows:
                raise ImageError(f"is not there: the file has {file.rows:,} rows")
            data, name = file.read(number)
        except (OSError, DatasetError) as error:
            raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
        self._trim(key)
        if data is None:
            if not name:
                raise ImageError("is missing: the row has no image")
            return read_outside(self._outside(key, name), admit)
        require_size(len(data))
        admit(len(data))
        _, mtime, ctime, inode = file.facts
        return FileBytes(data, len(data), mtime, (ctime, inode))

    def order(self, paths: Sequence[str]) -> np.ndarray:
        """As ``Store.order``: by file, and by row in it."""
        keys, numbers = zip(*map(self._parsed, paths), strict=True) if len(paths) else ((), ())
        _, files = np.unique(np.array(keys, dtype=object).astype(str), return_inverse=True)
        order: np.ndarray = np.lexsort((np.array(numbers, dtype=np.int64), files))
        return order

    def name(self, path: str) -> str:
        """As ``Store.name``: the path below that of the files."""
        return f"{self._base}/{path}"

    def exists(self) -> bool:
        """As ``Store.exists``."""
        return is_remote(self._base) or os.path.lexists(self._base)

    def _parsed(self, path: str) -> tuple[str, int]:
        """The key of the file, and the number of the row.

        Raises:
            ImageError: it is no path of a row.
        """
        match = _PATH.fullmatch(path)
        if match is None or ".." in (match[1] or "").split("/"):
            raise ImageError("is not there: its path names no row of a Parquet file")
        return match[1] or "", int(match[2])

    def _by_file(self, paths: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The positions and the rows of those paths that name rows, by the keys of their files."""
        found: dict[str, tuple[list[int], list[int]]] = {}
        for at, path in enumerate(paths):
            try:
                key, number = self._parsed(path)
            except ImageError:
                continue
            positions, numbers = found.setdefault(key, ([], []))
            positions.append(at)
            numbers.append(number)
        return {key: (np.array(at), np.array(numbers, dtype=np.int64)) for key, (at, numbers) in found.items()}

    def _place(self, key: str) -> Place:
        return place(f"{self._base}/{key}" if key else self._base)

    def _file(self, key: str) -> ParquetFile:
        """The file of a key, opened again if it has changed."""
        where = self._place(key)
        with self._lock:
            file = self._files.get(key)
            if file is not None and isinstance(where, LocalFile) and where.facts() != file.facts:
                file = None
            if file is None:
                file = ParquetFile(where, self._column)
            self._files[key] = file
            self._files.move_to_end(key)
            while len(self._files) > _MOST_OPEN:
                self._files.popitem(last=False)
            return file

    def _trim(self, key: str) -> None:
        """Drop the images of other files than this one from memory, if there are too many."""
        with self._lock:
            others = [file for name, file in self._files.items() if name != key]
            total = sum(file.bytes for file in self._files.values())
            for file in others:
                if total > BUDGET and (size := file.bytes):
                    file.forget()
                    total -= size

    def _outside(self, key: str, path: str) -> Place:
        """The file of an image that is not embedded: its path is a URL, absolute, or relative to the Parquet file."""
        return outside_place(f"{self._base}/{key}" if key else self._base, path)


def outside_place(file: str, path: str) -> Place:
    """The file of an image that is not embedded.

    Args:
        file: the location of the file whose row names the image.
        path: its path: a URL, absolute, or relative to the folder of the file.
    """
    if is_remote(path) or path.startswith("/") or path.lower().startswith("file://"):
        return place(path)
    return place(f"{file.rpartition('/')[0]}/{path}")


def read_outside(where: Place, admit: Callable[[int], None]) -> FileBytes:
    """Read an image that is not embedded, as ``Store.read``."""
    if isinstance(where, LocalFile):
        return FolderStore("/").read(where.location, admit)
    size, mtime, ctime, inode = where.facts()
    if size == -1:
        raise ImageError(f"cannot be read: there is no {where.location}")
    require_size(size)
    admit(size)
    try:
        data = where.read()
    except OSError as error:
        raise ImageError(f"cannot be read: {error}") from error
    return FileBytes(data, len(data), mtime, (ctime, inode))
