"""Keys and classes of an image set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listings import table, touch

from featx.data.file_bytes import image_key
from featx.data.scan import scan_images
from featx.errors import DatasetError


def test_a_single_class_is_noted(tmp_path: Path) -> None:
    (note,) = scan_images(touch(tmp_path, "cat/1.jpg")).notes
    assert note == "there is one class only, 'cat': features can be extracted, but a head needs two"


def test_classes_that_differ_by_case_are_kept_apart_and_noted(tmp_path: Path) -> None:
    rows = "path,label\n1.jpg,cat\n2.jpg,Cat\n3.jpg,dog\n"
    images = scan_images(table(tmp_path / "t.csv", rows, "1.jpg", "2.jpg", "3.jpg"))
    assert images.classes == ("Cat", "cat", "dog")
    assert images.notes == ("classes 'Cat' and 'cat' differ only by case; they remain separate classes",)


@pytest.mark.parametrize(
    ("one", "other"),
    [("caf\u00e9", "cafe\u0301"), ("polar bear", "polarbear"), ("a", "\uff21")],
    ids=["form", "spaces", "width"],
)
def test_classes_that_look_the_same_are_kept_apart_and_noted(tmp_path: Path, one: str, other: str) -> None:
    images = scan_images(table(tmp_path / "t.csv", f"path,label\n1.jpg,{one}\n2.jpg,{other}\n", "1.jpg", "2.jpg"))
    assert set(images.classes) == {one, other}
    (note,) = images.notes
    assert ascii(one) in note
    assert note.endswith("differ only by case, spaces or the form of Unicode; they remain separate classes")


def test_the_key_of_an_image_is_blake2b_of_its_bytes() -> None:
    assert image_key(b"").hex() == "cae66941d9efbd404e4d88758ea67670"
    assert image_key(b"a") != image_key(b"b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 2])}, r"labels are 0 to 2; expected indices of the 2 classes, or -1 for none"),
        ({"labels": np.array([0])}, "found 2 paths, 1 label and 2 splits"),
        ({"classes": ("a", "a\0")}, r"the class 'a\\x00' is empty or holds a null character"),
        ({"paths": np.array(["a\0", "a"], dtype=object)}, r"the path 'a\\x00' is empty or holds a null"),
        ({"classes": ("", "a")}, "the class '' is empty"),
    ],
)
def test_an_image_set_that_could_not_be_stored_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    images = scan_images(touch(tmp_path, "a/1.jpg", "b/1.jpg"))
    with pytest.raises(DatasetError, match=message):
        dataclasses.replace(images, **changes)
