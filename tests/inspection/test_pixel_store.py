"""What was measured of images is kept by content, and an image is read once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from odd_images import photograph, set_of

from featx.data.loader import in_order
from featx.data.pixel_facts import FACTS
from featx.data.transform import Transform
from featx.features.feature_set import FeatureSet
from featx.inspection import pixel_store, pixels
from featx.inspection.pixel_store import keep_facts, recall_facts
from featx.inspection.pixels import inspect_pixels

PLAIN = Transform()


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "home"))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are read."""
    names: list[str] = []
    original = pixels.read_known_image

    def reading(root: str, path: str, key: bytes, **more: object) -> bytes:
        names.append(path)
        return original(root, path, key, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(pixels, "read_known_image", reading)
    return names


@pytest.fixture
def five(tmp_path: Path) -> FeatureSet:
    return set_of(tmp_path / "images", {f"{seed}.png": photograph(seed) for seed in range(5)})


def made(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Keys and facts of that many images."""
    rng = np.random.default_rng(seed)
    facts = np.zeros(count, FACTS)
    facts["bytes"], facts["width"] = rng.integers(1, 1000, (2, count))
    return rng.integers(0, 256, (count, 16), dtype=np.uint8), facts


def test_a_second_inspection_reads_no_image_and_finds_the_same(five: FeatureSet, read: list[str]) -> None:
    first = inspect_pixels(five)
    assert len(read) == 5
    second = inspect_pixels(five)
    assert len(read) == 5
    for name, column in first.columns().items():
        np.testing.assert_array_equal(column, second.columns()[name])


def test_images_under_other_names_are_not_read_again(five: FeatureSet, tmp_path: Path, read: list[str]) -> None:
    inspect_pixels(five)
    moved = set_of(tmp_path / "elsewhere", {f"new-{seed}.png": photograph(seed) for seed in range(6)})
    read.clear()
    inspect_pixels(moved)
    assert read == ["new-5.png"]


def test_of_copies_one_is_read(tmp_path: Path, read: list[str]) -> None:
    copies = set_of(tmp_path / "images", {f"{number}.png": photograph(1) for number in range(4)})
    (tmp_path / "images" / "0.png").unlink()
    found = inspect_pixels(copies, thumbnails=True)
    assert read == ["0.png", "1.png"]
    assert (found.unread, sorted(found.thumbnails)) == (1, [1, 2, 3])


def test_missing_and_changed_images_are_noticed_though_their_contents_are_known(five: FeatureSet) -> None:
    inspect_pixels(five)
    root = Path(five.dataset["root"])
    (root / "1.png").unlink()
    photograph(77, (90, 70)).save(root / "3.png")
    found = inspect_pixels(five)
    assert sorted(found.why) == [1, 3]
    assert np.isnan(found.scores["dark"][[1, 3]]).all()


def test_another_background_is_measured_by_itself(five: FeatureSet, read: list[str]) -> None:
    inspect_pixels(five)
    black = {"parts": {"transform": Transform(background=(0, 0, 0)).as_dict()}}
    inspect_pixels(dataclasses.replace(five, backbone=black))
    assert len(read) == 10


def test_what_was_measured_before_an_interruption_is_kept(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = set_of(tmp_path / "images", {f"{seed}.png": photograph(seed) for seed in range(40)})

    class Interrupting(pixels.Reporter):
        def progress(self, done: int, total: int, detail: object = "") -> None:
            if done == 10:
                raise KeyboardInterrupt("at ten")

    with pytest.raises(KeyboardInterrupt, match="at ten"):
        inspect_pixels(features, workers=1, reporter=Interrupting())
    read.clear()
    inspect_pixels(features)
    assert len(read) == 30


@pytest.mark.parametrize("damage", ["cut", "bit", "text", "empty", "folder", "version"])
def test_a_damaged_store_counts_as_empty_and_is_made_again(damage: str) -> None:
    keys, facts = made(20)
    keep_facts(keys, facts, range(20), PLAIN)
    path = pixel_store.home() / "pixels" / "facts"
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        altered = bytearray(data)
        altered[-3] ^= 4
        contents = {"cut": data[:-5], "bit": bytes(altered), "text": b"text", "empty": b""}
        path.write_bytes(contents.get(damage, data.replace(b"featx pixels ", b"featx pixels 9", 1)))
    assert not recall_facts(keys, PLAIN)[1].any()
    keep_facts(keys, facts, range(20), PLAIN)
    assert recall_facts(keys, PLAIN)[1].all() == (damage != "folder")


def test_a_home_that_cannot_be_written_costs_only_time(
    five: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "file"))
    assert inspect_pixels(five).unread == 0


def test_the_oldest_records_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_store, "_MOST_RECORDS", 30)
    for seed in range(3):
        keys, facts = made(20, seed)
        keep_facts(keys, facts, range(20), PLAIN)
    known = [int(recall_facts(made(20, seed)[0], PLAIN)[1].sum()) for seed in range(3)]
    assert known == [0, 10, 20]


def test_processes_that_write_at_once_leave_a_sound_store() -> None:
    def write(seed: int) -> int:
        keys, facts = made(50, seed)
        keep_facts(keys, facts, range(50), PLAIN)
        return seed

    assert list(in_order(range(24), write, workers=6)) == list(range(24))
    known = [recall_facts(made(50, seed)[0], PLAIN) for seed in range(24)]
    assert any(found.all() for _, found in known)
    for seed, (facts, found) in enumerate(known):
        np.testing.assert_array_equal(facts[found], made(50, seed)[1][found])


def test_ten_thousand_known_images_are_recalled_at_once() -> None:
    keys, facts = made(10_000)
    keep_facts(keys, facts, range(10_000), PLAIN)
    recalled, known = recall_facts(keys[::-1], PLAIN)
    assert known.all()
    np.testing.assert_array_equal(recalled, facts[::-1])
