"""A compressed tar as the tar that it holds, unpacked as it is read and never stored. Standard library only."""

from __future__ import annotations

import bz2
import lzma
import zlib
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple

from featx.data.places import Place, size_of
from featx.errors import DatasetError

_INPUT = 1 << 18
_OUTPUT = 1 << 20
"""Bytes that are read and unpacked at once."""

_BETWEEN = 1 << 24
"""Bytes of unpacked data between two places from which reading can go on, where the format allows it."""

_MOST_PLACES = 256

_LARGEST_RATIO, _SMALL = 100, 1 << 30
"""An archive that unpacks to more than so many times its size, and to more than so many bytes, is no archive of images."""


class _Resume(NamedTuple):
    """A place from which reading can go on: in the unpacked data, in the file, and what unpacks from there."""

    at: int
    raw: int
    decompressor: Any
    pending: bytes


class Unpacked:
    """The unpacked data of a compressed file, as a file that is read forwards; going back may mean to start again.

    Gzip can go on from every 16 MiB that were passed before, and concatenated streams from the beginning of each.

    Args:
        file: the compressed file.
        kind: "gz", "bz2", "xz" or "zst".

    Raises:
        DatasetError: this Python cannot unpack the format.
    """

    def __init__(self, file: Place, kind: str) -> None:
        self._place = file
        self._new = _decompressor(kind, file.location)
        self._can_copy = kind == "gz"
        self._file: Any = None
        size = size_of(file)
        self._limit = max(_SMALL, _LARGEST_RATIO * size) if size >= 0 else None
        self._places = [_Resume(0, 0, None, b"")]
        self._between = _BETWEEN
        self._rewind(self._places[0])

    def tell(self) -> int:
        """The position in the unpacked data."""
        return self._start + self._used

    def seek(self, position: int) -> int:
        """Go to a position in the unpacked data; beyond the end, to the end."""
        if position < self._start:
            places = [place.at for place in self._places]
            self._rewind(self._places[bisect_right(places, position) - 1])
        while position > self._start + len(self._chunk):
            if not self._advance():
                break
        self._used = min(position - self._start, len(self._chunk))
        return self.tell()

    def read(self, size: int) -> bytes:
        """Read up to so many bytes; fewer only at the end.

        Raises:
            EOFError: the file ends before its data do.
            OSError: it cannot be read.
            zlib.error, lzma.LZMAError, ValueError: it is damaged.
            DatasetError: it unpacks to far more than images would.
        """
        parts = []
        while size > 0:
            if self._used == len(self._chunk) and not self._advance():
                break
            part = self._chunk[self._used : self._used + size]
            self._used += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rewind(self, place: _Resume) -> None:
        self.close()
        self._start, self._chunk, self._used = place.at, b"", 0
        self._raw = place.raw
        self._pending = place.pending
        self._decompressor = place.decompressor.copy() if place.decompressor else self._new()

    def _advance(self) -> bool:
        """Unpack the next piece; False at the end."""
        self._start += len(self._chunk)
        self._chunk, self._used = b"", 0
        while not self._chunk:
            if self._decompressor.eof:
                self._pending = self._decompressor.unused_data
                if not self._begin_stream():
                    return False
            elif not self._pending and self._decompressor.needs_input:
                self._pending = self._input()
                if not self._pending:
                    raise EOFError("the compressed data end early")
            self._chunk, self._pending = self._decompressor.unpack(self._pending)
        if self._limit is not None and self._start + len(self._chunk) > self._limit:
            raise DatasetError(
                f"{self._place.location} unpacks to more than {_LARGEST_RATIO} times its size, as no archive of images does; "
                "unpack it if it is your own"
            )
        self._remember()
        return True

    def _begin_stream(self) -> bool:
        """Begin the next of several concatenated streams; zeros between and after them are passed over."""
        while not self._pending.strip(b"\0"):
            self._pending = self._input()
            if not self._pending:
                return False
        self._pending = self._pending.lstrip(b"\0")
        self._decompressor = self._new()
        self._keep(_Resume(self._start, self._raw - len(self._pending), None, b""))
        return True

    def _input(self) -> bytes:
        if self._file is None:
            self._file = self._place.open()
            self._file.seek(self._raw)
        data: bytes = self._file.read(_INPUT)
        self._raw += len(data)
        return data

    def _remember(self) -> None:
        """Remember to be able to go on after the piece that was unpacked last."""
        end = self._start + len(self._chunk)
        if self._can_copy and not self._decompressor.eof and end - self._places[-1].at >= self._between:
            self._keep(_Resume(end, self._raw, self._decompressor.copy(), self._pending))

    def _keep(self, place: _Resume) -> None:
        if place.at - self._places[-1].at < self._between:
            return
        self._places.append(place)
        if len(self._places) > _MOST_PLACES:
            self._places = self._places[::2]
            self._between *= 2


def _decompressor(kind: str, location: str) -> Callable[[], _Unpacker]:
    if kind == "gz":
        return lambda: _Unpacker(zlib.decompressobj(31))
    if kind == "bz2":
        return lambda: _Unpacker(bz2.BZ2Decompressor())
    if kind == "xz":
        return lambda: _Unpacker(lzma.LZMADecompressor(memlimit=1 << 30))
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise DatasetError(
            f"{location} is compressed with Zstandard, which Python reads from version 3.14 on; unpack it once: zstd -d "
            f"{location}"
        ) from error
    return lambda: _Unpacker(zstd.ZstdDecompressor())


class _Unpacker:
    """The decompressors of the standard library behind one interface."""

    def __init__(self, decompressor: Any) -> None:
        self._inner = decompressor

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        """What follows the end of the stream."""
        return bytes(self._inner.unused_data)

    @property
    def needs_input(self) -> bool:
        """Whether it can give nothing more without further input."""
        return bool(getattr(self._inner, "needs_input", True))

    def unpack(self, data: bytes) -> tuple[bytes, bytes]:
        """Some unpacked data, and the input that is left for the next call."""
        try:
            out = self._inner.decompress(data, _OUTPUT)
        except OSError as error:  # of bz2, which has no other name for damage
            raise ValueError(f"the compressed data are damaged ({error})") from error
        return out, getattr(self._inner, "unconsumed_tail", b"")

    def copy(self) -> _Unpacker:
        """A decompressor in the same state."""
        return _Unpacker(self._inner.copy())
