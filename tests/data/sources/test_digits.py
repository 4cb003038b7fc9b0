"""The built-in digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.data.file_bytes import image_key
from featx.data.image_set import PRETRAIN, ImageSet
from featx.data.scan import scan_images
from featx.data.splits import hash_splits
from featx.errors import DatasetError

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
    data = b"".join(image_key(digits.file(row).read().data) for row in rows)
    keys = np.frombuffer(data, np.uint8).reshape(-1, 16)
    np.testing.assert_array_equal(digits.splits[rows], hash_splits(keys, digits.labels[rows]))
    assert set(digits.splits[rows]) == {"train", "val", "test"}


def test_a_digit_decodes_to_the_pixels_of_its_scan(digits: ImageSet) -> None:
    from sklearn.datasets import load_digits

    scans = load_digits()
    for row in range(len(digits)):
        number = int(Path(digits.paths[row]).stem)
        with Image.open(digits.file(row).name) as image:
            pixels = np.asarray(image)
        np.testing.assert_allclose(pixels, scans.images[number] * (255 / 16), atol=0.5)
        assert digits.classes[digits.labels[row]] == str(scans.target[number])


def test_the_digits_are_written_once_and_with_the_same_bytes_everywhere(
    digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATX_HOME", str(tmp_path))
    again = scan_images("digits")
    assert again.root == str((tmp_path / "digits").resolve())
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]
    np.testing.assert_array_equal(again.paths, digits.paths)
    assert all(again.file(row).read().data == digits.file(row).read().data for row in range(len(digits)))
    before = Path(again.file(0).name).stat().st_mtime_ns
    assert Path(scan_images("digits").file(0).name).stat().st_mtime_ns == before


def test_digits_that_cannot_be_written_say_which_variable_moves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "file"))
    with pytest.raises(
        DatasetError, match=r"cannot write the built-in digits to .*; set FEATX_HOME to a writable folder"
    ):
        scan_images("digits")
