"""Random crops and mirroring of training images."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from featx.data.boxes import Box
from featx.data.decode import MAX_PIXELS, with_pixels
from featx.data.transform import Transform, cropped, resize_pixels
from featx.layer_spec import RandomView


def read_random_view(
    data: bytes, transform: Transform, view: RandomView, *, max_pixels: int = MAX_PIXELS, box: Box | None = None
) -> np.ndarray:
    """As ``read_augmented``, with random numbers that depend only on the view and the image's bytes."""
    content = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    rng = np.random.default_rng([view.seed, view.number, content])
    return read_augmented(data, transform, rng, scale=view.scale, flip=view.flip, max_pixels=max_pixels, box=box)


def read_augmented(
    data: bytes,
    transform: Transform,
    rng: np.random.Generator,
    *,
    scale: float,
    flip: bool = True,
    max_pixels: int = MAX_PIXELS,
    box: Box | None = None,
) -> np.ndarray:
    """Decode an image, cut out a random region, resize it to the crop, and mirror it half of the time.

    This is the random resized crop of Szegedy et al. (2015) as torchvision implements it: an area of ``scale`` to 1 of the
    image and an aspect ratio of 3/4 to 4/3 (log-uniform), relative to that of the crop; after ten failed draws, the centre. The
    region fills the crop, also where the plain view is padded.

    Args:
        data: the bytes of an image file.
        transform: its size, channels, interpolation and background apply. JPEGs are always decoded whole.
        rng: the only source of randomness.
        scale: the smallest share of the image's area that a crop covers.
        flip: mirror half of the images.
        max_pixels: as ``decode``.
        box: the part of the image from which the region is cut; None for all of it.

    Returns:
        ``transform.shape`` uint8: (3, H, W), RGB, unless the network takes other channels.

    Raises:
        ImageError: as ``decode``.
    """

    def cut(pixels: np.ndarray) -> np.ndarray:
        return cut_random(pixels, transform, rng, scale=scale, flip=flip)

    return with_pixels(data, transform, cut, max_pixels=max_pixels, box=box)


def cut_random(
    pixels: np.ndarray, transform: Transform, rng: np.random.Generator, *, scale: float, flip: bool
) -> np.ndarray:
    """Cut a random region out of (H, W) pixels from ``with_pixels``, and resize it: ``transform.shape`` uint8."""
    aspect = transform.size[1] / transform.size[0]
    left, top, right, bottom = _random_box((pixels.shape[1], pixels.shape[0]), rng, scale, aspect)
    patch = resize_pixels(pixels[top:bottom, left:right], transform.size, transform)
    if flip and rng.random() < 0.5:
        patch = patch.flip(-1)
    return cropped(patch, transform)


def _random_box(
    size: tuple[int, int], rng: np.random.Generator, scale: float, aspect: float
) -> tuple[int, int, int, int]:
    """Draw (left, top, right, bottom) of a random resized crop for an input whose width is ``aspect`` times its height."""
    width, height = size
    for _ in range(10):
        area = width * height * rng.uniform(scale, 1.0)
        ratio = aspect * math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * 4 / 3 * aspect)), min(height, round(width * 4 / 3 / aspect))
    w, h = max(1, w), max(1, h)
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
