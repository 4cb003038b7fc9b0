"""What one look at an image tells: its facts, and a small copy."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from odd_images import photograph
from PIL import Image, ImageFilter

from featx.data.decode import decode
from featx.data.pixel_facts import SIDE, look_at
from featx.data.transform import Transform
from featx.errors import ImageError

IMAGES = sorted(
    path
    for path in (Path(__file__).parent.parent / "images").rglob("*")
    if path.is_file() and path.suffix not in (".py", ".md", ".json")
)


def file_of(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_whatever_can_be_decoded_can_be_looked_at_and_nothing_else(path: Path) -> None:
    data = path.read_bytes()
    try:
        height, width = decode(data).shape[:2]
    except ImageError:
        with pytest.raises(ImageError, match=r"\w"):
            look_at(data, thumbnail=True)
        return
    seen = look_at(data, thumbnail=True)
    assert (seen.facts["width"], seen.facts["height"], seen.facts["bytes"]) == (width, height, len(data))
    assert all(np.isfinite(float(seen.facts[name])) for name in seen.facts.dtype.names)
    small = Image.open(io.BytesIO(seen.thumbnail))
    assert small.format == "JPEG"
    assert max(small.size) == min(SIDE, max(width, height))


def test_a_turned_jpeg_has_the_size_and_the_thumbnail_of_the_upright_image() -> None:
    image = photograph(1, (640, 320))
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = look_at(file_of(image, "JPEG", exif=exif), thumbnail=True)
    assert (seen.facts["width"], seen.facts["height"]) == (320, 640)
    assert Image.open(io.BytesIO(seen.thumbnail)).size == (SIDE // 2, SIDE)


def test_transparent_pixels_have_the_colour_of_the_background() -> None:
    image = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    on_white, on_black = (look_at(file_of(image), Transform(background=(c, c, c))).facts for c in (255, 0))
    assert (on_white["bright_5"], on_black["bright_99"]) == pytest.approx((1, 0))


def test_grey_is_a_matter_of_pixels_and_not_of_files() -> None:
    grey = photograph(2).convert("L")
    for image in (grey, grey.convert("RGB"), grey.convert("RGBA")):
        facts = look_at(file_of(image)).facts
        assert facts["grey"] == 1
        assert facts["entropy"] == pytest.approx(look_at(file_of(grey)).facts["entropy"])
    assert look_at(file_of(photograph(2))).facts["grey"] == 0


def test_sixteen_bits_look_like_eight() -> None:
    grey = np.asarray(photograph(3).convert("L"))
    deep = look_at(file_of(Image.fromarray(grey.astype(np.uint16) * 257))).facts
    plain = look_at(file_of(Image.fromarray(grey))).facts
    for name in ("bright_5", "bright_99", "entropy", "contrast", "sharpness"):
        assert deep[name] == pytest.approx(plain[name], rel=0.02)


def test_sharpness_falls_with_blur_and_not_with_contrast() -> None:
    image = photograph(4, (512, 384))
    sharp = look_at(file_of(image)).facts["sharpness"]
    blurred = [look_at(file_of(image.filter(ImageFilter.GaussianBlur(s)))).facts["sharpness"] for s in (1, 2, 4)]
    assert sharp > blurred[0] > blurred[1] > blurred[2]
    dim = look_at(file_of(image.point(lambda level: level // 2 + 60))).facts["sharpness"]
    assert dim == pytest.approx(sharp, rel=0.1)


def test_motion_in_one_direction_is_a_blur_and_stripes_are_not() -> None:
    rows = np.asarray(photograph(5, (512, 384)), dtype=np.float32)
    moved = np.mean([np.roll(rows, shift, axis=1) for shift in range(12)], axis=0)
    assert look_at(file_of(Image.fromarray(moved.astype(np.uint8)))).facts["sharpness"] < 0.42
    stripes = np.repeat(np.random.default_rng(0).integers(0, 256, (384, 1), dtype=np.uint8), 512, axis=1)
    assert look_at(file_of(Image.fromarray(stripes))).facts["sharpness"] > 0.42


def test_thumbnails_carry_nothing_of_the_metadata() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    data = file_of(photograph(6), "JPEG", exif=exif, comment=b"a secret place")
    assert b"secret" in data
    assert b"secret" not in look_at(data, thumbnail=True).thumbnail


def test_an_image_of_too_many_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="at most 1,000 are read"):
        look_at(file_of(photograph(7)), max_pixels=1000)
