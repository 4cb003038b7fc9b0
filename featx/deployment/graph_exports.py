"""Models as graphs of other runtimes: ONNX and OpenVINO, proved, in three precisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from onnx import ModelProto

from featx.deployment import onnx_file, openvino_file
from featx.deployment.job import ExportJob, ModelExport
from featx.deployment.onnx_graph import Graph
from featx.deployment.precision import Comparison, compared, to_float16, to_int8
from featx.deployment.proof import Proof, Run, prove, require
from featx.io.outputs import Output, write_output
from featx.text import counted

_DTYPES = (torch.float32, torch.float64)
"""What heads compute in: float32 where the proof holds, which every runtime knows; else float64, as featx itself."""


@dataclass(frozen=True, eq=False)
class _Proved:
    """A graph in float32 that predicts what featx predicts."""

    graph: Graph
    proof: Proof
    facts: dict[str, Any]


def write_onnx(job: ExportJob) -> ModelExport:
    """Write an ONNX model."""
    job.require(Output(job.path, onnx_file.ONNX, named=True))
    found = _proved(job, lambda graph: _onnx_run(graph.joined()), "an ONNX graph")
    full = found.graph.joined(any_rank=not job.batch_only)
    made, comparison = full, None
    if job.precision != "float32":
        less = _in_less_precision(job, found.graph)
        made = less.joined(any_rank=not job.batch_only)
        pair = full.SerializeToString(), made.SerializeToString()
        runs = _onnx_run(full), _onnx_run(made)
        comparison = _compared(job, runs, (len(pair[0]), len(pair[1])))
    metadata = _metadata(job, found, comparison)
    data = onnx_file.with_metadata(made, metadata).SerializeToString()
    onnx_file.session(data)  # as it will be read
    job.reporter.stage(f"writing {job.path}")
    write_output(job.path, data, onnx_file.ONNX)
    return _export(job, "onnx", ((job.path, len(data)),), found, comparison)


def write_openvino(job: ExportJob) -> ModelExport:
    """Write a model of OpenVINO: the graph, and its weights beside it."""
    weights = job.path.with_suffix(".bin")
    job.require(Output(job.path, openvino_file.OPENVINO, named=True), Output(weights, openvino_file.WEIGHTS))

    def run(graph: Graph) -> Run:
        return openvino_file.runner(openvino_file.converted(graph.joined(any_rank=False), {}))

    found = _proved(
        job, run, "a model of OpenVINO", "; OpenVINO computes in float32, and ONNX Runtime does not (--to model.onnx)",
        has_float64=False,
    )  # fmt: skip
    full = openvino_file.converted(found.graph.joined(any_rank=False), {})
    graph = found.graph if job.precision != "int8" else _in_less_precision(job, found.graph)
    comparison = None
    half = job.precision == "float16"
    made = openvino_file.converted(graph.joined(any_rank=False), {})
    if job.precision != "float32":
        sizes = [sum(len(part) for part in openvino_file.packed(*each)) for each in ((full, False), (made, half))]
        if half:
            made = openvino_file.reread(*openvino_file.packed(made, half=True))
        comparison = _compared(job, (openvino_file.runner(full), openvino_file.runner(made)), (sizes[0], sizes[1]))
    named = openvino_file.converted(graph.joined(any_rank=False), _metadata(job, found, comparison))
    contents = openvino_file.packed(named, half=half)
    job.reporter.stage(f"writing {job.path}")
    openvino_file.write_pair(job.path, *contents)
    files = ((job.path, len(contents[0])), (weights, len(contents[1])))
    return _export(job, "openvino", files, found, comparison)


def _proved(job: ExportJob, run: Any, what: str, hint: str = "", *, has_float64: bool = True) -> _Proved:
    """Export in float32, and prove it; where a head in float32 is not exact enough, in float64."""
    reference = job.reference  # before the export, which takes longer than finding out that there are no images
    graph, proof, facts = None, None, {}
    for dtype in _DTYPES:
        whole = job.whole(dtype)
        job.reporter.stage("exporting the network" if graph is None else "exporting the head in float64")
        graph = Graph.of(whole, has_float64=has_float64) if graph is None else graph.with_head_of(whole)
        facts = {**whole.facts, "head_dtype": str(dtype).removeprefix("torch.")}
        job.reporter.stage(f"comparing {what} with featx on {counted(len(reference.images), 'image')}")
        proof = prove(run(graph), job.model, reference)
        if proof.holds:
            return _Proved(graph, proof, facts)
    assert graph is not None
    assert proof is not None
    return _Proved(graph, require(proof, what, hint), facts)


def _onnx_run(model: ModelProto) -> Run:
    return onnx_file.runner(onnx_file.session(model.SerializeToString()))


def _in_less_precision(job: ExportJob, graph: Graph) -> Graph:
    if job.precision == "float16":
        job.reporter.stage("converting the network to float16")
        return graph.with_network(to_float16(graph.network))
    job.reporter.stage("measuring the ranges of activations on training images")
    return graph.with_network(to_int8(graph.network, job.whole(), job.own, job.reporter))


def _compared(job: ExportJob, runs: tuple[Run, Run], sizes: tuple[int, int]) -> Comparison | None:
    job.reporter.stage(f"judging float32 and {job.precision} on split {job.own.split}")
    return compared(job.precision, runs, sizes, job.model, job.own, job.reporter)


def _metadata(job: ExportJob, found: _Proved, comparison: Comparison | None) -> dict[str, str]:
    more = {
        "precision": job.precision,
        "proof": found.proof.as_dict(),
        "comparison": comparison.as_dict() if comparison else None,
        "notes": job.notes(),
    }
    return onnx_file.metadata_of(found.facts, more)


def _export(job: ExportJob, form: str, files: Any, found: _Proved, comparison: Comparison | None) -> ModelExport:
    notes = job.notes()
    if comparison:
        notes += comparison.notes()
    elif job.precision != "float32":
        notes.append(
            f"no image of the model's data set has a label that it knows, so what {job.precision} does to accuracy is not known"
        )
    return ModelExport(job.path, form, job.precision, files, found.proof, comparison, found.facts, tuple(notes))
