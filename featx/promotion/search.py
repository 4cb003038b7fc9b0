"""A search for the settings of fine-tuning, on folds of the training images, whose frozen activations are cached."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from featx.promotion.history import TrainingHistory
from featx.promotion.param_groups import trained_blocks
from featx.promotion.prefix_cache import CachedActivations
from featx.promotion.splits import RunSplit
from featx.promotion.targets import class_weights
from featx.promotion.teacher import Teacher
from featx.promotion.trainer import Trainer, train
from featx.reporter import SILENT, ForwardingReporter, Reporter
from featx.text import counted, duration_text, form

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
        seconds: Wall time, which the budget limits: without caching, and with the time before an interruption.
        caching: Wall time of caching the activations of the frozen blocks.
        notes: Sentences for the user.
    """

    trials: tuple[Trial, ...]
    settings: FineTuning
    changes: Changes
    why: str
    seconds: float
    caching: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def n_settings(self) -> int:
        """How many settings were tried: those with a trial that ended."""
        return len({trial.setting for trial in self.trials})

    def as_dict(self) -> dict[str, Any]:
        """The search as model files and JSON have it."""
        return {
            "settings": self.n_settings,
            "chosen": self.changes,
            "why": self.why,
            "seconds": round(self.seconds, 3),
            "caching_seconds": round(self.caching, 3),
            "trials": [trial.as_dict() for trial in self.trials],
        }


_STORED = ("count", "seconds", "caching", "is_over")


@dataclass
class _Progress:
    """What a search is resumed from.

    Attributes:
        trials: The trials so far.
        losses: The losses of the images in each.
        count: How many settings the budget allows, which is known after the first trial.
        seconds: Wall time without caching, at the last save.
        caching: Wall time of caching, likewise.
        is_over: Whether the budget has ended the search.
    """

    trials: list[Trial] = field(default_factory=list)
    losses: list[np.ndarray] = field(default_factory=list)
    count: int = 0
    seconds: float = 0.0
    caching: float = 0.0
    is_over: bool = False

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

    def judged(self) -> tuple[tuple[int, ...], list[int]]:
        """The most folds that several settings were judged on when trained to the end, and these settings.

        The budget may have ended the search before there were any such folds; then there are fewer than two settings.
        """
        for count in range(FOLDS, 0, -1):
            folds = tuple(range(count))
            settings = [n for n in range(self.count) if all(self.has(n, fold, 1.0) for fold in folds)]
            if len(settings) > 1:
                break
        return folds, settings


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
        self._clock = _Clock(self._progress)
        self._activations: dict[str, CachedActivations] = {}

    def run(self) -> SearchResult:
        """Try the settings, or resume doing so, and choose.

        Raises:
            FoldError, HeadError: There are too few training images.
            PromotionError: The network cannot be trained, or the teacher has seen the labels of images that judge.
            OutputError: The checkpoint cannot be written.
        """
        self._resume()
        self._folds = self._split_training_images()
        self._cache()
        try:
            self._try_all()
        except _TimeOverError:
            if not self._progress.is_over:
                self._progress.is_over = True
                self._save()
        return self._choose()

    def _resume(self) -> None:
        state = self.checkpoint.load()
        self.assembly.data.processes.wait()
        if state is None:
            self.on_trial([])
            return
        arrays, facts = state
        trials = [Trial(**stored) for stored in facts.pop("trials")]
        losses = [arrays[f"losses.{trial.trial}"] for trial in trials]
        stored = {name: facts[name] for name in _STORED if name in facts}
        self._progress = _Progress(trials, losses, **stored)
        self._clock = _Clock(self._progress)
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
                lesson = self.teacher.lesson(assembly, rows, fold.validation)
                fold = dataclasses.replace(fold, taught=lesson.log_probabilities)
            out.append(fold)
        return out

    def _cache(self) -> None:
        """Cache the activations that the trials read. The budget does not limit this, since training reads most of them too."""
        most = max(with_changes(self.settings, changes).epochs for changes in self.candidates)
        fold = self._folds[0]
        with self._clock.caching():
            network = network_of(fold.start, self.assembly.backbone)
            self._inputs(fold, network, dataclasses.replace(self.settings, epochs=most), self.reporter)

    def _try_all(self) -> None:
        """Try the settings stage by stage, the settings as given first: these show how many the budget allows.

        Raises:
            _TimeOverError: The budget is over.
        """
        self._try(0, stages(len(self.candidates))[0], 0)
        alive = list(range(self._progress.count))
        for stage in stages(self._progress.count):
            alive = self._survivors(alive, stage)
            for fold in stage.folds:
                for setting in alive:
                    self._try(setting, stage, fold)

    def _survivors(self, alive: list[int], stage: Stage) -> list[int]:
        """Return the settings that a stage tries: those of least loss on the first fold so far, and always those given."""
        if len(alive) <= stage.count:
            return alive
        share = 0.25 if stage.number == 2 else 1.0
        others = sorted(filter(None, alive), key=lambda setting: self._progress.rank(setting, share))
        return [0, *others[: stage.count - 1]]

    def _try(self, setting: int, stage: Stage, fold: int) -> None:
        """Train one setting and judge it on one fold, unless that was done before the interruption.

        Raises:
            _TimeOverError: The budget is over.
        """
        progress = self._progress
        if progress.has(setting, fold, stage.share):
            return
        self._require_time()
        started, changes = time.perf_counter(), self.candidates[setting]
        settings = with_changes(self.settings, changes, stage.share)
        logits, history = self._train(self._folds[fold], settings)
        labels = self.assembly.data.labels[self._folds[fold].validation]
        losses = -np.log(np.clip(softmax(logits)[np.arange(len(labels)), labels], 1e-12, None))
        trial = Trial(
            len(progress.trials) + 1, setting, changes, stage.number, fold, settings.epochs, float(losses.mean()),
            float((logits.argmax(axis=1) == labels).mean()), history.best.log_loss,
            round(time.perf_counter() - started, 3),
        )  # fmt: skip
        progress.trials.append(trial)
        progress.losses.append(losses)
        if (
            len(progress.trials) == 1
        ):  # before the save: a search that is killed after it resumes with the same settings
            self._fit_budget(history)
        self._save()
        self.reporter.milestone(
            f"trial {trial.trial}: {in_words(changes)}; {counted(trial.epochs, 'epoch')}, log loss {trial.log_loss:.4f}, "
            f"accuracy {trial.accuracy:.4f} on fold {fold + 1}"
        )
        self.on_trial(progress.trials)

    def _fit_budget(self, first: TrainingHistory) -> None:
        """Leave out settings that the budget does not allow, by the time of the epochs of the first trial."""
        progress, processes = self._progress, self.assembly.data.processes
        budget, epochs, wanted, trial = self.settings.budget, self.settings.epochs, progress.count, progress.trials[0]
        # The first epoch of all loads code too. Training that diverges has none.
        seconds = min([float(entry["seconds"] or 0) for entry in first.log[1:]] or [trial.seconds])
        if budget:
            left = 0.8 * (budget - self._clock.seconds + trial.seconds)
            count = affordable(wanted, epochs, seconds, left) if processes.is_main else 0
            progress.count = round(processes.sum(count))
        some = f"{progress.count} of " if progress.count < wanted else ""
        expected = epochs_of(progress.count, epochs) * seconds
        takes = f"takes about {duration_text(expected)}"
        if budget and expected > budget:
            takes = f"would take about {duration_text(expected)}; the budget of {duration_text(budget)} ends the search before"
        self.reporter.note(
            f"trying {some}{counted(wanted, 'setting')} on folds of the {counted(len(self.split.train), 'training image')} "
            f"{takes}"
        )

    def _train(self, fold: RunSplit, settings: FineTuning) -> tuple[np.ndarray, TrainingHistory]:
        """Train on a fold; return the logits of the images that it judges, (m, C), and what happened."""
        assembly, data = self.assembly, self.assembly.data
        network = network_of(fold.start, assembly.backbone)
        reporter = _TrialReporter(self.reporter, self._require_time)
        inputs = self._inputs(fold, network, settings, reporter)
        trainer = Trainer(
            network, inputs.module, trained_blocks(network, assembly.classifier, settings), settings,
            n_images=len(fold.train), class_weights=class_weights(settings, data.labels[fold.train], len(data.classes)),
            processes=data.processes,
        )  # fmt: skip
        history = train(trainer, inputs.source, MemoryCheckpoint(), reporter=reporter)
        logits = inputs.source.validation_logits()
        return logits / data.temperature(fold.validation, logits), history

    def _require_time(self) -> None:
        """Raise _TimeOverError if the budget is over, in all processes at once: by the clock of the main one."""
        budget, processes = self.settings.budget, self.assembly.data.processes
        if budget and (
            self._progress.is_over or processes.sum(self._clock.seconds if processes.is_main else 0.0) > budget
        ):
            raise _TimeOverError

    def _inputs(self, fold: RunSplit, network: nn.Module, settings: FineTuning, reporter: Reporter) -> TrainingInputs:
        """The inputs of the blocks that the settings as given train; settings that train fewer run the others on them."""
        cut = trained_blocks(network, self.assembly.classifier, self.settings)
        return make_batches(self.assembly, network, cut, fold, settings, known=self._activations, reporter=reporter)

    def _choose(self) -> SearchResult:
        """Choose the settings of least log loss on all folds, where that is lower than of those given by a standard error."""
        progress = self._progress
        folds, judged = progress.judged()
        losses = {setting: progress.loss(setting, folds, 1.0) for setting in judged}
        best = min(losses, key=lambda setting: losses[setting].mean(), default=0)
        changes: Changes = {}
        if len(judged) < 2:
            why = (
                f"the settings as given: the budget of {duration_text(self.settings.budget)} ended the search before there was "
                "anything to compare them with"
            )
        else:
            given, n_images = losses[0].mean(), len(losses[0])
            gain = losses[0] - losses[best]
            error = float(gain.std(ddof=1) / math.sqrt(n_images))
            found = (
                f"log loss {losses[best].mean():.4f} on {n_images:,} training images, each judged by a fold without it"
            )
            if best and gain.mean() >= error:
                changes = self.candidates[best]
                why = f"{in_words(changes)}: {found}, {gain.mean():.4f} less than the settings as given"
            elif best:
                why = (
                    f"the settings as given: log loss {given:.4f}; the best others, {in_words(self.candidates[best])}, have "
                    f"{gain.mean():.4f} less, which is within one standard error ({error:.4f})"
                )
            else:
                why = f"the settings as given: {found}, the lowest"
        return SearchResult(
            tuple(progress.trials), with_changes(self.settings, changes), changes, why, progress.seconds, progress.caching,
            tuple(self._notes()),
        )  # fmt: skip

    def _notes(self) -> Iterator[str]:
        progress, wanted, possible = self._progress, self.settings.search, len(self.candidates)
        budget = duration_text(self.settings.budget)
        if possible < wanted:
            yield (
                f"there {form(possible, 'is', 'are')} only {counted(possible, 'different setting')} to try: options that are "
                "not at their defaults stay as given"
            )
        if progress.count < possible:
            yield f"the budget of {budget} allowed {progress.count} of {counted(possible, 'setting')}"
        if progress.is_over:
            done = counted(len(progress.trials), "trial")
            yield f"the search ended after {done}, when its budget of {budget} was over"

    def _save(self) -> None:
        progress, clock = self._progress, self._clock
        progress.seconds, progress.caching = clock.seconds, clock.cached
        if self.assembly.data.processes.is_main:
            arrays = {f"losses.{t.trial}": each for t, each in zip(progress.trials, progress.losses, strict=True)}
            facts = {name: getattr(progress, name) for name in _STORED}
            self.checkpoint.save(arrays, {**facts, "trials": [trial.as_dict() for trial in progress.trials]})
        self.assembly.data.processes.wait()


class _TimeOverError(Exception):
    """The budget of a search is over."""


class _Clock:
    """Measures the time of a search from now on, after that of its progress before an interruption.

    Attributes:
        cached: Seconds of caching, which ``seconds`` does not count.
    """

    def __init__(self, progress: _Progress) -> None:
        self._began, self.cached = time.perf_counter() - progress.seconds - progress.caching, progress.caching

    @property
    def seconds(self) -> float:
        """Seconds of everything but caching."""
        return time.perf_counter() - self._began - self.cached

    @contextlib.contextmanager
    def caching(self) -> Iterator[None]:
        """Count what happens inside the block as caching."""
        started = time.perf_counter()
        yield
        self.cached += time.perf_counter() - started


class _TrialReporter(ForwardingReporter):
    """Reports the progress of a trial, but not each of its epochs as a milestone, and ends the trial when its time is over.

    Args:
        reporter: Receives the progress.
        require_time: Called after each step; it raises an error to end the trial.
    """

    def __init__(self, reporter: Reporter, require_time: Callable[[], None]) -> None:
        super().__init__(reporter)
        self._require_time = require_time

    def milestone(self, sentence: str) -> None:
        pass

    def progress(self, done: int, total: int, detail: object = "") -> None:
        super().progress(done, total, detail)
        self._require_time()


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
