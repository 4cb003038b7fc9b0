"""Where the file of a promoted model goes: promotions with other settings get files of their own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.refits import Made, Place, images_digest, same_data, tag, with_options
from featx.promotion.config import FineTuning
from featx.promotion.model_file import MODEL


def model_place(
    head: Head,
    file: Path | None,
    settings: FineTuning | None,
    *,
    models: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    teacher: str | None = None,
) -> Place:
    """Where a model is written: the file that was named, or one that is named after its head and the settings.

    The same name is taken again by a promotion of the same head with the same settings. A model that was only assembled makes
    way for a fine-tuned one, since it is made again in a moment, and never takes its place.

    Args:
        head: The head.
        file: Its file, or None.
        settings: The settings of fine-tuning, or None.
        models: Folder of models.
        out: The file, if one is named.
        teacher: The teacher's name, if there is one.
    """
    options = _options(head, settings, teacher)

    def is_same(there: Mapping[str, Any]) -> bool:
        made = Made.of(there)
        is_known = made is None or dict(made.options) == options  # older versions stored no options
        of_this_head = same_data(there, dataset=head.dataset_, identity=head.identity_)
        return of_this_head and (is_known or (there["verdict"] == "assembled" and settings is not None))

    if out:
        return Place.named(Path(out), MODEL, is_same)
    stem, words = f"{_stem(head, file)}--promoted", _words(settings, teacher)
    facts = [options, head.identity_, head.dataset_.get("root", "")]
    names = [with_options(stem, each, ".safetensors") for each in (words, [*words, tag(facts)])]
    return Place.free([Path(models) / name for name in names], MODEL, is_same)


def made_of(
    head: Head, settings: FineTuning | None, features: FeatureSet, judged: np.ndarray, teacher: str | None = None
) -> Made:
    """The record of a promotion.

    Args:
        head: The head.
        settings: The settings of fine-tuning, or None.
        features: The features, in the splits of the head.
        judged: (n,) int64, the rows of the test images.
        teacher: The teacher's name, if there is one.
    """
    train, classes = features.rows("train"), features.classes
    return Made.now(
        _options(head, settings, teacher),
        fitted_to=images_digest(features.keys, features.labels, classes, train),
        judged=images_digest(features.keys, features.labels, classes, judged),
    )


def _options(head: Head, settings: FineTuning | None, teacher: str | None) -> dict[str, Any]:
    """What decides which model it is, as its file stores it: the head's parameters, and settings other than the defaults.

    A hyper-parameter that was chosen by cross-validation depends on the images, and is none of the options.
    """
    own = head.parameters
    chosen = [name for name in ("C", "k", "weight_decay") if len(head.search_) > 1 and own[name] is not None]
    parameters = {name: value for name, value in own.items() if value not in (None, 0) and name not in chosen}
    tuning = {} if settings is None else _changed(settings)
    return {
        "head": {"kind": head.kind, "layer": head.layer_, **parameters, "reject_below": head.reject_below_},
        "finetune": settings is not None,
        **tuning,
        **({"teacher": teacher} if teacher else {}),
    }


def _changed(settings: FineTuning) -> dict[str, Any]:
    default, stored = FineTuning().as_stored(), settings.as_stored()
    return {name: value for name, value in stored.items() if value != default[name]}


def _stem(head: Head, file: Path | None) -> str:
    """The name of a head's file without its ending, or one made of its data set and kind."""
    return file.stem if file else f"{Path(head.dataset_.get('name', 'features')).name}--{head.kind}"


def _words(settings: FineTuning | None, teacher: str | None) -> list[str]:
    """The settings in the names of files, as the options of the command line: "lr0.01", "last3", "sgd", "no-flip"."""
    words = []
    for name, value in ({} if settings is None else _changed(settings)).items():
        option = {"from_layer": "from", "views": "crops"}.get(name, name.replace("_", "-"))
        if isinstance(value, bool):
            words.append(option if value else f"no-{option}")
        elif name in ("optimizer", "augment", "class_weight"):
            words.append({"none": "no-augment"}.get(value, value))
        elif name in ("from_layer", "part"):
            words.append("-".join([option, *re.findall(r"[\w.]+", value)]))
        else:
            words.append(f"{option}{value:.12g}")
    return [*words, f"teacher-{teacher}"] if teacher else words
