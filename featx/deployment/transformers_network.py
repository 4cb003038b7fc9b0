"""A network of transformers as transformers builds it: its class, its tensors by the names of its files, its config.json."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featx.backbones.sources.hf_models import config_of, last_linear
from featx.backbones.sources.hf_source import quiet_transformers
from featx.deployment.library_network import FEATURES, LOGITS, LibraryNetwork, OwnNetwork, fits, possible
from featx.deployment.tensors import read_tensors

PROBLEMS = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
"""The tasks by their names in transformers."""

_MOST_BYTES = "1000GB"  # of one file, so that there is one


@dataclass(frozen=True, eq=False)
class _Built:
    """A model of transformers with a model's tensors, and what of its output is compared."""

    module: Any
    output: str
    kind: str


def transformers_network(own: OwnNetwork) -> LibraryNetwork | None:
    """A network as ``from_pretrained(FOLDER)`` of transformers loads it; None if it has no class that gives the same."""
    with quiet_transformers():
        for gives in possible(own):
            for candidate in _candidates(own, gives):
                try:
                    built = candidate()
                    if built is not None and fits(own, gives, _runner(own, built)):
                        return _described(own, gives, built)
                except (
                    Exception
                ):  # each model has code of its own, and another class is the answer to all of its errors
                    continue
    return None


def _runner(own: OwnNetwork, built: _Built) -> Callable[[Tensor], Tensor]:
    """The library's own way from normalised images to what is compared."""
    swap = own.origin.get("channels") == "BGR"
    options = {"interpolate_pos_encoding": True} if "image_size" in own.origin else {}

    def run(images: Tensor) -> Tensor:
        out = built.module(pixel_values=images.flip(1) if swap else images, **options)
        if built.output not in ("cls", "mean"):
            found: Tensor = getattr(out, built.output)
            return found.flatten(1)
        tokens: Tensor = out.last_hidden_state
        if built.output == "cls":
            return tokens[:, 0]
        return tokens.flatten(2).mean(dim=2) if tokens.ndim == 4 else tokens.mean(dim=1)

    return run


def _candidates(own: OwnNetwork, gives: str) -> Iterator[Callable[[], _Built | None]]:
    """The ways to build the network, the best first."""
    tower: Any = own.network
    if gives == LOGITS:
        if tower.pooling == "classifier":
            yield lambda: _same_class(own, len(own.classes), "logits")
        else:
            yield lambda: _with_classifier(own)
    elif tower.pooling == "projection":
        yield lambda: _image_tower(own)
    elif tower.pooling == "classifier":
        yield lambda: _base_of(own)
    else:
        output = {"pooler": "pooler_output"}.get(tower.pooling, tower.pooling)
        yield lambda: _same_class(own, None, output)


def _config(own: OwnNetwork, count: int | None) -> Any:
    """The configuration, with the classes of the model where it has a classifier."""
    config = config_of(json.loads(own.origin["config"]), own.origin["name"])
    if count is not None:
        config.num_labels = count
        config.id2label = dict(enumerate(own.classes))
        config.label2id = {name: index for index, name in enumerate(own.classes)}
        config.problem_type = PROBLEMS[own.task]
    return config


def _same_class(own: OwnNetwork, count: int | None, output: str) -> _Built | None:
    """The class that featx built the network of, with the same names."""
    tower: Any = own.network
    module = getattr(import_module("transformers"), own.origin["name"])(_config(own, count)).eval()
    state = tower.model.state_dict()
    missing, unexpected = module.load_state_dict(state, strict=False)
    if unexpected or any(not name.startswith("pooler.") for name in missing):
        return None
    return _Built(module, output, own.origin["name"])


def _base_of(own: OwnNetwork) -> _Built | None:
    """The encoder of a class with a classifier, whose pooled output is what the classifier takes."""
    tower: Any = own.network
    base = tower.model.base_model
    with_output = type(base)
    module = with_output(_config(own, None)).eval()
    module.load_state_dict(base.state_dict(), strict=False)
    for output in ("pooler_output", "cls", "mean"):
        built = _Built(module, output, with_output.__name__)
        try:
            if fits(own, FEATURES, _runner(own, built)):
                return built
        except (AttributeError, TypeError, RuntimeError):  # it has no such output
            continue
    return None


def _with_classifier(own: OwnNetwork) -> _Built | None:
    """A class with a classifier for an encoder without one; its classifier may take more than the encoder's features."""
    tower: Any = own.network
    config = _config(own, len(own.classes))
    auto: Any = import_module("transformers.models.auto.modeling_auto")
    names = auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.get(config.model_type, ())
    head = own.network.get_submodule(own.classifier)
    assert isinstance(head, nn.Linear)
    for kind in (names,) if isinstance(names, str) else names:
        module = getattr(import_module("transformers"), kind)(config).eval()
        last = last_linear(module)
        if last is None or not hasattr(module, "base_model"):
            continue
        module.base_model.load_state_dict(tower.model.state_dict(), strict=False)
        layer = module.get_submodule(last)
        if not isinstance(layer, nn.Linear) or layer.in_features < head.in_features:
            continue
        with torch.no_grad():  # such as the mean of the patches, beside the class token; it counts for nothing
            layer.weight.zero_()
            layer.weight[:, : head.in_features] = head.weight
            layer.bias.copy_(head.bias)
        built = _Built(module, "logits", kind)
        if fits(own, LOGITS, _runner(own, built)):
            return built
    return None


def _image_tower(own: OwnNetwork) -> _Built | None:
    """The image tower of a model of images and text, as a model of its own."""
    package, tower = import_module("transformers"), own.network
    config = _config(own, None)
    vision = getattr(config, "vision_config", config)
    if hasattr(config, "projection_dim"):
        vision.projection_dim = config.projection_dim
    stem = type(tower.model).__name__.removesuffix("VisionTransformer").removesuffix("VisionModel")
    projection = getattr(tower, "projection", None)
    for kind, output in ((f"{stem}VisionModelWithProjection", "image_embeds"), (f"{stem}VisionModel", "pooler_output")):
        if not hasattr(package, kind):
            continue
        module = getattr(package, kind)(vision).eval()
        inside = getattr(module, "vision_model", module)
        inside.load_state_dict(tower.model.state_dict())  # type: ignore[union-attr]
        if projection is not None and hasattr(module, "visual_projection"):
            module.visual_projection.load_state_dict(projection.state_dict())
        built = _Built(module, output, kind)
        if fits(own, FEATURES, _runner(own, built)):
            return built
    return None


def _described(own: OwnNetwork, gives: str, built: _Built) -> LibraryNetwork:
    """Save a model by its own method into a temporary folder, whose files have the names that transformers expects."""
    with tempfile.TemporaryDirectory() as name:
        built.module.save_pretrained(name, max_shard_size=_MOST_BYTES)
        config = json.loads((Path(name) / "config.json").read_bytes())
        tensors = read_tensors(Path(name) / "model.safetensors")
    config.pop("_name_or_path", None)
    size = ", interpolate_pos_encoding=True" if "image_size" in own.origin else ""
    if gives == LOGITS:
        kind, then = "AutoModelForImageClassification", "logits"
    else:
        kind = built.kind
        then = {"cls": "last_hidden_state[:, 0]", "mean": "last_hidden_state.mean(dim=1)"}.get(
            built.output, built.output
        )
    usage = (
        f"from transformers import AutoImageProcessor, {kind}\n\n"
        'processor = AutoImageProcessor.from_pretrained("FOLDER")\n'
        f'network = {kind}.from_pretrained("FOLDER")\n'
        f'out = network(**processor(image, return_tensors="pt"){size}).{then}\n'
    )
    return LibraryNetwork("transformers", gives, tensors, config, usage)
