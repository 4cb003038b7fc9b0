"""A whole model as one ONNX graph: preprocessing, network and head are exported apart, and joined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, compose, helper, numpy_helper
from torch import Tensor, nn

from featx.backbones.embedder import compute_in_float32
from featx.data.joint_transform import parts_of
from featx.deployment.whole import WholeModel
from featx.errors import EngineError
from featx.extraction.onnx_export import LARGEST_EXPORT, silenced
from featx.text import brief

OPSET = 18
"""The version of the operators: the least that torch exports."""

IR_VERSION = 8
"""The version of the file format: that of the operators, so that runtimes since ONNX Runtime 1.14 read it."""

INPUT = "image"
"""The name of the input."""

_PREPROCESS, _NETWORK, _HEAD = "preprocess/", "network/", "head/"


@dataclass(frozen=True, eq=False)
class Graph:
    """A whole model as three ONNX models that follow one another.

    Attributes:
        preprocess: ``pixels`` (N, H, W, 3) uint8 to ``images`` (B, C, h, w) float32, where B is N times the views.
        network: ``images`` to ``rows`` (B, D), and of a promoted model to ``logits`` (B, C) before them.
        head: what the network gives, to the outputs.
        outputs: the names of the outputs.
    """

    preprocess: ModelProto
    network: ModelProto
    head: ModelProto
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, whole: WholeModel, *, has_float64: bool = True) -> Graph:
        """Export.

        Args:
            whole: on the CPU.
            has_float64: as of ``Preprocess.exported``.

        Raises:
            EngineError: the network is too large for one file, or torch cannot export it.
        """
        size = sum(tensor.nbytes for tensor in whole.state_dict().values())
        if size > LARGEST_EXPORT:
            raise EngineError(
                f"{whole.facts['name']} has {size / 1e9:.1f} GB of weights, and a file of ONNX holds at most "
                f"{LARGEST_EXPORT / 1e9:.1f}; --to model.pt2 has no such limit"
            )
        views, scores = len(whole.views), whole.scores
        compute_in_float32(scores.network)  # runtimes choose the precision that they compute in by themselves
        height, width = map(max, *((0, 0), *(part.size for part in parts_of(whole.transform))))
        pixels = torch.zeros(2, height + 13, width + 7, whole.preprocess.bands, dtype=torch.uint8)
        images = torch.zeros(2 * views, *whole.transform.shape)
        with torch.inference_mode():
            rows = scores.network(images)
            outputs = scores.outputs(rows, views)
        names = ("rows",) if isinstance(rows, Tensor) else ("logits", "rows")
        ends = tuple(outputs._fields)
        return cls(
            _exported(_Prepared(whole, has_float64), (pixels,), ("pixels",), ("images",), {0: "N", 1: "H", 2: "W"}),
            _exported(scores.network, (images,), ("images",), names, {0: "B"}),
            _exported_head(whole, rows, ends),
            ends,
        )

    def with_head_of(self, whole: WholeModel) -> Graph:
        """The same with the head of another whole model, whose network is the same."""
        views, scores = len(whole.views), whole.scores
        with torch.inference_mode():
            rows = scores.network(torch.zeros(2 * views, *whole.transform.shape))
        return replace(self, head=_exported_head(whole, rows, self.outputs))

    def with_network(self, network: ModelProto) -> Graph:
        """The same with another network."""
        return replace(self, network=network)

    def joined(self, *, any_rank: bool = True) -> ModelProto:
        """The three as one model, from ``image`` to ``outputs``.

        Args:
            any_rank: take (H, W, 3) besides (N, H, W, 3); the input then has no declared shape.
        """
        parts = [
            compose.add_prefix(part, prefix)
            for part, prefix in ((self.preprocess, _PREPROCESS), (self.network, _NETWORK), (self.head, _HEAD))
        ]
        _same_operators(parts)
        given = [output.name for output in self.network.graph.output]
        joined = compose.merge_models(parts[0], parts[1], io_map=[(f"{_PREPROCESS}images", f"{_NETWORK}images")])
        joined = compose.merge_models(joined, parts[2], io_map=[(f"{_NETWORK}{n}", f"{_HEAD}{n}") for n in given])
        _rename(joined, {f"{_HEAD}{name}": name for name in self.outputs} | {f"{_PREPROCESS}pixels": INPUT})
        _name_dimensions(joined)
        joined.ir_version = IR_VERSION
        joined.graph.name = "featx"
        onnx.checker.check_model(joined, full_check=True)
        if any_rank:
            _take_any_rank(joined, self.bands)
        return joined

    @property
    def bands(self) -> int:
        """The channels of the images that are taken."""
        return int(self.preprocess.graph.input[0].type.tensor_type.shape.dim[3].dim_value)


class _Prepared(nn.Module):
    """(N, H, W, 3) uint8 to the (B, C, h, w) float32 that the network takes."""

    def __init__(self, whole: WholeModel, has_float64: bool) -> None:
        super().__init__()
        self.preprocess, self.scores = whole.preprocess.exported(has_float64=has_float64), whole.scores

    def forward(self, pixels: Tensor) -> Tensor:
        return self.scores.images(self.preprocess(pixels))


class _Decided(nn.Module):
    """What the network gives, to the outputs."""

    def __init__(self, whole: WholeModel) -> None:
        super().__init__()
        self.scores, self.views = whole.scores, len(whole.views)

    def forward(self, *rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.scores.outputs(rows[0] if len(rows) == 1 else (rows[0], rows[1]), self.views))


def _exported_head(whole: WholeModel, rows: Tensor | tuple[Tensor, Tensor], ends: Sequence[str]) -> ModelProto:
    """Export what follows the network, given what it returns."""
    if isinstance(rows, Tensor):
        return _exported(_Decided(whole), (rows,), ("rows",), ends, {0: "B"})
    return _exported(_Decided(whole), tuple(rows), ("logits", "rows"), ends, {0: "B"})


def _exported(
    module: nn.Module,
    given: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Mapping[int, str],
) -> ModelProto:
    """Export one part; the dimensions of every input that ``dynamic`` names have any length."""
    shapes = tuple(dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC) for _ in given)
    taken: Any = (shapes,) if isinstance(module, _Decided) else shapes  # its parameter is one tuple, *rows
    try:
        with silenced(), torch.inference_mode():
            program = torch.onnx.export(
                module.eval(), given, dynamo=True, opset_version=OPSET, optimize=True, verbose=False,
                input_names=[*inputs], output_names=[*outputs], dynamic_shapes=taken, external_data=False,
            )  # fmt: skip
    except Exception as error:  # an exporter raises whatever the network's code and its own passes raise
        raise EngineError(f"torch cannot export this network to ONNX: {brief(error)}") from error
    assert program is not None
    model: ModelProto = program.model_proto
    for node in _nodes(model):
        del node.metadata_props[:]  # the file's format of opset 18 has none
        node.doc_string = ""
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    return model


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def _same_operators(models: Sequence[ModelProto]) -> None:
    """Give several models the union of their sets of operators, and one version of the file format, as joining requires."""
    versions: dict[str, int] = {}
    for model in models:
        for each in model.opset_import:
            versions[each.domain] = max(each.version, versions.get(each.domain, 0))
    for model in models:
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions.items())
        model.ir_version = models[0].ir_version


def _rename(model: ModelProto, names: Mapping[str, str]) -> None:
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)


def _name_dimensions(model: ModelProto) -> None:
    """Call the first dimension of all outputs N, as that of the input."""
    for name, value in zip("NHW", model.graph.input[0].type.tensor_type.shape.dim, strict=False):
        value.dim_param = name
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "N"


def _take_any_rank(model: ModelProto, bands: int) -> None:
    """Let the input have one dimension less: the graph adds that of the batch, and refuses other channels."""
    taken = model.graph.input[0]
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == INPUT else name for name in node.input]
    constants = {"any": [-1], "same": [0, 0, 0, bands]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), f"batch/{k}") for k, v in constants.items())
    steps = [
        helper.make_node("Shape", [INPUT], ["batch/sides"], start=-3, name="batch/shape"),
        helper.make_node("Concat", ["batch/any", "batch/sides"], ["batch/shape"], axis=0, name="batch/concat"),
        helper.make_node("Reshape", [INPUT, "batch/shape"], ["batch/pixels"], name="batch/reshape"),
        helper.make_node("Reshape", ["batch/pixels", "batch/same"], ["pixels"], name="batch/channels"),
    ]
    nodes = [*steps, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    taken.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.UINT8, None))
