"""The feature file: one HDF5 file for each data set and backbone.

docs/cache-format.md specifies it. Its structure is written and synced once, before the first row; after that only raw bytes
at known offsets change, so that a run killed at any moment leaves a file that opens. A row counts when its status says done
and its CRC-32 fits. ``hdf5.py`` packs and parses the structure; h5py, here, proves of each new file that HDF5 reads it so.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import stat
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx import checks, hdf5
from featx.errors import CacheMissError, CorruptCacheError, FeatxError, OutputError, size_text
from featx.hdf5 import Structure, Table
from featx.tensorfile import strict_json

FORMAT, VERSION = "featx-features", 1

TODO, DONE, FAILED = 0, 1, 2
"""Values of ``/images/status``."""

_ERROR_BYTES = 120
_LEAST_SPLIT_BYTES = 8
_INCOMPLETE: Mapping[str, hdf5.Value] = {"digest": b"0" * 64, "complete": np.uint8(0)}
_FEATURE_TYPES = (np.dtype("<f4"), np.dtype("<f2"))
_COLUMNS = {
    "classes": ("S", ()),
    "images/path": ("S", ()),
    "images/label": ("<i8", ()),
    "images/split": ("S", ()),
    "images/size": ("<i8", ()),
    "images/mtime_ns": ("<i8", ()),
    "images/key": ("u1", (16,)),
    "images/status": ("u1", ()),
    "images/error": ("S", ()),
}
"""Every table but the features and their checks: its type, and the shape of a row."""

_LONGEST_ROOT, _WIDEST = 1 << 12, 1 << 24
"""The longest path of a system, and the most numbers in a row. A file that claims more is not believed."""

_ERRORS = "images/error"

_BLOCK = 1 << 20
"""Bytes that are read at once when rows are checked."""


@dataclass(frozen=True, eq=False)
class ImageTable:
    """What the file says of its images: one row each, in the order of the features.

    Attributes:
        paths: (N,) bytes, relative to the data set's root (``os.fsencode``).
        labels: (N,) int64 into the classes, -1 unlabelled.
        splits: (N,) bytes, UTF-8; empty where not yet decided.
        sizes: (N,) int64, bytes of the file.
        mtimes: (N,) int64, its modification time in ns; -1 where it is not to be trusted.
    """

    paths: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    sizes: np.ndarray
    mtimes: np.ndarray


@dataclass(frozen=True)
class Layer:
    """One data set of features: its width D, dtype, identity, and where its rows begin in the file."""

    dim: int
    dtype: np.dtype[Any]
    identity: str
    offset: int


class Header:
    """What a feature file says of itself, read without its tables.

    Attributes:
        path: the file.
        complete: whether the run that made it came to its end.
        identity: SHA-256, in hex, of all layers together.
        digest: SHA-256, in hex, over everything but the features; zeros until complete.
        backbone: name, weights, and the parts that the identity is made of.
        dataset: name, root, whether splits were "given" or made by "hash", and the limits that images were read under.
        layers: by name.
        rows: how many images it is made for.
    """

    def __init__(self, path: str | os.PathLike[str], *, allow_partial: bool = True) -> None:
        """Open and check a file.

        Args:
            path: the file.
            allow_partial: also open what an interrupted run left.

        Raises:
            CacheMissError: no such file.
            CorruptCacheError: not a feature file, of an unknown version, incomplete, or damaged.
        """
        self.path = Path(path)
        self._file = _open(self.path)
        weakref.finalize(self, os.close, self._file)
        with _reading(self.path):
            self.structure = hdf5.parse(self._file, self.path, torn=_INCOMPLETE if allow_partial else None)
        attrs = self.structure.attrs
        found = (attrs.get("format"), attrs.get("version"))
        if found != (FORMAT, VERSION):
            shown = "format {}, version {}".format(*map(_brief, map(repr, found)))
            raise CorruptCacheError(f"{self.path}: {shown}; expected {FORMAT}, {VERSION}")
        self.complete = bool(self._attribute("complete", np.uint8))
        if not self.complete and not allow_partial:
            raise CorruptCacheError(f"{self.path} is incomplete; run the same featx extract again to finish it")
        self.identity: str = self._attribute("identity", str)
        self.digest: str = self._attribute("digest", bytes).decode("ascii", errors="replace")
        self.backbone = self._json("backbone", name=str, weights=str, parts=dict)
        self.dataset = self._json("dataset", name=str, root=str, splits=str)
        if not isinstance(self.dataset.get("max_pixels", 0), int) or len(self.dataset["root"]) > _LONGEST_ROOT:
            raise CorruptCacheError(f"{self.path}: max_pixels or root of the attribute dataset means nothing")
        self.rows = self._check_tables()
        self.layers = {
            name.removeprefix("features/"): Layer(t.shape[1], t.dtype, t.attrs["identity"], t.offset)
            for name, t in self.structure.tables.items()
            if name.startswith("features/")
        }

    @property
    def identities(self) -> dict[str, str]:
        """Of each layer."""
        return {name: layer.identity for name, layer in self.layers.items()}

    def holds(self, identities: Mapping[str, str]) -> bool:
        """Whether the file has all these layers, of these identities."""
        return all(name in self.layers and self.layers[name].identity == i for name, i in identities.items())

    def _attribute(self, name: str, kind: type[Any]) -> Any:
        value = self.structure.attrs.get(name)
        if not isinstance(value, kind):
            shown = _brief(repr(value))
            raise CorruptCacheError(f"{self.path}: the attribute {name} is {shown}; expected {kind.__name__}")
        return value

    def _json(self, attribute: str, /, **expected: type[Any]) -> dict[str, Any]:
        try:
            value = strict_json(self._attribute(attribute, str))
            json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")  # half a surrogate pair is no text
        except ValueError as error:
            raise CorruptCacheError(f"{self.path}: the attribute {attribute} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise CorruptCacheError(f"{self.path}: the attribute {attribute} is not a JSON object")
        for key, kind in expected.items():
            if not isinstance(value.get(key), kind):
                raise CorruptCacheError(f"{self.path}: {key} of the attribute {attribute} is not a {kind.__name__}")
        return value

    def _check_tables(self) -> int:
        """The number of rows, once every table has the name, type and shape that the format gives it."""
        tables = self.structure.tables
        rows = tables["images/status"].shape[0] if "images/status" in tables else 0
        layers = [name.removeprefix("features/") for name in tables if name.startswith("features/")]
        wanted = [*_COLUMNS, *(f"{group}/{layer}" for layer in layers for group in ("features", "checks"))]
        if list(tables) != wanted or not layers:
            shown, expected = _brief(", ".join(tables)), _brief(", ".join(wanted))
            raise CorruptCacheError(f"{self.path} has the tables {shown}; expected {expected}")
        for name, table in tables.items():
            group = name.partition("/")[0]
            count = table.shape[0] if name == "classes" and table.shape else rows
            if group == "features":
                right = table.dtype in _FEATURE_TYPES and table.shape[:1] == (rows,)
                right = right and (0,) < table.shape[1:] < (_WIDEST,)
            elif group == "checks":
                right = (table.dtype, table.shape) == (np.dtype("<u4"), (rows,))
            else:
                kind, shape = _COLUMNS[name]
                right = (table.dtype.kind == kind or table.dtype.str == np.dtype(kind).str) and table.shape == (
                    count,
                    *shape,
                )
            if not right or (group == "features" and "identity" not in table.attrs):
                raise CorruptCacheError(f"{self.path}: {name} is {table.shape} of {table.dtype}, for {rows} rows")
        if not rows:
            raise CorruptCacheError(f"{self.path} has no rows")
        return rows


class FeatureCache(Header):
    """A feature file, open for reading. The small tables are in memory, the features memory-mapped.

    What was opened stays readable when a newer file takes its name.

    Attributes:
        classes: (C,) names.
        images: the table of images, less key and status.
        keys: (N, 16) uint8; all zero where the file could not be read.
        status: (N,) uint8: 0 to do, 1 done, 2 failed.
    """

    def __init__(self, path: str | os.PathLike[str], *, allow_partial: bool = False) -> None:
        """Open and check a file; the features have their checks (``sound``).

        Args:
            path: the file.
            allow_partial: also open what an interrupted run left.

        Raises:
            CacheMissError: no such file.
            CorruptCacheError: not a feature file, of an unknown version, incomplete, or damaged outside the features.
        """
        super().__init__(path, allow_partial=allow_partial)
        self._require_memory()
        with _reading(self.path), os.fdopen(os.dup(self._file), "rb") as file:
            column = {name: _column(file, self.structure.tables[name]) for name in _COLUMNS if name != _ERRORS}
            self._checks = {name: _column(file, self.structure.tables[f"checks/{name}"]) for name in self.layers}
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
        if self.complete and self.digest != self._computed_digest():
            raise CorruptCacheError(
                f"{self.path}: its tables do not fit their digest, so some bytes have changed since it was made. "
                "Delete it and run featx extract again"
            )
        self._check_values()

    def __len__(self) -> int:
        return self.rows

    def features(self, layer: str) -> np.ndarray:
        """(N, D) float32 or float16, memory-mapped and read-only. Rows whose status is not done mean nothing.

        Raises:
            CacheMissError: the file has no such layer.
        """
        self.layer(layer)
        return self._features[layer]

    def layer(self, name: str) -> Layer:
        """One of the layers.

        Raises:
            CacheMissError: the file has no such layer.
        """
        if name not in self.layers:
            raise CacheMissError(
                f"{self.path} has no layer {name!r}, only {', '.join(self.layers)}; featx extract --layer {name} adds it"
            )
        return self.layers[name]

    def checks(self, layer: str) -> np.ndarray:
        """(N,) uint32, the CRC-32 that each row of a layer is to have."""
        self.layer(layer)
        return self._checks[layer]

    def sound(self, layer: str, rows: np.ndarray) -> np.ndarray:
        """Which of these rows are done and fit their check. Reads them in blocks, in threads, with little memory.

        Args:
            layer: its name.
            rows: (R,) row numbers; ascending ones are read fastest.

        Returns:
            (R,) bool.
        """
        entry, rows = self.layer(layer), np.asarray(rows, dtype=np.int64)
        width, stored = entry.dim * entry.dtype.itemsize, self._checks[layer][rows]
        fits = np.zeros(len(rows), dtype=bool)
        block = 1 << max(0, (_BLOCK // width).bit_length() - 1)
        pieces = list(_runs(rows, block))
        whole = np.array([first for first, last in pieces if last - first == block], dtype=np.int64)
        of_whole = checks.of_blocks(stored[np.add.outer(whole, np.arange(block))], width)
        expected = dict(zip(whole.tolist(), of_whole.tolist(), strict=True))

        def check(some: Sequence[tuple[int, int]]) -> None:
            for first, last in some:
                data = os.pread(self._file, (last - first) * width, entry.offset + int(rows[first]) * width)
                if expected.get(first) == zlib.crc32(data):
                    fits[first:last] = True
                else:  # a short piece, or one with a row that does not fit
                    view = memoryview(data)
                    found = [zlib.crc32(view[at : at + width]) for at in range(0, (last - first) * width, width)]
                    fits[first:last] = found == stored[first:last]

        share = max(1, -(-len(pieces) // 256))
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="featx-check") as pool:
            list(pool.map(check, (pieces[at : at + share] for at in range(0, len(pieces), share))))
        return np.asarray((self.status[rows] == DONE) & fits)

    def sound_in_all(self, layers: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """(R,) bool: which of these rows are sound in all of these layers."""
        return np.asarray(np.logical_and.reduce([self.sound(layer, rows) for layer in layers]))

    @property
    def paths(self) -> list[str]:
        """The images' paths relative to the data set's root, as ``os.fsdecode`` gives them."""
        return list(map(os.fsdecode, self.images.paths.tolist()))

    @property
    def splits(self) -> np.ndarray:
        """(N,) str."""
        names, rows = np.unique(self.images.splits, return_inverse=True)
        return np.array([name.decode() for name in names.tolist()], dtype=object)[rows]

    def error(self, row: int) -> str:
        """Why a row failed."""
        table = self.structure.tables[_ERRORS]
        data = os.pread(self._file, table.dtype.itemsize, table.offset + row * table.dtype.itemsize)
        return data.rstrip(b"\0").decode(errors="replace")

    def _require_memory(self) -> None:
        """A stranger's file cannot make featx read more than the machine holds."""
        need = self.structure.size - sum(self.rows * e.dim * e.dtype.itemsize for e in self.layers.values())
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if need > memory // 2:
            raise CorruptCacheError(
                f"{self.path}: its tables take {size_text(need)}; the memory is {size_text(memory)}"
            )

    def _check_values(self) -> None:
        """Values that the rest of featx relies on."""
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
                and not ((letters[:, :-1] == 0) & (letters[:, 1:] != 0)).any()  # no system has a name with a zero byte
                and "" not in self.classes
            ):
                return
        raise CorruptCacheError(f"{self.path}: its tables hold labels, splits, paths or states that mean nothing")

    def _computed_digest(self) -> str:
        """SHA-256, in hex, over everything but the features, which have their checks."""
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
        table = self.structure.tables[_ERRORS]  # mostly empty, and the widest: not kept in memory
        digest.update(f"{table.dtype.str}{table.shape}".encode())
        for at in range(0, table.nbytes, _BLOCK):
            digest.update(os.pread(self._file, min(_BLOCK, table.nbytes - at), table.offset + at))
        for name in sorted(self.layers):
            digest.update(f"{self._checks[name].dtype.str}{self._checks[name].shape}".encode())
            digest.update(self._checks[name].data)
        return digest.hexdigest()


class CacheWriter:
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
        self._structure = hdf5.pack({**attrs, **_INCOMPLETE}, _tables(columns, layers, self._dtype))
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
        runs = list(_runs(numbers, len(numbers)))
        for layer in self._layers:
            block = np.ascontiguousarray(features[layer], dtype=self._dtype)
            for name, data in (("features", block), ("checks", checks.of_rows(block).astype("<u4"))):
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

    def finish(self) -> FeatureCache:
        """Mark the file complete, sync it and give it its final name.

        Raises:
            OutputError: the disk fails.
        """
        with self._trouble():
            os.fsync(self._file)
            written = FeatureCache(self._at, allow_partial=True)
            if (written.status == TODO).any():
                raise OutputError(
                    f"{self._at} is not complete: {np.count_nonzero(written.status == TODO)} rows are to do"
                )
            digest = written._computed_digest().encode()
            del written
            self._restructure({"digest": digest, "complete": np.uint8(1)})
            os.fsync(self._file)
            self._at.replace(self.path)
            _sync(self.path.parent)
        return FeatureCache(self.path)

    def _unfinished(self, columns: Mapping[str, np.ndarray], *, given_splits: bool) -> FeatureCache | None:
        """What an interrupted run left, if it was to become the very same file."""
        try:
            left = FeatureCache(partial_of(self.path), allow_partial=True)
        except (CacheMissError, CorruptCacheError):
            return None
        attrs = {**left.structure.attrs, **_INCOMPLETE}
        if attrs != self._structure.attrs or left.structure.tables != self._structure.tables:
            return None
        theirs = {"classes": np.array(list(map(os.fsencode, left.classes)))} if left.classes else {}
        t = left.images
        theirs |= {
            "images/path": t.paths,
            "images/label": t.labels,
            "images/size": t.sizes,
            "images/mtime_ns": t.mtimes,
        }
        theirs |= {"images/split": t.splits} if given_splits else {}
        return left if all(np.array_equal(columns[name], theirs[name]) for name in theirs) else None

    def _continue(self) -> None:
        assert self.kept
        with self._trouble():
            self._open_file()
            self._restructure(_INCOMPLETE)  # in case it was killed between completing and renaming
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
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(self._file, 0, self._structure.size)
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
        except (OutputError, CacheMissError, CorruptCacheError):
            raise
        except OSError as error:
            raise output_error(self._at, self._structure.size, error) from error


def partial_of(path: Path) -> Path:
    """The name of an unfinished file."""
    return path.with_name(path.name + ".partial")


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The parts in which two descriptions of a backbone differ, with both values: "dtype: float32 against float16"."""
    return [
        f"{part}: {_brief(ours.get(part))} against {_brief(theirs.get(part))}"
        for part in sorted(ours.keys() | theirs.keys())
        if ours.get(part) != theirs.get(part)
    ]


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


def _open(path: Path) -> int:
    try:
        if path.is_dir():
            raise CorruptCacheError(f"{path} is a folder; expected a feature file")
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise CorruptCacheError(f"{path} is no ordinary file; expected a feature file")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CacheMissError(f"there is no feature file {path}; featx extract makes one") from error
    except CorruptCacheError:
        raise
    except (OSError, ValueError) as error:
        raise CorruptCacheError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A disk that fails, or a file that is cut off while it is read."""
    try:
        yield
    except FeatxError:
        raise
    except (OSError, ValueError) as error:
        raise CorruptCacheError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _column(file: Any, table: Table) -> np.ndarray:
    file.seek(table.offset)
    column: np.ndarray = np.fromfile(file, table.dtype, table.nbytes // table.dtype.itemsize).reshape(table.shape)
    return column


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
    """HDF5 itself finds in a new file what was meant to be there, at the same offsets."""
    import h5py  # only writers need it

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


def _runs(rows: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Stretches [first, last) of consecutive row numbers, each at most so long."""
    cuts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    for first, last in itertools.pairwise(cuts):
        for at in range(first, last, max(1, most)):
            yield at, min(at + most, last)


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


def _brief(value: Any) -> str:
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def _fixed(texts: Sequence[bytes] | np.ndarray, least: int = 1) -> np.ndarray:
    """Null-padded, as wide as the longest."""
    widths = texts.dtype.itemsize if isinstance(texts, np.ndarray) else max([0, *map(len, texts)])
    return np.array(texts, dtype=f"S{max(least, widths)}")


def _cut_utf8(text: str, most: int) -> bytes:
    return text.encode(errors="replace")[:most].decode(errors="ignore").encode()
