"""Several backbones side by side, which take the same images and whose features are put one after the other."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from featx.backbones.backbone import Backbone
from featx.backbones.blocks import Stage
from featx.backbones.embedder import Embedder, JointEmbedder
from featx.backbones.pixels import as_pixels
from featx.backbones.text_tower import WithText
from featx.data.joint_transform import JointTransform
from featx.errors import BackboneError
from featx.identity import features_at, joint_identity
from featx.layer_spec import PENULTIMATE, LayerSpec, RandomView, View, stored_name

Partly = Sequence[tuple[np.ndarray, np.ndarray]]
"""What is known of B images for each part: (B,) bool, of which images; and the features of these, in order."""


@dataclass(frozen=True, eq=False)
class Part:
    """One of several backbones side by side.

    Attributes:
        backbone: the backbone, which extracts the layers.
        layers: the layers whose features are taken, side by side.
    """

    backbone: Backbone
    layers: tuple[str, ...]

    @property
    def width(self) -> int:
        """D, the number of features."""
        return sum(self.backbone.layer_widths[name] for name in self.layers)

    def spec(self, views: Sequence[View | RandomView]) -> str:
        """The layer spec of the features in some views."""
        return str(LayerSpec(self.layers, tuple(views)))  # type: ignore[arg-type]

    def identity(self, views: Sequence[View | RandomView]) -> str:
        """The identity of the features in some views."""
        identities = self.backbone.identities
        return joint_identity([identities[stored_name(layer, view)] for view in views for layer in self.layers])


class JointBackbone(Backbone):
    """Several frozen networks side by side, which behave as one backbone with one layer, the penultimate.

    Each network has its own transform, layers, precision and dtype. The pixels of an image are one row of bytes, as
    ``JointTransform`` packs them, so that the image is read and decoded once.

    Args:
        parts: the backbones, in the order of their columns, all in the same views.

    Attributes:
        parts: the same.

    Raises:
        BackboneError: there are no parts.

    Examples:
        >>> from featx.backbones.backbone import load_backbone
        >>> part = Part(load_backbone("lenet5", device="cpu"), ("penultimate",))
        >>> joint = JointBackbone([part, part])
        >>> joint.layers, joint.transform.shape
        ({'penultimate': 168}, (6144,))
        >>> joint.encode(np.zeros((2, 6144), dtype=np.uint8))["penultimate"].shape
        (2, 168)
    """

    transform: JointTransform  # type: ignore[assignment]

    def __init__(self, parts: Sequence[Part]) -> None:
        if not parts:
            raise BackboneError("a joint backbone has no parts; expected at least one")
        backbones = [part.backbone for part in parts]
        WithText.__init__(self, "+".join(backbone.name for backbone in backbones), None)
        self.parts, self.weights, self.classifier = tuple(parts), "joint", ""
        self.transform = JointTransform(tuple(backbone.transform for backbone in backbones))
        self.notes = tuple(dict.fromkeys(note for backbone in backbones for note in backbone.notes))
        self.dtype = str(np.result_type(*(backbone.dtype for backbone in backbones)))
        self.precision = next((b.precision for b in backbones if b.precision != "float32"), "float32")
        self.device, self.views = backbones[0].device, backbones[0].views
        self.network = nn.ModuleList(backbone.network for backbone in backbones)
        self.layer_widths = {PENULTIMATE: sum(part.width for part in parts)}
        self.unpooled, self.last_counts = False, True

    @property
    def identities(self) -> dict[str, str]:
        """The identity of the features in each view."""
        return {stored_name(PENULTIMATE, view): self._identity((view,)) for view in self.views}

    def identity_of(self, layer: str) -> str | None:
        """The identity of the features in the views of a layer spec; None for other layers or views."""
        spec = LayerSpec.parse(layer)
        is_ours = spec.layers == (PENULTIMATE,) and set(spec.views) <= set(self.views)
        return self._identity(spec.views) if is_ours else None

    def _identity(self, views: Sequence[View | RandomView]) -> str:
        return joint_identity([part.identity(views) for part in self.parts])

    def describe(self) -> Any:
        """What the features of each part depend on, except its views, as a list: the parts of a joint feature set."""
        return [
            {
                "backbone": {"name": part.backbone.name, "parts": part.backbone.describe()},
                "layer": part.spec(self.views),
            }
            for part in self.parts
        ]

    def with_views(self, views: str | Sequence[View | RandomView]) -> JointBackbone:
        """The same networks with these views of each image.

        Raises:
            BackboneError: there is no such set, or a part leaves no corners to crop.
        """
        return self._changed(lambda backbone: backbone.with_views(views))

    def with_dtype(self, dtype: str) -> JointBackbone:
        """The same networks with embeddings of another type."""
        return self._changed(lambda backbone: backbone.with_dtype(dtype))

    def _changed(self, change: Callable[[Backbone], Backbone]) -> JointBackbone:
        return JointBackbone([Part(change(part.backbone), part.layers) for part in self.parts])

    def with_layers(self, layers: str | Iterable[str]) -> JointBackbone:  # noqa: ARG002 - the signature it overrides
        """Not possible: the layers of each part were chosen when its features were joined.

        Raises:
            BackboneError: always.
        """
        raise BackboneError(f"{self.name} are several backbones side by side, each with layers that were chosen before")

    def with_extractor(self, *arguments: Any, **options: Any) -> Backbone:  # noqa: ARG002 - as above
        """Not possible, for the same reason.

        Raises:
            BackboneError: always.
        """
        raise BackboneError(f"{self.name} are several backbones side by side, each with layers that were chosen before")

    def stages(self) -> list[Stage]:
        """None: each part has its own."""
        return []

    def encode(self, pixels: np.ndarray | Tensor) -> dict[str, np.ndarray]:
        """Embed (B, L) uint8 pixels, packed by the transform: (B, D), by each network in its plain way."""
        batch = as_pixels(pixels, self.transform.shape)
        nothing = np.zeros(len(batch), dtype=bool)
        known = [(nothing, np.empty((0, part.width))) for part in self.parts]
        return {PENULTIMATE: joined(self, batch, known, lambda at, some: self.parts[at].backbone.encode(some))}

    def encode_rest(self, pixels: np.ndarray, layer: str, known: Partly) -> np.ndarray:
        """Embed images of which the features of some parts are known; each network runs on the others only.

        Args:
            pixels: (B, V, L) uint8 in the views.
            layer: as of ``encode_at``.
            known: for each part, of the B images.
        """
        batch = as_pixels(pixels, self.transform.shape, len(self.views)).flatten(0, 1)
        each = per_view(known, len(self.views))
        rows = joined(self, batch, each, lambda at, some: self.parts[at].backbone.encode(some))
        return features_at({name: rows[at :: len(self.views)] for at, name in enumerate(self.layers)}, layer)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Nothing: each part has its own precision."""
        return contextlib.nullcontext()


def embedder_of(backbone: Backbone, layer: str) -> nn.Module:
    """A private copy of a network up to the layers of a spec: normalised images to (B, D) float32.

    Args:
        backbone: one, which takes (B, C, H, W), or several side by side, which take (B, L).
        layer: as in ``LayerSpec.parse``; the layers of each of several are known.
    """
    if isinstance(backbone, JointBackbone):
        parts = [embedder_of(part.backbone, ",".join(part.layers)) for part in backbone.parts]
        return JointEmbedder(backbone.transform.shapes, parts)
    layers, extractor = LayerSpec.parse(layer).layers, copy.deepcopy(backbone.extractor)
    return Embedder(extractor, layers, precision=backbone.precision, dtype=backbone.dtype)


def joined(
    backbone: JointBackbone,
    pixels: Any,
    known: Partly,
    run: Callable[[int, Any], Mapping[str, np.ndarray]],
) -> np.ndarray:
    """The features of all parts side by side, of which some are known.

    Args:
        backbone: gives the parts.
        pixels: (B, L) uint8, packed by its transform; an array or a tensor.
        known: for each part.
        run: from the number of a part, and pixels that it takes, to (B, D_i) of each of its layers.

    Returns:
        (B, D).
    """
    found = []
    for at, (part, some, (mask, rows)) in enumerate(
        zip(backbone.parts, backbone.transform.split(pixels), known, strict=True)
    ):
        out = np.empty((len(mask), part.width), dtype=part.backbone.dtype)
        if mask.any():
            out[mask] = rows
        if not mask.all():
            by_layer = run(at, some[~mask])
            out[~mask] = np.concatenate([by_layer[name] for name in part.layers], axis=1)
        found.append(out)
    return np.concatenate(found, axis=1)


def per_view(known: Partly, views: int) -> Partly:
    """What is known of images, as what is known of their views: (S, V, D) features as (S V, D)."""
    return [(np.repeat(mask, views), rows.reshape(-1, rows.shape[-1]) if mask.any() else rows) for mask, rows in known]
