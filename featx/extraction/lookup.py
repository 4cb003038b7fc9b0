"""Images in order through a network or, where a feature file has their features, from there."""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from featx.backbones.joint import Partly
from featx.data.inputs import ImageInput
from featx.data.joint_transform import AnyTransform
from featx.data.loader import (
    LoadedImage,
    PixelReader,
    Readable,
    Workers,
    default_batch_size,
    read_images,
    views_reader,
)
from featx.errors import FeatxError
from featx.extraction.reuse import KnownViews
from featx.features.feature_set import FeatureSet
from featx.features.file_set import each_file
from featx.features.folder import files_sharing
from featx.identity import features_at
from featx.layer_spec import LayerSpec, RandomView, View
from featx.reporter import SILENT, Reporter
from featx.system import cores


class KnownFeatures(Container[bytes], Protocol):
    """Features of images by the keys of their content; it contains the keys of the images that it has."""

    def take(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the features of images.

        Args:
            keys: (M, 16) uint8, all contained.

        Returns:
            (M,) bool, which are intact; and the (S, D) features of those, or (S, V, D) in V views.
        """
        ...


@dataclass(frozen=True, eq=False)
class FileFeatures:
    """The features of a layer in several feature files.

    Attributes:
        rows: of the files, in all views of the layer.
        layer: a layer spec, as in ``LayerSpec.parse``.
    """

    rows: KnownViews
    layer: str

    def __contains__(self, key: object) -> bool:
        return key in self.rows

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """(M,) bool: which of (M, 16) uint8 keys are contained."""
        held: np.ndarray = np.logical_and.reduce([part.holds(keys) for part in self.rows.parts.values()])
        return held

    def take(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read features, as ``KnownFeatures`` describes, and verify their checksums."""
        intact, by_name = self.rows.take(keys)
        if not intact.any():
            return intact, np.empty((0, 0), np.float32)
        return intact, features_at(by_name, self.layer)


@dataclass(frozen=True, eq=False)
class JointFeatures:
    """The features of several backbones side by side, each in its own files.

    It contains the images of which the features of all are known.

    Attributes:
        parts: what is known of each backbone; None where nothing is.
    """

    parts: tuple[KnownFeatures | None, ...]

    def __contains__(self, key: object) -> bool:
        return all(part is not None and key in part for part in self.parts)

    def take(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find features, as ``KnownFeatures`` describes."""
        taken = [part.take(keys) for part in self.parts if part is not None]
        intact = np.logical_and.reduce([found for found, _ in taken])
        if len(taken) < len(self.parts) or not intact.any():
            return np.zeros(len(keys), dtype=bool), np.empty((0, 0), np.float32)
        return intact, np.concatenate([rows[intact[found]] for found, rows in taken], axis=-1)

    def known(self, keys: np.ndarray) -> Partly | None:
        """What is known of (B, 16) uint8 keys, for each backbone; None if nothing is."""
        found = [_held(part, keys) for part in self.parts]
        return found if any(mask.any() for mask, _ in found) else None


def _held(part: KnownFeatures | None, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) bool, of which images the features of one backbone are known and intact; and these features."""
    held = np.array([part is not None and key.tobytes() in part for key in keys], dtype=bool)
    if part is None or not held.any():
        return np.zeros(len(keys), dtype=bool), np.empty((0, 0), np.float32)
    intact, rows = part.take(keys[held])
    held[held] = intact
    return held, rows


class SetFeatures:
    """The features of the images of a feature set.

    Args:
        features: N images; copies of an image have the same features.

    Attributes:
        row_of: the first row of each key.
    """

    def __init__(self, features: FeatureSet) -> None:
        self._features = features.features
        self.row_of = {key.tobytes(): row for row, key in reversed([*enumerate(features.keys)]) if key.any()}

    def __contains__(self, key: object) -> bool:
        return key in self.row_of

    def take(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find features, as ``KnownFeatures`` describes."""
        rows = [self.row_of[key.tobytes()] for key in keys]
        return np.ones(len(keys), dtype=bool), np.asarray(self._features[rows])


@dataclass(frozen=True, eq=False)
class Network:
    """What turns an image into values: scores, or features.

    Attributes:
        transform: from an image's pixels to the network's input.
        views: the V views of each image.
        device: the type of torch device, "cpu" or another.
        compute: from (B, V, *transform.shape) uint8 to (B, ...) values.
        compute_rest: the same where the features of some images are known of some of several networks side by side: it takes
            what ``JointFeatures.known`` gives as ``known`` too. It is called for several networks alone.
        from_features: from the (B, D) or (B, V, D) features of known images to the values.
        lanes: whether several threads may compute at once, each on one core, as on the CPU is fastest. The values of an image
            must then not depend on which others are in its batch.
        prepare: called with the pixels of each batch before they are computed, by the thread that iterates.
    """

    transform: AnyTransform
    views: Sequence[View]
    device: str
    compute: Callable[[np.ndarray], np.ndarray]
    compute_rest: Callable[..., np.ndarray] | None = None
    from_features: Callable[[np.ndarray], np.ndarray] = np.asarray
    lanes: bool = False
    prepare: Callable[[np.ndarray], object] | None = None


@dataclass(frozen=True, eq=False)
class ImageValues:
    """What a network gave for one image.

    Attributes:
        name: of the image.
        key: the 16 bytes of its ``image_key``; zeros if it could not be read.
        values: None if the image failed.
        error: why it failed, else "".
        known: whether the values are of features that were known, and not computed.
    """

    name: str
    key: bytes
    values: np.ndarray | None
    error: str = ""
    known: bool = False


def known_in_files(
    identities: Mapping[str, str],
    layer: str,
    folder: Path | None,
    own: Path | None = None,
    *,
    other: Mapping[str, str] | None = None,
) -> FileFeatures | None:
    """The features of a layer that are in the files of a folder, and in one file besides; None where there are none.

    Args:
        identities: the identity of each stored layer of ``layer``.
        layer: a layer spec, as in ``LayerSpec.parse``.
        folder: of feature files; None: only the one file.
        own: the one file, which may be gone, or hold other features by now.
        other: the same features under the other form of their identities (``featx.backbones.identities``), which count too.
    """
    spec = LayerSpec.parse(layer)
    forms: list[dict[View | RandomView, dict[str, str]]] = [
        {view: {name: form[name] for name in names} for view, names in zip(spec.views, spec.stored, strict=True)}
        for form in (identities, other)
        if form is not None
    ]
    groups = [names for form in forms for names in form.values()]
    files = [file for file in files_sharing(folder, groups) if file.complete] if folder else []
    if own and own.resolve() not in [file.path.resolve() for file in files]:
        with contextlib.suppress(FeatxError):
            files += [file for file in each_file(own) if any(map(file.holds, groups))]
    return FileFeatures(KnownViews(files, *forms), layer) if files else None


def iter_values(
    network: Network,
    inputs: Iterable[ImageInput],
    *,
    known: KnownFeatures | None = None,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> Iterator[ImageValues]:
    """Yield what a network gives for each image, in order, as soon as it is computed; only a few batches are read ahead.

    Args:
        network: what computes the values.
        inputs: the images.
        known: features of images that are not computed again.
        workers: threads that read and decode; by default one per core.
        reporter: receives the progress, in images.
    """
    total, done = len(inputs) if isinstance(inputs, list) else 0, 0
    for batch in iter_batches(network, inputs, known=known, workers=workers):
        yield from batch
        done += len(batch)
        reporter.progress(done, total)


def iter_batches(
    network: Network,
    inputs: Iterable[ImageInput],
    *,
    known: KnownFeatures | None = None,
    workers: int | None = None,
    most: int = 0,
) -> Iterator[list[ImageValues]]:
    """Yield the values of images as ``iter_values`` does, in batches.

    Where a batch ends depends on its images alone, and not on when they are read: it has so many images for the network as suit
    the device, or ``most``. Iterating anew from the first image after a batch gives the same batches.

    Args:
        network: as ``iter_values`` takes it.
        inputs: as there.
        known: as there.
        workers: threads that read and decode, and run the network where it has ``lanes``.
        most: images of a batch, of which most may have known features; by default as many as the network takes at once.
    """
    ahead: dict[int, ImageInput] = {}

    def sources() -> Iterator[tuple[int, Readable]]:
        for row, each in enumerate(inputs):
            ahead[row] = each
            yield row, each.source

    read = views_reader(network.transform, network.views)
    size = max(1, default_batch_size(network.device) // len(network.views))
    with _lanes(network, workers or cores()) as pool:
        images = read_images(sources(), read, workers=pool, known=() if known is None else known)
        running = deque[_Batch]()
        try:
            for images_of_batch in _divided(images, size, max(size, most)):
                running.append(_started(network, images_of_batch, ahead, known, read, pool if network.lanes else None))
                while running and (len(running) > 2 * pool.count or running[0].is_done):
                    yield running.popleft().values(ahead)
            while running:
                yield running.popleft().values(ahead)
        finally:
            for batch in running:
                batch.cancel()


@contextlib.contextmanager
def _lanes(network: Network, count: int) -> Iterator[Workers]:
    """The threads that read and decode and, where the network allows it, run it too, each pass on one core."""
    if not network.lanes:
        with Workers(count) as pool:
            yield pool
        return
    from featx.extraction.engines import one_core, one_thread_each

    with one_thread_each(), Workers(count, begin=one_core) as pool:
        yield pool


def _divided(images: Iterable[LoadedImage], size: int, most: int) -> Iterator[list[LoadedImage]]:
    """Divide images into lists of which each has ``size`` images with pixels, or is ``most`` images long."""
    some: list[LoadedImage] = []
    pixels = 0
    for image in images:
        some.append(image)
        pixels += image.pixels is not None
        if pixels == size or len(some) == most:
            yield some
            some, pixels = [], 0
    if some:
        yield some


@dataclass(frozen=True, eq=False)
class _Batch:
    """Images whose values are being computed.

    Attributes:
        rows: the images, those decoded whose features turned out to be damaged.
        cached: the values of those whose features are known, by row.
        computed: gives the values of those with pixels, in order.
    """

    rows: Sequence[LoadedImage]
    cached: Mapping[int, np.ndarray]
    computed: Future[np.ndarray] | None

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to compute."""
        return self.computed is None or self.computed.done()

    def values(self, ahead: dict[int, ImageInput]) -> list[ImageValues]:
        """The values of all images, once they are computed; removes their names from ``ahead``."""
        computed = iter(() if self.computed is None else self.computed.result())
        found = []
        for image in self.rows:
            values = next(computed) if image.pixels is not None else self.cached.get(image.row)
            is_known = image.pixels is None and values is not None
            found.append(ImageValues(ahead.pop(image.row).name, image.key, values, image.error, is_known))
        return found

    def cancel(self) -> None:
        """Compute nothing if that has not begun."""
        if self.computed is not None:
            self.computed.cancel()


def _started(
    network: Network,
    images: Sequence[LoadedImage],
    ahead: Mapping[int, ImageInput],
    known: KnownFeatures | None,
    read: PixelReader,
    pool: Workers | None,
) -> _Batch:
    """Look up what is known of a batch, and compute the rest: in a thread of ``pool``, or at once where there is none."""
    cached = _cached(network, images, known)
    # A row that turned out to be damaged was not decoded, because its key is known: it is decoded now.
    again = ((image.row, ahead[image.row].source) for image in images if _is_missing(image, cached))
    late = {image.row: image for image in read_images(again, read, workers=1)} if known else {}
    rows = [late.get(image.row, image) for image in images]
    pixels = [image.pixels for image in rows if image.pixels is not None]
    if not pixels:
        return _Batch(rows, cached, None)
    stacked, compute = np.stack(pixels), network.compute
    if network.prepare:
        network.prepare(stacked)
    if network.compute_rest is not None and isinstance(known, JointFeatures):
        keys = b"".join(image.key for image in rows if image.pixels is not None)
        partly = known.known(np.frombuffer(keys, np.uint8).reshape(-1, 16))
        compute = compute if partly is None else functools.partial(network.compute_rest, known=partly)
    if pool is not None:
        return _Batch(rows, cached, pool.start("forward", compute, stacked))
    now: Future[np.ndarray] = Future()
    now.set_result(compute(stacked))
    return _Batch(rows, cached, now)


def _is_missing(image: LoadedImage, cached: Mapping[int, np.ndarray]) -> bool:
    """Whether an image has neither pixels nor cached values, though nothing failed."""
    return image.pixels is None and not image.error and image.row not in cached


def _cached(network: Network, batch: Sequence[LoadedImage], known: KnownFeatures | None) -> dict[int, np.ndarray]:
    """The values of the images of a batch that were not decoded because their features are known, by row."""
    images = [image for image in batch if image.pixels is None and not image.error]
    if known is None or not images:
        return {}
    intact, features = known.take(np.frombuffer(b"".join(image.key for image in images), np.uint8).reshape(-1, 16))
    if not intact.any():
        return {}
    rows = (image.row for image, ok in zip(images, intact, strict=True) if ok)
    return dict(zip(rows, network.from_features(features), strict=True))
