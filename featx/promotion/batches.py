"""The inputs that a network is trained on: whole images, or the cached activations of its frozen prefix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from featx.backbones.pixels import normalise
from featx.constants import CACHE, FROZEN
from featx.data.file_bytes import FileBytes
from featx.data.joint_pixels import read_all_augmented, read_all_views
from featx.devices import full_float32
from featx.layer_spec import PLAIN, RandomView
from featx.promotion.assemble import Assembly
from featx.promotion.config import FineTuning
from featx.promotion.history import TrainingProgress, ValidationScore
from featx.promotion.image_data import ImageData
from featx.promotion.param_groups import TrainedBlocks
from featx.promotion.prefix import split_network
from featx.promotion.prefix_cache import ActivationCache, ActivationSet, CachedActivations
from featx.promotion.splits import RunSplit
from featx.promotion.targets import Targets
from featx.reporter import ForwardingReporter, Reporter
from featx.text import counted, size_text


class ImageBatches:
    """A ``BatchSource`` of whole images: augmented for training, plain for validation.

    Args:
        data: The data set.
        network: The network that is trained.
        settings: The settings of fine-tuning.
        train: (n,) int64 rows to train on.
        validation: (m,) int64 rows to validate on.
        taught: (N, C) log-probabilities of the teacher, NaN for rows that it teaches nothing on; None without a teacher.
    """

    def __init__(
        self, data: ImageData, network: nn.Module, settings: FineTuning, *,
        train: np.ndarray, validation: np.ndarray, taught: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.data, self.network, self.settings = data, network, settings
        self.train, self.validation, self.taught = train, validation, taught
        self.n_images, self.n_classes = len(train), len(data.classes)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Targets]]:
        """Yield normalised images (B, 3, H, W) float32 and the targets of each; crops depend on seed, epoch and row."""
        data, settings, transform = self.data, self.settings, self.data.transform

        def decode(row: int, file: FileBytes) -> np.ndarray:
            if settings.augment == "none":
                pixels: np.ndarray = read_all_views(file.data, transform, (PLAIN,), box=file.box)[0]
                return pixels
            rng = np.random.default_rng([settings.seed, epoch, row])
            return read_all_augmented(
                file.data, transform, rng, scale=settings.crop_scale, flip=settings.flip, box=file.box
            )

        batches = [data.processes.shard(rows) for rows in _shuffled(self.train, settings, epoch)]
        for rows, pixels in data.read(batches, decode):
            augmented = _randaugment(pixels) if settings.augment == "randaugment" else pixels
            yield normalise(augmented, transform), _targets(data, self.taught, rows)

    def validate(self) -> ValidationScore:
        """Return the current network's score on the validation images."""
        return self.data.score(self.validation, self.validation_logits())

    def validation_logits(self) -> np.ndarray:
        """Return the current network's logits of the validation images, (m, C) float64."""
        return self.data.logits(self.network, self.validation)


class CachedBatches:
    """A ``BatchSource`` of cached activations.

    Args:
        data: The data set.
        suffix: The part of the network that is trained.
        settings: The settings of fine-tuning.
        train: (n,) int64 rows to train on.
        validation: (m,) int64 rows to validate on.
        crops: The activations of the training images, for each cached crop.
        plain: The activations of the validation images.
        taught: (N, C) log-probabilities of the teacher, as for ``ImageBatches``.
    """

    def __init__(
        self, data: ImageData, suffix: nn.Module, settings: FineTuning, *,
        train: np.ndarray, validation: np.ndarray, crops: Sequence[CachedActivations], plain: CachedActivations,
        taught: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.data, self.suffix, self.settings = data, suffix, settings
        self.train, self.validation, self.crops, self.plain, self.taught = train, validation, crops, plain, taught
        self.n_images, self.n_classes = len(train), len(data.classes)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Targets]]:
        """Yield activations (B, D) float32 and the targets of each image; each epoch takes the next of the cached crops."""
        crop = self.crops[(epoch - 1) % len(self.crops)]
        for batch in _shuffled(self.train, self.settings, epoch):
            rows = self.data.processes.shard(batch)
            yield self._inputs(crop, rows), _targets(self.data, self.taught, rows)

    def validate(self) -> ValidationScore:
        """Return the current network's score on the validation images."""
        return self.data.score(self.validation, self.validation_logits())

    def validation_logits(self) -> np.ndarray:
        """Return the current network's logits of the validation images, (m, C) float64."""
        processes = self.data.processes
        batches = self.data.batched(processes.shard(self.validation))
        with torch.inference_mode(), full_float32():
            outputs = [self.suffix(self._inputs(self.plain, rows)).cpu().double().numpy() for rows in batches]
        return processes.gather(np.concatenate([np.empty((0, self.n_classes)), *outputs]))

    def _inputs(self, activations: CachedActivations, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(activations.take(rows).astype(np.float32)).to(self.data.device)


@dataclass(frozen=True, eq=False)
class TrainingInputs:
    """A network's inputs, and the part of it that takes them.

    Attributes:
        source: The inputs.
        module: The module to train: the whole network, or its suffix where activations are cached.
        notes: Why activations could not be cached, if so.
    """

    source: ImageBatches | CachedBatches
    module: nn.Module
    notes: list[str]


def make_batches(
    assembly: Assembly, network: nn.Module, trained: TrainedBlocks, split: RunSplit, settings: FineTuning,
    *, known: dict[str, CachedActivations] | None = None, reporter: Reporter,
) -> TrainingInputs:  # fmt: skip
    """Return cached activations where some blocks are frozen and their outputs can be cached, otherwise whole images.

    Args:
        assembly: The assembled network and its data.
        network: The network to train.
        trained: The blocks that are trained.
        split: The rows to train and to validate on.
        settings: The settings of fine-tuning.
        known: The activations that earlier calls have loaded, by the name of their set, where all calls have the same prefix
            and share their sets; it gets those of this call.
        reporter: Receives a note of how much disk the cache takes, and the progress of filling it.
    """
    notes = []
    if trained.first > trained.others and settings.cached_crops:
        try:
            cached = _make_cached_batches(
                assembly, network, trained, split, settings, {} if known is None else known, reporter
            )
        except _UncachedError as why:
            notes.append(f"the frozen blocks run in every epoch: {why}")
        else:
            return TrainingInputs(cached, cached.suffix, [])
    images = ImageBatches(
        assembly.data, network, settings, train=split.train, validation=split.validation, taught=split.taught
    )
    return TrainingInputs(images, network, notes)


def _make_cached_batches(
    assembly: Assembly, network: nn.Module, trained: TrainedBlocks, split: RunSplit, settings: FineTuning,
    known: dict[str, CachedActivations], reporter: Reporter,
) -> CachedBatches:  # fmt: skip
    data, backbone = assembly.data, assembly.backbone
    if trained.others:
        raise _UncachedError("activations are cached for a network that stands alone")
    if settings.augment == "randaugment":
        raise _UncachedError("activations are cached for random crops, not for randaugment")
    parts = split_network(network, trained, torch.rand(2, *backbone.transform.shape, device=data.device))
    if parts is None:
        raise _UncachedError(f"the network cannot be split before {trained.first_layer}")
    source = data.features.source
    folder = (source.parent if source else Path(CACHE)) / FROZEN
    cache = ActivationCache(parts, backbone, trained.first_layer, data.features, folder)
    crops, plain = _activation_sets(split, settings, data.labelled_rows)
    new = [each for each in (crops if plain in crops else [*crops, plain]) if each.name not in known]
    if new:
        _fill(cache, new, data, reporter)
        known.update({each.name: cache.load(each) for each in new})
    return CachedBatches(
        data, parts.suffix, settings, train=split.train, validation=split.validation,
        crops=[known[crop.name] for crop in crops], plain=known[plain.name], taught=split.taught,
    )  # fmt: skip


def _activation_sets(
    split: RunSplit, settings: FineTuning, labelled_rows: np.ndarray
) -> tuple[list[ActivationSet], ActivationSet]:
    """Return the sets to train on, one for each crop, and the set to validate on.

    Repeats on other splits share sets of all labelled images, since each image has another role in each of them; so do the
    folds of a search those of its training images.
    """

    def activation_set(rows: np.ndarray, view: RandomView | None) -> ActivationSet:
        if split.repeat:
            return ActivationSet(labelled_rows, view, "every")
        if split.searched is not None:
            return ActivationSet(split.searched, view, "" if view else "searched")
        return ActivationSet(rows, view)

    if settings.augment == "none":
        plain = activation_set(np.union1d(split.train, split.validation), None)
        return [plain], plain
    count = min(settings.cached_crops, settings.epochs)
    views = (RandomView(k, settings.seed, settings.crop_scale, settings.flip) for k in range(count))
    return [activation_set(split.train, view) for view in views], activation_set(split.validation, None)


def _fill(cache: ActivationCache, subsets: Sequence[ActivationSet], data: ImageData, reporter: Reporter) -> None:
    """Compute all activations that are missing; each process fills some of the files."""
    size, count = cache.missing_bytes(subsets), sum(len(subset.rows) for subset in subsets)
    if not cache.has_room(size):
        raise _UncachedError(
            f"the activations of {counted(count, 'crop')} take {size_text(size)} in {cache.folder}, more than half of the "
            "free disk"
        )
    if size:
        missing = -(-size // cache.bytes_per_row)
        reporter.note(
            f"caching the activations of {counted(missing, 'crop, which enters', 'crops, which enter')} {cache.layer}: "
            f"{size_text(size)} in {cache.folder}"
        )
    done = 0
    for subset in subsets[data.processes.rank :: data.processes.count]:
        cache.fill(subset, workers=data.workers, reporter=_CachingReporter(reporter, done, count))
        done += len(subset.rows)
    data.processes.wait()


class _CachingReporter(ForwardingReporter):
    """Reports the extraction of one set as a part of all that are cached."""

    def __init__(self, reporter: Reporter, before: int, total: int) -> None:
        super().__init__(reporter)
        self.before, self.total = before, total

    def stage(self, name: str) -> None:
        """Nothing: a note has announced them all."""

    def progress(self, done: int, total: int, detail: object = "") -> None:  # noqa: ARG002 - the signature it overrides
        progress = TrainingProgress.caching(self.before + done, self.total)
        super().progress(progress.done, progress.total, progress)


class _UncachedError(Exception):
    """The reason why activations cannot be cached."""


def _targets(data: ImageData, taught: np.ndarray | None, rows: np.ndarray) -> Targets:
    """The targets of some rows, on the device of the network."""
    teacher = None if taught is None else torch.from_numpy(taught[rows].astype(np.float32)).to(data.device)
    return Targets(torch.from_numpy(data.labels[rows]).to(data.device), teacher)


def _shuffled(train: np.ndarray, settings: FineTuning, epoch: int) -> list[np.ndarray]:
    """Shuffle rows and cut them into batches; sizes differ by one at most, so that no batch is small."""
    order = np.random.default_rng([settings.seed, epoch]).permutation(train)
    return np.array_split(order, -(-len(train) // settings.batch_size))


def _randaugment(pixels: Tensor) -> Tensor:
    """Apply two random operations to each of (B, 3, H, W) uint8 images (Cubuk et al., 2020), drawn by torch's generator."""
    from torchvision.transforms.v2 import RandAugment

    augment = RandAugment()
    return torch.stack([augment(image) for image in pixels])
