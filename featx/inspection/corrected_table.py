"""The corrected table of a data set, which ``featx extract`` reads without a forward pass, and the table of decisions."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.arguments import path_of
from featx.data.sources.paths_store import stored_path
from featx.data.sources.table import read_table
from featx.data.split_names import splits_of_cells
from featx.errors import DatasetError, OutputError
from featx.features.feature_file import DONE
from featx.features.feature_set import FeatureSet
from featx.features.file_set import open_features
from featx.features.image_store import image_places
from featx.inspection.data_table import (
    absolute,
    extract_command,
    fit_options,
    further_columns,
    notes_on_paths,
    paths_for,
    table_of,
)
from featx.inspection.fix import GROUP, MOVE, Decisions, Fix, fix
from featx.inspection.result import Inspection
from featx.io.outputs import Output, require_outputs
from featx.io.tables import table_kind, write_table
from featx.text import counted, form, listed, native, printable

COLUMNS = ("path", "label", "split", "change")
"""The columns that every corrected table begins with."""

CORRECTED = table_kind("corrected table", COLUMNS, more=("",), option="--fix")
"""The corrected table, as an output."""

GROUP_COLUMN, OTHER_GROUP_COLUMN = "group", "duplicate_group"
"""The column of groups; the second name where the data set's table has a column of the first that means something else."""


@dataclass(frozen=True, eq=False)
class CorrectedTable:
    """A corrected table that was written.

    Attributes:
        path: of the table.
        fix: what it holds.
        group: the name of its column of groups.
        notes: for the user, one sentence each.
        commands: what to run next.
    """

    path: Path
    fix: Fix
    group: str
    notes: tuple[str, ...]
    commands: tuple[str, ...]

    @property
    def summary(self) -> tuple[str, ...]:
        """What was changed, a phrase for each sort of change."""
        fix, sizes = self.fix, np.unique(self.fix.groups[self.fix.groups != ""].astype(str), return_counts=True)[1]
        changes = [
            *([f"{counted(fix.relabelled, 'label')} changed"] if fix.relabelled else []),
            *([f"{counted(fix.moved, 'image')} moved to another split"] if fix.moved else []),
            *(f"{counted(count, 'image')} dropped ({why})" for why, count in fix.dropped.items()),
        ]
        several = sizes[sizes > 1]
        grouped = f"{counted(int(several.sum()), 'image')} in {counted(len(several), 'group')} (column {self.group})"
        return (*(changes or ["no label, split or image changed"]), *([grouped] if len(several) else []))

    def as_dict(self) -> dict[str, Any]:
        """The table, as ``featx inspect --fix FILE --json`` prints it."""
        return {
            "table": str(self.path),
            "images": len(self.fix.rows),
            "relabelled": self.fix.relabelled,
            "moved": self.fix.moved,
            "dropped": dict(self.fix.dropped),
            "groups": len(set(self.fix.groups.tolist()) - {""}),
            "group_column": self.group,
            "conflicting_labels": len(self.fix.conflicts),
            "commands": list(self.commands),
            "notes": list(self.notes),
        }


def write_fixed_table(
    inspection: Inspection,
    path: str | os.PathLike[str],
    *,
    duplicates: str = GROUP,
    leaks: str = MOVE,
    accept: int | str = 0,
    decisions: Decisions | str | os.PathLike[str] | None = None,
) -> CorrectedTable:
    """Write the corrected table of a data set, which ``featx extract`` reads without a forward pass.

    Its columns are ``path``, ``label``, ``split``, ``change`` (what was changed about the image, in words), a column of groups,
    and the further columns of the table that the data set came from. The column of groups is called ``group``, or
    ``duplicate_group`` where that table has a column ``group`` that the inspection did not use. Images that ``featx extract``
    could not read are left out. A path is relative to the folder of the table if the image lies below it, else absolute.

    Args:
        inspection: what was found.
        path: a ``.csv`` or ``.parquet`` file, in any folder. Only an older corrected table is replaced.
        duplicates: "group" or "drop", as ``featx.inspection.fix.fix`` takes it.
        leaks: "move", "drop" or "keep", as ``featx.inspection.fix.fix`` takes it.
        accept: number of suggested labels of training images to apply, the most suspicious first; or "expected".
        decisions: what somebody decided about single images, or a table of it, as ``read_decisions`` takes it.

    Raises:
        SettingsError: as ``featx.inspection.fix.fix``.
        DatasetError: the table of decisions cannot be read, or does not fit the images.
        OutputError: the file cannot be written.

    Example:

        inspection = featx.inspect("cache/photos--resnet50.h5")
        corrected = write_fixed_table(inspection, "photos/corrected.csv", accept=10)
        print(corrected.summary, corrected.commands)
    """
    features = inspection.features
    path = Path(path_of(path, "path"))
    origin = table_of(features)
    table = None if decisions is None or isinstance(decisions, Decisions) else path_of(decisions, "decisions")
    require_writable(path, features, [name for name in (origin, table) if name])
    if table is not None:
        decisions = read_decisions(table, inspection)
    fixed = fix(inspection, duplicates=duplicates, leaks=leaks, accept=accept, decisions=decisions)  # type: ignore[arg-type]
    further, notes = further_columns(features, origin, fixed.rows, COLUMNS)
    taken = GROUP_COLUMN in further and features.group != GROUP_COLUMN
    group = OTHER_GROUP_COLUMN if taken else GROUP_COLUMN
    columns = {
        "path": paths_for(features, fixed.rows, path),
        "label": fixed.labels,
        "split": fixed.splits,
        "change": fixed.changes,
        group: fixed.groups,
    }
    columns |= {name: values for name, values in further.items() if name not in columns}
    write_table(path, columns, CORRECTED, exact=True)
    notes = [*fixed.notes, *notes, *notes_on_paths(columns["path"]), *_notes_on_rest(inspection, fixed)]
    task = inspection.out_of_fold.task if inspection.out_of_fold else ""
    can_fit = len(set(fixed.labels.tolist()) - {""}) > 1
    words = ["featx", "fit-head", *fit_options(features, task), "--group", group, "--compare", "HEAD"]
    fit = [shlex.join(words)] if can_fit else []
    return CorrectedTable(path, fixed, group, tuple(notes), (extract_command(features, path), *fit))


def require_writable(path: Path, features: FeatureSet | None = None, inputs: Sequence[str] = ()) -> None:
    """Refuse, before the work, a corrected table that could not be written, or that would take the place of another file.

    Args:
        path: of the table.
        features: the features, once they are loaded; none of their images is overwritten.
        inputs: the files that are read.

    Raises:
        OutputError: the file cannot be written, is an input, or is there and no corrected table.
    """
    images = image_places(features)
    if not path.suffix:
        raise OutputError(f"{path} has no ending; name a file that ends in .csv or .parquet with --fix")
    require_outputs([Output(path, CORRECTED, named=True)], inputs, images=images)


# The table of decisions


def read_decisions(table: str | os.PathLike[str], inspection: Inspection) -> Decisions:
    """Read what somebody decided about images from a table with the columns path and label.

    A table with a column ``split`` too, such as the page of an inspection exports, is complete: its splits count, and images
    that it does not list are left out. A column ``group`` counts as well. A table without ``split`` changes labels alone.

    Args:
        table: .csv, .tsv, .jsonl or .parquet. Its paths are absolute, relative to its folder, or as in the feature file.
        inspection: of the same images.

    Raises:
        DatasetError: the table cannot be read, lists no image or one twice with different cells, or lists other images.
    """
    table, features = Path(table), inspection.features
    rows, strange, listed_rows = _rows_by_path(features), list[str](), dict[int, tuple[int, dict[str, str]]]()
    columns = set[str]()
    for number, cells in read_table(table, optional=("split", "group")):
        columns.update(cells)
        path = cells["path"]
        row = next((rows[name] for name in (absolute(table.parent, path), stored_path(path)) if name in rows), None)
        if row is None:
            strange.append(path)
            continue
        kept = {name: cells.get(name, "") for name in ("label", "split", "group")}
        line, before = listed_rows.setdefault(row, (number, kept))
        if before != kept:
            raise DatasetError(f"{table}: {path!r} is on line {line} and, with other cells, on line {number}; keep one")
    if strange or not listed_rows:
        raise DatasetError(
            f"{table} lists {counted(len(strange), 'image')} that the features lack"
            f"{f' ({listed([printable(name) for name in strange], most=3)})' if strange else ''}; expected images of "
            f"{features.dataset.get('root', 'the data set')}, and the features that the table was made from"
        )
    given = {row: cells for row, (_, cells) in listed_rows.items()}
    known = splits_of_cells(sorted({cells["split"] for cells in given.values()}))
    if "split" in columns and "" in known:
        raise DatasetError(f"{table} has rows without a split; name one in every row, or leave the column out")
    return Decisions(
        labels={row: cells["label"] for row, cells in given.items()},
        splits={row: known[cells["split"]] for row, cells in given.items()} if "split" in columns else {},
        groups={row: cells["group"] for row, cells in given.items()} if "group" in columns else {},
        dropped=frozenset(range(len(features))).difference(given) if "split" in columns else frozenset(),
    )


def _rows_by_path(features: FeatureSet) -> dict[str, int]:
    """The row of each image by its absolute path, and by its path in the feature file."""
    root = Path(native(str(features.dataset.get("root", ""))))
    paths = features.paths.tolist()
    return {path: row for row, path in enumerate(paths)} | {absolute(root, path): row for row, path in enumerate(paths)}


# What the user should know


def _notes_on_rest(inspection: Inspection, fixed: Fix) -> list[str]:
    """Count the images that could not be extracted, and those whose duplicates have other labels."""
    notes = []
    features = inspection.features
    if features.source is not None:
        failed = int(np.count_nonzero(open_features(features.source, allow_partial=True).status != DONE))
        if failed:
            notes.append(
                f"{counted(failed, 'image')} that featx extract could not read {form(failed, 'is', 'are')} left out of the "
                "table"
            )
    if len(fixed.conflicts):
        shown = listed([printable(name) for name in features.paths[fixed.conflicts].tolist()], most=3)
        notes.append(
            f"{counted(len(fixed.conflicts), 'image')} still "
            f"{form(len(fixed.conflicts), 'has a duplicate', 'have duplicates')} with another label ({shown}); nothing "
            "decides for you which is right: relabel them on the page of --page, or in the table"
        )
    return notes
