"""Weights: downloaded once with a hash check, loaded strictly, hashed."""

from __future__ import annotations

import hashlib
import re
import sys
from collections import OrderedDict
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from featx.errors import BackboneError
from featx.io.digests import file_digest
from featx.system import MISSING, why_unreadable
from featx.text import counted, listed, printable

_HASHED_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


def cached_path(url: str) -> Path:
    """The path at which torch.hub stores the file of a URL, in ``$TORCH_HOME/hub/checkpoints``; the file need not exist."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def fetch(url: str) -> Path:
    """Download the file of a URL into torch.hub's folder, unless it is there already.

    Args:
        url: a URL whose file name contains the first digits of the file's SHA-256, as those of torchvision do
            (``resnet50-0676ba61.pth``).

    Returns:
        The local path.

    Raises:
        BackboneError: the download fails, or the file's hash does not match its name.
    """
    path = cached_path(url)
    expected = _HASHED_NAME.search(path.name)
    why = why_unreadable(path)
    if why == MISSING:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            progress = sys.stderr.isatty()
            torch.hub.download_url_to_file(url, str(path), hash_prefix=expected and expected[1], progress=progress)
        # URLError is an OSError; HTTPException: the server broke off; RuntimeError: the hash does not match
        except (OSError, HTTPException, RuntimeError) as error:
            raise BackboneError(
                f"cannot download {url} ({error}). Download that file on a machine with a network and copy it to {path}, "
                "or name a local file with --weights FILE, or use a random network with --weights random"
            ) from error
    elif why:
        raise BackboneError(
            f"{path}, where the weights of {url} are stored, cannot be read: {why}. Delete it and run again"
        )
    elif expected and not file_digest(path).startswith(expected[1]):
        raise BackboneError(
            f"{path} is damaged: its SHA-256 does not begin with {expected[1]}. Delete it and run again"
        )
    return path


def require_fit(network: nn.Module, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Check that tensors have exactly the names and shapes of a network's, which may be on the meta device.

    Batch norm's ``num_batches_tracked`` may be missing, because predictions do not depend on it.

    Args:
        network: the network.
        state: the tensors by name.
        origin: where the tensors come from, for the message.

    Raises:
        BackboneError: tensors are missing, surplus, misshapen or of another type; the message lists them.
    """
    expected = network.state_dict()
    missing = [n for n in expected if n not in state and not n.endswith("num_batches_tracked")]
    surplus = [printable(n) for n in state if n not in expected]
    common = [(n, state[n], t) for n, t in expected.items() if n in state]
    misshapen = [
        f"{n} {tuple(ours.shape)} instead of {tuple(t.shape)}" for n, ours, t in common if ours.shape != t.shape
    ]
    mistyped = [f"{n} {kind(ours)} instead of {kind(t)}" for n, ours, t in common if not can_hold(ours, t.dtype)]
    groups = (("missing", missing), ("surplus", surplus), ("misshapen", misshapen), ("of another type", mistyped))
    faults = [f"{len(names)} {what}: {listed(names, most=8)}" for what, names in groups if names]
    if faults:
        raise BackboneError(f"{origin} does not fit {type(network).__name__}: " + "; ".join(faults))


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The types of weights that are copied into a network of another of these types."""


def can_hold(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether a stored tensor's numbers are those of a tensor of a type: floats for floats, integers for integers.

    Eight-bit floats and integers in the place of weights are quantized, and mean nothing without their scale.
    """
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    if tensor.is_quantized or tensor.is_complex():
        return False
    if dtype in FLOATS:
        return tensor.dtype in FLOATS
    return (tensor.dtype == torch.bool) == (dtype == torch.bool) and not tensor.is_floating_point()


def kind(tensor: Tensor) -> str:
    """The type of a tensor for a message, with what else makes it unusual."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    odd = "" if type(tensor) in (Tensor, nn.Parameter) else f"{type(tensor).__name__} of "
    odd += "" if tensor.layout == torch.strided else "sparse "
    where = "" if tensor.device.type == "cpu" else f" on the {tensor.device.type} device"
    return f"{odd}{dtype}{where}"


def require_finite(network: nn.Module, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Check that no weight is NaN or infinite as a network holds it.

    Args:
        network: the network.
        state: tensors by the network's names. Those that are not trained, such as masks, may be infinite.
        origin: where the tensors come from, for the message.

    Raises:
        BackboneError: a weight is. The message names the first tensor with one.
    """
    parameters, expected = {name for name, _ in network.named_parameters()}, network.state_dict()
    for name, tensor in state.items():
        held = tensor.to(expected[name].dtype)  # a float64 may be too large
        finite = torch.isfinite(held) if name in parameters else ~torch.isnan(held)
        if tensor.is_floating_point() and not finite.all():
            bad = counted(int((~finite).sum()), "number")
            raise BackboneError(
                f"{origin} holds NaN or infinite weights: {bad} of {name}, perhaps because its training diverged; name an "
                "earlier checkpoint"
            )


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Load tensors into a network whose tensors have exactly the same names and shapes.

    Args:
        network: the network.
        state: the tensors by name.
        origin: where the tensors come from, for the message.

    Raises:
        BackboneError: as ``require_fit``.
    """
    require_fit(network, state, origin=origin)
    copy_into(network, state)


def copy_into(network: nn.Module, state: Mapping[str, Tensor], *, strict: bool = False) -> None:
    """Copy tensors of the network's own names and shapes into it, as ``load_state_dict`` does with a state of this network.

    The state has the versions of the network's modules, without which torchvision's MNASNet takes no state, and others take it
    for one of an older release.

    Args:
        network: changed in place.
        state: the tensors by name.
        strict: whether every tensor of the network must be there.
    """
    versioned = OrderedDict(state)
    versioned._metadata = getattr(network.state_dict(), "_metadata", None)  # type: ignore[attr-defined]
    network.load_state_dict(versioned, strict=strict)


def state_digest(network: nn.Module, without: str = "") -> str:
    """The SHA-256, in hex, of the name, dtype, shape and bytes of every tensor of a network, sorted by name.

    Args:
        network: the network.
        without: the name of a module whose tensors are left out; "" for none.
    """
    digest, left_out = hashlib.sha256(), f"{without}."
    for name, tensor in sorted(network.state_dict().items()):
        if not (name.endswith("num_batches_tracked") or (without and name.startswith(left_out))):
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
