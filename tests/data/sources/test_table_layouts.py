"""Lists and tables in the layouts of public data sets: without headers, with flags for splits, nested, or by class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from listings import label_names, table

from featx.data.image_set import ImageSet
from featx.data.scan import scan_images
from featx.errors import DatasetError

NUMBERED: dict[str, Any] = {"path_column": "1", "label_column": "2", "separator": "space"}


def read(tmp_path: Path, rows: str, *files: str, name: str = "t.txt", **options: Any) -> ImageSet:
    """Write a table beside some files, and scan it."""
    return scan_images(table(tmp_path / name, rows, *files), **options)


def found(images: ImageSet) -> dict[str, str | None]:
    """The label of each image by its path."""
    return dict(zip(images.paths.tolist(), label_names(images), strict=True))


@pytest.mark.parametrize(
    "rows",
    ["n1/a 1\nn2/b 2\n", "n1/a 1 1\nn2/b 2 1\n", "n1/a 1 3 2\nn2/b 2 1 7\n"],
)
def test_a_first_row_with_the_number_of_a_column_in_it_is_no_header(tmp_path: Path, rows: str) -> None:
    images = read(tmp_path, rows, "n1/a.jpg", "n2/b.jpg", **NUMBERED)
    assert found(images) == {"n1/a.jpg": "1", "n2/b.jpg": "2"}


def test_words_after_the_last_column_belong_to_it_where_cells_are_separated_by_spaces(tmp_path: Path) -> None:
    rows = "001 Falcon 2000\n002 747-400\n003 F/A-18 \n"
    images = read(tmp_path, rows, "001.jpg", "002.jpg", "003.jpg", **NUMBERED)
    assert found(images) == {"001.jpg": "Falcon 2000", "002.jpg": "747-400", "003.jpg": "F/A-18"}
    assert "t.txt: the lines have 2 to 3 words, so the column 2 is the rest of each line" in images.notes


@pytest.mark.parametrize(
    ("header", "cells", "splits"),
    [
        ("is_valid", ["False", "True"], ["train", "val"]),
        ("is_test", ["0", "1"], ["train", "test"]),
        ("is_training_image", ["1", "0"], ["train", "test"]),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_a_flag_of_a_split_is_read_and_said(
    tmp_path: Path, header: str, cells: list[str], splits: list[str], *, named: bool
) -> None:
    rows = f"path,label,{header}\na.jpg,x,{cells[0]}\nb.jpg,y,{cells[1]}\n"
    images = read(tmp_path, rows, "a.jpg", "b.jpg", name="t.csv", split_column=header if named else None)
    assert images.splits.tolist() == splits
    read_as = ", ".join(f"{cell} as {split}" for cell, split in sorted(zip(cells, splits, strict=True)))
    assert f"t.csv: the column {header!r} is read as the split ({read_as})" in images.notes


def test_two_flags_or_other_cells_are_no_splits(tmp_path: Path) -> None:
    images = read(tmp_path, "path,label,is_val,is_test\na.jpg,x,0,1\n", "a.jpg", name="t.csv")
    assert images.splits.tolist() == [""]
    images = read(tmp_path, "path,label,is_valid\na.jpg,x,checked\n", "a.jpg", name="t.csv")
    assert images.columns["is_valid"].tolist() == ["checked"]


TASKS = [
    {"id": 1, "data": {"image": "/upload/0.jpg"}, "annotations": [{"result": [{"value": {"choices": ["cat"]}}]}]},
    {"id": 2, "data": {"image": "/upload/1.jpg"}, "annotations": [{"result": [{"value": {"choices": ["dog"]}}]}]},
    {"id": 3, "data": {"image": "/upload/2.jpg"}, "annotations": []},
]


def test_numbers_of_tasks_are_not_taken_for_images_that_happen_to_have_such_names(tmp_path: Path) -> None:
    files = ("0.jpg", "1.jpg", "2.jpg")
    with pytest.raises(
        DatasetError,
        match=r"'id' may hold the names .* 'data' names others, such as '/upload/0.jpg'; name .*data.image",
    ):
        read(tmp_path, json.dumps(TASKS), *files, name="t.json")
    with pytest.raises(
        DatasetError, match=r"'id' may hold the names of images, but 'photo of' names others, such as 'a.jpg'"
    ):
        read(tmp_path, '[{"id": 1, "photo of": {"f": "a.jpg"}}]', *files, name="t.json")
    images = read(tmp_path, "id,label,source\n1,x,http://h/1.jpg\n2,y,http://h/2.jpg\n", *files, name="t.csv")
    assert found(images) == {"1.jpg": "x", "2.jpg": "y"}


def test_a_value_in_nested_objects_is_named_with_dots(tmp_path: Path) -> None:
    images = read(
        tmp_path,
        json.dumps(TASKS),
        *("0.jpg", "1.jpg", "2.jpg"),
        name="t.json",
        path_column="data.image",
        label_column="annotations.0.result.0.value.choices",
        root=tmp_path,
    )
    assert found(images) == {"0.jpg": "cat", "1.jpg": "dog", "2.jpg": None}
    rows = '{"source-ref": "0.jpg", "cls": 0, "cls-metadata": {"class-name": "cat"}}\n'
    assert found(read(tmp_path, rows, name="t.jsonl", label_column="cls-metadata.class-name")) == {"0.jpg": "cat"}
    with pytest.raises(DatasetError, match=r"there is no column 'data\.photo' for --path-column; found 'id', 'data'"):
        read(tmp_path, json.dumps(TASKS), name="t.json", path_column="data.photo")


def test_names_of_images_by_class_need_no_ending_if_they_have_folders(tmp_path: Path) -> None:
    value = {"cat": ["cat/1", "cat/2"], "dog": ["dog/1"]}
    images = read(tmp_path, json.dumps(value), "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", name="t.json")
    assert found(images) == {"cat/1.jpg": "cat", "cat/2.jpg": "cat", "dog/1.jpg": "dog"}
    images = read(tmp_path, json.dumps({"cat": ["cat/1"], "dog": ["dog/1"]}), name="t.json")
    assert found(images) == {"cat/1.jpg": "cat", "dog/1.jpg": "dog"}


def test_images_of_coco_without_annotations_or_categories_are_unlabelled_and_said(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}]
    alone = read(tmp_path, json.dumps({"images": images, "categories": []}), "a.jpg", name="t.json")
    assert "t.json: there are no annotations, so the images are unlabelled" in alone.notes
    captions = {"images": images, "annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}]}
    captioned = read(tmp_path, json.dumps(captions), name="t.json")
    assert found(alone) == found(captioned) == {"a.jpg": None}
    assert "t.json: the annotations have no categories, so the images are unlabelled" in captioned.notes


def test_a_folder_of_each_split_that_has_the_first_names_is_told_from_the_one_that_has_all(tmp_path: Path) -> None:
    rows = "id,label\n1,a\n2,b\n3,b\n"
    with pytest.raises(DatasetError, match=r"; 1 is in (.*/train), so add --root \1$"):
        read(tmp_path, rows, "train/1.png", "train/2.png", "train/3.png", "test/1.png", name="t.csv")
    with pytest.raises(
        DatasetError, match=r"files of these names in each of .*/test, .*/train: --root names one of them$"
    ):
        read(tmp_path, rows, "test/2.png", "test/3.png", name="t.csv")


def test_columns_of_0_and_1_beside_no_label_are_named_as_a_remedy(tmp_path: Path) -> None:
    rows = "image,MEL,NV,UNK,age\nx1,1.0,0.0,0.0,50\nx2,0.0,1.0,0.0,1\n"
    images = read(tmp_path, rows, "x1.jpg", "x2.jpg", name="t.csv")
    assert images.notes[-1].endswith(". Some hold 0 and 1 alone: --label-columns MEL,NV,UNK reads those as labels")
    assert found(read(tmp_path, rows, name="t.csv", label_columns=("MEL", "NV", "UNK"))) == {
        "x1.jpg": "MEL",
        "x2.jpg": "NV",
    }


def test_ids_that_all_lead_to_files_are_taken_beside_the_urls_that_they_came_from(tmp_path: Path) -> None:
    rows = "id,url,label\n00a3f,http://host/e/Foo.jpg,x\n00b4c,http://host/f/Bar.jpg,y\n"
    with pytest.raises(DatasetError, match=r"'url' names others, such as 'http://host/e/Foo\.jpg'"):
        read(tmp_path, rows, "00a3f.jpg", name="t.csv")
    assert found(read(tmp_path, rows, "00b4c.jpg", name="t.csv")) == {"00a3f.jpg": "x", "00b4c.jpg": "y"}


CELEBA = "2\nBald Young \n000001.jpg -1  1\n000002.jpg  1 -1\n"


def test_a_number_of_rows_and_a_header_without_the_first_column_are_read_and_said(tmp_path: Path) -> None:
    files = ("000001.jpg", "000002.jpg")
    images = read(tmp_path, CELEBA, *files, separator="space", label_columns=("Bald", "Young"))
    assert found(images) == {"000001.jpg": "Young", "000002.jpg": "Bald"}
    assert "t.txt: the first line, 2, is read as the number of rows" in images.notes
    assert "t.txt: the header has no name for the first column, which is read as the path" in images.notes
    listed = "2\nimage_name   item_id status\n000001.jpg   a train\n000002.jpg   b query\n"
    images = read(tmp_path, listed, separator="space", label_column="item_id", split_column="status")
    assert images.splits.tolist() == ["train", "query"]
    assert found(read(tmp_path, "2\n000001.jpg a\n000002.jpg b\n", **NUMBERED)) == {
        "000001.jpg": "a",
        "000002.jpg": "b",
    }
    assert label_names(read(tmp_path, "path,label\n2,a\n", "2", name="t.csv")) == ["a"]


def test_images_of_coco_without_names_of_files_are_named_by_their_address(tmp_path: Path) -> None:
    image = {"id": 1, "coco_url": "http://images.cocodataset.org/val2017/7.jpg"}
    value = {
        "images": [image],
        "categories": [{"id": 2, "name": "can"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2}],
    }
    assert found(read(tmp_path, json.dumps(value), "val2017/7.jpg", name="t.json")) == {"val2017/7.jpg": "can"}
