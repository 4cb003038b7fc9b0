"""The one loop: images -> batches -> features -> cache."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
import time
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from featx.backbones.backbone import Backbone, load_backbone, split_views
from featx.constants import CACHE, ENGINES
from featx.data.augment import read_random_view
from featx.data.decode import MAX_PIXELS
from featx.data.image_set import ImageSet
from featx.data.loader import LoadedImage, Workers, batched, read_images, views_reader
from featx.data.nvjpeg import coded_reader, pixels_on
from featx.data.scan import scan_images
from featx.data.splits import hash_splits
from featx.data.throughput import ThroughputMeter
from featx.errors import CacheMissError, CorruptFileError, DatasetError, EngineError, StaleCacheError
from featx.extraction.autotune import AUTO, choose_engine, largest_useful_batch
from featx.extraction.engines import Engine, one_thread_each, open_engine
from featx.extraction.reuse import KnownViews, count_gone
from featx.features.feature_file import DONE, FAILED, FeatureFile, ImageTable
from featx.features.feature_set import FeatureSet
from featx.features.folder import feature_file_path, files_sharing
from featx.features.header import partial_path
from featx.features.lock import write_lock
from featx.features.writer import FeatureFileWriter
from featx.identity import differences
from featx.layer_spec import PENULTIMATE, LayerSpec, RandomView, View, views_name
from featx.reporter import SILENT, Reporter
from featx.system import cores

_AT_ONCE = 1 << 25
"""Bytes of features that are copied at once."""

_SAMPLE = 8
"""Images on which an engine is proved and measured: the first that are to be computed."""

_MOST_NAMED = 10  # failed images

_DEVICE_LANES = 2
"""Threads that run the network on a GPU."""


@dataclass(frozen=True)
class Extraction:
    """What one run of ``extract`` did.

    Attributes:
        file: the feature file.
        images: rows in it.
        computed: images that went through the network.
        reused: images whose features were in some file of the folder, or came up earlier in this run.
        failed: images that could not be read or decoded.
        removed: images of the earlier file that are gone.
        seconds: wall time.
        layers: width D of each layer.
        views: in which each image is seen.
        identity: of all layers together.
        dataset: its name.
        backbone: its name and weights.
        engine: what ran the network; "" where nothing was computed.
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
    views: str
    identity: str
    dataset: str
    backbone: str
    engine: str = ""
    failures: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def images_per_second(self) -> float:
        """All images over the wall time."""
        return self.images / max(self.seconds, 1e-9)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The notes, then the first few failed images, and how many more."""
        left = len(self.failures) - _MOST_NAMED
        more = (f"and {left} more failed (featx info --failed {self.file} lists them)",) if left > 0 else ()
        return (*self.notes, *(f"{path}: {error}" for path, error in self.failures[:_MOST_NAMED]), *more)

    def load(self, layer: str = PENULTIMATE) -> FeatureSet:
        """The features of one layer, in all views that were asked for."""
        return FeatureSet.load(self.file, str(LayerSpec.parse(layer, self.views)))

    def as_dict(self) -> dict[str, Any]:
        """As ``featx extract --json`` prints it."""
        counts = {n: getattr(self, n) for n in ("images", "computed", "reused", "failed", "removed")}
        return {
            "file": str(self.file),
            **counts,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
            "layers": self.layers,
            "views": self.views,
            "identity": self.identity,
            "dataset": self.dataset,
            "backbone": self.backbone,
            "engine": self.engine,
            "failures": [{"path": path, "error": error} for path, error in self.failures],
            "notes": list(self.notes),
        }


def extract(
    data: ImageSet | str | os.PathLike[str],
    backbone: Backbone | str = "resnet50",
    *,
    cache: str | os.PathLike[str] = CACHE,
    out: str | os.PathLike[str] | None = None,
    compute: str = AUTO,
    batch_size: int | str | None = None,
    workers: int | None = None,
    rehash: bool = False,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    wait: bool = False,
    reporter: Reporter = SILENT,
) -> Extraction:
    """Run a backbone once over a data set and keep its embeddings in one HDF5 file.

    Rows whose image is in any file of the same identity in the cache folder (or in what an interrupted run left) are taken
    from there; an unchanged data set costs no forward pass and opens no image.

    Args:
        data: an image set, or what ``scan_images`` takes.
        backbone: a backbone, or its name, with its default weights.
        cache: the folder for feature files.
        out: the file, instead of one named after data set and backbone in ``cache``.
        compute: the engine that runs the network: "eager" (torch), "compile" (torch.compile), "openvino" or "onnxruntime",
            where they are installed; "auto" takes the fastest, measured once per machine and backbone by a run that is long
            enough to pay for it. All give the same features, to 1e-4 of a row's norm, which is proved on the first images.
        batch_size: images per forward pass; by default what the engine does best with: 1 or 4 on the CPU, 64 elsewhere.
            "auto" measures it on a GPU. The same size gives the same bits; another one may change a feature's last ones.
        workers: threads that read and decode, and on the CPU run the network too, each on one core; by default one per core.
        rehash: trust neither modification times nor the features that are there: read every image, check every row.
        strict: stop at the first image that fails; what is done is kept.
        max_pixels: an image of more pixels (width x height) fails.
        wait: until another process that writes the same file has done so.
        reporter: gets the progress, in images, with what limits the speed as its detail; and a note before a wait for another
            process and before a measurement.

    Raises:
        DatasetError: no images, or none that can be decoded; with ``strict``, one that cannot.
        BackboneError: the backbone cannot be built.
        EngineError: the engine is not installed, cannot run the network, or does not fit on the device.
        StaleCacheError: ``out`` holds features of another identity.
        CorruptFileError: ``out`` is something else; it is not overwritten.
        CacheLockedError: another process is writing the same file.
        OutputError: the file cannot be written.
    """
    started = time.perf_counter()
    images = data if isinstance(data, ImageSet) else scan_images(data)
    backbone = load_backbone(backbone) if isinstance(backbone, str) else backbone

    def begin() -> _Run:
        path, note = (Path(out), "") if out is not None else _named(Path(cache), images, backbone)
        return _Run(
            path,
            images,
            backbone,
            workers=workers or cores(),
            rehash=rehash,
            strict=strict,
            max_pixels=max_pixels,
            note=note,
        )

    def waiting(holder: str) -> None:
        reporter.note(f"waiting for {holder}, which writes the same file")

    _require_sense(backbone, compute, batch_size, workers)
    speed = _Speed(compute, batch_size, workers or cores(), reporter, ThroughputMeter())
    run = begin()
    if rehash or not run.is_unchanged():
        ours = False
        while not ours:
            with write_lock(run.path, wait=wait, waiting=waiting):
                path, run = run.path, begin()  # another process may have written it meanwhile, or taken the name
                ours = run.path == path
                if ours:
                    run.go(speed)
    return run.summary(time.perf_counter() - started)


def _require_sense(backbone: Backbone, compute: str, batch_size: int | str | None, workers: int | None) -> None:
    if compute not in (AUTO, *ENGINES):
        raise EngineError(f"compute is {compute!r}; expected one of {', '.join((AUTO, *ENGINES))}")
    if batch_size is not None and batch_size != AUTO and not (type(batch_size) is int and batch_size > 0):
        raise EngineError(f"batch_size is {batch_size!r}; expected a whole number above 0, or auto")
    if workers is not None and workers < 1:
        raise EngineError(f"workers is {workers}; expected a number of threads above 0")
    if backbone.transform.decoding == "nvjpeg" and backbone.device.type != "cuda":
        raise EngineError(
            f"nvjpeg decodes on a CUDA GPU, and the backbone is on {backbone.device}; expected --device cuda"
        )


def _named(folder: Path, images: ImageSet, backbone: Backbone) -> tuple[Path, str]:
    return feature_file_path(
        folder, dataset=images.name, root=str(images.root), backbone=backbone.name, identities=backbone.identities
    )


@dataclass(frozen=True)
class _Speed:
    """How fast a run was asked to be."""

    compute: str
    batch_size: int | str | None
    workers: int
    reporter: Reporter
    meter: ThroughputMeter


class _Run:
    """One extraction: what is there, what is taken over, what is computed."""

    def __init__(
        self,
        path: Path,
        images: ImageSet,
        backbone: Backbone,
        *,
        workers: int,
        rehash: bool,
        strict: bool,
        max_pixels: int,
        note: str,
    ) -> None:
        self.path, self.images, self.backbone = path, images, backbone
        self.workers, self.rehash, self.strict, self.max_pixels = workers, rehash, strict, max_pixels
        self.wanted = backbone
        self.notes = [*images.notes, *([note] if note else [])]
        if backbone.weights == "random":
            self.notes.append(f"{backbone.name} has random weights: a baseline, not a pretrained network")
        if len(backbone.views) > 2 and backbone.transform.resize == backbone.transform.crop:
            self.notes.append(
                f"images are resized to {backbone.transform.crop} pixels, all of which the crop takes: corners differ along "
                "the longer side alone; a larger --resize leaves them room"
            )
        self.sizes, self.mtimes = _stat(images)
        self.before = self._earlier(path)
        self.keys = np.zeros((len(images), 16), dtype=np.uint8)
        self.computed = self.reused = self.good = self.failed = 0
        self.engine: Engine | None = None
        self.result = self.before

    def go(self, speed: _Speed) -> None:
        """Bring the file up to date."""
        if self.rehash:
            self._hash(np.arange(len(self.images)), reporter=speed.reporter)
        if not self.is_unchanged():
            self.start()
            self.compute(speed)
            self.finish()

    def is_unchanged(self) -> bool:
        """Whether the file has just these images, labels and splits, by path, size and modification time alone.

        With ``rehash``: also the very bytes, once they are hashed, and whether each row fits its check.
        """
        file, images = self.before, self.images
        if file is None or len(file) != len(images) or file.classes != images.classes:
            return False
        failed = file.status == FAILED
        limits = file.dataset.get("max_pixels") == self.max_pixels or not failed.any()
        same = bool(
            limits
            and {**file.dataset, "max_pixels": self.max_pixels} == self._dataset()
            and np.array_equal(file.images.paths, _paths(images))
            and np.array_equal(file.images.labels, images.labels)
            and np.array_equal(file.images.sizes, self.sizes)
            and np.array_equal(file.images.mtimes, self.mtimes)
            and ("" in images.splits or np.array_equal(file.splits, images.splits))
            and (file.keys.any(axis=1) | (self.sizes < 0)).all()  # a file that could not be read is tried again
            and (not self.rehash or np.array_equal(file.keys, self.keys))
            and (not self.rehash or file.checksums_match_in_all(list(file.layers), np.flatnonzero(~failed)).all())
        )
        if same and self.strict and failed.any():
            self._stop(int(np.argmax(failed)), file.error(int(np.argmax(failed))))
        self.reused = int(np.count_nonzero(~failed)) if same else 0
        return same

    def _dataset(self) -> dict[str, Any]:
        images = self.images
        splits = "hash" if "" in images.splits else "given"
        table = {"table": str(images.table)} if images.table else {}
        return {"name": images.name, "root": str(images.root), "splits": splits, "max_pixels": self.max_pixels, **table}

    def start(self) -> None:
        """Lay out the new file, or go on with an unfinished one, and take over every row whose image is recognised."""
        # Layers of the earlier file that nobody asks for today stay as complete as the others.
        if self.before and len(self.before.layers) > len(self.backbone.layers):
            self.backbone = self.backbone.with_layers(self.before.layers)
        images, backbone = self.images, self.backbone
        identities = backbone.identities
        left = self._left(identities)
        self.writer = FeatureFileWriter(
            self.path,
            images=_table(images, self.sizes, self.mtimes),
            classes=images.classes,
            layers={name: (dim, identities[name]) for name, dim in backbone.layers.items()},
            dtype=backbone.dtype,
            identity=backbone.identity,
            backbone={"name": backbone.name, "weights": backbone.weights, "parts": backbone.describe()},
            dataset=self._dataset(),
        )
        own = [file for file in (left, self.before) if file and file.holds(identities)]
        by_view = {view: backbone.with_views([view]).identities for view in backbone.views}
        shared = files_sharing(self.path.parent, by_view.values(), without=[self.path, partial_path(self.path)])
        self.known = KnownViews([*own, *shared], by_view)
        try:
            if not self.rehash:
                self.keys = self.known.recognised(images, self.sizes, self.mtimes)
            self.todo = self._take_over(np.arange(len(images)))
            unread = self.todo[~self.keys[self.todo].any(axis=1)]
            if (
                not left or self.writer.resumed
            ):  # else what is unfinished gives way to the new file: nothing of it may be lost
                unread = unread[self.known.may_lack_some(self.sizes[unread])]
            if len(unread) and not self.rehash:
                self._hash(unread, self.writer)
                self.todo = self._take_over(self.todo)
            self.writer.publish()
        except BaseException:
            self.writer.discard()
            raise

    def compute(self, speed: _Speed) -> None:
        """Have in the file what is left, in one pass over the images for each set of views that they lack."""
        while len(self.todo):
            again: list[int] = []
            for views, rows in self.known.lacking(self.todo, self.keys[self.todo]):
                if known := len(self.backbone.views) - len(views):
                    self.notes.append(
                        f"{len(rows)} images were known in {known} of {len(self.backbone.views)} views: the others alone were "
                        "computed"
                    )
                again += self._compute(self.backbone.with_views(views), rows, speed)
            self.todo = np.array(sorted(again), dtype=np.int64)

    def _compute(self, backbone: Backbone, todo: np.ndarray, speed: _Speed) -> list[int]:
        """Read some images; send through the network those whose bytes are new.

        Args:
            backbone: in the views that they lack.
            todo: their rows.
            speed: how.

        Returns:
            Rows that are to be computed again: what was known of them is damaged.
        """
        first_row: dict[bytes, int] = {}
        twins: list[tuple[int, bytes]] = []
        again: list[int] = []
        files = ((row, self.images.absolute(row)) for row in todo.tolist())
        done = self.good + self.failed

        def report(done: int) -> None:
            limit = speed.meter.limit()
            speed.reporter.progress(done, len(self.images), f"limit: {limit}" if limit else "")

        report(done)
        reader = _reader(backbone, self.max_pixels)

        def to_encode(pool: Workers) -> Iterator[LoadedImage]:
            nonlocal done
            for image in read_images(files, reader, workers=pool, known=_Either(self.known, first_row)):
                self._restat(image, self.writer)
                self.keys[image.row] = np.frombuffer(image.key, dtype=np.uint8)
                if image.error:
                    self._fail(image.row, image.key, image.error)
                elif image.key in first_row:
                    twins.append((image.row, image.key))
                elif image.pixels is not None:
                    first_row[image.key] = image.row
                    yield image
                    continue
                elif not self._copy(np.array([image.row])).all():  # what was known is damaged; now it is known no more
                    again.append(image.row)
                    continue
                done += 1
                report(done)

        meter = speed.meter
        with one_thread_each(), Workers(speed.workers, meter=meter, begin=_one_thread) as pool:
            images = to_encode(pool)
            if sample := list(itertools.islice(images, _SAMPLE)):
                engine = self.engine = self.engine or self._choose(backbone, len(todo), speed, sample)
                for batch, features in _encoded(engine, backbone, itertools.chain(sample, images), pool, meter):
                    with meter.busy("write"):
                        again += self._keep(backbone, batch, features)
                    done += len(batch)
                    report(done)
        return [*again, *self._copy_twins(twins, first_row)]

    def _choose(self, backbone: Backbone, images: int, speed: _Speed, sample: Sequence[LoadedImage]) -> Engine:
        pixels = _stacked(_pixels(sample), backbone).cpu().numpy()
        on_cpu = self.backbone.device.type == "cpu"
        lanes = speed.workers if on_cpu else _DEVICE_LANES
        size = speed.batch_size
        if size == AUTO:
            size = None if on_cpu else largest_useful_batch(open_engine("eager", self.backbone, lanes=lanes), pixels)
        assert not isinstance(size, str)
        chosen = choose_engine(
            speed.compute,
            self.backbone,
            pixels,
            images=images * len(backbone.views),
            lanes=lanes,
            batch=size,
            reporter=speed.reporter,
        )
        if chosen.note:
            self.notes.append(chosen.note)
        return chosen.engine

    def finish(self) -> None:
        """Decide the splits where the data set names none, and complete the file."""
        readable = self.keys.any(axis=1)
        if "" in self.images.splits:
            splits = np.full(len(self.images), "", dtype=object)
            splits[readable] = hash_splits(self.keys[readable], self.images.labels[readable])
            self.writer.set_splits(splits.tolist())
        if not self.good:
            failed = FeatureFile(partial_path(self.path), allow_partial=True)
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
        if file is self.before:
            _touch(self.path)
        failed = np.flatnonzero(file.status != DONE)
        return Extraction(
            file=self.path,
            images=len(file),
            computed=self.computed,
            reused=self.reused,
            failed=len(failed),
            removed=count_gone(self.before.keys, file.keys) if self.before else 0,
            seconds=seconds,
            layers=self.wanted.layer_widths,
            views=views_name(self.wanted.views),
            identity=file.identity,
            dataset=self.images.name,
            backbone=f"{self.backbone.name}, {self.backbone.weights} weights",
            engine=self.engine.name if self.engine else "",
            failures=tuple((os.fsdecode(file.images.paths[row]), file.error(row)) for row in failed.tolist()),
            notes=tuple(self.notes),
        )

    def _earlier(self, path: Path) -> FeatureFile | None:
        """The finished file that is to be replaced, or None."""
        try:
            file = FeatureFile(path)
        except CacheMissError:
            return None
        except CorruptFileError as error:  # it may be somebody's only copy of something else
            raise CorruptFileError(
                f"{error}. It is not overwritten: name another file with -o, or delete it"
            ) from error
        if not file.holds(self.backbone.identities):
            parts = differences(file.backbone["parts"], self.backbone.describe())
            raise StaleCacheError(
                f"{path} holds other features ({'; '.join(parts) or 'other layers: ' + ', '.join(file.layers)}); "
                "name another file with -o, or delete it"
            )
        return file

    def _left(self, identities: Mapping[str, str]) -> FeatureFile | None:
        """What an interrupted run left, if its features are of use here; a run for other features is put aside, not lost."""
        partial = partial_path(self.path)
        try:
            left = FeatureFile(partial, allow_partial=True)
        except CacheMissError:
            return None
        except CorruptFileError as error:
            self.notes.append(f"what an interrupted run left cannot be used: {error}")
            return None
        if left.holds(identities):
            return left
        if (left.status == DONE).any():
            tag = hashlib.sha256(left.identity.encode()).hexdigest()[:8]
            aside = partial_path(self.path.with_name(f"{self.path.stem}--{tag}.h5"))
            partial.replace(aside)
            self.notes.append(f"an interrupted run for other features is kept as {aside}")
        return None

    def _hash(self, rows: np.ndarray, writer: FeatureFileWriter | None = None, reporter: Reporter = SILENT) -> None:
        """Read images for their keys alone."""
        files = ((row, self.images.absolute(row)) for row in rows.tolist())
        for done, image in enumerate(read_images(files, None, workers=self.workers), start=1):
            self.keys[image.row] = np.frombuffer(image.key, dtype=np.uint8)
            self._restat(image, writer)
            reporter.progress(done, len(rows))

    def _restat(self, image: LoadedImage, writer: FeatureFileWriter | None) -> None:
        """The table says what was read, not what was listed."""
        row, facts = image.row, (image.size, image.mtime_ns)
        if image.size >= 0 and facts != (self.sizes[row], self.mtimes[row]):
            self.sizes[row], self.mtimes[row] = facts
            if writer:
                writer.restat(row, *facts)

    def _take_over(self, rows: np.ndarray) -> np.ndarray:
        """Of rows whose keys are set, keep or copy those whose features are known; returns the others."""
        left = np.zeros(len(self.images), dtype=bool)
        left[rows] = True
        if kept := self.writer.resumed:
            same = rows[(kept.keys[rows] == self.keys[rows]).all(axis=1) & self.keys[rows].any(axis=1)]
            done = same[kept.checksums_match_in_all(list(self.backbone.layers), same)]
            self.reused += len(done)
            self.good += len(done)
            left[done] = False
        width = sum(self.backbone.layers.values()) * np.dtype(self.backbone.dtype).itemsize
        keyed = np.flatnonzero(left & self.keys.any(axis=1))
        for at in range(0, len(keyed), max(1, _AT_ONCE // width)):
            some = keyed[at : at + max(1, _AT_ONCE // width)]
            left[some[self._copy(some)]] = False
        failures = self.known.failures(self.max_pixels)
        for row in np.flatnonzero(left & self.keys.any(axis=1)).tolist() if failures else ():
            key = self.keys[row].tobytes()
            if key in failures:
                self._fail(row, key, failures[key])
                left[row] = False
        return np.flatnonzero(left)

    def _copy(self, rows: np.ndarray) -> np.ndarray:
        """Take rows whose keys are set from other files; (M,) bool: which of them were there, and sound."""
        found, features = self.known.take(self.keys[rows])
        if found.any():
            self._write(rows[found], self.keys[rows[found]], features)
            self.reused += int(np.count_nonzero(found))
        return found

    def _copy_twins(self, twins: Sequence[tuple[int, bytes]], first_row: Mapping[bytes, int]) -> list[int]:
        """Images that are copies of one that was computed in this run; those of one that is to be computed again."""
        if not twins:
            return []
        again: list[int] = []
        file = FeatureFile(partial_path(self.path), allow_partial=True)
        for row, key in twins:
            first = first_row[key]
            if file.status[first] == DONE:
                vectors = {layer: file.features(layer)[first : first + 1] for layer in self.backbone.layers}
                self._write(np.array([row]), np.frombuffer(key, dtype=np.uint8)[None], vectors)
                self.reused += 1
            elif file.status[first] == FAILED:
                self._fail(row, key, file.error(first))
            else:
                again.append(row)
        return again

    def _keep(self, backbone: Backbone, batch: Sequence[LoadedImage], features: Mapping[str, np.ndarray]) -> list[int]:
        """Write features, beside those in views that are known; the rows of which those turn out to be damaged."""
        rows = np.array([image.row for image in batch])
        keys = np.frombuffer(b"".join(image.key for image in batch), dtype=np.uint8).reshape(-1, 16)
        again: list[int] = []
        if known := [view for view in self.backbone.views if view not in backbone.views]:
            found, there = self.known.take(keys, known)
            again, rows, keys = rows[~found].tolist(), rows[found], keys[found]
            features = {**there, **{layer: f[found] for layer, f in features.items()}} if found.any() else {}
        if not len(rows):
            return again
        finite = np.logical_and.reduce([np.isfinite(f).all(axis=1) for f in features.values()])
        self._write(rows[finite], keys[finite], {layer: f[finite] for layer, f in features.items()})
        for row, key in zip(rows[~finite].tolist(), keys[~finite], strict=True):
            self._fail(row, key.tobytes(), f"the backbone gives NaN or infinity in {self.backbone.dtype}")
        self.computed += len(rows)
        return again

    def _write(self, rows: np.ndarray, keys: np.ndarray, features: Mapping[str, np.ndarray]) -> None:
        self.writer.write(rows, keys, features)
        self.good += len(rows)
        self.keys[rows] = keys

    def _fail(self, row: int, key: bytes, reason: str) -> None:
        self.failed += 1
        self.writer.fail(row, key, reason)
        self.keys[row] = np.frombuffer(key, dtype=np.uint8)
        if self.strict:
            self._stop(row, reason)

    def _stop(self, row: int, reason: str) -> NoReturn:
        raise DatasetError(f"{self.images.absolute(row)}: {reason}. --strict stops at the first image that fails")


def encode_images(
    cache: FeatureFile, rows: np.ndarray, count: int, backbone: Backbone
) -> tuple[np.ndarray, dict[str, np.ndarray], int]:
    """Extract images of a feature file again, without a cache.

    Args:
        cache: the file.
        rows: which of its rows may be taken, in this order.
        count: how many of them to take.
        backbone: of the file's identity.

    Returns:
        (M,) rows whose image is still what it was, M at most ``count``; (M, D) features of each layer; and how many were
        passed over because their image is gone or has changed.
    """
    root, limit = Path(cache.dataset["root"]), cache.dataset.get("max_pixels", MAX_PIXELS)
    files = ((int(row), root / os.fsdecode(cache.images.paths[row])) for row in rows)
    taken: list[int] = []
    features: dict[str, list[np.ndarray]] = {layer: [] for layer in backbone.layers}
    changed = 0
    for image in read_images(files, views_reader(backbone.transform, _cropped(backbone), max_pixels=limit), workers=1):
        if image.pixels is None or image.key != cache.keys[image.row].tobytes():
            changed += 1
            continue
        taken.append(image.row)
        for layer, vector in backbone.encode_views(image.pixels[None]).items():
            features[layer].append(vector)
        if len(taken) == count:
            break
    found = {layer: np.concatenate(vectors) for layer, vectors in features.items() if vectors}
    return np.array(taken, dtype=np.int64), found, changed


class _Either(Container[bytes]):
    """Membership in either of two collections that change."""

    def __init__(self, *parts: Container[bytes]) -> None:
        self.parts = parts

    def __contains__(self, key: object) -> bool:
        return any(key in part for part in self.parts)


def _encoded(
    engine: Engine, backbone: Backbone, images: Iterator[LoadedImage], pool: Workers, meter: ThroughputMeter
) -> Iterator[tuple[list[LoadedImage], dict[str, np.ndarray]]]:
    """Batches of images with their embeddings, in order, a bounded number ahead.

    On the CPU one set of threads, as many as cores, both decodes and runs the network, one pass on one core each: whatever is
    to do next is done by whoever is free, so that no core waits and none is asked twice. A device has threads of its own,
    each with a stream: one's copies run beside the other's kernels. So has an engine that takes one pass at a time.
    """

    def encode(some: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        return split_views(engine(_stacked(some, backbone)), backbone.views)

    with contextlib.ExitStack() as own:
        shared = engine.on_cpu and engine.lanes == pool.count
        runners = pool if shared else own.enter_context(Workers(engine.lanes, meter=meter))
        running: deque[tuple[list[LoadedImage], Future[dict[str, np.ndarray]]]] = deque()
        try:
            for batch in batched(images, max(1, engine.portion // len(backbone.views))):
                running.append((batch, runners.start("forward", encode, _pixels(batch))))
                if len(running) > 2 * runners.count:
                    done, features = running.popleft()
                    yield done, features.result()
            for done, features in running:
                yield done, features.result()
        finally:
            for _, features in running:
                features.cancel()


def _reader(backbone: Backbone, max_pixels: int) -> Any:
    """From an image file's bytes to its pixels in each of the backbone's views, or to what a GPU makes them of."""
    transform, (view, *_) = backbone.transform, backbone.views
    if isinstance(view, RandomView):
        return lambda _row, data: read_random_view(data, transform, view, max_pixels=max_pixels)[None]
    reader = coded_reader if transform.decoding == "nvjpeg" else views_reader
    return reader(transform, _cropped(backbone), max_pixels=max_pixels)


def _stacked(images: Sequence[np.ndarray], backbone: Backbone) -> torch.Tensor:
    """(B x V, 3, crop, crop) uint8, an image's views in a row: on the CPU, or on the GPU that decodes them."""
    if backbone.transform.decoding == "nvjpeg" and backbone.device.type == "cuda":
        return pixels_on(backbone.device, images, backbone.transform, _cropped(backbone))
    return torch.from_numpy(np.concatenate(images))


def _cropped(backbone: Backbone) -> list[View]:
    """The backbone's views that are no random crops."""
    return [view for view in backbone.views if isinstance(view, View)]


def _pixels(images: Sequence[LoadedImage]) -> list[np.ndarray]:
    return [image.pixels for image in images if image.pixels is not None]


def _one_thread() -> None:
    torch.set_num_threads(1)


def _touch(path: Path) -> None:
    """The file that was asked for last is the newest, which ``fit-head`` takes when none is named."""
    with contextlib.suppress(OSError):  # not ours to touch: then it is just not the newest
        os.utime(path)


def _stat(images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """(N,) sizes in bytes and (N,) modification times in ns; -1 where there is no ordinary file."""
    facts = np.full((len(images), 2), -1, dtype=np.int64)
    root = str(images.root)
    for row, path in enumerate(images.paths):
        try:
            found = os.stat(os.path.join(root, path))  # noqa: PTH116, PTH118 - Path takes several times as long
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(found.st_mode):
            facts[row] = found.st_size, found.st_mtime_ns
    return facts[:, 0].copy(), facts[:, 1].copy()


def _paths(images: ImageSet) -> np.ndarray:
    """(N,) bytes."""
    return np.array([os.fsencode(path) for path in images.paths])


def _table(images: ImageSet, sizes: np.ndarray, mtimes: np.ndarray) -> ImageTable:
    return ImageTable(
        paths=_paths(images),
        labels=images.labels,
        splits=np.array([split.encode() for split in images.splits]),
        sizes=sizes,
        mtimes=mtimes,
    )
