"""Odd images: what is measured of their pixels, and which are odd in their set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from odd_images import photograph, set_of
from PIL import Image, ImageFilter

from featx.features.feature_set import FeatureSet
from featx.inspection.pixels import KINDS, PixelIssues, inspect_pixels


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of any image."""
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "home"))


def odd(found: PixelIssues, features: FeatureSet) -> dict[str, list[str]]:
    """The names of the odd images of each kind."""
    return {kind: features.paths[found.is_issue[kind]].tolist() for kind in KINDS if found.is_issue[kind].any()}


def test_each_kind_of_odd_image_is_found(tmp_path: Path) -> None:
    ordinary = {f"{seed:02}.png": photograph(seed) for seed in range(20)}
    dark = photograph(30).point(lambda level: level // 5)
    light = Image.new("RGB", (160, 120), "white")
    light.paste(photograph(31, (24, 24)))
    strange = {
        "blank.png": Image.new("RGB", (160, 120), (90, 120, 80)),
        "dark.png": dark,
        "light.png": light,
        "blurry.png": photograph(32).filter(ImageFilter.GaussianBlur(2)),
        "large.png": photograph(33, (480, 360)),
        "strip.png": photograph(34, (240, 60)),
        "grey.png": photograph(35).convert("L"),
    }
    features = set_of(tmp_path, ordinary | strange)
    found = inspect_pixels(features)
    assert odd(found, features) == {
        "low_information": ["blank.png", "light.png"],
        "dark": ["dark.png"],
        "light": ["light.png"],
        "blurry": ["blurry.png"],
        "odd_size": ["large.png"],
        "odd_aspect_ratio": ["strip.png"],
        "grayscale": ["grey.png"],
    }
    assert found.unread == 0
    assert found.sizes[-2].tolist() == [240, 60]


def test_images_that_cannot_be_read_are_counted_with_their_reasons(tmp_path: Path) -> None:
    files = {f"{seed}.jpg": photograph(seed) for seed in range(4)} | {"text.png": b"no image"}
    features = set_of(tmp_path, files)
    (tmp_path / "0.jpg").unlink()
    photograph(9).save(tmp_path / "1.jpg")
    found = inspect_pixels(features, thumbnails=True)
    assert found.unread == 3
    assert found.why == {
        0: "the image is missing or cannot be read",
        1: "the image has changed since its features were extracted",
        4: "the image cannot be decoded: not an image of a known format (it begins with b'no image')",
    }
    assert np.isnan(found.scores["dark"][[0, 1, 4]]).all()
    assert sorted(found.thumbnails) == [2, 3]


def test_what_most_images_have_in_common_is_not_odd(tmp_path: Path) -> None:
    grey = {f"grey-{seed}.png": photograph(seed).convert("L") for seed in range(3)}
    features = set_of(tmp_path, grey | {f"{seed}.png": photograph(seed) for seed in range(5)})
    found = inspect_pixels(features)
    assert not found.is_issue["grayscale"].any()
    assert found.usual == {"grayscale": 3}


def test_columns_have_the_names_of_cleanvision(tmp_path: Path) -> None:
    features = set_of(tmp_path, {"a.png": photograph(1), "b.png": photograph(2)})
    assert list(inspect_pixels(features).columns())[:4] == [
        "is_low_information_issue",
        "low_information_score",
        "is_dark_issue",
        "dark_score",
    ]


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (700, 2)])
def test_images_of_any_shape_are_measured(tmp_path: Path, size: tuple[int, int]) -> None:
    features = set_of(tmp_path, {"a.png": photograph(1, size)})
    found = inspect_pixels(features, thumbnails=True)
    assert found.unread == 0
    assert found.sizes.tolist() == [list(size)]
    assert found.thumbnails[0][:2] == b"\xff\xd8"


def test_only_the_images_that_are_asked_for_and_their_copies_are_read(tmp_path: Path) -> None:
    images = {f"{seed}.png": photograph(seed) for seed in range(6)} | {"copy.png": photograph(1)}
    features = set_of(tmp_path, images)
    (tmp_path / "4.png").unlink()
    found = inspect_pixels(features, rows=np.array([4, 1]), thumbnails=True)
    assert sorted(found.thumbnails) == [1, 6]
    assert found.unread == 1
    left_out = dict.fromkeys([0, 2, 3, 5], "the image was not read")
    assert {row: why for row, why in found.why.items() if row != 4} == left_out
    assert "missing" in found.why[4]
    assert found.sizes[[0, 1, 6], 0].tolist() == [0, 160, 160]


def test_notes_say_what_could_not_be_read_and_what_is_usual(tmp_path: Path) -> None:
    images = {f"{seed}.png": photograph(seed).convert("L") for seed in range(6)} | {"a.png": photograph(6)}
    features = set_of(tmp_path, images)
    for name in ("0.png", "1.png"):
        (tmp_path / name).unlink()
    (tmp_path / "2.png").write_bytes(b"other")
    assert inspect_pixels(features).notes == [
        "2 images could not be looked at: the image is missing or cannot be read; if the images have moved, name their "
        "folder with --images",
        "1 image could not be looked at: the image has changed since its features were extracted",
        "3 of 4 images are grey; that is usual in this data set, so none is listed as odd",
    ]


def test_images_that_have_moved_are_found_below_a_named_folder(tmp_path: Path) -> None:
    features = set_of(tmp_path / "old", {f"a/{seed}.png": photograph(seed) for seed in range(3)})
    (tmp_path / "old").rename(tmp_path / "new")
    assert inspect_pixels(features).unread == 3
    assert inspect_pixels(features, images=[tmp_path / "new"], thumbnails=True).unread == 0
    photograph(9).save(tmp_path / "new" / "a" / "1.png")
    assert list(inspect_pixels(features, images=[tmp_path / "new"], thumbnails=True).why.values()) == [
        "the image has changed since its features were extracted"
    ]


def test_no_file_outside_the_named_folders_is_read(tmp_path: Path) -> None:
    secret = photograph(1)
    secret.save(tmp_path / "secret.png")
    (tmp_path / "set").mkdir()
    features = set_of(tmp_path / "set", {"../secret.png": secret, str(tmp_path / "secret.png"): secret})
    found = inspect_pixels(features, images=[tmp_path / "set"])
    assert set(found.why.values()) == {
        "the image lies outside the folder of the data set; --images FOLDER names another that is read"
    }
    assert inspect_pixels(features, images=[tmp_path]).unread == 0
