"""Parts of images as images of their own."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.backbones.backbone import load_backbone
from featx.data.boxes import split_box, with_box
from featx.data.decode import read_views, thumbnail
from featx.data.file_bytes import image_key
from featx.data.image_set import ImageSet
from featx.data.scan import scan_images
from featx.data.transform import Transform
from featx.errors import ImageError
from featx.extraction.pipeline import extract
from featx.features.feature_set import FeatureSet
from featx.layer_spec import VIEWS

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def png(pixels: np.ndarray, *, orientation: int | None = None) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.jpg#xywh=1,2,3", "a.jpg#xywh=1,2,3,-4", "a.jpg#xywh=1,2,3,4.jpg", "a#b.jpg", ""])
def test_other_names_have_no_box(name: str) -> None:
    assert split_box(name) == (name, None)


def test_a_box_is_cut_out_of_the_upright_image_before_it_is_resized() -> None:
    transform, box = Transform(resize=20, crop=16), (10, 20, 30, 25)
    part = PICTURE[20:45, 10:40]
    found = read_views(png(PICTURE), transform, VIEWS["flip"], box=box)
    np.testing.assert_array_equal(found, read_views(png(part), transform, VIEWS["flip"]))
    turned = read_views(png(np.rot90(PICTURE).copy(), orientation=6), transform, VIEWS["flip"], box=box)
    np.testing.assert_array_equal(turned, found)


def test_a_box_that_reaches_beyond_the_image_is_cut_off_and_one_outside_fails() -> None:
    transform = Transform(resize=0, crop=16)
    found = read_views(png(PICTURE), transform, VIEWS["plain"], box=(70, 50, 500, 500))
    np.testing.assert_array_equal(found, read_views(png(PICTURE[50:, 70:]), transform, VIEWS["plain"]))
    with pytest.raises(ImageError, match=r"^the box 80,0,5,5 lies outside the image, which has 80 x 60 pixels$"):
        read_views(png(PICTURE), transform, VIEWS["plain"], box=(80, 0, 5, 5))


def test_a_thumbnail_of_a_box_shows_the_box() -> None:
    with Image.open(io.BytesIO(thumbnail(png(PICTURE), 30, box=(0, 0, 30, 15)))) as image:
        assert image.size == (30, 15)


def boxed(photos: Path, *boxes: tuple[int, int, int, int]) -> ImageSet:
    """Boxes of one photo, and the whole of it."""
    images = scan_images([photos / "dark/00.png"])
    paths = np.array(sorted(["00.png", *(with_box("00.png", box) for box in boxes)]), dtype=object)
    count = len(paths)
    return dataclasses.replace(
        images, paths=paths, labels=np.full(count, -1), splits=np.array(["train"] * count, dtype=object)
    )


def test_boxes_of_one_image_are_rows_of_their_own_and_are_known_again(photos: Path, tmp_path: Path) -> None:
    lenet, boxes = load_backbone("lenet5", device="cpu"), ((0, 0, 16, 16), (8, 8, 20, 20))
    images = boxed(photos, *boxes)
    result = extract(images, lenet, cache=tmp_path / "cache")
    assert (result.images, result.computed, result.failed) == (3, 3, 0)
    features = FeatureSet.load(result.file)
    data = (photos / "dark/00.png").read_bytes()
    assert [bytes(key) for key in features.keys] == [image_key(data, split_box(path)[1]) for path in features.paths]
    assert len({bytes(key) for key in features.keys}) == 3
    with Image.open(io.BytesIO(data)) as image:
        part = np.asarray(image.convert("RGB"))[8:28, 8:28]
    row = features.paths.tolist().index(with_box("00.png", boxes[1]))
    np.testing.assert_allclose(features.features[row], lenet.embed(part)[0], atol=1e-5)
    assert extract(images, lenet, cache=tmp_path / "cache").computed == 0
    moved = tmp_path / "moved" / "dark"
    moved.mkdir(parents=True)
    (moved / "00.png").write_bytes(data)
    assert extract(boxed(tmp_path / "moved", *boxes), lenet, cache=tmp_path / "cache").computed == 0
