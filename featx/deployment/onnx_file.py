"""The file of an exported ONNX model: its metadata, and how ONNX Runtime runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, helper

from featx._version import __version__
from featx.deployment.proof import Run
from featx.errors import ExportError
from featx.io.outputs import OutputKind
from featx.text import brief

FORMAT = "1"
"""The version of the metadata."""

_MARK = b"\x12\x05featx"  # the producer's name at the beginning of the file


def _is_own(path: Path) -> bool:
    with path.open("rb") as file:
        return _MARK in file.read(64)


ONNX = OutputKind("ONNX model", ".onnx", _is_own, option="--to")
"""An exported ONNX model, as an output."""


def metadata_of(facts: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, str]:
    """What an exported file says of its model: text as it is, everything else as JSON.

    Args:
        facts: of the whole model.
        more: of the export.

    Examples:
        >>> found = metadata_of({"name": "pets", "classes": ["cat", "dog"], "report": {"accuracy": 0.9, "n": 50}}, {})
        >>> found["classes"], found["accuracy"]
        ('["cat", "dog"]', '0.9')
    """
    dataset = facts.get("dataset") or {}
    report = facts.get("report") or {}
    known = {
        "featx.format": FORMAT,
        **{name: value for name, value in facts.items() if name not in ("dataset", "report")},
        "dataset": Path(str(dataset.get("name", ""))).name,
        **{name: report[name] for name in ("accuracy", "mAP", "rmse", "interval", "split", "n") if name in report},
        "report": report or None,
        "input": "uint8, (N, H, W, 3) of any size: RGB, upright (EXIF orientation applied), levels 0 to 255",
        **more,
    }
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in known.items()
        if value is not None
    }


def with_metadata(model: ModelProto, metadata: Mapping[str, str]) -> ModelProto:
    """Put metadata into a model, in place, and name who made it."""
    helper.set_model_props(model, {name: _utf8(value) for name, value in metadata.items()})
    model.producer_name, model.producer_version = "featx", __version__
    model.doc_string = _utf8(
        f"{metadata['name']}: featx {metadata['task']}, from the pixels of decoded images (uint8, RGB) to decisions. "
        f"Classes: {metadata['classes']}"
    )
    return model


def session(data: bytes, *, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Open a model in ONNX Runtime, on the CPU.

    Raises:
        ExportError: ONNX Runtime refuses it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its own log goes to stderr
    options.intra_op_num_threads = threads or 0
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common parent of their own
        raise ExportError(f"ONNX Runtime refuses the exported model: {brief(error)}") from error


def runner(opened: onnxruntime.InferenceSession) -> Run:
    """A function that runs an open model on (N, H, W, 3) uint8."""
    (taken,), names = opened.get_inputs(), [output.name for output in opened.get_outputs()]

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        try:
            found = opened.run(names, {taken.name: np.ascontiguousarray(pixels)})
        except Exception as error:  # as above
            raise ExportError(f"ONNX Runtime cannot run the exported model: {brief(error)}") from error
        return dict(zip(names, map(np.asarray, found), strict=True))

    return run


def read_facts(path: Path) -> dict[str, Any]:
    """What an exported ONNX file says of its model, as ``featx info`` shows it; the network is not loaded.

    Raises:
        ExportError: the file is no model that featx exported.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises its own
        raise ExportError(f"{path} is not an ONNX model: {brief(error)}") from error
    if model.producer_name != "featx":
        raise ExportError(f"{path} is an ONNX model that featx did not export")
    facts: dict[str, Any] = {}
    for each in model.metadata_props:
        try:
            facts[each.key] = json.loads(each.value)
        except ValueError:
            facts[each.key] = each.value
    return facts


def _utf8(text: str) -> str:
    """Text that a file can hold: names of files that are not UTF-8 have surrogates."""
    return text.encode("utf-8", "replace").decode()
