"""Folders as image sets."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from listings import label_names, touch

from featx.data.formats import ENDINGS
from featx.data.image_set import UNLABELLED
from featx.data.scan import scan_images
from featx.data.sources.folder import list_images
from featx.errors import DatasetError

# Folders


def test_a_folder_of_classes_has_labels_and_splits_that_are_yet_to_be_decided(tmp_path: Path) -> None:
    images = scan_images(touch(tmp_path / "pets", "dog/2.jpg", "cat/1.jpg", "cat/deep/3.PNG"))
    assert images.name == "pets"
    assert images.root == str((tmp_path / "pets").resolve())
    assert images.paths.tolist() == ["cat/1.jpg", "cat/deep/3.PNG", "dog/2.jpg"]
    assert images.classes == ("cat", "dog")
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [0, 0, 1]
    assert images.splits.tolist() == ["", "", ""]
    assert images.notes == ()
    assert len(images) == 3
    assert images.file(1).name == f"{images.root}/cat/deep/3.PNG"


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
    assert images.notes == (f"{tmp_path.name}: train is read as a class, not as a split, because bus is not a split",)
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
        touch(tmp_path / "pets", "cat/1.jpg", "dog/1.jpg", "dog/1.psd", "dog/a.txt", "b.txt", "README")
    )
    assert len(images) == 2
    assert images.notes == (
        "pets: 4 left out (1 with the ending (none), 1 with the ending .psd, 2 with the ending .txt)",
    )


def test_every_ending_that_torchvision_counts_is_an_image(tmp_path: Path) -> None:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    touch(tmp_path, *(f"{number}{ending}" for number, ending in enumerate(IMG_EXTENSIONS)))
    assert len(scan_images(tmp_path)) == len(IMG_EXTENSIONS)


def test_a_file_of_every_ending_that_can_be_decoded_is_an_image(tmp_path: Path) -> None:
    touch(tmp_path, *(f"a/{number}{ending.upper()}" for number, ending in enumerate(ENDINGS)))
    assert len(scan_images(tmp_path)) == len(list_images(tmp_path)) == len(ENDINGS) - 1, "all but .npy, beside images"
    assert {".gif", ".jfif", ".jpe", ".avif", ".jp2", ".j2k", ".mpo", ".pnm", ".heic", ".hif", ".jxl", ".dcm"} < set(
        ENDINGS
    )


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
    assert images.file(1).exists()


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


def test_a_class_that_is_in_val_alone_is_noted(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "val/emu/7.jpg", "test/emu/8.jpg")
    images = scan_images(tmp_path)
    assert images.classes == ("cat", "dog", "emu")
    assert images.notes == (
        "class 'emu' has no images in train but 1 in val and 1 in test (such as test/emu/8.jpg): features can be extracted, "
        "but a head can be fitted only if train has images of the class, or if those are removed",
    )


def test_a_class_like_folder_beside_folders_of_splits_is_an_error(
    tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    for place in ("train/a", "val/a", "samples"):
        make_image(tmp_path / place / "0.png", seed=1)
    with pytest.raises(DatasetError, match=r"folders of splits and beside them samples, which holds images too"):
        scan_images(tmp_path)


def test_a_set_without_train_images_may_hold_any_class(tmp_path: Path) -> None:
    assert scan_images(touch(tmp_path, "test/cat/1.jpg", "val/dog/1.jpg")).classes == ("cat", "dog")


def test_a_folder_without_images_says_what_it_holds_instead(tmp_path: Path) -> None:
    touch(tmp_path, "a.psd", "b/c.psd")
    with pytest.raises(
        DatasetError, match=r"no images in .*; 2 left out \(2 with the ending \.psd\) \(images end in \.jpg"
    ):
        scan_images(tmp_path)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no images in .*; it is empty"):
        scan_images(tmp_path)


def test_listing_a_folder_gives_its_images_sorted_without_the_hidden_ones(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a/2.jpg", "a/notes.txt", ".hidden/1.jpg", ".3.jpg")
    names = [image.name for image in list_images(tmp_path)]
    assert names == [str(tmp_path / "a" / "2.jpg"), str(tmp_path / "b.jpg")]


def test_listing_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no images in .*; it is empty"):
        list_images(tmp_path)


def test_a_table_beside_images_without_labels_is_pointed_at(tmp_path: Path) -> None:
    touch(tmp_path / "pets", "1.jpg", "2.jpg", "metadata.csv", ".hidden.csv")
    assert scan_images(tmp_path / "pets").notes[-1] == (
        "pets: the images have no labels. If metadata.csv has them, name the table instead of the folder: "
        f"{tmp_path}/pets/metadata.csv"
    )
    touch(tmp_path / "birds", "train/1.jpg", "train/_classes.csv", "valid/2.jpg", "valid/_classes.csv")
    note = scan_images(tmp_path / "birds").notes[-1]
    assert (
        f"such as train/_classes.csv, valid/_classes.csv, are one data set by the name '{tmp_path}/birds/*/_classes.csv'"
        in note
    )
    touch(tmp_path / "both", "cat/1.jpg", "dog/2.jpg", "metadata.csv")
    assert not any("no labels" in note for note in scan_images(tmp_path / "both").notes)


DICOM = b"\0" * 128 + b"DICM"


def test_files_without_an_ending_are_images_by_their_content_where_no_name_is_that_of_an_image(tmp_path: Path) -> None:
    files = {
        "p1/IM0001": DICOM,
        "p1/1.2.840.113619.2.5": DICOM,
        "p2/photo": b"\xff\xd8\xff\xe0",
        "p2/raw.cr2": b"II*\0",
        "p2/README": b"BM is short for",
        "p2/notes.txt": b"text",
        "DICOMDIR": DICOM,
    }
    for name, content in files.items():
        (tmp_path / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scans" / name).write_bytes(content)
    os.mkfifo(tmp_path / "scans" / "p1" / "pipe")
    images = scan_images(tmp_path / "scans")
    assert images.paths.tolist() == ["p1/1.2.840.113619.2.5", "p1/IM0001", "p2/photo"]
    assert images.classes == ("p1", "p2")
    assert (
        "scans: 3 files without the ending of an image taken for images by their content: 2 DICOM, 1 JPEG"
        in images.notes
    )
    assert (
        "scans: 5 left out (3 with the ending (none), 1 with the ending .cr2, 1 with the ending .txt)" in images.notes
    )

    (tmp_path / "scans" / "p1" / "preview.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert scan_images(tmp_path / "scans").paths.tolist() == ["p1/preview.jpg"]


def test_a_folder_of_other_files_is_not_read_to_its_end_in_search_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr("featx.data.sources.folder._begin", lambda file: opened.append(file) or b"text")
    for number in range(150):
        (tmp_path / f"{number}.log").touch()
    with pytest.raises(DatasetError, match=r"no images in .*; 150 left out \(150 with the ending \.log\)"):
        scan_images(tmp_path)
    assert len(opened) < 150


@pytest.mark.parametrize(("folder", "ending"), [("labels/", ".txt"), ("", ".xml"), ("", ".json")])
def test_annotations_of_single_images_are_noted_with_the_remedy(tmp_path: Path, folder: str, ending: str) -> None:
    images = "images/" if folder else ""
    touch(
        tmp_path / "yolo", *(f"{images}{row}.jpg" for row in range(3)), *(f"{folder}{row}{ending}" for row in range(3))
    )
    note = scan_images(tmp_path / "yolo").notes[-1]
    assert (
        f"3 files such as {folder}0{ending} have the names of images; annotations of single images are not read" in note
    )


def test_classes_that_may_be_ids_are_noted(tmp_path: Path) -> None:
    touch(tmp_path / "scans", *(f"patient{row:02d}/1.jpg" for row in range(12)))
    assert (
        "there are 12 classes in 12 images, such as 'patient00' and 'patient01'. If those are ids"
        in scan_images(tmp_path / "scans").notes[-1]
    )
    touch(tmp_path / "pets", *(f"breed{row % 12:02d}/{row}.jpg" for row in range(24)))
    assert not scan_images(tmp_path / "pets").notes
    touch(tmp_path / "ages", *(f"{row}/1.jpg" for row in range(12)))
    assert not scan_images(tmp_path / "ages").notes
