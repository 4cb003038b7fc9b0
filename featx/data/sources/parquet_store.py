"""The images of Parquet files by their paths, and the files that are kept open."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable

from featx.data.file_bytes import FileBytes
from featx.data.places import LocalFile, is_remote, place
from featx.data.sources.parquet_file import BUDGET, ParquetFile
from featx.data.sources.row_store import RowStore
from featx.errors import ImageError

_PATH = re.compile(r"(?:(.*?\.parquet)/)?(\d{1,18})(?:/.*)?", re.IGNORECASE | re.DOTALL)
"""The file, relative to the base of the store, and the number of the row."""

_MOST_OPEN = 32
"""The most Parquet files that are open at once."""


class ParquetStore(RowStore):
    """Images in the rows of Parquet files; see ``featx.data.store.Store``.

    Args:
        location: as ``Store.location``.
        base: what the files of the paths are relative to; the file itself where there is one file alone.
        column: the column of images; None: the only one that there is.
    """

    def __init__(self, location: str, base: str, column: str | None) -> None:
        super().__init__(location)
        self._base, self._column = base, column
        self._files: OrderedDict[str, ParquetFile] = OrderedDict()
        self._lock = threading.Lock()

    def parsed(self, path: str) -> tuple[str, int]:
        """As ``RowStore.parsed``; the key is the path of the file below the base."""
        match = _PATH.fullmatch(path)
        if match is None or ".." in (match[1] or "").split("/"):
            raise ImageError("is not there: its path names no row of a Parquet file")
        return match[1] or "", int(match[2])

    def table(self, key: str) -> ParquetFile:
        """As ``RowStore.table``."""
        where = place(f"{self._base}/{key}" if key else self._base)
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

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
        """As ``Store.read``."""
        found = super().read(path, admit)
        self._trim(self.parsed(path)[0])
        return found

    def name(self, path: str) -> str:
        """As ``Store.name``: the path of the file, and that of the image in it."""
        return f"{self._base}/{path}"

    def exists(self) -> bool:
        """As ``Store.exists``."""
        return is_remote(self._base) or os.path.lexists(self._base)

    def _trim(self, key: str) -> None:
        """Drop the images of other files than this one from memory, if there are too many."""
        with self._lock:
            others = [file for name, file in self._files.items() if name != key]
            total = sum(file.bytes for file in self._files.values())
            for file in others:
                if total > BUDGET and (size := file.bytes):
                    file.forget()
                    total -= size
