"""A head together with the backbone that its features came from, in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.backbones.backbone import Backbone
from featx.backbones.identities import in_stored_form
from featx.backbones.joint import JointBackbone, Partly
from featx.data.joint_transform import AnyTransform
from featx.extraction.lookup import JointFeatures, KnownFeatures, known_in_files
from featx.features.remote_folder import folder_here
from featx.heads.head import Head
from featx.layer_spec import LayerSpec, View
from featx.promotion.model import PromotedModel


@dataclass(frozen=True, eq=False)
class HeadOnBackbone:
    """A head together with the backbone that its features came from; it predicts from pixels, like a promoted model.

    Attributes:
        head: a fitted head.
        backbone: the backbone, in the views (test-time augmentation) of the head's features.

    Raises:
        StaleCacheError: the backbone gives other features than those that the head was fitted to.

    Example:

        model = HeadOnBackbone(featx.Head.load("head.safetensors"), featx.load_backbone("lenet5"))
        model.predict_values(np.zeros((1, 1, 3, 32, 32), dtype=np.uint8))  # (1, C) float64 probabilities
    """

    head: Head
    backbone: Backbone

    def __post_init__(self) -> None:
        backbone = self.backbone.with_views(LayerSpec.parse(self.head.layer_).views)
        object.__setattr__(self, "backbone", in_stored_form(backbone, {self.head.layer_: self.head.identity_}))
        self.head.require_same(
            self.backbone.identity_of(self.head.layer_),
            self.backbone.describe(),
            layers=tuple(self.backbone.layers),
            where=self.backbone.name,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes or labels."""
        return self.head.names_

    @property
    def transform(self) -> AnyTransform:
        """The transform from an image's pixels to the network's input."""
        return self.backbone.transform

    @property
    def views(self) -> tuple[View, ...]:
        """The V views (test-time augmentation) that the head averages its scores over."""
        return LayerSpec.parse(self.head.layer_).views

    @property
    def device(self) -> Any:
        """The torch device of the network."""
        return self.backbone.device

    def predict_values(self, pixels: np.ndarray) -> np.ndarray:
        """Predict from pixels.

        Args:
            pixels: (B, V, *transform.shape) uint8, each image in all ``views``.

        Returns:
            (B, C) float64: probabilities of classes or labels, or the values of a regression.
        """
        return self.head.predict_values(self.features(pixels))

    def features(self, pixels: np.ndarray, known: Partly | None = None) -> np.ndarray:
        """Compute the features that the head takes.

        Args:
            pixels: as ``predict_values`` takes them.
            known: what is known of each of several backbones; see ``JointFeatures.known``.

        Returns:
            (B, D), or (B, V, D) of several views.
        """
        if known is not None and isinstance(self.backbone, JointBackbone):
            return self.backbone.encode_rest(pixels, self.head.layer_, known)
        return self.backbone.encode_at(pixels, self.head.layer_)


def known_features(model: HeadOnBackbone | PromotedModel, cache: str | os.PathLike[str] | None) -> KnownFeatures | None:
    """The features that a head takes from the files of a folder, and from those that it was fitted to.

    A promoted model, whose network may have been fine-tuned, has none.
    """
    if cache is None or isinstance(model, PromotedModel):
        return None
    head, backbone, folder = model.head, model.backbone, folder_here(cache)
    if not isinstance(backbone, JointBackbone):
        return known_in_files(backbone.identities, head.layer_, folder, head.source_)
    files = [Path(each["file"]) if each["file"] else None for each in head.backbone_["parts"]]
    parts = tuple(
        known_in_files(part.backbone.identities, part.spec(backbone.views), folder, own)
        for part, own in zip(backbone.parts, files, strict=True)
    )
    return JointFeatures(parts) if any(part is not None for part in parts) else None
