"""The table of engines: which there are, where each one runs, and what makes it. Standard library only.

The command line reads the names here before anything heavy is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EngineSpec:
    """One kind of engine. To add one, write a function that makes it and one line of ``ENGINES``.

    Attributes:
        maker: the function that makes the engine, or where it is: "module:function", imported on first use. It takes a
            ``NetworkCopy``, the backbone, the images of a pass and the number of lanes, and returns a ``Runner``.
        devices: types of device that the engine runs on, as ``torch.device.type`` has them; empty for all.
        cpu_batch: images of a pass on the CPU by default. With a core of its own for each pass, an inference engine gains
            nothing by batches, and torch a little by 4; larger ones only cost memory. Other devices get 64.
        packages: packages that must be installed.
        compiles: whether the engine needs a C++ compiler on the CPU.
        low_precision: whether the engine computes in bfloat16 and float16 too, rather than in float32 only.
        measured_on: types of device on which "auto" tries the engine, because a few seconds are enough to measure it.

    Examples:
        >>> ENGINES["eager"].runs_on("mps")
        True
        >>> ENGINES["openvino"].runs_on("cuda")
        False
    """

    maker: str | Callable[..., Any]
    devices: tuple[str, ...] = ()
    cpu_batch: int = 1
    packages: tuple[str, ...] = ()
    compiles: bool = False
    low_precision: bool = False
    measured_on: tuple[str, ...] = ()

    def runs_on(self, device: str) -> bool:
        """Whether the engine can run on a type of device, with what is installed here."""
        if self.devices and device not in self.devices:
            return False
        if self.compiles and device == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
            return False
        return all(importlib.util.find_spec(package) for package in self.packages)

    def make(self, *arguments: Any) -> Any:
        """Call the maker, which is imported first if need be."""
        if not isinstance(self.maker, str):
            return self.maker(*arguments)
        module, _, function = self.maker.partition(":")
        return getattr(importlib.import_module(module), function)(*arguments)


_TORCH, _ONNX = "featx.extraction.torch_engines", "featx.extraction.onnx_engines"
_CPU, _CUDA, _EXPORT = ("cpu",), ("cuda",), ("onnx", "onnxscript")

ENGINES = {
    "eager": EngineSpec(f"{_TORCH}:make_eager", cpu_batch=4, low_precision=True),
    "compile": EngineSpec(
        f"{_TORCH}:make_compiled", _CPU + _CUDA, cpu_batch=4, compiles=True, low_precision=True, measured_on=_CUDA
    ),
    "openvino": EngineSpec(f"{_ONNX}:make_openvino", _CPU, packages=("openvino", *_EXPORT), measured_on=_CPU),
    "onnxruntime": EngineSpec(f"{_ONNX}:make_onnxruntime", _CPU, packages=("onnxruntime", *_EXPORT), measured_on=_CPU),
}
"""The engines by name. All give the same features, to a relative 1e-4 of each row's norm."""
