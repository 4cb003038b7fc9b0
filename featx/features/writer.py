"""Writing a feature file, so that a run killed at any moment loses nothing that was marked done.

Its structure is written and synced once, before the first row; after that only raw bytes at known offsets change: features,
then checks and keys, then status. ``hdf5.py`` packs the structure; h5py proves of each new file that HDF5 reads it so.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import CacheMissError, CorruptFileError, OutputError
from featx.features import checksums, hdf5
from featx.features.feature_file import (
    DONE,
    FAILED,
    FORMAT,
    INCOMPLETE,
    TODO,
    VERSION,
    FeatureFile,
    ImageTable,
    partial_of,
    stretches,
)
from featx.features.hdf5 import Structure, Table
from featx.io.atomic import reserve
from featx.text import size_text

_ERROR_BYTES = 120
_LEAST_SPLIT_BYTES = 8


class FeatureFileWriter:
    """Writes a feature file row by row, beside its final name, and renames it when it is complete.

    What an interrupted run of the very same extraction left, ``<name>.h5.partial``, is gone on with in place. Otherwise the
    file is ``<name>.h5.new`` until ``publish``, ``<name>.h5.partial`` until ``finish``, then ``<name>.h5``.

    Attributes:
        path: the final name.
        kept: what the interrupted run left, as it was found; or None.
    """

    def __init__(
        self,
        path: Path,
        *,
        images: ImageTable,
        classes: Sequence[str],
        layers: Mapping[str, tuple[int, str]],
        dtype: str,
        identity: str,
        backbone: Mapping[str, Any],
        dataset: Mapping[str, Any],
    ) -> None:
        """Lay out a file, or open what is left of it.

        Args:
            path: the final name.
            images: the rows.
            classes: (C,) names.
            layers: width D and identity of each layer.
            dtype: of the features: float32 or float16.
            identity: of all layers together.
            backbone: as ``Header.backbone``.
            dataset: as ``Header.dataset``.

        Raises:
            OutputError: the folder cannot be written, or the disk has no room for the whole file.
        """
        self.path = path
        self._layers = {name: dim for name, (dim, _) in layers.items()}
        self._dtype = np.dtype(dtype).newbyteorder("<")
        columns = _columns(images, classes)
        attrs: dict[str, hdf5.Value] = {
            "format": FORMAT,
            "version": VERSION,
            "identity": identity,
            "backbone": _json(backbone),
            "dataset": _json(dataset),
        }
        try:
            self._structure = hdf5.pack({**attrs, **INCOMPLETE}, _tables(columns, layers, self._dtype))
        except ValueError as error:
            raise OutputError(f"{path} cannot be a feature file: {error}") from error
        self.kept = self._unfinished(columns, given_splits=dataset["splits"] == "given")
        if self.kept:
            self._at = partial_of(path)
            self._continue()
        else:
            self._at = path.with_name(path.name + ".new")
            self._create(columns)

    def write(self, rows: Sequence[int] | np.ndarray, keys: np.ndarray, features: Mapping[str, np.ndarray]) -> None:
        """Commit rows: features first, then their checks and keys, then their status.

        Args:
            rows: (B,) row numbers.
            keys: (B, 16) uint8.
            features: (B, D) for each layer.
        """
        numbers = np.asarray(rows, dtype=np.int64)
        runs = list(stretches(numbers, len(numbers)))
        for layer in self._layers:
            block = np.ascontiguousarray(features[layer], dtype=self._dtype)
            for name, data in (("features", block), ("checks", checksums.of_rows(block).astype("<u4"))):
                self._put_rows(f"{name}/{layer}", numbers, runs, data)
        self._put_rows("images/key", numbers, runs, np.ascontiguousarray(keys))
        for row in self._failed_before.intersection(numbers.tolist()):
            self._put("images/error", row, bytes(_ERROR_BYTES))
        self._put_rows("images/status", numbers, runs, np.full(len(numbers), DONE, dtype=np.uint8))

    def fail(self, row: int, key: bytes, reason: str) -> None:
        """Commit a row that has no features, and why. A key of zeros says that not even its bytes could be read."""
        if self.kept:  # something may have been written there
            for layer, dim in self._layers.items():
                self._put(f"features/{layer}", row, bytes(dim * self._dtype.itemsize))
                self._put(f"checks/{layer}", row, bytes(4))
        self._put("images/key", row, key)
        self._put("images/error", row, _cut_utf8(reason, _ERROR_BYTES).ljust(_ERROR_BYTES, b"\0"))
        self._put("images/status", row, bytes([FAILED]))

    def restat(self, row: int, size: int, mtime_ns: int) -> None:
        """Correct the size and time of an image that has changed since the data set was listed."""
        self._put("images/size", row, size.to_bytes(8, "little", signed=True))
        self._put("images/mtime_ns", row, mtime_ns.to_bytes(8, "little", signed=True))

    def set_splits(self, splits: Sequence[str]) -> None:
        """Write the whole column of splits, for a data set that names none."""
        width = self._structure.tables["images/split"].dtype.itemsize
        self._put("images/split", 0, b"".join(split.encode().ljust(width, b"\0") for split in splits))

    def publish(self) -> None:
        """Take the place of an older partial file: from now on an interrupted run leaves this one."""
        partial = partial_of(self.path)
        if self._at != partial:
            with self._trouble():
                self._at.replace(partial)
            self._at = partial

    def discard(self) -> None:
        """Remove a file that was never published. What an interrupted run left stays."""
        if self._at.name.endswith(".new"):
            self._at.unlink(missing_ok=True)

    def finish(self) -> FeatureFile:
        """Mark the file complete, sync it and give it its final name.

        Raises:
            OutputError: the disk fails.
        """
        with self._trouble():
            os.fsync(self._file)
            written = FeatureFile(self._at, allow_partial=True)
            if (written.status == TODO).any():
                raise OutputError(
                    f"{self._at} is not complete: {np.count_nonzero(written.status == TODO)} rows are to do"
                )
            digest = written.computed_digest().encode()
            del written
            self._restructure({"digest": digest, "complete": np.uint8(1)})
            os.fsync(self._file)
            self._at.replace(self.path)
            _sync(self.path.parent)
        return FeatureFile(self.path)

    def _unfinished(self, columns: Mapping[str, np.ndarray], *, given_splits: bool) -> FeatureFile | None:
        """What an interrupted run left, if it was to become the very same file."""
        try:
            left = FeatureFile(partial_of(self.path), allow_partial=True)
        except (CacheMissError, CorruptFileError):
            return None
        attrs = {**left.structure.attrs, **INCOMPLETE}
        if attrs != self._structure.attrs or left.structure.tables != self._structure.tables:
            return None
        theirs = _columns(left.images, left.classes)
        decided = [name for name in theirs if given_splits or name != "images/split"]
        return left if all(np.array_equal(columns[name], theirs[name]) for name in decided) else None

    def _continue(self) -> None:
        assert self.kept
        with self._trouble():
            self._open_file()
            self._restructure(INCOMPLETE)  # in case it was killed between completing and renaming
            os.utime(self._at)
        self._failed_before = set(np.flatnonzero(self.kept.status == FAILED).tolist())

    def _create(self, columns: Mapping[str, np.ndarray]) -> None:
        """Lay out the whole file, reserve its space, sync it, and have HDF5 read it."""
        self._failed_before = set[int]()
        with self._trouble():
            self._at.unlink(missing_ok=True)
            require_space(self.path, self._structure.size)
            self._at.touch()
            self._open_file()
            try:
                os.ftruncate(self._file, self._structure.size)
                reserve(self._file, self._structure.size)
                _write_all(self._file, self._structure.data, 0)
                for name, column in columns.items():
                    self._put(name, 0, column)
                os.fsync(self._file)
                _prove(self._at, self._structure)
            except BaseException:
                self._at.unlink(missing_ok=True)
                raise

    def _open_file(self) -> None:
        self._file = os.open(self._at, os.O_RDWR | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def _restructure(self, attrs: Mapping[str, hdf5.Value]) -> None:
        """Change attributes in place, by one write into one sector: a kill leaves the old or the new."""
        new = hdf5.pack({**self._structure.attrs, **attrs}, self._structure.tables)
        old = os.pread(self._file, len(new.data), 0)
        changed = [at for at, (a, b) in enumerate(zip(old, new.data, strict=True)) if a != b]
        if changed:
            first, last = changed[0], changed[-1]
            assert first // hdf5.SECTOR == last // hdf5.SECTOR
            _write_all(self._file, new.data[first : last + 1], first)
        self._structure = new

    def _put_rows(self, table: str, rows: np.ndarray, runs: Sequence[tuple[int, int]], data: np.ndarray) -> None:
        for first, last in runs:
            self._put(table, int(rows[first]), data[first:last])

    def _put(self, name: str, row: int, data: bytes | np.ndarray) -> None:
        table = self._structure.tables[name]
        raw = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
        with self._trouble():
            _write_all(self._file, raw, table.offset + row * (table.nbytes // max(1, table.shape[0])))

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except (OutputError, CacheMissError, CorruptFileError):
            raise
        except OSError as error:
            raise output_error(self._at, self._structure.size, error) from error


def require_space(path: Path, need: int) -> None:
    """Refuse to begin a file that the disk has no room for.

    Raises:
        OutputError: naming what is needed and what is free.
    """
    free = shutil.disk_usage(path.parent).free
    if need > free:
        raise OutputError(
            f"{path} needs {size_text(need)}, {size_text(free)} free; --cache names another folder, "
            "--dtype float16 halves the need, featx cache rm removes what nothing needs"
        )


def output_error(path: Path, need: int, error: OSError) -> OutputError:
    """What went wrong with a file that is being written, and what it needs."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        with contextlib.suppress(OSError):
            free = size_text(shutil.disk_usage(path.parent).free)
            return OutputError(f"cannot write {path}: {error.strerror}; it needs {size_text(need)}, {free} free")
    return OutputError(f"cannot write {path}: {error.strerror or error}")


def _columns(images: ImageTable, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """What is written when the file is laid out."""
    return {
        "classes": _fixed(list(map(os.fsencode, classes))),
        "images/path": _fixed(images.paths),
        "images/label": np.asarray(images.labels, dtype="<i8"),
        "images/split": _fixed(images.splits, least=_LEAST_SPLIT_BYTES),
        "images/size": np.asarray(images.sizes, dtype="<i8"),
        "images/mtime_ns": np.asarray(images.mtimes, dtype="<i8"),
    }


def _tables(
    columns: Mapping[str, np.ndarray], layers: Mapping[str, tuple[int, str]], dtype: np.dtype[Any]
) -> dict[str, Table]:
    """Every table of the file, in the order of the format."""
    count = len(columns["images/path"])
    tables = {name: Table(column.dtype, column.shape) for name, column in columns.items()}
    tables["images/key"] = Table(np.dtype("u1"), (count, 16))
    tables["images/status"] = Table(np.dtype("u1"), (count,))
    tables["images/error"] = Table(np.dtype(f"S{_ERROR_BYTES}"), (count,))
    for name, (dim, identity) in layers.items():
        tables[f"features/{name}"] = Table(dtype, (count, dim), {"identity": identity})
        tables[f"checks/{name}"] = Table(np.dtype("<u4"), (count,))
    return tables


def _prove(path: Path, structure: Structure) -> None:
    """HDF5 itself finds in a new file what was meant to be there, at the same offsets, and featx can read it again."""
    import h5py  # only writers need it

    try:
        FeatureFile(path, allow_partial=True)
    except CorruptFileError as error:
        raise OutputError(f"what was written could not be read again: {error}") from error
    with h5py.File(path, "r", locking=False) as file:
        attrs = {name: value.tobytes() if isinstance(value, np.bytes_) else value for name, value in file.attrs.items()}
        tables = {}
        for name in structure.tables:
            found = file[name]
            offset = found.id.get_offset()
            tables[name] = Table(found.dtype, found.shape, dict(found.attrs), -1 if offset is None else offset)
    for name, table in structure.tables.items():
        offset = table.offset if table.nbytes else -1
        if tables[name] != Table(table.dtype, table.shape, table.attrs, offset):
            raise OutputError(f"HDF5 reads {name} of {path} as {tables[name]} instead of {table}")
    if attrs != structure.attrs:
        raise OutputError(f"HDF5 reads the attributes of {path} as {attrs} instead of {structure.attrs}")


def _write_all(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def _fixed(texts: Sequence[bytes] | np.ndarray, least: int = 1) -> np.ndarray:
    """Null-padded, as wide as the longest."""
    widths = texts.dtype.itemsize if isinstance(texts, np.ndarray) else max([0, *map(len, texts)])
    return np.array(texts, dtype=f"S{max(least, widths)}")


def _cut_utf8(text: str, most: int) -> bytes:
    return text.encode(errors="replace")[:most].decode(errors="ignore").encode()
