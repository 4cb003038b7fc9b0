"""The structure of a feature file: HDF5 reads what is packed, and nothing but what is packed is ever parsed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featx.errors import CorruptFileError
from featx.features import hdf5
from featx.features.hdf5 import SECTOR, TEXT_CRC, Structure, Table, checksum, pack, parse

Attrs = Mapping[str, hdf5.Value]
Tables = Mapping[str, Table]

U1, U4, I8, F2, F4 = (np.dtype(name) for name in ("u1", "<u4", "<i8", "<f2", "<f4"))

INCOMPLETE: Attrs = {"digest": b"0" * 64, "complete": np.uint8(0)}
COMPLETE: Attrs = {"digest": b"a1b2c3d4" * 8, "complete": np.uint8(1)}
ATTRS: Attrs = {"format": "f\u00fcnf", "version": 1, **COMPLETE}
SMALL: Tables = {"names": Table(np.dtype("S3"), (2,)), "group/rows": Table(F4, (2, 3), {"identity": "a" * 10})}


def lay(path: Path, structure: Structure) -> Path:
    """A file of this structure; its data sets are zero."""
    with path.open("wb") as file:
        file.write(structure.data)
        file.truncate(structure.size)
    return path


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor for reading and writing."""
    handle = os.open(path, os.O_RDWR)
    try:
        yield handle
    finally:
        os.close(handle)


def parsed(path: Path, torn: Attrs | None = None) -> Structure:
    with opened(path) as handle:
        return parse(handle, "f.h5", torn=torn)


def bare(attrs: Attrs) -> dict[str, hdf5.Value]:
    """Less what ``pack`` adds."""
    return {name: value for name, value in attrs.items() if name != TEXT_CRC}


def described(tables: Tables) -> dict[str, tuple[np.dtype[Any], tuple[int, ...], dict[str, str]]]:
    """In their order, less their offsets."""
    return {name: (table.dtype, table.shape, dict(table.attrs)) for name, table in tables.items()}


def root_end(data: bytes) -> int:
    """Where the root's header ends."""
    return int(48 + 14 + int.from_bytes(data[54:58], "little"))


# Whatever is packed is parsed, and read by HDF5

LETTERS = st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"])
NAMES = st.text(LETTERS, min_size=1, max_size=12).filter(lambda name: name != ".")
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
VALUES = (
    TEXT
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(0, 255).map(np.uint8)
    | st.binary(min_size=1, max_size=80).filter(lambda value: value[-1] != 0)  # HDF5 pads with zeros
)
DTYPES = st.sampled_from([U1, U4, I8, F2, F4]) | st.integers(1, 300).map(lambda width: np.dtype(f"S{width}"))
SHAPES = st.lists(st.integers(0, 9), min_size=1, max_size=2).map(tuple) | st.just((300, 100))


@st.composite
def structures(draw: st.DrawFn) -> tuple[dict[str, hdf5.Value], dict[str, Table]]:
    """Attributes and tables of any names that a file can have."""
    attrs = draw(st.dictionaries(NAMES.filter(lambda name: name != TEXT_CRC), VALUES, max_size=6))
    groups = draw(st.lists(NAMES, max_size=3, unique=True))
    tables = {}
    for name in draw(st.lists(NAMES, max_size=8, unique=True)):
        group = draw(st.sampled_from(["", *(f"{group}/" for group in groups)]))
        if group or name not in groups:
            own = draw(st.dictionaries(NAMES, TEXT, max_size=2))
            tables[group + name] = Table(draw(DTYPES), draw(SHAPES), own)
    return attrs, tables


def as_read_by_hdf5(file: h5py.File) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
    """The root's attributes, and each data set with its type, shape, place, layout and attributes."""
    found: dict[str, tuple[Any, ...]] = {}

    def note(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            layout = entry.id.get_create_plist().get_layout()
            found[name] = (entry.dtype, entry.shape, entry.id.get_offset(), layout, dict(entry.attrs))

    file.visititems(note)
    values = {name: v.tobytes() if isinstance(v, np.bytes_) else v for name, v in file.attrs.items()}
    return values, found


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(structures(), st.integers(0, 2**32))
def test_hdf5_reads_what_is_packed_and_parse_gives_it_back(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[dict[str, hdf5.Value], dict[str, Table]], seed: int
) -> None:
    attrs, tables = made
    structure = pack(attrs, tables)
    path = lay(tmp_path_factory.mktemp("hdf5") / "f.h5", structure)
    again = parsed(path)
    assert bare(again.attrs) == attrs
    assert described(again.tables) == described(structure.tables)
    assert described(again.tables).keys() == tables.keys()
    assert (again.data, again.size, dict(again.tables)) == (structure.data, structure.size, dict(structure.tables))
    rng = np.random.default_rng(seed)
    contents = {name: rng.integers(1, 128, table.nbytes, dtype=np.uint8) for name, table in tables.items()}
    with opened(path) as handle:
        for name, raw in contents.items():
            os.pwrite(handle, raw.tobytes(), structure.tables[name].offset)
    with h5py.File(path, "r") as file:
        values, found = as_read_by_hdf5(file)
        assert values == structure.attrs
        assert {name: type(value) for name, value in values.items() if isinstance(value, np.integer)} == {
            name: np.uint8 if isinstance(value, np.uint8) else np.int64
            for name, value in structure.attrs.items()
            if isinstance(value, int | np.uint8)
        }
        assert found == {
            name: (t.dtype, t.shape, t.offset if t.nbytes else None, h5py.h5d.CONTIGUOUS, dict(t.attrs))
            for name, t in structure.tables.items()
        }
        for name, raw in contents.items():
            assert file[name][()].tobytes() == raw.tobytes()
            text = h5py.check_string_dtype(file[name].dtype)
            assert (text and text.encoding) == ("utf-8" if tables[name].dtype.kind == "S" else None)


def many_layers(count: int) -> dict[str, Table]:
    """As a feature file of so many layers has them."""
    tables = {"images/path": Table(np.dtype("S40"), (1000,))}
    for number in range(count):
        tables[f"features/layer{number}"] = Table(F4, (1000, 2048), {"identity": f"{number:064}"})
        tables[f"checks/layer{number}"] = Table(U4, (1000,))
    return tables


def test_a_file_of_hundreds_of_layers_is_read_by_hdf5_and_by_parse(tmp_path: Path) -> None:
    structure = pack(ATTRS, many_layers(300))
    path = lay(tmp_path / "f.h5", structure)
    assert parsed(path).tables == structure.tables
    with h5py.File(path, "r") as file:
        assert len(file["features"]) == 300
        for name, table in structure.tables.items():
            assert file[name].id.get_offset() == table.offset
            assert dict(file[name].attrs) == table.attrs


def test_the_order_of_the_tables_is_the_order_in_the_file(tmp_path: Path) -> None:
    tables = {name: Table(U1, (5,)) for name in ("z", "b/x", "a", "b/a", "c/x")}
    structure = pack({}, tables)
    assert list(parsed(lay(tmp_path / "f.h5", structure)).tables) == list(tables)
    offsets = [table.offset for table in structure.tables.values()]
    assert offsets == sorted(set(offsets))


def test_tables_begin_at_multiples_of_64_and_large_ones_at_multiples_of_4096() -> None:
    structure = pack(ATTRS, {f"t{size}": Table(U1, (size,)) for size in (1, 63, 2**16 - 1, 2**16, 7, 2**20, 0, 1)})
    end = len(structure.data)
    for table in structure.tables.values():
        assert table.offset % (4096 if table.nbytes >= 2**16 else 64) == 0
        assert table.offset >= end
        end = table.offset + table.nbytes
    assert structure.size >= end


def test_the_attributes_that_complete_a_file_lie_in_one_sector_with_their_checksum() -> None:
    for count in range(60):
        tables = {f"group/{'x' * number}": Table(U1, (1,)) for number in range(1, count + 2)}
        attrs = {f"a{number}": "text" for number in range(count)}
        old, new = (pack({**attrs, **last}, tables).data for last in (INCOMPLETE, COMPLETE))
        changed = [at for at in range(len(old)) if old[at] != new[at]]
        assert len(old) == len(new)
        assert changed[0] // SECTOR == changed[-1] // SECTOR
        assert root_end(old) % SECTOR == 0
        assert changed[-1] == root_end(old) - 1


def test_the_same_arguments_give_the_same_bytes_for_ever() -> None:
    tables = {**SMALL, "none": Table(I8, (0,)), "wide": Table(F2, (600, 70), {"k": "\u00e9"}), "b/n": Table(U4, (1,))}
    structure = pack({"a": "text", "n": -5, "u": np.uint8(7), "x": b"fixed"}, tables)
    assert hashlib.sha256(structure.data).hexdigest() == GOLDEN
    assert structure.size == 92_228
    assert pack(structure.attrs, structure.tables) == structure


GOLDEN = "2c03695954ef5b3bc2cc22ebc2f7ad3f752c1f04d6a7fd6bd545ccb44e8fcae8"


@pytest.mark.parametrize(
    "name", ["", ".", "/", "a/", "/a", "a/b/c", "a/.", "a\0b", "g", "g/x/y"], ids=lambda name: repr(name)
)
def test_a_name_that_hdf5_reads_otherwise_is_not_packed(name: str) -> None:
    with pytest.raises(ValueError, match="not a valid name of a data set: "):
        pack({}, {name: Table(U1, (1,)), "g/x": Table(U1, (1,))})


@pytest.mark.parametrize("shape", [(), (1, 2, 3)])
def test_a_table_has_one_or_two_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"rows has {len(shape)} dimensions"):
        pack({}, {"rows": Table(U1, shape)})


def test_what_is_too_much_to_be_parsed_is_not_packed(tmp_path: Path) -> None:
    assert parsed(lay(tmp_path / "f.h5", pack({"text": "x" * (2**24 - 100)}, SMALL))).attrs["text"] == "x" * (
        2**24 - 100
    )
    with pytest.raises(ValueError, match="more tables or text than a feature file can have"):
        pack({"text": "x" * 2**24}, SMALL)
    tables = {f"{'n' * 1000}{number}": Table(U1, (1,)) for number in range(5000)}
    with pytest.raises(ValueError, match="more tables or text than a feature file can have"):
        pack({}, tables)


# The checksum


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"", 0xDEADBEEF), (b"Four score and seven years ago", 0x17770551)],  # both are in Bob Jenkins's lookup3.c
)
def test_the_checksum_has_its_published_values(data: bytes, value: int) -> None:
    assert checksum(data) == value


def test_the_checksum_is_that_of_hdf5s_own_superblock_and_headers(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        for number in range(13):  # names of many lengths: every rest of 12 bytes
            file.create_group("x" * (number + 1))
    data = (tmp_path / "f.h5").read_bytes()
    assert checksum(data[:44]) == int.from_bytes(data[44:48], "little")
    lengths, at = set(), data.find(b"OHDR")
    while at >= 0:
        flags = data[at + 5]
        size_at = at + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        end = size_at + width + int.from_bytes(data[size_at : size_at + width], "little")
        assert checksum(data[at:end]) == int.from_bytes(data[end : end + 4], "little")
        lengths.add((end - at) % 12)
        at = data.find(b"OHDR", at + 4)
    assert lengths


@pytest.mark.parametrize("length", range(26))
def test_the_checksum_depends_on_every_bit_and_on_the_length(length: int) -> None:
    data = bytes(range(1, length + 1))
    seen = {checksum(data), checksum(data + b"\0")}
    for bit in range(8 * length):
        seen.add(checksum((int.from_bytes(data, "little") ^ 1 << bit).to_bytes(length, "little")))
    assert len(seen) == 2 + 8 * length


# Damage


def test_every_single_flipped_bit_of_a_structure_is_refused(tmp_path: Path) -> None:
    structure = pack(ATTRS, SMALL)
    path, end = lay(tmp_path / "f.h5", structure), len(structure.data)
    data, heap = structure.data, structure.data.index(b"GCOL")
    with opened(path) as handle:
        for at in range(end):
            byte, padding = data[at], at > heap + 200 or not any(data[at - 9 : at + 9])
            for bit in range(at % 9, 8, 9) if padding else range(8):
                os.pwrite(handle, bytes([byte ^ 1 << bit]), at)
                with pytest.raises(CorruptFileError, match=r"f\.h5"):
                    parse(handle, "f.h5")
            os.pwrite(handle, bytes([byte]), at)
        assert parse(handle, "f.h5") == structure


def test_a_flipped_bit_outside_what_may_be_torn_is_refused_or_seen_in_an_unfinished_file_too(tmp_path: Path) -> None:
    structure = pack({"format": "f", "version": 1, "text": "t\u00fc" * 20, **INCOMPLETE}, SMALL)
    path, data = lay(tmp_path / "f.h5", structure), structure.data
    torn = range(data.index(b"digest\0") - 13, root_end(data))
    mended = 0
    with opened(path) as handle:
        for at in range(data.index(b"GCOL") + 200):
            for bit in range(at % 3, 8, 3):
                os.pwrite(handle, bytes([data[at] ^ 1 << bit]), at)
                try:
                    found = parse(handle, "f.h5", torn=INCOMPLETE)
                except CorruptFileError:
                    continue
                if found == structure:
                    assert at in torn
                    mended += 1
                else:  # the root's checksum may be torn, so its names and numbers are as good as what they say
                    assert at < root_end(data)
            os.pwrite(handle, data[at : at + 1], at)
    assert mended > 64


def test_a_structure_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    structure = pack(ATTRS, SMALL)
    path = lay(tmp_path / "f.h5", structure)
    message = r"f\.h5.*(truncated or extended|damaged|not an HDF5 file|not a feature file)"
    with opened(path) as handle:
        for size in reversed(range(structure.size)):
            os.ftruncate(handle, size)
            for torn in (None, INCOMPLETE) if size % 7 == 0 else (None,):
                with pytest.raises(CorruptFileError, match=message):
                    parse(handle, "f.h5", torn=torn)


def test_a_file_with_a_byte_more_is_refused(tmp_path: Path) -> None:
    path = lay(tmp_path / "f.h5", pack(ATTRS, SMALL))
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(CorruptFileError, match=r"f\.h5 has 5,017 bytes instead of 5,016; it was truncated or extended"):
        parsed(path)


@pytest.mark.parametrize(("before", "after"), [(INCOMPLETE, COMPLETE), (COMPLETE, INCOMPLETE)])
def test_the_write_that_completes_a_file_may_be_torn_at_every_byte(tmp_path: Path, before: Attrs, after: Attrs) -> None:
    first = {"format": "f", "version": 1, "text": "t"}
    old, new = (pack({**first, **last}, SMALL) for last in (before, after))
    unfinished = pack({**first, **INCOMPLETE}, SMALL)
    changed = [at for at in range(len(old.data)) if old.data[at] != new.data[at]]
    path = lay(tmp_path / "f.h5", old)
    with opened(path) as handle:
        for backwards in (False, True):
            for cut in range(changed[0], changed[-1] + 2):
                parts = (old.data[:cut], new.data[cut:]) if backwards else (new.data[:cut], old.data[cut:])
                data = b"".join(parts)
                os.pwrite(handle, data, 0)
                found = parse(handle, "f.h5", torn=INCOMPLETE)
                assert found == (old if data == old.data else new if data == new.data else unfinished)
                if data not in (old.data, new.data):
                    with pytest.raises(CorruptFileError, match="the structure of the file is damaged"):
                        parse(handle, "f.h5")


# Structures that somebody made up


def header(*messages: tuple[int, bytes]) -> bytes:
    """An object header, sound as far as its checksum goes."""
    return hdf5._header([hdf5._message(kind, data) for kind, data in messages])


def link(name: str | bytes, target: int, kind: int = 0x11) -> tuple[int, bytes]:
    raw = name.encode() if isinstance(name, str) else name
    return hdf5._LINK, struct.pack("<BBBH", 1, kind, 1, len(raw)) + raw + struct.pack("<Q", target % 2**64)


GROUP = (hdf5._LINK_INFO, struct.pack("<BBQQ", 0, 0, 2**64 - 1, 2**64 - 1))
FILL = (hdf5._FILL, b"\x03\x0a")


def rows(
    shape: tuple[int, ...] = (4,), *, dtype: np.dtype[Any] = U1, at: int = 4096, size: int = 4, layout: bytes = b""
) -> list[tuple[int, bytes]]:
    """The messages of a data set."""
    stored = layout or struct.pack("<BBQQ", 3, 1, at % 2**64, size % 2**64)
    return [(hdf5._SPACE, hdf5._space(shape)), (hdf5._TYPE, hdf5._type(dtype)), FILL, (hdf5._LAYOUT, stored)]


def image(*headers: bytes, size: int = 8192) -> bytes:
    """A file of a superblock and headers, the first of which is the root's."""
    return (hdf5._superblock(size) + b"".join(headers)).ljust(size, b"\0")


def text(name: str, address: int, index: int) -> tuple[int, bytes]:
    """An attribute that refers to the heap."""
    raw, space = name.encode() + b"\0", hdf5._space(())
    sizes = struct.pack("<BBHHHB", 3, 0, len(raw), len(hdf5._TEXT), len(space), 1)
    return hdf5._ATTRIBUTE, sizes + raw + hdf5._TEXT + space + struct.pack("<IQI", 1, address % 2**64, index)


def heap(*objects: bytes, size: int = 4096) -> bytes:
    """At 4096, where ``image`` has zeros."""
    return (b"GCOL" + struct.pack("<B3xQ", 1, size) + b"".join(objects)).ljust(4096, b"\0")


def obj(index: int, data: bytes, length: int | None = None) -> bytes:
    length = len(data) if length is None else length
    return struct.pack("<HHIQ", index, 1, 0, length) + data.ljust(-(-len(data) // 8) * 8, b"\0")


def root_with(*messages: tuple[int, bytes]) -> bytes:
    """A root's header, and where the next begins is 48 + its length."""
    return header(GROUP, *messages)


NEXT = 48 + len(root_with(link("x", 0)))
"""Where the second header is, after a root with one link of one letter."""

TWO = 48 + len(root_with(link("x", 0), link("x", 0)))
"""The same after two."""

HUGE = 2**64 - 1

HOSTILE: dict[str, Callable[[], bytes]] = {
    "a link to the root itself": lambda: image(root_with(link("x", 48))),
    "a cycle of two groups": lambda: image(root_with(link("x", NEXT)), header(GROUP, link("y", 48))),
    "a group within a group within a group": lambda: image(
        root_with(link("x", NEXT)),
        *[header(GROUP, link("x", NEXT + (n + 1) * len(header(GROUP, link("x", 0))))) for n in range(50)],
    ),
    "a soft link": lambda: image(root_with(link("x", NEXT, 0x19))),
    "an external link": lambda: image(root_with((hdf5._LINK, b"\x01\x18\x40\x01x\x08\x00\0f.h5\0x\0"))),
    "a link of another version": lambda: image(root_with((hdf5._LINK, b"\x02\x11\x01\x01\x00x" + bytes(8)))),
    "a link cut short": lambda: image(root_with((hdf5._LINK, b"\x01\x11\x01\x01\x00x\0"))),
    "a link name longer than the message": lambda: image(root_with((hdf5._LINK, b"\x01\x11\x01\xff\xffx" + bytes(8)))),
    "a link far outside": lambda: image(root_with(link("x", 2**63))),
    "a link to the undefined address": lambda: image(root_with(link("x", HUGE))),
    "a link to the end": lambda: image(root_with(link("x", 8192))),
    "a link into the superblock": lambda: image(root_with(link("x", 0))),
    "a name that is not UTF-8": lambda: image(root_with(link(b"\xff", NEXT)), header(*rows())),
    "a name with a zero byte": lambda: image(root_with(link("\0", NEXT)), header(*rows())),
    "a name with a slash": lambda: image(root_with(link("/", NEXT)), header(*rows())),
    "a name of a dot": lambda: image(root_with(link(".", NEXT)), header(*rows())),
    "an empty name": lambda: image(root_with(link("", NEXT - 1)), header(*rows())),
    "two links of one name": lambda: image(
        root_with(link("x", TWO), link("x", TWO + len(header(*rows())))), header(*rows()), header(*rows())
    ),
    "two links to one data set": lambda: image(root_with(link("x", TWO), link("y", TWO)), header(*rows())),
    "a root without anything": lambda: image(header()),
    "a root that is a data set": lambda: image(header(*rows())),
    "a data set without a shape": lambda: image(root_with(link("x", NEXT)), header(*rows()[1:])),
    "a data set without a type": lambda: image(root_with(link("x", NEXT)), header(*rows()[:1], *rows()[2:])),
    "a data set without a place": lambda: image(root_with(link("x", NEXT)), header(*rows()[:3])),
    "a shape cut short": lambda: image(root_with(link("x", NEXT)), header((1, b"\x02\x02\0\1" + bytes(8)), *rows()[1:])),
    "a shape of one byte": lambda: image(root_with(link("x", NEXT)), header((1, b"\x02"), *rows()[1:])),
    "a shape of 255 dimensions": lambda: image(
        root_with(link("x", NEXT)), header((1, b"\x02\xff\0\1" + bytes(8 * 255)), *rows()[1:])
    ),
    "a scalar": lambda: image(root_with(link("x", NEXT)), header(*rows((), size=1))),
    "a shape whose product passes 64 bits": lambda: image(
        root_with(link("x", NEXT)), header(*rows((2**33, 2**33), dtype=I8, size=0))
    ),
    "a shape of the greatest numbers": lambda: image(root_with(link("x", NEXT)), header(*rows((HUGE, HUGE)))),
    "one long dimension and none": lambda: image(root_with(link("x", NEXT)), header(*rows((HUGE, 0), size=0))),
    "text of 4 GB a row": lambda: image(
        root_with(link("x", NEXT)), header(rows()[0], (3, b"\x13\x11\0\0\xff\xff\xff\xff"), *rows()[2:])
    ),
    "text of no bytes a row": lambda: image(
        root_with(link("x", NEXT)), header(rows()[0], (3, b"\x13\x11\0\0\0\0\0\0"), *rows()[2:])
    ),
    "a type of one byte": lambda: image(root_with(link("x", NEXT)), header(rows()[0], (3, b"\x13"), *rows()[2:])),
    "a compound type": lambda: image(root_with(link("x", NEXT)), header(rows()[0], (3, b"\x16" + bytes(40)), *rows()[2:])),
    "a place outside the file": lambda: image(root_with(link("x", NEXT)), header(*rows(at=2**63))),
    "a place over the structure": lambda: image(root_with(link("x", NEXT)), header(*rows(at=0))),
    "more bytes than its shape": lambda: image(root_with(link("x", NEXT)), header(*rows(size=HUGE))),
    "compact storage": lambda: image(root_with(link("x", NEXT)), header(*rows(layout=b"\x03\x00\x04\x00abcd"))),
    "chunked storage": lambda: image(
        root_with(link("x", NEXT)), header(*rows(layout=b"\x03\x02\x02" + bytes(8) + b"\x04\0\0\0\x01\0\0\0"))
    ),
    "virtual storage": lambda: image(root_with(link("x", NEXT)), header(*rows(layout=b"\x04\x03" + bytes(12)))),
    "compressed storage": lambda: image(
        root_with(link("x", NEXT)), header(*rows(), (11, b"\x02\x01\x01\0\0\0\x01\0\x09\0\0\0"))
    ),
    "storage in other files": lambda: image(root_with(link("x", NEXT)), header(*rows(), (7, bytes(24)))),
    "a continuation": lambda: image(root_with((16, struct.pack("<QQ", 48, 100)))),
    "a shared message": lambda: image(root_with(link("x", NEXT)), header(rows()[0], (3, struct.pack("<BBQ", 3, 2, 48)))),
    "an attribute of one byte": lambda: image(root_with((12, b"\x03"))),
    "an attribute whose sizes pass its message": lambda: image(
        root_with((12, struct.pack("<BBHHHB", 3, 0, 65535, 65535, 65535, 1)))
    ),
    "an attribute without a value": lambda: image(root_with((12, struct.pack("<BBHHHB", 3, 0, 2, 8, 4, 1) + b"a\0"))),
    "an attribute that is infinite": lambda: image(
        root_with((12, struct.pack("<BBHHHB", 3, 0, 2, 20, 4, 1) + b"a\0" + hdf5._type(F4) + hdf5._space(()) + b"\0\0\x80\x7f"))
    ),
    "a heap far outside": lambda: image(root_with(text("a", 2**63, 1))),
    "a heap at the root": lambda: image(root_with(text("a", 48, 1))),
    "a heap of all of the memory": lambda: image(root_with(text("a", 4096, 1)))[:4096] + heap(obj(1, b"x"), size=HUGE),
    "a heap without the text": lambda: image(root_with(text("a", 4096, 2)))[:4096] + heap(obj(1, b"x")),
    "a heap whose text has no end": lambda: image(root_with(text("a", 4096, 1)))[:4096] + heap(obj(1, b"x", HUGE)),
    "a heap whose texts do not advance": lambda: image(root_with(text("a", 4096, 1)))[:4096] + heap(*[obj(1, b"")] * 255),
    "a heap without an end": lambda: image(root_with(text("a", 4096, 1)))[:4096]
    + heap(*[obj(1, b"1234567")] * 169, b"\1\0" * 12),
    "a text that is not UTF-8": lambda: image(root_with(text("a", 4096, 1)))[:4096] + heap(obj(1, b"\xff")),
    "two heaps": lambda: image(root_with(text("a", 4096, 1), text("b", 8192, 1)), size=12288)[:4096] + heap(obj(1, b"x")) * 2,
    "a header longer than the file": lambda: image(b"OHDR" + struct.pack("<BBI", 2, 2, 2**32 - 1)),
    "a message longer than its header": lambda: image(
        b"OHDR" + struct.pack("<BBI", 2, 2, 8) + struct.pack("<BHB", 6, 65535, 0) + bytes(8)
    ),
    "a header of version 1": lambda: image(b"\x01\0" + bytes(100)),
    "nothing but zeros": lambda: image(),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_structure_that_was_made_up_is_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    path.write_bytes(HOSTILE[what]())
    for torn in (None, INCOMPLETE):
        with pytest.raises(CorruptFileError, match=r"f\.h5: the structure of the file is damaged"):
            parsed(path, torn)


def test_what_the_made_up_structures_are_made_of_is_right_in_itself(tmp_path: Path) -> None:
    """Or they would be refused for another reason than the one that they name."""
    names = {"x": Table(U1, (4,)), "y": Table(U1, (4,))}
    true = pack({"a": "x"}, names)
    links = [link("x", 1024 + 0), link("y", 1024 + len(header(*rows())))]
    messages = [GROUP, (hdf5._GROUP_INFO, struct.pack("<BBHH", 0, 1, 0xFFFF, 0))]
    crc = dict(true.attrs)[TEXT_CRC]
    end = [
        (hdf5._ATTRIBUTE, hdf5._attribute(TEXT_CRC, crc, hdf5._Heap([]))[4:]),
        text("a", true.data.index(b"GCOL"), 1),
    ]
    room = root_end(true.data) - 48 - len(header(*messages, *[link("x", 0), link("y", 0)], (0, b""), *end))
    at = root_end(true.data)
    links = [link("x", at), link("y", at + len(header(*rows())))]
    first, second = (rows(at=table.offset) for table in true.tables.values())
    made = image(header(*messages, *links, (0, bytes(room)), *end), header(*first), header(*second), size=true.size)
    made = made[: true.data.index(b"GCOL")] + true.data[true.data.index(b"GCOL") :].ljust(true.size, b"\0")
    path = tmp_path / "f.h5"
    path.write_bytes(made[: true.size])
    assert parsed(path) == true


def one_name_for_many(count: int, target: bytes) -> bytes:
    """A root with so many links to one and the same header."""
    at = 48 + len(root_with(*[link(f"{n:05}", 0) for n in range(count)]))
    return image(root_with(*[link(f"{n:05}", at) for n in range(count)]), target, size=at + len(target))


def texts_that_are_one() -> bytes:
    """50,000 attributes, all of them the same text of 8 MB."""
    names = [text(f"{n:05}", 1 << 23, 1) for n in range(50_000)]
    big = obj(1, b"x" * ((1 << 23) - 100))
    data = image(root_with(*names), size=1 << 24)[: 1 << 23]
    return data + (b"GCOL" + struct.pack("<B3xQ", 1, 1 << 23) + big).ljust(1 << 23, b"\0")


def long_group_name() -> bytes:
    """A group of a long name, with 40,000 links to one small data set."""
    inner = [link(f"{n:05}", 0) for n in range(40_000)]
    at = 48 + len(root_with(link("x" * 60_000, 0)))
    last = at + len(header(GROUP, *inner))
    inner = [link(f"{n:05}", last) for n in range(40_000)]
    target = header(*rows())
    return image(root_with(link("x" * 60_000, at)), header(GROUP, *inner), target, size=last + len(target))


def nested_headers() -> bytes:
    """10,000 headers, each in the messages of the one before, with one long end in common."""
    count, tail = 10_000, (1 << 22) - 600_000
    at = 48 + len(root_with(*[link(f"{n:05}", 0) for n in range(count)]))
    starts = b"".join(
        b"OHDR" + struct.pack("<BBI", 2, 2, (count - n - 1) * 24 + 14 + tail) + struct.pack("<BHB", 0, 10, 0) + bytes(6)
        for n in range(count)
    )
    root = root_with(*[link(f"{n:05}", at + 24 * n) for n in range(count)])
    return image(root, starts + bytes(tail), size=at + len(starts) + tail)


SLOW: dict[str, Callable[[], bytes]] = {
    "one long header for 50,000 names": lambda: one_name_for_many(50_000, header(*[(0, bytes(60))] * 6_000)),
    "one data set for 20,000 names": lambda: one_name_for_many(20_000, header(*rows(size=4, at=0))),
    "headers within headers": nested_headers,
    "a million messages": lambda: image(header(*[(0, b"")] * 1_000_000), size=1 << 23),
    "a million texts": lambda: (
        image(root_with(text("a", 4096, 2)), size=4096 + (1 << 24))[:4096]
        + (b"GCOL" + struct.pack("<B3xQ", 1, 1 << 24) + obj(1, b"") * ((1 << 20) - 2)).ljust(1 << 24, b"\0")
    ),
}
LARGE: dict[str, Callable[[], bytes]] = {
    "one text for 50,000 attributes": texts_that_are_one,
    "a long name 40,000 times": long_group_name,
}


@pytest.mark.parametrize("what", SLOW)
def test_no_small_file_costs_much_time(what: str, tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    path.write_bytes(SLOW[what]())
    began = time.process_time()
    with pytest.raises(CorruptFileError, match=r"f\.h5: the structure of the file is damaged"):
        parsed(path)
    assert time.process_time() - began < 10


@pytest.mark.parametrize("what", LARGE)
def test_no_small_file_costs_much_memory(what: str, tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    path.write_bytes(LARGE[what]())
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFileError, match=r"f\.h5: the structure of the file is damaged"):
            parsed(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 28
    finally:
        tracemalloc.stop()


def test_a_file_of_another_form_of_hdf5_is_named_as_such(tmp_path: Path) -> None:
    for version in ("earliest", "latest"):
        with h5py.File(tmp_path / "f.h5", "w", libver=version) as file:
            file["rows"] = np.zeros(3)
        message = r"f\.h5(: the structure .* is damaged| is an HDF5 file, but not a feature file)"
        with pytest.raises(CorruptFileError, match=message):
            parsed(tmp_path / "f.h5")


def test_a_table_knows_its_bytes_whatever_its_shape() -> None:
    assert Table(F4, (2**40, 2**40)).nbytes == 2**82
    assert dataclasses.replace(Table(F2, (3, 0))).nbytes == 0
