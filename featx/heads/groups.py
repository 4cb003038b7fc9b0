"""Images that belong together, such as one patient's or copies of one file, and splits that keep them so. numpy and scipy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from featx.data.image_set import UNLABELLED
from featx.data.sources.table import TABLE_ENDINGS, cell_text, read_table
from featx.data.splits import hash_group_splits, join_groups, straddling
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.targets import label_sets
from featx.system import why_unreadable
from featx.text import listed, printable

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
