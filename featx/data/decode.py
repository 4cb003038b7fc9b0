"""Bytes to RGB pixels, and every rule about bad images. The only room that knows Pillow.

The rules:

- the file's content decides its format, not its name: JPEG, PNG, GIF, BMP, PPM, TIFF, WebP; of several frames the first;
- EXIF orientation is applied, and a damaged EXIF block ignored; colour profiles are never applied, whole or broken;
- grey, CMYK, YCCK and LAB become RGB; of 16-bit colour the high byte counts, and grey of 12 or more bits and float grey
  (0 to 1) are scaled, never clipped: values out of range are an error;
- transparency is composited over white, or over the background that was asked for;
- what cannot be decoded whole is an ``ImageError`` that says why: truncated, of a wrong checksum, of a rare kind that
  Pillow does not read, or of more pixels than are allowed, which is seen in its header, before a pixel is decoded;
- libtiff and Pillow write nothing on stderr: see ``_silence``;
- whatever the format, pixels are resized and cropped to the very bytes that torchvision's presets make of an (3, H, W) uint8
  tensor of the image, with torch's own antialiased filters, and nearest takes the pixel under the centre (torchvision's
  nearest-exact, which is Pillow's nearest);
- before that, the longer side is cut, about its centre, to at most N times the shorter one, so that a line of pixels takes no
  memory for its length; N = max(8, ceil(crop / resize) + 1), and a resize of 0 needs no such cut;
- a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that was asked for (``Transform.decoding``), and never otherwise.

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
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageColor, ImageFile, _imaging

from featx.errors import ImageError
from featx.layer_spec import PLAIN, View

if TYPE_CHECKING:
    pass
from featx.data.transform import WHITE, Transform, channels, cropped, ends_kept, is_colour, resize_pixels, resized_size

DECODER_VERSION = 3
"""Part of every identity. Raised whenever a change here may change a pixel."""

MAX_PIXELS = 178_956_970
"""Width x height above which an image is refused as a decompression bomb (twice Pillow's own warning level)."""

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

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: lambda pixels: pixels[::-1].T,
    7: lambda pixels: pixels[::-1, ::-1].T,
    8: lambda pixels: pixels[:, ::-1].T,
}
"""What turns an image of each EXIF orientation upright, (H, W) to (H, W) or (W, H)."""

_EXIF_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 322, 323  # TIFF's tags
_TRANSPARENT_MODES = ("LA", "PA", "RGBA", "RGBa")

_lifting = threading.Lock()


def parse_colour(text: str) -> tuple[int, int, int]:
    """The (R, G, B), 0 to 255, of a CSS colour name or #rrggbb.

    Raises:
        ValueError: no such colour, or one with a transparency of its own.
    """
    colour: tuple[int, ...] = ()
    with contextlib.suppress(ValueError):
        colour = ImageColor.getrgb(text)
    if not is_colour(colour):
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
    return np.ascontiguousarray(channels(open_upright(data, max_pixels, background))[..., :3])


def read_pixels(data: bytes, transform: Transform, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode, resize and crop.

    Args:
        data: a whole file.
        transform: its mean and std are not applied here; ``Backbone`` does that on its device.
        max_pixels: as ``decode``.

    Returns:
        (3, crop, crop) uint8, RGB.

    Raises:
        ImageError: as ``decode``.
    """
    pixels: np.ndarray = read_views(data, transform, (PLAIN,), max_pixels=max_pixels)[0]
    return pixels


def read_views(data: bytes, transform: Transform, views: Sequence[View], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """As ``read_pixels``, in V views: decoded and resized once, (V, 3, crop, crop) uint8."""
    least = (transform.resize or transform.crop) if transform.decoding == "scaled" else 0
    pixels = open_upright(data, max_pixels, transform.background, least=least)
    pixels = pixels[ends_kept(pixels.shape, transform)]
    resized = resize_pixels(pixels, resized_size(pixels.shape, transform), transform)
    return np.stack([cropped(resized, transform.crop, view) for view in views])


def thumbnail(data: bytes, side: int) -> bytes:
    """A small copy of an image, for people to look at: nothing is computed from its pixels.

    Args:
        data: a whole file.
        side: length of the longer side, in pixels. What is smaller is enlarged without smoothing, pixel by pixel.

    Returns:
        A JPEG file, RGB, upright, transparency over white, without any of the original's metadata.

    Raises:
        ImageError: as ``decode``.
    """
    pixels = open_upright(data, MAX_PIXELS, WHITE, least=side)
    height, width = pixels.shape
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.frombuffer("RGBX", (width, height), pixels, "raw", "RGBX", 0, 1)
    small = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    file = io.BytesIO()
    small.convert("RGB").save(file, "JPEG", quality=85)
    return file.getvalue()


def is_plain_jpeg(data: bytes, *, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether a file is, by its header, an upright RGB JPEG of an allowed size."""
    if not _SIGNATURES["JPEG"].match(data):
        return False
    try:
        image = Image.OPEN["JPEG"][0](io.BytesIO(data), "")
        _check_size(image.size, max_pixels)
    except Exception:  # what is wrong with it, decoding it will say
        return False
    return image.mode == "RGB" and bool(image.tile) and _turn(image) is None


def open_upright(data: bytes, max_pixels: int, background: tuple[int, int, int], *, least: int = 0) -> np.ndarray:
    """The upright image in ``data``; whatever Pillow's plug-ins raise becomes an ImageError.

    Args:
        data: a whole file.
        max_pixels: as ``decode``.
        background: as ``decode``.
        least: as ``_shrink``; 0 decodes whole.

    Returns:
        (H, W) uint32, C-contiguous: of each pixel's bytes in memory the first three are R, G and B, the fourth is anything.
    """
    if not data:
        raise ImageError("the file is empty")
    kind = next((kind for kind, signature in _SIGNATURES.items() if signature.match(data)), None)
    if kind is None:
        raise ImageError(f"not an image of a known format (it begins with {data[:8]!r})")
    try:
        image, pixels = _load(data, kind, max_pixels, least)
        if pixels is None:
            rgb = _to_rgb(image, background)
            pixels, lent = _lend(rgb.size)
            lent.paste(rgb.im, (0, 0, *rgb.size))
        turn = _turn(image)
        return pixels if turn is None else np.ascontiguousarray(turn(pixels))
    except ImageError:
        raise
    except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error, KeyError, ...
        why = str(error) or type(error).__name__
        if "truncated" not in why.lower():
            why = f"a {kind} file that is truncated, damaged or of a rare kind ({why})"
        raise ImageError(f"cannot be decoded: {why}") from error


def _load(data: bytes, kind: str, max_pixels: int, least: int) -> tuple[Image.Image, np.ndarray | None]:
    """The image as Pillow gives it, or its pixels as ``open_upright`` does, where Pillow has decoded into an array of ours.

    Sizes are checked as soon as they are known, and before memory is taken for them.
    """
    if kind in ("GIF", "WEBP"):  # their plug-ins take memory for a canvas as they open
        _check_size(_gif_size(data) if kind == "GIF" else _webp_size(data), max_pixels)
    # Not Image.open, which would check the size by its own limit first, and says less about a damaged file.
    image = Image.OPEN[kind][0](io.BytesIO(data), "")
    _check_size(image.size, max_pixels)
    tags = getattr(image, "tag_v2", {})
    if _TILE_WIDTH in tags and _TILE_LENGTH in tags:  # libtiff takes memory for a whole tile
        _check_size((int(tags[_TILE_WIDTH]), int(tags[_TILE_LENGTH])), max_pixels)
    if kind == "JPEG":
        return _load_jpeg(image, data, least)
    image.load()
    if kind == "PNG":
        _check_png_data(data)
        _mend_transparency(image, depth=data[24])
    return image, None


def _load_jpeg(image: ImageFile.ImageFile, data: bytes, least: int) -> tuple[Image.Image, np.ndarray | None]:
    """As ``_load``. Pillow is lent the memory to decode into, which saves a large photograph half of its time.

    Where it does not take it (before Pillow 11), for grey and CMYK, and where there is no scan to decode, which Pillow refuses,
    the image is loaded as ever. What simplejpeg has decoded, Pillow need not.
    """
    if least:
        _shrink(image, least)
    if image.mode != "RGB" or not image.tile:
        image.load()
        return image, None
    turbo = None if least else _turbo.decode(data, image.size)
    if turbo is not None and _turbo.is_proved:
        return image, turbo
    pixels, lent = _lend(image.size)
    image.im, image.decodermaxblock = lent, len(data)  # and given the file at once, not in pieces
    image.load()
    if image.im is not lent:
        return image, None
    if turbo is not None:
        _turbo.prove(turbo, pixels)
    return image, pixels


class _Turbo:
    """The same libjpeg-turbo as Pillow's without Pillow around it, by simplejpeg, where that is installed.

    It is believed once its pixels were Pillow's for the first files, since each brings a library of its own; and a file that
    it so much as warns of is left to Pillow, whose verdict counts.

    Attributes:
        left: files that are still to be decoded both ways.
    """

    def __init__(self, left: int = 8) -> None:
        self.left = left
        self._library: Any = None
        with contextlib.suppress(ImportError):
            import simplejpeg

            self._library = simplejpeg

    @property
    def is_proved(self) -> bool:
        """Whether it need not be compared any more."""
        return self.left <= 0

    def decode(self, data: bytes, size: tuple[int, int]) -> np.ndarray | None:
        """(H, W) uint32, as of ``open_upright``; None where Pillow is to decode the file, of this width and height."""
        if self._library is None:
            return None
        pixels = np.empty(size[::-1], np.uint32)
        try:
            found = self._library.decode_jpeg(data, "RGBA", buffer=pixels, strict=True)
        except Exception:  # damaged, or of a kind that it does not read: Pillow knows
            return None
        return pixels if found.shape == (*pixels.shape, 4) else None

    def prove(self, found: np.ndarray, wanted: np.ndarray) -> None:
        """Compare its pixels with Pillow's: it is used no more if any differ."""
        self.left -= 1
        if not np.array_equal(channels(found)[..., :3], channels(wanted)[..., :3]):
            self._library = None


_turbo = _Turbo()


def _lend(size: tuple[int, int]) -> tuple[np.ndarray, Any]:
    """An (H, W) uint32 array as of ``open_upright``, and its memory as one of Pillow's inner images, also four bytes a pixel.

    It spares the copies by which Pillow hands out its own memory, which take as long as decoding does.
    """
    pixels = np.empty(size[::-1], np.uint32)
    return pixels, Image.frombuffer("RGBX", size, pixels, "raw", "RGBX", 0, 1).im


def _shrink(image: ImageFile.ImageFile, least: int) -> None:
    """Have a JPEG decoded at the smallest scale of 1/1, 1/2, 1/4 and 1/8 that leaves each side ``least`` pixels or more."""
    for factor in (8, 4, 2):
        if math.ceil(min(image.size) / factor) >= least:
            image.draft("", (max(1, image.width // factor), max(1, image.height // factor)))
            return


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


def _turn(image: Image.Image) -> Callable[[np.ndarray], np.ndarray] | None:
    """What turns the image upright; None where nothing needs to."""
    try:
        return _TURNS.get(image.getexif()[_EXIF_ORIENTATION])
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
