"""What featx remembers of a table of predictions that it has completed, so that the same command finds nothing to do.

It is kept in featx's own folder, and counts only while the table has the size and the times that it had. Losing it costs time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featx.data.file_bytes import facts_of
from featx.io.atomic import keep
from featx.io.strict_json import strict_json
from featx.streaming.partial import State
from featx.system import home

_FOLDER, _MOST = "predictions", 1000
"""Where in featx's own folder, and of how many tables."""


def remember(path: Path, facts: Mapping[str, Any], state: State) -> None:
    """Remember how a table was made.

    Args:
        path: of the table.
        facts: about the model, the options and the columns.
        state: with all its rows.
    """
    with contextlib.suppress(OSError):
        found = {"facts": dict(facts), "state": dataclasses.asdict(state), "file": list(facts_of(path.stat()))}
        keep(_name(path), json.dumps(found).encode(), most=_MOST)


def recall(path: Path) -> tuple[dict[str, Any], State] | None:
    """How a table was made that has not changed since; None if that is not known."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = strict_json((home() / _name(path)).read_text())
        state = (
            State.read(found["state"])
            if isinstance(found, dict) and found.keys() >= {"facts", "state", "file"}
            else None
        )
        if state and isinstance(found["facts"], dict) and found["file"] == list(facts_of(path.stat())):
            return found["facts"], state
    return None


def _name(path: Path) -> str:
    return f"{_FOLDER}/{hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]}.json"
