"""A model as a program of torch.export, a .pt2 file: it runs wherever torch does, without featx or its network's code."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from featx.deployment.job import ExportJob, ModelExport
from featx.deployment.proof import Proof, Run, prove, require
from featx.deployment.published import published
from featx.deployment.symbolic import symbolic
from featx.deployment.whole import WholeModel
from featx.errors import ExportError, SettingsError
from featx.io.outputs import Output, OutputKind, write_output
from featx.text import brief, counted

FACTS = "featx.json"
"""The name of the extra file in the program with the facts of the model, as JSON."""

_EXAMPLE = (2, 301, 403)
"""N, H and W of the images that the program is traced with; none is special, and none is the other."""


def _is_own(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"/extra/{FACTS}") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


PROGRAM = OutputKind("torch.export program", ".pt2", _is_own, option="--to")
"""A program, as an output."""


class Program(nn.Module):
    """A whole model for images of any size, whose outputs are a dict: a program may hold no class of featx.

    Args:
        whole: the model.
    """

    def __init__(self, whole: WholeModel) -> None:
        super().__init__()
        self.preprocess, self.scores = symbolic(whole.preprocess), whole.scores

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Predict (N, H, W, 3) uint8: the outputs of the whole model by name."""
        return dict(self.scores(self.preprocess(pixels))._asdict())


def program_of(whole: WholeModel) -> ExportedProgram:
    """Export a whole model for any number of images of any size.

    Raises:
        ExportError: torch cannot export its network.
    """
    example = torch.zeros(*_EXAMPLE, whole.preprocess.bands, dtype=torch.uint8)
    free = {axis: Dim(name, min=1) for axis, name in enumerate(("images", "height", "width"))}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of torch about its own tracing
            program = torch.export.export(Program(whole).eval(), (example,), dynamic_shapes=(free,))
    except Exception as error:  # torch.export passes on the errors of the traced code, and has many of its own
        raise ExportError(
            f"torch.export cannot export this network ({brief(error)}); featx export --to model.onnx may do"
        ) from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)  # the paths of the code on this machine
    return program


def packed(program: ExportedProgram, facts: Mapping[str, Any]) -> bytes:
    """A program as the content of a .pt2 file, with the facts of its model.

    Raises:
        ExportError: torch cannot store it.
    """
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(program, buffer, extra_files={FACTS: json.dumps(facts)})
    except Exception as error:  # as above
        raise ExportError(
            f"torch.export cannot store this network ({brief(error)}); featx export --to model.onnx may do"
        ) from error
    return buffer.getvalue()


def runner(data: bytes) -> Run:
    """A function that runs the program of a .pt2 file: from (N, H, W, 3) uint8 to its outputs by name.

    Args:
        data: the content of the file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = torch.export.load(io.BytesIO(data)).module()

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            outputs = loaded(torch.from_numpy(np.ascontiguousarray(pixels)))
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return run


def proved_program(job: ExportJob) -> tuple[bytes, Proof, dict[str, Any]]:
    """The content of a .pt2 file, the proof that it predicts what featx predicts, and the facts in it.

    Raises:
        ExportError: torch cannot export the network, or the program predicts something else.
    """
    if job.precision != "float32":
        raise SettingsError(f"--precision {job.precision} is for ONNX and OpenVINO; a program of torch is in float32")
    reference = job.reference  # before the export, which takes longer than finding out that there are no images
    whole = job.whole()
    job.reporter.stage("exporting the network")
    program = program_of(whole)
    job.reporter.stage(f"comparing the program with featx on {counted(len(reference.images), 'image')}")
    proof = require(prove(runner(packed(program, {})), job.model, reference), "a program of torch.export")
    facts = {
        **published(whole.facts),
        "torch": torch.__version__,
        "input": f"uint8, (N, H, W, {whole.preprocess.bands}) of any size: RGB, upright, levels 0 to 255",
        "thresholds": _thresholds(job),
        "proof": proof.as_dict(),
        "notes": job.notes(),
    }
    return packed(program, facts), proof, facts


def write_torch_export(job: ExportJob) -> ModelExport:
    """Write a program of torch.export."""
    job.require(Output(job.path, PROGRAM, named=True))
    data, proof, facts = proved_program(job)
    job.reporter.stage(f"writing {job.path}")
    write_output(job.path, data, PROGRAM)
    return ModelExport(
        job.path, "torch-export", "float32", ((job.path, len(data)),), proof, None, facts, tuple(job.notes())
    )


def _thresholds(job: ExportJob) -> list[float] | None:
    """The probability from which on each label is predicted, for a multilabel model."""
    head = getattr(job.model, "head", None)
    return None if head is None or head.thresholds_ is None else [float(value) for value in head.thresholds_]
