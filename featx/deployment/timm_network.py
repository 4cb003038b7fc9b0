"""A network of timm as timm builds it, and its config.json, which transformers reads too."""

from __future__ import annotations

import math
from typing import Any

from featx.data.transform import Transform
from featx.deployment.library_network import LOGITS, LibraryNetwork, OwnNetwork, fits, possible

_KEPT = ("first_conv", "classifier", "pool_size", "fixed_input_size")
"""Fields of a model's own configuration that describe its architecture."""


def timm_network(own: OwnNetwork) -> LibraryNetwork | None:
    """A network as ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads it; None if timm does not build it so."""
    import timm

    architecture = own.origin["name"].removeprefix("timm/").partition(".")[0]
    arguments: dict[str, Any] = {}
    if "in_chans" in own.origin:
        arguments["in_chans"] = int(own.origin["in_chans"])
    if "image_size" in own.origin:
        arguments["img_size"] = list(_transform(own).size)
    for gives in possible(own):
        count = len(own.classes) if gives == LOGITS else 0
        tensors = own.tensors(with_classifier=gives == LOGITS)
        try:
            module = timm.create_model(architecture, pretrained=False, num_classes=count, **arguments).eval()
            module.load_state_dict(tensors)
            if not fits(own, gives, module):
                continue
        except Exception:  # each model has code of its own, and another network is the answer to all of its errors
            continue
        return _described(own, gives, tensors, module, architecture, arguments)
    return None


def _transform(own: OwnNetwork) -> Transform:
    assert isinstance(own.transform, Transform)  # several networks side by side are none of timm's
    return own.transform


def data_config(transform: Transform) -> dict[str, Any]:
    """How timm prepares images as a transform does: the fields of its data configuration.

    Examples:
        >>> found = data_config(Transform(resize=256, crop=224))
        >>> found["input_size"], found["crop_pct"], found["crop_mode"]
        ([3, 224, 224], 0.875, 'center')
    """
    side = min(transform.size)
    return {
        "input_size": list(transform.shape),
        "interpolation": transform.interpolation,
        "crop_pct": _crop_pct(side, transform.resize or side),
        "crop_mode": {"pad": "border", "squash": "squash"}.get(transform.fitting, "center"),
        "mean": list(transform.mean),
        "std": list(transform.std),
    }


def _crop_pct(side: int, resize: int) -> float:
    """The share of an image that the crop takes, as timm divides by it and rounds down."""
    share = side / resize
    near = (share, math.nextafter(share, 0), math.nextafter(share, 2 * share))
    return next((each for each in near if math.floor(side / each) == resize), share)


def _described(
    own: OwnNetwork, gives: str, tensors: dict[str, Any], module: Any, architecture: str, arguments: dict[str, Any]
) -> LibraryNetwork:
    count = len(own.classes) if gives == LOGITS else 0
    known = module.pretrained_cfg
    config: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": count,
        "num_features": module.num_features,
        **({"label_names": list(own.classes)} if count else {}),
        **({"model_args": arguments} if arguments else {}),
        **({"problem_type": _PROBLEMS[own.task]} if count else {}),
        "pretrained_cfg": {
            "tag": "featx",
            "custom_load": False,
            "num_classes": count,
            **data_config(_transform(own)),
            **{key: known[key] for key in _KEPT if known.get(key) is not None},
        },
    }
    usage = (
        'import timm\n\nnetwork = timm.create_model("local-dir:FOLDER", pretrained=True).eval()\n'
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))\n"
    )
    return LibraryNetwork("timm", gives, tensors, config, usage)


_PROBLEMS = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
"""The tasks by their names in transformers."""
