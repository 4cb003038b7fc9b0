"""Several tables as one data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from listings import label_names, table

from featx.data.image_set import ImageSet
from featx.data.scan import list_images, scan_images
from featx.data.sources.table import read_labels
from featx.errors import DatasetError


def rows_of(images: ImageSet) -> list[tuple[str, str | None, str]]:
    """The path, the label and the split of each image."""
    return list(zip(images.paths.tolist(), label_names(images), images.splits.tolist(), strict=True))


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """A table in the folder of each split, with files of the same names, as Roboflow writes it."""
    for split, labels in {"train": "ab", "valid": "b", "test": "a"}.items():
        lines = "".join(f"{row}.jpg, {label}\n" for row, label in enumerate(labels))
        files = [str(Path(split, f"{row}.jpg")) for row in range(len(labels))]
        table(tmp_path / "birds" / split / "_classes.csv", "filename, class\n" + lines)
        for file in files:
            (tmp_path / "birds" / file).write_bytes(b"image")
    return tmp_path / "birds"


FOUND = [
    ("test/0.jpg", "a", "test"),
    ("train/0.jpg", "a", "train"),
    ("train/1.jpg", "b", "train"),
    ("valid/0.jpg", "b", "val"),
]


def test_a_table_in_the_folder_of_each_split_is_one_data_set(birds: Path) -> None:
    pattern = f"{birds}/*/_classes.csv"
    images = scan_images(pattern)
    assert rows_of(images) == FOUND
    assert "3 tables _classes.csv are read as one, whose names tell the splits test, train, val" in images.notes
    assert (images.name, images.root, str(images.table)) == ("birds-_classes", str(birds), pattern)
    assert read_labels(pattern, images.options, images.paths.tolist())["train/1.jpg"] == ("b", "train")
    assert [image.path for image in list_images(pattern)] == [path for path, _, _ in FOUND]
    assert all(image.exists() for image in list_images(pattern))


def test_a_folder_of_such_tables_names_the_pattern_that_reads_them(birds: Path) -> None:
    assert f"are one data set by the name '{birds}/*/_classes.csv'" in scan_images(birds).notes[-1]


def test_tables_that_are_named_one_by_one_are_one_data_set(birds: Path) -> None:
    images = scan_images([birds / "train" / "_classes.csv", birds / "valid" / "_classes.csv"])
    assert rows_of(images) == FOUND[1:]
    assert str(images.table) == f"{birds}/{{train,valid}}/_classes.csv"


def _lists(folder: Path, **lists: str) -> None:
    for name, lines in lists.items():
        table(folder / f"{name}.txt", lines)


def test_lists_without_headers_are_joined_with_their_splits(tmp_path: Path) -> None:
    _lists(tmp_path, train1="a/1.jpg 0\n", test1="a/2.jpg 0\nb/3.jpg 1\n")
    for file in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"image")
    options: dict[str, Any] = {"path_column": "1", "label_column": "2", "separator": "space"}
    images = scan_images(f"{tmp_path}/{{train,test}}1.txt", **options)
    assert rows_of(images) == [("a/1.jpg", "0", "train"), ("a/2.jpg", "0", "test"), ("b/3.jpg", "1", "test")]
    with pytest.raises(DatasetError, match=r"test1\.txt has no header: its first line, 'a/2\.jpg 0', names an image"):
        scan_images(f"{tmp_path}/*1.txt")


def test_splits_of_a_column_win_and_names_that_tell_no_splits_make_none(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", "path,label,split\n1.jpg,a,test\n", "1.jpg", "2.jpg")
    table(tmp_path / "test.csv", "path,label,split\n2.jpg,b,train\n")
    assert rows_of(scan_images(f"{tmp_path}/t*.csv")) == [("1.jpg", "a", "test"), ("2.jpg", "b", "train")]
    _lists(tmp_path, cats="path,label\n1.jpg,a\n", dogs="path,label\n2.jpg,b\n")
    assert rows_of(scan_images(f"{tmp_path}/*s.txt")) == [("1.jpg", "a", ""), ("2.jpg", "b", "")]


def test_an_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", "path,label\n1.jpg,a\n", "1.jpg")
    table(tmp_path / "test.csv", "path,label\n1.jpg,a\n")
    with pytest.raises(
        DatasetError, match=r"'1\.jpg' is on row 1 as label 'a', split 'test' and on row 2 as label 'a', split 'train'"
    ):
        scan_images(f"{tmp_path}/t*.csv")


def test_paths_below_a_root_of_their_own_and_urls_are_not_moved(tmp_path: Path) -> None:
    for split in ("train", "val"):
        found = {"images": [{"id": 1, "file_name": f"{split}.jpg"}], "categories": [{"id": 1, "name": "cat"}]}
        annotations = {"annotations": [{"id": 1, "image_id": 1, "category_id": 1}]}
        (tmp_path / f"coco/{split}2017").mkdir(parents=True)
        (tmp_path / f"coco/{split}2017/{split}.jpg").write_bytes(b"image")
        table(tmp_path / f"annotations/instances_{split}2017.json", json.dumps(found | annotations))
    images = scan_images(f"{tmp_path}/annotations/instances_{{train,val}}2017.json", root=tmp_path / "coco")
    assert rows_of(images) == [("train2017/train.jpg", "cat", "train"), ("val2017/val.jpg", "cat", "val")]


def test_a_pattern_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no table matches .*/\*\.csv"):
        scan_images(f"{tmp_path}/*.csv")
