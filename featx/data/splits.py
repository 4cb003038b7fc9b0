"""Splits by hashes of the content: stratified, the same wherever they are made, and no group straddles them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from featx.data.image_set import UNLABELLED

TEST_SHARE, VAL_SHARE = 0.2, 0.1
"""The shares of each class that go to test and to val; the rest goes to train."""

FEW = 100
"""Images of a class, or groups of them, below which it is divided by count. The shares of larger classes are even enough by
chance, and their images never change their split."""


def hash_splits(keys: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Split images by the hash of their content: 70 % train, 10 % val, 20 % test of each class.

    Copies of an image share a split. In a class of at least 100 different images, the split of an image depends only on its own
    bytes: it does not change when other images are added, and the shares are those in expectation. A smaller class is divided
    by count: the lowest hashes are test, the next ones val, so that 25 images become 18, 2 and 5. An image that is added there
    may take the place of one whose hash is next to the boundary.

    Args:
        keys: (N, 16) uint8, from ``image_key``.
        labels: (N,) int64. Unlabelled rows (-1) are split too, so that they have a split once they are labelled.

    Returns:
        (N,) str of "train", "val", "test".

    Examples:
        >>> keys = np.random.default_rng(0).integers(0, 256, (1000, 16), dtype=np.uint8)
        >>> splits = hash_splits(keys, np.zeros(1000, dtype=np.int64))
        >>> {str(name): int((splits == name).sum()) for name in ("train", "val", "test")}
        {'train': 682, 'val': 110, 'test': 208}
        >>> few = hash_splits(keys[:25], np.zeros(25, dtype=np.int64))
        >>> {str(name): int((few == name).sum()) for name in ("train", "val", "test")}
        {'train': 18, 'val': 2, 'test': 5}
    """
    position, of_row = np.unique(hash_position(keys), return_inverse=True)  # copies of an image are one
    labelled = labels != UNLABELLED
    of_image: np.ndarray = _divided(position, _pairs(labels[labelled], of_row[labelled]))[of_row]
    return of_image


def hash_splits_of_readable(keys: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """As ``hash_splits``, of images of which some could not be read: their keys are 0, and they have no split.

    Args:
        keys: (N, 16) uint8.
        labels: (N,) int64.

    Returns:
        (N,) object: "train", "val", "test", or "".

    Examples:
        >>> keys = np.zeros((2, 16), dtype=np.uint8)
        >>> keys[1] = 255
        >>> hash_splits_of_readable(keys, np.zeros(2, dtype=np.int64)).tolist()
        ['', 'train']
    """
    splits, readable = np.full(len(keys), "", dtype=object), keys.any(axis=1)
    splits[readable] = hash_splits(keys[readable], labels[readable])
    return splits


def hash_position(keys: np.ndarray) -> np.ndarray:
    """Map (N, 16) uint8 hashes evenly to (N,) float64 positions in 0..1, for ``split_at``."""
    position: np.ndarray = keys[:, :8].copy().view(">u8").ravel().astype(np.float64) / 2.0**64
    return position


def split_at(position: np.ndarray) -> np.ndarray:
    """Map (N,) float64 positions to (N,) str: the lowest are "test", the next ones "val", the rest "train"."""
    return np.where(position < TEST_SHARE, "test", np.where(position < TEST_SHARE + VAL_SHARE, "val", "train"))


def join_groups(keys: np.ndarray, *columns: np.ndarray | None) -> np.ndarray:
    """Number the groups of images that belong together: copies of one file, and images with the same value of a column.

    Copies with two different values join both groups. Unknown keys (zeros) and empty values join nothing.

    Args:
        keys: (N, 16) uint8, content hashes.
        columns: (N,) str each, such as the patient of each image; None is no column.

    Returns:
        (N,) int64 in 0..G-1, numbered by first appearance.

    Examples:
        >>> keys = np.arange(64, dtype=np.uint8).reshape(4, 16)
        >>> join_groups(keys, np.array(["p1", "p2", "p1", ""]))
        array([0, 1, 0, 2])
    """
    from scipy.sparse import coo_array  # scipy takes longer to import than a small data set to scan
    from scipy.sparse.csgraph import connected_components

    count = len(keys)
    links = [_linked(np.ascontiguousarray(keys).view("V16").ravel(), np.asarray(keys.any(axis=1)))]
    for column in columns:
        if column is not None:
            names: np.ndarray = np.asarray(column).astype(str)
            links.append(_linked(names, names != ""))
    ends = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(ends.shape[1], dtype=bool), (ends[0], ends[1])), shape=(count, count))
    found = connected_components(graph, directed=False)[1]
    _, first, groups = np.unique(found, return_index=True, return_inverse=True)
    numbered: np.ndarray = np.argsort(np.argsort(first))[groups].astype(np.int64)
    return numbered


def _linked(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(2, M) int64 pairs of rows with the same value: each row and the first row with its value."""
    rows = np.flatnonzero(known)
    _, first, inverse = np.unique(values[rows], return_index=True, return_inverse=True)
    return np.stack([rows, rows[first[inverse]]])


def straddling(splits: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Find the groups with rows in more than one split.

    Args:
        splits: (N,) str.
        groups: (N,) int64, from ``join_groups``.

    Returns:
        (M,) int64 group numbers, ascending.
    """
    _, split = np.unique(np.asarray(splits).astype(str), return_inverse=True)
    found, times = np.unique(_pairs(groups, split)[:, 0], return_counts=True)
    torn: np.ndarray = found[times > 1]
    return torn


def hash_group_splits(keys: np.ndarray, column: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    """Split groups as ``hash_splits`` splits images: 70 % train, 10 % val, 20 % test of the groups of each class.

    A group's place is the hash of its value of the column, or of its content if it has no value. (Copies of an image in two
    groups merge them; the lower hash counts.) In a class of at least 100 groups, its split depends on that alone, so it does
    not change when images are added to it or to other groups. The groups of smaller classes are divided by count, the rarest
    class or label first, so that groups with several count for each.

    Args:
        keys: (N, 16) uint8, content hashes. Where some are 0, these images could not be read: they share the split of their
            group, and take no place of others.
        column: (N,) str, or None: only copies belong together.
        labels: (N,) int64 classes, -1 for unlabelled, all 0 if there are no classes; or (N, C) of 0 and 1 for several labels.

    Returns:
        (N,) str of "train", "val", "test".
    """
    groups = join_groups(keys, column)
    hashes = keys
    if column is not None:
        names, of_row = np.unique(np.asarray(column).astype(str), return_inverse=True)
        named = np.stack([_hash_of(name) for name in names.tolist()])[of_row]
        hashes = np.where((names[of_row] != "")[:, None], named, keys)
    position = np.full(groups.max(initial=-1) + 1, np.inf)
    np.minimum.at(position, groups, hash_position(hashes))
    rows, of_row = np.nonzero(labels) if labels.ndim == 2 else (np.arange(len(labels)), labels)
    readable = np.asarray(keys.any(axis=1))
    known = of_row != UNLABELLED
    if readable.any():
        known &= readable[rows]
    of_image: np.ndarray = _divided(position, _pairs(of_row[known], groups[rows[known]]))[groups]
    return of_image


def _divided(position: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Split G groups by their places in 0..1: those of small classes by count, all others by ``split_at``.

    Args:
        position: (G,) float64.
        pairs: (M, 2) int64, the distinct (class, group), in ascending order.

    Returns:
        (G,) str. Each class has a group in train; and one in test, unless that would leave some class none in train.
    """
    pairs = pairs[np.lexsort((position[pairs[:, 1]], pairs[:, 0]))]
    starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    sizes = np.diff(starts, append=len(pairs))
    splits, few = split_at(position), sizes < FEW
    if few.any():
        of_few = pairs[np.repeat(few, sizes), 1]
        if (np.bincount(pairs[:, 1])[of_few] == 1).all():
            test, val = np.array([quotas(count) for count in range(FEW)])[sizes[few]].T
            rank = np.arange(len(of_few)) - np.repeat(np.cumsum(sizes[few]) - sizes[few], sizes[few])
            test, val = np.repeat(test, sizes[few]), np.repeat(test + val, sizes[few])
            splits[of_few] = np.where(rank < test, "test", np.where(rank < val, "val", "train"))
        else:
            small = [pairs[start : start + size, 1] for start, size in zip(starts[few], sizes[few], strict=True)]
            _by_count(splits, sorted(small, key=len), pairs)
    for own in np.split(pairs[:, 1], starts[1:]):
        if len(own) and "train" not in splits[own]:
            splits[own[-1]] = "train"
    for own in np.split(pairs[:, 1], starts[1:]):
        if len(own) and "test" not in splits[own]:
            _give_test_a_group(own, splits, pairs)
    return splits


def quotas(count: int) -> tuple[int, int]:
    """The images or groups of a small class that go to test and to val; halves go to train.

    Examples:
        >>> [quotas(count) for count in (1, 2, 3, 5, 10, 25, 99)]
        [(0, 0), (1, 0), (1, 0), (1, 0), (2, 1), (5, 2), (20, 10)]
    """
    test = max(_rounded(TEST_SHARE * count), min(1, count - 1))
    return test, max(0, _rounded((TEST_SHARE + VAL_SHARE) * count) - test)


def _rounded(value: float) -> int:
    """The nearest integer, and the lower one of two."""
    return math.ceil(round(value, 9) - 0.5)


def _by_count(splits: np.ndarray, classes: Sequence[np.ndarray], pairs: np.ndarray) -> None:
    """Give the groups of small classes their splits, by the quotas of each class. A group may have several classes.

    Args:
        splits: (G,) str, changed in place.
        classes: the groups of each small class, by their places in 0..1; the class with the fewest first, which decides the
            split of a group that has several. It counts for all of them.
        pairs: (M, 2) int64, all (class, group).
    """
    of_group = pairs[np.argsort(pairs[:, 1], kind="stable")]
    starts = np.searchsorted(of_group[:, 1], np.arange(len(splits) + 1))
    left = np.bincount(pairs[:, 0])  # groups of each class that are in train, or undecided
    decided = np.zeros(len(splits), dtype=bool)
    for own in classes:
        for name, quota in zip(("test", "val"), quotas(len(own)), strict=True):
            missing = quota - int(np.count_nonzero(splits[own][decided[own]] == name))
            for group in own[~decided[own]].tolist():
                if missing <= 0:
                    break
                inside = of_group[starts[group] : starts[group + 1], 0]
                if (left[inside] > 1).all():
                    splits[group], decided[group], missing = name, True, missing - 1
                    left[inside] -= 1
        rest = own[~decided[own]]
        splits[rest], decided[rest] = "train", True


def _give_test_a_group(own: np.ndarray, splits: np.ndarray, pairs: np.ndarray) -> None:
    """Move the lowest group of a class to test whose move leaves each of its classes a group in train."""
    for group in own.tolist():
        inside = pairs[pairs[:, 1] == group, 0]
        rest = pairs[np.isin(pairs[:, 0], inside) & (pairs[:, 1] != group)]
        if set(inside.tolist()) == set(rest[splits[rest[:, 1]] == "train", 0].tolist()):
            splits[group] = "test"
            return


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The distinct pairs of two (N,) arrays of integers, (M, 2) int64 in ascending order; the second must not be negative."""
    width = int(second.max(initial=0)) + 1
    codes = np.unique(first.astype(np.int64) * width + second)
    return np.stack([codes // width, codes % width], axis=1)


def _hash_of(name: str) -> np.ndarray:
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest()
    return np.frombuffer(digest, dtype=np.uint8)
