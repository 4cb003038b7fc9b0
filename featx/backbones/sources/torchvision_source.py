"""The classification models of torchvision, with its published weights and their transforms."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torchvision import models

from featx.backbones import weights as weight_files
from featx.backbones.sources.source import Network, Source, absolute_path, load_weights, no_such_network, seeded
from featx.data.transform import Transform
from featx.errors import BackboneError
from featx.system import why_unreadable


@functools.cache
def torchvision_names() -> tuple[str, ...]:
    """The name of every classification model of the installed torchvision."""
    return tuple(models.list_models(module=models))


class TorchvisionSource(Source):
    """The classification models of torchvision."""

    key = "torchvision"

    def accepts(self, name: str) -> bool:
        """Whether torchvision has a classification model of this name."""
        return name in torchvision_names()

    def names(self) -> Sequence[str]:
        """The names of torchvision's classification models."""
        return torchvision_names()

    def build(self, name: str, weights: str) -> Network:
        """Build a model of torchvision with published, random or local weights.

        Raises:
            BackboneError: there are no such weights, they cannot be downloaded, or they do not fit.
        """
        entries = models.get_model_weights(name)
        entry, file = _weights_entry(name, weights)
        if file is not None:
            weights = str(file)
        origin = {"source": self.key, "name": name}
        image_size = None
        if name.startswith("vit_"):
            # A vision transformer has a position embedding for each patch, so its architecture depends on its weights.
            image_size = entry.meta["min_size"][0]
            if image_size != entries.DEFAULT.meta["min_size"][0]:
                origin["image_size"] = str(image_size)
        module = seeded(functools.partial(_build_module, name, image_size, initialise=weights == "random"))
        if weights != "random":
            load_weights(module, file or weight_files.fetch(entry.url))
        return Network(module, _transform(entry), None, origin, weights)

    def rebuild(self, origin: Mapping[str, str]) -> nn.Module:
        """Build the architecture of a stored origin with random weights.

        Raises:
            BackboneError: torchvision has no such model, or cannot build it for the stored image size.
        """
        name = origin["name"]
        if not self.accepts(name):
            raise no_such_network(origin)
        size = origin.get("image_size", "224")
        try:
            if not re.fullmatch("[1-9][0-9]{0,4}", size):
                raise ValueError(size)
            return seeded(functools.partial(_build_module, name, int(size) if "image_size" in origin else None))
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise BackboneError(f"{name} cannot be built for images of {size!r} pixels") from error

    def has_local_weights(self, name: str) -> bool:
        """Whether torch.hub's folder holds the default weights of a model."""
        return weight_files.cached_path(models.get_model_weights(name).DEFAULT.url).exists()

    def published_top1(self, name: str, weights: str) -> float | None:
        """The ImageNet-1k top-1 accuracy in % of published weights, or None for other weights.

        Args:
            name: the name of a model.
            weights: as in ``Network.weights``. A file counts as published if it has the name of a published file.
        """
        entries = models.get_model_weights(name)
        files = {Path(entry.url).name: entry for entry in entries}
        entry = {**files, **entries.__members__, "default": entries.DEFAULT}.get(Path(weights).name)
        top1: float | None = None if entry is None else entry.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        return top1


def _weights_entry(name: str, weights: str) -> tuple[Any, Path | None]:
    """The entry of torchvision's weights whose transform applies, and the local file of the weights if one is named."""
    entries = models.get_model_weights(name)
    if weights in entries.__members__:
        return entries[weights], None
    if weights in ("default", "random"):
        return entries.DEFAULT, None
    file = absolute_path(weights)
    if not file.suffix and why_unreadable(file):
        raise BackboneError(
            f"{name} has no weights {weights!r}, only {', '.join(e.name for e in entries)}; nor is it a file"
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
        options = {"image_size": image_size or models.get_model_weights(name).DEFAULT.meta["min_size"][0]}
    module: nn.Module = models.get_model(name, weights=None, **options)
    return module


def _transform(entry: Any) -> Transform:
    preset = entry.transforms()
    return Transform(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )
