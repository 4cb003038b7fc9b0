"""A model's network as the library that it is from builds and loads it: tensors by the library's names, and config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featx.backbones.feature_extractor import pool
from featx.backbones.pixels import normalise
from featx.data.joint_transform import AnyTransform
from featx.data.transform import Transform
from featx.devices import full_float32
from featx.errors import HeadError, PromotionError
from featx.heads.postprocess import sigmoid, softmax
from featx.heads.predictors import LinearPredictor
from featx.inference import HeadOnBackbone, Model
from featx.layer_spec import PENULTIMATE, LayerNode, LayerSpec
from featx.promotion.assemble import classifier_of, network_with, origin_of

LOGITS, FEATURES, NOTHING = "logits", "features", ""
"""What a library's network gives: the scores of the model; the features that its head takes; or it cannot build the network."""

_CLOSE = 2e-4
"""The largest difference, relative to the largest number, that is the rounding of another order of the same arithmetic."""


@dataclass(frozen=True, eq=False)
class OwnNetwork:
    """The network of a model, with the head as its last layer where it can be one.

    Attributes:
        network: from normalised images to logits; without a head, as its backbone has it.
        classifier: the name of its last layer.
        has_head: whether the last layer is the head.
        origin: how its source builds the architecture.
        transform: how an image becomes its input.
        inner: whether the head is on other layers than the penultimate, so that the network ends there.
        classes: names of the C classes or labels; of a regression "value".
        task: "classification", "multilabel" or "regression".
    """

    network: nn.Module
    classifier: str
    has_head: bool
    origin: Mapping[str, Any]
    transform: AnyTransform
    inner: bool
    classes: tuple[str, ...]
    task: str

    @classmethod
    def of(cls, model: Model) -> OwnNetwork:
        """Put a model's head on a copy of its network, if it is linear and the network can end at its layer."""
        if not isinstance(model, HeadOnBackbone):
            meta = model.metadata
            inner = LayerSpec.parse(meta["layer"]).layers != (PENULTIMATE,)
            return cls(model.network, meta["classifier"], True, meta["origin"], model.transform, inner, model.classes,
                       "classification")  # fmt: skip
        head, backbone = model.head, model.backbone
        inner = LayerSpec.parse(head.layer_).layers != (PENULTIMATE,)
        network, classifier, linear = backbone.network, backbone.classifier, last_layer_of(model)
        if linear is not None:
            try:
                network = network_with(head.layer, *linear, backbone)
                classifier = classifier_of(head.layer, backbone)
            except (HeadError, PromotionError):  # the network cannot end at these layers
                linear = None
        origin = origin_of(backbone)
        return cls(network, classifier, linear is not None, origin, backbone.transform, inner, head.names_, head.task_)

    def tensors(self, *, with_classifier: bool = True) -> dict[str, Tensor]:
        """The network's tensors by its own names, with or without those of the last layer."""
        state = self.network.state_dict()
        beginning = f"{self.classifier}."
        return {name: tensor for name, tensor in state.items() if with_classifier or not name.startswith(beginning)}

    def logits(self, images: Tensor) -> Tensor:
        """(B, C) of normalised images."""
        with torch.inference_mode(), full_float32():
            out: Tensor = self.network(images)
        return out

    def features(self, images: Tensor) -> Tensor:
        """(B, D), what enters the last layer for normalised images, pooled."""
        seen: list[Tensor] = []
        hook = self.network.get_submodule(self.classifier).register_forward_pre_hook(
            lambda _, args: seen.append(args[0])
        )
        try:
            self.logits(images)
        finally:
            hook.remove()
        with torch.inference_mode():
            size = self.transform.size if isinstance(self.transform, Transform) else (1, 1)
            return pool(LayerNode(PENULTIMATE), seen[-1], size)

    def samples(self) -> Tensor:
        """(2, C, h, w) float32, normalised images of noise that two networks can be compared on."""
        noise = np.random.default_rng(0).integers(0, 256, (2, *self.transform.shape), dtype=np.uint8)
        return normalise(torch.from_numpy(noise), self.transform)

    def probabilities(self, views: np.ndarray) -> np.ndarray:
        """(C,) float64, what follows from the logits of one image in its (V, C, h, w) uint8 views: the mean over them."""
        logits = self.logits(normalise(torch.from_numpy(views), self.transform)).double().numpy().mean(axis=0)[None]
        kind = {"classification": softmax, "multilabel": sigmoid}.get(self.task)
        found: np.ndarray = kind(logits)[0] if kind else logits[0]
        return found


@dataclass(frozen=True, eq=False)
class LibraryNetwork:
    """A network as a library loads it.

    Attributes:
        library: its name, such as "timm"; "featx" where no other library builds the network.
        gives: ``LOGITS``, ``FEATURES`` or ``NOTHING``.
        tensors: by the library's names.
        config: the content of config.json.
        usage: lines of Python that load the network from the folder ``FOLDER`` and run it on ``images``, for the model card.
        notes: what to know, one sentence each.
    """

    library: str
    gives: str
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    usage: str = ""
    notes: tuple[str, ...] = field(default=())


def last_layer_of(model: HeadOnBackbone) -> tuple[np.ndarray, np.ndarray] | None:
    """A head as weights (C, D) and biases (C,) that give its logits, or the numbers of a regression; None if it is not linear.

    Standardisation, temperature and offset are folded into them.
    """
    head = model.head
    if not isinstance(head.predictor_, LinearPredictor) or head.isotonic_ is not None:
        return None
    weight = head.predictor_.weight / head.scale_ / head.temperature_
    return weight, head.predictor_.bias / head.temperature_ - head.offset_ - weight @ head.mean_


def is_close(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors hold the same numbers but for rounding."""
    if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
        return False
    largest = max(1.0, float(expected.abs().max()))
    return bool((found.double() - expected.double()).abs().max() <= _CLOSE * largest)


def fits(own: OwnNetwork, gives: str, run: Callable[[Tensor], Tensor]) -> bool:
    """Whether a library's network, loaded from a model's tensors, gives what the model's network gives."""
    images = own.samples()
    expected = own.logits(images) if gives == LOGITS else own.features(images)
    with torch.inference_mode(), full_float32():
        found = run(images)
    return is_close(found.flatten(1), expected.flatten(1))


def possible(own: OwnNetwork) -> tuple[str, ...]:
    """What a library's network may give, the best first; nothing for a network that ends at inner layers."""
    if own.inner:
        return ()
    return (LOGITS, FEATURES) if own.has_head else (FEATURES,)


def own_network(own: OwnNetwork, why: str = "") -> LibraryNetwork:
    """A network that no library builds: its tensors by its own names, and how featx builds it."""
    tensors = own.tensors(with_classifier=own.has_head)
    gives = "the model's own scores" if own.has_head else "features alone; the head is in head.safetensors"
    config = {
        "library_name": "featx",
        "network": _architecture(own.origin),
        "num_classes": len(own.classes),
        "gives": gives,
    }
    return LibraryNetwork("featx", NOTHING, tensors, config, notes=(why,) if why else ())


def _architecture(origin: Mapping[str, Any]) -> dict[str, Any]:
    """How a network is built, without what is of no use elsewhere."""
    kept = {name: value for name, value in origin.items() if name not in ("config", "code_sha256")}
    if "parts" in kept:
        kept["parts"] = [{**part, "origin": _architecture(part["origin"])} for part in kept["parts"]]
    return kept
