"""Several backbones and a linear layer as one network: made of backbones, and built again from what a model's file states."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from featx.backbones.backbone import in_modules
from featx.backbones.embedder import Embedder, JointNetwork
from featx.backbones.feature_extractor import FeatureExtractor
from featx.backbones.joint import JointBackbone, Part
from featx.constants import JOINT
from featx.errors import PromotionError
from featx.layer_spec import PENULTIMATE, LayerSpec


def joint_network(backbone: JointBackbone) -> JointNetwork:
    """Copies of several backbones side by side, up to the layers whose features are taken, and a linear layer of one output.

    A last layer that no feature depends on is left out.

    Raises:
        PromotionError: a layer is no module of its network.
    """
    parts = [_embedder(part) for part in backbone.parts]
    return JointNetwork(backbone.transform.shapes, parts, sum(backbone.layer_widths.values())).eval()


def joint_origin(backbone: JointBackbone) -> dict[str, Any]:
    """What is needed to build the same network again, as a model's file states it."""
    return {
        "source": JOINT,
        "name": backbone.name,
        "parts": [
            {
                "origin": part.backbone.describe()["architecture"],
                "classifier": part.backbone.classifier,
                "layers": _in_modules(part),
                "keeps_last": _keeps_last(part),
                "precision": part.backbone.precision,
                "dtype": part.backbone.dtype,
                "shape": list(part.backbone.transform.shape),
                "width": part.width,
            }
            for part in backbone.parts
        ],
    }


def network_from(origin: Mapping[str, Any], modules: Sequence[nn.Module]) -> JointNetwork:
    """Build a joint network again, with whatever weights its parts have.

    Args:
        origin: from ``joint_origin``.
        modules: the whole network of each part.

    Raises:
        TypeError, ValueError, KeyError, AttributeError, BackboneError: the origin is not valid, or not that of the modules.
    """
    parts = []
    for part, module in zip(origin["parts"], modules, strict=True):
        classifier, layers = str(part["classifier"]), [str(layer) for layer in part["layers"]]
        if not part["keeps_last"]:
            module.set_submodule(classifier, nn.Identity())
        module.get_submodule(classifier)
        parts.append(
            Embedder(
                _extractor(module, str(part["origin"]["name"]), classifier, layers),
                layers, precision=str(part["precision"]), dtype=str(part["dtype"]),
            )
        )  # fmt: skip
    shapes = [tuple(map(int, part["shape"])) for part in origin["parts"]]
    if any(min(shape) < 1 or len(shape) != 3 or math.prod(shape) > 1 << 26 for shape in shapes):
        raise ValueError(f"its networks take images of {shapes}; expected (C, H, W)")
    return JointNetwork(shapes, parts, sum(int(part["width"]) for part in origin["parts"]))


def _embedder(part: Part) -> Embedder:
    network = copy.deepcopy(part.backbone.network)
    if not _keeps_last(part):
        network.set_submodule(part.backbone.classifier, nn.Identity())
    layers = _in_modules(part)
    extractor = _extractor(network, part.backbone.name, part.backbone.classifier, layers)
    return Embedder(extractor, layers, precision=part.backbone.precision, dtype=part.backbone.dtype)


def _extractor(network: nn.Module, name: str, classifier: str, layers: Sequence[str]) -> FeatureExtractor:
    modules = dict(network.named_modules())
    for layer in layers:
        node = layer.partition(":")[0]
        if node != PENULTIMATE and node not in modules:
            raise PromotionError(
                f"{node!r} is no module of {name}, so that a network of several backbones cannot read it; join features of "
                "modules, which featx backbones NAME --layers lists"
            )
    return FeatureExtractor(network, name=name, classifier=classifier, layers=layers, images=None)


def _in_modules(part: Part) -> list[str]:
    """The layers of a part by the names of modules, from which the network can be built again."""
    return list(LayerSpec.parse(in_modules(part.backbone, ",".join(part.layers))).layers)


def _keeps_last(part: Part) -> bool:
    """Whether a feature depends on the last layer of its network."""
    return part.layers != (PENULTIMATE,) and bool(part.backbone.after_last & set(part.layers))
