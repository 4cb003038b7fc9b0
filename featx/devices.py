"""The device that torch computes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from featx.errors import BackboneError
from featx.system import environment_number
from featx.text import brief


def pick_device(device: str = "auto") -> torch.device:
    """Turn a device's name into a device that is known to work.

    Args:
        device: "cpu", "cuda", "cuda:1", "mps", or "auto": the first of CUDA, MPS and the CPU that the machine has. Each process
            that torchrun starts gets a GPU of its own.

    Raises:
        BackboneError: torch does not know the device, or the machine does not have it.

    Examples:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        if torch.cuda.is_available():
            own = environment_number("LOCAL_RANK", default=-1)
            return torch.device("cuda", own) if own >= 0 else torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(f"--device {device}: {brief(error)}; expected auto, cpu, cuda or mps") from error
    return chosen


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Compute convolutions in true float32 on CUDA: TF32, cuDNN's default, would change features by 1e-3."""
    if not torch.cuda.is_available():
        yield
        return
    cudnn = torch.backends.cudnn
    kept = {"benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    with cudnn.flags(enabled=True, allow_tf32=False, **kept):
        yield
