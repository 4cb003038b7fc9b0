"""Resize, crop and normalise: the transform between an image's pixels and the network."""

from __future__ import annotations

import math
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

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Transform:
        """The inverse of ``as_dict``. Missing fields take their defaults: older files have no background and no decoding."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """The parameters as JSON-compatible values."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


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
    """Resize (H, W) uint32 pixels from ``open_upright`` to (1, 4, *size) uint8; the fourth channel is meaningless."""
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
    """View (H, W) uint32 pixels from ``open_upright`` as (H, W, 4) uint8; the memory is shared."""
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
