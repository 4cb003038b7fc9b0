"""Pixels for a backbone: right, or refused with what is expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from featx.backbones.backbone import Backbone, load_backbone
from featx.errors import BackboneError

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="module")
def lenet() -> Backbone:
    return load_backbone("lenet5", views="flip", device="cpu")


@pytest.mark.parametrize(
    "pixels",
    [
        PIXELS.astype(np.int64),
        PIXELS.astype(np.uint16),
        torch.from_numpy(PIXELS),
        torch.from_numpy(PIXELS).int(),
        np.ascontiguousarray(PIXELS[::-1, :, :, ::-1])[::-1, :, :, ::-1],
        np.asfortranarray(PIXELS),
        np.frombuffer(PIXELS.tobytes(), np.uint8).reshape(PIXELS.shape),
    ],
    ids=["int64", "uint16", "tensor", "int32 tensor", "strides below zero", "Fortran order", "read-only"],
)
@pytest.mark.filterwarnings("error")
def test_whole_numbers_of_0_to_255_are_pixels_in_whatever_array(lenet: Backbone, pixels: Any) -> None:
    expected = lenet.encode(PIXELS)["penultimate"]
    np.testing.assert_array_equal(lenet.encode(pixels)["penultimate"], expected)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (PIXELS / 255, r"pixels are float64; expected uint8 of 0 to 255; \(pixels \* 255\)\.round\(\) scales 0 to 1"),
        ((PIXELS / 255).astype(np.float32), "pixels are float32; expected uint8"),
        (PIXELS.astype(np.float32), "pixels are float32; expected uint8"),
        (np.full(PIXELS.shape, np.nan), "pixels are float64; expected uint8"),
        (torch.from_numpy(PIXELS) / 255, "pixels are float32; expected uint8"),
        (torch.zeros(PIXELS.shape, dtype=torch.bfloat16), "pixels are bfloat16; expected uint8"),
        (torch.zeros(PIXELS.shape, requires_grad=True), "pixels are float32; expected uint8"),
        (PIXELS > 9, "pixels are bool; expected uint8"),
        (PIXELS.astype(np.complex64), "pixels are complex64; expected uint8"),
        (PIXELS.astype(object), "pixels are object; expected uint8"),
        (PIXELS.astype(np.int16) - 128, "pixels are int16 from -128 to 127; expected uint8 of 0 to 255"),
        (PIXELS.astype(np.uint16) * 257, "pixels are uint16 from 0 to 65535; expected uint8 of 0 to 255"),
        (PIXELS.transpose(0, 2, 3, 1), r"shape \(2, 32, 32, 3\); expected \(B, 3, 32, 32\); channels come first"),
        (PIXELS[0].transpose(1, 2, 0), r"shape \(32, 32, 3\); .*; channels come first"),
        (PIXELS[0], r"shape \(3, 32, 32\); expected \(B, 3, 32, 32\); a single image is a batch of one, pixels\[None\]"),
        (PIXELS[:, :1], r"shape \(2, 1, 32, 32\); .*; grey images have their one channel three times"),
        (PIXELS[:, [0, 1, 2, 0]], r"shape \(2, 4, 32, 32\); .*further channels are left out"),
        (PIXELS[..., :31, :31], r"shape \(2, 3, 31, 31\); .*; resize and crop images to 32 pixels"),
        (PIXELS[0, 0], r"shape \(32, 32\); expected \(B, 3, 32, 32\)$"),
        (Image.fromarray(PIXELS[0].transpose(1, 2, 0)), r"pixels are a Image; expected a uint8 array or tensor"),
        ([Image.new("RGB", (32, 32))], r"pixels are a list; .*featx\.data\.decode\.read_pixels\(data, backbone\.transform\)"),
        ("new.jpg", "pixels are a str; expected a uint8 array or tensor"),
        (None, "pixels are a NoneType; expected a uint8 array or tensor"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_is_expected(lenet: Backbone, pixels: Any, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        lenet.encode(pixels)


def test_views_are_checked_too(lenet: Backbone) -> None:
    both = np.stack([PIXELS, PIXELS[..., ::-1]], axis=1)
    found = lenet.encode_views(both)
    np.testing.assert_allclose(found["penultimate@mirrored"], lenet.encode(both[:, 1])["penultimate"], atol=1e-5)
    for pixels, message in (
        (both[:, :1], r"shape \(2, 1, 3, 32, 32\); expected \(B, 2, 3, 32, 32\)"),
        (both / 255, "float64; expected uint8"),
        (PIXELS, r"shape \(2, 3, 32, 32\); expected \(B, 2, 3, 32, 32\)"),
    ):
        with pytest.raises(BackboneError, match=message):
            lenet.encode_views(pixels)
        with pytest.raises(BackboneError, match=message):
            lenet.encode_at(pixels, "penultimate@flip")


def test_no_images_give_no_rows(lenet: Backbone) -> None:
    assert lenet.encode(PIXELS[:0])["penultimate"].shape == (0, 84)
