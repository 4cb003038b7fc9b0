"""Further columns of a data set: cells of a table that are neither paths, labels nor splits, and travel with the features."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from featx.data.urls import without_secrets
from featx.text import counted, printable, shortened, size_text

MOST_COLUMNS = 1000
"""The most further columns that are kept."""

MOST_CELL = 4096
"""The most bytes of a cell of a column that is kept."""

MOST_COLUMN, MOST_BYTES = 256 << 20, 1 << 30
"""The most bytes of one column and of all columns in a feature file, where all cells of a column are as wide as its widest."""


def storable(columns: Mapping[str, Sequence[str]]) -> tuple[dict[str, Sequence[str]], list[str]]:
    """Select the columns that a feature file can hold, without what grants access to the URLs in them.

    Args:
        columns: the cells of each column, by its name.

    Returns:
        Those that are kept, in their order; and a note on each that is not.

    Examples:
        >>> kept, notes = storable({"patient": ["p1", "p2"], "scan": ["x" * 5000, ""]})
        >>> list(kept), notes
        (['patient'], ["the column 'scan' is not kept: one of its cells has 5,000 bytes; at most 4,096 are stored"])
    """
    kept, notes, total = dict[str, Sequence[str]](), list[str](), 0
    for name, given in columns.items():
        cells = [without_secrets(cell) if "://" in cell else cell for cell in given]
        fault = _fault_of_name(name)
        try:
            width = max((len(cell) if cell.isascii() else len(cell.encode()) for cell in cells), default=0)
        except UnicodeEncodeError:
            fault, width = "one of its cells holds bytes that are not UTF-8", 0
        size = max(1, width) * len(cells)
        if not fault and width > MOST_CELL:
            fault = f"one of its cells has {width:,} bytes; at most {MOST_CELL:,} are stored"
        if not fault and (size > MOST_COLUMN or total + size > MOST_BYTES):
            fault = f"it would take {size_text(size)} of a feature file; at most {size_text(MOST_COLUMN)} are stored"
            if size <= MOST_COLUMN:
                fault = f"all columns together would take more than {size_text(MOST_BYTES)} of a feature file"
        if not fault and len(kept) == MOST_COLUMNS:
            notes.append(
                f"only the first {MOST_COLUMNS:,} of {counted(len(columns), 'further column')} are kept, without "
                f"{printable(shortened(name))} and those after it"
            )
            break
        if fault:
            notes.append(f"the column {printable(shortened(name))} is not kept: {fault}")
            continue
        if secret := sum(cell != whole for cell, whole in zip(cells, given, strict=True)):
            secrets = ("URL with a password or signature, which is", "URLs with passwords or signatures, which are")
            notes.append(f"the column {printable(shortened(name))} has {counted(secret, *secrets)} not stored")
        kept[name] = cells
        total += size
    return kept, notes


def beside(further: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """Further columns to put beside others; a name that is taken gets a ``_`` at its end.

    Examples:
        >>> beside({"patient": ["p1"], "key": ["k1"]}, ["path", "key"])
        {'patient': ['p1'], 'key_': ['k1']}
    """
    found: dict[str, Any] = {}
    for name, cells in further.items():
        free = name
        while free in own or free in found or (free != name and free in further):
            free += "_"
        found[free] = cells
    return found


def _fault_of_name(name: str) -> str:
    """Why a column of this name cannot be stored; "" if it can."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "its name holds what is not Unicode text"
    if not name or "\0" in name:
        return "its name is empty or holds a null character"
    return f"its name has {length:,} bytes; at most 1,000 are stored" if length > 1000 else ""
