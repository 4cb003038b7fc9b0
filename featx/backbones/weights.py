"""Weight files: downloaded once with a hash check, read without running pickled code, loaded strictly."""

from __future__ import annotations

import hashlib
import mmap
import re
import sys
import zipfile
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from featx.errors import BackboneError
from featx.system import MISSING, why_unreadable
from featx.text import brief, listed, printable

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
    elif expected and not _sha256(path).startswith(expected[1]):
        raise BackboneError(
            f"{path} is damaged: its SHA-256 does not begin with {expected[1]}. Delete it and run again"
        )
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_file(path: Path) -> Any:
    """Read what a file of safetensors or torch holds: tensors by name, perhaps in containers. Nothing in it is executed.

    Raises:
        BackboneError: there is no such file, it holds other objects than tensors, numbers and text, or reading it would run
            code or unpack a few bytes into gigabytes.
    """
    why = why_unreadable(path)
    if why == MISSING:
        raise BackboneError(
            f"there is no weights file {path}; expected a .safetensors or .pth file, 'default' or 'random'"
        )
    if why:
        raise BackboneError(f"{path} cannot be read as a weights file: {why}")
    try:
        if path.suffix == ".safetensors":
            return {name: tensor for name, tensor in load_file(path).items() if not name.startswith(_NO_TENSOR)}
        _require_plain(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise BackboneError(f"{path} is not a safetensors file: {error}") from error
    except Exception as error:  # torch.load passes on the errors of zipfile, pickle and struct
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> BackboneError:
    """The error for a file that ``torch.load(weights_only=True)`` refuses; it names the classes that the file would make."""
    beginning = f"{path} cannot be read as a file of tensors only (weights_only)"
    reason = _ADVICE.sub("", _ESCAPES.sub("", str(error))).strip()
    named = re.search(r"GLOBAL ([\w.]+)", reason)
    if not named or "is blocked" in reason:
        return BackboneError(f"{beginning}: {brief(ValueError(reason)) if reason else brief(error)}")
    classes = _refused_classes(path) or [named[1]]
    is_module = any(name.startswith("torch.nn.modules.") for name in classes)
    return BackboneError(
        f"{beginning}: it also holds objects of {listed(classes)}, and reading such an object can run code. If you trust "
        f"the file, save its tensors alone in Python, and name the new file:\n"
        f"    import torch; found = torch.load({str(path)!r}, map_location='cpu', weights_only=False)\n"
        f"    torch.save({_STATE_OF_MODULE if is_module else _TENSORS_ALONE}, {path.stem + '-tensors.pth'!r})"
    )


_NO_TENSOR = "featx."
"""How the names of the arrays begin that a promoted model holds besides the tensors of its network."""

_ADVICE = re.compile(r"^Weights only load failed.*?(?:WeightsUnpickler error:|\n\n)", re.DOTALL)
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TENSORS_ALONE = (
    "{k: v for k, v in found.items() if torch.is_tensor(v) or isinstance(v, dict) "
    "and all(map(torch.is_tensor, v.values()))}"
)
_STATE_OF_MODULE = "(found['model'] if isinstance(found, dict) else found).state_dict()"


def _refused_classes(path: Path) -> list[str]:
    """The names of all classes because of which a file of torch was refused; empty for torch's older form."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # not of torch's form since 1.6, or damaged
        return []


def _require_plain(path: Path) -> None:
    """Refuse files in which ``torch.load(weights_only=True)`` would unpack a few bytes into gigabytes.

    ``torch.save`` stores its parts uncompressed, and no tensor is built by ``bytearray``, which accepts any length.

    Raises:
        ValueError: the archive is compressed, its parts overlap, or the pickle calls ``bytearray``.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(file) as archive:
                parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise ValueError("its parts are compressed, which torch.save never does")
            if sum(part.file_size for part in parts) > len(data):
                raise ValueError("its parts overlap")
        if data.find(b"\nbytearray\n") >= 0:
            raise ValueError("it calls bytearray, which no tensor needs")


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
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
        return False
    if dtype in FLOATS:
        return tensor.dtype in FLOATS
    return (tensor.dtype == torch.bool) == (dtype == torch.bool) and not tensor.is_floating_point()


def kind(tensor: Tensor) -> str:
    """The type of a tensor for a message, with what else makes it unusual."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    odd = "" if tensor.layout == torch.strided else "sparse "
    return f"{odd}{dtype}"


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
    network.load_state_dict(state, strict=False)


def state_digest(network: nn.Module) -> str:
    """The SHA-256, in hex, of the name, dtype, shape and bytes of every tensor of a network, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
