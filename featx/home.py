"""What is the machine's rather than a project's: its cores, its disks, and a folder of its own. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
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


def reserve(file: int, size: int) -> None:
    """Take so many bytes of the disk for an open file now, where the system can.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that reserves nothing
                raise


def keep(name: str, data: bytes) -> None:
    """Write a file below ``home()`` for the next time, whole or not at all; where that fails, the next time takes longer."""
    with contextlib.suppress(OSError, OutputError):
        path = home() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
