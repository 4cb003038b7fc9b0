"""The models of timm, which is an optional dependency: ``timm/<name>``."""

from __future__ import annotations

import csv
import functools
import re
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn

from featx.backbones.sources.source import Network, Source, load_local_weights, name_of, resized_note, seeded
from featx.data.transform import Transform
from featx.errors import BackboneError
from featx.text import brief, did_you_mean

_TIMM_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")  # an architecture, perhaps with the tag of its weights


class TimmSource(Source):
    """The models of timm. Their names begin with ``timm/``."""

    key = "timm"
    prefix = "timm/"

    def accepts(self, name: str) -> bool:
        """Whether a backbone's name begins with ``timm/``."""
        return name.startswith(self.prefix)

    def accepts_without_prefix(self, name: str) -> bool:
        """Whether timm is installed and has a model of this name."""
        try:
            return _TIMM_NAME.fullmatch(name) is not None and _is_known(_import_timm(), name)
        except BackboneError:
            return False

    def names(self) -> Sequence[str]:
        """The names of all models of the installed timm.

        Raises:
            BackboneError: timm is not installed.
        """
        return [f"{self.prefix}{name}" for name in _import_timm().list_models()]

    def published_top1(self, name: str, weights: str) -> float | None:
        """The ImageNet-1k top-1 accuracy in % that timm publishes with a model's default weights, or None."""
        if weights != "default":
            return None
        timm = _import_timm()
        short = name.removeprefix(self.prefix)
        if "." not in short:  # the default weights have a tag, which the table names
            config = timm.get_pretrained_cfg(short, allow_unregistered=True)
            short = f"{short}.{config.tag}" if config and config.tag else short
        return _published(Path(timm.__file__).parent).get(short)

    def build(self, name: str, weights: str, image_size: int | None = None) -> Network:
        """Build a model of timm with pretrained, random or local weights.

        Raises:
            BackboneError: timm is not installed, has no such model, or cannot load its weights; or the model has no single
                last layer, does not take square RGB images, or cannot be built for images of this size.
        """
        timm = _import_timm()
        short = name.removeprefix(self.prefix)
        # For hf-hub:..., local-dir:... and paths, timm would download or read whatever an untrusted head names.
        is_name = _TIMM_NAME.fullmatch(short) is not None
        if not is_name or not _is_known(timm, short):
            has_tag = is_name and timm.is_model(short)
            what, known = ("weights", timm.list_pretrained()) if has_tag else ("model", timm.list_models())
            hint = did_you_mean(short, known) or "; featx backbones 'timm/*' lists them"
            raise BackboneError(f"timm has no {what} {short!r}{hint}")
        try:
            module = seeded(functools.partial(timm.create_model, short, pretrained=weights == "default"))
        except Exception as error:  # timm passes on the errors of its hub, urllib and torch
            raise BackboneError(
                f"timm cannot load the weights of {short} ({brief(error)}); name a local file with --weights FILE, or "
                "--weights random"
            ) from error
        transform = _transform(timm, module)
        last = module.get_classifier() if hasattr(module, "get_classifier") else None  # type: ignore[operator]
        classifier = name_of(module, last) if isinstance(last, nn.Module) else None
        if classifier is None or isinstance(last, nn.ModuleList):
            raise BackboneError(
                f"{name} has no single last layer (it may be distilled, or an encoder); featx needs a network that has one"
            )
        origin, is_fixed = {"source": self.key, "name": name}, module.pretrained_cfg["fixed_input_size"]  # type: ignore[index]
        if image_size is None or image_size == transform.crop or not is_fixed:
            weights, notes = load_local_weights(module, weights, transform, classifier)
            return Network(module, transform, classifier, origin, weights, notes)
        origin["image_size"] = str(image_size)
        try:
            weights, notes = load_local_weights(module, weights, transform, classifier)
            module = _for_size(timm, short, module, image_size)
            notes += (resized_note(name, transform.crop, image_size),)
        except BackboneError:
            if weights in ("default", "random"):
                raise
            module = _for_size(timm, short, module, image_size)  # the file may be of a network for that size
            weights, notes = load_local_weights(module, weights, transform, classifier)
        return Network(module, transform, classifier, origin, weights, notes)


@functools.cache
def _published(timm_folder: Path) -> dict[str, float]:
    """The ImageNet-1k top-1 accuracy in % by name of weights: of timm's own table in a checkout, otherwise of featx's copy.

    Args:
        timm_folder: the folder of the installed package. timm's wheels do not contain the table.
    """
    own = timm_folder.parent / "results" / "results-imagenet.csv"
    table = own if own.is_file() else resources.files("featx.backbones") / "timm-top1.csv"
    lines = [line for line in table.read_text().splitlines() if not line.startswith("#")]
    return {row["model"].lower(): float(row["top1"]) for row in csv.DictReader(lines)}


def _is_known(timm: Any, name: str) -> bool:
    """Whether timm has a model, and the weights that a tag after the model's name stands for."""
    architecture, dot, _ = name.partition(".")
    return bool(timm.is_model(architecture)) and (not dot or name in timm.list_pretrained(f"{architecture}.*"))


def _for_size(timm: Any, name: str, module: nn.Module, size: int) -> nn.Module:
    """The same model with the same weights for images of another size; position embeddings are interpolated as timm does."""
    patch = getattr(getattr(module, "patch_embed", None), "patch_size", None)
    try:
        if isinstance(patch, tuple) and any(size % side for side in patch):
            raise ValueError(f"its patches have {patch[0]} pixels, of which {size} is not a multiple")
        if hasattr(module, "set_input_size"):
            module.set_input_size(img_size=(size, size))  # type: ignore[operator]
            return module
        resized = seeded(functools.partial(timm.create_model, name, img_size=size))
        adapt = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", lambda state, _: state)
        state, expected = adapt(module.state_dict(), resized), resized.state_dict()
        if any(tensor.shape != expected[key].shape for key, tensor in state.items() if key in expected):
            raise ValueError("its weights depend on the size")
        resized.load_state_dict(state)
    except Exception as error:  # each model of timm has code of its own
        side = module.pretrained_cfg["input_size"][-1]  # type: ignore[index]
        raise BackboneError(
            f"timm/{name} is built for {side} x {side} pixels and cannot be built for {size} x {size}: {brief(error)}. Leave "
            f"--crop out, or use a model without a fixed size"
        ) from error
    return resized


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
