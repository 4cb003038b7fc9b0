"""The progress of a job of several fits."""

from __future__ import annotations

from featx.reporter import Reporter


class FitProgress:
    """Counts fits, and reports their progress where there are several."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self.reporter, self.total, self.done = reporter, total, 0

    def add(self, fits: int) -> None:
        """Count on more fits."""
        self.total += fits
        self.reporter.stage("cross-validating, since few images are held out")

    def advance(self) -> None:
        """Count one more fit."""
        self.done += 1
        if self.total > 1:
            self.reporter.progress(min(self.done, self.total), self.total)
