"""Carrying out a plan: rows are taken over from other files, and what is left goes through the network."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from featx.backbones.backbone import Backbone
from featx.data.loader import LoadedImage, Workers, read_images
from featx.data.throughput import ThroughputMeter
from featx.errors import EngineError
from featx.extraction.autotune import AUTO, Chosen, choose_engine, largest_useful_batch
from featx.extraction.committer import Committer
from featx.extraction.dark_images import dark_note
from featx.extraction.encode import encoded_batches, pixel_reader, stacked_pixels
from featx.extraction.engine_table import ENGINES
from featx.extraction.engines import Engine, one_thread_each, open_engine
from featx.extraction.plan import Plan, Work
from featx.features.feature_file import DONE, FeatureFile
from featx.reporter import Reporter

_SAMPLE = 8
"""Images on which an engine is verified and measured: the first ones to be computed."""

_DEVICE_LANES = 2
"""Threads that run the network on a GPU."""


@dataclass(frozen=True)
class Outcome:
    """A complete feature file, and how it came about.

    Attributes:
        file: the file.
        computed: images that went through the network.
        reused: images whose features were copied, or were there already.
        engine: the engine that ran the network; "" if nothing was computed.
        notes: sentences for the user.
    """

    file: FeatureFile
    computed: int
    reused: int
    engine: str
    notes: tuple[str, ...]


def execute(plan: Plan, reporter: Reporter) -> Outcome:
    """Write the feature file of a plan. Call it under the same lock as ``plan``.

    Args:
        plan: what is known and what is to do.
        reporter: gets the progress, in images, and a note before engines are measured.

    Raises:
        DatasetError: no image has features, or the run is strict and one failed.
        EngineError: the engine cannot run the network.
        OutputError: the file cannot be written.
    """
    committer = Committer(plan)
    rows = _take_over(plan, committer)
    computation = _Computation(plan, committer, reporter)
    while len(rows):
        again = [row for work in plan.work(rows, committer.keys[rows]) for row in computation.run(work)]
        rows = np.array(sorted(again), dtype=np.int64)
    file = committer.finish()
    return Outcome(
        file=file,
        computed=committer.computed,
        reused=committer.reused,
        engine=computation.engine.name if computation.engine else "",
        notes=(*plan.notes, *computation.notes),
    )


def _take_over(plan: Plan, committer: Committer) -> np.ndarray:
    """Fill every row whose image is known, and publish the file; returns the rows that are left, ascending."""
    try:
        rows = committer.take_over(np.arange(len(plan.inventory.images)))
        unread = rows[~committer.keys[rows].any(axis=1)]
        # If the new file replaces an unfinished one with rows of images that are not recognised, all of them are read, so that
        # none of these is lost. Otherwise only those that may have features in some views: all others are read once, when
        # they are computed.
        if committer.resumes or not plan.unfinished or _has_all_of(plan.unfinished, committer, rows):
            unread = unread[plan.known.may_lack_some(plan.inventory.sizes[unread])]
        if len(unread) and not plan.inventory.request.rehash:
            for image in plan.inventory.read(unread):
                committer.observe(image)
            rows = committer.take_over(rows)
        committer.publish()
    except BaseException:
        committer.discard()
        raise
    return rows


def _has_all_of(unfinished: FeatureFile, committer: Committer, left: np.ndarray) -> bool:
    """Whether the features of all images that an interrupted run has done are in the new file, in which some rows are left."""
    done = unfinished.keys[unfinished.status == DONE]
    return {key.tobytes() for key in done} <= {key.tobytes() for key in np.delete(committer.keys, left, axis=0)}


class _Computation:
    """Computes work through one engine, which is chosen when the first images are there.

    Attributes:
        engine: the engine; None until an image needs it.
        notes: sentences for the user.
    """

    def __init__(self, plan: Plan, committer: Committer, reporter: Reporter) -> None:
        self.engine: Engine | None = None
        self.notes: list[str] = []
        self._plan, self._committer, self._reporter = plan, committer, reporter
        self._meter = ThroughputMeter()

    def run(self, work: Work) -> list[int]:
        """Read the images of some work, and send those through the network whose bytes are new.

        Returns:
            Rows to compute again, because what was known of them turned out to be damaged.
        """
        plan, meter = self._plan, self._meter
        total = len(plan.backbone.views)
        if known := total - len(work.views):
            self.notes.append(
                f"{len(work.rows)} images had features in {known} of {total} views; only the other views were computed"
            )
        backbone = plan.backbone.with_views(work.views)
        source = _NewImages(plan, self._committer, work, backbone, _Progress(self._reporter, meter, len(plan.keys)))
        source.progress.start(self._committer.stored + self._committer.failed)
        with one_thread_each(), Workers(plan.inventory.request.workers, meter=meter, begin=_one_thread) as pool:
            images = source.read(pool)
            if sample := list(itertools.islice(images, _SAMPLE)):
                if self.engine is None:
                    self._look_at(sample)
                self.engine = self.engine or self._choose(backbone, len(work.rows), sample)
                everything = itertools.chain(sample, images)
                for batch, features in encoded_batches(self.engine, backbone, everything, pool):
                    rows = np.array([image.row for image in batch])
                    keys = np.frombuffer(b"".join(image.key for image in batch), dtype=np.uint8).reshape(-1, 16)
                    with meter.busy("write"):
                        source.damaged += self._committer.store(work, rows, keys, features)
                    source.progress.advance(len(batch))
        return [*source.damaged, *self._committer.copy_duplicates(source.duplicates, source.first_row)]

    def _look_at(self, sample: Sequence[LoadedImage]) -> None:
        """Report that the first images are nearly black, before the network has cost any time."""
        request = self._plan.inventory.request
        files = [request.images.file(image.row) for image in sample]
        if note := dark_note(sample, files, request.backbone.transform, request.max_pixels):
            self._reporter.note(note)
            self.notes.append(note)

    def _choose(self, backbone: Backbone, images: int, sample: Sequence[LoadedImage]) -> Engine:
        """Open the requested engine, or the fastest one, for all views of the plan."""
        request, whole = self._plan.inventory.request, self._plan.backbone
        pixels = stacked_pixels(sample, backbone).cpu().numpy()
        on_cpu = whole.device.type == "cpu"
        lanes = request.workers if on_cpu else _DEVICE_LANES
        size = request.batch_size
        if size == AUTO:
            size = None if on_cpu else largest_useful_batch(open_engine("eager", whole, lanes=lanes), pixels)
        assert not isinstance(size, str)

        def choose(name: str) -> Chosen:
            return choose_engine(
                name,
                whole,
                pixels,
                images=images * len(backbone.views),
                lanes=lanes,
                batch=size,
                reporter=self._reporter,
            )

        # The rest of a file is computed by the engine that began it, since two of them differ in the last bits.
        before = self._committer.engine if request.compute == AUTO else ""
        try:
            chosen = choose(before if before in ENGINES else request.compute)
        except EngineError:
            if before not in ENGINES:
                raise
            chosen = choose(AUTO)
            self.notes.append(f"{before}, which began this file, cannot be opened now; {chosen.engine.name} goes on")
        self._committer.record_engine(chosen.engine.name)
        if chosen.note:
            self.notes.append(chosen.note)
        return chosen.engine


class _NewImages:
    """The images of some work that must go through the network; all others are settled as they are read.

    Attributes:
        first_row: the row of each image that goes through the network, by key.
        duplicates: (row, key) of images identical to one of those.
        damaged: rows to compute again.
        progress: advances for every image that is settled here.
    """

    def __init__(self, plan: Plan, committer: Committer, work: Work, backbone: Backbone, progress: _Progress) -> None:
        self.first_row: dict[bytes, int] = {}
        self.duplicates: list[tuple[int, bytes]] = []
        self.damaged: list[int] = []
        self.progress = progress
        self._plan, self._committer, self._work, self._backbone = plan, committer, work, backbone

    def read(self, pool: Workers) -> Iterator[LoadedImage]:
        """Read and decode the images in the threads of ``pool``, and yield the new ones."""
        inventory, committer = self._plan.inventory, self._committer
        files = ((row, inventory.images.file(row)) for row in inventory.images.order(self._work.rows).tolist())
        reader = pixel_reader(self._backbone, inventory.request.max_pixels)
        settled = _Union(self._plan.known, self.first_row)
        for image in read_images(files, reader, workers=pool, known=settled):
            committer.observe(image)
            if image.error:
                committer.fail(image.row, image.key, image.error)
            elif image.key in self.first_row:
                self.duplicates.append((image.row, image.key))
            elif image.pixels is not None:
                self.first_row[image.key] = image.row
                yield image
                continue
            elif not committer.copy_known(np.array([image.row])).all():  # damaged, and from now on not known any more
                self.damaged.append(image.row)
                continue
            self.progress.advance(1)


class _Progress:
    """Reports images that are done, and which stage limits the speed."""

    def __init__(self, reporter: Reporter, meter: ThroughputMeter, total: int) -> None:
        self._reporter, self._meter, self._total = reporter, meter, total
        self._done = 0

    def start(self, done: int) -> None:
        """Report the images that were done before."""
        self._done = done
        self.advance(0)

    def advance(self, count: int) -> None:
        """Report that ``count`` more images are done."""
        self._done += count
        limit = self._meter.limit()
        self._reporter.progress(self._done, self._total, f"limit: {limit}" if limit else "")


class _Union(Container[bytes]):
    """Membership in any of several collections, which may change meanwhile."""

    def __init__(self, *collections: Container[bytes]) -> None:
        self._collections = collections

    def __contains__(self, key: object) -> bool:
        return any(key in each for each in self._collections)


def _one_thread() -> None:
    torch.set_num_threads(1)
