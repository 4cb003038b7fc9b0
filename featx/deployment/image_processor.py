"""preprocessor_config.json: how an image processor of transformers prepares images as a transform does."""

from __future__ import annotations

from typing import Any

from featx.data.transform import Transform

_RESAMPLE = {"nearest": 0, "bilinear": 2, "bicubic": 3}
"""The interpolations by Pillow's numbers."""


def processor_config(transform: Transform, *, timm: bool = False, swap_channels: bool = False) -> dict[str, Any] | None:
    """The fields of an image processor.

    Args:
        transform: how featx prepares images.
        timm: whether the network is loaded by transformers' wrapper of timm, whose processor is timm's own.
        swap_channels: whether the network takes B, G, R.

    Returns:
        The content of preprocessor_config.json; None where no processor of transformers has these steps: images that are
        padded to the shape of the crop, a crop that is no square, or another number of channels than 3.

    Examples:
        >>> found = processor_config(Transform(resize=256, crop=224))
        >>> found["image_processor_type"], found["size"], found["crop_size"]
        ('CLIPImageProcessor', {'shortest_edge': 256}, {'height': 224, 'width': 224})
    """
    height, width = transform.size
    squashed, square = transform.fitting == "squash", height == width
    if transform.channels != 3 or transform.fitting == "pad" or not (square or (squashed and not transform.resize)):
        return None
    crop = {"height": height, "width": width}
    resize = {"height": transform.target[0], "width": transform.target[1]}
    cuts = not squashed or resize != crop
    kind = "CLIPImageProcessor" if cuts else "ViTImageProcessor"
    if swap_channels:
        kind = "MobileViTImageProcessor"
    return {
        "image_processor_type": "TimmWrapperImageProcessor" if timm else kind,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": resize if squashed else {"shortest_edge": transform.resize},
        "resample": _RESAMPLE[transform.interpolation],
        "do_center_crop": cuts,
        **({"crop_size": crop} if cuts else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(transform.mean),
        "image_std": list(transform.std),
        **({"do_flip_channel_order": True} if swap_channels else {}),
    }
