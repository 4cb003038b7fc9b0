"""Tensors of torch as safetensors files: whole files in memory, without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor


def packed_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of a safetensors file, in the form that transformers and timm read.

    Args:
        tensors: by name, on any device; tensors that share memory are stored each on its own.
        metadata: texts to store with them.
    """
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return save(copies, {"format": "pt", **(metadata or {})})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU."""
    return load_file(path)
