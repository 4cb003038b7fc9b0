"""The models of timm, which is an optional dependency: ``timm/<name>``."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from featx.backbones.sources.source import Network, Source, load_local_weights, name_of, seeded
from featx.data.transform import Transform
from featx.errors import BackboneError

_TIMM_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")  # an architecture, perhaps with the tag of its weights


class TimmSource(Source):
    """The models of timm. Their names begin with ``timm/``."""

    key = "timm"
    prefix = "timm/"

    def accepts(self, name: str) -> bool:
        """Whether a backbone's name begins with ``timm/``."""
        return name.startswith(self.prefix)

    def names(self) -> Sequence[str]:
        """The names of all models of the installed timm.

        Raises:
            BackboneError: timm is not installed.
        """
        return [f"{self.prefix}{name}" for name in _import_timm().list_models()]

    def build(self, name: str, weights: str) -> Network:
        """Build a model of timm with pretrained, random or local weights.

        Raises:
            BackboneError: timm is not installed, has no such model, or cannot load its weights; or the model has no single
                last layer, or does not take square RGB images.
        """
        timm = _import_timm()
        short = name.removeprefix(self.prefix)
        # For hf-hub:..., local-dir:... and paths, timm would download or read whatever an untrusted head names.
        if not _TIMM_NAME.fullmatch(short) or not timm.is_model(short):
            close = difflib.get_close_matches(short, timm.list_models(), n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise BackboneError(f"timm has no model {short!r}{hint}")
        try:
            module = seeded(functools.partial(timm.create_model, short, pretrained=weights == "default"))
        except Exception as error:  # timm passes on the errors of its hub, urllib and torch
            raise BackboneError(
                f"timm cannot load the weights of {short} ({error}); name a local file with --weights FILE, or "
                "--weights random"
            ) from error
        weights = load_local_weights(module, weights)
        classifier = name_of(module, module.get_classifier())  # type: ignore[operator]
        if classifier is None:
            raise BackboneError(
                f"{name} has no single last layer (it may be distilled); featx needs a network that has one"
            )
        return Network(module, _transform(timm, module), classifier, {"source": self.key, "name": name}, weights)


def _import_timm() -> Any:
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise BackboneError("timm/<name> needs timm: pip install 'featx[timm]'") from error
    return timm


def _transform(timm: Any, module: nn.Module) -> Transform:
    config = timm.data.resolve_model_data_config(module)
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise BackboneError(
            f"the model takes {channels} x {height} x {width} pixels; featx supports 3 channels and square images"
        )
    squash = config["crop_mode"] == "squash"
    interpolation = config["interpolation"]
    return Transform(
        resize=0 if squash else int(height / config["crop_pct"]),
        crop=height,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=interpolation if interpolation != "random" else "bilinear",
    )
