"""Tables as people write them: names of columns, separators, encodings, ids, one-hot labels, boxes, and further columns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from listings import label_names, table, touch

from featx.data.image_set import ImageSet
from featx.data.scan import scan_images
from featx.data.sources.table import list_images, read_labels
from featx.data.table_boxes import _box
from featx.errors import DatasetError, SettingsError


def cells(images: ImageSet) -> dict[str, list[str]]:
    """The further columns of an image set as lists."""
    return {name: column.tolist() for name, column in images.columns.items()}


def read(
    tmp_path: Path, rows: str, *files: str, name: str = "t.csv", encoding: str = "utf-8", **options: Any
) -> ImageSet:
    """Write a table beside some files, and scan it."""
    return scan_images(table(tmp_path / name, rows, *files, encoding=encoding), **options)


# Names of columns


@pytest.mark.parametrize("header", ["path,label,split", " Path , LABEL,Split ", '"path","label","split"'])
def test_names_of_columns_count_without_case_and_spaces(tmp_path: Path, header: str) -> None:
    images = read(tmp_path, f"{header}\n1.jpg,a,train\n2.jpg,b,train\n", "1.jpg", "2.jpg")
    assert label_names(images) == ["a", "b"]
    assert images.splits.tolist() == ["train", "train"]
    assert images.notes == ()


@pytest.mark.parametrize(
    ("header", "note"),
    [
        (
            "filename,species,set",
            "'filename' is read as the path; the column 'species' is read as the label; the column 'set'",
        ),
        (
            "Image Path,class,subset",
            "the column 'Image Path' is read as the path; the column 'class' is read as the label",
        ),
        ("image_id,target,partition", "the column 'image_id' is read as the path"),
    ],
)
def test_usual_names_of_columns_are_guessed_and_said(tmp_path: Path, header: str, note: str) -> None:
    images = read(tmp_path, f"{header}\n1.jpg,a,train\n2.jpg,b,valid\n", "1.jpg", "2.jpg")
    assert label_names(images) == ["a", "b"]
    assert images.splits.tolist() == ["train", "val"]
    assert note in images.notes[0]


def test_the_exact_names_win_over_others(tmp_path: Path) -> None:
    images = read(tmp_path, "file,path,class,label,set\nx,1.jpg,c,a,red\ny,2.jpg,c,b,blue\n", "1.jpg", "2.jpg")
    assert label_names(images) == ["a", "b"]
    assert images.notes == ()
    assert cells(images) == {"file": ["x", "y"], "class": ["c", "c"], "set": ["red", "blue"]}


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ("file,image,label", "each of the columns 'file', 'image' may hold the paths; name one with --path-column"),
        (
            "path,class,species",
            "each of the columns 'class', 'species' may hold the labels; name one with --label-column",
        ),
        ("path,Label,LABEL", "each of the columns 'Label', 'LABEL' may hold the labels"),
    ],
)
def test_an_ambiguous_name_is_refused_with_the_option(tmp_path: Path, header: str, fault: str) -> None:
    with pytest.raises(DatasetError, match=fault):
        read(tmp_path, f"{header}\n1.jpg,a,b\n", "1.jpg")


def test_options_name_the_columns(tmp_path: Path) -> None:
    rows = "file,image,dx,where\n1.jpg,z,mel,train\n2.jpg,z,nv,test\n"
    images = read(tmp_path, rows, "1.jpg", "2.jpg", path_column="FILE", label_column="dx", split_column="where")
    assert label_names(images) == ["mel", "nv"]
    assert images.splits.tolist() == ["train", "test"]
    assert cells(images) == {"image": ["z", "z"]}
    assert images.options.as_dict() == {"path_column": "FILE", "label_column": "dx", "split_column": "where"}
    with pytest.raises(DatasetError, match=r"no column 'dxx' for --label-column; found .*; did you mean dx\?"):
        scan_images(tmp_path / "t.csv", path_column="file", label_column="dxx")


def test_a_column_called_set_is_one_of_splits_only_if_its_cells_are(tmp_path: Path) -> None:
    images = read(tmp_path, "path,label,set\n1.jpg,a,zendikar\n2.jpg,b,train\n", "1.jpg", "2.jpg")
    assert images.splits.tolist() == ["", ""]
    assert cells(images) == {"set": ["zendikar", "train"]}


# Separators, headers and encodings


@pytest.mark.parametrize(
    ("separator", "name", "note"),
    [
        (";", "t.csv", "t.csv: the cells are separated by a semicolon"),
        ("\t", "t.csv", "t.csv: the cells are separated by a tab"),
        ("|", "t.txt", "t.txt: the cells are separated by a vertical bar"),
        (",", "t.tsv", "t.tsv: the cells are separated by a comma"),
        (",", "t.txt", ""),
        ("\t", "t.tab", ""),
    ],
)
def test_the_separator_is_found_in_the_header_and_said(tmp_path: Path, separator: str, name: str, note: str) -> None:
    rows = separator.join(["path", "label"]) + "\n" + separator.join(['"a; b|c, d.jpg"', "x"]) + "\n"
    images = read(tmp_path, rows, "a; b|c, d.jpg", name=name)
    assert label_names(images) == ["x"]
    assert images.notes[:-1] == ((note,) if note else ())  # the last is about the only class


@pytest.mark.parametrize("separator", ["space", " "])
def test_a_separator_may_be_named(tmp_path: Path, separator: str) -> None:
    images = read(tmp_path, "path  label\n1.jpg  a\n2.jpg b\n", "1.jpg", "2.jpg", name="t.txt", separator=separator)
    assert label_names(images) == ["a", "b"]
    with pytest.raises(DatasetError, match="--separator is 'ab'; expected one character"):
        scan_images(tmp_path / "t.txt", separator="ab")
    with pytest.raises(DatasetError, match="--separator has no effect on"):
        read(tmp_path, '{"path": "1.jpg"}', name="t.jsonl", separator=",")


def test_a_spreadsheet_may_name_the_separator_in_its_first_line(tmp_path: Path) -> None:
    images = read(
        tmp_path, "sep=;\r\npath;label\r\n1.jpg;a\r\n2.jpg;b\r\n;\r\n", "1.jpg", "2.jpg", encoding="utf-8-sig"
    )
    assert label_names(images) == ["a", "b"]
    with pytest.raises(DatasetError, match="line 4: the path is empty"):
        read(tmp_path, "sep=;\npath;label\n1.jpg;a\n;b\n", "1.jpg")


def test_decimal_commas_are_points_where_cells_are_separated_otherwise(tmp_path: Path) -> None:
    rows = "path;label;weight\n1.jpg;1,5;2,5\n2.jpg;-3;\n3.jpg;;1\n"
    images = read(tmp_path, rows, "1.jpg", "2.jpg", "3.jpg", encoding="utf-8-sig")
    assert label_names(images) == ["1.5", "-3", None]
    assert cells(images) == {"weight": ["2,5", "", "1"]}
    assert label_names(read(tmp_path, "path;label\n1.jpg;1,5\n2.jpg;a\n")) == ["1,5", "a"]


def test_utf_16_is_read_by_its_byte_order_mark(tmp_path: Path) -> None:
    images = read(tmp_path, "path\tlabel\n1.jpg\tKätzchen\n", "1.jpg", encoding="utf-16")
    assert label_names(images) == ["Kätzchen"]
    (tmp_path / "t.csv").write_bytes("path,label\n".encode("utf-16")[:-1])
    with pytest.raises(DatasetError, match=r"t\.csv is not "):
        scan_images(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("name", "rows", "line"),
    [
        ("t.csv", "1.jpg,a\n2.jpg,b\n", "1.jpg,a"),
        ("t.txt", "1.jpg a\n2.jpg b\n", "1.jpg a"),
        ("images.txt", "1 001.Black_footed_Albatross/1.jpg\n", "1 001.Black_footed_Albatross/1.jpg"),
        ("list.txt", "1.jpg\n2.jpg\n", "1.jpg"),
    ],
)
def test_a_table_without_a_header_is_refused_with_the_remedy(tmp_path: Path, name: str, rows: str, line: str) -> None:
    with pytest.raises(
        DatasetError, match=rf"has no header: its first line, '{line}', names an image\. Add a line such as"
    ):
        read(tmp_path, rows, "1.jpg", "2.jpg", name=name)


def test_columns_of_a_table_without_a_header_have_numbers(tmp_path: Path) -> None:
    options: dict[str, Any] = {"path_column": "2", "label_column": "3"}
    rows = "7,1.jpg,a\n8,2.jpg,b\n"
    images = read(tmp_path, rows, "1.jpg", "2.jpg", **options)
    assert label_names(images) == ["a", "b"]
    assert cells(images) == {"1": ["7", "8"]}
    rows = "1 a.x/1.jpg\n2 b.y/2.jpg\n"
    images = read(tmp_path, rows, "a.x/1.jpg", "b.y/2.jpg", name="images.txt", separator=" ", path_column="2")
    assert images.paths.tolist() == ["a.x/1.jpg", "b.y/2.jpg"]
    images = read(tmp_path, "1.jpg\n2.jpg\n", name="list.txt", path_column="1")
    assert label_names(images) == [None, None]
    with pytest.raises(DatasetError, match="no column '4' for --label-column; the first line has 3 fields"):
        read(tmp_path, "7,1.jpg,a\n", path_column="2", label_column="4")


def test_a_missing_quote_and_a_long_cell(tmp_path: Path) -> None:
    long = "x" * 200_000
    images = read(tmp_path, f"path,label,note\n1.jpg,a,{long}\n2.jpg,b,\n", "1.jpg", "2.jpg")
    assert label_names(images) == ["a", "b"]
    assert "the column 'note' is not kept: one of its cells has 200,000 bytes; at most 4,096 are stored" in images.notes
    with pytest.raises(DatasetError, match=r"is not a well-formed table: .*; is a closing quote missing?"):
        read(tmp_path, 'path,label\n1.jpg,"a\n2.jpg,b\n')


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "is empty; expected a table with the columns path and label"),
        ("\n\n", "is empty; expected a table"),
        ("<html><body>No.</body></html>", "is a web page; expected a table"),
    ],
)
def test_a_file_that_is_no_table_says_so(tmp_path: Path, content: str, fault: str) -> None:
    with pytest.raises(DatasetError, match=fault):
        read(tmp_path, content)


def test_line_ends_of_every_system_and_blank_lines_before_the_header(tmp_path: Path) -> None:
    for rows in (
        "path,label\r1.jpg,a\r2.jpg,b\r",
        "\n\npath,label\n1.jpg,a\n2.jpg,b",
        "#path,label\r\n1.jpg,a\r\n2.jpg,b",
    ):
        assert label_names(read(tmp_path, rows, "1.jpg", "2.jpg")) == ["a", "b"]


def test_rows_of_separators_alone_are_passed_over(tmp_path: Path) -> None:
    images = read(tmp_path, "path,label,,\n1.jpg,a,,\n,,,\n2.jpg,b\n\n", "1.jpg", "2.jpg")
    assert label_names(images) == ["a", "b"]
    assert cells(images) == {}


# Paths


def test_ids_without_an_ending_are_the_names_of_files(tmp_path: Path) -> None:
    rows = "id,label,lesion\nx1,a,l1\nx2,b,l1\nx3,b,l2\n"
    images = read(tmp_path, rows, "train/x1.jpg", "train/x2.jpg", "train/x3.PNG", root=tmp_path / "train")
    assert images.paths.tolist() == ["x1.jpg", "x2.jpg", "x3.PNG"]
    assert cells(images) == {"id": ["x1", "x2", "x3"], "lesion": ["l1", "l1", "l2"]}
    assert "t.csv: 2 names without an ending are read with .jpg" in images.notes
    assert images.root == str(tmp_path.resolve() / "train")
    assert images.options.root == images.root


def test_files_in_a_folder_beside_the_table_are_named_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"names 2 files .*; x1 is in (.*/train), so add --root \1$"):
        read(tmp_path, "id,label\nx1,a\nx2,b\n", "train/x1.jpg", "train/x2.jpg", "other/y.jpg")
    with pytest.raises(
        DatasetError, match=r"--root names the folder that they are relative to, or a folder around them$"
    ):
        read(tmp_path, "path,label\ny9.jpg,a\n")
    with pytest.raises(DatasetError, match=r"--root .*nowhere: there is no .*nowhere; expected what the paths"):
        read(tmp_path, "path,label\ny9.jpg,a\n", root=tmp_path / "nowhere")


def test_ids_of_files_in_several_folders_are_found_below_the_root(tmp_path: Path) -> None:
    rows, files = (
        "image_id,label\nx1,a\nx2,b\nx3,b\n",
        ("part_1/x1.jpg", "part_2/x2.jpg", "part_1/x3.jpg", "part_2/x3.jpg"),
    )
    with pytest.raises(
        DatasetError, match=rf"several folders, so add --root {tmp_path}, which looks for them in all fol"
    ):
        read(tmp_path, rows, *files)
    images = read(tmp_path, rows, *files, root=tmp_path)
    assert images.paths.tolist() == ["part_1/x1.jpg", "part_2/x2.jpg", "x3"]
    assert cells(images) == {"image_id": ["x1", "x2", "x3"]}
    assert "t.csv: 2 names are found in folders below the root: part_1, part_2" in images.notes
    assert "t.csv: 1 name may mean several files below the root, such as part_1/x3.jpg, part_2/x3.jpg" in images.notes
    later = read_labels(tmp_path / "t.csv", images.options, images.paths.tolist())
    assert later == {"part_1/x1.jpg": ("a", ""), "part_2/x2.jpg": ("b", ""), "x3": ("b", "")}
    assert [image.path for image in list_images(tmp_path / "t.csv", images.options)] == images.paths.tolist()


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_ids_are_found_in_the_folders_of_an_archive(tmp_path: Path, ending: str) -> None:
    touch(tmp_path / "pets", "a/x1.jpg", "b/x2.jpg", "b/._x2.jpg", "__MACOSX/x1.jpg")
    root = shutil.make_archive(str(tmp_path / "pets"), ending[1:], tmp_path / "pets")
    images = read(tmp_path, "id,label\nx1,a\nx2,b\n", root=root)
    assert images.paths.tolist() == ["a/x1.jpg", "b/x2.jpg"]
    with pytest.raises(DatasetError, match=r"names 1 file that is not there"):
        read(tmp_path, "id,label\nx3,a\n", root=root)


@pytest.mark.parametrize("before", ["/kaggle/input/pets/", "C:\\Users\\me\\", "pets/", "/data/local-files/?d=3/"])
def test_leading_folders_of_another_machine_are_passed_over(tmp_path: Path, before: str) -> None:
    rows = f"path,label\n{before}cat/1.jpg,cat\n{before}dog/1.jpg,dog\n{before}dog/9.jpg,dog\n"
    images = read(tmp_path, rows, "all/cat/1.jpg", "all/dog/1.jpg", "all/1.jpg", root=tmp_path / "all")
    slashed = before.replace("\\", "/")
    gone = f"{before}dog/9.jpg"
    assert dict(zip(images.paths, label_names(images), strict=True)) == {
        "cat/1.jpg": "cat", "dog/1.jpg": "dog", gone: "dog",
    }  # fmt: skip
    assert f"t.csv: 2 paths are read without {slashed} before them" in images.notes
    assert set(read_labels(tmp_path / "t.csv", images.options, images.paths.tolist())) == set(images.paths)


def test_paths_may_be_urls_of_files_and_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    touch(tmp_path, "home/my cat.jpg", "a b.jpg")
    rows = f"path,label\n~/my cat.jpg,a\nfile://{tmp_path}/a%20b.jpg,b\n~odd.jpg,c\n"
    images = read(tmp_path, rows, "~odd.jpg")
    assert sorted(images.paths.tolist()) == sorted([f"{tmp_path}/home/my cat.jpg", f"{tmp_path}/a b.jpg", "~odd.jpg"])
    assert all(images.file(row).exists() for row in range(3))


# Labels


@pytest.mark.parametrize(
    ("one", "none", "blank"), [("1", "0", ""), ("1.0", "0.0", ""), ("True", "False", ""), ("true", "FALSE", "")]
)
def test_columns_of_0_and_1_are_labels(tmp_path: Path, one: str, none: str, blank: str) -> None:
    rows = [
        ("1.jpg", one, none),
        ("2.jpg", one, one),
        ("3.jpg", none, none),
        ("4.jpg", blank, one),
        ("5.jpg", blank, blank),
    ]
    text = "path,MEL,NV\n" + "".join(",".join(row) + "\n" for row in rows)
    images = read(tmp_path, text, *(row[0] for row in rows), label_columns=["MEL", "NV"])
    assert label_names(images) == ["MEL", "MEL|NV", "|", "NV", None]
    assert cells(images) == {}


@pytest.mark.parametrize("no", ["-1", "-1.0"])
def test_columns_of_minus_1_and_1_are_labels_where_there_is_no_0(tmp_path: Path, no: str) -> None:
    files = ("1.jpg", "2.jpg", "3.jpg")
    images = read(
        tmp_path, f"path,Old,Hat\n1.jpg,1,{no}\n2.jpg,1,1\n3.jpg,{no},{no}\n", *files, label_columns=["Old", "Hat"]
    )
    assert label_names(images) == ["Old", "Hat|Old", "|"]
    assert "t.csv: -1 in --label-columns (Old, Hat) is read as 0, since none of them has a 0" in images.notes
    with pytest.raises(
        DatasetError, match=r"line 2: the column 'Hat' holds '-1.*'; expected 0 or 1 .* replace it by 0 or 1$"
    ):
        read(tmp_path, f"path,Old,Hat\n1.jpg,1,{no}\n2.jpg,1,0\n", *files, label_columns=["Old", "Hat"])


def test_rows_with_one_label_each_are_refused_with_the_line_that_joins_them(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"written cat\|dog \(pandas: rows\.groupby\('file'\)\['class'\]\.agg\('\|'\.join\)\)$"
    ):
        read(tmp_path, "file,class\n1.jpg,cat\n1.jpg,dog\n", "1.jpg")


def test_other_values_in_columns_of_0_and_1_are_refused_with_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"line 3: the column 'NV' holds '0.5'; expected 0 or 1 in --label-columns"):
        read(tmp_path, "path,MEL,NV\n1.jpg,1,0\n2.jpg,1,0.5\n", "1.jpg", "2.jpg", label_columns=("MEL", "NV"))
    with pytest.raises(DatasetError, match="--label-columns takes the place of --label-column"):
        scan_images(tmp_path / "t.csv", label_columns=("MEL", "NV"), label_column="MEL")


@pytest.mark.parametrize(
    ("separator", "cell"), [(",", '"cat, dog"'), (" ", "dog cat"), (";", "cat;dog;"), (", ", '"cat, dog"')]
)
def test_labels_may_have_another_separator(tmp_path: Path, separator: str, cell: str) -> None:
    rows = f"path,tags\n1.jpg,{cell}\n2.jpg,cat\n3.jpg,\n4.jpg,cat|dog\n"
    images = read(tmp_path, rows, "1.jpg", "2.jpg", "3.jpg", "4.jpg", label_separator=separator)
    assert label_names(images) == ["cat|dog", "cat", None, "cat|dog"]


# JSON


def test_a_list_of_objects_is_a_table(tmp_path: Path) -> None:
    rows = [{"path": "1.jpg", "label": ["b", "a"], "age": 3.0, "meta": {"x": [1]}}, {"path": "2.jpg", "label": None}]
    images = read(tmp_path, json.dumps(rows), "1.jpg", "2.jpg", name="t.json")
    assert label_names(images) == ["a|b", None]
    assert cells(images) == {"age": ["3", ""], "meta": ['{"x": [1]}', ""]}


@pytest.mark.parametrize("orient", ["list", "dict"])
def test_columns_of_json_as_pandas_writes_them_are_a_table(tmp_path: Path, orient: str) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"path": ["1.jpg", "2.jpg"], "label": ["a", "b"]})
    images = read(tmp_path, json.dumps(frame.to_dict(orient)), "1.jpg", "2.jpg", name="t.json")
    assert label_names(images) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"a": 1}, "found a JSON object that is no table, with the names 'a'; expected a list"),
        (3, "found 3; expected a list of objects"),
        (["1.jpg"], "entry 1: found '1.jpg'; expected a list of objects"),
    ],
)
def test_json_that_is_no_table_is_refused(tmp_path: Path, value: object, fault: str) -> None:
    with pytest.raises(DatasetError, match=fault):
        read(tmp_path, json.dumps(value), name="t.json")


COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}, {"id": 3, "file_name": "c.jpg"}],
    "categories": [{"id": 10, "name": "car", "supercategory": "vehicle"}, {"id": 11, "name": "dog"}],
    "annotations": [
        {"id": 100, "image_id": 1, "category_id": 10, "bbox": [10.5, 20, 30, 40]},
        {"id": 101, "image_id": 1, "category_id": 11, "bbox": [0, 0, 5, 5]},
        {"id": 102, "image_id": 2, "category_id": 11, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ],
}


def test_columns_of_json_without_one_of_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"t\.json: there is no column path; found 'ants', 'bees'\. Name the column"):
        read(tmp_path, '{"ants": ["1"], "bees": ["2"]}', name="t.json")


def test_annotations_of_coco_are_boxes_of_images(tmp_path: Path) -> None:
    images = read(tmp_path, json.dumps(COCO), "a.jpg", "b.jpg", "c.jpg", name="t.json")
    assert images.paths.tolist() == ["a.jpg#xywh=0,0,5,5", "a.jpg#xywh=10,20,31,40"]
    assert label_names(images) == ["dog", "car"]
    assert cells(images)["annotation_id"] == ["101", "100"]
    assert "t.json: left out: 1 annotation of crowds (iscrowd)" in images.notes
    assert "t.json: left out: 1 image without an annotation" in images.notes


def test_annotations_without_boxes_are_labels_of_whole_images(tmp_path: Path) -> None:
    plain = {**COCO, "annotations": [{"id": 1, "image_id": 3, "category_id": 11}]}
    images = read(tmp_path, json.dumps(plain), "c.jpg", name="t.json")
    assert (images.paths.tolist(), label_names(images)) == (["c.jpg"], ["dog"])
    test = {**COCO, "annotations": []}
    assert label_names(read(tmp_path, json.dumps(test), "a.jpg", name="t.json")) == [None] * 3
    broken = {**COCO, "annotations": [{"id": 1, "image_id": 9, "category_id": 11}]}
    with pytest.raises(DatasetError, match="annotation 1: there is no image with the id 9"):
        read(tmp_path, json.dumps(broken), name="t.json")


# Boxes


@pytest.mark.parametrize(
    ("header", "box"),
    [
        ("x,y,w,h", "1,2,30,40"),
        ("bbox_x,bbox_y,bbox_width,bbox_height", "1,2,30,40"),
        ("xmin,ymin,xmax,ymax", "1,2,31,42"),
        ("width,height,xmin,ymin,xmax,ymax", "99,99,1,2,31,42"),
        ("Roi.X1,Roi.Y1,Roi.X2,Roi.Y2", "1,2,31,42"),
        ("bbox", '"[1.0, 2.0, 30.0, 40.0]"'),
        ("bbox", "1 2 30 40"),
    ],
)
def test_columns_of_boxes_make_parts_of_images(tmp_path: Path, header: str, box: str) -> None:
    blank = "," * header.count(",")
    rows = f"path,label,{header}\na.jpg,cat,{box}\na.jpg,dog,{blank}\n"
    images = read(tmp_path, rows, "a.jpg")
    assert images.paths.tolist() == ["a.jpg", "a.jpg#xywh=1,2,30,40"]
    assert label_names(images) == ["dog", "cat"]
    assert "so each row is a part of its image; --box-columns none leaves" in images.notes[0]
    with pytest.raises(DatasetError, match=r"'a.jpg' is on line 2 as label 'cat'"):
        scan_images(tmp_path / "t.csv", box_columns=["none"])


def test_boxes_are_named_by_an_option(tmp_path: Path) -> None:
    rows = "path,label,c1,c2,c3,c4\na.jpg,cat,1,2,30,40\n"
    assert read(tmp_path, rows, "a.jpg").paths.tolist() == ["a.jpg"]
    images = scan_images(tmp_path / "t.csv", box_columns=["c1", "c2", "c3", "c4"])
    assert images.paths.tolist() == ["a.jpg#xywh=1,2,30,40"]
    with pytest.raises(DatasetError, match="--box-columns names 2 columns; expected four"):
        scan_images(tmp_path / "t.csv", box_columns=["c1", "c2"])


def test_boxes_in_lists_of_json(tmp_path: Path) -> None:
    rows = [{"path": "a.jpg", "label": "x", "bbox": [1, 2, 3, 4]}, {"path": "a.jpg", "label": "y", "bbox": None}]
    images = read(tmp_path, json.dumps(rows), "a.jpg", name="t.json")
    assert images.paths.tolist() == ["a.jpg", "a.jpg#xywh=1,2,3,4"]


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ("5,5,0,3", "line 3: the box in x, y, w, h is 5, 5, 0, 3: it has no pixels"),
        ("5,5,-2,3", "it has no pixels"),
        ("-9,5,3,3", "it lies outside of the image"),
        ("1,,3,3", "is 1, missing, 3, 3; expected four numbers, or none of them"),
        ("1,2,inf,3", "expected four numbers"),
        ("1,2,1e12,3", "expected pixels, at most"),
    ],
)
def test_a_box_that_is_none_is_refused_with_its_line(tmp_path: Path, box: str, fault: str) -> None:
    rows = f"path,label,x,y,w,h\na.jpg,cat,1,2,3,4\nb.jpg,dog,{box}\n"
    with pytest.raises(DatasetError, match=fault):
        read(tmp_path, rows, "a.jpg", "b.jpg", box_columns=["x", "y", "w", "h"])


def test_fractions_of_the_size_of_an_image_are_refused(tmp_path: Path) -> None:
    rows = "path,label,XMin,YMin,XMax,YMax\na.jpg,cat,0.1,0.2,0.9,1\n"
    with pytest.raises(DatasetError, match="a part of the image's size like all others; expected pixels"):
        read(tmp_path, rows, "a.jpg")


def test_columns_that_only_sound_like_boxes_are_further_columns(tmp_path: Path) -> None:
    rows = "path,label,x,y,w,h\na.jpg,cat,left,2,3,4\n"
    images = read(tmp_path, rows, "a.jpg")
    assert images.paths.tolist() == ["a.jpg"]
    assert list(images.columns) == ["x", "y", "w", "h"]


def test_boxes_are_the_whole_pixels_that_they_touch() -> None:
    assert _box([10.2, 20.9, 5.5, 1], False) == (10, 20, 6, 2)
    assert _box([0.1 + 0.2, 0, 0.7, 1], False) == (0, 0, 1, 1)
    assert _box([3.0000000001, 0, 7.0000000001, 4], True) == (3, 0, 4, 4)
    assert _box([-4, -4, 10, 6], False) == (0, 0, 6, 2)


# Further columns


def test_further_columns_are_kept_with_the_rows_that_are(tmp_path: Path) -> None:
    rows = ",path,label,patient,patient_age,x,x\n0,2.jpg,b,p2,30,1,2\n1,1.jpg,a,p1,,1,2\n2,2.jpg,b,p9,31,1,2\n"
    images = read(tmp_path, rows, "1.jpg", "2.jpg")
    assert cells(images) == {"patient": ["p1", "p2"], "patient_age": ["", "30"]}
    assert "t.csv: the column 'x' is not kept: there are 2 columns of this name" in images.notes


def test_the_types_of_further_columns_of_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    touch(tmp_path, "1.jpg", "2.jpg")
    columns = {
        "path": ["1.jpg", "2.jpg"],
        "label": ["a", "b"],
        "age": pyarrow.array([30.0, None]),
        "flag": [True, False],
        "words": [["a", "b"], None],
        "vector": [[0.5, 1.5], [2.5, 3.5]],
        "blob": [b"\x00", b"\xff"],
        "when": pyarrow.array([0, 86_400], pyarrow.timestamp("s")),
        "kind": pyarrow.array(["x", "y"]).dictionary_encode(),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    images = scan_images(tmp_path / "t.parquet")
    assert cells(images) == {
        "age": ["30", ""],
        "flag": ["True", "False"],
        "words": ['["a", "b"]', ""],
        "when": ["1970-01-01 00:00:00.000", "1970-01-02 00:00:00.000"],
        "kind": ["x", "y"],
    }
    assert [note.split(": ")[1] for note in images.notes] == [
        "the column 'vector' is not kept",
        "the column 'blob' is not kept",
    ]


def test_a_pattern_takes_the_place_of_labels(tmp_path: Path) -> None:
    rows = "path,label\ncat_1.jpg,x\ndog_2.jpg,y\n"
    images = read(tmp_path, rows, "cat_1.jpg", "dog_2.jpg", label_pattern="(?P<label>[a-z]+)_")
    assert label_names(images) == ["cat", "dog"]
    assert cells(images) == {"label": ["x", "y"]}
    with pytest.raises(SettingsError, match="--label-pattern and --label-column are two places of labels"):
        scan_images(tmp_path / "t.csv", label_pattern="(?P<label>[a-z]+)_", label_column="label")


# Comments, numbers in the place of a header, and forms of JSON


def test_comments_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = "# made by hand, see README\npath,label\n1.jpg,a\n# the others, which are\n#, older\n2.jpg,b\n"
    images = read(tmp_path, rows, "1.jpg", "2.jpg")
    assert label_names(images) == ["a", "b"]
    assert images.notes == ("t.csv: 2 lines of comments (#) left out",)


def test_the_list_of_oxford_pets_is_read_with_and_without_its_header(tmp_path: Path) -> None:
    touch(tmp_path / "images", "cat_1.jpg", "dog_1.jpg")
    rows = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n#SPECIES: 1:Cat 2:Dog\ncat_1 1 1 1\ndog_1 2 2 1\n"
    by_number = read(tmp_path, rows, name="l.txt", path_column="1", label_column="3", root=str(tmp_path / "images"))
    by_name = read(
        tmp_path, rows, name="l.txt", label_column="SPECIES", root=str(tmp_path / "images"), separator="space"
    )
    for images in (by_number, by_name):
        assert images.paths.tolist() == ["cat_1.jpg", "dog_1.jpg"]
        assert label_names(images) == ["1", "2"]
    assert "l.txt: the cells are separated by a space" in by_number.notes


def test_names_that_all_begin_with_a_hash_are_no_comments(tmp_path: Path) -> None:
    images = read(tmp_path, "id,label\n#1,a\n#2,b\n", "#1.jpg", "#2.jpg")
    assert images.paths.tolist() == ["#1.jpg", "#2.jpg"]


def test_a_first_row_of_numbers_is_no_header(tmp_path: Path) -> None:
    touch(tmp_path, "7.jpg", "8.jpg")
    images = read(tmp_path, "7,1\n8,2\n", path_column="1", label_column="2")
    assert images.paths.tolist() == ["7.jpg", "8.jpg"]
    assert label_names(images) == ["1", "2"]
    pandas = read(tmp_path, ",0,1\n0,7.jpg,1\n1,8.jpg,2\n", path_column="0", label_column="1")
    assert label_names(pandas) == ["1", "2"]
    with pytest.raises(DatasetError, match="its first line holds the numbers '7', '1'"):
        read(tmp_path, "7,1\n8,2\n")


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ({"columns": ["path", "label"], "index": [0, 1], "data": [["1.jpg", "a"], ["2.jpg", "b"]]}, []),
        ({"schema": {"fields": []}, "data": [{"path": "1.jpg", "label": "a"}, {"path": "2.jpg", "label": "b"}]}, []),
        ({"0": {"path": "1.jpg", "label": "a"}, "1": {"path": "2.jpg", "label": "b"}}, []),
        ({"1.jpg": {"label": "a", "age": 3}, "2.jpg": {"label": "b", "age": 4}}, ["age"]),
        ({"1.jpg": "a", "2.jpg": "b"}, []),
        ({"a": ["1.jpg"], "b": ["2.jpg"]}, []),
        ({"train": [{"path": "1.jpg", "label": "a"}], "val": [{"path": "2.jpg", "label": "b"}]}, []),
        ({"version": "1.0", "samples": [{"path": "1.jpg", "label": "a"}, {"path": "2.jpg", "label": "b"}]}, []),
    ],
)
def test_forms_of_json_are_tables(tmp_path: Path, content: Any, columns: list[str]) -> None:
    images = read(tmp_path, json.dumps(content), "1.jpg", "2.jpg", name="t.json")
    assert images.paths.tolist() == ["1.jpg", "2.jpg"]
    assert label_names(images) == ["a", "b"]
    assert images.splits.tolist() == (["train", "val"] if "val" in content else ["", ""])
    assert list(cells(images)) == columns


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_the_content_decides_between_json_and_json_lines(tmp_path: Path, name: str) -> None:
    rows = [{"path": "1.jpg", "label": "a"}, {"path": "2.jpg", "label": "b"}]
    for text in ("\n".join(map(json.dumps, rows)), json.dumps(rows)):
        assert label_names(read(tmp_path, text, "1.jpg", "2.jpg", name=name)) == ["a", "b"]


def test_a_name_with_dots_is_a_value_in_objects(tmp_path: Path) -> None:
    rows = [{"image": {"file": f"{n}.jpg"}, "label": {"name": name, "id": n}} for n, name in ((1, "a"), (2, "b"))]
    text = "\n".join(map(json.dumps, rows))
    images = read(tmp_path, text, "1.jpg", "2.jpg", name="t.jsonl", path_column="image.file", label_column="label.name")
    assert label_names(images) == ["a", "b"]


def test_lists_of_zero_and_one_are_no_labels(tmp_path: Path) -> None:
    text = "\n".join(json.dumps({"path": f"{n}.jpg", "label": [n - 1, 2 - n]}) for n in (1, 2))
    with pytest.raises(DatasetError, match=r"the column 'label' holds lists of 0 and 1 such as \[0, 1\]"):
        read(tmp_path, text, "1.jpg", "2.jpg", name="t.jsonl")


def test_columns_of_zero_and_one_may_have_a_decimal_comma(tmp_path: Path) -> None:
    rows = "path;cat;dog\n1.jpg;1,0;0,0\n2.jpg;0,0;1,0\n"
    assert label_names(read(tmp_path, rows, "1.jpg", "2.jpg", label_columns=["cat", "dog"])) == ["cat", "dog"]


@pytest.mark.parametrize("bad", ["1,,3,4", "a,b,c,d", "1,1,-5,4"])
def test_a_malformed_box_among_others_is_an_error_and_does_not_turn_boxes_off(tmp_path: Path, bad: str) -> None:
    rows = f"path,label,x,y,w,h\n1.jpg,a,1,2,3,4\n2.jpg,b,{bad}\n3.jpg,b,1,2,3,4\n"
    with pytest.raises(DatasetError, match=r"line 3: the box in x, y, w, h is .*; --box-columns none reads no boxes"):
        read(tmp_path, rows, "1.jpg", "2.jpg", "3.jpg")
    assert len(read(tmp_path, rows, box_columns=("none",))) == 3


def test_names_of_another_case_are_found_where_only_that_leads_to_a_file(tmp_path: Path) -> None:
    images = read(tmp_path, "path,label\n1.JPG,a\n2.jpg,b\n", "1.jpg", "2.jpg")
    assert images.paths.tolist() == ["1.jpg", "2.jpg"]
    assert images.notes == ("t.csv: 1 name is read with the ending in another case",)
    touch(tmp_path / "root", "Cats/Tom.jpg", "Dogs/Tom.jpg", "Dogs/rex.jpg", "dogs/rex.jpg")
    rows = "path,label\nCATS/TOM.JPG,a\ndogs\\tom.jpg,b\nDOGS/REX.jpg,c\n"
    images = read(tmp_path, rows, root=str(tmp_path / "root"))
    assert images.paths.tolist() == ["Cats/Tom.jpg", "DOGS/REX.jpg", "Dogs/Tom.jpg"]
    assert "t.csv: 1 name may mean several files below the root, such as Dogs/rex.jpg, dogs/rex.jpg" in images.notes


@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.jsonl", "t.parquet", "t.arrow", "t.zip", "t.tar.gz"])
def test_a_pointer_of_git_lfs_is_known(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n")
    with pytest.raises(DatasetError, match="is a pointer of Git LFS, whose file git lfs pull fetches; expected a"):
        scan_images(tmp_path / name)


@pytest.mark.parametrize("folder", ["work", "9j", "woods", "Qk1"])
def test_a_long_path_is_no_image_in_base64(tmp_path: Path, folder: str) -> None:
    long = "/".join([folder, *["category_of_images"] * 5])
    (tmp_path / "t.csv").write_text(f"path,label\n/{long}/1.jpg,a\n{long}/2.jpg,b\n")
    touch(tmp_path, f"{long}/2.jpg")
    assert scan_images(tmp_path / "t.csv").paths.tolist() == [f"/{long}/1.jpg", f"{long}/2.jpg"]
