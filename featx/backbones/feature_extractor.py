"""Reading layers out of a network as it runs: where to look, and how a layer's output becomes one vector per image."""

from __future__ import annotations

import contextlib
import difflib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from featx.errors import BackboneError
from featx.layer_spec import PENULTIMATE, LayerNode

GEM_POWER, GEM_LEAST = 3.0, 1e-6
"""Of the generalised mean: its power, and what smaller numbers count as."""

MOST_FLAT = 65_536
"""Numbers of one image that a layer kept flat may have."""

_pass = threading.local()
"""What the running pass of each thread has seen. Not kept in the module: several threads may run one, and it is copied."""


def pool(layer: LayerNode, out: Any) -> Tensor:
    """Turn a layer's output into one vector per image.

    Args:
        layer: the layer, and how it is pooled.
        out: its output; see ``_vectors`` for the shapes.

    Returns:
        (B, D) float32.

    Raises:
        BackboneError: the output cannot be pooled this way.
    """
    places = _vectors(str(layer), out)
    if layer.pooling == "max":
        return places.amax(dim=1)
    if layer.pooling == "gem":
        return places.clamp(min=GEM_LEAST).pow(GEM_POWER).mean(dim=1).pow(1 / GEM_POWER)
    if layer.pooling == "flatten":
        if places[0].numel() > MOST_FLAT:
            raise BackboneError(
                f"layer {str(layer)!r} would be {places[0].numel():,} numbers an image; at most {MOST_FLAT:,} are kept flat"
            )
        return places.transpose(1, 2).flatten(1)
    if layer.pooling in ("cls", "avg+cls"):
        patches = places[:, _class_tokens(str(layer), out, places) :].mean(dim=1)
        return places[:, 0] if layer.pooling == "cls" else torch.cat([patches, places[:, 0]], dim=1)
    return places.mean(dim=1)


class FeatureExtractor(nn.Module):
    """A network that gives embeddings instead of logits.

    Runs only while it is ``attached``, or after ``attach``, which leaves hooks on the network: for a network of one's own.

    Attributes:
        network: the whole network.
        graph: what runs: the network itself, or a traced graph of it where a wanted layer is no module.
        traced: whether it is.
    """

    def __init__(self, network: nn.Module, *, name: str, classifier: str, layers: Sequence[str], blank: Tensor) -> None:
        """Find the layers.

        Args:
            network: in eval mode.
            name: of the backbone, for messages.
            classifier: name of the network's last layer.
            layers: names of modules or of torchvision's nodes beside the penultimate, each with ``:POOLING`` if wanted.
            blank: (1, 3, H, W), for one pass if the network must be traced.

        Raises:
            BackboneError: there is no such layer, or none that can be read.
        """
        super().__init__()
        taps = [tap for tap in dict.fromkeys(map(LayerNode.parse, layers)) if tap.node != PENULTIMATE]
        modules = dict(network.named_modules())
        self.network = self.graph = network
        self.classifier = classifier
        self.watched = self.taps = taps
        nodes = [tap.node for tap in taps if tap.node not in modules]
        self.traced = bool(nodes)
        if self.traced:
            self.graph, self.watched = _trace(network, name, classifier, [tap.node for tap in taps], nodes), []
            self._check_trace(name, blank)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) normalised to (B, D) float32 for each layer, the penultimate first, then by name."""
        seen: dict[str, Tensor] = {}
        _pass.seen = seen
        returned = self.graph(images)
        if self.traced:
            for tap in self.taps:
                seen.setdefault(str(tap), pool(tap, returned[tap.node]))
        _pass.seen = {}
        return {layer: seen[layer] for layer in sorted(seen, key=lambda layer: (layer != PENULTIMATE, layer))}

    def attach(self) -> list[torch.utils.hooks.RemovableHandle]:
        """Put hooks on the tapped modules."""
        handles = [
            self.network.get_submodule(tap.node).register_forward_hook(lambda _, __, out, tap=tap: _see(tap, out))
            for tap in self.watched
        ]
        last = self.network.get_submodule(self.classifier)
        handles.append(last.register_forward_pre_hook(lambda _, args: _see(LayerNode(PENULTIMATE), args[0], last=True)))
        return handles

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Hooks for one pass only: the network itself stays as it was built. Not for several threads at once."""
        handles = self.attach()
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _check_trace(self, name: str, blank: Tensor) -> None:
        """A traced graph may lack what torch.fx cannot see (a statement that changes a tensor in place): prove it does not."""
        images = torch.randn(blank.shape, generator=torch.Generator().manual_seed(0)).to(blank.device)
        with torch.inference_mode(), self.attached():
            traced = self(images).get(PENULTIMATE)
            graph, self.graph, self.traced = self.graph, self.network, False
            own = self(images)[PENULTIMATE]
            self.graph, self.traced = graph, True
        if traced is None or (traced - own).norm() > 1e-3 * own.norm():
            raise BackboneError(
                f"{name}, traced by torch.fx, is not the same network; name modules alone: {_modules(self.network)}"
            )


def _see(tap: LayerNode, out: Any, *, last: bool = False) -> None:
    """Pool a layer's output at once, before a later layer can change it in place.

    Of several calls the first counts, as torchvision names nodes; of the classifier's the last.
    """
    if last or str(tap) not in _pass.seen:
        _pass.seen[str(tap)] = pool(tap, out)


def _trace(network: nn.Module, name: str, classifier: str, extra: Sequence[str], nodes: Sequence[str]) -> nn.Module:
    """A graph that returns the wanted nodes; it runs up to the classifier, whose hook gives the penultimate."""
    try:
        _, known = get_graph_node_names(network)
    except Exception as error:  # torch.fx raises what the traced code raises
        raise BackboneError(
            f"{name} cannot be traced for the layer {nodes[0]!r}; name one of its modules: {_modules(network)}"
        ) from error
    for node in nodes:
        if node not in known and not any(each.startswith(f"{node}.") for each in known):
            candidates = dict.fromkeys([*dict(network.named_modules()), *known])
            close = difflib.get_close_matches(node, candidates, n=3, cutoff=0.4)
            hint = f"; did you mean {' or '.join(close)}?" if close else "."
            raise BackboneError(f"{name} has no layer {node!r}{hint} Modules: {_modules(network)}")
    graph: nn.Module = create_feature_extractor(network, {each: each for each in [*extra, classifier]}).eval()
    _copy_outputs(graph)
    return graph


def _vectors(layer: str, out: Any) -> Tensor:
    """(B, P, D) from (B, D), (B, P, D) tokens, (B, D, H, W) or (B, H, W, D) maps: a vector for each of P places.

    Inputs are square, so a map's two equal sides tell where its channels are (Swin's are last).
    """
    if not isinstance(out, Tensor):
        raise BackboneError(f"layer {layer!r} gives a {type(out).__name__}, not one tensor; tap a layer inside it")
    if out.ndim == 2:
        return out.float().unsqueeze(1)
    if out.ndim == 3:
        return out.float()
    if out.ndim == 4:
        channels_last = out.shape[1] == out.shape[2] != out.shape[3]
        if not channels_last and out.shape[2] != out.shape[3]:  # MaxViT's windows of tokens, say
            raise BackboneError(
                f"layer {layer!r} gives a tensor of {tuple(out.shape)}, which is no square map: its channels cannot be "
                "told from its places; tap another layer"
            )
        return (out.flatten(1, 2) if channels_last else out.flatten(2).transpose(1, 2)).float()
    raise BackboneError(f"layer {layer!r} gives a tensor of {out.ndim} dimensions; expected 2, 3 or 4")


def _class_tokens(layer: str, out: Tensor, places: Tensor) -> int:
    """How many tokens come before those of the patches, which fill a square."""
    before = places.shape[1] - math.isqrt(places.shape[1]) ** 2
    if out.ndim != 3 or not before:
        raise BackboneError(f"layer {layer!r} gives {tuple(out.shape[1:])}: no class token; pool it by avg, max or gem")
    return before


def _copy_outputs(graph: nn.Module) -> None:
    """Each wanted node is copied as soon as it is there: later nodes (``out += identity``, ReLU) may change it in place."""
    nodes: torch.fx.Graph = graph.graph  # type: ignore[assignment]
    output = next(node for node in nodes.nodes if node.op == "output")
    for node in output.all_input_nodes:
        with nodes.inserting_after(node):
            output.replace_input_with(node, nodes.call_function(_copied, (node,)))
    graph.recompile()  # type: ignore[operator]


def _copied(out: Any) -> Any:
    return out.clone() if isinstance(out, Tensor) else out


def _modules(network: nn.Module) -> str:
    return ", ".join(name for name, _ in network.named_children())
