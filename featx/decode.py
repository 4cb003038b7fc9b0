"""Bytes to RGB pixels, and every rule about bad images. The only room that knows Pillow.

The rules:

- the file's content decides its format, not its name: JPEG, PNG, GIF, BMP, PPM, TIFF, WebP; of several frames the first;
- EXIF orientation is applied, and a damaged EXIF block ignored; colour profiles are never applied, whole or broken;
- grey, CMYK, YCCK and LAB become RGB; of 16-bit colour the high byte counts, and grey of 12 or more bits and float grey
  (0 to 1) are scaled, never clipped: values out of range are an error;
- transparency is composited over white, or over the background that was asked for;
- what cannot be decoded whole is an ``ImageError`` that says why: truncated, of a wrong checksum, of a rare kind that
  Pillow does not read, or of more pixels than are allowed, which is seen in its header, before a pixel is decoded;
- libtiff and Pillow write nothing on stderr: see ``_silence``.

What JPEG data lacks or garbles in the middle of a scan cannot be told from a picture: libjpeg mends it as it can.

Each rule has a file in ``tests/images``.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import math
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageColor, _imaging

from featx.errors import ImageError
from featx.settings import MOST_SIDE

DECODER_VERSION = 2
"""Part of every identity. Raised whenever a change here may change a pixel."""

MAX_PIXELS = 178_956_970
"""Width x height above which an image is refused as a decompression bomb (twice Pillow's own warning level)."""

WHITE = (255, 255, 255)

_SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "PPM": re.compile(rb"P[1-6f]\s"),
    "TIFF": re.compile(rb"II[*+]\0|II\0[*]|MM\0[*+]|MM[*]\0"),
    "WEBP": re.compile(rb"RIFF....WEBPVP8[ LX]", re.DOTALL),
}
"""How a file of each format begins; the names are those of Pillow's plug-ins."""

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
_BITS_PER_SAMPLE, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 322, 323  # TIFF's tags
_TRANSPARENT_MODES = ("LA", "PA", "RGBA", "RGBa")

_lifting = threading.Lock()


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
        background: (R, G, B) of 0 to 255, what is seen through transparent pixels. The padding is black all the same.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    background: tuple[int, int, int] = WHITE

    def __post_init__(self) -> None:
        if self.interpolation not in _RESAMPLING:
            raise ValueError(f"interpolation is {self.interpolation!r}; expected one of {', '.join(_RESAMPLING)}")
        if not (1 <= self.crop <= MOST_SIDE and 0 <= self.resize <= MOST_SIDE):
            raise ValueError(
                f"crop is {self.crop} and resize {self.resize}; expected at least 1 and 0, at most {MOST_SIDE} pixels"
            )
        if not _is_colour(self.background):
            raise ValueError(f"background is {self.background!r}; expected (R, G, B) of 0 to 255")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Transform:
        """The inverse of ``as_dict``. What is missing takes its default: files of before have no background."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """The parameters, as JSON keeps them."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


def parse_colour(text: str) -> tuple[int, int, int]:
    """The (R, G, B), 0 to 255, of a CSS colour name or #rrggbb.

    Raises:
        ValueError: no such colour, or one with a transparency of its own.
    """
    colour: tuple[int, ...] = ()
    with contextlib.suppress(ValueError):
        colour = ImageColor.getrgb(text)
    if not _is_colour(colour):
        raise ValueError(f"{text!r} is no opaque colour; expected a CSS colour name such as black, or #rrggbb")
    red, green, blue = colour[:3]
    return red, green, blue


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """The image in a file's bytes.

    An image that is allowed by ``max_pixels`` but is above ``PIL.Image.MAX_IMAGE_PIXELS`` raises that limit, which is one for
    the whole process, to its own size. Nothing lowers it again, so that threads do not disturb one another.

    Args:
        data: a whole file.
        max_pixels: width x height above which an image is refused, from its header.
        background: (R, G, B) of 0 to 255, seen through transparent pixels.

    Returns:
        (H, W, 3) uint8, RGB, upright.

    Raises:
        ImageError: the bytes are not a whole image of a known format, or too large a one.
    """
    return np.asarray(_open(data, max_pixels, background))


def read_pixels(data: bytes, transform: Transform, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode, resize and crop, in one resampling of the region that the crop keeps.

    Args:
        data: a whole file.
        transform: its mean and std are not applied here; ``Backbone`` does that on its device.
        max_pixels: as ``decode``.

    Returns:
        (3, crop, crop) uint8, RGB.

    Raises:
        ImageError: as ``decode``.
    """
    image = _open(data, max_pixels, transform.background)
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
    data: bytes,
    transform: Transform,
    rng: np.random.Generator,
    *,
    scale: float,
    flip: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode, cut a random region, resize it to the crop, and mirror it half of the time.

    The random resized crop of Szegedy et al. (2015), as in torchvision: an area of ``scale`` to 1 of the image, an aspect
    ratio of 3/4 to 4/3 (log-uniform), ten tries, then the centre.

    Args:
        data: a whole file.
        transform: gives the crop's side, the interpolation and the background.
        rng: the only source of chance.
        scale: the least share of the image's area that a crop keeps.
        flip: mirror half of the images.
        max_pixels: as ``decode``.

    Returns:
        (3, crop, crop) uint8, RGB.

    Raises:
        ImageError: as ``decode``.
    """
    image = _open(data, max_pixels, transform.background)
    box = _random_box(image.size, rng, scale)
    patch = image.resize((transform.crop, transform.crop), _RESAMPLING[transform.interpolation], box)
    if flip and rng.random() < 0.5:
        patch = patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _channels_first(patch)


def _open(data: bytes, max_pixels: int, background: tuple[int, int, int]) -> Image.Image:
    """The upright RGB image in ``data``; whatever Pillow's plug-ins raise becomes an ImageError."""
    if not data:
        raise ImageError("the file is empty")
    kind = next((kind for kind, signature in _SIGNATURES.items() if signature.match(data)), None)
    if kind is None:
        raise ImageError(f"not an image of a known format (it begins with {data[:8]!r})")
    try:
        image = _load(data, kind, max_pixels)
        turn = _orientation(image)
        rgb = _to_rgb(image, background)
        return rgb if turn is None else rgb.transpose(turn)
    except ImageError:
        raise
    except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error, KeyError, ...
        why = str(error) or type(error).__name__
        if "truncated" not in why.lower():
            why = f"a {kind} file that is truncated, damaged or of a rare kind ({why})"
        raise ImageError(f"cannot be decoded: {why}") from error


def _load(data: bytes, kind: str, max_pixels: int) -> Image.Image:
    """The image as Pillow gives it. Sizes are checked as soon as they are known, and before memory is taken for them."""
    if kind in ("GIF", "WEBP"):  # their plug-ins take memory for a canvas as they open
        _check_size(_gif_size(data) if kind == "GIF" else _webp_size(data), max_pixels)
    # Not Image.open, which would check the size by its own limit first, and says less about a damaged file.
    image = Image.OPEN[kind][0](io.BytesIO(data), "")
    _check_size(image.size, max_pixels)
    tags = getattr(image, "tag_v2", {})
    if _TILE_WIDTH in tags and _TILE_LENGTH in tags:  # libtiff takes memory for a whole tile
        _check_size((int(tags[_TILE_WIDTH]), int(tags[_TILE_LENGTH])), max_pixels)
    image.load()
    if kind == "PNG":
        _check_png_data(data)
        _mend_transparency(image, depth=data[24])
    return image


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Refuse an image of too many pixels; make sure that Pillow does not refuse one that is allowed."""
    pixels = size[0] * size[1]
    if pixels > max_pixels:
        raise ImageError(f"{size[0]} x {size[1]} pixels; at most {max_pixels:,} are read (--max-pixels)")
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        with _lifting:
            if Image.MAX_IMAGE_PIXELS is not None:
                Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, pixels)


def _gif_size(data: bytes) -> tuple[int, int]:
    """(width, height) of a GIF's screen, or of its first frame where that is larger."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + ((6 << (flags & 7)) if flags & 0x80 else 0)  # behind the palette
    while data[at : at + 1] == b"!":  # an extension: its label, then blocks until an empty one
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    if data[at : at + 1] == b"," and len(data) >= at + 9:
        left, top, wide, high = struct.unpack_from("<4H", data, at + 1)
        width, height = max(width, left + wide), max(height, top + high)
    return width, height


def _webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) of a WebP file's canvas, from the first chunk: extended, lossless or lossy."""
    if data[15:16] == b"X":
        low, high, height_low, height_high = struct.unpack_from("<HBHB", data, 24)
        return low + (high << 16) + 1, height_low + (height_high << 16) + 1
    if data[15:16] == b"L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _check_png_data(data: bytes) -> None:
    """Refuse a PNG whose pixels do not fit their checksum: Pillow checks that of other chunks alone."""
    at, view = 8, memoryview(data)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if name == b"IDAT" and zlib.crc32(view[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ImageError("cannot be decoded: a PNG file whose pixels are damaged (wrong checksum in IDAT)")
        if name == b"IEND":
            return
        at = end + 4


def _mend_transparency(image: Image.Image, depth: int) -> None:
    """Scale the transparent sample of a PNG as its pixels were: Pillow leaves it at the file's depth, 1 to 16 bits."""
    colour = image.info.get("transparency")
    if isinstance(colour, str):  # a text chunk of that name
        del image.info["transparency"]
    elif image.mode == "RGB" and isinstance(colour, tuple):
        image.info["transparency"] = tuple(c >> 8 if depth == 16 else c & 0xFF for c in colour)
    elif image.mode in ("1", "L") and isinstance(colour, int) and depth in (1, 2, 4, 8):
        top = 2**depth - 1
        image.info["transparency"] = (colour & top) * 255 // top


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """What turns the image upright; None where nothing needs to."""
    try:
        return _ORIENTATIONS.get(image.getexif()[_EXIF_ORIENTATION])
    except Exception:  # no such entry, or a damaged block: it says nothing, and the pixels are whole
        return None


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
    if image.mode == "La":  # premultiplied, which Pillow converts to nothing but LA
        image = image.convert("LA")
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits as L, or as LA where one value is transparent.

    Floats of 0 to 1 and integers of 0 to 65535 (4095 in a TIFF of 12 bits) are scaled to 0..255; where a TIFF's 0 is white,
    which Pillow minds at 8 bits only, they are inverted.
    """
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    low, high = float(values.min()), float(values.max())
    top = 1.0 if values.dtype.kind == "f" else 4095.0 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535.0
    if not (math.isfinite(low) and math.isfinite(high)) or low < 0 or high > top:
        raise ImageError(f"grey values from {low:g} to {high:g}; expected 0 to {top:g}")
    scaled = np.rint(values.astype(np.float64) * (255.0 / top)).astype(np.uint8)
    grey = Image.fromarray(255 - scaled if tags.get(_PHOTOMETRIC) == 0 else scaled)
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


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


def _is_colour(colour: object) -> bool:
    return (
        isinstance(colour, tuple)
        and len(colour) == 3
        and all(isinstance(level, int) and 0 <= level <= 255 for level in colour)
    )


def _silence() -> None:
    """Keep Pillow and libtiff off the terminal; what they have to say about an image is in its ImageError.

    Once, at import, since no part of it can be done for one thread alone. Whoever has set warning filters or logging for
    Pillow keeps them: the filter comes after all others, and the handler does nothing but stand where there is no other.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.", append=True)
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    for setter in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        # Found among the libraries that Pillow's own is linked to; in a build without them there is nothing to silence.
        with contextlib.suppress(AttributeError, OSError):
            function = ctypes.CDLL(_imaging.__file__)[setter]
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
            function(None)


_silence()
