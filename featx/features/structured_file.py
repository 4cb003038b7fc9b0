"""A file whose structure is fixed: raw bytes at known offsets change, and attributes by one atomic write."""

from __future__ import annotations

import contextlib
import os
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from featx.errors import FeatxError, OutputError
from featx.features import hdf5
from featx.features.hdf5 import Structure
from featx.features.lock import require_locks
from featx.features.open_file import read_at
from featx.io.atomic import output_error, reserve
from featx.text import size_text


class StructuredFile:
    """A file of a known HDF5 structure, for writing. Every method raises an OutputError if the disk fails.

    What changes the file raises a CacheLockedError if this process has lost a lock that it held, see ``require_locks``.

    Attributes:
        path: the present path of the file.
        structure: its structure.
    """

    def __init__(self, path: Path, structure: Structure) -> None:
        self.path, self.structure = path, structure

    def open(self, *, new: bool = False) -> None:
        """Open the file.

        Args:
            new: make it. An older file or link of this name is removed, never followed; the umask applies.
        """
        with self.output_errors():
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
            if new:
                self.path.unlink(missing_ok=True)
                flags |= os.O_CREAT | os.O_EXCL
            self._file = os.open(self.path, flags, 0o666)
        weakref.finalize(self, os.close, self._file)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"the descriptor of {self.path} belongs to this process and cannot be pickled")

    def lay_out(self, columns: Mapping[str, np.ndarray]) -> None:
        """Write the structure and some tables into an empty file, reserve the space of all others, and sync it.

        Args:
            columns: the contents of tables, by name.
        """
        with self.output_errors():
            os.ftruncate(self._file, self.structure.size)
            reserve(self._file, self.structure.size)
            _write_all(self._file, self.structure.data, 0)
        for name, column in columns.items():
            self.put(name, 0, column)
        self.sync()

    def put(self, table: str, row: int, data: bytes | np.ndarray) -> None:
        """Write consecutive rows of a table.

        Args:
            table: the name of the table.
            row: the number of the first row.
            data: the rows.
        """
        entry = self.structure.tables[table]
        raw = data if isinstance(data, bytes) else np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
        require_locks()
        with self.output_errors():
            _write_all(self._file, raw, entry.offset + row * (entry.nbytes // max(1, entry.shape[0])))

    def put_rows(self, table: str, rows: np.ndarray, runs: Sequence[tuple[int, int]], data: np.ndarray) -> None:
        """Write rows of a table.

        Args:
            table: the name of the table.
            rows: (B,) row numbers.
            runs: the positions [first, last) of consecutive row numbers, as from ``checksums.consecutive_runs``.
            data: the B rows.
        """
        for first, last in runs:
            self.put(table, int(rows[first]), data[first:last])

    def set_attributes(self, attrs: Mapping[str, hdf5.Value]) -> None:
        """Change attributes in place by one write into one sector, so that a kill leaves the old or the new values."""
        new = hdf5.pack({**self.structure.attrs, **attrs}, self.structure.tables)
        require_locks()
        with self.output_errors():
            old = read_at(self._file, len(new.data), 0)
            changed = [at for at, (a, b) in enumerate(zip(old, new.data, strict=True)) if a != b]
            if changed:
                first, last = changed[0], changed[-1]
                assert first // hdf5.SECTOR == last // hdf5.SECTOR
                _write_all(self._file, new.data[first : last + 1], first)
        self.structure = new

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        with self.output_errors():
            os.fsync(self._file)

    def rename(self, path: Path) -> None:
        """Move the file to another path in its folder, replacing what is there."""
        require_locks()
        with self.output_errors():
            self.path.replace(path)
        self.path = path

    def remove(self) -> None:
        """Remove the file, unless another process has put one of its own in its place."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._file), self.path.lstat()):
                self.path.unlink()

    @contextlib.contextmanager
    def output_errors(self) -> Iterator[None]:
        """Turn the errors of the system into an OutputError that names the file and, on a full disk, the space it needs."""
        try:
            yield
        except FeatxError:
            raise
        except OSError as error:
            raise output_error(self.path, self.structure.size, error) from error


def require_space(path: Path, need: int) -> None:
    """Check that the disk has room for a file.

    Args:
        path: the path of the file.
        need: its size in bytes.

    Raises:
        OutputError: it does not; the message names the needed and the free space.
    """
    free = shutil.disk_usage(path.parent).free
    if need > free:
        raise OutputError(
            f"{path} needs {size_text(need)}, {size_text(free)} free; --cache names another folder, "
            "--dtype float16 halves the size, featx cache rm removes files that nothing needs"
        )


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(file: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count
