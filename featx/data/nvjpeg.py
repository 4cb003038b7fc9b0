"""JPEGs decoded, resized and cropped on a CUDA GPU, for features whose identity says so.

nvJPEG's inverse DCT rounds otherwise than libjpeg's, and torch resizes in float32 there: pixels differ by a level or two of 255
from those of ``decode.py``. What nvJPEG does not take (another format, a turned or damaged image) is decoded on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import ImageReadMode, decode_jpeg

from featx.data.decode import MAX_PIXELS, is_plain_jpeg, read_views
from featx.data.transform import INTERPOLATIONS, Transform, ends_kept, resized_size, seen
from featx.layer_spec import View


def coded_reader(
    transform: Transform, views: Sequence[View], *, max_pixels: int = MAX_PIXELS
) -> Callable[[int, bytes], np.ndarray]:
    """What ``read_images`` takes: (L,) uint8, the file itself, for the GPU to decode; (V, 3, crop, crop) where it cannot."""

    def read(_row: int, data: bytes) -> np.ndarray:
        if is_plain_jpeg(data, max_pixels=max_pixels):
            return np.frombuffer(data, dtype=np.uint8)
        return read_views(data, transform, views, max_pixels=max_pixels)

    return read


def pixels_on(
    device: torch.device, images: Sequence[np.ndarray], transform: Transform, views: Sequence[View]
) -> Tensor:
    """A batch of what ``coded_reader`` gives.

    Args:
        device: of the result.
        images: (L,) uint8 files and (V, 3, crop, crop) uint8 pixels.
        transform: how to resize and crop.
        views: how images are seen.

    Returns:
        (B x V, 3, crop, crop) uint8 on the device, an image's views in a row.

    Raises:
        ImageError: a file that neither nvJPEG nor Pillow decodes.
    """
    decoded = iter(_decoded(device, [image for image in images if image.ndim == 1], transform, views))
    return torch.cat([next(decoded) if image.ndim == 1 else torch.from_numpy(image).to(device) for image in images])


def _decoded(
    device: torch.device, files: Sequence[np.ndarray], transform: Transform, views: Sequence[View]
) -> list[Tensor]:
    if not files:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision says at every call that its decoders will move to torchcodec
        coded = [torch.from_numpy(file.copy()) for file in files]
        try:
            images = decode_jpeg(coded, mode=ImageReadMode.RGB, device=device)
        except RuntimeError:  # it does not say which of them
            if len(files) == 1:
                return [torch.from_numpy(read_views(files[0].tobytes(), transform, views)).to(device)]
            return [_decoded(device, [file], transform, views)[0] for file in files]
    return [_cropped(image, transform, views) for image in images]


def _cropped(image: Tensor, transform: Transform, views: Sequence[View]) -> Tensor:
    """(3, H, W) to (V, 3, crop, crop) uint8, as ``decode.read_views`` does, in float32."""
    image = image[:, *ends_kept(tuple(image.shape[1:]), transform)]
    size, mode = resized_size(tuple(image.shape[1:]), transform), INTERPOLATIONS[transform.interpolation]
    resized = F.interpolate(image[None].float(), size, mode=mode, antialias=mode != "nearest-exact")[0]
    resized = resized.round().clamp(0, 255).to(torch.uint8)
    missing = [max(0, transform.crop - length) for length in size]
    before = [length // 2 for length in missing]
    around = (before[1], missing[1] - before[1], before[0], missing[0] - before[0])
    found = []
    for view in views:
        kept = F.pad(resized[:, *seen(size, transform.crop, view)], around)
        found.append(kept.flip(-1) if view.mirrored else kept)
    return torch.stack(found)
