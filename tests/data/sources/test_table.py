"""Tables as image sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from listings import label_names, table, touch

from featx.data.scan import scan_images
from featx.data.sources.table import read_table
from featx.errors import DatasetError


def test_a_label_of_a_table_that_is_in_test_alone_is_noted_since_it_may_be_no_class(tmp_path: Path) -> None:
    files = [f"{number}.jpg" for number in range(5)]
    rows = "path,label,split\n0.jpg,1.5,train\n1.jpg,2.5,train\n2.jpg,3.5,test\n3.jpg,4.5,val\n4.jpg,1.5,test\n"
    (note,) = scan_images(table(tmp_path / "t.csv", rows, *files)).notes
    assert note == (
        "class '3.5' and 1 other class have no images in train but in val or test (such as 2.jpg): no head can learn such a "
        "class; ignore this if the labels are numbers (--task regression) or lists (--task multilabel)"
    )
    (note,) = scan_images(table(tmp_path / "t.csv", rows.replace("4.5", "2.5"), *files)).notes
    assert note.startswith("class '3.5' has no images in train but in val or test (such as 2.jpg)")
    later = rows.replace("test", "later").replace("val", "later")
    assert scan_images(table(tmp_path / "t.csv", later, *files)).notes == ()


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
    assert images.root == str(tmp_path.resolve())
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
            "where,label\n1.jpg,a\n",
            r"t\.csv: there is no column path; found 'where', 'label'\. Name the column .* with --path-column",
        ),
        ("t.csv", "where:label\n1.jpg:a\n", r"there is no column path; found 'where:label'\."),
        ("t.csv", "where what\n1.jpg a\n", r"if space stands between the cells, add --separator space$"),
        ("t.csv", "", r"t\.csv is empty; expected a table"),
        ("t.jsonl", '{"where": "1.jpg", "class": "a"}', r"t\.jsonl: there is no column path; found 'where', 'class'"),
    ],
)
def test_a_missing_column_is_named_with_those_found_and_expected(
    tmp_path: Path, name: str, rows: str, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        scan_images(table(tmp_path / name, rows, "1.jpg"))


def test_a_table_without_a_label_column_is_unlabelled_and_names_the_columns_found(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    touch(tmp_path, "1.jpg")
    rows = {"path": ["1.jpg"], "kind": ["cat"]}
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(rows), tmp_path / "t.parquet")
    images = scan_images(tmp_path / "t.parquet")
    assert label_names(images) == [None]
    assert images.notes == (
        "t.parquet has no column of labels, so its images are unlabelled (besides, there are the columns 'kind'; "
        "--label-column names one of them)",
    )


def test_files_that_are_not_there_are_counted_and_named_and_are_an_error_if_none_is_there(tmp_path: Path) -> None:
    rows = "path,label\n" + "".join(f"{number}.jpg,a\n" for number in range(40))
    there = [f"{number}.jpg" for number in range(1, 40)]
    images = scan_images(table(tmp_path / "t.csv", rows, *there))
    assert len(images) == 40
    assert images.notes[0] == (
        f"t.csv names 40 files, of which 1 (2.5 %) is not there, relative to {tmp_path.resolve()}: 0.jpg. It fails, the others "
        "are used"
    )
    for name in there[:13]:
        (tmp_path / name).unlink()
    assert (
        scan_images(tmp_path / "t.csv")
        .notes[0]
        .startswith("Warning: t.csv names 40 files, of which 14 (35.0 %) are not there")
    )
    for name in there[13:]:
        (tmp_path / name).unlink()
    with pytest.raises(
        DatasetError, match=r"names 40 files that are not there, relative to .*: 0\.jpg, .* and 30 more"
    ):
        scan_images(tmp_path / "t.csv")


def test_a_path_that_no_system_can_open_is_missing_or_refused(tmp_path: Path) -> None:
    rows = f"path,label\n1.jpg,a\n{'x' * 300}.jpg,b\n"
    assert len(scan_images(table(tmp_path / "t.csv", rows, "1.jpg"))) == 2
    with pytest.raises(DatasetError, match=r"line 3: the path has 5,004 characters, 'xxx.*; expected at most 4,096"):
        scan_images(table(tmp_path / "t.csv", rows.replace("x" * 300, "x" * 5000)))


def test_paths_with_backslashes_are_read_with_slashes_where_only_that_leads_to_a_file(tmp_path: Path) -> None:
    rows = "path,label\nx\\1.jpg,a\n.\\2.jpg,b\nodd\\3.jpg,b\n"
    images = scan_images(table(tmp_path / "t.csv", rows, "x/1.jpg", "2.jpg", "odd\\3.jpg"))
    assert images.paths.tolist() == ["2.jpg", "odd\\3.jpg", "x/1.jpg"]
    assert images.notes == ("t.csv: 2 paths with \\ are read with /",)


def test_a_repeated_row_is_left_out_and_noted(tmp_path: Path) -> None:
    rows = "path,label\n1.jpg,a\n2.jpg,b\n1.jpg,a\n./1.jpg,a\n"
    images = scan_images(table(tmp_path / "t.csv", rows, "1.jpg", "2.jpg"))
    assert images.paths.tolist() == ["1.jpg", "2.jpg"]
    assert images.notes == ("t.csv: 2 rows repeat an earlier one and are left out (4, 5)",)


def test_a_table_of_other_columns_is_read_by_those_that_are_wanted(tmp_path: Path) -> None:
    file = table(tmp_path / "t.tsv", "path\tpatient\n1.jpg\t007\n2.jpg\n")
    assert [(n, row["path"], row["patient"]) for n, row in read_table(file, ("path", "patient"))] == [
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


@pytest.mark.parametrize(("name", "rows"), [("t.csv", "path,label\n"), ("t.jsonl", "\n"), ("t.json", "[]")])
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
        ("t.jsonl", b"5\n", "line 1: expected an object such as"),
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


# Typed cells


def jsonl(path: Path, *rows: object) -> Path:
    return table(path, "".join(json.dumps(row) + "\n" for row in rows), *(f"{n}.jpg" for n in range(len(rows))))


def labels_of(tmp_path: Path, *labels: object) -> list[str | None]:
    file = jsonl(tmp_path / "t.jsonl", *({"path": f"{n}.jpg", "label": label} for n, label in enumerate(labels)))
    return label_names(scan_images(file))


def test_a_list_is_several_labels(tmp_path: Path) -> None:
    assert labels_of(tmp_path, ["y", "x"], ["x"], [], [2, 10], ["x", None], [None]) == [
        "x|y",
        "x",
        "|",
        "10|2",
        "x",
        None,
    ]


def test_missing_values_are_no_label_and_whole_floats_are_integers(tmp_path: Path) -> None:
    nan = float("nan")
    assert labels_of(tmp_path, 1.0, 2, nan, None, -0.0, 2.5, 1e300) == ["1", "2", None, None, "0", "2.5", "1e+300"]
    assert labels_of(tmp_path, True, False, "1.0", "NaN") == ["True", "False", "1.0", "NaN"]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"name": "x"}, r"line 1: the label holds the object \{'name': 'x'\}; expected text or a number"),
        ([["x"], ["y"]], r"line 1: the label holds the list \['x'\]; expected text"),
        ([0, 1, 0], r"holds the list \[0, 1, 0\], which repeats a number; expected the names of the labels, each once"),
        ([0.25, 0.75], r"holds the list \[0\.25, 0\.75\] with a number with decimals; expected the names"),
        ([True, False], r"holds the list \[True, False\] with a boolean"),
        (["a|b", "c"], r"with the character \|, which stands between labels"),
        ("a\0", r"the label holds a null character: 'a\\x00'"),
        ("\ud800", "holds bytes that are not UTF-8"),
    ],
)
def test_a_label_that_is_none_is_refused_with_its_line(tmp_path: Path, label: object, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        labels_of(tmp_path, label)


@pytest.mark.parametrize("column", ["path", "split"])
def test_a_list_in_another_column_is_refused(tmp_path: Path, column: str) -> None:
    row = {"path": "0.jpg", "label": "a", "split": "train", column: ["0.jpg"]}
    with pytest.raises(
        DatasetError, match=rf"line 1: the {column} holds the list \['0\.jpg'\]; expected text or a number"
    ):
        scan_images(jsonl(tmp_path / "t.jsonl", row))


def test_the_types_of_parquet_are_those_of_the_labels(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = [f"{number}.jpg" for number in range(3)]
    touch(tmp_path, *paths)

    def read(labels: object, **more: object) -> list[str | None]:
        parquet.write_table(pyarrow.table({"path": paths, "label": labels, **more}), tmp_path / "t.parquet")
        return label_names(scan_images(tmp_path / "t.parquet"))

    assert read([1.0, float("nan"), None]) == ["1", None, None]
    assert read([["b", "a"], [], None]) == ["a|b", "|", None]
    assert read(pyarrow.array([b"a", b"b", None])) == ["a", "b", None]
    assert read(pyarrow.array(["x", "y", "x"]).dictionary_encode()) == ["x", "y", "x"]
    nanoseconds = pyarrow.array([1, 2, 1_000_000_001], pyarrow.timestamp("ns"))
    assert read(["a", "b", "c"], taken=nanoseconds) == ["a", "b", "c"]
    assert read(nanoseconds)[0] == "1970-01-01 00:00:00.000000001"
    with pytest.raises(DatasetError, match=r"line 2: the label holds bytes that are not UTF-8: b'\\xff'"):
        read(pyarrow.array([b"a", b"\xff", None]))
    with pytest.raises(DatasetError, match=r"line 1: the label holds the object \{'x': 1\}"):
        read([{"x": 1}, None, None])
    both = pyarrow.table([paths, paths, paths], names=["path", "label", "label"])
    parquet.write_table(both, tmp_path / "t.parquet")
    with pytest.raises(DatasetError, match=r"t\.parquet: there are 2 columns 'label'; keep one of them"):
        scan_images(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("t.csv", "path,label,label\n1.jpg,a,b\n", r"t\.csv: there are 2 columns 'label'; keep one of them"),
        ("t.csv", "path,label, label\n1.jpg,a,b\n", r"t\.csv: there are 2 columns 'label'"),
        ("t.csv", "path,path,label\n1.jpg,2.jpg,b\n", r"t\.csv: there are 2 columns 'path'"),
        ("t.jsonl", '{"path": "1.jpg", "label": "a", "label": "b"}\n', r"line 1: there are 2 columns 'label'"),
        (
            "t.jsonl",
            '{"path": "1.jpg", "label": "a", "split": "train", "split": "test"}\n',
            r"there are 2 columns 'split'",
        ),
    ],
)
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, name: str, rows: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        scan_images(table(tmp_path / name, rows, "1.jpg", "2.jpg"))


def test_a_column_that_means_nothing_to_featx_may_be_there_twice_and_hold_anything(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", "x,path,label,x\n1,1.jpg,a,2\n", "1.jpg")
    assert scan_images(file).classes == ("a",)
    row = {"path": "0.jpg", "label": "a", "box": [0, 1], "meta": {"x": [{}]}}
    assert scan_images(jsonl(tmp_path / "t.jsonl", row)).classes == ("a",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"path":' + "[" * 100_000, "line 1: the JSON is nested too deeply"),
        ('{"path": "1.jpg", "label": ' + "9" * 5000 + "}", "line 1: not JSON: Exceeds the limit"),
        ('{"path": "1.jpg", "label": "a"} x', "line 1: not JSON: Extra data"),
    ],
    ids=["deep", "long number", "more"],
)
def test_json_that_cannot_be_read_is_an_error_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        scan_images(table(tmp_path / "t.jsonl", line + "\n", "1.jpg"))


def test_lists_written_as_text_are_noted(tmp_path: Path) -> None:
    rows = "path,label\n1.jpg,\"['x', 'y']\"\n2.jpg,\"['x']\"\n"
    notes = scan_images(table(tmp_path / "t.csv", rows, "1.jpg", "2.jpg")).notes
    assert notes[0].startswith(
        "t.csv: labels such as \"['x', 'y']\" look like lists or objects, but are text, so each is read as one class"
    )


def test_splits_of_a_table_may_be_named_as_folders_are_if_all_of_them_are(tmp_path: Path) -> None:
    rows = "path,label,split\n1.jpg,a,train_set\n2.jpg,a,TestSet\n3.jpg,b,train_set\n"
    images = scan_images(table(tmp_path / "t.csv", rows, "1.jpg", "2.jpg", "3.jpg"))
    assert images.splits.tolist() == ["train", "test", "train"]
    assert images.notes[:2] == (
        "t.csv: the split 'TestSet' is read as test",
        "t.csv: the split 'train_set' is read as train",
    )
    for own in ("fold 7", "test_2", "test_tube"):
        images = scan_images(table(tmp_path / "t.csv", f"{rows}4.jpg,b,{own}\n", "4.jpg"))
        assert images.splits.tolist() == ["train_set", "TestSet", "train_set", own]


def test_the_split_eval_is_the_one_that_the_others_leave_free_and_noted(tmp_path: Path) -> None:
    rows = "path,label,split\n1.jpg,a,train\n2.jpg,a,Eval\n3.jpg,a,val\n"
    images = scan_images(table(tmp_path / "t.csv", rows, "1.jpg", "2.jpg", "3.jpg"))
    assert images.splits.tolist() == ["train", "test", "val"]
    assert images.notes[0] == "t.csv: the split 'Eval' is read as test"


def test_the_bytes_of_a_path_need_not_be_utf_8_but_those_of_a_split_do(tmp_path: Path) -> None:
    row = {"path": "caf\udce9.jpg", "label": "a"}
    file = jsonl(tmp_path / "t.jsonl", row)
    try:
        (tmp_path / "caf\udce9.jpg").write_bytes(b"")
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    assert scan_images(file).paths.tolist() == ["caf\udce9.jpg"]
    with pytest.raises(DatasetError, match=r"line 1: the split holds bytes that are not UTF-8: '\\udcff'"):
        scan_images(jsonl(tmp_path / "t.jsonl", {**row, "split": "\udcff"}))
    with pytest.raises(DatasetError, match="line 1: the path holds what no name of a file can hold"):
        scan_images(jsonl(tmp_path / "t.jsonl", {**row, "path": "\ud800"}))


def test_the_paths_of_a_table_that_is_a_link_are_relative_to_the_link(tmp_path: Path) -> None:
    table(tmp_path / "blobs" / "x.csv", "path,label\n1.jpg,a\n")
    touch(tmp_path / "snapshot", "1.jpg")
    (tmp_path / "snapshot" / "t.csv").symlink_to(tmp_path / "blobs" / "x.csv")
    images = scan_images(tmp_path / "snapshot" / "t.csv")
    assert images.file(0).exists()
    assert images.table == tmp_path.resolve() / "snapshot" / "t.csv"
