"""Networks and helpers that several test files of backbones share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featx.backbones.backbone import Backbone

FACTORIES = '''
from __future__ import annotations

import dataclasses

import torch
from torch import nn

from featx import Transform


@dataclasses.dataclass
class Sizes:
    width: int = 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, Sizes().width, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)
        self.transform = Transform(resize=40, crop=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def embed(self, images):
        return self.drop(self.norm(self.conv(images)).relu().mean((2, 3)))

    def forward(self, images):
        return self.fc(self.embed(images))


class Named(Net):
    """Its last layer to run is no classifier."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(2, 2)

    def forward(self, images):
        logits = super().forward(images)
        return logits * self.scale(logits).sigmoid()

    def get_classifier(self):
        return self.fc


class Unnamed(Named):
    get_classifier = None


class Several(Net):
    def forward(self, images):
        return self.fc(self.embed(images)), images


class Fixed(Net):
    """Fails half way where images have another size."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(30 * 30 * 4, 2)

    def embed(self, images):
        return self.norm(self.conv(images)).flatten(1)


class Grey(Net):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)


class TwoInputs(Grey):
    def forward(self, images, mask):
        return super().forward(images * mask)


class FiveBands(Net):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(5, 4, 3)


class InPlace(Net):
    """Changes its tensors by methods, and under their old names."""

    def embed(self, images):
        out = self.norm(self.conv(images))
        out = out.mul_(2).add_(1)
        return out.sigmoid().mean((2, 3))


class Unseen(Net):
    """Changes a tensor by a statement, which torch.fx drops from the graph."""

    def embed(self, images):
        out = self.norm(self.conv(images))
        out.mul_(2).add_(1)
        return out.sigmoid().mean((2, 3))


class Branching(Net):
    """Cannot be traced."""

    def embed(self, images):
        return super().embed(images if images.sum() > 0 else -images)


class Pieces(nn.Module):
    def forward(self, embedding):
        return list(embedding)


class Rich(Net):
    """Has modules that give no single tensor, or one of an odd shape."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
        self.pieces = Pieces()
        self.rows = nn.Unflatten(1, (2, 2, 1, 1))
        self.windows = nn.Unflatten(1, (1, 4, 1))

    def embed(self, images):
        embedding = super().embed(images)
        self.attention(embedding[:, None], embedding[:, None], embedding[:, None])
        self.pieces(embedding)
        self.rows(embedding)
        self.windows(embedding)
        return embedding


class OddTransform(Net):
    def __init__(self):
        super().__init__()
        self.transform = "resize to 32"


def plain():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 7), nn.ReLU(), nn.Linear(7, 2))


def training():
    return Net().train()


def headless():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())


def identity():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Identity())


def nothing():
    return "a network"


def needy(width):
    return Net()


def broken():
    raise LookupError("no such thing")


not_a_function = 3
'''


def pixels_for(backbone: Backbone, count: int = 2) -> np.ndarray:
    side = backbone.transform.crop
    return np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def normalised(backbone: Backbone, pixels: np.ndarray) -> Tensor:
    """Normalise (B, 3, H, W) uint8 pixels independently of featx."""
    mean = np.array(backbone.transform.mean, np.float32)[:, None, None]
    std = np.array(backbone.transform.std, np.float32)[:, None, None]
    return torch.from_numpy((pixels.astype(np.float32) / 255 - mean) / std)


def module_outputs(network: nn.Module, images: Tensor, *names: str) -> dict[str, Tensor]:
    """The output of each module's first call, copied at once."""
    outputs: dict[str, Tensor] = {}

    def record(name: str, out: Tensor) -> None:
        outputs.setdefault(name, out.clone())

    hooks = [
        network.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: record(name, out))
        for name in names
    ]
    with torch.inference_mode():
        network(images)
    for hook in hooks:
        hook.remove()
    return outputs


def hooks_of(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def stored(backbone: Backbone) -> dict[str, Any]:
    """The description of a backbone that a feature file stores."""
    return {"name": backbone.name, "weights": backbone.weights, "parts": backbone.describe()}
