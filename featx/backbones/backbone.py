"""A frozen pretrained network, tapped at its penultimate layer and wherever else one asks."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featx.backbones import registry
from featx.backbones.blocks import Stage, blocks
from featx.backbones.blocks import stages as stages_of
from featx.backbones.feature_extractor import FeatureExtractor
from featx.backbones.weights import state_digest
from featx.constants import DTYPES, POOLINGS, PRECISIONS
from featx.data.decode import DECODER_VERSION, parse_colour
from featx.data.transform import Transform
from featx.devices import full_float32, pick_device
from featx.errors import BackboneError, StaleCacheError
from featx.identity import differences, joint_features, joint_identity
from featx.layer_spec import PLAIN, VIEWS, LayerNode, LayerSpec, RandomView, View, stored_name
from featx.text import brief


class Backbone:
    """A network in eval mode, without gradients, that turns pixels into embeddings.

    Make one with ``load_backbone``.

    Attributes:
        name: as ``--backbone`` takes it.
        weights: "default", "random", a torchvision weights name, or the absolute path of a file.
        taps: width D of each tapped layer, by name; "penultimate" comes first.
        transform: from an image's pixels to the network's input.
        dtype: of the embeddings, "float32" or "float16".
        precision: in which the network computes: "float32", or "bfloat16" or "float16" by torch's autocast.
        device: where the network is.
        network: the whole network, its classifier included.
        classifier: name of its last layer.
        tapped: the network with its layers, as one module from normalised images to embeddings.
        whole: whether its one layer is kept as it is, without pooling.
        views: how images are seen, each in a pass of its own.
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
        precision: str,
        device: torch.device,
    ) -> None:
        self.name = name
        self.weights = weights
        self.transform = transform
        self.dtype = dtype
        self.precision = precision
        self.device = device
        self.network = network.eval().requires_grad_(False).to(device)
        self.whole = False
        self.views: tuple[View | RandomView, ...] = (PLAIN,)
        self._origin = dict(origin)
        self._state_sha256 = state_digest(self.network)
        self.classifier = self._last_layer(self._blank(), classifier)
        if origin["source"] == "file" and classifier is None:
            self._check_last_layer(self._blank())
        self._tap_at(layers)

    @property
    def layers(self) -> dict[str, int]:
        """Width D of each layer in each view, by the name that a feature file keeps it under."""
        return {stored_name(tap, view): width for view in self.views for tap, width in self.taps.items()}

    def with_layers(self, layers: Iterable[str]) -> Backbone:
        """The same network with other layers beside the penultimate, all of them in the views of any.

        Raises:
            BackboneError: there is no such layer, or images are not seen so.
        """
        other, specs = copy.copy(self), list(map(LayerSpec.parse, layers))
        other._tap_at(dict.fromkeys(name for spec in specs for name in spec.layers))
        every = (*self.views, *(view for spec in specs for view in spec.views))
        return other.with_views(tuple(dict.fromkeys(every)))

    def with_views(self, views: Sequence[View | RandomView]) -> Backbone:
        """The same network and layers, with images seen in these views.

        Raises:
            BackboneError: the transform leaves no corners to look at.
        """
        corners = any(isinstance(view, View) and view.vertical for view in views)
        if corners and self.transform.resize < self.transform.crop:
            raise BackboneError(
                f"there are no corners to crop: images are resized to {self.transform.resize} pixels and cropped to "
                f"{self.transform.crop}; name a larger --resize, or take --views flip"
            )
        other = copy.copy(self)
        other.views = tuple(views)
        return other

    def stages(self) -> list[Stage]:
        """The depths at which the network can be read, as ``blocks.stages``."""
        with self.autocast():
            return stages_of(self.network, self.classifier, self._blank())

    def with_dtype(self, dtype: str) -> Backbone:
        """The same network, its embeddings in another type."""
        other = copy.copy(self)
        other.dtype = dtype
        return other

    def cut(self, tapped: Any, layer: str, width: int, view: RandomView | None = None) -> Backbone:
        """The same network up to some layer, whose whole input is kept as float16: activations instead of embeddings.

        Args:
            tapped: a module as ``FeatureExtractor`` is, that gives them as rows.
            layer: their name.
            width: D.
            view: how the images are seen, where that is not plainly.
        """
        other = copy.copy(self)
        other.extractor, other.taps, other.whole = tapped, {layer: width}, True
        other.views, other.dtype = (view or PLAIN,), "float16"
        return other

    def encode(self, pixels: np.ndarray | Tensor) -> dict[str, np.ndarray]:
        """Embed a batch, in the plain way that every engine of ``compute.py`` is held to.

        Args:
            pixels: (B, 3, H, W) uint8, RGB, resized and cropped (``decode.read_pixels``); normalised here, on the device.

        Returns:
            (B, D) of ``self.dtype`` for each layer; those other than the penultimate are pooled.
        """
        batch = normalise(torch.as_tensor(pixels).to(self.device), self.transform)
        return {layer: as_stored(found.cpu().numpy(), self.dtype) for layer, found in self._run(batch).items()}

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Computing in ``self.precision``, for passes of this network."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.precision))

    @property
    def identities(self) -> dict[str, str]:
        """The identity of each layer's features in each view: SHA-256, in hex, over everything that can change them."""
        shared = self.describe()
        taps = {layer: LayerNode(layer, "none") if self.whole else LayerNode.parse(layer) for layer in self.taps}
        return {
            stored_name(layer, view): _sha256({**shared, **view.facts, "layer": tap.node, "pooling": tap.pooling})
            for view in self.views
            for layer, tap in taps.items()
        }

    def identity_of(self, layer: str) -> str | None:
        """That of the features of one layer or several, however they are seen (``views.py``); None where one is not there."""
        identities, names = self.identities, [name for view in LayerSpec.parse(layer).stored for name in view]
        return joint_identity([identities[name] for name in names]) if identities.keys() >= set(names) else None

    def encode_views(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """As ``encode``, (B, V, 3, H, W) in the backbone's views to (B, D) for each of ``layers``."""
        return by_view(self.encode(pixels.reshape(-1, *pixels.shape[2:])), self.views)

    def encode_at(self, pixels: np.ndarray, layer: str) -> np.ndarray:
        """As ``encode_views``, (B, D) of one layer, or several side by side; (B, V, D) where it is seen in several views."""
        found = self.encode_views(pixels)
        return joint_features([[found[name] for name in names] for names in LayerSpec.parse(layer).stored])

    def classified(self, embeddings: np.ndarray) -> np.ndarray | None:
        """(N, D) of the penultimate layer to the (N, K) float64 logits of the network's own classifier; None if not linear."""
        last = self.network.get_submodule(self.classifier)
        if not isinstance(last, nn.Linear) or last.in_features != embeddings.shape[1]:
            return None
        weight = last.weight.double().cpu().numpy()
        bias = 0.0 if last.bias is None else last.bias.double().cpu().numpy()
        logits: np.ndarray = np.asarray(embeddings, dtype=np.float64) @ weight.T + bias
        return logits

    @property
    def identity(self) -> str:
        """The identity of all layers together: SHA-256, in hex."""
        return _sha256(self.identities)

    def describe(self) -> dict[str, Any]:
        """What the features depend on, layer and view aside, as JSON keeps it. Labels, splits and paths are no part of it."""
        return {
            "architecture": self._origin,
            "weights_sha256": self._state_sha256,
            "transform": self.transform.as_dict(),
            "precision": self.precision,
            "dtype": self.dtype,
            "decoder": DECODER_VERSION,
        }

    def _blank(self) -> Tensor:
        """(1, 3, crop, crop) of zeros."""
        return torch.zeros(1, 3, self.transform.crop, self.transform.crop, device=self.device)

    def _last_layer(self, blank: Tensor, classifier: str | None) -> str:
        try:
            return registry.last_layer(self.network, blank, classifier)[0]
        except (BackboneError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a network raises whatever its author wrote
            raise BackboneError(
                f"{self.name} cannot run on 3 x {blank.shape[2]} x {blank.shape[3]} pixels ({brief(error)}); "
                "name another size with --crop"
            ) from error

    def _tap_at(self, layers: Iterable[str]) -> None:
        blank = self._blank()
        self.extractor = FeatureExtractor(
            self.network, name=self.name, classifier=self.classifier, layers=list(layers), blank=blank
        )
        self.taps = {layer: array.shape[1] for layer, array in self._run(blank).items()}

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        """(B, D) float32 for each layer, on the device."""
        with torch.inference_mode(), full_float32(), self.autocast(), self.extractor.attached():
            found: dict[str, Tensor] = self.extractor(images)
        return found

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
    stages: bool = False,
    pooling: str = POOLINGS[0],
    views: str = "plain",
    dtype: str = "float32",
    precision: str = "float32",
    device: str = "auto",
    transform: Transform | None = None,
    resize: int | None = None,
    crop: int | None = None,
    background: str | None = None,
    decoding: str | None = None,
) -> Backbone:
    """Build a backbone, load its weights, freeze it and tap it.

    Args:
        name: a torchvision classification model, ``lenet5``, ``mobilenet_v1_075``, ``timm/<name>`` or ``file.py:factory``.
        weights: "default" (downloaded once, hash checked), "random" (a seeded baseline), a torchvision weights name, or a
            local .safetensors or .pth file.
        layers: more layers to tap beside the penultimate: module or torchvision node names, or ``NAME:POOLING``.
        stages: tap every stage of the network too.
        pooling: how a layer that says none becomes one vector: one of ``settings.POOLINGS``.
        views: how each image is seen: "plain", "flip" (and mirrored) or "10crop" (centre and corners, and mirrored).
        dtype: of the embeddings, "float32" or "float16".
        precision: in which the network computes: "float32", "bfloat16" or "float16".
        device: "auto" (CUDA, then MPS, then the CPU), or a torch device.
        transform: instead of the weights' own.
        resize: instead of the transform's own, in pixels.
        crop: instead of the transform's own, in pixels.
        background: instead of the transform's own, which is white: a CSS colour name or #rrggbb, seen through transparent
            pixels.
        decoding: instead of the transform's own, which is "exact": "scaled" or "nvjpeg".

    Raises:
        BackboneError: whatever cannot be built, fetched, loaded or tapped, and how to mend it.
    """
    if dtype not in DTYPES:
        raise BackboneError(f"dtype is {dtype!r}; expected {' or '.join(DTYPES)}")
    if precision not in PRECISIONS:
        raise BackboneError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if views not in VIEWS:
        raise BackboneError(f"views is {views!r}; expected one of {', '.join(VIEWS)}")
    try:
        seen_through = None if background is None else parse_colour(background)
    except ValueError as error:
        raise BackboneError(f"--background {error}") from error
    network = registry.build(name, str(weights))
    chosen = transform or network.transform
    try:
        chosen = dataclasses.replace(
            chosen,
            resize=chosen.resize if resize is None else resize,
            crop=chosen.crop if crop is None else crop,
            background=chosen.background if seen_through is None else seen_through,
            decoding=chosen.decoding if decoding is None else decoding,
        )
    except ValueError as error:
        raise BackboneError(f"{name} cannot take that: {error}") from error
    where = pick_device(device)
    try:
        backbone = Backbone(
            network.module,
            name=name,
            weights=network.weights,
            origin=network.origin,
            transform=chosen,
            classifier=network.classifier,
            layers=[],
            dtype=dtype,
            precision=precision,
            device=where,
        ).with_views(VIEWS[views])
        wanted = [*layers, *(stage.layer for stage in backbone.stages())] if stages else layers
        return backbone.with_layers(str(LayerNode.parse(layer, pooling)) for layer in wanted) if wanted else backbone
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
        layers: the identity of the features by the name of their layers, as ``views.py`` has it.
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
        transform = Transform.from_dict(parts["transform"])
        dtype, precision = str(parts["dtype"]), str(parts["precision"])
    except (KeyError, TypeError, ValueError) as error:
        raise BackboneError(f"the stored description of {stored} means nothing: {error}") from error
    specs = list(map(LayerSpec.parse, layers))
    backbone = load_backbone(
        name or stored,
        weights=weights or described["weights"],
        layers=[name for spec in specs for name in spec.layers],
        dtype=dtype,
        precision=precision,
        device=device,
        transform=transform,
    )
    backbone = backbone.with_views(tuple(dict.fromkeys(view for spec in specs for view in spec.views)))
    if any(backbone.identity_of(layer) != identity for layer, identity in layers.items()):
        ours = {f"identity of {layer}": identity for layer, identity in layers.items()}
        theirs = {f"identity of {layer}": backbone.identity_of(layer) for layer in layers}
        found = "; ".join(differences(parts, backbone.describe()) or differences(ours, theirs))
        raise StaleCacheError(f"{backbone.name} as it is here gives other features than those that were kept ({found})")
    return backbone


def layers_of(name: str) -> tuple[list[Stage], list[str]]:
    """The stages of a backbone and its blocks, by a forward pass of shapes alone: no weights and no arithmetic.

    Args:
        name: as ``load_backbone``.

    Raises:
        BackboneError: there is no such backbone.
    """
    network, images = registry.hollow(name)
    classifier = registry.last_layer(network.module, images, network.classifier)[0]
    return stages_of(network.module, classifier, images), blocks(network.module, classifier)


def normalise(pixels: Tensor, transform: Transform) -> Tensor:
    """(B, 3, H, W) uint8 to float32: scaled to 0..1, minus mean, over std."""
    mean = torch.tensor(transform.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(transform.std, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.to(torch.float32) / 255).sub_(mean).div_(std)


def by_view(found: Mapping[str, np.ndarray], views: Sequence[View | RandomView]) -> dict[str, np.ndarray]:
    """From (B x V, D) of each tapped layer, an image's views in a row, to (B, D) of each layer in each view."""
    return {
        stored_name(tap, view): rows[at :: len(views)] for at, view in enumerate(views) for tap, rows in found.items()
    }


def as_stored(embeddings: np.ndarray, dtype: str) -> np.ndarray:
    """In the type that a file keeps; what float16 cannot hold becomes infinite, and is a failed row in the cache."""
    with np.errstate(over="ignore"):
        return embeddings.astype(dtype, copy=False)


def _sha256(parts: Mapping[str, Any]) -> str:
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
