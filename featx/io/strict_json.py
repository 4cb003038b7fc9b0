"""Strict parsing of JSON from foreign files: unique keys, finite numbers, little nesting. Standard library only."""

from __future__ import annotations

import json
import math
from typing import Any

_DEEPEST = 16  # levels of nesting; featx writes five


def strict_json(text: str) -> Any:
    """Parse JSON and refuse repeated keys, numbers that are not finite or exceed 64 bits, and deep nesting.

    Raises:
        ValueError: the text breaks one of these rules, or is not JSON.

    Examples:
        >>> strict_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ValueError: a key of its JSON comes twice
    """
    try:
        value = json.loads(text, object_pairs_hook=_distinct)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    level = [value]
    for _ in range(_DEEPEST):
        for number in level:
            if isinstance(number, float) and not math.isfinite(number):  # NaN, Infinity, 1e999
                raise ValueError(f"its JSON holds {number}")
            if isinstance(number, int) and not -(2**63) <= number < 2**63:
                raise ValueError("its JSON holds a number of more than 64 bits")
        level = [
            item
            for part in level
            if isinstance(part, dict | list)
            for item in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return value
    raise ValueError("its JSON is nested too deeply")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key of its JSON comes twice")
    return found


def shown(value: Any, most: int = 100) -> str:
    """Format a value from a foreign file for a message: ASCII, one line, at most ``most`` characters."""
    text = json.dumps(value)
    return text if len(text) <= most else f"{text[:most]}..."
