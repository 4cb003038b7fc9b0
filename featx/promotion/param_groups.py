"""Which blocks of a network are trained, and at what share of the learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from featx.backbones.blocks import block_names
from featx.errors import HeadError
from featx.promotion.config import FineTuning


@dataclass(frozen=True)
class Trained:
    """Which of a network's blocks are trained.

    Attributes:
        classifier: name of the network's last layer, which always is.
        names: of all blocks, in order.
        first: which of them is the first that is: 0 for all, as many as there are for none.
    """

    classifier: str
    names: tuple[str, ...]
    first: int

    @property
    def layer(self) -> str:
        """The first that is trained: a block, or the classifier."""
        return (*self.names, self.classifier)[self.first]


def trained(network: nn.Module, classifier: str, settings: FineTuning) -> Trained:
    """What the settings ask to be trained of a network.

    Raises:
        HeadError: ``from_layer`` names no block, or ``last`` is more than there are.
    """
    names = tuple(block_names(network, classifier))
    first = 0
    if settings.from_layer is not None:
        wanted = settings.from_layer
        found = (index for index, name in enumerate(names) if name == wanted or name.startswith(f"{wanted}."))
        first = next(found, -1)
        if first < 0:
            raise HeadError(f"there is no block {wanted!r} to train from; the blocks are {', '.join(names)}")
    elif settings.last is not None:
        first = len(names) - settings.last
        if first < 0:
            raise HeadError(
                f"the last {settings.last} blocks are more than the {len(names)} there are: {', '.join(names)}"
            )
    return Trained(classifier, names, first)


def parameter_groups(network: nn.Module, which: Trained, settings: FineTuning) -> list[dict[str, Any]]:
    """The parameters that are trained, for an optimizer: those of one rate and decay together; all others are frozen.

    The head has ``lr``; the last block ``backbone_lr`` of it, each block before that ``layer_decay`` of the one behind
    it. Biases and norms do not decay. What belongs to no block (a class token) is of the first one.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if name.startswith(f"{which.classifier}."):
            rate = settings.lr
        else:
            place = next((i for i, block in enumerate(which.names) if name.startswith(f"{block}.")), 0)
            parameter.requires_grad_(place >= which.first)
            rate = settings.lr * settings.backbone_lr * settings.layer_decay ** (len(which.names) - 1 - place)
        if parameter.requires_grad:
            groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": settings.weight_decay * decays}
        for (rate, decays), parameters in groups.items()
    ]


def frozen(network: nn.Module, which: Trained, *, norms: bool) -> Iterator[nn.Module]:
    """Modules that are to stay as in eval mode: blocks that are not trained, and all batch norms unless these are to move."""
    for name in which.names[: which.first]:
        yield network.get_submodule(name)
    if not norms:
        yield from (m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
