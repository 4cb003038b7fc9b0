"""What is known before a run: layers of the earlier file, and features in the other files of the folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from extractions import MakeImage, add, assert_own_features, counts, embed, interrupt

from featx.backbones.backbone import Backbone, load_backbone
from featx.extraction.pipeline import extract
from featx.features.feature_file import FeatureFile


def test_fewer_layers_are_taken_from_the_file_that_has_more(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    more = extract(few, load_backbone("lenet5", layers=("hidden",), device="cpu"), cache=tmp_path / "cache")
    encoded.clear()
    result = extract(few, lenet, cache=tmp_path / "cache")
    assert result.file == more.file
    assert counts(result) == (8, 0, 8, 0, 0)
    assert result.layers == {"penultimate": 84}
    assert encoded == []


def test_layers_that_nobody_asks_for_today_stay_as_complete_as_the_others(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], make_image: MakeImage
) -> None:
    both = load_backbone("lenet5", layers=("hidden", "features"), device="cpu")
    extract(few, both, cache=tmp_path / "cache")
    add(few, make_image)
    encoded.clear()
    assert counts(extract(few, lenet, cache=tmp_path / "cache")) == (9, 1, 8, 0, 0)
    result = extract(few, both, cache=tmp_path / "cache")
    assert counts(result) == (9, 0, 9, 0, 0)
    assert encoded == [1]
    assert result.layers == {"penultimate": 84, "features": 120, "hidden": 84}
    features = result.load("features")
    row = features.paths.tolist().index("dark/000.png")
    np.testing.assert_allclose(features.features[row], embed(both, few / "dark" / "000.png", "features"), atol=1e-5)
    assert lenet.layers == {"penultimate": 84}


def test_a_moved_data_set_is_read_again_and_computed_never(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    extract(few, lenet, out=tmp_path / "mine.h5")
    few.rename(tmp_path / "moved")
    encoded.clear()
    result = extract(tmp_path / "moved", lenet, out=tmp_path / "mine.h5")
    assert counts(result) == (8, 0, 8, 0, 0)
    assert FeatureFile(result.file).dataset["root"] == str(tmp_path / "moved")
    assert encoded == []


# What other files of the folder have


def test_a_second_data_set_costs_only_the_images_it_does_not_share(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int], make_image: MakeImage
) -> None:
    first = extract(few, lenet, cache=tmp_path / "cache")
    other = tmp_path / "other" / "both"
    other.mkdir(parents=True)
    for number, path in enumerate(sorted(few.rglob("*.png"))):
        shutil.copy(path, other / f"{9 - number}.png")
    make_image(other / "new.png", seed=999)
    encoded.clear()
    result = extract(other, lenet, cache=tmp_path / "cache")
    assert result.file != first.file
    assert counts(result) == (9, 1, 8, 0, 0)
    assert encoded == [1]
    assert_own_features(result, lenet, other)


def test_what_an_interrupted_run_left_serves_another_data_set_too(
    few: Path, tmp_path: Path, lenet: Backbone, encoded: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            extract(few, lenet, cache=tmp_path / "cache", batch_size=2)
    shutil.copytree(few, tmp_path / "copy")
    encoded.clear()
    assert counts(extract(tmp_path / "copy", lenet, cache=tmp_path / "cache")) == (8, 4, 4, 0, 0)
    assert sum(encoded) == 4


def test_features_of_another_identity_are_never_taken(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    extract(few, load_backbone("lenet5", weights="random", device="cpu"), cache=tmp_path / "cache")
    shutil.copytree(few, tmp_path / "copy")
    lenet = load_backbone("lenet5", device="cpu")
    result = extract(tmp_path / "copy", lenet, cache=tmp_path / "cache")
    assert counts(result) == (8, 8, 0, 0, 0)
    assert_own_features(result, lenet, tmp_path / "copy")


def test_a_row_of_another_file_that_does_not_fit_its_check_is_computed(
    few: Path, tmp_path: Path, lenet: Backbone
) -> None:
    donor = FeatureFile(extract(few, lenet, cache=tmp_path / "cache").file)
    with donor.path.open("r+b") as raw:
        raw.seek(donor.layers["penultimate"].offset + 2 * 84 * 4)
        raw.write(b"\xff")
    shutil.copytree(few, tmp_path / "copy")
    result = extract(tmp_path / "copy", lenet, cache=tmp_path / "cache")
    assert counts(result) == (8, 1, 7, 0, 0)
    assert_own_features(result, lenet, tmp_path / "copy")


def test_an_image_of_the_same_name_size_and_time_elsewhere_is_not_taken_for_this_one(
    few: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage
) -> None:
    extract(few, lenet, cache=tmp_path / "cache")
    twin = tmp_path / "twin" / "few"
    shutil.copytree(few, twin)
    changed, original = twin / "dark" / "1.png", few / "dark" / "1.png"
    data = bytearray(original.read_bytes())
    make_image(changed, seed=999)
    other = changed.read_bytes()
    size = max(len(data), len(other))  # bytes after the end of a PNG mean nothing
    for path, content in ((original, bytes(data)), (changed, other)):
        path.write_bytes(content.ljust(size, b"\0"))
        os.utime(path, (1, 1))
    extract(few, lenet, cache=tmp_path / "cache")
    result = extract(twin, lenet, cache=tmp_path / "cache")
    assert counts(result) == (8, 1, 7, 0, 0)
    assert_own_features(result, lenet, twin)
