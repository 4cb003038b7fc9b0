"""The members of a tar, listed from their headers; compressed ones are unpacked on the way. Nothing is extracted."""

from __future__ import annotations

import io
import itertools
import lzma
import struct
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any

from featx.data.places import Place, size_of
from featx.data.sources.archive_index import (
    ArchiveIndex,
    Member,
    is_text,
    link_target,
    member_path,
    why_unsafe,
)
from featx.data.sources.unpacked import Unpacked
from featx.errors import DatasetError, FeatxError
from featx.text import brief, printable

BLOCK = 512
"""Bytes of a header, and what the data of members are padded to a multiple of."""

_LARGEST_HEADER = 1 << 24
"""A header with a long name or extended attributes of more bytes is taken for damage."""

_PADDING = 1 << 14
"""Bytes after the end of an archive in which another one is looked for."""

_DAMAGED = (
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    RecursionError,
)
"""What the standard library raises for bytes that are no tar."""


def list_tar(file: Place, kind: str) -> ArchiveIndex:
    """List the members of a tar.

    Args:
        file: the archive.
        kind: "tar", or how it is compressed: "gz", "bz2", "xz", "zst".

    Returns:
        What it holds; of an archive that ends early, what lies before its end, and a note.

    Raises:
        DatasetError: it is no tar, is damaged, or cannot be unpacked by this Python.
        OSError: it cannot be read.
    """
    index = ArchiveIndex(kind)
    links: dict[str, str] = {}
    stream: Any = file.open() if kind == "tar" else Unpacked(file, kind)
    end = size_of(file) if kind == "tar" else -1
    last = ""
    try:
        for header in _headers(stream, index):
            _take(header, index, links, stream)
            last = header.name
            if header.isreg() and not header.issparse() and 0 <= end < header.offset_data + header.size:
                raise EOFError
    except EOFError as error:
        if not last:
            raise DatasetError(
                f"{file.location} is cut off before its first member. Download or make it again"
            ) from error
        index.notes.append(
            f"is cut off in or after {printable(last)}; what follows is missing. Download or make it again"
        )
    except _DAMAGED as error:
        if isinstance(error, FeatxError):
            raise
        why = f"is damaged after its member {printable(last)}" if last else "is no tar that can be read"
        raise DatasetError(f"{file.location} {why}: {brief(error)}. Download or make it again") from error
    finally:
        stream.close()
    index.resolve(links)
    return index


def _headers(stream: Any, index: ArchiveIndex) -> Iterator[tarfile.TarInfo]:
    """The headers of a tar, in their order.

    Raises:
        EOFError: it ends within a header.
        tarfile.TarError: a header is damaged.
    """
    source: Any = _Guarded(stream)
    # The loop of TarFile takes a damaged header for the end. Of it only the reading of one header is used.
    reader = tarfile.TarFile(fileobj=io.BytesIO(bytes(2 * BLOCK)), mode="r", encoding="utf-8", errors="surrogateescape")
    reader.fileobj = source
    at = 0
    while True:
        source.seek(at)
        reader.offset = at
        try:
            header = tarfile.TarInfo.fromtarfile(reader)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            _look_behind(stream, index)
            return
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            if at == 0:
                raise
            return  # some programs write no mark at the end
        except tarfile.TruncatedHeaderError as error:  # type: ignore[attr-defined]
            if at == 0:
                raise
            raise EOFError from error
        after = reader.offset
        if after <= at or header.size < 0:
            raise tarfile.ReadError("a header has a negative size")
        yield header
        at = after


def _take(header: tarfile.TarInfo, index: ArchiveIndex, links: dict[str, str], stream: Any) -> None:
    """Take up one member."""
    if why := why_unsafe(header.name):
        if not header.isdir():
            index.skipped[why] += 1
        return
    path = member_path(header.name)
    if header.isdir():
        index.folders.append(path)
    elif header.issym() or header.islnk():
        index.members.pop(path, None)
        links[path] = link_target(path, header.linkname) if header.issym() else member_path(header.linkname)
    elif header.issparse():
        index.skipped["stored as sparse files"] += 1
    elif not header.isreg():
        index.skipped["devices, pipes or other things that are no files"] += 1
    else:
        links.pop(path, None)
        index.add(path, Member(header.offset_data, header.size))
        if is_text(path, header.size):
            stream.seek(header.offset_data)
            index.texts[path] = stream.read(header.size)


def _look_behind(stream: Any, index: ArchiveIndex) -> None:
    """Note what follows the end of the archive; a compressed one is read to its end, where its checksum is."""
    for _ in itertools.count():
        data = stream.read(_PADDING)
        if data.strip(b"\0"):
            index.notes.append(
                "goes on behind the end of its archive, as if several had been joined; the rest is left out"
            )
            return
        if not data or index.kind == "tar":
            return


class _Guarded:
    """The file under ``tarfile``, which reads headers alone: it refuses to read as much as a damaged header demands."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._left = _LARGEST_HEADER

    def seek(self, position: int) -> int:
        """Go to the next header."""
        self._left = _LARGEST_HEADER
        return int(self._inner.seek(position))

    def tell(self) -> int:
        """The position."""
        return int(self._inner.tell())

    def read(self, size: int) -> bytes:
        """Read a part of a header."""
        self._left -= size
        if size < 0 or self._left < 0:
            raise tarfile.ReadError(f"a header has more than {_LARGEST_HEADER:,} bytes")
        data: bytes = self._inner.read(size)
        return data


def check_header(block: bytes, size: int) -> bool:
    """Whether the block before the data of a member is the header of a file of this size."""
    checksum = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    try:
        stated = int(block[148:156].strip(b"\0 ") or b"0", 8)
        if block[124] & 0x80:  # a size of more than 8 GiB
            return stated == checksum
        declared = int(block[124:136].strip(b"\0 ") or b"0", 8)
    except ValueError:
        return False
    return stated == checksum and declared in (size, 0)  # that of a large file may stand in an extended header
