"""Read layers of a network as it runs: find them, and pool the output of each into one vector per image."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from featx.backbones.blocks import block_names, channels_last, find_stages, first_tensor, told_outputs
from featx.errors import BackboneError
from featx.layer_spec import PENULTIMATE, Cells, LayerNode
from featx.text import counted, did_you_mean

GEM_POWER, GEM_MINIMUM = 3.0, 1e-6
"""Parameters of GeM pooling: the power p, and the value that smaller numbers are raised to."""

MAX_FLAT = 65_536
"""The most numbers per image that a layer with ``flatten`` pooling, or pooled to cells, may have."""

_TRACE_TOLERANCE = 1e-3
"""Largest difference between a traced network and the network itself, relative to the norm of the embedding."""

_pass = threading.local()
"""The outputs of the running forward pass in each thread. They are not stored in the module, because several threads may run
one module, and because engines copy it."""


def pool(layer: LayerNode, out: Any, images: Sequence[int] = (1, 1)) -> Tensor:
    """Pool a layer's output into one vector per image.

    Args:
        layer: the layer and its pooling.
        out: the output: (B, D), (B, T, D) tokens, (B, D, H, W) or (B, H, W, D) maps.
        images: (H, W) of the images, as which a map is wide and high; squares by default.

    Returns:
        (B, D) float32; with ``avg+cls`` (B, 2 D), with ``flatten`` (B, D H W), with ``gridG`` (B, G G D) and with ``tokens:N``
        (B, N D), one cell after the other, and D more with ``+cls``.

    Raises:
        BackboneError: the output cannot be pooled in this way.

    Examples:
        >>> maps = torch.arange(8.0).view(1, 2, 2, 2)
        >>> pool(LayerNode.parse("layer4"), maps)
        tensor([[1.5000, 5.5000]])
        >>> pool(LayerNode.parse("layer4:max"), maps)
        tensor([[3., 7.]])
        >>> pool(LayerNode.parse("layer4:grid2"), maps)
        tensor([[0., 4., 1., 5., 2., 6., 3., 7.]])
    """
    out = first_tensor(out)
    places = _vectors(str(layer), out, images)
    if layer.cells is not None:
        return _cell_means(layer, layer.cells, out, places, images)
    if layer.pooling == "max":
        return places.amax(dim=1)
    if layer.pooling == "gem":
        return places.clamp(min=GEM_MINIMUM).pow(GEM_POWER).mean(dim=1).pow(1 / GEM_POWER)
    if layer.pooling == "flatten":
        if places[0].numel() > MAX_FLAT:
            raise _too_many(layer, places[0].numel())
        return places.transpose(1, 2).flatten(1)
    if layer.pooling in ("cls", "avg+cls"):
        patches = places[:, _require_class_tokens(str(layer), out, places, images) :].mean(dim=1)
        return places[:, 0] if layer.pooling == "cls" else torch.cat([patches, places[:, 0]], dim=1)
    return places.mean(dim=1)


class FeatureExtractor(nn.Module):
    """A network that returns pooled layers instead of logits.

    Its forward pass needs hooks on the network: call it inside ``attached()``, or after ``attach()``, which leaves the hooks in
    place and is meant for a private copy of the network.

    Attributes:
        network: the whole network.
        traced: whether a traced graph of the network runs, because a requested layer is not a module.
        classifier: the name of the network's last layer.
        nodes: the requested layers other than the penultimate embedding.
        module_of: the module, or node of the graph, that each of ``nodes`` is read from: of ``penultimate:grid2``, that of the
            last map.
        hooked_nodes: those of ``nodes`` that are read by a hook on a module: all of them, or none if the network is traced.
    """

    def __init__(
        self, network: nn.Module, *, name: str, classifier: str, layers: Sequence[str], images: Tensor | None
    ) -> None:
        """Find the layers.

        Args:
            network: a network in eval mode.
            name: the backbone's name for messages.
            classifier: the name of the network's last layer.
            layers: names of modules or of torchvision's graph nodes, besides the penultimate; each may end in ``:POOLING``.
            images: (1, 3, H, W) on the network's device; only the shape is used, to check a traced graph. None where all layers
                are named modules.

        Raises:
            BackboneError: there is no such layer, or its output cannot be read.
        """
        super().__init__()
        nodes = [node for node in dict.fromkeys(map(LayerNode.parse, layers)) if not node.is_vector]
        modules = dict(network.named_modules())
        self.network = network
        self.classifier = classifier
        self.hooked_nodes = self.nodes = nodes
        last = next((str(node) for node in nodes if node.node == PENULTIMATE), "")
        found = ""
        if last:
            assert images is not None
            found = last_map(network, name, classifier, last, images)
        self.module_of = {node: found if node.node == PENULTIMATE else node.node for node in nodes}
        not_modules = [node for node in self.module_of.values() if node not in modules]
        self.traced = bool(not_modules)
        if self.traced:
            assert images is not None
            self.traced_graph = _trace(network, name, classifier, [*self.module_of.values()], not_modules, images)
            self.hooked_nodes = []
            self._check_trace(name, images)

    @property
    def graph(self) -> nn.Module:
        """The module that runs: the network itself, or its traced graph."""
        return self.traced_graph if self.traced else self.network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Run the network on (B, 3, H, W) normalised images.

        Returns:
            (B, D) float32 for each layer, the penultimate first, the others sorted by name.
        """
        pooled: dict[str, Tensor] = {}
        around = getattr(_pass, "pooled", {}), getattr(_pass, "images", ())  # of a network that this one is a part of
        _pass.pooled, _pass.images = pooled, tuple(images.shape[-2:])
        try:
            outputs = self.graph(images)
            if self.traced:
                for node in self.nodes:
                    pooled.setdefault(str(node), pool(node, outputs[self.module_of[node]], _pass.images))
        finally:
            _pass.pooled, _pass.images = around
        return {layer: pooled[layer] for layer in sorted(pooled, key=lambda layer: (layer != PENULTIMATE, layer))}

    @property
    def hooked_modules(self) -> list[nn.Module]:
        """The modules that ``hooked_nodes`` are read from."""
        return [self.network.get_submodule(self.module_of[node]) for node in self.hooked_nodes]

    def attach(self) -> list[torch.utils.hooks.RemovableHandle]:
        """Register the hooks that the forward pass needs, and return their handles."""
        handles = [
            module.register_forward_hook(lambda _, __, out, node=node: _record_first(node, out))
            for node, module in zip(self.hooked_nodes, self.hooked_modules, strict=True)
        ]
        last = self.network.get_submodule(self.classifier)
        handles.append(last.register_forward_pre_hook(lambda _, args: _record_last(LayerNode(PENULTIMATE), args[0])))
        return handles

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Register the hooks for one pass and remove them afterwards. Not for several threads at once."""
        handles = self.attach()
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _check_trace(self, name: str, like: Tensor) -> None:
        """Compare the traced graph with the network: torch.fx drops statements that change a tensor in place."""
        images = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like.device)
        with torch.inference_mode(), self.attached():
            traced = self(images).get(PENULTIMATE)
            self.traced = False
            own = self(images)[PENULTIMATE]
            self.traced = True
        if traced is None or (traced - own).norm() > _TRACE_TOLERANCE * own.norm():
            raise BackboneError(
                f"{name}, traced by torch.fx, is not the same network; name modules alone: {_module_names(self.network)}"
            )


def last_map(network: nn.Module, name: str, classifier: str, layer: str, images: Tensor) -> str:
    """Find the block, or the single layer between blocks, that returns the last map or tokens before the classifier.

    Args:
        network: a network in eval mode.
        name: the backbone's name for messages.
        classifier: the name of its last layer.
        layer: what is asked for, for messages.
        images: (1, C, H, W) that the network accepts, for one forward pass.

    Raises:
        BackboneError: the network has no map of more than one place.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> last_map(network.eval(), "mine", "4", "penultimate:grid2", torch.zeros(1, 3, 8, 8))
        '1'
    """
    blocks = block_names(network, classifier)
    inside = tuple(f"{block}." for block in blocks)
    singles = [
        each
        for each, module in network.named_modules()
        if each and not any(True for _ in module.children()) and not each.startswith(inside) and each != classifier
    ]
    calls: list[str] = []

    def record(each: str, out: Any) -> None:
        out = first_tensor(out)
        sides = out.shape[1:] if isinstance(out, Tensor) else ()
        if (len(sides) == 2 and sides[0] > 1) or (len(sides) == 3 and sorted(sides)[1] > 1):
            calls.append(each)

    last = network.get_submodule(classifier).register_forward_pre_hook(lambda _, __: calls.append(""))
    with last, told_outputs(network, dict.fromkeys([*blocks, *singles]), record), torch.inference_mode():
        network(images)
    before = calls[: len(calls) - calls[::-1].index("") - 1] if "" in calls else calls
    once = [each for each in before if each and before.count(each) == 1]
    if not once:
        raise BackboneError(f"--layer {layer}: {name} has no map or tokens before its last layer; name another layer")
    return once[-1]


def _record_first(node: LayerNode, out: Any) -> None:
    """Pool the output of a layer's first call, at once, before a later layer can change it in place.

    The first call counts because torchvision gives it the plain node name.
    """
    if str(node) not in _pass.pooled:
        _pass.pooled[str(node)] = pool(node, out, _pass.images)


def _record_last(node: LayerNode, out: Any) -> None:
    """Pool the input of the classifier; of several calls, the last one counts."""
    _pass.pooled[str(node)] = pool(node, out, _pass.images)


def _trace(
    network: nn.Module, name: str, classifier: str, nodes: Sequence[str], not_modules: Sequence[str], images: Tensor
) -> nn.Module:
    """A graph that returns the requested nodes. It includes the classifier, whose hook reads the penultimate embedding."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    modules = [module for module, _ in network.named_modules() if module]
    try:
        _, graph_nodes = get_graph_node_names(network)
    except Exception as error:  # torch.fx passes on the errors of the traced code
        raise BackboneError(
            f"{name} cannot be traced for the layer {not_modules[0]!r}; name one of its modules: {_module_names(network)}"
            f"{did_you_mean(not_modules[0], modules) or '.'} {_stages(network, name, classifier, images)}"
        ) from error
    for node in not_modules:
        if node not in graph_nodes and not any(each.startswith(f"{node}.") for each in graph_nodes):
            hint = did_you_mean(node, dict.fromkeys([PENULTIMATE, *modules, *graph_nodes])) or "."
            stages = _stages(network, name, classifier, images)
            raise BackboneError(f"{name} has no layer {node!r}{hint} Modules: {_module_names(network)}. {stages}")
    graph: nn.Module = create_feature_extractor(network, {each: each for each in [*nodes, classifier]}).eval()
    _copy_outputs(graph)
    return graph


def _vectors(layer: str, out: Any, images: Sequence[int]) -> Tensor:
    """Turn (B, D), (B, P, D) tokens, (B, D, H, W) or (B, H, W, D) maps into (B, P, D): a vector for each of P places.

    The two sides of a map that are to one another as those of the images tell where its channels are (those of Swin come last).
    """
    if not isinstance(out, Tensor):
        raise BackboneError(f"layer {layer!r} returns a {type(out).__name__}, not one tensor; name a layer inside it")
    if out.ndim == 2:
        return out.float().unsqueeze(1)
    if out.ndim == 3:
        return out.float()
    if out.ndim == 4:
        is_last = channels_last(out.shape[1:], images)
        if is_last is None:  # such as the windows of tokens in MaxViT
            kind = "a square map" if images[0] == images[1] else f"a map of images of {images[0]} x {images[1]} pixels"
            raise BackboneError(
                f"layer {layer!r} returns a tensor of shape {tuple(out.shape)}, which is not {kind}, so it is unclear "
                "which dimension holds the channels; name another layer"
            )
        return (out.flatten(1, 2) if is_last else out.flatten(2).transpose(1, 2)).float()
    raise BackboneError(f"layer {layer!r} returns a tensor of {counted(out.ndim, 'dimension')}; expected 2, 3 or 4")


def _cell_means(layer: LayerNode, cells: Cells, out: Tensor, places: Tensor, images: Sequence[int]) -> Tensor:
    """Adaptive average pooling to cells: (B, N D), one cell after the other, then the class token if it is asked for.

    It is a product with a constant matrix, which every runtime computes alike.
    """
    before = _require_class_tokens(str(layer), out, places, images) if cells.with_class else 0
    if out.ndim == 4:
        is_last = channels_last(out.shape[1:], images)
        sides = tuple(out.shape[1:3] if is_last else out.shape[2:])
    elif out.ndim == 3:
        before = _count_before(places, images)
        times = math.isqrt((places.shape[1] - before) // _least_patches(images))
        sides = tuple(side // math.gcd(*images) * times for side in images)
    else:
        raise BackboneError(
            f"layer {str(layer)!r} returns one vector per image, which has no cells; name a layer before it"
        )
    rows, columns = _grid_of(layer, cells, sides, images)
    if (rows * columns + cells.with_class) * places.shape[2] > MAX_FLAT:
        raise _too_many(layer, (rows * columns + cells.with_class) * places.shape[2])
    shares = torch.tensor(_cell_shares(sides, (rows, columns)), dtype=places.dtype, device=places.device)
    tokens = torch.matmul(shares, places[:, before:])
    if cells.with_class:
        tokens = torch.cat([tokens, places[:, :1]], dim=1)
    return tokens.flatten(1)


def _grid_of(layer: LayerNode, cells: Cells, sides: Sequence[int], images: Sequence[int]) -> tuple[int, int]:
    """The rows and columns of cells on a map of these sides.

    Raises:
        BackboneError: the map is smaller, or the number of cells makes no grid in the shape of the images.
    """
    rows = columns = cells.side
    if not cells.side:
        high, wide = (side // math.gcd(*images) for side in images)
        times = math.isqrt(cells.count // (high * wide))
        rows, columns = high * times, wide * times
        if rows * columns != cells.count:
            near = [high * wide * n * n for n in (max(1, times), times + 1) if high * wide * n * n > 1]
            raise BackboneError(
                f"layer {str(layer)!r}: {counted(cells.count, 'token makes', 'tokens make')} no grid in the shape of images "
                f"of {images[0]} x {images[1]} pixels; expected tokens:{' or tokens:'.join(map(str, near))}, or a square one, "
                "such as grid2"
            )
    if rows > sides[0] or columns > sides[1]:
        raise BackboneError(
            f"layer {str(layer)!r} has a map of {sides[0]} x {sides[1]} places, which is smaller than {rows} x {columns} "
            "cells; ask for fewer cells, or name an earlier layer"
        )
    return rows, columns


def _cell_shares(sides: Sequence[int], cells: Sequence[int]) -> list[list[float]]:
    """What each place counts in the mean of each cell: a row of places for each cell, both row by row."""
    down, across = (_cuts(side, parts) for side, parts in zip(sides, cells, strict=True))
    return [
        [
            1.0 / (len(rows) * len(columns)) if row in rows and column in columns else 0.0
            for row in range(sides[0])
            for column in range(sides[1])
        ]
        for rows in down
        for columns in across
    ]


def _cuts(side: int, parts: int) -> list[range]:
    """The places of each of some parts of a side, as adaptive pooling has them; neighbours may share one."""
    return [range(at * side // parts, -(-(at + 1) * side // parts)) for at in range(parts)]


def _too_many(layer: LayerNode, count: int) -> BackboneError:
    return BackboneError(
        f"layer {str(layer)!r} would have {count:,} numbers per image; {layer.pooling} allows at most {MAX_FLAT:,}"
    )


def _least_patches(images: Sequence[int]) -> int:
    """The fewest patches that fill a rectangle of the shape of the images: 1 for a square."""
    return math.prod(images) // math.gcd(*images) ** 2


def _count_before(places: Tensor, images: Sequence[int]) -> int:
    """The number of tokens before those of the patches, which fill a rectangle of the shape of the images."""
    least = _least_patches(images)
    return int(places.shape[1] - least * math.isqrt(places.shape[1] // least) ** 2)


def _require_class_tokens(layer: str, out: Tensor, places: Tensor, images: Sequence[int]) -> int:
    """The number of tokens before those of the patches, the class token among them."""
    before = _count_before(places, images)
    if out.ndim != 3 or not before:
        raise BackboneError(
            f"layer {layer!r} returns shape {tuple(out.shape[1:])} per image, without a class token; pool it by avg, max or gem"
        )
    return before


def _copy_outputs(graph: nn.Module) -> None:
    """Copy each returned node right after it is computed: later nodes (``out += identity``, ReLU) may change it in place."""
    nodes: torch.fx.Graph = graph.graph  # type: ignore[assignment]
    output = next(node for node in nodes.nodes if node.op == "output")
    for node in output.all_input_nodes:
        with nodes.inserting_after(node):
            output.replace_input_with(node, nodes.call_function(_cloned, (node,)))
    graph.recompile()  # type: ignore[operator]


def _cloned(out: Any) -> Any:
    return out.clone() if isinstance(out, Tensor) else out


def _module_names(network: nn.Module) -> str:
    return ", ".join(name for name, _ in network.named_children())


def _stages(network: nn.Module, name: str, classifier: str, images: Tensor) -> str:
    """A sentence that names the stages of a network, which are the layers that most callers want."""
    stages = ", ".join(stage.layer for stage in find_stages(network, classifier, images))
    return f"Its stages are {stages} (--stages takes them all; featx backbones {name} --layers lists its blocks too)"
