"""The rows of a table that is not complete yet, and what a later run needs to know to go on after them.

Beside ``predictions.csv`` lie, until it is complete, ``predictions.csv.partial``, the rows so far, and the hidden
``.predictions.csv.journal``: a line about the run, and a line for each time at which rows were safe. A process may be killed at
any moment. What stands after the last of these lines counts for nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from featx.errors import CorruptFileError, OutputError
from featx.features.lock import require_locks
from featx.io import atomic
from featx.io.outputs import require_replaceable
from featx.io.strict_json import strict_json
from featx.streaming.layout import PREDICTIONS
from featx.text import counted

NOTED_EVERY, SAFE_EVERY = 0.25, 2.0
"""Seconds after which the journal states how far the rows are, which outlives the process; and after which they are written to
the disk, which outlives the machine."""

_BLOCK = 1 << 20


@dataclass(frozen=True)
class State:
    """How far a table is.

    Attributes:
        rows: the images that are in it.
        bytes: the length of the rows as text.
        crc: the CRC-32 of that text.
        inputs: a hash of these images' names, cells and times, in hex.
        failed: images without a prediction because they could not be read.
        unread: those of them whose file could not be read at all, which a later run may find.
        rejected: images whose prediction is rejected.
        computed: images that went through the network.
        reused: images whose features were known.
        last_error: the last of the failed images, and why it failed.
        engine: what runs the network of a head; "" if no image has needed it.
    """

    rows: int = 0
    bytes: int = 0
    crc: int = 0
    inputs: str = ""
    failed: int = 0
    unread: int = 0
    rejected: int = 0
    computed: int = 0
    reused: int = 0
    last_error: str = ""
    engine: str = ""

    @classmethod
    def read(cls, fields: Any) -> State | None:
        """The state that a line of the journal holds; None if it holds none."""
        known = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or fields.keys() != known.keys():
            return None
        whole = all(type(fields[name]) is kind for name, kind in known.items())
        return cls(**fields) if whole else None


class Partial:
    """Rows that are appended to a file, which takes its final name when all are there.

    Args:
        path: of the table.

    Attributes:
        state: how far the table is.
        safe: how far it would be if the process ended now.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = path.with_name(path.name + ".partial")
        self.journal = path.with_name(f".{path.name}.journal")
        self.state = self.safe = State()
        self._files = contextlib.ExitStack()
        self._rows: BinaryIO | None = None
        self._journal: BinaryIO | None = None
        self._safe_at = self._noted_at = 0.0

    def found(self) -> tuple[dict[str, Any], State] | None:
        """What a run before has left: the facts about it, and how far it came; None if there is nothing to go on from.

        Raises:
            CorruptFileError: the rows are others than those that were written.
        """
        try:
            lines = self.journal.read_bytes().split(b"\n")[:-1]  # a torn line at the end does not count
            size = self.rows.stat().st_size
        except OSError:
            return None
        parsed = [_parsed(line) for line in lines]
        states = [state for state in map(State.read, parsed[1:]) if state and state.rows and state.bytes <= size]
        if not states or not isinstance(parsed[0], dict):
            return None
        if sound := _last_sound(self.rows, states):
            return parsed[0], sound
        raise CorruptFileError(
            f"{self.rows} was changed after featx wrote it, so that it cannot be continued; --restart starts anew"
        )

    def begin(self, facts: Mapping[str, Any], header: bytes) -> None:
        """Start anew: whatever was there is removed."""
        with self._as_output_error():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            require_replaceable(self.rows, PREDICTIONS)
            self.remove()
            self._open()
            assert self._rows
            self._rows.write(header)
            self.state = State(bytes=len(header), crc=zlib.crc32(header))
            self._line(facts)
            self.make_safe()

    def resume(self, facts: Mapping[str, Any], state: State) -> None:
        """Go on after what a run before has left."""
        self.state = self.safe = state
        with self._as_output_error():
            os.truncate(self.rows, state.bytes)
            self._rewrite_journal(facts)
            self._open()

    def add(self, text: bytes, state: State) -> None:
        """Append rows.

        Args:
            text: of the rows.
            state: with them, but for ``bytes`` and ``crc``.
        """
        with self._as_output_error():
            assert self._rows
            self._rows.write(text)
            before = self.state
            self.state = dataclasses.replace(state, bytes=before.bytes + len(text), crc=zlib.crc32(text, before.crc))
            self._rows.flush()
            now = time.monotonic()
            if now - self._safe_at >= SAFE_EVERY:
                self.make_safe()
            elif now - self._noted_at >= NOTED_EVERY:
                self._note()

    def make_safe(self) -> None:
        """Make all rows so far outlive the process, and the machine."""
        assert self._rows
        self._rows.flush()
        os.fsync(self._rows.fileno())
        self._note()
        self._safe_at = time.monotonic()

    def finish(self, convert: Callable[[Path, Path], None] | None) -> None:
        """Give the table its final name, in the place of an older one.

        Args:
            convert: makes the table of the rows, where it is not their text.
        """
        with self._as_output_error():
            self.make_safe()
            self.close()
            if convert:
                convert(self.rows, self.path)
            else:
                require_replaceable(self.path, PREDICTIONS)
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    self.rows.chmod(stat.S_IMODE(self.path.stat().st_mode) & 0o777)
                self.rows.replace(self.path)
            self.remove()

    def close(self) -> None:
        """Close the files; what is not safe yet is made so, if it can be. Files without a row are removed."""
        if not self._rows or self._rows.closed:
            return
        with contextlib.suppress(OSError, ValueError):
            self.make_safe()
        with contextlib.suppress(OSError):
            self._files.close()
            if not self.safe.rows:
                self.remove()

    def remove(self) -> None:
        """Remove the rows and what is known of them."""
        self.rows.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)

    def _open(self) -> None:
        self._rows = self._files.enter_context(_opened(self.rows))
        self._journal = self._files.enter_context(_opened(self.journal))
        self._safe_at = self._noted_at = time.monotonic()

    def _note(self) -> None:
        """State how far the rows are."""
        require_locks()
        self._line(dataclasses.asdict(self.state))
        self.safe, self._noted_at = self.state, time.monotonic()

    def _line(self, fields: Mapping[str, Any]) -> None:
        assert self._journal
        self._journal.write(json.dumps(fields).encode() + b"\n")
        self._journal.flush()

    def _rewrite_journal(self, facts: Mapping[str, Any]) -> None:
        """Leave the last state alone, so that the journal stays short, and ends with a whole line."""
        lines = (json.dumps(each).encode() + b"\n" for each in (facts, dataclasses.asdict(self.state)))
        with atomic.replacing(self.journal) as file:
            file.writelines(lines)

    @contextlib.contextmanager
    def _as_output_error(self) -> Any:
        """Name the file, and what happens to the rows, in an error of the system."""
        try:
            yield
        except OutputError:
            raise
        except OSError as error:
            if isinstance(error, CorruptFileError | BlockingIOError):
                raise
            why = atomic.reason(error) + atomic.full_disk(self.rows.parent, 0, error)
            kept = (
                f"; {counted(self.safe.rows, 'image is', 'images are')} predicted, and the same command goes on"
                if self.safe.rows
                else ""
            )
            raise OutputError(f"cannot write {self.rows}: {why}{kept}") from error


def _opened(path: Path) -> BinaryIO:
    """A file to append to, which is no link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "ab")


def _parsed(line: bytes) -> Any:
    try:
        return strict_json(line.decode())
    except (ValueError, RecursionError):
        return None


def _last_sound(path: Path, states: Sequence[State]) -> State | None:
    """The last of some states, in order, whose rows are in a file; None if there is none.

    After a power cut the journal may be ahead of the rows.
    """
    sound, crc, at = None, 0, 0
    with path.open("rb") as file:
        for state in states:
            while at < state.bytes and (block := file.read(min(state.bytes - at, _BLOCK))):
                crc, at = zlib.crc32(block, crc), at + len(block)
            if (at, crc) == (state.bytes, state.crc):
                sound = state
    return sound
