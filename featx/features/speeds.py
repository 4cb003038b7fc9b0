"""How fast each backbone runs on this machine, as its extractions showed: kept below ``featx.system.home()``.

The speed is not in feature files: these are the same byte for byte on every machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from featx.errors import OutputError
from featx.io.atomic import keep
from featx.system import home

LEAST_IMAGES = 160
"""The fewest images that a speed is taken from."""

_FILE = "speeds.json"
_MOST = 500  # backbones that are remembered


def keep_speed(backbone: Mapping[str, Any], *, views: int, images_per_second: float) -> None:
    """Remember the speed of a backbone.

    Args:
        backbone: its description, as a feature file stores it.
        views: of each image.
        images_per_second: images, read, decoded and run in all views.
    """
    rate = images_per_second * views
    if not (math.isfinite(rate) and rate > 0):
        return
    key, known = _key(backbone), _stored()
    known.pop(key, None)
    kept = dict(
        [*known.items(), (key, {"backbone": str(backbone.get("name", "")), "views_per_second": round(rate, 1)})][
            -_MOST:
        ]
    )
    keep(_FILE, json.dumps(kept, indent=1).encode())


def speed_of(backbone: Mapping[str, Any], *, views: int) -> float | None:
    """The images per second of a backbone in so many views; None if this machine has not measured it."""
    entry = _stored().get(_key(backbone))
    rate = entry.get("views_per_second") if isinstance(entry, dict) else None
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not (math.isfinite(rate) and rate > 0):
        return None
    return rate / views


def _key(backbone: Mapping[str, Any]) -> str:
    facts = [backbone.get("name"), backbone.get("parts")]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _stored() -> dict[str, Any]:
    """What is remembered; nothing if the file is missing or damaged."""
    with contextlib.suppress(OSError, OutputError, ValueError, RecursionError):
        stored = json.loads((home() / _FILE).read_text())
        if isinstance(stored, dict):
            return stored
    return {}
