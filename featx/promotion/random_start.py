"""The same network trained from random weights, beside the one that starts pretrained (He et al., 2018)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from featx.heads.groups import row_groups
from featx.heads.postprocess import softmax
from featx.io.outputs import Output, picture
from featx.metrics.classification import ClassificationReport
from featx.promotion.assemble import Assembly, network_of
from featx.promotion.batches import ImageBatches
from featx.promotion.checkpoint import Checkpoint
from featx.promotion.config import FineTuning
from featx.promotion.param_groups import trained_blocks
from featx.promotion.splits import RunSplit
from featx.promotion.targets import class_weights
from featx.promotion.trainer import Trainer, train
from featx.reporter import Reporter
from featx.text import counted

FIGURE = picture("figure of a random start")
"""The figure beside a model, as an output."""

Log = list[dict[str, float | None]]


@dataclass(frozen=True, eq=False)
class Course:
    """One training of the network.

    Attributes:
        name: What it started from.
        epochs: Epochs of its schedule.
        log: One entry for each epoch, as of a ``TrainingHistory``; entry 0 is before the first.
        report: The trained network on the test images.
        n_validation: Number of images that the log's accuracies are of.
    """

    name: str
    epochs: int
    log: Log
    report: ClassificationReport
    n_validation: int

    @property
    def seconds(self) -> float:
        """Wall time of all epochs."""
        return sum(float(entry.get("seconds") or 0) for entry in self.log)

    def as_dict(self) -> dict[str, Any]:
        """The course as JSON has it."""
        return {
            "name": self.name,
            "epochs": len(self.log) - 1,
            "seconds": round(self.seconds, 3),
            "accuracy": self.report.accuracy,
            "interval": list(self.report.interval),
            "log": self.log,
        }


def train_from_random(
    assembly: Assembly, split: RunSplit, settings: FineTuning, checkpoint: Checkpoint, *, times: int, reporter: Reporter
) -> Course:
    """Train the whole network from random weights and evaluate it on the test images.

    The augmentation, the optimizer, the rate of the head and the form of the schedule are those of fine-tuning. All blocks
    have that rate, batch norm learns its statistics, and the schedule runs to its end: what is pretrained asks for other values
    of these.

    Args:
        assembly: The assembled network and its data.
        split: Its training images train, its validation images choose the epoch, its test images judge.
        settings: Of fine-tuning.
        checkpoint: Of this training, which is resumed from it.
        times: The number of epochs, as a multiple of that of the settings.
        reporter: Receives the progress, and a milestone after each epoch.
    """
    epochs, data = times * settings.epochs, assembly.data
    settings = dataclasses.replace(
        settings, epochs=epochs, patience=epochs, last=None, from_layer=None, backbone_lr=1.0, layer_decay=1.0,
        train_bn=True, interpolate=False,
    )  # fmt: skip
    network = network_of(split.start, assembly.backbone)
    with torch.random.fork_rng([data.device] if data.device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        reset(network)
    source = ImageBatches(data, network, settings, train=split.train, validation=split.validation)
    trainer = Trainer(
        network, network, trained_blocks(network, assembly.classifier, settings), settings,
        n_images=len(split.train), processes=data.processes,
        class_weights=class_weights(settings, data.labels[split.train], len(data.classes)),
    )  # fmt: skip
    history = train(trainer, source, checkpoint, reporter=reporter)
    report = ClassificationReport.from_predictions(
        data.labels[split.test], softmax(assembly.network_logits(network, split.test)), data.classes,
        split=assembly.test_split, groups=row_groups(assembly.features, split.test),
    )  # fmt: skip
    return Course("random weights", epochs, history.log, report, len(split.validation))


def reset(network: nn.Module) -> None:
    """Give a network random weights: each module's own initialisation, and small normal numbers where it has none."""
    own = set()
    for module in network.modules():
        if callable(start := getattr(module, "reset_parameters", None)):
            start()
            own |= {id(parameter) for parameter in module.parameters(recurse=False)}
    for parameter in network.parameters():
        if id(parameter) not in own:
            with torch.no_grad():
                parameter.normal_(std=0.02)


def figure_file(model: Path) -> Output:
    """The figure beside a model."""
    return Output(model.with_suffix(".random.png"), FIGURE)


def draw(model: Path, courses: Sequence[Course], subject: str) -> None:
    """Draw accuracy on the validation images against epochs and against seconds.

    Raises:
        OutputError: The figure cannot be written.
    """
    from featx.report.plots import courses_figure, save_png

    figure = courses_figure(
        [
            (
                f"{course.name}, {counted(course.epochs, 'epoch')}",
                [float(entry["accuracy"] or 0) for entry in course.log],
                np.cumsum([float(entry.get("seconds") or 0) for entry in course.log]).tolist(),
                course.n_validation,
            )
            for course in courses
        ],
        subject=subject,
    )
    save_png(figure, figure_file(model).path, FIGURE)
