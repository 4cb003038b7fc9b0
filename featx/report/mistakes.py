"""Thumbnails of some images with what is predicted for them, for a section of a page."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from featx.data.decode import thumbnail
from featx.data.file_bytes import FileBytes
from featx.data.known_image import read_known_image
from featx.data.transform import Transform
from featx.errors import ImageError
from featx.features.feature_set import FeatureSet
from featx.features.file_marks import is_own
from featx.features.image_store import stored_transform
from featx.report.html import Mistake

_SIDE = 192  # pixels, the longer side of a thumbnail


def gallery(
    features: FeatureSet,
    rows: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    images: Sequence[str | os.PathLike[str]] = (),
) -> tuple[Mistake, ...]:
    """Show some labelled images with what is predicted for them.

    Args:
        features: N images.
        rows: (n,) int64.
        predicted: (n,) str, the prediction in words.
        confidence: (n,) float64, its probability.
        images: folders besides that of the data set whose images may be shown.
    """
    facts = features.without_features(rows)
    read = functools.partial(
        read_known_image, str(features.dataset.get("root", "")), also=images, own=is_own(features.source)
    )
    transform = stored_transform(features.backbone)
    return tuple(
        Mistake(
            path=str(facts.paths[i]),
            **_thumbnail(read, str(facts.paths[i]), bytes(facts.keys[i]), transform),
            true=facts.classes[facts.labels[i]],
            predicted=predicted[i],
            probability=float(confidence[i]),
        )
        for i in range(len(rows))
    )


def _thumbnail(read: Callable[[str, bytes], FileBytes], path: str, key: bytes, transform: Transform) -> dict[str, Any]:
    """The fields of a mistake that hold a small JPEG of an image, or the reason why there is none."""
    try:
        file = read(path, key)
    except ImageError as error:
        return {"thumbnail": None, "why": str(error)}
    try:
        return {"thumbnail": thumbnail(file.data, _SIDE, transform, box=file.box)}
    except (ImageError, OSError, ValueError) as error:
        return {"thumbnail": None, "why": f"the image cannot be decoded: {error}"}
