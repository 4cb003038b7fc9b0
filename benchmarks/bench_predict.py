"""Tables of predictions against an extraction of the same images, and of a million rows. Prints one JSON line.

    python benchmarks/bench_predict.py ../shared/datasets/hymenoptera --backbone mobilenet_v1_075 \
        --weights ../shared/weights/mobilenet_v1_075.safetensors
    python benchmarks/bench_predict.py ../shared/datasets/hymenoptera --rows 1000000 --only rows list

Each measurement is a process of its own, and rounds are interleaved, so that other load affects all of them alike. Times are
those of the work, without imports and the loading of the network.

``extract``, ``predict`` and ``printed``: images per second of ``featx extract --compute eager``, of ``featx predict -o`` and of
``iter_predictions``, which ``featx predict`` prints, where nothing is known; ``known``: of ``predict -o`` where all features
are in the cache folder. ``rows``: rows per second and peak memory of ``predict -o`` for a feature file of so many rows of 768
float16; ``list``: peak memory for a table of so many paths of which none is there, so that only the list and the rows count.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common import peak_bytes

IMAGES, ROWS = ("extract", "predict", "printed", "known"), ("rows", "list")


def measure(data: str, backbone: str, weights: str | None, rows: int, rounds: int, only: list[str]) -> dict[str, Any]:
    """Measure in a temporary folder."""
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        _run("prepare", folder, data, backbone, weights, rows if "rows" in only else 0)
        for _ in range(rounds):
            for what in (name for name in IMAGES if name in only):
                found.setdefault(what, []).append(_run(what, folder, data, backbone, weights, rows))
        for what in (name for name in ROWS if name in only):
            found[what] = [_run(what, folder, data, backbone, weights, rows)]
    summary: dict[str, Any] = {}
    for what, results in found.items():
        summary[what] = {
            "images_per_second": round(statistics.median(each["images"] / each["seconds"] for each in results), 1),
            "images": results[0]["images"],
            "peak_bytes": max(each["peak_bytes"] for each in results),
        }
    if "extract" in summary and "predict" in summary:
        pairs = zip(found["predict"], found["extract"], strict=True)
        summary["share"] = round(statistics.median(two["seconds"] / one["seconds"] for one, two in pairs), 3)
    return summary


def _run(what: str, *arguments: Any) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", json.dumps([what, *arguments])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _measured(what: str, folder: str, data: str, backbone: str, weights: str | None, rows: int) -> dict[str, Any]:
    import featx

    data, weights = str(Path(data).resolve()), weights and str(Path(weights).resolve())
    os.chdir(folder)
    if what == "prepare":
        features = featx.extract(
            data, featx.load_backbone(backbone, weights=weights), cache="cache", compute="eager"
        ).load()
        featx.Head("logreg", C=0.01).fit(features).save("head.safetensors")
        shutil.copytree("cache", "known")
        shutil.rmtree("cache")  # the head finds its own features nowhere
        if rows:
            _make_rows(rows)
        return {"images": 0, "seconds": 1, "peak_bytes": 0}
    shutil.rmtree("cache", ignore_errors=True)
    for path in Path().glob("out*"):
        path.unlink()
    began, images = 0.0, 0
    if what == "extract":
        network = featx.load_backbone(backbone, weights=weights)
        began = time.perf_counter()
        images = featx.extract(data, network, cache="cache", compute="eager").images
    elif what == "rows":
        head = featx.Head.load("rows.safetensors")
        began = time.perf_counter()
        images = featx.write_predictions(head, "rows.h5", "out.csv").images
    else:
        model = featx.load_model("head.safetensors", weights=weights)
        source: Any = (
            [f"/gone/a/folder/of/some/length/image-{n:08d}.jpg" for n in range(rows)] if what == "list" else data
        )
        began = time.perf_counter()
        if what == "printed":
            images = sum(1 for _ in featx.iter_predictions(model, data, cache=None))
        else:
            images = featx.write_predictions(
                model, source, "out.csv", cache="known" if what == "known" else None
            ).images
    return {"images": images, "seconds": time.perf_counter() - began, "peak_bytes": peak_bytes()}


def _make_rows(rows: int) -> None:
    """A feature file of fake features, and a head on it."""
    from bench_sets import make

    import featx

    make(Path("rows.set"), rows, rows)
    next(Path("rows.set").glob("*.h5")).rename("rows.h5")
    features = featx.FeatureSet.load("rows.h5").take(np.arange(2000))
    origin = {"name": "fake", "weights": "none", "parts": {"dtype": "float16", "foreign": {"tool": "fake"}}}
    features = dataclasses.replace(features, backbone=origin)
    featx.Head("logreg", C=0.01).fit(features).save("rows.safetensors")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?")
    parser.add_argument("--backbone", default="lenet5")
    parser.add_argument("--weights")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=(*IMAGES, *ROWS), default=[*IMAGES, *ROWS])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        sys.stdout.write(json.dumps(_measured(*json.loads(options.measure))))
        return
    found = measure(options.data, options.backbone, options.weights, options.rows, options.rounds, options.only)
    versions = {"featx": version("featx"), "torch": version("torch")}
    sys.stdout.write(json.dumps({**found, "cores": os.cpu_count(), "versions": versions}) + "\n")


if __name__ == "__main__":
    main()
