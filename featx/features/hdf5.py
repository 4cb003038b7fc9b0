"""The structure of a feature file, packed and parsed by featx itself in the only form that it ever writes.

The HDF5 library cannot guarantee the same bytes for the same file, and it cannot be given a damaged or hostile file: it has
crashed and hung on single flipped bits, and it follows links to other files. This module therefore writes the few parts of the
HDF5 File Format Specification, version 3.0, that a feature file needs (superblock 2, object headers 2 with compact links and
attributes, contiguous storage, one global heap for text), and reads nothing else: a structure is accepted only if packing what
was parsed gives the same bytes again. Any HDF5 tool opens such a file. ``writer`` has h5py verify that for each new file before
the first row is written.
"""

from __future__ import annotations

import functools
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from featx.errors import CorruptFileError
from featx.features.open_file import read_at

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SECTOR = 512
"""Bytes that a disk writes atomically. The root's header ends at a sector's end, so that one write completes a file."""

TEXT_CRC = "text_crc32"
"""The root's attribute with the CRC-32 of the heap, for which HDF5 has no checksum of its own; ``pack`` adds it."""

_UNDEFINED = 2**64 - 1
_SUPERBLOCK = 48
_ALIGN, _ALIGN_LARGE, _LARGE = 64, 4096, 1 << 16
_MAX_HEADERS, _MAX_HEAP, _MAX_RANK = 1 << 22, 1 << 24, 2  # bytes of all headers, bytes of all text, dimensions
_MIN_HEAP = 4096  # HDF5 accepts no smaller heap

_NIL, _SPACE, _LINK_INFO, _TYPE, _FILL, _LINK, _LAYOUT, _GROUP_INFO, _ATTRIBUTE = 0, 1, 2, 3, 5, 6, 8, 10, 12

_NUMBERS: Mapping[np.dtype[Any], bytes] = {
    np.dtype("u1"): struct.pack("<B3sIHH", 0x10, b"\0\0\0", 1, 0, 8),
    np.dtype("<u4"): struct.pack("<B3sIHH", 0x10, b"\0\0\0", 4, 0, 32),
    np.dtype("<i8"): struct.pack("<B3sIHH", 0x10, b"\x08\0\0", 8, 0, 64),
    np.dtype("<f2"): struct.pack("<B3sIHHBBBBI", 0x11, b"\x20\x0f\0", 2, 0, 16, 10, 5, 0, 10, 15),
    np.dtype("<f4"): struct.pack("<B3sIHHBBBBI", 0x11, b"\x20\x1f\0", 4, 0, 32, 23, 8, 0, 23, 127),
}
_TEXT = struct.pack("<B3sI", 0x19, b"\x01\x01\0", 16) + _NUMBERS[np.dtype("u1")]

Value = str | bytes | int | np.uint8
"""The value of an attribute: text, bytes of fixed length (which HDF5 shows as text), int64 or uint8."""


@dataclass(frozen=True)
class Table:
    """One data set of an HDF5 file.

    Attributes:
        dtype: uint8, uint32, int64, float16, float32, or S<n>: UTF-8 padded with zeros.
        shape: one or two dimensions.
        attrs: its attributes, which are text.
        offset: where its bytes begin in the file; -1 until ``pack`` decides.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    attrs: Mapping[str, str] = field(default_factory=dict)
    offset: int = -1

    @property
    def nbytes(self) -> int:
        """The size of all elements in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Structure:
    """A file without the contents of its data sets.

    Attributes:
        attrs: the attributes of the root.
        tables: the data sets by name, ``group/name`` or ``name``, in the order in which they are stored.
        data: the bytes at the beginning of the file that encode the structure.
        size: the size of the whole file in bytes.
    """

    attrs: Mapping[str, Value]
    tables: Mapping[str, Table]
    data: bytes
    size: int


def pack(attrs: Mapping[str, Value], tables: Mapping[str, Table]) -> Structure:
    r"""Lay out a file. The same arguments give the same bytes in every version of featx.

    Args:
        attrs: the attributes of the root. The last ones lie in the last sector of the root's header.
        tables: the data sets, as in ``Structure``; offsets in the argument are ignored.

    Raises:
        ValueError: a name, shape or length is not possible in a feature file.

    Examples:
        >>> structure = pack({"version": 1}, {"images/label": Table(np.dtype("<i8"), (3,))})
        >>> structure.tables["images/label"].offset, structure.size, structure.data[:4]
        (4800, 4824, b'\x89HDF')
    """
    _require_form(tables)
    texts = [value for value in attrs.values() if isinstance(value, str)]
    heap = _Heap([*texts, *(text for table in tables.values() for text in table.attrs.values())])
    attrs = {TEXT_CRC: zlib.crc32(heap.data), **{name: value for name, value in attrs.items() if name != TEXT_CRC}}
    groups = list(dict.fromkeys(name.rpartition("/")[0] for name in tables if "/" in name))
    members: dict[str, list[str]] = {group: [] for group in ["", *groups]}
    for name in tables:
        members[name.rpartition("/")[0]].append(name)
    root = [*members[""], *groups]
    # A header's length does not depend on the addresses in it, so a first round without addresses gives all addresses.
    addresses = dict.fromkeys([*groups, *tables], 0)
    placed = dict(tables)
    headers: dict[str, bytes] = {}
    for _ in range(2):
        headers = {"": _root_header(attrs, {name: addresses[name] for name in root}, heap)}
        for group in groups:
            headers[group] = _group_header({name.rpartition("/")[2]: addresses[name] for name in members[group]})
        headers.update({name: _table_header(table, heap) for name, table in placed.items()})
        heap.rewind()
        at = _SUPERBLOCK
        for name, header in headers.items():
            addresses[name] = at
            at += len(header)
        if at > _MAX_HEADERS or len(heap.data) > _MAX_HEAP:
            raise ValueError("there are more tables or text than a feature file can have")
        heap.address = _up(at, 8)
        at = heap.address + len(heap.data)
        for name, table in tables.items():
            at = _up(at, _ALIGN_LARGE if table.nbytes >= _LARGE else _ALIGN)
            placed[name] = Table(table.dtype, table.shape, table.attrs, at)
            at += table.nbytes
    front = b"".join([_superblock(at), *headers.values()])
    return Structure(attrs, placed, front.ljust(heap.address, b"\0") + heap.data, at)


def parse(file: int, name: object, *, torn: Mapping[str, Value] | None = None) -> Structure:
    """Read the structure of a file that ``pack`` laid out.

    Args:
        file: a descriptor, open for reading.
        name: the name of the file for messages.
        torn: values for the root's last attributes, which a power cut may have left half written. If everything except these
            attributes and the header's checksum is intact, the structure with these values is returned.

    Raises:
        CorruptFileError: the file is not an HDF5 file, not in this form, truncated, or damaged.
    """
    size = os.fstat(file).st_size
    start = read_at(file, _SUPERBLOCK, 0)
    if not start.startswith(SIGNATURE):
        raise CorruptFileError(f"{name} is not an HDF5 file")
    if start[8:12] != b"\x02\x08\x08\0":
        raise CorruptFileError(f"{name} is an HDF5 file, but not a feature file in the form that featx writes")
    end = int.from_bytes(start[28:36], "little")
    if start == _superblock(end) and end != size:
        raise CorruptFileError(f"{name} has {size:,} bytes instead of {end:,}; it was truncated or extended")
    try:
        attrs, tables = _Parser(file, size).read()
        structure = pack(attrs, tables)
    except (_MalformedError, struct.error, ValueError, LookupError, ArithmeticError, TypeError) as error:
        raise CorruptFileError(
            f"{name}: the structure of the file is damaged ({error or type(error).__name__})"
        ) from error
    data = read_at(file, len(structure.data), 0)
    if torn and data != structure.data and [*attrs][-len(torn) :] == [*torn]:
        structure = pack({**structure.attrs, **torn}, tables)
        end = _SUPERBLOCK + 14 + int.from_bytes(structure.data[_SUPERBLOCK + 6 : _SUPERBLOCK + 10], "little")
        first = end - 4 - sum(len(_attribute(key, value, _Heap([]))) for key, value in torn.items())
        data = data[:first] + structure.data[first:end] + data[end:]
    if structure.size != size or data != structure.data:
        raise CorruptFileError(f"{name}: the structure of the file is damaged, or not in the form that featx writes")
    return structure


@functools.lru_cache(maxsize=1024)  # shards of one data set have the same headers, but for the root's
def checksum(data: bytes) -> int:
    """The 32-bit checksum that HDF5 stores with its headers: Bob Jenkins's lookup3, ``hashlittle`` with initval 0."""
    a = b = c = (0xDEADBEEF + len(data)) & _M
    if not data:
        return c
    words: tuple[int, ...] = struct.unpack(f"<{_up(len(data), 12) // 4}I", data.ljust(_up(len(data), 12), b"\0"))
    for at in range(0, len(words) - 3, 3):
        a, b, c = (a + words[at]) & _M, (b + words[at + 1]) & _M, (c + words[at + 2]) & _M
        a = (a - c) & _M ^ _rotated(c, 4)
        c = (c + b) & _M
        b = (b - a) & _M ^ _rotated(a, 6)
        a = (a + c) & _M
        c = (c - b) & _M ^ _rotated(b, 8)
        b = (b + a) & _M
        a = (a - c) & _M ^ _rotated(c, 16)
        c = (c + b) & _M
        b = (b - a) & _M ^ _rotated(a, 19)
        a = (a + c) & _M
        c = (c - b) & _M ^ _rotated(b, 4)
        b = (b + a) & _M
    a, b, c = (a + words[-3]) & _M, (b + words[-2]) & _M, (c + words[-1]) & _M
    c = ((c ^ b) - _rotated(b, 14)) & _M
    a = ((a ^ c) - _rotated(c, 11)) & _M
    b = ((b ^ a) - _rotated(a, 25)) & _M
    c = ((c ^ b) - _rotated(b, 16)) & _M
    a = ((a ^ c) - _rotated(c, 4)) & _M
    b = ((b ^ a) - _rotated(a, 14)) & _M
    return ((c ^ b) - _rotated(b, 24)) & _M


def packed_attribute(name: str, value: int) -> bytes:
    """The bytes with which a file encodes an attribute that is a number."""
    return _attribute(name, value, _Heap([]))


_M = 0xFFFFFFFF


def _rotated(x: int, k: int) -> int:
    return (x << k | x >> (32 - k)) & _M


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


# Packing


def _require_form(tables: Mapping[str, Table]) -> None:
    groups = {name.rpartition("/")[0] for name in tables}
    for name, table in tables.items():
        parts = name.split("/")
        if len(parts) > 2 or any(part in ("", ".") or "\0" in part for part in parts) or name in groups:
            raise ValueError(f"not a valid name of a data set: {name[:100]!r}")
        if not 1 <= len(table.shape) <= _MAX_RANK:
            raise ValueError(f"{name[:100]} has {len(table.shape)} dimensions; expected 1 or 2")


class _Heap:
    """One global heap collection: the texts of attributes, in the order in which the headers refer to them."""

    def __init__(self, texts: list[str]) -> None:
        self.address = 0
        self._lengths = [len(text.encode()) for text in texts]
        self._next = 0
        objects = []
        for index, text in enumerate(texts, start=1):
            data = text.encode()
            objects.append(struct.pack("<HHIQ", index, 1, 0, len(data)) + data.ljust(_up(len(data), 8), b"\0"))
        used = 16 + sum(map(len, objects))
        size = max(_up(used + 16, 8), _MIN_HEAP)
        free = struct.pack("<HHIQ", 0, 0, 0, size - used)
        head = b"GCOL" + struct.pack("<B3xQ", 1, size)
        self.data = b"".join([head, *objects, free]).ljust(size, b"\0")

    def reference(self) -> bytes:
        """Encode a reference to the next text: its length, the heap's address, its index."""
        self._next += 1
        return struct.pack("<IQI", self._lengths[self._next - 1], self.address, self._next)

    def rewind(self) -> None:
        """Start again with the first text."""
        self._next = 0


def _superblock(end: int) -> bytes:
    data = SIGNATURE + struct.pack("<BBBBQQQQ", 2, 8, 8, 0, 0, _UNDEFINED, end, _SUPERBLOCK)
    return data + struct.pack("<I", checksum(data))


_HEADER = 14
"""Bytes of a header besides its messages."""


def _header(messages: list[bytes]) -> bytes:
    body = b"".join(messages)
    data = b"OHDR" + struct.pack("<BBI", 2, 2, len(body)) + body
    return data + struct.pack("<I", checksum(data))


def _message(kind: int, data: bytes) -> bytes:
    return struct.pack("<BHB", kind, len(data), 0) + data


def _links(targets: Mapping[str, int]) -> list[bytes]:
    """The messages that make a header a group: its links, all of them compact, however many there are."""
    return [
        _message(_LINK_INFO, struct.pack("<BBQQ", 0, 0, _UNDEFINED, _UNDEFINED)),
        _message(_GROUP_INFO, struct.pack("<BBHH", 0, 1, 0xFFFF, 0)),
        *(
            _message(
                _LINK, struct.pack("<BBBH", 1, 0x11, 1, len(name.encode())) + name.encode() + struct.pack("<Q", at)
            )
            for name, at in targets.items()
        ),
    ]


def _group_header(targets: Mapping[str, int]) -> bytes:
    return _header(_links(targets))


def _root_header(attrs: Mapping[str, Value], targets: Mapping[str, int], heap: _Heap) -> bytes:
    links, values = _links(targets), [_attribute(name, value, heap) for name, value in attrs.items()]
    padding = -(_SUPERBLOCK + _HEADER + sum(map(len, [*links, *values])) + 4) % SECTOR
    return _header([*links, _message(_NIL, bytes(padding)), *values])


def _table_header(table: Table, heap: _Heap) -> bytes:
    address = table.offset if table.nbytes else _UNDEFINED
    return _header(
        [
            _message(_SPACE, _space(table.shape)),
            _message(_TYPE, _type(table.dtype)),
            _message(_FILL, b"\x03\x0a"),  # version 3: allocated early, written if set, no value set
            _message(_LAYOUT, struct.pack("<BBQQ", 3, 1, address % 2**64, table.nbytes)),
            *(_attribute(name, value, heap) for name, value in table.attrs.items()),
        ]
    )


def _attribute(name: str, value: Value, heap: _Heap) -> bytes:
    if isinstance(value, str):
        kind, data = _TEXT, heap.reference()
    elif isinstance(value, bytes):
        kind, data = _type(np.dtype(f"S{len(value)}")), value
    elif isinstance(value, np.uint8):
        kind, data = _type(np.dtype("u1")), bytes([value])
    else:
        kind, data = _type(np.dtype("<i8")), struct.pack("<q", value)
    raw, space = name.encode() + b"\0", _space(())
    sizes = struct.pack("<BBHHHB", 3, 0, len(raw), len(kind), len(space), 1)
    return _message(_ATTRIBUTE, sizes + raw + kind + space + data)


def _space(shape: tuple[int, ...]) -> bytes:
    return struct.pack(f"<BBBB{len(shape)}Q", 2, len(shape), 0, 1 if shape else 0, *shape)


def _type(dtype: np.dtype[Any]) -> bytes:
    if dtype.kind == "S":
        return struct.pack("<B3sI", 0x13, b"\x11\0\0", dtype.itemsize)
    return _NUMBERS[dtype.newbyteorder("<")]


# Parsing. It need not be strict, because its result is packed again and compared with the file.


class _MalformedError(Exception):
    pass


class _Parser:
    """Parse a file in no more time and memory than the largest valid file needs, whatever the file contains."""

    def __init__(self, file: int, size: int) -> None:
        self.file, self.size = file, size
        self.budget = 2 * _MAX_HEADERS  # bytes of headers; a group's name counts again for each of its tables
        self.heaps: dict[int, dict[int, bytes]] = {}

    def read(self) -> tuple[dict[str, Value], dict[str, Table]]:
        """Read the root's attributes, and the tables in the order of their headers."""
        root = list(self._messages(_SUPERBLOCK))
        attrs = dict(self._attribute(data) for kind, data in root if kind == _ATTRIBUTE)
        tables: list[tuple[int, str, Table]] = []
        for name, address in self._links(root):
            messages = list(self._messages(address))
            if any(kind == _LINK_INFO for kind, _ in messages):
                for inner, at in self._links(messages):
                    self._spend(len(name))
                    tables.append((at, f"{name}/{inner}", self._table(list(self._messages(at)))))
            else:
                tables.append((address, name, self._table(messages)))
        return attrs, {name: table for _, name, table in sorted(tables, key=lambda entry: entry[0])}

    def _spend(self, count: int) -> None:
        self.budget -= count
        if self.budget < 0:
            raise _MalformedError("it has more headers than a feature file can have")

    def _bytes(self, address: int, count: int) -> bytes:
        data = read_at(self.file, count, address) if address + count <= self.size else b""
        if len(data) != count:
            raise _MalformedError(f"{count} bytes at {address} of {self.size}")
        return data

    def _messages(self, address: int) -> Iterator[tuple[int, bytes]]:
        signature, version, flags, count = struct.unpack("<4sBBI", self._bytes(address, 10))
        if (signature, version, flags) != (b"OHDR", 2, 2):
            raise _MalformedError(f"no object header at {address}")
        self._spend(14 + count)
        body, at = self._bytes(address + 10, count), 0
        while at < count:
            kind, length, _ = struct.unpack_from("<BHB", body, at)
            yield kind, body[at + 4 : at + 4 + length]
            at += 4 + length

    def _links(self, messages: list[tuple[int, bytes]]) -> Iterator[tuple[str, int]]:
        for kind, data in messages:
            if kind == _LINK:
                version, flags, _, length = struct.unpack_from("<BBBH", data)
                if (version, flags) != (1, 0x11):
                    raise _MalformedError("a link that is not a hard one")
                yield data[5 : 5 + length].decode(), struct.unpack_from("<Q", data, 5 + length)[0]

    def _table(self, messages: list[tuple[int, bytes]]) -> Table:
        one = dict(messages)
        rank = one[_SPACE][1]
        if rank > _MAX_RANK or one[_LAYOUT][:2] != b"\x03\x01":
            raise _MalformedError("a data set that is not stored whole and contiguous in the file")
        shape = struct.unpack_from(f"<{rank}Q", one[_SPACE], 4)
        attrs = dict(self._attribute(data) for kind, data in messages if kind == _ATTRIBUTE)
        table = Table(_dtype(one[_TYPE]), shape, {name: _text(value) for name, value in attrs.items()})
        if table.nbytes > self.size:
            raise _MalformedError(f"a data set of {table.nbytes:,} bytes in a file of {self.size:,}")
        return table

    def _attribute(self, data: bytes) -> tuple[str, Value]:
        _, _, name_size, type_size, space_size, _ = struct.unpack_from("<BBHHHB", data)
        kind = data[9 + name_size : 9 + name_size + type_size]
        name = data[9 : 9 + name_size].rstrip(b"\0").decode()
        value = data[9 + name_size + type_size + space_size :]
        if kind == _TEXT:
            _, address, index = struct.unpack("<IQI", value)
            return name, self._heap(address).pop(index).decode()  # each text belongs to exactly one attribute
        dtype = _dtype(kind)
        if dtype.kind == "S":
            return name, value
        number = np.frombuffer(value, dtype, 1)[0]
        return name, number if dtype == np.uint8 else int(number)

    def _heap(self, address: int) -> dict[int, bytes]:
        if address not in self.heaps:
            if self.heaps:
                raise _MalformedError("more than one heap")
            signature, _, size = struct.unpack("<4sB3xQ", self._bytes(address, 16))
            if signature != b"GCOL" or size > _MAX_HEAP:
                raise _MalformedError(f"no heap at {address}")
            data, at, objects = self._bytes(address, size), 16, {}
            while index := struct.unpack_from("<H", data, at)[0]:
                length = struct.unpack_from("<Q", data, at + 8)[0]
                objects[index] = data[at + 16 : at + 16 + length]
                at += 16 + _up(length, 8)
            self.heaps[address] = objects
        return self.heaps[address]


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise _MalformedError("an attribute that is not text")
    return value


def _dtype(kind: bytes) -> np.dtype[Any]:
    for dtype, packed in _NUMBERS.items():
        if packed == kind:
            return dtype
    length: int = struct.unpack_from("<I", kind, 4)[0]
    return np.dtype(f"S{min(length, 2**31 - 1) or 1}")
