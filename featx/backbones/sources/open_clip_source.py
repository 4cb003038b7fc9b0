"""The image towers of open_clip, which is an optional dependency: ``open_clip/<arch>[/<pretrained>]``."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from featx.backbones.checkpoint import SeveralNetworksError
from featx.backbones.sources.source import (
    ImageSize,
    Network,
    Source,
    load_weights,
    resized_note,
    seeded,
    sides_of,
    size_name,
    stored_size,
)
from featx.backbones.text_tower import TextTower
from featx.backbones.towers import VisualTower
from featx.constants import MAX_SIDE
from featx.data.sources.hub_network import offline_without_network
from featx.data.transform import Transform
from featx.errors import BackboneError
from featx.text import brief, did_you_mean, listed, printable

_SCHEMES = ("hf-hub:", "local-dir:")
"""How the names of open_clip begin that stand for a repository of the hub or a folder with an open_clip_config.json."""


_WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""The files of weights in a repository of the hub."""


@dataclass(frozen=True)
class Arch:
    """An architecture of open_clip with what its weights need.

    Attributes:
        name: what ``open_clip.create_model`` takes.
        tag: the tag of its published weights; "" if none is named.
        config: the configuration of both towers.
        prepare: the published preprocessing: mean, std, interpolation and resize_mode, where they are known.
    """

    name: str
    tag: str
    config: dict[str, Any]
    prepare: Mapping[str, Any]

    @property
    def native(self) -> ImageSize:
        """The size of the images that the image tower is built for."""
        size = self.config["vision_cfg"].get("image_size", 224)
        if isinstance(size, int):
            return size
        return int(size[0]) if size[0] == size[1] else (int(size[0]), int(size[1]))


class OpenClipSource(Source):
    """The image towers of open_clip. Names begin with ``open_clip/``."""

    key = "open_clip"
    prefix = "open_clip/"
    package = "open_clip"

    def accepts(self, name: str) -> bool:
        """Whether a backbone's name begins with ``open_clip/``."""
        return name.startswith(self.prefix)

    def accepts_without_prefix(self, name: str) -> bool:
        """Whether open_clip is installed and has an architecture of this name."""
        try:
            return name.partition("/")[0] in _import_open_clip().list_models()
        except BackboneError:
            return False

    def names(self) -> Sequence[str]:
        """The architectures of the installed open_clip, each with the tags of its published weights.

        Raises:
            BackboneError: open_clip is not installed.
        """
        open_clip = _import_open_clip()
        tags = open_clip.list_pretrained()
        with_tags = {arch for arch, _ in tags}
        names = [f"{arch}/{tag}" for arch, tag in tags]
        return [self.prefix + name for name in (*names, *(a for a in open_clip.list_models() if a not in with_tags))]

    def may_change(self, name: str) -> bool:
        """Whether a name is that of a local folder."""
        return name.startswith(f"{self.prefix}local-dir:")

    def has_local_weights(self, name: str) -> bool:
        """Whether the published weights of an architecture are in the hub's cache, or its folder holds them."""
        short = name.removeprefix(self.prefix)
        if self.may_change(name):
            return True
        import huggingface_hub

        repository = short.removeprefix("hf-hub:")
        if repository == short:
            arch, _, tag = short.rpartition("/")
            config = _import_open_clip().get_pretrained_cfg(arch, tag) or {}
            repository = str(config.get("hf_hub") or "").rstrip("/")
        return bool(repository) and any(
            isinstance(huggingface_hub.try_to_load_from_cache(repository, file), str) for file in _WEIGHT_FILES
        )

    def build(self, name: str, weights: str, image_size: ImageSize | None = None) -> Network:
        """Build an image tower with published, random or local weights.

        Raises:
            BackboneError: open_clip is not installed, has no such architecture or weights, or cannot load them; or its
                preprocessing has a step that a ``Transform`` does not have.
        """
        open_clip = _import_open_clip()
        arch = _arch(open_clip, name.removeprefix(self.prefix))
        if weights == "default" and not arch.tag and not arch.name.startswith(_SCHEMES):
            tags = open_clip.list_pretrained_tags_by_model(arch.name)
            known = f"name one of {listed([f'{name}/{tag}' for tag in tags], most=8)}, or " if tags else ""
            raise BackboneError(
                f"{name} has no default weights; {known}a local file with --weights FILE, or --weights random"
            )
        size = image_size or arch.native
        config = _sized(arch.config, size)
        notes: tuple[str, ...] = ()
        text = None
        if weights == "random":
            tower = seeded(lambda: _random_tower(open_clip, config, name))
        else:
            load = functools.partial(_loaded, open_clip, arch, config, name=name, resize=image_size is not None)
            found = load(weights)
            tower, weights, notes = VisualTower(found.model.visual), found.weights, found.notes
            if found.with_text:
                text = functools.partial(_text_tower, open_clip, arch, functools.partial(load, weights), name)
        transform = _transform(arch, size)
        origin = {"source": self.key, "name": arch.name.rpartition(":")[2], "config": _config_text(arch.config)}
        if size != arch.native:
            origin["image_size"] = size_name(size)
            notes += (resized_note(name, arch.native, size),)
        return Network(tower, transform, "head", origin, weights, notes, text)

    def rebuild(self, origin: Mapping[str, str]) -> nn.Module:
        """Build the image tower of a stored origin, which holds its configuration, with random weights.

        Raises:
            BackboneError: open_clip is not installed, or the stored configuration is not valid.
        """
        open_clip = _import_open_clip()
        name = printable(origin["name"])
        try:
            config = json.loads(origin["config"])
            size = stored_size(origin, MAX_SIDE)
            config = _sized(config, size) if size else config
            return seeded(lambda: _random_tower(open_clip, config, name))
        except BackboneError:
            raise
        except Exception as error:  # a stored configuration may hold anything
            raise BackboneError(f"the stored configuration of {name} is not valid: {brief(error)}") from error


def _import_open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise BackboneError("open_clip/<arch> needs open_clip: pip install 'featx[open-clip]'") from error
    return open_clip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A context in which open_clip logs nothing; featx reports what matters."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _arch(open_clip: Any, short: str) -> Arch:
    """What a name without the prefix stands for.

    Raises:
        BackboneError: open_clip has no such architecture or weights, or the folder or repository has no configuration.
    """
    if short.startswith(_SCHEMES):
        try:
            with _quiet():
                whole = _scheme_config(open_clip, short)
            return Arch(short, "", whole["model_cfg"], whole.get("preprocess_cfg") or {})
        except Exception as error:  # open_clip passes on the errors of the hub's client and of json
            raise BackboneError(
                f"open_clip/{short} has no open_clip_config.json that can be read ({brief(error)})"
            ) from error
    known = open_clip.list_models()
    name, tag = short, ""
    if short.replace("/", "-") not in known and "/" in short:
        name, _, tag = short.rpartition("/")
    name = name.replace("/", "-")
    if name not in known:
        hint = did_you_mean(name, known) or "; featx backbones 'open_clip/*' lists them"
        raise BackboneError(f"open_clip has no model {printable(repr(name))}{hint}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag and tag not in tags:
        hint = did_you_mean(tag, tags) or f"; it has {listed(tags, most=8)}" if tags else "; it has none"
        raise BackboneError(f"open_clip has no weights {printable(repr(tag))} of {name}{hint}")
    found = [open_clip.get_pretrained_cfg(name, each) or {} for each in ((tag,) if tag else tags)]
    agreed = {
        key: value for key, value in (found[0] if found else {}).items() if all(c.get(key) == value for c in found)
    }
    config = open_clip.get_model_config(name)
    if tag:  # an architecture and weights of open_clip may disagree about the activation, which it only warns of
        config["quick_gelu"] = bool(agreed.get("quick_gelu", False))
    return Arch(name, tag, config, agreed)


def _scheme_config(open_clip: Any, short: str) -> Any:
    """The open_clip_config.json of a folder, or of a repository of the hub."""
    scheme, _, place = short.partition(":")
    if scheme == "local-dir":
        file = Path(place).expanduser() / "open_clip_config.json"
    else:
        file = Path(open_clip.pretrained.download_pretrained_from_hf(place, filename="open_clip_config.json"))
    return json.loads(file.read_bytes())


def _sized(config: Mapping[str, Any], size: ImageSize) -> dict[str, Any]:
    """A configuration for images of another size."""
    sized: dict[str, Any] = copy.deepcopy(dict(config))
    sized["vision_cfg"] = {**sized["vision_cfg"], "image_size": size}
    return sized


def _config_text(config: Mapping[str, Any]) -> str:
    """The configuration of the image tower as an identity holds it. The text tower changes no feature of an image."""
    parts = {"embed_dim": config["embed_dim"], "vision_cfg": config["vision_cfg"]}
    return json.dumps(
        {**parts, "quick_gelu": bool(config.get("quick_gelu", False))}, sort_keys=True, separators=(",", ":")
    )


def _random_tower(open_clip: Any, config: Mapping[str, Any], name: str) -> VisualTower:
    """An image tower alone with random weights."""
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    try:
        with _quiet():
            visual = open_clip.model._build_vision_tower(
                config["embed_dim"], vision, bool(config.get("quick_gelu", False))
            )
    except Exception as error:  # open_clip passes on the errors of timm and torch
        raise BackboneError(f"{name} cannot be built: {brief(error)}") from error
    return VisualTower(visual)


def _model(open_clip: Any, towers: Mapping[str, Any]) -> Any:
    """Both towers with random weights; only a text tower of transformers has a configuration to download."""
    config: dict[str, Any] = copy.deepcopy(dict(towers))
    text, vision = config["text_cfg"], config["vision_cfg"]
    vision["timm_model_pretrained"] = text["hf_model_pretrained"] = False
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    if "timm_model_name" not in vision:
        del vision["timm_model_pretrained"]
    if "hf_model_name" not in text:
        del text["hf_model_pretrained"]
    kind = open_clip.CLIP
    if custom:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    return kind(**config)


@dataclass(frozen=True)
class Loaded:
    """A model with its weights.

    Attributes:
        model: both towers.
        weights: the value for ``Network.weights``.
        notes: what the user should know.
        with_text: whether the weights are also those of the text tower; it is random if they are not.
    """

    model: Any
    weights: str
    notes: tuple[str, ...]
    with_text: bool


def _loaded(open_clip: Any, arch: Arch, config: Mapping[str, Any], weights: str, name: str, *, resize: bool) -> Loaded:
    """Both towers with their weights, whose position embeddings are interpolated if ``resize`` allows that.

    Raises:
        BackboneError: the weights cannot be downloaded or read, or do not fit.
    """
    try:
        with _quiet():
            model = seeded(lambda: _model(open_clip, config))
            if weights == "default":
                open_clip.load_checkpoint(model, _published_file(open_clip, arch), weights_only=True)
                return Loaded(model.eval(), weights, (), with_text=True)
    except Exception as error:  # open_clip passes on the errors of its hub, urllib and torch
        raise BackboneError(
            f"open_clip cannot load the weights of {name} ({brief(error)}); name a local file with --weights FILE, or "
            "--weights random"
        ) from error
    convert = functools.partial(_as_open_clip_does, resize=resize)
    try:
        found, notes = load_weights(model, weights, _transform(arch, arch.native), name=name, convert=convert)
        return Loaded(model.eval(), found, notes, with_text=True)
    except SeveralNetworksError:
        raise
    except BackboneError as misfit:
        return _image_tower_alone(model, weights, name, misfit)


def _as_open_clip_does(state: dict[str, Tensor], model: Any, *, resize: bool) -> Mapping[str, Tensor]:
    """The tensors of a file as ``open_clip.load_checkpoint`` changes them: other programs' names, shapes and image sizes."""
    from open_clip import convert
    from open_clip import model as parts

    state = convert.convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = parts.convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        own = getattr(model, name, None)
        if own is not None and name in state and state[name].numel() == 1:
            state[name] = state[name].reshape(own.shape)
    if resize:
        parts.resize_pos_embed(state, model)
    return state


def _image_tower_alone(model: Any, weights: str, name: str, misfit: BackboneError) -> Loaded:
    """Load a file that has the image tower and no whole text tower.

    Raises:
        BackboneError: ``misfit``, as this is not the case.
    """
    try:
        found, notes = load_weights(model.visual, weights, Transform(), name=name)
    except SeveralNetworksError:
        raise
    except BackboneError:
        raise misfit from None
    note = f"{found}: it has no whole text tower, so that texts cannot be compared with these features"
    return Loaded(model.eval(), found, (*notes, note), with_text=False)


def _published_file(open_clip: Any, arch: Arch) -> str:
    """The local path of published weights, which are downloaded into the hub's cache unless they are there."""
    scheme, _, place = arch.name.partition(":")
    if scheme == "hf-hub":
        with offline_without_network():
            return str(open_clip.pretrained.download_pretrained_from_hf(place))
    if scheme == "local-dir":
        found = open_clip.factory._find_checkpoint_in_dir(Path(place).expanduser())
        if found is None:
            raise FileNotFoundError(f"there is no file of weights in {place}")
        return str(found)
    with offline_without_network():
        return str(open_clip.download_pretrained(open_clip.get_pretrained_cfg(arch.name, arch.tag)))


def _text_tower(open_clip: Any, arch: Arch, load: Callable[[], Loaded], name: str) -> TextTower:
    """The text tower and its tokenizer, which open_clip knows by the architecture.

    Raises:
        BackboneError: the tokenizer cannot be had.
    """
    model = load().model
    try:
        with _quiet():
            tokenize = open_clip.get_tokenizer(arch.name)
    except Exception as error:  # open_clip passes on the errors of transformers and the hub's client
        raise BackboneError(f"the tokenizer of {name} cannot be had: {brief(error)}") from error

    def encode(texts: list[str]) -> Tensor:
        vectors: Tensor = model.encode_text(tokenize(texts))
        return vectors

    bias = getattr(model, "logit_bias", None)
    return TextTower(encode, model.logit_scale.exp().item(), 0.0 if bias is None else bias.item(), bias is not None)


def _transform(arch: Arch, size: ImageSize) -> Transform:
    """The published preprocessing of an architecture, or open_clip's usual one, as a transform.

    Raises:
        BackboneError: it has a step that a transform does not have.
    """
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    mode = arch.prepare.get("resize_mode") or "shortest"
    if mode not in ("shortest", "squash"):
        raise BackboneError(
            f"open_clip/{arch.name} resizes images by {mode!r}, which featx does not; expected shortest or squash"
        )
    interpolation = arch.prepare.get("interpolation") or "bicubic"
    height, width = sides_of(size)
    return Transform(
        resize=min(height, width) if mode == "shortest" else 0,
        crop=height,
        crop_width=width,
        mean=tuple(arch.prepare.get("mean") or OPENAI_DATASET_MEAN),
        std=tuple(arch.prepare.get("std") or OPENAI_DATASET_STD),
        interpolation=interpolation if interpolation != "random" else "bicubic",
    )
