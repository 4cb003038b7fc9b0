"""Networks as modules from normalised images to features side by side: parts of larger modules."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from featx.data.joint_transform import split_pixels


class Embedder(nn.Module):
    """A network up to some of its layers: (B, C, H, W) normalised images to (B, D) float32.

    Args:
        extractor: gives the features of layers by name; its hooks are attached for good (``FeatureExtractor.attach``).
        layers: the names of the layers, in order.
        precision: the precision that the network computes in, as of ``Backbone``.
        dtype: the type of stored features; features have its rounding.
    """

    def __init__(
        self, extractor: Any, layers: Sequence[str], *, precision: str = "float32", dtype: str = "float32"
    ) -> None:
        super().__init__()
        self.extractor = extractor.eval()  # the copy of a traced graph is in training mode
        self.extractor.attach()
        self.layers, self.precision, self.dtype = tuple(layers), precision, dtype

    def forward(self, images: Tensor) -> Tensor:
        """Embed images."""
        with self._autocast(images.device.type):
            by_layer = self.extractor(images)
        features = torch.cat([by_layer[layer] for layer in self.layers], dim=1)
        return features.half().float() if self.dtype == "float16" else features

    def _autocast(self, device: str) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(device, dtype=getattr(torch, self.precision))


class JointEmbedder(nn.Module):
    """Several networks side by side: (B, L) normalised images, packed by a ``JointTransform``, to (B, D) float32.

    Args:
        shapes: the shape (C, H, W) of an image as each part takes it.
        parts: the network of each part, from its images to (B, D_i).
    """

    def __init__(self, shapes: Sequence[Sequence[int]], parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.shapes, self.parts = tuple(map(tuple, shapes)), nn.ModuleList(parts)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images."""
        split = split_pixels(images, self.shapes)
        return torch.cat([part(some) for part, some in zip(self.parts, split, strict=True)], dim=1)


class JointNetwork(JointEmbedder):
    """Several networks side by side, and a linear layer on their features: (B, L) normalised images to (B, C) logits.

    Args:
        shapes: as of ``JointEmbedder``.
        parts: likewise.
        width: D, the features of all parts together.
    """

    CLASSIFIER = "head"
    """The name of the linear layer, which has one output until it is replaced."""

    def __init__(self, shapes: Sequence[Sequence[int]], parts: Sequence[nn.Module], width: int) -> None:
        super().__init__(shapes, parts)
        self.head = nn.Linear(width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits of images."""
        logits: Tensor = self.head(super().forward(images))
        return logits


def compute_in_float32(module: nn.Module) -> None:
    """Let all networks in a module compute in float32, whatever their features were computed in."""
    for each in module.modules():
        if isinstance(each, Embedder):
            each.precision = "float32"
