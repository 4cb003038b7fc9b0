"""Feature files from strangers: whatever is in one, only FeatxErrors come out, soon and with little memory."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_files import BACKBONE, DIMS, IDENTITIES, begin, flip, keys_of, make, write_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featx.data.image_set import ImageSet
from featx.data.store import FolderStore
from featx.errors import CorruptFileError, FeatxError
from featx.extraction.reuse import KnownRows
from featx.features import hdf5
from featx.features.entries import describe_files, list_folder
from featx.features.feature_file import FeatureFile, computed_digest
from featx.features.feature_set import FeatureSet
from featx.features.folder import feature_file_path, files_sharing, newest
from featx.features.hdf5 import Table
from featx.features.header import FeatureFileHeader
from featx.inspection.info import describe_file
from featx.inspection.verify import verify_file

MUTATIONS = int(os.environ.get("FEATX_MUTATIONS", "700"))
"""Of each real file; a night's run takes more."""

Contents = dict[str, bytes]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A finished file in a folder of its own."""
    (tmp_path / "cache").mkdir()
    make(tmp_path / "cache" / "x.h5")
    return tmp_path / "cache" / "x.h5"


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """What an interrupted run left."""
    (tmp_path / "left").mkdir()
    writer = begin(tmp_path / "left" / "x.h5")
    writer.publish()
    write_rows(writer, [0, 3])
    writer.fail(4, keys_of(6)[4].tobytes(), "cannot be decoded")
    return tmp_path / "left" / "x.h5.partial"


IMAGES = ImageSet(
    "photos",
    FolderStore("/photos"),
    np.array([f"{row:02}.png" for row in range(6)], dtype=object),
    np.zeros(6, dtype=np.int64),
    np.array(["train"] * 6, dtype=object),
    ("ant",),
)


def use(path: Path, *, thorough: bool = True) -> bool:
    """Everything that featx does with a feature file; whether the file could be opened.

    One that cannot be opened is given to the other commands only to be ``thorough``: they begin by opening it.
    """
    opened = False
    with contextlib.suppress(FeatxError):
        cache = FeatureFile(path, allow_partial=True)
        opened = True
        for layer in cache.layers:
            cache.checksums_match(layer, np.arange(len(cache)))
            cache.features(layer).max()
        [cache.error(row) for row in range(len(cache))]
        known = KnownRows([cache], list(cache.layers))
        known.take(np.concatenate([keys_of(6), cache.keys]))
        known.recognised(IMAGES, np.arange(6) + 100, np.arange(6) + 10**18)
        known.failures(1000)
        assert len(set(known)) == len(known)
    if not (opened or thorough):
        return False
    for look in (FeatureFile, FeatureFileHeader, FeatureSet.load):
        with contextlib.suppress(FeatxError):
            look(path)
    said = verify_file(path)
    assert said["ok"] is (not said["problems"])
    assert opened or said["problems"]
    json.dumps(said, allow_nan=False)
    if opened:
        json.dumps(describe_file(path))
        feature_file_path(path.parent, dataset="x", root="/photos", backbone="lenet5", identities=IDENTITIES)
        files_sharing(path.parent, [IDENTITIES])
    (entry,) = list_folder(path.parent)
    assert (entry.state in ("complete", "partial")) is opened
    json.dumps(entry.as_dict())
    return opened


# Bytes of real files


def mutated(data: bytes, structure: int, rng: random.Random) -> bytes:
    """The bytes, spoilt in one to four places, mostly in the structure, sometimes cut or longer."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        place = min(rng.randrange(structure if rng.random() < 0.5 else len(data)), len(out) - 1)
        if rng.random() < 0.5 and (names := [at for at in range(48, structure) if out[at] not in (0, 0xFF)]):
            place = rng.choice(names)
        stretch = slice(place, place + rng.choice([1, 1, 2, 4, 8, 64, 512]))
        count = len(out[stretch])
        out[stretch] = rng.choice(
            [
                bytes([out[place] ^ 1 << rng.randrange(8)]) + bytes(out[place + 1 : stretch.stop]),
                rng.randbytes(count),
                bytes(count),
                b"\xff" * count,
                bytes(out[stretch][::-1]),
                bytes((out[rng.randrange(len(out)) :] + bytes(count))[:count]),
                *([b"", bytes(out[stretch] * 2)] if rng.random() < 0.1 else []),
            ]
        )
    return bytes(out[: rng.randrange(len(out))] if rng.random() < 0.03 else out)


def resealed(data: bytes) -> bytes:
    """The same with the checksums of superblock and headers made right, as far as the headers can be followed."""
    out, at = bytearray(data), 48
    out[28:36] = len(out).to_bytes(8, "little")
    out[44:48] = hdf5.checksum(bytes(out[:44])).to_bytes(4, "little")
    while out[at : at + 4] == b"OHDR" and (end := at + 10 + int.from_bytes(out[at + 6 : at + 10], "little")) + 4 <= len(
        out
    ):
        out[end : end + 4] = hdf5.checksum(bytes(out[at:end])).to_bytes(4, "little")
        at = end + 4
    return bytes(out)


@pytest.mark.parametrize("what", ["whole", "partial"])
def test_changed_bytes_give_only_featx_errors(what: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(what)
    data, rng = path.read_bytes(), random.Random(f"{what} {os.environ.get('FEATX_SEED', '0')}")
    structure = data.index(b"GCOL") + 700
    opened = 0
    for number in range(MUTATIONS):
        changed = mutated(data, structure, rng)
        path.write_bytes(resealed(changed) if number % 2 and len(changed) > 100 else changed)
        opened += use(path, thorough=number % 10 == 0)
        if what == "partial" and number % 10 == 0:  # a new run finds it
            with contextlib.suppress(FeatxError):
                begin(path.with_name("x.h5"))
            path.with_name("x.h5.new").unlink(missing_ok=True)
    assert MUTATIONS // 100 < opened < MUTATIONS


def test_each_flipped_bit_in_the_structure_of_an_unfinished_file_is_refused_or_mended(partial: Path) -> None:
    """Mended: in the few bytes that complete a file, which a power cut may leave half written."""
    data = partial.read_bytes()
    expected = FeatureFileHeader(partial).structure
    end = 48 + 14 + int.from_bytes(data[54:58], "little")
    may_be_torn = range(data.index(b"digest\0") - 13, end)
    mended = 0
    for at in range(data.index(b"GCOL") + 700):
        for bit in {at % 8} if at < end or at % 4 == 0 else ():
            flip(partial, at, bit)
            try:
                structure = FeatureFileHeader(partial).structure
                assert at in may_be_torn, (at, bit)
                assert structure == expected
                mended += 1
            except CorruptFileError:
                pass
            flip(partial, at, bit)
    assert FeatureFileHeader(partial).structure == expected
    assert mended > 64


# Sound structures with anything in them


def craft(path: Path, attrs: Mapping[str, Any], tables: Mapping[str, Table], contents: Contents) -> None:
    """A file whose structure is sound, and whose digest fits where it can be computed at all."""
    structure = hdf5.pack({**attrs, "complete": np.uint8(0)}, tables)

    def write(structure: hdf5.Structure) -> None:
        with path.open("wb") as file:
            file.write(structure.data)
            file.truncate(structure.size)
            for name, table in structure.tables.items():
                file.seek(table.offset)
                file.write(contents.get(name, b"")[: table.nbytes])

    write(structure)
    if attrs.get("complete"):
        digest = b"0" * 64
        with contextlib.suppress(FeatxError):
            digest = computed_digest(FeatureFile(path, allow_partial=True)).encode()
        write(hdf5.pack({**attrs, **({"digest": digest} if isinstance(attrs.get("digest"), bytes) else {})}, tables))


def contents_of(path: Path) -> tuple[dict[str, Any], dict[str, Table], Contents]:
    cache = FeatureFileHeader(path)
    data = path.read_bytes()
    tables = dict(cache.structure.tables)
    return (
        dict(cache.structure.attrs),
        tables,
        {name: data[table.offset : table.offset + table.nbytes] for name, table in tables.items()},
    )


WORDS = st.sampled_from(
    [
        "",
        "lenet5",
        "/",
        "..",
        "\0",
        "a" * 5000,
        "\u202e",
        "=1+1",
        "given",
        "hash",
        "/photos",
        "penultimate",
        "0" * 64,
        "/dev/zero",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.sampled_from([*BACKBONE]), inner, max_size=3)
    ),
    max_leaves=5,
)
TEXTS = (
    WORDS
    | JSON.map(json.dumps)
    | st.sampled_from(
        [
            '{"a": 1e999}',
            '{"a": NaN}',
            '"\\ud800"',
            "[" * 3000,
            "9" * 5000,
            '{"name": "a", "name": 1}',
            "{}",
            "[]",
            "null",
        ]
    )
    | st.builds(
        lambda base, key, value: json.dumps({**json.loads(base), key: value}),
        st.sampled_from(
            [
                json.dumps(BACKBONE),
                json.dumps({"name": "photos", "root": "/photos", "splits": "given", "max_pixels": 1000}),
            ]
        ),
        st.sampled_from(["name", "weights", "parts", "root", "splits", "max_pixels", "more"]),
        JSON,
    )
)
VALUES = (
    TEXTS.filter(lambda text: "\ud800" not in text)
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(0, 255).map(np.uint8)
    | st.binary(min_size=1, max_size=70)
)
DTYPES = st.sampled_from(["u1", "<u4", "<i8", "<f2", "<f4", "S1", "S5", "S120", "S3000"]).map(np.dtype)
SHAPES = st.sampled_from(
    [(6,), (6, 16), (6, 3), (0,), (1,), (6, 0), (0, 3), (7, 16), (6, 1), (1, 6), (2000,), (6, 5000)]
)
NAMES = st.sampled_from(
    ["features/penultimate", "features/\u202e", "checks/more", "more", "images/status", "features/more"]
)


@st.composite
def changes(
    draw: st.DrawFn, attrs: dict[str, Any], tables: dict[str, Table], contents: Contents
) -> tuple[dict[str, Any], dict[str, Table], Contents]:
    """A real file's parts, one to three of them changed."""
    attrs, tables, contents = dict(attrs), dict(tables), dict(contents)
    for _ in range(draw(st.integers(1, 3))):
        what = draw(
            st.sampled_from(["attr", "attr", "table", "lose", "column", "column", "column", "add", "rows", "order"])
        )
        if what == "attr":
            name = draw(st.sampled_from([*attrs, "more"]))
            attrs[name] = draw(VALUES)
        elif what == "lose":
            lost: dict[str, Any] = draw(st.sampled_from([attrs, tables]))
            del lost[draw(st.sampled_from(list(lost)))]
        elif what == "table":
            name = draw(st.sampled_from(list(tables)))
            old = tables[name]
            own = draw(st.sampled_from([old.attrs, {}, {"identity": ""}, {"identity": "a" * 64, "b": "\0"}]))
            tables[name] = Table(draw(DTYPES | st.just(old.dtype)), draw(SHAPES | st.just(old.shape)), own)
        elif what == "add":
            tables[draw(NAMES)] = Table(draw(DTYPES), draw(SHAPES), {"identity": "a" * 64})
        elif what == "rows":
            count = draw(st.sampled_from([0, 1, 2, 3000]))
            tables = {n: Table(t.dtype, (count, *t.shape[1:]), t.attrs) for n, t in tables.items()}
        elif what == "order":
            tables = dict(draw(st.permutations(list(tables.items()))))
        else:
            name = draw(st.sampled_from(list(tables)))
            raw = draw(
                st.binary(max_size=60) | st.sampled_from([b"\xff" * 3000, b"\0" * 3000, b"\x01" * 3000, b"\x7f" * 3000])
            )
            contents[name] = raw + contents.get(name, b"")[len(raw) :]
    return attrs, tables, contents


@pytest.mark.parametrize("what", ["whole", "partial"])
def test_sound_structures_with_anything_in_them_give_only_featx_errors(
    what: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(what)
    attrs, tables, contents = contents_of(path)
    opened = []

    @settings(
        max_examples=MUTATIONS // 4,
        deadline=None,
        derandomize="FEATX_SEED" not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(changes(attrs, tables, contents))
    def check(changed: tuple[dict[str, Any], dict[str, Table], Contents]) -> None:
        craft(path, *changed)
        opened.append(use(path, thorough=len(opened) % 10 == 0))

    check()
    assert len(opened) // 20 < sum(opened) < len(opened)


def test_no_part_of_an_unchanged_file_is_refused(whole: Path, partial: Path) -> None:
    """Or the two tests above would prove nothing."""
    for path in (whole, partial):
        parts = contents_of(path)
        before = path.read_bytes()
        craft(path, *parts)
        assert path.read_bytes() == before
        path.write_bytes(resealed(before))
        assert path.read_bytes() == before
        assert use(path)
    assert newest(whole.parent) == whole
    assert describe_files([partial])[0].state == "partial"
    assert list(DIMS) == list(FeatureFile(whole).layers)


# What a stranger's file could do beyond its own bytes


def test_a_path_in_a_file_is_never_opened_by_looking_at_the_file(whole: Path, tmp_path: Path) -> None:
    attrs, tables, contents = contents_of(whole)
    secret = tmp_path / "secret"
    os.mkfifo(secret)  # opening it would wait for ever
    width = len(os.fsencode(secret))
    tables["images/path"] = Table(np.dtype(f"S{width}"), (6,))
    contents["images/path"] = os.fsencode(secret) * 6
    attrs["dataset"] = json.dumps({"name": "photos", "root": str(secret), "splits": "given"})
    craft(whole, attrs, tables, contents)
    assert use(whole)


@pytest.mark.parametrize(
    "part", [{"format": "x" * 10**6}, {"version": "x" * 10**6}, {"complete": "x" * 10**6}, {"backbone": "[" * 10**6}]
)
def test_text_of_a_file_is_shown_short(whole: Path, part: dict[str, str]) -> None:
    attrs, tables, _ = contents_of(whole)
    structure = hdf5.pack({**attrs, **part}, tables)
    whole.write_bytes(structure.data.ljust(structure.size, b"\0"))
    with pytest.raises(CorruptFileError, match=r"expected|is not JSON") as raised:
        FeatureFile(whole)
    assert len(str(raised.value)) < 1000


def test_many_tables_of_a_file_are_shown_short(whole: Path) -> None:
    attrs, tables, _ = contents_of(whole)
    structure = hdf5.pack(attrs, tables | {f"features/{'x' * 1000}{n}": Table(np.dtype("u1"), (1,)) for n in range(99)})
    whole.write_bytes(structure.data.ljust(structure.size, b"\0"))
    with pytest.raises(CorruptFileError, match=r"has the tables .*; expected") as raised:
        FeatureFile(whole)
    assert len(str(raised.value)) < 1000
