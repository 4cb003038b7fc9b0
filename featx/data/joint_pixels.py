"""The pixels that several networks side by side take of an image, which is decoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from featx.data.augment import cut_random, read_augmented
from featx.data.boxes import Box
from featx.data.decode import MAX_PIXELS, grey_pixels, read_views, with_pixels
from featx.data.joint_transform import AnyTransform, JointTransform, whole_images
from featx.data.transform import Transform, cut_views
from featx.layer_spec import View


def read_all_views(
    data: bytes,
    transform: AnyTransform,
    views: Sequence[View],
    *,
    max_pixels: int = MAX_PIXELS,
    box: Box | None = None,
) -> np.ndarray:
    """Read the views of an image for one network, as ``decode.read_views`` does, or for several side by side.

    The image is decoded once for all networks that take it from the same decoded pixels: those of RGB and of grey with the same
    background, value range, bands and way of decoding. Others need a pass of their own.

    Args:
        data: the bytes of an image file.
        transform: of one network or of several.
        views: the V views.
        max_pixels: as in ``decode.decode``.
        box: the part of the upright image to read; None for all of it.

    Returns:
        (V, *transform.shape) uint8.

    Raises:
        ImageError: as ``decode.decode``.
    """
    if isinstance(transform, Transform):
        return read_views(data, transform, views, max_pixels=max_pixels, box=box)

    def cut(pixels: np.ndarray, part: Transform) -> np.ndarray:
        return cut_views(pixels, part, views)

    return transform.packed(_read_parts(data, transform, cut, max_pixels=max_pixels, box=box))


def read_all_augmented(
    data: bytes,
    transform: AnyTransform,
    rng: np.random.Generator,
    *,
    scale: float,
    flip: bool = True,
    max_pixels: int = MAX_PIXELS,
    box: Box | None = None,
) -> np.ndarray:
    """Read a random crop of an image for one network, as ``augment.read_augmented`` does, or for several side by side.

    All networks see the same region, as far as their inputs have the same shape. The arguments are as there.

    Returns:
        ``transform.shape`` uint8.

    Raises:
        ImageError: as ``decode.decode``.
    """
    if isinstance(transform, Transform):
        return read_augmented(data, transform, rng, scale=scale, flip=flip, max_pixels=max_pixels, box=box)
    drawn = int(rng.integers(1 << 63))

    def cut(pixels: np.ndarray, part: Transform) -> np.ndarray:
        return cut_random(pixels, part, np.random.default_rng(drawn), scale=scale, flip=flip)[None]

    pixels: np.ndarray = transform.packed(
        _read_parts(data, whole_images(transform), cut, max_pixels=max_pixels, box=box)
    )[0]
    return pixels


def decoded_by(transform: Transform) -> tuple[Any, ...]:
    """What decides the decoded pixels that a transform begins with; grey is made of RGB."""
    channels = transform.channels if transform.reads_bands else 3
    return transform.background, transform.value_range, transform.bands, channels, transform.least_decoded


def _read_parts(
    data: bytes,
    transform: JointTransform,
    cut: Callable[[np.ndarray, Transform], np.ndarray],
    *,
    max_pixels: int,
    box: Box | None,
) -> list[np.ndarray]:
    """What ``cut`` makes of the decoded pixels for each part: (V, C, H, W) uint8."""
    alike: dict[Any, list[int]] = {}
    for number, part in enumerate(transform.parts):
        alike.setdefault(decoded_by(part), []).append(number)
    found: dict[int, np.ndarray] = {}
    for numbers in alike.values():
        parts = [transform.parts[number] for number in numbers]
        made = _read_alike(data, parts, cut, max_pixels=max_pixels, box=box)
        found.update(zip(numbers, made, strict=True))
    return [found[number] for number in range(len(transform.parts))]


def _read_alike(
    data: bytes,
    transforms: Sequence[Transform],
    cut: Callable[[np.ndarray, Transform], np.ndarray],
    *,
    max_pixels: int,
    box: Box | None,
) -> list[np.ndarray]:
    """What ``cut`` makes for networks that take an image from the same decoded pixels."""
    first = transforms[0]
    wide = replace(first.with_channels(3), bands=first.bands) if first.channels == 1 else first

    def cut_all(pixels: np.ndarray) -> list[np.ndarray]:
        grey = grey_pixels(pixels) if any(each.channels == 1 for each in transforms) else pixels
        return [cut(grey if each.channels == 1 else pixels, each) for each in transforms]

    return with_pixels(data, wide, cut_all, max_pixels=max_pixels, least=first.least_decoded, box=box)
