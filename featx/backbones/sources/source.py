"""The interface of a source of networks, and the helpers that all sources share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from torchvision import models

from featx.backbones import weights as weight_files
from featx.data.transform import Transform
from featx.errors import BackboneError
from featx.text import printable


@dataclass(frozen=True)
class Network:
    """A network as its source built it.

    Attributes:
        module: the network with its weights, on the CPU.
        transform: the transform that belongs to the weights.
        classifier: the name of the last layer, or None if the source does not define it.
        origin: what is needed to build the same architecture again: source, name and, for a file of code, its SHA-256.
        weights: "default", "random", the name of torchvision weights, or the absolute path of a file.
    """

    module: nn.Module
    transform: Transform
    classifier: str | None
    origin: dict[str, str]
    weights: str


class Source(ABC):
    """A source of networks, such as torchvision. ``registry.SOURCES`` lists one instance of each.

    Attributes:
        key: the value of ``Network.origin["source"]``. Feature files and models store it.
        prefix: how every name of this source begins; "" if names have no prefix. The names of a source with a prefix are
            listed only for a pattern that begins with it.
    """

    key: ClassVar[str]
    prefix: ClassVar[str] = ""

    @abstractmethod
    def accepts(self, name: str) -> bool:
        """Whether a backbone's name belongs to this source."""

    @abstractmethod
    def build(self, name: str, weights: str) -> Network:
        """Build a network and load its weights.

        Args:
            name: a name that this source accepts.
            weights: as in ``registry.build``.

        Raises:
            BackboneError: the network or its weights are not available, or do not fit each other.
        """

    def rebuild(self, origin: Mapping[str, str]) -> nn.Module:
        """Build the architecture of a stored origin with random weights.

        A stored name is accepted only by the source that it is stored with, so a file of code cannot pass as another source.

        Raises:
            BackboneError: this source has no such network.
        """
        if not self.accepts(origin["name"]):
            raise no_such_network(origin)
        return self.build(origin["name"], "random").module

    def names(self) -> Sequence[str]:
        """The names of all networks of this source that can be listed."""
        return ()

    def has_local_weights(self, name: str) -> bool:  # noqa: ARG002 - the arguments are those of every source
        """Whether the default weights of a network are on this machine."""
        return False

    def published_top1(self, name: str, weights: str) -> float | None:  # noqa: ARG002 - as above
        """The ImageNet-1k top-1 accuracy in % that the source publishes with some weights, or None."""
        return None


def no_such_network(origin: Mapping[str, str]) -> BackboneError:
    """The error for a stored origin that no source can build."""
    return BackboneError(f"there is no network {origin['name']!r} of {origin['source']}")


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network with the same random weights on every machine, without touching the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also seed the generator of every GPU
        return build()


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a weight file into a network. GoogLeNet and Inception v3 are built without their auxiliary heads.

    Raises:
        BackboneError: the file cannot be read, or does not fit.
    """
    state = weight_files.read_state(path)
    if isinstance(module, models.GoogLeNet | models.Inception3):
        state = {n: t for n, t in state.items() if not n.startswith(("aux1.", "aux2.", "AuxLogits."))}
    weight_files.load_strictly(module, state, origin=str(path))


def load_local_weights(module: nn.Module, weights: str) -> str:
    """Load weights from a local file, unless they are "default" or "random".

    Returns:
        The value for ``Network.weights``: the argument, or the absolute path of the file.

    Raises:
        BackboneError: the file cannot be read, or does not fit.
    """
    if weights in ("default", "random"):
        return weights
    path = absolute_path(weights)
    load_weights(module, path)
    return str(path)


def absolute_path(path: str) -> Path:
    """The absolute path of a file, with links resolved.

    Raises:
        BackboneError: the text is not a path.
    """
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null character
        raise BackboneError(f"{printable(path)} is not the path of a file: {error}") from error


def name_of(network: nn.Module, layer: nn.Module) -> str | None:
    """The name of a layer within a network, or None if it is not part of it."""
    return next((name for name, module in network.named_modules() if module is layer), None)
