"""The two files of a model of OpenVINO: the graph (.xml) and its weights (.bin)."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from featx.deployment.proof import Run
from featx.errors import ExportError, system_errors
from featx.io.outputs import Output, OutputKind, require_outputs, write_output
from featx.text import brief

_MISSING = "OpenVINO is not installed; pip install 'featx[openvino]' installs it"


def _missing(_: Path) -> str:
    return "" if importlib.util.find_spec("openvino") else _MISSING


def _is_own(path: Path) -> bool:
    """Whether a file is a graph that featx wrote: its metadata stand at the end."""
    with path.open("rb") as file:
        beginning = file.read(200)
        file.seek(max(0, path.stat().st_size - (1 << 20)))
        return b"<net" in beginning and b"<featx" in file.read()


_MARK = b"\0weights of featx"
"""The end of a file of weights, behind all that its graph refers to."""


def _is_marked(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-min(len(_MARK), path.stat().st_size), os.SEEK_END)
        return file.read() == _MARK


OPENVINO = OutputKind("OpenVINO model", ".xml", _is_own, option="--to", missing=_missing)
"""An exported graph, as an output."""

WEIGHTS = OutputKind("file of weights of an OpenVINO model", ".bin", _is_marked, option="--to")
"""Its weights, which lie beside it."""


def converted(model: ModelProto, metadata: Mapping[str, str]) -> Any:
    """Convert an ONNX model, with its metadata.

    Raises:
        ExportError: OpenVINO is not installed, or cannot read the model.
    """
    try:
        import openvino
    except ImportError as error:
        raise ExportError(_MISSING) from error
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder, "model.onnx")
        given.write_bytes(model.SerializeToString())
        try:
            found = openvino.Core().read_model(given)
        except Exception as error:  # its exceptions have no common parent of their own
            raise ExportError(f"OpenVINO cannot read the exported model: {brief(error)}") from error
    for output, named in zip(found.outputs, model.graph.output, strict=True):
        output.get_tensor().set_names({named.name})
    for name, value in metadata.items():
        found.set_rt_info(value, ["featx", name.replace(".", "_")])
    return found


def runner(model: Any) -> Run:
    """A function that runs a model on (N, H, W, 3) uint8, on the CPU in float32.

    Raises:
        ExportError: OpenVINO cannot compile or run it.
    """
    import openvino

    try:
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except Exception as error:  # as above
        raise ExportError(f"OpenVINO cannot compile the exported model: {brief(error)}") from error
    names = [output.get_any_name() for output in model.outputs]  # those of the compiled model may have further names

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        try:
            found = compiled(np.ascontiguousarray(pixels))
        except Exception as error:  # as above
            raise ExportError(f"OpenVINO cannot run the exported model: {brief(error)}") from error
        return {name: np.array(found[at]) for at, name in enumerate(names)}

    return run


def packed(model: Any, half: bool = False) -> tuple[bytes, bytes]:
    """The contents of both files.

    Args:
        model: converted.
        half: store the weights as float16.
    """
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "model.xml")
        openvino.save_model(model, graph, compress_to_fp16=half)
        return graph.read_bytes(), graph.with_suffix(".bin").read_bytes() + _MARK


def write_pair(path: Path, graph: bytes, weights: bytes) -> None:
    """Write both files of a model. No graph ever lies beside the weights of another.

    The old graph is removed first, and the new one is written last: where a process was killed, there is none. Other processes
    that write into the folder wait.

    Args:
        path: of the graph.
        graph: its content.
        weights: the content of the file beside it.

    Raises:
        OutputError: a file cannot be written, or would replace another.
    """
    require_outputs([Output(path, OPENVINO), Output(path.with_suffix(".bin"), WEIGHTS)])
    with system_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(folder, fcntl.LOCK_EX)
            path.unlink(missing_ok=True)
            write_output(path.with_suffix(".bin"), weights, WEIGHTS)
            write_output(path, graph, OPENVINO)
        finally:
            os.close(folder)


def reread(graph: bytes, weights: bytes) -> Any:
    """The model that both files hold."""
    import openvino

    return openvino.Core().read_model(graph, openvino.Tensor(np.frombuffer(weights, dtype=np.uint8).copy()))
