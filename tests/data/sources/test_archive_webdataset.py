"""Shards of WebDataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from archives import make_shard, make_tar, make_zip
from listings import label_names

from featx.data.scan import scan_images
from featx.data.sources.webdataset import names_of_list, split_name
from featx.errors import DatasetError

Samples = dict[str, dict[str, Any]]


def samples(count: int, start: int = 0, **members: Any) -> Samples:
    """Samples with an image and the number of a class, and what else is named; {n} in a text is the sample's number."""
    return {f"{n:06}": {"jpg": f"image {n}".encode(), "cls": n % 2, **members} for n in range(start, start + count)}


def test_a_shard_has_an_image_and_a_label_for_each_sample(tmp_path: Path) -> None:
    images = scan_images(make_shard(tmp_path / "birds.tar", samples(4)))
    assert images.name == "birds"
    assert images.root == str(tmp_path / "birds.tar")
    assert images.paths.tolist() == [f"{n:06}.jpg" for n in range(4)]
    assert label_names(images) == ["0", "1", "0", "1"]
    assert images.splits.tolist() == [""] * 4
    assert images.notes == ("birds is read as samples of WebDataset: images .jpg; labels from .cls",)
    assert images.file(2).read().data == b"image 2"


@pytest.mark.parametrize(
    "data",
    ["shards", "shards/*.tar", "shards/{train,val}-{000..001}.tar", "shards/*-{000..001}.tar"],
)
def test_a_folder_a_pattern_and_braces_stand_for_the_same_shards(tmp_path: Path, data: str) -> None:
    for split, start in (("train", 0), ("val", 10)):
        for number in range(2):
            make_shard(tmp_path / f"shards/{split}-{number:03}.tar", samples(2, start + 2 * number))
    images = scan_images(str(tmp_path / data))
    assert images.name == "shards"
    assert images.paths.tolist()[::2] == [f"{s}-{n:03}.tar/{k:06}.jpg" for s, n, k in [("train", 0, 0), ("train", 1, 2), ("val", 0, 10), ("val", 1, 12)]]  # fmt: skip # noqa: E501
    assert images.splits.tolist() == ["train"] * 4 + ["val"] * 4
    assert (
        "shards has splits by the names of shards: train-000.tar is of the split train, val-000.tar is of the split val"
        in (images.notes)
    )
    assert images.file(5).name == str(tmp_path / "shards/val-000.tar/000011.jpg")


def test_folders_of_shards_are_splits_as_in_public_data_sets(tmp_path: Path) -> None:
    make_shard(tmp_path / "wds_cifar/train/0.tar", {"s0": {"webp": b"1", "cls": 1}, "s1": {"webp": b"2", "cls": 0}})
    make_shard(tmp_path / "wds_cifar/test/0.tar", {"s0": {"webp": b"3", "cls": 1}})
    (tmp_path / "wds_cifar/classnames.txt").write_text("airplane\nfire truck\n")
    (tmp_path / "wds_cifar/train/nshards.txt").write_text("1")
    images = scan_images(tmp_path / "wds_cifar")
    assert dict(zip(images.paths, label_names(images), strict=True)) == {
        "train/0.tar/s0.webp": "fire truck",
        "train/0.tar/s1.webp": "airplane",
        "test/0.tar/s0.webp": "fire truck",
    }
    assert images.splits.tolist() == ["test", "train", "train"]
    assert images.notes[0].endswith("labels from .cls, class names from classnames.txt")
    assert scan_images(tmp_path / "wds_cifar/train").classes == ("airplane", "fire truck")
    assert scan_images(tmp_path).classes == (
        "airplane",
        "fire truck",
    )  # the list lies between the folder and the shards


def test_a_pattern_of_one_split_is_split_by_content_as_a_folder_of_one_split_is(tmp_path: Path) -> None:
    for number in range(3):
        make_shard(tmp_path / f"train-{number:03}.tar", samples(2, 2 * number))
    images = scan_images(f"{tmp_path}/train-{{000..002}}.tar")
    assert set(images.splits) == {""}
    assert "is split by content: the pattern names shards of train alone" in images.notes[1]
    assert set(scan_images(tmp_path).splits) == {"train"}


def test_shards_of_a_split_beside_others_are_refused(tmp_path: Path) -> None:
    make_shard(tmp_path / "train-0.tar", samples(2))
    make_shard(tmp_path / "extra.tar", samples(2))
    with pytest.raises(
        DatasetError, match=r"has shards of train, and others whose names tell no split: extra\.tar\. Name"
    ):
        scan_images(tmp_path)


def test_shards_that_braces_spell_and_that_are_not_there_are_named(tmp_path: Path) -> None:
    make_shard(tmp_path / "shard-0.tar", samples(2))
    with pytest.raises(
        DatasetError,
        match=r"stands for 3 archives, of which 2 are not there: shard-1\.tar, shard-2\.tar\. A pattern with \* stands for",
    ):
        scan_images(f"{tmp_path}/shard-{{0..2}}.tar")


def test_names_are_split_at_the_first_dot_of_the_base_name(tmp_path: Path) -> None:
    assert split_name("v1.2/a.b.jpg") == ("v1.2/a", "b.jpg")
    shard = {"v1.2/x": {"image.png": b"1", "target.cls": "cat"}, "v1.3/x": {"image.png": b"2", "target.cls": "dog"}}
    images = scan_images(make_shard(tmp_path / "shard.tar", shard))
    assert images.paths.tolist() == ["v1.2/x.image.png", "v1.3/x.image.png"]
    assert images.classes == ("cat", "dog")


def test_of_several_images_one_is_taken_and_the_option_names_another(tmp_path: Path) -> None:
    path = make_shard(
        tmp_path / "pairs.tar", {f"{n}": {"seg.png": b"mask", "jpg": b"photo", "cls": n} for n in range(2)}
    )
    images = scan_images(path)
    assert images.paths.tolist() == ["0.jpg", "1.jpg"]
    assert images.notes[1] == (
        "pairs has samples of several images; 2 .seg.png are left out (--image-column seg.png reads those)"
    )
    assert scan_images(path, image_column="seg.png").paths.tolist() == ["0.seg.png", "1.seg.png"]
    with pytest.raises(DatasetError, match=r"no sample has an image \.left\.jpg; found \.jpg, \.seg\.png"):
        scan_images(path, image_column="left.jpg")


# Labels


@pytest.mark.parametrize(
    ("value", "expected", "where"),
    [
        ({"label": 3, "width": 5}, "3", "label in .json"),
        ({"label": 3, "label_name": "owl"}, "owl", "label_name in .json"),
        ({"cls": "owl"}, "owl", "cls in .json"),
        ({"labels": ["owl", "bird"]}, "bird|owl", "labels in .json"),
        ({"label": 2.0}, "2", "label in .json"),
        ({"label": 0.25}, "0.25", "label in .json"),
        ({"class_id": 7}, "7", "class_id in .json"),
    ],
)
def test_labels_in_json(tmp_path: Path, value: dict[str, Any], expected: str, where: str) -> None:
    images = scan_images(
        make_shard(tmp_path / "s.tar", {"0": {"jpg": b"1", "json": value}, "1": {"jpg": b"2", "json": value}})
    )
    assert set(label_names(images)) == {expected}
    assert images.notes[0] == f"s is read as samples of WebDataset: images .jpg; labels from {where}"


def test_numbers_get_the_names_that_stand_beside_them_in_json(tmp_path: Path) -> None:
    shard = {f"{n}": {"jpg": b"x", "cls": n % 2, "json": {"label_name": ["cat", "dog"][n % 2]}} for n in range(4)}
    images = scan_images(make_shard(tmp_path / "s.tar", shard))
    assert images.classes == ("cat", "dog")
    assert images.notes[0].endswith("labels from .cls, class names from label_name")
    assert images.columns == {}


def test_further_keys_become_columns_and_the_split_is_one_of_them(tmp_path: Path) -> None:
    shard = {
        f"{n}": {
            "jpg": b"x",
            "json": {"label": "a", "patient": f"p{n}", "fold": n, "box": [1, 2], "set": "train", "path": "/x"},
        }
        for n in range(3)
    }
    images = scan_images(make_shard(tmp_path / "s.tar", shard), split_column="set")
    assert {name: cells.tolist() for name, cells in images.columns.items()} == {
        "patient": ["p0", "p1", "p2"],
        "fold": ["0", "1", "2"],
        "json_path": ["/x"] * 3,
    }
    assert images.splits.tolist() == ["train"] * 3


def test_the_option_names_a_key_or_a_member_with_the_label(tmp_path: Path) -> None:
    path = make_shard(
        tmp_path / "s.tar",
        {
            f"{n}": {"jpg": b"x", "cls": 0, "txt": ["a cat", "a dog"][n], "json": {"species": ["lynx", "wolf"][n]}}
            for n in range(2)
        },
    )
    assert scan_images(path).classes == ("0",)
    assert scan_images(path, label_column="species").classes == ("lynx", "wolf")
    captions = scan_images(path, label_column="txt")
    assert captions.classes == ("a cat", "a dog")
    assert not any("without a label" in note for note in captions.notes)
    with pytest.raises(
        DatasetError, match=r"no sample has such a member or such a key in \.json; found .*\.txt.*species"
    ):
        scan_images(path, label_column="genus")


def test_captions_are_no_labels_and_pickles_are_never_opened(tmp_path: Path) -> None:
    shard = {
        f"{n}": {"jpg": b"x", "txt": "a caption", "pyd": b"\x80\x04.", "npy": b"n", "json": {"url": "u"}}
        for n in range(2)
    }
    images = scan_images(make_shard(tmp_path / "s.tar", shard))
    assert images.classes == ()
    assert images.notes == (
        "s is read as samples of WebDataset: images .jpg; no labels",
        "s has further members, which are left out: 2 .npy, 2 .pyd (pickled, never opened), 2 .txt (captions are no labels; "
        "--label-column txt reads them as such)",
    )


def test_samples_without_a_label_or_an_image_are_counted(tmp_path: Path) -> None:
    shard = {"0": {"jpg": b"x", "cls": 1}, "1": {"jpg": b"x", "cls": 0}, "2": {"jpg": b"x"}, "3": {"cls": 1}}
    images = scan_images(make_shard(tmp_path / "s.tar", shard))
    assert label_names(images) == ["1", "0", None]
    assert images.notes[1:] == ("s has 1 sample without an image, which is left out", "s has 1 sample without a label")


def test_a_label_that_is_none_is_one_line(tmp_path: Path) -> None:
    bad = make_shard(
        tmp_path / "s.tar", {"0": {"jpg": b"x", "json": {"label": {"a": 1}}}, "1": {"jpg": b"x", "json": {"label": 1}}}
    )
    with pytest.raises(
        DatasetError, match=r"0\.json: the label in 'label' holds the object .* --label-column names another"
    ):
        scan_images(bad)
    odd = make_shard(tmp_path / "t.tar", {"0": {"jpg": b"x", "cls": b"\xff\xfe"}, "1": {"jpg": b"x", "cls": b"1"}})
    with pytest.raises(DatasetError, match=r"0\.cls is no label: it holds bytes that are not UTF-8"):
        scan_images(odd)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("classnames.txt", "cat\nfire truck\n\n", ["cat", "fire truck"]),
        ("classes.txt", "﻿crane\r\ncrane\r\ncat", ["crane (0)", "crane (1)", "cat"]),
        ("classes.json", json.dumps(["cat", "dog"]), ["cat", "dog"]),
        ("class_to_idx.json", json.dumps({"dog": 1, "cat": 0}), ["cat", "dog"]),
        ("classes.json", json.dumps({"0": "cat", "1": "dog"}), ["cat", "dog"]),
        (
            "dataset_info.json",
            json.dumps({"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}),
            ["cat", "dog"],
        ),
        ("classes.json", json.dumps({"0": "cat", "7": "dog"}), []),
        ("classes.txt", "cat\n\ndog", []),
        ("classes.json", "{", []),
    ],
)
def test_lists_of_class_names(name: str, data: str, expected: list[str]) -> None:
    assert names_of_list(name, data.encode()) == expected


def test_a_list_that_is_too_short_is_not_used(tmp_path: Path) -> None:
    make_shard(tmp_path / "s/0.tar", {f"{n}": {"jpg": b"x", "cls": n} for n in range(3)})
    (tmp_path / "s/classes.txt").write_text("cat\ndog\n")
    assert scan_images(tmp_path / "s").classes == ("0", "1", "2")


# Shards or folders


def test_folders_of_classes_with_annotations_are_no_samples(tmp_path: Path) -> None:
    files = {
        f"{label}/{n}.{ending}": b"{}"
        for label in ("cat", "dog")
        for n in range(3)
        for ending in ("jpg", "json", "txt")
    }
    images = scan_images(make_tar(tmp_path / "labelme.tar", files))
    assert images.classes == ("cat", "dog")
    assert images.notes == ("labelme.tar: 12 left out (6 with the ending .json, 6 with the ending .txt)",)


def test_numbered_names_with_dots_are_no_samples(tmp_path: Path) -> None:
    files = {
        f"train/{label}.{n}.{ending}": b"{}" for label in ("cat", "dog") for n in range(9) for ending in ("jpg", "json")
    }
    images = scan_images(make_tar(tmp_path / "kaggle.tar", files))
    assert len(images) == 18


def test_samples_in_a_zip_are_read_too(tmp_path: Path) -> None:
    files = {f"{n}.{ending}": str(n % 2).encode() for n in range(4) for ending in ("jpg", "cls")}
    assert scan_images(make_zip(tmp_path / "s.zip", files)).classes == ("0", "1")


def test_splits_in_the_folders_of_samples_count(tmp_path: Path) -> None:
    shard = {f"{split}/{n}": {"jpg": b"x", "cls": n} for split in ("train", "test") for n in range(2)}
    images = scan_images(make_shard(tmp_path / "s.tar", shard))
    assert images.splits.tolist() == ["test", "test", "train", "train"]


def test_a_second_scan_takes_labels_and_columns_from_the_kept_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_shard(tmp_path / "s.tar", samples(4, json={"site": "north"}))
    first = scan_images(path)
    from featx.data.sources import archive_file, archive_store

    archive_store._archive.cache_clear()
    monkeypatch.setattr(archive_file, "list_tar", lambda *_: pytest.fail("the archive was listed again"))
    second = scan_images(path)
    assert second.labels.tolist() == first.labels.tolist()
    assert second.columns["site"].tolist() == ["north"] * 4
    assert second.notes == first.notes


def test_tables_about_the_shards_beside_them_do_not_matter(tmp_path: Path) -> None:
    make_shard(
        tmp_path / "img/00000.tar", {f"{n}": {"jpg": b"x", "txt": "a cat", "json": {"url": "u"}} for n in range(2)}
    )
    (tmp_path / "img/00000.parquet").write_bytes(b"PAR1 and so on")
    (tmp_path / "img/00000_stats.json").write_text("{}")
    assert scan_images(tmp_path / "img").paths.tolist() == ["00000.tar/0.jpg", "00000.tar/1.jpg"]


def test_labels_in_text_files_of_the_right_name_count(tmp_path: Path) -> None:
    shard = {f"{n}": {"jpg": b"x", "cls.txt": f"{['cat', 'dog'][n]}\n"} for n in range(2)}
    assert scan_images(make_shard(tmp_path / "s.tar", shard)).classes == ("cat", "dog")
