"""Commands that run a long job: progress, result and notes are handled here, once for all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter, methodcaller
from typing import Any

import click

from featx.cli.interrupt import interruptible
from featx.cli.needs import require_effect
from featx.cli.option_groups import Command
from featx.cli.options import JSON, VERBOSITY, verbosity
from featx.cli.output import print_notes, print_result
from featx.cli.remote_files import with_local_files
from featx.errors import FeatxError
from featx.progress import QUIET, BarReporter, progress_bar
from featx.reporter import SILENT, ForwardingReporter, Reporter
from featx.system import started


class NotesOnce(ForwardingReporter):
    """Shows each note once, also those that are shown while a job runs and belong to its result as well.

    Args:
        reporter: shows them.
    """

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(reporter)
        self._shown: set[str] = set()

    def note(self, sentence: str) -> None:
        """Forward the note, unless it was shown before."""
        if sentence not in self._shown:
            super().note(sentence)
        if self.reporter is not SILENT:
            self._shown.add(sentence)

    def left(self, notes: Iterable[str]) -> list[str]:
        """The notes that were not shown."""
        return [note for note in notes if note not in self._shown]


class _WithoutBar(ForwardingReporter):
    """Drops the progress of a job whose results appear step by step on the same terminal."""

    def progress(self, done: int, total: int, detail: object = "") -> None:
        """Nothing: the results show it."""


class JobCommand(Command):
    """A command whose function does the work and returns a result.

    The function takes ``reporter`` and the command's options, and prints nothing. The result is printed by ``show``, or with
    ``--json`` as one object; its notes go to stderr.

    Args:
        name: of the command.
        show: prints a result.
        progress: the title of the progress bar, and what it counts.
        check: raises SettingsError where options exclude or need one another. It is called before the job begins; in a recipe,
            before the first job begins.
        facts: makes the object that ``--json`` prints from a result.
        notes: takes the sentences for stderr from a result.
        stream: prints a result that is made step by step, while the job runs; then ``show`` comes after it.
        fault: says why a result counts as a failure, whose exit status is 1; "" if it does not.
        attributes: as ``Command`` takes them.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        show: Callable[[Any], None],
        progress: tuple[str, str],
        check: Callable[[Mapping[str, Any]], None] = lambda _: None,
        facts: Callable[[Any], dict[str, Any]] = methodcaller("as_dict"),
        notes: Callable[[Any], tuple[str, ...]] = attrgetter("notes"),
        stream: Callable[[Any], None] | None = None,
        fault: Callable[[Any], str] = lambda _: "",
        **attributes: Any,
    ) -> None:
        super().__init__(name, **attributes)
        self.show, self.progress, self.check, self.facts, self.notes = show, progress, check, facts, notes
        self.stream, self.fault = stream, fault
        self.job_params: tuple[click.Parameter, ...] = tuple(self.params)
        VERBOSITY(self)
        JSON(self)

    def run(self, options: Mapping[str, Any], reporter: Reporter = SILENT) -> Any:
        """Do the work, and return its result.

        Args:
            options: the value of each of ``job_params`` by name: all parameters but ``--json``, ``-q`` and ``-v``.
            reporter: receives progress and notes.
        """
        assert self.callback
        return self.callback(reporter=reporter, **with_local_files(str(self.name), options, reporter))

    def invoke(self, ctx: click.Context) -> Any:
        """Check the options, do the work under a progress bar and print the result; of several processes the first prints."""
        require_effect(ctx)
        shown = verbosity(ctx)
        options = dict(ctx.params)
        as_json = options.pop("as_json")
        self.check(options)
        with progress_bar(*self.progress, shown if started()[0] == 0 else QUIET) as bar:
            once = NotesOnce(bar)
            with interruptible(once) as reporter:
                on_terminal = self.stream is not None and not as_json and sys.stdout is not None and sys.stdout.isatty()
                result = self.run(options, _WithoutBar(reporter) if on_terminal else reporter)
                if on_terminal and isinstance(bar, BarReporter):
                    bar.close()
                if self.stream and not as_json:
                    self.stream(result)
        if started()[0] == 0:
            print_result(self.facts(result) if as_json else None, lambda: self.show(result))
            print_notes(*once.left(self.notes(result)))
            if why := self.fault(result):
                raise FeatxError(why)
        return result
