"""Bytes to RGB pixels, and every rule about bad images. The only room that knows Pillow.

The rules:

- the file's content decides its format, not its name: JPEG, PNG, GIF (first frame), BMP, PPM, TIFF, WebP;
- EXIF orientation is applied; CMYK and grey become RGB; 16-bit and float pixels are scaled, not clipped;
- transparency is composited over white;
- what cannot be decoded whole (truncated, bombs, foreign bytes) is an ``ImageError`` that says why.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from featx.errors import ImageError

DECODER_VERSION = 1
"""Part of every identity. Raised whenever a change here may change a pixel."""

MAX_PIXELS = 178_956_970
"""Width x height above which an image is refused as a decompression bomb (twice Pillow's own warning level)."""

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")

Image.init()  # every plug-in now, rather than in several threads at the first file that needs one

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Transform:
    """What happens between an image's pixels and the network: resize, centre crop, normalise.

    The same steps as torchvision's ``ImageClassification`` preset on a Pillow image, with Pillow's antialiased filters.

    Attributes:
        resize: length of the shorter edge after resizing, in pixels; 0 squashes the whole image into the crop.
        crop: side of the square cut from the centre, in pixels; what an image lacks is padded with black.
        mean: per channel (R, G, B), subtracted from pixels in 0..1.
        std: per channel, divided by after that.
        interpolation: nearest, bilinear, bicubic or lanczos.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.interpolation not in _RESAMPLING:
            raise ValueError(f"interpolation is {self.interpolation!r}; expected one of {', '.join(_RESAMPLING)}")
        if self.crop < 1 or self.resize < 0:
            raise ValueError(f"crop is {self.crop} and resize {self.resize}; expected at least 1 and 0 pixels")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Transform:
        """The inverse of ``as_dict``."""
        values = dict(fields)
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def as_dict(self) -> dict[str, Any]:
        """The parameters, as JSON keeps them."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


def decode(data: bytes) -> np.ndarray:
    """The image in a file's bytes.

    Args:
        data: a whole file.

    Returns:
        (H, W, 3) uint8, RGB, upright.

    Raises:
        ImageError: the bytes are not a whole image of a known format, or too large a one.
    """
    return np.asarray(_open(data))


def read_pixels(data: bytes, transform: Transform) -> np.ndarray:
    """Decode, resize and crop, in one resampling of the region that the crop keeps.

    Args:
        data: a whole file.
        transform: its mean and std are not applied here; ``Backbone`` does that on its device.

    Returns:
        (3, crop, crop) uint8, RGB.

    Raises:
        ImageError: as ``decode``.
    """
    image = _open(data)
    size, crop = _resized(image.size, transform), transform.crop
    region = tuple(_centre(length, crop) for length in size)
    scale = (image.width / size[0], image.height / size[1])
    box = (region[0][0] * scale[0], region[1][0] * scale[1], region[0][1] * scale[0], region[1][1] * scale[1])
    kept = (region[0][1] - region[0][0], region[1][1] - region[1][0])
    patch = image.resize(kept, _RESAMPLING[transform.interpolation], box)
    if kept != (crop, crop):
        canvas = Image.new("RGB", (crop, crop))
        canvas.paste(patch, ((crop - kept[0]) // 2, (crop - kept[1]) // 2))
        patch = canvas
    return _channels_first(patch)


def read_augmented(
    data: bytes, transform: Transform, rng: np.random.Generator, *, scale: float, flip: bool = True
) -> np.ndarray:
    """Decode, cut a random region, resize it to the crop, and mirror it half of the time.

    The random resized crop of Szegedy et al. (2015), as in torchvision: an area of ``scale`` to 1 of the image, an aspect
    ratio of 3/4 to 4/3 (log-uniform), ten tries, then the centre.

    Args:
        data: a whole file.
        transform: gives the crop's side and the interpolation.
        rng: the only source of chance.
        scale: the least share of the image's area that a crop keeps.
        flip: mirror half of the images.

    Returns:
        (3, crop, crop) uint8, RGB.

    Raises:
        ImageError: as ``decode``.
    """
    image = _open(data)
    box = _random_box(image.size, rng, scale)
    patch = image.resize((transform.crop, transform.crop), _RESAMPLING[transform.interpolation], box)
    if flip and rng.random() < 0.5:
        patch = patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _channels_first(patch)


def _open(data: bytes) -> Image.Image:
    """The upright RGB image in ``data``; whatever Pillow's plug-ins raise becomes an ImageError."""
    if not data:
        raise ImageError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read")
        image.load()
        return _to_rgb(_upright(image))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image of a known format (it begins with {data[:8]!r})") from None
    except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error, KeyError, ...
        raise ImageError(f"cannot be decoded: {error or type(error).__name__}") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # a damaged EXIF block says nothing about orientation, and the pixels are whole
        orientation = None
    return image.transpose(_ORIENTATIONS[orientation]) if orientation in _ORIENTATIONS else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    if "A" in image.mode or image.mode == "La" or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Grey of more than 8 bits, (H, W), as uint8: float 0..1 and integers 0..65535 are scaled to 0..255."""
    floating = values.dtype.kind == "f"
    low, high = float(values.min()), float(values.max())
    top = 1.0 if floating else 65535.0
    if not (math.isfinite(low) and math.isfinite(high)) or low < 0 or high > top:
        raise ImageError(f"grey values from {low:g} to {high:g}; expected 0 to {top:g}")
    return np.rint(values.astype(np.float64) * (255.0 / top)).astype(np.uint8)


def _resized(size: tuple[int, int], transform: Transform) -> tuple[int, int]:
    """(width, height) after resizing, rounded as torchvision does."""
    width, height = size
    if transform.resize == 0:
        return transform.crop, transform.crop
    if width <= height:
        return transform.resize, int(transform.resize * height / width)
    return int(transform.resize * width / height), transform.resize


def _centre(length: int, crop: int) -> tuple[int, int]:
    """First and last + 1 of the kept pixels along one axis."""
    if length <= crop:
        return 0, length
    first = round((length - crop) / 2.0)
    return first, first + crop


def _random_box(size: tuple[int, int], rng: np.random.Generator, scale: float) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a random resized crop."""
    width, height = size
    for _ in range(10):
        area = width * height * rng.uniform(scale, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _channels_first(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
