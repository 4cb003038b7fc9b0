"""Lines and tables of text that reports share."""

from __future__ import annotations

import numpy as np

_MOST_IN_TABLE = 30  # classes of a table; of more, those with the least F1


def line(name: str, value: float | str, remark: str = "") -> str:
    """One line of a report: name, value and a remark in parentheses."""
    number = value if isinstance(value, str) else f"{value:.4f}"
    return f"{name:<17}  {number}" + (f"  ({remark})" if remark else "")


def short_name(name: str, most: int = 24) -> str:
    """A class name as a table can show it: no line breaks or control characters, not too long."""
    printable = "".join(c if c.isprintable() else "?" for c in name)
    return printable if len(printable) <= most else printable[: most - 1] + "…"


def rows_to_show(f1: np.ndarray) -> np.ndarray:
    """The classes that a table shows: all in their order, or of many those with the least F1, those first."""
    if len(f1) <= _MOST_IN_TABLE:
        return np.arange(len(f1))
    return np.argsort(f1, kind="stable")[:_MOST_IN_TABLE]  # NaN, of a class without images, comes last


def rows_left_out(count: int) -> list[str]:
    """The last line of a table that does not show all rows."""
    return [f"and {count:,} more, with no less F1 or no images here"] if count else []
