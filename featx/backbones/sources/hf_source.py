"""The vision models of transformers, which is an optional dependency: ``hf/<organisation>/<repo>`` and ``hf/./folder``."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featx.backbones.checkpoint import several_networks, split_part
from featx.backbones.identities import LAST
from featx.backbones.sources.hf_files import (
    cached_repositories,
    folder_of,
    is_folder_name,
    read_config,
    read_weights,
)
from featx.backbones.sources.hf_models import (
    Plan,
    classes_of,
    config_of,
    first_model,
    fitted_model,
    has_text,
    image_types,
    last_linear,
    plans_of,
    random_model,
    states_in,
)
from featx.backbones.sources.hf_text import text_tower_of
from featx.backbones.sources.hf_transform import preparation_of, processor_of
from featx.backbones.sources.source import (
    ImageSize,
    Network,
    Source,
    absolute_path,
    forked_random,
    resized_note,
    seeded,
    size_name,
    stored_size,
)
from featx.backbones.text_tower import TextTower
from featx.backbones.towers import POOLINGS, ImageTower
from featx.backbones.ways import tables_in
from featx.backbones.weight_reader import read_file
from featx.constants import MAX_SIDE
from featx.errors import BackboneError
from featx.text import brief, listed, printable

_NOT_ARCHITECTURE = {
    *("_name_or_path", "_commit_hash", "auto_map", "architectures", "transformers_version", "dtype", "torch_dtype"),
    *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task"),
    *("use_cache", "output_attentions", "output_hidden_states", "return_dict"),
}
"""Fields of a configuration that no feature depends on."""


class HfSource(Source):
    """The vision models, and the image towers of models of images and text, of transformers. Names begin with ``hf/``."""

    key = "hf"
    prefix = "hf/"
    package = "transformers"

    def accepts(self, name: str) -> bool:
        """Whether a backbone's name begins with ``hf/``."""
        return name.startswith(self.prefix)

    def names(self) -> Sequence[str]:
        """The models in the hub's local cache that transformers can build.

        Raises:
            BackboneError: transformers is not installed, or there are none: the hub itself cannot be listed.
        """
        _import_transformers()
        names = [f"{self.prefix}{name}" for name in cached_repositories(image_types())]
        if not names:
            raise BackboneError(
                "the models of the Hugging Face hub cannot be listed, and its cache on this machine has no vision model; name "
                "one, as in hf/google/vit-base-patch16-224, or a folder, as in hf/./my-model"
            )
        return names

    def has_local_weights(self, name: str) -> bool:
        """Whether a name is a local folder, or a repository in the hub's cache."""
        with contextlib.suppress(BackboneError):
            return is_folder_name(name.removeprefix(self.prefix)) or name in self.names()
        return False

    def may_change(self, name: str) -> bool:
        """Whether a name is that of a local folder."""
        return is_folder_name(name.removeprefix(self.prefix))

    def build(self, name: str, weights: str, image_size: ImageSize | None = None) -> Network:
        """Build a model from a local folder or a repository of the hub, with its own, random or local weights.

        Raises:
            BackboneError: transformers is not installed; there is no such model; it needs code of its repository; its
                weights do not fit; or its image processor has a step that a ``Transform`` does not have.
        """
        _import_transformers()
        short = name.removeprefix(self.prefix)
        folder = folder_of(short, with_weights=weights == "default")
        raw = read_config(folder, short)
        with quiet_transformers():
            config = config_of(raw, short)
            processor, notes = processor_of(folder, config, short)
            prepared = preparation_of(processor, short)
            size = image_size or prepared.transform.image_size
            with forked_random():
                plan, module, weights, more = _loaded(plans_of(config, raw, short), weights, folder, size, short)
        notes += more
        if raw.get("auto_map"):
            notes += (
                f"hf/{short} names code of its own (auto_map), which never runs: the network is transformers' own",
            )
        interpolate = _interpolates(module, config, size)
        tower = _tower(module, plan, interpolate, prepared.swap_channels)
        origin = _origin(plan, raw, size if interpolate else None, swap_channels=prepared.swap_channels)
        if interpolate:
            notes += (resized_note(name, _native_size(config), size),)
        text = None
        if weights != "random" and has_text(plan):
            text = functools.partial(_text_tower, plan, weights, folder, short)
        return Network(tower, prepared.transform, _last_layer(tower, plan), origin, weights, notes, text)

    def rebuild(self, origin: Mapping[str, str]) -> nn.Module:
        """Build the architecture of a stored origin, which holds its configuration, with random weights.

        Raises:
            BackboneError: transformers is not installed, or the stored configuration is not one of its vision models.
        """
        _import_transformers()
        name = printable(origin["name"])
        try:
            raw = json.loads(origin["config"])
            last, pooling = origin.get(LAST), origin["pooling"]
            config = config_of(raw if last is None else {**raw, "num_labels": int(last.split()[0])}, name)
            if pooling not in POOLINGS or origin["name"] not in classes_of(config):
                raise BackboneError(
                    f"transformers has no vision model {name} of type {printable(str(raw['model_type']))}"
                )
            plan = Plan(config, origin["name"], pooling, keep_classifier=last is not None)
            with quiet_transformers():
                module = seeded(lambda: random_model(plan))
        except BackboneError:
            raise
        except Exception as error:  # a stored configuration may hold anything
            raise BackboneError(f"the stored configuration of {name} is not valid: {brief(error)}") from error
        return _tower(module, plan, stored_size(origin, MAX_SIDE) is not None, origin.get("channels") == "BGR")


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise BackboneError("hf/<model> needs transformers: pip install 'featx[transformers]'") from error
    return transformers


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """A context in which transformers prints no warnings and no progress; featx reports what matters."""
    logging: Any = import_module("transformers.utils.logging")
    level = logging.get_verbosity()
    showed = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if showed:
            logging.enable_progress_bar()


def _loaded(
    plans: Sequence[Plan], weights: str, folder: Path, size: ImageSize, short: str
) -> tuple[Plan, nn.Module, str, tuple[str, ...]]:
    """The model with its weights: of its folder, random, or of a checkpoint.

    Returns:
        The plan that was possible, the model, the value for ``Network.weights``, and what the user should know.
    """
    if weights == "random":
        plan, module = first_model(plans, size)
        return plan, module, weights, ()
    if weights == "default":
        return *fitted_model(plans, read_weights(folder, short), size, f"hf/{short}"), weights, ()
    file, part = split_part(weights)
    path = absolute_path(file)
    content = read_file(path)
    states = states_in(content, first_model(plans, size)[1], part)
    if not states:
        names = [name for _, table in tables_in(content) for name in table]
        found = f"its names are {listed(list(map(printable, names)), most=3)}" if names else "it has no tensors by name"
        where = f" in a part {printable(repr(part))}" if part else ""
        raise BackboneError(
            f"{path} does not hold most of the tensors of {plans[0].kind}, the model of hf/{short}{where}: {found}"
        )
    for _, state in states[1:]:
        if state.keys() != states[0][1].keys() or any(not torch.equal(t, states[0][1][n]) for n, t in state.items()):
            raise several_networks([name for name, _ in states], path, plans[0].kind)
    way, state = states[0]
    plan, module = fitted_model(plans, state, size, str(path))
    note = (f"{path}: the network's tensors are in its {printable(way)}",) if way else ()
    return plan, module, f"{path}#{part}" if part else str(path), note


def _text_tower(plan: Plan, weights: str, folder: Path, short: str) -> TextTower:
    """The text tower of a model, from the same weights as its image tower."""
    with quiet_transformers(), forked_random():
        model = _loaded([plan], weights, folder, _native_size(plan.config), short)[1]
        return text_tower_of(model.eval(), folder, short)


def _interpolates(module: Any, config: Any, size: ImageSize) -> bool:
    """Whether the position embeddings of a model must be interpolated for images of some size, and it can do that."""
    native = _native_size(config)
    takes = inspect.signature(module.get_image_features if hasattr(module, "get_image_features") else module.forward)
    return native not in (0, size) and "interpolate_pos_encoding" in takes.parameters


def _native_size(config: Any) -> ImageSize:
    """The size of the images that a model's position embeddings are made for; 0 if it has none."""
    size = getattr(getattr(config, "vision_config", config), "image_size", None) or 0
    sides = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    return int(sides[0]) if len(set(sides)) == 1 else (int(sides[0]), int(sides[1]))


def _tower(module: Any, plan: Plan, interpolate: bool, swap_channels: bool) -> ImageTower:
    """A model of transformers as a network from images to embeddings, or to logits where its own classifier is kept."""
    projection = getattr(module, "visual_projection", None)
    if plan.pooling == "projection":
        module = getattr(module, "vision_model", module)
    elif plan.pooling == "classifier":
        last = last_linear(module)
        if last and not plan.keep_classifier:
            module.set_submodule(last, nn.Identity())
    elif plan.pooling != "pooler" and getattr(module, "pooler", None) is not None:
        module.pooler = None
    return ImageTower(module, plan.pooling, projection=projection, interpolate=interpolate, swap_channels=swap_channels)


def _last_layer(tower: ImageTower, plan: Plan) -> str:
    """The name of the last layer of a tower."""
    return f"model.{last_linear(tower.model)}" if plan.pooling == "classifier" else "head"


def _origin(plan: Plan, raw: Mapping[str, Any], size: ImageSize | None, *, swap_channels: bool) -> dict[str, str]:
    """What builds the same architecture again: no path and no repository, so that a copy of a folder is the same network."""
    fields = {name: value for name, value in raw.items() if name not in _NOT_ARCHITECTURE}
    config = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    origin = {"source": HfSource.key, "name": plan.kind, "pooling": plan.pooling, "config": config}
    if plan.keep_classifier:
        origin[LAST] = f"{plan.config.num_labels} classes"
    if size is not None:
        origin["image_size"] = size_name(size)
    if swap_channels:
        origin["channels"] = "BGR"
    return origin
