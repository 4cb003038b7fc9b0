"""What a long job reports while it runs. Standard library only."""

from __future__ import annotations


class Reporter:
    """Receives the progress and the notes of a long job. This class ignores both; override what you want to see.

    Examples:
        >>> class Printer(Reporter):
        ...     def note(self, sentence: str) -> None:
        ...         print(sentence)
        >>> Printer().note("measuring which engine is fastest here, once")
        measuring which engine is fastest here, once
    """

    def progress(self, done: int, total: int, detail: object = "") -> None:
        """Called as work is done, and once before it begins.

        Args:
            done: items done so far (images, fits, backbones), of the current stage.
            total: items in the current stage.
            detail: what else is known at this point; its text fits beside a progress bar.
        """

    def note(self, sentence: str) -> None:
        """Called with one sentence for the user, such as what the job waits for or how much disk it is about to take."""


SILENT = Reporter()
"""The default of every ``reporter`` argument."""
