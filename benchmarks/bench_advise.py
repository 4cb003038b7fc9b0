r"""Whether `featx advise` is right: what it recommends against the alternatives. Prints one JSON line per data set.

    python benchmarks/bench_advise.py ../shared/datasets/trashnet ../shared/datasets/hymenoptera digits \
        --weights ../shared/weights/mobilenet_v1_075.safetensors

All images are dealt into five folds (``--folds`` says how many of them judge, one after the other), as in
bench_finetuning.py: advice and heads see the others but for a fifth of them, which chooses epoch and interpolation. Of each
fold the advised head or network and every alternative are judged on the images that none of them saw. ``accuracy`` is over
all images that judged; ``regret`` is the best alternative's accuracy minus the advised one's, in points. A tuned network
counts as it is, whether or not ``featx promote`` would call its gain proved.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from bench_finetuning import split

import featx
from featx.advising import Advice, advise
from featx.features import FeatureSet
from featx.folds import make_folds
from featx.groups import join_groups
from featx.head import Head
from featx.promotion import promote
from featx.settings import PENULTIMATE, FineTuning

TUNED: dict[str, dict[str, Any]] = {"tune-all": {}, "tune-last-3": {"last": 3}}


def table_of(features: FeatureSet, path: Path) -> Path:
    """A table of a feature set's images with its splits."""
    root = Path(features.dataset["root"])
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for row in np.flatnonzero(np.isin(features.splits, ["train", "val", "test"])):
            rows.writerow([root / features.paths[row], features.classes[features.labels[row]], features.splits[row]])
    return path


def judged(file: Path, layer: str) -> tuple[Head, float]:
    """A head on a layer, and its accuracy on split test."""
    features = FeatureSet.load(file, layer)
    head = Head("logreg").fit(features)
    return head, head.evaluate(features).accuracy  # type: ignore[union-attr]


def tuned(head: Head, features: FeatureSet, out: Path, settings: dict[str, Any]) -> float:
    """The accuracy of the fine-tuned network on split test."""
    result = promote(
        head, finetune=True, settings=FineTuning(repeats=0, **settings), features=features, out=out / "m.safetensors"
    )
    assert result.trial
    return result.trial.report.accuracy  # type: ignore[union-attr]


def outcomes(advice: Advice, out: Path) -> dict[str, float]:
    """The accuracy of the alternatives, and of what is advised."""
    features = FeatureSet.load(advice.features)
    head, own = judged(advice.features, PENULTIMATE)
    found = {"head": own, **{f"head on {d.layer}": judged(advice.features, d.layer)[1] for d in advice.layers[:-1]}}
    several = ",".join(depth.layer for depth in advice.layers)
    found["head on all layers"] = judged(advice.features, several)[1]
    for name, settings in TUNED.items():
        found[name] = tuned(head, features, out, settings)
    what = advice.choice.recommendation
    if what == "head-inner":
        found["advised"] = judged(advice.features, advice.layer)[1]
    elif what == "tune-part":
        found["advised"] = tuned(head, features, out, {"from_layer": advice.layer})
    else:
        found["advised"] = found.get(what, own)
    return found


def measure(data: str, backbone: str, weights: str, folds: int, folder: Path) -> dict[str, Any]:
    """One data set over some folds."""
    network = featx.load_backbone(backbone, weights=weights, stages=True)
    features = featx.extract(data, network, cache=folder / "cache").load()
    every = np.flatnonzero(np.isin(features.splits, ["train", "val", "test"]) & (features.labels >= 0))
    dealt = make_folds(features.labels[every], join_groups(features.keys[every], None), folds=5, seed=1)
    names, right, seconds, images = [], dict[str, float](), [], 0
    for fold, (rest, judge) in enumerate(dealt[:folds]):
        table = table_of(split(features, every[rest], every[judge]), folder / f"{Path(data).name}{fold}.csv")
        featx.extract(table, network, cache=folder / "cache")
        started = time.perf_counter()
        advice = advise(table, backbone, weights=weights, cache=folder / "cache", models=folder)
        seconds.append(round(time.perf_counter() - started, 1))
        names.append(f"{advice.cell}: {advice.choice.recommendation} {advice.layer} ({advice.confidence:.2f})")
        images += len(judge)
        for name, accuracy in outcomes(advice, folder).items():
            right[name] = right.get(name, 0.0) + accuracy * len(judge)
    accuracy = {name: round(count / images, 4) for name, count in right.items()}
    best = max(accuracy, key=lambda name: accuracy[name])
    return {
        "data": Path(data).name, "images": images, "advice": names, "accuracy": accuracy, "best": best,
        "regret": round(100 * (accuracy[best] - accuracy["advised"]), 2), "advise_seconds": seconds,
    }  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--backbone", default="mobilenet_v1_075")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--folds", type=int, default=3)
    options = parser.parse_args()
    versions = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    for data in options.data:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            found = measure(data, options.backbone, options.weights, options.folds, Path(folder))
            print(json.dumps({**found, "versions": versions}), flush=True)


if __name__ == "__main__":
    main()
