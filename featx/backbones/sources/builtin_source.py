"""The architectures that featx implements itself: LeNet-5, with embedded weights, and MobileNet v1."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from importlib import resources

from torch import nn

from featx.backbones.architectures import LeNet5, MobileNetV1
from featx.backbones.sources.source import ImageSize, Network, Source, load_local_weights, load_weights, seeded
from featx.data.transform import Transform
from featx.errors import BackboneError

EMBEDDED_WEIGHTS = {"lenet5": "lenet5-digits.safetensors"}
"""Weight files that are part of the package, by the name of the backbone."""

_ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "lenet5": LeNet5,
    **{f"mobilenet_v1_{percent:03}": functools.partial(MobileNetV1, percent / 100) for percent in (100, 75, 50, 25)},
}
_HALF = (0.5, 0.5, 0.5)
_LENET5_TRANSFORM = Transform(resize=32, crop=32, mean=_HALF, std=_HALF)
_MOBILENET_V1_TRANSFORM = Transform(mean=_HALF, std=_HALF)


class BuiltinSource(Source):
    """LeNet-5 and MobileNet v1 as featx implements them."""

    key = "featx"

    def accepts(self, name: str) -> bool:
        """Whether a backbone's name is that of a built-in architecture."""
        return name in _ARCHITECTURES

    def names(self) -> Sequence[str]:
        """The names of the built-in architectures."""
        return tuple(_ARCHITECTURES)

    def build(self, name: str, weights: str, image_size: ImageSize | None = None) -> Network:  # noqa: ARG002 - for any size
        """Build a built-in architecture with its embedded, random or local weights.

        Raises:
            BackboneError: there are no default weights, or a weight file does not fit.
        """
        module, notes = seeded(_ARCHITECTURES[name]), tuple[str, ...]()
        transform = _LENET5_TRANSFORM if name == "lenet5" else _MOBILENET_V1_TRANSFORM
        if weights == "default" and name in EMBEDDED_WEIGHTS:
            with resources.as_file(resources.files("featx.backbones") / EMBEDDED_WEIGHTS[name]) as path:
                load_weights(module, path, transform)
        elif weights == "default":
            raise BackboneError(
                f"{name} has no weights to download; name a file with --weights FILE.safetensors, or --weights random"
            )
        else:
            weights, notes = load_local_weights(module, weights, transform, "classifier", name=name)
        return Network(module, transform, "classifier", {"source": self.key, "name": name}, weights, notes)

    def has_local_weights(self, name: str) -> bool:
        """Whether the weights are part of the package."""
        return name in EMBEDDED_WEIGHTS
