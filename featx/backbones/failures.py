"""Why a network does not run on its images or its device, and what would help."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from featx.backbones.sources.source import Network
from featx.data.transform import Transform, sides_text
from featx.errors import BackboneError
from featx.text import brief, counted


@contextlib.contextmanager
def as_backbone_errors(name: str, network: Network, transform: Transform, device: torch.device) -> Iterator[None]:
    """Turn the errors of a network that does not fit its device or its images into a BackboneError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BackboneError(f"{name} does not fit on {device}: {error}; try --device cpu") from error
    except BackboneError:
        raise
    except Exception as error:  # the code of a network may raise anything
        raise BackboneError(
            f"{name} cannot run on {' x '.join(map(str, transform.shape))} pixels ({brief(error)}); "
            f"{_remedy(network, transform)}"
        ) from error


def _remedy(network: Network, transform: Transform) -> str:
    """What makes a network run that failed on its images."""
    own = network.transform
    if transform.size != own.size and _runs(network.module, torch.zeros(1, *own.shape)):
        return f"it is made for {sides_text(own.size)}: leave --size and --crop out"
    first = next((layer for layer in network.module.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is not None and first.in_channels != transform.channels:
        takes = counted(first.in_channels, "channel")
        return f"its first convolution takes {takes}, and its transform has {transform.channels}"
    if network.origin["source"] == "file":
        return "give it the attribute transform, a featx.Transform with its size, or use another size with --size"
    return "use another size with --size"


def _runs(module: nn.Module, images: Tensor) -> bool:
    try:
        with torch.inference_mode():
            module.cpu()(images)
    except Exception:  # the code of a network may raise anything
        return False
    return True
