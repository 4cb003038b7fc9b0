"""Folders, tables and the built-in digits, as image sets; and the split by content."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.data.image_set import PRETRAIN, UNLABELLED, ImageSet, image_key
from featx.data.scan import scan_images
from featx.data.sources.folder import list_images
from featx.data.sources.table import cell_text, read_table
from featx.data.splits import hash_splits
from featx.errors import DatasetError

MakeImage = Callable[..., Path]


def touch(root: Path, *names: str) -> Path:
    """Files that need no content, since a scan opens none."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def table(path: Path, text: str, *images: str, encoding: str = "utf-8") -> Path:
    """A table, and the files it names, beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    touch(path.parent, *images)
    path.write_bytes(text.encode(encoding))
    return path


def label_names(images: ImageSet) -> list[str | None]:
    return [None if label == UNLABELLED else images.classes[label] for label in images.labels]


# Folders


def test_a_folder_of_classes_has_labels_and_splits_that_are_yet_to_be_decided(tmp_path: Path) -> None:
    images = scan_images(touch(tmp_path / "pets", "dog/2.jpg", "cat/1.jpg", "cat/deep/3.PNG"))
    assert images.name == "pets"
    assert images.root == (tmp_path / "pets").resolve()
    assert images.paths.tolist() == ["cat/1.jpg", "cat/deep/3.PNG", "dog/2.jpg"]
    assert images.classes == ("cat", "dog")
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [0, 0, 1]
    assert images.splits.tolist() == ["", "", ""]
    assert images.notes == ()
    assert len(images) == 3
    assert images.absolute(1) == images.root / "cat/deep/3.PNG"


def test_a_folder_of_splits_gives_every_image_its_split_and_the_class_below_it(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{label}/1.jpg" for split in ("train", "val", "test") for label in ("cat", "dog")))
    images = scan_images(tmp_path)
    assert images.classes == ("cat", "dog")
    assert dict(zip(images.paths, images.splits, strict=True)) == {
        "test/cat/1.jpg": "test",
        "test/dog/1.jpg": "test",
        "train/cat/1.jpg": "train",
        "train/dog/1.jpg": "train",
        "val/cat/1.jpg": "val",
        "val/dog/1.jpg": "val",
    }
    assert label_names(images) == ["cat", "dog"] * 3


@pytest.mark.parametrize(
    ("folder", "split"),
    [("training", "train"), ("valid", "val"), ("Validation", "val"), ("dev", "val"), ("testing", "test")],
)
def test_other_names_of_a_split_mean_the_same_split(tmp_path: Path, folder: str, split: str) -> None:
    images = scan_images(touch(tmp_path, "train/cat/1.jpg", f"{folder}/cat/2.jpg"))
    assert dict(zip(images.paths, images.splits, strict=True))[f"{folder}/cat/2.jpg"] == split
    assert images.classes == ("cat",)


def test_a_folder_without_images_beside_the_splits_does_not_make_classes_of_them(tmp_path: Path) -> None:
    images = scan_images(touch(tmp_path / "pets", "train/cat/1.jpg", "val/cat/1.jpg", "scripts/a.py"))
    assert images.classes == ("cat",)
    assert images.splits.tolist() == ["train", "val"]
    assert images.notes[0] == "pets: 1 left out (1 with the ending .py)"


def test_a_folder_of_images_that_is_no_split_makes_all_of_them_classes(tmp_path: Path) -> None:
    images = scan_images(touch(tmp_path, "train/1.jpg", "bus/1.jpg"))
    assert images.classes == ("bus", "train")
    assert images.splits.tolist() == ["", ""]


def test_a_flat_folder_is_unlabelled(tmp_path: Path) -> None:
    images = scan_images(touch(tmp_path, "2.jpg", "1.png"))
    assert images.paths.tolist() == ["1.png", "2.jpg"]
    assert images.labels.tolist() == [UNLABELLED, UNLABELLED] == [-1, -1]
    assert images.classes == ()


def test_images_right_below_the_splits_are_unlabelled_and_keep_their_split(tmp_path: Path) -> None:
    images = scan_images(touch(tmp_path, "train/1.jpg", "test/1.jpg"))
    assert images.labels.tolist() == [-1, -1]
    assert images.splits.tolist() == ["test", "train"]


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_loose_images_beside_class_folders_are_left_out_and_counted(tmp_path: Path, prefix: str) -> None:
    names = [f"{prefix}{name}" for name in ("cat/1.jpg", "dog/1.jpg", "loose.jpg", "another.jpg")]
    images = scan_images(touch(tmp_path / "pets", *names))
    assert images.paths.tolist() == [f"{prefix}cat/1.jpg", f"{prefix}dog/1.jpg"]
    assert images.notes == ("pets: 2 left out (2 outside any class folder)",)


def test_foreign_endings_are_left_out_and_counted_by_ending(tmp_path: Path) -> None:
    images = scan_images(
        touch(tmp_path / "pets", "cat/1.jpg", "dog/1.jpg", "dog/1.gif", "dog/a.txt", "b.txt", "README")
    )
    assert len(images) == 2
    assert images.notes == (
        "pets: 4 left out (1 with the ending (none), 1 with the ending .gif, 2 with the ending .txt)",
    )


def test_every_ending_that_torchvision_counts_is_an_image(tmp_path: Path) -> None:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    touch(tmp_path, *(f"{number}{ending}" for number, ending in enumerate(IMG_EXTENSIONS)))
    assert len(scan_images(tmp_path)) == len(IMG_EXTENSIONS)


def test_hidden_folders_and_files_are_no_classes_and_no_images_but_are_counted(tmp_path: Path) -> None:
    names = ["cat/1.jpg", "dog/1.jpg", ".git/x/1.jpg", "__MACOSX/cat/1.jpg", "dog/._1.jpg", ".DS_Store"]
    images = scan_images(touch(tmp_path / "pets", *names))
    assert images.classes == ("cat", "dog")
    assert images.notes == ("pets: 4 left out (2 hidden files, 2 in hidden folders)",)


def test_hidden_folders_beside_splits_do_not_turn_the_splits_into_classes(tmp_path: Path) -> None:
    images = scan_images(touch(tmp_path, "train/cat/1.jpg", "val/cat/1.jpg", ".git/1.jpg", "__MACOSX/1.jpg"))
    assert images.classes == ("cat",)
    assert images.splits.tolist() == ["train", "val"]


def test_a_link_to_a_folder_is_followed_and_a_loop_of_links_is_not_followed_twice(tmp_path: Path) -> None:
    touch(tmp_path / "pets", "cat/1.jpg")
    touch(tmp_path / "elsewhere", "1.jpg", "2.jpg")
    (tmp_path / "pets" / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "pets" / "cat" / "again").symlink_to(tmp_path / "pets", target_is_directory=True)
    (tmp_path / "elsewhere" / "itself").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    images = scan_images(tmp_path / "pets")
    assert images.paths.tolist() == ["cat/1.jpg", "dog/1.jpg", "dog/2.jpg"]
    assert images.notes == ("pets: 2 left out (2 links to a folder that is listed anyway)",)


def test_a_file_name_that_is_not_utf_8_survives(tmp_path: Path) -> None:
    touch(tmp_path, "cat/\uff41.jpg")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/cat/\xff\xfe.jpg")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    images = scan_images(tmp_path)
    # Sorted as bytes; as str the escaped name would come first.
    assert [os.fsencode(path) for path in images.paths] == ["cat/\uff41.jpg".encode(), b"cat/\xff\xfe.jpg"]
    assert images.absolute(1).is_file()


def test_images_are_sorted_by_the_bytes_of_their_paths(tmp_path: Path) -> None:
    # "-" comes before "/": folder by folder the order would be another.
    names = ["Z/1.jpg", "a-b/1.jpg", "a/1.jpg", "a/10.jpg", "a/2.jpg", "ä/1.jpg", "\U0001f600/1.jpg"]
    assert scan_images(touch(tmp_path, *reversed(names))).paths.tolist() == names


def test_an_empty_class_is_noted(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "emu").mkdir()
    (tmp_path / ".hidden").mkdir()
    assert scan_images(tmp_path).notes == (f"class 'emu' has no images: {tmp_path.resolve() / 'emu'}",)


def test_a_class_that_is_empty_in_every_split_is_noted(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg")
    (tmp_path / "train" / "emu").mkdir()
    assert scan_images(tmp_path).notes == (f"class 'emu' has no images: {tmp_path.resolve() / 'train' / 'emu'}",)


def test_a_class_that_is_in_val_alone_is_an_error_that_names_it(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "val/emu/7.jpg", "test/emu/8.jpg")
    with pytest.raises(
        DatasetError, match=r"class 'emu' has no images in train but 1 in val and 1 in test \(such as test/e"
    ):
        scan_images(tmp_path)


def test_a_class_like_folder_beside_folders_of_splits_is_an_error(
    tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    for place in ("train/a", "val/a", "samples"):
        make_image(tmp_path / place / "0.png", seed=1)
    with pytest.raises(DatasetError, match=r"folders of splits and beside them samples, which holds images too"):
        scan_images(tmp_path)


def test_a_label_of_a_table_that_is_in_test_alone_is_noted_since_it_may_be_no_class(tmp_path: Path) -> None:
    files = [f"{number}.jpg" for number in range(5)]
    rows = "path,label,split\n0.jpg,1.5,train\n1.jpg,2.5,train\n2.jpg,3.5,test\n3.jpg,4.5,val\n4.jpg,1.5,test\n"
    (note,) = scan_images(table(tmp_path / "t.csv", rows, *files)).notes
    assert note == (
        "class '3.5' and 1 other classes have no images in train but in val or test (such as 2.jpg): no head can learn such a "
        "class; ignore this if the labels are numbers (--task regression) or lists (--task multilabel)"
    )
    (note,) = scan_images(table(tmp_path / "t.csv", rows.replace("4.5", "2.5"), *files)).notes
    assert note.startswith("class '3.5' has no images in train but in val or test (such as 2.jpg)")
    later = rows.replace("test", "later").replace("val", "later")
    assert scan_images(table(tmp_path / "t.csv", later, *files)).notes == ()


def test_a_set_without_train_images_may_hold_any_class(tmp_path: Path) -> None:
    assert scan_images(touch(tmp_path, "test/cat/1.jpg", "val/dog/1.jpg")).classes == ("cat", "dog")


def test_a_single_class_is_noted(tmp_path: Path) -> None:
    (note,) = scan_images(touch(tmp_path, "cat/1.jpg")).notes
    assert note == "there is one class only, 'cat': features can be extracted, but a head needs two"


def test_classes_that_differ_by_case_are_kept_apart_and_noted(tmp_path: Path) -> None:
    rows = "path,label\n1.jpg,cat\n2.jpg,Cat\n3.jpg,dog\n"
    images = scan_images(table(tmp_path / "t.csv", rows, "1.jpg", "2.jpg", "3.jpg"))
    assert images.classes == ("Cat", "cat", "dog")
    assert images.notes == ("classes 'Cat' and 'cat' differ only by case; they remain separate classes",)


def test_a_folder_without_images_says_what_it_holds_instead(tmp_path: Path) -> None:
    touch(tmp_path, "a.gif", "b/c.gif")
    with pytest.raises(
        DatasetError, match=r"no images in .*; 2 left out \(2 with the ending \.gif\) \(images end in \.jpg"
    ):
        scan_images(tmp_path)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no images in .*; it is empty"):
        scan_images(tmp_path)


def test_a_source_that_is_not_there_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"there is no .*nowhere; expected a folder of images, a table .* or 'digits'"
    ):
        scan_images(tmp_path / "nowhere")


def test_a_single_image_is_no_data_set(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    with pytest.raises(
        DatasetError, match=r"1\.jpg is a file; expected a folder of images, a table \(\.csv.* or 'digits'"
    ):
        scan_images(tmp_path / "1.jpg")


def test_listing_a_folder_gives_its_images_sorted_without_the_hidden_ones(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a/2.jpg", "a/notes.txt", ".hidden/1.jpg", ".3.jpg")
    assert list_images(tmp_path) == [tmp_path / "a" / "2.jpg", tmp_path / "b.jpg"]


def test_listing_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no images in .*; it is empty"):
        list_images(tmp_path)


# Tables

ROWS = [("a/1.jpg", "cat", "train"), ("a/2.jpg", "dog", "train"), ("3.jpg", "cat", "test")]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_of_any_format_gives_paths_labels_and_splits(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"pets.{ending}"
    touch(tmp_path, *(path for path, _, _ in ROWS))
    columns = ("path", "label", "split")
    if ending == "jsonl":
        file.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in ROWS))
    elif ending == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table(dict(zip(columns, zip(*ROWS, strict=True), strict=True))), file)
    else:
        separator = "\t" if ending == "tsv" else ","
        file.write_text("".join(separator.join(row) + "\n" for row in (columns, *ROWS)))
    images = scan_images(file)
    assert images.name == "pets"
    assert images.root == tmp_path.resolve()
    assert images.paths.tolist() == ["3.jpg", "a/1.jpg", "a/2.jpg"]
    assert label_names(images) == ["cat", "cat", "dog"]
    assert images.splits.tolist() == ["test", "train", "train"]
    assert images.table == file.resolve()


def test_the_table_is_known_wherever_it_is_read_from(in_tmp: Path) -> None:
    table(in_tmp / "t.csv", "path,label\n1.jpg,a\n2.jpg,b\n", "1.jpg", "2.jpg")
    assert scan_images("t.csv").table == in_tmp.resolve() / "t.csv"
    assert scan_images(".").table is None


def test_a_table_without_a_split_column_leaves_the_splits_to_be_decided(tmp_path: Path) -> None:
    images = scan_images(table(tmp_path / "t.csv", "path,label\n1.jpg,a\n2.jpg,b\n", "1.jpg", "2.jpg"))
    assert images.splits.tolist() == ["", ""]


def test_a_table_may_bring_splits_of_its_own_beside_the_usual_ones(tmp_path: Path) -> None:
    rows = "path,label,split\n1.jpg,a,Training\n2.jpg,b,train\n3.jpg,a,fold 7\n"
    images = scan_images(table(tmp_path / "t.csv", rows, "1.jpg", "2.jpg", "3.jpg"))
    assert images.splits.tolist() == ["train", "train", "fold 7"]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_byte_order_mark_is_no_part_of_a_table(tmp_path: Path, ending: str) -> None:
    rows = {"csv": "path,label\n1.jpg,a\n2.jpg,b\n", "jsonl": '{"path": "1.jpg", "label": "a"}\n'}[ending]
    images = scan_images(table(tmp_path / f"t.{ending}", rows, "1.jpg", "2.jpg", encoding="utf-8-sig"))
    assert images.paths[0] == "1.jpg"
    assert images.classes[0] == "a"


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_windows_line_ends_are_no_part_of_a_class(tmp_path: Path, ending: str) -> None:
    rows = {
        "csv": "path,label\r\n1.jpg,a\r\n2.jpg,b\r\n",
        "jsonl": '{"path": "1.jpg", "label": "a"}\r\n\r\n{"path": "2.jpg", "label": "b"}\r\n',
    }[ending]
    images = scan_images(table(tmp_path / f"t.{ending}", rows, "1.jpg", "2.jpg"))
    assert images.classes == ("a", "b")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_class_names_stay_as_they_are_written(tmp_path: Path, ending: str) -> None:
    names = ["NA", "None", "01", "1", "null", "nan", "1.0", "true"]
    paths = [f"{number}.jpg" for number in range(len(names))]
    touch(tmp_path, *paths)
    file = tmp_path / f"t.{ending}"
    if ending == "csv":
        file.write_text("path,label\n" + "".join(f"{p},{n}\n" for p, n in zip(paths, names, strict=True)))
    elif ending == "jsonl":
        lines = [json.dumps({"path": p, "label": n}) for p, n in zip(paths, names, strict=True)]
        file.write_text("\n".join(lines))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"path": paths, "label": names}), file)
    assert label_names(scan_images(file)) == names


def test_a_row_without_a_label_is_unlabelled(tmp_path: Path) -> None:
    rows = '{"path": "1.jpg", "label": null}\n{"path": "2.jpg", "label": ""}\n{"path": "3.jpg", "label": 0}\n'
    images = scan_images(table(tmp_path / "t.jsonl", rows, "1.jpg", "2.jpg", "3.jpg"))
    assert label_names(images) == [None, None, "0"]


def test_quoted_fields_may_hold_separators(tmp_path: Path) -> None:
    rows = 'path,label\n"a, b.jpg","x, y"\n'
    images = scan_images(table(tmp_path / "t.csv", rows, "a, b.jpg"))
    assert images.paths.tolist() == ["a, b.jpg"]
    assert images.classes == ("x, y",)


def test_columns_that_mean_nothing_to_featx_are_passed_over(tmp_path: Path) -> None:
    # pandas writes its index as a first column without a name.
    rows = ",path,label,width\n0,1.jpg,a,30\n1,2.jpg,b,40\n"
    images = scan_images(table(tmp_path / "t.csv", rows, "1.jpg", "2.jpg"))
    assert images.paths.tolist() == ["1.jpg", "2.jpg"]
    assert images.classes == ("a", "b")


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        (
            "t.csv",
            "file,label\n1.jpg,a\n",
            r"t\.csv: there is no column path; found 'file', 'label', expected path, label",
        ),
        ("t.csv", "path;label\n1.jpg;a\n", r"there is no column path or label; found 'path;label', expected"),
        ("t.csv", "", r"there is no column path or label; found none, expected"),
        (
            "t.jsonl",
            '{"path": "1.jpg", "class": "a"}',
            r"t\.jsonl, line 1: there is no column label; found 'path', 'class'",
        ),
    ],
)
def test_a_missing_column_is_named_with_those_found_and_expected(
    tmp_path: Path, name: str, rows: str, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        scan_images(table(tmp_path / name, rows, "1.jpg"))


def test_a_parquet_table_without_a_label_column_names_those_found(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"path": ["1.jpg"]}), tmp_path / "t.parquet")
    with pytest.raises(DatasetError, match=r"t\.parquet: there is no column label; found 'path', expected"):
        scan_images(tmp_path / "t.parquet")


def test_files_that_are_not_there_are_counted_and_named(tmp_path: Path) -> None:
    rows = "path,label\n" + "".join(f"{number}.jpg,a\n" for number in range(14))
    with pytest.raises(DatasetError, match=r"names 13 files that are not there, relative to .*: 1\.jpg, .* and 3 more"):
        scan_images(table(tmp_path / "t.csv", rows, "0.jpg"))


def test_a_repeated_row_is_left_out_and_noted(tmp_path: Path) -> None:
    rows = "path,label\n1.jpg,a\n2.jpg,b\n1.jpg,a\n./1.jpg,a\n"
    images = scan_images(table(tmp_path / "t.csv", rows, "1.jpg", "2.jpg"))
    assert images.paths.tolist() == ["1.jpg", "2.jpg"]
    assert images.notes == ("t.csv: 2 rows repeat an earlier one and are left out (4, 5)",)


def test_a_table_of_other_columns_is_read_by_those_that_are_wanted(tmp_path: Path) -> None:
    file = table(tmp_path / "t.tsv", "path\tpatient\n1.jpg\t007\n2.jpg\n")
    assert [(n, row["path"], cell_text(row["patient"])) for n, row in read_table(file, ("path", "patient"))] == [
        (2, "1.jpg", "007"),
        (3, "2.jpg", ""),
    ]
    with pytest.raises(DatasetError, match=r"no column eye; found 'path', 'patient', expected path, eye$"):
        list(read_table(file, ("path", "eye")))


@pytest.mark.parametrize("again", ["1.jpg,b,train", "1.jpg,a,val", "./1.jpg,b,train"])
def test_rows_that_contradict_each_other_are_an_error_that_names_both_lines(tmp_path: Path, again: str) -> None:
    rows = f"path,label,split\n1.jpg,a,train\n2.jpg,b,train\n{again}\n"
    with pytest.raises(DatasetError, match=r"'1\.jpg' is on line 2 as label 'a', split 'train' and on line 4 as label"):
        scan_images(table(tmp_path / "t.csv", rows, "1.jpg", "2.jpg"))


def test_a_split_in_some_rows_only_is_an_error_that_names_the_lines(tmp_path: Path) -> None:
    rows = "path,label,split\n1.jpg,a,train\n2.jpg,b,\n3.jpg,b\n"
    with pytest.raises(DatasetError, match=r"2 rows have no split \(lines 3, 4\), the others do"):
        scan_images(table(tmp_path / "t.csv", rows, "1.jpg", "2.jpg", "3.jpg"))


@pytest.mark.parametrize(("name", "rows"), [("t.csv", "path,label\n"), ("t.jsonl", "\n")])
def test_an_empty_table_is_an_error(tmp_path: Path, name: str, rows: str) -> None:
    with pytest.raises(DatasetError, match=rf"{name} has no rows"):
        scan_images(table(tmp_path / name, rows))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"path,label\n,a\n", "line 2: the path is empty"),
        ("t.csv", b"path,label\n1.jpg,a,b,c\n", "line 2: more fields than the header has"),
        ("t.csv", b"path,label\n1.jpg,\xe4\n", r"is not UTF-8 \(byte 17\); save it as UTF-8"),
        ("t.csv", b'path,label\n"1.jpg" x,a\n', "is not a well-formed table"),
        ("t.jsonl", b'{"path": "1.jpg", "label": "a"}\n{"path"\n', "line 2: not JSON"),
        ("t.jsonl", b'["1.jpg", "a"]\n', "line 1: expected an object with path and label"),
        ("t.parquet", b"path,label\n1.jpg,a\n", "is not a Parquet file"),
    ],
)
def test_a_damaged_table_says_where(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    touch(tmp_path, "1.jpg")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        scan_images(tmp_path / name)


# The split by content


def keys_of(count: int, start: int = 0) -> np.ndarray:
    data = b"".join(image_key(str(number).encode()) for number in range(start, start + count))
    return np.frombuffer(data, np.uint8).reshape(-1, 16)


def key_at(position: float, last: int = 0) -> list[int]:
    """A key whose hash lies at a given share of the range."""
    return [*int(position * 2**64).to_bytes(8, "big"), *[0] * 7, last]


def test_the_key_of_an_image_is_blake2b_of_its_bytes() -> None:
    assert image_key(b"").hex() == "cae66941d9efbd404e4d88758ea67670"
    assert image_key(b"a") != image_key(b"b")


def test_the_shares_of_the_splits_are_about_70_10_and_20_percent() -> None:
    splits = hash_splits(keys_of(20_000), np.arange(20_000) % 4)
    shares = {split: np.mean(splits == split) for split in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.012)
    assert sum(shares.values()) == pytest.approx(1)


def test_an_image_stays_in_its_split_when_others_are_added() -> None:
    labels = np.arange(1000) % 3
    few, many = hash_splits(keys_of(200), labels[:200]), hash_splits(keys_of(1000), labels)
    np.testing.assert_array_equal(few, many[:200])


def test_an_image_stays_in_its_split_whatever_its_place_and_label() -> None:
    keys, order = keys_of(500), np.random.default_rng(0).permutation(500)
    splits = hash_splits(keys, np.arange(500) % 2)
    np.testing.assert_array_equal(hash_splits(keys[order], np.arange(500) % 2), splits[order])
    np.testing.assert_array_equal(hash_splits(keys, np.full(500, UNLABELLED)), splits)


def test_copies_of_an_image_share_a_split() -> None:
    for start in range(0, 400, 2):
        keys = np.repeat(keys_of(2, start), 3, axis=0)
        splits = hash_splits(keys, np.zeros(6, np.int64)).reshape(2, 3)
        assert (splits == splits[:, :1]).all()


def test_every_class_of_two_images_or_more_has_train_and_test_images() -> None:
    for count in (2, 3, 5):
        for start in range(0, 1000, count):
            splits = hash_splits(keys_of(count, start), np.zeros(count, np.int64))
            assert {"train", "test"} <= set(splits)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([0.05, 0.1], ["test", "train"]),
        ([0.21, 0.29], ["test", "train"]),
        ([0.9, 0.5, 0.25], ["train", "train", "test"]),
        ([0.1], ["train"]),
        ([0.1, 0.1], ["train", "train"]),
    ],
)
def test_a_class_without_train_or_test_images_gets_those_of_extreme_hash_there(
    positions: list[float], expected: list[str]
) -> None:
    keys = np.array([key_at(position) for position in positions], np.uint8)
    assert hash_splits(keys, np.zeros(len(keys), np.int64)).tolist() == expected


def test_unlabelled_images_are_split_by_their_hash_alone() -> None:
    keys = np.array([key_at(position) for position in (0.05, 0.1, 0.15)], np.uint8)
    assert hash_splits(keys, np.full(3, UNLABELLED)).tolist() == ["test", "test", "test"]
    assert hash_splits(keys, np.array([UNLABELLED, 0, 0])).tolist() == ["test", "test", "train"]


# The built-in digits


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return scan_images("digits")


def test_the_digits_are_1797_images_of_which_0_to_4_are_the_backbones_own(digits: ImageSet) -> None:
    assert digits.name == "digits"
    assert len(digits) == 1797
    assert digits.classes == tuple("0123456789")
    assert np.sum(digits.splits == PRETRAIN) == 901
    np.testing.assert_array_equal(digits.splits == PRETRAIN, digits.labels < 5)


def test_the_other_digits_are_split_by_their_content(digits: ImageSet) -> None:
    rows = np.flatnonzero(digits.splits != PRETRAIN)
    data = b"".join(image_key(digits.absolute(row).read_bytes()) for row in rows)
    keys = np.frombuffer(data, np.uint8).reshape(-1, 16)
    np.testing.assert_array_equal(digits.splits[rows], hash_splits(keys, digits.labels[rows]))
    assert set(digits.splits[rows]) == {"train", "val", "test"}


def test_a_digit_decodes_to_the_pixels_of_its_scan(digits: ImageSet) -> None:
    from sklearn.datasets import load_digits

    scans = load_digits()
    for row in range(len(digits)):
        number = int(Path(digits.paths[row]).stem)
        with Image.open(digits.absolute(row)) as image:
            pixels = np.asarray(image)
        np.testing.assert_allclose(pixels, scans.images[number] * (255 / 16), atol=0.5)
        assert digits.classes[digits.labels[row]] == str(scans.target[number])


def test_the_digits_are_written_once_and_with_the_same_bytes_everywhere(
    digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATX_HOME", str(tmp_path))
    again = scan_images("digits")
    assert again.root == (tmp_path / "digits").resolve()
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]
    np.testing.assert_array_equal(again.paths, digits.paths)
    assert all(again.absolute(row).read_bytes() == digits.absolute(row).read_bytes() for row in range(len(digits)))
    before = again.absolute(0).stat().st_mtime_ns
    assert scan_images("digits").absolute(0).stat().st_mtime_ns == before


def test_digits_that_cannot_be_written_say_which_variable_moves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "file"))
    with pytest.raises(
        DatasetError, match=r"cannot write the built-in digits to .*; set FEATX_HOME to a writable folder"
    ):
        scan_images("digits")


def test_a_folder_named_digits_is_reached_by_a_path(in_tmp: Path, make_image: MakeImage) -> None:
    make_image(in_tmp / "digits" / "one" / "1.png", seed=0)
    make_image(in_tmp / "digits" / "two" / "1.png", seed=1)
    assert scan_images("./digits").classes == ("one", "two")
    shutil.rmtree(in_tmp / "digits")
    with pytest.raises(DatasetError, match="there is no digits"):
        scan_images("./digits")


# Real images


@pytest.mark.real
def test_hymenoptera_has_the_images_that_torchvision_counts(hymenoptera: Path) -> None:
    images = scan_images(hymenoptera)
    assert images.classes == ("ants", "bees")
    assert {split: int(np.sum(images.splits == split)) for split in ("train", "val")} == {"train": 244, "val": 153}
    assert images.notes == ("hymenoptera: 1 left out (1 with the ending .gif)",)
