"""The transform of several networks side by side: one row of bytes holds the pixels that each of them takes of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from featx.data.transform import Transform

Pixels = TypeVar("Pixels", bound=Any)


@dataclass(frozen=True)
class JointTransform:
    """The transforms of several networks that take the same images, each in a size and with channels of its own.

    An image as all of them take it is one row of bytes: the pixels of the first network, (C, H, W) in the order of memory, then
    those of the second, and so on. So a batch of images is one array, whatever the shapes of its parts.

    Attributes:
        parts: the transform of each network, in order.

    Examples:
        >>> joint = JointTransform((Transform(crop=4, resize=4), Transform(crop=2, resize=2)))
        >>> joint.shape
        (60,)
        >>> [pixels.shape for pixels in joint.split(np.zeros((8, 60), dtype=np.uint8))]
        [(8, 3, 4, 4), (8, 3, 2, 2)]
    """

    parts: tuple[Transform, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image: one row of so many bytes."""
        return (sum(math.prod(part.shape) for part in self.parts),)

    @property
    def image_size(self) -> tuple[int | tuple[int, int], ...]:
        """The size of the images that each part takes."""
        return tuple(part.image_size for part in self.parts)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of an image as each part takes it."""
        return tuple(part.shape for part in self.parts)

    def split(self, pixels: Pixels) -> list[Pixels]:
        """Divide the last axis of an array or tensor of images into the pixels of each part; see ``split_pixels``."""
        return split_pixels(pixels, self.shapes)

    def packed(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """The inverse of ``split``: (V, C, H, W) pixels of each part to (V, L)."""
        return np.concatenate([part.reshape(len(part), -1) for part in pixels], axis=1)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> JointTransform:
        """The inverse of ``as_dict``."""
        return cls(tuple(Transform.from_dict(part) for part in fields["parts"]))

    def as_dict(self) -> dict[str, Any]:
        """The parameters of all parts as JSON-compatible values."""
        return {"parts": [part.as_dict() for part in self.parts]}


def split_pixels(pixels: Pixels, shapes: Sequence[Sequence[int]]) -> list[Pixels]:
    """Divide the last axis of an array or tensor of packed images.

    Args:
        pixels: (..., L).
        shapes: the shape (C, H, W) of each part.

    Returns:
        (..., C, H, W) for each part; where it can be, the memory is shared.
    """
    found, at = [], 0
    for shape in shapes:
        size = math.prod(shape)
        found.append(pixels[..., at : at + size].reshape(*pixels.shape[:-1], *shape))
        at += size
    return found


OneOrSeveral = TypeVar("OneOrSeveral", bound="Transform | JointTransform")

AnyTransform = Transform | JointTransform
"""From an image's pixels to the input of one network, or of several side by side."""


def transform_from(fields: Mapping[str, Any]) -> AnyTransform:
    """The transform that a dictionary describes, of one network or of several.

    Raises:
        TypeError, ValueError, KeyError: it describes none.
    """
    return JointTransform.from_dict(fields) if "parts" in fields else Transform.from_dict(fields)


def whole_images(transform: OneOrSeveral) -> OneOrSeveral:
    """The same transform of JPEGs that are decoded whole, whatever its way of decoding."""
    if isinstance(transform, JointTransform):
        return replace(transform, parts=tuple(map(whole_images, transform.parts)))
    return replace(transform, decoding="exact")


def parts_of(transform: AnyTransform) -> tuple[Transform, ...]:
    """The transform of each network; of one network itself alone."""
    return transform.parts if isinstance(transform, JointTransform) else (transform,)
