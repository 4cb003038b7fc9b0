"""The blocks of a network in order: its stages, which of them are trained, and at what share of the rate."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

_CONTAINERS = (nn.Sequential, nn.ModuleList)
_FEWEST_STAGES, _PARTS = 4, 3  # where there are fewer sizes of maps, the blocks of one size are read after each third
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


def blocks_up_to(layer: str, names: Sequence[str]) -> int:
    """How many blocks there are up to some layer, and with it: 0 where it is in none and holds none.

    Args:
        layer: name of a module.
        names: of the blocks, in order.
    """
    inside = (
        i for i, name in enumerate(names, 1) if f"{name}.".startswith(f"{layer}.") or layer.startswith(f"{name}.")
    )
    return max(inside, default=0)


def _parts(module: nn.Module, name: str, depth: int) -> Iterator[str]:
    if not any(True for _ in module.parameters()):
        return
    is_list = type(module) in (*_CONTAINERS, nn.Module)  # the last is a folder that torch.fx makes
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


class FrameTracer(fx.Tracer):
    """Sees a network's frame alone: blocks and single layers are single steps, so that what they do in training is theirs.

    Args:
        leaves: names of the blocks.
    """

    def __init__(self, leaves: Sequence[str]) -> None:
        super().__init__()
        self.leaves = set(leaves)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is a single step."""
        return module_qualified_name in self.leaves or not any(True for _ in m.children())


@dataclass(frozen=True)
class Stage:
    """A depth of a network at which it can be read.

    Attributes:
        layer: the last block before the size of the map changes, or the list of blocks that ends there.
        shape: of what it gives for one image: (D, H, W), (H, W, D) or (T, D).
        blocks: how many there are up to it, of all of them.
    """

    layer: str
    shape: tuple[int, ...]
    blocks: int

    @property
    def width(self) -> int:
        """How many numbers an image has there, pooled."""
        return self.shape[0] if len(self.shape) == 3 and not _channels_last(self.shape) else self.shape[-1]


def stages(network: nn.Module, classifier: str, images: Tensor) -> list[Stage]:
    """The depths at which a network can be read, from its input on: one for each size of its maps.

    A network whose blocks are all of one size, as a vision transformer's, is read after each third of them.

    Args:
        network: in eval mode.
        classifier: name of its last layer.
        images: (1, 3, H, W), for one pass.
    """
    names = blocks(network, classifier)
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, out: Any) -> None:
        if isinstance(out, Tensor) and out.ndim in (3, 4):  # a vector belongs to the classifier's own layers
            shapes.setdefault(name, tuple(out.shape[1:]))

    handles = [
        network.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: note(name, out))
        for name in names
    ]
    try:
        with torch.inference_mode():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    seen = [name for name in names if name in shapes]
    groups = [list(group) for _, group in itertools.groupby(seen, key=lambda name: _places(shapes[name]))]
    if len(groups) < _FEWEST_STAGES and groups:
        longest = max(groups, key=len)
        parts = [longest[len(longest) * k // _PARTS : len(longest) * (k + 1) // _PARTS] for k in range(_PARTS)]
        at = groups.index(longest)
        groups[at : at + 1] = [part for part in parts if part]
    every = [*names, classifier]
    return [Stage(_list_of(group, every, network), shapes[group[-1]], names.index(group[-1]) + 1) for group in groups]


def _places(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a map or of tokens, without the width, wherever that stands."""
    if len(shape) == 2:
        return shape[:1]
    return shape[:2] if _channels_last(shape) else shape[1:]


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Of a map of (D, H, W) or (H, W, D), whose height is its width."""
    return shape[0] == shape[1] != shape[2]


def _list_of(group: list[str], names: list[str], network: nn.Module) -> str:
    """The list that holds all blocks of a group and no others, as layer3 does; else the group's last block."""
    last = group[-1]
    parent = last.rpartition(".")[0]
    inside = [name for name in names if name.startswith(f"{parent}.")]
    is_list = parent and type(network.get_submodule(parent)) is nn.Sequential
    return parent if is_list and inside and set(inside) <= set(group) and inside[-1] == last else last
