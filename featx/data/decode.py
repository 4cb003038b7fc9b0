"""Decode bytes to RGB pixels, with every rule about bad images. The only module that imports Pillow.

The rules:

- The content of a file decides its format, not its name: JPEG, PNG, GIF, BMP, PPM, TIFF, WebP. Of several frames the first
  counts.
- EXIF orientation is applied; a damaged EXIF block is ignored. Colour profiles are never applied.
- Grey, CMYK, YCCK and LAB become RGB. Of 16-bit colour the high byte counts. Grey of 12 or more bits and float grey (0 to
  1) are scaled, never clipped; values out of range are an error.
- Transparency is composited over white, or over another background if one is named.
- An image that cannot be decoded whole is an ``ImageError`` with the reason: truncated, a wrong checksum, a rare kind that
  Pillow does not read, or more pixels than allowed. The header tells the size, before a pixel is decoded.
- libtiff and Pillow write nothing to stderr; see ``_silence``.
- Resizing and cropping give the same bytes as torchvision's presets on a (3, H, W) uint8 tensor of the image, with torch's
  antialiased filters. "nearest" takes the pixel under the centre (nearest-exact in torchvision, nearest in Pillow).
- Before that, the longer side is cut about its centre to at most N times the shorter one, N = max(8, ceil(crop / resize) +
  1), so that a very long image needs little memory. A resize of 0 needs no such cut.
- A JPEG is decoded at 1/2, 1/4 or 1/8 of its size only if ``Transform.decoding`` requests it.

Missing or garbled JPEG data in the middle of a scan cannot be detected: libjpeg fills it in as it can.

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

from featx.errors import DatasetError, ImageError
from featx.layer_spec import PLAIN, View

if TYPE_CHECKING:
    pass
from featx.data.transform import WHITE, Transform, channels, cropped, ends_kept, is_colour, resize_pixels, resized_size

DECODER_VERSION = 3
"""Part of every identity. Raise it whenever a change here may change a pixel."""

MAX_PIXELS = 178_956_970
"""Images of more pixels (width x height) are refused as decompression bombs: twice the level at which Pillow warns."""

_SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "PPM": re.compile(rb"P[1-6f]\s"),
    "TIFF": re.compile(rb"II[*+]\0|II\0[*]|MM\0[*+]|MM[*]\0"),
    "WEBP": re.compile(rb"RIFF....WEBPVP8[ LX]", re.DOTALL),
}
"""The first bytes of each format; the names are those of Pillow's plug-ins."""

Image.init()  # load every plug-in now, not in several threads at the first file that needs one

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: lambda pixels: pixels[::-1].T,
    7: lambda pixels: pixels[::-1, ::-1].T,
    8: lambda pixels: pixels[:, ::-1].T,
}
"""Functions that turn an image of each EXIF orientation upright, (H, W) to (H, W) or (W, H)."""

_EXIF_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 322, 323  # TIFF's tags
_TRANSPARENT_MODES = ("LA", "PA", "RGBA", "RGBa")

_lifting = threading.Lock()


def parse_colour(text: str) -> tuple[int, int, int]:
    """Parse a CSS colour name or #rrggbb to (R, G, B), each 0 to 255.

    Raises:
        ValueError: there is no such colour, or it is transparent.

    Examples:
        >>> parse_colour("navy")
        (0, 0, 128)
    """
    colour: tuple[int, ...] = ()
    with contextlib.suppress(ValueError):
        colour = ImageColor.getrgb(text)
    if not is_colour(colour):
        raise ValueError(f"{text!r} is not an opaque colour; expected a CSS colour name such as black, or #rrggbb")
    red, green, blue = colour[:3]
    return red, green, blue


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Decode an image.

    If an image is within ``max_pixels`` but above ``PIL.Image.MAX_IMAGE_PIXELS``, that limit, which applies to the whole
    process, is raised to the image's size. It is never lowered again, so that threads do not disturb one another.

    Args:
        data: the bytes of an image file.
        max_pixels: an image of more pixels (width x height) is refused, judged by its header.
        background: (R, G, B), each 0 to 255, behind transparent pixels.

    Returns:
        (H, W, 3) uint8, RGB, upright.

    Raises:
        ImageError: the bytes are not a whole image of a known format, or the image is too large.
    """
    return np.ascontiguousarray(channels(open_upright(data, max_pixels, background))[..., :3])


def read_pixels(data: bytes, transform: Transform, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode, resize and crop an image.

    Args:
        data: the bytes of an image file.
        transform: ``Backbone`` applies its mean and std later, on its device.
        max_pixels: as ``decode``.

    Returns:
        (3, crop, crop) uint8, RGB.

    Raises:
        ImageError: as ``decode``.
    """
    pixels: np.ndarray = read_views(data, transform, (PLAIN,), max_pixels=max_pixels)[0]
    return pixels


def read_views(data: bytes, transform: Transform, views: Sequence[View], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """As ``read_pixels`` for V views, decoding and resizing once: (V, 3, crop, crop) uint8."""
    least = (transform.resize or transform.crop) if transform.decoding == "scaled" else 0
    pixels = open_upright(data, max_pixels, transform.background, least=least)
    pixels = pixels[ends_kept(pixels.shape, transform)]
    resized = resize_pixels(pixels, resized_size(pixels.shape, transform), transform)
    return np.stack([cropped(resized, transform.crop, view) for view in views])


def thumbnail(data: bytes, side: int) -> bytes:
    """Make a small copy of an image for people to look at.

    Args:
        data: the bytes of an image file.
        side: the length of the longer side in pixels. Smaller images are enlarged without smoothing.

    Returns:
        A JPEG file: RGB, upright, transparency over white, without the original's metadata.

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


def file_of(image: Any) -> Callable[[], bytes] | None:
    """Turn an image in memory into an image file without loss, so that it is decoded by the same rules as any file.

    Args:
        image: an image of Pillow; or an array, (H, W) or (H, W, 3) or (H, W, 4) uint8, or (H, W) uint16.

    Returns:
        A function that returns the bytes of the file, or raises ImageError; None if the argument is no image and no array.

    Raises:
        DatasetError: the array has another shape or dtype.
    """
    if isinstance(image, Image.Image):
        return lambda: _as_file(image)
    if not hasattr(image, "__array__"):
        return None
    array = np.asarray(image)
    found = f"an array of shape {array.shape} and dtype {array.dtype}"
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        raise DatasetError(f"{found} has its channels first; expected (H, W, 3): use array.transpose(1, 2, 0)")
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    if array.dtype != np.uint8 and not (grey and array.dtype == np.uint16):
        hint = ": use (array * 255).round().astype('uint8') for values from 0 to 1" if array.dtype.kind == "f" else ""
        raise DatasetError(f"{found} is no image; expected uint8 from 0 to 255{hint}")
    if not array.size or not (grey or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise DatasetError(f"{found} is no image; expected (H, W), (H, W, 3) or (H, W, 4)")
    return lambda: _as_file(Image.fromarray(array.squeeze(axis=2) if grey and array.ndim == 3 else array))


def _as_file(image: Image.Image) -> bytes:
    """The bytes of a PNG file, or of a TIFF file where PNG cannot hold the values."""
    file = io.BytesIO()
    try:
        image.load()
        orientation = image.getexif().get(_EXIF_ORIENTATION)
        if image.mode.startswith("I;16"):
            image = Image.fromarray(np.asarray(image).astype(np.uint16))
        if image.mode in ("I", "F"):
            image.save(file, "TIFF")
            return file.getvalue()
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
            image = image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB")
        exif = Image.Exif()
        if orientation is not None:
            exif[_EXIF_ORIENTATION] = orientation
        image.save(file, "PNG", compress_level=1, exif=exif)
    except Exception as error:  # as in open_upright: a lazily opened file may be damaged, and plug-ins raise anything
        raise ImageError(f"cannot be decoded: {error or type(error).__name__}") from error
    return file.getvalue()


def is_plain_jpeg(data: bytes, *, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether a file is an upright RGB JPEG of an allowed size, judged by its header."""
    if not _SIGNATURES["JPEG"].match(data):
        return False
    try:
        image = Image.OPEN["JPEG"][0](io.BytesIO(data), "")
        _check_size(image.size, max_pixels)
    except Exception:  # decoding the file will report what is wrong
        return False
    return image.mode == "RGB" and bool(image.tile) and _turn(image) is None


def open_upright(data: bytes, max_pixels: int, background: tuple[int, int, int], *, least: int = 0) -> np.ndarray:
    """Decode an upright image; whatever Pillow's plug-ins raise becomes an ImageError.

    Args:
        data: the bytes of an image file.
        max_pixels: as in ``decode``.
        background: as in ``decode``.
        least: as in ``_shrink``; 0 decodes at full size.

    Returns:
        (H, W) uint32, C-contiguous. The bytes of each pixel in memory are R, G, B, and a fourth one without meaning.
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
    """Load Pillow's image, and its pixels as in ``open_upright`` if Pillow has decoded into an array of featx's own.

    Each size is checked as soon as it is known, before memory is allocated for it.
    """
    if kind in ("GIF", "WEBP"):  # their plug-ins allocate a canvas when they open a file
        _check_size(_gif_size(data) if kind == "GIF" else _webp_size(data), max_pixels)
    # Not Image.open, which would apply its own limit first and explains less about a damaged file.
    image = Image.OPEN[kind][0](io.BytesIO(data), "")
    _check_size(image.size, max_pixels)
    tags = getattr(image, "tag_v2", {})
    if _TILE_WIDTH in tags and _TILE_LENGTH in tags:  # libtiff allocates a whole tile
        _check_size((int(tags[_TILE_WIDTH]), int(tags[_TILE_LENGTH])), max_pixels)
    if kind == "JPEG":
        return _load_jpeg(image, data, least)
    image.load()
    if kind == "PNG":
        _check_png_data(data)
        _mend_transparency(image, depth=data[24])
    return image, None


def _load_jpeg(image: ImageFile.ImageFile, data: bytes, least: int) -> tuple[Image.Image, np.ndarray | None]:
    """As ``_load`` for a JPEG. Pillow decodes into memory of featx's own, which halves the time of a large photograph.

    Images are loaded in the ordinary way if Pillow does not support that (before version 11), if they are grey or CMYK, and
    if there is no scan to decode, which Pillow refuses. If simplejpeg has decoded the image, Pillow is not needed.
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
    image.im, image.decodermaxblock = lent, len(data)  # and read the file at once, not in pieces
    image.load()
    if image.im is not lent:
        return image, None
    if turbo is not None:
        _turbo.prove(turbo, pixels)
    return image, pixels


class _Turbo:
    """libjpeg-turbo without Pillow around it, through simplejpeg if that is installed.

    The two packages ship libraries of their own, so simplejpeg is used alone only after its pixels have equalled Pillow's
    for the first files. Pillow decides about every file for which simplejpeg warns or fails.

    Attributes:
        left: the number of files that are still decoded both ways.
    """

    def __init__(self, left: int = 8) -> None:
        self.left = left
        self._library: Any = None
        with contextlib.suppress(ImportError):
            import simplejpeg

            self._library = simplejpeg

    @property
    def is_proved(self) -> bool:
        """Whether comparing has ended."""
        return self.left <= 0

    def decode(self, data: bytes, size: tuple[int, int]) -> np.ndarray | None:
        """Decode a file of size (width, height) to (H, W) uint32 as in ``open_upright``; None leaves the file to Pillow."""
        if self._library is None:
            return None
        pixels = np.empty(size[::-1], np.uint32)
        try:
            found = self._library.decode_jpeg(data, "RGBA", buffer=pixels, strict=True)
        except Exception:  # damaged, or of a kind that simplejpeg does not read: Pillow decides
            return None
        return pixels if found.shape == (*pixels.shape, 4) else None

    def prove(self, found: np.ndarray, wanted: np.ndarray) -> None:
        """Compare pixels with Pillow's, and stop using simplejpeg if any differ."""
        self.left -= 1
        if not np.array_equal(channels(found)[..., :3], channels(wanted)[..., :3]):
            self._library = None


_turbo = _Turbo()


def _lend(size: tuple[int, int]) -> tuple[np.ndarray, Any]:
    """Allocate an (H, W) uint32 array as in ``open_upright``, and wrap its memory as one of Pillow's inner images.

    This saves copying Pillow's own memory, which would take as long as decoding.
    """
    pixels = np.empty(size[::-1], np.uint32)
    return pixels, Image.frombuffer("RGBX", size, pixels, "raw", "RGBX", 0, 1).im


def _shrink(image: ImageFile.ImageFile, least: int) -> None:
    """Set a JPEG to be decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 that leaves each side at least ``least`` pixels."""
    for factor in (8, 4, 2):
        if math.ceil(min(image.size) / factor) >= least:
            image.draft("", (max(1, image.width // factor), max(1, image.height // factor)))
            return


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Refuse an image of too many pixels, and keep Pillow from refusing one that is allowed."""
    pixels = size[0] * size[1]
    if pixels > max_pixels:
        raise ImageError(f"{size[0]} x {size[1]} pixels; at most {max_pixels:,} are read (--max-pixels)")
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        with _lifting:
            if Image.MAX_IMAGE_PIXELS is not None:
                Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, pixels)


def _gif_size(data: bytes) -> tuple[int, int]:
    """(width, height) of a GIF's screen, or of its first frame if that is larger."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + ((6 << (flags & 7)) if flags & 0x80 else 0)  # after the palette
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
    """Refuse a PNG whose pixel data do not match their checksum: Pillow checks only the other chunks."""
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
    """Scale the transparent sample of a PNG like its pixels: Pillow leaves it at the file's depth, 1 to 16 bits."""
    colour = image.info.get("transparency")
    if isinstance(colour, str):  # a text chunk of that name
        del image.info["transparency"]
    elif image.mode == "RGB" and isinstance(colour, tuple):
        image.info["transparency"] = tuple(c >> 8 if depth == 16 else c & 0xFF for c in colour)
    elif image.mode in ("1", "L") and isinstance(colour, int) and depth in (1, 2, 4, 8):
        top = 2**depth - 1
        image.info["transparency"] = (colour & top) * 255 // top


def _turn(image: Image.Image) -> Callable[[np.ndarray], np.ndarray] | None:
    """The function that turns the image upright; None if it is upright."""
    try:
        return _TURNS.get(image.getexif()[_EXIF_ORIENTATION])
    except Exception:  # no such entry, or a damaged block: the pixels are still whole
        return None


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
    if image.mode == "La":  # premultiplied alpha, which Pillow can only convert to LA
        image = image.convert("LA")
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Convert grey of more than 8 bits to L, or to LA if one value is transparent.

    Floats from 0 to 1 and integers from 0 to 65535 (4095 in a TIFF of 12 bits) are scaled to 0..255. They are inverted if 0
    is white in a TIFF, which Pillow handles only at 8 bits.
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
    """Keep Pillow and libtiff from writing to the terminal; ImageError carries their messages.

    This runs once, at import, since none of it can be limited to one thread. A caller's own warning filters and logging for
    Pillow stay in effect: the filter comes after all others, and the handler does nothing.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.", append=True)
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    for setter in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        # Pillow's library is linked to libtiff; a build without it has nothing to silence.
        with contextlib.suppress(AttributeError, OSError):
            function = ctypes.CDLL(_imaging.__file__)[setter]
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
            function(None)


_silence()
