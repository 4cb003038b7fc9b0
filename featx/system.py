"""The machine: its cores, its processes, its disks, and featx's own folder on it. Standard library only."""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
import sys
from pathlib import Path

from featx.errors import OutputError, SettingsError


def require_utf8() -> None:
    """Start this command again in Python's UTF-8 mode, unless names of files are UTF-8 already.

    In another locale, Python reads the bytes of one name as another text, so that what is stored in one locale would not be
    found in another. Output keeps the encoding of the locale, except ASCII, which lacks most characters.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode or not sys.executable:
        return
    environment = dict(os.environ)
    encoding = sys.stdout.encoding if sys.stdout else ""
    if "PYTHONIOENCODING" not in environment and codecs.lookup(encoding or "ascii").name != "ascii":
        environment["PYTHONIOENCODING"] = encoding
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)


def cores() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def started() -> tuple[int, int]:
    """The rank of this process and the number of processes, from ``RANK`` and ``WORLD_SIZE`` as torchrun sets them.

    Raises:
        SettingsError: one of the variables is no such number.
    """
    count = environment_number("WORLD_SIZE", default=1, least=1)
    rank = environment_number("RANK", default=0)
    if count == 1:
        return 0, 1
    if rank >= count:
        raise SettingsError(
            f"RANK is {rank} and WORLD_SIZE is {count} in the environment; expected a rank below the number of processes, as "
            "torchrun sets them, or neither variable"
        )
    return rank, count


def environment_number(name: str, *, default: int, least: int = 0) -> int:
    """A whole number from a variable of the environment; the default where it is missing or empty.

    Raises:
        SettingsError: the variable is no whole number, or too small.

    Examples:
        >>> os.environ["LOCAL_RANK"] = "first"
        >>> environment_number("LOCAL_RANK", default=0)
        Traceback (most recent call last):
        featx.errors.SettingsError: LOCAL_RANK is 'first' in the environment; expected a whole number of at least 0, or none
        >>> del os.environ["LOCAL_RANK"]
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least:
        return int(text)
    raise SettingsError(f"{name} is {text!r} in the environment; expected a whole number of at least {least}, or none")


def home() -> Path:
    """The folder of featx's own files: ``$FEATX_HOME``, by default ``~/.cache/featx``. It need not exist.

    Raises:
        OutputError: the variable is not set and the user has no home folder.
    """
    try:
        return Path(os.environ.get("FEATX_HOME") or Path.home() / ".cache" / "featx")
    except RuntimeError as error:
        raise OutputError("this user has no home folder; set FEATX_HOME to a folder that featx may write") from error


def nearest_folder(path: Path) -> Path:
    """The closest existing path at or above a path that need not exist yet; it tells which disk a new file will be on.

    Raises:
        OSError: the system does not tell whether a path exists.
    """
    for part in (path.absolute(), *path.absolute().parents):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            part.stat()
            break
    return part


def exists(path: Path) -> bool:
    """Whether there is something at a path; False only where the system is sure that there is nothing."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        return False
    except OSError:
        return True
    return True


MISSING, FOLDER = "there is no such file", "it is a folder"
"""The answers of ``why_unreadable`` for a path that does not exist, and for that of a folder."""


def why_unreadable(path: str | os.PathLike[str]) -> str:
    """Explain why a path is not a readable, regular file; "" if it is. Never blocks, as opening a pipe would."""
    try:
        found = Path(path).stat()
        if stat.S_ISDIR(found.st_mode):
            return FOLDER
        if not stat.S_ISREG(found.st_mode):
            return "it is not a regular file"
        if not found.st_size:
            return "it is empty"
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except (OSError, ValueError) as error:  # ValueError: a null character, or a surrogate that is no byte
        return getattr(error, "strerror", None) or str(error)
    return ""
