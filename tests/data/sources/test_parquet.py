"""Parquet files with image bytes as image sets."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listings import label_names
from row_files import parquet, pets, png, pyarrow, structs, write

from featx.data.file_bytes import image_key
from featx.data.openers import open_store
from featx.data.scan import scan_images
from featx.errors import DatasetError, ImageError

CLASSES = {"names": ["cat", "dog"], "_type": "ClassLabel"}


# One file


def test_a_file_of_datasets_gives_paths_and_the_names_of_classes(tmp_path: Path) -> None:
    images = scan_images(pets(tmp_path / "pets.parquet", 3))
    assert images.name == "pets"
    assert images.root == str(tmp_path / "pets.parquet")
    assert images.paths.tolist() == ["0/pet_0.png", "1/pet_1.png", "2/pet_2.png"]
    assert label_names(images) == ["cat", "dog", "cat"]
    assert images.file(1).read().data == png(1)
    assert images.file(1).name == f"{tmp_path}/pets.parquet/1/pet_1.png"


@pytest.mark.parametrize(
    ("columns", "features", "labels", "further"),
    [
        ({"img": structs([png(0), png(1)]), "label": [1, 0]}, {"label": CLASSES}, ["dog", "cat"], []),  # cifar10
        (
            {"image": structs([png(0), png(1)]), "label": [-1, 0]},
            {"label": CLASSES},
            [None, "cat"],
            [],
        ),  # imagenet-1k's test
        (  # shards of WebDataset, as datasets converts them
            {"__key__": ["a", "b"], "jpg": structs([png(0), png(1)]), "cls": [1, 0]},
            None,
            ["1", "0"],
            ["__key__"],
        ),
        (  # beans
            {"image_file_path": ["/home/a.jpg", "b"], "image": structs([png(0), png(1)]), "labels": [0, 1]},
            {"labels": CLASSES},
            ["cat", "dog"],
            ["image_file_path"],
        ),
        ({"image": [png(0), png(1)], "label": ["rose", "lily"]}, None, ["rose", "lily"], []),  # plain bytes, by pandas
        ({"jpg": [png(0), png(1)], "cls": [3, 7], "label": [1.0, None]}, None, ["1", None], ["cls"]),
        ({"image": structs([png(0), png(1)]), "tags": [[0, 1], []]}, {"tags": [CLASSES]}, ["cat|dog", "|"], []),
        (
            {"image": structs([png(0), png(1)]), "tags": [[1], None]},
            {"tags": {"_type": "Sequence", "feature": CLASSES}},
            ["dog", None],
            [],
        ),
        ({"image": structs([png(0), png(1)]), "labels": [["b", "a"], ["c"]]}, None, ["a|b", "c"], []),
        ({"image": structs([png(0), png(1)]), "Label": ["a", "b"]}, None, ["a", "b"], []),
        ({"image": structs([png(0), png(1)]), "price": [1.5, 2.5]}, None, [None, None], ["price"]),
    ],
)
def test_columns_are_found_by_their_names_and_descriptions(
    tmp_path: Path, columns: dict[str, Any], features: Any, labels: list[str | None], further: list[str]
) -> None:
    images = scan_images(write(tmp_path / "x.parquet", columns, features=features))
    assert label_names(images) == labels
    assert list(images.columns) == further
    assert [images.file(row).read().data for row in (0, 1)] == [png(0), png(1)]


@pytest.mark.parametrize(
    "column",
    [
        structs([png(0), None, png(2)], kind=pyarrow.large_binary()),
        pyarrow.array([png(0), None, png(2)], pyarrow.large_binary()),
        pyarrow.array([png(0), None, png(2)]).dictionary_encode(),
        structs([png(0), None, png(2)], kind=pyarrow.binary_view()),
        pyarrow.array([png(0), None, png(2)], pyarrow.binary_view()),
        pyarrow.array([{"bytes": png(0)}, None, {"bytes": png(2)}]),
    ],
    ids=["large structures", "large", "dictionary", "structures of views", "views", "no paths"],
)
def test_bytes_are_read_whatever_their_type_and_a_row_without_an_image_fails_alone(tmp_path: Path, column: Any) -> None:
    images = scan_images(write(tmp_path / "x.parquet", {"image": column, "label": ["a", "b", "a"]}))
    assert images.file(0).read().data == png(0)
    assert images.file(2).read().key == image_key(png(2))
    with pytest.raises(ImageError, match=r"^is missing: the row has no image$"):
        images.file(1).read()
    assert images.facts().sizes.tolist() == [len(png(0)), -1, len(png(2))]


def test_a_column_of_bytes_with_another_name_is_found_by_its_content(tmp_path: Path) -> None:
    file = write(tmp_path / "x.parquet", {"payload": [None, png(1)], "digest": [b"ab", b"cd"], "label": ["a", "b"]})
    images = scan_images(file)
    assert images.root == f"{file}#payload"
    assert open_store(images.root).read(str(images.paths[1])).data == png(1)


def test_a_table_of_paths_stays_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    images = scan_images(write(tmp_path / "x.parquet", {"path": [b"a.png"], "label": ["a"]}))
    assert images.paths.tolist() == ["a.png"]


def test_images_beside_the_file_are_read_where_it_has_paths_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").write_bytes(png(1))
    column = structs([png(0), None, None, None], ["0.png", "photos/1.png", str(tmp_path / "photos/1.png"), "gone.png"])
    images = scan_images(write(tmp_path / "x.parquet", {"image": column, "label": [0, 1, 1, 0]}))
    assert images.facts().sizes.tolist() == [len(png(0)), len(png(1)), len(png(1)), -1]
    assert [images.file(row).read().data for row in range(3)] == [png(0), png(1), png(1)]
    with pytest.raises(ImageError, match=r"^cannot be read: No such file or directory$"):
        images.file(3).read()
    before = images.facts().mtimes[1]
    (tmp_path / "photos" / "1.png").write_bytes(png(7))
    assert images.facts().mtimes[1] != before


def test_a_separator_of_the_users_own_stands_between_labels(tmp_path: Path) -> None:
    file = write(tmp_path / "x.parquet", {"image": structs([png(0), png(1)]), "label": ["dog, cat", "dog"]})
    assert label_names(scan_images(file, label_separator=",")) == ["cat|dog", "dog"]
    assert label_names(scan_images(file)) == ["dog, cat", "dog"]


def test_a_file_of_pandas_in_which_no_image_has_bytes_is_read_by_its_paths(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    column = pyarrow.array([{"bytes": None, "path": "1.png"}])
    assert pyarrow.types.is_null(column.type.field("bytes").type)
    images = scan_images(write(tmp_path / "x.parquet", {"image": column, "label": ["a"]}))
    assert images.facts().sizes.tolist() == [len(png(1))]
    assert images.file(0).read().data == png(1)


def test_one_hot_columns_are_several_labels(tmp_path: Path) -> None:
    columns = {
        "image": structs([png(n) for n in range(3)]),
        "cat": [1, 0, None],
        "dog": [True, False, None],
        "id": [1, 2, 3],
    }
    images = scan_images(write(tmp_path / "x.parquet", columns), label_columns=["cat", "dog"])
    assert label_names(images) == ["cat|dog", "|", None]
    assert images.columns["id"].tolist() == ["1", "2", "3"]
    columns["cat"] = [3, 0, 1]
    with pytest.raises(DatasetError, match="row 0: the column 'cat' holds '3'; expected 0 or 1 in --label-columns"):
        scan_images(write(tmp_path / "x.parquet", columns), label_columns=["cat", "dog"])


# What is refused, each with one line


@pytest.mark.parametrize(
    ("columns", "features", "options", "message"),
    [
        (
            {"image": structs([png(0)]), "mask": structs([png(1)])},
            None,
            {},
            r"the columns 'image' and 'mask' hold images; --image-column image names the one to use$",
        ),
        (  # cifar100
            {"img": structs([png(0)]), "fine_label": [1], "coarse_label": [0]},
            {"fine_label": CLASSES, "coarse_label": CLASSES},
            {},
            r"the columns 'fine_label' and 'coarse_label' may hold the labels; --label-column fine_label names the one to use$",
        ),
        ({"img": structs([png(0)]), "fine_label": [1], "coarse_label": [0]}, None, {}, r"may hold the labels"),
        ({"image": structs([png(0)]), "label": [7]}, {"label": CLASSES}, {}, r"row 0: the label is 7, but .* 0 to 1$"),
        (
            {"image": structs([png(0)]), "label": [0]},
            None,
            {"label_column": "lable"},
            r"--label-column names 'lable'; found the columns 'image', 'label'$",
        ),
        (
            {"image": structs([png(0)]), "x": [0]},
            None,
            {"image_column": "x"},
            r"the column 'x' has the type int64; expected",
        ),
        (
            {"image": structs([png(0)]), "label": [{"id": 3}]},
            None,
            {"label_column": "label"},
            r"row 0: the label holds the object \{'id': 3\}; expected text or a number$",
        ),
    ],
)
def test_what_has_two_readings_or_none_is_refused(
    tmp_path: Path, columns: dict[str, Any], features: Any, options: dict[str, Any], message: str
) -> None:
    file = write(tmp_path / "x.parquet", columns, features=features)
    with pytest.raises(DatasetError, match=message):
        scan_images(file, **options)


def test_the_column_that_is_named_counts(tmp_path: Path) -> None:
    columns = {"image": structs([png(0)]), "mask": structs([png(1)]), "fine_label": [1], "coarse_label": [0]}
    file = write(tmp_path / "x.parquet", columns, features={"fine_label": CLASSES, "coarse_label": CLASSES})
    images = scan_images(file, image_column="mask", label_column="coarse_label")
    assert (images.root, label_names(images), list(images.columns)) == (f"{file}#mask", ["cat"], ["fine_label"])
    assert open_store(images.root).read("0").data == png(1)


def test_files_that_are_cut_off_damaged_or_empty_are_one_line(tmp_path: Path) -> None:
    whole = pets(tmp_path / "pets.parquet").read_bytes()
    for name, data in (("cut", whole[:-20]), ("empty", b""), ("text", b"image,label\n")):
        (tmp_path / f"{name}.parquet").write_bytes(data)
    with pytest.raises(DatasetError, match=r"cut\.parquet is not a Parquet file that can be read: "):
        scan_images(tmp_path / "cut.parquet")
    pets(tmp_path / "set" / "a.parquet")
    (tmp_path / "set" / "b.parquet").write_bytes(whole[:-20])
    with pytest.raises(DatasetError, match=r"set/b\.parquet is not a Parquet file that can be read: "):
        scan_images(tmp_path / "set")
    with pytest.raises(DatasetError, match=r"none\.parquet: there are no rows$"):
        scan_images(
            write(tmp_path / "none.parquet", {"image": structs([]), "label": pyarrow.array([], pyarrow.int64())})
        )
    with pytest.raises(DatasetError, match=r"^no file matches .*/x-\*\.parquet$"):
        scan_images(tmp_path / "x-*.parquet")


def test_a_damaged_row_group_fails_alone(tmp_path: Path) -> None:
    file = pets(tmp_path / "pets.parquet", 6, row_group_size=2, compression="snappy")
    data = bytearray(file.read_bytes())
    start = parquet.read_metadata(file).row_group(1).column(0).data_page_offset
    data[start : start + 40] = bytes(40)
    file.write_bytes(data)
    images = scan_images(file)
    for row in (0, 1, 4, 5):
        assert images.file(row).read().data == png(row)
    for row in (3, 2, 3):
        with pytest.raises(ImageError, match=r"^cannot be read: "):
            images.file(row).read()


# Several files, and their splits


def test_shards_of_a_folder_have_the_splits_of_their_names(tmp_path: Path) -> None:
    pets(tmp_path / "pets" / "data" / "train-00000-of-00002.parquet", 2)
    pets(tmp_path / "pets" / "data" / "train-00001-of-00002.parquet", 2, 10)
    pets(tmp_path / "pets" / "data" / "validation-00000-of-00001-0123456789abcdef.parquet", 1, 20)
    pets(tmp_path / "pets" / "data" / "unsupervised-00000-of-00001.parquet", 1, 30)
    (tmp_path / "pets" / "README.md").write_text("# Pets")
    images = scan_images(tmp_path / "pets")
    assert images.name == "pets"
    assert images.root == f"{tmp_path}/pets/**/*.parquet"
    assert images.paths[0] == "data/train-00000-of-00002.parquet/0/pet_0.png"
    assert images.splits.tolist() == ["train"] * 4 + ["unsupervised", "val"]
    read = [open_store(images.root).read(str(path)).data for path in images.paths]
    assert read == [png(number) for number in (0, 1, 10, 11, 30, 20)]


@pytest.mark.parametrize(
    "names", ["train-*.parquet", "{train,none}-00000-of-00001.parquet", "{train,test}-00000-of-00001.parquet"]
)
def test_a_pattern_selects_files(tmp_path: Path, names: str) -> None:
    pets(tmp_path / "data" / "train-00000-of-00001.parquet", 2)
    pets(tmp_path / "data" / "test-00000-of-00001.parquet", 1, 10)
    if "none" in names:
        with pytest.raises(DatasetError, match=r"^there is no file .*/none-00000-of-00001\.parquet$"):
            scan_images(tmp_path / "data" / names)
        return
    images = scan_images(tmp_path / "data" / names)
    assert images.root == f"{tmp_path}/data/{names}"
    assert set(images.splits) == ({""} if "*" in names else {"train", "test"})
    assert open_store(images.root).read(str(images.paths[-1])).data == png(1)


@pytest.mark.parametrize("selected", [["train-0", "train-1", "test-0"], ["train-0", "train-1"], ["train-0", "test-0"]])
def test_the_files_that_a_shell_makes_of_a_pattern_are_one_data_set(tmp_path: Path, selected: list[str]) -> None:
    names = {"train-0": (2, 0), "train-1": (2, 10), "test-0": (1, 20)}
    for name, (count, start) in names.items():
        pets(tmp_path / "data [1]" / f"{name}.parquet", count, start)
    images = scan_images([tmp_path / "data [1]" / f"{name}.parquet" for name in selected])
    assert len(images) == sum(names[name][0] for name in selected)
    assert open_store(images.root).read(str(images.paths[-1])).data == images.file(len(images) - 1).read().data
    assert images.name == "data-1-"


def test_folders_of_splits_and_a_column_of_splits_tell_them_too(tmp_path: Path) -> None:
    pets(tmp_path / "hub" / "train" / "0000.parquet", 1)
    pets(tmp_path / "hub" / "test" / "0000.parquet", 1, 10)
    assert scan_images(tmp_path / "hub").splits.tolist() == ["test", "train"]
    columns = {"image": structs([png(0), png(1)]), "label": [0, 1], "split": ["train", "validation"]}
    assert scan_images(write(tmp_path / "x.parquet", columns)).splits.tolist() == ["train", "val"]
    columns["split"] = ["train", "train"]
    assert scan_images(write(tmp_path / "x.parquet", columns)).splits.tolist() == ["train", "train"]
    columns["split"] = ["train", None]
    with pytest.raises(
        DatasetError, match=r"x\.parquet: no split is named, while others have the splits train; name one"
    ):
        scan_images(write(tmp_path / "x.parquet", columns))


def test_a_folder_of_several_data_sets_is_refused(tmp_path: Path) -> None:
    for config in ("full", "small"):
        pets(tmp_path / "hub" / config / "train-00000-of-00001.parquet", 1)
    with pytest.raises(DatasetError, match=r"of several data sets, in the folders full, small; name one of"):
        scan_images(tmp_path / "hub")
    assert len(scan_images(tmp_path / "hub" / "**" / "*.parquet")) == 2
    assert len(scan_images(tmp_path / "hub" / "small")) == 1


def test_a_table_of_parquet_beside_images_leaves_a_folder_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.png").write_bytes(png(0))
    pets(tmp_path / "photos" / "metadata.parquet")
    images = scan_images(tmp_path / "photos")
    assert images.paths.tolist() == ["cat/1.png"]
    assert any("1 with the ending .parquet" in note for note in images.notes)


def test_names_with_spaces_braces_and_other_letters_are_names(tmp_path: Path) -> None:
    file = pets(tmp_path / "mé [1] {a,b} #x" / "pe ts.parquet#1.parquet", 1)
    for data in (file, file.parent):
        images = scan_images(data)
        assert open_store(images.root).read(str(images.paths[0])).data == png(0)


@pytest.mark.parametrize("path", ["../x.parquet/0", "x.parquet/9", "x.parquet/-1", "y.parquet/0", "x.parquet", "", "0"])
def test_a_path_that_names_no_row_is_no_image(tmp_path: Path, path: str) -> None:
    pets(tmp_path / "set" / "x.parquet", 1)
    pets(tmp_path / "x.parquet", 1)
    store = scan_images(tmp_path / "set").store
    assert store.facts([path]).sizes.tolist() == [-1]
    with pytest.raises(ImageError):
        store.read(path)


def test_embedded_names_that_would_mean_something_else_are_left_out(tmp_path: Path) -> None:
    names = ["a/b.png", "c\\d.png", "e.png#xywh=1,2,3,4", "", "x" * 300, "7"]
    file = write(tmp_path / "x.parquet", {"image": structs([png(n) for n in range(6)], names), "label": ["a"] * 6})
    images = scan_images(file)
    assert images.paths.tolist() == ["0/b.png", "1/d.png", "2", "3", "4", "5/7"]
    assert [images.file(row).read().data for row in range(6)] == [png(number) for number in range(6)]
    assert np.array_equal(images.order(np.array([5, 0, 3])), [0, 3, 5])


def test_text_that_is_not_utf_8_and_odd_types_do_no_harm(tmp_path: Path) -> None:
    def text(*values: bytes) -> Any:
        offsets = pyarrow.array(np.cumsum([0, *map(len, values)]), pyarrow.int32())
        return pyarrow.Array.from_buffers(
            pyarrow.string(), len(values), [None, offsets.buffers()[1], pyarrow.py_buffer(b"".join(values))]
        )

    paths = text(b"caf\xe9.png", b"b.png")
    column = pyarrow.StructArray.from_arrays([pyarrow.array([png(0), png(1)]), paths], names=["bytes", "path"])
    columns = {
        "image": column,
        "label": ["a", "b"],
        "note": text(b"\xff", b"ok"),
        "took": pyarrow.array([5, None], pyarrow.duration("ns")),
        "at": pyarrow.array([5, None], pyarrow.timestamp("ns", "Europe/Rome")),
        "nothing": pyarrow.nulls(2),
        "box": [[1.0, 2.0], None],
        "size": pyarrow.array(["s", "l"]).dictionary_encode(),
    }
    images = scan_images(write(tmp_path / "x.parquet", columns))
    assert images.paths.tolist() == ["0/caf\udce9.png", "1/b.png"]
    assert images.file(0).read().data == png(0)
    assert images.columns["size"].tolist() == ["s", "l"]
    assert "box" not in images.columns
    with pytest.raises(DatasetError, match=r"row 0: the label holds bytes that are not UTF-8"):
        scan_images(tmp_path / "x.parquet", label_column="note")
    twice = pyarrow.table([column, pyarrow.array([1, 2]), pyarrow.array([3, 4])], names=["image", "label", "label"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DatasetError, match=r"twice\.parquet: there are 2 columns 'label'; expected one$"):
        scan_images(tmp_path / "twice.parquet")


# URLs


def test_files_behind_urls_are_read_as_local_ones(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    memory = fsspec.filesystem("memory")
    for name, start in (("train-00000-of-00001", 0), ("test-00000-of-00001", 10)):
        memory.pipe(f"/rows/data/{name}.parquet", pets(tmp_path / "x.parquet", 5, start, row_group_size=2).read_bytes())
    for data in ("memory://rows/data/*.parquet", "memory://rows/data/{train,test}-00000-of-00001.parquet"):
        images = scan_images(data)
        assert (images.root, images.name) == (data, "rows")
        assert set(images.splits) == {"train", "test"}
        assert [open_store(data).read(str(path)).data for path in images.paths] == [
            *(png(number) for number in range(10, 15)),
            *(png(number) for number in range(5)),
        ]
    images = scan_images("memory://rows/data/train-00000-of-00001.parquet")
    assert images.paths[4] == "4/pet_4.png"
    assert images.file(4).read().data == png(4)
    assert images.file(4).name == "memory://rows/data/train-00000-of-00001.parquet/4/pet_4.png"
    with pytest.raises(DatasetError, match=r"memory://rows/data/none\.parquet"):
        scan_images("memory://rows/data/none.parquet")


# Images as text, and Arrow files


@pytest.mark.parametrize("before", ["", "data:image/png;base64,"])
@pytest.mark.parametrize("name", ["image", "payload"])
def test_images_in_base64_have_the_keys_of_their_files(tmp_path: Path, before: str, name: str) -> None:
    files = [png(number) for number in range(4)]
    texts = [before + base64.b64encode(data).decode() for data in files]
    path = write(tmp_path / "t.parquet", {name: [*texts[:3], None, "no image"], "label": ["a", "b", "a", "b", "a"]})
    images = scan_images(path)
    store = open_store(images.root)
    assert [store.read(row).key for row in images.paths[:3]] == list(map(image_key, files[:3]))
    assert store.facts(images.paths[:3].tolist()).sizes.tolist() == list(map(len, files[:3]))
    with pytest.raises(ImageError, match="the row has no image"):
        store.read("3")
    assert store.read("4").data == b"no image"


def test_images_in_base64_in_other_tables_are_refused_with_the_remedy(tmp_path: Path) -> None:
    text = base64.b64encode(png(0)).decode()
    (tmp_path / "t.csv").write_text(f"image,label\n{text},a\n")
    with pytest.raises(DatasetError, match=r"line 2: the image holds an image in base64, .* read from Parquet"):
        scan_images(tmp_path / "t.csv")


@pytest.mark.parametrize("form", ["file", "stream", "feather"])
def test_arrow_files_hold_images_or_their_paths(tmp_path: Path, form: str) -> None:
    feather = pytest.importorskip("pyarrow.feather", reason="needs pyarrow")
    files = [png(0), png(1)]
    (tmp_path / "1.png").write_bytes(files[0])
    (tmp_path / "2.png").write_bytes(files[1])
    for name, columns in (("rows", {"image": files}), ("paths", {"path": ["1.png", "2.png"]})):
        content = pyarrow.table({**columns, "label": ["a", "b"], "age": [3, 4]})
        path = tmp_path / f"{name}.{'feather' if form == 'feather' else 'arrow'}"
        if form == "feather":
            feather.write_feather(content, path)
        else:
            make = pyarrow.ipc.new_file if form == "file" else pyarrow.ipc.new_stream
            with make(str(path), content.schema) as writer:
                writer.write_table(content)
        images = scan_images(path)
        store = open_store(images.root)
        assert [store.read(each).key for each in images.paths] == list(map(image_key, files))
        assert label_names(images) == ["a", "b"]
        assert images.columns["age"].tolist() == ["3", "4"]


# Names of columns, as in tables of paths


def test_columns_of_rows_are_found_as_those_of_tables_are(tmp_path: Path) -> None:
    files = [png(number) for number in range(3)]
    columns = {"Image": files, "Breed": ["a", "b", "a"], "subset": ["train", "train", "test"], "is_big": [1, 0, 1]}
    images = scan_images(write(tmp_path / "x.parquet", columns))
    assert label_names(images) == ["a", "b", "a"]
    assert images.splits.tolist() == ["train", "train", "test"]
    assert images.notes == ("x: the column 'subset' is read as the split",)
    flagged = scan_images(write(tmp_path / "f.parquet", {**columns, "subset": ["x", "y", "z"], "is_test": [0, 0, 1]}))
    assert flagged.splits.tolist() == [""] * 3
    assert flagged.columns["subset"].tolist() == ["x", "y", "z"]
    named = scan_images(tmp_path / "f.parquet", label_column="breed", image_column="image", split_column="IS_TEST")
    assert named.splits.tolist() == ["train", "train", "test"]
    assert open_store(named.root).read(named.paths[0]).data == files[0]


def test_a_name_with_dots_is_a_field_of_structures(tmp_path: Path) -> None:
    columns = {"image": [png(0), png(1)], "label": [{"name": "a", "id": 1}, {"name": "b", "id": 2}]}
    assert label_names(scan_images(write(tmp_path / "x.parquet", columns), label_column="label.name")) == ["a", "b"]
    with pytest.raises(DatasetError, match=r"--label-column names 'label\.nam'; found the columns 'image', 'label'"):
        scan_images(tmp_path / "x.parquet", label_column="label.nam")


def test_one_hot_columns_of_rows_are_read_as_those_of_tables(tmp_path: Path) -> None:
    files = [png(0), png(1)]
    for yes, no in (("1", "0"), (1.0, 0.0), (1, -1), ("true", "false")):
        path = write(tmp_path / "x.parquet", {"image": files, "cat": [yes, no], "dog": [no, yes]})
        assert label_names(scan_images(path, label_columns=["cat", "dog"])) == ["cat", "dog"]
