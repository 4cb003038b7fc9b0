"""Write a feature file so that a run that is killed at any moment loses no row that is marked done.

The structure is written and synced once, before the first row. After that only raw bytes at known offsets change: features,
then checksums and keys, then the status. ``hdf5`` packs the structure, and h5py verifies that the HDF5 library reads each new
file in the same way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import CacheMissError, CorruptFileError, OutputError
from featx.features import checksums, hdf5
from featx.features.feature_file import DONE, FAILED, TODO, FeatureFile, ImageTable, computed_digest
from featx.features.hdf5 import Structure, Table
from featx.features.header import FORMAT, INCOMPLETE, VERSION, WITH_COLUMNS, partial_path, table_of_column
from featx.features.structured_file import StructuredFile, require_space, sync_folder
from featx.text import brief, counted, to_utf8

_FACTS = ("images/path", "images/size", "images/mtime_ns")
"""What the checksum of a row covers besides the features and the key, until the file is complete."""

_NO_DIGEST = b"0" * 64

_ERROR_BYTES = 120
_MIN_SPLIT_BYTES = 8


class FeatureFileWriter:
    """Write a feature file row by row under a temporary name, and rename it when it is complete.

    If an interrupted run of exactly the same extraction left a file, ``<name>.h5.partial``, that file is continued in place.
    Otherwise the file is named ``<name>.h5.new`` until ``publish``, ``<name>.h5.partial`` until ``finish``, and then
    ``<name>.h5``.

    Attributes:
        path: the final path.
        resumed: the file of the interrupted run as it was when opened, or None.
        kept: (N,) bool: the rows that the interrupted run had done, whose checksums cover what is known of their images too.
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
        columns: Mapping[str, np.ndarray] | None = None,
        resume: bool = True,
    ) -> None:
        """Lay out a new file, or open the file of an interrupted run.

        Args:
            path: the final path.
            images: the images, one row each.
            classes: (C,) names of the classes.
            layers: width D and identity of each layer.
            dtype: the type of the features, "float32" or "float16".
            identity: the identity of all layers together.
            backbone: as in ``FeatureFileHeader.backbone``.
            dataset: as in ``FeatureFileHeader.dataset``.
            columns: further columns by their names, (N,) str each.
            resume: continue the file of an interrupted run if it fits; otherwise lay out a new one beside it.

        Raises:
            OutputError: the folder cannot be written, or the disk has no room for the whole file.
        """
        self.path = path
        self._layers = {name: dim for name, (dim, _) in layers.items()}
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._columns = _columns(images, classes)
        encoded = {name: _fixed_width(list(map(to_utf8, cells))) for name, cells in (columns or {}).items()}
        self._further = {table_of_column(name): cells for name, cells in encoded.items()}
        attrs: dict[str, hdf5.Value] = {
            "format": FORMAT,
            "version": WITH_COLUMNS if self._further else VERSION,
            "identity": identity,
            "backbone": _json(backbone),
            "dataset": _json(dataset),
        }
        try:
            structure = hdf5.pack({**attrs, **INCOMPLETE}, _tables(self._columns, self._further, layers, self._dtype))
        except ValueError as error:
            raise OutputError(f"{path} cannot be written as a feature file: {error}") from error
        self._vouched, self.kept = np.zeros((2, len(images.paths)), dtype=bool)
        self.resumed = self._unfinished(structure, given_splits=dataset["splits"] == "given") if resume else None
        if self.resumed:
            self._file = StructuredFile(partial_path(path), structure)
            self._continue(self.resumed)
        else:
            self._file = StructuredFile(path.with_name(path.name + ".new"), structure)
            self._create()

    def write(
        self,
        rows: Sequence[int] | np.ndarray,
        keys: np.ndarray,
        features: Mapping[str, np.ndarray],
        known: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Commit rows: first the features, then their checksums and keys, then their status.

        Until the file is complete, a checksum covers what is known of the image too: it is that of the features, xor that of
        path, size, time and key.

        Args:
            rows: (B,) row numbers.
            keys: (B, 16) uint8, the content hashes of the images.
            features: (B, D) for each layer.
            known: (B,) uint32 for each layer, the CRC-32 of the features, where they come from a file that has it.

        Raises:
            OutputError: the file cannot be written.
        """
        numbers = np.asarray(rows, dtype=np.int64)
        runs = list(checksums.consecutive_runs(numbers, len(numbers)))
        facts = checksums.fact_checksums(*(self._columns[name][numbers] for name in _FACTS), keys)
        for layer in self._layers:
            block = np.ascontiguousarray(features[layer], dtype=self._dtype)
            plain = known[layer] if known else checksums.row_checksums(block)
            checks = (plain ^ facts).astype("<u4")
            for name, data in (("features", block), ("checks", checks)):
                self._file.put_rows(f"{name}/{layer}", numbers, runs, data)
        self._file.put_rows("images/key", numbers, runs, np.ascontiguousarray(keys))
        self._vouched[numbers] = True
        self._file.put_rows("images/status", numbers, runs, np.full(len(numbers), DONE, dtype=np.uint8))

    def fail(self, row: int, key: bytes, reason: str) -> None:
        """Commit a row without features.

        Args:
            row: the row number.
            key: the 16 bytes of the content hash; zeros if the image file could not be read.
            reason: why the image failed; truncated to 120 bytes of UTF-8.

        Raises:
            OutputError: the file cannot be written.
        """
        if self.resumed:  # the interrupted run may have written features there
            for layer, dim in self._layers.items():
                self._file.put(f"features/{layer}", row, bytes(dim * self._dtype.itemsize))
                self._file.put(f"checks/{layer}", row, bytes(4))
        self._file.put("images/key", row, key)
        self._file.put("images/error", row, _cut_utf8(reason, _ERROR_BYTES).ljust(_ERROR_BYTES, b"\0"))
        self._file.put("images/status", row, bytes([FAILED]))

    def restat(self, row: int, size: int, mtime_ns: int) -> None:
        """Update the size and modification time of an image that has changed since the data set was listed."""
        self._columns["images/size"][row], self._columns["images/mtime_ns"][row] = size, mtime_ns
        self._file.put("images/size", row, size.to_bytes(8, "little", signed=True))
        self._file.put("images/mtime_ns", row, mtime_ns.to_bytes(8, "little", signed=True))

    def record_engine(self, name: str) -> None:
        """Keep the name of the engine that computes the features, so that a run that continues the file takes the same one."""
        self._file.set_attributes({"digest": name.encode().ljust(len(_NO_DIGEST), b"0")})

    def set_splits(self, splits: Sequence[str]) -> None:
        """Write the split of every image, for a data set that names no splits."""
        width = self._file.structure.tables["images/split"].dtype.itemsize
        padded = {split: split.encode().ljust(width, b"\0") for split in set(splits)}
        self._file.put("images/split", 0, b"".join(map(padded.__getitem__, splits)))

    def publish(self) -> None:
        """Replace an older partial file: from now on an interrupted run leaves this one."""
        if self._file.path != partial_path(self.path):
            self._file.rename(partial_path(self.path))

    def discard(self) -> None:
        """Remove a file that was never published. The file of an interrupted run stays."""
        if self._file.path.name.endswith(".new"):
            self._file.remove()

    def finish(self) -> FeatureFile:
        """Mark the file complete, sync it and rename it to its final path.

        Returns:
            The complete file, open for reading.

        Raises:
            OutputError: rows are still to do, or the disk fails.
        """
        self._file.sync()
        with self._file.output_errors():
            written = FeatureFile(self._file.path, allow_partial=True)
            if to_do := np.count_nonzero(written.status == TODO):
                raise OutputError(
                    f"{self._file.path} is not complete: {counted(to_do, 'row is', 'rows are')} still to do"
                )
            final = {layer: written.final_checksums(layer, self._vouched) for layer in self._layers}
            digest = computed_digest(written, final).encode()
            del written
        for layer, column in final.items():
            self._file.put(f"checks/{layer}", 0, column)
        self._file.sync()
        self._file.set_attributes({"digest": digest, "complete": np.uint8(1)})
        self._file.sync()
        self._file.rename(self.path)
        with self._file.output_errors():
            sync_folder(self.path.parent)
        return FeatureFile(self.path)

    def _unfinished(self, structure: Structure, *, given_splits: bool) -> FeatureFile | None:
        """The file of an interrupted run, if it was going to become exactly this file, and may be written."""
        try:
            left = FeatureFile(partial_path(self.path), allow_partial=True)
        except (CacheMissError, CorruptFileError):
            return None
        attrs = {**left.structure.attrs, **INCOMPLETE}
        if attrs != structure.attrs or left.structure.tables != structure.tables or not os.access(left.path, os.W_OK):
            return None
        stored = _columns(left.images, left.classes)
        decided = [name for name in stored if given_splits or name != "images/split"]
        same = all(np.array_equal(self._columns[name], stored[name]) for name in decided) and all(
            np.array_equal(self._further[table_of_column(name)], left.encoded_column(name))
            for name in left.column_names
        )
        return left if same else None

    def _continue(self, left: FeatureFile) -> None:
        """Open the file of an interrupted run, and make it the newest of its folder.

        Reasons of failures have no checksum, so they are removed, and those images are read again.
        """
        done = np.flatnonzero(left.status == DONE)
        kept = done[left.vouched(done)]
        if left.complete:  # its digest does not cover the features
            kept = kept[left.checksums_match_in_all(list(self._layers), kept)]
        self._vouched[kept] = self.kept[kept] = True
        facts = checksums.fact_checksums(*(self._columns[name] for name in _FACTS), left.keys)
        self._file.open()
        if left.complete:  # the run was killed between completing and renaming
            self._file.set_attributes(INCOMPLETE)
            self._file.sync()
            for layer in self._layers:
                self._file.put(f"checks/{layer}", 0, left.checksums(layer) ^ facts * self._vouched)
        for row in left.rows_with_errors().tolist():
            self._file.put("images/error", row, bytes(_ERROR_BYTES))
        with self._file.output_errors():
            os.utime(self._file.path)

    def _create(self) -> None:
        """Lay out the whole file, reserve its space, sync it, and verify it with the HDF5 library."""
        path, structure = self._file.path, self._file.structure
        with self._file.output_errors():
            require_space(self.path, structure.size)
            self._file.open(new=True)
            try:
                self._file.lay_out({**self._columns, **self._further})
                _verify(path, structure)
            except BaseException:
                path.unlink(missing_ok=True)
                raise


def _columns(images: ImageTable, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """The tables that are written when the file is laid out."""
    return {
        "classes": _fixed_width(list(map(to_utf8, classes))),
        "images/path": _fixed_width(images.paths),
        "images/label": np.asarray(images.labels, dtype="<i8"),
        "images/split": _fixed_width(images.splits, minimum=_MIN_SPLIT_BYTES),
        "images/size": np.array(images.sizes, dtype="<i8"),
        "images/mtime_ns": np.array(images.mtimes, dtype="<i8"),
    }


def _tables(
    columns: Mapping[str, np.ndarray],
    further: Mapping[str, np.ndarray],
    layers: Mapping[str, tuple[int, str]],
    dtype: np.dtype[Any],
) -> dict[str, Table]:
    """The description of every table of the file, in the order of the format."""
    count = len(columns["images/path"])
    tables = {name: Table(column.dtype, column.shape) for name, column in columns.items()}
    tables["images/key"] = Table(np.dtype("u1"), (count, 16))
    tables["images/status"] = Table(np.dtype("u1"), (count,))
    tables["images/error"] = Table(np.dtype(f"S{_ERROR_BYTES}"), (count,))
    tables |= {name: Table(column.dtype, column.shape) for name, column in further.items()}
    for name, (dim, identity) in layers.items():
        tables[f"features/{name}"] = Table(dtype, (count, dim), {"identity": identity})
        tables[f"checks/{name}"] = Table(np.dtype("<u4"), (count,))
    return tables


def _verify(path: Path, structure: Structure) -> None:
    """Verify that featx can read a new file, and that the HDF5 library finds the same tables at the same offsets."""
    import h5py  # only writing needs it

    try:
        FeatureFile(path, allow_partial=True)
    except CorruptFileError as error:
        raise OutputError(f"the new file could not be read again: {error}") from error
    try:
        with h5py.File(path, "r", locking=False) as file:
            attrs = {
                name: value.tobytes() if isinstance(value, np.bytes_) else value for name, value in file.attrs.items()
            }
            tables = {}
            for name in structure.tables:
                found = file[name]
                offset = found.id.get_offset()
                tables[name] = Table(found.dtype, found.shape, dict(found.attrs), -1 if offset is None else offset)
    except (OSError, KeyError, RuntimeError, ValueError) as error:  # h5py raises any of them where a read fails
        raise OutputError(f"HDF5 cannot read the new file {path}: {brief(error)}; name another disk with -o") from error
    for name, table in structure.tables.items():
        offset = table.offset if table.nbytes else -1
        if tables[name] != Table(table.dtype, table.shape, table.attrs, offset):
            raise OutputError(f"HDF5 reads {name} of {path} as {tables[name]} instead of {table}")
    if attrs != structure.attrs:
        raise OutputError(f"HDF5 reads the attributes of {path} as {attrs} instead of {structure.attrs}")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def _fixed_width(texts: Sequence[bytes] | np.ndarray, minimum: int = 1) -> np.ndarray:
    """Texts padded with zeros to the width of the longest."""
    width = texts.dtype.itemsize if isinstance(texts, np.ndarray) else max([0, *map(len, texts)])
    return np.array(texts, dtype=f"S{max(minimum, width)}")


def _cut_utf8(text: str, most: int) -> bytes:
    return text.encode(errors="replace")[:most].decode(errors="ignore").encode()
