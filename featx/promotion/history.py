"""The state of a fine-tuning run: its progress, its epochs and their validation scores. Standard library only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of fine-tuning, for a progress bar.

    Attributes:
        epoch: Number of the epoch, from 1; 0 while the activations of the frozen blocks are cached.
        epochs: Maximum number of epochs.
        done: Images of this epoch so far.
        total: Images of an epoch.
        loss: Mean training loss of this epoch so far, in nats.
        accuracy: Validation accuracy of the best epoch so far, or of the head before the first epoch has ended.
        rate: Learning rate of the head.
    """

    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    accuracy: float
    rate: float

    @classmethod
    def caching(cls, done: int, total: int) -> TrainingProgress:
        """Return the progress of caching activations, which precedes the first epoch."""
        return cls(0, 0, done, total, math.nan, 0.0, 0.0)

    def __str__(self) -> str:
        if not self.epoch:
            return "caching activations of the frozen blocks"
        return f"epoch {self.epoch}/{self.epochs}, loss {self.loss:.3f}, rate {self.rate:.1e}, best {self.accuracy:.4f}"


@dataclass(frozen=True)
class ValidationScore:
    """The score of a network on the validation images.

    Attributes:
        accuracy: Share of the images that are classified correctly.
        log_loss: Mean log loss, in nats, at the temperature that fits these images best.
        raw_log_loss: The log loss of the logits as they are, which tells training that diverges; ``log_loss`` if None.
    """

    accuracy: float
    log_loss: float
    raw_log_loss: float | None = None


@dataclass
class TrainingHistory:
    """What has happened so far in a fine-tuning run.

    Attributes:
        log: One entry per epoch: training loss, validation accuracy and log loss, learning rate, seconds. Entry 0 is the head.
        best_epoch: The epoch of least validation log loss; 0 before the first epoch has ended.
        halved: How often the learning rate was halved after training had diverged.
        accumulation_steps: Number of micro-batches that a batch is split into to fit in memory; their gradients are summed.
        alpha: Share of the way from the head's weights to those of the best epoch at which the saved weights lie.
        curve: {alpha: validation log loss} of the weights that were compared.
        notes: Sentences for the user.
    """

    log: list[dict[str, float | None]] = field(default_factory=list)
    best_epoch: int = 0
    halved: int = 0
    accumulation_steps: int = 1
    alpha: float = 0.0
    curve: dict[float, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """The number of the last epoch that has ended."""
        return len(self.log) - 1

    @property
    def best(self) -> ValidationScore:
        """The score of the best epoch, or of the head before the first epoch has ended."""
        entry = self.log[self.best_epoch]
        return ValidationScore(float(entry["accuracy"] or 0), float(entry["log_loss"] or 0))

    def as_stored(self) -> dict[str, Any]:
        """Return the history as a checkpoint stores it: ``accumulation_steps`` under its first name, "pieces"; no curve."""
        facts = dataclasses.asdict(self) | {"curve": {}}
        return {"pieces" if name == "accumulation_steps" else name: value for name, value in facts.items()}

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> TrainingHistory:
        """Return the history that a checkpoint stores."""
        return cls(**{"accumulation_steps" if name == "pieces" else name: value for name, value in stored.items()})
