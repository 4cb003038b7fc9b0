"""Reports on a head's predictions, and what can be wrong with the rows that judge it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from featx.data.image_set import UNLABELLED
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.conformal import Conformal
from featx.heads.fitted import FittedHead
from featx.heads.groups import match_groups, row_groups
from featx.heads.postprocess import Postprocess
from featx.heads.seen import with_splits_of_head
from featx.heads.targets import Constant, is_known_label, place_of, targets_of
from featx.heads.training_data import Rows, flatten_views
from featx.metrics.classification import ClassificationReport
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.prediction_sets import IntervalReport, SetReport
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report
from featx.text import counted, form


def judge(
    head: FittedHead, features: FeatureSet, *, split: str | None = None, rows: np.ndarray | None = None
) -> tuple[Report, np.ndarray, np.ndarray]:
    """Evaluate a fitted head, as ``Head.judge`` does, on features that have the identity of those it was fitted to."""
    if rows is None:
        require_groups(head, features)
        features, moved = with_splits_of_head(match_groups(features, head.group_), head.task_, head.seen)
        split = split or features.held_out()
        rows, notes = features.rows(split), [moved[split]] if split in moved else []
    else:
        notes = []
    split = split or "these rows"
    facts, where = features.without_features(rows), f"the split {split!r}"
    targets = targets_of(facts, head.task_, head.names_, where=where)
    notes += head.seen.notes(facts.keys, split=split)
    outputs = head.predict_rows(features, rows)
    if not np.isfinite(outputs).all():
        require_finite(*flatten_views(features.features, rows), where)
        raise HeadError(f"the head's scores of images of {where} are NaN or infinite; fit a head again")
    groups = row_groups(features, rows)
    report = make_report(
        head.postprocess_, head.names_, targets.y, outputs,
        split=split, groups=groups, constant=head.constant_, notes=notes,
    )  # fmt: skip
    return report.with_notes(notes_on_baseline(report)), rows, outputs


class Scorer(Protocol):
    """What ``predict_known`` needs of a head."""

    @property
    def task_(self) -> str:
        """One of ``TASKS``."""

    @property
    def names_(self) -> tuple[str, ...]:
        """The names of the classes."""

    def predict_rows(self, features: FeatureSet, rows: np.ndarray) -> np.ndarray:
        """The (n, C) outputs for some rows."""


def predict_known(head: Scorer, features: FeatureSet, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predict those of some rows that can be judged: with labels that the head was fitted to, and with finite outputs.

    Args:
        head: fitted.
        features: with the identity of those that the head was fitted to.
        rows: (n,) int64.

    Returns:
        (m,) int64, the rows that remain, in their order; their targets, as ``Targets.y``; and their (m, C) float64 outputs.
    """
    is_known = np.array([is_known_label(name, head.task_, head.names_) for name in features.classes] or [False])
    rows = rows[features.labels[rows] != UNLABELLED]
    rows = rows[is_known[features.labels[rows]]]
    outputs = head.predict_rows(features, rows)
    finite = np.isfinite(outputs).all(axis=1)
    y = targets_of(features.without_features(rows[finite]), head.task_, head.names_).y
    return rows[finite], y, outputs[finite]


def require_groups(head: FittedHead, features: FeatureSet) -> None:
    """Raise HeadError if a head was fitted with groups and the features have none, or those of another column.

    Without them, splits that featx makes would not keep together what they kept together in the fit.
    """
    if head.group_ is not None and features.group != head.group_:
        have = f"those of {features.group!r}" if features.group else "none"
        raise HeadError(
            f"this head was fitted with the groups of the column {head.group_!r}, and these features have {have}; attach "
            f"them with featx.heads.with_groups(features, {head.group_!r})"
        )


def make_report(
    postprocess: Postprocess,
    classes: Sequence[str],
    y: np.ndarray,
    outputs: np.ndarray,
    *,
    split: str,
    groups: np.ndarray | None = None,
    constant: Constant = None,
    notes: Sequence[str] = (),
) -> Report:
    """Compare a head's outputs with the targets, by the report of its task.

    Args:
        postprocess: of the head; its thresholds count in the report.
        classes: (C,) names.
        y: (N, ...) targets, as in ``TrainingData``.
        outputs: (N, C), as ``Postprocess.apply`` gives them.
        split: the name of these rows.
        groups: (N,) int64, from ``row_groups``; the intervals are by groups. None: each image is a group of its own.
        constant: of the head, for the baseline; None: it is computed of these rows.
        notes: for the report.
    """
    if postprocess.thresholds is not None:
        return MultiLabelReport.from_predictions(
            y,
            outputs,
            classes,
            thresholds=postprocess.thresholds,
            split=split,
            groups=groups,
            notes=notes,
            commonest=constant if isinstance(constant, tuple) else None,
        )
    if postprocess.task == "regression":
        mean = constant if isinstance(constant, float) else None
        numbers = RegressionReport.from_predictions(y, outputs, split=split, groups=groups, notes=notes, mean=mean)
        if (conformal := postprocess.conformal) is None:
            return numbers
        intervals = IntervalReport.of(y, conformal.intervals(outputs), alpha=conformal.alpha, groups=groups)
        return dataclasses.replace(numbers, prediction_intervals=intervals)
    report = ClassificationReport.from_predictions(
        y,
        outputs,
        classes,
        split=split,
        reject_below=postprocess.reject_below or None,
        groups=groups,
        notes=notes,
        commonest=place_of(constant, classes),
    )
    return with_sets(report, postprocess.conformal, y, outputs, groups)


def with_sets(
    report: ClassificationReport,
    conformal: Conformal | None,
    y: np.ndarray,
    outputs: np.ndarray,
    groups: np.ndarray | None,
) -> ClassificationReport:
    """Add the coverage of prediction sets to a report, if there are any; the arguments are as of ``make_report``."""
    if conformal is None:
        return report
    sets = SetReport.of(y, conformal.sets(outputs), report.classes, alpha=conformal.alpha, groups=groups)
    return dataclasses.replace(report, sets=sets)


def notes_on_baseline(report: Report) -> list[str]:
    """A note if the model of a report is not shown to be better than the same answer for every image."""
    note = report.baseline_note if isinstance(report, RegressionReport) else report.baseline.note
    return [note] if note else []


def require_finite(features: np.ndarray, rows: np.ndarray, where: str) -> None:
    """Raise HeadError if some rows of (M, D) features are not finite, with their number.

    Args:
        features: (M, D).
        rows: (n,) int64.
        where: which rows these are, in words, for the message.
    """
    blocks = Rows(features, rows).blocks(np.float64)
    bad = sum(np.count_nonzero(~np.isfinite(block).all(axis=1)) for _, block in blocks)
    if bad:
        raise HeadError(
            f"{counted(bad, 'row')} of features of {where} {form(bad, 'is', 'are')} NaN or infinite; delete the feature "
            "file and run featx extract again"
        )
