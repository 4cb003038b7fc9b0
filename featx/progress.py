"""Progress on stderr: a bar on a terminal and in a notebook, lines in a log."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from featx.errors import SettingsError
from featx.reporter import SILENT, Reporter
from featx.text import noted, shown

QUIET, NORMAL, VERBOSE = -1, 0, 1
"""How much is shown: nothing; stages and progress; also the time at which each stage began, on lines that stay."""

INTERVAL = 2.0
"""Seconds that a stage takes at least before a log gets a line for each tenth of it."""

UNKNOWN_INTERVAL = 10.0
"""Seconds between two lines of a log where it is not known how much there is to do."""

P = ParamSpec("P")
R = TypeVar("R")


class LogReporter(Reporter):
    """Prints lines, for a log: each stage, each milestone, each note, and each tenth of a stage that takes longer.

    Args:
        title: begins each line; the name of the job.
        unit: what the progress counts, such as "images".
        timed: whether each line gets the seconds since the job began.
    """

    def __init__(self, title: str, unit: str, *, timed: bool = False) -> None:
        self.title, self.unit, self.timed = title, unit, timed
        self._began = self._work_began = time.monotonic()
        self._first = self._done = self._total = self._tenth = 0
        self._has_milestones = False

    def stage(self, name: str) -> None:
        """Print the stage."""
        self._print(name)
        self._start_work(0, 0)

    def progress(self, done: int, total: int, detail: object = "") -> None:
        """Print a line for each tenth, unless milestones are printed or the work is short."""
        if total != self._total or done < self._done:
            self._start_work(done, total)
        self._done = done
        seconds = time.monotonic() - self._work_began
        tenth = 10 * done // total if total else int(seconds / UNKNOWN_INTERVAL)
        if tenth == self._tenth or seconds < INTERVAL or self._has_milestones:
            return
        self._tenth = tenth
        speed = (done - self._first) / seconds
        parts = [f"{done:,} of {total:,} {self.unit} ({100 * done // total} %)" if total else f"{done:,} {self.unit}"]
        if speed > 0 and not total:
            parts.append(f"{speed:,.0f} {self.unit}/s")
        if speed > 0 and done < total:
            parts.append(f"{_duration((total - done) / speed)} left")
        self._print(", ".join([*parts, *([str(detail)] if str(detail) else [])]))

    def milestone(self, sentence: str) -> None:
        """Print the sentence."""
        self._has_milestones = True
        self._print(sentence)

    def note(self, sentence: str) -> None:
        """Print the sentence as a note."""
        _write(noted(sentence))

    def _start_work(self, done: int, total: int) -> None:
        self._work_began, self._first, self._done, self._total = time.monotonic(), done, done, total
        self._tenth, self._has_milestones = 10 * done // total if total else 0, False

    def _print(self, text: str) -> None:
        clock = f"[{time.monotonic() - self._began:6.1f} s] " if self.timed else ""
        _write(f"{clock}{self.title}: {shown(text)}")


class BarReporter(Reporter):
    """Shows the current stage, or the progress of it as a bar of tqdm, and prints each note on a line.

    Args:
        title: stands before the bar; the name of the job.
        unit: what the progress counts, such as "images".
        make_bar: tqdm's class for this terminal or notebook.
        log: gets the stages and milestones too, so that they stay; None where they need not.
    """

    def __init__(self, title: str, unit: str, make_bar: Callable[..., Any], log: LogReporter | None = None) -> None:
        self.title, self.unit, self.log = title, unit, log
        self._make_bar = functools.partial(make_bar, file=sys.stderr, leave=False)
        self._bar: Any = None
        self._is_stage = False

    def stage(self, name: str) -> None:
        """Show the stage until the next one, or the progress of this one."""
        self.close()
        if self.log:
            self.log.stage(name)
        self._bar, self._is_stage = self._make_bar(desc=f"{self.title}: {shown(name)}", bar_format="{desc}"), True

    def progress(self, done: int, total: int, detail: object = "") -> None:
        """Move the bar, and show the detail beside it."""
        if self._bar is None or self._is_stage or self._bar.total != (total or None) or done < self._bar.n:
            self.close()
            self._bar = self._make_bar(desc=self.title, unit=f" {self.unit}", total=total or None, initial=done)
        if text := str(detail):
            self._bar.set_postfix_str(shown(text), refresh=False)
        self._bar.update(done - self._bar.n)

    def milestone(self, sentence: str) -> None:
        """Log the sentence where there is a log; the bar shows its figures otherwise."""
        if self.log:
            with self._aside():
                self.log.milestone(sentence)

    def note(self, sentence: str) -> None:
        """Print the sentence above the bar."""
        with self._aside():
            _write(noted(sentence))

    def close(self) -> None:
        """Remove the bar or the stage."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._is_stage = None, False

    def _aside(self) -> contextlib.AbstractContextManager[Any]:
        """Move the bar out of the way while a line is printed."""
        if self._bar is None:
            return contextlib.nullcontext()
        manager: contextlib.AbstractContextManager[Any] = self._bar.external_write_mode(file=sys.stderr)
        return manager


@contextlib.contextmanager
def progress_bar(title: str, unit: str, verbosity: int = NORMAL) -> Iterator[Reporter]:
    """Show a job on stderr while it runs: a bar on a terminal or in a notebook, else lines as ``LogReporter`` prints them.

    Args:
        title: the name of the job.
        unit: what its progress counts, such as "images".
        verbosity: ``QUIET``, ``NORMAL`` or ``VERBOSE``.

    Yields:
        The reporter to give to the job.

    Examples:
        >>> with progress_bar("count", "sheep", QUIET) as reporter:
        ...     reporter.progress(1, 10)
    """
    if verbosity <= QUIET or sys.stderr is None:
        yield SILENT
        return
    log = LogReporter(title, unit, timed=verbosity >= VERBOSE)
    make_bar = _bar_class()
    if make_bar is None:
        yield log
        return
    bar = BarReporter(title, unit, make_bar, log if verbosity >= VERBOSE else None)
    try:
        yield bar
    finally:
        bar.close()


def shows_progress(title: str, unit: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give a function that takes ``reporter`` and ``progress`` a progress bar as its reporter where ``progress`` is true.

    Args:
        title: as ``progress_bar`` takes it.
        unit: as ``progress_bar`` takes it.

    Raises:
        SettingsError: by the function, if it is given both ``progress=True`` and a reporter.

    Examples:
        >>> @shows_progress("count", "sheep")
        ... def count(*, progress: bool = False, reporter: Reporter = SILENT) -> str:
        ...     return type(reporter).__name__
        >>> count()
        'Reporter'
        >>> count(progress=True) in ("BarReporter", "LogReporter")
        True
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def with_progress(*args: P.args, **kwargs: P.kwargs) -> R:
            if not kwargs.pop("progress", False):
                return function(*args, **kwargs)
            if kwargs.get("reporter", SILENT) is not SILENT:
                raise SettingsError("progress=True and reporter=... exclude one another; expected one of them")
            with progress_bar(title, unit) as reporter:
                kwargs["reporter"] = reporter
                return function(*args, **kwargs)

        return with_progress

    return decorate


def _bar_class() -> Callable[..., Any] | None:
    """The class of tqdm for this terminal or notebook; None where stderr is neither."""
    from tqdm.asyncio import tqdm_asyncio
    from tqdm.auto import tqdm

    in_notebook = tqdm is not tqdm_asyncio
    bar: Callable[..., Any] = tqdm
    return bar if in_notebook or sys.stderr.isatty() else None


def _duration(seconds: float) -> str:
    """Format a duration as a progress bar does: 59 s, 1:05, 2:10:00."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _write(line: str) -> None:
    """Print a line on stderr at once, in any encoding; a log that cannot be written must not end the job."""
    if sys.stderr is None:
        return
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError):
        sys.stderr.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stderr.flush()
