"""Plain-text lines and tables of the reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from featx.text import counted

_MOST_ROWS = 30  # classes in a table; of more, those with the lowest F1 are shown
_CORNER = "true \\ predicted"
METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "top5": "top-5",
    "mAP": "mAP",
    "micro_f1": "micro F1",
    "exact_match": "exact match",
    "hamming_loss": "Hamming loss",
    "ece": "ECE",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R2",
}
"""The names of the metrics for people, by their keys in ``Report.metrics``."""
WITH_LINES = ("accuracy", "mAP", "exact_match", "rmse")
"""The metrics that a report states in lines of their own, with what they are compared with; all others make one table."""

Line = tuple[str, str, str]
"""A name, a number as text, and remarks."""


def metric_text(metric: str, value: float) -> str:
    """The value of a metric with its digits: four decimals, or six digits where it has the unit of the target.

    Examples:
        >>> metric_text("accuracy", 0.92812), metric_text("rmse", 2.282177), metric_text("r2", math.nan)
        ('0.9281', '2.28218', 'none')
    """
    if math.isnan(value):
        return "none"
    return f"{value:.6g}" if metric in ("rmse", "mae") else f"{value:.4f}"


def baseline_text(metric: str, value: float, answer: str) -> str:
    """The value of a report's main metric for a model that gives every image the same answer, in words.

    Examples:
        >>> baseline_text("accuracy", 0.45752, "ants"), baseline_text("mAP", 0.3, ""), baseline_text("rmse", 2.5, "")
        ("always 'ants' 0.4575", 'by chance 0.3000', 'always the mean 2.5')
    """
    same = {"mAP": "by chance", "rmse": "always the mean"}.get(metric, f"always {answer_text(answer)}")
    return f"{same} {metric_text(metric, value)}"


def metric_lines(lines: Sequence[Line]) -> list[str]:
    """Lines of names, numbers and remarks, with the numbers below one another.

    Examples:
        >>> metric_lines([("accuracy", "0.9281", "142 of 153 right"), ("accepted", "0.9804", "")])
        ['accuracy  0.9281  (142 of 153 right)', 'accepted  0.9804']
    """
    width = max(len(name) for name, _, _ in lines)
    return [f"{name:<{width}}  {number}" + (f"  ({remark})" if remark else "") for name, number, remark in lines]


def metric_table(metrics: Mapping[str, float]) -> list[str]:
    """The metrics that have no lines of their own, as a table of two lines: names and values.

    Examples:
        >>> metric_table({"accuracy": 0.9281, "macro_f1": 0.9275, "log_loss": 0.1561})
        ['macro F1  log loss', '  0.9275    0.1561']
    """
    cells = [
        (METRIC_NAMES[metric], metric_text(metric, value))
        for metric, value in metrics.items()
        if metric not in WITH_LINES
    ]
    widths = [max(map(len, cell)) for cell in cells]
    return ["  ".join(f"{cell[row]:>{w}}" for cell, w in zip(cells, widths, strict=True)) for row in (0, 1)]


def interval_text(interval: tuple[float, float], metric: str = "accuracy") -> str:
    """The 95 % interval of a metric, by default of a share.

    Examples:
        >>> interval_text((0.87588, 0.9594))
        '95 % interval 0.8759 to 0.9594'
    """
    low, high = (metric_text(metric, end) for end in interval)
    return f"95 % interval {low} to {high}"


class _Evaluated(Protocol):
    """What ``images_text`` reads of a report."""

    @property
    def n(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def split(self) -> str: ...


def images_text(report: _Evaluated) -> str:
    """The images that a report is on, and their groups where some images share one: "153 images of split test"."""
    grouped = f" in {counted(report.groups, 'group')}" if report.groups < report.n else ""
    return f"{counted(report.n, 'image')}{grouped} of split {report.split}"


def short_name(name: str, most: int = 24) -> str:
    """A class name that fits a table: no line breaks or control characters, at most ``most`` characters.

    Examples:
        >>> short_name("Staffordshire bullterrier", most=12)
        'Staffordshi…'
    """
    printable = "".join(c if c.isprintable() else "?" for c in name)
    return printable if len(printable) <= most else printable[: most - 1] + "…"


def quoted(name: str) -> str:
    """The name of a class in quotation marks, short enough for a line.

    Examples:
        >>> quoted("ants")
        "'ants'"
    """
    return f"'{short_name(name)}'"


def answer_text(answer: str) -> str:
    """A class, or several labels with ``|`` between them, in words.

    Examples:
        >>> answer_text("ants"), answer_text("|")
        ("'ants'", 'no label')
    """
    return "no label" if answer == "|" else quoted(answer)


def class_table(
    kind: str, classes: Sequence[str], columns: Mapping[str, np.ndarray], f1: np.ndarray, support: np.ndarray
) -> list[str]:
    """A table with one row for each class; of more than 30 classes, only those with the lowest F1, lowest first.

    Args:
        kind: header of the first column, "class" or "label".
        classes: C names.
        columns: header to (C,) float64; each column is as wide as its header, but at least 6.
        f1: (C,) float64, which sorts a long table; NaN, of a class without images, comes last.
        support: (C,) int64, images of each class: the last column.

    Returns:
        The lines.
    """
    width = max(len(kind), *(len(short_name(name)) for name in classes))
    widths = [max(len(header), 6) for header in columns]
    lines = ["  ".join([f"{kind:<{width}}", *(f"{h:>{w}}" for h, w in zip(columns, widths, strict=True)), "images"])]
    long = len(classes) > _MOST_ROWS
    rows = np.argsort(f1, kind="stable")[:_MOST_ROWS] if long else np.arange(len(classes))
    for row in rows:
        cells = (f"{values[row]:{w}.3f}" for values, w in zip(columns.values(), widths, strict=True))
        lines.append("  ".join([f"{short_name(classes[row]):<{width}}", *cells, f"{support[row]:6}"]))
    if long:
        lines.append(f"and {len(classes) - _MOST_ROWS:,} more, with the same or a higher F1 or no images here")
    return lines


def confusion_table(classes: Sequence[str], confusion: np.ndarray) -> list[str]:
    """The lines of a confusion matrix, (C, C) int64, with the true classes as rows."""
    names = [short_name(name) for name in classes]
    left = max(len(_CORNER), *map(len, names))
    widths = [max(len(name), len(str(confusion[:, i].max()))) for i, name in enumerate(names)]
    lines = ["  ".join([f"{_CORNER:<{left}}", *(f"{name:>{w}}" for name, w in zip(names, widths, strict=True))])]
    for name, row in zip(names, confusion, strict=True):
        lines.append("  ".join([f"{name:<{left}}", *(f"{n:>{w}}" for n, w in zip(row, widths, strict=True))]))
    return lines
