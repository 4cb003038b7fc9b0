"""Pictures made on the spot, and their pixels by other libraries."""

from __future__ import annotations

import io
import platform
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision_steps


def file_of(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int, *, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(width: int, height: int) -> np.ndarray:
    """Soft waves, which JPEG keeps nearly as they are."""
    y, x = np.mgrid[:height, :width]
    return np.stack([127 + 120 * np.sin(x / 9 + c) * np.cos(y / 11 - c) for c in range(3)], axis=-1).astype(np.uint8)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Composited by hand: (H, W, 3) and (H, W), uint8, to (H, W, 3) float."""
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


# Resizing and cropping

SIZES = [(500, 375), (375, 500), (256, 256), (224, 224), (300, 257), (80, 100), (1000, 301), (63, 500), (257, 256)]


NATIVE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")
"""Whether torchvision itself resizes bytes here; elsewhere it goes by way of floats, for bilinear."""


def by_torchvision(pixels: np.ndarray, resize: int, crop: int, interpolation: str) -> np.ndarray:
    """(3, crop, crop) uint8 by the steps of torchvision's ImageClassification preset on a tensor of (H, W, 3) uint8."""
    mode = InterpolationMode.NEAREST_EXACT if interpolation == "nearest" else InterpolationMode(interpolation)
    tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    size = [resize] if resize else [crop, crop]
    resized = torchvision_steps.resize(tensor, size, interpolation=mode, antialias=True)
    return np.asarray(torchvision_steps.center_crop(resized, [crop]))


def difference(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Absolute, in steps of 255."""
    assert ours.shape == theirs.shape
    return np.abs(ours.astype(int) - theirs)
