"""The catalogue of backbones: names, sizes and published accuracies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import torchvision
from torchvision import models

from featx.backbones import weights as weight_files
from featx.backbones.registry import EMBEDDED_WEIGHTS, hollow, import_timm, last_layer, names, torchvision_names
from featx.io.atomic import keep
from featx.reporter import SILENT, Reporter
from featx.system import home

# The list of what there is


@dataclass(frozen=True)
class ZooEntry:
    """One line of ``featx backbones``.

    Attributes:
        name: what ``--backbone`` takes.
        family: the architecture's class.
        embedding: width D of the penultimate embedding, from a forward pass without data.
        parameters: of the whole network.
        input_size: side of the square the network sees, in pixels.
        top1: ImageNet-1k top-1 accuracy of the default weights in %, by torchvision's metadata; None where unknown.
        local: whether the default weights are on this machine.
    """

    name: str
    family: str
    embedding: int
    parameters: int
    input_size: int
    top1: float | None
    local: bool

    def as_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)


_MEASURED = {"family", "embedding", "parameters", "input_size"}
"""What a forward pass without data tells, and what is remembered of it."""


def matching(pattern: str | None = None) -> list[str]:
    """Names that contain the pattern, or fit it where it has a ``*``. A pattern that begins with timm/ asks timm.

    Raises:
        BackboneError: timm is asked for and not installed.
    """
    if not pattern:
        return names()
    asks_timm = pattern.startswith("timm/")
    every = [f"timm/{name}" for name in import_timm().list_models()] if asks_timm else names()
    wanted = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    return [name for name in every if fnmatch(name, wanted)]


def describe(names: Sequence[str], *, reporter: Reporter = SILENT) -> list[ZooEntry]:
    """Measure backbones by a forward pass on torch's meta device: shapes alone, no weights and no arithmetic.

    What was measured is remembered in ``home()`` for this version of torch and torchvision.
    """
    memo_file = home() / f"backbones-{torch.__version__}-{torchvision.__version__}.json"
    memo = _read_memo(memo_file)
    known = len(memo)
    entries = []
    for done, name in enumerate(names, start=1):
        if name not in memo:
            memo[name] = _measure(name)
        entries.append(_entry(name, memo[name]))
        reporter.progress(done, len(names))
    if len(memo) > known:
        keep(memo_file.name, json.dumps(memo, indent=0).encode())
    return entries


def _read_memo(memo_file: Path) -> dict[str, dict[str, Any]]:
    try:
        memo = json.loads(memo_file.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(memo, dict):
        return {}
    return {name: entry for name, entry in memo.items() if isinstance(entry, dict) and entry.keys() == _MEASURED}


def _measure(name: str) -> dict[str, Any]:
    network, images = hollow(name)
    module, side = network.module, network.transform.crop
    _, shape = last_layer(module, images, network.classifier)
    return {
        "family": type(module).__name__,
        "embedding": shape[1] if len(shape) == 4 else shape[-1],
        "parameters": sum(p.numel() for p in module.parameters()),
        "input_size": side,
    }


def _entry(name: str, measured: Mapping[str, Any]) -> ZooEntry:
    if name not in torchvision_names():
        return ZooEntry(name, **measured, top1=None, local=name in EMBEDDED_WEIGHTS)
    default = models.get_model_weights(name).DEFAULT
    top1 = default.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    return ZooEntry(name, **measured, top1=top1, local=weight_files.cached_path(default.url).exists())
