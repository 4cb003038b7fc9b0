"""Images as several networks take them: decoded once, and packed into one row of bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from featx.data import joint_pixels
from featx.data.augment import read_augmented
from featx.data.decode import file_of, read_views
from featx.data.joint_pixels import read_all_augmented, read_all_views
from featx.data.joint_transform import JointTransform, transform_from, whole_images
from featx.data.transform import Transform
from featx.layer_spec import VIEWS

RGB = Transform(resize=40, crop=32)
GREY = Transform(resize=20, crop=16, crop_width=12, channels=1, mean=(0.5,), std=(0.5,), interpolation="bicubic")
NAVY = Transform(resize=20, crop=16, background=(0, 0, 128))


def image(*shape: int, seed: int = 0) -> bytes:
    made = file_of(np.random.default_rng(seed).integers(0, 256, shape or (50, 70, 3), dtype=np.uint8))
    assert made
    return made()


@pytest.mark.parametrize("shape", [(50, 70, 3), (70, 50), (30, 40, 4), (1, 1), (3, 400)])
@pytest.mark.parametrize("views", ["plain", "flip", "10crop"])
def test_each_network_gets_the_pixels_that_it_gets_alone(shape: tuple[int, ...], views: str) -> None:
    joint, data = JointTransform((RGB, GREY, NAVY)), image(*shape)
    packed = read_all_views(data, joint, VIEWS[views])
    assert packed.shape == (len(VIEWS[views]), *joint.shape)
    for found, part in zip(joint.split(packed), joint.parts, strict=True):
        np.testing.assert_array_equal(found, read_views(data, part, VIEWS[views]))


@pytest.mark.parametrize(("parts", "passes"), [((RGB, GREY), 1), ((RGB, GREY, NAVY), 2), ((RGB, whole_images(RGB)), 1)])
def test_an_image_is_decoded_once_for_all_that_take_the_same_pixels(
    parts: tuple[Transform, ...], passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    decode = joint_pixels.with_pixels
    monkeypatch.setattr(joint_pixels, "with_pixels", lambda *a, **k: (calls.append(a), decode(*a, **k))[1])
    read_all_views(image(), JointTransform(parts), VIEWS["10crop"])
    assert len(calls) == passes


def test_a_random_crop_is_the_same_region_for_all_networks() -> None:
    twin = Transform(resize=40, crop=32, mean=(0.1, 0.2, 0.3))
    joint = JointTransform((RGB, twin, Transform(crop=8, resize=8)))
    packed = read_all_augmented(image(), joint, np.random.default_rng(1), scale=0.3)
    first, second, small = joint.split(packed)
    np.testing.assert_array_equal(first, second)
    blurred = first.reshape(3, 8, 4, 8, 4).mean((2, 4))
    assert np.corrcoef(blurred.ravel(), small.ravel())[0, 1] > 0.9
    others = read_all_augmented(image(), joint, np.random.default_rng(2), scale=0.3)
    assert (others != packed).any()
    alone = read_all_augmented(image(), RGB, np.random.default_rng(1), scale=0.3)
    np.testing.assert_array_equal(alone, read_augmented(image(), RGB, np.random.default_rng(1), scale=0.3))


def test_a_joint_transform_is_stored_as_json_and_read_again() -> None:
    joint = JointTransform((RGB, GREY))
    assert transform_from(joint.as_dict()) == joint
    assert transform_from(RGB.as_dict()) == RGB
