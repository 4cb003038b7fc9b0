"""The head moved onto its backbone, proved to be the same classifier, and fine-tuned from there if that pays."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featx.backbones.backbone import Backbone, restore_backbone
from featx.constants import MODELS
from featx.errors import CacheMissError, HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.groups import match_groups, with_splits
from featx.heads.head import Head
from featx.heads.head_file import stored_report
from featx.io import atomic
from featx.metrics.classification import ClassificationReport
from featx.promotion.config import FineTuning
from featx.promotion.finetune_run import FineTuningRun, FineTuningRuns, Proof
from featx.promotion.model import PromotedModel
from featx.promotion.verdict import evidence_of, verdict_of
from featx.reporter import SILENT, Reporter
from featx.system import MISSING, why_unreadable


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
    head_report: ClassificationReport
    report: ClassificationReport
    run: FineTuningRun | None
    repeats: tuple[FineTuningRun, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def epochs(self) -> int:
        """That were run."""
        return self.run.history.epoch if self.run else 0

    @property
    def log(self) -> list[dict[str, float | None]]:
        """One entry per epoch, from 0, the head: loss, accuracy and log loss on the images that choose, rate, seconds."""
        return self.run.history.log if self.run else []

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
            "accuracy_finetuned": self.run.report.accuracy if self.run else None,
            "accuracy": self.report.accuracy,
            "interval": list(self.report.interval),
            "split": self.report.split,
            "n": self.report.n,
            "epochs": self.epochs,
            "best_epoch": self.run.history.best_epoch if self.run else None,
            "alpha": self.run.history.alpha if self.run else None,
            **evidence_of(self.run, self.repeats),
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
    reporter: Reporter = SILENT,
) -> Promotion:
    """Assemble a head and its backbone into one network, prove it, and fine-tune it if asked.

    Fine-tuning starts at the head. Epoch and interpolation are those of least log loss on the split "val"; where that is the
    split that judges, on a fifth of the training images, by their content, and training starts at a head that was fitted
    without them. The verdict falls on the split that chose nothing: "test" where there is one, else "val". The fine-tuned
    network takes the head's place if it gets more of those images right than chance would give (McNemar's exact test);
    otherwise the model is the head. Where it wins, but might by luck, up to ``settings.repeats`` other splits are asked, in
    which each image judges once; luck gets no more chances by that (``evidence.PromotionCriterion``).

    Where the last blocks alone are trained, what enters them is computed once, for some random crops of each image, and kept
    in ``<cache>/frozen``.

    A run that was interrupted goes on from its last epoch when it is started again with the same settings. Several processes
    that torchrun started train together, each on its GPU.

    Args:
        head: a fitted head, or its file; linear. Where it is on inner layers, the network ends there (``truncation``).
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
        reporter: gets notes of what is cached, how much disk that takes, and which of the repeats begins; and the progress of
            fine-tuning, with a ``TrainingProgress`` as its detail.

    Raises:
        HeadError: a head that is not linear, or on a layer where the network cannot end; logits that differ; no such block.
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
    atomic.require_writable(path)
    head.as_linear()  # a head that is not linear is refused before anything costs time
    known = _features_of(head, features)
    source = backbone_of(head, name=backbone, weights=weights, device=device)
    atomic.require_writable(path, sum(t.numel() * t.element_size() for t in source.network.state_dict().values()))
    runs = FineTuningRuns(head, known, source, workers, reporter)
    proof = runs.prove()
    head_report = head.evaluate(known, split=runs.test_split)
    assert isinstance(head_report, ClassificationReport)  # of a linear head of classes
    facts = {
        "max_logit_difference": proof.largest,
        "mean_logit_difference": proof.mean,
        "head_report": stored_report(head_report),
        "settings": asdict(settings) if finetune else None,
    }
    run: FineTuningRun | None = None
    repeats: tuple[FineTuningRun, ...] = ()
    asked: list[str] = []
    if finetune:
        untrained = {"verdict": "assembled", "why": "", "report": facts["head_report"], "log": [], "seconds": 0.0}
        runs.model(facts | untrained).require_savable(path)  # before the hours of training
        run = runs.first(settings, path, tensorboard=tensorboard)
        repeats, asked = runs.others(settings, path, run)
    verdict, why = verdict_of(head_report, run, repeats, settings)
    if verdict == "kept-head":
        runs.back_to_head()
    report = run.report if run and verdict == "promoted" else head_report
    seconds = time.perf_counter() - started
    outcome = {
        "verdict": verdict,
        "why": why,
        "report": stored_report(report),
        "finetuned_report": stored_report(run.report) if run else None,
        **evidence_of(run, repeats),
        "seconds": seconds,
    }
    model = runs.model(facts | outcome)
    if runs.processes.first:
        model.save(path)
        runs.clear()
    runs.processes.wait()
    return Promotion(
        model=model,
        path=path,
        head=str(file or head.kind),
        verdict=verdict,
        why=why,
        proof=proof,
        head_report=head_report,
        report=report,
        run=run,
        repeats=repeats,
        seconds=seconds,
        notes=(*_seen(head, known, runs), *_notes(run, repeats), *asked),
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
    return with_splits(match_groups(source, head.group_), head.task_)


def _seen(head: Head, features: FeatureSet, runs: FineTuningRuns) -> Iterator[str]:
    """What becomes of the head's views."""
    if features.views == 1:
        return
    rows = runs.pictures.rows(runs.test_split)
    once = head.predict_values(features.plain[rows]).argmax(axis=1) == runs.pictures.labels[rows]
    yield (
        f"head and model average over {features.views} views of each image ({head.views}); whoever uses the model's tensors "
        f"without featx sees one: in that alone the head's accuracy on the {len(rows)} images of split {runs.test_split} "
        f"is {once.mean():.4f}"
    )


def _notes(run: FineTuningRun | None, repeats: tuple[FineTuningRun, ...]) -> Iterator[str]:
    yield from run.history.notes if run else ()
    for number, repeat in enumerate(repeats, start=1):
        yield from (f"split {number}: {note}" for note in repeat.history.notes)
