"""The models of timm, which is an optional dependency: ``timm/<name>``."""

from __future__ import annotations

import contextlib
import csv
import functools
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from featx.backbones import weights as weight_files
from featx.backbones.sources.source import (
    ImageSize,
    Network,
    Source,
    load_local_weights,
    name_of,
    resized_note,
    seeded,
    size_name,
)
from featx.backbones.ways import POSITIONS, Converter
from featx.data.sources.hub_network import offline_without_network
from featx.data.transform import Transform, sides_text
from featx.errors import BackboneError
from featx.text import brief, counted, did_you_mean

_TIMM_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")  # an architecture, perhaps with the tag of its weights


class TimmSource(Source):
    """The models of timm. Their names begin with ``timm/``."""

    key = "timm"
    prefix = "timm/"
    adapts_channels = True
    package = "timm"

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

    def build(
        self, name: str, weights: str, image_size: ImageSize | None = None, channels: int | None = None
    ) -> Network:
        """Build a model of timm with pretrained, random or local weights.

        For other ``channels`` than 3, timm adapts the first convolution of pretrained weights: it sums its kernels for one
        channel, and repeats and scales them for several.

        Raises:
            BackboneError: timm is not installed, has no such model, or cannot load its weights; or the model cannot be built
                for images of this size or of so many channels.
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
        module = _created(timm, short, weights, channels)
        transform = _transform(timm, module)
        own = transform.channels
        if channels not in (None, own):
            transform = transform.with_channels(channels)
        last = module.get_classifier() if hasattr(module, "get_classifier") else None  # type: ignore[operator]
        classifier = name_of(module, last) if isinstance(last, nn.Module) else None
        if classifier is None or isinstance(last, nn.ModuleList):
            classifier = end_in_embedding(module, name)
        origin, is_fixed = {"source": self.key, "name": name}, module.pretrained_cfg["fixed_input_size"]  # type: ignore[index]
        load, adapted = load_local_weights, transform.channels != own
        if adapted:
            origin["in_chans"] = str(transform.channels)
            load = functools.partial(_load_adapted, timm, own)
        convert = functools.partial(_as_timm_does, last=classifier, resize=image_size is not None)
        if image_size is None or image_size == transform.image_size or not is_fixed:
            weights, notes = load(module, weights, transform, classifier, name=name, convert=convert)
        else:
            origin["image_size"] = size_name(image_size)
            try:
                as_it_is = functools.partial(convert, resize=False)
                weights, notes = load(module, weights, transform, classifier, name=name, convert=as_it_is)
                module = _for_size(timm, short, module, image_size, channels)
                notes += (resized_note(name, transform.image_size, image_size),)
            except BackboneError:
                if weights in ("default", "random"):
                    raise
                module = _for_size(timm, short, module, image_size, channels)  # the file may be for that size
                weights, notes = load(module, weights, transform, classifier, name=name, convert=convert)
        if adapted and weights == "default":
            notes += (_channels_note(name, own, transform.channels),)
        return Network(module, transform, classifier, origin, weights, notes)


def _created(timm: Any, name: str, weights: str, channels: int | None) -> nn.Module:
    """A model of timm, with its pretrained weights if these are asked for."""
    create = functools.partial(timm.create_model, name, pretrained=weights == "default")
    try:
        with offline_without_network() if weights == "default" else contextlib.nullcontext():
            return seeded(functools.partial(create, **_adapted(channels)))
    except Exception as error:  # timm passes on the errors of its hub, urllib and torch
        if channels is not None and weights != "default":
            raise BackboneError(
                f"timm cannot build {name} for {counted(channels, 'channel')}: {brief(error)}"
            ) from error
        raise BackboneError(
            f"timm cannot load the weights of {name} ({brief(error)}); name a local file with --weights FILE, or "
            "--weights random"
        ) from error


def _adapted(channels: int | None) -> dict[str, int]:
    return {} if channels is None else {"in_chans": channels}


def _channels_note(name: str, own: int, channels: int) -> str:
    way = "summed for the one channel" if channels == 1 else f"repeated for {channels} channels"
    return f"{name} takes {counted(own, 'channel')}; the kernels of its first convolution were {way}, as timm does"


def _load_adapted(
    timm: Any,
    own: int,
    module: nn.Module,
    weights: str,
    transform: Transform,
    classifier: str,
    *,
    name: str,
    convert: Converter,
) -> tuple[str, tuple[str, ...]]:
    """As ``load_local_weights``, also from a file of the network for its ``own`` channels: its first layer is adapted."""
    load = functools.partial(load_local_weights, weights=weights, classifier=classifier, name=name, convert=convert)
    try:
        return load(module, transform=transform)
    except BackboneError:
        original = seeded(functools.partial(timm.create_model, name.removeprefix(TimmSource.prefix)))
        if hasattr(module, _EMBEDDING):
            end_in_embedding(original, name)
        found, notes = load(original, transform=transform.with_channels(own))
        state = original.state_dict()
        first = module.pretrained_cfg.get("first_conv") or ()  # type: ignore[union-attr, operator]
        try:
            for layer in (first,) if isinstance(first, str) else first:
                key = f"{layer}.weight"
                state[key] = timm.models.adapt_input_conv(transform.channels, state[key])
            weight_files.copy_into(module, state, strict=True)
        except Exception as error:  # each model of timm has code of its own
            raise BackboneError(
                f"the first layer of {name} cannot be adapted to {counted(transform.channels, 'channel')}: {brief(error)}"
            ) from error
        return found, (*notes, _channels_note(name, own, transform.channels))


_EMBEDDING = "embedding"
"""The name of the last layer that ``end_in_embedding`` adds."""


def end_in_embedding(module: nn.Module, name: str) -> str:
    """Let a model of timm without a single last layer end in its embedding: distilled models, several branches, encoders.

    The embedding is ``forward_head(forward_features(images), pre_logits=True)``, as timm defines it, and the model's last
    layers are removed. Of an encoder, which has none, it is ``forward_features(images)``. Tokens are averaged (see
    ``feature_extractor.pool``).

    Args:
        module: changed in place.
        name: the backbone's name for the message.

    Returns:
        The name of the last layer, which is an identity.

    Raises:
        BackboneError: the model does not define its embedding.
    """
    if not hasattr(module, "forward_features"):
        raise BackboneError(f"{name} has no last layer and no forward_features, so it is unclear what its embedding is")
    is_classifier = hasattr(module, "get_classifier") and hasattr(module, "forward_head")
    if is_classifier:
        module.reset_classifier(0)  # type: ignore[operator]

    def forward(self: Any, images: Tensor) -> Any:
        features = self.forward_features(images)
        return self.embedding(self.forward_head(features, pre_logits=True) if is_classifier else features)

    own = type(module)
    module.add_module(_EMBEDDING, nn.Identity())
    module.__class__ = type(own.__name__, (own,), {"forward": forward, "__module__": own.__module__})
    return _EMBEDDING


def _as_timm_does(state: dict[str, Tensor], module: nn.Module, *, last: str, resize: bool) -> Mapping[str, Tensor]:
    """Convert the tensors of a file by timm's own function for the files of a model's authors.

    Args:
        state: the tensors by name.
        module: the model.
        last: the name of its last layer.
        resize: whether position embeddings of another size are interpolated.

    Returns:
        The tensors by the model's names; none if timm has no such function, or would change the shape of others.
    """
    adapt = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    expected = module.state_dict()
    for name in state.keys() & expected.keys():
        is_other = state[name].shape != expected[name].shape and state[name].ndim == expected[name].ndim
        if is_other and not name.startswith(f"{last}.") and not (resize and POSITIONS.search(name)):
            return {}
    return adapt(state, module) if adapt else {}


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


def _for_size(timm: Any, name: str, module: nn.Module, size: ImageSize, channels: int | None) -> nn.Module:
    """The same model with the same weights for images of another size; position embeddings are interpolated as timm does."""
    patch = getattr(getattr(module, "patch_embed", None), "patch_size", None)
    sides = (size, size) if isinstance(size, int) else size
    try:
        if isinstance(patch, tuple):
            for side, step in zip(sides, patch, strict=True):
                if side % step:
                    raise ValueError(f"its patches have {step} pixels, of which {side} is not a multiple")
        if hasattr(module, "set_input_size"):
            with warnings.catch_warnings():  # those of torch about timm's interpolation
                warnings.simplefilter("ignore")
                module.set_input_size(img_size=sides)  # type: ignore[operator]
            return module
        resized = seeded(functools.partial(timm.create_model, name, img_size=size, **_adapted(channels)))
        if hasattr(module, _EMBEDDING):
            end_in_embedding(resized, name)
        adapt = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", lambda state, _: state)
        state, expected = adapt(module.state_dict(), resized), resized.state_dict()
        if any(tensor.shape != expected[key].shape for key, tensor in state.items() if key in expected):
            raise ValueError("its weights depend on the size")
        weight_files.copy_into(resized, state, strict=True)
    except Exception as error:  # each model of timm has code of its own
        native: tuple[int, int] = module.pretrained_cfg["input_size"][1:]  # type: ignore[index, assignment]
        raise BackboneError(
            f"timm/{name} is built for {sides_text(native)} pixels and cannot be built for {sides_text(size)}: {brief(error)}. "
            "Leave --size and --crop out, or use a model without a fixed size"
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
    interpolation = config["interpolation"]
    means, stds = (tuple(config[name]) for name in ("mean", "std"))
    try:
        return Transform(
            resize=int(min(height, width) / config["crop_pct"]),
            crop=height,
            crop_width=width,
            mean=means * channels if len(means) == 1 else means,
            std=stds * channels if len(stds) == 1 else stds,
            interpolation=interpolation if interpolation != "random" else "bilinear",
            fit={"border": "pad", "squash": "squash"}.get(config["crop_mode"], "crop"),
            channels=channels,
        )
    except ValueError as error:
        raise BackboneError(f"featx does not support the images of this model: {error}") from error
