"""A whole network that classifies pixels, backbone and head in one: in memory and as a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import SqueezeNet

from featx.backbones import registry
from featx.backbones.backbone import normalise
from featx.backbones.truncate import truncated
from featx.backbones.weights import load_strictly, require_fit
from featx.data.transform import Transform
from featx.devices import full_float32, pick_device
from featx.errors import CorruptFileError, FeatxError, HeadError, StaleCacheError
from featx.heads.postprocess import most_probable, softmax
from featx.heads.training_data import mean_over_views
from featx.identity import differences
from featx.io import model_file
from featx.layer_spec import PENULTIMATE, LayerSpec, View
from featx.promotion.model_file import MODEL, TRAIN_KEYS
from featx.text import printable


class PromotedModel:
    """A whole network that classifies pixels: backbone and head in one.

    Attributes:
        network: in eval mode.
        transform: from an image's pixels to its input.
        classes: (C,) names.
        metadata: what its file says of it: backbone, data set, comparison, verdict.
        train_keys: (n, 16) uint8, content hashes of the images it was trained on.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        transform: Transform,
        classes: Sequence[str],
        metadata: dict[str, Any],
        train_keys: np.ndarray,
        device: torch.device,
    ) -> None:
        self.network = network.eval().to(device)
        self.transform = transform
        self.classes = tuple(classes)
        self.metadata = metadata
        self.train_keys = train_keys
        self.device = device

    @property
    def reject_below(self) -> float | None:
        """The probability below which nothing is said, as the head had it; or None."""
        below: float | None = self.metadata["reject_below"]
        return below

    def decide(self, p: np.ndarray) -> str | None:
        """The class of (C,) probabilities; None where it is not probable enough."""
        return most_probable(p, self.classes, self.reject_below)

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """(B, 3, H, W) uint8 to (B, C) float64."""
        return logits_of(self.network, torch.from_numpy(pixels).to(self.device), self.transform)

    @property
    def views(self) -> tuple[View, ...]:
        """In which each image is seen: those of the head."""
        return LayerSpec.parse(self.metadata["layer"]).views

    def predict_values(self, pixels: np.ndarray) -> np.ndarray:
        """(B, V, 3, H, W) uint8, each image in ``views``, to (B, C) float64 probabilities of the mean logits; rows sum to 1."""
        logits = self.logits(pixels.reshape(-1, *pixels.shape[2:]))
        return softmax(mean_over_views(logits, pixels.shape[1]))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the network's tensors and the metadata as one .safetensors file.

        The tensors keep the network's own names; featx's own begin with ``featx.``.

        Raises:
            OutputError: the file cannot be written.
        """
        model_file.write(Path(path), *self._contents(), MODEL)
        return Path(path)

    def require_savable(self, path: str | os.PathLike[str]) -> None:
        """Raises HeadError unless ``save`` would give a file that can be read again."""
        model_file.pack(Path(path), *self._contents(), MODEL)

    def _contents(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}
        arrays[TRAIN_KEYS] = self.train_keys
        return arrays, {**self.metadata, "classes": self.classes, "transform": self.transform.as_dict()}

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, backbone: str | None = None, device: str = "auto") -> PromotedModel:
        """Read a promoted model.

        Args:
            path: the file.
            backbone: ``file.py:factory`` where the network is a file of one's own; a stored path is never run.
            device: as ``load_backbone``.

        Raises:
            ModelNotFoundError, CorruptFileError: no such file, or not a sound one.
            BackboneError: the network cannot be built here.
            StaleCacheError: ``backbone`` is another network than the model's.
        """
        arrays, meta = model_file.read(Path(path), MODEL)
        try:
            train_keys = arrays.pop(TRAIN_KEYS)
            state = {name: torch.from_numpy(array) for name, array in arrays.items()}
            transform = Transform.from_dict(meta["transform"])
            network = _own_network(backbone, meta, path) if backbone else _stored_network(meta, state, path)
            network = ending_at(meta["layer"], network, meta["width"], meta["classifier"])
            set_last_layer(network, meta["classifier"], np.zeros((len(meta["classes"]), meta["width"])), None)
        except HeadError as error:  # its network has no such layer to end at
            raise CorruptFileError(f"{path} is no sound model: {printable(str(error))}") from error
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, FeatxError):
                raise
            raise CorruptFileError(f"{path} is no sound model: {printable(str(error))}") from error
        load_strictly(network, state, origin=str(path))
        model = cls(
            network,
            transform=transform,
            classes=meta["classes"],
            metadata={k: v for k, v in meta.items() if k not in ("format", "version", "classes", "transform")},
            train_keys=train_keys,
            device=pick_device(device),
        )
        model._require_logits(path)
        return model

    def _require_logits(self, path: str | os.PathLike[str]) -> None:
        """Run once, so that a network that cannot take its own images is refused before it meets any."""
        blank = np.zeros((1, 3, self.transform.crop, self.transform.crop), dtype=np.uint8)
        try:
            logits = self.logits(blank)
        except Exception as error:  # a network raises whatever its author wrote
            raise CorruptFileError(f"{path} is no sound model: it cannot be run: {_first_line(error)}") from error
        if logits.shape != (1, len(self.classes)) or not np.isfinite(logits).all():
            raise CorruptFileError(
                f"{path} is no sound model: of shape {logits.shape}, or NaN, where {len(self.classes)} logits should be"
            )


def logits_of(network: nn.Module, pixels: Tensor, transform: Transform) -> np.ndarray:
    """(B, 3, H, W) uint8 on the network's device to (B, C) float64, in the precision that features are computed in."""
    with torch.inference_mode(), full_float32():
        logits: np.ndarray = network(normalise(pixels, transform)).cpu().double().numpy()  # MPS has no float64
    return logits


def _stored_network(meta: Mapping[str, Any], state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> nn.Module:
    """The architecture that a model's file names. Built without memory first: a small file shall not make a large network."""
    with registry.without_memory():
        hollow = ending_at(meta["layer"], registry.blank(meta["origin"]), meta["width"], meta["classifier"])
        set_last_layer(hollow, meta["classifier"], np.zeros((len(meta["classes"]), meta["width"])), None)
    require_fit(hollow, state, origin=str(path))
    return registry.blank(meta["origin"])


def _own_network(backbone: str, meta: Mapping[str, Any], path: str | os.PathLike[str]) -> nn.Module:
    """The network that the user names, if it is the one that the model was made of."""
    built = registry.build(backbone, "random")
    parts = differences(meta["origin"], built.origin)
    if parts:
        raise StaleCacheError(f"{path} was made of another network than {backbone} ({'; '.join(parts)})")
    return built.module


def _first_line(error: Exception) -> str:
    return printable((str(error) or type(error).__name__).splitlines()[0][:200])


def ending_at(layer: str, network: nn.Module, width: int, classifier: str) -> nn.Module:
    """The network, whole where its penultimate layer alone is asked for, however that is seen; else ``truncated``."""
    whole = LayerSpec.parse(layer).layers == (PENULTIMATE,)
    return network if whole else truncated(network.eval(), layer, width, classifier)


def set_last_layer(network: nn.Module, classifier: str, weight: np.ndarray, bias: np.ndarray | None) -> None:
    """Put (C, D) weights and (C,) biases in the place of a network's classifier layer."""
    count, width = weight.shape
    old = network.get_submodule(classifier)
    new: nn.Linear | nn.Conv2d
    new = nn.Conv2d(width, count, 1) if isinstance(old, nn.Conv2d) else nn.Linear(width, count)
    with torch.no_grad():
        new.weight.copy_(torch.from_numpy(weight).reshape(new.weight.shape))
        if bias is not None and new.bias is not None:
            new.bias.copy_(torch.from_numpy(bias))
    network.set_submodule(classifier, new)
    if isinstance(network, SqueezeNet):
        network.classifier[2] = nn.Identity()  # its ReLU between convolution and pooling would clip the head's logits
