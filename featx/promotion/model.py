"""A promoted model: a network of backbone and head that classifies images, in memory and as a file."""

from __future__ import annotations

import copy
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featx.arguments import path_of
from featx.backbones import registry
from featx.backbones.pixels import normalise
from featx.backbones.replacements import replacements
from featx.backbones.truncate import truncate_network
from featx.backbones.weights import load_strictly, require_fit
from featx.constants import JOINT
from featx.data.joint_transform import AnyTransform, transform_from
from featx.data.transform import Transform
from featx.devices import full_float32, pick_device
from featx.errors import CorruptFileError, FeatxError, StaleCacheError
from featx.heads.conformal import Conformal
from featx.heads.postprocess import most_probable, softmax
from featx.heads.seen import NO_KEYS, SeenImages
from featx.heads.targets import place_of
from featx.heads.training_data import mean_over_views
from featx.identity import differences
from featx.io import model_file
from featx.io.outputs import require_replaceable
from featx.layer_spec import PENULTIMATE, LayerSpec, View
from featx.promotion.joint_network import network_from
from featx.promotion.model_file import MODEL, TRAIN_KEYS, VALIDATION_KEYS
from featx.text import printable


class PromotedModel:
    """A network of backbone and head that classifies images.

    ``promote`` makes it, ``save`` writes it and ``load`` reads it. ``predict_proba`` and ``decision_function`` take pixels
    where those of ``Head`` take features. B is a number of images, V of views, C of classes, (H, W) = ``transform.size``.

    Args:
        network: The network, from normalised images to logits; it is put in eval mode and moved to ``device``.
        transform: From the pixels of an image to those that the network takes.
        classes: C class names.
        metadata: Everything else that the file stores: backbone, data set, comparison with the head, verdict.
        seen: The images that the head was fitted to and the network trained on, and those that chose thresholds or the epoch.
        device: Device that the network runs on.

    Example:

        model = PromotedModel.load("models/photos--resnet50--logreg--promoted.safetensors")
        pixels = read_pixels(Path("new.jpg").read_bytes(), model.transform)  # featx.data.decode; (3, H, W) uint8
        p = model.predict_proba(pixels[None])[0]
        print(model.decide(p), p.max())
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        transform: AnyTransform,
        classes: Sequence[str],
        metadata: dict[str, Any],
        seen: SeenImages,
        device: torch.device,
    ) -> None:
        self.network = network.eval().to(device)
        self.transform = transform
        self.classes = tuple(classes)
        self.metadata = metadata
        self.seen = seen
        self.device = device

    def __repr__(self) -> str:
        return f"PromotedModel({self.metadata['name']!r}, {len(self.classes)} classes, {self.metadata['verdict']!r})"

    @property
    def views(self) -> tuple[View, ...]:
        """The views (test-time augmentation, TTA) that predictions average over: the head's."""
        return LayerSpec.parse(self.metadata["layer"]).views

    @property
    def commonest(self) -> int | None:
        """The commonest class of the training images; None in a file of an earlier version."""
        return place_of(self.metadata["head"].get("constant"), self.classes)

    @property
    def reject_below(self) -> float | None:
        """The probability below which the model predicts no class, as the head does; None predicts always."""
        below: float | None = self.metadata["reject_below"]
        return below

    @property
    def conformal_(self) -> Conformal | None:
        """What prediction sets follow from; None where the head had none, or the network was fine-tuned since."""
        facts = self.metadata.get("conformal")
        return None if facts is None else Conformal.of(facts, np.array(facts["thresholds"], dtype=np.float64))

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Return the network's logits.

        Args:
            pixels: (B, *transform.shape) uint8, RGB, resized and cropped by ``transform``.

        Returns:
            (B, C) float64.
        """
        return logits_of(self.network, torch.from_numpy(pixels).to(self.device), self.transform)

    def decision_function(self, pixels: np.ndarray) -> np.ndarray:
        """Return the logits, averaged over the views of each image.

        Args:
            pixels: (B, V, *transform.shape) uint8, each image in ``views``; or (B, *transform.shape), each in one view.

        Returns:
            (B, C) float64.
        """
        shape = self.transform.shape
        n_views = pixels.shape[1] if pixels.ndim == len(shape) + 2 else 1
        return mean_over_views(self.logits(pixels.reshape(-1, *pixels.shape[-len(shape) :])), n_views)

    def predict_proba(self, pixels: np.ndarray) -> np.ndarray:
        """Return class probabilities: the softmax of ``decision_function``.

        Args:
            pixels: as ``decision_function`` takes them.

        Returns:
            (B, C) float64; rows sum to 1.
        """
        return softmax(self.decision_function(pixels))

    def predict_values(self, pixels: np.ndarray) -> np.ndarray:
        """Return ``predict_proba(pixels)``: what ``predict`` and ``evaluate`` use for models and heads alike."""
        return self.predict_proba(pixels)

    def for_threads(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return a ``predict_values`` that several threads may call at once: each has its own copy of the network.

        The copies share the weights. A network may keep state in itself while it runs, so that the network itself would not do.
        None if the network is of the user's own code, or if a copy gives other values.
        """
        if any(each["source"] == "file" for each in _origins(self.metadata["origin"])):
            return None
        shared: dict[int, Any] = {id(each): each for each in (*self.network.parameters(), *self.network.buffers())}
        own, copying = threading.local(), threading.Lock()

        def predict_values(pixels: np.ndarray) -> np.ndarray:
            if not hasattr(own, "model"):
                with copying:
                    own.model = copy.copy(self)
                    own.model.network = copy.deepcopy(self.network, dict(shared)).eval()
            values: np.ndarray = own.model.predict_values(pixels)
            return values

        noise = np.random.default_rng(0).integers(0, 256, (1, len(self.views), *self.transform.shape), dtype=np.uint8)
        try:
            same = np.allclose(predict_values(noise), self.predict_values(noise), atol=1e-5, equal_nan=True)
        except (RuntimeError, TypeError, ValueError, AttributeError):  # what cannot be copied runs as it is
            return None
        return predict_values if same else None

    def decide(self, p: np.ndarray) -> str | None:
        """Return the most probable class of (C,) probabilities, or None if it is less probable than ``reject_below``."""
        return most_probable(p, self.classes, self.reject_below)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the network's tensors and the metadata as one .safetensors file.

        Tensors keep the names that the network gives them; names of featx's own arrays begin with ``featx.``.

        Raises:
            OutputError: The file cannot be written, or there is a file at the path that is not a promoted model.
            HeadError: The metadata cannot be stored.
        """
        require_replaceable(Path(path), MODEL.kind)
        model_file.write(Path(path), *self._contents(), MODEL)
        return Path(path)

    def require_savable(self, path: str | os.PathLike[str]) -> None:
        """Check that ``save`` would write a file that can be read again, without writing it.

        Raises:
            HeadError: The metadata cannot be stored.
        """
        model_file.pack(Path(path), *self._contents(), MODEL)

    def _contents(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}
        arrays[TRAIN_KEYS] = self.seen.train
        if len(self.seen.validation):
            arrays[VALIDATION_KEYS] = self.seen.validation
        return arrays, {**self.metadata, "classes": self.classes, "transform": self.transform.as_dict()}

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, backbone: str | None = None, device: str = "auto") -> PromotedModel:
        """Read a promoted model.

        Args:
            path: The file.
            backbone: ``file.py:factory``, where the network comes from such a file; a stored path is never run.
            device: Device to run on: "auto", "cpu", "cuda", ...

        Raises:
            CacheMissError: There is no such file.
            CorruptFileError: The file is not a valid model.
            BackboneError: The network cannot be built here.
            StaleCacheError: ``backbone`` is another network than the model's.
        """
        arrays, meta = model_file.read(Path(path_of(path, "path")), MODEL)
        try:
            seen = SeenImages(arrays.pop(TRAIN_KEYS), arrays.pop(VALIDATION_KEYS, NO_KEYS))
            state = {name: torch.from_numpy(array) for name, array in arrays.items()}
            transform = transform_from(meta["transform"])
            network = _user_network(backbone, meta, path) if backbone else _stored_network(meta, state, path)
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            if isinstance(error, FeatxError):
                raise
            raise CorruptFileError(f"{path} is not a valid model: {printable(str(error))}") from error
        network = _with_head(network, meta, path)
        load_strictly(network, state, origin=str(path))
        model = cls(
            network,
            transform=transform,
            classes=meta["classes"],
            metadata={k: v for k, v in meta.items() if k not in ("format", "version", "classes", "transform")},
            seen=seen,
            device=pick_device(device),
        )
        model._require_finite_logits(path)
        return model

    def _require_finite_logits(self, path: str | os.PathLike[str]) -> None:
        """Run the network once, so that one that cannot take its own images is refused before it gets any."""
        blank = np.zeros((1, *self.transform.shape), dtype=np.uint8)
        try:
            logits = self.logits(blank)
        except Exception as error:  # a network raises whatever its author's code raises
            raise CorruptFileError(f"{path} is not a valid model: it cannot be run: {_first_line(error)}") from error
        if logits.shape != (1, len(self.classes)) or not np.isfinite(logits).all():
            raise CorruptFileError(
                f"{path} is not a valid model: one image gives logits of shape {logits.shape}, or NaN; expected "
                f"{len(self.classes)} finite logits"
            )


def logits_of(network: nn.Module, pixels: Tensor, transform: AnyTransform) -> np.ndarray:
    """Run a network in the precision that features are computed in.

    Args:
        network: From normalised images to logits, in eval mode.
        pixels: (B, *transform.shape) uint8, on the network's device.
        transform: Gives the mean and deviation that pixels are normalised with.

    Returns:
        (B, C) float64.
    """
    with torch.inference_mode(), full_float32():
        logits: np.ndarray = network(normalise(pixels, transform)).cpu().double().numpy()  # MPS has no float64
    return logits


def end_at_layer(layer: str, network: nn.Module, width: int, classifier: str, *, images: tuple[int, int]) -> nn.Module:
    """Return a network whose last layer is a classifier of one output on the features of ``layer``.

    Args:
        layer: One layer or several, in any views, as ``LayerSpec.parse`` takes them. The penultimate layer alone leaves the
            network as it is.
        network: The backbone's network.
        width: D, the number of features.
        classifier: Name of the last layer.
        images: (H, W) of the images.

    Raises:
        HeadError: The network cannot end at the layer.
    """
    is_whole = LayerSpec.parse(layer).layers == (PENULTIMATE,)
    return network if is_whole else truncate_network(network.eval(), layer, width, classifier, images=images)


def set_classifier(network: nn.Module, classifier: str, weight: np.ndarray, bias: np.ndarray | None) -> None:
    """Replace a network's last layer.

    Args:
        network: Changed in place.
        classifier: Name of the last layer.
        weight: (C, D).
        bias: (C,); None leaves the bias as the new layer initialises it.
    """
    count, width = weight.shape
    old = network.get_submodule(classifier)
    new: nn.Linear | nn.Conv2d
    new = nn.Conv2d(width, count, 1) if isinstance(old, nn.Conv2d) else nn.Linear(width, count)
    with torch.no_grad():
        new.weight.copy_(torch.from_numpy(weight).reshape(new.weight.shape))
        if bias is not None and new.bias is not None:
            new.bias.copy_(torch.from_numpy(bias))
    network.set_submodule(classifier, new)
    models = sys.modules.get("torchvision.models")  # imported where the network is one of them
    if models is not None and isinstance(network, models.SqueezeNet):
        network.classifier[2] = nn.Identity()  # its ReLU between convolution and pooling would clip the head's logits


def _stored_network(meta: Mapping[str, Any], state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> nn.Module:
    """Build the architecture that a file names: first without memory, so that a small file never builds a large network."""
    with registry.parameters_on_meta():
        on_meta = _with_head(_rebuilt(meta["origin"]), meta, path)
    require_fit(on_meta, state, origin=str(path))
    return _rebuilt(meta["origin"])


def _origins(origin: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The origin of each network that a model is made of: itself, or the parts of several side by side."""
    return [part["origin"] for part in origin["parts"]] if origin["source"] == JOINT else [origin]


def _rebuilt(origin: Mapping[str, Any]) -> nn.Module:
    """Build the architecture of a stored origin with random weights."""
    modules = [registry.rebuild(each) for each in _origins(origin)]
    return network_from(origin, modules) if origin["source"] == JOINT else modules[0]


def _user_network(backbone: str, meta: Mapping[str, Any], path: str | os.PathLike[str]) -> nn.Module:
    """Build the network that the user names, and check that the model was made from it."""
    origins = _origins(meta["origin"])
    is_joint = meta["origin"]["source"] == JOINT
    named = replacements(backbone, [str(each["name"]) for each in origins], "--backbone") if is_joint else [backbone]
    modules = []
    for origin, name in zip(origins, named, strict=True):
        if name is None:
            modules.append(registry.rebuild(origin))
            continue
        built = registry.build(name, "random")
        if parts := differences(origin, built.origin):
            raise StaleCacheError(f"{path} was made from another network than {name} ({'; '.join(parts)})")
        modules.append(built.module)
    return network_from(meta["origin"], modules) if is_joint else modules[0]


def _with_head(network: nn.Module, meta: Mapping[str, Any], path: str | os.PathLike[str]) -> nn.Module:
    """Return the network up to the head's layer, with a blank head of the stored shape.

    Raises:
        CorruptFileError: The network has no such layer, or cannot end there.
    """
    try:
        transform = transform_from(meta["transform"])
        if isinstance(transform, Transform):
            network = end_at_layer(meta["layer"], network, meta["width"], meta["classifier"], images=transform.size)
        set_classifier(network, meta["classifier"], np.zeros((len(meta["classes"]), meta["width"])), None)
    except (TypeError, ValueError, AttributeError, KeyError) as error:  # of which HeadError is a ValueError
        raise CorruptFileError(f"{path} is not a valid model: {printable(str(error))}") from error
    return network


def _first_line(error: Exception) -> str:
    return printable((str(error) or type(error).__name__).splitlines()[0][:200])
