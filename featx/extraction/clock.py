"""How fast an extraction runs."""

from __future__ import annotations

import time

from featx.reporter import SILENT, ForwardingReporter, Reporter


class Clock(ForwardingReporter):
    """Times an extraction from its first images on; building and checking an engine before them does not count.

    Args:
        reporter: receives what is reported.
    """

    def __init__(self, reporter: Reporter = SILENT) -> None:
        super().__init__(reporter)
        self._first: tuple[float, int] | None = None
        self._last = (0.0, 0)

    def progress(self, done: int, total: int, detail: object = "") -> None:
        """Note the time, and forward the progress."""
        self._last = (time.perf_counter(), done)
        self._first = self._first or self._last
        super().progress(done, total, detail)

    @property
    def speed(self) -> float:
        """Images per second between the first and the last call; 0 without any."""
        (begin, first), (end, last) = self._first or self._last, self._last
        return (last - first) / max(end - begin, 1e-9)
