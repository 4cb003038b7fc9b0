"""The head moved onto its backbone, proved to be the same classifier, and fine-tuned from there if that pays."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from featx import modelfile
from featx.backbone import Backbone, restore_backbone
from featx.blocks import trained
from featx.calibration import balanced_weights
from featx.checkpoint import Checkpoint
from featx.epochlog import EpochLog
from featx.errors import MISSING, CacheMissError, HeadError, why_unreadable
from featx.evidence import Paired, Standard
from featx.features import FeatureSet
from featx.finetuning import Judged, Step, Trainer, Tuning, tune
from featx.folds import make_folds
from featx.groups import hash_group_splits, read_column
from featx.head import Head, softmax, stored_report
from featx.home import cores
from featx.processes import processes
from featx.promoted import PromotedModel, set_last_layer
from featx.report import Report
from featx.settings import CACHE, FROZEN, MODELS, FineTuning
from featx.sources import Pictures, Sources
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
class Trial:
    """One fine-tuning, judged.

    Attributes:
        tuning: how it went.
        report: the network that came out, or the head where that was best, on the images that judge.
        paired: it and the head on them, image by image.
        start: what the head that it started at gets on the images that choose, by its features; entry 0 of the log is what the
            network got.
        chosen_on: those images, in words.
    """

    tuning: Tuning
    report: Report
    paired: Paired
    start: Judged
    chosen_on: str


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
        trial: the fine-tuning; None without it.
        repeats: as much again on other splits; () unless asked for.
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
    trial: Trial | None
    repeats: tuple[Trial, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def epochs(self) -> int:
        """That were run."""
        return self.trial.tuning.epoch if self.trial else 0

    @property
    def log(self) -> list[dict[str, float | None]]:
        """One entry per epoch, from 0, the head: loss, accuracy and log loss on the images that choose, rate, seconds."""
        return self.trial.tuning.log if self.trial else []

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
            "accuracy_finetuned": self.trial.report.accuracy if self.trial else None,
            "accuracy": self.report.accuracy,
            "interval": list(self.report.interval),
            "split": self.report.split,
            "n": self.report.n,
            "epochs": self.epochs,
            "best_epoch": self.trial.tuning.best_epoch if self.trial else None,
            "alpha": self.trial.tuning.alpha if self.trial else None,
            **_evidence(self.trial, self.repeats),
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
    tensorboard: bool = False,
    notify: Callable[[str], None] | None = None,
    progress: Callable[[Step], None] | None = None,
) -> Promotion:
    """Assemble a head and its backbone into one network, prove it, and fine-tune it if asked.

    Fine-tuning starts at the head. Epoch and interpolation are those of least log loss on the split "val"; where that is the
    split that judges, on a fifth of the training images, by their content, and training starts at a head that was fitted
    without them. The verdict falls on the split that chose nothing: "test" where there is one, else "val". The fine-tuned
    network takes the head's place if it gets more of those images right than chance would give (McNemar's exact test);
    otherwise the model is the head. Where it wins, but might by luck, up to ``settings.repeats`` other splits are asked, in
    which each image judges once; luck gets no more chances by that (``evidence.Standard``).

    Where the last blocks alone are trained, what enters them is computed once, for some random crops of each image, and kept
    in ``<cache>/frozen``.

    A run that was interrupted goes on from its last epoch when it is started again with the same settings. Several processes
    that torchrun started train together, each on its GPU.

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
        tensorboard: write the epochs for TensorBoard too, into ``<model>.tensorboard``.
        notify: told, in a sentence, what is cached and how much disk that takes, before it is; and which of the repeats begins.
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
    job = _Job(head, known, source, workers, notify, progress)
    proof = job.prove()
    head_report = head.evaluate(known, split=job.judge_split)
    assert isinstance(head_report, Report)  # of a linear head of classes
    facts = {
        "max_logit_difference": proof.largest,
        "mean_logit_difference": proof.mean,
        "head_report": stored_report(head_report),
        "settings": asdict(settings) if finetune else None,
    }
    trial: Trial | None = None
    repeats: tuple[Trial, ...] = ()
    asked: list[str] = []
    if finetune:
        untrained = {"verdict": "assembled", "why": "", "report": facts["head_report"], "log": [], "seconds": 0.0}
        job.model(facts | untrained).require_savable(path)  # before the hours of training
        trial = job.finetune(settings, path, tensorboard=tensorboard)
        repeats, asked = job.repeat(settings, path, trial)
    verdict, why = _verdict(head_report, trial, repeats, settings)
    if verdict == "kept-head":
        job.back_to_head()
    report = trial.report if trial and verdict == "promoted" else head_report
    seconds = time.perf_counter() - started
    outcome = {
        "verdict": verdict,
        "why": why,
        "report": stored_report(report),
        "finetuned_report": stored_report(trial.report) if trial else None,
        **_evidence(trial, repeats),
        "seconds": seconds,
    }
    model = job.model(facts | outcome)
    if job.processes.first:
        model.save(path)
        job.clear()
    job.processes.wait()
    return Promotion(
        model=model,
        path=path,
        head=str(file or head.kind),
        verdict=verdict,
        why=why,
        proof=proof,
        head_report=head_report,
        report=report,
        trial=trial,
        repeats=repeats,
        seconds=seconds,
        notes=(*_notes(trial, repeats), *asked),
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
        pictures: the images, with their labels as the head counts classes.
        network: the assembled network, which is trained in place.
        as_head: its tensors while it is the head.
    """

    def __init__(
        self,
        head: Head,
        features: FeatureSet,
        backbone: Backbone,
        workers: int | None = None,
        notify: Callable[[str], None] | None = None,
        progress: Callable[[Step], None] | None = None,
    ) -> None:
        self.head, self.features, self.backbone = head, features, backbone
        self.processes = processes(backbone.device)
        self.notify = notify if notify and self.processes.first else lambda _: None
        self.progress = progress if self.processes.first else None
        self.judge_split = features.held_out()
        index = {name: i for i, name in enumerate(head.classes_)}
        ours = np.array([index.get(name, -1) for name in features.classes], dtype=np.int64)
        labels = np.where(features.labels >= 0, ours[features.labels], -1)
        workers = workers or max(1, cores() // self.processes.count)
        self.pictures = Pictures(
            features, labels, head.classes_, backbone.transform, backbone.device, workers, self.processes
        )
        self.network = self._assembled(head)
        self.as_head = copy.deepcopy(self.network.state_dict())
        self._checkpoints: list[Checkpoint] = []

    def prove(self) -> Proof:
        """How far the network's logits are from the head's, over images of the data set.

        Raises:
            HeadError: further than rounding.
        """
        every = self.pictures.rows(self.judge_split)
        rows = every[np.linspace(0, len(every) - 1, min(PROOF_IMAGES, len(every))).astype(int)]
        head_logits = self._says(self.head, rows)
        apart = np.abs(self.pictures.logits(self.network, rows) - head_logits)
        allowed = TOLERANCE[self.backbone.dtype] * max(1.0, float(np.abs(head_logits).max()))
        if not apart.max() <= allowed:
            raise HeadError(
                f"the assembled network's logits differ from the head's by up to {apart.max():.3g} on {len(rows)} images; "
                f"at most {allowed:.3g} is rounding. The network was not saved"
            )
        return Proof(float(apart.max()), float(apart.mean()), len(rows))

    def finetune(self, settings: FineTuning, path: Path, *, tensorboard: bool = False) -> Trial:
        """Train from the head on; the network ends as what did best on the images that choose. A log lies beside the model."""
        log = EpochLog(path, tensorboard=tensorboard) if self.processes.first else None
        start, train, select, chosen_on = self.chosen()
        judge = self.pictures.rows(self.judge_split)
        trial = self._trial(settings, path, start, train, select, chosen_on, self.head, judge, log=log)
        if log:
            log.end(trial.tuning)
        return trial

    def repeat(self, settings: FineTuning, path: Path, first: Trial) -> tuple[tuple[Trial, ...], list[str]]:
        """The same on other splits, as long as they may prove a gain, and what to say of it.

        In all of them together each labelled image judges once. The network is as before in the end.
        """
        standard, gain, every = Standard(settings.significance, settings.repeats), first.paired, self._every()
        if gain.gained <= 0 or standard.proved(gain):
            return (), []
        luck = f"{gain.gained} more right of {gain.n} may be luck"
        if not settings.repeats:
            return (), [f"{luck}; --repeats 5 asks up to five other splits, which together judge every image"]
        if not standard.undecided(gain, (), len(every)):
            return (), [f"{luck}; no other splits were asked, for as much on all {len(every)} images would be no proof"]
        minutes = math.ceil(sum(entry.get("seconds") or 0 for entry in first.tuning.log) / 60)
        self.notify(
            f"{luck}: up to {settings.repeats} other splits are asked, each some {minutes} min; --repeats 0 asks none"
        )
        before, trials, notes = copy.deepcopy(self.network.state_dict()), list[Trial](), list[str]()
        try:
            for trial in self._other_trials(settings, path, every):
                trials.append(trial)
                if not standard.undecided(gain, [each.paired for each in trials], len(every)):
                    break
        except HeadError as error:  # the first verdict stands without them
            notes.append(f"{luck}; {'further' if trials else 'other'} splits could not be asked: {error}")
        self.network.load_state_dict(before)
        return tuple(trials), notes

    def _other_trials(self, settings: FineTuning, path: Path, every: np.ndarray) -> Iterator[Trial]:
        groups = self.head.groups(self.features, every)
        folds = make_folds(self.pictures.labels[every], groups, folds=settings.repeats, seed=settings.seed)
        for number, (rest, judge) in enumerate(folds, start=1):
            self.notify(f"split {number}: {len(rest)} images to train on and choose by, {len(judge)} judge")
            head = self.head.again().fit(self.features, rows=every[rest])
            start, train, select, chosen_on = self._held_back(every[rest])
            yield self._trial(settings, path, start, train, select, chosen_on, head, every[judge], repeat=number)

    def chosen(self) -> tuple[Head, np.ndarray, np.ndarray, str]:
        """The head to start at, the rows to train on and to choose by, and the latter in words."""
        train, val = self.pictures.rows("train"), self.pictures.rows("val")
        if self.judge_split != "val" and len(val):
            return self.head, train, val, f"the {len(val)} images of split val"
        return self._held_back(train)

    def back_to_head(self) -> None:
        """Undo the training."""
        self.network.load_state_dict(self.as_head)

    def clear(self) -> None:
        """The model is there: what training could have gone on from is needed no more."""
        for checkpoint in self._checkpoints:
            checkpoint.remove()

    def model(self, facts: dict[str, Any]) -> PromotedModel:
        """The network with all that its file says of it."""
        metadata = {
            **facts,
            "name": self.backbone.name,
            "origin": self.backbone.describe()["architecture"],
            "classifier": self.backbone.classifier,
            "reject_below": self.head.reject_below_,
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

    def _trial(
        self, settings: FineTuning, path: Path, start: Head, train: np.ndarray, select: np.ndarray, chosen_on: str,
        head: Head, judge: np.ndarray, *, repeat: int = 0, log: EpochLog | None = None,
    ) -> Trial:  # fmt: skip
        """Train from one head on, and judge the network against another on rows that had no part in it."""
        pictures = self.pictures
        before = pictures.judged(select, self._says(start, select))
        checkpoint = Checkpoint(path, self._asked(settings, start, train, select, repeat))
        self._checkpoints.append(checkpoint)
        self.network = self._assembled(start)
        which = trained(self.network, self.backbone.classifier, settings)
        folder = (self.features.source.parent if self.features.source else Path(CACHE)) / FROZEN
        source, module, notes = Sources(pictures, self.network, self.backbone, folder, self.notify).of(
            which, settings, train, select, every=self._every() if repeat else None, progress=self._caching
        )
        balanced = settings.class_weight == "balanced"
        trainer = Trainer(
            self.network,
            module,
            which,
            settings,
            images=len(train),
            class_weights=balanced_weights(pictures.labels[train], len(pictures.classes)) if balanced else None,
            processes=self.processes,
        )
        tuning = tune(trainer, source, checkpoint, progress=self.progress, logged=log.write if log else None)
        tuning.notes[:0] = notes
        of_head = self._says(head, judge)
        logits = pictures.logits(self.network, judge) if tuning.alpha else of_head
        report = Report.of(
            pictures.labels[judge], softmax(logits), pictures.classes,
            split="other images" if repeat else self.judge_split, reject_below=head.reject_below_,
        )  # fmt: skip
        paths, said = self.features.paths[judge], (of_head.argmax(axis=1), logits.argmax(axis=1))
        return Trial(tuning, report, Paired.of(paths, pictures.labels[judge], *said), before, chosen_on)

    def _held_back(self, rows: np.ndarray) -> tuple[Head, np.ndarray, np.ndarray, str]:
        """As ``chosen``: a fifth of the rows chooses, and the head is fitted again without it."""
        column = read_column(self.features, self.head.group, table=self.head.table)[rows] if self.head.group else None
        chooses = hash_group_splits(self.features.keys[rows], column, self.pictures.labels[rows]) == "test"
        select, train = rows[chooses], rows[~chooses]
        start = self.head.again().fit(self.features, rows=train) if len(select) else self.head
        if not len(select) or start.classes_ != self.head.classes_:
            raise HeadError(
                "too few training images to hold some back that choose the best epoch; add images, or a split val beside test"
            )
        return start, train, select, f"{len(select)} of the training images, held back by their content"

    def _asked(
        self, settings: FineTuning, start: Head, train: np.ndarray, select: np.ndarray, repeat: int
    ) -> dict[str, Any]:
        """What a run of fine-tuning depends on, as JSON."""
        sha256 = hashlib.sha256()
        for array in (*start.as_linear(), self.features.keys, self.pictures.labels, train, select):
            sha256.update(np.ascontiguousarray(array).tobytes())
        training = {k: v for k, v in asdict(settings).items() if k not in ("significance", "repeats")}
        return {"settings": training, "identity": self.head.identity_, "sha256": sha256.hexdigest(), "repeat": repeat}

    def _assembled(self, head: Head) -> nn.Module:
        """A head on the backbone, as one network."""
        network = copy.deepcopy(self.backbone.network)
        set_last_layer(network, self.backbone.classifier, *head.as_linear())
        return network.to(self.backbone.device).eval()

    def _says(self, head: Head, rows: np.ndarray) -> np.ndarray:
        """(R, C) float64 logits of a head, by the features."""
        return head.logits(np.asarray(self.features.features[rows]))

    def _every(self) -> np.ndarray:
        """All rows that a head may be fitted to or judged on."""
        return np.concatenate([self.pictures.rows(split) for split in ("train", "val", "test")])

    def _caching(self, done: int, total: int) -> None:
        if self.progress:
            self.progress(Step(0, 0, done, total, math.nan, 0.0, 0.0))


def _evidence(trial: Trial | None, repeats: tuple[Trial, ...]) -> dict[str, Any]:
    """What a model's file and ``--json`` say of the training."""
    if not trial:
        return dict.fromkeys(("paired", "step_0", "interpolation", "chosen_on", "repeats")) | {"log": []}
    network = trial.tuning.log[0]
    return {
        "paired": trial.paired.as_dict(),
        "step_0": {
            "accuracy": network["accuracy"], "accuracy_of_head": trial.start.accuracy,
            "log_loss": network["log_loss"], "log_loss_of_head": trial.start.log_loss,
        },
        "interpolation": [{"alpha": alpha, "log_loss": loss} for alpha, loss in trial.tuning.curve.items()],
        "chosen_on": trial.chosen_on,
        "repeats": {
            **Paired.together([t.paired for t in repeats]).as_dict(),
            "splits": [
                {"n": t.paired.n, "accuracy_head": t.paired.head_accuracy, "accuracy_finetuned": t.report.accuracy}
                for t in repeats
            ],
        } if repeats else None,
        "log": trial.tuning.log,
    }  # fmt: skip


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


def _verdict(head: Report, trial: Trial | None, repeats: tuple[Trial, ...], settings: FineTuning) -> tuple[str, str]:
    where = f"on the same {head.n} images of split {head.split}"
    if trial is None:
        return "assembled", f"the network is the head: accuracy {head.accuracy:.4f} {where}"
    kept = "the model is the head on its backbone"
    if trial.tuning.alpha == 0:
        return "kept-head", (
            f"none of {trial.tuning.epoch} epochs did better than the head on the images that choose, nor did weights on "
            f"the way, so {kept}: accuracy {head.accuracy:.4f} {where}"
        )
    others = [repeat.paired for repeat in repeats]
    judged = Paired.together(others) if others else trial.paired
    reached = (
        f"the fine-tuned network reached {trial.report.accuracy:.4f} against the head's {head.accuracy:.4f} {where}: "
        f"{_alone(trial.paired)}"
    )
    if others:
        splits = (
            f"{len(others)} other splits, {judged.n} images in all"
            if others[1:]
            else f"another split, {judged.n} images"
        )
        reached += f"; on {splits}, {_alone(judged)}"
    standard = Standard(settings.significance, settings.repeats)
    p = f"p = {judged.p_value:.2g} by McNemar's exact test"
    if standard.proved(trial.paired, others):
        return "promoted", f"{reached} ({p})"
    lacking = f"{p}, no proof at {standard.level(others):.2g}" if judged.gained > 0 else "it did not win"
    return "kept-head", f"{reached} ({lacking}), so {kept}"


def _alone(paired: Paired) -> str:
    return f"it alone gets {len(paired.tuned_only)} right, the head alone {len(paired.head_only)}"


def _notes(trial: Trial | None, repeats: tuple[Trial, ...]) -> Iterator[str]:
    yield from trial.tuning.notes if trial else ()
    for number, repeat in enumerate(repeats, start=1):
        yield from (f"split {number}: {note}" for note in repeat.tuning.notes)
