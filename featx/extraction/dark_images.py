"""A look at the first images of a run: whether they use only a small part of the range of their type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from featx.data.decode import peek
from featx.data.loader import LoadedImage
from featx.data.samples import ValueType, fitting_range
from featx.data.store import ImageFile
from featx.data.transform import Transform
from featx.errors import ImageError

_SMALL_PART = 0.25
"""The share of the type's range below which values count as low."""

_DARK, _LIGHT = 96, 159
"""8-bit levels: an image without a value above a quarter of its range has none above the first, however it is resized, and
none below the second if its lowest value is white."""


def dark_note(sample: Sequence[LoadedImage], files: Sequence[ImageFile], transform: Transform, max_pixels: int) -> str:
    """The sentence that names a value range, if the values of some images end at or below a quarter of their type's.

    Only if a decoded image is dark are the files read once more.

    Args:
        sample: images as they were read.
        files: the same images.
        transform: as they were read with; if it has a value range, there is nothing to say.
        max_pixels: as in ``decode.decode``.

    Returns:
        The sentence; "" if the images use their range.
    """
    if transform.value_range is not None or not any(_is_dark(image.pixels) for image in sample):
        return ""
    highest: dict[ValueType, list[float]] = {}
    for file in files:
        try:
            found, value = peek(file.read().data, transform, max_pixels=max_pixels)
        except ImageError:  # it has been decoded just now, so it changes; the next run meets it again
            continue
        highest.setdefault(found, []).append(value)
    return "; ".join(_sentences(highest.items()))


def _sentences(highest: Iterable[tuple[ValueType, list[float]]]) -> Iterable[str]:
    for found, values in highest:
        top = max(values)
        if found.low < top <= found.low + _SMALL_PART * (found.high - found.low):
            count = f"the first {len(values)} images are" if len(values) > 1 else "the first image is"
            option = f"--value-range {fitting_range(found, found.low, top)}"
            yield (
                f"{count} nearly black: the {found.name} values end at {top:g} of {found.high:g}. If no image of the data set "
                f"has larger ones, {option} uses the whole range of the network's input"
            )


def _is_dark(pixels: np.ndarray | None) -> bool:
    """Whether decoded pixels may come from low values. Coded files, which a GPU decodes, have one axis and count as light."""
    return pixels is not None and pixels.ndim > 1 and bool(pixels.max() <= _DARK or pixels.min() >= _LIGHT)
