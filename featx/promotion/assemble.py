"""A head on its backbone as one network, and the proof that this network is the head."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from featx.backbones.backbone import Backbone, in_modules
from featx.backbones.embedder import JointNetwork
from featx.backbones.joint import JointBackbone
from featx.backbones.restored import restore_backbone
from featx.backbones.truncate import head_name
from featx.errors import HeadError, PromotionError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.layer_spec import LayerSpec
from featx.promotion.distributed import process_group
from featx.promotion.image_data import ImageData
from featx.promotion.joint_network import joint_network, joint_origin
from featx.promotion.model import end_at_layer, set_classifier
from featx.system import cores
from featx.text import counted

PROOF_IMAGES = 64
"""How many images, or views of images, the assembled network is compared with the head on."""

TOLERANCE = {"float32": 1e-3, "float16": 2e-2}
"""Largest difference between logits that counts as rounding, relative to the largest logit (or 1), by the features' dtype."""


@dataclass(frozen=True)
class Proof:
    """The comparison of the assembled network with the head.

    Attributes:
        largest: Largest absolute difference between a logit of the network and the head's.
        mean: Mean absolute difference.
        images: Number of images that were compared.
    """

    largest: float
    mean: float
    images: int


@dataclass(frozen=True, eq=False)
class Assembly:
    """A head and its backbone as one network, with the images that both are compared on.

    Attributes:
        head: The head that is promoted.
        backbone: The backbone that its features come from.
        data: The data set, with labels in the order of the head's classes.
        test_split: The split that the verdict falls on: "test", or "val" where there is no test split.
        network: The assembled network, which stays as it is: fine-tuning trains networks of its own.
    """

    head: Head
    backbone: Backbone
    data: ImageData
    test_split: str
    network: nn.Module

    @property
    def features(self) -> FeatureSet:
        """The features of the data set."""
        return self.data.features

    @property
    def classifier(self) -> str:
        """The name of the network's last layer."""
        return classifier_of(self.head.layer, self.backbone)

    @property
    def layer(self) -> str:
        """The layers and views of the head, by the names of modules: what the network alone can be cut off at."""
        return in_modules(self.backbone, self.head.layer_)

    def head_logits(self, head: Head, rows: np.ndarray) -> np.ndarray:
        """Return the (R, C) float64 logits of a head, from cached features in all views."""
        return head.decision_function(np.asarray(self.features.features[rows]))

    def network_logits(self, network: nn.Module, rows: np.ndarray) -> np.ndarray:
        """Return the (R, C) float64 logits of a network, from images in the views of the head."""
        return self.data.logits(network, rows, LayerSpec.parse(self.head.layer_).views)


def backbone_of(head: Head, *, name: str | None = None, weights: str | None = None, device: str = "auto") -> Backbone:
    """Build the backbone that a head's features come from, and check that it still gives the same features.

    Args:
        head: A fitted head.
        name: Backbone to build instead of the stored name; needed for ``file.py:factory``, since a stored path is never run.
        weights: Weights to load instead of the stored ones, where the file has moved.
        device: Device to run on: "auto", "cpu", "cuda", ...

    Raises:
        HeadError: The head's features were not extracted by featx and have no backbone.
        BackboneError: The backbone cannot be built.
        StaleCacheError: The backbone gives other features than the head was fitted to.
    """
    if not head.backbone_:
        raise HeadError(
            "the head's features were not extracted by featx, so there is no backbone to run images through"
        )
    return restore_backbone(
        head.backbone_, layers={head.layer_: head.identity_}, name=name, weights=weights, device=device
    )


def assemble(head: Head, features: FeatureSet, backbone: Backbone, workers: int | None = None) -> Assembly:
    """Move a head onto its backbone.

    Args:
        head: A fitted linear head.
        features: The features that it was fitted to, of the whole data set.
        backbone: From ``backbone_of``.
        workers: Threads that read and decode images; by default one per core, divided among the processes.

    Raises:
        HeadError: The head is not linear, the network cannot end at its layer, or there is no split to test on.
    """
    processes = process_group(backbone.device)
    index = {name: i for i, name in enumerate(head.names_)}
    head_labels = np.array([index.get(name, -1) for name in features.classes], dtype=np.int64)
    labels = np.where(features.labels >= 0, head_labels[features.labels], -1)
    workers = workers or max(1, cores() // processes.count)
    data = ImageData(features, labels, head.names_, backbone.transform, backbone.device, workers, processes)
    return Assembly(head, backbone, data, features.held_out(), network_of(head, backbone))


def network_of(head: Head, backbone: Backbone) -> nn.Module:
    """Return a new network that is a head on a copy of its backbone, on the backbone's device and in eval mode.

    Raises:
        HeadError: The head is not linear, or the network cannot end at its layer.
    """
    return network_with(head.layer, *head.as_linear(), backbone)


def network_with(layer: str, weight: np.ndarray, bias: np.ndarray, backbone: Backbone) -> nn.Module:
    """Return a new network that is a linear layer on a copy of a backbone, on the backbone's device and in eval mode.

    Args:
        layer: The layers whose features the linear layer takes, as in ``LayerSpec.parse``.
        weight: (C, D).
        bias: (C,).
        backbone: Whose network is copied.

    Raises:
        HeadError: The network cannot end at the layer.
    """
    classifier = classifier_of(layer, backbone)
    if isinstance(backbone, JointBackbone):
        joint = joint_network(backbone)
        set_classifier(joint, classifier, weight, bias)
        return joint.to(backbone.device).eval()
    layer = in_modules(backbone, layer)
    network = end_at_layer(
        layer, copy.deepcopy(backbone.network), weight.shape[1], classifier, images=backbone.transform.size
    )
    set_classifier(network, classifier, weight, bias)
    return network.to(backbone.device).eval()


def classifier_of(layer: str, backbone: Backbone) -> str:
    """The name of the last layer of the network that ``network_with`` makes."""
    if isinstance(backbone, JointBackbone):
        return JointNetwork.CLASSIFIER
    return head_name(in_modules(backbone, layer), backbone.classifier)


def origin_of(backbone: Backbone) -> dict[str, Any]:
    """What is needed to build a backbone's network again, as a model's file states it."""
    if isinstance(backbone, JointBackbone):
        return joint_origin(backbone)
    origin: dict[str, Any] = backbone.describe()["architecture"]
    return origin


def prove(assembly: Assembly) -> Proof:
    """Compare the logits of the assembled network with the head's, on images spread over the test split.

    Raises:
        PromotionError: They differ by more than rounding.
    """
    test = assembly.data.rows(assembly.test_split)
    count = min(-(-PROOF_IMAGES // assembly.features.views), len(test))
    rows = test[np.linspace(0, len(test) - 1, count).astype(int)]
    head_logits = assembly.head_logits(assembly.head, rows)
    differences = np.abs(assembly.network_logits(assembly.network, rows) - head_logits)
    allowed = TOLERANCE[assembly.backbone.dtype] * max(1.0, float(np.abs(head_logits).max()))
    if not differences.max() <= allowed:
        raise PromotionError(
            f"the assembled network's logits differ from the head's by up to {differences.max():.3g} on "
            f"{counted(len(rows), 'image')}; at most {allowed:.3g} is rounding. The network was not saved"
        )
    return Proof(float(differences.max()), float(differences.mean()), len(rows))
