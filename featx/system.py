"""What is the machine's rather than a project's: its cores, its disks, and a folder of its own. Standard library only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from featx.errors import OutputError


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def started() -> tuple[int, int]:
    """Which of the processes this is that torchrun, or whatever sets ``RANK``, has started together, and how many they are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def home() -> Path:
    """``$FEATX_HOME``, by default ``~/.cache/featx``; not created here.

    Raises:
        OutputError: neither is known, as for a user without an entry in the system's list.
    """
    try:
        return Path(os.environ.get("FEATX_HOME") or Path.home() / ".cache" / "featx")
    except RuntimeError as error:
        raise OutputError("this user has no home folder; set FEATX_HOME to a folder that featx may write") from error


def nearest_folder(path: Path) -> Path:
    """A path itself, or what is above it, from where on it is there: it tells the disk of what is yet to be made."""
    return next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())


MISSING = "there is no such file"
"""What ``why_unreadable`` says of a path where nothing is."""


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
