"""Images through an engine: read, decoded, computed, and handed to whatever writes the rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from featx.backbones.backbone import Backbone
from featx.data.loader import LoadedImage, Workers, read_images
from featx.data.store import ImageFile
from featx.data.throughput import ThroughputMeter
from featx.errors import EngineError
from featx.extraction.autotune import AUTO, Chosen, choose_engine, largest_useful_batch
from featx.extraction.dark_images import dark_note
from featx.extraction.encode import encoded_batches, pixel_reader, stacked_pixels
from featx.extraction.engine_table import ENGINES
from featx.extraction.engines import Engine, one_core, one_thread_each, open_engine
from featx.extraction.plan import Work
from featx.reporter import Reporter

_SAMPLE = 8
"""Images on which an engine is verified and measured: the first ones to be computed."""

_DEVICE_LANES = 2
"""Threads that run the network on a GPU."""


class Sink(Protocol):
    """What becomes of the rows of a computation: a ``Committer`` writes them, the process of a device sends them."""

    def observe(self, image: LoadedImage) -> None:
        """As ``Committer.observe``."""
        ...

    def store(self, work: Work, rows: np.ndarray, keys: np.ndarray, features: Mapping[str, np.ndarray]) -> list[int]:
        """As ``Committer.store``."""
        ...

    def fail(self, row: int, key: bytes, reason: str) -> None:
        """As ``Committer.fail``."""
        ...

    def copy_known(self, rows: np.ndarray) -> np.ndarray:
        """As ``Committer.copy_known``."""
        ...

    def copy_duplicates(self, duplicates: Sequence[tuple[int, bytes]], first_row: Mapping[bytes, int]) -> list[int]:
        """As ``Committer.copy_duplicates``."""
        ...

    def record_engine(self, name: str) -> None:
        """As ``Committer.record_engine``."""
        ...


@dataclass(frozen=True)
class Setting:
    """How images are computed.

    Attributes:
        backbone: the network in all layers and views of the feature file.
        known: the keys of images whose features need not be computed.
        compute: "auto", or a name in ``ENGINES``.
        batch_size: images per forward pass; "auto" measures it on a GPU, None leaves it to the engine.
        workers: threads that read and decode, and on the CPU run the network too.
        max_pixels: an image with more pixels (width x height) fails.
        begun_by: the engine that computed the rows which the file has already; "" if there are none.
        measured: threads that run the network while engines are measured on the CPU; ``workers`` if 0. Of several processes
            on one machine, one chooses for all of them.
        images: images that the choice of an engine is made for; those of the first work if 0.
    """

    backbone: Backbone
    known: Container[bytes]
    compute: str
    batch_size: int | str | None
    workers: int
    max_pixels: int
    begun_by: str = ""
    measured: int = 0
    images: int = 0


class Progress:
    """Reports images that are done, and which stage limits the speed."""

    def __init__(self, reporter: Reporter, total: int, limit: Callable[[], str]) -> None:
        self._reporter, self._total, self._limit = reporter, total, limit
        self._done = 0

    def start(self, done: int) -> None:
        """Report the images that were done before."""
        self._done = done
        self.advance(0)

    def advance(self, count: int) -> None:
        """Report that ``count`` more images are done."""
        self._done += count
        self._reporter.progress(self._done, self._total, self._limit())


class Computation:
    """Computes images through one engine, which is chosen when the first images are there.

    Args:
        setting: how.
        sink: gets the rows.
        reporter: gets the progress, and a note before engines are measured or if the first images are nearly black.
        total: images of the data set, for the progress.

    Attributes:
        engine: the engine; None until an image needs it.
        batch: images per pass that were asked for or measured; None where the engine's own choice is taken.
        notes: sentences for the user.
        meter: what limits the speed.
        progress: of the images.
        ask: called before the engine is chosen, if another process has a say; it returns the setting that holds then.
    """

    def __init__(self, setting: Setting, sink: Sink, reporter: Reporter, total: int) -> None:
        self.setting = setting
        self.ask: Callable[[], Setting] | None = None
        self.engine: Engine | None = None
        self.batch: int | None = None
        self.notes: list[str] = []
        self.meter = ThroughputMeter()
        self.progress = Progress(reporter, total, self._limit)
        self._sink, self._reporter = sink, reporter
        self._images: tuple[Work, _NewImages] | None = None

    def run(self, work: Work, files: Iterable[tuple[int, ImageFile]]) -> list[int]:
        """Read the images of some work, and send those through the network whose bytes are new.

        Args:
            work: what the images are part of. Several calls with the same work in turn may bring its images.
            files: (row, image), in the order in which they are read.

        Returns:
            Rows to compute again, because what was known of them turned out to be damaged.
        """
        backbone = self.setting.backbone.with_views(work.views)
        if self._images is None or self._images[0] is not work:
            self._images = work, _NewImages(self.setting, self._sink, backbone, self.progress)
        source, meter = self._images[1], self.meter
        with one_thread_each(), Workers(self.setting.workers, meter=meter, begin=one_core) as pool:
            source.remembers = self.engine is None
            images = source.read(files, pool)
            if sample := list(itertools.islice(images, _SAMPLE)):
                if self.engine is None:
                    self.setting = self.ask() if self.ask else self.setting
                    self._look_at(sample, source.files)
                    self.engine = self._choose(backbone, self.setting.images or len(work.rows), sample)
                    source.forget()
                everything = itertools.chain(sample, images)
                for batch, features in encoded_batches(self.engine, backbone, everything, pool):
                    rows = np.array([image.row for image in batch])
                    keys = np.frombuffer(b"".join(image.key for image in batch), dtype=np.uint8).reshape(-1, 16)
                    with meter.busy("write"):
                        source.damaged += self._sink.store(work, rows, keys, features)
                    self.progress.advance(len(batch))
        return source.settled(self._sink)

    def _limit(self) -> str:
        limit = self.meter.limit()
        return f"limit: {limit}" if limit else ""

    def _look_at(self, sample: Sequence[LoadedImage], files: Mapping[int, ImageFile]) -> None:
        """Report that the first images are nearly black, before the network has cost any time."""
        setting = self.setting
        named = [files[image.row] for image in sample]
        if note := dark_note(sample, named, setting.backbone.transform, setting.max_pixels):
            self._reporter.note(note)
            self.notes.append(note)

    def _choose(self, backbone: Backbone, images: int, sample: Sequence[LoadedImage]) -> Engine:
        """Open the requested engine, or the fastest one, for all views of the file."""
        setting, whole = self.setting, self.setting.backbone
        pixels = stacked_pixels(sample, backbone).cpu().numpy()
        on_cpu = whole.device.type == "cpu"
        lanes = setting.workers if on_cpu else _DEVICE_LANES
        size = setting.batch_size
        if size == AUTO:
            size = None if on_cpu else largest_useful_batch(open_engine("eager", whole, lanes=lanes), pixels)
        assert not isinstance(size, str)
        self.batch = size

        def choose(name: str) -> Chosen:
            measured = setting.measured if on_cpu and name == AUTO and setting.measured else lanes
            chosen = choose_engine(
                name,
                whole,
                pixels,
                images=images * len(backbone.views),
                lanes=measured,
                batch=size,
                reporter=self._reporter,
            )
            if measured == lanes:
                return chosen
            return Chosen(open_engine(chosen.engine.name, whole, lanes=lanes, batch=size, sample=pixels), chosen.note)

        # The rest of a file is computed by the engine that began it, since two of them differ in the last bits.
        before = setting.begun_by if setting.compute == AUTO else ""
        try:
            chosen = choose(before if before in ENGINES else setting.compute)
        except EngineError:
            if before not in ENGINES:
                raise
            chosen = choose(AUTO)
            self.notes.append(f"{before}, which began this file, cannot be opened now; {chosen.engine.name} goes on")
        if chosen.note:
            self.notes.append(chosen.note)
        self._sink.record_engine(chosen.engine.name)
        return chosen.engine


class _NewImages:
    """The images of some work that must go through the network; all others are settled as they are read.

    Attributes:
        first_row: the row of each image that goes through the network, by key.
        duplicates: (row, key) of images identical to one of those.
        damaged: rows to compute again.
        remembers: whether ``files`` keeps the images that are read.
        files: these images, by row.
    """

    def __init__(self, setting: Setting, sink: Sink, backbone: Backbone, progress: Progress) -> None:
        self.first_row: dict[bytes, int] = {}
        self.duplicates: list[tuple[int, bytes]] = []
        self.damaged: list[int] = []
        self.remembers = False
        self.files: dict[int, ImageFile] = {}
        self._known, self._sink, self._progress = setting.known, sink, progress
        self._reader = pixel_reader(backbone, setting.max_pixels)

    def read(self, files: Iterable[tuple[int, ImageFile]], pool: Workers) -> Iterator[LoadedImage]:
        """Read and decode the images in the threads of ``pool``, and yield the new ones."""
        settled = _Union(self._known, self.first_row)
        for image in read_images(self._remembered(files), self._reader, workers=pool, known=settled):
            self._sink.observe(image)
            if image.error:
                self._sink.fail(image.row, image.key, image.error)
            elif image.key in self.first_row:
                self.duplicates.append((image.row, image.key))
            elif image.pixels is not None:
                self.first_row[image.key] = image.row
                yield image
                continue
            elif not self._sink.copy_known(np.array([image.row])).all():  # damaged, and from now on not known any more
                self.damaged.append(image.row)
                continue
            self._progress.advance(1)

    def settled(self, sink: Sink) -> list[int]:
        """Copy the duplicates that were read so far; returns the rows to compute again."""
        damaged, duplicates = self.damaged, self.duplicates
        self.damaged, self.duplicates = [], []
        return [*damaged, *sink.copy_duplicates(duplicates, self.first_row)]

    def forget(self) -> None:
        """Remember no images from now on."""
        self.remembers = False
        self.files.clear()

    def _remembered(self, files: Iterable[tuple[int, ImageFile]]) -> Iterator[tuple[int, ImageFile]]:
        for row, file in files:
            if self.remembers:
                self.files[row] = file
            yield row, file


class _Union(Container[bytes]):
    """Membership in any of several collections, which may change meanwhile."""

    def __init__(self, *collections: Container[bytes]) -> None:
        self._collections = collections

    def __contains__(self, key: object) -> bool:
        return any(key in each for each in self._collections)
