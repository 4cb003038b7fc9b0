"""The standard streams of a command, which may be closed, full, or of an encoding that lacks characters."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from pathlib import Path
from typing import Any

STDOUT = "standard output"
"""The name of stdout in messages."""


def prepare_streams() -> None:
    """Make the standard streams safe to use. Called once, as the process starts.

    A stream that is closed (``2>&-``) is replaced by nothing, so that no file that is opened later gets its number, and with it
    the messages of some library. Writing to a closed stdout is an error, since the result would be lost; what stderr does not
    take is lost, since the work matters more than its messages.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free, which is this one
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - as long as the process
    if sys.stdout is None:
        sys.stdout = _ClosedStdout()
    elif sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _rebuilt(sys.stdout, _Named)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    elif sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _rebuilt(sys.stderr, _Forgiving)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # there may be one of a notebook, which takes everything
            stream.reconfigure(errors="backslashreplace")


def give_up_stdout() -> None:
    """Drop what stdout has not taken, so that the end of the process does not fail on it once more."""
    with contextlib.suppress(OSError, ValueError):
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.fileno() == 1:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 1)
            os.close(nothing)


def _rebuilt(stream: io.TextIOWrapper, raw: type[io.FileIO]) -> io.TextIOWrapper:
    """A text stream on the same descriptor, through another kind of raw file."""
    stream.flush()
    buffer = io.BufferedWriter(raw(stream.fileno(), "wb", closefd=False))
    return io.TextIOWrapper(
        buffer, encoding=stream.encoding, errors=stream.errors, line_buffering=stream.line_buffering
    )


class _ClosedStdout(io.TextIOBase):
    """A stdout that takes nothing."""

    def write(self, text: str) -> int:
        if text:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), STDOUT)
        return 0


class _Named(io.FileIO):
    """A file whose errors name it as stdout; a closed pipe stays what it is."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, STDOUT) from error


class _Forgiving(io.FileIO):
    """A file that ignores what it cannot write."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            super().write(data)
        return len(memoryview(data).cast("B"))
