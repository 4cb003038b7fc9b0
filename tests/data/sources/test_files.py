"""Single image files as image sets: one, several, and patterns."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from listings import MakeImage, touch

from featx.backbones.backbone import load_backbone
from featx.data.scan import scan_images
from featx.errors import DatasetError
from featx.extraction.pipeline import extract


def test_image_files_are_a_set_without_labels_below_the_folder_that_holds_them_all(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/b/2.PNG", "c/3.jpg")
    images = scan_images([tmp_path / "a/b/2.PNG", tmp_path / "a/1.jpg"])
    assert (images.root, images.paths.tolist()) == (str(tmp_path / "a"), ["1.jpg", "b/2.PNG"])
    assert (images.labels.tolist(), images.splits.tolist(), images.classes) == ([-1, -1], ["", ""], ())


def test_one_file_and_a_pattern_are_sets_too(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "notes.txt")
    assert scan_images(tmp_path / "1.jpg").paths.tolist() == ["1.jpg"]
    assert scan_images([tmp_path / "2.jpg"]).paths.tolist() == ["2.jpg"]
    assert scan_images(str(tmp_path / "*.jpg")).paths.tolist() == ["1.jpg", "2.jpg"]
    assert scan_images([tmp_path / "{1,2}.jpg", tmp_path / "1.jpg"]).notes == (
        "1 of the images is listed twice; each counts once",
    )


def test_other_files_of_the_same_folder_are_another_set(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    names = [
        scan_images([tmp_path / one, tmp_path / other]).name for one, other in (("1.jpg", "2.jpg"), ("1.jpg", "3.jpg"))
    ]
    assert names[0] != names[1]
    assert all(name.startswith(f"{tmp_path.name}-2-images-") for name in names)


def test_a_file_with_a_bracket_in_its_name_is_no_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].jpg", "a1.jpg")
    assert scan_images(tmp_path / "a[1].jpg").paths.tolist() == ["a[1].jpg"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.jpg", "none.jpg"], r"^there is no .*/none\.jpg$"),
        (["1.jpg", "folder"], r"/folder is a folder among several items; expected image files"),
        (["1.jpg", "notes.txt"], r"/notes\.txt is not an image file by its ending; expected one of \.jpg"),
        (["1.jpg", "x*.jpg"], r"^no file matches .*/x\*\.jpg$"),
        (
            ["1.jpg", "https://example.com/notes.txt"],
            r"^https://example.com/notes.txt is not an image file by its ending",
        ),
        (["1.jpg", 7], r"^found an int, 7; expected the path"),
        ([], r"^found an empty list; expected the path"),
    ],
)
def test_what_is_no_image_file_is_named(tmp_path: Path, names: list[object], message: str) -> None:
    touch(tmp_path, "1.jpg", "folder/2.jpg", "notes.txt")
    given = [name if not isinstance(name, str) or "://" in name else os.path.join(tmp_path, name) for name in names]  # noqa: PTH118
    with pytest.raises(DatasetError, match=message):
        scan_images(given)  # type: ignore[arg-type]


def test_features_of_single_files_leave_those_of_their_folder_alone(photos: Path, tmp_path: Path) -> None:
    lenet, cache = load_backbone("lenet5", device="cpu"), tmp_path / "cache"
    whole = extract(photos, lenet, cache=cache)
    two = [photos / "dark/00.png", photos / "light/07.png"]
    some = extract(scan_images(two), lenet, cache=cache)
    assert (some.images, some.computed, some.reused) == (2, 0, 2)
    assert some.file != whole.file
    assert extract(photos, lenet, cache=cache).reused == 40


def test_urls_are_image_files_too(photos: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    lenet, file = load_backbone("lenet5", device="cpu"), photos / "dark/00.png"
    fsspec.filesystem("memory").pipe("/single/my ant.png", file.read_bytes())
    one = scan_images("memory://single/my ant.png")
    assert (one.root, one.paths.tolist()) == ("memory://single", ["memory://single/my ant.png"])
    assert one.name.startswith("my-ant-")
    both = extract(scan_images(["memory://single/my ant.png", file]), lenet, cache=tmp_path / "cache")
    assert (both.images, both.computed, both.reused) == (2, 1, 1)
    assert extract(one, lenet, cache=tmp_path / "cache").computed == 0
    np.testing.assert_array_equal(lenet.embed("memory://single/my ant.png"), lenet.embed(file))


def test_any_iterable_of_paths_is_a_set(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    names = [str(tmp_path / "1.jpg"), str(tmp_path / "2.jpg")]
    for source in (
        set(names),
        np.array(names),
        (tmp_path / name for name in ("1.jpg", "2.jpg")),
        tmp_path.glob("*.jpg"),
    ):
        assert scan_images(source).paths.tolist() == ["1.jpg", "2.jpg"]
    with pytest.raises(DatasetError, match="--label-column has no effect on a list of 2 files, which is one of images"):
        scan_images(names, label_column="x")


def test_home_and_file_urls_are_resolved_wherever_images_are_named(
    tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_image(tmp_path / "photos/my cat.png", seed=0)
    backbone = load_backbone("lenet5", device="cpu")
    names = [
        "~/photos",
        "~/photos/my cat.png",
        (tmp_path / "photos").as_uri(),
        (tmp_path / "photos/my cat.png").as_uri(),
    ]
    for name in names:
        images = scan_images(name)
        assert (images.root, images.paths.tolist()) == (str(tmp_path / "photos"), ["my cat.png"])
        assert backbone.embed(name).shape == (1, 84)
