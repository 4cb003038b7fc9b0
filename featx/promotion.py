"""The head moved onto its backbone, proved to be the same classifier, and fine-tuned from there if that pays."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import SqueezeNet

from featx import modelfile, zoo
from featx.backbone import Backbone, full_float32, normalise, pick_device, restore_backbone
from featx.cache import differences
from featx.decode import Transform, read_augmented
from featx.errors import (
    MISSING,
    CacheMissError,
    CorruptCacheError,
    DatasetError,
    FeatxError,
    HeadError,
    StaleCacheError,
    printable,
    why_unreadable,
)
from featx.features import FeatureSet
from featx.head import Head, softmax, stored_report
from featx.home import cores
from featx.reading import batched, default_batch_size, plain_reader, read_images
from featx.report import Report
from featx.settings import MODELS, FineTuning
from featx.taps import PENULTIMATE
from featx.weights import load_strictly, require_fit

PROOF_IMAGES = 64
"""How many images the assembled network is compared with the head on."""

TOLERANCE = {"float32": 1e-3, "float16": 2e-2}
"""Largest logit difference that counts as equal, relative to the largest logit (or 1), by the features' dtype."""


@dataclass(frozen=True)
class Step:
    """Where fine-tuning stands, for a progress bar.

    Attributes:
        epoch: from 1.
        epochs: at most.
        done: images of this epoch.
        total: images in an epoch.
        loss: mean training loss of this epoch so far, in nats.
        accuracy: of the best epoch so far, on the selection split; 0 before the first.
    """

    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    accuracy: float


class PromotedModel:
    """A whole network that classifies pixels: backbone and head in one.

    Attributes:
        network: in eval mode.
        transform: from an image's pixels to its input.
        classes: (C,) names.
        metadata: what its file says of it: backbone, data set, comparison, verdict.
        train_keys: (n, 16) uint8, content hashes of the images it was trained on.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        transform: Transform,
        classes: Sequence[str],
        metadata: dict[str, Any],
        train_keys: np.ndarray,
        device: torch.device,
    ) -> None:
        self.network = network.eval().to(device)
        self.transform = transform
        self.classes = tuple(classes)
        self.metadata = metadata
        self.train_keys = train_keys
        self.device = device

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """(B, 3, H, W) uint8 to (B, C) float64."""
        return _logits(self.network, torch.from_numpy(pixels).to(self.device), self.transform)

    def outputs(self, pixels: np.ndarray) -> np.ndarray:
        """(B, 3, H, W) uint8 to (B, C) float64 probabilities; rows sum to 1."""
        return softmax(self.logits(pixels))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the network's tensors and the metadata as one .safetensors file.

        The tensors keep the network's own names; featx's own begin with ``featx.``.

        Raises:
            OutputError: the file cannot be written.
        """
        modelfile.save_model(Path(path), *self._contents(), format=modelfile.MODEL)
        return Path(path)

    def require_savable(self, path: str | os.PathLike[str]) -> None:
        """Raises HeadError unless ``save`` would give a file that can be read again."""
        modelfile.packed(Path(path), *self._contents(), format=modelfile.MODEL)

    def _contents(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}
        arrays[modelfile.TRAIN_KEYS[modelfile.MODEL]] = self.train_keys
        return arrays, {**self.metadata, "classes": self.classes, "transform": self.transform.as_dict()}

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, backbone: str | None = None, device: str = "auto") -> PromotedModel:
        """Read a promoted model.

        Args:
            path: the file.
            backbone: ``file.py:factory`` where the network is a file of one's own; a stored path is never run.
            device: as ``load_backbone``.

        Raises:
            CacheMissError, CorruptCacheError: no such file, or not a sound one.
            BackboneError: the network cannot be built here.
            StaleCacheError: ``backbone`` is another network than the model's.
        """
        arrays, meta = modelfile.load_model(Path(path), format=modelfile.MODEL)
        try:
            train_keys = arrays.pop(modelfile.TRAIN_KEYS[modelfile.MODEL])
            state = {name: torch.from_numpy(array) for name, array in arrays.items()}
            transform = Transform.from_dict(meta["transform"])
            network = _own_network(backbone, meta, path) if backbone else _stored_network(meta, state, path)
            _set_last_layer(network, meta["classifier"], np.zeros((len(meta["classes"]), meta["width"])), None)
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, FeatxError):
                raise
            raise CorruptCacheError(f"{path} is no sound model: {printable(str(error))}") from error
        load_strictly(network, state, origin=str(path))
        model = cls(
            network,
            transform=transform,
            classes=meta["classes"],
            metadata={k: v for k, v in meta.items() if k not in ("format", "version", "classes", "transform")},
            train_keys=train_keys,
            device=pick_device(device),
        )
        model._require_logits(path)
        return model

    def _require_logits(self, path: str | os.PathLike[str]) -> None:
        """Run once, so that a network that cannot take its own images is refused before it meets any."""
        blank = np.zeros((1, 3, self.transform.crop, self.transform.crop), dtype=np.uint8)
        try:
            logits = self.logits(blank)
        except Exception as error:  # a network raises whatever its author wrote
            raise CorruptCacheError(f"{path} is no sound model: it cannot be run: {_first_line(error)}") from error
        if logits.shape != (1, len(self.classes)) or not np.isfinite(logits).all():
            raise CorruptCacheError(
                f"{path} is no sound model: of shape {logits.shape}, or NaN, where {len(self.classes)} logits should be"
            )


@dataclass(frozen=True, eq=False)
class Promotion:
    """What ``promote`` did.

    Attributes:
        model: the network, fine-tuned or as assembled.
        path: its file.
        head: the head's file, or its kind where it came from none.
        verdict: "assembled", "promoted" or "kept-head".
        why: the verdict in a sentence.
        max_logit_difference: between assembled network and head, over ``proved_on`` images.
        proved_on: number of those images.
        head_report: the head on the split that judges.
        report: the saved model on the same images.
        tuned_report: the fine-tuned network on them, kept or not; None without fine-tuning.
        epochs: that were run.
        log: one entry per epoch: loss, selection accuracy and log loss.
        seconds: wall time.
        notes: what else the user should know.
    """

    model: PromotedModel
    path: Path
    head: str
    verdict: str
    why: str
    max_logit_difference: float
    proved_on: int
    head_report: Report
    report: Report
    tuned_report: Report | None
    epochs: int
    log: tuple[dict[str, float], ...]
    seconds: float
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As ``featx promote --json`` prints it."""
        return {
            "model": str(self.path),
            "head": self.head,
            "verdict": self.verdict,
            "why": self.why,
            "max_logit_difference": self.max_logit_difference,
            "proved_on": self.proved_on,
            "accuracy_head": self.head_report.accuracy,
            "accuracy_finetuned": self.tuned_report.accuracy if self.tuned_report else None,
            "accuracy": self.report.accuracy,
            "interval": list(self.report.interval),
            "split": self.report.split,
            "n": self.report.n,
            "epochs": self.epochs,
            "log": list(self.log),
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
    progress: Callable[[Step], None] | None = None,
) -> Promotion:
    """Assemble a head and its backbone into one network, prove it, and fine-tune it if asked.

    Fine-tuning starts at the head. The best epoch, the one of least log loss, is chosen on the split "val"; the verdict
    falls by accuracy on "test" where there is one (on "val" otherwise, and a note says so). A network that is not better
    there is not kept: the head is.

    Args:
        head: a fitted head, or its file; linear, on the penultimate layer.
        finetune: train the whole network.
        settings: how.
        features: the feature set, or file, that the head was fitted to; by default the file the head names.
        backbone: instead of the stored name, as ``restore_backbone``.
        weights: instead of the stored weights, where the file has moved.
        device: as ``load_backbone``.
        workers: threads that read and decode.
        out: the model's file, instead of ``<models>/<head>--promoted.safetensors``.
        models: the folder for models.
        progress: called during fine-tuning.

    Raises:
        HeadError: a head that is not linear or not on the penultimate layer, or logits that differ.
        StaleCacheError: features or backbone of another identity.
        CacheMissError: the feature file is gone.
        OutputError: the model cannot be written.
    """
    started = time.perf_counter()
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
    job = _Job(head, known, source, workers or cores())
    difference, proved_on = job.prove()
    head_report = head.evaluate(known, split=job.judge_split)
    assert isinstance(head_report, Report)  # of a linear head of classes
    tuned: Report | None = None
    log: list[dict[str, float]] = []
    facts = {
        "max_logit_difference": difference,
        "head_report": stored_report(head_report),
        "settings": asdict(settings or FineTuning()) if finetune else None,
    }
    if finetune:
        untrained = {"verdict": "assembled", "why": "", "report": facts["head_report"], "log": [], "seconds": 0.0}
        job.model(facts | untrained).require_savable(path)  # before the hours of training
        tuned, log = job.finetune(settings or FineTuning(), progress)
    verdict, why = _verdict(head_report, tuned)
    if verdict == "kept-head":
        job.back_to_head()
    report = tuned if tuned is not None and verdict == "promoted" else head_report
    seconds = time.perf_counter() - started
    outcome = {"verdict": verdict, "why": why, "report": stored_report(report), "log": log, "seconds": seconds}
    model = job.model(facts | outcome)
    model.save(path)
    return Promotion(
        model=model,
        path=path,
        head=str(file or head.kind),
        verdict=verdict,
        why=why,
        max_logit_difference=difference,
        proved_on=proved_on,
        head_report=head_report,
        report=report,
        tuned_report=tuned,
        epochs=len(log),
        log=tuple(log),
        seconds=seconds,
        notes=tuple(job.notes),
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


@dataclass
class _Job:
    """One promotion: the assembled network and the images it is proved, trained and judged on."""

    head: Head
    features: FeatureSet
    backbone: Backbone
    workers: int
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.judge_split = self.features.held_out()
        has_val = bool(np.any((self.features.splits == "val") & (self.features.labels >= 0)))
        self.select_split = "val" if has_val else self.judge_split
        self.network = copy.deepcopy(self.backbone.network)
        _set_last_layer(self.network, self.backbone.classifier, *self.head.as_linear())
        self.network.to(self.backbone.device).eval()
        self.start = copy.deepcopy(self.network.state_dict())
        index = {name: i for i, name in enumerate(self.head.classes_)}
        ours = np.array([index.get(name, -1) for name in self.features.classes], dtype=np.int64)
        self.labels = np.where(self.features.labels >= 0, ours[self.features.labels], -1)

    def prove(self) -> tuple[float, int]:
        """The largest difference between the network's logits and the head's, over images of the data set."""
        every = self.rows(self.judge_split)
        rows = every[np.linspace(0, len(every) - 1, min(PROOF_IMAGES, len(every))).astype(int)]
        network_logits = self.predict(rows)
        head_logits = self.head.logits(np.asarray(self.features.features[rows]))
        difference = float(np.abs(network_logits - head_logits).max())
        allowed = TOLERANCE[self.backbone.dtype] * max(1.0, float(np.abs(head_logits).max()))
        if not difference <= allowed:
            raise HeadError(
                f"the assembled network's logits differ from the head's by up to {difference:.3g} on {len(rows)} images; "
                f"at most {allowed:.3g} is rounding. The network was not saved"
            )
        return difference, len(rows)

    def finetune(
        self, settings: FineTuning, progress: Callable[[Step], None] | None
    ) -> tuple[Report, list[dict[str, float]]]:
        """Train from the head on; the network ends as the epoch of least log loss on the selection images.

        Returns:
            Its report where the verdict falls, and one entry per epoch.
        """
        if self.select_split == self.judge_split:
            self.notes.append(
                f"the best epoch was chosen on the same images of split {self.judge_split} that it is judged by, so the "
                "fine-tuned accuracy is slightly flattered; a data set with val and test splits mends that"
            )
        trainer = _Trainer(self.network, settings, self.backbone, len(self.rows("train")))
        log: list[dict[str, float]] = []
        best_state, best_epoch, best_loss, accuracy = self.start, 0, math.inf, 0.0
        for epoch in range(1, settings.epochs + 1):
            loss = self._train_epoch(trainer, epoch, accuracy, progress)
            if not math.isfinite(loss):
                self.notes.append(f"the loss became {loss} in epoch {epoch}; training stopped there")
                break
            report = self.report(self.select_split)
            if not math.isfinite(report.log_loss):
                self.notes.append(
                    f"the log loss on {self.select_split} became {report.log_loss} in epoch {epoch}; training stopped there"
                )
                break
            log.append({"epoch": epoch, "loss": loss, "accuracy": report.accuracy, "log_loss": report.log_loss})
            if report.log_loss < best_loss:
                best_epoch, best_loss, accuracy = epoch, report.log_loss, report.accuracy
                best_state = copy.deepcopy(self.network.state_dict())
            elif epoch - best_epoch >= settings.patience:
                break
        self.network.load_state_dict(best_state)
        return self.report(self.judge_split), log

    def back_to_head(self) -> None:
        """Undo the training."""
        self.network.load_state_dict(self.start)

    def report(self, split: str) -> Report:
        """The network as it is, on one split."""
        rows = self.rows(split)
        return Report.of(self.labels[rows], softmax(self.predict(rows)), self.head.classes_, split=split)

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
            device=self.backbone.device,
        )

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of the labelled images of a split, of classes that the head knows."""
        return np.flatnonzero((self.features.splits == split) & (self.labels >= 0))

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """(R, C) float64 logits of the network as it is."""
        self.network.eval()
        transform = self.backbone.transform
        batches = self._batches(rows, plain_reader(transform), default_batch_size(self._device.type))
        return np.concatenate([_logits(self.network, pixels, transform) for _, pixels in batches])

    @property
    def _device(self) -> torch.device:
        return self.backbone.device

    def _train_epoch(
        self, trainer: _Trainer, epoch: int, accuracy: float, progress: Callable[[Step], None] | None
    ) -> float:
        settings, transform = trainer.settings, self.backbone.transform
        rows = self.rows("train")
        order = np.random.default_rng([settings.seed, epoch]).permutation(rows)

        def read(row: int, data: bytes) -> np.ndarray:
            rng = np.random.default_rng([settings.seed, epoch, row])
            return read_augmented(data, transform, rng, scale=settings.crop_scale, flip=settings.flip)

        trainer.to_train_mode()
        total, done = 0.0, 0
        for batch_rows, pixels in self._batches(order, read, settings.batch_size):
            labels = torch.from_numpy(self.labels[batch_rows]).to(self._device)
            total += trainer.step(normalise(pixels, transform), labels) * len(batch_rows)
            done += len(batch_rows)
            if progress:
                progress(Step(epoch, settings.epochs, done, len(rows), total / done, accuracy))
        return total / done

    def _batches(
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
            yield np.array([image.row for image in batch]), pixels.to(self._device, non_blocking=True)


class _Trainer:
    """Optimizer, schedule and precision; one step at a time."""

    def __init__(self, network: nn.Module, settings: FineTuning, backbone: Backbone, images: int) -> None:
        self.network, self.settings = network, settings
        self.device = backbone.device
        steps = settings.epochs * math.ceil(images / settings.batch_size)
        warmup = max(1, round(settings.warmup * steps))
        network.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(_parameter_groups(network, backbone.classifier, settings))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, steps))))),
        )
        cuda = self.device.type == "cuda"
        self.precision = torch.bfloat16 if cuda and torch.cuda.is_bf16_supported() else torch.float16
        self.scaler = torch.amp.GradScaler("cuda", enabled=cuda and self.precision == torch.float16)
        torch.manual_seed(settings.seed)  # dropout is the only chance that is not drawn from numpy's generators

    def to_train_mode(self) -> None:
        """Train mode, but batch norm's statistics stay as pretrained unless they are to be trained."""
        self.network.train()
        if not self.settings.train_norms:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def step(self, images: Tensor, labels: Tensor) -> float:
        """One batch; returns its loss in nats."""
        with torch.autocast("cuda", self.precision, enabled=self.device.type == "cuda"):
            loss = F.cross_entropy(self.network(images), labels)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        return float(loss.detach())


def _parameter_groups(network: nn.Module, classifier: str, settings: FineTuning) -> list[dict[str, Any]]:
    """Head and backbone at their own rates; no weight decay on biases and norms."""
    groups = []
    for is_head in (True, False):
        named = [(n, p) for n, p in network.named_parameters() if n.startswith(f"{classifier}.") == is_head]
        rate = settings.lr if is_head else settings.lr / 10
        for decays in (True, False):
            parameters = [p for _, p in named if (p.ndim > 1) == decays]
            groups.append({"params": parameters, "lr": rate, "weight_decay": settings.weight_decay * decays})
    return [group for group in groups if group["params"]]


def _logits(network: nn.Module, pixels: Tensor, transform: Transform) -> np.ndarray:
    """(B, 3, H, W) uint8 on the network's device to (B, C) float64, in the precision that features are computed in."""
    with torch.inference_mode(), full_float32():
        logits: np.ndarray = network(normalise(pixels, transform)).cpu().double().numpy()  # MPS has no float64
    return logits


def _stored_network(meta: Mapping[str, Any], state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> nn.Module:
    """The architecture that a model's file names. Built without memory first: a small file shall not make a large network."""
    with zoo.without_memory():
        hollow = zoo.blank(meta["origin"])
        _set_last_layer(hollow, meta["classifier"], np.zeros((len(meta["classes"]), meta["width"])), None)
    require_fit(hollow, state, origin=str(path))
    return zoo.blank(meta["origin"])


def _own_network(backbone: str, meta: Mapping[str, Any], path: str | os.PathLike[str]) -> nn.Module:
    """The network that the user names, if it is the one that the model was made of."""
    built = zoo.build(backbone, "random")
    parts = differences(meta["origin"], built.origin)
    if parts:
        raise StaleCacheError(f"{path} was made of another network than {backbone} ({'; '.join(parts)})")
    return built.module


def _first_line(error: Exception) -> str:
    return printable((str(error) or type(error).__name__).splitlines()[0][:200])


def _set_last_layer(network: nn.Module, classifier: str, weight: np.ndarray, bias: np.ndarray | None) -> None:
    """Put (C, D) weights and (C,) biases in the place of a network's classifier layer."""
    count, width = weight.shape
    old = network.get_submodule(classifier)
    new: nn.Linear | nn.Conv2d
    new = nn.Conv2d(width, count, 1) if isinstance(old, nn.Conv2d) else nn.Linear(width, count)
    with torch.no_grad():
        new.weight.copy_(torch.from_numpy(weight).reshape(new.weight.shape))
        if bias is not None and new.bias is not None:
            new.bias.copy_(torch.from_numpy(bias))
    network.set_submodule(classifier, new)
    if isinstance(network, SqueezeNet):
        network.classifier[2] = nn.Identity()  # its ReLU between convolution and pooling would clip the head's logits


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


def _verdict(head: Report, tuned: Report | None) -> tuple[str, str]:
    where = f"on the same {head.n} images of split {head.split}"
    if tuned is None:
        return "assembled", f"the network is the head: accuracy {head.accuracy:.4f} {where}"
    more = int(np.trace(tuned.confusion) - np.trace(head.confusion))
    if more > 0 and math.isfinite(tuned.log_loss):
        return (
            "promoted",
            f"fine-tuning raised accuracy from {head.accuracy:.4f} to {tuned.accuracy:.4f}, {more} more right {where}",
        )
    return (
        "kept-head",
        f"fine-tuning reached {tuned.accuracy:.4f} against the head's {head.accuracy:.4f} {where}; it did not win, so the "
        "model is the head on its backbone",
    )
