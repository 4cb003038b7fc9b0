"""Members of a compressed tar, read in as few passes over it as possible. Standard library only."""

from __future__ import annotations

import bisect
import lzma
import threading
import zlib

from featx.data.places import Place
from featx.data.sources.archive_index import Member
from featx.data.sources.unpacked import Unpacked
from featx.errors import FeatxError, ImageError
from featx.text import brief

BUFFER = 1 << 27
"""Bytes of members that are kept for the threads that will ask for them."""

_PATIENCE = 2.0
"""Seconds that a thread waits for those behind it to take their members, if the buffer is full."""


class TarPasses:
    """Reads members of a compressed tar for many threads, whose order is nearly that in which they are stored.

    What lies between the position and a member that is asked for is kept if it is expected to be asked for, too. If the buffer
    is full of members that nobody has taken, a thread that is ahead waits for the others.

    Args:
        file: the archive.
        kind: how it is compressed.
    """

    def __init__(self, file: Place, kind: str) -> None:
        self._stream = Unpacked(file, kind)
        self._turn = threading.Condition()
        self._kept: dict[int, bytes] = {}
        self._bytes = 0
        self._taken: set[int] = set()
        self._expected: list[Member] = []
        self._starts: list[int] = []

    def expect(self, members: list[Member]) -> None:
        """Name the members that will be asked for, in the order in which they are stored."""
        with self._turn:
            self._expected, self._starts = members, [member.offset for member in members]
            self._taken.clear()
            self._kept.clear()
            self._bytes = 0

    def read(self, member: Member) -> bytes:
        """Read one member.

        Raises:
            ImageError: the archive is damaged, or ends before.
            OSError: it cannot be read.
        """
        with self._turn:
            try:
                return self._read(member)
            except EOFError as error:
                raise ImageError("is cut off: its archive ends before it does") from error
            except (zlib.error, lzma.LZMAError, ValueError) as error:
                if isinstance(error, FeatxError):
                    raise
                raise ImageError(f"is damaged in its archive: {brief(error)}") from error

    def _read(self, member: Member) -> bytes:
        patient = True
        while member.offset not in self._kept and (between := self._before(member)):
            if patient and self._bytes and self._bytes + between.size > BUFFER:
                patient = self._turn.wait(_PATIENCE)
                continue
            self._keep(between)
        data = self._kept.pop(member.offset, None)
        if data is None:
            data = self._at(member)
        else:
            self._bytes -= len(data)
        self._taken.add(member.offset)
        self._turn.notify_all()
        if not self._starts or self._stream.tell() > self._starts[-1]:
            self._stream.close()  # the pass is over; another one opens the file again
        return data

    def _before(self, member: Member) -> Member | None:
        """The next expected member between the position and this one that nobody has taken."""
        number = bisect.bisect_left(self._starts, self._stream.tell())
        while number < len(self._starts) and self._starts[number] < member.offset:
            if self._starts[number] not in self._taken and self._starts[number] not in self._kept:
                return self._expected[number]
            number += 1
        return None

    def _at(self, member: Member) -> bytes:
        self._stream.seek(member.offset)
        data = self._stream.read(member.size)
        if len(data) < member.size:
            raise EOFError
        return data

    def _keep(self, member: Member) -> None:
        """Read a member that will be asked for; if the buffer is full, what has been kept for the longest time goes."""
        data = self._at(member)
        while self._kept and self._bytes + len(data) > BUFFER:
            oldest = next(iter(self._kept))
            self._bytes -= len(self._kept.pop(oldest))
        self._kept[member.offset] = data
        self._bytes += len(data)
