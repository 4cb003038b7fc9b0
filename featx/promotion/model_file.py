"""The file of a promoted model: what it must hold besides the tensors of its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featx.constants import JOINT
from featx.heads.head_file import IDENTITY, KIND, ORIGIN, REPORT, SEARCHED
from featx.io.model_file import Schema
from featx.io.schema import (
    CLASSES,
    LAYER,
    NULL,
    NUMBER,
    OBJECT,
    SHARE,
    TEXT,
    TRANSFORM,
    ArraySpec,
    one_of,
    whole,
)
from featx.io.strict_json import shown
from featx.io.tensor_file import Tensor

TRAIN_KEYS = "featx.train_keys"
"""The array of content hashes of the training images, (n_train, 16) uint8."""

VALIDATION_KEYS = "featx.validation_keys"
"""The array of content hashes of the images that chose thresholds or the epoch, (m, 16) uint8, if there are such; all other
arrays are the network's own."""

_REPORT = {**REPORT, "accuracy": NUMBER}


def _classifier_fault(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Check the shape of the classifier's weights. The network is checked by running it before it is used."""
    name = f"{metadata['classifier']}.weight"
    tensor = tensors.get(name)
    if tensor is None:
        return f"there is no array {shown(name)}"
    expected = (len(metadata["classes"]), metadata["width"])
    if tensor.shape not in (expected, (*expected, 1, 1)):  # a linear layer, or a convolution of one pixel
        return f"array {shown(name)} is of shape {tensor.shape}; expected {expected}"
    return ""


MODEL = Schema(
    format="featx-model",
    version=2,
    command="promote",
    metadata={
        **ORIGIN,
        "classes": CLASSES,
        "name": TEXT,
        "origin": {"source": one_of("torchvision", "featx", "timm", "hf", "open_clip", "file", JOINT), "name": TEXT},
        "classifier": TEXT,
        "reject_below": (NULL, SHARE),
        "layer": LAYER,
        "width": whole(1),
        "transform": (TRANSFORM, {"parts": [TRANSFORM]}),
        "head": {"kind": KIND, "parameters": SEARCHED, "identity": IDENTITY},
        "verdict": one_of("assembled", "promoted", "kept-head"),
        "why": TEXT,
        "max_logit_difference": NUMBER,
        "head_report": _REPORT,
        "report": _REPORT,
        "log": [OBJECT],
        "settings": (NULL, OBJECT),
    },
    arrays=lambda metadata, names: {  # noqa: ARG005
        TRAIN_KEYS: ArraySpec("U8", "NK"),
        **({VALIDATION_KEYS: ArraySpec("U8", "VK")} if VALIDATION_KEYS in names else {}),
    },
    lengths=lambda metadata: {"N": metadata["n_train"], "K": 16},
    open_ended=True,
    tensor_fault=_classifier_fault,
)
"""What a promoted model's file must hold."""
