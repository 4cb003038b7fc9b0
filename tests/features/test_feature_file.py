"""The feature file: its contents, files that change while they are read, and files that are refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from feature_files import BACKBONE, DIMS, begin, flip, keys_of, make, table, vectors, write_rows

from featx.errors import CacheMissError, CorruptFileError, StaleCacheError, UnreadableFileError
from featx.features import hdf5
from featx.features.feature_file import DONE, FAILED, TODO, FeatureFile, computed_digest
from featx.features.feature_set import FeatureSet
from featx.features.hdf5 import Table
from featx.inspection.verify import verify_file

GOLDEN = Path(__file__).parent.parent / "golden" / "features-v1.h5"

COLUMNS = ("path", "label", "split", "key", "size", "mtime_ns", "status", "error")


def offset_of(path: Path, name: str) -> int:
    """Where a data set's bytes begin."""
    with h5py.File(path) as file:
        return int(file[name].id.get_offset())


def contents(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every data set of a file: its type and shape."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}

    def note(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            text = h5py.check_string_dtype(entry.dtype)
            kind = f"utf-8[{text.length}]" if text else entry.dtype.str
            assert text is None or text.encoding == "utf-8"
            found[name] = (kind, entry.shape)

    with h5py.File(path) as file:
        file.visititems(note)
    return found


# What is in the file


def test_the_file_has_the_groups_data_sets_and_types_of_its_specification(tmp_path: Path) -> None:
    make(tmp_path / "f.h5")
    assert contents(tmp_path / "f.h5") == {
        "classes": ("utf-8[3]", (2,)),
        "features/penultimate": ("<f4", (6, 5)),
        "features/hidden": ("<f4", (6, 3)),
        "checks/penultimate": ("<u4", (6,)),
        "checks/hidden": ("<u4", (6,)),
        "images/path": ("utf-8[6]", (6,)),
        "images/label": ("<i8", (6,)),
        "images/split": ("utf-8[8]", (6,)),
        "images/key": ("|u1", (6, 16)),
        "images/size": ("<i8", (6,)),
        "images/mtime_ns": ("<i8", (6,)),
        "images/status": ("|u1", (6,)),
        "images/error": ("utf-8[120]", (6,)),
    }


def test_the_file_has_the_attributes_of_its_specification(tmp_path: Path) -> None:
    make(tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5") as file:
        attributes = dict(file.attrs)
        assert dict(file["features/hidden"].attrs) == {"identity": "b" * 64}
        assert not dict(file["images"].attrs)
    digest = attributes.pop("digest")
    assert re.fullmatch(rb"[0-9a-f]{64}", digest)
    assert digest != b"0" * 64
    assert json.loads(attributes.pop("backbone")) == BACKBONE
    assert attributes.pop("text_crc32").dtype == np.int64
    assert json.loads(attributes.pop("dataset")) == {"name": "photos", "root": "/photos", "splits": "given"}
    assert attributes == {"format": "featx-features", "version": 1, "complete": 1, "identity": "c" * 64}
    assert attributes["complete"].dtype == np.uint8


def test_the_columns_hold_what_was_written(tmp_path: Path) -> None:
    make(tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5") as file:
        images = {name: file["images"][name][()].tolist() for name in COLUMNS if name != "key"}
        done = [0, 1, 2, 3, 5]
        np.testing.assert_array_equal(file["features/hidden"][done], vectors(6, 3)[done])
        np.testing.assert_array_equal(file["images/key"], keys_of(6))
        assert file["classes"][()].tolist() == [b"ant", b"bee"]
    assert images == {
        "path": [b"00.png", b"01.png", b"02.png", b"03.png", b"04.png", b"05.png"],
        "label": [0, 1, 0, 1, 0, -1],
        "split": [b"train"] * 6,
        "size": [100, 101, 102, 103, 104, 105],
        "mtime_ns": [10**18 + row for row in range(6)],
        "status": [DONE, DONE, DONE, DONE, FAILED, DONE],
        "error": [b"", b"", b"", b"", b"cannot be decoded: truncated", b""],
    }


@pytest.mark.parametrize(("dtype", "stored"), [("float32", "<f4"), ("float16", "<f2")])
def test_features_are_contiguous_little_endian_and_where_their_offset_says(
    tmp_path: Path, dtype: str, stored: str
) -> None:
    make(tmp_path / "f.h5", dtype=dtype)
    with h5py.File(tmp_path / "f.h5") as file:
        features = file["features/penultimate"]
        assert features.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
        assert features.dtype.str == stored
        offset = features.id.get_offset()
    raw = np.fromfile(tmp_path / "f.h5", stored, count=6 * 5, offset=offset).reshape(6, 5)
    done = [0, 1, 2, 3, 5]
    np.testing.assert_array_equal(raw[done], vectors(6, 5, dtype)[done])


def test_offsets_and_size_stay_from_creation_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    writer = begin(path)
    new = tmp_path / "f.h5.new"
    size, names = new.stat().st_size, contents(new)
    offsets = {name: offset_of(new, name) for name in names}
    writer.publish()
    write_rows(writer, range(6))
    writer.finish()
    assert path.stat().st_size == size
    assert contents(path) == names
    assert {name: offset_of(path, name) for name in names} == offsets


def test_the_check_of_a_row_is_what_zlib_says_of_its_bytes(tmp_path: Path) -> None:
    make(tmp_path / "f.h5", dtype="float16")
    with h5py.File(tmp_path / "f.h5") as file:
        for layer in DIMS:
            for row in (0, 1, 2, 3, 5):
                assert file["checks"][layer][row] == zlib.crc32(file["features"][layer][row].tobytes())


def test_the_same_rows_give_the_same_bytes_at_another_time(tmp_path: Path) -> None:
    make(tmp_path / "one.h5")
    time.sleep(1.1)  # HDF5's own time stamps count seconds
    make(tmp_path / "two.h5")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_what_the_reader_gives_is_what_was_written(tmp_path: Path) -> None:
    file = make(tmp_path / "f.h5")
    assert len(file) == 6
    assert file.complete
    assert file.identity == "c" * 64
    assert file.backbone == BACKBONE
    assert file.dataset["root"] == "/photos"
    assert file.classes == ("ant", "bee")
    assert file.paths == [f"{row:02}.png" for row in range(6)]
    assert file.splits.tolist() == ["train"] * 6
    assert file.error(4) == "cannot be decoded: truncated"
    assert file.error(0) == ""
    assert {name: (layer.dim, layer.identity) for name, layer in file.layers.items()} == {
        "penultimate": (5, "a" * 64),
        "hidden": (3, "b" * 64),
    }
    assert isinstance(file.features("hidden"), np.memmap)
    assert not file.features("hidden").flags.writeable


def test_more_than_64_kb_of_class_names_are_kept(tmp_path: Path) -> None:
    classes = [f"Quercus robur subsp. number {number:05}" for number in range(20_000)]
    assert make(tmp_path / "f.h5", classes=classes).classes == tuple(classes)


def test_a_data_set_without_classes_is_kept(tmp_path: Path) -> None:
    rows = dataclasses.replace(table(6), labels=np.full(6, -1))
    file = make(tmp_path / "f.h5", classes=(), images=rows)
    assert file.classes == ()
    assert FeatureFile(tmp_path / "f.h5").complete


def test_paths_and_classes_that_are_not_utf8_come_back_as_they_were(tmp_path: Path) -> None:
    paths = [b"caf\xe9/1.png", "f\u00fcnf/2.png".encode(), b"\xff\xfe.png"]
    classes = [os.fsdecode(b"caf\xe9"), "f\u00fcnf"]
    file = make(tmp_path / "f.h5", 3, images=table(3, paths=paths), classes=classes)
    assert [os.fsencode(path) for path in file.paths] == paths
    assert file.classes == tuple(classes)


# Incomplete files, and files that change while they are read


def test_an_incomplete_file_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    writer = begin(tmp_path / "f.h5")
    writer.publish()
    write_rows(writer, [0, 3])
    partial = tmp_path / "f.h5.partial"
    with pytest.raises(CorruptFileError, match=r"f\.h5\.partial is incomplete; run the same featx extract again"):
        FeatureFile(partial)
    file = FeatureFile(partial, allow_partial=True)
    assert not file.complete
    assert file.status.tolist() == [DONE, TODO, TODO, DONE, TODO, TODO]
    assert file.checksums_match("penultimate", np.arange(6)).tolist() == [True, False, False, True, False, False]


_READER = """
import sys
import numpy as np
from pathlib import Path
from featx.features.feature_file import FeatureFile
from featx.features.feature_set import FeatureSet
path = Path(sys.argv[1])
file, features = FeatureFile(path), FeatureSet.load(path, "hidden")
for line in sys.stdin:
    rows = np.flatnonzero(file.status == 1)
    assert file.checksums_match("penultimate", rows).all() and file.checksums_match("hidden", rows).all()
    values = [file.features("penultimate")[rows].tolist(), features.features.tolist(), file.images.labels.tolist()]
    print(hash(repr(values)), len(features), file.paths[0], flush=True)
"""


def test_a_reader_is_never_disturbed_by_who_writes_replaces_or_removes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    make(path)
    file, features = FeatureFile(path), FeatureSet.load(path, "hidden")
    before = {name: np.array(file.features(name)) for name in DIMS}
    command = [sys.executable, "-c", _READER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:

        def ask() -> str:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write("\n")
            reader.stdin.flush()
            return reader.stdout.readline()

        first, said = ask(), []
        for number in range(3):
            writer = begin(path, 6, root=f"/photos{number}")
            said.append(ask())
            writer.publish()
            writer.write(range(6), keys_of(6), {name: np.full((6, dim), -number) for name, dim in DIMS.items()})
            said.append(ask())
            writer.finish()
            said.append(ask())
            assert FeatureFile(path).features("hidden")[0, 0] == -number
        path.unlink()
        said.append(ask())
        reader.communicate()
    assert first.endswith(" 5 00.png\n")
    assert said == [first] * 10
    for name in DIMS:
        np.testing.assert_array_equal(file.features(name), before[name])
        assert file.checksums_match(name, np.array([0, 1, 2, 3, 5])).all()
    np.testing.assert_array_equal(features.features, before["hidden"][[0, 1, 2, 3, 5]])
    assert file.dataset["root"] == "/photos"


def test_readers_in_threads_see_one_whole_file_or_the_next_while_it_is_replaced(tmp_path: Path) -> None:
    path, stop = tmp_path / "f.h5", threading.Event()
    seen: list[set[float]] = []
    failed: list[Exception] = []

    def write(number: int) -> None:
        writer = begin(path, 6, root=f"/{number}")
        writer.publish()
        writer.write(range(6), keys_of(6), {name: np.full((6, dim), number) for name, dim in DIMS.items()})
        writer.finish()

    def read() -> None:
        try:
            while not stop.wait(0.001):  # or the writer waits long for its turn
                file = FeatureFile(path)
                numbers = {float(value) for name in DIMS for value in file.features(name).ravel()}
                seen.append(numbers | {float(file.dataset["root"][1:])})
                seen.append(set(map(float, FeatureSet.load(path).features.ravel())))
        except Exception as error:
            failed.append(error)

    write(0)
    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 25):
        write(number)
    stop.set()
    for reader in readers:
        reader.join()
    assert failed == []
    assert {len(numbers) for numbers in seen} == {1}
    assert len({min(numbers) for numbers in seen}) > 3


def test_files_that_are_refused_leave_no_descriptor_open(tmp_path: Path) -> None:
    make(tmp_path / "f.h5")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "f.h5").read_bytes()[:-1])

    def next_descriptor() -> int:
        handle = os.open(tmp_path, os.O_RDONLY)
        os.close(handle)
        return handle

    before = next_descriptor()
    for _ in range(20):
        with pytest.raises(CorruptFileError, match="was truncated or extended"):
            FeatureFile(tmp_path / "cut.h5")
        FeatureFile(tmp_path / "f.h5")
    assert next_descriptor() == before


# What is refused


def test_a_missing_file_is_a_miss_that_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(CacheMissError, match=r"there is no feature file .*none\.h5; featx extract makes one"):
        FeatureFile(tmp_path / "none.h5")


def test_a_missing_layer_is_a_miss_that_names_those_there_are(tmp_path: Path) -> None:
    file = make(tmp_path / "f.h5")
    with pytest.raises(
        CacheMissError, match=r"f\.h5 has no layer 'layer3', only penultimate, hidden; .*--layer layer3"
    ):
        file.features("layer3")


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        ("grid2", "grid2 is a pooling, and is written after a layer, as in penultimate:grid2"),
        ("tokens:16", "tokens:16 is a pooling, and is written after a layer, as in penultimate:tokens:16"),
        ("hidden:tokens", "there is no pooling 'tokens'; expected avg, max, "),
    ],
)
def test_a_missing_layer_that_extract_would_refuse_is_explained_instead(tmp_path: Path, layer: str, why: str) -> None:
    file = make(tmp_path / "f.h5")
    with pytest.raises(CacheMissError, match="only penultimate, hidden; --layer ") as caught:
        file.features(layer)
    assert why in str(caught.value)
    assert "featx extract" not in str(caught.value)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (0, "is an empty file; expected a feature file"),
        (7, "is not an HDF5 file"),
        (40, "the structure of the file is damaged"),
        (100, "has 100 bytes instead of"),
        (5000, "has 5,000 bytes instead of"),
        (-1, r"has [\d,]+ bytes instead of [\d,]+; it was truncated or extended"),
    ],
)
def test_a_truncated_file_is_corrupt(tmp_path: Path, keep: int, message: str) -> None:
    make(tmp_path / "f.h5")
    data = (tmp_path / "f.h5").read_bytes()
    (tmp_path / "f.h5").write_bytes(data[:keep])
    with pytest.raises(CorruptFileError, match=rf"f\.h5:? {message}"):
        FeatureFile(tmp_path / "f.h5")


def test_a_file_with_something_added_is_corrupt(tmp_path: Path) -> None:
    make(tmp_path / "f.h5")
    with (tmp_path / "f.h5").open("ab") as file:
        file.write(b"more")
    with pytest.raises(
        CorruptFileError, match=r"f\.h5 has [\d,]+ bytes instead of [\d,]+; it was truncated or extended"
    ):
        FeatureFile(tmp_path / "f.h5")


def test_a_file_that_is_not_hdf5_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "notes.h5").write_text("ants and bees\n" * 1000)
    with pytest.raises(CorruptFileError, match=r"notes\.h5 is not an HDF5 file"):
        FeatureFile(tmp_path / "notes.h5")


def test_a_foreign_hdf5_file_is_corrupt(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(
        CorruptFileError, match=r"keras\.h5 is an HDF5 file, but not a feature file in the form that featx"
    ):
        FeatureFile(tmp_path / "keras.h5")


def test_a_folder_and_a_pipe_are_corrupt(tmp_path: Path) -> None:
    (tmp_path / "folder.h5").mkdir()
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(CorruptFileError, match=r"folder\.h5 is a folder; expected a feature file"):
        FeatureFile(tmp_path / "folder.h5")
    with pytest.raises(CorruptFileError, match=r"pipe\.h5 is not a regular file"):
        FeatureFile(tmp_path / "pipe.h5")


def remake(path: Path, attrs: Mapping[str, Any] | None = None, tables: Mapping[str, Any] | None = None) -> None:
    """Write a well-formed structure that says something else; a table of None is left out."""
    handle = os.open(path, os.O_RDWR)
    old = hdf5.parse(handle, path)
    changed = {name: table for name, table in {**old.tables, **(tables or {})}.items() if table is not None}
    new = hdf5.pack({**old.attrs, **(attrs or {})}, changed)
    os.ftruncate(handle, 0)
    os.ftruncate(handle, new.size)
    os.pwrite(handle, new.data, 0)
    os.close(handle)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("format", "other", "format 'other', version 1; expected featx-features, 1"),
        ("version", 3, "format 'featx-features', version 3; expected featx-features, 1 or 2"),
        ("version", "1", "format 'featx-features', version '1'; expected featx-features, 1"),
        ("complete", 1, "the attribute complete is 1; expected uint8"),
        ("identity", 7, "the attribute identity is 7; expected str"),
        ("digest", "0" * 64, "the attribute digest is '0+'; expected bytes"),
        ("dataset", "{", "the attribute dataset is not JSON"),
        ("dataset", "[" * 100_000, "the attribute dataset is not JSON"),
        ("dataset", '{"name": NaN}', "the attribute dataset is not JSON: its JSON holds nan"),
        ("dataset", "[]", "the attribute dataset is not a JSON object"),
        ("dataset", '{"name": "a", "root": 7}', "root of the attribute dataset is not a str"),
        ("backbone", '{"name": "a", "weights": "b", "parts": []}', "parts of the attribute backbone is not a dict"),
        (
            "dataset",
            '{"name": "a", "root": "\\ud800", "splits": "given"}',
            r"the attribute dataset is not JSON: 'utf-8' codec can't encode",
        ),
        (
            "dataset",
            '{"name": "a", "root": "/a", "splits": "given", "max_pixels": "1"}',
            "max_pixels, root or table of the attribute dataset is not valid",
        ),
        (
            "dataset",
            json.dumps({"name": "a", "root": "/" * 5000, "splits": "given"}),
            "max_pixels, root or table of the attribute dataset is not valid",
        ),
        (
            "dataset",
            json.dumps({"name": "a", "root": "/a", "splits": "given", "table": 7}),
            "max_pixels, root or table of the attribute dataset is not valid",
        ),
        (
            "dataset",
            json.dumps({"name": "a", "root": "/a", "splits": "given", "table": "/" * 5000}),
            "max_pixels, root or table of the attribute dataset is not valid",
        ),
    ],
)
def test_attributes_that_mean_nothing_are_refused(tmp_path: Path, attribute: str, value: Any, message: str) -> None:
    make(tmp_path / "f.h5")
    remake(tmp_path / "f.h5", {attribute: value})
    with pytest.raises(CorruptFileError, match=rf"f\.h5: {message}"):
        FeatureFile(tmp_path / "f.h5")


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        *((name, None, "has the tables .*; expected") for name in ("images/key", "classes", "checks/hidden")),
        ("features/hidden", Table(np.dtype("<i8"), (6, 3)), r"features/hidden is \(6, 3\) of int64, for 6 rows"),
        ("features/hidden", Table(np.dtype("<f4"), (5, 3)), r"features/hidden is \(5, 3\) of float32, for 6 rows"),
        ("features/hidden", Table(np.dtype("<f4"), (6,)), r"features/hidden is \(6,\) of float32, for 6 rows"),
        ("features/hidden", Table(np.dtype("<f4"), (6, 3)), r"features/hidden is \(6, 3\) of float32, for 6 rows"),
        ("features/hidden", Table(np.dtype("<f4"), (6, 0)), r"features/hidden is \(6, 0\) of float32, for 6 rows"),
        (
            "features/hidden",
            Table(np.dtype("<f4"), (6, 2**24), {"identity": "b"}),
            r"features/hidden is \(6, 16777216\)",
        ),
        ("checks/hidden", Table(np.dtype("<u4"), (5,)), r"checks/hidden is \(5,\) of uint32, for 6 rows"),
        ("images/label", Table(np.dtype("<u4"), (6,)), r"images/label is \(6,\) of uint32, for 6 rows"),
        ("images/path", Table(np.dtype("S6"), (6, 2)), r"images/path is \(6, 2\) of \|S6, for 6 rows"),
        ("images/status", Table(np.dtype("u1"), (0,)), r"images/path is \(6,\) of \|S6, for 0 rows"),
        ("other", Table(np.dtype("u1"), (1,)), "has the tables .*; expected"),
    ],
)
def test_tables_of_another_name_shape_or_type_are_refused(
    tmp_path: Path, name: str, changed: Table | None, message: str
) -> None:
    make(tmp_path / "f.h5")
    remake(tmp_path / "f.h5", tables={name: changed})
    with pytest.raises(CorruptFileError, match=rf"f\.h5:? {message}"):
        FeatureFile(tmp_path / "f.h5")


def test_a_file_whose_tables_exceed_the_memory_is_refused_before_they_are_read(tmp_path: Path) -> None:
    path, rows = tmp_path / "bomb.h5", os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 200
    make(path)
    handle = os.open(path, os.O_RDWR)
    old = hdf5.parse(handle, path)
    tables = {
        n: t if n == "classes" else dataclasses.replace(t, shape=(rows, *t.shape[1:])) for n, t in old.tables.items()
    }
    new = hdf5.pack(old.attrs, tables)
    try:
        os.ftruncate(handle, new.size)  # takes no room on the disk
    except OSError:
        pytest.skip("this file system has no files larger than the memory")
    os.pwrite(handle, new.data, 0)
    os.close(handle)
    with pytest.raises(UnreadableFileError, match=r"bomb\.h5: its tables take [\d.]+ [TG]B; the memory is"):
        FeatureFile(path)


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("name", ["classes", *(f"images/{name}" for name in COLUMNS), "checks/hidden"])
def test_a_flipped_bit_in_a_table_does_not_fit_the_digest(tmp_path: Path, name: str, bit: int) -> None:
    make(tmp_path / "f.h5")
    flip(tmp_path / "f.h5", offset_of(tmp_path / "f.h5", name), bit)
    with pytest.raises(CorruptFileError, match=r"f\.h5: its tables do not match their digest"):
        FeatureFile(tmp_path / "f.h5")


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("images/label", b"\x02"),
        ("images/label", b"\xfe" + b"\xff" * 7),
        ("images/status", b"\x03"),
        ("images/status", b"\x00"),
        ("images/split", b"\xff"),
        ("images/path", b"a\x00b"),
        ("classes", b"\x00\x00\x00"),
    ],
)
def test_values_that_mean_nothing_are_refused_though_their_digest_fits(
    tmp_path: Path, table: str, value: bytes
) -> None:
    path = tmp_path / "f.h5"
    make(path)
    with path.open("r+b") as file:
        file.seek(offset_of(path, table))
        file.write(value)
    handle = os.open(path, os.O_RDWR)
    old = hdf5.parse(handle, path)
    os.pwrite(handle, hdf5.pack({**old.attrs, "complete": np.uint8(0)}, old.tables).data, 0)
    with (
        pytest.raises(CorruptFileError, match=r"f\.h5: its tables hold .* that are not valid")
        if table != "images/status"
        else (
            contextlib.nullcontext()  # a row that is still to do
        )
    ):
        file = FeatureFile(path, allow_partial=True)
        if table == "images/status":
            assert file.status[0] == TODO
            file.status[0] = value[0]
        digest = computed_digest(file).encode()
        os.pwrite(handle, hdf5.pack({**old.attrs, "digest": digest}, old.tables).data, 0)
    if table == "images/status":
        with pytest.raises(CorruptFileError, match=r"f\.h5: its tables hold .* that are not valid"):
            FeatureFile(path)


def test_a_flipped_bit_in_a_row_is_found_by_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    make(path)
    flip(path, offset_of(path, "features/hidden") + 3 * 3 * 4 + 1, 2)
    sound = FeatureFile(path).checksums_match("hidden", np.arange(6))
    assert sound.tolist() == [True, True, True, False, False, True]  # row 4 failed and has no features
    assert FeatureFile(path).checksums_match("penultimate", np.array([3])).all()
    with pytest.raises(
        CorruptFileError,
        match=r"f\.h5: 1 of 5 rows of layer hidden .* the first of 03\.png; the same featx extract with --rehash",
    ):
        FeatureSet.load(path, "hidden")
    assert verify_file(path)["bad_rows"] == 1


def _external(file: h5py.File, name: str, data: np.ndarray) -> None:
    raw = Path(file.filename).with_name("elsewhere.raw")
    raw.write_bytes(data.tobytes())
    file.create_dataset(name, data.shape, data.dtype, external=[(str(raw), 0, data.nbytes)])


def _virtual(file: h5py.File, name: str, data: np.ndarray) -> None:
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as source:
        source["data"] = data
    layout = h5py.VirtualLayout(data.shape, data.dtype)
    layout[...] = h5py.VirtualSource(other, "data", data.shape)
    file.create_virtual_dataset(name, layout)


def _linked(file: h5py.File, name: str, data: np.ndarray) -> None:
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as source:
        source["data"] = data
        source["data"].attrs["identity"] = "b" * 64
    file[name] = h5py.ExternalLink(other, "data")


def _chunked(file: h5py.File, name: str, data: np.ndarray) -> None:
    file.create_dataset(name, data=data, chunks=True)


def _compressed(file: h5py.File, name: str, data: np.ndarray) -> None:
    file.create_dataset(name, data=data, compression="gzip")


@pytest.mark.parametrize("name", ["features/hidden", "checks/hidden", "images/label"])
@pytest.mark.parametrize("store", [_external, _virtual, _linked, _chunked, _compressed])
def test_storage_that_is_not_whole_inside_the_file_is_refused(
    tmp_path: Path, name: str, store: Callable[[h5py.File, str, np.ndarray], None]
) -> None:
    path = tmp_path / "f.h5"
    make(path)
    with h5py.File(path, "r+") as file:
        data = file[name][()]
        del file[name]
        store(file, name, data)
        if not isinstance(file.get(name, getlink=True), h5py.ExternalLink):
            file[name].attrs["identity"] = "b" * 64
    with pytest.raises(
        CorruptFileError, match=r"f\.h5(: the structure of the file is damaged| has .* bytes instead of)"
    ):
        FeatureFile(path)


# Every version, for ever


def test_the_file_of_version_1_is_read_for_ever() -> None:
    file = FeatureFile(GOLDEN)
    assert file.complete
    assert file.identity == "3" * 64
    assert file.classes == ("ant", "bee\u00e9")
    assert file.backbone == {
        "name": "lenet5",
        "weights": "default",
        "parts": {"dtype": "float32", "decoder": 1, "transform": {"crop": 32}},
    }
    assert file.dataset == {"name": "insects", "root": "insects", "splits": "given"}
    assert [os.fsencode(path) for path in file.paths] == [
        b"ant/a.jpg",
        b"ant/b.jpg",
        b"ant/f\xc3\xbcnf.png",
        b"bee/caf\xe9.jpg",
        b"bee/d.tif",
        b"loose.webp",
    ]
    assert file.images.labels.tolist() == [0, 0, 0, 1, 1, -1]
    assert file.splits.tolist() == ["train", "train", "test", "train", "val", "test"]
    assert file.images.sizes.tolist() == [1001, 1002, 1003, 1004, 1005, 1006]
    assert file.images.mtimes.tolist() == [1_700_000_000_000_000_000 + row for row in range(6)]
    assert file.status.tolist() == [1, 1, 1, 1, 2, 1]
    assert file.error(4) == "cannot be decoded: image file is truncated (5 bytes not processed)"
    np.testing.assert_array_equal(file.keys, np.arange(96, dtype=np.uint8).reshape(6, 16))
    assert {name: (layer.dim, layer.dtype.str, layer.identity) for name, layer in file.layers.items()} == {
        "penultimate": (3, "<f4", "1" * 64),
        "hidden": (2, "<f4", "2" * 64),
    }


def test_the_features_of_version_1_are_read_for_ever() -> None:
    penultimate, hidden = FeatureSet.load(GOLDEN), FeatureSet.load(GOLDEN, "hidden")
    np.testing.assert_array_equal(
        penultimate.features,
        np.array([[0, 0.25, 0.5], [1, 1.25, 1.5], [2, 2.25, 2.5], [3, 3.25, 3.5], [5, 5.25, 5.5]], dtype=np.float32),
    )
    np.testing.assert_array_equal(hidden.features[:, 0] * -1024, [0, 1, 2, 3, 5])
    np.testing.assert_array_equal(hidden.features[:, 1] / -1048576, [0, 1, 2, 3, 5])
    assert penultimate.labels.tolist() == [0, 0, 0, 1, -1]
    assert verify_file(GOLDEN) == {"ok": True, "rows": 6, "bad_rows": 0, "duplicates": 0, "problems": []}


# Other processes, and many files


def test_a_pickled_file_opens_its_path_again_and_refuses_another_file_there(tmp_path: Path) -> None:
    file = make(tmp_path / "f.h5")
    data = pickle.dumps(file)
    again = pickle.loads(data)
    assert again.keys.tolist() == file.keys.tolist()
    np.testing.assert_array_equal(again.features("hidden"), file.features("hidden"))
    make(tmp_path / "f.h5", root="/other")
    with pytest.raises(StaleCacheError, match=r"f\.h5 has been replaced since this object was pickled"):
        pickle.loads(data)


def test_a_released_file_is_opened_again_and_only_if_it_is_the_same(tmp_path: Path) -> None:
    file = make(tmp_path / "f.h5")
    file.release()
    rows = np.array([0, 1])
    assert file.checksums_match("hidden", rows).all()
    assert file.error(4)
    assert file._file.released
    make(tmp_path / "g.h5", 7).path.replace(tmp_path / "f.h5")
    with pytest.raises(CacheMissError, match=r"f\.h5 was replaced by another file while it was in use"):
        file.checksums_match("hidden", rows)


_FEW_DESCRIPTORS = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from feature_files import IDENTITIES, keys_of, make
from featx.extraction.reuse import KnownRows
from featx.features.folder import files_sharing
folder = Path(sys.argv[2])
views = {f"penultimate@{number}": 5 for number in range(40)}
make(folder / "many-layers.h5", dims=views, identities=dict.fromkeys(views, "a" * 64))
for number in range(60):
    make(folder / f"{number}.h5")
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
files = files_sharing(folder, [IDENTITIES])
known = KnownRows(files, list(IDENTITIES))
found, features = known.take(keys_of(6))
many, = files_sharing(folder, [{"penultimate@7": "a" * 64}])
each = [many.features(name) for name in views]
print(len(files), found.tolist(), features["hidden"].shape, len(each))
"""


def test_files_are_open_only_while_they_are_needed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _FEW_DESCRIPTORS, str(Path(__file__).parent.parent), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout == "60 [True, True, True, True, False, True] (5, 3) 40\n", run.stderr
