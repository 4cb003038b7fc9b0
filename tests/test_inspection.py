"""What a file says of itself, and every flipped bit that ``verify`` finds."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from featx.cache import CacheWriter, FeatureCache, ImageTable
from featx.errors import CacheMissError, CorruptCacheError
from featx.extraction import extract
from featx.head import Head, fit_head
from featx.inspection import describe_file, verify_file
from featx.promotion import promote


@pytest.fixture
def features(split_photos: Path, tmp_path: Path) -> Path:
    """48 images and one bad one, through LeNet-5."""
    (split_photos / "val" / "dark" / "bad.png").write_text("no image")
    return extract(split_photos, "lenet5", cache=tmp_path / "cache").file


def flip(path: Path, offset: int, bit: int) -> None:
    """Flip one bit of a file; a second time mends it."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


# describe_file


def test_a_feature_file_says_what_is_in_it(features: Path, split_photos: Path) -> None:
    said = describe_file(features)
    cache = FeatureCache(features)
    assert json.loads(json.dumps(said)) == said
    assert said["kind"] == "feature file"
    assert said["complete"] is True
    assert (said["images"], said["failed"]) == (49, 1)
    assert said["layers"] == {"penultimate": "84 x float32"}
    assert said["splits"] == {"train": 32, "val": 17}
    assert said["classes"] == {"dark": 25, "light": 24}
    assert said["dataset"] == {"name": "split", "root": str(split_photos), "splits": "given"}
    assert said["backbone"] == cache.backbone
    assert said["identity"] == cache.identity
    assert said["bytes"] == features.stat().st_size
    assert said["failures"].keys() == {"val/dark/bad.png"}
    assert said["failures"]["val/dark/bad.png"].startswith("not an image of a known format")


def test_an_incomplete_feature_file_says_so(tmp_path: Path) -> None:
    writer = small_writer(tmp_path / "f.h5")
    writer.publish()
    said = describe_file(tmp_path / "f.h5.partial")
    assert said["complete"] is False
    assert (said["images"], said["failed"]) == (3, 0)
    assert said["splits"] == {"(none)": 1, "train": 2}
    assert said["classes"] == {"a": 1, "b": 1}


def test_a_head_says_what_it_is(features: Path, tmp_path: Path) -> None:
    path = fit_head(features, Head("centroid"), models=tmp_path / "models").path
    said = describe_file(path)
    assert json.loads(json.dumps(said)) == said
    assert (said["kind"], said["model"]) == ("head", "centroid")
    assert said["classes"] == ["dark", "light"]
    assert said["identity"] == FeatureCache(features).layers["penultimate"].identity
    assert said["bytes"] == path.stat().st_size
    assert said["report"]["n"] == 16
    assert not {"per_class", "confusion"} & said["report"].keys()


def test_a_promoted_model_says_what_it_is(features: Path, tmp_path: Path) -> None:
    head = fit_head(features, Head("centroid"), models=tmp_path / "models")
    path = promote(head.path, models=tmp_path / "models").path
    said = describe_file(path)
    assert json.loads(json.dumps(said)) == said
    assert said["kind"] == "promoted model"
    assert said["verdict"] == "assembled"
    assert said["classes"] == ["dark", "light"]
    assert said["bytes"] == path.stat().st_size
    for report in ("report", "head_report"):
        assert said[report]["accuracy"] == head.report.accuracy
        assert not {"per_class", "confusion"} & said[report].keys()


def test_a_foreign_file_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("ants and bees")
    with pytest.raises(CorruptCacheError, match=r"notes\.txt"):
        describe_file(tmp_path / "notes.txt")
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(CorruptCacheError, match=r"keras\.h5: format None, version None; expected featx-features, 1"):
        describe_file(tmp_path / "keras.h5")


@pytest.mark.parametrize("look", [describe_file, verify_file])
def test_a_missing_file_is_a_miss(tmp_path: Path, look: Callable[[Path], object]) -> None:
    with pytest.raises(CacheMissError, match=r"there is no (feature )?file .*none\.h5"):
        look(tmp_path / "none.h5")


# verify_file


def small_writer(path: Path) -> CacheWriter:
    """Three rows, nothing written yet."""
    return CacheWriter(
        path,
        images=ImageTable(
            paths=np.array([b"a.png", b"b.png", b"c.png"]),
            labels=np.array([0, 1, -1]),
            splits=np.array([b"train", b"train", b""]),
            sizes=np.arange(3),
            mtimes=np.arange(3),
        ),
        classes=("a", "b"),
        layers={"penultimate": (2, "1" * 64)},
        dtype="float32",
        identity="2" * 64,
        backbone={"name": "lenet5", "weights": "default", "parts": {}},
        dataset={"name": "letters", "root": "/letters", "splits": "given"},
    )


def test_a_sound_file_is_ok(features: Path) -> None:
    assert verify_file(features) == {"ok": True, "rows": 49, "bad_rows": 0, "problems": []}


def test_every_flipped_bit_in_the_features_is_found(features: Path) -> None:
    cache = FeatureCache(features)
    layer, bad = cache.layers["penultimate"], cache.paths.index("val/dark/bad.png")
    rng = random.Random(0)
    for _ in range(40):
        row = rng.choice([row for row in range(49) if row != bad])
        offset, bit = layer.offset + row * 84 * 4 + rng.randrange(84 * 4), rng.randrange(8)
        flip(features, offset, bit)
        said = verify_file(features)
        assert (said["ok"], said["rows"], said["bad_rows"]) == (False, 49, 1), (offset, bit)
        message = f"layer penultimate: 1 rows do not fit their check, the first of {cache.paths[row]}"
        assert said["problems"][0] == message
        flip(features, offset, bit)
    assert verify_file(features)["ok"]


def test_every_flipped_bit_in_the_tables_is_found(features: Path) -> None:
    with h5py.File(features) as file:
        names = ["classes", "checks/penultimate", *(f"images/{column}" for column in file["images"])]
        spans = [(file[name].id.get_offset(), file[name].nbytes) for name in names]
    rng = random.Random(0)
    for offset, length in [rng.choice(spans) for _ in range(30)] + spans:
        place, bit = offset + rng.randrange(length), rng.randrange(8)
        flip(features, place, bit)
        said = verify_file(features)
        assert not said["ok"], (place, bit)
        assert len(said["problems"]) == 1
        assert f"{features.name}: its tables do not fit their digest" in said["problems"][0]
        flip(features, place, bit)
    assert verify_file(features)["ok"]


def test_several_bad_rows_are_counted_once_each(features: Path) -> None:
    cache = FeatureCache(features)
    for row, column in ((3, 0), (3, 5), (7, 1)):
        flip(features, cache.layers["penultimate"].offset + (row * 84 + column) * 4, 0)
    said = verify_file(features)
    assert said["bad_rows"] == 2
    assert said["problems"] == [f"layer penultimate: 2 rows do not fit their check, the first of {cache.paths[3]}"]


def test_rows_of_nan_or_infinity_are_found(tmp_path: Path) -> None:
    writer = small_writer(tmp_path / "f.h5")
    writer.publish()
    vectors = np.array([[1, 2], [np.nan, 0], [0, -np.inf]], dtype=np.float32)
    writer.write([0, 1, 2], np.ones((3, 16), dtype=np.uint8), {"penultimate": vectors})
    writer.finish()
    assert verify_file(tmp_path / "f.h5") == {
        "ok": False,
        "rows": 3,
        "bad_rows": 2,
        "problems": ["layer penultimate: 2 rows hold NaN or infinity, the first of b.png"],
    }


def test_a_truncated_file_is_a_problem_that_names_it(features: Path, tmp_path: Path) -> None:
    shutil.copy(features, tmp_path / "half.h5")
    (tmp_path / "half.h5").write_bytes(features.read_bytes()[:9000])
    said = verify_file(tmp_path / "half.h5")
    assert (said["ok"], said["rows"], said["bad_rows"]) == (False, 0, 0)
    assert len(said["problems"]) == 1
    assert "half.h5 is not a sound HDF5 file" in said["problems"][0]


def test_an_incomplete_file_is_a_problem(tmp_path: Path) -> None:
    small_writer(tmp_path / "f.h5").publish()
    said = verify_file(tmp_path / "f.h5.partial")
    assert said["ok"] is False
    assert "f.h5.partial is incomplete; run the same featx extract again to finish it" in said["problems"][0]
