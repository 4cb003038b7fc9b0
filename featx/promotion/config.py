"""The settings of fine-tuning. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from featx.errors import SettingsError
from featx.text import form

OPTIMIZERS = ("adamw", "sgd")
"""The optimizers: AdamW, or SGD with Nesterov momentum."""

AUGMENTATIONS = ("none", "crop", "randaugment")
"""The augmentations of training images: none, random crops and mirroring, or RandAugment on top of these."""

_STORED_NAMES = {"cached_crops": "views"}
"""Field: its key in model files and checkpoints, where the two differ."""


@dataclass(frozen=True)
class FineTuning:
    """Settings of fine-tuning: what is trained, how, and how much better than the head it has to be.

    The defaults are measured in docs/promotion.md.

    Attributes:
        epochs: Maximum number of epochs; an epoch passes once over the training images.
        lr: Peak learning rate of the head.
        backbone_lr: Learning rate of the backbone's last block, as a share of ``lr``.
        layer_decay: Learning rate of each block, as a share of the rate of the block after it.
        from_layer: First block to train, such as "layer4"; None leaves the choice to ``last``.
        last: Number of blocks to train besides the head, counted from the end; 0 trains the head alone, None everything.
        part: For a head on several backbones, the name or the number (from "1") of the one that is fine-tuned, while the others
            stay as they are; by default the one whose features alone have the least log loss on the validation images.
        train_bn: Update the running statistics of batch norm; by default they stay as pretrained.
        optimizer: "adamw", or "sgd" with Nesterov momentum of 0.9.
        weight_decay: Weight decay of matrices and convolution kernels; biases and norms have none.
        clip: Largest allowed norm of the gradient.
        batch_size: Images per optimizer step, over all processes.
        warmup: Share of all steps in which the learning rate rises linearly; after that it falls as a cosine.
        patience: Number of epochs without a lower validation log loss after which training stops; 0 trains all epochs. A
            schedule that ends early never reaches its low rates, at which most is gained.
        augment: Augmentation of the training images: "none"; "crop", for random crops and mirroring; or "randaugment", for
            RandAugment (Cubuk et al., 2020) on top of these.
        crop_scale: Smallest share of an image's area that a random crop covers.
        flip: Mirror half of the training images; turn it off where left and right have a meaning, as in text.
        mixup: Parameter of the Beta(mixup, mixup) distribution that weights for mixing pairs of images are drawn from
            (Zhang et al., 2018); 0 turns mixup off.
        label_smoothing: Share of each label that is spread over all classes (Szegedy et al., 2016).
        class_weight: "balanced" weights the loss so that all classes count alike, however many images each has.
        ema: Decay per step of the exponential moving average of the weights, which is then validated and saved in place of
            the weights themselves; 0 turns averaging off.
        teacher_weight: Share of the loss that is the divergence from the teacher's probabilities, where there is a teacher; the
            rest is the loss of the labels.
        temperature: Temperature by which the probabilities of network and teacher are softened before they are compared
            (Hinton et al., 2015).
        cached_crops: Number of random crops of each image whose activations are cached when only the last blocks are
            trained; 0 turns the cache off and runs the frozen blocks in every epoch.
        compile: Train with torch.compile, which takes about a minute for each of the two batch sizes before the first step.
        interpolate: Also validate weights interpolated between the head's network and the fine-tuned one (WiSE-FT;
            Wortsman et al., 2022), and save the best.
        significance: Largest probability that luck alone promotes a network that is no better than the head.
        repeats: Maximum number of further splits to fine-tune on where a gain may be luck; together they test every
            labelled image once. 0 turns repeats off.
        search: Number of settings to try on folds of the training images before the best are trained (successive halving; Li
            et al., 2018); 0 trains these settings. A search varies those settings that have their default.
        budget: Seconds after which a search ends, within a trial too; caching the activations of frozen blocks, most of which
            training reads too, is not counted. 0 sets no limit.
        from_random: Train the network from random weights too, for as many epochs and for this many times as many, to see what
            pretraining is worth (He et al., 2018); 0 does not.
        seed: Seed of the order of the images, of crops, mixup and dropout, and of the further splits.

    Raises:
        SettingsError: A setting is out of range, or both ``from_layer`` and ``last`` are given.

    Examples:
        >>> FineTuning(last=3, epochs=20).cached_crops
        4
        >>> FineTuning(augment="cutout")
        Traceback (most recent call last):
            ...
        featx.errors.SettingsError: augment is 'cutout'; expected none, crop or randaugment
    """

    epochs: int = 10
    lr: float = 1e-3
    backbone_lr: float = 0.1
    layer_decay: float = 1.0
    from_layer: str | None = None
    last: int | None = None
    part: str | None = None
    train_bn: bool = False
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    clip: float = 1.0
    batch_size: int = 32
    warmup: float = 0.1
    patience: int = 0
    augment: str = "crop"
    crop_scale: float = 0.35
    flip: bool = True
    mixup: float = 0.0
    label_smoothing: float = 0.0
    class_weight: str | None = None
    ema: float = 0.0
    teacher_weight: float = 0.5
    temperature: float = 2.0
    cached_crops: int = 4
    compile: bool = False
    interpolate: bool = True
    significance: float = 0.05
    repeats: int = 5
    search: int = 0
    budget: float = 0.0
    from_random: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for names, is_valid, expected in _RULES:
            for name in names:
                if not is_valid(getattr(self, name)):
                    raise SettingsError(f"{name} is {getattr(self, name)!r}; expected {expected}")
        if self.budget and not self.search:
            raise SettingsError(
                f"budget is {self.budget:g} {form(self.budget, 'second', 'seconds')}, and there is no search; give search too"
            )
        if self.last is not None and self.from_layer is not None:
            raise SettingsError(
                "--from and --last are two ways to set the first block that is trained; give one of them"
            )

    def as_stored(self) -> dict[str, Any]:
        """Return the settings as model files and checkpoints store them: ``cached_crops`` under its first name, "views"."""
        return {_STORED_NAMES.get(name, name): value for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> FineTuning:
        """Return the settings that a model file stores under "settings".

        Raises:
            SettingsError: A value is out of range.
        """
        names = {stored_name: name for name, stored_name in _STORED_NAMES.items()}
        return cls(**{names.get(name, name): value for name, value in stored.items()})


_RULES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (("epochs", "batch_size"), lambda n: n >= 1, "at least 1"),
    (("lr", "backbone_lr", "clip", "temperature"), lambda x: 0 < x < float("inf"), "a number above 0"),
    (("weight_decay", "mixup", "budget"), lambda x: 0 <= x < float("inf"), "a number of at least 0"),
    (
        ("layer_decay", "crop_scale", "significance", "teacher_weight"),
        lambda x: 0 < x <= 1,
        "a share above 0 and at most 1",
    ),
    (("warmup", "label_smoothing", "ema"), lambda x: 0 <= x < 1, "a share of at least 0 and below 1"),
    (("last",), lambda n: n is None or n >= 0, "a number of blocks of at least 0"),
    (("part",), lambda name: name is None or (isinstance(name, str) and bool(name)), "the name of a backbone"),
    (("cached_crops",), lambda n: n >= 0, "a number of crops of at least 0"),
    (("from_random", "patience"), lambda n: n >= 0, "a number of at least 0"),
    (("repeats", "search"), lambda n: n == 0 or n >= 2, "at least 2, or 0"),
    (("optimizer",), OPTIMIZERS.__contains__, "adamw or sgd"),
    (("augment",), AUGMENTATIONS.__contains__, "none, crop or randaugment"),
    (("class_weight",), (None, "balanced").__contains__, "balanced or None"),
)
"""(settings, whether a value is valid, what is valid in words)."""


def in_words(changes: Mapping[str, Any]) -> str:
    """Return changes as the options of the command line.

    Examples:
        >>> in_words({"lr": 0.003, "backbone_lr": 0.3, "augment": "none"}), in_words({})
        ('--lr 0.003 --backbone-lr 0.3 --augment none', 'the settings as given')
    """
    words = [
        f"--{name.replace('_', '-')} {value if isinstance(value, str) else f'{value:g}'}"
        for name, value in changes.items()
    ]
    return " ".join(words) or "the settings as given"
