"""Resize, crop and normalise: the transform between an image's pixels and the network."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.constants import FITS, MAX_CHANNELS, MAX_SIDE
from featx.layer_spec import PLAIN, View
from featx.text import counted, form

if TYPE_CHECKING:
    from torch import Tensor

WHITE = (255, 255, 255)

DECODINGS = ("exact", "scaled", "nvjpeg")
"""The ways to decode a JPEG: whole; at the smallest scale that leaves enough to resize; on a GPU, if there is one."""

BIT_DEPTHS = ("8", "10", "12", "14", "16")
"""The numbers of bits by which a value range may be named."""

MAX_BAND = 65535
"""The largest number of a band: a TIFF counts its bands in 16 bits."""

COLOUR_CHANNELS = (1, 3)
"""The numbers of channels that stand for colours: grey, and RGB. Of any other number, each channel is a band of the file."""

_MOST_VALUES = 1 << 26
"""The most numbers of an image as a network's input: a foreign file may name any size."""

ROUNDINGS = ("even", "down")
"""The ways to centre a crop in an image of which an odd number of pixels lies beyond it."""

INTERPOLATIONS = {"nearest": "nearest-exact", "bilinear": "bilinear", "bicubic": "bicubic"}
"""featx's names to torch's."""


@dataclass(frozen=True)
class Transform:
    """The transform from an image's pixels to the network's input: resize, centre crop, normalise.

    It gives the same bits as torchvision's ``ImageClassification`` preset on a uint8 tensor.

    Attributes:
        resize: the length of the shorter edge after resizing, in pixels; 0 squashes the whole image into the crop. See ``fit``.
        crop: the side of the square that is cut from the centre, in pixels; smaller images are padded with black. Where
            ``crop_width`` is set, its height.
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
            those that a file declares to be its colours and its alpha. For a network of neither 1 nor 3 channels, one band for
            each channel; None means all of the file's, which must be as many.
        fit: how an image of another shape fits the crop. ``resize`` is the shorter edge of a rectangle with the shape of the
            crop. "crop": the image is resized to cover it, so that its shorter edge has that length where the crop is a square;
            what lies beyond the crop is cut off. "pad": the image is resized to fit into it, and padded with the mean colour of
            the network (letterbox), which is 0 after normalisation. "squash": each edge is resized to it, without keeping the
            shape of the image. "squash" with a ``resize`` that is the crop's shorter edge becomes a ``resize`` of 0.
        crop_width: the width of the crop where it is no square; None for a square.
        channels: the channels of the network's input: 3 are RGB; 1 is grey, the luma of ITU-R BT.601 as Pillow's mode L has it;
            other numbers are ``bands``.
        crop_rounding: where the crop begins if an odd number of pixels lies beyond it: "even", at the half that is rounded to
            the even number, as in torchvision, or "down", at the smaller one, as in transformers.

    Examples:
        >>> Transform(resize=224, crop=224).as_dict()["interpolation"]
        'bilinear'
        >>> Transform(crop=224, crop_width=448, fit="pad").shape
        (3, 224, 448)
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    background: tuple[int, int, int] = WHITE
    decoding: str = "exact"
    value_range: tuple[float, float] | None = None
    bands: tuple[int, ...] | None = None
    fit: str = "crop"
    crop_width: int | None = None
    channels: int = 3
    crop_rounding: str = "even"

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
        if self.crop_rounding not in ROUNDINGS:
            raise ValueError(f"crop_rounding is {self.crop_rounding!r}; expected one of {', '.join(ROUNDINGS)}")
        self._check_shape()
        if self.bands is not None and not _are_bands(self.bands):
            raise ValueError(f"bands is {self.bands!r}; expected different numbers from 1 to {MAX_BAND}")
        least, most = (1, 4) if self.channels in COLOUR_CHANNELS else (self.channels, self.channels)
        if self.bands is not None and not least <= len(self.bands) <= most:
            wanted = "one to four bands" if most != least else f"{counted(most, 'band')}, one for each channel"
            raise ValueError(
                f"bands is {self.bands!r}, for a network of {counted(self.channels, 'channel')}; expected {wanted}"
            )

    def _check_shape(self) -> None:
        """Check what gives the input its shape, and write what has two spellings in the one that identities know.

        Raises:
            ValueError: a field has no such value, or two do not fit one another.
        """
        if self.fit not in FITS:
            raise ValueError(f"fit is {self.fit!r}; expected one of {', '.join(FITS)}")
        if self.crop_width is not None and not (type(self.crop_width) is int and 1 <= self.crop_width <= MAX_SIDE):
            raise ValueError(
                f"crop_width is {self.crop_width!r}; expected 1 to {MAX_SIDE} pixels, or None for a square"
            )
        if not (type(self.channels) is int and 1 <= self.channels <= MAX_CHANNELS):
            raise ValueError(f"channels is {self.channels!r}; expected 1 to {MAX_CHANNELS}")
        if math.prod(self.shape) > _MOST_VALUES or max(self.target) > 2 * MAX_SIDE:
            raise ValueError(
                f"{' x '.join(map(str, self.shape))} values, resized to {sides_text(self.target)}, are too many"
            )
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                found = len(getattr(self, name))
                raise ValueError(
                    f"{name} has {counted(found, 'value')}; expected one for each channel, of which there "
                    f"{form(self.channels, 'is', 'are')} {self.channels}"
                )
        if self.fit == "pad" and self.resize == 0:
            raise ValueError("fit is 'pad' and resize 0, which squashes; expected a resize of at least 1")
        if self.crop_width == self.crop:
            object.__setattr__(self, "crop_width", None)
        if self.fit == "squash" and self.resize in (0, min(self.size)):
            object.__setattr__(self, "resize", 0)
            object.__setattr__(self, "fit", "crop")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the network's input."""
        return self.crop, self.crop_width or self.crop

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the network's input."""
        return (self.channels, *self.size)

    @property
    def image_size(self) -> int | tuple[int, int]:
        """The side of the network's input, or (H, W) where it is no square."""
        return self.crop if self.crop_width is None else self.size

    @property
    def target(self) -> tuple[int, int]:
        """(H, W) of the rectangle that an image is resized to cover, to fit into or, squashed, to be."""
        if self.resize == 0:
            return self.size
        height, width = self.size
        return self.resize * height // min(self.size), self.resize * width // min(self.size)

    @property
    def fitting(self) -> str:
        """How an image of another shape fits, one of ``constants.FITS``, whichever field says so."""
        return self.fit if self.resize else "squash"

    @property
    def padding(self) -> tuple[int, ...]:
        """The 8-bit level of each channel around an image that does not fill the crop."""
        return (
            tuple(round(255 * min(max(mean, 0), 1)) for mean in self.mean)
            if self.fit == "pad"
            else (0,) * self.channels
        )

    @property
    def least_decoded(self) -> int:
        """The shorter side in pixels that a JPEG must keep where it is decoded at a fraction; 0 decodes it whole."""
        return max(self.target) if self.decoding == "scaled" else 0

    @property
    def leaves_corners(self) -> bool:
        """Whether a resized image may be larger than the crop, so that there are other places to crop than its centre."""
        return self.resize >= min(self.size) + (self.fitting != "crop")

    @property
    def reads_bands(self) -> bool:
        """Whether each channel is a band of the file, without the meaning of a colour."""
        return self.channels not in COLOUR_CHANNELS

    @property
    def shown(self) -> Transform:
        """The same transform to RGB, for pictures that people look at: of many bands, the first three."""
        if self.channels == 3:
            return self
        bands = (self.bands or tuple(range(1, self.channels + 1)))[: 3 if self.channels > 2 else 1]
        return replace(self.with_channels(3), bands=bands if self.reads_bands else self.bands)

    def with_channels(self, channels: int) -> Transform:
        """The same transform for a network of another number of channels, as timm adapts networks of RGB.

        One channel has the average of the means and of the stds; several repeat them in turn. The bands are left out.
        """
        if channels == self.channels:
            return self
        means, stds = (tuple(_spread(values, channels)) for values in (self.mean, self.std))
        return replace(self, channels=channels, mean=means, std=stds, bands=None)

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
        """The parameters as JSON-compatible values. From ``value_range`` on, fields with their default are left out."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        if self.value_range is None:
            del values["value_range"]
        else:  # so that 4095 and 4095.0 are one identity
            values["value_range"] = [float(value) for value in self.value_range]
        for name, usual in (
            ("bands", None),
            ("fit", "crop"),
            ("crop_width", None),
            ("channels", 3),
            ("crop_rounding", "even"),
        ):
            if (
                getattr(self, name) == usual
            ):  # so that the identities of features are those of before there was such a field
                del values[name]
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
        ValueError: they are not different numbers from 1 on.

    Examples:
        >>> parse_bands("4,3,2")
        (4, 3, 2)
    """
    bands: tuple[int, ...] = ()
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        bands = tuple(map(int, str(value).split(",") if isinstance(value, str | int) else value))
    if not _are_bands(bands):
        raise ValueError(f"{value!r} names no bands; expected different numbers from 1 on, such as 4,3,2")
    return bands


def parse_size(value: str | int | Sequence[int]) -> tuple[int, int]:
    """Turn "448", "224x448", 448 or (224, 448) into (H, W): the height comes first, as in torchvision and timm.

    Raises:
        ValueError: it is none of these.

    Examples:
        >>> parse_size("224x448"), parse_size(384)
        ((224, 448), (384, 384))
    """
    sides: tuple[int, ...] = ()
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if isinstance(value, str | int):
            if re.fullmatch(r"\s*\d+\s*(?:[xX]\s*\d+\s*)?", str(value)):
                sides = tuple(map(int, re.findall(r"\d+", str(value))))
        else:
            sides = tuple(map(int, value))
    sides *= 2 if len(sides) == 1 else 1
    if len(sides) != 2 or not all(1 <= side <= MAX_SIDE for side in sides):
        raise ValueError(
            f"{value!r} is no size; expected the side of a square, or HEIGHTxWIDTH such as 224x448, of 1 to {MAX_SIDE} pixels"
        )
    return sides[0], sides[1]


def sides_text(size: int | Sequence[int]) -> str:
    """A size in words.

    Examples:
        >>> sides_text(224), sides_text((224, 448))
        ('224 x 224', '224 x 448')
    """
    height, width = (size, size) if isinstance(size, int) else size
    return f"{height} x {width}"


def ends_kept(shape: tuple[int, ...], transform: Transform) -> tuple[slice, slice]:
    """The rows and columns of an (H, W) image that remain when the ends of a very long one are cut off; see ``decode``."""
    if transform.fitting != "crop":
        return slice(None), slice(None)
    longest = most_times_longer(transform) * min(shape)
    top, left = (max(0, length - longest) // 2 for length in shape)
    return slice(top, top + longest), slice(left, left + longest)


def most_times_longer(transform: Transform) -> int:
    """How many times as long as the shorter side of an image the longer one may stay."""
    longer, shorter = max(transform.size), min(transform.size)
    return max(8, math.ceil(longer / transform.resize) + 1, math.ceil(longer / shorter) + 1)


def resized_size(shape: tuple[int, ...], transform: Transform) -> tuple[int, int]:
    """(H, W) after resizing, rounded as torchvision rounds; where torchvision has no such operation, as timm does."""
    height, width = shape
    if transform.fitting == "squash":
        return transform.target
    if transform.fit == "crop" and transform.crop_width is None:
        if width <= height:
            return int(transform.resize * height / width), transform.resize
        return transform.resize, int(transform.resize * width / height)
    ratios = height / transform.target[0], width / transform.target[1]
    ratio = max(ratios) if transform.fit == "pad" else min(ratios)
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def resize_pixels(pixels: np.ndarray, size: tuple[int, int], transform: Transform) -> Tensor:
    """Resize (H, W) pixels from ``with_pixels`` to (1, C, *size) uint8; a fourth channel of an RGB image is meaningless."""
    import torch  # here, so that code that decodes nothing does not load torch
    from torch.nn import functional as F

    tensor = torch.from_numpy(channels(pixels)[None]).permute(
        0, 3, 1, 2
    )  # channels last in memory, which torch detects
    if size == pixels.shape:
        return tensor
    mode = INTERPOLATIONS[transform.interpolation]
    return F.interpolate(tensor, size, mode=mode, antialias=mode != "nearest-exact")


def cropped(tensor: Tensor, transform: Transform, view: View = PLAIN) -> np.ndarray:
    """Cut the region of one view out of (1, C or more, H, W) uint8 and pad it: ``transform.shape`` uint8."""
    pixels = tensor.numpy()[0, : transform.channels]
    kept = pixels[:, *seen(pixels.shape[1:], transform, view)]
    if kept.shape != transform.shape:
        canvas = np.empty(transform.shape, np.uint8)
        canvas[:] = np.array(transform.padding, np.uint8)[:, None, None]
        top, left = ((whole - part) // 2 for whole, part in zip(transform.size, kept.shape[1:], strict=True))
        canvas[:, top : top + kept.shape[1], left : left + kept.shape[2]] = kept
        kept = canvas
    return np.ascontiguousarray(kept[..., ::-1] if view.mirrored else kept)


def cut_views(pixels: np.ndarray, transform: Transform, views: Sequence[View]) -> np.ndarray:
    """Resize and crop (H, W) pixels from ``with_pixels`` to (V, C, H, W) uint8, once for each view."""
    kept = pixels[ends_kept(pixels.shape, transform)]
    resized = resize_pixels(kept, resized_size(kept.shape, transform), transform)
    return np.stack([cropped(resized, transform, view) for view in views])


def channels(pixels: np.ndarray) -> np.ndarray:
    """View (H, W) pixels from ``with_pixels`` as (H, W, 4) uint8, or as many bytes as each has; the memory is shared."""
    return pixels[..., None].view(np.uint8)


def seen(shape: Sequence[int], transform: Transform, view: View = PLAIN) -> tuple[slice, slice]:
    """The rows and columns of a resized (H, W) image that a view covers, before mirroring."""
    (height, width), down = transform.size, transform.crop_rounding == "down"
    return _span(shape[0], height, view.vertical, down=down), _span(shape[1], width, view.horizontal, down=down)


def _span(length: int, crop: int, where: int, *, down: bool) -> slice:
    """The covered pixels along one axis: the first, the middle or the last ones for ``where`` = -1, 0 or 1."""
    beside = max(0, length - crop)
    first = (0, beside // 2 if down else round(beside / 2.0), beside)[1 + where]
    return slice(first, min(first + crop, length))


def _spread(values: Sequence[float], channels: int) -> list[float]:
    """The values of RGB for another number of channels; see ``Transform.with_channels``."""
    if channels == 1:
        return [round(sum(values) / len(values), 6)]
    return [values[channel % len(values)] for channel in range(channels)]


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
        and 1 <= len(value) <= MAX_CHANNELS
        and all(type(band) is int and 1 <= band <= MAX_BAND for band in value)
        and len(set(value)) == len(value)
    )
