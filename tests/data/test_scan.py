"""What ``scan_images`` takes, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listings import MakeImage, touch

from featx.data.scan import scan_images
from featx.errors import DatasetError


def test_a_source_that_is_not_there_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"there is no .*nowhere; expected a folder of images, a table .* or 'digits'"
    ):
        scan_images(tmp_path / "nowhere")


def test_a_file_of_another_kind_is_no_data_set(tmp_path: Path) -> None:
    touch(tmp_path, "1.xyz")
    with pytest.raises(
        DatasetError, match=r"1\.xyz is an empty file; expected a folder of images, .*a table \(\.csv.* or 'digits'"
    ):
        scan_images(tmp_path / "1.xyz")


def test_a_folder_named_digits_is_reached_by_a_path(in_tmp: Path, make_image: MakeImage) -> None:
    make_image(in_tmp / "digits" / "one" / "1.png", seed=0)
    make_image(in_tmp / "digits" / "two" / "1.png", seed=1)
    assert scan_images("./digits").classes == ("one", "two")
    shutil.rmtree(in_tmp / "digits")
    with pytest.raises(DatasetError, match="there is no digits"):
        scan_images("./digits")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("", "an empty path"),
        ([[], "b.jpg"], "a list, "),
        ([], "an empty list"),
        (None, "None"),
        (b"photos", "a bytes, b'photos'"),
    ],
)
def test_what_is_no_path_is_an_error(source: Any, found: str) -> None:
    with pytest.raises(
        DatasetError, match=rf"found {found}.*; expected the path of a folder, of a table or of an image"
    ):
        scan_images(source)


def test_a_path_that_no_system_can_open_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot read 'xxx.*': File name too long"):
        scan_images("x" * 5000)


# Real images


@pytest.mark.real
def test_hymenoptera_has_the_images_that_torchvision_counts_and_a_gif(hymenoptera: Path) -> None:
    images = scan_images(hymenoptera)
    assert images.classes == ("ants", "bees")
    assert {split: int(np.sum(images.splits == split)) for split in ("train", "val")} == {"train": 245, "val": 153}
    assert images.notes == ()
