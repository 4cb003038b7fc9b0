"""What a network is trained towards: the labels of the images and, with a teacher, its probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from featx.heads.postprocess import balanced_weights
from featx.promotion.config import FineTuning


@dataclass(frozen=True, eq=False)
class Targets:
    """The targets of B images of C classes.

    Attributes:
        labels: (B,) int64.
        teacher: (B, C) float32, the logarithms of a teacher's probabilities; None without a teacher.
    """

    labels: Tensor
    teacher: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice) -> Targets:
        """The targets of some of the images."""
        return Targets(self.labels[part], None if self.teacher is None else self.teacher[part])

    def flip(self) -> Targets:
        """The same targets in reverse order."""
        return Targets(self.labels.flip(0), None if self.teacher is None else self.teacher.flip(0))


def distillation_losses(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The divergence of a network from its teacher, both softened by a temperature (Hinton et al., 2015).

    Args:
        logits: (B, C), the network's.
        teacher: (B, C), the teacher's logits or log-probabilities.
        temperature: T, which both are divided by; the loss is multiplied by its square, so that gradients keep their size.

    Returns:
        (B,) Kullback-Leibler divergences in nats, times T squared.

    Examples:
        >>> import torch
        >>> teacher = torch.tensor([[0.5, 0.25, 0.25]]).log()
        >>> distillation_losses(teacher + 3, teacher, 2.0).abs().max() < 1e-6  # logits may be shifted
        tensor(True)
    """
    wanted = F.log_softmax(teacher / temperature, dim=1)
    said = F.log_softmax(logits / temperature, dim=1)
    return temperature**2 * F.kl_div(said, wanted, reduction="none", log_target=True).sum(dim=1)


def class_weights(settings: FineTuning, labels: np.ndarray, n_classes: int) -> np.ndarray | None:
    """Return the (C,) weights of the classes in the loss; None weights all images alike.

    Args:
        settings: ``class_weight`` is read.
        labels: (n,) int64, of the training images.
        n_classes: C.
    """
    return balanced_weights(labels, n_classes) if settings.class_weight == "balanced" else None
