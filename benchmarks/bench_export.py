r"""What an exported model loses: its proof, and accuracy, size and speed in float16 and int8. Prints one JSON line a precision.

    python benchmarks/bench_export.py ../shared/datasets/hymenoptera \
        --backbone mobilenet_v1_075 --weights ../shared/weights/mobilenet_v1_075.safetensors

A logistic regression is fitted to the training images, put on its backbone, and exported to ONNX, once; then the network is
converted to float16, and quantised to int8 by ranges that are measured on 128 training images. Accuracy, the paired test and
images/s are of the whole held-out split, one image at a time from decoded pixels to the decision, float32 and the other
precision in turn. Features that are in ``--cache`` are not extracted again. A minute or two for each data set.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import featx
from featx.deployment import WholeModel
from featx.deployment.onnx_file import runner, session
from featx.deployment.onnx_graph import Graph
from featx.deployment.own_images import OwnImages
from featx.deployment.precision import compared, to_float16, to_int8
from featx.deployment.proof import Reference, prove
from featx.heads.head import Head
from featx.inference import HeadOnBackbone


def measure(data: str, backbone: str, weights: str, cache: str) -> Iterator[dict[str, Any]]:
    """Export once, and measure each precision."""
    network = featx.load_backbone(backbone, weights=weights, device="cpu")
    features = featx.extract(data, network, cache=cache).load()
    model = HeadOnBackbone(Head("logreg").fit(features), network)
    own, whole = OwnImages.of(model), WholeModel.of(model, dtype=torch.float32)
    started = time.perf_counter()
    graph = Graph.of(whole)
    seconds = time.perf_counter() - started
    full = graph.joined().SerializeToString()
    run = runner(session(full))
    proof = prove(run, model, Reference.of(model, own))
    facts = {
        "data": Path(data).name,
        "backbone": backbone,
        "export_seconds": round(seconds, 1),
        "proof": proof.as_dict(),
    }
    for precision in ("float16", "int8"):
        less = to_float16(graph.network) if precision == "float16" else to_int8(graph.network, whole, own)
        made = graph.with_network(less).joined().SerializeToString()
        found = compared(precision, (run, runner(session(made))), (len(full), len(made)), model, own)
        assert found
        yield {**facts, "precision": precision, **found.as_dict()}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--backbone", default="lenet5")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--cache")
    options = parser.parse_args()
    versions = {name: version(name) for name in ("torch", "onnx", "onnxruntime", "numpy")}
    with tempfile.TemporaryDirectory() as folder:
        for line in measure(options.data, options.backbone, options.weights, options.cache or folder):
            print(json.dumps({**line, "versions": versions}), flush=True)


if __name__ == "__main__":
    main()
