"""How images of other shapes fit a network's input, against the transforms of torchvision and timm."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from images.make import tiff
from pictures import NATIVE, difference, file_of, noise, smooth
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision_steps

from featx.data.augment import read_augmented
from featx.data.decode import decode, read_pixels, read_views, thumbnail
from featx.data.fitting import fit_notes, fit_words, fitted
from featx.data.pixel_facts import look_at
from featx.data.transform import Transform, parse_size, resized_size
from featx.errors import ImageError
from featx.layer_spec import VIEWS

SHAPES = [(500, 375), (375, 500), (224, 224), (301, 1000), (63, 500), (30, 20)]
HALF = (0.5, 0.4, 0.3)


def by_timm(pixels: np.ndarray, transform: Transform, crop_pct: float, crop_mode: str) -> np.ndarray:
    """The pixels of timm's transform for evaluation, which Pillow resizes."""
    timm = pytest.importorskip("timm.data.transforms_factory", reason="compares with timm")
    steps = timm.transforms_imagenet_eval(
        img_size=transform.size,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        interpolation=transform.interpolation,
        mean=transform.mean,
        normalize=False,
    )
    return np.asarray(steps(Image.fromarray(pixels)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(64, 64), (64, 128), (96, 56)])
@pytest.mark.parametrize(("crop_mode", "fit"), [("center", "crop"), ("border", "pad"), ("squash", "squash")])
def test_pixels_are_those_of_timms_transform_to_a_rounding(
    crop_mode: str, fit: str, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    pixels = noise(shape[1], shape[0])
    for share in (1.0, 0.8):
        transform = Transform(resize=int(min(size) / share), crop=size[0], crop_width=size[1], mean=HALF, fit=fit)
        ours = read_pixels(file_of(pixels), transform)
        assert ours.shape == transform.shape == (3, *size)
        assert difference(ours, by_timm(pixels, transform, share, crop_mode)).max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_padded_image_is_whole_within_the_mean_colour_of_the_network(shape: tuple[int, int]) -> None:
    pixels = noise(shape[1], shape[0])
    transform = Transform(resize=64, crop=64, crop_width=96, mean=HALF, fit="pad")
    height, width = resized_size(shape, transform)
    assert (height, width) in ((64, width), (height, 96)), "one edge fits"
    tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    inner = torchvision_steps.resize(tensor, [height, width], interpolation=InterpolationMode.BILINEAR, antialias=True)
    top, left = (64 - height) // 2, (96 - width) // 2
    padding = [left, top, 96 - width - left, 64 - height - top]
    expected = torch.stack(
        [torchvision_steps.pad(inner[c : c + 1], padding, fill=v)[0] for c, v in enumerate((128, 102, 76))]
    )
    ours = read_pixels(file_of(pixels), transform)
    assert difference(ours, np.asarray(expected)).max() <= (0 if NATIVE else 1)


def test_a_line_of_an_image_keeps_a_pixel_of_its_width_when_it_is_padded() -> None:
    ours = read_pixels(file_of(np.zeros((1, 5000, 3), np.uint8)), Transform(resize=32, crop=32, mean=HALF, fit="pad"))
    rows = (ours != np.array([[[128]], [[102]], [[76]]])).any(axis=(0, 2))
    assert rows.sum() == 1


def test_the_ends_that_are_cut_off_a_long_image_never_reach_into_a_long_crop() -> None:
    pixels = noise(2000, 20)
    transform = Transform(resize=16, crop=16, crop_width=512, interpolation="bicubic")
    tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    resized = torchvision_steps.resize(
        tensor, list(resized_size((20, 2000), transform)), interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    middle = np.asarray(torchvision_steps.center_crop(resized, [16, 512]))[..., 5:-5]
    assert difference(read_pixels(file_of(pixels), transform)[..., 5:-5], middle).max() <= 1


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_the_views_of_an_image_have_the_shape_of_the_input(fit: str) -> None:
    transform = Transform(resize=40, crop=32, crop_width=48, fit=fit)
    views = read_views(file_of(smooth(100, 60)), transform, VIEWS["10crop"])
    assert views.shape == (10, 3, 32, 48)
    np.testing.assert_array_equal(views[1], views[0][..., ::-1])
    assert len({view.tobytes() for view in views}) == 10


def test_jpegs_are_decoded_at_a_fraction_only_if_enough_is_left_to_resize() -> None:
    data = file_of(smooth(1000, 800), "JPEG")
    for fields in ({"crop_width": 300}, {"fit": "pad", "crop_width": 300}, {"fit": "squash", "resize": 150}):
        transform = Transform(**{"resize": 100, "crop": 100, "decoding": "scaled"} | fields)
        whole = Transform(**{"resize": 100, "crop": 100} | fields)
        assert difference(read_pixels(data, transform), read_pixels(data, whole)).mean() < 2


# Other numbers of channels


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_network_of_one_channel_gets_the_grey_of_pillow_resized_as_torchvision_does(fit: str) -> None:
    pixels = noise(90, 60)
    transform = Transform(resize=32, crop=32, channels=1, mean=(0.5,), std=(0.25,), fit=fit)
    ours = read_pixels(file_of(pixels), transform)
    assert ours.shape == (1, 32, 32)
    grey = torch.from_numpy(np.asarray(Image.fromarray(pixels).convert("L")).copy())[None]
    resized = torchvision_steps.resize(grey, list(resized_size((60, 90), transform)), antialias=True)
    if fit == "pad":
        resized = torchvision_steps.pad(resized, [0, 5, 0, 6], fill=128)
    assert difference(ours, np.asarray(torchvision_steps.center_crop(resized, [32, 32]))).max() <= (0 if NATIVE else 1)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_grey_levels_reach_a_network_of_one_channel_as_they_are(mode: str) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(levels) if mode != "I;16" else Image.fromarray(levels.astype(np.uint16) * 257)
    data = file_of(image if mode == "I;16" else image.convert(mode))
    transform = Transform(resize=16, crop=16, channels=1, mean=(0.5,), std=(0.5,))
    np.testing.assert_array_equal(read_pixels(data, transform)[0], decode(data)[..., 0])


def bands_of(count: int, dtype: str = "u1") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 250, (16, 24, count)).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "<u2"])
@pytest.mark.parametrize("count", [2, 4, 5, 13])
def test_a_network_of_other_channels_gets_bands_as_they_are(count: int, dtype: str) -> None:
    bands = bands_of(13, dtype)
    data = tiff(bands.tobytes(), 1, bands.itemsize * 8, 13)
    chosen = tuple(range(13, 13 - count, -1))
    transform = Transform(
        resize=16, crop=16, crop_width=24, channels=count, bands=chosen, mean=(0.5,) * count, std=(0.5,) * count,
        value_range=(0.0, 255.0),
    )  # fmt: skip
    ours = read_pixels(data, transform)
    assert ours.shape == (count, 16, 24)
    np.testing.assert_array_equal(ours, bands[..., np.array(chosen) - 1].transpose(2, 0, 1).astype(np.uint8))


def test_bands_are_resized_one_by_one_and_turned_upright() -> None:
    bands = bands_of(5)
    data = tiff(bands.tobytes(), 1, 8, 5, orientation=6)
    transform = Transform(resize=12, crop=12, channels=5, mean=(0.0,) * 5, std=(1.0,) * 5)
    upright = np.ascontiguousarray(np.rot90(bands, -1).transpose(2, 0, 1))
    each = [
        torchvision_steps.center_crop(
            torchvision_steps.resize(torch.from_numpy(band[None]), [12], antialias=True), [12]
        )
        for band in upright
    ]
    assert difference(read_pixels(data, transform), np.concatenate(each)).max() <= 1
    view = read_augmented(data, transform, np.random.default_rng(0), scale=0.5)
    assert view.shape == (5, 12, 12)


def test_an_image_of_other_bands_than_the_network_takes_fails_with_both_numbers() -> None:
    transform = Transform(resize=16, crop=16, channels=5, mean=(0.5,) * 5, std=(0.5,) * 5)
    with pytest.raises(ImageError, match=r"^3 bands; the network takes 5$"):
        read_pixels(file_of(noise(20, 20)), transform)
    with pytest.raises(ImageError, match=r"^6 bands; the network takes 5 \(--bands selects them, such as 1,2,3,4,…\)$"):
        read_pixels(tiff(bands_of(6).tobytes(), 1, 8, 6), transform)
    with pytest.raises(ImageError, match=r"^3 bands; the network takes 5"):
        read_pixels(file_of(noise(20, 20), "JPEG"), transform)
    with pytest.raises(ImageError, match=r"there is no band 9 \(--bands\); the image has 3"):
        read_pixels(file_of(noise(20, 20)), Transform.from_dict(transform.as_dict() | {"bands": [1, 2, 3, 4, 9]}))


def test_pictures_for_people_are_rgb_whatever_the_network_takes() -> None:
    data = tiff(bands_of(5).tobytes(), 1, 8, 5)
    five = Transform(channels=5, mean=(0.5,) * 5, std=(0.5,) * 5)
    one = Transform(channels=1, mean=(0.5,), std=(0.5,))
    assert Image.open(io.BytesIO(thumbnail(data, 64, five))).mode == "RGB"
    assert thumbnail(file_of(noise(20, 20)), 64, one) == thumbnail(file_of(noise(20, 20)), 64)
    assert look_at(data, five, thumbnail=True).facts["width"] == 24
    assert (five.shown.bands, one.shown.bands) == ((1, 2, 3), None)


# Random crops


@pytest.mark.parametrize("fields", [{"crop_width": 128}, {"crop": 16, "crop_width": 16, "fit": "pad", "resize": 16}])
def test_random_crops_have_the_shape_of_the_input_and_no_padding(fields: dict[str, Any]) -> None:
    y, x = np.mgrid[:256, :256]
    pixels = np.dstack([x, y, np.full_like(x, 255)]).astype(np.uint8)
    transform = Transform(**{"resize": 32, "crop": 32, "interpolation": "nearest", "mean": HALF} | fields)
    for seed in range(10):
        cut = read_augmented(file_of(pixels), transform, np.random.default_rng(seed), scale=0.2, flip=False)
        assert cut.shape == transform.shape
        assert (cut[2] == 255).all()
        height, width = transform.size
        wide, high = (
            np.ptp(cut[0].astype(int)) * width / (width - 1),
            np.ptp(cut[1].astype(int)) * height / (height - 1),
        )
        assert 0.7 < wide / high / (width / height) < 1.4, "objects are stretched no more than in a square"


# Transforms


def test_fields_with_their_defaults_are_no_part_of_an_identity() -> None:
    assert {"fit", "crop_width", "channels"}.isdisjoint(Transform().as_dict())
    same = Transform(fit="crop", crop_width=224, channels=3)
    assert same == Transform()
    assert same.as_dict() == Transform().as_dict()
    squashed = [Transform(resize=0), Transform(resize=0, fit="squash"), Transform(resize=224, fit="squash")]
    assert len({json.dumps(transform.as_dict()) for transform in squashed}) == 1
    other = Transform(crop_width=448, fit="pad", channels=1, mean=(0.5,), std=(0.5,))
    assert Transform.from_dict(json.loads(json.dumps(other.as_dict()))) == other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "stretch"}, "fit is 'stretch'; expected one of crop, pad, squash$"),
        ({"fit": "pad", "resize": 0}, "fit is 'pad' and resize 0, which squashes"),
        ({"crop_width": 0}, "crop_width is 0; expected 1 to 2048 pixels, or None for a square"),
        ({"crop_width": "9"}, "crop_width is '9'; expected 1 to 2048 pixels"),
        ({"channels": 0}, "channels is 0; expected 1 to 1024"),
        ({"channels": 1}, "mean has 3 values; expected one for each channel, of which there is 1"),
        ({"crop": 1, "crop_width": 2048, "resize": 2048}, "are too many"),
        ({"crop": 2048, "resize": 0, "channels": 1024, "mean": (0,) * 1024, "std": (1,) * 1024}, "are too many"),
        (
            {"channels": 5, "mean": (0,) * 5, "std": (1,) * 5, "bands": (1, 2)},
            r"bands is \(1, 2\), for a network of 5 channels; expected 5 bands, one for each channel",
        ),
    ],
)
def test_a_shape_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Transform(**options)


@pytest.mark.parametrize(
    ("text", "size"),
    [("224x448", (224, 448)), (" 224 X 448 ", (224, 448)), ("384", (384, 384)), (96, (96, 96)), ([1, 2], (1, 2))],
)
def test_a_size_is_the_side_of_a_square_or_height_by_width(text: Any, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "224x", "x224", "224x448x3", "2049", "-1", "1.5", None, [1, 2, 3], "²x2"])
def test_anything_else_is_no_size(text: Any) -> None:
    with pytest.raises(ValueError, match=r"is no size; expected the side of a square, or HEIGHTxWIDTH such as 224x448"):
        parse_size(text)


SQUASHED = Transform(resize=0)


@pytest.mark.parametrize(
    ("own", "asked", "expected"),
    [
        (Transform(), {}, Transform()),
        (Transform(resize=232), {"size": (448, 448)}, Transform(resize=464, crop=448)),
        (Transform(), {"size": (224, 448)}, Transform(resize=256, crop=224, crop_width=448)),
        (Transform(), {"crop": 448}, Transform(resize=256, crop=448)),
        (Transform(), {"fit": "pad"}, Transform(resize=224, fit="pad")),
        (Transform(), {"fit": "squash"}, SQUASHED),
        (Transform(), {"fit": "squash", "resize": 256}, Transform(resize=256, fit="squash")),
        (Transform(), {"fit": "pad", "size": (96, 128)}, Transform(96, 96, crop_width=128, fit="pad")),
        (Transform(), {"fit": "pad", "resize": 200}, Transform(resize=200, fit="pad")),
        (Transform(), {"fit": "crop"}, Transform()),
        (Transform(), {"resize": 0}, SQUASHED),
        (SQUASHED, {"resize": 256}, Transform()),
        (SQUASHED, {"fit": "crop"}, Transform(resize=224)),
        (SQUASHED, {"size": (96, 128)}, Transform(0, 96, crop_width=128)),
        (SQUASHED, {"fit": "squash", "crop": 96}, Transform(0, 96)),
        (Transform(224, fit="pad"), {"size": (448, 448)}, Transform(448, 448, fit="pad")),
        (Transform(crop=96, crop_width=64), {"crop": 32}, Transform(crop=32)),
    ],
)
def test_what_is_asked_for_changes_the_transform_of_the_weights(
    own: Transform, asked: dict[str, Any], expected: Transform
) -> None:
    assert fitted(own, **asked) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"size": (1, 2), "crop": 3}, r"size \(--size\) and crop \(--crop\) both set the size"),
        ({"fit": "pad", "resize": 0}, r"a resize of 0 \(--resize 0\) squashes, and fit \(--fit\) is pad"),
        ({"fit": "crop", "resize": 0}, r"squashes, and fit \(--fit\) is crop"),
        ({"fit": "stretch"}, "fit is 'stretch'"),
    ],
)
def test_contradictions_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(Transform(), **asked)


def test_words_and_notes_say_what_happens_to_an_image_of_another_shape() -> None:
    assert fit_words(Transform(crop_width=448)) == "resized to cover 256 x 512 and cropped to 224 x 448"
    padded = Transform(resize=224, fit="pad", mean=HALF)
    assert fit_words(padded) == "resized to fit into 224 x 224 and padded with the network's mean colour (128, 102, 76)"
    (note,) = fit_notes(padded, Transform(), asked=True)
    assert note.endswith("; the transform of the weights: resized to 256 pixels and cropped to 224 x 224")
    assert fit_notes(padded, Transform(), asked=False) == fit_notes(padded, padded, asked=True) == ()
    (note,) = fit_notes(Transform(resize=100, crop_width=448), Transform(), asked=False)
    assert note == "images are resized to 100 pixels and padded with black to 224 x 448; --resize 224 would fill it"
