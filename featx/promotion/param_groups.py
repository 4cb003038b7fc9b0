"""Which blocks of a network are trained, and at which learning rates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from featx.backbones.blocks import block_names
from featx.backbones.embedder import JointNetwork
from featx.errors import SettingsError
from featx.promotion.config import FineTuning
from featx.text import counted


@dataclass(frozen=True)
class TrainedBlocks:
    """Which blocks of a network are trained: all from one block on, and always the classifier.

    Attributes:
        classifier: Name of the classifier, the network's last layer.
        names: Names of all blocks, in order.
        first: Index of the first block that is trained; 0 trains all blocks, ``len(names)`` none.
        others: The number of blocks, first of all, that are whole networks beside the one that is trained.
    """

    classifier: str
    names: tuple[str, ...]
    first: int
    others: int = 0

    @property
    def first_layer(self) -> str:
        """The name of the first block that is trained, or of the classifier."""
        return (*self.names, self.classifier)[self.first]


def trained_blocks(network: nn.Module, classifier: str, settings: FineTuning) -> TrainedBlocks:
    """Return which blocks of a network the settings select for training.

    Args:
        network: The whole network.
        classifier: Name of its last layer.
        settings: ``from_layer``, ``last`` and, for several networks side by side, ``part`` are read.

    Raises:
        SettingsError: ``from_layer`` is not the name of a block, or ``last`` exceeds the number of blocks.
    """
    if isinstance(network, JointNetwork):
        return _of_one_part(network, classifier, settings)
    names = tuple(block_names(network, classifier))
    first = 0
    if settings.from_layer is not None:
        layer = settings.from_layer
        matches = (index for index, name in enumerate(names) if name == layer or name.startswith(f"{layer}."))
        first = next(matches, -1)
        if first < 0:
            raise SettingsError(f"there is no block {layer!r} to train from; the blocks are {', '.join(names)}")
    elif settings.last is not None:
        first = len(names) - settings.last
        if first < 0:
            raise SettingsError(
                f"--last {settings.last} is more than the {counted(len(names), 'block')} of this network: {', '.join(names)}"
            )
    return TrainedBlocks(classifier, names, first)


def _of_one_part(network: JointNetwork, classifier: str, settings: FineTuning) -> TrainedBlocks:
    """The blocks of one of several networks, after the others, which count as a block each that is not trained."""
    chosen, place = int(settings.part or 1) - 1, "parts.{}"
    inside = "extractor.network"
    extractor: Any = network.get_submodule(f"{place.format(chosen)}.extractor")
    blocks = trained_blocks(extractor.network, extractor.classifier, settings)
    others = [place.format(number) for number in range(len(network.parts)) if number != chosen]
    names = [f"{place.format(chosen)}.{inside}.{name}" for name in blocks.names]
    return TrainedBlocks(classifier, (*others, *names), len(others) + blocks.first, len(others))


def parameter_groups(network: nn.Module, trained: TrainedBlocks, settings: FineTuning) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups, and freeze all parameters that are not trained.

    The head has the learning rate ``lr``, the last block ``backbone_lr`` times that, and each block before it ``layer_decay``
    times the rate of the block after it. Biases and norms have no weight decay. Parameters outside all blocks, such as a class
    token, belong to the first block.

    Returns:
        One group for each pair of learning rate and weight decay.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if name.startswith(f"{trained.classifier}."):
            rate = settings.lr
        else:
            index = next((i for i, block in enumerate(trained.names) if name.startswith(f"{block}.")), trained.others)
            parameter.requires_grad_(index >= trained.first)
            rate = settings.lr * settings.backbone_lr * settings.layer_decay ** (len(trained.names) - 1 - index)
        if parameter.requires_grad:
            groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": settings.weight_decay * decays}
        for (rate, decays), parameters in groups.items()
    ]


def modules_in_eval_mode(network: nn.Module, trained: TrainedBlocks, *, train_bn: bool) -> Iterator[nn.Module]:
    """Yield the modules that stay in eval mode during training: frozen blocks and, unless ``train_bn``, all batch norms."""
    for name in trained.names[: trained.first]:
        yield network.get_submodule(name)
    if not train_bn:
        yield from (m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
