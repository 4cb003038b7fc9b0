"""Shards that are merged into a set of feature files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from extractions import MakeImage

from featx.backbones.backbone import Backbone, load_backbone
from featx.cli.main import main
from featx.errors import DatasetError, SettingsError
from featx.extraction.pipeline import extract
from featx.features.entries import list_folder
from featx.features.feature_set import FeatureSet
from featx.features.file_set import FeatureFileSet
from featx.features.lock import write_lock
from featx.features.manifest import Manifest
from featx.features.shards import MergedShards, merge_shards, shard_folders

ENGINE: dict[str, Any] = {"compute": "eager", "batch_size": 2}


@pytest.fixture
def photos(tmp_path: Path, make_image: MakeImage) -> Path:
    """30 images in two classes, with copies, one that is damaged, and one name that is long."""
    folder = tmp_path / "photos"
    for label, tint in (("dark", 60), ("light", 190)):
        for number in range(14):
            make_image(folder / label / f"{number:02}.png", seed=number % 11 + tint, tint=tint)
    (folder / "dark" / "damaged.png").write_bytes((folder / "dark" / "00.png").read_bytes()[:60])
    make_image(folder / "light" / f"{'long' * 9}.png", seed=5, tint=150)
    return folder


class Parts:
    """Shards of a data set whose set is to have files of eight images, and the set of a single run to compare with."""

    def __init__(self, data: Any, backbone: Backbone, folder: Path, rows: int = 8) -> None:
        self.data, self.backbone, self.rows = data, backbone, rows
        self.cache, self.alone = folder / "parts", folder / "alone"
        self.expected = self.contents(self.run(self.alone))

    def run(self, cache: Path, **options: Any) -> Path:
        return extract(self.data, self.backbone, cache=cache, split_rows=self.rows, **ENGINE, **options).file

    def extract(self, *numbers: int) -> None:
        for number in numbers:
            self.run(self.cache, shard=f"{number}/4")

    def merge(self, **options: Any) -> MergedShards:
        (folder,) = shard_folders(self.cache)
        return merge_shards(folder, **options)

    @staticmethod
    def contents(folder: Path | None) -> dict[str, bytes]:
        assert folder is not None
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    def is_whole(self, merged: MergedShards) -> bool:
        return self.contents(merged.file) == self.expected


@pytest.fixture
def parts(photos: Path, lenet: Backbone, tmp_path: Path) -> Parts:
    return Parts(photos, lenet, tmp_path)


def test_shards_in_any_order_become_the_set_of_a_single_run_byte_for_byte(parts: Parts) -> None:
    parts.extract(3, 1, 4, 2)
    merged = parts.merge(keep=True)
    assert parts.is_whole(merged)
    assert (merged.merged, merged.failed, merged.missing, merged.removed) == (30, 1, (), 0)
    (merged.file or Path()).joinpath("0001-2.h5.new").write_bytes(b"a merge that was killed while it laid out a file")
    times = {path: path.stat().st_mtime_ns for path in parts.cache.glob("*.set/*.h5")}
    merged = parts.merge()
    assert parts.is_whole(merged)
    assert merged.removed == 4
    assert times == {
        path: path.stat().st_mtime_ns for path in parts.cache.glob("*.set/*.h5")
    }  # nothing is written again
    assert extract(parts.data, parts.backbone, cache=parts.cache, split_rows=8).computed == 0
    assert parts.is_whole(merged)


@pytest.mark.parametrize("first", [(1, 2, 3), (4,)])
def test_a_merge_of_what_is_there_is_a_set_that_the_next_merge_replaces(parts: Parts, first: tuple[int, ...]) -> None:
    parts.extract(*first)
    with pytest.raises(DatasetError, match="is not complete: shard"):
        parts.merge(strict=True)
    for _ in range(2):
        merged = parts.merge()
        assert merged.file is not None
        assert len(merged.missing) == 4 - len(first)
        found = FeatureFileSet(merged.file)
        assert (found.rows, Manifest.read(merged.file).missing) == (merged.merged, 30 - merged.merged)
        assert len(FeatureSet.load(merged.file)) == merged.merged - merged.failed
    parts.extract(*{1, 2, 3, 4} - set(first))
    assert parts.is_whole(parts.merge())


def test_a_run_without_shards_completes_the_set(parts: Parts) -> None:
    parts.extract(1, 2)
    parts.merge()
    assert 0 < extract(parts.data, parts.backbone, cache=parts.cache, split_rows=8, **ENGINE).computed < 30
    (folder,) = parts.cache.glob("*.set")
    assert parts.contents(folder) == parts.expected
    kept = [entry for entry in list_folder(parts.cache) if entry.path.parent.suffix == ".shards"]
    assert [bool(entry.removable) for entry in kept] == [True, True]


def test_a_set_that_is_whole_stays_until_all_shards_of_the_next_state_are_there(
    parts: Parts, photos: Path, make_image: MakeImage
) -> None:
    parts.extract(1, 2, 3, 4)
    parts.merge()
    make_image(photos / "light" / "05-new.png", seed=999)
    parts.extract(1, 2, 3)
    merged = parts.merge()
    assert merged.file is None
    assert "stays as it is until all are there" in merged.notes[0]
    parts.extract(4)
    merged = parts.merge()
    files = parts.contents(merged.file)
    alone = parts.contents(parts.run(parts.alone))
    assert files == alone  # also those of a single run that brings its set up to date
    assert sum(files[name] == parts.expected.get(name) for name in files) == 3


@pytest.mark.parametrize("kind", ["table", "layers", "split"])
def test_whatever_files_hold_survives(kind: str, photos: Path, tmp_path: Path, lenet: Backbone) -> None:
    backbone, data = lenet, photos
    if kind != "layers":
        paths = sorted(path.relative_to(photos) for path in photos.rglob("*.png"))
        splits = ["a-very-long-split" if not i else "test" if i % 3 else "train" for i in range(len(paths))]
        rows = [f"{path},{path.parts[0]},{splits[i]},né {i}" for i, path in enumerate(paths)]
        data = photos / "labels.csv"
        data.write_text("\n".join(["path,label,split,note", *rows]) + "\n", encoding="utf-8")
    else:
        backbone = load_backbone("lenet5", device="cpu", layers=["features.3"], views="flip", dtype="float16")
    parts = Parts(data, backbone, tmp_path, rows=11)
    parts.extract(1, 2, 3, 4)
    assert parts.is_whole(parts.merge())


def test_the_number_of_rows_may_be_given_to_the_merge(parts: Parts, lenet: Backbone) -> None:
    for number in (1, 2):
        extract(parts.data, lenet, cache=parts.cache, shard=f"{number}/2", **ENGINE)
    with pytest.raises(SettingsError, match="split_rows is 0"):
        parts.merge(split_rows=0)
    assert parts.is_whole(parts.merge(split_rows=8))


def test_shards_of_several_numbers_of_rows_are_one_state(parts: Parts) -> None:
    parts.rows = 5
    parts.extract(1)
    parts.rows = 8
    parts.extract(2, 3, 4)
    assert parts.is_whole(parts.merge())


@pytest.mark.parametrize("rows", [None, 8])
def test_layers_that_shards_lack_are_not_lost(photos: Path, tmp_path: Path, lenet: Backbone, rows: int | None) -> None:
    cache, both = tmp_path / "cache", load_backbone("lenet5", layers=["hidden"], device="cpu")
    wide = extract(photos, both, cache=cache, split_rows=rows, **ENGINE).file
    before = sorted(path.read_bytes() for path in ([wide] if rows is None else wide.iterdir()))
    extract(photos, lenet, cache=cache, shard="1/1", split_rows=rows, **ENGINE)
    (folder,) = shard_folders(cache)
    merged = merge_shards(folder)
    assert f"{wide} has layers that the shards lack" in merged.notes[0]
    assert merged.file not in (None, wide)
    assert sorted(path.read_bytes() for path in ([wide] if rows is None else wide.iterdir())) == before


def test_a_damaged_row_counts_as_missing(parts: Parts) -> None:
    parts.extract(1, 2, 3, 4)
    (folder,) = shard_folders(parts.cache)
    shard = folder / "2-of-4.h5"
    data = bytearray(shard.read_bytes())
    file = FeatureFileSet(parts.alone / "photos--lenet5.set")
    at = bytes(data).find(np.asarray(file.features("penultimate")[9]).tobytes())
    assert at > 0
    data[at] ^= 1
    shard.write_bytes(data)
    merged = parts.merge()
    assert merged.missing == ("shard 2/4: 7 of 8 images",)
    assert "with --rehash" in merged.notes[0]
    assert merged.file is not None
    assert FeatureFileSet(merged.file).rows == merged.merged
    extract(parts.data, parts.backbone, cache=parts.cache, split_rows=8, shard="2/4", rehash=True, **ENGINE)
    found, expected = parts.contents(parts.merge().file), parts.expected
    found.pop("manifest.json")  # the missing image had moved the split of another, whose file has been written twice
    assert list(found) == ["0001-2.h5", "0002.h5", "0003.h5", "0004.h5"]
    assert list(found.values()) == [data for name, data in expected.items() if name != "manifest.json"]


def test_one_process_writes_a_set(parts: Parts) -> None:
    parts.extract(1, 2, 3, 4)
    merged = parts.merge(keep=True)
    assert merged.file is not None
    with write_lock(merged.file / "manifest.json"):
        shown = CliRunner().invoke(main, ["cache", "merge", "--cache", str(parts.cache)])
    assert shown.exit_code == 1
    assert "manifest.json" in shown.output
    shutil.rmtree(merged.file)
    shown = CliRunner().invoke(main, ["cache", "merge", "--cache", str(parts.cache)])
    assert shown.exit_code == 0, shown.output
    assert f"features: {merged.file}" in shown.output
    assert parts.is_whole(merged)
