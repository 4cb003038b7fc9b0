"""A network that ends at the layers that a head is on: what comes behind them is left out, and the head stands at the end."""

from __future__ import annotations

import re

import torch
from torch import Tensor, fx, nn

from featx.backbones.blocks import FrameTracer, blocks
from featx.backbones.feature_extractor import pool
from featx.errors import HeadError
from featx.layer_spec import PENULTIMATE, LayerNode, LayerSpec


class Pooling(nn.Module):
    """What a tapped layer gives, as one vector per image.

    Args:
        tap: the layer, and how it is pooled.
    """

    def __init__(self, tap: LayerNode) -> None:
        super().__init__()
        self.tap = tap

    def forward(self, out: Tensor) -> Tensor:
        """(B, D) float32."""
        return pool(self.tap, out)


def head_of(layer: str, classifier: str) -> str:
    """Name of the classifier of a network that ends at one layer, or at several side by side.

    Where the penultimate is among them, it takes the place of the network's own; else each has a name that no other has.

    Args:
        layer: as ``LayerSpec.parse`` takes it.
        classifier: the network's own.
    """
    layers = LayerSpec.parse(layer).layers
    return classifier if PENULTIMATE in layers else "head_" + re.sub(r"\W", "_", ",".join(layers))


def truncated(network: nn.Module, layer: str, width: int, head: str) -> nn.Module:
    """The part of a network up to some layers, pooled and side by side, and a linear layer of one output, to be replaced.

    The modules are the network's own, and so are the names of its tensors.

    Args:
        network: in eval mode; nothing is run.
        layer: one or several, each as ``LayerNode.parse``: a block, a layer between blocks, a list of them, or the penultimate.
        width: D of all of them together, pooled.
        head: the linear layer's name, ``head_of`` the layer.

    Raises:
        HeadError: a layer lies within a block or is none, or torch.fx cannot follow the network.
    """
    taps = LayerSpec.parse(layer).nodes
    names = [name for name in blocks(network, "") if not head.startswith(f"{name}.")]
    try:
        graph = FrameTracer(names).trace(network)
    except Exception as error:  # torch.fx raises what the traced code raises
        raise HeadError(
            f"torch.fx cannot follow this network, so it cannot end at {taps[0].node!r}; fit a head to the penultimate layer"
        ) from error
    ends = [_end(network, tap, graph, head, names) for tap in taps]
    for node in reversed(list(graph.nodes)):
        if node > max(ends):
            graph.erase_node(node)
    vectors = []
    for number, (tap, end) in enumerate(zip(taps, ends, strict=True)):
        network.add_module(f"featx_pooling_{number}", Pooling(tap))
        with graph.inserting_after(end):  # before a later step can change it in place
            vectors.append(graph.call_module(f"featx_pooling_{number}", (end,)))
    network.set_submodule(head, nn.Linear(width, 1))
    graph.output(graph.call_module(head, (graph.call_function(torch.cat, (vectors, 1)),)))
    return fx.GraphModule(network, graph)


def _end(network: nn.Module, tap: LayerNode, graph: fx.Graph, head: str, names: list[str]) -> fx.Node:
    """The step of a network that gives what is tapped."""
    found = _into(head, graph) if tap.node == PENULTIMATE else _first_step(network, tap.node, graph)
    if found is None:
        raise HeadError(
            f"a network can end behind a block, and {tap.node!r} is none; fit a head to one of {', '.join(names)}, or to the "
            "penultimate layer"
        )
    return found


def _into(classifier: str, graph: fx.Graph) -> fx.Node | None:
    """What enters the classifier; of several calls of it, the last."""
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target == classifier]
    return calls[-1].all_input_nodes[0] if calls else None


def _first_step(network: nn.Module, layer: str, graph: fx.Graph) -> fx.Node | None:
    """The first call that gives a layer's output: a block's or a single layer's, or that of the last of a list."""
    steps = {
        str(node.target): node for node in reversed(graph.nodes) if node.op == "call_module"
    }  # the first of several
    if layer in steps or layer not in dict(network.named_modules()):
        return steps.get(layer)
    inside = [name for name in reversed(steps) if name.startswith(f"{layer}.")]
    return steps[inside[-1]] if inside and type(network.get_submodule(layer)) is nn.Sequential else None
