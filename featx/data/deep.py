"""Images of more than 8 bits a sample: their values, which Pillow gives whole for grey alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from featx.data.plugins import heif_samples
from featx.data.samples import FLOAT, Values, ValueType, integers, rows_of
from featx.data.tiff import BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT, TiffLayout, tiff_values
from featx.errors import ImageError

_SIGNED = (2,)
"""TIFF's sample format of signed integers."""


def deep_grey(image: Image.Image, data: bytes, kind: str, *, native: bool) -> Values | None:
    """The values of a grey image of more than 8 bits, or of signed ones; None if it is no such image.

    Args:
        image: loaded by Pillow.
        data: the file.
        kind: its format.
        native: whether a PPM's values are those in the file; otherwise Pillow has scaled them to 0..65535.
    """
    tags = getattr(image, "tag_v2", {})
    is_signed = tags.get(SAMPLE_FORMAT) == _SIGNED
    if image.mode == "L" and is_signed:
        return Values(
            image.size, integers(8, signed=True), 1, rows_of(image, lambda part: np.asarray(part).view(np.int8))
        )
    if image.mode == "F":
        found = Values(image.size, FLOAT, 1, rows_of(image))
    elif not image.mode.startswith("I"):
        return None
    elif kind == "TIFF":
        found = _tiff_integers(image, tags.get(BITS_PER_SAMPLE, (16,))[0], is_signed=is_signed)
    elif kind == "PPM" and native:
        found = _ppm_integers(image, _ppm_maximum(data))
    elif kind == "JPEG2000":
        found = _jpeg_2000_integers(image, data)
    else:
        found = Values(image.size, integers(16), 1, rows_of(image))
    found = dataclasses.replace(found, inverted=tags.get(PHOTOMETRIC) == 0)
    transparent = image.info.get("transparency")
    return found if transparent is None else _with_transparent_value(found, transparent)


def deep_colour(
    image: Image.Image, data: bytes, kind: str, given: tuple[float, float] | None, reopen: Callable[[bytes], Any]
) -> Values | None:
    """The values of an image of 16-bit colour, or of grey with alpha, of which Pillow keeps the high bytes alone.

    Args:
        image: loaded by Pillow.
        data: the file.
        kind: its format.
        given: the value range that will be applied to the values.
        reopen: opens a file of that format, without decoding it.

    Returns:
        The values; None if the samples have 8 bits or fewer, or if no range is given and Pillow has no other values.

    Raises:
        ImageError: the range cannot be applied.
    """
    if kind == "PNG" and data[24] == 16:
        return _png_colour(image, data, reopen)
    if kind == "PPM" and data[1:2] in b"36" and (maximum := _ppm_maximum(data)) > 255:
        tile = reopen(data).tile[0]
        header = b"P%d %d %d %d\n" % (5 if data[1:2] == b"6" else 2, 3 * image.width, image.height, maximum)
        wide = reopen(header + data[tile.offset :])  # the same numbers as grey of three times the width
        wide.load()
        grey = _ppm_integers(wide, maximum)
        return Values(image.size, grey.type, 3, lambda top, bottom: grey.rows(top, bottom).reshape(bottom - top, -1, 3))
    if kind == "TIFF" and max(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (1,))) == 16:
        layout = TiffLayout.read(data)
        if layout.photometric == 2 and layout.extra in ((), (2,)):
            return tiff_values(data, layout)
        if given is not None:
            raise ImageError(
                "a TIFF of 16-bit inks or of premultiplied colour; --value-range is for grey, RGB and plain alpha"
            )
    if kind == "JPEG2000" and given is not None:
        depth = max(_jpeg_2000_depths(data))
        if depth > 8 and given[1] < 2**depth - 1:
            raise ImageError(f"JPEG 2000 colour of {depth} bits; --value-range is for JPEG 2000 of grey")
    return None


def heif_values(image: Image.Image, data: bytes) -> Values | None:
    """The values of a HEIF of 10 or 12 bits; None for one of 8."""
    bits = image.info.get("bit_depth", 8)
    if bits <= 8:
        return None
    samples = heif_samples(data) >> (16 - bits)
    samples = samples.reshape(*samples.shape[:2], -1)
    largest = 2**bits - 1
    type_ = ValueType(f"{bits}-bit", 0, largest, largest)
    return Values(image.size, type_, samples.shape[2], lambda top, bottom: samples[top:bottom])


def _png_colour(image: Image.Image, data: bytes, reopen: Callable[[bytes], Any]) -> Values:
    """Pillow decodes the high bytes by default, and the low bytes if told that the samples are little-endian."""
    if data[25] == 4:  # grey with alpha: four bytes a pixel, which RGBA takes as they are
        pairs = reopen(data)
        pairs.tile = [pairs.tile[0]._replace(args="RGBA")]
        pairs.load()
        return Values(image.size, integers(16), 2, rows_of(pairs, lambda part: np.asarray(part).view(">u2")))
    low = reopen(data)
    low.tile = [low.tile[0]._replace(args=f"{image.mode};16L")]
    low.load()
    low_rows, high_rows, colour = rows_of(low), rows_of(image), image.info.get("transparency")

    def rows(top: int, bottom: int) -> np.ndarray:
        high = high_rows(top, bottom)
        values: np.ndarray = (high.astype(np.uint16) << 8) | low_rows(top, bottom)
        if colour is None:
            return values
        alpha = np.where((high == colour).all(axis=-1, keepdims=True), np.uint16(0), np.uint16(65535))
        return np.concatenate([values, alpha], axis=-1)

    return Values(image.size, integers(16), len(image.mode) + (colour is not None), rows)


def _tiff_integers(image: Image.Image, bits: int, *, is_signed: bool) -> Values:
    type_ = ValueType("12-bit", 0, 4095, 4095) if bits == 12 else integers(bits, signed=is_signed)
    if bits == 32 and not is_signed:  # Pillow has no mode for them
        return Values(image.size, type_, 1, rows_of(image, lambda part: np.asarray(part).view(np.uint32)))
    return Values(image.size, type_, 1, rows_of(image))


def _ppm_integers(image: Image.Image, maximum: int) -> Values:
    """Undo Pillow's scaling to 0..65535, which loses nothing."""
    bits = maximum.bit_length()

    def native(part: Image.Image) -> np.ndarray:
        return np.rint(np.asarray(part).astype(np.float64) * (maximum / 65535)).astype(np.uint16)

    return Values(image.size, ValueType(f"{bits}-bit", 0, maximum, maximum), 1, rows_of(image, native))


def _ppm_maximum(data: bytes) -> int:
    """The number that is white, the fourth word of a PGM or PPM's header."""
    lines = (line.partition(b"#")[0] for line in data[:4096].split(b"\n"))
    return int(b" ".join(lines).split(maxsplit=4)[3])


def _jpeg_2000_integers(image: Image.Image, data: bytes) -> Values:
    """Undo the shift to 16 bits and the offset of signed values."""
    (depth,), is_signed = _jpeg_2000_depths(data), bool(_jpeg_2000_components(data)[0] & 0x80)
    offset = 2 ** (depth - 1) if is_signed else 0
    name = f"{'signed ' * is_signed}{depth}-bit"
    type_ = ValueType(name, -offset, 2**depth - 1 - offset, 2**depth - 1 - offset, is_signed)
    return Values(
        image.size, type_, 1, rows_of(image, lambda part: (np.asarray(part).astype(np.int32) >> (16 - depth)) - offset)
    )


def _jpeg_2000_components(data: bytes) -> bytes:
    """One byte for each component, from the codestream's SIZ segment: the depth less one, and the sign in the top bit."""
    at = data.index(b"\xff\x4f\xff\x51")
    count = int.from_bytes(data[at + 40 : at + 42], "big")
    return data[at + 42 : at + 42 + 3 * count : 3]


def _jpeg_2000_depths(data: bytes) -> list[int]:
    return [(component & 0x7F) + 1 for component in _jpeg_2000_components(data)]


def undeclared_components(image: Image.Image, data: bytes) -> bool:
    """Whether a JPEG 2000 has a component beside its colours of which no channel definition says that it is opacity."""
    if image.mode not in ("LA", "RGBA", "PA"):
        return False
    header = data[: max(0, data.find(b"jp2c"))]
    at = header.find(b"cdef")
    if at < 0:
        return image.mode != "PA"  # a palette may have opacity itself
    count = int.from_bytes(header[at + 4 : at + 6], "big")
    types = [header[at + 8 + 6 * i : at + 10 + 6 * i] for i in range(count)]
    return not {b"\0\1", b"\0\2"}.intersection(types)


def _with_transparent_value(values: Values, transparent: int) -> Values:
    """Grey and alpha, which is 0 where the value is the transparent one."""
    grey, largest = values.rows, int(values.type.largest)

    def rows(top: int, bottom: int) -> np.ndarray:
        part = grey(top, bottom).astype(np.int64)
        return np.concatenate([part, np.where(part == transparent, 0, largest)], axis=-1)

    return dataclasses.replace(values, channels=2, rows=rows)
