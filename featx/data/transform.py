"""Resize, crop and normalise: the transform between an image's pixels and the network."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.constants import MAX_SIDE
from featx.layer_spec import PLAIN, View

if TYPE_CHECKING:
    from torch import Tensor

WHITE = (255, 255, 255)

DECODINGS = ("exact", "scaled", "nvjpeg")
"""The ways to decode a JPEG: whole; at the smallest scale that leaves enough to resize; on a GPU, if there is one."""

BIT_DEPTHS = ("8", "10", "12", "14", "16")
"""The numbers of bits by which a value range may be named."""

MAX_BAND = 65535
"""The largest number of a band: a TIFF counts its bands in 16 bits."""

INTERPOLATIONS = {"nearest": "nearest-exact", "bilinear": "bilinear", "bicubic": "bicubic"}
"""featx's names to torch's."""


@dataclass(frozen=True)
class Transform:
    """The transform from an image's pixels to the network's input: resize, centre crop, normalise.

    It gives the same bits as torchvision's ``ImageClassification`` preset on a uint8 tensor.

    Attributes:
        resize: the length of the shorter edge after resizing, in pixels; 0 squashes the whole image into the crop.
        crop: the side of the square that is cut from the centre, in pixels; smaller images are padded with black.
        mean: per channel (R, G, B), subtracted from pixels in 0..1.
        std: per channel, divided by after that.
        interpolation: "nearest", "bilinear" or "bicubic"; the last two are antialiased.
        background: (R, G, B), each 0 to 255, the colour behind transparent pixels. The padding is black in any case.
        decoding: how JPEGs are decoded. "exact": whole. "scaled": at the smallest of 1/1, 1/2, 1/4 and 1/8 whose shorter side
            is still at least ``resize`` (``crop`` if that is 0): faster for large photographs, with slightly other pixels.
            "nvjpeg": by the GPU's decoder if there is a GPU; on the CPU as "exact".
        value_range: (LOW, HIGH), the sample values that become black and white; values beyond them are an error. None means the
            full range of the type: 0 to 255, 4095 or 65535 for 8, 12 and 16 bits or more, 0 to 1 for floats. Files of
            fewer bits than HIGH needs keep the full range of their type, so that a data set may mix them.
        bands: the bands to read, from 1: one is grey, two are grey and alpha, three are RGB, four are RGB and alpha. None means
            those that a file declares to be its colours and its alpha.

    Examples:
        >>> Transform(resize=224, crop=224).as_dict()["interpolation"]
        'bilinear'
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    background: tuple[int, int, int] = WHITE
    decoding: str = "exact"
    value_range: tuple[float, float] | None = None
    bands: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation is {self.interpolation!r}; expected one of {', '.join(INTERPOLATIONS)}")
        if self.decoding not in DECODINGS:
            raise ValueError(f"decoding is {self.decoding!r}; expected one of {', '.join(DECODINGS)}")
        if not (1 <= self.crop <= MAX_SIDE and 0 <= self.resize <= MAX_SIDE):
            raise ValueError(
                f"crop is {self.crop} and resize {self.resize}; expected at least 1 and 0, at most {MAX_SIDE} pixels"
            )
        if not is_colour(self.background):
            raise ValueError(f"background is {self.background!r}; expected (R, G, B) of 0 to 255")
        if self.value_range is not None and not _is_range(self.value_range):
            raise ValueError(f"value_range is {self.value_range!r}; expected (LOW, HIGH), LOW below HIGH")
        if self.bands is not None and not _are_bands(self.bands):
            raise ValueError(f"bands is {self.bands!r}; expected one to four different numbers from 1 to {MAX_BAND}")

    @property
    def changes_8_bit_images(self) -> bool:
        """Whether the value range or the bands apply to images of 8 bits a sample too."""
        return self.bands is not None or (self.value_range is not None and self.value_range[1] <= 255)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Transform:
        """The inverse of ``as_dict``. Missing fields take their defaults."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """The parameters as JSON-compatible values. A value range and bands are left out where none are set."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        if self.value_range is None:
            del values["value_range"]
        else:  # so that 4095 and 4095.0 are one identity
            values["value_range"] = [float(value) for value in self.value_range]
        if self.bands is None:
            del values["bands"]
        return values


def parse_value_range(value: str | float | Sequence[float]) -> tuple[float, float]:
    """Turn a number of bits (8, 10, 12, 14 or 16), "LOW-HIGH" or (LOW, HIGH) into the values that are black and white.

    Raises:
        ValueError: it is none of these.

    Examples:
        >>> parse_value_range("12")
        (0.0, 4095.0)
        >>> parse_value_range("-1024-3071")
        (-1024.0, 3071.0)
    """
    found: tuple[float, ...] | None = None
    if isinstance(value, str | int):
        number = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
        if str(value) in BIT_DEPTHS:
            found = 0.0, float(2 ** int(value) - 1)
        elif match := re.fullmatch(rf"\s*({number})\s*-\s*({number})\s*", str(value)):
            found = float(match[1]), float(match[2])
    else:
        with contextlib.suppress(TypeError, ValueError):
            found = tuple(map(float, value))  # type: ignore[arg-type]
    if found is None or not _is_range(found):
        raise ValueError(
            f"{value!r} is not a value range; expected {', '.join(BIT_DEPTHS[:-1])} or {BIT_DEPTHS[-1]} bits, or LOW-HIGH "
            "such as 0-4095"
        )
    low, high = found
    return low, high


def parse_bands(value: str | int | Sequence[int]) -> tuple[int, ...]:
    """Turn numbers of bands, as text with commas or in a sequence, into a tuple.

    Raises:
        ValueError: they are not one to four different numbers.

    Examples:
        >>> parse_bands("4,3,2")
        (4, 3, 2)
    """
    bands: tuple[int, ...] = ()
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        bands = tuple(map(int, str(value).split(",") if isinstance(value, str | int) else value))
    if not _are_bands(bands):
        raise ValueError(f"{value!r} names no bands; expected one to four different numbers from 1 on, such as 4,3,2")
    return bands


def ends_kept(shape: tuple[int, ...], transform: Transform) -> tuple[slice, slice]:
    """The rows and columns of an (H, W) image that remain when the ends of a very long one are cut off; see ``decode``."""
    if transform.resize == 0:
        return slice(None), slice(None)
    longest = max(8, math.ceil(transform.crop / transform.resize) + 1) * min(shape)
    top, left = (max(0, length - longest) // 2 for length in shape)
    return slice(top, top + longest), slice(left, left + longest)


def resized_size(shape: tuple[int, ...], transform: Transform) -> tuple[int, int]:
    """(H, W) after resizing, rounded as torchvision rounds."""
    height, width = shape
    if transform.resize == 0:
        return transform.crop, transform.crop
    if width <= height:
        return int(transform.resize * height / width), transform.resize
    return transform.resize, int(transform.resize * width / height)


def resize_pixels(pixels: np.ndarray, size: tuple[int, int], transform: Transform) -> Tensor:
    """Resize (H, W) uint32 pixels from ``with_pixels`` to (1, 4, *size) uint8; the fourth channel is meaningless."""
    import torch  # here, so that code that decodes nothing does not load torch
    from torch.nn import functional as F

    tensor = torch.from_numpy(channels(pixels)[None]).permute(
        0, 3, 1, 2
    )  # channels last in memory, which torch detects
    if size == pixels.shape:
        return tensor
    mode = INTERPOLATIONS[transform.interpolation]
    return F.interpolate(tensor, size, mode=mode, antialias=mode != "nearest-exact")


def cropped(tensor: Tensor, crop: int, view: View = PLAIN) -> np.ndarray:
    """Cut the region of one view out of (1, 4, H, W) uint8 and pad it with black: (3, crop, crop) uint8."""
    pixels = tensor.numpy()[0, :3]
    kept = pixels[:, *seen(pixels.shape[1:], crop, view)]
    if kept.shape != (3, crop, crop):
        canvas = np.zeros((3, crop, crop), np.uint8)
        top, left = (crop - kept.shape[1]) // 2, (crop - kept.shape[2]) // 2
        canvas[:, top : top + kept.shape[1], left : left + kept.shape[2]] = kept
        kept = canvas
    return np.ascontiguousarray(kept[..., ::-1] if view.mirrored else kept)


def channels(pixels: np.ndarray) -> np.ndarray:
    """View (H, W) uint32 pixels from ``with_pixels`` as (H, W, 4) uint8; the memory is shared."""
    return pixels[..., None].view(np.uint8)


def seen(shape: Sequence[int], crop: int, view: View = PLAIN) -> tuple[slice, slice]:
    """The rows and columns of a resized (H, W) image that a view covers, before mirroring."""
    return _span(shape[0], crop, view.vertical), _span(shape[1], crop, view.horizontal)


def _span(length: int, crop: int, where: int) -> slice:
    """The covered pixels along one axis: the first, the middle or the last ones for ``where`` = -1, 0 or 1."""
    beside = max(0, length - crop)
    first = (0, round(beside / 2.0), beside)[1 + where]
    return slice(first, min(first + crop, length))


def is_colour(colour: object) -> bool:
    """Whether a value is a tuple (R, G, B) of integers from 0 to 255."""
    return (
        isinstance(colour, tuple)
        and len(colour) == 3
        and all(isinstance(level, int) and 0 <= level <= 255 for level in colour)
    )


def _is_range(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(type(bound) in (int, float) and math.isfinite(bound) for bound in value)
        and value[0] < value[1]
    )


def _are_bands(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and 1 <= len(value) <= 4
        and all(type(band) is int and 1 <= band <= MAX_BAND for band in value)
        and len(set(value)) == len(value)
    )
