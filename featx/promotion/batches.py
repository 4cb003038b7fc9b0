"""What a network is trained on: whole images, or what enters its last blocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from featx.backbones.backbone import Backbone, normalise
from featx.data.augment import read_augmented
from featx.data.decode import read_pixels
from featx.data.loader import default_batch_size, read_images, views_reader
from featx.data.transform import Transform
from featx.devices import full_float32
from featx.errors import DatasetError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads.postprocess import softmax
from featx.heads.training_data import mean_over_views
from featx.layer_spec import PLAIN, RandomView, View
from featx.metrics.classification import ClassificationReport
from featx.promotion.config import FineTuning
from featx.promotion.distributed import Processes
from featx.promotion.model import logits_of
from featx.promotion.param_groups import Trained
from featx.promotion.prefix import split
from featx.promotion.prefix_cache import Activations, Frozen, Seen
from featx.promotion.trainer import Source, TrainingProgress, ValidationScore
from featx.reporter import Reporter
from featx.text import size_text


@dataclass(frozen=True, eq=False)
class Pictures:
    """The images of a data set as a network gets them.

    Attributes:
        features: of the data set: where its images are, their keys and splits.
        labels: (N,) int64 into ``classes``, of all of them; -1 where there is none.
        classes: (C,) names.
        transform: from an image's pixels to a network's input.
        device: for them.
        workers: threads that read and decode.
        processes: those that share the work.
    """

    features: FeatureSet
    labels: np.ndarray
    classes: tuple[str, ...]
    transform: Transform
    device: torch.device
    workers: int
    processes: Processes

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of the labelled images of a split."""
        return np.flatnonzero((self.features.splits == split) & (self.labels >= 0))

    def logits(self, network: nn.Module, rows: np.ndarray, views: Sequence[View] = (PLAIN,)) -> np.ndarray:
        """(R, C) float64 of a network as it is, the mean over the views of each image; each process its part."""
        network.eval()
        batches = _in_batches(self.processes.part(rows), self.device, len(views))
        read = self.read(batches, views_reader(self.transform, views))
        found = [
            mean_over_views(logits_of(network, pixels.flatten(0, 1), self.transform), len(views)) for _, pixels in read
        ]
        return self.processes.whole(np.concatenate([np.empty((0, len(self.classes))), *found]))

    def judged(self, rows: np.ndarray, logits: np.ndarray) -> ValidationScore:
        """What (R, C) logits of some rows are worth."""
        report = ClassificationReport.from_predictions(self.labels[rows], softmax(logits), self.classes, split="select")
        return ValidationScore(report.accuracy, report.log_loss)

    def read(
        self, batches: Sequence[np.ndarray], read: Callable[[int, bytes], np.ndarray]
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """(B,) rows and their uint8 pixels on the device, of each batch.

        Raises:
            DatasetError: an image cannot be read.
            StaleCacheError: it is another than that of the features.
        """
        root = Path(self.features.dataset["root"])
        files = [(int(row), root / str(self.features.paths[row])) for rows in batches for row in rows]
        images = read_images(files, read, workers=self.workers)
        for rows in batches:
            batch = list(itertools.islice(images, len(rows)))
            for image in batch:
                path = root / str(self.features.paths[image.row])
                if image.error:
                    raise DatasetError(f"{path}: {image.error}")
                if image.key != self.features.keys[image.row].tobytes():
                    raise StaleCacheError(
                        f"{path} has changed since its features were extracted; "
                        "run featx extract and featx fit-head again"
                    )
            pixels = torch.from_numpy(np.stack([image.pixels for image in batch if image.pixels is not None]))
            yield rows, pixels.to(self.device, non_blocking=True)


class Images:
    """A ``finetuning.Source`` of whole images: augmented to train on, plain to choose by.

    Args:
        pictures: of the data set.
        network: that is trained.
        settings: how.
        train: (n,) int64 rows to train on.
        select: (m,) int64 rows that choose.
    """

    def __init__(
        self, pictures: Pictures, network: nn.Module, settings: FineTuning, train: np.ndarray, select: np.ndarray
    ) -> None:
        self.pictures, self.network, self.settings, self.train, self.select = pictures, network, settings, train, select
        self.images, self.classes = len(train), len(pictures.classes)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As ``Source.batches``; each image's crop is drawn from the seed, the epoch and its row."""
        pictures, settings, transform = self.pictures, self.settings, self.pictures.transform

        def read(row: int, data: bytes) -> np.ndarray:
            if settings.augment == "none":
                return read_pixels(data, transform)
            rng = np.random.default_rng([settings.seed, epoch, row])
            return read_augmented(data, transform, rng, scale=settings.crop_scale, flip=settings.flip)

        parts = [pictures.processes.part(rows) for rows in _shuffled(self.train, settings, epoch)]
        for rows, pixels in pictures.read(parts, read):
            varied = _randaugmented(pixels) if settings.augment == "randaugment" else pixels
            yield normalise(varied, transform), torch.from_numpy(pictures.labels[rows]).to(pictures.device)

    def judge(self) -> ValidationScore:
        """As ``Source.judge``."""
        return self.pictures.judged(self.select, self.pictures.logits(self.network, self.select))


class Cached:
    """A ``finetuning.Source`` of what enters the trained part of a network.

    Args:
        pictures: of the data set.
        module: the trained part.
        settings: how.
        train: (n,) int64 rows to train on.
        select: (m,) int64 rows that choose.
        views: what each view of the images to train on gives.
        plain: what those that choose give.
    """

    def __init__(
        self, pictures: Pictures, module: nn.Module, settings: FineTuning, *,
        train: np.ndarray, select: np.ndarray, views: Sequence[Activations], plain: Activations,
    ) -> None:  # fmt: skip
        self.pictures, self.module, self.settings = pictures, module, settings
        self.train, self.select, self.views, self.plain = train, select, views, plain
        self.images, self.classes = len(train), len(pictures.classes)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As ``Source.batches``; each epoch sees all images by the next of the views."""
        view = self.views[(epoch - 1) % len(self.views)]
        for batch in _shuffled(self.train, self.settings, epoch):
            rows = self.pictures.processes.part(batch)
            yield self._inputs(view, rows), torch.from_numpy(self.pictures.labels[rows]).to(self.pictures.device)

    def judge(self) -> ValidationScore:
        """As ``Source.judge``."""
        processes = self.pictures.processes
        batches = _in_batches(processes.part(self.select), self.pictures.device)
        with torch.inference_mode(), full_float32():
            found = [self.module(self._inputs(self.plain, rows)).cpu().double().numpy() for rows in batches]
        logits = processes.whole(np.concatenate([np.empty((0, self.classes)), *found]))
        return self.pictures.judged(self.select, logits)

    def _inputs(self, activations: Activations, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(activations.of(rows).astype(np.float32)).to(self.pictures.device)


class Sources:
    """Where the trained part of a network gets its inputs: from the frozen part's files, or from images where that cannot be.

    Args:
        pictures: of the data set.
        network: the whole, as it is trained.
        backbone: whose network it was.
        folder: for the files.
        reporter: gets a note of what is cached and how much disk that takes, and the progress of caching.
    """

    def __init__(
        self, pictures: Pictures, network: nn.Module, backbone: Backbone, folder: Path, reporter: Reporter
    ) -> None:
        self.pictures, self.network, self.backbone = pictures, network, backbone
        self.folder, self.reporter = folder, reporter

    def of(
        self,
        which: Trained,
        settings: FineTuning,
        train: np.ndarray,
        select: np.ndarray,
        *,
        every: np.ndarray | None = None,
    ) -> tuple[Source, nn.Module, list[str]]:
        """A source of some rows to train on, and of others that choose; what it feeds; and why that is not cached, if so.

        Args:
            which: of the blocks are trained.
            settings: how.
            train: (n,) int64 rows.
            select: (m,) int64 rows.
            every: (r,) int64, all rows that will be trained on or choose some time, if more.
        """
        notes = []
        if which.first and settings.views:
            try:
                cached = self._cached(which, settings, train, select, every)
            except _UncachedError as why:
                notes.append(f"the frozen part was run in every epoch: {why}")
            else:
                return cached, cached.module, []
        return Images(self.pictures, self.network, settings, train, select), self.network, notes

    def _cached(
        self, which: Trained, settings: FineTuning, train: np.ndarray, select: np.ndarray, every: np.ndarray | None,
    ) -> Cached:  # fmt: skip
        if settings.augment == "randaugment":
            raise _UncachedError("its outputs are cached for random crops, not for randaugment")
        side = self.backbone.transform.crop
        parts = split(self.network, which, torch.rand(2, 3, side, side, device=self.pictures.device))
        if parts is None:
            raise _UncachedError(f"the network cannot be cut before {which.layer}")
        frozen = Frozen(parts, self.backbone, which.layer, self.pictures.features, self.folder)

        def seen(rows: np.ndarray, view: RandomView | None) -> Seen:
            return Seen(rows, view) if every is None else Seen(every, view, every=True)

        if settings.augment == "none":
            plain = seen(np.union1d(train, select), None)
            views = [plain]
        else:
            plain = seen(select, None)
            crops = (
                RandomView(k, settings.seed, settings.crop_scale, settings.flip)
                for k in range(min(settings.views, settings.epochs))
            )
            views = [seen(train, view) for view in crops]
        self._fill(frozen, views if plain in views else [*views, plain])
        return Cached(
            self.pictures, parts.rest, settings, train=train, select=select,
            views=[frozen.load(view) for view in views], plain=frozen.load(plain),
        )  # fmt: skip

    def _fill(self, frozen: Frozen, wanted: Sequence[Seen]) -> None:
        """Have all outputs in their files, each process some of them."""
        size, images = frozen.need(wanted), sum(len(seen.rows) for seen in wanted)
        if not frozen.has_room(size):
            raise _UncachedError(
                f"its outputs for {images} images need {size_text(size)} in {self.folder}, over half of what is free"
            )
        processes, done = self.pictures.processes, 0
        if size:
            self.reporter.note(
                f"caching {images} outputs of the frozen part, which enter {frozen.layer}: {size_text(size)} in {self.folder}"
            )
        for seen in wanted[processes.rank :: processes.count]:
            frozen.compute(seen, workers=self.pictures.workers, reporter=_Caching(self.reporter, done, images))
            done += len(seen.rows)
        processes.wait()


class _Caching(Reporter):
    """Reports the extraction of some images as a part of all that are cached."""

    def __init__(self, reporter: Reporter, before: int, total: int) -> None:
        self.reporter, self.before, self.total = reporter, before, total

    def progress(self, done: int, total: int, detail: object = "") -> None:  # noqa: ARG002 - what it overrides
        self.reporter.progress(self.before + done, self.total, TrainingProgress.caching(self.before + done, self.total))


class _UncachedError(Exception):
    """Why the frozen part's outputs cannot be cached."""


def _shuffled(train: np.ndarray, settings: FineTuning, epoch: int) -> list[np.ndarray]:
    """All rows in an order of the epoch's own, in as few batches as there can be, alike but for one row: none is small."""
    order = np.random.default_rng([settings.seed, epoch]).permutation(train)
    return np.array_split(order, -(-len(train) // settings.batch_size))


def _in_batches(rows: np.ndarray, device: torch.device, views: int = 1) -> list[np.ndarray]:
    size = max(1, default_batch_size(device.type) // views)
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def _randaugmented(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) uint8, each image by two operations of its own (Cubuk et al., 2020); chance is torch's own."""
    from torchvision.transforms.v2 import RandAugment

    vary = RandAugment()
    return torch.stack([vary(image) for image in pixels])
