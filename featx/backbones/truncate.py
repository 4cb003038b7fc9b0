"""Truncate a network at the layers that a head was fitted on: later layers are removed, and the head becomes the last layer."""

from __future__ import annotations

import re

import torch
from torch import Tensor, fx, nn

from featx.backbones.blocks import FrameTracer, block_names
from featx.backbones.feature_extractor import pool
from featx.errors import PromotionError
from featx.layer_spec import PENULTIMATE, LayerNode, LayerSpec


class Pooling(nn.Module):
    """Pool a layer's output into one vector per image.

    Args:
        layer: the layer and its pooling.
        images: (H, W) of the images.
    """

    def __init__(self, layer: LayerNode, images: tuple[int, int]) -> None:
        super().__init__()
        self.layer, self.images = layer, images

    def forward(self, out: Tensor) -> Tensor:
        """Pool the output of the layer to (B, D) float32; see ``feature_extractor.pool``."""
        return pool(self.layer, out, self.images)


def head_name(layer: str, classifier: str) -> str:
    """The name of the classifier of a network that is truncated at one layer, or at several side by side.

    If the penultimate layer is among them, it is the name of the network's own classifier; otherwise it is a name that no other
    layer has.

    Args:
        layer: layers as ``LayerSpec.parse`` takes them.
        classifier: the name of the network's own classifier.

    Examples:
        >>> head_name("layer3,penultimate", "fc"), head_name("layer3:gem", "fc")
        ('fc', 'head_layer3_gem')
    """
    layers = LayerSpec.parse(layer).layers
    return classifier if PENULTIMATE in layers else "head_" + re.sub(r"\W", "_", ",".join(layers))


def truncate_network(
    network: nn.Module, layer: str, width: int, head: str, *, images: tuple[int, int] = (1, 1)
) -> nn.Module:
    """Cut a network off at some layers, concatenate their pooled outputs, and append a linear layer.

    The linear layer has one output and is meant to be replaced. The result shares its modules with the network, and their
    tensors keep their names.

    Args:
        network: a network in eval mode; it is traced, not run.
        layer: one or several layers, each as in ``LayerNode.parse``: a block, a layer between blocks, a list of blocks, or the
            penultimate.
        width: D of all the layers together, pooled.
        images: (H, W) of the images, or a multiple of it.
        head: the name of the linear layer, from ``head_name``.

    Returns:
        A module from (B, 3, H, W) normalised images to (B, 1).

    Raises:
        PromotionError: a layer lies within a block or does not exist, or torch.fx cannot trace the network.
    """
    nodes = LayerSpec.parse(layer).nodes
    names = [name for name in block_names(network, "") if not head.startswith(f"{name}.")]
    try:
        graph = FrameTracer(names).trace(network)
    except Exception as error:  # torch.fx passes on the errors of the traced code
        raise PromotionError(
            f"torch.fx cannot trace this network, so it cannot be truncated at {nodes[0].node!r}; fit a head to the "
            "penultimate layer"
        ) from error
    ends = [_find_end(network, node, graph, head, names) for node in nodes]
    for step in reversed(list(graph.nodes)):
        if step > max(ends):
            graph.erase_node(step)
    vectors = []
    for number, (node, end) in enumerate(zip(nodes, ends, strict=True)):
        network.add_module(f"featx_pooling_{number}", Pooling(node, images))
        with graph.inserting_after(end):  # before a later step can change the output in place
            vectors.append(graph.call_module(f"featx_pooling_{number}", (end,)))
    network.set_submodule(head, nn.Linear(width, 1))
    graph.output(graph.call_module(head, (graph.call_function(torch.cat, (vectors, 1)),)))
    return fx.GraphModule(network, graph)


def _find_end(network: nn.Module, layer: LayerNode, graph: fx.Graph, head: str, names: list[str]) -> fx.Node:
    """The node of the graph that returns a layer's output."""
    end = _classifier_input(head, graph) if layer.node == PENULTIMATE else _first_call(network, layer.node, graph)
    if end is None:
        raise PromotionError(
            f"a network can only be truncated after a block, and {layer.node!r} is not one; fit a head to one of "
            f"{', '.join(names)}, or to the penultimate layer"
        )
    return end


def _classifier_input(classifier: str, graph: fx.Graph) -> fx.Node | None:
    """The node whose output enters the classifier; of several calls of the classifier, the last one counts."""
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target == classifier]
    return calls[-1].all_input_nodes[0] if calls else None


def _first_call(network: nn.Module, layer: str, graph: fx.Graph) -> fx.Node | None:
    """The first call of a block, of a single layer, or of the last block in a list."""
    calls = {str(node.target): node for node in reversed(graph.nodes) if node.op == "call_module"}
    if layer in calls or layer not in dict(network.named_modules()):
        return calls.get(layer)
    inside = [name for name in reversed(calls) if name.startswith(f"{layer}.")]
    return calls[inside[-1]] if inside and type(network.get_submodule(layer)) is nn.Sequential else None
