"""Which device torch computes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from featx.errors import BackboneError
from featx.text import brief


def pick_device(device: str = "auto") -> torch.device:
    """The device of a name; "auto" is the first of CUDA, MPS and the CPU that is there.

    Of several GPUs each process that torchrun started gets its own.

    Raises:
        BackboneError: a device that torch does not know or this machine does not have.
    """
    if device == "auto":
        if torch.cuda.is_available():
            own = os.environ.get("LOCAL_RANK")
            return torch.device("cuda", int(own)) if own else torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(f"--device {device}: {brief(error)}; expected auto, cpu, cuda or mps") from error
    return chosen


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions in true float32 on CUDA: TF32, cuDNN's default, would move features by 1e-3."""
    if not torch.cuda.is_available():
        yield
        return
    cudnn = torch.backends.cudnn
    kept = {"benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    with cudnn.flags(enabled=True, allow_tf32=False, **kept):
        yield
