"""Text for people: lists, sizes and foreign text made safe to print. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence


def listed(items: Sequence[object], most: int = 10) -> str:
    """The first few of a list, as a message shows them, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(str(item) for item in items[:most]) + more


def printable(text: str) -> str:
    """Text in which nothing can upset a terminal or a table: control characters, surrogates and bidi marks as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four as wide as a Chinese character


def cell(text: str) -> str:
    """Text for a cell of CSV: an apostrophe before whatever a spreadsheet would take for a formula (OWASP)."""
    is_formula = text.lstrip()[:1] in _FORMULA or text[:1] in _FORMULA
    return ("'" if is_formula else "") + printable(text)


def size_text(count: int) -> str:
    """Bytes, as people read them: 8.2 GB."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def brief(error: Exception, most: int = 200) -> str:
    """The first line of a message of somebody else's, which may run to pages."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= most else line[: most - 3] + "..."
