"""Make the n-th call of the system on a feature file fail, as a disk or a network may for a moment."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CALLS = ("open", "stat", "fstat", "pread", "listdir")


class Failing:
    """Counts the calls of one function on paths with ``part`` in their names, and fails one of them.

    Attributes:
        calls: how many there were.
    """

    def __init__(self, name: str, at: int, part: str, error: int) -> None:
        self.calls = 0
        self._real: Callable[..., Any] = getattr(os, name)
        self._at, self._part, self._error = at, part, error

    def __call__(self, where: Any, *args: Any, **options: Any) -> Any:
        path = Path(f"/proc/self/fd/{where}").readlink() if isinstance(where, int) else where
        if self._part in str(path):
            self.calls += 1
            if self.calls == self._at:
                raise OSError(self._error, os.strerror(self._error), str(path))
        return self._real(where, *args, **options)


@contextmanager
def failing(name: str, at: int, *, part: str = ".h5", error: int = errno.EIO) -> Iterator[Failing]:
    """Let the call number ``at`` of ``os.<name>`` on a matching path fail, counted from 1."""
    calls = Failing(name, at, part, error)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, calls)
        yield calls
