"""The pixels that a backbone takes: checked, and normalised on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from featx.data.joint_transform import AnyTransform, JointTransform
from featx.data.transform import sides_text
from featx.errors import BackboneError


def as_pixels(pixels: Any, image: tuple[int, ...], views: int | None = None) -> Tensor:
    """Check a batch of images before a network makes plausible numbers of it.

    Args:
        pixels: an array or tensor of whole numbers from 0 to 255, (B, *image), or (B, views, *image).
        image: the shape of an image: (C, H, W), or (L,) for several networks side by side.
        views: the views of each image; None for pixels without that dimension.

    Returns:
        The pixels as a uint8 tensor, on the device they are on.

    Raises:
        BackboneError: they are of another kind, shape or range. The message names the conversion.

    Examples:
        >>> as_pixels(np.zeros((2, 3, 8, 8), dtype=np.uint8), (3, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
        >>> as_pixels(np.zeros((2, 3, 8, 8)), (3, 8, 8))
        Traceback (most recent call last):
        ...
        featx.errors.BackboneError: pixels are float64; expected uint8 of 0 to 255; (pixels * 255).round() scales 0 to 1
    """
    if not isinstance(pixels, np.ndarray | Tensor):
        raise BackboneError(
            f"pixels are a {type(pixels).__name__}; expected a uint8 array or tensor {_wanted(image, views)}; "
            "featx.data.decode.read_pixels(data, backbone.transform) makes one image of a file's bytes"
        )
    if isinstance(pixels, Tensor):
        tensor = pixels.detach()
    elif pixels.dtype.kind in "uifb" and pixels.dtype.isnative:
        tensor = torch.as_tensor(pixels if pixels.flags.writeable and pixels.flags.c_contiguous else pixels.copy("C"))
    else:
        raise BackboneError(f"pixels are {pixels.dtype}; expected uint8")
    _require_shape(tuple(tensor.shape), image, views)
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_floating_point():
        raise BackboneError(f"pixels are {dtype}; expected uint8 of 0 to 255; (pixels * 255).round() scales 0 to 1")
    if tensor.dtype == torch.bool or tensor.is_complex() or tensor.is_quantized:
        raise BackboneError(f"pixels are {dtype}; expected uint8 of 0 to 255")
    if tensor.dtype != torch.uint8:
        whole = tensor.to(torch.int64)
        if whole.numel() and not (whole.min() >= 0 and whole.max() <= 255):
            raise BackboneError(
                f"pixels are {dtype} from {whole.min()} to {whole.max()}; expected uint8 of 0 to 255: scale them to that range"
            )
        tensor = whole.to(torch.uint8)
    return tensor


def normalise(pixels: Tensor, transform: AnyTransform) -> Tensor:
    """Turn (B, *transform.shape) uint8 pixels into float32: scaled to 0..1, minus the transform's mean, divided by its std."""
    if isinstance(transform, JointTransform):
        parts = zip(transform.split(pixels), transform.parts, strict=True)
        return torch.cat([normalise(some, part).flatten(1) for some, part in parts], dim=1)
    mean = torch.tensor(transform.mean, device=pixels.device).view(1, -1, 1, 1)
    std = torch.tensor(transform.std, device=pixels.device).view(1, -1, 1, 1)
    return (pixels.to(torch.float32) / 255).sub_(mean).div_(std)


def _wanted(image: tuple[int, ...], views: int | None) -> str:
    return f"({', '.join(map(str, ('B', *(() if views is None else (views,)), *image)))})"


def _require_shape(shape: tuple[int, ...], single: tuple[int, ...], views: int | None) -> None:
    channels = single[0]
    image = single if views is None else (views, *single)
    if shape[1:] == image and len(shape) == len(image) + 1:
        return
    hint = ""
    if len(single) == 1:
        hint = "; featx.data.joint_pixels.read_all_views(data, backbone.transform, backbone.views) makes them of a file's bytes"
        raise BackboneError(f"pixels have the shape {shape}; expected {_wanted(single, views)}{hint}")
    if shape == image:
        hint = "; a single image is a batch of one, pixels[None]"
    elif shape[-1:] == (channels,) and len(shape) in (len(image), len(image) + 1):
        hint = "; channels come first, as np.moveaxis(pixels, -1, -3) puts them"
    elif channels == 3 and len(shape) == len(image) + 1 and shape[-3] != 3:
        hint = "; grey images have their one channel three times, and further channels are left out"
    elif shape[-3:-2] == (channels,):
        sides = single[1] if single[1] == single[2] else sides_text(single[1:])
        hint = f"; resize and crop images to {sides} pixels, or load the backbone with another crop"
    raise BackboneError(f"pixels have the shape {shape}; expected {_wanted(single, views)}{hint}")
