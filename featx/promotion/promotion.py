"""Promotion: assemble a head and its backbone into one network, prove it, fine-tune it, decide which is better, save it."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from featx.arguments import names_of, path_of
from featx.constants import MODELS
from featx.errors import CacheMissError, SettingsError, system_errors
from featx.features.feature_set import FeatureSet
from featx.features.image_store import image_places
from featx.features.label_changes import label_changes
from featx.heads.asked_groups import AskedGroups
from featx.heads.groups import match_groups
from featx.heads.head import Head
from featx.heads.head_file import stored_report
from featx.heads.own_features import code_and_weights, features_in, files_for, fitted_files
from featx.heads.refits import Place, Replaced
from featx.heads.seen import SeenImages, with_splits_of_head
from featx.io.outputs import Output, require_outputs
from featx.metrics.classification import ClassificationReport
from featx.progress import shows_progress
from featx.promotion.assemble import Assembly, Proof, assemble, backbone_of, origin_of, prove
from featx.promotion.config import FineTuning
from featx.promotion.epoch_log import EpochLog, log_files
from featx.promotion.finetune_run import FineTuner, FineTuningRun
from featx.promotion.joint_parts import require_possible
from featx.promotion.model import PromotedModel
from featx.promotion.model_file import MODEL
from featx.promotion.model_place import made_of, model_place
from featx.promotion.random_start import draw, figure_file
from featx.promotion.repeats import repeat_runs
from featx.promotion.search import search_file
from featx.promotion.splits import RunSplit, standard_split
from featx.promotion.teacher import Teacher, load_teacher
from featx.promotion.tracked import SearchLog, log_results, params_of
from featx.promotion.verdict import evidence_of, note_on_sets, notes_on_few, verdict_of
from featx.report.subject import subject_of
from featx.reporter import SILENT, Reporter
from featx.system import MISSING, why_unreadable
from featx.text import counted
from featx.tracking.dispatch import Trackers


@dataclass(frozen=True, eq=False)
class Promotion:
    """The result of ``promote``.

    Attributes:
        model: The saved model: the fine-tuned network, or the head on its backbone.
        path: Path of the model's file.
        head: Path of the head's file, or the kind of a head that came from no file.
        verdict: "assembled" without fine-tuning; else "promoted", or "kept-head" where the network is not proved to be better.
        why: The reason for the verdict, in one sentence.
        proof: The comparison of the assembled network's logits with the head's.
        head_report: The head on the test split.
        report: The saved model on the test split.
        run: The fine-tuning run; None without fine-tuning.
        repeats: The runs on other splits; empty unless they were needed.
        seconds: Wall time.
        notes: Further sentences for the user.
        replaced: The model whose file was overwritten, if it was of other settings, images or labels; else None.
        tracked: Where each tool of ``track`` has the run, in words.

    Example:

        promotion = featx.promote("models/photos--resnet50--logreg.safetensors", finetune=True)
        if promotion.verdict == "promoted":
            print(f"epoch {promotion.run.history.best_epoch} of {promotion.epochs}, p = {promotion.run.paired.p_value:.2g}")
        print(promotion.report.accuracy, promotion.path)
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
    replaced: Replaced | None = None
    tracked: Mapping[str, str] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """The number of epochs that were trained."""
        return self.run.history.epoch if self.run else 0

    @property
    def log(self) -> list[dict[str, float | None]]:
        """One entry per epoch: training loss, validation accuracy and log loss, learning rate, seconds. Entry 0 is the head."""
        return self.run.history.log if self.run else []

    def as_dict(self) -> dict[str, Any]:
        """Return the result as ``featx promote --json`` prints it."""
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
            "replaced": self.replaced.as_dict() if self.replaced else None,
            "tracked": dict(self.tracked),
            "notes": list(self.notes),
        }


@system_errors()
@shows_progress("promote", "images")
def promote(
    head: Head | str | os.PathLike[str],
    *,
    finetune: bool = False,
    settings: FineTuning | None = None,
    features: FeatureSet | str | os.PathLike[str] | None = None,
    table: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    out: str | os.PathLike[str] | None = None,
    models: str | os.PathLike[str] = MODELS,
    teacher: Head | PromotedModel | str | os.PathLike[str] | None = None,
    tensorboard: bool = False,
    track: str | Sequence[str] = (),
    experiment: str | None = None,
    callbacks: Sequence[Any] = (),
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> Promotion:
    """Assemble a head and its backbone into one network, prove it, optionally fine-tune it, and save the better one.

    Fine-tuning starts from the head. The epoch and the interpolation of least log loss on the validation images win: the split
    "val"; or, where that is the test split, a fifth of the training images, held back by content from training and from the
    head that training starts from. The verdict falls on the test split, which had no part in these choices: "test", or "val"
    where there is no "test". The fine-tuned network is promoted if it is right on more of these images than luck explains
    (McNemar's exact test; where images share a group, the sign-flip test of groups); otherwise the model is the head on its
    backbone. Where the network is ahead but this may be luck, fine-tuning is repeated on up to ``settings.repeats`` other
    splits that together test each image once, and ``PromotionCriterion`` divides the significance among all tests.

    Where only the last blocks are trained, the activations of the frozen blocks are computed once, for some random crops of
    each image, and cached in ``<cache>/frozen``.

    A run that was interrupted is resumed from its last epoch when it is started with the same settings again. Processes that
    torchrun started train together, each on its GPU.

    Args:
        head: A fitted linear head, or its file. Where it is on inner layers, the network ends there.
        finetune: Fine-tune the network.
        settings: Settings of fine-tuning; the defaults of ``FineTuning`` if None.
        features: The feature set, or file, that the head was fitted to; by default the file that the head names.
        table: Table with the column of the groups that the head was fitted with, where it is not the data set's own table.
        backbone: Backbone to build instead of the stored name; needed for ``file.py:factory``.
        weights: Weights to load instead of the stored ones, where the file has moved.
        device: Device to run on: "auto", "cpu", "cuda", ...
        workers: Threads that read and decode images; by default one per core.
        out: Path of the model's file, instead of ``<models>/<head>--promoted--<settings>.safetensors``, where the settings are
            those that are not the defaults. The same settings take the same name again.
        models: Folder of models.
        teacher: Head or model, or its file, whose probabilities the network learns beside the labels (distillation). A head
            may be on other features of the same images, such as those of several backbones. It is fitted anew to the training
            images of each split, and teaches what the folds say that hold an image out.
        tensorboard: Also write the epochs for TensorBoard, into ``<model>.tensorboard``, as ``track="tensorboard"`` does.
        track: "mlflow", "wandb" or "tensorboard", or several: log parameters, epochs, results and the model there.
        experiment: Name of the experiment (MLflow) or project (Weights & Biases); by default what their variables name, else
            "featx".
        callbacks: Objects with methods of ``featx.Tracker``, which are told the same.
        progress: Show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: Receives the progress of fine-tuning, with a ``TrainingProgress`` as its detail, and notes on the disk space
            that cached activations take and on repeats.

    Raises:
        HeadError: The head is not linear, has no backbone, or is on a layer where the network cannot end.
        PromotionError: The network's logits differ from the head's, it cannot be trained, or the teacher does not know the
            images or the classes, or has seen the labels of test images.
        SettingsError: The network has no such block to train from, a teacher is given without fine-tuning, a table is given
            for a head without groups, or a tool of ``track`` is not installed.
        StaleCacheError: The features or the backbone are not those that the head was fitted to, or an image has changed.
        CacheMissError: The feature file is gone.
        OutputError: The model cannot be written.

    Example:

        promotion = featx.promote("models/photos--resnet50--logreg.safetensors", finetune=True, settings=FineTuning(last=3))
        print(promotion.verdict, promotion.why)
        featx.predict(promotion.model, ["new.jpg"])
    """
    started = time.perf_counter()
    settings = settings or FineTuning()
    if teacher is not None and not finetune:
        raise SettingsError("a teacher is given, and nothing is trained; give finetune (--finetune) too")
    names = [*names_of(track, "track"), *(["tensorboard"] if tensorboard and finetune else [])]
    trackers = Trackers.of(names, callbacks, experiment=experiment, reporter=reporter)
    file, head = (None, head) if isinstance(head, Head) else (Path(path_of(head, "head")), Head.load(head))
    tutor = None if teacher is None else load_teacher(teacher, device)
    if finetune:
        require_possible(settings, head.backbone_)
    place = model_place(
        head, file, settings if finetune else None, models=models, out=out, teacher=tutor.name if tutor else None
    )
    read = [each for each in (file, features, table, weights, backbone, teacher) if isinstance(each, str | os.PathLike)]

    def require_writable(size: int = 0, features: FeatureSet | None = None) -> None:
        output = Output(place.path, MODEL.kind, size, named=bool(out))
        images = image_places(features)
        further = [search_file(place.path)] if settings.search else []
        further += [figure_file(place.path)] if settings.from_random else []
        logs = [*log_files(place.path), *further] if finetune else []
        require_outputs([output, *logs], [*read, *_sources(head)], images=images)

    reporter.stage("loading the backbone")
    assembly = _assemble(
        head, features, require_writable, table=table, backbone=backbone, weights=weights, device=device, workers=workers,
    )  # fmt: skip
    with trackers.run("promote", place.path):
        promotion = _promote(assembly, file, place, settings if finetune else None, tutor, trackers, reporter, started)
        log_results(
            trackers, place.path, verdict=(promotion.verdict, promotion.why), proof=promotion.proof,
            head_report=promotion.head_report, report=promotion.report, run=promotion.run, seconds=promotion.seconds,
        )  # fmt: skip
    return dataclasses.replace(promotion, notes=(*promotion.notes, *trackers.notes), tracked={**trackers.places})


def _promote(
    assembly: Assembly,
    file: Path | None,
    place: Place,
    settings: FineTuning | None,
    teacher: Teacher | None,
    trackers: Trackers,
    reporter: Reporter,
    started: float,
) -> Promotion:
    """Prove the network, fine-tune it if there are settings, decide which one is better, and save that one."""
    head, path, is_main = assembly.head, place.path, assembly.data.processes.is_main
    tuner = FineTuner(assembly, settings, path, reporter if is_main else SILENT, teacher) if settings else None
    reporter.stage("comparing the logits of the network with those of the head")
    proof = prove(assembly)
    head_report, judged, _ = head.judge(assembly.features, split=assembly.test_split)
    assert isinstance(head_report, ClassificationReport)  # a linear head is a classifier
    name = teacher.name if teacher else None
    made = made_of(head, settings, assembly.features, judged, name)
    facts = {**_facts(proof, head_report, settings), "made": made.as_dict()}
    trackers.log_params(params_of(assembly, file, settings, name))
    tuned = _FineTuned()
    if tuner:
        _require_savable(assembly, facts, path)  # before hours of training
        reporter.stage("fine-tuning")
        tuned = _fine_tune(tuner, trackers)
    decision = _decide(assembly, head_report, tuned)
    seconds = time.perf_counter() - started
    facts |= {**_outcome(assembly, decision, tuned), "seconds": seconds}
    model = _model(assembly, decision.network, decision.seen, facts)
    replaced = place.replaced(made)
    _save(model, path, assembly, tuned)
    return Promotion(
        model=model,
        path=path,
        head=str(file or head.kind),
        verdict=decision.verdict,
        why=decision.why,
        proof=proof,
        head_report=head_report,
        report=decision.report,
        run=tuned.run,
        repeats=tuned.repeats,
        seconds=seconds,
        notes=(
            *([replaced.sentence] if replaced else []),
            *label_changes(assembly.features.source),
            *_note_on_views(assembly),
            *note_on_sets(head, decision.verdict),
            *tuned.notes,
            *(notes_on_few(head_report, tuner.settings) if tuner and not tuned.repeats else ()),
        ),
        replaced=replaced,
    )


# Assemble


def _sources(head: Head) -> list[str]:
    """Return the files that a head comes from, as far as it names them: its features, and its backbone's code and weights."""
    return [*map(str, fitted_files(head)), *code_and_weights(head.backbone_)]


def _assemble(
    head: Head, features: FeatureSet | str | os.PathLike[str] | None, require_writable: Callable[..., None], *,
    table: str | os.PathLike[str] | None, backbone: str | None, weights: str | None, device: str, workers: int | None,
) -> Assembly:  # fmt: skip
    """Move the head onto its backbone, after cheap checks that the model can be written and the head be moved."""
    require_writable()
    head.as_linear()
    feature_set = _load_features(head, features, table)
    source = backbone_of(head, name=backbone, weights=weights, device=device)
    size = sum(tensor.numel() * tensor.element_size() for tensor in source.network.state_dict().values())
    require_writable(size, feature_set)
    return assemble(head, feature_set, source, workers)


def _load_features(
    head: Head, features: FeatureSet | str | os.PathLike[str] | None, table: str | os.PathLike[str] | None
) -> FeatureSet:
    """Return the features that a head was fitted to, with the head's splits."""
    AskedGroups(None, table).require_column(head.group_)
    if not isinstance(features, FeatureSet):
        files = files_for(head, None if features is None else path_of(features, "features"))
        if not files:
            raise CacheMissError("the head names no feature file; give one with --features")
        if gone := [file for file in files if why_unreadable(file) == MISSING]:
            raise CacheMissError(
                f"the head's feature file {gone[0]} is gone; run featx extract again, or name it with --features"
            )
        features = features_in(head, files)
    head.require_identity(features)
    return with_splits_of_head(match_groups(features, head.group_, table), head.task_, head.seen)[0]


def _note_on_views(assembly: Assembly) -> Iterator[str]:
    """Yield a note on what the model is worth in one view, where it averages over several."""
    head, features = assembly.head, assembly.features
    if features.views == 1:
        return
    rows = assembly.data.rows(assembly.test_split)
    is_right = head.predict_values(features.plain[rows]).argmax(axis=1) == assembly.data.labels[rows]
    yield (
        f"head and model average over {features.views} views of each image ({head.views}); other programs that load the "
        f"model's tensors use one view, in which the head's accuracy on the {counted(len(rows), 'image')} of split "
        f"{assembly.test_split} is {is_right.mean():.4f}"
    )


# Fine-tune


@dataclass(frozen=True, eq=False)
class _FineTuned:
    """The result of fine-tuning; empty without it.

    Attributes:
        tuner: Holds the checkpoints, which are removed once the model is saved.
        split: The data set's own split.
        run: The run on it.
        network: The network of that run.
        repeats: The runs on other splits.
        notes: Sentences for the user.
    """

    tuner: FineTuner | None = None
    split: RunSplit | None = None
    run: FineTuningRun | None = None
    network: nn.Module | None = None
    repeats: tuple[FineTuningRun, ...] = ()
    notes: tuple[str, ...] = ()


def _fine_tune(tuner: FineTuner, trackers: Trackers) -> _FineTuned:
    """Fine-tune on the data set's own split, with a log beside the model, and on others where they can prove a gain."""
    assembly, path = tuner.assembly, tuner.path
    is_main = assembly.data.processes.is_main
    log = EpochLog(path, subject=subject_of(assembly.head, "fine-tuned"), trackers=trackers) if is_main else None
    trials = SearchLog(path, trackers) if is_main else None
    split = standard_split(assembly)
    run, network = tuner.run(
        split,
        on_epoch=log.write if log else lambda _: None,
        on_trial=trials.write if trials else lambda _: None,
    )
    if log:
        log.close(run.history)
    if log and run.courses:
        draw(path, run.courses, log.subject)
    repeats, notes = repeat_runs(tuner, run)
    notes_of_repeats = [
        f"split {k}: {note}" for k, repeat in enumerate(repeats, start=1) for note in repeat.history.notes
    ]
    return _FineTuned(tuner, split, run, network, repeats, (*run.history.notes, *notes_of_repeats, *notes))


# Decide


@dataclass(frozen=True, eq=False)
class _Decision:
    """The verdict and what follows from it.

    Attributes:
        verdict: "assembled", "promoted" or "kept-head".
        why: The reason, in one sentence.
        network: The network to save.
        report: That network on the test split.
        seen: The images that it has seen.
    """

    verdict: str
    why: str
    network: nn.Module
    report: ClassificationReport
    seen: SeenImages


def _decide(assembly: Assembly, head_report: ClassificationReport, tuned: _FineTuned) -> _Decision:
    """Choose between the fine-tuned network and the head."""
    settings = tuned.tuner.settings if tuned.tuner else FineTuning()
    verdict, why = verdict_of(head_report, tuned.run, tuned.repeats, settings)
    seen, keys = assembly.head.seen, assembly.features.keys
    if verdict == "promoted" and tuned.run and tuned.network and tuned.split and tuned.tuner:
        seen = seen.plus(train=keys[tuned.split.train], validation=keys[tuned.split.validation])
        if teacher := tuned.tuner.teacher:
            seen = seen.plus(train=teacher.seen.train, validation=teacher.seen.validation)
        return _Decision(verdict, why, tuned.network, tuned.run.report, seen)
    return _Decision(verdict, why, assembly.network, head_report, seen)


# Save


def _facts(proof: Proof, head_report: ClassificationReport, settings: FineTuning | None) -> dict[str, Any]:
    """Return the part of the model's metadata that is known before fine-tuning."""
    return {
        "max_logit_difference": proof.largest,
        "mean_logit_difference": proof.mean,
        "head_report": stored_report(head_report),
        "settings": settings.as_stored() if settings else None,
    }


def _outcome(assembly: Assembly, decision: _Decision, tuned: _FineTuned) -> dict[str, Any]:
    """Return the part of the model's metadata that is known after the verdict."""
    return {
        "verdict": decision.verdict,
        "why": decision.why,
        "report": stored_report(decision.report),
        **_sets_of(assembly.head, decision.verdict),
        "finetuned_report": stored_report(tuned.run.report) if tuned.run else None,
        **evidence_of(tuned.run, tuned.repeats),
    }


def _sets_of(head: Head, verdict: str) -> dict[str, Any]:
    """Return the thresholds of the head's prediction sets, which a fine-tuned network has lost."""
    return {} if head.conformal_ is None or verdict == "promoted" else {"conformal": head.conformal_.as_dict()}


def _require_savable(assembly: Assembly, facts: dict[str, Any], path: Path) -> None:
    """Check that a model with these facts could be read again."""
    outcome = {"verdict": "assembled", "why": "", "report": facts["head_report"], "log": [], "seconds": 0.0}
    _model(assembly, assembly.network, assembly.head.seen, facts | outcome).require_savable(path)


def _model(assembly: Assembly, network: nn.Module, seen: SeenImages, facts: dict[str, Any]) -> PromotedModel:
    """Return a network as a model, with the metadata that its file stores."""
    head, backbone = assembly.head, assembly.backbone
    metadata = {
        **facts,
        "name": backbone.name,
        "origin": origin_of(backbone),
        "classifier": assembly.classifier,
        "reject_below": head.reject_below_,
        "layer": assembly.layer,
        "width": head.as_linear()[0].shape[1],
        "dataset": assembly.features.dataset,
        "head": {
            "kind": head.kind,
            "parameters": head.parameters,
            "identity": head.identity_,
            "constant": head.constant_,
        },
        "n_train": len(seen.train),
    }
    return PromotedModel(
        network,
        transform=backbone.transform,
        classes=head.names_,
        metadata=metadata,
        seen=seen,
        device=backbone.device,
    )


def _save(model: PromotedModel, path: Path, assembly: Assembly, tuned: _FineTuned) -> None:
    """Write the model and remove the checkpoints, in the main process."""
    processes = assembly.data.processes
    if processes.is_main:
        model.save(path)
        if tuned.tuner:
            tuned.tuner.remove_checkpoints()
    processes.wait()
