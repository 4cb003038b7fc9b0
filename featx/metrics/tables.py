"""Plain-text lines and tables of the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from featx.text import counted

_MOST_ROWS = 30  # classes in a table; of more, those with the lowest F1 are shown
_CORNER = "true \\ predicted"


def metric_line(name: str, value: float | str, remark: str = "") -> str:
    """One line of a report: name, value, and a remark in parentheses.

    Examples:
        >>> metric_line("accuracy", 0.9281, "142 of 153 images")
        'accuracy           0.9281  (142 of 153 images)'
    """
    number = value if isinstance(value, str) else f"{value:.4f}"
    return f"{name:<17}  {number}" + (f"  ({remark})" if remark else "")


def interval_text(interval: tuple[float, float]) -> str:
    """A 95 % interval of a share, with four decimals.

    Examples:
        >>> interval_text((0.87588, 0.9594))
        '95 % interval 0.8759 to 0.9594'
    """
    return "95 % interval {:.4f} to {:.4f}".format(*interval)


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
