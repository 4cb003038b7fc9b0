"""Resize, crop, pad and mirror for images of a size that is not known yet: what torch.export can trace once for all sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featx.data.transform import INTERPOLATIONS, Transform, most_times_longer
from featx.deployment.preprocessing import LUMA, AnyPreprocess, Packed, Preprocess
from featx.layer_spec import View


class SymbolicPreprocess(nn.Module):
    """The same pixels as ``Preprocess``, computed from symbolic sizes, without a branch that depends on them.

    Args:
        preprocess: what it does the same as.

    Examples:
        >>> preprocess = Preprocess(Transform(resize=32, crop=28))
        >>> images = torch.randint(0, 256, (2, 60, 40, 3), dtype=torch.uint8)
        >>> torch.equal(SymbolicPreprocess(preprocess)(images), preprocess(images))
        True
    """

    level: Tensor
    luma: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.transform, self.views = preprocess.transform, preprocess.views
        level = torch.tensor(self.transform.padding, dtype=torch.uint8).view(1, -1, 1, 1)
        self.register_buffer("level", level, persistent=False)
        self.register_buffer("luma", torch.tensor(LUMA, dtype=torch.float32), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn (N, H, W, C) uint8 images into (N, V, C, h, w) uint8 views, as ``Preprocess`` does."""
        (height, width), transform = pixels.shape[1:3], self.transform
        if transform.fitting == "crop":
            longest = most_times_longer(transform) * torch.sym_min(height, width)
            height, rows = _middle(height, longest, pixels)
            width, columns = _middle(width, longest, pixels)
            pixels = pixels.index_select(1, rows).index_select(2, columns)
        images = self._grey(pixels) if transform.channels == 1 else pixels.permute(0, 3, 1, 2)
        mode = INTERPOLATIONS[transform.interpolation]
        size = _size(height, width, transform)
        images = F.interpolate(images, size, mode=mode, antialias=mode != "nearest-exact")
        return torch.stack([self._cut(images, size, view) for view in self.views], dim=1)

    def _grey(self, pixels: Tensor) -> Tensor:
        """(N, H, W, 3) to (N, 1, H, W): ``preprocessing.grey``, computed of one long row of pixels.

        The order of a row's strides is the same for every size, and torch.export would tie the program to that of its example.
        All numbers are whole and below 2^24, so float32 holds them exactly.
        """
        count, height, width = pixels.shape[:3]
        weighted = pixels.flatten().to(torch.float32).view(-1, 3) @ self.luma
        levels = ((weighted + 32768) / 65536).floor().to(torch.uint8)
        return levels.as_strided((count, 1, height, width), (height * width, height * width, width, 1))

    def _cut(self, images: Tensor, size: tuple[Any, Any], view: View) -> Tensor:
        """The region of one view, padded: (N, C, h, w)."""
        down = self.transform.crop_rounding == "down"
        row, has_row = _places(size[0], self.transform.size[0], view.vertical, images, down=down)
        column, has_column = _places(size[1], self.transform.size[1], view.horizontal, images, down=down)
        kept = images.index_select(2, row).index_select(3, column)
        kept = torch.where(has_row[:, None] & has_column, kept, self.level)
        return kept.flip(3) if view.mirrored else kept


def symbolic(preprocess: AnyPreprocess) -> nn.Module:
    """What computes the same pixels from symbolic sizes."""
    if isinstance(preprocess, Preprocess):
        return SymbolicPreprocess(preprocess)
    return Packed([SymbolicPreprocess(part) for part in preprocess.parts if isinstance(part, Preprocess)])


def _middle(length: Any, longest: Any, images: Tensor) -> tuple[Any, Tensor]:
    """The length of the middle part that is kept, and its places, int64; a slice would depend on whether it is the whole."""
    kept = torch.sym_min(length, longest)
    return kept, torch.arange(kept, device=images.device) + (length - kept) // 2


def _size(height: Any, width: Any, transform: Transform) -> tuple[Any, Any]:
    """(H, W) after resizing, as ``transform.resized_size`` computes it: whole numbers where that divides whole numbers."""
    if transform.fitting == "squash":
        return transform.target
    if transform.fit == "crop" and transform.crop_width is None:
        shorter = torch.sym_min(height, width)
        return transform.resize * height // shorter, transform.resize * width // shorter
    ratios = height / transform.target[0], width / transform.target[1]
    ratio = torch.sym_max(*ratios) if transform.fit == "pad" else torch.sym_min(*ratios)
    return _rounded(height / ratio), _rounded(width / ratio)


def _rounded(length: Any) -> Any:
    """The whole number nearest to a length, at least 1, half to even: by a tensor, because a program stores no ``round``."""
    if isinstance(length, float):
        return max(1, round(length))
    whole = torch.scalar_tensor(length, dtype=torch.float64).round().to(torch.int64).clamp(min=1).item()
    torch._check(whole >= 1)
    return whole


def _places(length: Any, crop: int, where: int, images: Tensor, *, down: bool) -> tuple[Tensor, Tensor]:
    """For each of (crop,) pixels along one axis of a view: which pixel of the image it is, int64, and whether there is one."""
    beside = torch.sym_max(0, length - crop)
    middle = beside // 2 if down else (beside + beside // 2 % 2) // 2  # half to even, as round() does
    first = (0, middle, beside)[1 + where]
    before = torch.sym_max(0, crop - length) // 2
    place = torch.arange(crop, device=images.device) - before
    return (place + first).clamp(0, length - 1), (place >= 0) & (place < length)
