"""The frozen first part of a network, run once: its outputs are cached as features are, and the rest is trained on them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from featx.backbone import Backbone
from featx.blocks import blocks
from featx.cache import DONE, FeatureCache
from featx.decode import View
from featx.errors import StaleCacheError
from featx.extraction import extract
from featx.features import FeatureSet
from featx.home import nearest_folder
from featx.images import ImageSet
from featx.settings import Progress

SAME = 1e-4
"""Largest difference that counts as none between a network and its two parts one after the other, relative to its outputs."""
MOST_OF_DISK = 0.5
"""Share of the free disk that activations may take."""


class Cut(nn.Module):
    """The first part of a network, as ``Backbone.tapped`` is: from normalised images to one row per image.

    Attributes:
        network: the part.
        graph: the same.
        watched: nothing is tapped within.
        traced: as ``Tapped``.
    """

    def __init__(self, first: nn.Module, layer: str) -> None:
        super().__init__()
        self.network = self.graph = first
        self.layer, self.watched, self.traced = layer, (), False

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) to (B, D), under the name of the layer that they enter."""
        return {self.layer: self.graph(images).float().flatten(1)}

    def attach(self) -> list[Any]:
        """Needs no hooks."""
        return []

    def attached(self) -> contextlib.AbstractContextManager[None]:
        """Needs no hooks."""
        return contextlib.nullcontext()


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A network in two parts that share its modules.

    Attributes:
        first: frozen, from images to activations.
        rest: from activations to logits.
        shape: of one image's activations.
    """

    first: nn.Module
    rest: nn.Module
    shape: tuple[int, ...]


class _Tracer(fx.Tracer):
    """Sees a network's frame alone: its blocks are single steps, so that what they do in training is theirs."""

    def __init__(self, leaves: Sequence[str]) -> None:
        super().__init__()
        self.leaves = set(leaves)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.leaves or super().is_leaf_module(m, module_qualified_name)


def split(network: nn.Module, classifier: str, first: int, images: Tensor) -> Split | None:
    """Cut a network before one of its blocks.

    Args:
        network: in eval mode.
        classifier: name of its last layer.
        first: which of ``blocks.blocks`` is the first behind the cut; as many as there are for the classifier.
        images: (B, 3, H, W), on which the two parts are proved to be the network.

    Returns:
        None where torch.fx cannot follow the network, more than one tensor crosses the cut, or the parts are not the whole.
    """
    names = [*blocks(network, classifier), classifier]
    try:
        graph = _Tracer(names).trace(network)
        before, behind = _two_graphs(graph, network, names[:first], names[first:])
        parts = [fx.GraphModule(network, part).eval() for part in (before, behind)]
        with torch.inference_mode():
            activations = parts[0](images)
            whole, again = network(images), parts[1](activations)
    except Exception:
        return None
    if not (isinstance(activations, Tensor) and len(activations) == len(images)):
        return None
    if whole.shape != again.shape or (whole - again).abs().max() > SAME * max(1.0, float(whole.abs().max())):
        return None
    return Split(parts[0], parts[1], tuple(activations.shape[1:]))


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
    if len(crossing) != 1:
        raise ValueError(f"{len(crossing)} values cross the cut")
    first, rest = fx.Graph(), fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in nodes[:cut]:
        copied[node] = first.node_copy(node, copied.__getitem__)
    first.output(copied[crossing[0]])
    copied = {crossing[0]: rest.placeholder("activations")}
    for node in nodes:
        if node in behind or (node.op == "get_attr" and not behind.isdisjoint(node.users)):
            copied[node] = rest.node_copy(node, copied.__getitem__)
    return first, rest


def _draws(node: fx.Node, network: nn.Module) -> bool:
    """Whether a step may be one of chance, such as dropout."""
    name = type(network.get_submodule(str(node.target))).__name__ if node.op == "call_module" else str(node.target)
    return "drop" in name.lower() or "stochastic" in name.lower()


def activations(
    parts: Split,
    backbone: Backbone,
    layer: str,
    features: FeatureSet,
    rows: np.ndarray,
    view: View | None,
    *,
    name: str,
    folder: Path,
    workers: int,
    progress: Progress | None = None,
) -> np.ndarray:
    """What the first part of a network gives for some images, kept in a feature file of its own for the next time.

    Args:
        parts: of the network.
        backbone: whose network it is, and whose transform.
        layer: the block behind the cut.
        features: the data set.
        rows: (R,) int64, of it, ascending by path.
        view: how the images are seen; None is plain.
        name: of these images, in the file's.
        folder: for the file.
        workers: as ``extract``.
        progress: as ``extract``.

    Returns:
        (R, D) float16, memory-mapped.

    Raises:
        StaleCacheError: an image has changed since its features were extracted, or gives what float16 cannot hold.
    """
    tapped = f"{layer}.input"
    cut = backbone.cut(Cut(parts.first, tapped), tapped, math.prod(parts.shape), view)
    images = ImageSet(
        name=str(features.dataset.get("name", "features")),
        root=Path(features.dataset["root"]),
        paths=features.paths[rows],
        labels=features.labels[rows],
        splits=np.full(len(rows), "train", dtype=object),
        classes=features.classes,
    )
    stem = features.source.stem if features.source else images.name
    file = folder / f"{stem}--{layer}--{name}--{cut.identity[:8]}.h5"
    extract(images, cut, cache=folder, out=file, workers=workers, progress=progress)
    found = FeatureCache(file)
    bad = np.flatnonzero((found.status != DONE) | (found.keys != features.keys[rows]).any(axis=1))
    if len(bad):
        why = found.error(int(bad[0])) or "it has changed since its features were extracted"
        raise StaleCacheError(
            f"{images.absolute(int(bad[0]))}: {why}; run featx extract and featx fit-head again, or add --views 0"
        )
    return found.features(tapped)


def need(parts: Split, images: int) -> int:
    """Bytes on disk of the activations of so many images."""
    return images * math.prod(parts.shape) * 2


def has_room(folder: Path, bytes_: int) -> bool:
    """Whether a folder's disk has room for so many bytes, and for as many again."""
    return bytes_ <= MOST_OF_DISK * shutil.disk_usage(nearest_folder(folder)).free
