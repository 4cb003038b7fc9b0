"""The one loop: images -> batches -> features -> cache. Its reading half also feeds promotion and prediction."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featx.backbone import Backbone, load_backbone
from featx.cache import DONE, CacheWriter, FeatureCache, ImageTable, differences, feature_file, holds, write_lock
from featx.decode import Transform, read_pixels
from featx.errors import CacheMissError, CorruptCacheError, DatasetError, ImageError, StaleCacheError
from featx.features import FeatureSet
from featx.images import ImageSet, hash_splits, image_key, scan_images
from featx.settings import CACHE, Progress

NO_KEY = bytes(16)
"""The key of an image whose bytes could not be read."""


@dataclass(frozen=True)
class Extraction:
    """What one run of ``extract`` did.

    Attributes:
        file: the feature file.
        images: rows in it.
        computed: images that went through the network.
        reused: images whose features were in an earlier file, or earlier in this run.
        failed: images that could not be read or decoded.
        removed: images of the earlier file that are gone.
        seconds: wall time.
        layers: width D of each layer.
        identity: of all layers together.
        dataset: its name.
        backbone: its name and weights.
        failures: (path, why) of each failed image.
        notes: what else the user should know, one sentence each.
    """

    file: Path
    images: int
    computed: int
    reused: int
    failed: int
    removed: int
    seconds: float
    layers: dict[str, int]
    identity: str
    dataset: str
    backbone: str
    failures: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def images_per_second(self) -> float:
        """All images over the wall time."""
        return self.images / max(self.seconds, 1e-9)

    def load(self, layer: str = "penultimate") -> FeatureSet:
        """The features of one layer."""
        return FeatureSet.load(self.file, layer)

    def as_dict(self) -> dict[str, Any]:
        """As ``featx extract --json`` prints it."""
        counts = {n: getattr(self, n) for n in ("images", "computed", "reused", "failed", "removed")}
        return {
            "file": str(self.file),
            **counts,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
            "layers": self.layers,
            "identity": self.identity,
            "dataset": self.dataset,
            "backbone": self.backbone,
            "failures": [{"path": path, "error": error} for path, error in self.failures],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class LoadedImage:
    """One image file, read once.

    Attributes:
        row: its number in the caller's list.
        key: hash of its bytes, ``NO_KEY`` where it could not be read.
        pixels: (3, H, W) uint8, or None where it failed or its key was known.
        error: why it failed, else "".
    """

    row: int
    key: bytes
    pixels: np.ndarray | None
    error: str = ""


def extract(
    data: ImageSet | str | os.PathLike[str],
    backbone: Backbone | str = "resnet50",
    *,
    cache: str | os.PathLike[str] = CACHE,
    out: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Extraction:
    """Run a backbone once over a data set and keep its embeddings in one HDF5 file.

    Rows whose image is already in an earlier file of the same identity (or in what an interrupted run left) are taken from
    there; an unchanged data set costs no forward pass and opens no image.

    Args:
        data: an image set, or what ``scan_images`` takes.
        backbone: a backbone, or its name, with its default weights.
        cache: the folder for feature files.
        out: the file, instead of one named after data set and backbone in ``cache``.
        batch_size: images per forward pass; by default 8 on the CPU, 64 elsewhere. It does not change the features.
        workers: threads that read and decode; by default one per core.
        progress: called as images are done.

    Raises:
        DatasetError: no images, or none that can be decoded.
        BackboneError: the backbone cannot be built.
        StaleCacheError: ``out`` holds features of another identity.
        CacheLockedError: another process is writing the same file.
        OutputError: the file cannot be written.
    """
    started = time.perf_counter()
    images = data if isinstance(data, ImageSet) else scan_images(data)
    backbone = load_backbone(backbone) if isinstance(backbone, str) else backbone
    if out is None:
        path = feature_file(
            Path(cache),
            dataset=images.name,
            root=str(images.root),
            backbone=backbone.name,
            identities=backbone.identities,
        )
    else:
        path = Path(out)
    with write_lock(path):
        run = _Run(path, images, backbone)
        if run.is_unchanged():
            _touch(path)
        else:
            run.start()
            run.compute(batch_size or default_batch_size(backbone.device), workers or default_workers(), progress)
            run.finish()
        return run.summary(time.perf_counter() - started)


class _Run:
    """One extraction: what is there, what is taken over, what is computed."""

    def __init__(self, path: Path, images: ImageSet, backbone: Backbone) -> None:
        self.path, self.images, self.backbone = path, images, backbone
        self.wanted = dict(backbone.layers)
        self.notes = list(images.notes)
        if backbone.weights == "random":
            self.notes.append(f"{backbone.name} has random weights: a baseline, not a pretrained network")
        self.sizes, self.mtimes = _stat(images)
        self.before = self._earlier(path)
        self.donors = [donor for donor in (self.before, self._earlier(_partial(path))) if donor]
        self.keys = np.zeros((len(images), 16), dtype=np.uint8)
        self.computed = self.reused = self.written = 0
        self.result = self.before

    def is_unchanged(self) -> bool:
        """Whether the file has just these images, labels and splits, by path, size and modification time alone."""
        file, images = self.before, self.images
        if file is None or len(file) != len(images) or file.classes != images.classes:
            return False
        same = bool(
            file.paths == list(images.paths)
            and np.array_equal(file.images.labels, images.labels)
            and np.array_equal(file.images.sizes, self.sizes)
            and np.array_equal(file.images.mtimes, self.mtimes)
            and file.dataset == self._dataset()
            and ("" in images.splits or np.array_equal(file.splits, images.splits))
            and (file.keys.any(axis=1) | (self.sizes < 0)).all()  # a file that could not be read is tried again
        )
        self.reused = int(np.count_nonzero(file.status == DONE)) if same else 0
        return same

    def _dataset(self) -> dict[str, str]:
        images = self.images
        splits = "hash" if "" in images.splits else "given"
        return {"name": images.name, "root": str(images.root), "splits": splits}

    def start(self) -> None:
        """Lay out the new file and take over every row whose image is known by path, size and modification time."""
        # Layers of the earlier file that nobody asks for today stay as complete as the others.
        if self.before and len(self.before.layers) > len(self.wanted):
            self.backbone = self.backbone.tapped_at(self.before.layers)
        images, backbone = self.images, self.backbone
        identities = backbone.identities
        self.donors = [donor for donor in self.donors if holds(donor, identities)]
        layers = {name: (dim, identities[name]) for name, dim in backbone.layers.items()}
        self.writer = CacheWriter(
            self.path,
            images=_table(images, self.sizes, self.mtimes),
            classes=images.classes,
            layers=layers,
            dtype=backbone.dtype,
            identity=backbone.identity,
            backbone={"name": backbone.name, "weights": backbone.weights, "parts": backbone.describe()},
            dataset=self._dataset(),
        )
        self.known = self._known_keys()
        self.todo = []
        for row, (key, error) in enumerate(self._recognised()):
            if key in self.known:
                self._copy(row, key)
            elif error and key != NO_KEY:
                self._fail(row, key, error)
            else:
                self.todo.append(row)
        self.writer.publish()

    def compute(self, batch_size: int, workers: int, progress: Progress | None) -> None:
        """Read the images that are left; send through the network those whose bytes are new."""
        first_row: dict[bytes, int] = {}
        twins: list[tuple[int, bytes]] = []
        files = [(row, self.images.absolute(row)) for row in self.todo]
        done = len(self.images) - len(files)
        report = progress or (lambda _done, _total: None)
        report(done, len(self.images))

        def to_encode() -> Iterator[LoadedImage]:
            known = _Either(self.known, first_row)
            for image in read_images(files, plain_reader(self.backbone.transform), workers=workers, known=known):
                if image.error:
                    self._fail(image.row, image.key, image.error)
                elif image.key in self.known:
                    self._copy(image.row, image.key)
                elif image.key in first_row:
                    twins.append((image.row, image.key))
                else:
                    first_row[image.key] = image.row
                    yield image
                    continue
                nonlocal done
                done += 1
                report(done, len(self.images))

        for batch in batched(to_encode(), batch_size):
            self._encode(batch)
            done += len(batch)
            report(done, len(self.images))
        self._copy_twins(twins, first_row)

    def finish(self) -> None:
        """Decide the splits where the data set names none, and complete the file."""
        readable = self.keys.any(axis=1)
        if "" in self.images.splits:
            splits = np.full(len(self.images), "", dtype=object)
            splits[readable] = hash_splits(self.keys[readable], self.images.labels[readable])
            self.writer.set_splits(splits.tolist())
        if not self.written:
            failed = FeatureCache(_partial(self.path), allow_partial=True)
            fault = "gave finite features" if self.computed else "could be decoded"
            raise DatasetError(
                f"none of the {len(self.images)} images in {self.images.root} {fault}; "
                f"the first, {failed.paths[0]}: {failed.error(0)}"
            )
        self.result = self.writer.finish()

    def summary(self, seconds: float) -> Extraction:
        """What was done."""
        file = self.result
        assert file is not None
        failed = np.flatnonzero(file.status != DONE)
        now = Counter(map(bytes, file.keys))
        before = Counter(map(bytes, self.before.keys)) if self.before else Counter()
        paths = file.paths
        return Extraction(
            file=self.path,
            images=len(file),
            computed=self.computed,
            reused=self.reused,
            failed=len(failed),
            removed=(before - now).total(),
            seconds=seconds,
            layers=self.wanted,
            identity=file.identity,
            dataset=self.images.name,
            backbone=f"{self.backbone.name}, {self.backbone.weights} weights",
            failures=tuple((paths[row], file.error(row)) for row in failed.tolist()),
            notes=tuple(self.notes),
        )

    def _earlier(self, path: Path) -> FeatureCache | None:
        """A file whose rows can be taken over, or None."""
        try:
            file = FeatureCache(path, allow_partial=path != self.path)
        except CacheMissError:
            return None
        except CorruptCacheError as error:
            if path == self.path:  # it may be somebody's only copy of something else
                raise CorruptCacheError(
                    f"{error}. It is not overwritten: name another file with -o, or delete it"
                ) from error
            self.notes.append(f"what an interrupted run left cannot be used: {error}")
            return None
        if not holds(file, self.backbone.identities):
            if path != self.path:
                return None  # left by a run with other options
            parts = differences(file.backbone["parts"], self.backbone.describe())
            raise StaleCacheError(
                f"{path} holds other features ({'; '.join(parts) or 'other layers: ' + ', '.join(file.layers)}); "
                "name another file with -o, or delete it"
            )
        return file

    def _recognised(self) -> Iterator[tuple[bytes, str]]:
        """For each image its key and what was wrong with it, if an earlier file saw it at this size and time."""
        by_path: dict[str, tuple[FeatureCache, int]] = {}
        for donor in self.donors:
            by_path.update({path: (donor, row) for row, path in enumerate(donor.paths)})
        for row, path in enumerate(self.images.paths):
            if path in by_path and self.sizes[row] >= 0:
                file, old = by_path[path]
                if (file.images.sizes[old], file.images.mtimes[old]) == (self.sizes[row], self.mtimes[row]):
                    yield file.keys[old].tobytes(), file.error(old)
                    continue
            yield NO_KEY, ""

    def _known_keys(self) -> dict[bytes, tuple[FeatureCache, int]]:
        """Where the sound features of an image are, by its key."""
        known: dict[bytes, tuple[FeatureCache, int]] = {}
        for donor in self.donors:
            rows = np.flatnonzero(donor.status == DONE)
            for layer in self.backbone.layers:
                rows = rows[donor.sound(layer, rows)]
            known.update({donor.keys[row].tobytes(): (donor, int(row)) for row in rows})
        return known

    def _copy(self, row: int, key: bytes) -> None:
        donor, old = self.known[key]
        self._write([row], [key], {layer: donor.features(layer)[old : old + 1] for layer in self.backbone.layers})
        self.reused += 1

    def _copy_twins(self, twins: Sequence[tuple[int, bytes]], first_row: dict[bytes, int]) -> None:
        """Images that are copies of one that was computed in this run."""
        if not twins:
            return
        file = FeatureCache(_partial(self.path), allow_partial=True)
        for row, key in twins:
            first = first_row[key]
            if file.status[first] == DONE:
                vectors = {layer: file.features(layer)[first : first + 1] for layer in self.backbone.layers}
                self._write([row], [key], vectors)
                self.reused += 1
            else:
                self._fail(row, key, file.error(first))

    def _encode(self, batch: Sequence[LoadedImage]) -> None:
        features = self.backbone.encode(np.stack([image.pixels for image in batch if image.pixels is not None]))
        finite = np.logical_and.reduce([np.isfinite(f).all(axis=1) for f in features.values()])
        good = [image for image, ok in zip(batch, finite, strict=True) if ok]
        vectors = {layer: f[finite] for layer, f in features.items()}
        self._write([image.row for image in good], [image.key for image in good], vectors)
        for image, ok in zip(batch, finite, strict=True):
            if not ok:
                self._fail(image.row, image.key, f"the backbone gives NaN or infinity in {self.backbone.dtype}")
        self.computed += len(batch)

    def _write(self, rows: Sequence[int], keys: Sequence[bytes], features: dict[str, np.ndarray]) -> None:
        array = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16)
        self.writer.write(rows, array, features)
        self.written += len(rows)
        self.keys[list(rows)] = array

    def _fail(self, row: int, key: bytes, reason: str) -> None:
        self.writer.fail(row, key, reason)
        self.keys[row] = np.frombuffer(key, dtype=np.uint8)


class _Either(Collection[bytes]):
    """Membership in either of two growing dictionaries."""

    def __init__(self, *parts: dict[bytes, Any]) -> None:
        self.parts = parts

    def __contains__(self, key: object) -> bool:
        return any(key in part for part in self.parts)

    def __iter__(self) -> Iterator[bytes]:
        return itertools.chain(*self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))


def read_images(
    files: Iterable[tuple[int, Path]],
    read: Callable[[int, bytes], np.ndarray],
    *,
    workers: int,
    known: Collection[bytes] = (),
) -> Iterator[LoadedImage]:
    """Read and decode files in threads, in order, a bounded number ahead. A bad file never stops the others.

    Args:
        files: (row, path).
        read: from a row and its file's bytes to (3, H, W) uint8; raises ImageError.
        workers: threads; Pillow and the disk let go of the interpreter lock.
        known: keys whose pixels nobody needs; it may grow meanwhile.
    """

    def load(row: int, path: Path) -> LoadedImage:
        try:
            data = read_file(path)
        except ImageError as error:
            return LoadedImage(row, NO_KEY, None, str(error))
        key = image_key(data)
        if key in known:
            return LoadedImage(row, key, None)
        try:
            return LoadedImage(row, key, read(row, data))
        except ImageError as error:
            return LoadedImage(row, key, None, str(error))

    with ThreadPoolExecutor(workers, thread_name_prefix="featx-decode") as pool:
        ahead: deque[Future[LoadedImage]] = deque()
        try:
            for row, path in files:
                ahead.append(pool.submit(load, row, path))
                if len(ahead) >= 4 * workers + 8:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def read_file(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageError: it cannot be read, or is no ordinary file: reading a pipe would wait for ever.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageError("is no ordinary file")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error


def plain_reader(transform: Transform) -> Callable[[int, bytes], np.ndarray]:
    """What ``read_images`` takes, for pixels as the backbone wants them."""
    return lambda _row, data: read_pixels(data, transform)


def batched(images: Iterable[LoadedImage], size: int) -> Iterator[list[LoadedImage]]:
    """Lists of ``size`` images; the last may be shorter."""
    iterator = iter(images)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def default_batch_size(device: torch.device) -> int:
    """8 on the CPU, where larger batches only cost memory; 64 elsewhere."""
    return 8 if device.type == "cpu" else 64


def default_workers() -> int:
    """One per core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _touch(path: Path) -> None:
    """The file that was asked for last is the newest, which ``fit-head`` takes when none is named."""
    with contextlib.suppress(OSError):  # not ours to touch: then it is just not the newest
        os.utime(path)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _stat(images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """(N,) sizes in bytes and (N,) modification times in ns; -1 where there is no ordinary file."""
    facts = np.full((len(images), 2), -1, dtype=np.int64)
    for row in range(len(images)):
        try:
            found = images.absolute(row).stat()
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode):
            facts[row] = found.st_size, found.st_mtime_ns
    return facts[:, 0].copy(), facts[:, 1].copy()


def _table(images: ImageSet, sizes: np.ndarray, mtimes: np.ndarray) -> ImageTable:
    return ImageTable(
        paths=np.array([os.fsencode(path) for path in images.paths]),
        labels=images.labels,
        splits=np.array([split.encode() for split in images.splits]),
        sizes=sizes,
        mtimes=mtimes,
    )
