"""Ctrl-C: the job ends soon, even where a library swallows the exception."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from featx.reporter import ForwardingReporter, Reporter


class _Interruptible(ForwardingReporter):
    """Raises KeyboardInterrupt again, at the next thing reported, after a Ctrl-C that the job has survived.

    Imports of large libraries, and callbacks from C, print or drop an exception that is raised in them.
    """

    interrupted = False

    def stage(self, name: str) -> None:
        self._raise_again()
        super().stage(name)

    def progress(self, done: int, total: int, detail: object = "") -> None:
        self._raise_again()
        super().progress(done, total, detail)

    def milestone(self, sentence: str) -> None:
        self._raise_again()
        super().milestone(sentence)

    def on_signal(self, *_: Any) -> None:
        """Handle SIGINT: answer at once, since threads may take a moment to end."""
        self.interrupted = True
        with contextlib.suppress(OSError, ValueError, AttributeError):  # AttributeError: there is no stderr
            os.write(sys.stderr.fileno(), b"\nStopping\n")  # print would fail within another print
        raise KeyboardInterrupt

    def _raise_again(self) -> None:
        if self.interrupted and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible(reporter: Reporter) -> Iterator[Reporter]:
    """Make a job end at the next thing that it reports after Ctrl-C, if the KeyboardInterrupt itself was lost.

    Args:
        reporter: receives what the job reports.

    Yields:
        The reporter to give to the job.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()  # no other thread may handle signals
    if (
        not in_main_thread or signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # a shell's background job ignores Ctrl-C
        yield reporter
        return
    checked = _Interruptible(reporter)
    before = signal.signal(signal.SIGINT, checked.on_signal)
    try:
        yield checked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)
