"""A network split in two: a frozen prefix, whose activations are cached like features, and a suffix that is trained on them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from featx.backbones.blocks import FrameTracer
from featx.backbones.truncate import Pooling
from featx.promotion.param_groups import TrainedBlocks

TOLERANCE = 1e-4
"""Largest difference between the outputs of a network and of its two parts in sequence, relative to the largest output."""


class Prefix(nn.Module):
    """The first part of a network, from normalised images to the activations that enter the suffix, one row per image.

    Args:
        graph: Module that returns a tuple of all values that cross the cut.
    """

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    @property
    def pooled_layers(self) -> list[str]:
        """The names of the layers, if any, whose pooled output bypasses the suffix's blocks and enters the head directly."""
        return [str(module.layer) for module in self.graph.children() if isinstance(module, Pooling)]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images to (B, D) activations."""
        return torch.cat([value.flatten(1) for value in self.graph(images)], dim=1)


class Suffix(nn.Module):
    """The second part of a network, from the prefix's activations to logits.

    Args:
        graph: Module that takes each value that crosses the cut.
        shapes: Shapes of these values for one image.
    """

    def __init__(self, graph: nn.Module, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.graph, self.shapes = graph, tuple(shapes)

    def forward(self, activations: Tensor) -> Tensor:
        """(B, D) activations to (B, C) logits."""
        parts = activations.split([math.prod(shape) for shape in self.shapes], dim=1)
        values = (part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True))
        logits: Tensor = self.graph(*values)
        return logits


class PrefixExtractor(nn.Module):
    """A prefix with the interface of ``FeatureExtractor``, so that its activations are extracted as features are.

    Args:
        prefix: The prefix.
        layer: Name that the activations are stored under.
    """

    def __init__(self, prefix: Prefix, layer: str) -> None:
        super().__init__()
        self.network = self.graph = prefix
        self.layer, self.hooked_modules, self.traced = layer, (), False

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) normalised images to {layer: (B, D) float32 activations}."""
        return {self.layer: self.graph(images).float()}

    def attach(self) -> list[Any]:
        """Return no handles: a prefix has no hooks."""
        return []

    def attached(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that does nothing: a prefix has no hooks."""
        return contextlib.nullcontext()


@dataclass(frozen=True, eq=False)
class SplitNetwork:
    """A network as two parts that share its modules.

    Attributes:
        prefix: The frozen part, from images to activations.
        suffix: The part that is trained, from activations to logits.
    """

    prefix: Prefix
    suffix: Suffix

    @property
    def width(self) -> int:
        """D, the number of activations of one image."""
        return sum(math.prod(shape) for shape in self.suffix.shapes)


def split_network(network: nn.Module, trained: TrainedBlocks, images: Tensor) -> SplitNetwork | None:
    """Split a network before the first block that is trained.

    Args:
        network: The whole network, in eval mode.
        trained: The blocks that are trained; not all.
        images: (B, 3, H, W) float32 images, on which the parts must give the network's own outputs.

    Returns:
        None if torch.fx cannot trace the network, if a value that crosses the cut depends on several images, or if the two
        parts do not give the network's outputs.
    """
    names = [*trained.names, trained.classifier]
    try:
        graph = FrameTracer(names).trace(network)
        before, after = _split_graph(graph, network, names[: trained.first], names[trained.first :])
        with torch.inference_mode():
            crossing = fx.GraphModule(network, before).eval()(images)
            if any(len(value) != len(images) for value in crossing):
                return None
            shapes = [tuple(value.shape[1:]) for value in crossing]
            parts = SplitNetwork(
                Prefix(fx.GraphModule(network, before)), Suffix(fx.GraphModule(network, after), shapes)
            )
            expected, actual = network(images), parts.suffix.eval()(parts.prefix.eval()(images))
    except Exception:  # torch.fx raises whatever the traced network's own code raises
        return None
    is_same = expected.shape == actual.shape and (expected - actual).abs().max() <= TOLERANCE * max(
        1.0, float(expected.abs().max())
    )
    return parts if is_same else None


def _split_graph(
    graph: fx.Graph, network: nn.Module, frozen: Sequence[str], trained: Sequence[str]
) -> tuple[fx.Graph, fx.Graph]:
    """Split a graph before its first trained block, and before random steps (dropout) right in front of that.

    Returns:
        The prefix's graph, which returns all values that cross the cut, and the suffix's, which takes them.
    """
    nodes = list(graph.nodes)
    calls = {index: node.target for index, node in enumerate(nodes) if node.op == "call_module"}
    first_trained = min(index for index, name in calls.items() if name in trained)
    last_frozen = max(index for index, name in calls.items() if name in frozen and index < first_trained)
    between = range(last_frozen + 1, first_trained)
    cut = next((index for index in between if _is_random(nodes[index], network)), first_trained)
    behind = set(nodes[cut:])
    crossing = [node for node in nodes[:cut] if node.op != "get_attr" and not behind.isdisjoint(node.users)]
    prefix, suffix = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes[:cut]:
        copies[node] = prefix.node_copy(node, copies.__getitem__)
    prefix.output(tuple(copies[node] for node in crossing))
    copies = {node: suffix.placeholder(f"crossing_{number}") for number, node in enumerate(crossing)}
    for node in nodes:
        if node in behind or (node.op == "get_attr" and not behind.isdisjoint(node.users)):
            copies[node] = suffix.node_copy(node, copies.__getitem__)
    return prefix, suffix


def _is_random(node: fx.Node, network: nn.Module) -> bool:
    """Whether a step may be random, such as dropout or stochastic depth."""
    name = type(network.get_submodule(str(node.target))).__name__ if node.op == "call_module" else str(node.target)
    return "drop" in name.lower() or "stochastic" in name.lower()
