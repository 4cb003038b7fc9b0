"""Pillow, made strict: files are opened and loaded as it does, and refused where it does not check.

``decode`` describes the rules. Every fault becomes an ``ImageError``, or a ``MachineError`` if it is the machine's.
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
from collections.abc import Callable

import numpy as np
import PIL
from PIL import Image, ImageFile, _imaging, features

from featx.data import plugins
from featx.data.formats import format_of
from featx.data.memory import Lease
from featx.data.tiff import TILE_LENGTH, TILE_WIDTH
from featx.errors import ImageError, MachineError

TOO_LITTLE_MEMORY = "cannot be decoded on this machine: there is too little memory"

_LIBRARIES = {"JPEG": "jpg", "PNG": "zlib", "WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000", "TIFF": "libtiff"}
"""The optional libraries that Pillow needs for a format, as ``PIL.features`` names them. Some TIFFs need none."""

_BYTES_PER_PIXEL = {"JPEG": 8, "GIF": 10, "WEBP": 17, "AVIF": 14, "JPEG2000": 24, "HEIF": 16, "JXL": 19}
"""The memory that decoding takes, as measured; 13 for all other formats. A progressive JPEG takes 6 more."""

Image.init()  # load every plug-in now, not in several threads at the first file that needs one

Turn = Callable[[np.ndarray], np.ndarray]

TURNS: dict[int, Turn] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: lambda pixels: pixels[::-1].T,
    7: lambda pixels: pixels[::-1, ::-1].T,
    8: lambda pixels: pixels[:, ::-1].T,
}
"""Functions that turn an image of each EXIF orientation upright, (H, W) to (H, W) or (W, H)."""

EXIF_ORIENTATION = 0x0112

_PROBE = 1 << 24
"""Bytes that can be allocated where memory has not run out."""

_lifting = threading.Lock()


def reader_name() -> str:
    """What decides which files can be decoded: the rules of this module, Pillow, the libraries that it has, and plug-ins."""
    there = sorted(name for name in _LIBRARIES.values() if features.check(name))
    return ", ".join([f"featx 3, Pillow {PIL.__version__}", " ".join(there), *plugins.installed()])


def known_format(data: bytes) -> str:
    """The format of a file; an ImageError if there is none."""
    if not data:
        raise ImageError("the file is empty")
    kind = format_of(data)
    if kind is None:
        raise ImageError(f"not an image of a known format (it begins with {data[:8]!r})")
    return kind


def image_error(error: Exception, kind: str, need: int) -> ImageError:
    """Explain why an image could not be decoded: by a fault of the machine, if there is one, else of the file."""
    why = str(error) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in why.lower():
        return MachineError(TOO_LITTLE_MEMORY)
    if isinstance(error, OSError) and error.errno:  # the file has been read already
        return MachineError(f"cannot be decoded on this machine: {error.strerror}")
    library = _LIBRARIES.get(kind, "")
    if (
        (kind not in (*plugins.EXTRAS, "NPY") and kind not in Image.OPEN)
        or re.search("decoder .*not available", why)
        or (kind != "TIFF" and library and not features.check(library))
    ):
        return MachineError(
            f"cannot be decoded on this machine: its Pillow {PIL.__version__} lacks {library or kind}; pip install -U pillow"
        )
    try:
        np.empty(max(need, _PROBE), np.uint8)  # some decoders do not tell that memory ran out
    except MemoryError:
        return MachineError(TOO_LITTLE_MEMORY)
    if kind == "JXL":  # the plug-in advises to build libjxl
        why = why.partition(". ")[0]
    if "truncated" not in why.lower():
        why = f"a {kind} file that is truncated, damaged or of a rare kind ({why})"
    return ImageError(f"cannot be decoded: {why}")


def open_image(data: bytes, kind: str, max_pixels: int, lease: Lease, least: int = 0) -> ImageFile.ImageFile:
    """Open an image without decoding it. Each size is checked as soon as it is known, before memory is allocated for it."""
    if kind in _SIZES:  # their plug-ins allocate a canvas, or decode the file, when they open it
        size = _SIZES[kind](data)
        check_size(size, max_pixels)
        lease.take(size[0] * size[1] * _BYTES_PER_PIXEL[kind])
    # Not Image.open, which would apply its own limit first and explains less about a damaged file.
    image: ImageFile.ImageFile = plugins.opener(kind)(io.BytesIO(data), "")
    check_size(image.size, max_pixels)
    tags = getattr(image, "tag_v2", {})
    if TILE_WIDTH in tags and TILE_LENGTH in tags:  # libtiff allocates a whole tile
        check_size((int(tags[TILE_WIDTH]), int(tags[TILE_LENGTH])), max_pixels)
    if kind == "JPEG" and least:
        _shrink(image, least)
    if not lease.held:
        need = _BYTES_PER_PIXEL.get(kind, 13) + 6 * ("progressive" in image.info)
        lease.take(image.width * image.height * need)
    return image


def finish(image: ImageFile.ImageFile, data: bytes, kind: str) -> None:
    """Decode an opened image, check and mend what Pillow does not, and release all memory but that of the pixels."""
    image.load()
    vars(image).pop("_decoder", None)  # those of WebP and AVIF hold the image once more
    image.fp = None
    if kind == "PNG":
        _check_png_data(data)
        _mend_transparency(image, depth=data[24])


def _shrink(image: ImageFile.ImageFile, least: int) -> None:
    """Set a JPEG to be decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 that leaves each side at least ``least`` pixels."""
    for factor in (8, 4, 2):
        if math.ceil(min(image.size) / factor) >= least:
            image.draft("", (max(1, image.width // factor), max(1, image.height // factor)))
            return


def check_size(size: tuple[int, int], max_pixels: int) -> None:
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


_SIZES: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "GIF": _gif_size,
    "WEBP": _webp_size,
    "JXL": plugins.jxl_size,
}


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


def turn_of(image: Image.Image) -> Turn | None:
    """The function that turns the image upright; None if it is upright."""
    if plugins.ignores_exif_orientation(image):
        return None
    try:
        return TURNS.get(image.getexif()[EXIF_ORIENTATION])
    except Exception:  # no such entry, or a damaged block: the pixels are still whole
        return None


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
