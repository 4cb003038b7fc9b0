"""Images in whatever form, as batches of pixels for a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from featx.data.inputs import image_inputs
from featx.data.loader import batched, read_images, views_reader
from featx.data.transform import Transform
from featx.errors import DatasetError, ImageError, SettingsError
from featx.layer_spec import RandomView, View
from featx.system import cores


def view_batches(
    images: Any, transform: Transform, views: Sequence[View | RandomView], *, batch_size: int, workers: int | None
) -> Iterator[np.ndarray]:
    """Read and decode images, and yield (B, V, 3, H, W) uint8, in order.

    Args:
        images: as in ``Backbone.embed``.
        transform: how an image becomes pixels.
        views: the V views of each image; random ones are left out.
        batch_size: B, images per batch; the last one may be smaller.
        workers: threads that read and decode; None for one per core.

    Raises:
        DatasetError: something that is no image, or there are no images.
        ImageError: an image cannot be read or decoded.
        SettingsError: the size of the batches is not a whole number above 0.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise SettingsError(f"batch_size is {batch_size!r}; expected a whole number above 0")
    names, count = dict[int, str](), 0

    def sources() -> Iterator[tuple[int, Any]]:
        for number, each in enumerate(image_inputs(images)):
            names[number] = each.name
            yield number, each.source

    reader = views_reader(transform, [view for view in views if isinstance(view, View)])
    for batch in batched(read_images(sources(), reader, workers=workers or cores()), batch_size):
        pixels = []
        for image in batch:
            if image.pixels is None:
                raise ImageError(f"{names[image.row]}: {image.error}")
            del names[image.row]
            pixels.append(image.pixels)
        count += len(pixels)
        yield np.stack(pixels)
    if not count:
        raise DatasetError("there are no images; expected at least one")
