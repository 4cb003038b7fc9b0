"""Images that fail for a reason that lies in the machine are tried again; those that fail by themselves are not."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extractions import assert_own_features, counts
from pictures import file_of
from PIL import Image, PngImagePlugin

from featx.backbones.backbone import Backbone
from featx.data import pillow
from featx.data.decode import decode, read_pixels
from featx.data.file_bytes import NO_KEY
from featx.data.loader import read_images
from featx.data.transform import Transform
from featx.errors import DatasetError, ImageError, MachineError
from featx.extraction.pipeline import extract
from featx.features.feature_file import FAILED, FeatureFile


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


FAULTS = {
    "no memory": (MemoryError(), "there is too little memory"),
    "no memory, as Pillow says it": (
        OSError("out of memory error when reading image file"),
        "there is too little memory",
    ),
    "a failing disk": (
        OSError(errno.EIO, "Input/output error"),
        "cannot be decoded on this machine: Input/output error",
    ),
    "too many files": (OSError(errno.EMFILE, "Too many open files"), "on this machine: Too many open files"),
    "no decoder": (OSError("decoder zip not available"), "its Pillow .* lacks zlib; pip install -U pillow"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_machine_is_told_from_a_fault_of_the_file(
    name: str, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, message = FAULTS[name]
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", raising(error))
    with pytest.raises(MachineError, match=message):
        decode((few / "dark" / "1.png").read_bytes())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_a_missing_plug_in_is_the_machines(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(np.zeros((9, 9, 3), np.uint8), kind)
    lacking = dict(Image.OPEN)
    del lacking[kind]
    monkeypatch.setattr(Image, "OPEN", lacking)
    with pytest.raises(MachineError, match=r"^cannot be decoded on this machine: its Pillow [\d.]+ lacks "):
        decode(data)


def test_a_library_that_pillow_was_built_without_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(np.zeros((9, 9, 3), np.uint8), "WEBP")
    monkeypatch.setattr(Image.OPEN["WEBP"][0], "_open", raising(NameError("name '_webp' is not defined")))
    with pytest.raises(ImageError, match="a WEBP file that is truncated, damaged or of a rare kind") as plain:
        decode(data)
    assert not isinstance(plain.value, MachineError)
    monkeypatch.setattr(pillow.features, "check", lambda name: name != "webp")
    with pytest.raises(MachineError, match="lacks webp; pip install -U pillow"):
        decode(data)


def test_a_decoder_that_hides_that_memory_ran_out_is_found_out(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", raising(OSError("failed to read next frame")))
    monkeypatch.setattr(pillow.np, "empty", raising(MemoryError()))
    with pytest.raises(MachineError, match="there is too little memory"):
        decode((few / "dark" / "1.png").read_bytes())


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")]
)
def test_memory_that_runs_out_while_an_image_is_resized_is_the_machines(
    error: Exception, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featx.data.transform.resize_pixels", raising(error))
    with pytest.raises(MachineError, match="there is too little memory"):
        read_pixels((few / "dark" / "1.png").read_bytes(), Transform())
    monkeypatch.setattr("featx.data.transform.resize_pixels", raising(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        read_pixels((few / "dark" / "1.png").read_bytes(), Transform())


LITTLE = """
import resource, sys
from pathlib import Path
import torch
from featx.data.decode import read_pixels
from featx.data.transform import Transform
from featx.errors import MachineError

torch.set_num_threads(1)
files = [Path(name).read_bytes() for name in sys.argv[2:]]
read_pixels(Path(sys.argv[1]).read_bytes(), Transform())  # loads what there is to load
memory = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
outcomes = []
for more in (20, 40, 60, 80, 100, 400):
    resource.setrlimit(resource.RLIMIT_AS, (memory + (more << 20), -1))
    for data in files:
        try:
            outcomes.append(f"{more} {read_pixels(data, Transform()).shape}")
        except MachineError as error:
            outcomes.append(f"{more} {error}")
print(*outcomes, sep=chr(10))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory of a process from /proc")
def test_no_decoder_takes_lack_of_memory_for_a_damaged_file(few: Path, tmp_path: Path) -> None:
    side, names = 2600, []
    for kind, options in {
        "PNG": {}, "JPEG": {}, "GIF": {}, "WEBP": {"lossless": True, "method": 0}, "AVIF": {"speed": 10}, "JPEG2000": {},
        "TIFF": {"compression": "tiff_deflate"},
    }.items():  # fmt: skip
        pixels = np.full((side, side), 0.5, np.float32) if kind == "TIFF" else np.full((side, side, 3), 90, np.uint8)
        names.append(str(tmp_path / kind))
        Path(names[-1]).write_bytes(file_of(pixels, kind, **options))
    script = [sys.executable, "-c", LITTLE, str(few / "dark" / "1.png"), *names]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 6 * len(names)
    assert {line.partition(" ")[2] for line in lines} == {"(3, 224, 224)", pillow.TOO_LITTLE_MEMORY}
    assert [line for line in lines if line.startswith("400")] == ["400 (3, 224, 224)"] * len(names)


def test_an_image_that_the_machine_cannot_decode_has_no_key(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = few / "dark" / "1.png"
    (image,) = read_images([(0, path)], raising(MachineError("no memory")), workers=1)
    assert (image.key, image.pixels, image.error, image.size) == (NO_KEY, None, "no memory", path.stat().st_size)


def failing_once(few: Path, name: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let decoding one image of a folder raise an error."""
    spoilt = (few / name).read_bytes()
    load = PngImagePlugin.PngImageFile.load

    def sometimes(self: Any) -> Any:
        if self.fp is not None and getattr(self.fp, "getvalue", bytes)() == spoilt:
            raise error
        return load(self)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", sometimes)


@pytest.mark.parametrize("error", [MemoryError(), OSError("decoder zip not available")])
def test_an_image_that_failed_by_the_machine_is_tried_again_by_the_next_run(
    error: Exception, few: Path, tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        failing_once(few, "dark/2.png", error, broken)
        first = extract(few, lenet, cache=tmp_path / "cache")
        assert counts(first) == (8, 7, 0, 1, 0)
        assert "on this machine" in first.failures[0][1]
        assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (8, 0, 7, 1, 0)
    second = extract(few, lenet, cache=tmp_path / "cache")
    assert counts(second) == (8, 1, 7, 0, 0)
    assert_own_features(second, lenet, few)


def test_strict_stops_at_a_fault_of_the_machine_and_the_next_run_goes_on(
    few: Path, tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        failing_once(few, "light/3.png", MemoryError(), broken)
        with pytest.raises(DatasetError, match=r"light/3\.png: .*too little memory\. --strict stops"):
            extract(few, lenet, cache=tmp_path / "cache", strict=True)
    assert extract(few, lenet, cache=tmp_path / "cache", strict=True).failed == 0


def test_rehash_decodes_failed_images_again(
    few: Path, tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        failing_once(few, "dark/2.png", SyntaxError("as if it were damaged"), broken)
        first = extract(few, lenet, cache=tmp_path / "cache")
        assert "truncated, damaged or of a rare kind" in first.failures[0][1]
    assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (8, 0, 7, 1, 0)
    again = extract(few, lenet, cache=tmp_path / "cache", rehash=True)
    assert counts(again) == (8, 1, 7, 0, 0)
    assert_own_features(again, lenet, few)


def test_other_decoders_try_failed_images_again(
    few: Path, tmp_path: Path, lenet: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr("featx.extraction.inventory.reader_name", lambda: "featx 1, Pillow 9")
        older.setattr("featx.extraction.committer.reader_name", lambda: "featx 1, Pillow 9")
        failing_once(few, "dark/2.png", SyntaxError("not known yet"), older)
        assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (8, 7, 0, 1, 0)
        assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (8, 0, 7, 1, 0)
    result = extract(few, lenet, cache=tmp_path / "cache")
    assert counts(result) == (8, 1, 7, 0, 0)
    inode = result.file.stat().st_ino
    with monkeypatch.context() as newer:
        newer.setattr("featx.extraction.inventory.reader_name", lambda: "featx 3, Pillow 14")
        assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)
    assert result.file.stat().st_ino == inode  # nothing failed, so that there is nothing to write


def test_a_damaged_image_stays_failed_without_being_read_again(
    few: Path, tmp_path: Path, lenet: Backbone, opened: Callable[[], list[str]]
) -> None:
    path = few / "dark" / "2.png"
    path.write_bytes(path.read_bytes()[:-40])
    first = extract(few, lenet, cache=tmp_path / "cache")
    assert counts(first) == (8, 7, 0, 1, 0)
    opened()
    assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (8, 0, 7, 1, 0)
    assert opened() == []
    file = FeatureFile(first.file)
    assert file.keys[np.flatnonzero(file.status == FAILED)].any()
