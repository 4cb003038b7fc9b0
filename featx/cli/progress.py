"""Progress bars and notes on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from featx.cli.output import print_notes
from featx.reporter import Reporter


class Bar(Reporter):
    """Shows the progress of a job as a bar of tqdm, and prints each note on a line."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def progress(self, done: int, total: int, detail: object = "") -> None:
        """Move the bar, and show the detail beside it."""
        if self.bar.total != total:
            self.bar.total, self.bar.initial = total, done
            self.bar.n = done
        if detail:
            self.bar.set_postfix_str(str(detail), refresh=False)
        self.bar.update(done - self.bar.n)

    def note(self, sentence: str) -> None:
        """Print the sentence on stderr."""
        print_notes(sentence)


@contextlib.contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Reporter]:
    """Show the progress of a job on stderr once it has run for two seconds: share done, time left, speed and a detail."""
    from tqdm import tqdm

    with tqdm(desc=title, unit=f" {unit}", delay=2, file=sys.stderr, leave=False, disable=None) as bar:
        yield Bar(bar)
