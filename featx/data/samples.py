"""Sample values to 8-bit RGB pixels: value ranges, transparency over a background, a strip of rows at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from featx.data.transform import BIT_DEPTHS, Transform
from featx.errors import ImageError
from featx.text import counted

STRIP = 1 << 22
"""Pixels that are converted at once, so that a large image needs little memory beside its own."""

FULL_16_BITS = (0.0, 65535.0)
"""The value range that 16-bit images have by default."""

_TRANSPARENT_MODES = ("LA", "PA", "RGBA", "RGBa")


@dataclass(frozen=True)
class ValueType:
    """The type of an image's samples.

    Attributes:
        name: in words.
        low: the value that is black, unless a value range is given.
        high: the value that is white, unless a value range is given.
        largest: the largest value of the type.
        signed: whether the type has no fixed range that begins at 0: signed integers and floats.
    """

    name: str
    low: float
    high: float
    largest: float
    signed: bool = False

    def range(self, given: tuple[float, float] | None) -> tuple[float, float]:
        """(black, white). A given range that ends above the type's largest value is meant for deeper files of the set."""
        if given is None or (not self.signed and given[1] > self.largest):
            return self.low, self.high
        return given


def integers(bits: int, *, signed: bool = False) -> ValueType:
    """The type of integer samples. Those of more than 16 bits are black at 0 and white at 65535."""
    largest = 2 ** (bits - signed) - 1
    return ValueType(f"{'signed ' * signed}{bits}-bit", 0, 2 ** min(bits, 16) - 1, largest, signed)


FLOAT = ValueType("float", 0, 1, math.inf, signed=True)
"""Floating-point samples, black at 0 and white at 1."""


def fitting_range(found: ValueType, low: float, high: float) -> str:
    """A value range, as ``--value-range`` takes it, that fits values from ``low`` to ``high``, with round bounds.

    Examples:
        >>> fitting_range(integers(16), 0, 4080), fitting_range(integers(8), 0, 12), fitting_range(integers(16), -9, 1892)
        ('12', '0-15', '-16-2047')
        >>> fitting_range(FLOAT, 0, 189.3), fitting_range(FLOAT, 0, 0.213), fitting_range(FLOAT, -3.14, 3.14)
        ('0-255', '0-0.22', '-4-4')
    """
    if low >= 0 and found.largest < math.inf:
        fitting = [bits for bits in BIT_DEPTHS if high < 2 ** int(bits) <= found.high]
        return fitting[0] if fitting else f"0-{max(1, _power_of_two(high) - 1)}"
    if low < 0:
        is_integer = int(found.largest < math.inf)
        return f"-{_power_of_two(-low, 0)}-{_power_of_two(high, is_integer) - is_integer}"
    if high > 1:
        return f"0-{max(1, _power_of_two(high) - 1)}"
    step = 10.0 ** (math.floor(math.log10(high)) - 1) if high > 0 else 1.0
    return f"0-{math.ceil(high / step) * step:.6g}"


def _power_of_two(value: float, more: int = 1) -> int:
    """The least power of two, from 1 on, that is not below ``value + more``."""
    return 1 << max(0, math.ceil(value + more) - 1).bit_length()


@dataclass(frozen=True)
class Values:
    """The sample values of an image before they become 8-bit levels.

    Attributes:
        size: (width, height).
        type: the type of the samples.
        channels: C: grey (1), grey and alpha (2), RGB (3), or RGB and alpha (4). Alpha reaches from 0 to the type's largest
            value, 1 for floats. Before ``select`` there may be other numbers of bands.
        rows: a function from (top, bottom) to those rows, (bottom - top, W, C).
        inverted: whether the lowest value is white.
    """

    size: tuple[int, int]
    type: ValueType
    channels: int
    rows: Callable[[int, int], np.ndarray]
    inverted: bool = False

    def extremes(self, *, every: bool = False) -> tuple[float, float]:
        """The least and the greatest value of a colour, or of ``every`` channel; NaN if one is NaN."""
        colours = self.channels if every else self.channels - (self.channels + 1) % 2
        found = []
        for strip in strips(self.size):
            part = self.rows(*strip)[..., :colours]
            found.append((part.min(), part.max()))
        low, high = np.array(found, dtype=np.float64).T
        return float(low.min()), float(high.max())

    def nearest(self, bound: float) -> float:
        """The number nearest to a bound that samples can have: floats of 16 and 32 bits round it."""
        dtype = self.rows(0, 1).dtype
        with np.errstate(over="ignore"):
            return float(dtype.type(bound)) if dtype.kind == "f" else bound

    def select(self, bands: Sequence[int]) -> Values:
        """The image of some bands, counted from 1: grey, grey and alpha, RGB, or RGB and alpha.

        Raises:
            ImageError: there is no such band.
        """
        if max(bands) > self.channels:
            raise ImageError(f"there is no band {max(bands)} (--bands); the image has {self.channels}")
        chosen, rows = [band - 1 for band in bands], self.rows
        return dataclasses.replace(self, channels=len(chosen), rows=lambda top, bottom: rows(top, bottom)[..., chosen])


def strips(size: tuple[int, int]) -> list[tuple[int, int]]:
    """(top, bottom) of consecutive strips of an image of (width, height)."""
    step = max(1, STRIP // max(1, size[0]))
    return [(top, min(top + step, size[1])) for top in range(0, size[1], step)]


def values_of_8_bit(image: Image.Image) -> Values:
    """The channels of an image whose samples have 8 bits or fewer; palettes, inks and LAB as RGB."""
    if is_transparent(image):
        mode = "LA" if image.mode in ("LA", "La") else "RGBA"
    else:
        mode = "L" if image.mode in ("1", "L") else "RGB"

    return Values(image.size, integers(8), len(mode), rows_of(image, lambda part: np.asarray(_as_mode(part, mode))))


def rows_of(
    image: Image.Image, convert: Callable[[Image.Image], np.ndarray] = np.asarray
) -> Callable[[int, int], np.ndarray]:
    """The ``rows`` of ``Values`` for an image of Pillow's; a small image is converted once.

    Args:
        image: the image.
        convert: turns a part of it into an (h, W) or (h, W, C) array.
    """

    def rows(top: int, bottom: int) -> np.ndarray:
        array = convert(_part(image, top, bottom))
        return array.reshape(*array.shape[:2], -1)

    if image.width * image.height > STRIP:
        return rows
    whole = rows(0, image.height)
    return lambda top, bottom: whole[top:bottom]


def paint_values(values: Values, transform: Transform) -> np.ndarray:
    """Scale values to 0..255 and composite them over the background.

    Returns:
        (H, W) uint32 as ``decode.with_pixels`` passes them on.

    Raises:
        ImageError: a value is out of range, or NaN.
    """
    black, white = _bounds(values, transform)

    def part(top: int, bottom: int) -> Image.Image:
        return _levels(values.rows(top, bottom), values, black, white)

    return _paint(values.size, part, transform)


def paint_bands(values: Values, transform: Transform) -> np.ndarray:
    """Scale the values of each band to 0..255, for a network whose channels are bands.

    Returns:
        (H, W) of a void type, a byte for each band in its order.

    Raises:
        ImageError: there are more or fewer bands than channels; a value is out of range, or NaN.
    """
    if values.channels != transform.channels:
        names = ",".join(map(str, range(1, min(transform.channels, 4) + 1))) + ",…" * (transform.channels > 4)
        hint = f" (--bands selects them, such as {names})" if values.channels > transform.channels else ""
        raise ImageError(f"{counted(values.channels, 'band')}; the network takes {transform.channels}{hint}")
    black, white = _bounds(values, transform, every=True)
    pixels = np.empty((*values.size[::-1], values.channels), np.uint8)
    for top, bottom in strips(values.size):
        pixels[top:bottom] = _scaled(values.rows(top, bottom), black, white)
    if values.inverted:
        np.subtract(255, pixels, out=pixels)
    return pixels.view(np.dtype((np.void, values.channels)))[..., 0]


def _bounds(values: Values, transform: Transform, *, every: bool = False) -> tuple[float, float]:
    """The values that are black and white. The largest float32 for 0.4 is above 0.4: it is white, as the one that was meant.

    Raises:
        ImageError: a value lies beyond them, or is NaN.
    """
    black, white = values.type.range(transform.value_range)
    low, high = values.extremes(every=every)
    grey = "grey " if values.channels < 3 else ""
    if not (math.isfinite(low) and math.isfinite(high)):
        kind = "NaN, as files mark missing data" if math.isnan(low) or math.isnan(high) else "infinite"
        raise ImageError(
            f"{grey}values that are {kind}; expected {black:g} to {white:g}, so write a number in their place"
        )
    least, most = values.nearest(black), values.nearest(white)
    if low < min(black, least) or high > max(white, most):
        hint = f"--value-range {fitting_range(values.type, low, high)} would fit"
        raise ImageError(f"{grey}values from {low:g} to {high:g}; expected {black:g} to {white:g} ({hint})")
    return black, white


def paint_image(image: Image.Image, transform: Transform) -> np.ndarray:
    """As ``paint_values`` for an image of Pillow's whose samples have 8 bits or fewer."""
    return _paint(image.size, lambda top, bottom: _part(image, top, bottom), transform)


def lend(size: tuple[int, int]) -> tuple[np.ndarray, Any]:
    """Allocate an (H, W) uint32 array of pixels, and wrap its memory as one of Pillow's inner images.

    This saves copying Pillow's own memory, which would take as long as decoding.
    """
    pixels = np.empty(size[::-1], np.uint32)
    return pixels, Image.frombuffer("RGBX", size, pixels, "raw", "RGBX", 0, 1).im


def is_transparent(image: Image.Image) -> bool:
    """Whether an image has alpha, or a colour that stands for transparency."""
    return image.mode in (*_TRANSPARENT_MODES, "La") or "transparency" in image.info


def _paint(size: tuple[int, int], part: Callable[[int, int], Image.Image], transform: Transform) -> np.ndarray:
    pixels, lent = lend(size)
    for top, bottom in strips(size):
        rgb = _flat(part(top, bottom), transform.background)
        lent.paste(rgb.im, (0, top, size[0], bottom))
    return pixels


def _levels(part: np.ndarray, values: Values, black: float, white: float) -> Image.Image:
    """Scale (h, W, C) values to an image of 8-bit levels: L, LA, RGB or RGBA."""
    has_alpha = part.shape[-1] % 2 == 0
    colours = part[..., :-1] if has_alpha else part
    levels = _scaled(colours, black, white).astype(np.uint8)
    if values.inverted:
        levels = 255 - levels
    if has_alpha:
        opaque = values.type.largest if math.isfinite(values.type.largest) else 1.0
        alpha = np.rint(np.clip(part[..., -1:].astype(np.float64) / opaque, 0, 1) * 255)
        levels = np.concatenate([levels, alpha.astype(np.uint8)], axis=-1)
    return Image.fromarray(np.ascontiguousarray(levels[..., 0] if levels.shape[-1] == 1 else levels))


def _scaled(part: np.ndarray, black: float, white: float) -> np.ndarray:
    """Whole numbers from 0, black, to 255, white, as float64."""
    levels = np.rint((part.astype(np.float64) - black) * (255.0 / (white - black)))
    return np.clip(levels, 0, 255, out=levels) if part.dtype.kind == "f" else levels


def _flat(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Convert an image of 8-bit samples to RGB, composited over the background."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if is_transparent(image):
        rgba = _as_mode(image, "RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba).convert("RGB")
    return image.convert("RGB")


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image, also one of grey with premultiplied alpha, which Pillow can only convert to LA."""
    return (image.convert("LA") if image.mode == "La" else image).convert(mode)


def _part(image: Image.Image, top: int, bottom: int) -> Image.Image:
    return image if (top, bottom) == (0, image.height) else image.crop((0, top, image.width, bottom))
