"""A network that ends at an inner layer, with that layer's pooling and a classifier behind it."""

from __future__ import annotations

import re

from torch import Tensor, fx, nn

from featx.blocks import FrameTracer, blocks
from featx.errors import HeadError
from featx.taps import Tap


class Pooling(nn.Module):
    """What a tapped layer gives, as one vector per image.

    Args:
        tap: the layer, and how it is pooled.
    """

    def __init__(self, tap: Tap) -> None:
        super().__init__()
        self.tap = tap

    def forward(self, out: Tensor) -> Tensor:
        """(B, D) float32."""
        return self.tap.pooled(out)


def head_of(layer: str) -> str:
    """Name of the classifier of a network that ends at a layer; each layer's is another."""
    return "head_" + re.sub(r"\W", "_", layer)


def truncated(network: nn.Module, layer: str, width: int) -> nn.Module:
    """The part of a network up to a layer, pooled, and a linear layer of one output, ``head_of`` the layer, to be replaced.

    The modules are the network's own, and so are the names of its tensors.

    Args:
        network: in eval mode; nothing is run.
        layer: as ``Tap.of``: a block, a single layer between blocks, or a list of them.
        width: D of the layer, pooled.

    Raises:
        HeadError: the layer lies within a block or is none, or torch.fx cannot follow the network.
    """
    tap, names = Tap.of(layer), blocks(network, "")
    try:
        graph = FrameTracer(names).trace(network)
    except Exception as error:  # torch.fx raises what the traced code raises
        raise HeadError(
            f"torch.fx cannot follow this network, so it cannot end at {tap.node!r}; fit a head to the penultimate layer"
        ) from error
    last = _last_step(network, tap.node, graph)
    if last is None:
        raise HeadError(
            f"a network can end behind a block, and {tap.node!r} is none; fit a head to one of {', '.join(names)}, or to the "
            "penultimate layer"
        )
    for node in reversed(list(graph.nodes)):
        if node > last:
            graph.erase_node(node)
    head = head_of(layer)
    graph.output(graph.call_module(head, (graph.call_module(f"{head}_pooling", (last,)),)))
    network.add_module(f"{head}_pooling", Pooling(tap))
    network.add_module(head, nn.Linear(width, 1))
    return fx.GraphModule(network, graph)


def _last_step(network: nn.Module, layer: str, graph: fx.Graph) -> fx.Node | None:
    """The first call that gives a layer's output: a block's or a single layer's, or that of the last of a list."""
    steps = {
        str(node.target): node for node in reversed(graph.nodes) if node.op == "call_module"
    }  # the first of several
    if layer in steps or layer not in dict(network.named_modules()):
        return steps.get(layer)
    inside = [name for name in reversed(steps) if name.startswith(f"{layer}.")]
    return steps[inside[-1]] if inside and type(network.get_submodule(layer)) is nn.Sequential else None
