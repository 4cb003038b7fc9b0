r"""How long an epoch of partial fine-tuning takes with the frozen part's outputs cached. Prints one JSON line with versions.

    python benchmarks/bench_promote.py ../shared/datasets/hymenoptera
    python benchmarks/bench_promote.py ../shared/datasets/trashnet --rounds 1 --epochs 10 --lr 1e-3 \
        --networks mobilenet_v1_075:features.11:../shared/weights/mobilenet_v1_075.safetensors

For each network both ways take turns, each in a process of its own: ``--cached-crops 0``, ordinary partial fine-tuning (the
frozen part is run for every image in every epoch), against the default. An epoch's time is the log's: training images once,
with the validation images scored after it; of all epochs the fastest. ``whole_run_filling`` is a whole run that also filled
the cache. Weights are random unless a file is named, and the rate is tiny: the time of an epoch depends on neither.

``same_accuracy`` is for longer runs, at a rate: how long, from the start of ``promote``, until the validation images gave the
highest accuracy that both ways reached. In the first round the cache is filled meanwhile; ``same_accuracy_again`` is of the
last round, which finds it filled where there are several.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

NETWORKS = ("resnet18:layer4", "resnet50:layer4")


def run(
    data: str, name: str, layer: str, weights: str, epochs: int, lr: float, crops: int, folder: str
) -> dict[str, Any]:
    """One promotion."""
    import featx
    from featx.heads.head import Head
    from featx.promotion.config import FineTuning
    from featx.promotion.history import TrainingProgress
    from featx.reporter import Reporter

    backbone = featx.load_backbone(name, weights=weights)
    features = featx.extract(data, backbone, cache=Path(folder) / "cache").load()
    settings = FineTuning(
        epochs=epochs, lr=lr, cached_crops=crops, from_layer=layer, interpolate=False, patience=epochs, repeats=0
    )
    head, out, ends = Head("logreg").fit(features), Path(folder) / "model.safetensors", dict[int, float]()
    started = time.perf_counter()

    class Clock(Reporter):
        def progress(self, done: int, total: int, detail: object = "") -> None:  # noqa: ARG002
            assert isinstance(detail, TrainingProgress)
            ends[detail.epoch] = time.perf_counter() - started

    result = featx.promote(head, finetune=True, settings=settings, features=features, out=out, reporter=Clock())
    seconds = [entry["seconds"] for entry in result.log[1:]]
    return {
        "epoch_seconds": min(s for s in seconds if s), "all": result.seconds, "notes": list(result.notes),
        "reached": [(ends[epoch], result.log[epoch]["accuracy"]) for epoch in range(1, len(result.log))],
    }  # fmt: skip


def same_accuracy(ordinary: list[tuple[float, float]], cached: list[tuple[float, float]]) -> dict[str, float]:
    """Seconds until each reached the highest accuracy that both did."""
    best = min(max(accuracy for _, accuracy in way) for way in (ordinary, cached))
    first, second = (next(at for at, accuracy in way if accuracy >= best) for way in (ordinary, cached))
    return {"accuracy": best, "ordinary_seconds": first, "cached_seconds": second, "ratio": first / second}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--networks", nargs="*", default=NETWORKS, metavar="NAME:BLOCK[:WEIGHTS]")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-6)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run(options.data, *json.loads(options.child))))
        return
    result: dict[str, Any] = {"versions": {name: version(name) for name in ("torch", "torchvision", "numpy")}}
    for network in options.networks:
        name, layer, weights = [*network.split(":"), "random"][:3]
        with tempfile.TemporaryDirectory(dir=".") as folder:
            found: dict[int, list[dict[str, Any]]] = {0: [], 4: []}
            for _ in range(options.rounds):
                for crops, runs in found.items():
                    child = json.dumps([name, layer, weights, options.epochs, options.lr, crops, folder])
                    command = [sys.executable, __file__, options.data, "--child", child]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    runs.append(json.loads(done.stdout.splitlines()[-1]))
        ordinary, cached = (statistics.median(r["epoch_seconds"] for r in found[crops]) for crops in (0, 4))
        result[network] = {
            "ordinary_seconds": ordinary, "cached_seconds": cached, "ratio": ordinary / cached,
            "whole_run_filling": found[4][0]["all"], "whole_run_ordinary": found[0][0]["all"],
            "same_accuracy": same_accuracy(found[0][0]["reached"], found[4][0]["reached"]),
            "same_accuracy_again": same_accuracy(found[0][-1]["reached"], found[4][-1]["reached"]),
            "notes": found[4][0]["notes"],
        }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
