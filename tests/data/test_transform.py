"""Resizing, cropping and views against torchvision and Pillow."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from images.make import CASES, FOLDER, UPRIGHT
from pictures import NATIVE, SIZES, by_torchvision, difference, file_of, noise, smooth
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision_steps

from featx.data.augment import read_augmented
from featx.data.decode import decode, read_pixels, read_views
from featx.data.transform import Transform
from featx.errors import ImageError
from featx.layer_spec import VIEWS


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_pixels_are_those_of_torchvisions_preset_to_the_bit(size: tuple[int, int], interpolation: str) -> None:
    pixels = noise(*size)
    data = file_of(pixels)
    for resize, crop in ((256, 224), (232, 224), (96, 96), (235, 240), (59, 100), (300, 33), (2, 1), (0, 64), (0, 700)):
        ours = read_pixels(data, Transform(resize=resize, crop=crop, interpolation=interpolation))
        assert ours.dtype == np.uint8
        assert ours.shape == (3, crop, crop)
        assert ours.flags.c_contiguous
        theirs = by_torchvision(pixels, resize, crop, interpolation)
        assert difference(ours, theirs).max() <= (0 if NATIVE or interpolation != "bilinear" else 1), (resize, crop)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pixels_of_any_orientation_are_torchvisions_of_the_upright_image(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(smooth(130, 75), kind, exif=exif)
    upright = UPRIGHT[orientation](np.asarray(Image.open(io.BytesIO(data))))
    ours = read_pixels(data, Transform(resize=64, crop=56, interpolation="bicubic"))
    np.testing.assert_array_equal(ours, by_torchvision(upright, 64, 56, "bicubic"))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not isinstance(case.expected, str)])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_every_format_goes_through_the_one_resizer(name: str) -> None:
    data = (FOLDER / name).read_bytes()
    ours = read_pixels(data, Transform(resize=20, crop=18, interpolation="bicubic"))
    longest = 8 * min(decode(data).shape[:2])
    top, left = (max(0, length - longest) // 2 for length in decode(data).shape[:2])
    kept = decode(data)[top : top + longest, left : left + longest]
    np.testing.assert_array_equal(ours, by_torchvision(kept, 20, 18, "bicubic"))


def test_nearest_takes_the_pixels_that_pillow_takes() -> None:
    pixels = noise(500, 375)
    ours = read_pixels(file_of(pixels), Transform(resize=0, crop=224, interpolation="nearest"))
    expected = np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.NEAREST)).transpose(2, 0, 1)
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_pillows_filter_to_within_a_rounding(size: tuple[int, int]) -> None:
    ours = read_pixels(file_of(smooth(*size)), Transform(resize=0, crop=224))
    resized = Image.fromarray(smooth(*size)).resize((224, 224), Image.Resampling.BILINEAR)
    assert difference(ours, np.asarray(resized).transpose(2, 0, 1)).max() <= 1


@pytest.mark.parametrize("size", [(60, 200), (200, 60), (60, 60), (61, 75)])
def test_what_an_image_lacks_to_the_crop_is_padded_with_black(size: tuple[int, int]) -> None:
    ours = read_pixels(file_of(noise(*size) // 2 + 100), Transform(resize=59, crop=100))
    inside = ours.any(axis=(0, 1)).sum(), ours.any(axis=(0, 2)).sum()
    assert (ours[:, :, 0] == 0).all() or (ours[:, 0] == 0).all()
    assert inside == tuple(min(100, int(59 * length / min(size))) for length in size)


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    pixels = noise(64, 64)
    np.testing.assert_array_equal(
        read_pixels(file_of(pixels), Transform(resize=64, crop=64)), pixels.transpose(2, 0, 1)
    )
    inner = pixels[16:48, 16:48].transpose(2, 0, 1)
    np.testing.assert_array_equal(read_pixels(file_of(pixels), Transform(resize=64, crop=32)), inner)


def test_a_resize_of_0_squashes_the_whole_image_into_the_crop() -> None:
    pixels = noise(90, 50)
    ours = read_pixels(file_of(pixels), Transform(resize=0, crop=32))
    expected = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert difference(ours, expected).max() <= 1


@pytest.mark.parametrize(
    ("resize", "crop", "times"), [(64, 64, 8), (256, 224, 8), (10, 100, 11), (10, 71, 9), (1, 30, 31)]
)
@pytest.mark.parametrize("turn", [lambda a: a, lambda a: a.swapaxes(0, 1)])
def test_the_ends_of_a_line_of_an_image_are_cut_off_before_it_is_resized(
    resize: int, crop: int, times: int, turn: Callable[[np.ndarray], np.ndarray]
) -> None:
    for length in (3 * times - 1, 3 * times, 3 * times + 1, 3 * times + 100, 5000):
        pixels = noise(length, 3)
        ours = read_pixels(file_of(turn(pixels)), Transform(resize=resize, crop=crop))
        first = max(0, length - 3 * times) // 2
        kept = pixels[:, first : first + 3 * times]
        expected = by_torchvision(turn(kept), resize, crop, "bilinear")
        assert difference(ours, expected).max() <= (0 if NATIVE else 1)


def test_nothing_is_cut_off_a_line_that_is_squashed() -> None:
    pixels = noise(5000, 3)
    ours = read_pixels(file_of(pixels), Transform(resize=0, crop=32))
    assert difference(ours, by_torchvision(pixels, 0, 32, "bilinear")).max() <= (0 if NATIVE else 1)


@pytest.mark.parametrize(
    "read", [read_pixels, lambda data, t: read_augmented(data, t, np.random.default_rng(0), scale=0.3)]
)
def test_reading_what_cannot_be_decoded_is_an_image_error(read: Callable[[bytes, Transform], np.ndarray]) -> None:
    with pytest.raises(ImageError, match="not an image of a known format"):
        read(b"no image at all", Transform())


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_a_line_of_an_image_is_read_quickly_and_with_little_memory(size: tuple[int, int]) -> None:
    code = f"""
import io, resource, time
import numpy as np, torch
from PIL import Image
from featx.data.transform import Transform
from featx.data.augment import read_augmented
from featx.data.decode import read_pixels
buffer = io.BytesIO()
Image.new("RGB", {size}, "red").save(buffer, "PNG")
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
pixels = read_pixels(buffer.getvalue(), Transform())
cut = read_augmented(buffer.getvalue(), Transform(), np.random.default_rng(0), scale=0.3)
assert pixels.shape == cut.shape == (3, 224, 224)
assert (pixels[0] == 255).all() and (cut[0] == 255).all() and not pixels[1:].any()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.perf_counter() - start)
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(out[0]) * unit < 100e6
    assert float(out[1]) < 5


# Views


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (261, 204), (204, 261), (224, 224)])
def test_ten_crops_are_torchvisions_each_of_the_five_and_mirrored(size: tuple[int, int]) -> None:
    data, transform = file_of(noise(*size)), Transform(resize=64, crop=56, interpolation="bicubic")
    tensor = torch.from_numpy(decode(data)).permute(2, 0, 1)
    mode = InterpolationMode.BICUBIC
    resized = torchvision_steps.resize(tensor, [64], interpolation=mode, antialias=True)
    *corners, centre = torchvision_steps.five_crop(resized, [56])
    found = dict(zip(VIEWS["10crop"], read_views(data, transform, VIEWS["10crop"]), strict=True))
    named = {view.name: pixels for view, pixels in found.items()}
    for name, wanted in zip(
        ("", "top-left", "top-right", "bottom-left", "bottom-right"), (centre, *corners), strict=True
    ):
        np.testing.assert_array_equal(named[name], wanted, err_msg=name)
        mirrored = named[f"{name}-mirrored" if name else "mirrored"]
        np.testing.assert_array_equal(mirrored, torchvision_steps.horizontal_flip(wanted), err_msg=name)


@pytest.mark.parametrize(("resize", "crop"), [(64, 56), (59, 100), (0, 40), (2, 1)])
@pytest.mark.parametrize("size", [(130, 75), (31, 64), (20, 400)])
def test_plain_is_what_one_view_gives_and_mirrored_is_its_mirror_image(
    size: tuple[int, int], resize: int, crop: int
) -> None:
    data, transform = file_of(noise(*size)), Transform(resize=resize, crop=crop)
    found = read_views(data, transform, VIEWS["flip"])
    assert found.shape == (2, 3, crop, crop)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found[0], read_pixels(data, transform))
    np.testing.assert_array_equal(found[1], found[0][..., ::-1])


def test_views_come_in_the_order_that_is_asked_for() -> None:
    data, transform = file_of(noise(90, 60)), Transform(resize=40, crop=32)
    some = [VIEWS["10crop"][at] for at in (7, 0, 3)]
    every = read_views(data, transform, VIEWS["10crop"])
    np.testing.assert_array_equal(read_views(data, transform, some), every[[7, 0, 3]])


# Transform


def test_a_transform_comes_back_from_json_as_it_was() -> None:
    numbers = {"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0), "background": (0, 128, 255)}
    transform = Transform(resize=0, crop=32, interpolation="bicubic", decoding="scaled", **numbers)
    assert transform.as_dict()["mean"] == [0.1, 0.2, 0.3]
    assert transform.as_dict()["background"] == [0, 128, 255]
    assert Transform.from_dict(json.loads(json.dumps(transform.as_dict()))) == transform
    assert hash(Transform.from_dict(Transform().as_dict())) == hash(Transform())


def test_a_transform_of_before_there_were_backgrounds_and_decodings_has_a_white_one_and_decodes_exactly() -> None:
    fields = Transform(crop=32).as_dict()
    del fields["background"], fields["decoding"]
    assert Transform.from_dict(fields) == Transform(crop=32, background=(255, 255, 255), decoding="exact")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": (0, 0)}, r"background is \(0, 0\); expected \(R, G, B\) of 0 to 255"),
        ({"background": (0, 0, 256)}, r"background is \(0, 0, 256\); expected \(R, G, B\) of 0 to 255"),
        ({"background": (0, 0, 0.5)}, r"background is \(0, 0, 0.5\); expected \(R, G, B\) of 0 to 255"),
        ({"background": "white"}, r"background is 'white'; expected \(R, G, B\) of 0 to 255"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic'; expected one of nearest, bilinear, bicubic$"),
        ({"decoding": "fast"}, "decoding is 'fast'; expected one of exact, scaled, nvjpeg$"),
        ({"crop": 0}, "crop is 0 and resize 256; expected at least 1 and 0, at most 2048 pixels"),
        ({"resize": -1}, "crop is 224 and resize -1; expected at least 1 and 0, at most 2048 pixels"),
    ],
)
def test_a_transform_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Transform(**options)
