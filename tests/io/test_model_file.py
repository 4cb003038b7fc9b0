from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from featx.errors import CorruptFileError, HeadError, ModelNotFoundError, OutputError
from featx.heads.head_file import HEAD
from featx.io.atomic import require_writable
from featx.io.model_file import Schema, newest, read, read_metadata, write
from featx.promotion.model_file import MODEL

REPORT = {"accuracy": 0.75, "n": 4, "split": "test"}
TRANSFORM = {"resize": 32, "crop": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear"}
PARAMETERS = {"C": 0.25, "k": None, "kernel": None, "seed": 0}
SHARED = {"classes": ["ant", "bee", "cat"], "dataset": {"name": "pets"}, "n_train": 2, "seconds": 0.5}

HEAD_FACTS = {
    **SHARED,
    "kind": "logreg",
    "form": "linear",
    "task": "classification",
    "parameters": {
        **PARAMETERS,
        "weight_decay": None,
        "class_weight": None,
        "logit_adjustment": 0.0,
        "calibrate": None,
        "group": None,
    },
    "temperature": 1.0,
    "reject_below": None,
    "layer": "penultimate",
    "identity": "f00d" * 16,
    "backbone": {"name": "lenet5", "weights": "default", "parts": {"dtype": "float32", "transform": TRANSFORM}},
    "source": None,
    "search": [{"candidate": 0.25, "mean": 0.5, "standard_error": None}],
    "convergence": None,
    "notes": [],
    "held_out": None,
    "report": None,
}
HEAD_ARRAYS = {
    "scorer.weight": np.arange(12, dtype=np.float64).reshape(3, 4),
    "scorer.bias": np.zeros(3),
    "mean": np.zeros(4),
    "scale": np.ones(4),
    "offset": np.zeros(3),
    "train_keys": np.arange(32, dtype=np.uint8).reshape(2, 16),
}

FACTS = {
    **SHARED,
    "name": "lenet5",
    "origin": {"source": "featx", "name": "lenet5"},
    "classifier": "classifier",
    "reject_below": None,
    "layer": "penultimate",
    "width": 4,
    "transform": TRANSFORM,
    "head": {"kind": "logreg", "parameters": PARAMETERS, "identity": "f00d" * 16},
    "verdict": "assembled",
    "why": "the network is the head",
    "max_logit_difference": 1e-6,
    "head_report": REPORT,
    "report": REPORT,
    "log": [],
    "settings": None,
}
ARRAYS = {
    "classifier.weight": np.arange(12, dtype=np.float64).reshape(3, 4),
    "featx.train_keys": np.arange(32, dtype=np.uint8).reshape(2, 16),
    "half": np.array([0.5, -2.0], dtype=np.float16),
    "labels": np.array([3, 1], dtype=np.int64),
    "gamma": np.array(0.25),
    "k": np.array(7),
    "nothing": np.empty((0, 5), dtype=np.float32),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's file, as far as this room knows: a network may have any arrays."""
    path = tmp_path / "model.safetensors"
    write(path, ARRAYS, FACTS, MODEL)
    return path


def save_head(path: Path, **facts: Any) -> None:
    write(path, HEAD_ARRAYS, {**HEAD_FACTS, **facts}, HEAD)


def test_arrays_come_back_with_their_shapes_and_types(model: Path) -> None:
    arrays, _ = read(model, MODEL)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype, name
        assert arrays[name].shape == array.shape, name
        np.testing.assert_array_equal(arrays[name], array)


def test_arrays_that_are_views_come_back_as_they_look(tmp_path: Path) -> None:
    base = np.arange(24.0).reshape(4, 6)
    write(tmp_path / "m", {**ARRAYS, "t": base.T, "step": base[::2, ::3]}, FACTS, MODEL)
    arrays, _ = read(tmp_path / "m", MODEL)
    np.testing.assert_array_equal(arrays["t"], base.T)
    np.testing.assert_array_equal(arrays["step"], base[::2, ::3])


def test_metadata_comes_back_with_format_and_version(tmp_path: Path) -> None:
    facts = {**FACTS, "classes": ["a\nb", "\N{GRINNING FACE}", "\udcff"], "more": {"C": 0.1, "k": None, "kept": True}}
    write(tmp_path / "m", ARRAYS, facts, MODEL)
    found = read_metadata(tmp_path / "m", HEAD, MODEL)
    assert found.pop("format") == "featx-model"
    assert found.pop("version") == MODEL.version == 2
    assert len(found.pop("sha256")) == 64
    assert found == facts


def test_the_same_content_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    write(tmp_path / "again", dict(reversed(ARRAYS.items())), dict(reversed(FACTS.items())), MODEL)
    assert (tmp_path / "again").read_bytes() == model.read_bytes()


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    save_head(tmp_path / "a" / "b" / "h.safetensors")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["h.safetensors"]


def test_saving_again_replaces_the_file_and_leaves_nothing_beside_it(model: Path) -> None:
    save_head(model, kind="svm")
    assert read_metadata(model, HEAD, MODEL)["kind"] == "svm"
    assert list(model.parent.iterdir()) == [model]


def test_a_name_as_long_as_a_name_can_be_is_written(tmp_path: Path) -> None:
    for name in ("x" * 243 + ".safetensors", "\N{GRINNING FACE}" * 60 + ".safetensors"):
        save_head(tmp_path / name)
        assert read_metadata(tmp_path / name, HEAD)["kind"] == "logreg"


def test_a_file_can_be_read_by_others(model: Path) -> None:
    assert model.stat().st_mode & 0o777 == 0o644


def test_a_save_that_fails_leaves_the_old_file_and_no_litter(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OutputError,
        match=r"cannot write .*model\.safetensors \(\d\.\d kB\): No space left on device; .* are free, .*; name another file",
    ):
        save_head(model)
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]


def test_a_save_that_is_interrupted_leaves_the_old_file_and_no_litter(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model.read_bytes()

    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt("Ctrl-C")

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        save_head(model)
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]


def test_a_file_where_a_folder_should_be_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("not a folder")
    with pytest.raises(OutputError, match=r"cannot write .*; name another file with -o"):
        save_head(tmp_path / "models" / "h.safetensors")
    assert (tmp_path / "models").read_text() == "not a folder"


def test_a_folder_where_the_file_should_be_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "h.safetensors").mkdir()
    with pytest.raises(OutputError, match=r"h\.safetensors is a folder; name a file to write with -o"):
        save_head(tmp_path / "h.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["h.safetensors"]


def test_a_file_that_is_not_there_is_a_miss_that_names_the_commands(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no head or model .*; featx fit-head and featx promote make them"):
        read_metadata(tmp_path / "none.safetensors", HEAD, MODEL)
    with pytest.raises(ModelNotFoundError, match=r"no head .*; featx fit-head makes one"):
        read(tmp_path / "none.safetensors", HEAD)


@pytest.mark.parametrize(("wrote", "wanted"), [(HEAD, MODEL), (MODEL, HEAD)])
def test_a_head_is_not_taken_for_a_model_nor_a_model_for_a_head(wrote: Schema, wanted: Schema, tmp_path: Path) -> None:
    save_as(wrote, tmp_path / "x")
    with pytest.raises(CorruptFileError, match=f"is a (promoted )?{wrote.noun}; expected a {wanted.noun}, which"):
        read(tmp_path / "x", wanted)


@pytest.mark.parametrize(("kind", "version", "known"), [(HEAD, 99, 2), (HEAD, 1, 2), (MODEL, 1, 2)])
def test_a_file_of_another_version_says_which_version_is_read(
    kind: Schema, version: int, known: int, tmp_path: Path
) -> None:
    text = json.dumps({"format": kind.format, "version": version})
    save_file({"w": np.zeros(1)}, tmp_path / "x", metadata={"featx": text})
    with pytest.raises(CorruptFileError, match=f"is of version {version}; this featx reads version {known}"):
        read(tmp_path / "x", kind)


def test_a_head_of_version_2_may_hold_thresholds_and_curves_whole_or_not_at_all(tmp_path: Path) -> None:
    curves = {"isotonic.x": np.zeros((3, 5)), "isotonic.y": np.ones((3, 5)), "isotonic.doubt": np.array(0.5)}
    more = {"thresholds": np.full(3, 0.25), **curves}
    write(tmp_path / "h", {**HEAD_ARRAYS, **more}, HEAD_FACTS, HEAD)
    assert read_metadata(tmp_path / "h", HEAD, MODEL)["version"] == 2
    found = read(tmp_path / "h", HEAD)[0]
    assert found.keys() == HEAD_ARRAYS.keys() | more.keys()
    for name in curves:
        part = {**HEAD_ARRAYS, **{key: array for key, array in curves.items() if key != name}}
        with pytest.raises(HeadError, match=f"could not be read again: .*there is no array {name}"):
            write(tmp_path / "part", part, HEAD_FACTS, HEAD)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("thresholds", np.array([0.5, 0.5, 1.5]), "array thresholds holds numbers that are not from 0 to 1"),
        ("thresholds", np.full(2, 0.5), r"array thresholds is F64 \(2,\); expected F64 \(3,\)"),
        ("isotonic.x", np.full((3, 5), -0.1), r"array isotonic\.x holds numbers that are not from 0 to 1"),
        ("isotonic.y", np.zeros((3, 4)), r"array isotonic\.y is F64 \(3, 4\); expected F64 \(3, 5\)"),
        ("isotonic.doubt", np.array(0.0), r"array isotonic\.doubt holds numbers that are not from 2\.2\S+ to 1"),
        ("offset", np.array([0.0, np.nan, 0.0]), "array offset holds NaN or infinity"),
        ("offset", np.zeros(2), r"array offset is F64 \(2,\); expected F64 \(3,\)"),
    ],
)
def test_calibration_that_makes_no_sense_is_not_written(
    name: str, value: np.ndarray, message: str, tmp_path: Path
) -> None:
    curves = {"isotonic.x": np.zeros((3, 5)), "isotonic.y": np.ones((3, 5)), "isotonic.doubt": np.array(0.5)}
    with pytest.raises(HeadError, match=f"could not be read again: .*{message}"):
        write(tmp_path / "h", {**HEAD_ARRAYS, **curves, name: value}, HEAD_FACTS, HEAD)


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"featx": "[1]"}, {"featx": '{"format": "soup of featx", "version": 1}'}]
)
def test_a_safetensors_file_of_somebody_else_is_no_head(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    save_file({"w": np.zeros(1)}, tmp_path / "x", metadata=metadata)
    kind = "is not" if "soup" in str(metadata) else "is a file of network weights; expected"
    with pytest.raises(CorruptFileError, match=f"x {kind} a head or model"):
        read_metadata(tmp_path / "x", HEAD, MODEL)
    with pytest.raises(CorruptFileError, match=f"x {kind} a head"):
        read(tmp_path / "x", HEAD)


def test_a_format_of_featx_that_is_not_expected_is_named(tmp_path: Path) -> None:
    text = json.dumps({"format": "featx-soup", "version": 1})
    save_file({"w": np.zeros(1)}, tmp_path / "x", metadata={"featx": text})
    with pytest.raises(CorruptFileError, match="x is a featx-soup; expected a featx-head or featx-model"):
        read_metadata(tmp_path / "x", HEAD, MODEL)


@pytest.mark.parametrize("content", [b"\0" * 8, b"hello", b"\x93NUMPY" + bytes(100), b"\xff" * 64])
def test_a_file_that_is_not_safetensors_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CorruptFileError, match="x is not a safetensors file"):
        read(tmp_path / "x", HEAD)


def test_metadata_that_is_not_json_is_said_to_be_none(tmp_path: Path) -> None:
    save_file({"w": np.zeros(1)}, tmp_path / "x", metadata={"featx": "{"})
    with pytest.raises(CorruptFileError, match="x is not a safetensors file"):
        read(tmp_path / "x", HEAD)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_corrupt(keep: float, model: Path) -> None:
    data = model.read_bytes()
    model.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(
        CorruptFileError, match=r"model\.safetensors is not a safetensors file: (a header of|tensors up to)"
    ):
        read(model, MODEL)


def test_one_flipped_bit_in_the_arrays_is_found(model: Path) -> None:
    data = bytearray(model.read_bytes())
    stored = sum(array.nbytes for array in ARRAYS.values())
    for place in (1, stored // 2, stored):
        damaged = data.copy()
        damaged[-place] ^= 0x10
        model.write_bytes(damaged)
        with pytest.raises(CorruptFileError, match="is damaged: its arrays and metadata do not match their checksum"):
            read(model, MODEL)


def test_one_flipped_digit_in_the_metadata_is_found(tmp_path: Path) -> None:
    path = tmp_path / "h"
    save_head(path, temperature=0.375)
    assert read(path, HEAD)[1]["temperature"] == 0.375
    path.write_bytes(path.read_bytes().replace(b"0.375", b"0.875"))
    assert read_metadata(path, HEAD, MODEL)["temperature"] == 0.875
    with pytest.raises(CorruptFileError, match="is damaged: its arrays and metadata do not match their checksum"):
        read(path, HEAD)


def test_an_array_that_is_renamed_or_reshaped_is_found(model: Path) -> None:
    text = json.dumps(read_metadata(model, HEAD, MODEL))
    other = {("third" if name == "half" else name): array for name, array in ARRAYS.items()}
    turned = {**ARRAYS, "labels": ARRAYS["labels"].reshape(2, 1)}
    for arrays in (other, turned):
        save_file(arrays, model, metadata={"featx": text})
        with pytest.raises(CorruptFileError, match="is damaged: its arrays and metadata do not match their checksum"):
            read(model, MODEL)


def save_as(schema: Schema, path: Path) -> None:
    save_head(path) if schema is HEAD else write(path, ARRAYS, FACTS, MODEL)


def aged(path: Path, seconds: int) -> Path:
    """The file, written that long after the first of January 2020."""
    os.utime(path, (1_577_836_800 + seconds,) * 2)
    return path


def test_the_newest_file_of_the_format_is_found_among_all_others(tmp_path: Path) -> None:
    for seconds, (name, kind) in enumerate([("old", HEAD), ("new", HEAD), ("model", MODEL)]):
        save_as(kind, tmp_path / f"{name}.safetensors")
        aged(tmp_path / f"{name}.safetensors", seconds)
    save_file({"w": np.zeros(1)}, tmp_path / "foreign.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"hello")
    (tmp_path / "notes.txt").write_text("newer than all")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert newest(tmp_path, HEAD) == tmp_path / "new.safetensors"
    assert newest(tmp_path, MODEL) == tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (HEAD, "there is no head in .*; run featx fit-head first, or name a file"),
        (MODEL, "there is no model in .*; run featx promote first, or name a file"),
    ],
)
def test_a_folder_without_the_format_names_the_command_that_makes_one(
    wanted: Schema, message: str, tmp_path: Path
) -> None:
    save_as(MODEL if wanted == HEAD else HEAD, tmp_path / "x.safetensors")
    with pytest.raises(ModelNotFoundError, match=message):
        newest(tmp_path, wanted)
    with pytest.raises(ModelNotFoundError, match=message):
        newest(tmp_path / "not there", wanted)


# Before the work, and where nothing can be read


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(
        HeadError, match=r"was not written, because it could not be read again: .*temperature is 0; expected a"
    ):
        save_head(tmp_path / "h", temperature=0)
    with pytest.raises(HeadError, match="could not be read again: Out of range float values"):
        save_head(tmp_path / "h", seconds=float("nan"))
    with pytest.raises(HeadError, match=r"could not be read again: .*array mean holds NaN or infinity"):
        write(tmp_path / "h", {**HEAD_ARRAYS, "mean": np.full(4, np.inf)}, HEAD_FACTS, HEAD)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b" / "h.safetensors", need=10**6)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "h").write_text("an older head")
    require_writable(tmp_path / "h")
    assert (tmp_path / "h").read_text() == "an older head"


def test_a_disk_without_room_is_said_with_both_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=3_100_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(
        OutputError, match=r"m\.safetensors needs 8\.2 GB, and 3\.1 GB are free; name another disk with -o"
    ):
        require_writable(tmp_path / "m.safetensors", need=8_200_000_000)
    require_writable(tmp_path / "m.safetensors", need=3_000_000_000)


def test_a_folder_a_pipe_a_file_on_the_way_and_too_long_a_name_are_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    os.mkfifo(tmp_path / "pipe")
    for path, message in [
        (tmp_path, "is a folder; name a file to write with -o"),
        (tmp_path / "pipe", "is not a regular file; name a file to write with -o"),
        (tmp_path / "file" / "h", "cannot write .*: Not a directory; name another file with -o"),
        (tmp_path / "file" / "new" / "h", "cannot write .*: Not a directory; name another file with -o"),
        (tmp_path / ("x" * 256), "cannot write .*: File name too long; name another file with -o"),
        (tmp_path / "a\0b", "cannot write .*: embedded null byte; name another file with -o"),
    ]:
        with pytest.raises(OutputError, match=message):
            require_writable(path)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that nobody can write")
def test_a_read_only_file_system_is_said_even_to_root() -> None:
    with pytest.raises(OutputError, match=r"cannot write /proc/heads/h: .*; name another file with -o"):
        require_writable(Path("/proc/heads/h"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write and read everything")
def test_missing_permissions_are_said(model: Path, tmp_path: Path) -> None:
    model.chmod(0)
    with pytest.raises(ModelNotFoundError, match="cannot be read as a head or model: Permission denied"):
        read_metadata(model, HEAD, MODEL)
    (tmp_path / "mine").mkdir(mode=0o500)
    with pytest.raises(OutputError, match=r"cannot write .*: Permission denied; name another file with -o"):
        require_writable(tmp_path / "mine" / "h")


def test_refusals_of_the_system_are_said(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*args: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", deny)
    with pytest.raises(OutputError, match=r"cannot write .*h: Permission denied; name another file with -o"):
        require_writable(tmp_path / "h")
    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(
        ModelNotFoundError, match=r"model\.safetensors cannot be read as a head or model: Permission denied"
    ):
        read_metadata(model, HEAD, MODEL)


def test_what_is_no_ordinary_file_is_said_to_be_none_and_nothing_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, why in [
        (tmp_path / "pipe", "it is not a regular file"),
        (Path("/dev/zero"), "it is not a regular file"),
        (tmp_path / "loop", "Too many levels of symbolic links"),
        (tmp_path / ("x" * 256), "File name too long"),
        (tmp_path / "a\0b", "embedded null byte"),
    ]:
        for use in (lambda path: read_metadata(path, HEAD, MODEL), lambda path: read(path, HEAD)):
            with pytest.raises(ModelNotFoundError, match=rf"cannot be read as a head( or model)?: {why}"):
                use(path)
    for path, kind in ((tmp_path, "a folder"), (tmp_path / "empty", "an empty file")):
        with pytest.raises(ModelNotFoundError, match=f"is {kind}; expected a head, which featx fit-head makes"):
            read(path, HEAD)
    with pytest.raises(ModelNotFoundError, match="there is no head or model"):
        read_metadata(tmp_path / "empty" / "below a file", HEAD, MODEL)


def test_a_file_that_is_cut_while_it_is_read_is_corrupt(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fromfile, size = np.fromfile, model.stat().st_size

    def cut(*args: Any) -> np.ndarray:
        os.truncate(model, size - 40)
        return fromfile(*args)

    monkeypatch.setattr(np, "fromfile", cut)
    with pytest.raises(CorruptFileError, match="cannot be read completely"):
        read(model, MODEL)
