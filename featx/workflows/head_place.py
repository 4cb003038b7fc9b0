"""Where the file of a head goes: fits with other options, or to other data, get files of their own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.constants import DEFAULT_TEMPLATE, ZERO_SHOT
from featx.features.feature_set import FeatureSet
from featx.features.joint_sets import is_joint
from featx.heads.head import Head
from featx.heads.head_file import HEAD, weights_by_name
from featx.heads.refits import Made, Place, images_digest, same_data, tag, with_options
from featx.heads.registry import get_kind
from featx.layer_spec import PENULTIMATE, LayerSpec


def fit_options(
    features: FeatureSet,
    head: Head,
    *,
    auto: bool,
    table: str | os.PathLike[str] | None = None,
    calibrate_on: str | None = None,
) -> dict[str, Any]:
    """The options of a fit that decide which head it gives, as its file stores them; those at their default are left out.

    Args:
        features: the features, with their groups.
        head: not fitted yet, with its task and the texts of its classes.
        auto: whether the kind is chosen among all.
        table: the table of the groups, if one was named.
        calibrate_on: the split that chooses what is promised, if one was named.
    """
    params, task = head.get_params(), str(head.task_)
    default = "none" if not auto and get_kind(head.kind, kernel=head.kernel).gives_logits else "temperature"
    options = {
        "model": "auto" if auto else head.kind,
        "task": task,
        "layer": features.layer,
        "backbones": _parts(features) or None,
        "kernel": None if head.kernel == "linear" else head.kernel,
        **{name: params[name] for name in ("C", "k", "reject_below", "target_precision", "conformal")},
        "conformal_per_class": head.conformal_per_class or None,
        "calibrate_on": calibrate_on,
        "class_weight": weights_by_name(head.class_weight),
        "logit_adjustment": head.logit_adjustment or None,
        "calibrate": None if head.calibrate == default else head.calibrate,
        "seed": head.seed or None,
        "group": features.group,
        "table": str(table) if table else None,
        **_texts(head),
    }
    return {name: value for name, value in options.items() if value is not None}


def _parts(features: FeatureSet) -> list[list[str]]:
    """Of several backbones side by side, the name of each and its layer."""
    if not is_joint(features.backbone):
        return []
    return [[str(part["backbone"].get("name", "")), str(part["layer"])] for part in features.backbone["parts"]]


def _texts(head: Head) -> dict[str, Any]:
    """The templates and the words of the classes, as far as they are not the defaults."""
    if head.texts is None:
        return {}
    facts = head.texts.facts
    words = {
        name: word for name, word in zip(facts["names"], facts["words"], strict=True) if word != name.replace("_", " ")
    }
    templates = facts["templates"] if facts["templates"] != [DEFAULT_TEMPLATE] else None
    return {"anchor": None if head.kind == ZERO_SHOT else ZERO_SHOT, "prompts": templates, "class_names": words or None}


_WORDS = {
    "C": "C{:.12g}", "k": "k{}", "class_weight": "{}", "logit_adjustment": "adjust{:.12g}", "reject_below": "reject{:.12g}",
    "target_precision": "precision{:.12g}", "conformal": "conformal{:.12g}", "conformal_per_class": "per-class",
    "calibrate_on": "on-{}",
    "group": "by-{}", "seed": "seed{}",
}  # fmt: skip
"""The words of the options in names of files. The kind, the layer and the views stand there anyway."""


def _words(options: Mapping[str, Any]) -> list[str]:
    if isinstance(weights := options.get("class_weight"), Mapping):
        options = {
            **options,
            "class_weight": "-".join(["weights", *(f"{name}-{w:.12g}" for name, w in weights.items())]),
        }
    words = [form.format(options[name]) for name, form in _WORDS.items() if name in options]
    if "calibrate" in options:
        words.append({"none": "uncalibrated"}.get(options["calibrate"], options["calibrate"]))
    return words + [word for word, name in (("prompts", "prompts"), ("names", "class_names")) if name in options]


def _part_word(part: Sequence[str]) -> str:
    """One of several backbones in the name of a file: its name, and its layer unless that is the penultimate."""
    name, layer = part[0].rpartition("/")[2] if ".py:" in part[0] else part[0], LayerSpec.parse(part[1]).layer
    return re.sub(r"[^\w.-]+", "-", name if layer == PENULTIMATE else f"{name}-{layer}")


def head_stem(features: FeatureSet, head: Head, *, auto: bool) -> str:
    """The name of a head's file without options and ending: the features, the layer and views unless plain, the kind."""
    parts = [features.source.stem if features.source else Path(features.dataset.get("name", "features")).name]
    layer, _, views = features.layer.partition("@")
    parts += ["+".join(map(_part_word, _parts(features)))] if is_joint(features.backbone) else []
    parts += [layer.replace(":", "_").replace(",", "+")] if layer != PENULTIMATE else []
    parts += [views] if views else []
    variant = (
        "-rbf" if head.kernel == "rbf" else "-anchored" if head.texts is not None and head.kind != ZERO_SHOT else ""
    )
    parts += ["auto" if auto else f"{head.kind}{variant}"]
    return "--".join(parts)


def head_place(
    features: FeatureSet,
    head: Head,
    options: Mapping[str, Any],
    *,
    models: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
) -> Place:
    """Where a head is written: the file that was named, or one that is named after its features, its kind and its options.

    The same name is taken again by a fit with the same options to the same data set, whatever images were added meanwhile. A
    fit that only has the same name, such as one to another data set, gets a hash in its name too.

    Args:
        features: the features.
        head: not fitted yet.
        options: from ``fit_options``.
        models: folder of heads.
        out: the file, if one is named.
    """

    def is_same(there: Mapping[str, Any]) -> bool:
        made = Made.of(there)
        is_known = made is None or dict(made.options) == dict(options)  # older versions stored no options
        return is_known and same_data(there, dataset=features.dataset, identity=features.identity)

    if out:
        return Place.named(Path(out), HEAD, is_same)
    stem, words = head_stem(features, head, auto=options["model"] == "auto"), _words(options)
    facts = [dict(options), features.identity, features.dataset.get("root", "")]
    names = [with_options(stem, each, ".safetensors") for each in (words, [*words, tag(facts)])]
    return Place.free([Path(models) / name for name in names], HEAD, is_same)


def made_of(options: Mapping[str, Any], features: FeatureSet, judged: np.ndarray | None) -> Made:
    """The record of a fit.

    Args:
        options: from ``fit_options``.
        features: N images, in the splits of the head.
        judged: (n,) int64, the rows that the head was judged by, or None.
    """
    train = np.flatnonzero((features.splits == "train") & (features.labels >= 0))
    classes = features.classes
    return Made.now(
        options,
        fitted_to=images_digest(features.keys, features.labels, classes, train),
        judged="" if judged is None else images_digest(features.keys, features.labels, classes, judged),
    )
