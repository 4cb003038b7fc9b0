"""Every exception of featx, and how a message shows things. Standard library only.

Each has a second, built-in parent, so that ``except ValueError`` or ``except OSError`` in foreign code still works.
A message says what was found, what was expected, and the option or call that mends it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path


def listed(items: Sequence[object], most: int = 10) -> str:
    """The first few of a list, as a message shows them, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(str(item) for item in items[:most]) + more


MISSING = "there is no such file"
"""What ``why_unreadable`` says of a path where nothing is."""


def printable(text: str) -> str:
    """Text in which nothing can upset a terminal or a table: control characters, surrogates and bidi marks as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four as wide as a Chinese character


def cell(text: str) -> str:
    """Text for a cell of CSV: an apostrophe before whatever a spreadsheet would take for a formula (OWASP)."""
    is_formula = text.lstrip()[:1] in _FORMULA or text[:1] in _FORMULA
    return ("'" if is_formula else "") + printable(text)


def why_unreadable(path: str | os.PathLike[str]) -> str:
    """Why a path is no ordinary file that can be read, in words; "" where it is one. Waits for nothing, as a pipe would."""
    try:
        found = Path(path).stat()
        if stat.S_ISDIR(found.st_mode):
            return "it is a folder"
        if not stat.S_ISREG(found.st_mode):
            return "it is no ordinary file"
        if not found.st_size:
            return "it is empty"
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except (OSError, ValueError) as error:  # ValueError: a null character, or a surrogate that is no byte
        return getattr(error, "strerror", None) or str(error)
    return ""


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


class FeatxError(Exception):
    """Base of every error that featx raises on purpose."""


class DatasetError(FeatxError, ValueError):
    """A data set that cannot be read as one: no images, a missing column, contradictory rows."""


class ImageError(FeatxError, ValueError):
    """One image that cannot be decoded. Extraction records it and goes on."""


class BackboneError(FeatxError, ValueError):
    """A backbone that cannot be built, loaded, fetched or tapped."""


class EngineError(FeatxError, RuntimeError):
    """An engine that is not installed, cannot run a network, or gives other features than the network itself."""


class CacheMissError(FeatxError, FileNotFoundError):
    """A feature file, head or model that is not there."""


class StaleCacheError(FeatxError, ValueError):
    """Features that were made by another backbone than the one at hand."""


class CorruptCacheError(FeatxError, OSError):
    """A file that is not what its format promises."""


class CacheLockedError(FeatxError, BlockingIOError):
    """A feature file that another process is writing."""


class OutputError(FeatxError, OSError):
    """A file that cannot be written."""


class HeadError(FeatxError, ValueError):
    """A head that cannot be fitted, loaded or promoted."""


class RecipeError(FeatxError, ValueError):
    """A recipe with faults; all of them, not the first alone.

    Attributes:
        faults: one sentence each.
    """

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *(f"  - {fault}" for fault in faults)]))
        self.faults = tuple(faults)
