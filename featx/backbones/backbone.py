"""A frozen pretrained network that turns pixels into embeddings: of its penultimate layer, and of any other layer."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from featx.arguments import names_of
from featx.backbones import registry
from featx.backbones.blocks import Stage, block_names, find_stages
from featx.backbones.classifier import find_classifier, require_final_layer
from featx.backbones.failures import as_backbone_errors
from featx.backbones.feature_extractor import FeatureExtractor
from featx.backbones.identities import digest_of, view_identities
from featx.backbones.last_layer import LastLayer
from featx.backbones.pictures import view_batches
from featx.backbones.pixels import as_pixels, normalise
from featx.backbones.text_tower import TextTower, WithText
from featx.constants import DTYPES, POOLINGS, PRECISIONS
from featx.data.decode import DECODER_VERSION, parse_colour
from featx.data.fitting import fit_notes, fit_words, fitted
from featx.data.transform import Transform, parse_bands, parse_size, parse_value_range
from featx.devices import full_float32, pick_device
from featx.errors import BackboneError, system_errors
from featx.identity import features_at, joint_identity
from featx.layer_spec import (
    PENULTIMATE,
    PLAIN,
    VIEWS,
    LayerNode,
    LayerSpec,
    RandomView,
    View,
    require_pooling,
    stored_name,
)

Parsed = TypeVar("Parsed")


class Backbone(WithText):
    """A frozen network in eval mode that turns pixels into embeddings. ``load_backbone`` builds one.

    A backbone is not changed after it is built: ``with_layers``, ``with_views`` and ``with_dtype`` return others that share its
    network.

    Attributes:
        name: the value of ``--backbone``.
        weights: "default", "random", the name of torchvision weights, or the absolute path of a file.
        layer_widths: width D of each extracted layer, by its name without a view; "penultimate" comes first.
        transform: how an image becomes the network's input.
        dtype: the type of the embeddings, "float32" or "float16".
        precision: the precision that the network computes in: "float32", or "bfloat16" or "float16" by torch's autocast.
        device: where the network is.
        network: the whole network, including its classifier.
        classifier: the name of its last layer.
        extractor: the module that turns normalised images into the embeddings of all layers.
        last_counts: whether the identity holds the last layer, which no feature before it depends on (see ``identities``).
        unpooled: whether the one layer is stored whole, without pooling (see ``with_extractor``).
        views: the views of each image (test-time augmentation, TTA), each extracted by a pass of its own.
        notes: what the user should know about its weights and transform, one sentence each.

    Examples:
        >>> backbone = load_backbone("lenet5", device="cpu")  # its weights are part of featx
        >>> backbone.layers
        {'penultimate': 84}
        >>> features = backbone.encode(np.zeros((2, 3, 32, 32), dtype=np.uint8))
        >>> features["penultimate"].shape, features["penultimate"].dtype
        ((2, 84), dtype('float32'))
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
        notes: Sequence[str] = (),
        text: Callable[[], TextTower] | None = None,
    ) -> None:
        super().__init__(name, text)
        self.weights, self.transform, self.notes = weights, transform, tuple(notes)
        self.dtype, self.precision, self.device = dtype, precision, device
        self.network = network.eval().requires_grad_(False).to(device)
        self.unpooled = False
        self.views: tuple[View | RandomView, ...] = (PLAIN,)
        self._origin = dict(origin)
        self.classifier = find_classifier(self.network, self._zeros(), classifier)[0]
        self.last_counts = not Path(weights).is_absolute()
        self._last = LastLayer(self.network, self.classifier, counts=self.last_counts)
        if origin["source"] == "file" and classifier is None:
            require_final_layer(self.network, self._zeros(), self.classifier, name=name)
        self._extract_layers(layers)

    @property
    def layers(self) -> dict[str, int]:
        """Width D of each layer in each view, by the name under which a feature file stores it."""
        return {stored_name(layer, view): width for view in self.views for layer, width in self.layer_widths.items()}

    @property
    def identities(self) -> dict[str, str]:
        """The identity of each layer's features in each view: SHA-256, in hex, over everything that can change them."""
        after_last = () if self.last_counts else self.after_last
        weights = dict.fromkeys(after_last, self._last.digest(counts=True)) if after_last else {}
        nodes = {LayerNode(n, "none") if self.unpooled else LayerNode.parse(n): n for n in self.layer_widths}
        return view_identities(self.describe(), nodes, self.views, weights, self.last_counts)

    @property
    def identity(self) -> str:
        """The identity of all layers together: SHA-256, in hex."""
        return digest_of(self.identities)

    def identity_of(self, layer: str) -> str | None:
        """The identity of the features that a layer spec names, or None if a layer or view is not extracted.

        Args:
            layer: one layer or several in one view or several, as in ``LayerSpec.parse``.
        """
        identities, names = self.identities, [name for view in LayerSpec.parse(layer).stored for name in view]
        return joint_identity([identities[name] for name in names]) if identities.keys() >= set(names) else None

    def describe(self) -> dict[str, Any]:
        """Everything that the features depend on, except layer and view, as JSON stores it.

        Labels, splits and paths are not part of it; nor is the last layer of weights from a file, except for layers that depend
        on it.
        """
        return {
            "architecture": self._origin,
            "weights_sha256": self._last.digest(counts=self.last_counts),
            "transform": self.transform.as_dict(),
            "precision": self.precision,
            "dtype": self.dtype,
            "decoder": DECODER_VERSION,
        }

    def with_layers(self, layers: str | Iterable[str]) -> Backbone:
        """The same network with other layers besides the penultimate, each in the union of all views.

        Args:
            layers: one layer spec or several, as in ``LayerSpec.parse``.

        Raises:
            BackboneError: there is no such layer, or a view is not possible.
        """
        other, specs = copy.copy(self), list(map(LayerSpec.parse, names_of(layers, "layers")))
        other._extract_layers(dict.fromkeys(name for spec in specs for name in spec.layers))
        return other.with_views(tuple(dict.fromkeys((*self.views, *(view for spec in specs for view in spec.views)))))

    def with_views(self, views: str | Sequence[View | RandomView]) -> Backbone:
        """The same network and layers with these views of each image.

        Args:
            views: the name of a set of views, "plain", "flip" or "10crop", or the views themselves.

        Raises:
            BackboneError: there is no such set; or a view is a corner, and the transform leaves no corners.
        """
        if isinstance(views, str):
            views = LayerSpec.parse(PENULTIMATE, views).views
        _require_corners(self.transform, views)
        other = copy.copy(self)
        other.views = tuple(views)
        return other

    def with_dtype(self, dtype: str) -> Backbone:
        """The same network with embeddings of another type, "float32" or "float16"."""
        other = copy.copy(self)
        other.dtype = dtype
        return other

    def with_extractor(self, extractor: Any, *, layer: str, width: int, view: RandomView | None = None) -> Backbone:
        """The same network, extracting the whole activations of one layer, unpooled, as float16.

        Args:
            extractor: a module with the interface of ``FeatureExtractor`` that returns the activations, one row per image.
            layer: the name under which they are stored.
            width: D, the numbers per image.
            view: a random crop instead of the plain view.
        """
        other = copy.copy(self)
        other.extractor, other.layer_widths, other.unpooled = extractor, {layer: width}, True
        other.views, other.dtype = (view or PLAIN,), "float16"
        other.__dict__["after_last"] = frozenset()
        return other

    def stages(self) -> list[Stage]:
        """The depths at which the network can be read, from its input on; see ``blocks.find_stages``."""
        with self.autocast():
            return find_stages(self.network, self.classifier, self._zeros())

    def encode(self, pixels: np.ndarray | Tensor) -> dict[str, np.ndarray]:
        """Embed a batch of images, in the plain way that every engine is compared with.

        Args:
            pixels: (B, C, H, W) uint8, RGB, resized and cropped (see ``decode.read_pixels``). They are normalised here,
                on the device.

        Returns:
            (B, D) of ``self.dtype`` for each layer in ``layer_widths``; layers other than the penultimate are pooled.

        Raises:
            BackboneError: the pixels are of another kind, shape or range, such as floats or (B, H, W, 3).
        """
        batch = normalise(as_pixels(pixels, self.transform.shape).to(self.device), self.transform)
        return {layer: cast_features(rows.cpu().numpy(), self.dtype) for layer, rows in self._run(batch).items()}

    def encode_views(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Embed all views of a batch: (B, V, C, H, W) uint8 to (B, D) for each of ``layers``. See ``encode``."""
        batch = as_pixels(pixels, self.transform.shape, len(self.views))
        return split_views(self.encode(batch.flatten(0, 1)), self.views)

    def encode_at(self, pixels: np.ndarray, layer: str) -> np.ndarray:
        """Embed a batch at one layer, or at several side by side.

        Args:
            pixels: (B, V, 3, H, W) uint8 in the backbone's views.
            layer: as in ``LayerSpec.parse``.

        Returns:
            (B, D), or (B, V, D) if the spec names several views.
        """
        return features_at(self.encode_views(pixels), layer)

    def embed(
        self, images: Any, *, layer: str = PENULTIMATE, batch_size: int = 8, workers: int | None = None
    ) -> np.ndarray:
        """Read, decode and embed images, without a cache.

        Args:
            images: one image or several, as ``featx.predict`` takes them: a path, the bytes of a file, an image of Pillow, an
                array (H, W) or (H, W, C), or an iterable of these.
            layer: a layer spec, as in ``LayerSpec.parse``: of any layer of the network, and of a set of views.
            batch_size: images per forward pass.
            workers: threads that read and decode; by default one per core.

        Returns:
            (N, D) of ``self.dtype``, one row for each image, in order; (N, V, D) if the layer spec names V views.

        Raises:
            DatasetError: something is no image, or there are no images.
            ImageError: an image cannot be read or decoded; the message names it.

        Examples:
            >>> backbone = load_backbone("lenet5", device="cpu")
            >>> backbone.embed(np.zeros((28, 28, 3), dtype=np.uint8)).shape
            (1, 84)
        """
        backbone = self if self.identity_of(layer) else self.with_layers(layer)
        batches = view_batches(images, self.transform, backbone.views, batch_size=batch_size, workers=workers)
        return np.concatenate([backbone.encode_at(pixels, layer) for pixels in batches])

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which forward passes of this network compute in ``self.precision``."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.precision))

    def _zeros(self) -> Tensor:
        """One black image, (1, C, H, W) float32, on the device."""
        return torch.zeros(1, *self.transform.shape, device=self.device)

    def _extract_layers(self, layers: Iterable[str]) -> None:
        zeros = self._zeros()
        self.extractor = FeatureExtractor(
            self.network, name=self.name, classifier=self.classifier, layers=list(layers), images=zeros
        )
        self.layer_widths = {layer: rows.shape[1] for layer, rows in self._run(zeros).items()}
        self.__dict__.pop("after_last", None)
        if Path(self.weights).is_absolute() and self._last.is_blank and self.after_last:
            raise self._last.blank_error(self.name, self.weights, min(self.after_last))

    @cached_property
    def after_last(self) -> frozenset[str]:
        """The layers that depend on the last layer."""
        return self._last.dependent(lambda: self._run(self._zeros()))

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        """Run the extractor on normalised images: (B, D) float32 for each layer, on the device."""
        with torch.inference_mode(), full_float32(), self.autocast(), self.extractor.attached():
            outputs: dict[str, Tensor] = self.extractor(images)
        return outputs


@system_errors()
def load_backbone(
    name: str = "resnet50",
    *,
    weights: str = "default",
    layers: str | Sequence[str] = (),
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
    value_range: str | int | tuple[float, float] | None = None,
    bands: str | Sequence[int] | None = None,
    fit: str | None = None,
    size: str | int | Sequence[int] | None = None,
    in_chans: int | None = None,
) -> Backbone:
    """Build a backbone, load its weights and freeze it.

    Args:
        name: a torchvision classification model, ``lenet5``, ``mobilenet_v1_075``, ``timm/<name>``, ``hf/<repo or folder>``,
            ``open_clip/<arch>/<pretrained>`` or ``file.py:factory``.
        weights: "default" (downloaded once, hash checked), "random" (a seeded baseline), the name of torchvision weights, or a
            local .safetensors or .pth file.
        layers: a layer or layers to extract besides the penultimate: names of modules or torchvision graph nodes, or
            ``NAME:POOLING``.
        stages: also extract every stage of the network.
        pooling: the pooling of layers that name none: "avg", "max", "gem", "cls", "avg+cls", "flatten", or cells such as
            "grid2" and "tokens:16" (see ``layer_spec.LayerNode``). Without layers and stages, that of the last map before the
            penultimate, which is then stored besides it.
        views: the views of each image (test-time augmentation, TTA): "plain", "flip" (plain and mirrored) or "10crop" (centre
            and corners, plain and mirrored).
        dtype: the type of the embeddings, "float32" or "float16".
        precision: the precision that the network computes in: "float32", "bfloat16" or "float16".
        device: "auto" (CUDA, then MPS, then the CPU), or a torch device.
        transform: replaces the transform of the weights.
        resize: replaces the size in pixels that the transform resizes to.
        crop: replaces the size in pixels that the transform crops to.
        background: replaces the colour behind transparent pixels, which is white: a CSS colour name or #rrggbb.
        decoding: replaces the transform's way of decoding, which is "exact": "scaled" or "nvjpeg".
        value_range: the sample values that are black and white, instead of the full range of each file's type: 8, 10, 12, 14
            or 16 bits, (LOW, HIGH), or "LOW-HIGH".
        bands: the bands of an image to read, from 1: one is grey, three are RGB; (4, 3, 2) or "4,3,2".
        fit: replaces how an image of another shape fits: "crop", "pad" or "squash"; see ``Transform.fit``.
        size: replaces the size of the images, 448, (224, 448) or "224x448" (height first); the size that the transform resizes
            to changes in proportion.
        in_chans: adapts the first layer of a network of timm to so many channels: 1 is grey, others than 3 are ``bands``.

    Raises:
        BackboneError: the backbone cannot be built, downloaded or loaded, or has no such layer. The message names the option
            that mends it.

    Examples:
        >>> backbone = load_backbone("lenet5", layers=["features.3:max"], views="flip", device="cpu")
        >>> list(backbone.layers)
        ['penultimate', 'features.3:max', 'penultimate@mirrored', 'features.3:max@mirrored']
    """
    if not isinstance(name, str):
        raise BackboneError(f"the backbone is {name!r}; expected its name, such as resnet50")
    _require_options(dtype=dtype, precision=precision, views=views, pooling=pooling)
    requested = names_of(layers, "layers")
    if pooling != POOLINGS[0] and not (requested or stages):
        requested = [f"{PENULTIMATE}:{pooling}"]
    changes = {
        "background": _parsed("--background", parse_colour, background),
        "decoding": decoding,
        "value_range": _parsed("--value-range", parse_value_range, value_range),
        "bands": _parsed("--bands", parse_bands, bands),
    }
    shape = {"fit": fit, "size": _parsed("--size", parse_size, size), "resize": resize, "crop": crop}
    channels = in_chans or (transform.channels if transform and transform.channels != 3 else None)
    network = registry.build(name, str(weights), _built_for(transform, shape), channels)
    transform = _changed(transform or network.transform, shape, changes, name)
    chosen_device = pick_device(device)
    with as_backbone_errors(name, network, transform, chosen_device):
        backbone = Backbone(
            network.module,
            name=name,
            weights=network.weights,
            origin=network.origin,
            transform=transform,
            classifier=network.classifier,
            layers=[],
            dtype=dtype,
            precision=precision,
            device=chosen_device,
            notes=(*network.notes, *fit_notes(transform, network.transform, asked=bool(fit or size))),
            text=network.text,
        ).with_views(VIEWS[views])
        if stages:
            requested += [stage.layer for stage in backbone.stages()]
        if not requested:
            return backbone
        return backbone.with_layers(str(LayerNode.parse(layer, pooling)) for layer in requested)


def layers_of(name: str) -> tuple[list[Stage], list[str]]:
    """The stages of a backbone and the names of its blocks, by a forward pass that needs no weights and computes only shapes.

    Args:
        name: as in ``load_backbone``.

    Raises:
        BackboneError: there is no such backbone, or it cannot run on its images.
    """
    network, images = registry.build_on_meta(name)
    with as_backbone_errors(name, network, network.transform, images.device):
        classifier = find_classifier(network.module, images, network.classifier)[0]
        return find_stages(network.module, classifier, images), block_names(network.module, classifier)


def in_modules(backbone: Backbone, layer: str) -> str:
    """A layer spec in which the last map stands by the name of its module, so that the network alone tells what it is.

    Args:
        backbone: the backbone.
        layer: layers that it extracts, as in ``LayerSpec.parse``; ``penultimate:grid2`` among them becomes ``layer4:grid2``.
    """
    spec = LayerSpec.parse(layer)
    if all(node.is_vector for node in spec.nodes):
        return layer
    nodes = [dataclasses.replace(node, node=backbone.extractor.module_of.get(node, node.node)) for node in spec.nodes]
    return str(LayerSpec(tuple(map(str, nodes)), spec.views))


def split_views(features: Mapping[str, np.ndarray], views: Sequence[View | RandomView]) -> dict[str, np.ndarray]:
    """Separate the views of each layer: (B V, D), the V views of an image one after the other, to (B, D) for each view.

    Args:
        features: the rows of each layer, by its name without a view.
        views: the V views.

    Returns:
        The rows by the name under which a feature file stores them.
    """
    return {
        stored_name(layer, view): rows[at :: len(views)]
        for at, view in enumerate(views)
        for layer, rows in features.items()
    }


def cast_features(embeddings: np.ndarray, dtype: str) -> np.ndarray:
    """Cast embeddings to the type that a file stores.

    Numbers beyond the range of float16 become infinite, without a warning; a feature file stores such a row as failed.
    """
    with np.errstate(over="ignore"):
        return embeddings.astype(dtype, copy=False)


def _require_options(*, dtype: str, precision: str, views: str, pooling: str) -> None:
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise BackboneError(f"dtype is {dtype!r}; expected {' or '.join(DTYPES)}")
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise BackboneError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if not isinstance(views, str) or views not in VIEWS:
        raise BackboneError(f"views is {views!r}; expected one of {', '.join(VIEWS)}")
    if not isinstance(pooling, str):
        raise BackboneError(f"pooling is {pooling!r}; expected a name, such as {POOLINGS[0]}")
    require_pooling(pooling)


def _parsed(option: str, parse: Callable[[Any], Parsed], value: Any) -> Parsed | None:
    """Parse the value of an option; None stays None."""
    try:
        return None if value is None else parse(value)
    except ValueError as error:
        raise BackboneError(f"{option} {error}") from error


def _built_for(transform: Transform | None, shape: Mapping[str, Any]) -> int | tuple[int, int] | None:
    """The size of images that a network is built for, where one is named."""
    if shape["size"]:
        height, width = shape["size"]
        return height if height == width else (height, width)
    return shape["crop"] or (transform.image_size if transform else None)


def _changed(transform: Transform, shape: Mapping[str, Any], changes: Mapping[str, Any], name: str) -> Transform:
    """A transform that is fitted to a shape, with those fields replaced that are not None."""
    try:
        given = {field: value for field, value in changes.items() if value is not None}
        return dataclasses.replace(fitted(transform, **shape), **given)
    except ValueError as error:
        raise BackboneError(f"{name} does not support this transform: {error}") from error


def _require_corners(transform: Transform, views: Iterable[View | RandomView]) -> None:
    corners = any(isinstance(view, View) and view.vertical for view in views)
    if corners and not transform.leaves_corners:
        how = fit_words(transform)
        raise BackboneError(f"there are no corners to crop: images are {how}; use a larger --resize, or --views flip")
