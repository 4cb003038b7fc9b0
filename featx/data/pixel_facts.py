"""What the pixels of one image tell about it: sizes, brightness, entropy, edges, and a small copy to look at.

The measures are those of cleanvision. They are taken from a JPEG that is decoded at a fraction of its size, and from a sample
of the pixels, which costs less than decoding the whole image.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from featx.data.decode import MAX_PIXELS, full_size, with_pixels
from featx.data.transform import Transform

SIDE = 160
"""The longer side of a thumbnail in pixels; smaller images keep their size."""

FACTS = np.dtype(
    [
        ("width", "<u4"),
        ("height", "<u4"),
        ("bytes", "<u8"),
        ("bright_5", "<f4"),
        ("bright_99", "<f4"),
        ("entropy", "<f4"),
        ("edges", "<f4"),
        ("levels", "<f4"),
        ("grey", "?"),
    ]
)
"""What is measured of an image:

- ``width`` and ``height`` of the upright image in pixels, and ``bytes`` of the file.
- ``bright_5``, ``bright_99``: percentiles of the brightness, sqrt(0.241 R^2 + 0.691 G^2 + 0.068 B^2) / 255, between 0 and 1.
- ``entropy`` of the levels of all three channels together in bits, or of the grey level if the image is grey.
- ``edges``: the standard deviation of the Laplacian of the grey image whose longer side has 64 pixels.
- ``levels``: the standard deviation of the histogram of the same grey image, large for drawings of few levels.
- ``grey``: whether the three channels are equal.
"""

_SAMPLE = 1 << 14
"""Pixels of which the percentiles are taken."""

_SMALL = 64
"""The longer side, in pixels, of the image whose edges are measured."""

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


def look_at(data: bytes, transform: Transform | None = None, *, thumbnail: bool = False) -> Look:
    """Measure the pixels of an image, and make a small copy of it in the same decode.

    Args:
        data: the bytes of an image file.
        transform: its value range, bands and background apply.
        thumbnail: whether to make the copy: upright, RGB, without the metadata of the original.

    Raises:
        ImageError: the bytes are not a whole image of a known format, or the image is too large.
    """

    def look(pixels: np.ndarray) -> tuple[np.void, bytes]:
        return _facts(pixels), _jpeg(pixels) if thumbnail else b""

    facts, small = with_pixels(data, transform or Transform(), look, max_pixels=MAX_PIXELS, least=SIDE)
    facts["width"], facts["height"] = full_size(data) or (facts["width"], facts["height"])
    facts["bytes"] = len(data)
    return Look(facts, small)


def _facts(pixels: np.ndarray) -> np.void:
    """The record of (H, W) pixels, as ``with_pixels`` passes them on."""
    facts: np.void = np.zeros(1, FACTS)[0]
    facts["width"], facts["height"] = pixels.shape[::-1]
    facts["bright_5"], facts["bright_99"] = _percentiles(pixels)
    facts["grey"] = not ((pixels ^ (pixels >> 8)) & 0xFFFF).any()
    facts["entropy"] = _entropy(pixels, grey=bool(facts["grey"]))
    facts["edges"], facts["levels"] = _edges(pixels)
    return facts


def _percentiles(pixels: np.ndarray) -> tuple[float, float]:
    step = max(1, int(np.sqrt(pixels.size / _SAMPLE)))
    sample = np.ascontiguousarray(pixels[::step, ::step]).view(np.uint8).reshape(-1, 4).astype(np.float32)
    low, high = np.percentile(np.sqrt((sample * sample) @ _WEIGHTS), [5, 99])
    return low / 255, high / 255


def _entropy(pixels: np.ndarray, *, grey: bool) -> float:
    counts = np.array(_image(pixels).histogram()[: 256 if grey else 768], dtype=np.float64)
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def _edges(pixels: np.ndarray) -> tuple[float, float]:
    height, width = pixels.shape
    grey = _image(pixels)
    if max(width, height) > _SMALL:
        scale = _SMALL / max(width, height)
        size = max(int(width * scale), 1), max(int(height * scale), 1)
        grey = grey.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    grey = grey.convert("RGB").convert("L")
    return float(np.std(np.asarray(grey.filter(ImageFilter.FIND_EDGES), dtype=np.float64))), float(
        np.std(grey.histogram())
    )


def _jpeg(pixels: np.ndarray) -> bytes:
    height, width = pixels.shape
    scale = min(1.0, SIDE / max(width, height))
    small = _image(pixels)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = small.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    file = io.BytesIO()
    small.convert("RGB").save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.frombuffer("RGBX", pixels.shape[::-1], pixels, "raw", "RGBX", 0, 1)
