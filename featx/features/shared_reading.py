"""Several processes that load the same features: each checks a part of the rows, and together all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeAlias

Read: TypeAlias = Callable[[int, int], dict[str, Any]]
"""Reads the fields of a feature set, and checks part ``number`` of ``of`` of its rows."""

_HOW: ContextVar[Callable[[str, Read], dict[str, Any]] | None] = ContextVar("featx_shared_reading", default=None)


def read_shared(layer: str, read: Read) -> dict[str, Any]:
    """Read fields as the context says; without one, this process checks all rows.

    Args:
        layer: what is read.
        read: reads it.
    """
    how = _HOW.get()
    return read(0, 1) if how is None else how(layer, read)


@contextlib.contextmanager
def reading_shared(how: Callable[[str, Read], dict[str, Any]]) -> Iterator[None]:
    """Within this context, features are read by a function of what is read and how it is read."""
    token = _HOW.set(how)
    try:
        yield
    finally:
        _HOW.reset(token)
