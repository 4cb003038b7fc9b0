r"""How long an epoch of partial fine-tuning takes with the frozen part's outputs cached. Prints one JSON line with versions.

    python benchmarks/bench_promote.py ../shared/datasets/hymenoptera
    python benchmarks/bench_promote.py ../shared/datasets/hymenoptera \
        --networks mobilenet_v1_075:features.11:../shared/weights/mobilenet_v1_075.safetensors

For each network both ways take turns, each in a process of its own: ``--views 0``, ordinary partial fine-tuning (the frozen
part is run for every image in every epoch), against the default. An epoch's time is what the log says: training images once,
with the images that choose judged after it; of two epochs the faster. ``whole_run_filling`` is a whole run that also filled the
cache. Weights are random unless a file is named, and the rate is tiny: time depends on neither.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

NETWORKS = ("resnet18:layer4", "resnet50:layer4")


def run(data: str, name: str, layer: str, weights: str, views: int, folder: str) -> dict[str, Any]:
    """One promotion of two epochs."""
    import featx
    from featx.head import Head
    from featx.settings import FineTuning

    backbone = featx.load_backbone(name, weights=weights)
    features = featx.extract(data, backbone, cache=Path(folder) / "cache").load()
    settings = FineTuning(epochs=2, lr=1e-6, views=views, from_layer=layer, interpolate=False)
    out = Path(folder) / "model.safetensors"
    result = featx.promote(Head("ridge").fit(features), finetune=True, settings=settings, features=features, out=out)
    seconds = [entry["seconds"] for entry in result.log[1:]]
    return {
        "epoch_seconds": min(s for s in seconds if s), "all": result.seconds, "notes": list(result.notes),
        "head_log_loss": result.log[0]["log_loss"],
    }  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--networks", nargs="*", default=NETWORKS, metavar="NAME:BLOCK[:WEIGHTS]")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run(options.data, *json.loads(options.child))))
        return
    result: dict[str, Any] = {"versions": {name: version(name) for name in ("torch", "torchvision", "numpy")}}
    for network in options.networks:
        name, layer, weights = [*network.split(":"), "random"][:3]
        with tempfile.TemporaryDirectory(dir=".") as folder:
            found: dict[int, list[dict[str, Any]]] = {0: [], 2: []}
            for _ in range(options.rounds):
                for views, runs in found.items():
                    child = json.dumps([name, layer, weights, views, folder])
                    command = [sys.executable, __file__, options.data, "--child", child]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    runs.append(json.loads(done.stdout.splitlines()[-1]))
        ordinary, cached = (statistics.median(r["epoch_seconds"] for r in found[views]) for views in (0, 2))
        result[network] = {
            "ordinary_seconds": ordinary, "cached_seconds": cached, "ratio": ordinary / cached,
            "whole_run_filling": found[2][0]["all"], "whole_run_ordinary": found[0][0]["all"],
            "notes": found[2][0]["notes"],
        }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
