"""The feature file: one HDF5 file for each data set and backbone.

docs/cache-format.md specifies it. A row counts if its status is done and its CRC-32 matches. This module reads files,
``writer`` writes them, and ``hdf5`` parses and packs their structure.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featx.constants import FOREIGN
from featx.errors import BackboneError, CacheMissError, CorruptFileError, UnreadableFileError
from featx.features import checksums
from featx.features.extract_command import backbone_words, cache_words, data_words
from featx.features.header import COLUMNS, FeatureFileHeader, Layer
from featx.features.open_file import read_array, read_at, read_errors
from featx.layer_spec import LayerNode, LayerSpec, views_with
from featx.text import from_utf8, size_text

TODO, DONE, FAILED = 0, 1, 2
"""Values of ``/images/status``."""

_ERRORS = "images/error"

_UNKNOWN, _NO, _YES = 0, 1, 2
"""Whether what is known of an image is as it was written."""

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
        with read_errors(self.path):
            column = {name: self._table(name) for name in COLUMNS if name != _ERRORS}
            self._checksums = {name: self._table(f"checks/{name}") for name in self.layers}
        self._map: np.ndarray | None = None
        self.classes = tuple(map(from_utf8, column["classes"].tolist()))
        self.images = ImageTable(
            paths=column["images/path"],
            labels=column["images/label"],
            splits=column["images/split"],
            sizes=column["images/size"],
            mtimes=column["images/mtime_ns"],
        )
        self.keys, self.status = column["images/key"], column["images/status"]
        if not self.complete:
            self.status[self.status > FAILED] = TODO  # a damaged one; the row is done again
        self._vouched = np.full(self.rows, _UNKNOWN, dtype=np.int8)
        if self.complete and self.digest != computed_digest(self):
            raise CorruptFileError(
                f"{self.path}: its tables do not match their digest, so some bytes have changed since it was made"
            )
        if not _has_valid_values(self):
            raise CorruptFileError(f"{self.path}: its tables hold labels, splits, paths or states that are not valid")

    def __len__(self) -> int:
        return self.rows

    def features(self, layer: str) -> np.ndarray:
        """The features of a layer: (N, D) float32 or float16, memory-mapped and read-only.

        Only rows whose status is done hold features.

        Raises:
            CacheMissError: the file has no such layer.
            UnreadableFileError: the system cannot map the file.
        """
        entry = self.layer(layer)
        if self._map is None:  # one mapping, and with it one descriptor, for all layers
            with read_errors(self.path), self._file.needed() as file, os.fdopen(os.dup(file), "rb") as whole:
                self._map = np.memmap(whole, np.uint8, "r", shape=(self.structure.size,))
        part = self._map[entry.offset : entry.offset + self.rows * entry.dim * entry.dtype.itemsize]
        rows: np.ndarray = part.view(entry.dtype).reshape(self.rows, entry.dim)
        return rows

    def release(self) -> None:
        """Close the file until it is needed again. Features that were handed out stay readable."""
        self._map = None
        self._file.release()

    @contextlib.contextmanager
    def needed(self) -> Iterator[None]:
        """Open a file that was released for the length of a block."""
        released = self._file.released
        with self._file.needed():
            yield
        if released:
            self._map = None

    def require(self, spec: LayerSpec) -> None:
        """Check that the file has the layers of a spec in all of its views.

        Raises:
            CacheMissError: it has not.
        """
        names = [n for n, *each in zip(spec.layers, *spec.stored, strict=True) if not self.layers.keys() >= {*each}]
        if names:
            raise CacheMissError(
                _lacking(self, str(LayerSpec(tuple(names), spec.views)), *names, views=spec.views_name)
            )

    def layer(self, name: str) -> Layer:
        """The description of a layer.

        Raises:
            CacheMissError: the file has no such layer.
        """
        if name not in self.layers:
            raise CacheMissError(_lacking(self, name, name))
        return self.layers[name]

    def checksums(self, layer: str) -> np.ndarray:
        """The CRC-32 of each row's features in a layer, as it was stored: (N,) uint32.

        Raises:
            CacheMissError: the file has no such layer.
        """
        self.layer(layer)
        return self._checksums[layer] if self.complete else self._plain(layer, self.vouched(np.arange(self.rows)))

    def checksums_match(self, layer: str, rows: np.ndarray) -> np.ndarray:
        """Read rows of a layer and compare them with their checksums.

        Args:
            layer: the name of the layer.
            rows: (R,) row numbers; ascending ones are read fastest.

        Returns:
            (R,) bool: whether the row is done and matches its checksum.

        Raises:
            CacheMissError: the file has no such layer.
            UnreadableFileError: the system cannot read it.
        """
        self.layer(layer)
        rows = np.asarray(rows, dtype=np.int64)
        done = self.status[rows] == DONE
        if self.complete:
            return np.asarray(done & self._match(layer, rows, self._checksums[layer][rows]))
        matches = np.asarray(done & self._match(layer, rows, self._checksums[layer][rows] ^ self._facts(rows)))
        # A row of an earlier featx, or of a run that was killed while it completed the file, has a plain checksum.
        others = np.flatnonzero(done & ~matches)
        matches[others] = self._match(layer, rows[others], self._checksums[layer][rows[others]])
        return matches

    def vouched(self, rows: np.ndarray) -> np.ndarray:
        """Which of (R,) rows have a path, a size, a time and a key that are as they were written: (R,) bool.

        In a complete file the digest vouches for all rows. In the file of an interrupted run the checksums of a row do, which
        cover its features as well; only rows that are done have them. They are read once.

        Raises:
            UnreadableFileError: the system cannot read the file.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if self.complete:
            return np.ones(len(rows), dtype=bool)
        self._vouched[rows[self.status[rows] != DONE]] = _NO
        unknown = np.unique(rows[self._vouched[rows] == _UNKNOWN])
        if len(unknown):
            facts = self._facts(unknown)
            each = [self._match(layer, unknown, self._checksums[layer][unknown] ^ facts) for layer in self.layers]
            self._vouched[unknown] = np.where(np.logical_and.reduce(each), _YES, _NO)
        return np.asarray(self._vouched[rows] == _YES)

    def final_checksums(self, layer: str, vouched: np.ndarray) -> np.ndarray:
        """The checksums of a layer's features that the file has when it is complete: (N,) uint32, 0 for rows that failed.

        Args:
            layer: the name of the layer.
            vouched: (N,) bool: rows whose stored checksum covers what is known of their images too.
        """
        return np.where(self.status == DONE, self._plain(layer, vouched), 0).astype("<u4")

    def _plain(self, layer: str, vouched: np.ndarray) -> np.ndarray:
        """The checksums of a layer's features alone: (N,) uint32."""
        return np.where(vouched, self._checksums[layer] ^ self._facts(np.arange(self.rows)), self._checksums[layer])

    def _match(self, layer: str, rows: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Whether (R,) rows of features have the (R,) uint32 checksums that are expected."""
        entry = self.layer(layer)
        with read_errors(self.path), self._file.needed() as file:
            return checksums.rows_match(
                file, offset=entry.offset, width=entry.dim * entry.dtype.itemsize, rows=rows, expected=expected
            )

    def _facts(self, rows: np.ndarray) -> np.ndarray:
        """The (R,) uint32 checksums of what the tables hold of the images of (R,) rows."""
        t = self.images
        return checksums.fact_checksums(t.paths[rows], t.sizes[rows], t.mtimes[rows], self.keys[rows])

    def _table(self, name: str) -> np.ndarray:
        """Read a whole table."""
        table = self.structure.tables[name]
        return read_array(self._file.fileno(), table.dtype, table.shape, table.offset)

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
        with read_errors(self.path), self._file.needed() as file:
            data = read_at(file, table.dtype.itemsize, table.offset + row * table.dtype.itemsize)
        return data.rstrip(b"\0").decode(errors="replace")

    def rows_with_errors(self) -> np.ndarray:
        """The rows whose table of errors holds anything: (E,) int64."""
        width = self.structure.tables[_ERRORS].dtype.itemsize
        blocks = [np.frombuffer(data, np.uint8).reshape(-1, width).any(axis=1) for data in self.error_blocks()]
        return np.flatnonzero(np.concatenate(blocks))

    def error_blocks(self) -> Iterator[bytes]:
        """The table of errors in blocks of whole rows, for it is the widest one, and mostly empty."""
        table = self.structure.tables[_ERRORS]
        step = max(1, _DIGEST_BLOCK // table.dtype.itemsize) * table.dtype.itemsize
        with read_errors(self.path), self._file.needed() as file:
            for at in range(0, table.nbytes, step):
                yield read_at(file, min(step, table.nbytes - at), table.offset + at)

    def _require_memory(self) -> None:
        """Refuse a file whose tables need more than half of the machine's memory; it may come from a stranger."""
        need = self.structure.size - sum(self.rows * e.dim * e.dtype.itemsize for e in self.layers.values())
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if need > memory // 2:
            need_text, memory_text = size_text(need), size_text(memory)
            raise UnreadableFileError(f"{self.path}: its tables take {need_text}; the memory is {memory_text}")


def read_verified(file: FeatureFile, layer: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read rows of a layer once, and compare what was read with their checksums.

    Args:
        file: the file.
        layer: the name of the layer.
        rows: (R,) row numbers; ascending ones are read fastest.

    Returns:
        (R,) bool, whether the row is done and matches its checksum; (R, D) features; and (R,) uint32, the CRC-32 of each row
        that matches.

    Raises:
        CacheMissError: the file has no such layer.
        UnreadableFileError: the system cannot read it.
    """
    entry, rows = file.layer(layer), np.asarray(rows, dtype=np.int64)
    if not file.complete:  # the checksums cover more than the features
        sound = file.checksums_match(layer, rows)
        features = np.array(file.features(layer)[rows])
        return sound, features, checksums.row_checksums(features)
    width, expected = entry.dim * entry.dtype.itemsize, file._checksums[layer][rows]
    data = np.zeros((len(rows), width), np.uint8)
    with read_errors(file.path), file._file.needed() as opened:
        sound = checksums.rows_match(opened, offset=entry.offset, width=width, rows=rows, expected=expected, into=data)
    return sound & (file.status[rows] == DONE), data.view(entry.dtype), expected


def are_among(keys: np.ndarray, others: np.ndarray) -> bool:
    """Whether all of (N, 16) uint8 keys are among (M, 16) others.

    Examples:
        >>> keys = np.arange(48, dtype=np.uint8).reshape(3, 16)
        >>> are_among(keys[1:], keys), are_among(keys, keys[1:])
        (True, False)
    """
    one, other = (np.ascontiguousarray(each).view("V16").ravel() for each in (keys, others))
    return bool(np.isin(one, other).all())


def _lacking(file: FeatureFile, wanted: str, *layers: str, views: str = "") -> str:
    """The message for layers or views that a file does not have."""
    has = f"{file.path} has no layer {wanted!r}, only {', '.join(file.layers)}"
    if FOREIGN in file.backbone["parts"]:
        return f"{has}; name one of these"
    plain = [name.partition("@")[0] for name in (*file.layers, *layers)]
    try:
        for name in plain:
            LayerNode.parse(name)
    except BackboneError as error:  # extract would refuse it too
        return f"{has}; {error}"
    words = [
        "featx", "extract", *data_words(file.dataset),
        *backbone_words(file.backbone, list(dict.fromkeys(plain)), views or views_with(layers[0])),
        *cache_words(file.path),
    ]  # fmt: skip
    return f"{has}; this makes a file that has it: {shlex.join(words)}"


def computed_digest(file: FeatureFile, final: Mapping[str, np.ndarray] | None = None) -> str:
    """Compute the SHA-256, in hex, of everything but the features, which have their checksums.

    Args:
        file: the file.
        final: the (N,) uint32 checksums by layer that stand for the stored ones.
    """
    digest = hashlib.sha256()
    layers = {name: [e.dim, e.dtype.str, e.identity] for name, e in sorted(file.layers.items())}
    attrs = file.structure.attrs
    texts = [str(attrs[name]) for name in ("identity", "backbone", "dataset")]
    for text in [*texts, json.dumps(layers), json.dumps(file.classes)]:
        digest.update(text.encode(errors="surrogateescape") + b"\0")
    t = file.images
    columns = [t.paths, t.labels, t.splits, t.sizes, t.mtimes, file.keys, file.status]
    for column in columns:
        digest.update(f"{column.dtype.str}{column.shape}".encode())
        digest.update(column.data)
    table = file.structure.tables[_ERRORS]
    digest.update(f"{table.dtype.str}{table.shape}".encode())
    for block in file.error_blocks():
        digest.update(block)
    for name in sorted(file.layers):
        column = final[name] if final else file._checksums[name]
        digest.update(f"{column.dtype.str}{column.shape}".encode())
        digest.update(column.data)
    for name in file.column_names:
        column = file.encoded_column(name)
        digest.update(f"{json.dumps(name)}{column.dtype.str}{column.shape}".encode())
        digest.update(column.data)
    return digest.hexdigest()


def _has_valid_values(file: FeatureFile) -> bool:
    """Whether the values that other modules rely on are valid."""
    labels, paths = file.images.labels, file.images.paths
    with contextlib.suppress(UnicodeDecodeError):
        for split in np.unique(file.images.splits).tolist():
            split.decode()
        letters = paths.view(np.uint8).reshape(file.rows, -1)
        return bool(
            labels.min() >= -1
            and labels.max() < len(file.classes)
            and file.status.max() <= FAILED
            and not (file.complete and (file.status == TODO).any())
            and not ((letters[:, :-1] == 0) & (letters[:, 1:] != 0)).any()  # no path contains a zero byte
            and "" not in file.classes
        )
    return False
