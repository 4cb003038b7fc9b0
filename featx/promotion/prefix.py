"""The frozen first part of a network, run once: its outputs are cached as features are, and the rest is trained on them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from featx.backbones.blocks import FrameTracer
from featx.backbones.truncate import Pooling
from featx.promotion.param_groups import Trained

SAME = 1e-4
"""Largest difference that counts as none between a network and its two parts one after the other, relative to its outputs."""


class Cut(nn.Module):
    """The first part of a network, as ``Backbone.extractor`` is: from normalised images to one row per image.

    Attributes:
        network: the part.
        graph: the same.
        hooked_nodes: empty, because no layer is read by a hook.
        traced: as ``FeatureExtractor``.
    """

    def __init__(self, first: nn.Module, layer: str) -> None:
        super().__init__()
        self.network = self.graph = first
        self.layer, self.hooked_nodes, self.traced = layer, (), False

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) to (B, D), under the name of the layer that they enter."""
        return {self.layer: self.graph(images).float()}

    def attach(self) -> list[Any]:
        """Needs no hooks."""
        return []

    def attached(self) -> contextlib.AbstractContextManager[None]:
        """Needs no hooks."""
        return contextlib.nullcontext()


class First(nn.Module):
    """From normalised images to what crosses a cut, as one row per image.

    Args:
        graph: gives each value that crosses.
    """

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    @property
    def pooled(self) -> list[str]:
        """The layers, if any, that go to the head past what is trained."""
        return [str(module.layer) for module in self.graph.children() if isinstance(module, Pooling)]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D)."""
        return torch.cat([found.flatten(1) for found in self.graph(images)], dim=1)


class Rest(nn.Module):
    """From these rows to logits.

    Args:
        graph: takes each value that crosses.
        shapes: of these, of one image.
    """

    def __init__(self, graph: nn.Module, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.graph, self.shapes = graph, tuple(shapes)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, D) to (B, C)."""
        parts = rows.split([math.prod(shape) for shape in self.shapes], dim=1)
        logits: Tensor = self.graph(*(part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)))
        return logits


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A network in two parts that share its modules.

    Attributes:
        first: frozen, from images to activations.
        rest: from activations to logits.
    """

    first: First
    rest: Rest

    @property
    def width(self) -> int:
        """How many numbers an image's activations are."""
        return sum(math.prod(shape) for shape in self.rest.shapes)


def split(network: nn.Module, which: Trained, images: Tensor) -> Split | None:
    """Cut a network before the first of its blocks that is trained.

    Args:
        network: in eval mode.
        which: of its blocks are trained; not all.
        images: (B, 3, H, W), on which the two parts are proved to be the network.

    Returns:
        None where torch.fx cannot follow the network, what crosses the cut is not each image's own, or the parts are not the
        whole.
    """
    names = [*which.names, which.classifier]
    try:
        graph = FrameTracer(names).trace(network)
        before, behind = _two_graphs(graph, network, names[: which.first], names[which.first :])
        with torch.inference_mode():
            crossing = fx.GraphModule(network, before).eval()(images)
            if any(len(value) != len(images) for value in crossing):
                return None
            shapes = [tuple(value.shape[1:]) for value in crossing]
            parts = Split(First(fx.GraphModule(network, before)), Rest(fx.GraphModule(network, behind), shapes))
            whole, again = network(images), parts.rest.eval()(parts.first.eval()(images))
    except Exception:
        return None
    same = whole.shape == again.shape and (whole - again).abs().max() <= SAME * max(1.0, float(whole.abs().max()))
    return parts if same else None


def _two_graphs(
    graph: fx.Graph, network: nn.Module, frozen: Sequence[str], trained: Sequence[str]
) -> tuple[fx.Graph, fx.Graph]:
    """The graph up to what is trained, or is drawn at random in front of it, and the graph from there on."""
    nodes = list(graph.nodes)
    runs = {at: node.target for at, node in enumerate(nodes) if node.op == "call_module"}
    first_trained = min(at for at, name in runs.items() if name in trained)
    last_frozen = max(at for at, name in runs.items() if name in frozen and at < first_trained)
    between = range(last_frozen + 1, first_trained)
    cut = next((at for at in between if _draws(nodes[at], network)), first_trained)
    behind = set(nodes[cut:])
    crossing = [node for node in nodes[:cut] if node.op != "get_attr" and not behind.isdisjoint(node.users)]
    first, rest = fx.Graph(), fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in nodes[:cut]:
        copied[node] = first.node_copy(node, copied.__getitem__)
    first.output(tuple(copied[node] for node in crossing))
    copied = {node: rest.placeholder(f"crossing_{number}") for number, node in enumerate(crossing)}
    for node in nodes:
        if node in behind or (node.op == "get_attr" and not behind.isdisjoint(node.users)):
            copied[node] = rest.node_copy(node, copied.__getitem__)
    return first, rest


def _draws(node: fx.Node, network: nn.Module) -> bool:
    """Whether a step may be one of chance, such as dropout."""
    name = type(network.get_submodule(str(node.target))).__name__ if node.op == "call_module" else str(node.target)
    return "drop" in name.lower() or "stochastic" in name.lower()
