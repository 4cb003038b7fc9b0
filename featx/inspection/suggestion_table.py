"""The table of suggestions: all images of a data set, those to label next first. ``featx extract`` reads it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.data.image_set import UNLABELLED
from featx.data.scan_options import ScanOptions
from featx.data.sources.table import read_labels
from featx.data.table_roles import NO_BOXES
from featx.data.table_rows import meant_paths
from featx.errors import DatasetError, OutputError
from featx.features.feature_file import DONE
from featx.features.feature_set import FeatureSet
from featx.features.file_set import open_features
from featx.features.image_store import image_places
from featx.inspection.data_table import extract_command, further_columns, notes_on_paths, paths_for, table_of
from featx.io.outputs import Output, require_outputs
from featx.io.tables import table_kind, write_table
from featx.text import counted, listed, printable

COLUMNS = ("path", "label", "rank", "predicted", "probability", "why")
"""The columns that every table of suggestions begins with."""

SUGGESTIONS = table_kind("table of suggestions", COLUMNS, more=("",), option="-o")
"""The table of suggestions, as an output."""


def require_writable(path: Path, features: FeatureSet | None = None, inputs: Sequence[str] = ()) -> None:
    """Refuse, before the work, a table that could not be written, or that would take the place of another file.

    Args:
        path: of the table.
        features: the features, once they are loaded; none of their images is overwritten.
        inputs: the files that are read.

    Raises:
        OutputError: the file cannot be written, is an input, or is there and no table of suggestions.
    """
    images = image_places(features)
    if not path.suffix:
        raise OutputError(f"{path} has no ending; name a file that ends in .csv or .parquet with -o")
    require_outputs([Output(path, SUGGESTIONS, named=True)], inputs, images=images)


def write_suggestions(
    features: FeatureSet,
    rows: np.ndarray,
    about: Mapping[str, np.ndarray],
    path: Path,
    read: Sequence[object] = (),
) -> tuple[str, list[str]]:
    """Write the table of suggestions.

    The suggested images come first, in order, then the other unlabelled ones, then the labelled ones. The table names the
    splits, also those that featx made from the images' content: made again from the new labels, they would move a suggested
    image of each class to test. A suggested image of a split that no head is fitted to gets the split train. Images that could
    not be extracted are listed too, and so are the further columns of the data set's own table.

    Args:
        features: all N images.
        rows: (n,) int64, the suggested ones.
        about: (n,) values of "predicted", "probability" and "why".
        path: of the table. An older table of suggestions is replaced if the features have its labels.
        read: further files that must not be replaced; None is none.

    Returns:
        The command that reads the table, and notes for the user.

    Raises:
        OutputError: the file cannot be written, or labels of the file in its place would be lost.
    """
    sources = [str(file) for file in (features.source, *read) if isinstance(file, str | os.PathLike)]
    require_writable(path, features, sources)
    labelled = features.labels != UNLABELLED
    rest = np.setdiff1d(np.arange(len(features)), rows)
    order = np.concatenate([rows, rest[~labelled[rest]], rest[labelled[rest]]])
    failed = _failed(features)
    every = _joined(features.without_features(order), failed)
    count = len(every)
    columns: dict[str, np.ndarray] = {
        "path": paths_for(every, np.arange(count), path),
        "label": np.array([*features.classes, ""], dtype=object)[every.labels],
        "rank": np.array([str(n + 1) if n < len(rows) else "" for n in range(count)], dtype=object),
    }
    for name, values in about.items():
        empty = np.nan if values.dtype.kind == "f" else ""
        columns[name] = np.concatenate([values, np.full(count - len(rows), empty, dtype=values.dtype)])
    if any(features.splits.tolist()):
        columns["split"] = every.splits.astype(object)
        columns["split"][: len(rows)] = [
            name if name in ("val", "test") else "train" for name in columns["split"][: len(rows)].tolist()
        ]
    origin = table_of(features)
    further, notes = further_columns(every, origin, np.arange(count), (*COLUMNS, "split"))
    columns |= further
    _require_nothing_lost(path, columns["path"], columns["label"])
    write_table(path, columns, SUGGESTIONS, exact=True)
    return extract_command(features, path), [*notes, *notes_on_paths(columns["path"])]


def _failed(features: FeatureSet) -> FeatureSet | None:
    """The images of the feature file that have no features."""
    if features.source is None:
        return None
    file = open_features(features.source, allow_partial=True)
    rows = np.flatnonzero(file.status != DONE)
    facts = features.without_features(np.zeros(len(rows), dtype=np.int64)) if len(features) else None
    if facts is None or not len(rows):
        return None
    return dataclasses.replace(
        facts,
        labels=file.images.labels[rows],
        splits=file.splits[rows],
        paths=np.array(file.paths, dtype=object)[rows],
        keys=file.keys[rows],
        columns={
            name: file.column(name)[rows] if name in file.column_names else np.full(len(rows), "", dtype=object)
            for name in features.columns
        },
    )


def _joined(first: FeatureSet, second: FeatureSet | None) -> FeatureSet:
    """The rows of two sets of one data set without their features and groups."""
    if second is None:
        return dataclasses.replace(first, groups=None, group=None)
    parts: dict[str, Any] = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("features", "labels", "splits", "paths", "keys")
    }
    columns = {name: np.concatenate([cells, second.columns[name]]) for name, cells in first.columns.items()}
    return dataclasses.replace(first, groups=None, group=None, columns=columns, **parts)


def _require_nothing_lost(path: Path, paths: np.ndarray, labels: np.ndarray) -> None:
    """Refuse to replace a table of suggestions that has labels, or images, that the new one would lack.

    Raises:
        OutputError: it has.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        # Boxes stand in the paths; columns of these names are kept as they were.
        before = read_labels(path, ScanOptions(box_columns=(NO_BOXES,)))
    except DatasetError as error:
        raise OutputError(
            f"{path} cannot be read, so its labels would be lost: {error}; name another file with -o"
        ) from error
    now = dict(
        zip(meant_paths(paths.tolist(), lambda names: np.ones(len(names), bool))[0], labels.tolist(), strict=True)
    )
    lost = [name for name, (label, _) in before.items() if name not in now or label not in ("", now[name])]
    if lost:
        shown = listed([printable(name) for name in lost], most=3)
        raise OutputError(
            f"{path} has labels, or images, that the features lack ({counted(len(lost), 'image')}: {shown}), and they would be "
            f"lost. Run featx extract {path} first, which takes them over, or name another file with -o"
        )
