"""The catalogue of backbones: names, sizes and published accuracies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import torchvision

from featx.arguments import names_of
from featx.backbones import registry
from featx.backbones.classifier import find_classifier
from featx.io.atomic import keep
from featx.reporter import SILENT, Reporter
from featx.system import home


@dataclass(frozen=True)
class CatalogEntry:
    """One line of ``featx backbones``.

    Attributes:
        name: the value for ``--backbone``.
        family: the name of the architecture's class.
        embedding: width D of the penultimate embedding, measured by a forward pass without data.
        parameters: the number of parameters of the whole network.
        input_size: side of the square input image in pixels.
        top1: ImageNet-1k top-1 accuracy of the default weights in %, from torchvision's metadata; None if unknown.
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
        """The entry as ``featx backbones --json`` prints it."""
        return asdict(self)


_MEASURED = {"family", "embedding", "parameters", "input_size"}
"""The fields that are measured by a forward pass without data, and remembered."""


def list_backbones(pattern: str | None = None) -> list[str]:
    """List the names of backbones.

    Args:
        pattern: a part of the name, or a pattern with ``*``, ``?`` or ``[``. A pattern that begins with ``timm/`` lists the
            models of timm; any other lists the backbones that need no optional dependency. Without a pattern, all of those.

    Raises:
        BackboneError: the pattern begins with ``timm/``, and timm is not installed.

    Examples:
        >>> list_backbones("_v1_0")
        ['mobilenet_v1_025', 'mobilenet_v1_050', 'mobilenet_v1_075']
    """
    if not pattern:
        return registry.names()
    source = next((s for s in registry.SOURCES if s.prefix and pattern.startswith(s.prefix)), None)
    names = source.names() if source else registry.names()
    glob = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    return [name for name in names if fnmatch(name, glob)]


def describe_backbones(names: str | Sequence[str], *, reporter: Reporter = SILENT) -> list[CatalogEntry]:
    """Measure backbones by a forward pass on torch's meta device, which needs no weights and computes only shapes.

    The measurements are stored in ``home()`` for this version of torch and torchvision.

    Args:
        names: the name of a backbone, or several.
        reporter: its ``progress`` is called after each backbone.

    Raises:
        BackboneError: there is no such backbone, or it cannot be built.
    """
    names = names_of(names, "names")
    memo_file = home() / f"backbones-{torch.__version__}-{torchvision.__version__}.json"
    memo = _read_memo(memo_file)
    size_before = len(memo)
    entries = []
    for done, name in enumerate(names, start=1):
        if name not in memo:
            memo[name] = _measure(name)
        source = registry.source_of(name)
        top1 = source.published_top1(name, "default") if source else None
        local = source.has_local_weights(name) if source else False
        entries.append(CatalogEntry(name, **memo[name], top1=top1, local=local))
        reporter.progress(done, len(names))
    if len(memo) > size_before:
        keep(memo_file.name, json.dumps(memo, indent=0).encode())
    return entries


def published_top1(name: str, weights: str) -> float | None:
    """The top-1 accuracy on ImageNet's validation set that torchvision publishes with weights, 0 to 1; None if it does not.

    Args:
        name: the name of a backbone.
        weights: as in ``Network.weights``.
    """
    source = registry.source_of(name)
    top1 = source.published_top1(name, weights) if source else None
    return None if top1 is None else float(top1) / 100


def _read_memo(memo_file: Path) -> dict[str, dict[str, Any]]:
    try:
        memo = json.loads(memo_file.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(memo, dict):
        return {}
    return {name: entry for name, entry in memo.items() if isinstance(entry, dict) and entry.keys() == _MEASURED}


def _measure(name: str) -> dict[str, Any]:
    network, images = registry.build_on_meta(name)
    module, side = network.module, network.transform.crop
    _, shape = find_classifier(module, images, network.classifier)
    return {
        "family": type(module).__name__,
        "embedding": shape[1] if len(shape) == 4 else shape[-1],
        "parameters": sum(p.numel() for p in module.parameters()),
        "input_size": side,
    }
