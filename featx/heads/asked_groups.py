"""The groups that an evaluation goes by: those that the caller names, or else those that the model was fitted with."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

import numpy as np

from featx.data.image_set import UNLABELLED
from featx.errors import HeadError, SettingsError
from featx.features.feature_set import FeatureSet
from featx.heads.groups import match_groups, with_groups
from featx.heads.head import Head
from featx.heads.seen import SeenImages, with_splits_of_head
from featx.metrics.reports import Report


@dataclass(frozen=True)
class AskedGroups:
    """The groups that the caller of an evaluation names.

    Attributes:
        column: in the table; None: the column that the model was fitted with.
        table: None: the table that the data set is.
    """

    column: str | None
    table: str | os.PathLike[str] | None

    @property
    def are_named(self) -> bool:
        """Whether the caller asked for groups, so that data without them are an error."""
        return self.column is not None or self.table is not None

    def require_column(self, fitted_with: str | None) -> str | None:
        """Return the column, if there is one. Raises SettingsError if there is a table alone."""
        if self.table is not None and (self.column or fitted_with) is None:
            raise SettingsError(
                "--table has no effect without --group, because this model was fitted without groups (in Python: table, group)"
            )
        return self.column or fitted_with


def judge_head(
    head: Head, data: FeatureSet, split: str | None, groups: AskedGroups
) -> tuple[Report, np.ndarray, np.ndarray]:
    """Judge a head, with the groups that the caller names or else those that it was fitted with, if the data name them.

    Data that do not name the latter can be evaluated all the same, unless featx would split images that the head has seen.

    Returns:
        The report, the rows and the outputs, as ``Head.judge``.
    """
    column = groups.require_column(head.group_)
    split = split or default_split(data, head.seen)
    try:
        grouped = match_groups(data, column, groups.table)
    except HeadError as error:
        labelled = data.keys[data.labels != UNLABELLED]
        is_own = data.dataset.get("splits") == "hash" and head.seen.has(labelled).any()
        if groups.are_named or is_own:
            raise
        report, rows, outputs = head.judge(data, split=split, rows=data.rows(split))
        return report.with_notes([_note_without_groups("head", column, error)]), rows, outputs
    if head.group_ is None and column is not None:  # the splits stay those of the fit, which knew of no groups
        own, moved = with_splits_of_head(match_groups(data, None), head.task_, head.seen)
        report, rows, outputs = head.judge(grouped, split=split, rows=own.rows(split))
        return report.with_notes([moved[split]] if split in moved else []), rows, outputs
    return head.judge(dataclasses.replace(grouped, group=head.group_), split=split)


def group_rows(
    rows: FeatureSet, groups: AskedGroups, fitted_with: str | None, seen: SeenImages
) -> tuple[FeatureSet, dict[str, str], list[str]]:
    """Attach the groups to the rows that a promoted model is evaluated on.

    Splits by featx keep those groups together that the model's head was fitted with.

    Args:
        rows: of the whole data set.
        groups: as the caller names them.
        fitted_with: the column of the groups that the head was fitted with, or None.
        seen: by the model.

    Returns:
        The rows; the notes of ``with_splits_of_head``; and a note if their table does not name the groups that the head was
        fitted with.

    Raises:
        HeadError: the caller named groups that the table lacks.
        SettingsError: as ``require_column``.
    """
    column = groups.require_column(fitted_with)
    try:
        grouped = with_groups(rows, column, groups.table)
        own = rows if fitted_with is None else grouped
        own, moved = with_splits_of_head(own, "classification", seen)
        return dataclasses.replace(grouped, splits=own.splits), moved, []
    except HeadError as error:
        if groups.are_named:
            raise
        return rows, {}, [_note_without_groups("model", column, error)]


def default_split(rows: FeatureSet, seen: SeenImages) -> str:
    """Choose the split to evaluate on: see ``featx.evaluate``."""
    if rows.dataset.get("splits") == "given":
        return rows.held_out()
    labelled = rows.keys[rows.labels != UNLABELLED]
    return rows.held_out() if seen.has(labelled).any() else "all"


def _note_without_groups(what: str, column: str | None, error: HeadError) -> str:
    return f"the {what} was fitted with groups ({column}), but here intervals treat images as independent: {error}"
