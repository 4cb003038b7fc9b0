"""The checks that decide whether a complete feature file is still up to date, so that nothing needs to be computed."""

from __future__ import annotations

import numpy as np

from featx.data.file_bytes import UNKNOWN
from featx.extraction.inventory import Inventory, encoded_paths
from featx.features.feature_file import FAILED, FeatureFile
from featx.features.file_marks import unaltered

READING = ("max_pixels", "reader")
"""What a file records about the reading of its images, which decides whether a failure is still one."""


def is_unchanged(inventory: Inventory, keys: np.ndarray | None = None) -> bool:
    """Whether the complete file holds just these images, labels and splits.

    Args:
        inventory: the state of the disk. Images are compared by path, size, modification time, change time and inode number.
        keys: (N, 16) uint8, the hashes of the images' bytes, once they have been read. If given, they must be equal to the
            file's too, every row of features must match its checksum, and no image may have failed: it is decoded again.
    """
    file, altered = inventory.earlier, altered_rows(inventory, compare_marks=keys is None)
    if file is None or altered is None or len(altered):
        return False
    return keys is None or (not (file.status == FAILED).any() and has_same_bytes(file, keys) and has_sound_rows(file))


def altered_rows(inventory: Inventory, *, compare_marks: bool = True) -> np.ndarray | None:
    """The rows whose images may be other files than before, though the complete file passes all checks that open no image.

    Args:
        inventory: the state of the disk.
        compare_marks: whether the marks are compared, or taken for equal.

    Returns:
        (M,) int64, ascending rows; None if there is no complete file or it fails a check.
    """
    file = inventory.earlier
    if file is None or not all(check(inventory, file) for check in CHECKS):
        return None
    if not compare_marks:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(~unaltered(file, np.arange(len(file)), inventory.marks) & (inventory.sizes >= 0))


def has_same_number(inventory: Inventory, file: FeatureFile) -> bool:
    """The file has one row for each image."""
    return len(file) == len(inventory.images)


def has_same_classes(inventory: Inventory, file: FeatureFile) -> bool:
    """The classes have the same names, in the same order."""
    return file.classes == inventory.images.classes


def has_same_reader(inventory: Inventory, file: FeatureFile) -> bool:
    """Images were read by the same decoders under the same limit of pixels, or none failed, so that it made no difference."""
    now = inventory.dataset
    return all(file.dataset.get(key) == now[key] for key in READING) or not (file.status == FAILED).any()


def has_same_dataset(inventory: Inventory, file: FeatureFile) -> bool:
    """The data set has the same name, root and table, and its splits are of the same origin. How it was read does not count."""
    now = inventory.dataset
    return {**file.dataset, **{key: now[key] for key in READING}} == now


def has_same_paths(inventory: Inventory, file: FeatureFile) -> bool:
    """The images have the same paths, in the same order."""
    return np.array_equal(file.images.paths, encoded_paths(inventory.images))


def has_same_labels(inventory: Inventory, file: FeatureFile) -> bool:
    """The images have the same labels."""
    return np.array_equal(file.images.labels, inventory.images.labels)


def has_same_columns(inventory: Inventory, file: FeatureFile) -> bool:
    """The further columns have the same names, in the same order, and the same cells."""
    columns = inventory.images.columns
    return file.column_names == tuple(columns) and all(
        np.array_equal(file.column(name), cells) for name, cells in columns.items()
    )


def has_same_sizes(inventory: Inventory, file: FeatureFile) -> bool:
    """The image files have the same sizes, where these are known before they are read."""
    unknown = (inventory.sizes == 0) & (inventory.marks.ctimes == UNKNOWN)
    return bool(((file.images.sizes == inventory.sizes) | unknown).all())


def has_same_times(inventory: Inventory, file: FeatureFile) -> bool:
    """The image files have the same modification times."""
    return np.array_equal(file.images.mtimes, inventory.mtimes)


def has_same_splits(inventory: Inventory, file: FeatureFile) -> bool:
    """The splits are the same, or they are derived from the images' hashes, which cannot change by themselves."""
    return "" in inventory.images.splits or np.array_equal(file.splits, inventory.images.splits)


def has_nothing_to_retry(inventory: Inventory, file: FeatureFile) -> bool:
    """No image that failed to be read has become a regular file since; one that has is tried again."""
    return bool((file.keys.any(axis=1) | (inventory.sizes < 0)).all())


CHECKS = (
    has_same_number,
    has_same_classes,
    has_same_reader,
    has_same_dataset,
    has_same_paths,
    has_same_labels,
    has_same_columns,
    has_same_sizes,
    has_same_times,
    has_same_splits,
    has_nothing_to_retry,
)
"""The checks that open no image, in order; those after the first assume that the number of rows is the same."""


def has_same_bytes(file: FeatureFile, keys: np.ndarray) -> bool:
    """The images have the same bytes, by their (N, 16) hashes."""
    return np.array_equal(file.keys, keys)


def has_sound_rows(file: FeatureFile) -> bool:
    """Every row that did not fail matches its checksum in every layer. Reads all features."""
    return bool(file.checksums_match_in_all(list(file.layers), np.flatnonzero(file.status != FAILED)).all())
