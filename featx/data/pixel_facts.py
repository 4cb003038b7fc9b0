"""What the pixels of one image tell about it: sizes, brightness, contrast, sharpness, and a small copy to look at.

All of it comes from one decode, of a JPEG at a fraction of its size. Brightness and entropy are those of cleanvision. Sharpness
is not: cleanvision measures edges at 64 pixels, where a blur that makes a photograph useless leaves no trace.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from featx.data.boxes import Box
from featx.data.decode import MAX_PIXELS, full_size, with_pixels
from featx.data.transform import Transform

SIDE = 160
"""The longer side of a thumbnail in pixels; smaller images keep their size."""

FACTS_VERSION = 1
"""Raise it with any change of ``FACTS`` or of how they are measured."""

FACTS = np.dtype(
    [
        ("bytes", "<u8"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("bright_5", "<f4"),
        ("bright_99", "<f4"),
        ("entropy", "<f4"),
        ("contrast", "<f4"),
        ("sharpness", "<f4"),
        ("grey", "<u4"),
    ]
)
"""What is measured of an image:

- ``bytes`` of the file; ``width`` and ``height`` of the upright image in pixels.
- ``bright_5``, ``bright_99``: percentiles of the brightness, sqrt(0.241 R^2 + 0.691 G^2 + 0.068 B^2) / 255, between 0 and 1.
- ``entropy`` of the levels of all three channels together in bits: the mean of the three plus log2(3), for grey images too.
- ``contrast``: the standard deviation of the grey levels, 0 to 255, of the image reduced to about 32 pixels, without its noise.
- ``sharpness``: how much of its detail an image loses when it is halved, see ``_sharpness``; 1 if it cannot be told.
- ``grey``: 1 if the three channels are equal.
"""

_SAMPLE = 1 << 14
"""Pixels of which the percentiles are taken."""

_FINE = 256
"""The longer side, in pixels, at which sharpness is measured: about what networks see."""

_LEAST_SIDE = 16
"""The shorter side, in pixels, below which sharpness is not measured."""

_NOISE = 2.0
"""Root mean square of second differences, in levels, below which they are noise."""

_ROWS = 32
"""Rows that are measured at once: memory for larger arrays would come from the system each time, which takes longer."""

_ONE_WAY = 0.1
"""The detail in one direction, as a share of that in the other, below which a pattern has only one direction."""

_QUALITY = 75

_WEIGHTS = np.array([0.241, 0.691, 0.068, 0], dtype=np.float32)


@dataclass(frozen=True)
class Look:
    """One look at an image.

    Attributes:
        facts: a record of ``FACTS``.
        thumbnail: a JPEG file; b"" if none was requested.
    """

    facts: np.void
    thumbnail: bytes = b""


def look_at(
    data: bytes,
    transform: Transform | None = None,
    *,
    thumbnail: bool = False,
    max_pixels: int = MAX_PIXELS,
    box: Box | None = None,
) -> Look:
    """Measure the pixels of an image, and make a small copy of it in the same decode.

    Args:
        data: the bytes of an image file.
        transform: its value range, bands and background apply.
        thumbnail: whether to make the copy: upright, RGB, without the metadata of the original.
        max_pixels: as in ``decode``.
        box: the part of the image that is meant; None for all of it.

    Raises:
        ImageError: the bytes are not a whole image of a known format, or the image is too large.
    """

    def look(pixels: np.ndarray) -> tuple[np.void, bytes]:
        return _facts(pixels), _jpeg(pixels) if thumbnail else b""

    facts, small = with_pixels(data, (transform or Transform()).shown, look, max_pixels=max_pixels, least=SIDE, box=box)
    if box is None:
        facts["width"], facts["height"] = full_size(data) or (facts["width"], facts["height"])
    facts["bytes"] = len(data)
    return Look(facts, small)


def _facts(pixels: np.ndarray) -> np.void:
    """The record of (H, W) pixels, as ``with_pixels`` passes them on."""
    facts: np.void = np.zeros(1, FACTS)[0]
    facts["width"], facts["height"] = pixels.shape[::-1]
    facts["bright_5"], facts["bright_99"] = _brightness(pixels)
    facts["entropy"] = _entropy(pixels)
    facts["grey"] = not ((pixels ^ (pixels >> 8)) & 0xFFFF).any()
    grey = _image(pixels).convert("RGB").convert("L")
    grey = grey.reduce(math.ceil(max(grey.size) / _FINE))
    facts["sharpness"] = _sharpness(grey)
    facts["contrast"] = np.asarray(grey.reduce(max(1, round(max(grey.size) / 32))), dtype=np.float32).std()
    return facts


def _brightness(pixels: np.ndarray) -> tuple[float, float]:
    """The 5th and the 99th percentile, of every n-th pixel of every n-th row."""
    step = math.ceil(math.sqrt(pixels.size / _SAMPLE))
    sample = np.ascontiguousarray(pixels[::step, ::step]).view(np.uint8).reshape(-1, 4).astype(np.float32)
    squares = np.square(sample, out=sample) @ _WEIGHTS
    ranks = [round(share * (len(squares) - 1)) for share in (0.05, 0.99)]
    low, high = np.partition(squares, ranks)[ranks]
    return min(1.0, math.sqrt(low) / 255), min(1.0, math.sqrt(high) / 255)


def _entropy(pixels: np.ndarray) -> float:
    counts = np.array(_image(pixels).histogram()[:768], dtype=np.float64)
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def _sharpness(grey: Image.Image) -> float:
    """The second differences of an image relative to those of the same image at half its size.

    A sharp photograph has as much detail at either scale; a blur takes it from the finer one. The ratio does not depend on
    contrast. The lower one of the two directions counts, since motion blurs only one, unless the image has detail in one only.
    """
    if min(grey.size) < _LEAST_SIDE:
        return 1.0
    fine, coarse = _detail(np.asarray(grey)), _detail(np.asarray(grey.reduce(2)))
    both = coarse >= _ONE_WAY * coarse.max()
    if not coarse.max():
        return 1.0
    return float(min(1, (fine[both] / (coarse[both] + _NOISE)).min()))


def _detail(levels: np.ndarray) -> np.ndarray:
    """Root mean squares of the second differences of (H, W) uint8 levels along rows and columns: (2,) float64."""
    sums = np.zeros(2)
    for top in range(0, len(levels) - 2, _ROWS):
        part = levels[top : top + _ROWS + 2].astype(np.float32)
        middle = 2 * part[1:-1, 1:-1]
        along = part[1:-1, 2:] + part[1:-1, :-2] - middle
        across = part[2:, 1:-1] + part[:-2, 1:-1] - middle
        sums += np.vdot(along, along), np.vdot(across, across)
    root: np.ndarray = np.sqrt(sums / ((levels.shape[0] - 2) * (levels.shape[1] - 2)))
    return root


def _jpeg(pixels: np.ndarray) -> bytes:
    height, width = pixels.shape
    scale = min(1.0, SIDE / max(width, height))
    small = _image(pixels).convert("RGB")
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = small.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.frombuffer("RGBX", pixels.shape[::-1], pixels, "raw", "RGBX", 0, 1)
