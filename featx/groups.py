"""Images that belong together, such as one patient's or copies of one file, and splits that keep them so. numpy and scipy."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from featx.errors import HeadError, listed, printable, why_unreadable
from featx.features import FeatureSet
from featx.images import TABLE_ENDINGS, UNLABELLED, cell_text, hash_position, read_table, split_at
from featx.targets import label_sets

_OWN_SPLITS = ("train", "val", "test")
"""Those that a head is fitted to or judged by; what lies in others takes no part."""


def read_column(
    features: FeatureSet, column: str, *, table: str | os.PathLike[str] | None = None, option: str = "--group"
) -> np.ndarray:
    """A further column of the table that names a data set's images.

    Args:
        features: whose rows are looked up, by their paths.
        column: its name.
        table: another table with the columns ``path`` (as in the feature file: relative to the data set's root) and
            ``column``; by default the one that the features were extracted by.
        option: of the command line that named the column, for messages.

    Returns:
        (N,) str, stripped; "" where the cell is empty.

    Raises:
        HeadError: no table, no such column, images that the table does not name, or two values for one image.
        DatasetError: the table is malformed.
    """
    file = _table_of(features, column, table, option)
    values: dict[str, tuple[str, int]] = {}
    columns: set[str] = set()
    for number, row in read_table(file, ("path",)):
        columns.update(row)
        path, value = Path(cell_text(row["path"])).as_posix(), cell_text(row.get(column))
        before, line = values.setdefault(path, (value, number))
        if before != value:
            raise HeadError(
                f"{file}: {path!r} has the {column} {before!r} on line {line} and {value!r} on line {number}; keep one of them"
            )
    if column not in columns:
        others = sorted(map(repr, columns - {"path", "label", "split", ""}))
        raise HeadError(
            f"{file} has no column {column!r}; beside path, label and split it has {listed(others) or 'none'}: name one of "
            f"them with {option}, or another table with --table"
        )
    missing = [printable(path) for path in features.paths if path not in values]
    if missing:
        raise HeadError(
            f"{file} does not name {len(missing)} of {len(features)} images ({listed(missing, most=3)}); add rows for them "
            "(paths as in the feature file), or name another table with --table"
        )
    return np.array([values[path][0] for path in features.paths], dtype=object)


def _table_of(features: FeatureSet, column: str, table: str | os.PathLike[str] | None, option: str) -> Path:
    named = table if table is not None else features.dataset.get("table")
    if named is None:
        raise HeadError(
            f"there is no table to read the column {column!r} from: the feature file names none. {option} with --table FILE "
            f"reads it from any table with the columns path (relative to {features.dataset.get('root', 'the data set')}) and "
            f"{column}; features of a table know theirs once featx extract has run on it again"
        )
    file = Path(named)
    # A feature file may come from a stranger: what it names is opened only if it can be a table.
    fault = why_unreadable(file)
    if not fault and file.suffix.lower() not in TABLE_ENDINGS:
        fault = f"it ends in none of {', '.join(TABLE_ENDINGS)}"
    if fault:
        raise HeadError(
            f"cannot read the column {column!r} from the table {printable(str(file))}: {fault}; name another with --table"
        )
    return file


def join_groups(keys: np.ndarray, column: np.ndarray | None = None) -> np.ndarray:
    """Number the groups of images that may not be torn apart: copies of one file, and images of one value of a column.

    A copy that has two values joins both. An unknown key (zeros) and an empty value join nothing.

    Args:
        keys: (N, 16) uint8, content hashes.
        column: (N,) str, such as a patient's name for each image.

    Returns:
        (N,) int64 in 0..G-1, numbered in the order in which they first come up.
    """
    count = len(keys)
    links = [_linked(np.ascontiguousarray(keys).view("V16").ravel(), np.asarray(keys.any(axis=1)))]
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
    """(2, M) int64 pairs of rows that hold one value: each row and the first of its like."""
    rows = np.flatnonzero(known)
    _, first, inverse = np.unique(values[rows], return_index=True, return_inverse=True)
    return np.stack([rows, rows[first[inverse]]])


def straddling(splits: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The groups that have rows in more than one split.

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


def splits_for(features: FeatureSet, task: str, column: np.ndarray | None = None) -> np.ndarray:
    """The splits that a head of some task is to be fitted and judged by.

    Splits that the data set names stay as they are. Those that featx made by content were made for single images and for
    classes: where labels are no classes, or images belong together, they are made again, by ``hash_group_splits``. It does
    for each label of a list what it does for a class, so that none is judged that has no images in train.

    Args:
        features: of the whole data set.
        task: one of ``TASKS``.
        column: (N,) str, what images belong together by, such as a patient's name; "" belongs to none.

    Returns:
        (N,) str.

    Raises:
        HeadError: the data set's own splits tear images apart that have one value of the column. (Copies of one file in
            two such splits are no error: the verdict says how many there are.)
    """
    if features.dataset.get("splits") != "hash":
        if column is not None:
            _require_whole(features, np.asarray(column).astype(str))
        return features.splits
    labels = features.labels
    if task == "multilabel":
        labels = label_sets(features)[1]
    elif task == "regression":
        labels = np.where(labels == UNLABELLED, UNLABELLED, 0)
    elif column is None and not len(straddling(features.splits, join_groups(features.keys))):
        return features.splits
    return hash_group_splits(features.keys, column, labels)


def _require_whole(features: FeatureSet, column: np.ndarray) -> None:
    part = np.flatnonzero(
        (column != "") & (features.labels != UNLABELLED) & np.isin(features.splits.astype(str), _OWN_SPLITS)
    )
    names, groups = np.unique(column[part], return_inverse=True)
    torn = straddling(features.splits[part], groups)
    if not len(torn):
        return
    shown = [
        f"{printable(str(names[group]))!r} in {' and '.join(sorted(set(features.splits[part[groups == group]])))}"
        for group in torn[:3].tolist()
    ]
    more = f" and {len(torn) - len(shown)} more" if len(torn) > len(shown) else ""
    raise HeadError(
        f"{len(torn)} of {len(names)} groups have images in more than one split ({', '.join(shown)}{more}): a head would be "
        "judged on what it was fitted to. Put each group into one split, or let featx split by group: a table without the "
        "column split, or a folder without train/ and test/"
    )


def hash_group_splits(keys: np.ndarray, column: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    """Split groups of images as ``images.hash_splits`` splits images: 70 % train, 10 % val, 20 % test, in expectation.

    A group's place depends on the hash of its value of the column alone, or of its content where it has none; so it stays put
    when images are added, to it or to others. (A copy of an image in two groups makes one of them, with the lower hash.)
    The one exception: a class that would be without train or test images gets a whole group of extreme hash there.

    Args:
        keys: (N, 16) uint8, content hashes.
        column: (N,) str, or None: copies alone belong together.
        labels: (N,) int64, classes, -1 unlabelled, and all 0 where there are no classes; or (N, C) of 0 and 1, labels.

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
    """Move the lowest of a class's groups to test that leaves every class in it a group in train."""
    for group in own.tolist():
        inside = pairs[pairs[:, 1] == group, 0]
        rest = pairs[np.isin(pairs[:, 0], inside) & (pairs[:, 1] != group)]
        if set(inside.tolist()) == set(rest[splits[rest[:, 1]] == "train", 0].tolist()):
            splits[group] = "test"
            return


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(M, 2) int64: which pairs of these (N,) numbers there are, the second from 0 on, in ascending order."""
    width = int(second.max(initial=0)) + 1
    codes = np.unique(first.astype(np.int64) * width + second)
    return np.stack([codes // width, codes % width], axis=1)


def _hash_of(name: str) -> np.ndarray:
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest()
    return np.frombuffer(digest, dtype=np.uint8)
