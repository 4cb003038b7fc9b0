"""Networks of the user's own: ``path/to/file.py:factory``."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featx.backbones.sources.local_files import LocalFiles, package_of
from featx.backbones.sources.source import (
    ImageSize,
    Network,
    Source,
    absolute_path,
    load_local_weights,
    name_of,
    seeded,
)
from featx.constants import MAX_CHANNELS
from featx.data.transform import Transform
from featx.errors import BackboneError
from featx.system import MISSING, why_unreadable
from featx.text import printable


class FileSource(Source):
    """Networks that a function in a Python file returns.

    The identity of the features holds the file, and what it imports or reads from its own folder and the folders below.

    The factory takes no arguments and returns an ``nn.Module``. The module may have an attribute ``transform`` (a
    ``featx.Transform``; the default is that of ImageNet at 224 pixels) and a method ``get_classifier()`` that returns its last
    layer. A network that cannot run on the channels of its transform, and can on those of its first convolution, gets these.
    """

    key = "file"

    def accepts(self, name: str) -> bool:
        """Whether a backbone's name is ``file.py:factory``."""
        return ".py:" in name

    def build(self, name: str, weights: str, image_size: ImageSize | None = None) -> Network:  # noqa: ARG002 - for any size
        """Run a file and call its factory.

        Raises:
            BackboneError: the file cannot be read, its code fails, or the factory does not return a network.
        """
        file, _, factory_name = name.rpartition(":")
        path = absolute_path(file)
        code = _read_code(path)
        root, package = package_of(path)
        files = LocalFiles(root)
        with files.recorded():
            network = _call_factory(name, path, code, factory_name, package)
            given = getattr(network, "transform", Transform())
            if not isinstance(given, Transform):
                raise BackboneError(f"{name}: its transform is a {type(given).__name__}; expected a featx.Transform")
            transform = _run_once(network, given)
        get_classifier = getattr(network, "get_classifier", None)
        classifier = name_of(network, get_classifier()) if callable(get_classifier) else None
        weights, notes = load_local_weights(network, weights, transform, classifier, name=Path(name).name)
        if transform is not given:
            notes += (_channels_note(name, transform),)
        digest = hashlib.sha256(code).hexdigest()
        origin = {"source": self.key, "name": f"{path.name}:{factory_name}", "code_sha256": digest}
        if files.digest:
            origin["sources_sha256"] = files.digest
        return Network(network, transform, classifier, origin, weights, notes)

    def rebuild(self, origin: Mapping[str, str]) -> nn.Module:
        """Refuse to build the network, because featx never runs code at a path that a file stores.

        Raises:
            BackboneError: always.
        """
        raise BackboneError(
            f"the network is {printable(origin['name'])}, a file of code, and a stored path is never run; name it with "
            "--backbone"
        )


def _read_code(path: Path) -> bytes:
    why = why_unreadable(path)
    if why == MISSING:
        raise BackboneError(f"there is no file {path}; expected path/to/file.py:factory")
    if why:
        raise BackboneError(f"{path} cannot be read: {why}; expected path/to/file.py:factory")
    return path.read_bytes()


def _call_factory(name: str, path: Path, code: bytes, factory_name: str, package: str) -> nn.Module:
    namespace = types.ModuleType(f"_featx_{hashlib.sha256(code).hexdigest()}")
    namespace.__file__ = str(path)
    namespace.__package__ = package
    sys.modules[namespace.__name__] = namespace  # dataclasses look up the module of a class there
    try:
        # The code is not imported: exactly the bytes that are hashed run, whatever a stale __pycache__ contains.
        exec(compile(code, path, "exec"), namespace.__dict__)
        factory = getattr(namespace, factory_name, None)
        network: Any = seeded(factory) if callable(factory) else None
    except Exception as error:  # the user's code may raise anything
        raise BackboneError(f"{name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        found = f"it returned {type(network).__name__}" if callable(factory) else f"{path.name} has no such function"
        raise BackboneError(f"{name}: expected a function without arguments that returns a torch.nn.Module; {found}")
    return network


def _run_once(network: nn.Module, transform: Transform) -> Transform:
    """Run a network, so that what its forward pass imports is recorded too. Whether it can run is found out later.

    Returns:
        The transform; where the network runs on another number of channels alone, that of its first convolution, for these.
    """
    first = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    candidates = [transform]
    if first is not None and 1 <= first.in_channels <= MAX_CHANNELS:
        with contextlib.suppress(ValueError):  # too many numbers in an image of so many channels
            candidates.append(transform.with_channels(first.in_channels))
    for candidate in candidates:
        with contextlib.suppress(Exception), torch.random.fork_rng(devices=[]), torch.inference_mode():
            network.eval()(torch.zeros(1, *candidate.shape))
            return candidate
    return transform


def _channels_note(name: str, transform: Transform) -> str:
    if transform.channels == 1:
        normalised = f"mean {transform.mean[0]:g} and std {transform.std[0]:g}"
        return f"{name} takes one channel: it gets images as grey, with {normalised}; its attribute transform may name others"
    return (
        f"{name} takes {transform.channels} channels: each gets a band of the images, as --bands names them, with the mean and "
        "std of red, green and blue in turn; its attribute transform may name others"
    )
