"""Fine-tuning runs: a network trained from a head on, and compared with a head on the test images."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from featx.heads.groups import row_groups
from featx.heads.postprocess import softmax
from featx.heads.targets import place_of
from featx.metrics.classification import ClassificationReport
from featx.metrics.paired import PairedTest
from featx.promotion.assemble import Assembly, network_of
from featx.promotion.batches import make_batches
from featx.promotion.candidates import DEPTH, require_variety
from featx.promotion.checkpoint import Checkpoint
from featx.promotion.config import FineTuning
from featx.promotion.history import TrainingHistory, ValidationScore
from featx.promotion.joint_parts import with_part
from featx.promotion.model import logits_of
from featx.promotion.param_groups import trained_blocks
from featx.promotion.random_start import Course, train_from_random
from featx.promotion.search import SearchResult, SettingsSearch, Trial
from featx.promotion.splits import RunSplit
from featx.promotion.targets import class_weights
from featx.promotion.teacher import TIMED, Lesson, Teacher, TeacherComparison, speed
from featx.promotion.trainer import Trainer, train
from featx.reporter import SILENT, Reporter


@dataclass(frozen=True, eq=False)
class FineTuningRun:
    """A fine-tuning run and its result on the test images.

    Attributes:
        history: What happened during training.
        report: The resulting network on the test images; the head, where no weights validated better than the head's.
        paired: The comparison of network and head on the test images, image by image.
        start: The validation score of the head that training started from, by its cached features. Entry 0 of the log is the
            same head's score as a network.
        chosen_on: The validation images, in words.
        seconds: Wall time of the search, of caching activations, and of training, before an interruption included.
        search: The search for the settings; None without one.
        teacher: The comparison with the teacher on the test images; None without one.
        courses: The trainings that ``settings.from_random`` asks for, the pretrained network's first; empty without.
    """

    history: TrainingHistory
    report: ClassificationReport
    paired: PairedTest
    start: ValidationScore
    chosen_on: str
    seconds: float
    search: SearchResult | None = None
    teacher: TeacherComparison | None = None
    courses: tuple[Course, ...] = ()

    @property
    def gain_per_minute(self) -> float:
        """Percentage points of accuracy that the network gained over the head, for each minute of training."""
        return 100 * self.paired.gained / self.paired.n / max(self.seconds / 60, 1e-9)


class FineTuner:
    """Fine-tunes an assembled network on one split after another, always from new copies of the backbone.

    Args:
        assembly: The assembled network and its data.
        settings: The settings of fine-tuning.
        path: Path of the model that is to be made; checkpoints lie beside it.
        reporter: Receives the progress, with a ``TrainingProgress`` as its detail, and notes.
        teacher: Whose probabilities the network learns beside the labels, or None.

    Attributes:
        settings: The settings, completed: which part of several is trained, how deep a search goes, and whether the teacher
            allows repeats on other splits.

    Raises:
        PromotionError: The teacher does not know the images or the classes, or has seen the labels of images that judge.
        SettingsError: The settings name blocks or a backbone that the network does not have, or leave nothing to search.
    """

    def __init__(
        self, assembly: Assembly, settings: FineTuning, path: Path, reporter: Reporter = SILENT,
        teacher: Teacher | None = None,
    ) -> None:  # fmt: skip
        self.assembly, self.path, self.reporter, self.teacher = assembly, path, reporter, teacher
        settings, self._notes = with_part(settings, assembly)
        trained_blocks(assembly.network, assembly.classifier, settings)
        self.settings = _with_depth(settings, assembly)
        if settings.search:
            require_variety(self.settings, taught=teacher is not None)
        if teacher:
            self.settings, notes = teacher.prepare(assembly, self.settings)
            self._notes += notes
            for note in notes:  # before the training that they are about
                reporter.note(note)
        self._checkpoints: list[Checkpoint] = []

    def run(
        self, split: RunSplit, *, on_epoch: Callable[[TrainingHistory], None] = lambda _: None,
        on_trial: Callable[[Sequence[Trial]], None] = lambda _: None,
    ) -> tuple[FineTuningRun, nn.Module]:  # fmt: skip
        """Fine-tune on one split.

        Args:
            split: The images to train, validate and test on, and the heads to start from and to compare with.
            on_epoch: Called before the first epoch and after each epoch.
            on_trial: Called after each trial of a search.

        Returns:
            The run, and the network with its best weights.

        Raises:
            PromotionError: The network cannot be trained.
            SettingsError: The settings name blocks that the network does not have.
            OutputError: A checkpoint cannot be written.
            DatasetError, StaleCacheError: An image cannot be read, or has changed since its features were extracted.
        """
        assembly, data = self.assembly, self.assembly.data
        plain_features = np.asarray(assembly.features.plain[split.validation])
        start = data.score(split.validation, split.start.decision_function(plain_features))
        lesson = self.teacher.lesson(assembly, split.train, split.test) if self.teacher else None
        split = dataclasses.replace(split, taught=lesson.log_probabilities if lesson else None)
        search = self._search(split, on_trial)
        settings, checkpoint = search.settings if search else self.settings, self._checkpoint(split, search)
        network = network_of(split.start, assembly.backbone)
        trained = trained_blocks(network, assembly.classifier, settings)
        began = time.perf_counter()
        inputs = make_batches(assembly, network, trained, split, settings, reporter=self.reporter)
        caching = time.perf_counter() - began
        trainer = Trainer(
            network, inputs.module, trained, settings, n_images=len(split.train), processes=data.processes,
            class_weights=class_weights(settings, data.labels[split.train], len(data.classes)),
        )  # fmt: skip
        history = train(trainer, inputs.source, checkpoint, reporter=self.reporter, on_epoch=on_epoch)
        if history.alpha:
            temperature = data.temperature(split.validation, inputs.source.validation_logits())
            soften(network, assembly.classifier, temperature)
        found = [each.notes for each in (search, lesson) if each]
        history.notes[:0] = [
            note for notes in ([] if split.repeat else self._notes, *found, inputs.notes) for note in notes
        ]
        report, paired, said = self._test(split, network, history)
        seconds = caching + sum(float(entry.get("seconds") or 0) for entry in history.log)
        return FineTuningRun(
            history, report, paired, start, split.chosen_on,
            seconds + (search.seconds + search.caching if search else 0.0), search,
            self._beside_teacher(lesson, split, network, said) if lesson else None,
            self._courses(split, settings, history, report),
        ), network  # fmt: skip

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints of all runs, once the model is saved."""
        for checkpoint in self._checkpoints:
            checkpoint.remove()

    def _search(self, split: RunSplit, on_trial: Callable[[Sequence[Trial]], None]) -> SearchResult | None:
        """Search for the settings on the training images, if these settings ask for it."""
        if not self.settings.search:
            return None
        if not split.repeat:
            self.reporter.stage("searching for the settings")
        search = SettingsSearch(
            self.assembly, split, self.settings, teacher=self.teacher, checkpoint=self._checkpoint(split, None, "search"),
            reporter=self.reporter, on_trial=on_trial,
        )  # fmt: skip
        result = search.run()
        self.reporter.note(f"chosen: {result.why}")
        if not split.repeat:
            self.reporter.stage("fine-tuning")
        return result

    def _checkpoint(self, split: RunSplit, search: SearchResult | None, of: str = "training") -> Checkpoint:
        facts = self._run_facts(split) | {"of": of, "changes": search.changes if search else None}
        self._checkpoints.append(Checkpoint(self.path, facts))
        return self._checkpoints[-1]

    def _courses(
        self, split: RunSplit, settings: FineTuning, history: TrainingHistory, report: ClassificationReport
    ) -> tuple[Course, ...]:
        """Train from random weights too, if the settings ask for it."""
        if not settings.from_random or split.repeat:
            return ()
        own = Course("pretrained", settings.epochs, history.log, report, len(split.validation))
        self.reporter.stage("training from random weights")
        return (own, *(
            train_from_random(
                self.assembly, split, settings, self._checkpoint(split, None, f"{times} times from random"),
                times=times, reporter=self.reporter,
            )
            for times in dict.fromkeys((1, settings.from_random))
        ))  # fmt: skip

    def _beside_teacher(
        self, lesson: Lesson, split: RunSplit, network: nn.Module, said: np.ndarray
    ) -> TeacherComparison:
        """Compare the network with its teacher on the test images, and both in speed."""
        assembly, data, teacher = self.assembly, self.assembly.data, self.teacher
        assert teacher
        paired = PairedTest.from_predictions(
            assembly.features.paths[split.test], data.labels[split.test], lesson.said, said,
            row_groups(assembly.features, split.test),
        )  # fmt: skip
        if split.repeat:
            return TeacherComparison(teacher.name, paired)
        pixels = torch.zeros(TIMED, *data.transform.shape, dtype=torch.uint8, device=data.device)
        own = speed(lambda: logits_of(network, pixels, data.transform), TIMED)
        return TeacherComparison(teacher.name, paired, (teacher.images_per_second(), own))

    def _test(
        self, split: RunSplit, network: nn.Module, history: TrainingHistory
    ) -> tuple[ClassificationReport, PairedTest, np.ndarray]:
        """Report on the network, and compare it with the head, on the test images; and return what it says of them."""
        assembly, data = self.assembly, self.assembly.data
        head_logits = assembly.head_logits(split.rival, split.test)
        logits = assembly.network_logits(network, split.test) if history.alpha else head_logits
        labels, groups = data.labels[split.test], row_groups(assembly.features, split.test)
        report = ClassificationReport.from_predictions(
            labels, softmax(logits), data.classes,
            split="other images" if split.repeat else assembly.test_split, reject_below=split.rival.reject_below_,
            groups=groups, commonest=place_of(split.rival.constant_, data.classes),
        )  # fmt: skip
        paths = assembly.features.paths[split.test]
        said = logits.argmax(axis=1)
        return report, PairedTest.from_predictions(paths, labels, head_logits.argmax(axis=1), said, groups), said

    def _run_facts(self, split: RunSplit) -> dict[str, Any]:
        """Return everything that the weights of a run depend on, as JSON; the verdict's settings are not among it."""
        sha256 = hashlib.sha256()
        keys, labels = self.assembly.features.keys, self.assembly.data.labels
        taught = () if split.taught is None else (split.taught[split.train],)
        for array in (*split.start.as_linear(), keys, labels, split.train, split.validation, *taught):
            sha256.update(np.ascontiguousarray(array).tobytes())
        settings = {k: v for k, v in self.settings.as_stored().items() if k not in ("significance", "repeats")}
        return {
            "settings": settings,
            "identity": self.assembly.head.identity_,
            "sha256": sha256.hexdigest(),
            "repeat": split.repeat,
        }


def soften(network: nn.Module, classifier: str, temperature: float) -> None:
    """Divide a network's logits by a temperature, in the weights of its last layer.

    Args:
        network: The network, which is changed.
        classifier: Name of its last layer.
        temperature: Above 0.
    """
    with torch.no_grad():
        for parameter in network.get_submodule(classifier).parameters():
            parameter.div_(temperature)


def _with_depth(settings: FineTuning, assembly: Assembly) -> FineTuning:
    """Settings that say how many blocks are trained: a search needs to know what it may cache."""
    if not settings.search or settings.last is not None or settings.from_layer is not None:
        return settings
    blocks = len(trained_blocks(assembly.network, assembly.classifier, settings).names)
    return dataclasses.replace(settings, last=min(DEPTH, max(1, blocks - 1)))
