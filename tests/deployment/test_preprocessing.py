"""The pixels of the torch module are those of featx's own decoder."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from featx.data.decode import read_views
from featx.data.transform import Transform
from featx.deployment import onnx_graph, openvino_file
from featx.deployment.preprocessing import Preprocess, grey
from featx.layer_spec import VIEWS

GREY = Transform(resize=32, crop=28, channels=1, mean=(0.5,), std=(0.5,))
SIZES = [(1, 1), (60, 40), (40, 61), (28, 28), (32, 32), (5, 200), (300, 3), (33, 47)]
TRANSFORMS: dict[str, tuple[Transform, str]] = {
    "bilinear": (Transform(resize=32, crop=28), "plain"),
    "bicubic": (Transform(resize=32, crop=27, interpolation="bicubic"), "plain"),
    "nearest": (Transform(resize=30, crop=28, interpolation="nearest"), "plain"),
    "squash": (Transform(resize=0, crop=28), "flip"),
    "squash more": (Transform(resize=33, crop=28, fit="squash"), "10crop"),
    "pad": (Transform(resize=28, crop=28, fit="pad"), "flip"),
    "pad, then crop": (Transform(resize=33, crop=28, fit="pad", interpolation="bicubic"), "plain"),
    "rectangle": (Transform(resize=24, crop=20, crop_width=33), "plain"),
    "rectangle, padded": (Transform(resize=20, crop=20, crop_width=33, fit="pad"), "plain"),
    "too small for the crop": (Transform(resize=20, crop=28), "flip"),
    "ten crops": (Transform(resize=35, crop=28), "10crop"),
    "cropped downwards": (Transform(resize=35, crop=28, crop_rounding="down"), "plain"),
    "grey": (GREY, "flip"),
}


def image(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Noise over a slope, (H, W, 3) uint8."""
    height, width = size
    slope = np.linspace(0, 200, height)[:, None, None] + np.linspace(0, 30, width)[None, :, None]
    noise = np.random.default_rng(seed).integers(0, 26, (height, width, 3))
    return (slope + noise).astype(np.uint8)


def as_png(pixels: np.ndarray) -> bytes:
    """The bytes of a file that holds the pixels without loss."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_views_of_an_image_are_those_that_the_decoder_makes(name: str) -> None:
    transform, views = TRANSFORMS[name]
    for size in SIZES:
        pixels = image(size)
        expected = read_views(as_png(pixels), transform, VIEWS[views])
        found = Preprocess(transform, VIEWS[views])(torch.from_numpy(pixels)[None])
        np.testing.assert_array_equal(found[0].numpy(), expected, err_msg=str(size))


def test_the_images_of_a_batch_do_not_depend_on_one_another() -> None:
    preprocess = Preprocess(Transform(resize=20, crop=16))
    batch = torch.from_numpy(np.stack([image((31, 50), seed) for seed in range(3)]))
    together = preprocess(batch)
    assert together.shape == (3, 1, 3, 16, 16)
    for one, alone in zip(together, batch, strict=True):
        assert torch.equal(one, preprocess(alone[None])[0])


def test_bands_are_taken_as_they_are() -> None:
    bands: dict[str, Any] = {"channels": 5, "mean": (0.5,) * 5, "std": (0.5,) * 5}
    preprocess = Preprocess(Transform(resize=12, crop=8, **bands))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 20, 30, 5), dtype=np.uint8)
    assert preprocess.bands == 5
    file = io.BytesIO()
    np.save(file, pixels[0])
    expected = read_views(file.getvalue(), preprocess.transform, VIEWS["plain"])
    np.testing.assert_array_equal(preprocess(torch.from_numpy(pixels))[0].numpy(), expected)


def test_grey_is_that_of_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(grey(torch.from_numpy(pixels)[None])[0, :, :, 0].numpy(), expected)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_is_exported_gives_the_same_bytes(name: str) -> None:
    transform, views = TRANSFORMS[name]
    preprocess = Preprocess(transform, VIEWS[views])
    exported, corrected = preprocess.exported(), preprocess.exported(has_float64=False)
    for size in [*SIZES, (230, 150)]:
        pixels = torch.from_numpy(np.stack([image(size, seed) for seed in range(2)]))
        assert torch.equal(exported(pixels), preprocess(pixels)), size
        assert torch.equal(corrected(pixels), preprocess(pixels)), size


def test_extreme_levels_are_clipped_as_torch_clips_them() -> None:
    pixels = torch.from_numpy(255 * np.random.default_rng(0).integers(0, 2, (1, 61, 47, 3), dtype=np.uint8))
    preprocess = Preprocess(Transform(resize=40, crop=40, interpolation="bicubic"))
    assert torch.equal(preprocess.exported()(pixels), preprocess(pixels))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_runtime_that_has_no_float64_makes_the_same_bytes(
    interpolation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenVINO, which computes it in float32."""
    preprocess = Preprocess(Transform(resize=256, crop=224, interpolation=interpolation))
    for height, width in ((375, 500), (333, 500), (3024, 4032), (200, 150)):
        pixels = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, generator=torch.manual_seed(height))
        with monkeypatch.context() as patch:
            patch.setattr(torch, "float64", torch.float32)
            found = preprocess.exported(has_float64=False)(pixels)
        assert torch.equal(found, preprocess(pixels)), (height, width)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_openvino_makes_the_same_bytes(interpolation: Any) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO")
    preprocess = Preprocess(Transform(resize=128, crop=112, interpolation=interpolation))
    model = onnx_graph._exported(
        preprocess.exported(has_float64=False), (torch.zeros(2, 150, 140, 3, dtype=torch.uint8),), ("pixels",), ("images",),
        {0: "N", 1: "H", 2: "W"},
    )  # fmt: skip
    run = openvino_file.runner(openvino_file.converted(model, {}))
    for height, width in ((375, 500), (61, 47), (1500, 900)):
        pixels = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, generator=torch.manual_seed(height))
        np.testing.assert_array_equal(run(pixels.numpy())["images"], preprocess(pixels).numpy(), str((height, width)))
