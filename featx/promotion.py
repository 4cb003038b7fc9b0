"""The head moved onto its backbone, proved to be the same classifier, and fine-tuned from there if that pays."""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featx import modelfile
from featx.backbone import Backbone, full_float32, normalise, restore_backbone
from featx.blocks import blocks, first_trained
from featx.calibration import balanced_weights
from featx.checkpoint import Checkpoint
from featx.decode import View, read_augmented, read_pixels
from featx.errors import MISSING, CacheMissError, DatasetError, HeadError, StaleCacheError, size_text, why_unreadable
from featx.evidence import Paired
from featx.features import FeatureSet
from featx.finetuning import Judged, Source, Step, Trainer, Tuning, tune
from featx.groups import hash_group_splits, read_column
from featx.head import Head, softmax, stored_report
from featx.home import cores
from featx.prefix import Split, activations, has_room, need, split
from featx.promoted import PromotedModel, logits_of, set_last_layer
from featx.reading import batched, default_batch_size, plain_reader, read_images
from featx.report import Report
from featx.settings import CACHE, MODELS, FineTuning
from featx.taps import PENULTIMATE

PROOF_IMAGES = 64
"""How many images the assembled network is compared with the head on."""

TOLERANCE = {"float32": 1e-3, "float16": 2e-2}
"""Largest logit difference that counts as equal, relative to the largest logit (or 1), by the features' dtype."""


@dataclass(frozen=True)
class Proof:
    """That the assembled network is the head.

    Attributes:
        largest: difference between a logit of the network and the head's.
        mean: of all such differences, without their signs.
        images: that were compared.
    """

    largest: float
    mean: float
    images: int


@dataclass(frozen=True, eq=False)
class Promotion:
    """What ``promote`` did.

    Attributes:
        model: the network, fine-tuned or as assembled.
        path: its file.
        head: the head's file, or its kind where it came from none.
        verdict: "assembled", "promoted" or "kept-head".
        why: the verdict in a sentence.
        proof: that the assembled network is the head.
        head_report: the head on the split that judges.
        report: the saved model on the same images.
        tuned_report: the fine-tuned network on them, kept or not; None without fine-tuning.
        paired: both on them, image by image; None without fine-tuning.
        tuning: how fine-tuning went; None without it.
        chosen_on: the images that chose the epoch, in words.
        seconds: wall time.
        notes: what else the user should know.
    """

    model: PromotedModel
    path: Path
    head: str
    verdict: str
    why: str
    proof: Proof
    head_report: Report
    report: Report
    tuned_report: Report | None
    paired: Paired | None
    tuning: Tuning | None
    chosen_on: str
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def epochs(self) -> int:
        """That were run."""
        return self.tuning.epoch if self.tuning else 0

    @property
    def log(self) -> list[dict[str, float | None]]:
        """One entry per epoch, from 0, the head: loss, accuracy and log loss on the images that choose, rate, seconds."""
        return self.tuning.log if self.tuning else []

    def as_dict(self) -> dict[str, Any]:
        """As ``featx promote --json`` prints it."""
        return {
            "model": str(self.path),
            "head": self.head,
            "verdict": self.verdict,
            "why": self.why,
            "max_logit_difference": self.proof.largest,
            "mean_logit_difference": self.proof.mean,
            "proved_on": self.proof.images,
            "accuracy_head": self.head_report.accuracy,
            "accuracy_finetuned": self.tuned_report.accuracy if self.tuned_report else None,
            "accuracy": self.report.accuracy,
            "interval": list(self.report.interval),
            "split": self.report.split,
            "n": self.report.n,
            "paired": self.paired.as_dict() if self.paired else None,
            "epochs": self.epochs,
            "best_epoch": self.tuning.best_epoch if self.tuning else None,
            "alpha": self.tuning.alpha if self.tuning else None,
            "interpolation": _curve(self.tuning),
            "chosen_on": self.chosen_on,
            "log": self.log,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
        }


def promote(
    head: Head | str | os.PathLike[str],
    *,
    finetune: bool = False,
    settings: FineTuning | None = None,
    features: FeatureSet | str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    out: str | os.PathLike[str] | None = None,
    models: str | os.PathLike[str] = MODELS,
    notify: Callable[[str], None] | None = None,
    progress: Callable[[Step], None] | None = None,
) -> Promotion:
    """Assemble a head and its backbone into one network, prove it, and fine-tune it if asked.

    Fine-tuning starts at the head. Epoch and interpolation are those of least log loss on the split "val"; where that is the
    split that judges, on a fifth of the training images, by their content, and training starts at a head that was fitted
    without them. The verdict falls on the split that chose nothing: "test" where there is one, else "val". The fine-tuned
    network takes the head's place if it gets more of those images right than chance would give (McNemar's exact test);
    otherwise the model is the head.

    Where the last blocks alone are trained, what enters them is computed once, for some random crops of each image, and kept
    in ``<cache>/frozen``.

    A run that was interrupted goes on from its last epoch when it is started again with the same settings.

    Args:
        head: a fitted head, or its file; linear, on the penultimate layer.
        finetune: train the network.
        settings: how.
        features: the feature set, or file, that the head was fitted to; by default the file the head names.
        backbone: instead of the stored name, as ``restore_backbone``.
        weights: instead of the stored weights, where the file has moved.
        device: as ``load_backbone``.
        workers: threads that read and decode.
        out: the model's file, instead of ``<models>/<head>--promoted.safetensors``.
        models: the folder for models.
        notify: told, in a sentence, what is cached and how much disk that takes, before it is.
        progress: called during fine-tuning.

    Raises:
        HeadError: a head that is not linear or not on the penultimate layer, logits that differ, or a block that is not there.
        StaleCacheError: features or backbone of another identity.
        CacheMissError: the feature file is gone.
        OutputError: the model cannot be written.
    """
    started = time.perf_counter()
    settings = settings or FineTuning()
    file = None if isinstance(head, Head) else Path(head)
    head = head if isinstance(head, Head) else Head.load(head)
    stem = file.stem if file else f"{Path(head.dataset_.get('name', 'features')).name}--{head.kind}"
    path = Path(out) if out else Path(models) / f"{stem}--promoted.safetensors"
    modelfile.require_writable(path)
    head.as_linear()  # a head that is not linear is refused before anything costs time
    if head.layer_ != PENULTIMATE:
        raise HeadError(
            f"this head is on the inner layer {head.layer_!r}; only one on the penultimate layer can take the place of the "
            "network's last. featx fit-head --model logreg, without --layer, makes one"
        )
    known = _features_of(head, features)
    source = backbone_of(head, name=backbone, weights=weights, device=device)
    modelfile.require_writable(path, sum(t.numel() * t.element_size() for t in source.network.state_dict().values()))
    job = _Job(head, known, source, workers or cores(), notify)
    proof = job.prove()
    head_report = head.evaluate(known, split=job.judge_split)
    assert isinstance(head_report, Report)  # of a linear head of classes
    tuned, paired, tuning, checkpoint = None, None, None, None
    facts = {
        "max_logit_difference": proof.largest,
        "mean_logit_difference": proof.mean,
        "head_report": stored_report(head_report),
        "settings": asdict(settings) if finetune else None,
    }
    if finetune:
        untrained = {"verdict": "assembled", "why": "", "report": facts["head_report"], "log": [], "seconds": 0.0}
        job.model(facts | untrained).require_savable(path)  # before the hours of training
        checkpoint = Checkpoint(path, job.asked(settings))
        tuning = job.finetune(settings, checkpoint, progress)
        tuned, paired = job.compare()
        keep_log(path, tuning)
    verdict, why = _verdict(head_report, tuned, paired, tuning, settings.significance)
    if verdict == "kept-head":
        job.back_to_head()
    report = tuned if tuned is not None and verdict == "promoted" else head_report
    seconds = time.perf_counter() - started
    outcome = {
        "verdict": verdict,
        "why": why,
        "report": stored_report(report),
        "finetuned_report": stored_report(tuned) if tuned else None,
        "paired": paired.as_dict() if paired else None,
        "interpolation": _curve(tuning),
        "chosen_on": job.chosen_on,
        "log": tuning.log if tuning else [],
        "seconds": seconds,
    }
    model = job.model(facts | outcome)
    model.save(path)
    if checkpoint:
        checkpoint.remove()
    return Promotion(
        model=model,
        path=path,
        head=str(file or head.kind),
        verdict=verdict,
        why=why,
        proof=proof,
        head_report=head_report,
        report=report,
        tuned_report=tuned,
        paired=paired,
        tuning=tuning,
        chosen_on=job.chosen_on,
        seconds=seconds,
        notes=tuple(tuning.notes if tuning else ()),
    )


def backbone_of(head: Head, *, name: str | None = None, weights: str | None = None, device: str = "auto") -> Backbone:
    """The backbone that a head's features came from, made again and proved to be the same.

    Args:
        head: fitted.
        name: as ``restore_backbone``.
        weights: as ``restore_backbone``.
        device: as ``load_backbone``.

    Raises:
        HeadError: the features were made by hand, and name no backbone.
        BackboneError, StaleCacheError: as ``restore_backbone``.
    """
    if not head.backbone_:
        raise HeadError(
            "the head's features were not extracted by featx, so there is no backbone to run images through"
        )
    return restore_backbone(
        head.backbone_, layers={head.layer_: head.identity_}, name=name, weights=weights, device=device
    )


class _Job:
    """One promotion: the assembled network, and the images that it is proved, trained, chosen and judged on.

    Attributes:
        judge_split: where the verdict falls.
        labels: (N,) int64, of all images, as the head counts classes; -1 where it knows none.
        network: the assembled network, which is trained in place.
        as_head: its tensors while it is the head.
        chosen_on: the images that choose, in words; "" before they are known.
    """

    def __init__(
        self,
        head: Head,
        features: FeatureSet,
        backbone: Backbone,
        workers: int,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.notify = notify or (lambda _: None)
        self.head, self.features, self.backbone, self.workers = head, features, backbone, workers
        self.device = backbone.device
        self.judge_split = features.held_out()
        index = {name: i for i, name in enumerate(head.classes_)}
        ours = np.array([index.get(name, -1) for name in features.classes], dtype=np.int64)
        self.labels = np.where(features.labels >= 0, ours[features.labels], -1)
        self.network = copy.deepcopy(backbone.network)
        set_last_layer(self.network, backbone.classifier, *head.as_linear())
        self.network.to(self.device).eval()
        self.as_head = copy.deepcopy(self.network.state_dict())
        self.chosen_on = ""

    def prove(self) -> Proof:
        """How far the network's logits are from the head's, over images of the data set.

        Raises:
            HeadError: further than rounding.
        """
        every = self.rows(self.judge_split)
        rows = every[np.linspace(0, len(every) - 1, min(PROOF_IMAGES, len(every))).astype(int)]
        head_logits = self.head.logits(np.asarray(self.features.features[rows]))
        apart = np.abs(self.predict(rows) - head_logits)
        allowed = TOLERANCE[self.backbone.dtype] * max(1.0, float(np.abs(head_logits).max()))
        if not apart.max() <= allowed:
            raise HeadError(
                f"the assembled network's logits differ from the head's by up to {apart.max():.3g} on {len(rows)} images; "
                f"at most {allowed:.3g} is rounding. The network was not saved"
            )
        return Proof(float(apart.max()), float(apart.mean()), len(rows))

    def asked(self, settings: FineTuning) -> dict[str, Any]:
        """What a run of fine-tuning depends on, as JSON."""
        sha256 = hashlib.sha256()
        for array in (*self.head.as_linear(), self.features.keys, self.labels):
            sha256.update(np.ascontiguousarray(array).tobytes())
        sha256.update("\0".join(map(str, self.features.splits)).encode())
        return {"settings": asdict(settings), "identity": self.head.identity_, "sha256": sha256.hexdigest()}

    def finetune(self, settings: FineTuning, checkpoint: Checkpoint, progress: Callable[[Step], None] | None) -> Tuning:
        """Train from the head on; the network ends as the weights of least log loss on the images that choose."""
        start, train, select = self._chosen()
        set_last_layer(self.network, self.backbone.classifier, *start.as_linear())
        self.network.to(self.device).eval()
        classifier, classes = self.backbone.classifier, len(self.head.classes_)
        source: Source = _Images(self, settings, train, select)
        module, notes = self.network, list[str]()
        first = first_trained(self.network, classifier, settings)
        if first and settings.views:
            cached, why = self._cached(settings, train, select, first, progress)
            notes += [f"the frozen part was run in every epoch: {why}"] if why else []
            source, module = (cached, cached.module) if cached else (source, module)
        balanced = settings.class_weight == "balanced"
        trainer = Trainer(
            self.network,
            module,
            classifier,
            settings,
            images=len(train),
            class_weights=balanced_weights(self.labels[train], classes) if balanced else None,
        )
        tuning = tune(trainer, source, checkpoint, progress=progress)
        tuning.notes[:0] = notes
        return tuning

    def _cached(
        self,
        settings: FineTuning,
        train: np.ndarray,
        select: np.ndarray,
        first: int,
        progress: Callable[[Step], None] | None,
    ) -> tuple[_Cached | None, str]:
        """The frozen part's outputs as a source, computed where they are not there yet; or None, and why."""
        if settings.augment == "randaugment":
            return None, "its outputs are cached for random crops, not for randaugment"
        classifier, side = self.backbone.classifier, self.backbone.transform.crop
        layer = [*blocks(self.network, classifier), classifier][first]
        parts = split(self.network, classifier, first, torch.rand(2, 3, side, side, device=self.device))
        if parts is None:
            return None, f"the network cannot be cut before {layer}"
        count = min(settings.views, settings.epochs)
        crops = [View(k, settings.seed, settings.crop_scale, settings.flip) for k in range(count)]
        views: list[View | None] = [None] if settings.augment == "none" else list(crops)
        folder = (self.features.source.parent if self.features.source else Path(CACHE)) / "frozen"
        images = len(train) * len(views) + len(select)
        size = need(parts, images)
        if not has_room(folder, size):
            why = f"its outputs for {images} images need {size_text(size)} in {folder}, over half of what is free"
            return None, why
        self.notify(
            f"caching what enters {layer}, {len(views)} views of {len(train)} images and {len(select)} that choose: "
            f"{size_text(size)} in {folder}"
        )
        # A feature file has its images by path.
        train, select = (rows[np.argsort(self.features.paths[rows])] for rows in (train, select))
        done = 0

        def compute(name: str, rows: np.ndarray, view: View | None) -> np.ndarray:
            nonlocal done

            def report(here: int, _: int) -> None:
                if progress:
                    progress(Step(0, settings.epochs, done + here, images, math.nan, 0.0, 0.0))

            found = activations(
                parts, self.backbone, layer, self.features, rows, view,
                name=name, folder=folder, workers=self.workers, progress=report,
            )  # fmt: skip
            done += len(rows)
            return found

        seen = [compute(f"view{view.number}" if view else "plain", train, view) for view in views]
        plain = compute("chooses", select, None)
        return _Cached(self, settings, parts, train, select, seen, plain), ""

    def _chosen(self) -> tuple[Head, np.ndarray, np.ndarray]:
        """The head to start at, and the rows to train on and to choose by."""
        train, val = self.rows("train"), self.rows("val")
        if self.judge_split != "val" and len(val):
            self.chosen_on = f"the {len(val)} images of split val"
            return self.head, train, val
        column = None
        if self.head.group:
            column = read_column(self.features, self.head.group, table=self.head.table)[train]
        chooses = hash_group_splits(self.features.keys[train], column, self.labels[train]) == "test"
        select, train = train[chooses], train[~chooses]
        start = self.head.again().fit(self.features, rows=train) if len(select) else self.head
        if not len(select) or start.classes_ != self.head.classes_:
            raise HeadError(
                "too few training images to hold some back that choose the best epoch; add images, or a split val beside test"
            )
        self.chosen_on = f"{len(select)} of the training images, held back by their content"
        return start, train, select

    def back_to_head(self) -> None:
        """Undo the training."""
        self.network.load_state_dict(self.as_head)

    def compare(self) -> tuple[Report, Paired]:
        """The network as it is where the verdict falls, and image by image against the head."""
        rows = self.rows(self.judge_split)
        logits = self.predict(rows)
        said = self.head.logits(np.asarray(self.features.features[rows])).argmax(axis=1)
        paired = Paired.of(self.features.paths[rows], self.labels[rows], said, logits.argmax(axis=1))
        report = Report.of(self.labels[rows], softmax(logits), self.head.classes_, split=self.judge_split)
        return report, paired

    def model(self, facts: dict[str, Any]) -> PromotedModel:
        """The network with all that its file says of it."""
        metadata = {
            **facts,
            "name": self.backbone.name,
            "origin": self.backbone.describe()["architecture"],
            "classifier": self.backbone.classifier,
            "width": self.backbone.layers[PENULTIMATE],
            "dataset": self.features.dataset,
            "head": {"kind": self.head.kind, "parameters": self.head.parameters, "identity": self.head.identity_},
            "n_train": self.head.n_train_,
        }
        return PromotedModel(
            self.network,
            transform=self.backbone.transform,
            classes=self.head.classes_,
            metadata=metadata,
            train_keys=self.head.train_keys_,
            device=self.device,
        )

    def judged(self, rows: np.ndarray, logits: np.ndarray) -> Judged:
        """What (R, C) logits of some rows are worth."""
        report = Report.of(self.labels[rows], softmax(logits), self.head.classes_, split="select")
        return Judged(report.accuracy, report.log_loss)

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of the labelled images of a split, of classes that the head knows."""
        return np.flatnonzero((self.features.splits == split) & (self.labels >= 0))

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """(R, C) float64 logits of the network as it is."""
        self.network.eval()
        transform = self.backbone.transform
        batches = self.read(rows, plain_reader(transform), default_batch_size(self.device.type))
        return np.concatenate([logits_of(self.network, pixels, transform) for _, pixels in batches])

    def read(
        self, rows: np.ndarray, read: Callable[[int, bytes], np.ndarray], size: int
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """(B,) rows and (B, 3, H, W) uint8 pixels on the device; the images must be those of the features."""
        root = Path(self.features.dataset["root"])
        files = [(int(row), root / str(self.features.paths[row])) for row in rows]
        for batch in batched(read_images(files, read, workers=self.workers), size):
            for image in batch:
                if image.error:
                    raise DatasetError(f"{root / str(self.features.paths[image.row])}: {image.error}")
                if image.key != self.features.keys[image.row].tobytes():
                    raise StaleCacheError(
                        f"{root / str(self.features.paths[image.row])} has changed since its features were extracted; "
                        "run featx extract and featx fit-head again"
                    )
            pixels = torch.from_numpy(np.stack([image.pixels for image in batch if image.pixels is not None]))
            yield np.array([image.row for image in batch]), pixels.to(self.device, non_blocking=True)


class _Images:
    """A ``Source`` of whole images: augmented to train on, plain to choose by."""

    def __init__(self, job: _Job, settings: FineTuning, train: np.ndarray, select: np.ndarray) -> None:
        self.job, self.settings, self.train, self.select = job, settings, train, select
        self.images, self.classes = len(train), len(job.head.classes_)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As ``Source.batches``; each image's crop is drawn from the seed, the epoch and its row."""
        job, settings, transform = self.job, self.settings, self.job.backbone.transform
        order = np.random.default_rng([settings.seed, epoch]).permutation(self.train)

        def read(row: int, data: bytes) -> np.ndarray:
            if settings.augment == "none":
                return read_pixels(data, transform)
            rng = np.random.default_rng([settings.seed, epoch, row])
            return read_augmented(data, transform, rng, scale=settings.crop_scale, flip=settings.flip)

        for rows, pixels in job.read(order, read, settings.batch_size):
            varied = _randaugmented(pixels) if settings.augment == "randaugment" else pixels
            yield normalise(varied, transform), torch.from_numpy(job.labels[rows]).to(job.device)

    def judge(self) -> Judged:
        """As ``Source.judge``."""
        return self.job.judged(self.select, self.job.predict(self.select))


class _Cached:
    """A ``Source`` of what enters the trained part of a network: the frozen part's outputs, from their files.

    Attributes:
        module: the trained part.
    """

    def __init__(
        self, job: _Job, settings: FineTuning, parts: Split, train: np.ndarray, select: np.ndarray,
        views: Sequence[np.ndarray], plain: np.ndarray,
    ) -> None:  # fmt: skip
        self.job, self.settings, self.parts, self.views, self.plain = job, settings, parts, views, plain
        self.train, self.select, self.module = train, select, parts.rest
        self.images, self.classes = len(train), len(job.head.classes_)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As ``Source.batches``; each epoch sees all images by the next of the views."""
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(self.images)
        view = self.views[(epoch - 1) % len(self.views)]
        for at in range(0, self.images, self.settings.batch_size):
            rows = np.sort(order[at : at + self.settings.batch_size])
            labels = torch.from_numpy(self.job.labels[self.train[rows]])
            yield self._inputs(view[rows]), labels.to(self.job.device)

    def judge(self) -> Judged:
        """As ``Source.judge``."""
        size = default_batch_size(self.job.device.type)
        with torch.inference_mode(), full_float32():
            parts = [self.module(self._inputs(self.plain[at : at + size])) for at in range(0, len(self.plain), size)]
        return self.job.judged(self.select, torch.cat(parts).cpu().double().numpy())

    def _inputs(self, rows: np.ndarray) -> Tensor:
        found = torch.from_numpy(rows.astype(np.float32)).to(self.job.device)
        return found.reshape(len(found), *self.parts.shape)


def _randaugmented(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) uint8, each image by two operations of its own (Cubuk et al., 2020); chance is torch's own."""
    from torchvision.transforms.v2 import RandAugment

    vary = RandAugment()
    return torch.stack([vary(image) for image in pixels])


def keep_log(path: Path, tuning: Tuning) -> None:
    """Write the epochs beside a model: as CSV, and as a picture.

    Raises:
        OutputError: they cannot be written.
    """
    from featx.plots import as_png, training_figure

    text = io.StringIO()
    names = ("epoch", "loss", "accuracy", "log_loss", "rate", "seconds")
    table = csv.DictWriter(text, names, lineterminator="\n", restval="")
    table.writeheader()
    table.writerows(tuning.log)
    modelfile.write_whole(path.with_suffix(".csv"), text.getvalue().encode())
    modelfile.write_whole(path.with_suffix(".png"), as_png(training_figure(tuning.log, tuning.curve)))


def _curve(tuning: Tuning | None) -> list[dict[str, float]]:
    return [{"alpha": alpha, "log_loss": loss} for alpha, loss in tuning.curve.items()] if tuning else []


def _features_of(head: Head, features: FeatureSet | str | os.PathLike[str] | None) -> FeatureSet:
    source = features if features is not None else head.source_
    if source is None:
        raise CacheMissError("the head names no feature file; give one with --features")
    if not isinstance(source, FeatureSet):
        if why_unreadable(source) == MISSING:
            raise CacheMissError(
                f"the head's feature file {source} is gone; run featx extract again, or name it with --features"
            )
        source = FeatureSet.load(source, head.layer_)
    head.require_identity(source)
    return head.with_splits(source)


def _verdict(
    head: Report, tuned: Report | None, paired: Paired | None, tuning: Tuning | None, significance: float
) -> tuple[str, str]:
    where = f"on the same {head.n} images of split {head.split}"
    if tuned is None or paired is None or tuning is None:
        return "assembled", f"the network is the head: accuracy {head.accuracy:.4f} {where}"
    if tuning.alpha == 0:
        return "kept-head", (
            f"none of {tuning.epoch} epochs did better than the head on the images that choose, nor did weights on the way, so "
            f"the model is the head on its backbone: accuracy {head.accuracy:.4f} {where}"
        )
    apart = (
        f"{tuned.accuracy:.4f} against the head's {head.accuracy:.4f} {where}: it alone gets {len(paired.tuned_only)} right, "
        f"the head alone {len(paired.head_only)}"
    )
    p = f"p = {paired.p_value:.2g} by McNemar's exact test"
    if paired.gained > 0 and paired.p_value <= significance:
        return "promoted", f"the fine-tuned network reached {apart} ({p})"
    lacking = f"{p}, no proof at {significance:g}" if paired.gained > 0 else "it did not win"
    return "kept-head", f"the fine-tuned network reached {apart} ({lacking}), so the model is the head on its backbone"
