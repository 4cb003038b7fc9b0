"""What a head computes for the rows of a feature file or feature set: no image is read, and no network runs."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from pathlib import Path

import numpy as np

from featx.data.image_set import UNLABELLED
from featx.features.feature_file import FAILED
from featx.features.feature_set import FeatureSet
from featx.features.file_set import open_features
from featx.features.joint_sets import place_of
from featx.heads.head import Head
from featx.heads.own_features import Named, features_in, files_for
from featx.heads.targets import is_known_label
from featx.reporter import SILENT, Reporter
from featx.text import counted, form, listed, printable

_BLOCK = 4096
"""Rows that are computed at a time."""


def values_of_features(
    head: Head, features: FeatureSet | Named, reporter: Reporter = SILENT
) -> Iterator[tuple[str, np.ndarray | None, str]]:
    """Yield what a head computes for each image of a feature file.

    Args:
        head: a fitted head.
        features: a feature set or a feature file, of the identity of those that the head was fitted to; of several backbones
            their files, or some of them (``own_features.files_for``).
        reporter: receives the progress, in images, and ``notes_on_labels``.

    Yields:
        The path of the image, its (C,) outputs as ``Head.predict_values`` gives them, and ""; or None and why it failed. Images
        that failed when they were extracted come last.

    Raises:
        CacheMissError, CorruptFileError: the file or layer is missing or damaged.
        StaleCacheError: the features are others than those of the head.
    """
    features, failed = rows_and_failures(head, features)
    for note in notes_on_labels(head, features):
        reporter.note(note)
    for at in range(0, len(features), _BLOCK):
        rows = np.arange(at, min(at + _BLOCK, len(features)))
        for row, values in zip(rows.tolist(), head.predict_rows(features, rows), strict=True):
            yield str(features.paths[row]), values, ""
        reporter.progress(int(rows[-1]) + 1, len(features))
    for path, why in failed:
        yield path, None, why


def rows_and_failures(head: Head, features: FeatureSet | Named) -> tuple[FeatureSet, list[tuple[str, str]]]:
    """The rows that a head can predict, and the paths of the images that failed, with the reasons.

    Args:
        head: a fitted head.
        features: as ``values_of_features`` takes them.

    Raises:
        CacheMissError, CorruptFileError, StaleCacheError: as of ``values_of_features``.
    """
    failed: list[tuple[str, str]] = []
    if not isinstance(features, FeatureSet):
        files = files_for(head, features)
        reasons: dict[str, str] = {}
        for file in map(open_features, files):
            rows = np.flatnonzero(file.status == FAILED).tolist()
            reasons = {str(file.paths[row]): file.error(row) for row in rows} | reasons
        features = features_in(head, files, labelled=False)
        if len(files) > 1:
            reasons |= _in_some_only(files, {*map(str, features.paths), *reasons})
        failed = [*reasons.items()]
    head.require_identity(features)
    return features, failed


def notes_on_labels(head: Head, features: FeatureSet) -> list[str]:
    """Write a note if images have labels that a head does not predict, as those of another data set have.

    Args:
        head: fitted.
        features: N images, with labels or without.

    Returns:
        One note, or none.
    """
    labels = features.labels[features.labels != UNLABELLED]
    counts = np.bincount(labels, minlength=len(features.classes)).tolist()
    foreign = {
        printable(name): count
        for name, count in zip(features.classes, counts, strict=True)
        if count and not is_known_label(name, head.task_, head.names_)
    }
    if not foreign:
        return []
    number = sum(foreign.values())
    of = f"{number:,} of {counted(len(labels), 'labelled image')} of {place_of(features)}"
    if head.task_ == "regression":
        return [
            f"{of} {form(number, 'has a label that is not a number', 'have labels that are not numbers')} "
            f"({listed([*foreign], most=5)}); this head predicts numbers"
        ]
    what = "labels" if head.task_ == "multilabel" else "classes"
    return [
        f"{of} {form(number, 'has', 'have')} labels that this head was not fitted to ({listed([*foreign], most=5)}); it "
        f"predicts its own {what} alone ({listed([printable(name) for name in head.names_], most=5)})"
    ]


def _in_some_only(files: Sequence[Path], accounted: Container[str]) -> dict[str, str]:
    """The images that only some of several files hold, by path, and which file lacks them."""
    opened = [open_features(file) for file in files]
    paths = [{*map(str, file.paths)} for file in opened]
    return {
        path: f"{lacking.path} does not hold this image; featx extract adds it"
        for path in sorted(set().union(*paths))
        if path not in accounted
        for lacking in [next((file for file, held in zip(opened, paths, strict=True) if path not in held), opened[0])]
    }
