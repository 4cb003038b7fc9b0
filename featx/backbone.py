"""A frozen pretrained network, tapped at its penultimate layer and wherever else one asks."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from featx import zoo
from featx.cache import differences
from featx.decode import DECODER_VERSION, Transform, parse_colour
from featx.errors import BackboneError, StaleCacheError
from featx.settings import DTYPES
from featx.weights import state_digest

PENULTIMATE = "penultimate"
"""The layer whose output enters the last classifier layer."""


class Backbone:
    """A network in eval mode, without gradients, that turns pixels into embeddings.

    Make one with ``load_backbone``.

    Attributes:
        name: as ``--backbone`` takes it.
        weights: "default", "random", a torchvision weights name, or the absolute path of a file.
        layers: width D of each tapped layer, by name; "penultimate" comes first.
        transform: from an image's pixels to the network's input.
        dtype: of the embeddings, "float32" or "float16".
        device: where the network is.
        network: the whole network, its classifier included.
        classifier: name of its last layer.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        weights: str,
        origin: Mapping[str, str],
        transform: Transform,
        classifier: str | None,
        layers: Sequence[str],
        dtype: str,
        device: torch.device,
    ) -> None:
        self.name = name
        self.weights = weights
        self.transform = transform
        self.dtype = dtype
        self.device = device
        self.network = network.eval().requires_grad_(False).to(device)
        self._origin = dict(origin)
        self._state_sha256 = state_digest(self.network)
        blank = torch.zeros(1, 3, transform.crop, transform.crop, device=device)
        self.classifier = self._last_layer(blank, classifier)
        if origin["source"] == "file" and classifier is None:
            self._check_last_layer(blank)
        self._tap_at(layers)

    def tapped_at(self, layers: Iterable[str]) -> Backbone:
        """The same network with other layers beside the penultimate.

        Raises:
            BackboneError: there is no such layer.
        """
        other = copy.copy(self)
        other._tap_at(layers)
        return other

    def encode(self, pixels: np.ndarray | Tensor, *, pad_to: int = 0) -> dict[str, np.ndarray]:
        """Embed a batch.

        Args:
            pixels: (B, 3, H, W) uint8, RGB, resized and cropped (``decode.read_pixels``); normalised here, on the device.
            pad_to: run at least so many images, the missing ones black. Kernels are chosen by the batch's size, and that can
                change an embedding's last bits; what else is in a batch, and where in it an image stands, does not.

        Returns:
            (B, D) of ``self.dtype`` for each layer. Layers other than the penultimate are averaged over space or tokens.
        """
        given = torch.as_tensor(pixels)
        missing = given.new_zeros(max(0, pad_to - len(given)), *given.shape[1:])
        batch = normalise(torch.cat([given, missing]).to(self.device, non_blocking=True), self.transform)
        found = {layer: embeddings[: len(given)].cpu().numpy() for layer, embeddings in self._run(batch).items()}
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is a failed row in the cache
            return {layer: embeddings.astype(self.dtype, copy=False) for layer, embeddings in found.items()}

    @property
    def identities(self) -> dict[str, str]:
        """The identity of each layer's features: SHA-256, in hex, over everything that can change them."""
        shared = self.describe()
        return {layer: _sha256({**shared, "layer": layer, "pooling": "avg"}) for layer in self.layers}

    @property
    def identity(self) -> str:
        """The identity of all layers together: SHA-256, in hex."""
        return _sha256(self.identities)

    def describe(self) -> dict[str, Any]:
        """What the features depend on, layer aside, as JSON keeps it. Labels, splits and paths are no part of it."""
        return {
            "architecture": self._origin,
            "weights_sha256": self._state_sha256,
            "transform": self.transform.as_dict(),
            "precision": "float32",
            "dtype": self.dtype,
            "decoder": DECODER_VERSION,
        }

    def _last_layer(self, blank: Tensor, classifier: str | None) -> str:
        try:
            return zoo.last_layer(self.network, blank, classifier)[0]
        except (BackboneError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a network raises whatever its author wrote
            raise BackboneError(
                f"{self.name} cannot run on 3 x {blank.shape[2]} x {blank.shape[3]} pixels ({_brief(error)}); "
                "name another size with --crop"
            ) from error

    def _tap_at(self, layers: Iterable[str]) -> None:
        self._seen: dict[str, Tensor] = {}
        self._forward, self._hooked = self._tap([layer for layer in dict.fromkeys(layers) if layer != PENULTIMATE])
        if self._forward is not self.network:
            self._check_trace()
        blank = torch.zeros(1, 3, self.transform.crop, self.transform.crop, device=self.device)
        self.layers = {layer: array.shape[1] for layer, array in self._run(blank).items()}

    def _tap(self, extra: Sequence[str]) -> tuple[nn.Module, list[str]]:
        """What runs, and which of the layers are read from their modules as it runs; a traced graph returns the others."""
        modules = dict(self.network.named_modules())
        nodes = [layer for layer in extra if layer not in modules]
        return (self._trace(list(extra), nodes), []) if nodes else (self.network, list(extra))

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Hooks on the tapped modules, for one forward pass only: the network itself stays as it was built."""
        handles = [
            self.network.get_submodule(layer).register_forward_hook(
                lambda _, __, out, layer=layer: self._see(layer, out)
            )
            for layer in self._hooked
        ]
        last = self.network.get_submodule(self.classifier)
        handles.append(last.register_forward_pre_hook(lambda _, args: self._see(PENULTIMATE, args[0], last=True)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _see(self, layer: str, out: Any, *, last: bool = False) -> None:
        """Pool a layer's output at once, before a later layer can change it in place.

        Of several calls the first counts, as torchvision names nodes; of the classifier's the last.
        """
        if last or layer not in self._seen:
            self._seen[layer] = _pool(layer, out)

    def _trace(self, extra: list[str], nodes: list[str]) -> nn.Module:
        """A graph that returns the wanted nodes; it runs up to the classifier, whose hook gives the penultimate."""
        try:
            _, known = get_graph_node_names(self.network)
        except Exception as error:  # torch.fx raises what the traced code raises
            raise BackboneError(
                f"{self.name} cannot be traced for the layer {nodes[0]!r}; name one of its modules: {_modules(self.network)}"
            ) from error
        for node in nodes:
            if node not in known and not any(name.startswith(f"{node}.") for name in known):
                candidates = dict.fromkeys([*dict(self.network.named_modules()), *known])
                close = difflib.get_close_matches(node, candidates, n=3, cutoff=0.4)
                hint = f"; did you mean {' or '.join(close)}?" if close else "."
                raise BackboneError(f"{self.name} has no layer {node!r}{hint} Modules: {_modules(self.network)}")
        graph: nn.Module = create_feature_extractor(
            self.network, {name: name for name in [*extra, self.classifier]}
        ).eval()
        _copy_outputs(graph)
        return graph

    def _check_trace(self) -> None:
        """A traced graph may lack what torch.fx cannot see (a statement that changes a tensor in place): prove it does not."""
        side = self.transform.crop
        images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(self.device)
        traced = self._run(images).get(PENULTIMATE)
        graph, self._forward = self._forward, self.network
        own = self._run(images)[PENULTIMATE]
        self._forward = graph
        if traced is None or (traced - own).norm() > 1e-3 * own.norm():
            raise BackboneError(
                f"{self.name}, traced by torch.fx, is not the same network; name modules alone: {_modules(self.network)}"
            )

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        """(B, D) float32 for each layer, on the device."""
        self._seen = {}  # a pass that failed half way has left something there
        with torch.inference_mode(), full_float32(), self._watched():
            returned = self._forward(images)
            if self._forward is not self.network:
                for layer, out in returned.items():
                    if layer != self.classifier:
                        self._see(layer, out)
        seen, self._seen = self._seen, {}
        return {layer: seen[layer] for layer in sorted(seen, key=lambda layer: (layer != PENULTIMATE, layer))}

    def _check_last_layer(self, blank: Tensor) -> None:
        """A network of unknown build: its last layer must give its output, or what enters it is no embedding."""
        outputs: list[Any] = []
        layer = dict(self.network.named_modules())[self.classifier]
        hook = layer.register_forward_hook(lambda _, __, out: outputs.append(out))
        with torch.inference_mode():
            final = self.network(blank)
        hook.remove()
        if not (isinstance(final, Tensor) and final.shape == outputs[-1].shape and torch.equal(final, outputs[-1])):
            raise BackboneError(
                f"{self.name}: the last layer to run, {self.classifier!r}, does not give the network's output, so what "
                "enters it is no embedding. Give the module a method get_classifier() that returns its last layer "
                "(an nn.Identity() at the end where it has none)"
            )


def load_backbone(
    name: str = "resnet50",
    *,
    weights: str = "default",
    layers: Sequence[str] = (),
    dtype: str = "float32",
    device: str = "auto",
    transform: Transform | None = None,
    resize: int | None = None,
    crop: int | None = None,
    background: str | None = None,
) -> Backbone:
    """Build a backbone, load its weights, freeze it and tap it.

    Args:
        name: a torchvision classification model, ``lenet5``, ``mobilenet_v1_075``, ``timm/<name>`` or ``file.py:factory``.
        weights: "default" (downloaded once, hash checked), "random" (a seeded baseline), a torchvision weights name, or a
            local .safetensors or .pth file.
        layers: more layers to tap beside the penultimate: module or torchvision node names.
        dtype: of the embeddings, "float32" or "float16".
        device: "auto" (CUDA, then MPS, then the CPU), or a torch device.
        transform: instead of the weights' own.
        resize: instead of the transform's own, in pixels.
        crop: instead of the transform's own, in pixels.
        background: instead of the transform's own, which is white: a CSS colour name or #rrggbb, seen through transparent
            pixels.

    Raises:
        BackboneError: whatever cannot be built, fetched, loaded or tapped, and how to mend it.
    """
    if dtype not in DTYPES:
        raise BackboneError(f"dtype is {dtype!r}; expected {' or '.join(DTYPES)}")
    try:
        seen_through = None if background is None else parse_colour(background)
    except ValueError as error:
        raise BackboneError(f"--background {error}") from error
    network = zoo.build(name, str(weights))
    chosen = transform or network.transform
    try:
        chosen = dataclasses.replace(
            chosen,
            resize=chosen.resize if resize is None else resize,
            crop=chosen.crop if crop is None else crop,
            background=chosen.background if seen_through is None else seen_through,
        )
    except ValueError as error:
        raise BackboneError(f"{name} cannot take that: {error}") from error
    where = pick_device(device)
    try:
        return Backbone(
            network.module,
            name=name,
            weights=network.weights,
            origin=network.origin,
            transform=chosen,
            classifier=network.classifier,
            layers=layers,
            dtype=dtype,
            device=where,
        )
    except torch.OutOfMemoryError as error:
        raise BackboneError(f"{name} does not fit on {where}: {error}; try --device cpu") from error
    except (RuntimeError, AssertionError, ValueError) as error:
        if isinstance(error, BackboneError):
            raise
        raise BackboneError(
            f"{name} cannot take {chosen.crop} x {chosen.crop} pixels: {str(error).splitlines()[0]}; --crop sets the size"
        ) from error


def restore_backbone(
    described: Mapping[str, Any],
    *,
    layers: Mapping[str, str],
    name: str | None = None,
    weights: str | None = None,
    device: str = "auto",
) -> Backbone:
    """Make again the backbone that features came from, and prove that it is the same.

    Args:
        described: name, weights and parts, as a feature file or head keeps them.
        layers: the identity of each layer's features.
        name: instead of the stored name; needed for a file of code, since a stored path is never run.
        weights: instead of the stored weights, where the file has moved.
        device: as ``load_backbone``.

    Raises:
        BackboneError: it cannot be built here.
        StaleCacheError: it can, but would give other features; the parts that differ are named.
    """
    stored = str(described["name"])
    if name is None and ".py:" in stored:
        raise BackboneError(
            f"the backbone is {stored}, a file of code, and a stored path is never run; name it with --backbone {stored}"
        )
    parts = described["parts"]
    try:
        transform, dtype = Transform.from_dict(parts["transform"]), str(parts["dtype"])
    except (KeyError, TypeError, ValueError) as error:
        raise BackboneError(f"the stored description of {stored} means nothing: {error}") from error
    backbone = load_backbone(
        name or stored,
        weights=weights or described["weights"],
        layers=tuple(layers),
        dtype=dtype,
        device=device,
        transform=transform,
    )
    if any(backbone.identities.get(layer) != identity for layer, identity in layers.items()):
        ours = {f"identity of {layer}": identity for layer, identity in layers.items()}
        theirs = {
            f"identity of {layer}": identity for layer, identity in backbone.identities.items() if layer in layers
        }
        found = "; ".join(differences(parts, backbone.describe()) or differences(ours, theirs))
        raise StaleCacheError(f"{backbone.name} as it is here gives other features than those that were kept ({found})")
    return backbone


def pick_device(device: str = "auto") -> torch.device:
    """The device of a name; "auto" is the first of CUDA, MPS and the CPU that is there.

    Raises:
        BackboneError: a device that torch does not know or this machine does not have.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(f"--device {device}: {_brief(error)}; expected auto, cpu, cuda or mps") from error
    return chosen


def normalise(pixels: Tensor, transform: Transform) -> Tensor:
    """(B, 3, H, W) uint8 to float32: scaled to 0..1, minus mean, over std."""
    mean = torch.tensor(transform.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(transform.std, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.to(torch.float32) / 255).sub_(mean).div_(std)


def _sha256(parts: Mapping[str, Any]) -> str:
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _pool(layer: str, out: Any) -> Tensor:
    """(B, D) from (B, D), (B, T, D) tokens, (B, D, H, W) or (B, H, W, D) maps: the mean over all but batch and channel.

    Inputs are square, so a map's two equal sides tell where its channels are (Swin's are last).
    """
    if not isinstance(out, Tensor):
        raise BackboneError(f"layer {layer!r} gives a {type(out).__name__}, not one tensor; tap a layer inside it")
    if out.ndim == 2:
        return out.float()
    if out.ndim == 3:
        return out.float().mean(dim=1)
    if out.ndim == 4:
        channels_last = out.shape[1] == out.shape[2] != out.shape[3]
        if not channels_last and out.shape[2] != out.shape[3]:  # MaxViT's windows of tokens, say
            raise BackboneError(
                f"layer {layer!r} gives a tensor of {tuple(out.shape)}, which is no square map: its channels cannot be "
                "told from its places; tap another layer"
            )
        return out.float().mean(dim=(1, 2) if channels_last else (2, 3))
    raise BackboneError(f"layer {layer!r} gives a tensor of {out.ndim} dimensions; expected 2, 3 or 4")


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


def _brief(error: Exception, most: int = 200) -> str:
    """The first line of a message; torch's run to pages."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return line if len(line) <= most else line[: most - 3] + "..."


def _modules(network: nn.Module) -> str:
    return ", ".join(name for name, _ in network.named_children())


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions in true float32 on CUDA: TF32, cuDNN's default, would move features by 1e-3."""
    if not torch.cuda.is_available():
        yield
        return
    cudnn = torch.backends.cudnn
    kept = {"benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    with cudnn.flags(enabled=True, allow_tf32=False, **kept):
        yield
