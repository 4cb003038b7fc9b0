"""Resize, crop, pad and mirror as a torch module: the same pixels as ``featx.data.decode`` makes of an image file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featx.data.joint_pixels import decoded_by
from featx.data.joint_transform import AnyTransform, JointTransform
from featx.data.transform import INTERPOLATIONS, Transform, ends_kept, resized_size, seen
from featx.deployment.resampling import resampled
from featx.errors import ExportError
from featx.layer_spec import PLAIN, View

LUMA = (19595, 38470, 7471)
"""The weights of R, G and B in grey, ITU-R BT.601 in units of 1 / 65536, as Pillow's mode L has them."""


class Preprocess(nn.Module):
    """Turn decoded images of any one size into the input of a network, in views.

    Args:
        transform: how an image becomes the network's input.
        views: the V views of each image.

    Examples:
        >>> preprocess = Preprocess(Transform(resize=32, crop=28))
        >>> preprocess(torch.zeros(2, 60, 40, 3, dtype=torch.uint8)).shape
        torch.Size([2, 1, 3, 28, 28])
    """

    def __init__(self, transform: Transform, views: Sequence[View] = (PLAIN,)) -> None:
        super().__init__()
        self.transform, self.views = transform, tuple(views)

    @property
    def bands(self) -> int:
        """The channels of the images that are taken: 3 (RGB), also for a network of grey; else the bands of the network."""
        return self.transform.channels if self.transform.reads_bands else 3

    def forward(self, pixels: Tensor) -> Tensor:
        """Resize and crop.

        Args:
            pixels: (N, H, W, 3) uint8, RGB, upright; of a network that reads bands, as many channels as it has.

        Returns:
            (N, V, C, h, w) uint8.
        """
        kept = pixels[:, *ends_kept(tuple(pixels.shape[1:3]), self.transform)]
        images = self._resized(grey(kept) if self.transform.channels == 1 else kept)
        return torch.stack([self._cut(images, view) for view in self.views], dim=1)

    def exported(self, *, has_float64: bool = True) -> nn.Module:
        """The same, in operations that an exported graph has for images of any size.

        Args:
            has_float64: whether the runtime computes float64 as such. For one that does not, quotients are corrected.
        """
        return _Exported(self, has_float64)

    def _resized(self, images: Tensor) -> Tensor:
        """(N, H, W, C) to (N, C, H', W'); the channels stay last in memory, which torch detects."""
        shape = images.shape[1], images.shape[2]
        size, images = resized_size(shape, self.transform), images.permute(0, 3, 1, 2)
        if size == shape:
            return images
        mode = INTERPOLATIONS[self.transform.interpolation]
        return F.interpolate(images, size, mode=mode, antialias=mode != "nearest-exact")

    def _cut(self, images: Tensor, view: View) -> Tensor:
        """The region of one view, padded: (N, C, h, w)."""
        kept = images[:, :, *seen(images.shape[2:], self.transform, view)]
        (height, width), (rows, columns) = self.transform.size, kept.shape[2:]
        if (rows, columns) != (height, width):
            level = torch.tensor(self.transform.padding, dtype=torch.uint8, device=images.device).view(1, -1, 1, 1)
            top, left = (height - rows) // 2, (width - columns) // 2
            canvas = level.repeat(len(images), 1, height, width)
            canvas[:, :, top : top + rows, left : left + columns] = kept
            kept = canvas
        return kept.flip(3) if view.mirrored else kept


class JointPreprocess(nn.Module):
    """Turn decoded images into the input of several networks side by side, packed by their ``JointTransform``.

    Args:
        parts: what makes the input of each network, all in the same views.

    Raises:
        ExportError: the networks do not take the same decoded pixels.

    Examples:
        >>> parts = [Preprocess(Transform(resize=32, crop=28)), Preprocess(Transform(resize=8, crop=8))]
        >>> JointPreprocess(parts)(torch.zeros(2, 60, 40, 3, dtype=torch.uint8)).shape
        torch.Size([2, 1, 2544])
    """

    def __init__(self, parts: Sequence[Preprocess]) -> None:
        super().__init__()
        self.parts, self.views, self.bands = nn.ModuleList(parts), parts[0].views, parts[0].bands
        transforms = [replace(part.transform, decoding="exact") for part in parts]
        self.transform = JointTransform(tuple(part.transform for part in parts))
        if len(set(map(decoded_by, transforms))) > 1:
            raise ExportError(
                "the networks of this model read an image file in different ways (bands, value range or background), so that "
                "no one array of pixels is the input of all; join features that were extracted in one way"
            )

    def forward(self, pixels: Tensor) -> Tensor:
        """Resize and crop (N, H, W, 3) uint8 for each network: (N, V, L) uint8."""
        return pack([part(pixels) for part in self.parts])

    def exported(self, *, has_float64: bool = True) -> nn.Module:
        """The same, as ``Preprocess.exported``."""
        return Packed([_Exported(part, has_float64) for part in self.parts])  # type: ignore[arg-type]


AnyPreprocess = Preprocess | JointPreprocess
"""What makes the input of one network, or of several side by side."""


class Packed(nn.Module):
    """Several modules side by side, whose (N, V, C, h, w) outputs are packed.

    Args:
        parts: the modules.
    """

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 to (N, V, L) uint8."""
        return pack([part(pixels) for part in self.parts])


def pack(images: Sequence[Tensor]) -> Tensor:
    """(N, V, C, h, w) of each network to (N, V, L), as ``JointTransform`` packs them."""
    return torch.cat([each.flatten(2) for each in images], dim=2)


def preprocess_of(transform: AnyTransform, views: Sequence[View]) -> AnyPreprocess:
    """The module that turns decoded images into the input of a model.

    Raises:
        ExportError: it is of several networks, which do not take the same decoded pixels.
    """
    if isinstance(transform, Transform):
        return Preprocess(transform, views)
    return JointPreprocess([Preprocess(part, views) for part in transform.parts])


class _Exported(nn.Module):
    def __init__(self, preprocess: Preprocess, has_float64: bool) -> None:
        super().__init__()
        self.transform, self.views, self.has_float64 = preprocess.transform, preprocess.views, has_float64

    def forward(self, pixels: Tensor) -> Tensor:
        images = grey(pixels) if self.transform.channels == 1 else pixels
        return resampled(images, self.transform, self.views, has_float64=self.has_float64)


def grey(pixels: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 RGB to (N, H, W, 1) uint8 grey, to the level as Pillow's ``convert("L")``.

    Examples:
        >>> grey(torch.tensor([[[[255, 255, 255], [10, 20, 30]]]], dtype=torch.uint8)).tolist()
        [[[[255], [18]]]]
    """
    red, green, blue = pixels.to(torch.int32).split(1, dim=3)
    weighted = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    rounded: Tensor = (weighted + 32768) >> 16
    return rounded.to(torch.uint8)
