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
from featx.blocks import FrameTracer, Trained
from featx.cache import DONE, FeatureCache
from featx.errors import StaleCacheError
from featx.extraction import extract
from featx.features import FeatureSet
from featx.home import nearest_folder
from featx.images import ImageSet
from featx.settings import INPUT, Progress
from featx.truncation import Pooling
from featx.views import RandomView

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
        return [module.tap.layer for module in self.graph.children() if isinstance(module, Pooling)]

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


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """Some images of a data set, as they are seen.

    Attributes:
        rows: (R,) int64, of the data set.
        view: how; None is plain.
        every: all images are meant, not those of one split: they have a file of their own, which takes what is in the other.
    """

    rows: np.ndarray
    view: RandomView | None
    every: bool = False

    @property
    def name(self) -> str:
        """Of the way."""
        return (f"view{self.view.number}" if self.view else "plain") + "-every" * self.every


class Activations:
    """What enters the trained part of a network, from its file.

    Args:
        rows: (R,) int64, ascending by path.
        found: (R, D) float16, theirs.
    """

    def __init__(self, rows: np.ndarray, found: np.ndarray) -> None:
        self._order = np.argsort(rows)
        self._sorted, self._found = rows[self._order], found

    def of(self, rows: np.ndarray) -> np.ndarray:
        """(r, D) float16 of some of the rows."""
        return np.asarray(self._found[self._order[np.searchsorted(self._sorted, rows)]])


@dataclasses.dataclass(frozen=True, eq=False)
class Frozen:
    """The first part of a network, with the feature files in which what it gives is kept for the next time.

    Attributes:
        parts: of the network.
        backbone: whose network it is, and whose transform.
        layer: the block behind the cut.
        features: the data set.
        folder: for the files.
    """

    parts: Split
    backbone: Backbone
    layer: str
    features: FeatureSet
    folder: Path

    def need(self, seen: Sequence[Seen]) -> int:
        """Bytes on disk that are yet to be written."""
        row = self.parts.width * 2
        files = [self._file(some, self._cut(some)) for some in seen]
        here = [file.stat().st_size if file.exists() else 0 for file in files]
        return sum(max(0, len(some.rows) * row - size) for some, size in zip(seen, here, strict=True))

    def has_room(self, bytes_: int) -> bool:
        """Whether the disk has room for so many bytes, and for as many again."""
        return bytes_ <= MOST_OF_DISK * shutil.disk_usage(nearest_folder(self.folder)).free

    def compute(self, seen: Seen, *, workers: int, progress: Progress | None = None) -> None:
        """Run the part for images whose outputs are not there yet.

        Args:
            seen: the images.
            workers: as ``extract``.
            progress: as ``extract``.
        """
        rows, cut = self._ordered(seen), self._cut(seen)
        images = ImageSet(
            name=str(self.features.dataset.get("name", "features")),
            root=Path(self.features.dataset["root"]),
            paths=self.features.paths[rows],
            labels=self.features.labels[rows],
            splits=np.full(len(rows), "train", dtype=object),
            classes=self.features.classes,
        )
        extract(images, cut, cache=self.folder, out=self._file(seen, cut), workers=workers, progress=progress)

    def load(self, seen: Seen) -> Activations:
        """What was computed, memory-mapped.

        Raises:
            StaleCacheError: an image has changed since its features were extracted, or gives what float16 cannot hold.
        """
        rows, cut = self._ordered(seen), self._cut(seen)
        found = FeatureCache(self._file(seen, cut))
        bad = np.flatnonzero((found.status != DONE) | (found.keys != self.features.keys[rows]).any(axis=1))
        if len(bad):
            why = found.error(int(bad[0])) or "it has changed since its features were extracted"
            image = Path(self.features.dataset["root"]) / str(self.features.paths[rows[bad[0]]])
            raise StaleCacheError(f"{image}: {why}; run featx extract and featx fit-head again, or add --views 0")
        return Activations(rows, found.features(self._kept_as))

    @property
    def _kept_as(self) -> str:
        """What crosses the cut, by all of its names."""
        return "+".join([*self.parts.first.pooled, self.layer]) + INPUT

    def _ordered(self, seen: Seen) -> np.ndarray:
        """A feature file has its images by path."""
        return seen.rows[np.argsort(self.features.paths[seen.rows])]

    def _cut(self, seen: Seen) -> Backbone:
        cut = Cut(self.parts.first, self._kept_as)
        return self.backbone.cut(cut, self._kept_as, self.parts.width, seen.view)

    def _file(self, seen: Seen, cut: Backbone) -> Path:
        stem = self.features.source.stem if self.features.source else str(self.features.dataset.get("name", "features"))
        return self.folder / f"{stem}--{self.layer}--{seen.name}--{cut.identity[:8]}.h5"
