"""extract: every row is what the backbone gives for its image, in the file that its options name."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extractions import MakeImage, assert_own_features, counts, embed, own_network
from safetensors.numpy import save_file

from featx.backbones.backbone import Backbone, load_backbone
from featx.data.decode import MAX_PIXELS
from featx.data.file_bytes import image_key
from featx.data.pillow import reader_name
from featx.data.scan import scan_images
from featx.data.transform import Transform
from featx.errors import CacheLockedError, OutputError, StaleCacheError
from featx.extraction.pipeline import extract
from featx.features.feature_file import FeatureFile
from featx.features.lock import write_lock
from featx.identity import differences


def test_every_row_is_what_the_backbone_gives_for_its_image(photos: Path, tmp_path: Path, lenet: Backbone) -> None:
    result = extract(photos, lenet, cache=tmp_path / "cache")
    assert counts(result) == (40, 40, 0, 0, 0)
    features = result.load()
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    assert features.paths.tolist() == names
    assert [features.classes[label] for label in features.labels] == [name.split("/")[0] for name in names]
    assert features.features.dtype == np.float32
    assert_own_features(result, lenet, photos)


def test_several_layers_come_from_one_pass(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    backbone = load_backbone("lenet5", layers=("features.3", "features"), device="cpu")
    result = extract(few, backbone, cache=tmp_path / "cache")
    assert encoded == [4, 4]
    assert result.layers == {"penultimate": 84, "features": 120, "features.3": 16}
    for layer in result.layers:
        features = result.load(layer)
        np.testing.assert_allclose(features.features[5], embed(backbone, few / features.paths[5], layer), atol=1e-5)


def test_the_table_of_the_file_says_what_the_images_are(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    result = extract(few, lenet, cache=tmp_path / "cache")
    file = FeatureFile(result.file)
    for row, path in enumerate(file.paths):
        data, stat = (few / path).read_bytes(), (few / path).stat()
        assert file.keys[row].tobytes() == image_key(data)
        assert (file.images.sizes[row], file.images.mtimes[row]) == (stat.st_size, stat.st_mtime_ns)
    assert file.dataset == {
        "name": "few",
        "root": str(few),
        "splits": "hash",
        "max_pixels": MAX_PIXELS,
        "reader": reader_name(),
    }
    assert (file.backbone["name"], file.backbone["weights"]) == ("lenet5", "default")
    assert file.backbone["parts"] == lenet.describe()
    assert file.identity == result.identity == lenet.identity
    assert file.layers["penultimate"].identity == lenet.identities["penultimate"]


def test_batch_size_and_workers_do_not_change_a_feature(photos: Path, tmp_path: Path, lenet: Backbone) -> None:
    def features(name: str, **options: int) -> np.ndarray:
        return extract(photos, lenet, out=tmp_path / f"{name}.h5", **options).load().features

    eight = features("eight", batch_size=8, workers=1)
    np.testing.assert_array_equal(features("threads", batch_size=8, workers=7), eight)
    for size in (1, 7, 40):
        np.testing.assert_allclose(features(str(size), batch_size=size), eight, atol=1e-6)


def test_float16_features_are_the_float32_ones_rounded(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    half = extract(few, load_backbone("lenet5", dtype="float16", device="cpu"), cache=tmp_path).load()
    full = extract(few, lenet, cache=tmp_path).load()
    assert half.features.dtype == np.float16
    np.testing.assert_array_equal(half.features, full.features.astype(np.float16))
    assert half.identity != full.identity


def test_the_same_run_gives_the_same_bytes(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    one, two = (extract(few, lenet, out=tmp_path / name).file.read_bytes() for name in ("one.h5", "two.h5"))
    assert one == two


def test_a_backbone_can_be_named_and_images_be_scanned_before(few: Path, in_tmp: Path) -> None:
    result = extract(scan_images(few), "lenet5")
    assert result.file == Path("cache/few--lenet5.h5")
    assert len(result.load()) == 8


def test_a_flat_folder_gives_features_without_labels(tmp_path: Path, make_image: MakeImage, lenet: Backbone) -> None:
    for number in range(3):
        make_image(tmp_path / "flat" / f"{number}.png", seed=number)
    features = extract(tmp_path / "flat", lenet, cache=tmp_path).load()
    assert features.labels.tolist() == [-1, -1, -1]
    assert features.classes == ()


def test_a_file_name_that_is_not_utf8_keeps_its_bytes(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    odd = os.fsencode(few / "dark") + b"/caf\xe9.png"
    try:
        shutil.copy(few / "dark" / "0.png", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    result = extract(few, lenet, cache=tmp_path / "cache")
    assert counts(result) == (9, 8, 1, 0, 0)
    assert b"dark/caf\xe9.png" in [os.fsencode(path) for path in FeatureFile(result.file).paths]
    assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (9, 0, 9, 0, 0)


# Which file is written


def test_data_sets_of_the_same_name_have_files_of_their_own(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    shutil.copytree(few, tmp_path / "elsewhere" / "few")
    (tmp_path / "elsewhere" / "few" / "dark" / "0.png").unlink()
    one = extract(few, lenet, cache=tmp_path / "cache")
    two = extract(tmp_path / "elsewhere" / "few", lenet, cache=tmp_path / "cache")
    assert one.file != two.file
    assert (len(FeatureFile(one.file)), len(FeatureFile(two.file))) == (8, 7)


@pytest.mark.parametrize(
    "options",
    [{"weights": "random"}, {"layers": ("last",)}, {"dtype": "float16"}, {"crop": 6}, {"resize": 40}],
    ids=lambda options: next(iter(options)),
)
def test_a_changed_option_makes_another_file_and_the_old_one_stays(
    few: Path, tmp_path: Path, encoded: list[int], options: dict[str, Any]
) -> None:
    name = "lenet5" if "weights" in options else own_network(tmp_path, "net", "mean")
    own = load_backbone(name, device="cpu")
    first = extract(few, own, cache=tmp_path / "cache")
    before = first.file.read_bytes()
    encoded.clear()
    second = extract(few, load_backbone(name, device="cpu", **options), cache=tmp_path / "cache")
    assert second.file != first.file
    assert re.fullmatch(re.escape(first.file.stem) + r"--[0-9a-f]{8}\.h5", second.file.name)
    assert counts(second) == (8, 8, 0, 0, 0)
    assert sum(encoded) == 8
    assert first.file.read_bytes() == before
    assert counts(extract(few, own, cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)


def test_two_runs_cannot_write_one_file(few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]) -> None:
    with (
        write_lock(tmp_path / "f.h5"),
        pytest.raises(CacheLockedError, match=rf"f\.h5 is being written by process {os.getpid()} on .* since"),
    ):
        extract(few, lenet, out=tmp_path / "f.h5")
    assert encoded == []


def test_a_file_in_the_place_of_the_cache_folder_is_an_output_error(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(OutputError, match=r"cannot write into .*cache: .*; name another folder with --cache"):
        extract(few, lenet, cache=tmp_path / "cache")


# Every part of the identity


_NET = """
import torch
from featx import Transform

class Net(torch.nn.Module):
    transform = Transform(resize=8, crop=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Identity()
        self.last = torch.nn.Linear(3, 2)
        self.register_buffer("scale", torch.ones(1))

    def get_classifier(self):
        return self.last

    def forward(self, images):
        return self.last(self.body(images.mean(dim=(2, 3)) * self.scale))
"""


_STATE = {
    "last.weight": np.ones((2, 3), np.float32),
    "last.bias": np.zeros(2, np.float32),
    "scale": np.ones(1, np.float32),
}


_TRANSFORM = Transform(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def _own(folder: Path, *, code: str = _NET, state: dict[str, np.ndarray] = _STATE, **options: Any) -> Backbone:
    """A network of one's own, with weights from a file."""
    (folder / "net.py").write_text(code)
    save_file(state, folder / "weights.safetensors")
    return load_backbone(f"{folder}/net.py:Net", weights=str(folder / "weights.safetensors"), device="cpu", **options)


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("architecture", {"code": _NET.replace("mean(dim=(2, 3))", "amax(dim=(2, 3))")}),
        ("weights_sha256", {"state": {**_STATE, "scale": np.array([1.0000001], np.float32)}}),
        ("transform", {"resize": 9}),
        ("transform", {"crop": 7}),
        ("transform", {"background": "black"}),
        ("transform", {"transform": dataclasses.replace(_TRANSFORM, mean=(0.0, 0.0, 0.01))}),
        ("transform", {"transform": dataclasses.replace(_TRANSFORM, std=(1.0, 1.0, 1.01))}),
        ("transform", {"transform": dataclasses.replace(_TRANSFORM, interpolation="bicubic")}),
        ("transform", {"decoding": "scaled"}),
        ("dtype", {"dtype": "float16"}),
        ("decoder", {"decoder": 10**6}),
        ("precision", {"precision": "bfloat16"}),
        ("", {"layers": ["body"]}),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_every_part_of_the_identity_makes_another_file(
    few: Path, tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch, part: str, changed: dict[str, Any]
) -> None:
    before = _own(tmp_path)
    first = extract(few, before, cache=tmp_path / "cache")
    kept = first.file.read_bytes()
    encoded.clear()
    assert counts(extract(few, _own(tmp_path), cache=tmp_path / "cache")) == (8, 0, 8, 0, 0)
    as_before = before.describe()
    if part == "decoder":
        told = {**as_before, **changed}
        monkeypatch.setattr(Backbone, "describe", lambda _: told)
        changed = {}
    after = _own(tmp_path, **changed)
    second = extract(few, after, cache=tmp_path / "cache")
    assert second.file != first.file
    assert second.identity != first.identity
    assert sum(encoded) == 8
    assert first.file.read_bytes() == kept
    assert [each.split(":")[0] for each in differences(as_before, after.describe())] == ([part] if part else [])
    with pytest.raises(StaleCacheError, match=f"holds other features \\({part or 'other layers'}: "):
        extract(few, after, out=first.file)


def test_the_parts_of_the_identity_are_those_that_a_test_changes(tmp_path: Path) -> None:
    parts = _own(tmp_path).describe()
    assert set(parts) == {"architecture", "weights_sha256", "transform", "precision", "dtype", "decoder"}
    assert set(parts["transform"]) == {"resize", "crop", "mean", "std", "interpolation", "background", "decoding"}
