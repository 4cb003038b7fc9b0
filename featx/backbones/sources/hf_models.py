"""Which class of transformers builds a model, how it makes a vector of an image, and its weights in it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from featx.backbones.fit import is_constant
from featx.backbones.sources.hf_files import is_folder_name, require_no_code
from featx.backbones.sources.source import ImageSize, sides_of
from featx.backbones.ways import matching, tables_in
from featx.backbones.weights import require_finite
from featx.data.transform import sides_text
from featx.errors import BackboneError
from featx.text import brief, counted, printable

_CLASS_TOKEN = ("dinov2", "dinov2_with_registers")
"""Model types whose embedding is the class token. Their classifier in transformers takes the mean of the patches beside it."""

_AS_OTHER_TYPE = {"vit_mae": "vit"}
"""Model types that are built as another, which has the same encoder: ViT-MAE hides patches at random, and a ViT does not."""


@dataclass(frozen=True)
class Plan:
    """Which class of transformers builds a model, and how it makes a vector of an image.

    Attributes:
        config: a configuration of transformers.
        kind: the name of a class of transformers.
        pooling: as in ``towers.ImageTower``.
        keep_classifier: whether the model's own classifier is its last layer.
    """

    config: Any
    kind: str
    pooling: str
    keep_classifier: bool = False


def _names_by_type(*mappings: str) -> dict[str, tuple[str, ...]]:
    """The names of the classes of transformers by model type, from some of its own tables."""
    from transformers.models.auto import modeling_auto

    found: dict[str, tuple[str, ...]] = {}
    for mapping in mappings:
        for model_type, names in getattr(modeling_auto, mapping, {}).items():
            found[model_type] = (*found.get(model_type, ()), *((names,) if isinstance(names, str) else names))
    return found


def _classifiers() -> dict[str, tuple[str, ...]]:
    return _names_by_type("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES")


def _encoders() -> dict[str, tuple[str, ...]]:
    return _names_by_type("MODEL_FOR_IMAGE_MAPPING_NAMES")


def _with_text() -> dict[str, tuple[str, ...]]:
    return _names_by_type("MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES")


def _towers_alone() -> dict[str, tuple[str, ...]]:
    """The image towers that transformers has as models of their own, such as CLIPVisionModelWithProjection."""
    every = _names_by_type("MODEL_MAPPING_NAMES")
    found = {}
    for model_type, names in every.items():
        if model_type.endswith("_vision_model"):
            found[model_type] = (*(f"{name}WithProjection" for name in names), *names)
    return found


def image_types() -> set[str]:
    """The model types that take images and give embeddings."""
    return {*_classifiers(), *_encoders(), *_with_text(), *_towers_alone()}


def classes_of(config: Any) -> set[str]:
    """The names of the classes that may build a model of a configuration."""
    tables = (_classifiers(), _encoders(), _with_text(), _towers_alone())
    return {name for table in tables for name in table.get(config.model_type, ())}


def config_of(raw: Mapping[str, Any], short: str) -> Any:
    """The configuration as transformers' own object.

    Raises:
        BackboneError: transformers has no such model type, or it takes no images.
    """
    from transformers import CONFIG_MAPPING

    require_no_code(raw, CONFIG_MAPPING, short)
    model_type = _AS_OTHER_TYPE.get(raw["model_type"], raw["model_type"])
    if model_type == "timm_wrapper":
        named = f"timm/{printable(str(raw.get('architecture', '<name>')))}"
        own = f", with --weights {short}" if is_folder_name(short) else ""
        raise BackboneError(f"hf/{short} is a model of timm: name it {named}{own}")
    if model_type not in image_types():
        raise BackboneError(
            f"hf/{short} is of the type {printable(model_type)}, which transformers has no network for that makes one vector "
            "of an image; expected a vision model, or one of images and text such as CLIP"
        )
    try:
        return CONFIG_MAPPING[model_type].from_dict({**raw, "model_type": model_type})
    except Exception as error:  # each configuration has code of its own
        raise BackboneError(f"the config.json of hf/{short} is not valid for {model_type}: {brief(error)}") from error


def plans_of(config: Any, raw: Mapping[str, Any], short: str) -> list[Plan]:
    """The ways to build a model, the best first; which is possible depends on the tensors that its weights hold."""
    import transformers

    model_type, named = config.model_type, next(iter(raw.get("architectures") or ()), "")
    if model_type in _with_text():
        plans = [Plan(config, kind, "projection") for kind in _with_text()[model_type]]
    elif model_type in _towers_alone():
        kinds = [kind for kind in _towers_alone()[model_type] if hasattr(transformers, kind)]
        plans = [Plan(config, kind, "projection") for kind in sorted(kinds, key=lambda kind: kind != named)]
    else:
        heads, encoders = _classifiers().get(model_type, ()), _encoders().get(model_type, ())
        plans = [Plan(config, kind, "classifier", keep_classifier=True) for kind in heads if kind == named]
        if not plans and heads and model_type not in _CLASS_TOKEN:
            plans.append(Plan(config, heads[0], "classifier"))
        if named.endswith("WithTeacher"):
            plans = [Plan(config, kind, "cls+distilled") for kind in encoders] if model_type == "deit" else plans[1:]
        plans += [Plan(config, kind, pooling) for kind in encoders for pooling in ("pooler", "cls", "mean")]
    plans = [plan for plan in plans if hasattr(transformers, plan.kind)]
    if not plans:
        raise BackboneError(
            f"hf/{short} is a {named or model_type}, for which transformers has no network that takes images alone"
        )
    return plans


def has_text(plan: Plan) -> bool:
    """Whether the model of a plan has a text tower beside its image tower."""
    import transformers

    return hasattr(getattr(transformers, plan.kind), "get_text_features")


def random_model(plan: Plan) -> nn.Module:
    """A model of a plan with random weights."""
    import transformers

    module: nn.Module = getattr(transformers, plan.kind)(plan.config)
    return module


def first_model(plans: Sequence[Plan], size: ImageSize) -> tuple[Plan, nn.Module]:
    """The first of several plans that makes a vector of an image, and its model with random weights."""
    for plan in plans:
        module = random_model(plan)
        if _makes_vector(plan, module, size):
            return plan, module
    raise BackboneError(f"{plans[0].kind} makes no vector of an image of {sides_text(size)} pixels")


def fitted_model(
    plans: Sequence[Plan], state: Mapping[str, Tensor], size: ImageSize, origin: str
) -> tuple[Plan, nn.Module]:
    """The first of several plans that some tensors fill, and its model with them.

    Args:
        plans: from ``plans_of``.
        state: tensors by the names in a file of transformers, of whatever version: transformers converts them.
        size: the size of the images.
        origin: where the tensors come from, for the message.

    Returns:
        The plan, without the classifier if its tensors are missing, and the model.

    Raises:
        BackboneError: the tensors fill no plan.
    """
    import transformers

    faults = []
    for plan in plans:
        try:
            module, info = getattr(transformers, plan.kind).from_pretrained(
                None,
                config=plan.config,
                state_dict=dict(state),
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are treated as missing, with a message of featx
            )
        except Exception as error:  # transformers passes on the errors of each model
            faults.append(f"{plan.kind}: {brief(error)}")
            continue
        last = last_linear(module) if plan.pooling == "classifier" else None
        misshapen = {name: (tuple(found), tuple(wanted)) for name, found, wanted in info["mismatched_keys"]}
        own, wrong = _missing([*info["missing_keys"], *misshapen], last, plan)
        if wrong:
            faults.append(_fault(plan.kind, wrong, misshapen))
        elif further := _further_layer(info["unexpected_keys"], module):
            faults.append(
                f"{plan.kind} has fewer layers by its config.json than the weights, which also hold {further}"
            )
        elif surplus := _without_place(info["unexpected_keys"], module):
            faults.append(f"{plan.kind} has no place for {surplus} of the weights, which may change its features")
        elif _makes_vector(plan, module, size):
            held = {n: t for n, t in module.state_dict().items() if n not in own}
            require_finite(module, held, origin=origin)
            return replace(plan, keep_classifier=plan.keep_classifier and not own), module
    raise BackboneError(
        f"{origin} does not hold the weights of this model: {'; '.join(dict.fromkeys(faults)) or 'none fits'}"
    )


def _fault(kind: str, wrong: Sequence[str], misshapen: Mapping[str, tuple[Any, Any]]) -> str:
    """What keeps tensors from filling a model: how many are missing or of another shape, and the first."""
    absent = [name for name in wrong if name not in misshapen]
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        return f"{counted(len(absent), 'tensor')} of {kind} {verb} missing, such as {printable(absent[0])}"
    found, wanted = misshapen[wrong[0]]
    have = "has another shape" if len(wrong) == 1 else "have other shapes"
    shapes = f"such as {printable(wrong[0])}, which has {found} instead of {wanted}"
    return f"{counted(len(wrong), 'tensor')} of {kind} {have}, {shapes}"


def _further_layer(names: Iterable[str], module: nn.Module) -> str:
    """The first tensor of a layer behind the last of a model's numbered layers; "" if there is none."""
    modules = dict(module.named_modules())
    base = f"{getattr(module, 'base_model_prefix', '')}."
    for name in sorted(names):
        for number in re.finditer(r"\.\d+(?=\.)", name):
            place = name[: number.start()]
            for parent in (modules.get(each) for each in (place, f"{base}{place}", place.removeprefix(base))):
                if isinstance(parent, nn.ModuleList) and number[0][1:] not in dict(parent.named_children()):
                    return printable(name)
    return ""


def _without_place(names: Iterable[str], module: nn.Module) -> str:
    """The first tensor inside a part that a model has, which lacks that tensor; "" if there is none.

    Whole parts that a model lacks, such as a decoder, a text tower or a pooler, change none of its features.
    """
    parts = {name for name, _ in module.named_modules()}
    base = getattr(module, "base_model_prefix", "")
    for name in sorted(names):
        parent, _, last = name.rpartition(".")
        within = {parent, f"{base}.{parent}" if parent else "", parent.removeprefix(f"{base}.")} - {"", base}
        if within & parts and last != "mask_token" and not is_constant(last):
            return printable(name)
    return ""


def _missing(names: Iterable[str], last: str | None, plan: Plan) -> tuple[list[str], list[str]]:
    """The missing tensors that are the classifier's, and those that the embedding of a plan depends on."""
    missing = sorted(name for name in names if not name.endswith(("num_batches_tracked", "position_ids")))
    own = [name for name in missing if last and name.startswith(f"{last}.")]
    unused = [name for name in missing if plan.pooling not in ("pooler", "projection") and name.startswith("pooler.")]
    return own, [name for name in missing if name not in {*own, *unused}]


def _makes_vector(plan: Plan, module: nn.Module, size: ImageSize) -> bool:
    """Whether a model has what the pooling of a plan takes; only a forward pass tells whether it has a pooled output."""
    if plan.pooling == "classifier":
        return last_linear(module) is not None
    if plan.pooling == "cls":
        return any(name.endswith("cls_token") for name, _ in module.named_parameters())
    if plan.pooling != "pooler":
        return True
    with (
        contextlib.suppress(Exception),
        torch.inference_mode(),
    ):  # a network that cannot run is reported when it is used
        return module.eval()(pixel_values=torch.zeros(1, 3, *sides_of(size))).pooler_output is not None
    return False


def states_in(content: Any, model: Any, part: str) -> list[tuple[str, dict[str, Tensor]]]:
    """The tables of tensors in a checkpoint that may be a model's, with containers and prefixes taken off.

    Args:
        content: what ``weight_reader.read_file`` returns.
        model: a model of transformers, for its names: its own, those in its files, and both without the encoder's prefix.
        part: a part of the container and prefix that must be in them; "" for any.

    Returns:
        For each table, the container and prefix that were taken off, as one dotted name, and the tensors.
    """
    from transformers.core_model_loading import revert_weight_conversion

    own = model.state_dict()
    names = [*own, *revert_weight_conversion(model, own)]
    base = f"{getattr(model, 'base_model_prefix', '')}."
    wanted = {name.removeprefix(base) for name in names} | set(names)
    insides = {name[: dot + 1] for name in wanted for dot, letter in enumerate(name) if letter == "."}
    found: list[tuple[str, dict[str, Tensor]]] = []
    for container, table in tables_in(content):
        beginnings = {name.removesuffix(end) for name in table for end in wanted if name.endswith(f".{end}")} | {""}
        taken: list[str] = []
        for prefix in sorted(beginnings, key=len):
            state = {name.removeprefix(prefix): tensor for name, tensor in table.items() if name.startswith(prefix)}
            if len(wanted & state.keys()) <= len(own) // 2:
                continue  # not a model's
            if any(prefix.startswith(outer) and prefix[len(outer) :] in insides for outer in taken):
                continue  # the encoder within one that was found
            taken.append(prefix)
            way = ".".join(piece for piece in (container, prefix.rstrip(".")) if piece)
            found.append((way, state))
    chosen = matching([way for way, _ in found], part)
    return [(way, state) for way, state in found if way in chosen]


def last_linear(module: nn.Module) -> str | None:
    """The name of the one linear layer that a model has behind its encoder; None if there is none, or more than one."""
    base = getattr(module, "base_model_prefix", "")
    names = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Identity) and not f"{name}.".startswith(f"{base}.")
    ]
    return names[0] if len(names) == 1 else None
