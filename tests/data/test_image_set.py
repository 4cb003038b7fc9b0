"""Keys and classes of an image set."""

from __future__ import annotations

from pathlib import Path

from listings import table, touch

from featx.data.image_set import image_key
from featx.data.scan import scan_images


def test_a_single_class_is_noted(tmp_path: Path) -> None:
    (note,) = scan_images(touch(tmp_path, "cat/1.jpg")).notes
    assert note == "there is one class only, 'cat': features can be extracted, but a head needs two"


def test_classes_that_differ_by_case_are_kept_apart_and_noted(tmp_path: Path) -> None:
    rows = "path,label\n1.jpg,cat\n2.jpg,Cat\n3.jpg,dog\n"
    images = scan_images(table(tmp_path / "t.csv", rows, "1.jpg", "2.jpg", "3.jpg"))
    assert images.classes == ("Cat", "cat", "dog")
    assert images.notes == ("classes 'Cat' and 'cat' differ only by case; they remain separate classes",)


def test_the_key_of_an_image_is_blake2b_of_its_bytes() -> None:
    assert image_key(b"").hex() == "cae66941d9efbd404e4d88758ea67670"
    assert image_key(b"a") != image_key(b"b")
