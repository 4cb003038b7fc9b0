"""What a long job reports while it runs. Standard library only."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from featx.text import listed


class Reporter:
    """Receives the stages, the progress and the notes of a long job. This class ignores them; override what you want to see.

    ``progress=True`` of the public functions shows all of them, see ``featx.progress``.

    Examples:
        >>> class Printer(Reporter):
        ...     def note(self, sentence: str) -> None:
        ...         print(sentence)
        >>> Printer().note("measuring which engine is fastest here, once")
        measuring which engine is fastest here, once
    """

    def stage(self, name: str) -> None:
        """Called as a stage begins that may take seconds.

        Args:
            name: what happens now, such as "loading resnet50".
        """

    def progress(self, done: int, total: int, detail: object = "") -> None:
        """Called as work is done, and once before it begins.

        Args:
            done: items done so far (images, fits, backbones), of the current stage.
            total: items in the current stage; 0 where that is not known.
            detail: what else is known at this point; its text fits beside a progress bar.
        """

    def milestone(self, sentence: str) -> None:
        """Called as a part of the work ends that deserves a line in a log, such as an epoch, with its result."""

    def note(self, sentence: str) -> None:
        """Called with one sentence for the user, such as what the job waits for or how much disk it is about to take."""


SILENT = Reporter()
"""The default of every ``reporter`` argument."""


class ForwardingReporter(Reporter):
    """Forwards everything to another reporter; override what is to change on the way.

    Args:
        reporter: the other reporter.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def stage(self, name: str) -> None:
        """Forward the stage."""
        self.reporter.stage(name)

    def progress(self, done: int, total: int, detail: object = "") -> None:
        """Forward the progress."""
        self.reporter.progress(done, total, detail)

    def milestone(self, sentence: str) -> None:
        """Forward the milestone."""
        self.reporter.milestone(sentence)

    def note(self, sentence: str) -> None:
        """Forward the note."""
        self.reporter.note(sentence)


def stage_of_import(reporter: Reporter, module: str = "torch", name: str = "PyTorch") -> None:
    """Report that a large library is about to be loaded, unless it is loaded already.

    Args:
        reporter: receives the stage.
        module: the library, as it is imported.
        name: the library, as people call it.
    """
    if module not in sys.modules:
        reporter.stage(f"loading {name}")


def note_choice(files: Sequence[Path], nouns: str, reporter: Reporter) -> None:
    """Note which of several files a command takes because none was named: the first, which is the newest.

    Args:
        files: all files that it might have taken.
        nouns: what they are.
        reporter: gets the note; none if there is one file only.

    Examples:
        >>> class Printer(Reporter):
        ...     def note(self, sentence: str) -> None:
        ...         print(sentence)
        >>> note_choice([Path("cache/b.h5"), Path("cache/a.h5")], "feature files", Printer())
        taking cache/b.h5, the newest of 2 feature files; the other is cache/a.h5
    """
    if len(files) < 2:
        return
    others = f"the other is {files[1]}" if len(files) == 2 else f"the others are {listed(files[1:], most=5)}"
    reporter.note(f"taking {files[0]}, the newest of {len(files)} {nouns}; {others}")
