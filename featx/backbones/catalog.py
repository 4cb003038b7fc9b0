"""The catalogue of backbones: names, sizes and published accuracies."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from importlib import util
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featx.arguments import names_of
from featx.backbones import registry
from featx.backbones.classifier import find_classifier
from featx.errors import BackboneError
from featx.io.atomic import keep
from featx.reporter import SILENT, Reporter
from featx.system import home
from featx.text import brief


@dataclass(frozen=True)
class CatalogEntry:
    """One line of ``featx backbones``.

    Attributes:
        name: the value for ``--backbone``.
        family: the name of the architecture's class.
        embedding: width D of the penultimate embedding, measured without data.
        parameters: the number of parameters of the whole network.
        input_size: side of the square input image in pixels, or (height, width) of another.
        top1: ImageNet-1k top-1 accuracy of the default weights in %, as torchvision or timm publishes it; None if unknown.
        local: whether the default weights are on this machine.
    """

    name: str
    family: str
    embedding: int
    parameters: int
    input_size: int | tuple[int, int]
    top1: float | None
    local: bool

    def as_dict(self) -> dict[str, Any]:
        """The entry as ``featx backbones --json`` prints it."""
        return asdict(self)


@dataclass(frozen=True)
class SkippedBackbone:
    """A backbone that cannot be built here.

    Attributes:
        name: the value for ``--backbone``.
        why: the reason.
    """

    name: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        """The entry as ``featx backbones --json`` prints it."""
        return asdict(self)


_SAVED_EVERY = 5.0
"""Seconds after which new measurements are stored, so that a run that is stopped has not been for nothing."""

_RULES = 2
"""Part of the name of the stored measurements. A change raises it that lets featx use more networks, or measures others."""

_SKIPPED = {"why"}
_MEASURED = {"family", "embedding", "parameters", "input_size"}
"""The fields that are measured without data, and remembered."""


def list_backbones(pattern: str | None = None) -> list[str]:
    """List the names of backbones.

    Args:
        pattern: a part of the name, or a pattern with ``*``, ``?`` or ``[``. A pattern that begins with ``timm/``,
            ``open_clip/`` or ``hf/`` lists the models of timm, of open_clip, or in the local cache of the Hugging Face hub; any
            other lists the backbones that need no optional dependency. Without a pattern, all of those.

    Raises:
        BackboneError: the package that the pattern begins with is not installed.

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
    """Measure backbones by building them on torch's meta device, which needs no weights and computes only shapes.

    The measurements are stored in ``home()`` for this version of torch, torchvision and timm.

    Args:
        names: the name of a backbone, or several.
        reporter: its ``progress`` is called after each backbone.

    Raises:
        BackboneError: there is no such backbone, or it cannot be built.
    """
    entries = []
    for entry in measure_backbones(names, reporter=reporter):
        if isinstance(entry, SkippedBackbone):
            raise BackboneError(entry.why)
        entries.append(entry)
    return entries


def measure_backbones(
    names: str | Sequence[str], *, reporter: Reporter = SILENT
) -> Iterator[CatalogEntry | SkippedBackbone]:
    """Measure backbones one by one, as ``describe_backbones``, and go on where one cannot be built.

    Args:
        names: the name of a backbone, or several.
        reporter: its ``progress`` is called after each backbone.

    Yields:
        An entry for each name, as soon as it is measured; or the reason why it was skipped.
    """
    names, memos = names_of(names, "names"), dict[str, _Memo]()
    try:
        for done, name in enumerate(names, start=1):
            source = registry.source_of(name)
            package = source.package if source else ""
            memo = memos[package] = memos.get(package) or _Memo(package)
            measured = memo.of(name)
            if set(measured) == _SKIPPED:
                yield SkippedBackbone(name, measured["why"])
            else:
                top1 = source.published_top1(name, "default") if source else None
                local = source.has_local_weights(name) if source else False
                yield CatalogEntry(name, **measured, top1=top1, local=local)
            reporter.progress(done, len(names))
    finally:  # also where the caller stops early
        for memo in memos.values():
            memo.save()


def published_top1(name: str, weights: str) -> float | None:
    """The top-1 accuracy on ImageNet's validation set that is published with weights, 0 to 1; None if it does not.

    Args:
        name: the name of a backbone.
        weights: as in ``Network.weights``.
    """
    source = registry.source_of(name)
    top1 = source.published_top1(name, weights) if source else None
    return None if top1 is None else float(top1) / 100


class _Memo:
    """What was measured before, by name, for the installed versions; new measurements are stored every few seconds.

    Args:
        package: the optional package that builds the networks, whose version counts; "" for none.
    """

    def __init__(self, package: str) -> None:
        versions = [torch.__version__, _version_of("torchvision")]
        if package:
            versions = [package, _version_of(package), torch.__version__]
        self._file = home() / f"backbones-{_RULES}-{'-'.join(versions)}.json"
        self._entries = _read_memo(self._file)
        self._saved_at, self._is_new = time.monotonic(), False

    def of(self, name: str) -> dict[str, Any]:
        """The measurements of a backbone, or why there are none."""
        source = registry.source_of(name)
        if name not in self._entries or (source and source.may_change(name)):
            try:
                self._entries[name] = _measure(name)
            except Exception as error:  # each of a thousand networks has code of its own
                reason = str(error) if isinstance(error, BackboneError) else brief(error)
                if not source:
                    return {"why": reason}
                self._entries[name] = {"why": reason}
            self._is_new = True
            if time.monotonic() - self._saved_at > _SAVED_EVERY:
                self.save()
        return self._entries[name]

    def save(self) -> None:
        """Store the new measurements, if there are any."""
        if self._is_new:
            keep(self._file.name, json.dumps(self._entries, indent=0).encode())
        self._saved_at, self._is_new = time.monotonic(), False


def _version_of(package: str) -> str:
    """The version of an installed package, whose distribution may have another name; "none" where it is not installed."""
    if not util.find_spec(package):
        return "none"
    return version(next(iter(packages_distributions().get(package, [package]))))


def _read_memo(memo_file: Path) -> dict[str, dict[str, Any]]:
    try:
        memo = json.loads(memo_file.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(memo, dict):
        return {}
    return {
        name: entry for name, entry in memo.items() if isinstance(entry, dict) and set(entry) in (_MEASURED, _SKIPPED)
    }


def _measure(name: str) -> dict[str, Any]:
    network, images = registry.build_on_meta(name)
    module = network.module
    return {
        "family": type(module).__name__,
        "embedding": _width(module, network.classifier, images),
        "parameters": sum(p.numel() for p in module.parameters()),
        "input_size": network.transform.image_size,
    }


def _width(module: nn.Module, classifier: str | None, images: Tensor) -> int:
    """Width D of what enters the last layer; a forward pass is needed only where the layer does not tell."""
    layer = module.get_submodule(classifier) if classifier else None
    if isinstance(layer, nn.Linear):
        return layer.in_features
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels
    _, shape = find_classifier(module, images, classifier)
    maps_of_channels = (
        len(shape) == 4 and not shape[1] == shape[2] != shape[3]
    )  # otherwise tokens, or maps of timm's NHWC
    return shape[1] if maps_of_channels else shape[-1]
