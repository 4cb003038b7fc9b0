"""Splits by hashes of the content: they do not change when images are added, and no group straddles them."""

from __future__ import annotations

import hashlib

import numpy as np

from featx.data.image_set import UNLABELLED

TEST_SHARE, VAL_SHARE = 0.2, 0.1
"""The shares of each class that go to test and to val; the rest goes to train."""


def hash_splits(keys: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Split images by the hash of their content: 70 % train, 10 % val, 20 % test of each class, in expectation.

    An image's split depends only on its own bytes, so it does not change when other images are added, and copies of an image
    share a split. There is one exception: a class without train or test images gets the image of extreme hash there.

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
    """
    position = hash_position(keys)
    splits = split_at(position)
    order = np.lexsort((position, labels))
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if not len(rows) or labels[rows[0]] == UNLABELLED:
            continue
        first, last = position[rows[0]], position[rows[-1]]
        if "train" not in splits[rows]:
            splits[rows[position[rows] == last]] = "train"
        if "test" not in splits[rows] and first < last:
            splits[rows[position[rows] == first]] = "test"
    return splits


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
    """Split groups as ``hash_splits`` splits images: 70 % train, 10 % val, 20 % test, in expectation.

    A group's split depends only on the hash of its value of the column, or of its content if it has no value, so it does not
    change when images are added to it or to other groups. (Copies of an image in two groups merge them; the lower hash
    counts.) There is one exception: a class without train or test images gets a whole group of extreme hash there.

    Args:
        keys: (N, 16) uint8, content hashes.
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
    splits = split_at(position).astype(object)
    rows, of_row = np.nonzero(labels) if labels.ndim == 2 else (np.arange(len(labels)), labels)
    pairs = _pairs(of_row, groups[rows])
    pairs = pairs[pairs[:, 0] != UNLABELLED]
    pairs = pairs[np.lexsort((position[pairs[:, 1]], pairs[:, 0]))]
    classes = np.split(pairs[:, 1], np.flatnonzero(np.diff(pairs[:, 0])) + 1) if len(pairs) else []
    for own in classes:
        if "train" not in splits[own]:
            splits[own[-1]] = "train"
    for own in classes:
        if "test" not in splits[own]:
            _give_test_a_group(own, splits, pairs)
    of_image: np.ndarray = splits[groups]
    return of_image


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
