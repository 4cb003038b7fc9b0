"""The blocks of a network in order, and its stages: the depths at which it can be read."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

_CONTAINERS = (nn.Sequential, nn.ModuleList)
_MIN_STAGES, _PARTS = 4, 3
"""A network with fewer stages than ``_MIN_STAGES`` has its longest stage divided into ``_PARTS``."""

_FRAME_SHARE = 0.5
"""A module is only a frame for its list of blocks if the list holds more than this share of its parameters."""


def block_names(network: nn.Module, classifier: str) -> list[str]:
    """The names of a network's blocks, from its input on: residual blocks, transformer layers, or single layers.

    Lists of modules are taken apart, except a list of single layers within a list, which is one block. The classifier is not a
    block.

    Args:
        network: any network.
        classifier: the name of its last layer.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 2))
        >>> block_names(network, classifier="4")
        ['0', '2']
    """
    return [name for name in _parts(network, "", 0) if name != classifier]


def blocks_up_to(layer: str, names: Sequence[str]) -> int:
    """The number of blocks up to and including a layer: 0 if the layer is in no block and contains none.

    Args:
        layer: the name of a module.
        names: the names of the blocks, in order.

    Examples:
        >>> blocks_up_to("layer2", ["conv1", "layer1.0", "layer2.0", "layer2.1", "layer3.0"])
        4
    """
    inside = (
        i for i, name in enumerate(names, 1) if f"{name}.".startswith(f"{layer}.") or layer.startswith(f"{name}.")
    )
    return max(inside, default=0)


def _parts(module: nn.Module, name: str, depth: int) -> Iterator[str]:
    if not any(True for _ in module.parameters()):
        return
    is_list = type(module) in (*_CONTAINERS, nn.Module)  # torch.fx makes plain nn.Module containers
    is_block = depth > 1 and all(
        isinstance(m, _CONTAINERS) or not any(True for _ in m.children()) for m in module.modules()
    )
    around_frame = (
        depth == 1 and not is_list and _is_around_frame(module)
    )  # its children are as those of the whole network
    if depth == 0 or (is_list and not is_block) or (depth == 1 and _is_frame(module)) or around_frame:
        for own, child in module.named_children():
            yield from _parts(child, f"{name}.{own}" if name else own, depth + (not around_frame))
    else:
        yield name


def _is_frame(module: nn.Module) -> bool:
    """Whether a list of blocks holds most of a module's parameters, as in a transformer's encoder."""
    total = sum(p.numel() for p in module.parameters())
    lists = [child for child in module.children() if type(child) in _CONTAINERS and len(child) > 2]  # type: ignore[arg-type]
    return any(sum(p.numel() for p in child.parameters()) > _FRAME_SHARE * total for child in lists)


def _is_around_frame(module: nn.Module) -> bool:
    """Whether one child that is no list holds most of a module's parameters, and is or has a frame itself."""
    total = sum(p.numel() for p in module.parameters())
    return not _is_frame(module) and any(
        type(child) not in _CONTAINERS
        and sum(p.numel() for p in child.parameters()) > _FRAME_SHARE * total
        and (_is_frame(child) or _is_around_frame(child))
        for child in module.children()
    )


class FrameTracer(fx.Tracer):
    """Trace only the frame of a network: each block and each single layer is one node of the graph.

    The graph does not fix what a block does, so blocks behave differently in training and in eval mode as they should.

    Args:
        leaves: the names of the blocks.
    """

    def __init__(self, leaves: Sequence[str]) -> None:
        super().__init__()
        self.leaves = set(leaves)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node of the graph."""
        return module_qualified_name in self.leaves or not any(True for _ in m.children())


@dataclass(frozen=True)
class Stage:
    """A depth at which a network can be read.

    Attributes:
        layer: the last block before the size of the maps changes, or the list of blocks that ends there.
        shape: the shape of its output for one image: (D, H, W), (H, W, D) or (T, D).
        blocks: the number of the network's blocks up to and including it.
        width: width D of the pooled output.
    """

    layer: str
    shape: tuple[int, ...]
    blocks: int
    width: int


def find_stages(network: nn.Module, classifier: str, images: Tensor) -> list[Stage]:
    """Find the depths at which a network can be read, from its input on: one for each size of its maps.

    A network whose blocks all have maps of one size, such as a vision transformer, is read after each third of them.

    Args:
        network: a network in eval mode.
        classifier: the name of its last layer.
        images: (1, 3, H, W) that the network accepts, for one forward pass.
    """
    names = block_names(network, classifier)
    shapes = _output_shapes(network, names, images)
    with_maps = [name for name in names if name in shapes]
    places = {name: _places(shapes[name], tuple(images.shape[-2:])) for name in with_maps}
    groups = [list(group) for _, group in itertools.groupby(with_maps, key=lambda name: shapes[name][places[name]])]
    if len(groups) < _MIN_STAGES and groups:
        longest = max(groups, key=len)
        parts = [longest[len(longest) * k // _PARTS : len(longest) * (k + 1) // _PARTS] for k in range(_PARTS)]
        at = groups.index(longest)
        groups[at : at + 1] = [part for part in parts if part]
    layers = [*names, classifier]
    stages = []
    for group in groups:
        last = group[-1]
        width = shapes[last][0] if places[last].start == 1 else shapes[last][-1]
        stages.append(Stage(_list_of(group, layers, network), shapes[last], names.index(last) + 1, width))
    return stages


def _output_shapes(network: nn.Module, names: Sequence[str], images: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape for one image of each block's first output that is a map or tokens."""
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str, out: Any) -> None:
        out = first_tensor(out)
        if isinstance(out, Tensor) and out.ndim in (3, 4):  # vectors come from the layers of the classifier
            shapes.setdefault(name, tuple(out.shape[1:]))

    with told_outputs(network, names, record), torch.inference_mode():
        network(images)
    return shapes


@contextlib.contextmanager
def told_outputs(network: nn.Module, names: Iterable[str], record: Callable[[str, Any], None]) -> Iterator[None]:
    """Within the context, ``record`` gets the name and the output of each of some layers whenever it runs."""
    with contextlib.ExitStack() as hooks:
        for name in names:
            layer = network.get_submodule(name)
            hooks.enter_context(layer.register_forward_hook(lambda _, __, out, name=name: record(name, out)))
        yield


def first_tensor(out: Any) -> Any:
    """The first of several outputs of a layer, as many layers of transformers return them: the hidden states."""
    if isinstance(out, tuple) and out and isinstance(out[0], Tensor):
        return out[0]
    return getattr(out, "last_hidden_state", out)


_MOST_APART, _MOST_LOST = 0.15, 2
"""How far the shape of a map may be from that of the images: a logarithm of the ratio, or rows or columns."""


def _places(shape: tuple[int, ...], images: tuple[int, ...]) -> slice:
    """The dimensions of a map or of tokens without the width D: (H, W) or (T,)."""
    if len(shape) == 2:
        return slice(0, 1)
    return slice(0, 2) if channels_last(shape, images) else slice(1, 3)


def channels_last(shape: Sequence[int], images: Sequence[int]) -> bool | None:
    """Whether a map is (H, W, D) and not (D, H, W): its sides are to one another as those of the images.

    Args:
        shape: of the map of one image.
        images: (H, W) of the images.

    Returns:
        None if the map has neither shape.

    Examples:
        >>> square, wide = (224, 224), (224, 448)
        >>> channels_last((96, 7, 7), square), channels_last((7, 14, 96), wide), channels_last((4, 49, 96), square)
        (False, True, None)
    """
    first, last = _distance(shape[1:], images), _distance(shape[:2], images)
    return None if min(first, last) == math.inf else last < first


def _distance(sides: Sequence[int], images: Sequence[int]) -> float:
    """How far two sides are from the shape of the images: 0 for the same; infinite for those that are no map of them.

    Maps of squares are squares. Those of others lose some rows and columns to rounding, and to convolutions without padding.
    """
    (height, width), (tall, wide) = sides, images
    if tall == wide:
        return 0 if height == width else math.inf
    apart = abs(math.log(height * wide / (width * tall)))
    fewest = min(abs(height - width * tall / wide), abs(width - height * wide / tall))
    return apart if apart <= _MOST_APART or fewest <= _MOST_LOST else math.inf


def _list_of(group: list[str], names: list[str], network: nn.Module) -> str:
    """The list that contains all blocks of a group and no others, such as layer3; otherwise the group's last block."""
    last = group[-1]
    parent = last.rpartition(".")[0]
    inside = [name for name in names if name.startswith(f"{parent}.")]
    is_list = parent and type(network.get_submodule(parent)) is nn.Sequential
    return parent if is_list and inside and set(inside) <= set(group) and inside[-1] == last else last
