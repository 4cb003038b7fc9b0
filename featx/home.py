"""The folder for what belongs to the machine rather than to a project. Standard library only."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from featx.errors import OutputError


def home() -> Path:
    """``$FEATX_HOME``, by default ``~/.cache/featx``; not created here.

    Raises:
        OutputError: neither is known, as for a user without an entry in the system's list.
    """
    try:
        return Path(os.environ.get("FEATX_HOME") or Path.home() / ".cache" / "featx")
    except RuntimeError as error:
        raise OutputError("this user has no home folder; set FEATX_HOME to a folder that featx may write") from error


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
