"""Whatever stands for one image or several: files, folders, tables, patterns, and images in memory."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featx.data.decode import decode, read_pixels
from featx.data.inputs import image_inputs
from featx.data.loader import read_images
from featx.data.scan import scan_images
from featx.data.transform import Transform
from featx.errors import DatasetError, ImageError


def names(images: Any) -> list[str]:
    return [each.name for each in image_inputs(images)]


def pixels(image: Any) -> np.ndarray:
    """The pixels of one image, as they are read for a network."""
    (each,) = image_inputs(image)
    (loaded,) = read_images([(0, each.source)], lambda _, file: decode(file.data), workers=1)
    if loaded.pixels is None:
        raise ImageError(loaded.error)
    return loaded.pixels


def test_a_bare_path_is_one_image(photos: Path) -> None:
    file = photos / "dark" / "00.png"
    for given in (file, str(file), [file], (str(file),), iter([file])):
        assert names(given) == [str(file)]
    assert names("gone.jpg") == ["gone.jpg"], "that there is none is said when it is read"


def test_a_folder_a_table_a_pattern_and_an_image_set_stand_for_their_images(photos: Path, in_tmp: Path) -> None:
    dark = [str(photos / "dark" / f"{n:02}.png") for n in range(20)]
    assert names(photos / "dark") == names([str(photos / "dark")]) == dark
    assert names(str(photos / "dark" / "0[13].png")) == [dark[1], dark[3]]
    (photos / "t.csv").write_text("path,note\ndark/03.png,x\ngone.png,y\ndark/03.png,z\n")
    assert names(photos / "t.csv") == [dark[3], str(photos / "gone.png"), dark[3]]
    assert names(scan_images(photos))[:20] == dark
    assert names(np.array(dark[:2], dtype=object)) == dark[:2]
    assert len(names("digits")) == 1797


def test_a_file_whose_name_looks_like_a_pattern_is_itself(in_tmp: Path, make_image: Callable[..., Path]) -> None:
    make_image(in_tmp / "a[1].png", seed=1)
    make_image(in_tmp / "a1.png", seed=2)
    assert names("a[1].png") == ["a[1].png"]
    with pytest.raises(DatasetError, match=r"no file matches new/\*\.jpg"):
        names("new/*.jpg")


def test_an_image_in_memory_has_the_pixels_of_its_file(in_tmp: Path, make_image: Callable[..., Path]) -> None:
    file = make_image(in_tmp / "a.png", seed=1)
    data, expected = file.read_bytes(), decode(file.read_bytes())
    for given in (Image.open(file), data, bytearray(data), io.BytesIO(data), expected, file.open("rb"), [expected]):
        np.testing.assert_array_equal(pixels(given), expected)
    assert names([expected, file, Image.open(file), expected]) == ["image 0", str(file), str(file), "image 3"]
    assert names(np.stack([expected, expected])) == ["image 0", "image 1"]


def test_an_array_is_read_by_the_rules_of_a_file_of_arrays() -> None:
    levels = np.arange(180, dtype=np.uint8).reshape(12, 5, 3)
    np.testing.assert_array_equal(pixels(levels / 255), levels)
    np.testing.assert_array_equal(pixels((levels / 255).astype(np.float16)[::-1]), levels[::-1])
    np.testing.assert_array_equal(pixels(levels.astype(np.uint16) * 257), levels)
    with pytest.raises(ImageError, match=r"values from 0 to 179; expected 0 to 1 .*--value-range 0-255 would fit"):
        pixels(levels.astype(np.float32))
    with pytest.raises(ImageError, match="5 bands; expected 1 or 3"):
        pixels(levels.transpose(0, 2, 1))
    five = Transform(resize=0, crop=4, channels=5, mean=(0.5,) * 5, std=(0.5,) * 5)
    (read,) = [item.source for item in image_inputs(np.full((8, 8, 5), (9, 8, 7, 6, 5), np.uint8))]
    assert callable(read)
    assert read_pixels(read(), five)[:, 0, 0].tolist() == [9, 8, 7, 6, 5]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "I;16", "HSV"])
def test_every_mode_of_pillow_is_read_as_it_is_converted(mode: str) -> None:
    rng = np.random.default_rng(0)
    opaque = np.dstack([rng.integers(0, 256, (8, 6, 3)), np.full((8, 6), 255)]).astype(np.uint8)
    if mode == "I;16":
        values = rng.integers(0, 65536, (8, 6)).astype(np.uint16)
        expected = np.rint(values / 257).astype(np.uint8)[..., None].repeat(3, axis=2)
        np.testing.assert_array_equal(pixels(Image.fromarray(values)), expected)
        return
    image = Image.fromarray(opaque)
    image = (
        image.convert("LA").convert(mode)
        if mode == "PA"
        else (image if "A" in mode.upper() else image.convert("RGB")).convert(mode)
    )
    expected = np.asarray(image.convert("RGBA").convert("RGB") if mode in ("RGBa", "PA") else image.convert("RGB"))
    np.testing.assert_array_equal(pixels(image), expected)


def test_exif_orientation_and_transparency_of_an_image_of_pillow_count_as_those_of_a_file(in_tmp: Path) -> None:
    image = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(5, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save("turned.png", exif=exif)
    expected = decode(Path("turned.png").read_bytes())
    assert expected.shape == (4, 5, 3)
    np.testing.assert_array_equal(pixels(Image.open("turned.png")), expected)
    clear = Image.fromarray(np.zeros((2, 2, 4), np.uint8))
    assert (pixels(clear) == 255).all()


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (None, r"the images are None; expected an image file"),
        (3.5, r"the images are a float, 3\.5"),
        ({"a": "x.jpg"}, r"the images are a dict, {'a': 'x.jpg'}"),
        ([None], r"image 0 is None"),
        (["a.jpg", 7], r"image 1 is an int, 7"),
        (np.zeros((4, 4, 3), complex), r"dtype complex128 is no image; expected integers or floats"),
        (np.zeros((3, 40, 40), np.uint8), r"has its channels first; expected \(H, W, 3\)"),
        (np.zeros((5, 40, 40), np.float32), r"has its channels first; expected \(H, W, C\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\) and dtype uint8 is no image"),
        ([np.zeros(4, np.uint8)], r"shape \(4,\) and dtype uint8 is no image"),
        (io.StringIO("a.jpg"), r"is a text file; open images with the mode 'rb'"),
    ],
)
def test_what_is_no_image_is_refused_by_name(images: Any, found: str) -> None:
    with pytest.raises(DatasetError, match=found):
        names(images)


def test_a_damaged_image_of_pillow_fails_as_its_file_does(in_tmp: Path, make_image: Callable[..., Path]) -> None:
    file = make_image(in_tmp / "a.png", seed=1)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ImageError, match="cannot be decoded"):
        pixels(Image.open(file))


def test_a_table_without_the_column_path_names_the_columns(in_tmp: Path) -> None:
    Path("t.csv").write_text("where,label\na.jpg,x\n")
    with pytest.raises(DatasetError, match=r"t\.csv: there is no column path; found 'where', 'label'"):
        names("t.csv")
    Path("t.csv").write_text("path\n")
    with pytest.raises(DatasetError, match=r"t\.csv has no rows"):
        names("t.csv")


def test_where_the_system_cannot_tell_what_is_there_one_input_fails_with_the_reason(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.stat

    def stat(path: Path, **kwargs: Any) -> os.stat_result:
        if path == photos / "dark":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return original(path, **kwargs)

    monkeypatch.setattr(Path, "stat", stat)
    (lost, *others) = image_inputs([photos / "dark", photos / "light"])
    assert len(others) == len(list((photos / "light").iterdir()))
    assert lost.name == str(photos / "dark")
    with pytest.raises(ImageError, match="cannot be read: Input/output error"):
        pixels(photos / "dark")
