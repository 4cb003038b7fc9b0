"""The device that torch computes on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

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
        BackboneError: torch does not know the device, or the machine does not have it, or has fewer GPUs than torchrun starts
            processes.

    Examples:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        if torch.cuda.is_available():
            own, count = environment_number("LOCAL_RANK", default=-1), torch.cuda.device_count()
            if own >= count:
                raise BackboneError(
                    f"process {own} of this machine (counted from 0) has no GPU of its own; torch finds {count}. Expected at "
                    "most as many processes (--nproc-per-node) as GPUs, or --device cpu"
                )
            return torch.device("cuda", own) if own >= 0 else torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(f"--device {device}: {brief(error)}; expected auto, cpu, cuda or mps") from error
    return chosen


def pick_devices(names: str | Sequence[str | int]) -> tuple[torch.device, ...]:
    """Turn the names of several devices of one type into devices, without taking memory on any of them.

    Args:
        names: "all" for every CUDA GPU of this machine; or names with commas between, or in a list: numbers of GPUs, "cuda:1",
            or "cpu", which may be repeated.

    Raises:
        BackboneError: the machine does not have one of them, or they are of several types.

    Examples:
        >>> pick_devices("cpu,cpu")
        (device(type='cpu'), device(type='cpu'))
    """
    words = names.split(",") if isinstance(names, str) else list(map(str, names))
    words = [word.strip().lower() for word in words if word.strip()]
    given, count = ",".join(words), torch.cuda.device_count()
    if words == ["all"]:
        if not count:
            raise BackboneError("--devices all: torch finds no CUDA GPU on this machine; expected cpu, or cpu,cpu")
        words = [str(number) for number in range(count)]
    devices = []
    for word in words:
        match = re.fullmatch(r"(?:(?:cuda:)?(\d{1,4})|(cuda|cpu|mps))", word)
        if not match:
            raise BackboneError(
                f"--devices {given}: {word!r} is no device; expected all, or names such as 0,1 or cpu,cpu"
            )
        kind, number = match[2] or "cuda", int(match[1] or 0)
        if kind == "cuda" and number >= count:
            here = "no CUDA GPU" if not count else "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
            raise BackboneError(f"--devices {given}: there is no cuda:{number}; torch finds {here} on this machine")
        devices.append(torch.device(kind, number) if kind == "cuda" else pick_device(kind))
    if len(kinds := sorted({device.type for device in devices})) != 1:
        what = f"{' and '.join(kinds)} differ in the last bits of features; expected devices of one type"
        raise BackboneError(f"--devices {given}: {what if kinds else 'no device is named; expected all, or names'}")
    return tuple(devices)


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
