"""The feature file: one HDF5 file for each data set and backbone.

docs/cache-format.md specifies it. A row counts when its status says done and its CRC-32 fits. Files are read here and written
in ``cachewriter.py``; ``hdf5.py`` knows their structure.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import stat
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import CacheMissError, CorruptFileError, FeatxError
from featx.features import checksums, hdf5
from featx.features.hdf5 import Table
from featx.identity import brief_value
from featx.io.strict_json import strict_json
from featx.layer_spec import option_for
from featx.text import size_text

FORMAT, VERSION = "featx-features", 1

TODO, DONE, FAILED = 0, 1, 2
"""Values of ``/images/status``."""

INCOMPLETE: Mapping[str, hdf5.Value] = {"digest": b"0" * 64, "complete": np.uint8(0)}
"""Attributes of a file whose run has not come to its end."""

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
        dataset: name, root, whether splits were "given" or made by "hash", the limits that images were read under, and the
            table that named them, if one did.
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
            CorruptFileError: not a feature file, of an unknown version, incomplete, or damaged.
        """
        self.path = Path(path)
        self._file = _open(self.path)
        weakref.finalize(self, os.close, self._file)
        with _reading(self.path):
            self.structure = hdf5.parse(self._file, self.path, torn=INCOMPLETE if allow_partial else None)
        attrs = self.structure.attrs
        found = (attrs.get("format"), attrs.get("version"))
        if found != (FORMAT, VERSION):
            shown = "format {}, version {}".format(*map(brief_value, map(repr, found)))
            raise CorruptFileError(f"{self.path}: {shown}; expected {FORMAT}, {VERSION}")
        self.complete = bool(self._attribute("complete", np.uint8))
        if not self.complete and not allow_partial:
            raise CorruptFileError(f"{self.path} is incomplete; run the same featx extract again to finish it")
        self.identity: str = self._attribute("identity", str)
        self.digest: str = self._attribute("digest", bytes).decode("ascii", errors="replace")
        self.backbone = self._json("backbone", name=str, weights=str, parts=dict)
        self.dataset = self._json("dataset", name=str, root=str, splits=str)
        self._check_dataset()
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
            shown = brief_value(repr(value))
            raise CorruptFileError(f"{self.path}: the attribute {name} is {shown}; expected {kind.__name__}")
        return value

    def _json(self, attribute: str, /, **expected: type[Any]) -> dict[str, Any]:
        try:
            value = strict_json(self._attribute(attribute, str))
            json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")  # half a surrogate pair is no text
        except ValueError as error:
            raise CorruptFileError(f"{self.path}: the attribute {attribute} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise CorruptFileError(f"{self.path}: the attribute {attribute} is not a JSON object")
        for key, kind in expected.items():
            if not isinstance(value.get(key), kind):
                raise CorruptFileError(f"{self.path}: {key} of the attribute {attribute} is not a {kind.__name__}")
        return value

    def _check_dataset(self) -> None:
        table = self.dataset.get("table", "")
        lengths = [len(self.dataset["root"]), len(table) if isinstance(table, str) else _LONGEST_ROOT + 1]
        if not isinstance(self.dataset.get("max_pixels", 0), int) or max(lengths) > _LONGEST_ROOT:
            raise CorruptFileError(f"{self.path}: max_pixels, root or table of the attribute dataset means nothing")

    def _check_tables(self) -> int:
        """The number of rows, once every table has the name, type and shape that the format gives it."""
        tables = self.structure.tables
        rows = tables["images/status"].shape[0] if "images/status" in tables else 0
        layers = [name.removeprefix("features/") for name in tables if name.startswith("features/")]
        wanted = [*_COLUMNS, *(f"{group}/{layer}" for layer in layers for group in ("features", "checks"))]
        if list(tables) != wanted or not layers:
            shown, expected = brief_value(", ".join(tables)), brief_value(", ".join(wanted))
            raise CorruptFileError(f"{self.path} has the tables {shown}; expected {expected}")
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
                raise CorruptFileError(f"{self.path}: {name} is {table.shape} of {table.dtype}, for {rows} rows")
        if not rows:
            raise CorruptFileError(f"{self.path} has no rows")
        return rows


class FeatureFile(Header):
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
            CorruptFileError: not a feature file, of an unknown version, incomplete, or damaged outside the features.
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
        if self.complete and self.digest != self.computed_digest():
            raise CorruptFileError(
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
                f"{self.path} has no layer {name!r}, only {', '.join(self.layers)}; featx extract {option_for(name)} adds it"
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
        pieces = list(stretches(rows, block))
        whole = np.array([first for first, last in pieces if last - first == block], dtype=np.int64)
        of_whole = checksums.of_blocks(stored[np.add.outer(whole, np.arange(block))], width)
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
            raise CorruptFileError(f"{self.path}: its tables take {size_text(need)}; the memory is {size_text(memory)}")

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
        raise CorruptFileError(f"{self.path}: its tables hold labels, splits, paths or states that mean nothing")

    def computed_digest(self) -> str:
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


def partial_of(path: Path) -> Path:
    """The name of an unfinished file."""
    return path.with_name(path.name + ".partial")


def _open(path: Path) -> int:
    try:
        if path.is_dir():
            raise CorruptFileError(f"{path} is a folder; expected a feature file")
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise CorruptFileError(f"{path} is no ordinary file; expected a feature file")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CacheMissError(f"there is no feature file {path}; featx extract makes one") from error
    except CorruptFileError:
        raise
    except (OSError, ValueError) as error:
        raise CorruptFileError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A disk that fails, or a file that is cut off while it is read."""
    try:
        yield
    except FeatxError:
        raise
    except (OSError, ValueError) as error:
        raise CorruptFileError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _column(file: Any, table: Table) -> np.ndarray:
    file.seek(table.offset)
    column: np.ndarray = np.fromfile(file, table.dtype, table.nbytes // table.dtype.itemsize).reshape(table.shape)
    return column


def stretches(rows: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Stretches [first, last) of consecutive row numbers, each at most so long."""
    cuts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    for first, last in itertools.pairwise(cuts):
        for at in range(first, last, max(1, most)):
            yield at, min(at + most, last)
