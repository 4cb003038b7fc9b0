"""The feature file: one HDF5 file for each data set and backbone.

docs/cache-format.md specifies it. A row counts if its status is done and its CRC-32 matches. This module reads files,
``writer`` writes them, and ``hdf5`` parses and packs their structure.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.errors import CacheMissError, CorruptFileError
from featx.features import checksums
from featx.features.hdf5 import Table
from featx.features.header import COLUMNS, FeatureFileHeader, Layer, read_errors
from featx.layer_spec import option_for
from featx.text import size_text

TODO, DONE, FAILED = 0, 1, 2
"""Values of ``/images/status``."""

_ERRORS = "images/error"

_DIGEST_BLOCK = 1 << 20
"""Bytes of the table of errors that are hashed at once."""


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images of a feature file, one row each, in the order of the features.

    Attributes:
        paths: (N,) bytes, relative to the data set's root (``os.fsencode``).
        labels: (N,) int64 into the classes; -1 for an unlabelled image.
        splits: (N,) bytes, UTF-8; empty where the split is not decided yet.
        sizes: (N,) int64, size of the image file in bytes.
        mtimes: (N,) int64, modification time of the image file in ns; -1 where it cannot be trusted.
    """

    paths: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    sizes: np.ndarray
    mtimes: np.ndarray


class FeatureFile(FeatureFileHeader):
    """A feature file, open for reading. The small tables are in memory, the features are memory-mapped.

    An open file stays readable when a newer one replaces it.

    Attributes:
        classes: (C,) names of the classes.
        images: the table of images, without key and status.
        keys: (N, 16) uint8, content hashes of the images; all zero where an image could not be read.
        status: (N,) uint8: 0 to do, 1 done, 2 failed.

    Example:

        file = featx.FeatureFile("cache/photos--resnet50.h5")
        rows = np.flatnonzero(file.status == 1)
        features = file.features("penultimate")[rows]  # (R, 2048) float32
        assert file.checksums_match("penultimate", rows).all()
    """

    def __init__(self, path: str | os.PathLike[str], *, allow_partial: bool = False) -> None:
        """Open a file and check everything but the features, which ``checksums_match`` verifies.

        Args:
            path: the path of the file.
            allow_partial: also accept the file of an interrupted extraction.

        Raises:
            CacheMissError: there is no such file.
            CorruptFileError: the file is not a feature file, has an unknown version, is incomplete, or is damaged outside the
                features.
        """
        super().__init__(path, allow_partial=allow_partial)
        self._require_memory()
        with read_errors(self.path), os.fdopen(os.dup(self._file), "rb") as file:
            column = {name: _read_table(file, self.structure.tables[name]) for name in COLUMNS if name != _ERRORS}
            self._checksums = {name: _read_table(file, self.structure.tables[f"checks/{name}"]) for name in self.layers}
            self._features = {
                name: np.memmap(file, layer.dtype, "r", layer.offset, (self.rows, layer.dim))
                for name, layer in self.layers.items()
            }
        self.classes = tuple(map(os.fsdecode, column["classes"].tolist()))
        self.images = ImageTable(
            paths=column["images/path"],
            labels=column["images/label"],
            splits=column["images/split"],
            sizes=column["images/size"],
            mtimes=column["images/mtime_ns"],
        )
        self.keys, self.status = column["images/key"], column["images/status"]
        if self.complete and self.digest != self.computed_digest():
            raise CorruptFileError(
                f"{self.path}: its tables do not match their digest, so some bytes have changed since it was made. "
                "Delete it and run featx extract again"
            )
        self._check_values()

    def __len__(self) -> int:
        return self.rows

    def features(self, layer: str) -> np.ndarray:
        """The features of a layer: (N, D) float32 or float16, memory-mapped and read-only.

        Only rows whose status is done hold features.

        Raises:
            CacheMissError: the file has no such layer.
        """
        self.layer(layer)
        return self._features[layer]

    def layer(self, name: str) -> Layer:
        """The description of a layer.

        Raises:
            CacheMissError: the file has no such layer.
        """
        if name not in self.layers:
            raise CacheMissError(
                f"{self.path} has no layer {name!r}, only {', '.join(self.layers)}; featx extract {option_for(name)} adds it"
            )
        return self.layers[name]

    def checksums(self, layer: str) -> np.ndarray:
        """The stored CRC-32 of each row of a layer: (N,) uint32.

        Raises:
            CacheMissError: the file has no such layer.
        """
        self.layer(layer)
        return self._checksums[layer]

    def checksums_match(self, layer: str, rows: np.ndarray) -> np.ndarray:
        """Read rows of a layer and compare them with their checksums.

        Args:
            layer: the name of the layer.
            rows: (R,) row numbers; ascending ones are read fastest.

        Returns:
            (R,) bool: whether the row is done and matches its checksum.

        Raises:
            CacheMissError: the file has no such layer.
        """
        entry, rows = self.layer(layer), np.asarray(rows, dtype=np.int64)
        matches = checksums.rows_match(
            self._file,
            offset=entry.offset,
            width=entry.dim * entry.dtype.itemsize,
            rows=rows,
            expected=self._checksums[layer][rows],
        )
        return np.asarray((self.status[rows] == DONE) & matches)

    def checksums_match_in_all(self, layers: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Which of these rows are done and match their checksums in each of these layers: (R,) bool.

        Raises:
            CacheMissError: the file has no such layer.
        """
        return np.asarray(np.logical_and.reduce([self.checksums_match(layer, rows) for layer in layers]))

    @property
    def paths(self) -> list[str]:
        """The paths of the images relative to the data set's root, as ``os.fsdecode`` returns them."""
        return list(map(os.fsdecode, self.images.paths.tolist()))

    @property
    def splits(self) -> np.ndarray:
        """The split of each image: (N,) str."""
        names, rows = np.unique(self.images.splits, return_inverse=True)
        return np.array([name.decode() for name in names.tolist()], dtype=object)[rows]

    def error(self, row: int) -> str:
        """The reason why a row failed; "" if it did not."""
        table = self.structure.tables[_ERRORS]
        data = os.pread(self._file, table.dtype.itemsize, table.offset + row * table.dtype.itemsize)
        return data.rstrip(b"\0").decode(errors="replace")

    def computed_digest(self) -> str:
        """Compute the SHA-256, in hex, of everything but the features, which have their checksums."""
        digest = hashlib.sha256()
        layers = {name: [e.dim, e.dtype.str, e.identity] for name, e in sorted(self.layers.items())}
        attrs = self.structure.attrs
        texts = [str(attrs[name]) for name in ("identity", "backbone", "dataset")]
        for text in [*texts, json.dumps(layers), json.dumps(self.classes)]:
            digest.update(text.encode(errors="surrogateescape") + b"\0")
        t = self.images
        columns = [t.paths, t.labels, t.splits, t.sizes, t.mtimes, self.keys, self.status]
        for column in columns:
            digest.update(f"{column.dtype.str}{column.shape}".encode())
            digest.update(column.data)
        table = self.structure.tables[_ERRORS]  # the widest table and mostly empty, so it is not held in memory
        digest.update(f"{table.dtype.str}{table.shape}".encode())
        for at in range(0, table.nbytes, _DIGEST_BLOCK):
            digest.update(os.pread(self._file, min(_DIGEST_BLOCK, table.nbytes - at), table.offset + at))
        for name in sorted(self.layers):
            digest.update(f"{self._checksums[name].dtype.str}{self._checksums[name].shape}".encode())
            digest.update(self._checksums[name].data)
        return digest.hexdigest()

    def _require_memory(self) -> None:
        """Refuse a file whose tables need more than half of the machine's memory; it may come from a stranger."""
        need = self.structure.size - sum(self.rows * e.dim * e.dtype.itemsize for e in self.layers.values())
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if need > memory // 2:
            raise CorruptFileError(f"{self.path}: its tables take {size_text(need)}; the memory is {size_text(memory)}")

    def _check_values(self) -> None:
        """Check the values that other modules rely on."""
        labels, paths = self.images.labels, self.images.paths
        with contextlib.suppress(UnicodeDecodeError):
            for split in np.unique(self.images.splits).tolist():
                split.decode()
            letters = paths.view(np.uint8).reshape(self.rows, -1)
            if (
                labels.min() >= -1
                and labels.max() < len(self.classes)
                and self.status.max() <= FAILED
                and not (self.complete and (self.status == TODO).any())
                and not ((letters[:, :-1] == 0) & (letters[:, 1:] != 0)).any()  # no path contains a zero byte
                and "" not in self.classes
            ):
                return
        raise CorruptFileError(f"{self.path}: its tables hold labels, splits, paths or states that are not valid")


def _read_table(file: Any, table: Table) -> np.ndarray:
    file.seek(table.offset)
    column: np.ndarray = np.fromfile(file, table.dtype, table.nbytes // table.dtype.itemsize).reshape(table.shape)
    return column
