"""The feature file: what is in it, what is refused, what a kill leaves, and who may write."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featx import cache as cache_room
from featx.cache import (
    DONE,
    FAILED,
    TODO,
    CacheWriter,
    FeatureCache,
    ImageTable,
    differences,
    feature_file,
    holds,
    newest,
    write_lock,
)
from featx.errors import CacheLockedError, CacheMissError, CorruptCacheError, OutputError
from featx.features import FeatureSet
from featx.inspection import verify_file

GOLDEN = Path(__file__).parent / "golden" / "features-v1.h5"

IDENTITIES = {"penultimate": "a" * 64, "hidden": "b" * 64}
DIMS = {"penultimate": 5, "hidden": 3}
BACKBONE = {"name": "lenet5", "weights": "default", "parts": {"dtype": "float32"}}

COLUMNS = ("path", "label", "split", "key", "size", "mtime_ns", "status", "error")


def table(count: int, *, paths: Sequence[bytes] | None = None, splits: Sequence[bytes] | None = None) -> ImageTable:
    """Rows of two classes; the last is unlabelled."""
    return ImageTable(
        paths=np.array(paths or [b"%02d.png" % row for row in range(count)]),
        labels=np.array([row % 2 for row in range(count - 1)] + [-1]),
        splits=np.array(splits or [b"train"] * count),
        sizes=np.arange(count) + 100,
        mtimes=np.arange(count) + 10**18,
    )


def vectors(count: int, dim: int, dtype: str = "float32") -> np.ndarray:
    """(count, dim), all different."""
    return (np.arange(count * dim).reshape(count, dim) / 8 + 1).astype(dtype)


def keys_of(count: int) -> np.ndarray:
    """(count, 16) uint8, none of them all zero."""
    return np.random.default_rng(0).integers(1, 256, (count, 16), dtype=np.uint8)


def begin(
    path: Path,
    count: int = 6,
    *,
    classes: Sequence[str] = ("ant", "bee"),
    dims: Mapping[str, int] = DIMS,
    dtype: str = "float32",
    root: str = "/photos",
    identities: Mapping[str, str] = IDENTITIES,
    images: ImageTable | None = None,
) -> CacheWriter:
    """A writer with no rows yet."""
    return CacheWriter(
        path,
        images=images or table(count),
        classes=classes,
        layers={name: (dim, identities[name]) for name, dim in dims.items()},
        dtype=dtype,
        identity="c" * 64,
        backbone=BACKBONE,
        dataset={"name": "photos", "root": root, "splits": "given"},
    )


def write_rows(writer: CacheWriter, rows: Sequence[int], count: int = 6, dtype: str = "float32") -> None:
    """Commit these rows of ``vectors``."""
    rows = list(rows)
    features = {name: vectors(count, dim, dtype)[rows] for name, dim in writer._layers.items()}
    writer.write(rows, keys_of(count)[rows], features)


def make(path: Path, count: int = 6, *, dtype: str = "float32", **options: Any) -> FeatureCache:
    """A complete file; row 4 failed, where there is one."""
    writer = begin(path, count, dtype=dtype, **options)
    writer.publish()
    write_rows(writer, [row for row in range(count) if row != 4], count, dtype)
    if count > 4:
        writer.fail(4, keys_of(count)[4].tobytes(), "cannot be decoded: truncated")
    return writer.finish()


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


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
    file = make(tmp_path / "f.h5", classes=())
    assert file.classes == ()
    assert FeatureCache(tmp_path / "f.h5").complete


def test_paths_and_classes_that_are_not_utf8_come_back_as_they_were(tmp_path: Path) -> None:
    paths = [b"caf\xe9/1.png", "f\u00fcnf/2.png".encode(), b"\xff\xfe.png"]
    classes = [os.fsdecode(b"caf\xe9"), "f\u00fcnf"]
    file = make(tmp_path / "f.h5", 3, images=table(3, paths=paths), classes=classes)
    assert [os.fsencode(path) for path in file.paths] == paths
    assert file.classes == tuple(classes)


def test_a_long_reason_is_cut_between_characters(tmp_path: Path) -> None:
    writer = begin(tmp_path / "f.h5")
    writer.publish()
    writer.fail(0, bytes(16), "x" + "\u00e9" * 100)
    writer.fail(1, bytes(16), "bad byte \udcff")
    file = writer.finish()
    assert file.error(0) == "x" + "\u00e9" * 59
    assert file.error(1) == "bad byte ?"


def test_splits_decided_at_the_end_are_kept(tmp_path: Path) -> None:
    writer = begin(tmp_path / "f.h5", images=table(6, splits=[b""] * 6))
    writer.publish()
    write_rows(writer, range(6))
    names = ["train", "val", "test", "", "pretrain", "train"]
    writer.set_splits(names)
    assert writer.finish().splits.tolist() == names


# What a run leaves on the way


def test_the_file_has_its_final_name_only_when_it_is_complete(tmp_path: Path) -> None:
    def names() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    writer = begin(tmp_path / "f.h5")
    assert names() == ["f.h5.new"]
    writer.publish()
    assert names() == ["f.h5.partial"]
    write_rows(writer, range(6))
    assert names() == ["f.h5.partial"]
    writer.finish()
    assert names() == ["f.h5"]


def test_an_incomplete_file_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    writer = begin(tmp_path / "f.h5")
    writer.publish()
    write_rows(writer, [0, 3])
    partial = tmp_path / "f.h5.partial"
    with pytest.raises(CorruptCacheError, match=r"f\.h5\.partial is incomplete; run the same featx extract again"):
        FeatureCache(partial)
    file = FeatureCache(partial, allow_partial=True)
    assert not file.complete
    assert file.status.tolist() == [DONE, TODO, TODO, DONE, TODO, TODO]
    assert file.sound("penultimate", np.arange(6)).tolist() == [True, False, False, True, False, False]


_KILLED_AT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_cache as t

folder, pwrite = Path(sys.argv[2]), os.pwrite
for at in range(10_000):
    child = os.fork()
    if child == 0:
        calls = 0
        def torn(handle, data, offset):
            global calls
            calls += 1
            if calls > at:
                pwrite(handle, data[: len(data) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            return pwrite(handle, data, offset)
        writer = t.begin(folder / f"{at}.h5", 3)
        writer.publish()
        os.pwrite = torn
        t.write_rows(writer, [0, 1], 3)
        writer.fail(2, bytes(16), "why")
        writer.finish()
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
print(at)
"""


def test_a_kill_at_any_write_leaves_a_file_that_opens_and_no_row_that_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED_AT, str(Path(__file__).parent), str(tmp_path)]
    kills = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert kills == 2 * 2 * len(DIMS) + 2 * 2 + 3  # (row, check) x layers, (key, status), and the failed row's three
    seen = set()
    for at in range(kills):
        assert not (tmp_path / f"{at}.h5").exists()
        file = FeatureCache(tmp_path / f"{at}.h5.partial", allow_partial=True)
        done = np.flatnonzero(file.status == DONE)
        seen.add(len(done))
        for layer, dim in DIMS.items():
            assert file.sound(layer, done).all()
            np.testing.assert_array_equal(file.features(layer)[done], vectors(3, dim)[done])
        np.testing.assert_array_equal(file.keys[done], keys_of(3)[done])
    assert seen == {0, 1, 2}
    assert FeatureCache(tmp_path / f"{kills}.h5").status.tolist() == [DONE, DONE, FAILED]


def test_an_open_file_stays_readable_when_another_takes_its_name(tmp_path: Path) -> None:
    file = make(tmp_path / "f.h5", 3)
    before = file.features("hidden").copy()
    make(tmp_path / "f.h5", 6)
    np.testing.assert_array_equal(file.features("hidden"), before)
    assert file.sound("hidden", np.arange(3)).all()


# What is refused


def test_a_missing_file_is_a_miss_that_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(CacheMissError, match=r"there is no feature file .*none\.h5; featx extract makes one"):
        FeatureCache(tmp_path / "none.h5")


def test_a_missing_layer_is_a_miss_that_names_those_there_are(tmp_path: Path) -> None:
    file = make(tmp_path / "f.h5")
    with pytest.raises(
        CacheMissError, match=r"f\.h5 has no layer 'layer3', only hidden, penultimate; .*--layer layer3"
    ):
        file.features("layer3")


@pytest.mark.parametrize("keep", [0, 7, 100, 5000, -1], ids=lambda keep: f"{keep} bytes")
def test_a_truncated_file_is_corrupt(tmp_path: Path, keep: int) -> None:
    make(tmp_path / "f.h5")
    data = (tmp_path / "f.h5").read_bytes()
    (tmp_path / "f.h5").write_bytes(data[:keep])
    with pytest.raises(CorruptCacheError, match=r"f\.h5 is not a sound HDF5 file"):
        FeatureCache(tmp_path / "f.h5")


def test_a_file_that_is_not_hdf5_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "notes.h5").write_text("ants and bees\n" * 1000)
    with pytest.raises(CorruptCacheError, match=r"notes\.h5 is not a sound HDF5 file"):
        FeatureCache(tmp_path / "notes.h5")


def test_a_foreign_hdf5_file_is_corrupt(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        file["weights"] = np.zeros(3)
    message = r"keras\.h5: format None, version None; expected featx-features, 1"
    with pytest.raises(CorruptCacheError, match=message):
        FeatureCache(tmp_path / "keras.h5")


@pytest.mark.parametrize(
    ("attribute", "value", "found"),
    [("format", "other", "format other, version 1"), ("version", 2, "format featx-features, version 2")],
)
def test_another_format_or_version_is_corrupt(tmp_path: Path, attribute: str, value: Any, found: str) -> None:
    make(tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file.attrs[attribute] = value
    with pytest.raises(CorruptCacheError, match=rf"f\.h5: {found}; expected featx-features, 1"):
        FeatureCache(tmp_path / "f.h5")


@pytest.mark.parametrize("name", ["images/key", "images/label", "classes", "checks/hidden", "features"])
def test_a_file_that_lacks_a_part_is_corrupt(tmp_path: Path, name: str) -> None:
    make(tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        del file[name]
    with pytest.raises(CorruptCacheError, match=r"f\.h5 is not a sound HDF5 file"):
        FeatureCache(tmp_path / "f.h5")


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("name", ["classes", *(f"images/{name}" for name in COLUMNS), "checks/hidden"])
def test_a_flipped_bit_in_a_table_does_not_fit_the_digest(tmp_path: Path, name: str, bit: int) -> None:
    make(tmp_path / "f.h5")
    flip(tmp_path / "f.h5", offset_of(tmp_path / "f.h5", name), bit)
    with pytest.raises(CorruptCacheError, match=r"f\.h5: its tables do not fit their digest"):
        FeatureCache(tmp_path / "f.h5")


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("text", [b'"name": "photos"', b"c" * 64, b"b" * 64, b'"weights": "default"'])
def test_a_flipped_bit_in_an_attribute_does_not_fit_the_digest(tmp_path: Path, text: bytes, bit: int) -> None:
    path = tmp_path / "f.h5"
    make(path)
    flip(path, path.read_bytes().index(text) + len(text) - 2, bit)
    with pytest.raises(CorruptCacheError, match=r"f\.h5: its tables do not fit their digest"):
        FeatureCache(path)


def test_a_flipped_bit_in_a_row_is_found_by_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    make(path)
    flip(path, offset_of(path, "features/hidden") + 3 * 3 * 4 + 1, 2)
    sound = FeatureCache(path).sound("hidden", np.arange(6))
    assert sound.tolist() == [True, True, True, False, False, True]  # row 4 failed and has no features
    assert FeatureCache(path).sound("penultimate", np.array([3])).all()
    with pytest.raises(CorruptCacheError, match=r"f\.h5: 1 of 5 rows of layer hidden .* the first of 03\.png; delete"):
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
    with pytest.raises(CorruptCacheError, match=r"f\.h5: .* is not stored whole and contiguous in the file"):
        FeatureCache(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("features/hidden", np.zeros((6, 3)), r"layer hidden is float64, .*; expected float and uint32"),
        ("features/hidden", np.zeros((5, 3), "<f4"), r"layer hidden is \(5, 3\), .*; expected 6 rows"),
        ("features/hidden", np.zeros(6, "<f4"), r"layer hidden is \(6,\), .*; expected 6 rows"),
        ("checks/hidden", np.zeros(5, "<u4"), r"its checks \(5,\); expected 6 rows"),
        ("checks/hidden", np.zeros(6, "<u8"), r"its checks uint64; expected float and uint32"),
        ("images/label", np.zeros(5, "<i8"), r"the columns of /images differ in length"),
    ],
)
def test_tables_of_another_shape_or_type_are_refused(tmp_path: Path, name: str, data: np.ndarray, message: str) -> None:
    path = tmp_path / "f.h5"
    make(path)
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = data
        file[name].attrs["identity"] = "b" * 64
    with pytest.raises(CorruptCacheError, match=rf"f\.h5: .*{message}"):
        FeatureCache(path)


# Where files are, and what they are called


def named(folder: Path, **changes: Any) -> Path:
    """``feature_file`` for the features that ``make`` writes."""
    wanted = {"dataset": "photos", "root": "/photos", "backbone": "lenet5", "identities": IDENTITIES}
    return feature_file(folder, **{**wanted, **changes})


def test_the_first_file_of_a_data_set_has_the_plain_name(tmp_path: Path) -> None:
    assert named(tmp_path) == tmp_path / "photos--lenet5.h5"


def test_the_same_features_are_found_again_under_the_same_name(tmp_path: Path) -> None:
    make(named(tmp_path))
    assert named(tmp_path) == tmp_path / "photos--lenet5.h5"
    assert named(tmp_path, identities={"hidden": "b" * 64}) == tmp_path / "photos--lenet5.h5"


@pytest.mark.parametrize(
    "changes", [{"identities": {"penultimate": "d" * 64}}, {"root": "/other/photos"}], ids=["features", "root"]
)
def test_a_taken_name_gets_a_short_hash_that_is_found_again(tmp_path: Path, changes: dict[str, Any]) -> None:
    make(named(tmp_path))
    other = named(tmp_path, **changes)
    assert re.fullmatch(r"photos--lenet5--[0-9a-f]{8}\.h5", other.name)
    identities = changes.get("identities", IDENTITIES)
    make(
        other,
        dims={name: DIMS[name] for name in identities},
        root=changes.get("root", "/photos"),
        identities=identities,
    )
    assert named(tmp_path, **changes) == other
    assert named(tmp_path) == tmp_path / "photos--lenet5.h5"
    assert named(tmp_path, identities={"penultimate": "e" * 64}) not in (other, tmp_path / "photos--lenet5.h5")


def test_what_an_interrupted_run_left_takes_its_name_too(tmp_path: Path) -> None:
    begin(named(tmp_path)).publish()
    assert named(tmp_path).name == "photos--lenet5.h5"
    assert named(tmp_path, root="/other").name != "photos--lenet5.h5"


def test_a_damaged_file_is_not_taken_for_these_features(tmp_path: Path) -> None:
    (tmp_path / "photos--lenet5.h5").write_bytes(b"damaged")
    assert re.fullmatch(r"photos--lenet5--[0-9a-f]{8}\.h5", named(tmp_path).name)


@pytest.mark.parametrize(
    ("backbone", "name"),
    [("timm/vit_tiny", "photos--timm-vit_tiny.h5"), ("nets/own.v2.py:make", "photos--own.v2-make.h5")],
)
def test_a_backbone_name_with_slashes_makes_one_file_name(tmp_path: Path, backbone: str, name: str) -> None:
    assert named(tmp_path, backbone=backbone) == tmp_path / name


def test_a_file_holds_features_when_every_identity_and_the_root_agree(tmp_path: Path) -> None:
    file = make(tmp_path / "f.h5")
    assert holds(file, IDENTITIES, "/photos")
    assert holds(file, {"hidden": "b" * 64})
    assert not holds(file, IDENTITIES, "/elsewhere")
    assert not holds(file, {"hidden": "a" * 64})
    assert not holds(file, {**IDENTITIES, "layer3": "f" * 64})


def test_differences_name_the_parts_with_both_values() -> None:
    ours = {"dtype": "float32", "transform": {"crop": 224}, "decoder": 1}
    theirs = {"dtype": "float16", "transform": {"crop": 32}, "decoder": 1, "long": "x" * 300}
    found = differences(ours, theirs)
    assert found[0] == "dtype: float32 against float16"
    assert found[1] == f"long: None against {'x' * 197}..."
    assert found[2:] == ['transform: {"crop": 224} against {"crop": 32}']


def test_the_newest_file_is_the_one_written_last(tmp_path: Path) -> None:
    for name, seconds in (("a.h5", 30), ("b.h5", 50), ("c.h5", 40), ("d.h5.partial", 60), ("e.safetensors", 70)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (seconds, seconds))
    (tmp_path / "folder.h5").mkdir()
    assert newest(tmp_path) == tmp_path / "b.h5"


def test_an_empty_folder_has_no_newest_file(tmp_path: Path) -> None:
    with pytest.raises(
        CacheMissError, match=r"there is no feature file in .*; run featx extract first, or name a file"
    ):
        newest(tmp_path)


# Who may write, and where


_HOLD = """
import sys, time
from pathlib import Path
from featx.cache import write_lock
with write_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_until_the_first_one_ends_however_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            message = (
                rf"f\.h5 is being written by process {holder.pid} since \d{{4}}-\d\d-\d\d .*; wait for it, or end it"
            )
            with pytest.raises(CacheLockedError, match=message), write_lock(path):
                pytest.fail("two writers at once")
        finally:
            holder.send_signal(signal.SIGKILL)
    with write_lock(path):
        assert str(os.getpid()) in (tmp_path / ".f.h5.lock").read_text()


def test_a_lock_is_for_one_file_and_is_let_go_of_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), write_lock(tmp_path / "f.h5"), write_lock(tmp_path / "g.h5"):
        raise RuntimeError("stop")
    with write_lock(tmp_path / "f.h5"), write_lock(tmp_path / "g.h5"):
        assert (tmp_path / ".g.h5.lock").exists()


def test_the_lock_makes_the_folder(tmp_path: Path) -> None:
    with write_lock(tmp_path / "new" / "deep" / "f.h5"):
        assert (tmp_path / "new" / "deep").is_dir()


def test_a_file_in_the_place_of_the_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    message = r"cannot write into .*cache: .*; name another folder with --cache"
    with pytest.raises(OutputError, match=message), write_lock(tmp_path / "cache" / "f.h5"):
        pytest.fail("wrote into a file")


def test_a_folder_without_write_permission_is_an_output_error(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user writes wherever it likes")
    with pytest.raises(OutputError, match=r"cannot write into .*cache: Permission denied"), write_lock(folder / "f.h5"):
        pytest.fail("wrote without permission")


def test_too_little_space_is_an_error_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage(10**11, 10**11 - 5 * 10**9, 5 * 10**9))
    message = r"needs 12\.0 GB, 5\.0 GB are free; --cache names another folder, --dtype float16 halves the need"
    with pytest.raises(OutputError, match=message):
        begin(tmp_path / "f.h5", 3, dims={"penultimate": 10**9})
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_reserve_the_file_is_an_error_that_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match=r"cannot write .*f\.h5\.new: No space left on device"):
        begin(tmp_path / "f.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = begin(tmp_path / "f.h5")
    writer.publish()

    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(cache_room.os, "pwrite", broken)
    for write in (
        lambda: write_rows(writer, [0]),
        lambda: writer.fail(0, bytes(16), "why"),
        lambda: writer.set_splits(["train"] * 6),
    ):
        with pytest.raises(OutputError, match=r"cannot write .*f\.h5\.partial: Input/output error"):
            write()


# Every version, for ever


def test_the_file_of_version_1_is_read_for_ever() -> None:
    file = FeatureCache(GOLDEN)
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
    assert verify_file(GOLDEN) == {"ok": True, "rows": 6, "bad_rows": 0, "problems": []}
