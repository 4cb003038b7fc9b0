"""The settings of fine-tuning. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from featx.errors import HeadError

OPTIMIZERS = ("adamw", "sgd")
"""What fine-tuning steps by: AdamW, or SGD with Nesterov's momentum."""

AUGMENTATIONS = ("none", "crop", "randaugment")
"""How training images are varied: not at all, by random crops and mirroring, or by RandAugment's operations besides."""


@dataclass(frozen=True)
class FineTuning:
    """How the network is trained, from the head on.

    Attributes:
        epochs: at most; each passes once over the training images.
        lr: of the head, at its highest.
        backbone_lr: share of it that the backbone's last block has.
        layer_decay: share of a block's rate that the block before it has.
        from_layer: the first block that is trained; None is ``last``, or all.
        last: how many of the last blocks are trained besides the head; None is all.
        train_bn: let batch norm's statistics move; by default they stay as pretrained.
        optimizer: "adamw" or "sgd" (Nesterov, momentum 0.9).
        weight_decay: on matrices and kernels alone.
        clip: largest norm of the gradient.
        batch_size: images per step.
        warmup: share of all steps in which the rate rises from 0; then it falls as a cosine.
        patience: epochs without a better selection before training stops.
        augment: "crop" (with ``crop_scale`` and ``flip``), "randaugment" (that besides; Cubuk et al., 2020), or "none".
        crop_scale: least share of an image's area that a random crop keeps.
        flip: mirror half of the training images; wrong where left and right mean something, as in text.
        mixup: pairs of images are mixed by shares drawn from Beta(mixup, mixup) (Zhang et al., 2018); 0 mixes none.
        label_smoothing: share of each label that is spread over all classes (Szegedy et al., 2016).
        class_weight: "balanced": each class counts alike in the loss, however many images it has.
        ema: decay per step of an average of the weights, which is what is judged and kept; 0 keeps the weights themselves.
        views: random crops of each image that the frozen part's outputs are kept of, where only the last blocks are trained; 0
            runs it anew in every epoch.
        compile: by torch.compile, one program for each size of batch; it takes a minute or so before the first step.
        interpolate: try weights between the head's network and the tuned one (WiSE-FT; Wortsman et al., 2022).
        significance: the fine-tuned network takes the head's place where chance alone would be so far ahead this often at most.
        repeats: where a gain may be luck, ask up to as many other splits; together they judge every labelled image once. 0 asks
            none.
        seed: of the order, the crops, mixing and dropout.
    """

    epochs: int = 10
    lr: float = 1e-3
    backbone_lr: float = 0.1
    layer_decay: float = 1.0
    from_layer: str | None = None
    last: int | None = None
    train_bn: bool = False
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    clip: float = 1.0
    batch_size: int = 32
    warmup: float = 0.1
    patience: int = 4
    augment: str = "crop"
    crop_scale: float = 0.35
    flip: bool = True
    mixup: float = 0.0
    label_smoothing: float = 0.0
    class_weight: str | None = None
    ema: float = 0.0
    views: int = 4
    compile: bool = False
    interpolate: bool = True
    significance: float = 0.05
    repeats: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        inf = float("inf")
        for names, holds, expected in (
            (("epochs", "batch_size", "patience"), lambda n: n >= 1, "at least 1"),
            (("lr", "backbone_lr", "clip"), lambda x: 0 < x < inf, "a number above 0"),
            (("weight_decay", "mixup"), lambda x: 0 <= x < inf, "a number from 0 on"),
            (("layer_decay", "crop_scale", "significance"), lambda x: 0 < x <= 1, "a share above 0, at most 1"),
            (("warmup", "label_smoothing", "ema"), lambda x: 0 <= x < 1, "a share from 0 on, below 1"),
            (("last",), lambda n: n is None or n >= 0, "a number of blocks from 0 on"),
            (("views",), lambda n: n >= 0, "a number from 0 on"),
            (("repeats",), lambda n: n == 0 or n >= 2, "at least 2, or 0"),
            (("optimizer",), OPTIMIZERS.__contains__, " or ".join(OPTIMIZERS)),
            (("augment",), AUGMENTATIONS.__contains__, ", ".join(AUGMENTATIONS)),
            (("class_weight",), (None, "balanced").__contains__, "balanced, or None"),
        ):
            for name in names:
                if not holds(getattr(self, name)):
                    raise HeadError(f"{name} is {getattr(self, name)!r}; expected {expected}")
        if self.last is not None and self.from_layer is not None:
            raise HeadError("--from and --last are two ways to say where training begins; expected one of them")
