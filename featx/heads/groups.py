"""Groups of images that belong together, such as one patient's or copies of one file, and splits that keep them together.

numpy and scipy only.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from featx.data.boxes import split_box
from featx.data.image_set import UNLABELLED
from featx.data.scan_options import NO_OPTIONS, ScanOptions
from featx.data.sources.table import TABLE_ENDINGS, read_cells
from featx.data.splits import TEST_SHARE, hash_group_splits, join_groups, straddling
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.targets import label_sets
from featx.system import why_unreadable
from featx.text import counted, form, listed, printable

LARGE_GROUP = 0.1
"""Share of the images from which on a group counts as large: it can make up half of the test split."""
_OWN_SPLITS = ("train", "val", "test")
"""The splits that heads are fitted to or judged by; images of other splits take no part."""


def read_column(
    features: FeatureSet, column: str, *, table: str | os.PathLike[str] | None = None, option: str = "--group"
) -> np.ndarray:
    """Read a column of the table that lists a data set's images, or one that the features have.

    Args:
        features: whose rows are looked up by their paths.
        column: its name.
        table: another table with the columns ``path`` (as in the feature file: relative to the data set's root) and
            ``column``; by default the columns of the features, or else the table that they were extracted from.
        option: of the command line that named the column, for messages.

    Returns:
        (N,) object array of str, stripped; "" where the cell is empty.

    Raises:
        HeadError: there is no table or no such column, the table lacks images, or it has two values for one image.
        DatasetError: the table is malformed.
    """
    if table is None and column in features.columns:
        return features.columns[column]
    file = _table_of(features, column, table)
    options = ScanOptions.of_dataset(features.dataset) if table is None else NO_OPTIONS
    cells, columns = read_cells(file, column, features.paths.tolist(), options)
    values: dict[str, tuple[str, str]] = {}
    for path, value, line in cells:
        before, first = values.setdefault(path, (value, line))
        if before != value:
            raise HeadError(
                f"{file}: {path!r} has the {column} {before!r} on {first} but {value!r} on {line}; keep one of them"
            )
    if column not in columns:
        other_columns = sorted(map(repr, {*columns, *features.columns} - {"path", "label", "split", ""}))
        raise HeadError(
            f"{file} has no column {column!r}; besides path, label and split it has {listed(other_columns) or 'none'}. Name "
            f"one of them with {option}, or another table with --table"
        )
    # A table may list the images of which the data set has parts.
    paths = [path if path in values else split_box(path)[0] for path in features.paths.tolist()]
    missing = [printable(path) for path in paths if path not in values]
    if missing:
        raise HeadError(
            f"{file} lacks {len(missing)} of {counted(len(features), 'image')} ({listed(missing, most=3)}); add "
            f"{form(len(missing), 'a row for it', 'rows for them')} ({form(len(missing), 'its path', 'paths')} as in the "
            "feature file), or name another table with --table"
        )
    return np.array([values[path][0] for path in paths], dtype=object)


def _table_of(features: FeatureSet, column: str, table: str | os.PathLike[str] | None) -> Path:
    """The table to read; it must be a regular file with the ending of a table."""
    named = table if table is not None else features.dataset.get("table")
    if named is None:
        raise HeadError(
            f"there is no table to read the column {column!r} from: the feature file names none. Name one with --table FILE: "
            f"any table with the columns path (relative to {features.dataset.get('root', 'the data set')}) and {column}. Or "
            "extract the features again from such a table, whose name they keep"
        )
    file = Path(named)
    # A feature file may come from a stranger, so the file that it names is opened only if it can be a table.
    fault = why_unreadable(file)
    if not fault and file.suffix.lower() not in TABLE_ENDINGS:
        fault = f"its name does not end in {', '.join(TABLE_ENDINGS)}"
    if fault:
        raise HeadError(
            f"cannot read the column {column!r} from the table {printable(str(file))}: {fault}; name another with --table"
        )
    return file


def with_groups(
    features: FeatureSet, column: str | None, table: str | os.PathLike[str] | None = None, *, option: str = "--group"
) -> FeatureSet:
    """Attach the groups of a column of the data set's table, unless the features have them already. Reads the table once.

    Args:
        features: of the whole data set.
        column: its name; None: the features are returned unchanged.
        table: another table, as ``read_column`` takes it. If it is given, the column is read even if the features have it.
        option: of the command line that named the column, for messages.

    Returns:
        The features with ``groups`` and ``group``.

    Raises:
        HeadError, DatasetError: as ``read_column``.
    """
    if column is None or (features.group == column and features.groups is not None and table is None):
        return features
    groups = read_column(features, column, table=table, option=option)
    return dataclasses.replace(features, groups=groups, group=column)


class GroupedLoader:
    """Loads layers of one feature file, each with the groups of a column, which is read once.

    Args:
        path: of the feature file.
        column: the column; None: no groups.
        table: as in ``with_groups``.
    """

    def __init__(
        self, path: str | os.PathLike[str], column: str | None, table: str | os.PathLike[str] | None = None
    ) -> None:
        self.path, self.column, self.table = path, column, table
        self._groups: np.ndarray | None = None

    def __call__(self, layer: str) -> FeatureSet:
        """Load one layer.

        Raises:
            CacheMissError, CorruptFileError, HeadError, DatasetError: as ``FeatureSet.load`` and ``read_column``.
        """
        features = FeatureSet.load(self.path, layer)
        if self.column is not None and self._groups is None:
            self._groups = read_column(features, self.column, table=self.table)
        return dataclasses.replace(features, groups=self._groups, group=self.column)


def match_groups(features: FeatureSet, column: str | None, table: str | os.PathLike[str] | None = None) -> FeatureSet:
    """Give features the groups that a head was fitted with, so that splits made by featx are those of the fit.

    Args:
        features: of the whole data set.
        column: ``head.group_``. None: groups of a named column are removed.
        table: as in ``with_groups``.

    Raises:
        HeadError, DatasetError: as ``read_column``.
    """
    if column is None and features.group is not None:
        return dataclasses.replace(features, groups=None, group=None)
    return with_groups(features, column, table)


def row_groups(features: FeatureSet, rows: np.ndarray) -> np.ndarray:
    """Number the groups of some rows: copies of an image, and images with the same value of the group column.

    Args:
        features: with or without ``groups``.
        rows: (n,) int64.

    Returns:
        (n,) int64 from 0 on.
    """
    return join_groups(features.keys[rows], None if features.groups is None else features.groups[rows])


def with_splits(features: FeatureSet, task: str) -> FeatureSet:
    """Replace the splits by those of ``splits_for``."""
    return dataclasses.replace(features, splits=splits_for(features, task))


def splits_for(features: FeatureSet, task: str) -> np.ndarray:
    """Determine the splits that a head is fitted and judged by.

    Splits that the data set names stay as they are. Splits that featx made from the images' content were made for single
    images and for classes. They are made again, by ``hash_group_splits``, if labels are not classes or if images belong
    together. For multilabel, each label is treated as a class, so that no label is judged that has no images in train.

    Args:
        features: of the whole data set; its ``groups``, such as patients' names, if it has any, keep images together.
        task: one of ``TASKS``.

    Returns:
        (N,) str.

    Raises:
        HeadError: the data set's own splits separate images of one group. (Copies of one file in two such splits are no
            error: the report counts them.)
    """
    if features.dataset.get("splits") != "hash":
        if features.groups is not None:
            _require_whole(features, np.asarray(features.groups).astype(str))
        return features.splits
    labels = features.labels
    if task == "multilabel":
        labels = label_sets(features)[1]
    elif task == "regression":
        labels = np.where(labels == UNLABELLED, UNLABELLED, 0)
    elif features.groups is None and not len(straddling(features.splits, join_groups(features.keys))):
        return features.splits
    return hash_group_splits(features.keys, features.groups, labels)


def notes_on_splits(features: FeatureSet) -> list[str]:
    """Write a note if large groups make splits by featx uneven: far from 70 % train, 10 % val and 20 % test.

    Args:
        features: of the whole data set, with the splits of ``with_splits``.

    Returns:
        One note, or none.
    """
    labelled = np.flatnonzero(features.labels != UNLABELLED)
    if features.dataset.get("splits") != "hash" or not len(labelled):
        return []
    groups, splits = row_groups(features, labelled), features.splits[labelled].astype(str)
    sizes = np.bincount(groups)
    test, train = (float(np.mean(splits == name)) for name in ("test", "train"))
    if sizes.max() <= max(1, LARGE_GROUP * len(labelled)) or (
        TEST_SHARE / 2 <= test <= 2 * TEST_SHARE and train >= 0.5
    ):
        return []
    largest = np.flatnonzero(groups == sizes.argmax())
    values = [] if features.groups is None else [str(value) for value in features.groups[labelled[largest]] if value]
    split, count = splits[largest[0]], f"{sizes.max()} of {len(labelled)} images"
    if values:
        found = (
            f"the largest group, {features.group} {printable(values[0])!r}, has {count} and is in split {split}; groups"
        )
    else:
        found = f"{count} are exact copies of one image and are in split {split}; copies"
    return [
        f"{found} are not divided, so train has {100 * train:.0f} % of the images and test {100 * test:.0f} %. Name the splits "
        "in the column split of the table, or evaluate by --cv"
    ]


def _require_whole(features: FeatureSet, column: np.ndarray) -> None:
    """Raise HeadError if images of one group are in more than one of the splits that take part."""
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
        f"{len(torn)} of {counted(len(names), 'group')} {form(len(torn), 'has', 'have')} images in more than one split "
        f"({', '.join(shown)}{more}), so a head would be judged on groups that it was fitted to. Put each group into one "
        "split, or let featx split by group: use a table without the column split, or a folder without train/ and test/"
    )
