"""What a service tells about its model: nothing of the machine, such as where a file lies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from featx._version import __version__
from featx.inference import HeadOnBackbone, Model, conformal_of
from featx.layer_spec import LayerSpec

_LEFT_OUT = ("per_class", "per_label", "confusion", "reliability", "notes", "groups")
"""The parts of a report that are not told: tables, and sentences for whoever fitted the model."""


def model_facts(model: Model, *, name: str = "", report: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What anyone may know of a model, as JSON has it.

    Args:
        model: a head on its backbone, or a promoted model.
        name: of the model; by default that of its data set and its backbone.
        report: on the held-out split, as a file stores it; of a promoted model its own by default.

    Returns:
        name, kind, task, classes, identity, backbone, layer, views, reject_below, data set, report and featx; and
        conformal, if there are prediction sets.
    """
    if isinstance(model, HeadOnBackbone):
        head = model.head
        kind, task, identity, layer = f"{head.kind} head", head.task_, head.identity_, head.layer_
        dataset, reject_below, backbone = head.dataset_, head.reject_below_, model.backbone.name
    else:
        meta = model.metadata
        kind, task, identity, layer = "promoted model", "classification", meta["head"]["identity"], meta["layer"]
        dataset, reject_below, backbone = meta["dataset"], model.reject_below, meta["name"]
        report = meta["report"] if report is None else report
    data = public_name(str(dataset.get("name", "")))
    backbone = public_name(backbone)
    return {
        "name": name or f"{data or 'model'}--{backbone.replace('/', '-')}",
        "kind": kind,
        "task": task,
        "classes": list(model.classes),
        "identity": identity,
        "backbone": backbone,
        "layer": layer,
        "views": LayerSpec.parse(layer).views_name,
        "reject_below": reject_below,
        **({} if (conformal := conformal_of(model)) is None else {"conformal": conformal.as_dict()}),
        "dataset": data,
        "report": {key: report[key] for key in report if key not in _LEFT_OUT} if report else None,
        "featx": __version__,
    }


def public_name(name: str) -> str:
    """A name without the folders of this machine, where it is or contains a path.

    Examples:
        >>> public_name("timm/vit_small_patch16_224"), public_name("/home/ann/nets/mine.py:build")
        ('timm/vit_small_patch16_224', 'mine.py:build')
        >>> public_name("hf//home/ann/model"), public_name("nets/mine.py:build")
        ('hf/model', 'mine.py:build')
    """
    source, slash, rest = name.partition("/")
    if source in ("hf", "timm", "open_clip") and slash:
        is_path = rest.startswith(("/", ".", "~")) or re.match(r"[A-Za-z]:|\\", rest)
        return f"{source}/{PurePath(rest).name}" if is_path else name
    return re.split(r"[/\\]", name)[-1] if "/" in name or "\\" in name else name
