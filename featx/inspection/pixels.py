"""Odd images, by their pixels and sizes: blank, dark, bright, blurred, or of an odd size or aspect ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.reporter import SILENT, Reporter

KINDS = ("blank", "dark", "bright", "blurred", "odd_size", "odd_aspect")
"""The kinds of odd images."""


@dataclass(frozen=True, eq=False)
class PixelIssues:
    """What is odd about the pixels of images.

    Attributes:
        is_issue: {kind: (N,) bool} for each of ``KINDS``; False for images that could not be read.
        scores: {kind: (N,) float64} between 0 and 1, low for odd images; NaN for images that could not be read.
        sizes: (N, 2) int64, width and height in pixels; 0 for images that could not be read.
        thumbnails: {row: JPEG file of at most SIDE pixels}, filled only where requested.
        unread: number of images that are missing, have changed, or cannot be decoded.
        why: the reason for each unread row.
    """

    is_issue: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]
    sizes: np.ndarray
    thumbnails: Mapping[int, bytes]
    unread: int
    why: Mapping[int, str]


def inspect_pixels(
    features: FeatureSet,
    *,
    thumbnails: bool = False,
    images: Sequence[str | Path] = (),
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> PixelIssues:
    """Read the images of a feature set once, and measure their pixels.

    Args:
        features: N images; only files that still have the content that was extracted are read.
        thumbnails: make a small JPEG of each image in the same pass.
        images: folders besides that of the data set in which images may lie.
        workers: threads that read and decode; by default one per core.
        reporter: receives the progress, in images.
    """
    raise NotImplementedError
