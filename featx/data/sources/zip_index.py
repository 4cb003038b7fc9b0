"""The members of a zip, listed from its central directory, and the bytes of one. Standard library only.

The format is that of PKWARE's APPNOTE. ``zipfile`` is not used: it refuses a whole archive for one bad name, and has one
position for all threads.
"""

from __future__ import annotations

import bz2
import contextlib
import lzma
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from featx.data.places import Place, size_of
from featx.data.sources.archive_index import ArchiveIndex, Member, is_text, link_target, member_path, why_unsafe
from featx.errors import DatasetError, ImageError

_END, _END_SIZE = b"PK\5\6", 22
_END64, _END64_SIZE, _LOCATOR, _LOCATOR_SIZE = b"PK\6\6", 56, b"PK\6\7", 20
_ENTRY, _LOCAL = struct.Struct("<4s4B4HL2L5H2L"), struct.Struct("<4s2B4HL2L2H")
_LONGEST_COMMENT = (1 << 16) - 1
_UNKNOWN32 = 0xFFFFFFFF
_EXTRA_ZIP64, _EXTRA_NAME = 0x0001, 0x7075
_ENCRYPTED, _UTF8, _PATCHED = 0x1, 0x800, 0x20
_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14
_METHOD_PATCHED = -3
_METHODS = {_METHOD_PATCHED: "patches", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES encryption"}
_DOS, _NTFS = 0, 10
"""Systems whose programs may write backslashes between folders."""

ENCRYPTED = -2
"""The method of a member that needs a password."""

_LARGEST_LINK = 4096
_LARGEST_DIRECTORY = 1 << 31
"""A list of members of more bytes, which is that of some ten million, is not read into memory."""

_SPARE = 64
"""Bytes by which a local header is expected to be longer than the one in the central directory."""


class _Entry(NamedTuple):
    """One entry of the central directory: the name, the member, and the mode that Unix gave it."""

    name: str
    member: Member
    mode: int


def list_zip(file: Place) -> ArchiveIndex:
    """List the members of a zip.

    Raises:
        DatasetError: it is no zip, is damaged or cut off, or is a part of a split archive.
        OSError: it cannot be read.
    """
    index = ArchiveIndex("zip")
    links: dict[str, Member] = {}
    try:
        for entry in _entries(file):
            _take(entry, index, links)
    except (struct.error, OverflowError) as error:
        raise DatasetError(f"{file.location} is damaged in its list of members. Download or make it again") from error
    for path, member in index.members.items():
        if is_text(path, member.size) and member.method != ENCRYPTED:
            with contextlib.suppress(ImageError):
                index.texts[path] = read_member(file, member)
    index.resolve({path: _target(file, path, member) for path, member in links.items()})
    return index


def read_member(file: Place, member: Member) -> bytes:
    """Read one file of a zip, with one range read as a rule; never more than its declared size is unpacked.

    Raises:
        ImageError: it needs a password, is compressed in a way that the standard library does not know, or is damaged.
        OSError: the archive cannot be read.
    """
    if member.method == ENCRYPTED:
        raise ImageError("needs a password; unpack the archive")
    if member.method not in _READERS:
        name = _METHODS.get(member.method, f"method {member.method}")
        raise ImageError(f"is compressed with {name}, which featx does not read; unpack the archive, or make it again")
    if member.method == _STORED and member.packed != member.size:
        raise ImageError("is damaged in its archive: its sizes differ")
    if member.packed > member.size + member.size // 50 + 1024:
        raise ImageError("is damaged in its archive: it is larger packed than unpacked")
    data = file.read(member.offset, _LOCAL.size + _SPARE + member.packed)
    if len(data) < _LOCAL.size or data[:4] != b"PK\3\4":
        raise ImageError("is damaged or cut off in its archive: there is no header")
    begin = _LOCAL.size + sum(_LOCAL.unpack_from(data)[-2:])
    missing = begin + member.packed - len(data)
    if missing > 0:
        data += file.read(member.offset + len(data), missing)
    packed = memoryview(data)[begin : begin + member.packed]
    try:
        unpacked = _READERS[member.method](packed, member.size)
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError, struct.error) as error:
        raise ImageError("is damaged in its archive: it cannot be unpacked") from error
    if len(unpacked) != member.size or zlib.crc32(unpacked) != member.crc:
        raise ImageError("is damaged in its archive: its checksum does not fit")
    return unpacked


def _take(entry: _Entry, index: ArchiveIndex, links: dict[str, Member]) -> None:
    """Take up one member."""
    path = member_path(entry.name)
    if entry.name.endswith("/") or stat.S_ISDIR(entry.mode):
        if path:
            index.folders.append(path)
    elif why := why_unsafe(entry.name):
        index.skipped[why] += 1
    elif stat.S_ISLNK(entry.mode):
        index.members.pop(path, None)
        links[path] = entry.member
    elif entry.mode and stat.S_IFMT(entry.mode) not in (0, stat.S_IFREG):
        index.skipped["devices, pipes or other things that are no files"] += 1
    else:
        links.pop(path, None)
        index.add(path, entry.member)


def _target(file: Place, path: str, member: Member) -> str:
    """Where a symbolic link leads; its target is the content of the member."""
    if member.size > _LARGEST_LINK:
        return ""
    try:
        return link_target(path, read_member(file, member).decode("utf-8", "surrogateescape"))
    except ImageError:
        return ""


# The central directory


def _entries(file: Place) -> Iterator[_Entry]:
    directory, first = _directory(file)
    at = 0
    while at + _ENTRY.size <= len(directory):
        fields = _ENTRY.unpack_from(directory, at)
        system, flags, method, crc, packed, size = fields[2], fields[5], fields[6], *fields[9:12]
        name_size, extra_size, comment_size = fields[12:15]
        attributes, offset = fields[17:]
        begin = at + _ENTRY.size
        raw, extra = directory[begin : begin + name_size], directory[begin + name_size : begin + name_size + extra_size]
        at = begin + name_size + extra_size + comment_size
        if fields[0] != b"PK\1\2" or len(extra) < extra_size:
            raise struct.error
        extras = _extras(extra)
        size, packed, offset = _large(extras.get(_EXTRA_ZIP64, b""), size, packed, offset)
        method = ENCRYPTED if flags & _ENCRYPTED else _METHOD_PATCHED if flags & _PATCHED else method
        member = Member(first + offset, size, packed, method, crc)
        mode = attributes >> 16 if system not in (_DOS, _NTFS) else 0
        yield _Entry(_name(raw, flags, extras, system), member, mode)
    if at != len(directory):
        raise struct.error


def _directory(file: Place) -> tuple[bytes, int]:
    """The central directory, and the bytes before the archive that its offsets do not count.

    Raises:
        DatasetError: there is none.
        struct.error: it is damaged.
    """
    total = size_of(file)
    begin = max(0, total - _LONGEST_COMMENT - _END_SIZE)
    tail = file.read(begin, total - begin) if total > 0 else b""
    found = _end_record(tail)
    if found < 0:
        raise DatasetError(
            f"{file.location} is cut off or no zip: the list of its members, which stands at the end, is missing. Download or "
            "make it again"
        )
    disk, first_disk, here, count, size, offset = struct.unpack_from("<4H2L", tail, found + 4)
    end = begin + found
    locator = file.read(max(0, end - _LOCATOR_SIZE), _LOCATOR_SIZE) if end >= _LOCATOR_SIZE else b""
    if locator[:4] == _LOCATOR:
        record = struct.unpack_from("<Q", locator, 8)[0]
        data = file.read(record, _END64_SIZE)
        if data[:4] != _END64:  # something stands before the archive
            record = end - _LOCATOR_SIZE - _END64_SIZE
            data = file.read(max(0, record), _END64_SIZE)
        if data[:4] != _END64:
            raise struct.error
        disk, first_disk, here, count, size, offset = struct.unpack_from("<2L4Q", data, 16)
        end = record
    if disk or first_disk or here != count:
        raise DatasetError(
            f"{file.location} is a part of a split zip; join its parts first: zip -s 0 IN.zip --out OUT.zip"
        )
    first = end - size - offset
    if first < 0 or size > _LARGEST_DIRECTORY:
        raise struct.error
    directory = file.read(first + offset, size)
    if len(directory) < size:
        raise struct.error
    return directory, first


def _end_record(tail: bytes) -> int:
    """Where the record at the end of a zip begins, -1 for nowhere: the last one whose comment ends where the file ends."""
    last = at = tail.rfind(_END, 0, max(0, len(tail) - _END_SIZE + len(_END)))
    while at >= 0:
        if at + _END_SIZE + struct.unpack_from("<H", tail, at + _END_SIZE - 2)[0] == len(tail):
            return at
        at = tail.rfind(_END, 0, at)
    return last


def _extras(data: bytes) -> dict[int, bytes]:
    """The extra fields of an entry by their numbers."""
    found = {}
    at = 0
    while at + 4 <= len(data):
        kind, size = struct.unpack_from("<2H", data, at)
        found[kind] = data[at + 4 : at + 4 + size]
        at += 4 + size
    return found


def _large(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The sizes and the offset of an entry of a large archive, which stand in an extra field."""
    values = [size, packed, offset]
    at = 0
    for number, value in enumerate(values):
        if value == _UNKNOWN32:
            values[number] = struct.unpack_from("<Q", extra, at)[0]
            at += 8
    return values[0], values[1], values[2]


def _name(raw: bytes, flags: int, extras: dict[int, bytes], system: int) -> str:
    """The name of an entry: UTF-8 where it is marked so, or valid; else in code page 437, as the format has it."""
    own = extras.get(_EXTRA_NAME, b"")
    if len(own) > 5 and own[0] == 1 and struct.unpack_from("<L", own, 1)[0] == zlib.crc32(raw):
        raw, flags = own[5:], flags | _UTF8
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        name = raw.decode("utf-8", "surrogateescape") if flags & _UTF8 else raw.decode("cp437")
    name = name.partition("\0")[0]
    return name.replace("\\", "/") if system in (_DOS, _NTFS) and "/" not in name else name


# Unpacking


def _stored(data: memoryview, size: int) -> bytes:  # noqa: ARG001 - every reader takes it
    return bytes(data)


def _inflated(data: memoryview, size: int) -> bytes:
    return zlib.decompressobj(-15).decompress(data, size + 1)


def _from_bzip2(data: memoryview, size: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, size + 1)


def _from_lzma(data: memoryview, size: int) -> bytes:
    _, length, first, dictionary = struct.unpack_from("<2sHBL", data)
    settings: dict[str, Any] = {"id": lzma.FILTER_LZMA1, "dict_size": dictionary}
    settings |= {"lc": first % 9, "lp": first // 9 % 5, "pb": first // 45}
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[settings]).decompress(data[4 + length :], size)


_READERS = {_STORED: _stored, _DEFLATED: _inflated, _BZIP2: _from_bzip2, _LZMA: _from_lzma}
