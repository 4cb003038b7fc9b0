"""The engines that run an exported ONNX network on the CPU: ONNX Runtime and OpenVINO."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from featx.backbones.backbone import Backbone
from featx.extraction.engines import Runner
from featx.extraction.network_copy import NetworkCopy
from featx.extraction.onnx_export import onnx_bytes

MOST_COPIED_BYTES = 4_000_000_000
"""Bytes of weights in all lanes' copies of a network together."""


def make_onnxruntime(network: NetworkCopy, backbone: Backbone, batch: int, _lanes: int) -> Runner:
    """Run the network by ONNX Runtime, in one session that all lanes call; each pass runs on the calling thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # a pass runs on the calling thread
    options.log_severity_level = 3
    model = onnx_bytes(network, backbone, batch)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels.numpy()})


def make_openvino(network: NetworkCopy, backbone: Backbone, batch: int, lanes: int) -> Runner:
    """Run the network by OpenVINO, compiled for each lane, so that a pass runs on the calling thread.

    Threads of OpenVINO's own would take cores from the decoders while they wait. Where one copy of the weights per lane
    would need too much memory, the network is compiled once, with such threads.
    """
    import openvino

    exported = onnx_bytes(network, backbone, batch)
    copies = lanes * len(exported) <= MOST_COPIED_BYTES
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 0 if copies else lanes,
        "INFERENCE_NUM_THREADS": 1 if copies else lanes,
        "ENABLE_CPU_PINNING": False,
    }
    core = openvino.Core()
    model = core.read_model(exported)
    shared = None if copies else core.compile_model(model, "CPU", settings)
    idle: deque[Any] = deque()

    def run(pixels: Tensor) -> Sequence[np.ndarray]:
        try:
            request = idle.pop()
        except IndexError:
            request = (shared or core.compile_model(model, "CPU", settings)).create_infer_request()
        outputs = request.infer([pixels.numpy()], share_inputs=True)
        idle.append(request)
        return [outputs[output] for output in request.model_outputs]

    return run
