"""What is written: rows that are not finite fail, and splits are given or derived from hashes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from extractions import MakeImage, counts, own_network

from featx.backbones.backbone import Backbone, load_backbone
from featx.data.scan import scan_images
from featx.data.splits import hash_splits
from featx.errors import DatasetError
from featx.extraction.pipeline import extract
from featx.features.feature_file import FeatureFile


def test_rows_that_come_out_as_nan_or_infinity_are_failed_ones(few: Path, tmp_path: Path, encoded: list[int]) -> None:
    name = own_network(tmp_path, "halfnan", "torch.where(mean < 0.5, torch.nan, mean)")
    result = extract(few, load_backbone(name, device="cpu"), cache=tmp_path / "cache", batch_size=3)
    assert counts(result) == (8, 8, 0, 4, 0)
    assert {path.split("/")[0] for path, _ in result.failures} == {"dark"}
    assert {why for _, why in result.failures} == {"the backbone gives NaN or infinity in float32"}
    features = result.load()
    assert features.paths.tolist() == [f"light/{number}.png" for number in range(4)]
    assert np.isfinite(features.features).all()
    encoded.clear()
    shutil.copy(few / "dark" / "0.png", few / "dark" / "copy.png")
    assert counts(extract(few, load_backbone(name, device="cpu"), cache=tmp_path / "cache"))[3] == 5


@pytest.mark.filterwarnings("error")
def test_what_is_too_large_for_float16_is_a_failed_row(few: Path, tmp_path: Path) -> None:
    name = own_network(tmp_path, "large", "torch.where(mean < 0.5, 1e6, mean)")
    result = extract(few, load_backbone(name, dtype="float16", device="cpu"), cache=tmp_path / "cache")
    assert {why for _, why in result.failures} == {"the backbone gives NaN or infinity in float16"}
    assert counts(result) == (8, 8, 0, 4, 0)
    assert counts(extract(few, load_backbone(name, device="cpu"), cache=tmp_path / "cache")) == (8, 8, 0, 0, 0)


def test_features_that_are_all_nan_are_an_error(few: Path, tmp_path: Path) -> None:
    backbone = load_backbone(own_network(tmp_path, "allnan", "mean * torch.nan"), device="cpu")
    message = r"none of the 8 images in .*few gave finite features; the first, dark/0\.png: .* NaN or infinity"
    with pytest.raises(DatasetError, match=message):
        extract(few, backbone, cache=tmp_path / "cache")


# Splits


def test_splits_by_hash_are_stored_and_stay_put_when_images_are_added(
    photos: Path, tmp_path: Path, lenet: Backbone, make_image: MakeImage
) -> None:
    before = extract(photos, lenet, cache=tmp_path / "cache").load()
    assert set(before.splits) == {"train", "val", "test"}
    np.testing.assert_array_equal(before.splits, hash_splits(before.keys, before.labels))
    assert before.dataset["splits"] == "hash"
    for number in range(20):
        make_image(photos / "dark" / f"0{number}-new.png", seed=5000 + number)
        make_image(photos / "new" / f"{number}.png", seed=6000 + number)
    after = extract(photos, lenet, cache=tmp_path / "cache").load()
    assert len(after) == 80
    assert set(after.splits[after.labels == after.classes.index("new")]) >= {"train", "test"}
    now = dict(zip(after.paths, after.splits, strict=True))
    assert {path: now[path] for path in before.paths} == dict(zip(before.paths, before.splits, strict=True))


def test_the_file_remembers_the_table_that_named_its_images(few: Path, tmp_path: Path, lenet: Backbone) -> None:
    paths = sorted(path.relative_to(few).as_posix() for path in few.rglob("*.png"))
    table = few / "table.csv"
    table.write_text("\n".join(["path,label", *(f"{path},{path[:4]}" for path in paths)]))
    features = extract(table, lenet, cache=tmp_path / "cache").load()
    assert features.dataset["table"] == str(table.resolve())
    assert "table" not in extract(few, lenet, cache=tmp_path / "cache").load().dataset


def test_splits_that_the_data_set_names_are_kept(split_photos: Path, tmp_path: Path, lenet: Backbone) -> None:
    features = extract(split_photos, lenet, cache=tmp_path / "cache").load()
    assert features.splits.tolist() == [path.split("/")[0] for path in features.paths]
    assert features.dataset["splits"] == "given"


def test_a_bad_image_has_a_split_only_if_its_bytes_could_be_read(spoilt: Path, tmp_path: Path, lenet: Backbone) -> None:
    images = scan_images(spoilt)
    (spoilt / "dark" / "3.png").unlink()
    file = FeatureFile(extract(images, lenet, cache=tmp_path / "cache").file)
    splits = dict(zip(file.paths, file.splits, strict=True))
    assert splits["dark/3.png"] == ""
    assert all(split in ("train", "val", "test") for path, split in splits.items() if path != "dark/3.png")
