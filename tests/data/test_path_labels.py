"""Classes in the names of files, and groups in the names of folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from featx.data.scan import scan_images
from featx.data.scan_options import ScanOptions
from featx.errors import DatasetError, SettingsError


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of files that are listed as images, by their paths."""

    def make(*paths: str) -> Path:
        for path in paths:
            (tmp_path / "pets" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "pets" / path).write_bytes(b"image")
        return tmp_path / "pets"

    return make


def labels_of(images: object) -> list[str | None]:
    """The class names of an image set, in its order."""
    return [[*images.classes, None][label] for label in images.labels]  # type: ignore[attr-defined]


def test_classes_are_found_in_the_names_of_files_and_splits_in_folders(folder: Callable[..., Path]) -> None:
    root = folder("train/cat.0.jpg", "train/dog.1.jpg", "test/1.jpg")
    images = scan_images(root, label_pattern=r"(?P<label>\w+?)\.\d+")
    assert images.paths.tolist() == ["test/1.jpg", "train/cat.0.jpg", "train/dog.1.jpg"]
    assert labels_of(images) == [None, "cat", "dog"]
    assert images.splits.tolist() == ["test", "train", "train"]
    assert "and none in 1 of 3, which is unlabelled (test/1.jpg)" in images.notes[-1]


def test_a_pattern_takes_the_place_of_the_folders_of_classes(folder: Callable[..., Path]) -> None:
    images = scan_images(
        folder("a/cat_1.jpg", "b/cat_2.jpg", "b/deep/dog_1.jpg", "dog_2.jpg"), label_pattern="(?P<label>[a-z]+)_"
    )
    assert dict(zip(images.paths, labels_of(images), strict=True)) == {
        "a/cat_1.jpg": "cat",
        "b/cat_2.jpg": "cat",
        "b/deep/dog_1.jpg": "dog",
        "dog_2.jpg": "dog",
    }


@pytest.mark.parametrize(
    ("pattern", "labels"),
    [
        ("(?P<label>[^/]+)/[^/]+$", ["dog_s", "dog_s", "shop"]),
        ("^[^/]+/(?P<label>.+)/", ["dog_s", "dog_s", "bakery/shop"]),
        ("(?P<label>[^/_]+)_", ["a", "b", "c"]),
    ],
)
def test_a_pattern_with_a_slash_is_searched_in_the_whole_path(
    folder: Callable[..., Path], pattern: str, labels: list[str]
) -> None:
    images = scan_images(
        folder("photo/dog_s/a_1.jpg", "sketch/dog_s/b_1.jpg", "x/bakery/shop/c_1.jpg"), label_pattern=pattern
    )
    assert labels_of(images) == labels


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("(cat|dog)", "has no group named label"),
        ("(?P<label>", "is not a regular expression"),
        ("(?P<label>zebra)", r"finds a class in none of 2 file names \(cat_1.jpg, dog_1.jpg\)"),
        ("(?P<label>x*)", "finds a class in none"),
    ],
)
def test_a_pattern_that_finds_nothing_is_refused(folder: Callable[..., Path], pattern: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        scan_images(folder("cat_1.jpg", "dog_1.jpg"), label_pattern=pattern)


@pytest.mark.parametrize(
    ("level", "groups"),
    [(1, ["p1", "p1", "p2", ""]), (2, ["left", "right", "", ""]), (-1, ["left", "right", "p2", ""])],
)
def test_groups_are_the_names_of_folders_at_a_level(folder: Callable[..., Path], level: int, groups: list[str]) -> None:
    paths = ["p1/left/cat_1.jpg", "p1/right/dog_1.jpg", "p2/cat_2.jpg", "z_3.jpg"]
    images = scan_images(folder(*paths), group_level=level, label_pattern="(?P<label>[a-z]+)_")
    assert images.paths.tolist() == paths
    assert images.columns["group"].tolist() == groups


@pytest.mark.parametrize(
    ("level", "fault"), [(0, "--group-level is 0; expected 1"), (3, "at most 1 folder around an image")]
)
def test_a_level_that_no_folder_has_is_refused(folder: Callable[..., Path], level: int, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        scan_images(folder("cat/1.jpg", "dog/1.jpg"), group_level=level)


def test_an_option_of_another_kind_of_data_is_refused(folder: Callable[..., Path]) -> None:
    root = folder("cat/1.jpg", "dog/1.jpg")
    with pytest.raises(
        DatasetError, match=r"--path-column and --separator have no effect on .*pets, which is a folder of images"
    ):
        scan_images(root, ScanOptions(path_column="file"), separator=";")


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"path_colum": "file"}, "no option 'path_colum' of data; did you mean path_column"),
        ({"group_level": "1"}, "group_level is '1'; expected a whole number"),
        ({"root": 3}, "root is 3; expected text"),
        ({"label_columns": [3]}, "label_columns holds 3"),
    ],
)
def test_options_of_a_wrong_name_or_type_are_refused(
    folder: Callable[..., Path], fields: dict[str, object], fault: str
) -> None:
    with pytest.raises(SettingsError, match=fault):
        scan_images(folder("cat/1.jpg"), **fields)


def test_options_survive_json() -> None:
    options = ScanOptions(path_column="file", label_columns=("a", "b"), group_level=-1)
    assert ScanOptions.from_dict(options.as_dict()) == options
    assert ScanOptions().as_dict() == {}
