"""Image processors of transformers as transforms: equal pixels, or refused."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
import vision_models
from PIL import Image
from vision_models import sized

from featx.backbones.pixels import normalise
from featx.backbones.sources.hf_transform import preparation_of
from featx.data.decode import read_pixels
from featx.errors import BackboneError

BITS, ROUNDING = 1e-4, 1.0
"""Levels of 0 to 255 by which pixels may differ: the arithmetic of the normalisation alone; or the rounding of the resized
image, where the processor resizes in floats or by Pillow."""

PROCESSORS: list[tuple[str, dict[str, Any], float]] = [
    ("ViTImageProcessor", {"size": sized(32)}, BITS),
    ("ViTImageProcessor", {"size": sized(32), "do_normalize": False}, BITS),
    ("ViTImageProcessor", {"size": sized(32), "do_rescale": False}, BITS),
    ("ViTImageProcessor", {"size": sized(32), "resample": 0}, BITS),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": sized(32)}, BITS),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 30}, "crop_size": sized(32)}, BITS),
    ("BitImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": sized(32)}, BITS),
    ("ChineseCLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": sized(32)}, BITS),
    ("SiglipImageProcessor", {"size": sized(32)}, BITS),
    ("BeitImageProcessor", {"size": sized(32)}, BITS),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 28}, "crop_pct": 0.875}, BITS),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}, BITS),
    ("MobileNetV2ImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": sized(32)}, BITS),
    ("MobileViTImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": sized(32)}, BITS),
    ("EfficientNetImageProcessor", {"size": sized(32)}, BITS),
    ("EfficientNetImageProcessor", {"size": sized(32), "rescale_offset": True, "include_top": False}, BITS),
    ("SegformerImageProcessor", {"size": sized(32)}, BITS),
    ("LevitImageProcessor", {"size": {"shortest_edge": 28}, "crop_size": sized(28)}, BITS),
    ("DeiTImageProcessor", {"size": sized(37), "crop_size": sized(32)}, BITS),
    ("BlipImageProcessor", {"size": {"height": 32, "width": 48}}, BITS),
    ("DINOv3ViTImageProcessor", {"size": sized(32)}, ROUNDING),
    ("CLIPImageProcessorPil", {"size": {"shortest_edge": 32}, "crop_size": sized(32)}, ROUNDING),
]


@pytest.mark.parametrize(("kind", "fields", "levels"), PROCESSORS)
@pytest.mark.parametrize("size", [(90, 60), (60, 91), (75, 75), (40, 33), (33, 39)])
def test_a_processor_and_its_transform_prepare_a_photo_alike(
    kind: str, fields: dict[str, Any], levels: float, size: tuple[int, int]
) -> None:
    package = vision_models.transformers()
    if not hasattr(package, kind):
        pytest.skip(f"this transformers has no {kind}")
    processor = getattr(package, kind)(**fields)
    found = preparation_of(processor, "m")
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)).resize(size)
    file = BytesIO()
    image.save(file, "PNG")
    own = normalise(torch.from_numpy(read_pixels(file.getvalue(), found.transform)[None]), found.transform)
    expected = processor(images=image, return_tensors="pt")["pixel_values"]
    own = own.flip(1) if found.swap_channels else own
    std = torch.tensor(found.transform.std).view(1, 3, 1, 1)
    std = std.flip(1) if found.swap_channels else std
    assert ((own - expected).abs() * std * 255).max() <= levels + 1e-4


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (
            "ViTImageProcessor",
            {"size": sized(32), "do_resize": False},
            r"does not resize images \(do_resize is false\)",
        ),
        ("ViTImageProcessor", {"size": sized(32), "resample": 1}, "resizes by LANCZOS, which featx does not have"),
        (
            "CLIPImageProcessor",
            {"size": {"shortest_edge": 32}, "do_center_crop": False},
            r"does not crop images \(do_center_crop\), which",
        ),
        (
            "ViTImageProcessor",
            {"size": {"shortest_edge": 32, "longest_edge": 64}},
            "resizes by longest_edge, shortest_edge",
        ),
        ("ViTImageProcessor", {"size": sized(32), "do_pad": True, "pad_size": sized(64)}, r"pads images \(do_pad\)"),
        (
            "CLIPImageProcessor",
            {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 48}},
            "crops 32 x 48 of it",
        ),
        (
            "BlipImageProcessor",
            {"size": {"height": 32, "width": 48}, "do_center_crop": True, "crop_size": sized(32)},
            "squashes",
        ),
    ],
)
def test_a_step_that_a_transform_lacks_is_refused_by_name(kind: str, fields: dict[str, Any], message: str) -> None:
    package = vision_models.transformers()
    with pytest.raises(BackboneError, match=message):
        preparation_of(getattr(package, kind)(**fields), "m")


def test_a_processor_with_a_step_of_its_own_is_refused_as_its_pixels_differ() -> None:
    package = vision_models.transformers()

    class Inverting(package.ViTImageProcessor):  # type: ignore[misc, name-defined]
        def rescale_and_normalize(self, images: Any, *args: Any) -> Any:
            return super().rescale_and_normalize(255 - images, *args)

    with pytest.raises(
        BackboneError, match=r"gives other pixels than its configuration stands for, by up to [0-9]+ of 255 levels"
    ):
        preparation_of(Inverting(size=sized(32)), "m")
