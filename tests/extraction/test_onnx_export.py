"""Exported networks are stored, and never mistaken for one another."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_networks import EXPORTED, assert_close, assert_same, pixels_for, require
from safetensors.torch import save_file

from featx.backbones.backbone import Backbone, load_backbone
from featx.errors import EngineError
from featx.extraction import onnx_export
from featx.extraction.engines import open_engine


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Exporting takes no time, and gives something else every time."""
    made: list[bytes] = []

    def export(*_: Any) -> bytes:
        made.append(f"network {len(made)}".encode())
        return made[-1]

    monkeypatch.setattr(onnx_export, "export", export)
    return made


def exported(backbone: Backbone, batch: int = 1, *, plain: bool = False) -> bytes:
    return onnx_export.onnx_bytes(SimpleNamespace(plain=plain, encoder=object), backbone, batch)  # type: ignore[arg-type]


def kept(home: Path) -> list[Path]:
    return sorted((home / "engines").iterdir())


@pytest.mark.parametrize("engine", EXPORTED)
def test_a_network_is_exported_once(
    engine: str, own_home: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(engine)
    first = open_engine(engine, lenet)(pixels_for(lenet))
    (file,) = kept(own_home)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("exported again"))
    for _ in range(2):
        again = load_backbone("lenet5", device="cpu")
        assert_same(open_engine(engine, again)(pixels_for(again)), first)
    assert kept(own_home) == [file]


def test_what_is_kept_is_the_same_for_both_engines_that_take_it(
    own_home: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in EXPORTED:
        require(engine)
    open_engine("onnxruntime", lenet)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("exported again"))
    open_engine("openvino", lenet)


def test_a_damaged_network_is_exported_anew(own_home: Path, lenet: Backbone) -> None:
    require("onnxruntime")
    wanted = open_engine("onnxruntime", lenet)(pixels_for(lenet))
    (file,) = kept(own_home)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (bytes(flipped), whole[: len(whole) // 2], b""):
        file.write_bytes(damaged)
        assert_close(open_engine("onnxruntime", lenet)(pixels_for(lenet)), wanted)
        assert any(path.read_bytes() != damaged for path in kept(own_home))


def test_a_damaged_file_is_not_read_as_a_network(own_home: Path, lenet: Backbone, exports: list[bytes]) -> None:
    assert exported(lenet) == exported(lenet) == b"network 0"
    (file,) = kept(own_home)
    file.write_bytes(b"network X")
    assert exported(lenet) == exported(lenet) == b"network 1"


def test_whatever_changes_a_network_changes_its_export(
    own_home: Path, tmp_path: Path, lenet: Backbone, exports: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = lenet.network.state_dict()
    state["classifier.bias"][0] += 1e-3
    save_file(state, tmp_path / "changed.safetensors")
    backbones = [
        load_backbone("lenet5", device="cpu"),
        load_backbone("lenet5", weights=str(tmp_path / "changed.safetensors"), device="cpu"),
        load_backbone("lenet5", layers=("features.3",), device="cpu"),
        load_backbone("mobilenet_v1_025", weights="random", crop=64, device="cpu"),
        load_backbone("mobilenet_v1_025", weights="random", crop=96, device="cpu"),
    ]

    def every() -> list[bytes]:
        return [
            *(exported(backbone) for backbone in backbones),
            exported(backbones[0], batch=4),
            exported(backbones[0], plain=True),
        ]

    first = every()
    assert len(set(first)) == len(first) == len(exports)
    assert every() == first
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert not set(every()) & set(first)


def test_no_more_exports_are_kept_than_sixteen_and_the_oldest_go(
    own_home: Path, lenet: Backbone, exports: list[bytes]
) -> None:
    import os

    for batch in range(1, 20):
        exported(lenet, batch)
        for path in kept(own_home):  # a second older, so that the order is certain
            stat = path.stat()
            os.utime(path, (stat.st_atime - 1, stat.st_mtime - 1))
        if batch > 4:
            exported(lenet, 2)  # used again and again
    files = kept(own_home)
    assert len(files) == 16
    assert {path.suffix for path in files} == {".onnx"}
    assert len(exports) == 19
    contents = {path.read_bytes() for path in files}
    assert {b"network 1", b"network 18"} <= contents
    assert not {b"network 0", b"network 2", b"network 3"} & contents


def test_a_home_that_cannot_be_written_costs_time_and_nothing_else(
    tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch, exports: list[bytes]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "file"))
    assert [exported(lenet), exported(lenet)] == [b"network 0", b"network 1"]
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "full"))
    with monkeypatch.context() as patch:
        patch.setattr("featx.io.atomic.replacing", full_disk)
        assert exported(lenet) == b"network 2"
    assert kept(tmp_path / "full") == []
    monkeypatch.delenv("FEATX_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert exported(lenet) == b"network 3"


def full_disk(*_: Any, **__: Any) -> int:
    raise OSError(28, "No space left on device")


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_network_too_large_for_one_file_is_refused_before_it_is_exported(
    lenet: Backbone, own_home: Path, monkeypatch: pytest.MonkeyPatch, exports: list[bytes]
) -> None:
    require("onnxruntime")
    monkeypatch.setattr(onnx_export, "LARGEST_EXPORT", 1000)
    with pytest.raises(EngineError, match="lenet5 is too large for one ONNX file"):
        open_engine("onnxruntime", lenet)
    assert exports == []
