from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from featx.errors import CacheMissError, CorruptCacheError, OutputError
from featx.modelfile import HEAD, MODEL, VERSION, load_model, newest, read_metadata, save_model

ARRAYS = {
    "weight": np.arange(12, dtype=np.float64).reshape(3, 4),
    "half": np.array([0.5, -2.0], dtype=np.float16),
    "labels": np.array([3, 1], dtype=np.int64),
    "keys": np.arange(32, dtype=np.uint8).reshape(2, 16),
    "gamma": np.array(0.25),
    "k": np.array(7),
    "nothing": np.empty((0, 5), dtype=np.float32),
}


@pytest.fixture
def head(tmp_path: Path) -> Path:
    """A head's file, as far as this room knows."""
    path = tmp_path / "head.safetensors"
    save_model(path, ARRAYS, {"kind": "logreg"}, format=HEAD)
    return path


def test_arrays_come_back_with_their_shapes_and_types(head: Path) -> None:
    arrays, _ = load_model(head, format=HEAD)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype, name
        assert arrays[name].shape == array.shape, name
        np.testing.assert_array_equal(arrays[name], array)


def test_arrays_that_are_views_come_back_as_they_look(tmp_path: Path) -> None:
    base = np.arange(24.0).reshape(4, 6)
    save_model(tmp_path / "h", {"t": base.T, "step": base[::2, ::3]}, {}, format=HEAD)
    arrays, _ = load_model(tmp_path / "h", format=HEAD)
    np.testing.assert_array_equal(arrays["t"], base.T)
    np.testing.assert_array_equal(arrays["step"], base[::2, ::3])


def test_metadata_comes_back_with_format_and_version(tmp_path: Path) -> None:
    facts = {"classes": ["a\nb", "\N{GRINNING FACE}", "\udcff"], "nested": {"C": 0.1, "k": None}, "kept": True}
    save_model(tmp_path / "m", {"w": np.zeros(2)}, facts, format=MODEL)
    found = read_metadata(tmp_path / "m")
    assert found.pop("format") == "featx-model"
    assert found.pop("version") == VERSION == 1
    assert len(found.pop("sha256")) == 64
    assert found == facts


def test_the_same_content_gives_the_same_bytes(head: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "again", dict(reversed(ARRAYS.items())), {"kind": "logreg"}, format=HEAD)
    assert (tmp_path / "again").read_bytes() == head.read_bytes()


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    save_model(tmp_path / "a" / "b" / "h.safetensors", {}, {}, format=HEAD)
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["h.safetensors"]


def test_saving_again_replaces_the_file_and_leaves_nothing_beside_it(head: Path) -> None:
    save_model(head, {"w": np.ones(1)}, {"kind": "svm"}, format=HEAD)
    assert read_metadata(head)["kind"] == "svm"
    assert list(head.parent.iterdir()) == [head]


def test_a_file_can_be_read_by_others(head: Path) -> None:
    assert head.stat().st_mode & 0o777 == 0o644


def test_a_save_that_fails_leaves_the_old_file_and_no_litter(head: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = head.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OutputError, match=r"cannot write .*head\.safetensors: No space left on device; name another file"
    ):
        save_model(head, {"w": np.ones(9)}, {}, format=HEAD)
    assert head.read_bytes() == before
    assert list(head.parent.iterdir()) == [head]


def test_a_save_that_is_interrupted_leaves_the_old_file_and_no_litter(
    head: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = head.read_bytes()

    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt("Ctrl-C")

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        save_model(head, {"w": np.ones(9)}, {}, format=HEAD)
    assert head.read_bytes() == before
    assert list(head.parent.iterdir()) == [head]


def test_a_file_where_a_folder_should_be_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("not a folder")
    with pytest.raises(OutputError, match=r"cannot write .*; name another file with -o"):
        save_model(tmp_path / "models" / "h.safetensors", {}, {}, format=HEAD)
    assert (tmp_path / "models").read_text() == "not a folder"


def test_a_folder_where_the_file_should_be_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "h.safetensors").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*h\.safetensors: .*; name another file with -o"):
        save_model(tmp_path / "h.safetensors", {}, {}, format=HEAD)
    assert [p.name for p in tmp_path.iterdir()] == ["h.safetensors"]


def test_a_file_that_is_not_there_is_a_miss_that_names_the_commands(tmp_path: Path) -> None:
    with pytest.raises(CacheMissError, match=r"no head or model .*; featx fit-head and featx promote make them"):
        load_model(tmp_path / "none.safetensors", format=HEAD)


@pytest.mark.parametrize(("wrote", "wanted"), [(HEAD, MODEL), (MODEL, HEAD)])
def test_a_head_is_not_taken_for_a_model_nor_a_model_for_a_head(wrote: str, wanted: str, tmp_path: Path) -> None:
    save_model(tmp_path / "x", {}, {}, format=wrote)
    with pytest.raises(CorruptCacheError, match=f"is a {wrote}; expected a {wanted}"):
        load_model(tmp_path / "x", format=wanted)


def test_a_file_of_a_later_version_says_which_version_is_read(tmp_path: Path) -> None:
    text = json.dumps({"format": HEAD, "version": 99})
    save_file({"w": np.zeros(1)}, tmp_path / "x", metadata={"featx": text})
    with pytest.raises(CorruptCacheError, match="is of version 99; this featx reads 1"):
        load_model(tmp_path / "x", format=HEAD)


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"featx": "[1]"}, {"featx": '{"format": "featx-soup", "version": 1}'}]
)
def test_a_safetensors_file_of_somebody_else_is_no_head(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    save_file({"w": np.zeros(1)}, tmp_path / "x", metadata=metadata)
    with pytest.raises(CorruptCacheError, match="is not a head or model of featx; expected a file that fit-head"):
        load_model(tmp_path / "x", format=HEAD)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY" + bytes(100), b"\xff" * 64])
def test_a_file_that_is_not_safetensors_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CorruptCacheError, match="x is not a safetensors file"):
        load_model(tmp_path / "x", format=HEAD)


def test_metadata_that_is_not_json_is_said_to_be_none(tmp_path: Path) -> None:
    save_file({"w": np.zeros(1)}, tmp_path / "x", metadata={"featx": "{"})
    with pytest.raises(CorruptCacheError, match="x is not a safetensors file"):
        load_model(tmp_path / "x", format=HEAD)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_corrupt(keep: float, head: Path) -> None:
    data = head.read_bytes()
    head.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(CorruptCacheError, match=r"head\.safetensors is not a safetensors file"):
        load_model(head, format=HEAD)


def test_one_flipped_bit_in_the_arrays_is_found(head: Path) -> None:
    data = bytearray(head.read_bytes())
    stored = sum(array.nbytes for array in ARRAYS.values())
    for place in (1, stored // 2, stored):
        damaged = data.copy()
        damaged[-place] ^= 0x10
        head.write_bytes(damaged)
        with pytest.raises(CorruptCacheError, match="is damaged: its arrays and metadata do not fit their checksum"):
            load_model(head, format=HEAD)


def test_one_flipped_digit_in_the_metadata_is_found(tmp_path: Path) -> None:
    path = tmp_path / "m"
    save_model(path, ARRAYS, {"temperature": 0.25, "classes": ("a", "b")}, format=MODEL)
    assert load_model(path, format=MODEL)[1]["temperature"] == 0.25
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.35"))
    assert read_metadata(path)["temperature"] == 0.35
    with pytest.raises(CorruptCacheError, match="is damaged: its arrays and metadata do not fit their checksum"):
        load_model(path, format=MODEL)


def test_an_array_that_is_renamed_or_reshaped_is_found(head: Path) -> None:
    text = json.dumps(read_metadata(head))
    other = {("wait" if name == "weight" else name): array for name, array in ARRAYS.items()}
    turned = {**ARRAYS, "weight": ARRAYS["weight"].reshape(4, 3)}
    for arrays in (other, turned):
        save_file(arrays, head, metadata={"featx": text})
        with pytest.raises(CorruptCacheError, match="is damaged: its arrays and metadata do not fit their checksum"):
            load_model(head, format=HEAD)


def aged(path: Path, seconds: int) -> Path:
    """The file, written that long after the first of January 2020."""
    os.utime(path, (1_577_836_800 + seconds,) * 2)
    return path


def test_the_newest_file_of_the_format_is_found_among_all_others(tmp_path: Path) -> None:
    for seconds, (name, kind) in enumerate([("old", HEAD), ("new", HEAD), ("model", MODEL)]):
        save_model(tmp_path / f"{name}.safetensors", {}, {}, format=kind)
        aged(tmp_path / f"{name}.safetensors", seconds)
    save_file({"w": np.zeros(1)}, tmp_path / "foreign.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"hello")
    (tmp_path / "notes.txt").write_text("newer than all")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    assert newest(tmp_path, format=HEAD) == tmp_path / "new.safetensors"
    assert newest(tmp_path, format=MODEL) == tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (HEAD, "there is no head in .*; run featx fit-head first, or name one"),
        (MODEL, "there is no model in .*; run featx promote first, or name one"),
    ],
)
def test_a_folder_without_the_format_names_the_command_that_makes_one(
    wanted: str, message: str, tmp_path: Path
) -> None:
    save_model(tmp_path / "x.safetensors", {}, {}, format=MODEL if wanted == HEAD else HEAD)
    with pytest.raises(CacheMissError, match=message):
        newest(tmp_path, format=wanted)
    with pytest.raises(CacheMissError, match=message):
        newest(tmp_path / "not there", format=wanted)
