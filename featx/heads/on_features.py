"""What a head computes for the rows of a feature file or feature set: no image is read, and no network runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from featx.features.feature_file import FAILED
from featx.features.feature_set import FeatureSet
from featx.features.file_set import open_features
from featx.heads.head import Head
from featx.reporter import SILENT, Reporter

_BLOCK = 4096
"""Rows that are computed at a time."""


def values_of_features(
    head: Head, features: FeatureSet | str | os.PathLike[str], reporter: Reporter = SILENT
) -> Iterator[tuple[str, np.ndarray | None, str]]:
    """Yield what a head computes for each image of a feature file.

    Args:
        head: a fitted head.
        features: a feature set or a feature file, of the identity of those that the head was fitted to.
        reporter: receives the progress, in images.

    Yields:
        The path of the image, its (C,) outputs as ``Head.predict_values`` gives them, and ""; or None and why it failed. Images
        that failed when they were extracted come last.

    Raises:
        CacheMissError, CorruptFileError: the file or layer is missing or damaged.
        StaleCacheError: the features are others than those of the head.
    """
    features, failed = rows_and_failures(head, features)
    for at in range(0, len(features), _BLOCK):
        rows = np.arange(at, min(at + _BLOCK, len(features)))
        for row, values in zip(rows.tolist(), head.predict_rows(features, rows), strict=True):
            yield str(features.paths[row]), values, ""
        reporter.progress(int(rows[-1]) + 1, len(features))
    for path, why in failed:
        yield path, None, why


def rows_and_failures(
    head: Head, features: FeatureSet | str | os.PathLike[str]
) -> tuple[FeatureSet, list[tuple[str, str]]]:
    """The rows that a head can predict, and the paths of the images that failed, with the reasons.

    Args:
        head: a fitted head.
        features: as ``values_of_features`` takes them.

    Raises:
        CacheMissError, CorruptFileError, StaleCacheError: as of ``values_of_features``.
    """
    failed: list[tuple[str, str]] = []
    if not isinstance(features, FeatureSet):
        file = open_features(Path(features))
        failed = [(file.paths[row], file.error(row)) for row in np.flatnonzero(file.status == FAILED).tolist()]
        features = FeatureSet.load(file.path, head.layer_)
    head.require_identity(features)
    return features, failed
