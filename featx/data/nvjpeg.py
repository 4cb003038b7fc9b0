"""Decode, resize and crop JPEGs on a CUDA GPU, for features whose identity includes this decoder.

nvJPEG's inverse DCT rounds differently from libjpeg's, and torch resizes in float32 on a GPU, so pixels differ by a level
or two of 255 from those of ``decode.py``. What nvJPEG does not support (another format, a rotated or damaged image) is decoded
on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from featx.data.decode import MAX_PIXELS, is_plain_jpeg, read_views
from featx.data.file_bytes import FileBytes
from featx.data.transform import INTERPOLATIONS, Transform, ends_kept, resized_size, seen
from featx.errors import EngineError
from featx.layer_spec import View


def coded_reader(
    transform: Transform, views: Sequence[View], *, max_pixels: int = MAX_PIXELS
) -> Callable[[int, FileBytes], np.ndarray]:
    """A reader for ``read_images``: the file itself, (L,) uint8, if the GPU can decode it; else pixels, (V, C, H, W).

    Values, bands and channels other than RGB are selected on the CPU.
    """

    def read(_row: int, file: FileBytes) -> np.ndarray:
        is_whole = not (file.box or transform.changes_8_bit_images or transform.channels != 3)
        if is_whole and is_plain_jpeg(file.data, max_pixels=max_pixels):
            return np.frombuffer(file.data, dtype=np.uint8)
        return read_views(file.data, transform, views, max_pixels=max_pixels, box=file.box)

    return read


def pixels_on(
    device: torch.device, images: Sequence[np.ndarray], transform: Transform, views: Sequence[View]
) -> Tensor:
    """Make a batch on the device from the results of ``coded_reader``.

    Args:
        device: a CUDA device.
        images: (L,) uint8 files and (V, C, H, W) uint8 pixels.
        transform: how they are resized and cropped.
        views: the V views of each image.

    Returns:
        (B x V, C, H, W) uint8 on the device; the views of an image are adjacent.

    Raises:
        ImageError: neither nvJPEG nor Pillow can decode a file.
        EngineError: the device has too little memory.
    """
    decoded = iter(_decoded(device, [image for image in images if image.ndim == 1], transform, views))
    return torch.cat([next(decoded) if image.ndim == 1 else torch.from_numpy(image).to(device) for image in images])


def _decoded(
    device: torch.device, files: Sequence[np.ndarray], transform: Transform, views: Sequence[View]
) -> list[Tensor]:
    if not files:
        return []
    from torchvision.io import ImageReadMode, decode_jpeg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision warns at every call that its decoders will move to torchcodec
        coded = [torch.from_numpy(file.copy()) for file in files]
        try:
            images = decode_jpeg(coded, mode=ImageReadMode.RGB, device=device)
        except torch.OutOfMemoryError as error:  # the CPU would give other pixels
            raise EngineError(f"nvJPEG has too little memory on {device}; use a smaller --batch-size") from error
        except RuntimeError:  # the error does not name the file
            if len(files) == 1:
                return [torch.from_numpy(read_views(files[0].tobytes(), transform, views)).to(device)]
            return [_decoded(device, [file], transform, views)[0] for file in files]
    return [_cropped(image, transform, views) for image in images]


def _cropped(image: Tensor, transform: Transform, views: Sequence[View]) -> Tensor:
    """Resize and crop (3, H, W) in float32 to (V, *transform.shape) uint8, as ``decode.read_views`` does in uint8."""
    image = image[:, *ends_kept(tuple(image.shape[1:]), transform)]
    size, mode = resized_size(tuple(image.shape[1:]), transform), INTERPOLATIONS[transform.interpolation]
    resized = F.interpolate(image[None].float(), size, mode=mode, antialias=mode != "nearest-exact")[0]
    resized = resized.round().clamp(0, 255).to(torch.uint8)
    top, left = (max(0, whole - length) // 2 for whole, length in zip(transform.size, size, strict=True))
    padding = torch.tensor(transform.padding, dtype=torch.uint8, device=image.device)[:, None, None]
    found = []
    for view in views:
        kept = resized[:, *seen(size, transform, view)]
        canvas = padding.repeat(1, *transform.size)
        canvas[:, top : top + kept.shape[1], left : left + kept.shape[2]] = kept
        found.append(canvas.flip(-1) if view.mirrored else canvas)
    return torch.stack(found)
