"""Measure how busy each stage of a running extraction is, and which stage limits its speed. Standard library only."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

_WINDOW = 2.0
"""Seconds over which ``limit`` averages."""


class ThroughputMeter:
    """Adds up how long the threads of each stage were busy. Thread-safe.

    Attributes:
        seconds: {stage: seconds of work, summed over its threads}.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._threads: dict[str, int] = {}
        self._adding = threading.Lock()
        self._before: tuple[float, dict[str, float]] = (time.perf_counter(), {})
        self._limit = ""

    @contextlib.contextmanager
    def busy(self, stage: str, threads: int = 1) -> Iterator[None]:
        """Count the time inside the ``with`` block as work of one of a stage's threads."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            with self._adding:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
                self._threads[stage] = threads

    def limit(self) -> str:
        """The stage with the busiest threads over the last two seconds, such as "forward 78 %"; "" at the start."""
        began, before = self._before
        elapsed = time.perf_counter() - began
        if elapsed >= _WINDOW:
            with self._adding:
                now, threads = dict(self.seconds), dict(self._threads)
            shares = {stage: (now[stage] - before.get(stage, 0.0)) / (threads[stage] * elapsed) for stage in now}
            if shares:
                stage = max(shares, key=lambda name: shares[name])
                self._limit = f"{stage} {min(100, round(100 * shares[stage]))} %"
            self._before = time.perf_counter(), now
        return self._limit
