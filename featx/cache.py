"""The feature file: one HDF5 file for each data set and backbone. The only room that knows h5py.

docs/cache-format.md specifies it. HDF5's own structure is written and synced once, before the first row; after that only
raw bytes at known offsets change, so that a run killed at any moment leaves a file that opens. A row counts when its
status says done and its CRC-32 fits.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featx.errors import CacheLockedError, CacheMissError, CorruptCacheError, OutputError

FORMAT, VERSION = "featx-features", 1

TODO, DONE, FAILED = 0, 1, 2
"""Values of ``/images/status``."""

_ERROR_BYTES = 120
_LEAST_SPLIT_BYTES = 8
_NO_DIGEST = "0" * 64


@dataclass(frozen=True, eq=False)
class ImageTable:
    """What the file says of its images: one row each, in the order of the features.

    Attributes:
        paths: (N,) bytes, relative to the data set's root (``os.fsencode``).
        labels: (N,) int64 into the classes, -1 unlabelled.
        splits: (N,) bytes, UTF-8; empty where not yet decided.
        sizes: (N,) int64, bytes of the file.
        mtimes: (N,) int64, its modification time in ns.
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


class FeatureCache:
    """A feature file, open for reading. The small tables are in memory, the features memory-mapped.

    Attributes:
        path: the file.
        complete: whether the run that made it came to its end.
        identity: SHA-256, in hex, of all layers together.
        backbone: name, weights, and the parts that the identity is made of.
        dataset: name, root, and whether splits were "given" or made by "hash".
        classes: (C,) names.
        layers: by name.
        images: the table of images, less key and status.
        keys: (N, 16) uint8; all zero where the file could not be read.
        status: (N,) uint8: 0 to do, 1 done, 2 failed.
        errors: (N,) bytes, UTF-8: why, for the failed.
    """

    def __init__(self, path: str | os.PathLike[str], *, allow_partial: bool = False) -> None:
        """Open and check a file.

        Args:
            path: the file.
            allow_partial: also open what an interrupted run left.

        Raises:
            CacheMissError: no such file.
            CorruptCacheError: not a feature file, of an unknown version, incomplete, or damaged outside the features.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise CacheMissError(f"there is no feature file {self.path}; featx extract makes one")
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                self._read(file)
        except CorruptCacheError:
            raise
        except (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise CorruptCacheError(f"{self.path} is not a sound HDF5 file: {error}") from error
        if self.complete and self.digest != self._computed_digest():
            raise CorruptCacheError(
                f"{self.path}: its tables do not fit their digest, so some bytes have changed since it was made. "
                "Delete it and run featx extract again"
            )
        if not self.complete and not allow_partial:
            raise CorruptCacheError(f"{self.path} is incomplete; run the same featx extract again to finish it")

    def __len__(self) -> int:
        return len(self.status)

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

    def sound(self, layer: str, rows: np.ndarray) -> np.ndarray:
        """(R,) bool: which of these rows are done and fit their check."""
        features, checks = self.features(layer), self._checks[layer]
        return np.array([self.status[r] == DONE and zlib.crc32(features[r]) == checks[r] for r in rows], dtype=bool)

    @property
    def paths(self) -> list[str]:
        """The images' paths relative to the data set's root, as ``os.fsdecode`` gives them."""
        return [os.fsdecode(path) for path in self.images.paths]

    @property
    def splits(self) -> np.ndarray:
        """(N,) str."""
        return np.array([split.decode() for split in self.images.splits], dtype=object)

    def error(self, row: int) -> str:
        """Why a row failed."""
        return bytes(self.errors[row]).decode(errors="replace")

    def _read(self, file: h5py.File) -> None:
        found = (file.attrs.get("format"), file.attrs.get("version"))
        if found != (FORMAT, VERSION):
            raise CorruptCacheError(f"{self.path}: format {found[0]}, version {found[1]}; expected {FORMAT}, {VERSION}")
        self.complete = bool(file.attrs["complete"])
        self.identity = _text(file.attrs["identity"])
        self.digest = _text(file.attrs["digest"])
        self._backbone_json, self._dataset_json = _text(file.attrs["backbone"]), _text(file.attrs["dataset"])
        self.backbone: dict[str, Any] = json.loads(self._backbone_json)
        self.dataset: dict[str, Any] = json.loads(self._dataset_json)
        size = self.path.stat().st_size
        self.classes = tuple(map(os.fsdecode, _column(file, "classes", size)))
        column = {name: _column(file, f"images/{name}", size) for name in file["images"]}
        self.images = ImageTable(*(column[name] for name in ("path", "label", "split", "size", "mtime_ns")))
        self.keys, self.status, self.errors = column["key"], column["status"], column["error"]
        if len({len(values) for values in column.values()}) != 1:
            raise CorruptCacheError(f"{self.path}: the columns of /images differ in length")
        self._read_layers(file, len(self.status), size)

    def _read_layers(self, file: h5py.File, count: int, size: int) -> None:
        self.layers: dict[str, Layer] = {}
        # Mapped at once: what was opened stays readable when a newer file takes its name.
        self._features: dict[str, np.ndarray] = {}
        for name, features in file["features"].items():
            checks = file["checks"][name]
            if features.ndim != 2 or (len(features), *checks.shape) != (count, count):
                raise CorruptCacheError(
                    f"{self.path}: layer {name} is {features.shape}, its checks {checks.shape}; expected {count} rows"
                )
            if features.dtype not in ("<f4", "<f2") or checks.dtype != "<u4":
                raise CorruptCacheError(
                    f"{self.path}: layer {name} is {features.dtype}, its checks {checks.dtype}; expected float and uint32"
                )
            offset = _offset(file, features, size)
            self._features[name] = np.memmap(self.path, features.dtype, "r", offset, features.shape)
            self.layers[name] = Layer(features.shape[1], features.dtype, _text(features.attrs["identity"]), offset)
        self._checks = {name: _column(file, f"checks/{name}", size) for name in self.layers}

    def _computed_digest(self) -> str:
        """SHA-256, in hex, over everything but the features, which have their checks."""
        digest = hashlib.sha256()
        layers = {name: [e.dim, e.dtype.str, e.identity] for name, e in sorted(self.layers.items())}
        texts = [self.identity, self._backbone_json, self._dataset_json, json.dumps(layers), json.dumps(self.classes)]
        for text in texts:
            digest.update(text.encode(errors="surrogateescape") + b"\0")
        t = self.images
        columns = [t.paths, t.labels, t.splits, t.sizes, t.mtimes, self.keys, self.status, self.errors]
        for column in [*columns, *(self._checks[name] for name in sorted(self.layers))]:
            digest.update(f"{column.dtype.str}{column.shape}".encode())
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


class CacheWriter:
    """Writes a feature file row by row, beside its final name, and renames it when it is complete.

    The file is ``<name>.h5.new`` until ``publish``, ``<name>.h5.partial`` until ``finish``, then ``<name>.h5``.

    Args:
        path: the final name.
        images: the rows.
        classes: (C,) names.
        layers: width D and identity of each layer.
        dtype: of the features: float32 or float16.
        identity: of all layers together.
        backbone: as ``FeatureCache.backbone``.
        dataset: as ``FeatureCache.dataset``.

    Raises:
        OutputError: the folder cannot be written, or the disk has no room for the whole file.
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
        self.path = path
        self._at = path.with_name(path.name + ".new")
        self._layers = {name: dim for name, (dim, _) in layers.items()}
        self._dtype = np.dtype(dtype).newbyteorder("<")
        count = len(images.paths)
        _require_space(path.parent, count * (sum(self._layers.values()) * self._dtype.itemsize + 300))
        attrs = {
            "format": FORMAT,
            "version": VERSION,
            "complete": np.uint8(0),
            "digest": np.bytes_(_NO_DIGEST),
            "identity": identity,
            "backbone": _json(backbone),
            "dataset": _json(dataset),
        }
        try:
            with h5py.File(self._at, "w", locking=False) as file:
                file.attrs.update(attrs)
                self._offsets, self._widths = self._lay_out(file, images, classes, layers)
            self._file = os.open(self._at, os.O_RDWR)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file, 0, os.fstat(self._file).st_size)
            os.fsync(self._file)
        except OSError as error:
            self._at.unlink(missing_ok=True)
            raise OutputError(f"cannot write {self._at}: {error.strerror or error}") from error

    def write(self, rows: Sequence[int], keys: np.ndarray, features: Mapping[str, np.ndarray]) -> None:
        """Commit rows: features first, then their checks and keys, then their status.

        Args:
            rows: (B,) row numbers.
            keys: (B, 16) uint8.
            features: (B, D) for each layer.
        """
        for layer in self._layers:
            for row, vector in zip(rows, features[layer], strict=True):
                data = vector.astype(self._dtype, copy=False).tobytes()
                self._put(f"features/{layer}", row, data)
                self._put(f"checks/{layer}", row, zlib.crc32(data).to_bytes(4, "little"))
        for row, key in zip(rows, keys, strict=True):
            self._put("images/key", row, key.tobytes())
            self._put("images/status", row, bytes([DONE]))

    def fail(self, row: int, key: bytes, reason: str) -> None:
        """Commit a row that has no features, and why. A key of zeros says that not even its bytes could be read."""
        self._put("images/key", row, key)
        self._put("images/error", row, _cut_utf8(reason, _ERROR_BYTES).ljust(_ERROR_BYTES, b"\0"))
        self._put("images/status", row, bytes([FAILED]))

    def set_splits(self, splits: Sequence[str]) -> None:
        """Write the whole column of splits, for a data set that names none."""
        width = self._widths["images/split"]
        self._put("images/split", 0, b"".join(split.encode().ljust(width, b"\0") for split in splits))

    def publish(self) -> None:
        """Take the place of an older partial file: from now on an interrupted run leaves this one."""
        partial = self.path.with_name(self.path.name + ".partial")
        self._at.replace(partial)
        self._at = partial

    def finish(self) -> FeatureCache:
        """Mark the file complete, sync it and give it its final name.

        Raises:
            OutputError: the disk fails.
        """
        try:
            os.fsync(self._file)
            os.close(self._file)
            digest = FeatureCache(self._at, allow_partial=True)._computed_digest()
            with h5py.File(self._at, "r+", locking=False) as file:
                # Both are of fixed size and change in place: the file's structure stays what was synced at the start.
                file.attrs.modify("digest", np.bytes_(digest))
                file.attrs.modify("complete", np.uint8(1))
            _sync(self._at)
            self._at.replace(self.path)
            _sync(self.path.parent)
        except OSError as error:
            raise OutputError(f"cannot complete {self._at}: {error.strerror or error}") from error
        return FeatureCache(self.path)

    def _lay_out(
        self, file: h5py.File, images: ImageTable, classes: Sequence[str], layers: Mapping[str, tuple[int, str]]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """Create every data set; returns the offset and the bytes per row of those that rows are written to."""
        count = len(images.paths)
        file.create_dataset("classes", data=_utf8(list(map(os.fsencode, classes))))
        reserved: dict[str, h5py.Dataset] = {}
        for group in ("images", "features", "checks"):
            file.create_group(group)
        splits = _utf8(images.splits, least=_LEAST_SPLIT_BYTES)
        file["images"].create_dataset("path", data=_utf8(images.paths))
        for name, column in (("label", images.labels), ("size", images.sizes), ("mtime_ns", images.mtimes)):
            file["images"].create_dataset(name, data=column, dtype="<i8")
        for name, shape, kind in (
            ("images/split", (count,), splits.dtype),
            ("images/key", (count, 16), np.dtype("u1")),
            ("images/status", (count,), np.dtype("u1")),
            ("images/error", (count,), h5py.string_dtype("utf-8", _ERROR_BYTES)),
        ):
            reserved[name] = _reserve(file, name, shape, kind)
        for name, (dim, identity) in layers.items():
            features = reserved[f"features/{name}"] = _reserve(file, f"features/{name}", (count, dim), self._dtype)
            features.attrs["identity"] = identity
            reserved[f"checks/{name}"] = _reserve(file, f"checks/{name}", (count,), np.dtype("<u4"))
        reserved["images/split"][...] = splits
        offsets = {name: dataset.id.get_offset() for name, dataset in reserved.items()}
        widths = {name: dataset.id.get_storage_size() // count for name, dataset in reserved.items()}
        return offsets, widths

    def _put(self, column: str, row: int, data: bytes) -> None:
        try:
            os.pwrite(self._file, data, self._offsets[column] + row * self._widths[column])
        except OSError as error:
            raise OutputError(f"cannot write {self._at}: {error.strerror}") from error


def feature_file(folder: Path, *, dataset: str, root: str, backbone: str, identities: Mapping[str, str]) -> Path:
    """The file that holds, or is to hold, these features of this data set.

    ``<dataset>--<backbone>.h5``, or the same with a short hash where that name is taken by other features or another data
    set of the same name.
    """
    plain = folder / f"{dataset}--{_file_stem(backbone)}.h5"
    tag = hashlib.sha256(json.dumps([root, sorted(identities.items())]).encode()).hexdigest()[:8]
    candidates = [plain, plain.with_name(f"{plain.stem}--{tag}.h5")]
    for path in candidates:
        for form in (path, path.with_name(path.name + ".partial")):
            with contextlib.suppress(CacheMissError, CorruptCacheError):
                if holds(FeatureCache(form, allow_partial=True), identities, root):
                    return path
    taken = plain.exists() or plain.with_name(plain.name + ".partial").exists()
    return candidates[1] if taken else plain


def holds(cache: FeatureCache, identities: Mapping[str, str], root: str | None = None) -> bool:
    """Whether a file has all these layers, of these identities, of the data set at this root."""
    same_root = root is None or cache.dataset["root"] == root
    return same_root and all(n in cache.layers and cache.layers[n].identity == i for n, i in identities.items())


def newest(folder: Path) -> Path:
    """The feature file in a folder that was written last.

    Raises:
        CacheMissError: there is none.
    """
    files = [path for path in folder.glob("*.h5") if path.is_file()]
    if not files:
        raise CacheMissError(f"there is no feature file in {folder}; run featx extract first, or name a file")
    return max(files, key=lambda path: path.stat().st_mtime_ns)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The parts in which two descriptions of a backbone differ, with both values: "dtype: float32 against float16"."""
    return [
        f"{part}: {_brief(ours.get(part))} against {_brief(theirs.get(part))}"
        for part in sorted(ours.keys() | theirs.keys())
        if ours.get(part) != theirs.get(part)
    ]


def _brief(value: Any) -> str:
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)
    return text if len(text) <= 200 else text[:197] + "..."


@contextlib.contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the right to write a feature file. The system lets go of it when the process ends, however it ends.

    Raises:
        CacheLockedError: another process holds it.
        OutputError: the folder cannot be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(
            f"cannot write into {path.parent}: {error.strerror}; name another folder with --cache"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            raise CacheLockedError(f"{path} is being written by {holder}; wait for it, or end it") from error
        os.truncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}".encode(), 0)
        yield
    finally:
        os.close(handle)


def _reserve(file: h5py.File, name: str, shape: tuple[int, ...], kind: np.dtype[Any]) -> h5py.Dataset:
    """A contiguous data set whose space is in the file from the start."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    properties.set_obj_track_times(False)  # the same run gives the same bytes
    kind_id = h5py.h5t.py_create(kind, logical=True)
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind_id, h5py.h5s.create_simple(shape), properties))


def _offset(file: h5py.File, dataset: h5py.Dataset, size: int) -> int:
    """Where the raw bytes begin; only ordinary contiguous storage inside this file will do."""
    plist = dataset.id.get_create_plist()
    offset = dataset.id.get_offset()
    inside = offset is not None and offset + dataset.nbytes <= size
    linked = dataset.file.filename != file.filename  # an external link leads to another file
    if plist.get_layout() != h5py.h5d.CONTIGUOUS or plist.get_external_count() or linked or not inside:
        raise CorruptCacheError(f"{file.filename}: {dataset.name} is not stored whole and contiguous in the file")
    return int(offset)


def _column(file: h5py.File, name: str, size: int) -> np.ndarray:
    dataset = file[name]
    if dataset.size:
        _offset(file, dataset, size)
    column: np.ndarray = dataset[()]
    return column


def _require_space(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise OutputError(
            f"{folder} needs {_size(need)}, {_size(free)} are free; --cache names another folder, "
            "--dtype float16 halves the need"
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def _utf8(texts: Sequence[bytes] | np.ndarray, least: int = 1) -> np.ndarray:
    """Fixed-length, null-padded UTF-8, as wide as the longest."""
    width = max([least, *map(len, texts)])
    return np.array(texts, dtype=f"S{width}").astype(h5py.string_dtype("utf-8", width))


def _cut_utf8(text: str, most: int) -> bytes:
    return text.encode(errors="replace")[:most].decode(errors="ignore").encode()


def _file_stem(name: str) -> str:
    """A backbone's name in a file name: ``timm/vit_tiny`` as ``timm-vit_tiny``, ``nets/own.py:make`` as ``own-make``."""
    if ".py:" in name:
        file, _, factory = name.rpartition(":")
        name = f"{Path(file).stem}-{factory}"
    return name.replace("/", "-")
