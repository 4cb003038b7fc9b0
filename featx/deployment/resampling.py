"""Resize and crop by matrices: what ``preprocessing`` does, in operations that an exported graph has for images of any size.

``F.interpolate`` with antialiasing has no counterpart elsewhere: the Resize of ONNX Runtime gives other levels for up to 16 %
of the values. So the weights are computed here, as torch computes them, and applied by products of matrices: first along the
rows, then along the columns, with whole levels between. All sizes are tensors, so that nothing depends on the image that a
graph was exported with.

Weights are whole numbers of at most 15 bits, as torch quantises them for uint8. They are applied in two halves of 8 bits, whose
products with levels and their sums are exact in float32, and in TensorFloat-32 too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from featx.data.transform import Transform, most_times_longer
from featx.deployment.large_integers import Digits, carried, combination, digits_of, product, total
from featx.layer_spec import View

_BLOCK = 8
"""Neighbouring pixels of the output that are computed from the same stretch of the input."""

_MOST_BITS = 22  # of a quantised weight's unit, as in torch's upsampling of uint8

_SUPPORT = {"bilinear": 1, "bicubic": 2}
"""Half the width of each filter, in pixels of the coarser grid."""


def resampled(pixels: Tensor, transform: Transform, views: Sequence[View], *, has_float64: bool = True) -> Tensor:
    """Resize, crop and pad images of any one size.

    Args:
        pixels: (N, H, W, C) uint8.
        transform: how an image becomes the network's input.
        views: the V views of each image.
        has_float64: whether the runtime computes float64 as such.

    Returns:
        (N, V, C, h, w) uint8: the same as ``Preprocess`` gives, but for the grey of networks of one channel.
    """
    shape = _whole(pixels.shape[1]), _whole(pixels.shape[2])
    kept = _kept(shape, transform)
    size = _resized(kept, transform)
    rows, columns = (
        Axis(
            shape[axis],
            kept[axis],
            size[axis],
            transform.size[axis],
            tuple(sorted(set(wheres))),
            transform,
            has_float64,
        )
        for axis, wheres in enumerate(([view.vertical for view in views], [view.horizontal for view in views]))
    )
    images = columns.apply(pixels.permute(2, 0, 3, 1))  # (W, N, C, H) to (w, N, C, H)
    images = rows.apply(images.permute(3, 1, 2, 0)).permute(1, 2, 0, 3)  # (H, N, C, w) to (N, C, h, w)
    if not _covers(transform):
        inside = rows.inside()[:, None] & columns.inside()
        levels = torch.tensor(transform.padding, dtype=torch.uint8, device=images.device).view(-1, 1, 1)
        images = torch.where(inside, images, levels)
    return torch.stack([_cut(images, view, rows, columns) for view in views], dim=1)


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of an image: how its pixels become those of the crop.

    Attributes:
        length: () int64, of the image.
        kept: () int64, what remains when the ends of a very long image are cut off.
        size: () int64, what that is resized to.
        crop: the length of the crop.
        wheres: -1, 0 or 1: crops at the beginning, in the middle and at the end, in this order one after the other.
        transform: its filter and rounding.
        has_float64: as of ``resampled``.
    """

    length: Tensor
    kept: Tensor
    size: Tensor
    crop: int
    wheres: tuple[int, ...]
    transform: Transform
    has_float64: bool

    def inside(self) -> Tensor:
        """Which pixels of the crops lie in the resized image: bool, one for each."""
        at = self._places(self.crop)
        filled = torch.minimum(self.size, _whole(self.crop))
        return ((at >= 0) & (at < filled)).repeat(len(self.wheres))

    def apply(self, images: Tensor) -> Tensor:
        """Resize along the first axis: (L, ...) uint8 to (crops * crop, ...) uint8."""
        rest = images.shape[1:]
        first = _quotient(self.length - self.kept, 2)
        if self.transform.interpolation == "nearest":
            scale = self.kept.to(torch.float32) / self.size.to(torch.float32)
            nearest = torch.floor((self._pixels(self.crop).to(torch.float32) + 0.5) * scale).to(torch.int64)
            return images[first + torch.minimum(nearest, self.kept - 1)]
        padded = -(-self.crop // _BLOCK) * _BLOCK
        pixels = self._pixels(padded).view(-1, _BLOCK)
        taps = self._first_tap(pixels[:, :1]) + torch.arange(self._span(_BLOCK))  # (blocks, stretch)
        weights, unit = self._quantised(pixels[:, :, None], taps[:, None])
        levels = images.flatten(1)[first + torch.minimum(torch.clamp(taps, min=0), self.kept - 1)].to(torch.float32)
        high = torch.floor(weights / 128)
        sums = torch.cat([high, weights - 128 * high], dim=1) @ levels
        rounded = _mean(sums[:, :_BLOCK], sums[:, _BLOCK:], unit).to(torch.uint8)
        crops = rounded.reshape(len(self.wheres), padded, *rest)[:, : self.crop]
        return crops.reshape(len(self.wheres) * self.crop, *rest)

    def _first_tap(self, pixels: Tensor) -> Tensor:
        """A pixel of the image that is not after the first one that counts for some pixels of the resized image."""
        middle = self.kept * (2 * pixels + 1) - 2 * self._support() * torch.maximum(self.kept, self.size)
        return _quotient(middle, 2 * self.size) - 1

    def _span(self, count: int) -> int:
        """How many pixels of the image, from the first tap on, count for so many neighbours of the resized image."""
        coarser = torch.maximum(self.kept, self.size)
        return _length(_quotient((count - 1) * self.kept + 2 * self._support() * coarser, self.size) + 4)

    def _support(self) -> int:
        return _SUPPORT[self.transform.interpolation]

    def _weights(self, pixels: Tensor, taps: Tensor) -> Tensor:
        """The weights of pixels of the image for pixels of the resized image, float64; their sum along the last axis is 1."""
        apart = self._apart(pixels, taps)
        x = apart.to(torch.float64) / (2 * torch.maximum(self.kept, self.size)).to(torch.float64)
        if self._support() == 1:
            weights = torch.clamp(1 - x, min=0)
        else:
            inner, outer = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
            weights = torch.where(x < 1, inner, torch.where(x < 2, outer, torch.zeros_like(x)))
        weights = torch.where(self._has(taps), weights, torch.zeros_like(weights))
        return weights / weights.sum(dim=-1, keepdim=True)

    def _apart(self, pixels: Tensor, taps: Tensor) -> Tensor:
        """How far taps are from pixels, int64, where the support's unit is twice the length of the coarser grid."""
        return ((2 * taps + 1) * self.size - self.kept * (2 * pixels + 1)).abs()

    def _has(self, taps: Tensor) -> Tensor:
        return (taps >= 0) & (taps < self.kept)

    def _quantised(self, pixels: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
        """Weights as whole numbers, float32, of a unit that fits the largest of the axis; and how many units are 1."""
        every = torch.arange(_length(self.size))[:, None]
        largest = self._weights(every, self._first_tap(every) + torch.arange(self._span(1))).max()
        units = 2.0 ** torch.arange(_MOST_BITS + 1, dtype=torch.float64)
        bits = (torch.floor(largest * units[1:] + 0.5) < 1 << 15).to(torch.int64).sum()
        scaled = self._weights(pixels, taps) * units[bits]
        whole = torch.sign(scaled) * torch.floor(scaled.abs() + 0.5)
        if not self.has_float64:
            whole = whole + self._correction(whole, units[bits], pixels, taps)
        return whole.to(torch.float32), units[bits].to(torch.float32)

    def _correction(self, whole: Tensor, unit: Tensor, pixels: Tensor, taps: Tensor) -> Tensor:
        """-1, 0 or 1: what quantised weights lack that were computed in float32.

        A weight is a quotient of whole numbers, ``_shares`` and their sum, so its remainder tells.
        """
        shares = self._shares(pixels, taps)
        every = total(shares)
        wanted = product(digits_of(unit.to(torch.float32), 3), shares)
        found = product(digits_of(whole.to(torch.float32), 2), every)
        lacking = combination((1, wanted), (-1, found))  # less than ``every`` in size
        too_small, too_large = (combination((1, every), (sign, lacking))[-1] < 0 for sign in (-2, 2))
        return too_small.to(whole.dtype) - too_large.to(whole.dtype)

    def _shares(self, pixels: Tensor, taps: Tensor) -> Digits:
        """Whole numbers in the proportion of the weights.

        They are those of the filter at x = ``_apart`` / D, times D, where D is twice the length of the coarser grid. The cubic
        filter, (1 - x) (2 + 2x - 3x^2) / 2 up to 1 and (1 - x) (2 - x)^2 / 2 up to 2, is taken times 2 D^3.
        """
        apart, double = self._apart(pixels, taps), 2 * torch.maximum(self.kept, self.size)
        counts = self._has(taps) & (apart < self._support() * double)
        apart = torch.where(counts, apart, double)  # where both filters are 0
        factor = digits_of(double - apart, 2)
        if self._support() == 1:
            return factor
        x, d = digits_of(apart, 2), digits_of(double, 2)
        is_inner = (apart < double).to(torch.float32)
        square = combination(
            (4 - 2 * is_inner, carried(product(d, d))),
            (6 * is_inner - 4, carried(product(x, d))),
            (1 - 4 * is_inner, carried(product(x, x))),
        )
        return carried(product(factor, square))

    def _places(self, count: int) -> Tensor:
        """(count,) int64: the pixels of a crop, counted from the first that the resized image fills."""
        beyond = torch.clamp(self.crop - self.size, min=0)
        return torch.arange(count) - _quotient(beyond, 2)

    def _pixels(self, count: int) -> Tensor:
        """(crops * count,) int64: the pixels of the resized image that each crop shows, and its last again beyond them."""
        beside = torch.clamp(self.size - self.crop, min=0)
        half = _quotient(beside, 2)
        middle = (
            half
            if self.transform.crop_rounding == "down"
            else half + (beside - 2 * half) * (half - 2 * _quotient(half, 2))
        )
        firsts = {-1: torch.zeros_like(beside), 0: middle, 1: beside}
        pixels = torch.cat([firsts[where] + self._places(count) for where in self.wheres])
        return torch.minimum(torch.clamp(pixels, min=0), self.size - 1)


def _mean(high: Tensor, low: Tensor, unit: Tensor) -> Tensor:
    """(128 high + low) / unit, rounded and clipped to levels, float32.

    The sums have up to 30 bits, so whole levels and remainders are taken apart: each step is exact in float32, because runtimes
    such as OpenVINO compute float64 in it. A unit is a power of 2, from 128 to 2^22.
    """
    of_high, of_low = torch.floor(high / (unit / 128)), torch.floor(low / unit)
    rest = 128 * (high - of_high * (unit / 128)) + (low - of_low * unit)  # below 2 units
    return torch.clamp(of_high + of_low + torch.floor((rest + unit / 2) / unit), 0, 255)


def _kept(shape: tuple[Tensor, Tensor], transform: Transform) -> tuple[Tensor, Tensor]:
    """(H, W) of an image after the ends of a very long one were cut off, as ``transform.ends_kept``."""
    if transform.fitting != "crop":
        return shape
    longest = most_times_longer(transform) * torch.minimum(*shape)
    return torch.minimum(shape[0], longest), torch.minimum(shape[1], longest)


def _resized(shape: tuple[Tensor, Tensor], transform: Transform) -> tuple[Tensor, Tensor]:
    """(H, W) after resizing, as ``transform.resized_size``."""
    height, width = shape
    target = _whole(transform.target[0]), _whole(transform.target[1])
    if transform.fitting == "squash":
        return target
    if transform.fit == "crop" and transform.crop_width is None:
        shorter, resize = torch.minimum(height, width), _whole(transform.resize)
        rows, columns = (_quotient(resize * length, shorter) for length in shape)
        return torch.maximum(resize, rows), torch.maximum(resize, columns)
    ratios = [length.to(torch.float64) / whole.to(torch.float64) for length, whole in zip(shape, target, strict=True)]
    ratio = torch.maximum(*ratios) if transform.fit == "pad" else torch.minimum(*ratios)
    rows, columns = (torch.round(length.to(torch.float64) / ratio).to(torch.int64) for length in shape)
    return torch.clamp(rows, min=1), torch.clamp(columns, min=1)


def _covers(transform: Transform) -> bool:
    """Whether a resized image is never smaller than the crop, so that nothing is padded."""
    (height, width), (rows, columns) = transform.size, transform.target
    return transform.fitting != "pad" and rows >= height and columns >= width


def _cut(images: Tensor, view: View, rows: Axis, columns: Axis) -> Tensor:
    """The crop of one view, of images that hold all crops: (N, C, h, w)."""
    for dim, axis, where in ((2, rows, view.vertical), (3, columns, view.horizontal)):
        at = axis.crop * axis.wheres.index(where)
        images = images.narrow(dim, at, axis.crop)
    return images.flip(3) if view.mirrored else images


def _quotient(number: Tensor, by: Tensor | int) -> Tensor:
    """Divide whole numbers towards zero, which is one operator; rounding down would be seven."""
    return torch.div(number, by, rounding_mode="trunc")


def _whole(number: int) -> Tensor:
    """() int64, of a length that may be symbolic."""
    return torch.full((), number, dtype=torch.int64)


def _length(number: Tensor) -> int:
    """A whole number of a tensor as the length of another."""
    length: int = number.item()  # type: ignore[assignment]  # symbolic while it is exported
    torch._check(length >= 1)
    return length
