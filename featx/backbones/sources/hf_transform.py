"""The image processor of a model of transformers as featx's own transform, compared with the processor before it is used."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featx.backbones.pixels import normalise
from featx.data.transform import Transform, channels, cropped, resize_pixels, resized_size
from featx.errors import BackboneError
from featx.text import brief, listed

LEVELS = 1.0
"""Largest difference between a pixel of the processor and of the transform, in levels of 0 to 255: rounding. Most processors
give the same bits; some resize in floats, or by Pillow."""

_REMEDY = "a function that returns the network with a featx.Transform of your own can be named as file.py:factory"

_INTERPOLATIONS = {0: "nearest", 2: "bilinear", 3: "bicubic"}
_OTHER_FILTERS = {1: "LANCZOS", 4: "BOX", 5: "HAMMING"}


@dataclass(frozen=True)
class Preparation:
    """How a processor prepares images.

    Attributes:
        transform: the processor's steps as a transform.
        swap_channels: whether the model takes B, G, R.
    """

    transform: Transform
    swap_channels: bool


def preparation_of(processor: Any, short: str) -> Preparation:
    """Turn an image processor into a transform, and compare both on an image.

    Args:
        processor: an image processor of transformers.
        short: the model's name for messages.

    Raises:
        BackboneError: the processor has a step that a transform does not have. The message names it.
    """
    name = f"hf/{short}: its {type(processor).__name__}"
    try:
        mean, std = _mean_and_std(processor)
        sizes, interpolation = _sizes(processor, name), _interpolation(processor, name)
        transform = Transform(**sizes, mean=mean, std=std, interpolation=interpolation, crop_rounding="down")
    except BackboneError:
        raise
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:  # a configuration may hold anything
        raise BackboneError(f"{name} has values that no transform takes: {error}") from error
    found = Preparation(transform, bool(getattr(processor, "do_flip_channel_order", False)))
    _require_equal(processor, found, name)
    return found


def processor_of(folder: Path, config: Any, short: str) -> tuple[Any, tuple[str, ...]]:
    """The image processor of a model in a folder; without a configuration, that of its model type at the model's size.

    Returns:
        The processor, and what the user should know.

    Raises:
        BackboneError: the configuration cannot be read, or there is none and the model type has no usual one.
    """
    auto: Any = import_module("transformers.models.auto.image_processing_auto")
    files = [folder / name for name in ("preprocessor_config.json", "processor_config.json")]
    if any(file.is_file() for file in files):
        try:
            return auto.AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True), ()
        except Exception as error:  # transformers passes on the errors of each processor
            raise BackboneError(f"hf/{short}: its image processor cannot be built ({brief(error)})") from error
    try:
        kinds = auto.IMAGE_PROCESSOR_MAPPING[type(config)]
    except KeyError as error:
        raise BackboneError(
            f"hf/{short} has no preprocessor_config.json, so how to resize and normalise images is unknown; save the processor "
            "beside the model: AutoImageProcessor.from_pretrained(...).save_pretrained(FOLDER)"
        ) from error
    kind = kinds["torchvision"] if isinstance(kinds, dict) else kinds
    processor = kind(**_usual_size(kind, getattr(config, "image_size", None)))
    note = (
        f"hf/{short} has no preprocessor_config.json: images are prepared as a {type(processor).__name__} does by default, at "
        "the size of the model"
    )
    return processor, (note,)


def _usual_size(kind: Any, side: Any) -> dict[str, Any]:
    """The arguments that give a processor a model's size, in the form that the processor has."""
    if not isinstance(side, int):
        return {}
    size = {"shortest_edge": side} if "shortest_edge" in (kind.size or {}) else {"height": side, "width": side}
    crop = {"crop_size": {"height": side, "width": side}} if getattr(kind, "crop_size", None) else {}
    return {"size": size, **crop}


def _sizes(processor: Any, name: str) -> dict[str, Any]:
    """The sizes to resize and to crop to, as arguments of ``Transform``."""
    if not processor.do_resize:
        raise BackboneError(f"{name} does not resize images (do_resize is false), which the network needs; {_REMEDY}")
    if getattr(processor, "do_pad", False):
        raise BackboneError(f"{name} pads images (do_pad), which featx does not; {_REMEDY}")
    size, crop = _given(processor.size), _given(processor.crop_size) if processor.do_center_crop else {}
    if set(size) == {"shortest_edge"}:
        side, fraction = size["shortest_edge"], getattr(processor, "crop_pct", None) or 1.0
        if "ConvNext" in type(processor).__name__:
            return {"resize": 0 if side >= _WARPED else int(side / fraction), "crop": side}
        side = int(256 / 224 * side) if "Levit" in type(processor).__name__ else int(side / fraction)
        if set(crop) != {"height", "width"}:
            raise BackboneError(f"{name} does not crop images (do_center_crop), which then differ in size; {_REMEDY}")
        if crop["height"] != crop["width"]:
            # a transform resizes to cover a rectangle of the shape of the crop, and a processor by the shorter edge
            raise BackboneError(
                f"{name} resizes to a shorter edge of {side} and crops {_shown(crop)} of it, which featx does not; {_REMEDY}"
            )
        return {"resize": side, "crop": crop["height"]}
    if set(size) != {"height", "width"}:
        raise BackboneError(
            f"{name} resizes by {', '.join(sorted(size)) or 'nothing'}, which featx does not; {_REMEDY}"
        )
    if crop in ({}, size):
        return {"resize": 0, "crop": size["height"], "crop_width": size["width"]}
    if size["height"] != size["width"] or len(set(crop.values())) != 1:
        raise BackboneError(
            f"{name} squashes images to {_shown(size)} pixels and crops {_shown(crop)} of them, which featx does not; {_REMEDY}"
        )
    return {"resize": size["height"], "crop": crop["height"], "fit": "squash"}


_WARPED = 384
"""The side from which on a ConvNextImageProcessor squashes images."""


def _given(size: Any) -> dict[str, int]:
    """The fields of a processor's size that are set."""
    return {key: int(value) for key, value in dict(size).items() if value}


def _shown(size: dict[str, int]) -> str:
    return f"{size['height']} x {size['width']}"


def _mean_and_std(processor: Any) -> tuple[Any, Any]:
    """The mean and deviation of pixels in 0 to 1 that give what a processor makes of levels of 0 to 255."""
    mean, std = [0.0] * 3, [1.0] * 3
    if processor.do_normalize:
        mean, std = _three(processor.image_mean), _three(processor.image_std)
    if getattr(processor, "rescale_offset", False):
        mean = [value + 1.0 for value in mean]
    if getattr(processor, "include_top", False):  # EfficientNet's processor divides by the deviation once more
        std = [value * value for value in std]
    factor = 255.0 * processor.rescale_factor if processor.do_rescale else 255.0
    if abs(factor - 1.0) > 1e-6:
        mean, std = [value / factor for value in mean], [value / factor for value in std]
    return tuple(mean), tuple(std)


def _three(values: Any) -> list[float]:
    listed = [float(values)] * 3 if isinstance(values, int | float) else [float(value) for value in values]
    return listed * 3 if len(listed) == 1 else listed


def _interpolation(processor: Any, name: str) -> str:
    code = int(processor.resample) if processor.resample is not None else 2
    if code not in _INTERPOLATIONS:
        raise BackboneError(f"{name} resizes by {_OTHER_FILTERS.get(code, code)}, which featx does not have; {_REMEDY}")
    return _INTERPOLATIONS[code]


def _require_equal(processor: Any, found: Preparation, name: str) -> None:
    """Compare a processor with its transform on an image that is larger than the crop and one that is smaller.

    Raises:
        BackboneError: they differ by more than rounding.
    """
    height, width = found.transform.size
    for size in ((2 * height, 3 * width + 7), (height, width // 2 + 1)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        try:
            batch = processor(images=[image], return_tensors="pt", input_data_format="channels_last")["pixel_values"]
        except Exception as error:  # each processor has code of its own
            raise BackboneError(f"{name} cannot prepare an image ({brief(error)})") from error
        own = _prepared(image, found)
        if tuple(batch.shape) != tuple(own.shape):
            raise BackboneError(f"{name} makes a tensor of shape {tuple(batch.shape)}; expected {tuple(own.shape)}")
        std = torch.tensor(found.transform.std[::-1] if found.swap_channels else found.transform.std).view(1, 3, 1, 1)
        most = float(((batch - own).abs() * std * 255).max())
        if not most <= LEVELS + 1e-3:
            steps = [key for key, value in vars(processor).items() if key.startswith("do_") and value]
            raise BackboneError(
                f"{name} gives other pixels than its configuration stands for, by up to {most:.0f} of 255 levels, so one of "
                f"its steps ({listed(steps)}) is not one that featx knows; {_REMEDY}"
            )


def _prepared(image: np.ndarray, found: Preparation) -> torch.Tensor:
    """What a network gets of an (H, W, 3) uint8 image: (1, 3, H, W) float32."""
    transform, packed = found.transform, np.zeros(image.shape[:2], np.uint32)
    channels(packed)[..., :3] = image
    pixels = cropped(resize_pixels(packed, resized_size(packed.shape, transform), transform), transform)
    batch = normalise(torch.from_numpy(pixels[None]), transform)
    return batch.flip(1) if found.swap_channels else batch
