"""The blocks of a network in order: which of them are trained, and at what share of the rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from featx.errors import HeadError
from featx.settings import FineTuning

_CONTAINERS = (nn.Sequential, nn.ModuleList)
_MOSTLY = 0.5  # share of a module's parameters that its list of blocks holds, where it is no more than a frame for them


def blocks(network: nn.Module, classifier: str) -> list[str]:
    """Names of a network's blocks, from its input on: residual blocks, transformer layers, single layers where there are none.

    Lists of modules are taken apart, but for lists of single layers within a list: each of these is one block. The classifier
    is none.

    Args:
        network: any.
        classifier: name of its last layer.
    """
    return [name for name in _parts(network, "", 0) if name != classifier]


def _parts(module: nn.Module, name: str, depth: int) -> Iterator[str]:
    if not any(True for _ in module.parameters()):
        return
    is_list = type(module) in _CONTAINERS
    is_block = depth > 1 and all(
        isinstance(m, _CONTAINERS) or not any(True for _ in m.children()) for m in module.modules()
    )
    if depth == 0 or (is_list and not is_block) or (depth == 1 and _is_frame(module)):
        for own, child in module.named_children():
            yield from _parts(child, f"{name}.{own}" if name else own, depth + 1)
    else:
        yield name


def _is_frame(module: nn.Module) -> bool:
    """Whether nearly all of a module is a list of blocks, as in a transformer's encoder."""
    total = sum(p.numel() for p in module.parameters())
    lists = [child for child in module.children() if type(child) in _CONTAINERS and len(child) > 2]  # type: ignore[arg-type]
    return any(sum(p.numel() for p in child.parameters()) > _MOSTLY * total for child in lists)


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
    names = tuple(blocks(network, classifier))
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
