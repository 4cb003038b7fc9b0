"""Models of transformers and open_clip as networks from images to one vector: what every other part of featx runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

POOLINGS = ("classifier", "pooler", "cls", "cls+distilled", "mean", "projection")
"""How a model of transformers makes one vector of an image: what enters its classifier; its pooled output; its class token; the
mean of its class and distillation tokens; the mean of its tokens or places; its pooled output, projected beside text."""


class ImageTower(nn.Module):
    """A model whose output is an object with several tensors, as a network from images to one vector or to logits.

    Args:
        model: the model. It takes ``pixel_values``, or for ``pooling`` "visual" of open_clip, images as its only argument.
        pooling: one of ``POOLINGS``.
        projection: the layer that projects the pooled output to the width of the text; None if there is none.
        interpolate: whether the model's position embeddings are interpolated, for images of another size than the weights'.
        swap_channels: whether the model takes B, G, R.

    Attributes:
        pooled: what enters the projection, for ``--layer pooled``; it changes nothing.
        head: the last layer, which changes nothing; a head takes its place. The classifier of the model itself, where it has
            one, is the last layer instead.
    """

    def __init__(
        self,
        model: nn.Module,
        pooling: str,
        *,
        projection: nn.Module | None = None,
        interpolate: bool = False,
        swap_channels: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.pooling, self.interpolate, self.swap_channels = pooling, interpolate, swap_channels
        if pooling != "classifier":
            self.pooled = nn.Identity()
            if projection is not None:
                self.projection = projection
            self.head = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Turn (B, 3, H, W) normalised images into (B, D) embeddings, or (B, K) logits where the model has a classifier."""
        if self.swap_channels:
            images = images.flip(1)
        options = {"interpolate_pos_encoding": True} if self.interpolate else {}
        out = self.model(pixel_values=images, **options)
        if self.pooling == "classifier":
            logits: Tensor = out.logits
            return logits
        vectors = self.pooled(_pooled(out, self.pooling))
        if hasattr(self, "projection"):
            vectors = self.projection(vectors)
        embeddings: Tensor = self.head(vectors)
        return embeddings


class VisualTower(nn.Module):
    """The image tower of an open_clip model, as a network from images to their embeddings beside text.

    Args:
        visual: the tower, from images to embeddings, or to a tuple that begins with them.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.head = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Turn (B, 3, H, W) normalised images into (B, D) embeddings."""
        out = self.visual(images)
        embeddings: Tensor = self.head(out[0] if isinstance(out, tuple) else out)
        return embeddings


def _pooled(out: Any, pooling: str) -> Tensor:
    """(B, D) of a model's output."""
    if pooling in ("pooler", "projection"):
        return torch.flatten(out.pooler_output, 1)
    tokens: Tensor = out.last_hidden_state
    if pooling == "cls":
        return tokens[:, 0]
    if pooling == "cls+distilled":
        return tokens[:, :2].mean(dim=1)
    return tokens.flatten(2).mean(dim=2) if tokens.ndim == 4 else tokens.mean(dim=1)
