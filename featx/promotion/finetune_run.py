"""Fine-tuning runs: a network trained from a head on, and compared with a head on the test images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from featx.heads.groups import row_groups
from featx.heads.postprocess import balanced_weights, softmax
from featx.metrics.classification import ClassificationReport
from featx.metrics.paired import PairedTest
from featx.promotion.assemble import Assembly, network_of
from featx.promotion.batches import make_batches
from featx.promotion.checkpoint import Checkpoint
from featx.promotion.config import FineTuning
from featx.promotion.history import TrainingHistory, ValidationScore
from featx.promotion.param_groups import trained_blocks
from featx.promotion.splits import RunSplit
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
    """

    history: TrainingHistory
    report: ClassificationReport
    paired: PairedTest
    start: ValidationScore
    chosen_on: str


class FineTuner:
    """Fine-tunes an assembled network on one split after another, always from new copies of the backbone.

    Args:
        assembly: The assembled network and its data.
        settings: The settings of fine-tuning.
        path: Path of the model that is to be made; checkpoints lie beside it.
        reporter: Receives the progress, with a ``TrainingProgress`` as its detail, and notes.
    """

    def __init__(self, assembly: Assembly, settings: FineTuning, path: Path, reporter: Reporter = SILENT) -> None:
        self.assembly, self.settings, self.path, self.reporter = assembly, settings, path, reporter
        self._checkpoints: list[Checkpoint] = []

    def run(
        self, split: RunSplit, *, on_epoch: Callable[[TrainingHistory], None] = lambda _: None
    ) -> tuple[FineTuningRun, nn.Module]:
        """Fine-tune on one split.

        Args:
            split: The images to train, validate and test on, and the heads to start from and to compare with.
            on_epoch: Called before the first epoch and after each epoch.

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
        checkpoint = Checkpoint(self.path, self._run_facts(split))
        self._checkpoints.append(checkpoint)
        network = network_of(split.start, assembly.backbone)
        trained = trained_blocks(network, assembly.classifier, self.settings)
        inputs = make_batches(assembly, network, trained, split, self.settings, reporter=self.reporter)
        trainer = Trainer(
            network, inputs.module, trained, self.settings,
            n_images=len(split.train), class_weights=self._class_weights(split), processes=data.processes,
        )  # fmt: skip
        history = train(trainer, inputs.source, checkpoint, reporter=self.reporter, on_epoch=on_epoch)
        history.notes[:0] = inputs.notes
        report, paired = self._test(split, network, history)
        return FineTuningRun(history, report, paired, start, split.chosen_on), network

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints of all runs, once the model is saved."""
        for checkpoint in self._checkpoints:
            checkpoint.remove()

    def _class_weights(self, split: RunSplit) -> np.ndarray | None:
        if self.settings.class_weight != "balanced":
            return None
        data = self.assembly.data
        return balanced_weights(data.labels[split.train], len(data.classes))

    def _test(
        self, split: RunSplit, network: nn.Module, history: TrainingHistory
    ) -> tuple[ClassificationReport, PairedTest]:
        """Report on the network, and compare it with the head, on the test images."""
        assembly, data = self.assembly, self.assembly.data
        head_logits = assembly.head_logits(split.rival, split.test)
        logits = assembly.network_logits(network, split.test) if history.alpha else head_logits
        labels, groups = data.labels[split.test], row_groups(assembly.features, split.test)
        report = ClassificationReport.from_predictions(
            labels, softmax(logits), data.classes,
            split="other images" if split.repeat else assembly.test_split, reject_below=split.rival.reject_below_,
            groups=groups,
        )  # fmt: skip
        paths = assembly.features.paths[split.test]
        return report, PairedTest.from_predictions(
            paths, labels, head_logits.argmax(axis=1), logits.argmax(axis=1), groups
        )

    def _run_facts(self, split: RunSplit) -> dict[str, Any]:
        """Return everything that the weights of a run depend on, as JSON; the verdict's settings are not among it."""
        sha256 = hashlib.sha256()
        keys, labels = self.assembly.features.keys, self.assembly.data.labels
        for array in (*split.start.as_linear(), keys, labels, split.train, split.validation):
            sha256.update(np.ascontiguousarray(array).tobytes())
        settings = {k: v for k, v in self.settings.as_stored().items() if k not in ("significance", "repeats")}
        return {
            "settings": settings,
            "identity": self.assembly.head.identity_,
            "sha256": sha256.hexdigest(),
            "repeat": split.repeat,
        }
