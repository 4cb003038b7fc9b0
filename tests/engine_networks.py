"""Networks that are hard for engines, and helpers to compare what engines make of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from featx.backbones.backbone import Backbone
from featx.extraction.engine_table import ENGINES, EngineSpec
from featx.extraction.engines import TOLERANCE, installed

EXPORTED = ("openvino", "onnxruntime")
"""Engines that run an exported network."""

NOT_EVEN_ONE = r"^not even one image at a time fits on the device \(CUDA out of memory\); try --device cpu$"

Load = Callable[..., Backbone]
"""Loads a network by the name of its factory, or of a backbone."""

NETWORKS = '''
from __future__ import annotations

import threading

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import SwinTransformer, VisionTransformer

from featx import Transform


class Mixed(nn.Module):
    """Convolutions before and after their norms, grouped and by channel, a sum in place, a norm of vectors."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.depth = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.depth_norm = nn.BatchNorm2d(8, affine=False)
        self.dense_norm = nn.BatchNorm2d(8)
        self.dense = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.hidden = nn.Linear(16, 12)
        self.hidden_norm = nn.BatchNorm1d(12)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        x = self.stem(x)
        y = self.depth_norm(self.depth(x))
        y += x
        z = self.dense(self.dense_norm(y).relu())
        z = torch.cat([y, z], 1).mean((2, 3))
        return self.fc(self.hidden_norm(self.hidden(z)).relu())


class Small(nn.Module):
    """Two convolutions, each with its norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 3)

    def embed(self, x):
        return self.norm2(self.conv2(self.norm(self.conv(x)).relu())).relu().mean((2, 3))

    def forward(self, x):
        return self.fc(self.embed(x))


class Logarithm(Small):
    """NaN of dark images."""

    def embed(self, x):
        return super().embed(x) + torch.log(x.mean((1, 2, 3)) - 0.25)[:, None]


class OutputTwice(Small):
    def embed(self, x):
        out = self.conv(x)
        return self.norm2(self.conv2(self.norm(out).relu())).mean((2, 3)) + out.mean((2, 3))


class CalledTwice(Small):
    def embed(self, x):
        out = self.norm(self.conv(x)).relu()
        return self.norm2(self.conv2(self.conv2(out))).mean((2, 3))


class NormTwice(Small):
    def embed(self, x):
        out = self.norm(self.conv(x))
        return self.norm(self.conv2(out)).mean((2, 3))


class InPlaceBetween(Small):
    def embed(self, x):
        return self.norm2(self.conv2(self.norm(self.conv(x)).relu()).mul_(2).sub_(1)).mean((2, 3))


class Odd(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * 2 + 1


class OddNorm(Small):
    """Its norm is more than a norm."""

    def __init__(self):
        super().__init__()
        self.norm2 = Odd(8)


class Parametrised(Small):
    """Its weight is made anew from other tensors."""

    def __init__(self):
        super().__init__()
        self.conv2 = nn.utils.parametrizations.weight_norm(self.conv2)


class Viewing(Small):
    """Takes for granted that channels come first in memory."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8 * 28 * 28, 3)

    def embed(self, x):
        return self.norm2(self.conv2(self.norm(self.conv(x)).relu())).relu().view(len(x), -1)


class Solid(Small):
    """Has weights of five dimensions."""

    def __init__(self):
        super().__init__()
        self.solid = nn.Conv3d(8, 8, (1, 3, 3))

    def embed(self, x):
        return self.solid(self.norm(self.conv(x)).relu()[:, :, None])[:, :, 0].mean((2, 3))


def between():
    """Called in the middle of a pass."""


class Keeping(Small):
    """Keeps a map in itself from one layer to another."""

    def embed(self, x):
        self.map = self.norm(self.conv(x)).relu()
        between()
        return self.norm2(self.conv2(self.map)).mean((2, 3)) + self.map.mean((2, 3))


class Hooked(Small):
    """A hook keeps a map beside the network."""

    def __init__(self):
        super().__init__()
        self.seen = (seen := {}).get
        self.conv.register_forward_hook(lambda _, __, out: seen.update(map=out))

    def embed(self, x):
        out = super().embed(x)
        between()
        return out + self.seen("map").mean((2, 3))


class HookedInItself(Small):
    """A hook keeps a map in the network that it was made for, whatever copy of it runs."""

    def __init__(self):
        super().__init__()
        self.conv.register_forward_hook(lambda _, __, out: setattr(self, "kept", [out]))

    def embed(self, x):
        return super().embed(x) + self.kept[0].mean((2, 3))


class Uncopied(Small):
    """Cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def ready(network):
    """Its norms as if it had been trained."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_()
    network.transform = Transform(resize=32, crop=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    network.get_classifier = lambda: network.heads.head if hasattr(network, "heads") else (
        network.head if hasattr(network, "head") else network.fc)
    return network


def factory(kind):
    return lambda: ready(kind())


mixed, small, logarithm, odd_norm, parametrised = map(factory, (Mixed, Small, Logarithm, OddNorm, Parametrised))
viewing, solid, keeping = map(factory, (Viewing, Solid, Keeping))
hooked, hooked_in_itself, uncopied = map(factory, (Hooked, HookedInItself, Uncopied))
output_twice, called_twice, norm_twice = map(factory, (OutputTwice, CalledTwice, NormTwice))
in_place_between = factory(InPlaceBetween)


def vit():
    sizes = dict(num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    return ready(VisionTransformer(image_size=32, patch_size=8, num_classes=5, **sizes))


def swin():
    sizes = dict(embed_dim=8, depths=[2], num_heads=[2], window_size=[4, 4])
    return ready(SwinTransformer(patch_size=[4, 4], num_classes=5, **sizes))
'''


def replace_maker(monkeypatch: pytest.MonkeyPatch, name: str, maker: Callable[..., Any]) -> None:
    """Let a function make an engine, whatever is installed."""
    monkeypatch.setitem(ENGINES, name, EngineSpec(maker, cpu_batch=ENGINES[name].cpu_batch))


def require(engine: str) -> None:
    if engine not in installed("cpu"):
        pytest.skip(f"{engine} is not installed")


def pixels_for(backbone: Backbone, count: int = 6) -> np.ndarray:
    side = backbone.transform.crop
    return np.random.default_rng(3).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def assert_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float = TOLERANCE) -> None:
    """Row for row and layer for layer."""
    assert list(found) == list(wanted)
    for layer, rows in wanted.items():
        assert found[layer].shape == rows.shape
        assert found[layer].dtype == rows.dtype
        distances = np.linalg.norm((found[layer] - rows).astype(np.float64), axis=1)
        assert (distances <= tolerance * np.linalg.norm(rows.astype(np.float64), axis=1)).all(), layer


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Bit for bit."""
    for layer, rows in wanted.items():
        np.testing.assert_array_equal(found[layer], rows)
