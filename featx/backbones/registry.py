"""From a backbone's name to a network. A new source of networks is one module in ``sources`` and one line in ``SOURCES``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from featx.backbones.sources.builtin_source import BuiltinSource
from featx.backbones.sources.file_source import FileSource
from featx.backbones.sources.hf_source import HfSource
from featx.backbones.sources.open_clip_source import OpenClipSource
from featx.backbones.sources.source import ImageSize, Network, Source, no_such_network
from featx.backbones.sources.timm_source import TimmSource
from featx.backbones.sources.torchvision_source import TorchvisionSource
from featx.errors import BackboneError
from featx.io.file_kinds import ARCHIVE, EMPTY, FOLDER, HDF5, MODEL, WEIGHTS, misplaced
from featx.text import counted, did_you_mean

SOURCES: tuple[Source, ...] = (
    FileSource(),
    TimmSource(),
    HfSource(),
    OpenClipSource(),
    BuiltinSource(),
    TorchvisionSource(),
)
"""All sources of networks. The first one that accepts a name builds it."""


_HOLD_WEIGHTS = (WEIGHTS, MODEL, FOLDER, EMPTY, ARCHIVE, HDF5)
"""The kinds of files and folders that the sources try to read weights from."""


def build(
    name: str, weights: str = "default", image_size: ImageSize | None = None, channels: int | None = None
) -> Network:
    """Build a backbone by name and load its weights.

    Args:
        name: ``resnet50``, ``lenet5``, ``mobilenet_v1_075``, ``timm/<name>``, ``hf/<repo or folder>``,
            ``open_clip/<arch>/<pretrained>`` or ``path/to/file.py:factory``.
        weights: "default", "random" (seeded), a torchvision weights name such as IMAGENET1K_V1, or a local file: ``FILE``, or
            ``FILE#PART`` where it holds several networks that fit.
        image_size: the side in pixels of the images, or (height, width), for networks whose architecture depends on it, such as
            vision transformers, whose position embeddings are interpolated. None: the size of the weights.
        channels: the number of channels of the images, for networks whose first layer is adapted to it. None: that of the
            weights.

    Raises:
        BackboneError: there is no such backbone, there are no such weights, or the weights do not fit; or the network takes
            another number of channels, and its source adapts none.
    """
    wanted = "a .safetensors or .pth file of network weights"
    file = weights.partition("#")[0]
    if not file.endswith(".index.json") and (found := misplaced(file, wanted, fits=_HOLD_WEIGHTS)):
        raise BackboneError(found)
    if source := source_of(name):
        adapted = {"channels": channels} if channels is not None and source.adapts_channels else {}
        network = source.build(name, weights, image_size, **adapted)
        if channels not in (None, network.transform.channels):
            raise _no_such_channels(name, network.transform.channels)
        return network
    with_prefix = [
        f"{source.prefix}{name}" for source in SOURCES if source.prefix and source.accepts_without_prefix(name)
    ]
    hint = f"; did you mean {' or '.join(with_prefix)}?" if with_prefix else did_you_mean(name, names())
    raise BackboneError(
        f"there is no backbone {name!r}{hint} (featx backbones lists them; timm/<name>, hf/<repo>, "
        "open_clip/<arch>/<tag>, file.py:factory)"
    )


def _no_such_channels(name: str, takes: int) -> BackboneError:
    """The error for a network of a source that adapts no channels."""
    twins = [
        source.prefix + name for source in SOURCES if source.adapts_channels and source.accepts_without_prefix(name)
    ]
    hint = f"; {twins[0]} can be adapted" if twins else "; networks of timm can be adapted"
    return BackboneError(f"{name} takes {counted(takes, 'channel')}{hint} (--in-chans)")


def source_of(name: str) -> Source | None:
    """The source that a backbone's name belongs to, or None."""
    return next((source for source in SOURCES if source.accepts(name)), None)


def names() -> list[str]:
    """The names of all backbones that need no optional dependency, sorted."""
    return sorted(name for source in SOURCES if not source.prefix for name in source.names())


def rebuild(origin: Mapping[str, str]) -> nn.Module:
    """Build the architecture of a stored origin with random weights, to load the tensors of a stored model into.

    Args:
        origin: as in ``Network.origin``.

    Raises:
        BackboneError: there is no such network here, or the origin is a file of code, which featx never runs because a stored
            file names it.
    """
    source = next((source for source in SOURCES if source.key == origin["source"]), None)
    if source is None:
        raise no_such_network(origin)
    return source.rebuild(origin)


def build_on_meta(name: str) -> tuple[Network, Tensor]:
    """Build a backbone in eval mode on torch's meta device, where a forward pass gives shapes without any arithmetic.

    Args:
        name: as in ``build``.

    Returns:
        The network, and an image for it: (1, 3, H, W) on the meta device.

    Raises:
        BackboneError: as ``build``.
    """
    try:
        with parameters_on_meta():
            network = build(name, "random")
    except (
        BackboneError
    ):  # perhaps because real tensors met parameters: a few networks take all tensors on meta, not some
        with torch.device("meta"):
            network = build(name, "random")
    network.module.eval().to("meta")
    return network, torch.empty(1, *network.transform.shape, device="meta")


def parameters_on_meta() -> TorchFunctionMode:
    """A context in which networks are built without memory for their parameters, which have names and shapes only."""
    return _EmptyOnMeta()


_FILLING = {
    getattr(Tensor, name)
    for name in ("uniform_", "normal_", "fill_", "zero_", "erfinv_", "mul_", "add_", "sub_", "div_", "clamp_", "copy_")
}
"""What initialises parameters in place. On the meta device it computes nothing, but takes most of the time."""


class _EmptyOnMeta(TorchFunctionMode):
    """Allocate ``torch.empty``, and images of zeros, on the meta device.

    Other tensors stay real: RegNet computes its widths with tensors. Some networks of timm run an image through a part of
    themselves as they are built.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _FILLING and args and isinstance(args[0], Tensor) and args[0].is_meta:
            return args[0]
        if func is torch.empty or (func is torch.zeros and len(args) == _IMAGE_DIMENSIONS):
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


_IMAGE_DIMENSIONS = 4
