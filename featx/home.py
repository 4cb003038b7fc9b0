"""The folder for what belongs to the machine rather than to a project. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """``$FEATX_HOME``, by default ``~/.cache/featx``; not created here."""
    return Path(os.environ.get("FEATX_HOME") or Path.home() / ".cache" / "featx")
