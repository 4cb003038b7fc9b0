"""The classification models of torchvision, with its published weights and their transforms."""

from __future__ import annotations

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from featx.backbones import weights as weight_files
from featx.backbones.checkpoint import split_part
from featx.backbones.sources.source import (
    ImageSize,
    Network,
    Source,
    absolute_path,
    last_layer,
    load_weights,
    no_such_network,
    resized_note,
    seeded,
    stored_size,
)
from featx.data.transform import Transform, sides_text
from featx.errors import BackboneError
from featx.system import MISSING, why_unreadable
from featx.text import brief


def _models() -> Any:
    """The models of torchvision, which takes longer to import than torch: only where a network may be one of them."""
    from torchvision import models

    return models


@functools.cache
def torchvision_names() -> tuple[str, ...]:
    """The name of every classification model of the installed torchvision."""
    return tuple(_models().list_models(module=_models()))


class TorchvisionSource(Source):
    """The classification models of torchvision."""

    key = "torchvision"

    def accepts(self, name: str) -> bool:
        """Whether torchvision has a classification model of this name."""
        return name in torchvision_names()

    def names(self) -> Sequence[str]:
        """The names of torchvision's classification models."""
        return torchvision_names()

    def build(self, name: str, weights: str, image_size: ImageSize | None = None) -> Network:
        """Build a model of torchvision with published, random or local weights.

        Raises:
            BackboneError: there are no such weights, they cannot be downloaded, or they do not fit; or the model cannot be
                built for images of this size.
        """
        entry, file = _weights_entry(name, weights)
        transform, notes = _transform(entry), tuple[str, ...]()
        native = entry.meta["min_size"][0] if _takes_one_size(name) else None
        module = seeded(functools.partial(_build_module, name, native, initialise=weights == "random"))
        classifier = last_layer(module)
        if file is not None:
            try:
                weights, notes = load_weights(module, weights, transform, classifier, name=name)
            except BackboneError:
                size = _side(name, image_size) if native else None
                if native is None or size is None:
                    raise
                if size != native:
                    native, module = size, _for_size(name, module, size)  # the file may be for that size
                adapted = functools.partial(_interpolated, size=size)
                weights, notes = load_weights(module, weights, transform, classifier, name=name, convert=adapted)
        elif weights != "random":
            load_weights(module, weight_files.fetch(entry.url), transform, classifier)
        origin = {"source": self.key, "name": name}
        if native:
            size = _side(name, image_size) or native
            if size != native:
                module = _for_size(name, module, size)
                notes += (resized_note(name, native, size),)
            if size != _usual_size(name):  # the architecture depends on it
                origin["image_size"] = str(size)
        return Network(module, transform, classifier, origin, weights, notes)

    def rebuild(self, origin: Mapping[str, str]) -> nn.Module:
        """Build the architecture of a stored origin with random weights.

        Raises:
            BackboneError: torchvision has no such model, or cannot build it for the stored image size.
        """
        name = origin["name"]
        if not self.accepts(name):
            raise no_such_network(origin)
        size = _side(name, stored_size(origin))
        with _as_size_errors(name, size):
            return seeded(functools.partial(_build_module, name, size))

    def has_local_weights(self, name: str) -> bool:
        """Whether torch.hub's folder holds the default weights of a model."""
        return weight_files.cached_path(_models().get_model_weights(name).DEFAULT.url).exists()

    def published_top1(self, name: str, weights: str) -> float | None:
        """The ImageNet-1k top-1 accuracy in % of published weights, or None for other weights.

        Args:
            name: the name of a model.
            weights: as in ``Network.weights``. A file counts as published if it has the name of a published file.
        """
        entries = _models().get_model_weights(name)
        files = {Path(entry.url).name: entry for entry in entries}
        entry = {**files, **entries.__members__, "default": entries.DEFAULT}.get(Path(weights).name)
        top1: float | None = None if entry is None else entry.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        return top1


def _weights_entry(name: str, weights: str) -> tuple[Any, Path | None]:
    """The entry of torchvision's weights whose transform applies, and the local file of the weights if one is named."""
    entries = _models().get_model_weights(name)
    if weights in entries.__members__:
        return entries[weights], None
    if weights in ("default", "random"):
        return entries.DEFAULT, None
    file = absolute_path(split_part(weights)[0])
    if not file.suffix and why_unreadable(file) == MISSING:
        raise BackboneError(
            f"{name} has no weights {weights!r}, only {', '.join(e.name for e in entries)}; nor is it a file or a folder"
        )
    # A file that torchvision published brings its own transform: those of V1 and V2 of ResNet-50 differ.
    return next((e for e in entries if Path(e.url).name == file.name), entries.DEFAULT), file


def _build_module(name: str, image_size: int | None = None, *, initialise: bool = False) -> nn.Module:
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # The published weights expect transform_input. The auxiliary heads only serve training from scratch.
        # These models initialise themselves slowly, which is pointless where weights are loaded afterwards.
        options = {"init_weights": initialise, "transform_input": True, "aux_logits": False}
    elif name.startswith("vit_"):
        options = {"image_size": image_size or _usual_size(name)}
    elif name.startswith("maxvit_"):
        options = {"input_size": (image_size or _usual_size(name),) * 2}
    module: nn.Module = _models().get_model(name, weights=None, **options)
    return module


def _takes_one_size(name: str) -> bool:
    """Whether a model is built for images of one size: position embeddings and windows depend on it."""
    return name.startswith(("vit_", "maxvit_"))


def _side(name: str, size: ImageSize | None) -> int | None:
    """The side of the images of a model that is built for one size.

    Raises:
        BackboneError: they are no squares.
    """
    if size is None or isinstance(size, int):
        return size
    if size[0] != size[1]:
        raise BackboneError(
            f"{name} is built for square images, not for {sides_text(size)} pixels; vision transformers of timm take other "
            "shapes"
        )
    return size[0]


def _usual_size(name: str) -> int:
    size: int = _models().get_model_weights(name).DEFAULT.meta["min_size"][0]
    return size


def _for_size(name: str, module: nn.Module, size: int) -> nn.Module:
    """The same model for images of another size; the position embeddings of a vision transformer are interpolated."""
    with _as_size_errors(name, size):
        resized = seeded(functools.partial(_build_module, name, size))
        state = module.state_dict()
        if isinstance(module, _models().VisionTransformer):
            state = _models().vision_transformer.interpolate_embeddings(size, module.patch_size, state)
        weight_files.copy_into(resized, state, strict=True)
    return resized


def _interpolated(state: dict[str, Tensor], module: nn.Module, *, size: int) -> Mapping[str, Tensor]:
    """The tensors of a vision transformer for images of another size, with interpolated position embeddings."""
    if not isinstance(module, _models().VisionTransformer):
        return {}
    interpolate = _models().vision_transformer.interpolate_embeddings
    adapted: Mapping[str, Tensor] = interpolate(size, module.patch_size, OrderedDict(state))
    return adapted


@contextlib.contextmanager
def _as_size_errors(name: str, size: int | None) -> Iterator[None]:
    try:
        yield
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        hint = (
            f"; the size may be {_usual_size(name)}, or another multiple of {_step(name)}"
            if _takes_one_size(name)
            else ""
        )
        raise BackboneError(f"{name} cannot be built for images of {size} pixels ({brief(error)}){hint}") from error


def _step(name: str) -> int:
    """The sides that a model can be built for are the multiples of this: of the patches, or of all windows of MaxViT."""
    return 224 if name.startswith("maxvit_") else int(name.rpartition("_")[2])


def _transform(entry: Any) -> Transform:
    preset = entry.transforms()
    return Transform(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )
