"""Names and defaults that the command line shows before anything heavy is imported. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from featx.errors import HeadError

KINDS = ("logreg", "linear", "svm", "ridge", "knn", "centroid", "mlp")
"""Kinds of head."""

KERNELS = ("linear", "rbf")
"""Kernels of an svm head."""

TASKS = ("classification", "multilabel", "regression")
"""What a head may be asked: one class of many, any number of labels, or numbers."""

CALIBRATIONS = ("temperature", "isotonic", "none")
"""How a head's probabilities are made to mean what they say."""

DTYPES = ("float32", "float16")
"""What features may be kept as."""

PRECISIONS = ("float32", "bfloat16", "float16")
"""What a network may compute in. All but the first are part of what features are."""

ENGINES = ("eager", "compile", "openvino", "onnxruntime")
"""What may run a network. All give the same features, to a relative 1e-4 of each row's norm."""

MOST_SIDE = 2048
"""The largest resize and crop, in pixels: memory grows with the square, and a file from a stranger may ask for it."""

Progress = Callable[[int, int], None]
"""Called with how many images (backbones, fits) are done and of how many."""

CACHE, MODELS = "cache", "models"
"""Default folders of feature files, and of heads and models."""


@dataclass(frozen=True)
class FineTuning:
    """How the whole network is trained, from the head on.

    Attributes:
        epochs: at most; each passes once over the training images.
        lr: of the head; the backbone's is a tenth of it.
        batch_size: images per step.
        weight_decay: AdamW's, on matrices and kernels alone.
        warmup: share of all steps in which the rate rises from 0; then it falls as a cosine.
        patience: epochs without a better selection before training stops.
        crop_scale: least share of an image's area that a random crop keeps.
        flip: mirror half of the training images; wrong where left and right mean something, as in text.
        train_norms: let batch norm's statistics move; by default they stay as pretrained.
        seed: of the order, the crops and dropout.
    """

    epochs: int = 10
    lr: float = 3e-4
    batch_size: int = 32
    weight_decay: float = 0.01
    warmup: float = 0.1
    patience: int = 4
    crop_scale: float = 0.35
    flip: bool = True
    train_norms: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise HeadError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not (0 < self.lr < float("inf") and 0 <= self.weight_decay < float("inf")):
            raise HeadError(f"lr is {self.lr} and weight_decay {self.weight_decay}; expected above 0 and at least 0")
        if not (0 <= self.warmup <= 1 and 0 < self.crop_scale <= 1):
            raise HeadError(f"warmup is {self.warmup} and crop_scale {self.crop_scale}; expected shares of 1")
