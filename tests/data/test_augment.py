"""Random crops and mirroring."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pictures import NATIVE, by_torchvision, difference, file_of, noise

from featx.data.augment import _random_box, read_augmented, read_random_view
from featx.data.decode import read_pixels
from featx.data.transform import Transform
from featx.layer_spec import RandomView


def test_a_random_view_is_drawn_from_the_view_and_the_image() -> None:
    one, other, transform = file_of(noise(90, 60)), file_of(noise(90, 60, seed=1)), Transform(resize=40, crop=32)
    views = [RandomView(number, 0, 0.35, flip=True) for number in range(3)]
    found = [read_random_view(one, transform, view) for view in views]
    np.testing.assert_array_equal(found[1], read_random_view(one, transform, views[1]))
    assert len({pixels.tobytes() for pixels in found}) == 3
    assert (found[0] != read_random_view(other, transform, views[0])).any()


# Augmentation

COORDINATES = np.zeros((256, 256, 3), np.uint8)
COORDINATES[..., 0] = np.arange(256)  # red is x
COORDINATES[..., 1] = np.arange(256)[:, None]  # green is y


def augmented(seed: int, **options: Any) -> np.ndarray:
    """One random cut of the image whose pixels are their own coordinates."""
    rng = np.random.default_rng(seed)
    return read_augmented(file_of(COORDINATES), Transform(crop=32), rng, **{"scale": 0.35, **options})


def test_a_random_cut_is_decided_by_the_generator_alone() -> None:
    first = augmented(7)
    assert first.shape == (3, 32, 32)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, augmented(7))
    assert (first != augmented(8)).any()


def test_half_of_the_random_cuts_are_mirrored_unless_told_otherwise() -> None:
    def is_mirrored(cut: np.ndarray) -> bool:
        return bool(cut[0, :, 0].mean() > cut[0, :, -1].mean())

    assert 30 < sum(is_mirrored(augmented(seed)) for seed in range(100)) < 70
    assert not any(is_mirrored(augmented(seed, flip=False)) for seed in range(100))


def test_random_cuts_keep_the_share_and_the_aspect_they_are_told_to() -> None:
    shares, ratios = [], []
    for seed in range(200):
        red, green, _ = augmented(seed, flip=False).astype(float)
        # Between the centres of the outermost of 32 pixels lie 31/32 of the region.
        width, height = np.ptp(red) * 32 / 31, np.ptp(green) * 32 / 31
        shares.append(width * height / 256**2)
        ratios.append(width / height)
    assert 0.33 < min(shares) < 0.4
    assert 0.85 < max(shares) < 1.02
    assert 0.72 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.39


def test_a_share_of_1_keeps_the_whole_of_a_square_image() -> None:
    expected = read_pixels(file_of(COORDINATES), Transform(resize=0, crop=32))
    np.testing.assert_array_equal(augmented(0, scale=1.0, flip=False), expected)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_a_random_cut_is_torchvisions_resized_crop_of_it(interpolation: str) -> None:
    pixels = noise(500, 375)
    for seed in range(8):
        box = _random_box((500, 375), np.random.default_rng(seed), 0.1, 1.0)
        cut = pixels[box[1] : box[3], box[0] : box[2]]
        rng = np.random.default_rng(seed)
        ours = read_augmented(file_of(pixels), Transform(interpolation=interpolation), rng, scale=0.1, flip=False)
        theirs = by_torchvision(cut, 0, 224, interpolation)
        assert difference(ours, theirs).max() <= (0 if NATIVE or interpolation != "bilinear" else 1)


def test_a_mirrored_cut_is_the_mirror_image_of_one_that_is_not() -> None:
    cuts = {(seed, flip): augmented(seed, flip=flip) for seed in range(8) for flip in (False, True)}
    mirrored = [bool((cuts[seed, True] != cuts[seed, False]).any()) for seed in range(8)]
    assert 0 < sum(mirrored) < 8
    for seed in range(8):
        np.testing.assert_array_equal(cuts[seed, True], cuts[seed, False][..., :: -1 if mirrored[seed] else 1])


def test_an_image_too_long_for_any_cut_gives_its_centre() -> None:
    pixels = np.zeros((10, 400, 3), np.uint8)
    pixels[:, 190:210] = 200
    rng = np.random.default_rng(0)
    cut = read_augmented(file_of(pixels), Transform(crop=8), rng, scale=0.9, flip=False)
    assert (cut == 200).all()
