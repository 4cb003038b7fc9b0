"""The interface of a source of networks, and the helpers that all sources share."""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from featx.backbones import checkpoint
from featx.backbones.classifier import find_classifier
from featx.backbones.text_tower import TextTower
from featx.backbones.ways import Converter
from featx.constants import MAX_CHANNELS, MAX_SIDE
from featx.data.transform import Transform, sides_text
from featx.errors import BackboneError
from featx.text import printable

ImageSize = int | tuple[int, int]
"""The side of square images in pixels, or (height, width)."""


@dataclass(frozen=True)
class Network:
    """A network as its source built it.

    Attributes:
        module: the network with its weights, on the CPU.
        transform: the transform that belongs to the weights.
        classifier: the name of the last layer, or None if the source does not define it.
        origin: what is needed to build the same architecture again: source, name and, for a file of code, its SHA-256.
        weights: "default", "random", the name of torchvision weights, or the absolute path of a file, perhaps with ``#PART``.
        notes: what the user should know about how the weights were read, one sentence each.
        text: loads the text tower of a model of images and text; None where there is none.
    """

    module: nn.Module
    transform: Transform
    classifier: str | None
    origin: dict[str, str]
    weights: str
    notes: tuple[str, ...] = ()
    text: Callable[[], TextTower] | None = None


class Source(ABC):
    """A source of networks, such as torchvision. ``registry.SOURCES`` lists one instance of each.

    Attributes:
        key: the value of ``Network.origin["source"]``. Feature files and models store it.
        prefix: how every name of this source begins; "" if names have no prefix. The names of a source with a prefix are
            listed only for a pattern that begins with it.
        adapts_channels: whether ``build`` has the argument ``channels``.
        package: the optional package that builds its networks; "" if none does. Measurements count for its version.
    """

    key: ClassVar[str]
    prefix: ClassVar[str] = ""
    adapts_channels: ClassVar[bool] = False
    package: ClassVar[str] = ""

    @abstractmethod
    def accepts(self, name: str) -> bool:
        """Whether a backbone's name belongs to this source."""

    @abstractmethod
    def build(self, name: str, weights: str, image_size: ImageSize | None = None) -> Network:
        """Build a network and load its weights.

        Args:
            name: a name that this source accepts.
            weights: as in ``registry.build``.
            image_size: as in ``registry.build``; a source whose networks do not depend on it ignores it. A source that adapts
                channels has the argument ``channels`` too, also as in ``registry.build``.

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
        channels = stored_channels(origin)
        adapted = {} if channels is None or not self.adapts_channels else {"channels": channels}
        return self.build(origin["name"], "random", stored_size(origin, MAX_SIDE), **adapted).module

    def accepts_without_prefix(self, name: str) -> bool:  # noqa: ARG002 - the arguments are those of every source
        """Whether a name would belong to this source if its prefix stood before it."""
        return False

    def names(self) -> Sequence[str]:
        """The names of all networks of this source that can be listed."""
        return ()

    def may_change(self, name: str) -> bool:  # noqa: ARG002 - as above
        """Whether another network may have this name later, such as that of a folder; it is measured anew each time."""
        return False

    def has_local_weights(self, name: str) -> bool:  # noqa: ARG002 - as above
        """Whether the default weights of a network are on this machine."""
        return False

    def published_top1(self, name: str, weights: str) -> float | None:  # noqa: ARG002 - as above
        """The ImageNet-1k top-1 accuracy in % that the source publishes with some weights, or None."""
        return None


def no_such_network(origin: Mapping[str, str]) -> BackboneError:
    """The error for a stored origin that no source can build."""
    return BackboneError(f"there is no network {origin['name']!r} of {origin['source']}")


def stored_size(origin: Mapping[str, str], most: int = 99_999) -> ImageSize | None:
    """The size in pixels of the images that a stored network was built for; None if it is the network's usual one.

    Args:
        origin: as in ``Network.origin``.
        most: the largest side. A source that allocates memory for it gives a smaller one.

    Raises:
        BackboneError: the stored size is not one that a transform may have.
    """
    size = origin.get("image_size")
    if size is None:
        return None
    sides = tuple(map(int, size.split("x"))) if re.fullmatch("[1-9][0-9]{0,4}(x[1-9][0-9]{0,4})?", size) else ()
    if not sides or max(sides) > most:
        raise BackboneError(f"{origin['name']} cannot be built for images of {printable(repr(size))} pixels")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def stored_channels(origin: Mapping[str, str]) -> int | None:
    """The number of channels that a stored network was adapted to; None if it is that of its weights.

    Raises:
        BackboneError: the stored number is not one that a transform may have.
    """
    channels = origin.get("in_chans")
    if channels is not None and not (re.fullmatch("[1-9][0-9]{0,3}", channels) and int(channels) <= MAX_CHANNELS):
        raise BackboneError(f"{origin['name']} cannot be built for {printable(repr(channels))} channels")
    return None if channels is None else int(channels)


def sides_of(size: ImageSize) -> tuple[int, int]:
    """(height, width) of a size of images."""
    return (size, size) if isinstance(size, int) else size


def size_name(size: ImageSize) -> str:
    """A size of images as ``Network.origin`` holds it: "224", or "224x448" for (224, 448)."""
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def resized_note(name: str, native: ImageSize, size: ImageSize) -> str:
    """The note for a network that was built for images of another size than its weights."""
    adapted = f"was adapted to {sides_text(size)}, position embeddings by interpolation"
    return f"{name} is built for {sides_text(native)} pixels and {adapted}"


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network with the same random weights on every machine, without touching the caller's random state."""
    with forked_random():
        return build()


@contextlib.contextmanager
def forked_random() -> Iterator[None]:
    """A context in which random weights are the same on every machine; the caller's random state is as before after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also seed the generator of every GPU
        yield


def load_weights(
    module: nn.Module,
    weights: str | Path,
    transform: Transform,
    classifier: str | None = None,
    *,
    name: str = "",
    convert: Converter | None = None,
) -> tuple[str, tuple[str, ...]]:
    """Load a file's weights into a network; see ``checkpoint.load_checkpoint``.

    Args:
        module: the network, changed in place.
        weights: the path of a file, or ``FILE#PART`` where the file holds several networks that fit.
        transform: the network's transform, for a forward pass where it takes one to find the last layer.
        classifier: the name of the last layer, where it is known.
        name: the backbone's name for messages.
        convert: as in ``checkpoint.load_checkpoint``.

    Returns:
        The value for ``Network.weights``, which is the absolute path of the file with the part, and what the user should know.

    Raises:
        BackboneError: the file cannot be read, or does not fit.
    """
    file, part = checkpoint.split_part(str(weights))
    path = absolute_path(file)

    def last_layer() -> str | None:
        try:
            images = torch.zeros(1, *transform.shape)
            return classifier or find_classifier(module.eval(), images)[0]
        except Exception:  # a network that cannot run is reported when it is used
            return None

    notes = checkpoint.load_checkpoint(
        module, path, part=part, name=name, side=transform.crop, classifier=last_layer, convert=convert
    )
    return f"{path}#{part}" if part else str(path), notes


def load_local_weights(
    module: nn.Module,
    weights: str,
    transform: Transform,
    classifier: str | None = None,
    *,
    name: str = "",
    convert: Converter | None = None,
) -> tuple[str, tuple[str, ...]]:
    """Load weights from a local file, unless they are "default" or "random"; as ``load_weights``."""
    if weights in ("default", "random"):
        return weights, ()
    return load_weights(module, weights, transform, classifier, name=name, convert=convert)


def absolute_path(path: str) -> Path:
    """The absolute path of a file, with links resolved, and ``~/`` as a recipe or Python may have it.

    Raises:
        BackboneError: the text is not a path.
    """
    try:
        return (Path(path).expanduser() if path.startswith("~/") else Path(path)).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null character
        raise BackboneError(f"{printable(path)} is not the path of a file: {error}") from error


def last_layer(network: nn.Module) -> str:
    """The name of the linear or convolutional layer that a network of torchvision defines last, which is its last to run."""
    names: list[str] = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return names[-1]


def name_of(network: nn.Module, layer: nn.Module) -> str | None:
    """The name of a layer within a network, or None if it is not part of it."""
    return next((name for name, module in network.named_modules() if module is layer), None)
