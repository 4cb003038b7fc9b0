"""The files of an inspection: its table of all images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from featx.arguments import path_of
from featx.errors import SettingsError
from featx.features.feature_set import FeatureSet
from featx.inspection.result import Inspection
from featx.io.outputs import Output, OutputKind, require_outputs
from featx.io.tables import CSV, PARQUET, table_kind, write_table

TABLE = table_kind("table of an inspection", ("path", "label", "split", "is_near_duplicate_issue"), more=("",))
"""The table of an inspection, as an output; what else was found decides its further columns."""


def save_inspection(inspection: Inspection, path: str | os.PathLike[str]) -> Path:
    """Write what an inspection found about each image as a table, a row for each image.

    Args:
        inspection: what was found.
        path: a ``.csv`` or ``.parquet`` file. Only an older table of an inspection is replaced.

    Returns:
        The path.

    Raises:
        SettingsError: the path has another ending.
        OutputError: the file cannot be written, or pyarrow is missing.

    Example:

        inspection = featx.inspect("cache/photos--resnet50.h5")
        save_inspection(inspection, "issues.csv")
    """
    path = Path(path_of(path, "path"))
    write_table(path, inspection.columns(), _kind_of(path))
    return path


def require_writable(paths: Sequence[Path], features: FeatureSet | None = None, inputs: Sequence[str] = ()) -> None:
    """Refuse, before the work, files that could not be written, or that would take the place of others.

    Args:
        paths: of the files.
        features: the features, once they are loaded; none of their images is overwritten.
        inputs: the files that are read.

    Raises:
        SettingsError: a path has the ending of no file of an inspection.
        OutputError: a file cannot be written, is an input, or is there and no file of an inspection.
    """
    images = (str(features.dataset.get("root", "")), set(features.paths)) if features else ("", ())
    require_outputs([Output(path, _kind_of(path), named=True) for path in paths], inputs, images=images)


def _kind_of(path: Path) -> OutputKind:
    """The kind of file that a path's ending stands for."""
    if path.suffix.lower() not in (CSV, PARQUET):
        raise SettingsError(f"{path} ends in {path.suffix or 'no ending'}; expected {CSV} or {PARQUET}")
    return TABLE
