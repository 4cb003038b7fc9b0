"""A search for the settings of fine-tuning, on folds of the training images, whose frozen activations are cached."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from featx.heads.folds import make_folds
from featx.heads.groups import row_groups
from featx.heads.postprocess import softmax
from featx.io.outputs import Output, table, write_output
from featx.promotion.assemble import Assembly, network_of
from featx.promotion.batches import TrainingInputs, make_batches
from featx.promotion.candidates import (
    FOLDS,
    Changes,
    Stage,
    affordable,
    candidates,
    epochs_of,
    stages,
    with_changes,
)
from featx.promotion.checkpoint import Checkpoint, MemoryCheckpoint
from featx.promotion.config import FineTuning, in_words
from featx.promotion.param_groups import trained_blocks
from featx.promotion.prefix_cache import CachedActivations
from featx.promotion.splits import RunSplit
from featx.promotion.targets import class_weights
from featx.promotion.teacher import Teacher
from featx.promotion.trainer import Trainer, train
from featx.reporter import SILENT, ForwardingReporter, Reporter
from featx.text import counted, duration_text

COLUMNS = (
    "trial", "setting", "stage", "fold", "epochs", "log_loss", "accuracy", "epoch_log_loss", "seconds", "changes",
)  # fmt: skip
"""Columns of the table of trials."""

TRIALS = table("log of the search", COLUMNS)
"""That table, as an output."""


@dataclass(frozen=True)
class Trial:
    """One setting, trained on the other folds and judged on one.

    Attributes:
        trial: Number of the trial, from 1.
        setting: Number of the setting; 0 are the settings as given.
        changes: What it changes of these.
        stage: Number of the stage, from 1.
        fold: Number of the fold.
        epochs: Largest number of epochs.
        log_loss: Mean log loss on the fold, in nats, of the best weights, which may be the head's.
        accuracy: Share of the fold's images that are classified correctly.
        epoch_log_loss: The same of the best epoch, which ranks trials whose best weights are the head's.
        seconds: Wall time.
    """

    trial: int
    setting: int
    changes: Changes
    stage: int
    fold: int
    epochs: int
    log_loss: float
    accuracy: float
    epoch_log_loss: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The trial as JSON has it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        trials: All trials, in order.
        settings: The settings that were chosen.
        changes: What they change of those given.
        why: The reason for the choice, in one sentence.
        n_settings: How many settings were tried.
        seconds: Wall time of all trials, those before an interruption included.
        notes: Sentences for the user.
    """

    trials: tuple[Trial, ...]
    settings: FineTuning
    changes: Changes
    why: str
    n_settings: int
    seconds: float
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The search as model files and JSON have it."""
        return {
            "settings": self.n_settings,
            "chosen": self.changes,
            "why": self.why,
            "seconds": round(self.seconds, 3),
            "trials": [trial.as_dict() for trial in self.trials],
        }


@dataclass
class _Progress:
    """The trials so far, and the losses of the images in each: what a search is resumed from."""

    trials: list[Trial] = field(default_factory=list)
    losses: list[np.ndarray] = field(default_factory=list)
    count: int = 0
    caching: float = 0.0

    @property
    def seconds(self) -> float:
        return self.caching + sum(trial.seconds for trial in self.trials)

    def loss(self, setting: int, folds: Sequence[int], share: float) -> np.ndarray:
        """The losses of the images of some folds by one setting, as (n,) float64."""
        found = {t.fold: losses for t, losses in zip(self.trials, self.losses, strict=True) if _is(t, setting, share)}
        return np.concatenate([found[fold] for fold in folds])

    def rank(self, setting: int, share: float) -> tuple[float, float]:
        """What orders settings by their trial on the first fold, the best first."""
        trial = next(each for each in self.trials if _is(each, setting, share) and not each.fold)
        return trial.log_loss, trial.epoch_log_loss

    def has(self, setting: int, fold: int, share: float) -> bool:
        return any(_is(trial, setting, share) and trial.fold == fold for trial in self.trials)


def _is(trial: Trial, setting: int, share: float) -> bool:
    return trial.setting == setting and (trial.stage == 1) == (share < 1)


class SettingsSearch:
    """A search on the training images of one split.

    Args:
        assembly: The assembled network and its data.
        split: The split; only its training images are used.
        settings: The settings as given: ``search`` and ``budget`` say how many to try in what time.
        teacher: Of the network, or None.
        checkpoint: Written after each trial.
        reporter: Receives the progress, a milestone after each trial, and notes.
        on_trial: Called after each trial with all so far.
    """

    def __init__(
        self, assembly: Assembly, split: RunSplit, settings: FineTuning, *, teacher: Teacher | None, checkpoint: Checkpoint,
        reporter: Reporter = SILENT, on_trial: Callable[[Sequence[Trial]], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.assembly, self.split, self.settings, self.teacher = assembly, split, settings, teacher
        self.checkpoint, self.reporter, self.on_trial = checkpoint, reporter, on_trial
        self.candidates = candidates(settings, settings.search, taught=teacher is not None)
        self._folds: list[RunSplit] = []
        self._progress = _Progress(count=len(self.candidates))
        self._is_over = False
        self._activations: dict[str, CachedActivations] = {}

    def run(self) -> SearchResult:
        """Try the settings, or resume doing so, and choose.

        Raises:
            FoldError, HeadError: There are too few training images.
            PromotionError: The network cannot be trained.
            OutputError: The checkpoint cannot be written.
        """
        self._resume()
        self._folds = self._split_training_images()
        notes = self._fit_budget()
        alive = list(range(self._progress.count))
        plan = stages(self._progress.count)
        for number, stage in enumerate(plan, start=3 - len(plan) + 1):
            alive = self._survivors(alive, stage, number)
            for fold in stage.folds:
                for setting in alive:
                    self._try(setting, stage, number, fold)
        return self._choose(alive, notes)

    def _resume(self) -> None:
        state = self.checkpoint.load()
        self.assembly.data.processes.wait()
        if state is None:
            return
        arrays, facts = state
        trials = [Trial(**stored) for stored in facts["trials"]]
        losses = [arrays[f"losses.{trial.trial}"] for trial in trials]
        self._progress = _Progress(trials, losses, facts["count"], facts["caching"])
        self.on_trial(trials)

    def _split_training_images(self) -> list[RunSplit]:
        """Return the folds of the training images, each with a head that was fitted to the others."""
        assembly, train_rows = self.assembly, self.split.train
        groups = row_groups(assembly.features, train_rows)
        dealt = make_folds(assembly.data.labels[train_rows], groups, folds=FOLDS, seed=self.settings.seed)
        out = []
        for rest, judge in dealt:
            rows = train_rows[rest]
            start = self.split.start.clone().fit(assembly.features, rows=rows)
            fold = RunSplit(
                start, start, rows, train_rows[judge], np.empty(0, dtype=np.int64), "a fold of the training images",
                repeat=self.split.repeat, searched=train_rows,
            )  # fmt: skip
            if self.teacher:
                lesson = self.teacher.lesson(assembly, rows, fold.test)
                fold = dataclasses.replace(fold, taught=lesson.log_probabilities)
            out.append(fold)
        return out

    def _fit_budget(self) -> list[str]:
        """Try the settings as given, and leave out settings that the budget does not allow."""
        progress, budget = self._progress, self.settings.budget
        plan, fresh, started = stages(progress.count), not progress.trials, time.perf_counter()
        self._inputs(self._folds[0], network_of(self._folds[0].start, self.assembly.backbone), self.settings)
        progress.caching += time.perf_counter() - started
        self._try(0, plan[0], 3 - len(plan) + 1, 0)
        seconds = progress.trials[0].seconds / progress.trials[0].epochs
        epochs, wanted = self.settings.epochs, len(self.candidates)
        if fresh and budget:
            progress.count = affordable(wanted, epochs, seconds, 0.8 * budget - progress.seconds)
        if fresh:
            expected = duration_text(epochs_of(progress.count, epochs) * seconds)
            self.reporter.note(
                f"trying {counted(progress.count, 'setting')} on folds of the {len(self.split.train)} training images takes "
                f"about {expected}"
            )
            self._save()
        if progress.count < wanted:
            return [f"the budget of {duration_text(budget)} allowed {progress.count} of {wanted} settings"]
        return []

    def _survivors(self, alive: list[int], stage: Stage, number: int) -> list[int]:
        """Return the settings that a stage tries: those of least loss on the first fold so far, and always those given."""
        if len(alive) <= stage.count:
            return alive
        share = 0.25 if number == 2 else 1.0
        judged = [setting for setting in alive if self._progress.has(setting, 0, share)]
        ranks = {setting: self._progress.rank(setting, share) for setting in judged}
        others = sorted((setting for setting in judged if setting), key=ranks.__getitem__)
        return [0, *others[: stage.count - 1]]

    def _try(self, setting: int, stage: Stage, number: int, fold: int) -> None:
        """Train one setting and judge it on one fold, unless that was done before the interruption, or time is over."""
        progress, budget = self._progress, self.settings.budget
        if progress.has(setting, fold, stage.share):
            return
        processes = self.assembly.data.processes
        spent = processes.sum(progress.seconds if processes.is_main else 0.0)
        if setting and budget and spent > budget:  # the settings as given are always judged
            self._is_over = True
            return
        started, changes = time.perf_counter(), self.candidates[setting]
        settings = with_changes(self.settings, changes, stage.share)
        logits, epoch_loss = self._train(self._folds[fold], settings)
        labels = self.assembly.data.labels[self._folds[fold].validation]
        losses = -np.log(np.clip(softmax(logits)[np.arange(len(labels)), labels], 1e-12, None))
        trial = Trial(
            len(progress.trials) + 1, setting, changes, number, fold, settings.epochs, float(losses.mean()),
            float((logits.argmax(axis=1) == labels).mean()), epoch_loss, round(time.perf_counter() - started, 3),
        )  # fmt: skip
        progress.trials.append(trial)
        progress.losses.append(losses)
        self._save()
        self.reporter.milestone(
            f"trial {trial.trial}: {in_words(changes)}; {counted(trial.epochs, 'epoch')}, log loss {trial.log_loss:.4f}, "
            f"accuracy {trial.accuracy:.4f} on fold {fold + 1}"
        )
        self.on_trial(progress.trials)

    def _train(self, fold: RunSplit, settings: FineTuning) -> tuple[np.ndarray, float]:
        """Train on a fold; return the logits of the images that it judges, (m, C), and the log loss of the best epoch."""
        assembly, data = self.assembly, self.assembly.data
        network = network_of(fold.start, assembly.backbone)
        inputs = self._inputs(fold, network, settings)
        trainer = Trainer(
            network, inputs.module, trained_blocks(network, assembly.classifier, settings), settings,
            n_images=len(fold.train), class_weights=class_weights(settings, data.labels[fold.train], len(data.classes)),
            processes=data.processes,
        )  # fmt: skip
        history = train(trainer, inputs.source, MemoryCheckpoint(), reporter=_WithoutMilestones(self.reporter))
        logits = inputs.source.validation_logits()
        return logits / data.temperature(fold.validation, logits), history.best.log_loss

    def _inputs(self, fold: RunSplit, network: nn.Module, settings: FineTuning) -> TrainingInputs:
        """The inputs of the blocks that the settings as given train; settings that train fewer run the others on them."""
        cut = trained_blocks(network, self.assembly.classifier, self.settings)
        return make_batches(
            self.assembly, network, cut, fold, settings, known=self._activations,
            reporter=_WithoutMilestones(self.reporter),
        )  # fmt: skip

    def _choose(self, alive: list[int], notes: list[str]) -> SearchResult:
        """Choose the settings of least log loss on all folds, where that is lower than of those given by a standard error."""
        progress, folds = self._progress, tuple(range(FOLDS))
        complete = [s for s in alive if all(progress.has(s, fold, 1.0) for fold in folds)]
        if complete == [0]:  # the budget was over
            folds, complete = folds[:1], [s for s in alive if progress.has(s, 0, 1.0)]
        losses = {setting: progress.loss(setting, folds, 1.0) for setting in complete}
        best = min(losses, key=lambda setting: losses[setting].mean())
        given = losses[0].mean()
        gain = losses[0] - losses[best]
        error = float(gain.std(ddof=1) / math.sqrt(len(gain)))
        is_better = best != 0 and gain.mean() >= error
        found = f"log loss {losses[best].mean():.4f} on {len(gain)} training images, each judged by a fold without it"
        if is_better:
            why = f"{in_words(self.candidates[best])}: {found}, {gain.mean():.4f} less than the settings as given"
        elif best:
            why = (
                f"the settings as given: log loss {given:.4f}; the best others, {in_words(self.candidates[best])}, have "
                f"{gain.mean():.4f} less, which is within one standard error ({error:.4f})"
            )
        else:
            why = f"the settings as given: {found}, the lowest"
        if self._is_over:
            notes = [*notes, f"the search ended after {len(progress.trials)} trials, when its budget was over"]
        changes = self.candidates[best] if is_better else {}
        return SearchResult(
            tuple(progress.trials), with_changes(self.settings, changes), changes, why, progress.count, progress.seconds,
            tuple(notes),
        )  # fmt: skip

    def _save(self) -> None:
        if self.assembly.data.processes.is_main:
            progress = self._progress
            arrays = {f"losses.{t.trial}": each for t, each in zip(progress.trials, progress.losses, strict=True)}
            trials = [trial.as_dict() for trial in progress.trials]
            facts = {"trials": trials, "count": progress.count, "caching": progress.caching}
            self.checkpoint.save(arrays, facts)
        self.assembly.data.processes.wait()


class _WithoutMilestones(ForwardingReporter):
    """Reports the progress of a trial, but not each of its epochs as a milestone."""

    def milestone(self, sentence: str) -> None:
        pass


def search_file(model: Path) -> Output:
    """The table of trials beside a model."""
    return Output(model.with_suffix(".search.csv"), TRIALS)


def write_trials(model: Path, trials: Sequence[Trial]) -> None:
    """Write the table of trials beside a model.

    Raises:
        OutputError: It cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for trial in trials:
        row: Mapping[str, Any] = {**trial.as_dict(), "changes": in_words(trial.changes)}
        writer.writerow(row)
    write_output(search_file(model).path, text.getvalue().encode(), TRIALS)
