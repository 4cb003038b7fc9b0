"""Features of images from anywhere, computed once and kept in the folder of feature files by the hash of the content.

``extract`` makes one file for each data set. Images that come one by one, as to the transformer of a scikit-learn pipeline,
belong to no data set. Their features are kept in files of their own, in the subfolder ``embedded`` of the cache. Extraction and
prediction find them there too, as this module finds those that an extraction has made.

One process at a time computes features of a network, and it holds the lock for some thousands of images: another one
that wants the same images waits and then reads them. Readers never wait. Each call that computes something adds a file; small
files are merged, so that their number grows with the logarithm of the number of images.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.backbones.backbone import Backbone
from featx.backbones.identities import other_form
from featx.constants import EMBEDDED
from featx.data.decode import MAX_PIXELS
from featx.data.file_bytes import NO_KEY, FileBytes, FileFacts
from featx.data.image_set import UNLABELLED, ImageSet
from featx.data.inputs import ImageInput
from featx.data.loader import read_images, read_source
from featx.data.pillow import reader_name
from featx.errors import CacheMissError, CorruptFileError, DatasetError, UnreadableFileError
from featx.extraction.lookup import FileFeatures, ImageValues, Network, iter_values, known_in_files
from featx.extraction.pipeline import extract
from featx.extraction.reuse import KnownRows
from featx.features.feature_file import DONE, FeatureFile, ImageTable
from featx.features.folder import files_and_shards, files_in, final_path, tagged_name
from featx.features.lock import remove_abandoned_lock, write_lock
from featx.features.writer import FeatureFileWriter
from featx.identity import joint_features
from featx.layer_spec import LayerSpec
from featx.reporter import SILENT, Reporter
from featx.system import cores
from featx.text import portable

MOST_AT_ONCE = 2048
"""Images that a process computes on the CPU before it lets another one have its turn."""

_ON_GPU = 8
"""How many times as many on another device, which takes about as long for them."""

_FEW = 32
"""Images up to which the network runs without an extraction, whose engine is opened and compared with the network first."""

_MOST_FILES = 8
"""Files of a network's features from which on the small ones are merged."""

_MOST_INDEXES = 2
"""Indexes of known features that a thread keeps."""

_BLOCK = 1 << 25
"""Bytes of features that are copied at once."""

_NAME = "images"
"""The name of the data set that the images count as."""


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """Features of N images.

    Attributes:
        values: (N, D) float32, or (N, V, D) in V views; NaN where an image failed.
        errors: (N,) why each image failed, "" where it did not.
    """

    values: np.ndarray
    errors: list[str]


def embed_images(
    backbone: Backbone,
    layer: str,
    images: Sequence[ImageInput],
    *,
    cache: Path | None,
    batch_size: int | None = None,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> ImageFeatures:
    """Find or compute the features of images. What is computed is kept; one bad image does not stop the others.

    Args:
        backbone: a network that extracts the layers and views of ``layer``.
        layer: a layer spec, as in ``LayerSpec.parse``.
        images: N images, of which copies are computed once.
        cache: the folder of feature files; None: everything is computed, and nothing kept.
        batch_size: images per forward pass; None leaves it to the engine.
        workers: threads that read and decode; by default one per core.
        reporter: gets the progress of what is computed.

    Raises:
        OutputError: the folder cannot be written.
    """
    spec = LayerSpec.parse(layer)
    width = sum(backbone.layer_widths[name] for name in spec.layers)
    shape = (len(images), width) if len(spec.views) == 1 else (len(images), len(spec.views), width)
    found = ImageFeatures(np.full(shape, np.nan, dtype=np.float32), [""] * len(images))
    if cache is None:
        _compute(backbone, layer, images, range(len(images)), found, workers, reporter)
        return found
    _Keeping(backbone, layer, cache, images, found, batch_size, workers, reporter).fill()
    return found


def _compute(
    backbone: Backbone,
    layer: str,
    images: Sequence[ImageInput],
    rows: Sequence[int],
    found: ImageFeatures,
    workers: int | None,
    reporter: Reporter = SILENT,
) -> None:
    """Compute the features of some rows without a cache."""
    views = LayerSpec.parse(layer).views
    backbone = backbone.with_views(views)
    network = Network(backbone.transform, views, backbone.device.type, lambda pixels: backbone.encode_at(pixels, layer))
    computed = iter_values(network, [images[row] for row in rows], workers=workers, reporter=reporter)
    for row, image in zip(rows, computed, strict=True):
        found.errors[row] = _fault(image)
        if not found.errors[row]:
            found.values[row] = image.values


def _fault(image: ImageValues) -> str:
    """Why an image has no features; "" if it has."""
    if image.values is not None and np.isfinite(image.values).all():
        return ""
    return image.error or "the backbone gives NaN or infinity"


class _Keeping:
    """The features of some images, filled in from the files of a folder, and computed into a new one where they are missing."""

    def __init__(
        self,
        backbone: Backbone,
        layer: str,
        cache: Path,
        images: Sequence[ImageInput],
        found: ImageFeatures,
        batch_size: int | None,
        workers: int | None,
        reporter: Reporter,
    ) -> None:
        self._backbone, self._layer, self._images, self._found = backbone, layer, images, found
        self._cache, self._folder = cache, (cache / EMBEDDED).absolute()
        self._batch_size, self._workers, self._reporter = batch_size, workers or cores(), reporter
        self._stored = LayerSpec.parse(layer).stored
        # The folder is not part of the name, so that it can be moved.
        self._name = tagged_name(_NAME, "", backbone.name, backbone.identities)

    def fill(self) -> None:
        keys = self._keys()
        left = np.flatnonzero(keys.any(axis=1))
        left = self._take_known(left, keys)
        while len(left):
            with write_lock(self._folder / self._name, wait=True):
                left = self._take_known(left, keys)  # another process may have computed some meanwhile
                if len(left):
                    left = self._compute_new(left, keys)
                    self._merge()

    def _keys(self) -> np.ndarray:
        """(N, 16) uint8, the hashes of the images' bytes; zeros where one cannot be read, whose reason is noted."""
        keys = np.zeros((len(self._images), 16), dtype=np.uint8)
        files = enumerate(image.source for image in self._images)
        for image in read_images(files, None, workers=self._workers):
            if image.key == NO_KEY:
                self._found.errors[image.row] = image.error
            else:
                keys[image.row] = np.frombuffer(image.key, dtype=np.uint8)
        return keys

    def _take_known(self, rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Fill in rows whose features are in files, and return those that are left."""
        known = _known(self._backbone, self._layer, self._cache)
        if known is None:
            return rows
        left = np.ones(len(rows), dtype=bool)
        width = max(1, self._found.values[:1].nbytes)
        there = np.flatnonzero(known.holds(keys[rows]))
        for at in range(0, len(there), max(1, _BLOCK // width)):
            some = there[at : at + max(1, _BLOCK // width)]
            intact, features = known.take(keys[rows[some]])
            if intact.any():
                self._found.values[rows[some[intact]]] = features
            left[some[intact]] = False
        return rows[left]

    def _compute_new(self, rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Compute the first of some rows into a new file, with all copies of their images, and return those that are left."""
        texts = np.ascontiguousarray(keys[rows]).view("S16").ravel()
        _, firsts, of_row = np.unique(texts, return_index=True, return_inverse=True)
        most = MOST_AT_ONCE if self._backbone.device.type == "cpu" else _ON_GPU * MOST_AT_ONCE
        chosen = np.sort(firsts)[:most]
        here = np.isin(firsts[of_row.ravel()], chosen)
        first = {keys[row].tobytes().hex(): row for row in rows[chosen].tolist()}
        these = [key.tobytes().hex() for key in keys[rows[here]]]
        if len(first) <= _FEW:
            self._compute_few(first, rows[here], these)
        else:
            self._extract(first, rows[here], these)
        left: np.ndarray = rows[~here]
        return left

    def _extract(self, first: Mapping[str, int], rows: np.ndarray, names: Sequence[str]) -> None:
        """Compute images by an extraction, whose engines are fast and which keeps what is done if it is killed.

        Args:
            first: the row of each image by its name.
            rows: (M,) all rows of these images.
            names: (M,) theirs.
        """
        paths = sorted(first)
        store = _GivenImages(str(self._folder), {name: self._images[row] for name, row in first.items()})
        count = len(paths)
        images = ImageSet(
            _NAME,
            store,
            np.array(paths, dtype=object),
            np.full(count, UNLABELLED, dtype=np.int64),
            np.full(count, "train", dtype=object),
            (),
        )
        size, workers, reporter = self._batch_size, self._workers, self._reporter
        out = self._folder / self._unique()
        try:
            done = extract(images, self._backbone, out=out, batch_size=size, workers=workers, reporter=reporter)
        except DatasetError:  # none of them could be decoded, so there is no file; the reason of each is found again
            self._compute_few(first, rows, names)
        else:
            self._take_from(FeatureFile(done.file), paths, rows, names)

    def _compute_few(self, first: Mapping[str, int], rows: np.ndarray, names: Sequence[str]) -> None:
        """Compute a few images, for which the preparations of an extraction would take longer than the images. As above."""
        backbone = self._backbone
        views = LayerSpec.parse(self._layer).views
        network = Network(backbone.transform, views, backbone.device.type, self._all_layers)
        computed = iter_values(
            network, [self._images[row] for row in first.values()], workers=self._workers, reporter=self._reporter
        )
        by_name = {name: (image, _fault(image)) for name, image in zip(first, computed, strict=True)}
        values = {image.key: image.values for image, fault in by_name.values() if not fault}
        if good := {key: found for key, found in values.items() if found is not None}:
            keys = np.frombuffer(b"".join(good), dtype=np.uint8).reshape(-1, 16)
            with self._writer(keys) as writer:
                writer.write(np.arange(len(keys)), keys, self._by_layer(np.stack(list(good.values()))))
        for row, name in zip(rows.tolist(), names, strict=True):
            image, fault = by_name[name]
            self._found.errors[row] = fault
            if not fault:
                assert image.values is not None
                layers = self._by_layer(image.values[None])
                self._found.values[row] = joint_features([[layers[each] for each in view] for view in self._stored])[0]

    def _all_layers(self, pixels: np.ndarray) -> np.ndarray:
        """(B, V, C, H, W) pixels to (B, ...) the features of all layers in all views side by side."""
        by_name = self._backbone.encode_views(pixels)
        return np.concatenate([by_name[name] for name in self._backbone.layers], axis=1)

    def _by_layer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """What ``_all_layers`` returns, by layer."""
        layers = self._backbone.layers
        return dict(zip(layers, np.split(values, np.cumsum(list(layers.values()))[:-1], axis=1), strict=True))

    def _take_from(self, file: FeatureFile, paths: Sequence[str], rows: np.ndarray, names: Sequence[str]) -> None:
        """Fill in rows from the file that was just written, whose rows are the images of ``paths``."""
        at = np.searchsorted(np.array(paths), np.array(names))
        good = file.status[at] == DONE
        stored = [[file.features(name)[at[good]] for name in view] for view in self._stored]
        self._found.values[rows[good]] = joint_features(stored)
        for row, place in zip(rows[~good].tolist(), at[~good].tolist(), strict=True):
            self._found.errors[row] = file.error(place)

    # The files

    def _unique(self) -> str:
        return f"{self._name.removesuffix('.h5')}--{secrets.token_hex(4)}.h5"

    def _merge(self) -> None:
        """Merge the small files of this network if there are many, and those that killed processes left. Under the lock."""
        stem = self._name.removesuffix(".h5") + "--"
        complete: list[FeatureFile] = []
        left: list[FeatureFile] = []
        for path in files_in(self._folder):
            if path.name.startswith(stem):
                if path.name.endswith(".new"):
                    path.unlink(missing_ok=True)
                    continue
                with contextlib.suppress(CacheMissError, CorruptFileError, UnreadableFileError):
                    (complete if path == final_path(path) else left).append(FeatureFile(path, allow_partial=True))
        complete.sort(key=len)
        small: list[FeatureFile] = []
        if len(complete) > _MOST_FILES:
            for file in complete:
                if len(small) > 1 and len(file) > 2 * sum(map(len, small)):
                    break
                small.append(file)
        if small or left:
            self._write_merged([*small, *left])

    def _write_merged(self, files: Sequence[FeatureFile]) -> None:
        rows = KnownRows(files, list(self._backbone.layers))
        keys = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 16)
        if len(keys):
            with self._writer(keys) as writer:
                _copy_rows(writer, rows, keys)
        for file in files:  # a process that reads one of them finds its rows in the merged file
            file.path.unlink(missing_ok=True)
            remove_abandoned_lock(final_path(file.path))

    @contextlib.contextmanager
    def _writer(self, keys: np.ndarray) -> Iterator[FeatureFileWriter]:
        """A new file for the images of (N, 16) keys, which is complete at the end of the block."""
        backbone, count = self._backbone, len(keys)
        facts = {"name": _NAME, "root": portable(str(self._folder)), "splits": "given"}
        writer = FeatureFileWriter(
            self._folder / self._unique(),
            images=ImageTable(
                paths=np.array([key.tobytes().hex().encode() for key in keys]),
                labels=np.full(count, UNLABELLED, dtype=np.int64),
                splits=np.full(count, b"train"),
                sizes=np.zeros(count, dtype=np.int64),
                mtimes=np.full(count, -1, dtype=np.int64),
            ),
            classes=(),
            layers={name: (width, backbone.identities[name]) for name, width in backbone.layers.items()},
            dtype=backbone.dtype,
            identity=backbone.identity,
            backbone={"name": backbone.name, "weights": backbone.weights, "parts": backbone.describe()},
            dataset={**facts, "max_pixels": MAX_PIXELS, "reader": reader_name()},
            resume=False,
        )
        try:
            yield writer
            writer.finish()
        except BaseException:
            writer.discard()
            raise


_of_thread = threading.local()
_other_forms: weakref.WeakKeyDictionary[Backbone, dict[str, str]] = weakref.WeakKeyDictionary()


def _known(backbone: Backbone, layer: str, cache: Path) -> FileFeatures | None:
    """The features in the files of a folder, whose index is made again if a file has changed; each thread has its own."""
    if backbone not in _other_forms:  # it may take a forward pass
        _other_forms[backbone] = other_form(backbone).identities
    seen = getattr(_of_thread, "seen", None)
    if seen is None:
        seen = _of_thread.seen = {}
    files = []
    for path in files_and_shards(cache):
        with contextlib.suppress(OSError):  # it has just been merged
            found = path.stat()
            files.append((str(path), found.st_mtime_ns, found.st_size, found.st_ino))
    key = (os.fspath(cache.absolute()), layer, backbone.identity_of(layer))
    if key not in seen or seen[key][0] != files:
        known = known_in_files(backbone.identities, layer, cache, other=_other_forms[backbone])
        seen.pop(key, None)
        seen[key] = (files, known)
        while len(seen) > _MOST_INDEXES:
            del seen[next(iter(seen))]
    index: FileFeatures | None = seen[key][1]
    return index


def _copy_rows(writer: FeatureFileWriter, rows: KnownRows, keys: np.ndarray) -> None:
    """Copy the features of (N, 16) keys into the rows of a new file."""
    size = 1024
    for at in range(0, len(keys), size):
        some = np.arange(at, min(at + size, len(keys)))
        intact, features = rows.take(keys[some])
        if intact.any():
            writer.write(some[intact], keys[some[intact]], features)
        for row in some[~intact].tolist():
            writer.fail(row, NO_KEY, "its features were damaged")


@dataclass
class _GivenImages:
    """Images by name, however they were given, as a ``Store``."""

    location: str
    images: dict[str, ImageInput]

    concurrency = 0

    def facts(self, paths: Sequence[str]) -> FileFacts:
        """As ``Store.facts``: nothing is known of them."""
        return FileFacts.unasked(len(paths))

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> FileBytes:
        """As ``Store.read``."""
        return read_source(self.images[path].source, admit)

    def order(self, paths: Sequence[str]) -> np.ndarray:
        """As ``Store.order``: as they come."""
        return np.arange(len(paths))

    def name(self, path: str) -> str:
        """As ``Store.name``."""
        return self.images[path].name

    def exists(self) -> bool:
        """As ``Store.exists``."""
        return os.path.lexists(self.location)
