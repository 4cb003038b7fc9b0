r"""Whether `featx advise` is right: what it recommends against the alternatives. Prints one JSON line per data set.

    python benchmarks/bench_advise.py ../shared/datasets/trashnet ../shared/datasets/hymenoptera digits \
        --weights ../shared/weights/mobilenet_v1_075.safetensors
    python benchmarks/bench_advise.py letters --folds 1 --images 1000 --backbone timm/tf_efficientnet_lite0 \
        --weights ../shared/weights/efficientnet_lite0.safetensors

A data set is what ``featx extract`` takes, or one that is made (``made_sets.py``): ``rotations:PHOTOGRAPHS``, ``spectra``,
``dots`` or ``letters``.

All images are dealt into five folds (``--folds`` says how many of them judge, one after the other), as in
bench_finetuning.py: advice and heads see the others but for a fifth of them, which chooses epoch and interpolation. Of each
fold the advised head or network and every alternative are judged on the images that none of them saw. ``accuracy`` is over
all images that judged; ``regret`` is the best alternative's accuracy minus the advised one's, in points. A tuned network
counts as it is, whether or not ``featx promote`` would call its gain proved. Where another single layer beats the
penultimate, fine-tuning also starts at the head on that layer. Each fold is printed as it ends; the last line of a data set
is over its folds.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from bench_finetuning import split
from made_sets import MADE, made

import featx
from featx.advice.advice import Advice, advise
from featx.data.splits import join_groups
from featx.features.feature_set import FeatureSet
from featx.heads.folds import make_folds
from featx.heads.head import Head
from featx.layer_spec import PENULTIMATE
from featx.promotion.config import FineTuning
from featx.promotion.promotion import promote

TUNED: dict[str, dict[str, Any]] = {"tune-all": {}, "tune-last-3": {"last": 3}}
"""Of networks that start at the head on the penultimate."""


def table_of(features: FeatureSet, path: Path) -> Path:
    """A table of a feature set's images with its splits."""
    root = Path(features.dataset["root"])
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for row in np.flatnonzero(np.isin(features.splits, ["train", "val", "test"])):
            rows.writerow([root / features.paths[row], features.classes[features.labels[row]], features.splits[row]])
    return path


def judged(file: Path, layer: str) -> float:
    """The accuracy on split test of a head on a layer."""
    features = FeatureSet.load(file, layer)
    return Head("logreg").fit(features).evaluate(features).accuracy  # type: ignore[union-attr]


def tuned(file: Path, layer: str, out: Path, settings: dict[str, Any]) -> float:
    """The accuracy on split test of the network that was fine-tuned from a head on a layer."""
    features = FeatureSet.load(file, layer)
    head = Head("logreg").fit(features)
    result = promote(
        head, finetune=True, settings=FineTuning(repeats=0, **settings), features=features, out=out / "m.safetensors"
    )
    assert result.run
    return result.run.report.accuracy  # type: ignore[union-attr]


def outcomes(advice: Advice, out: Path) -> dict[str, float]:
    """The accuracy of the alternatives, and of what is advised."""
    scores = advice.measurements.layer_scores
    file, several = advice.features, ",".join(score.layer for score in scores)
    inner = min(scores[:-1], key=lambda score: score.held_out.loss).layer
    found = {"head": judged(file, PENULTIMATE)}
    found |= {f"head on {score.layer}": judged(file, score.layer) for score in scores[:-1]}
    found["head on all layers"] = judged(file, several)
    found |= {name: tuned(file, PENULTIMATE, out, settings) for name, settings in TUNED.items()}
    if found[f"head on {inner}"] > found["head"]:
        found["tune-all from the best other head"] = tuned(file, inner, out, {})
    what = advice.recommendation
    if what == "head-inner":
        found["advised"] = judged(file, advice.layer)
    elif what == "tune-part":
        found["advised"] = tuned(file, PENULTIMATE, out, {"from_layer": advice.layer})
    else:
        found["advised"] = found.get(what, found["head"])
    return found


def measure(data: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One data set over some folds."""
    backbone, weights = options.backbone, options.weights
    data = str(made(data, folder / "made")) if data.partition(":")[0] in ("rotations", *MADE) else data
    network = featx.load_backbone(backbone, weights=weights, stages=True)
    features = featx.extract(data, network, cache=folder / "cache").load()
    every = np.flatnonzero(np.isin(features.splits, ["train", "val", "test"]) & (features.labels >= 0))
    if options.images:
        every = np.sort(np.random.default_rng(0).permutation(every)[: options.images])
    dealt = make_folds(features.labels[every], join_groups(features.keys[every], None), folds=5, seed=1)
    name = Path(data).stem
    names, right, seconds, images = [], dict[str, float](), [], 0
    for fold, (rest, judge) in enumerate(dealt[: options.folds]):
        table = table_of(split(features, every[rest], every[judge]), folder / f"{name}{fold}.csv")
        featx.extract(table, network, cache=folder / "cache")
        started = time.perf_counter()
        advice = advise(table, backbone, weights=weights, cache=folder / "cache", models=folder)
        seconds.append(round(time.perf_counter() - started, 1))
        names.append(f"{advice.cell}: {advice.recommendation} {advice.layer} ({advice.confidence:.2f})")
        images += len(judge)
        found = outcomes(advice, folder)
        line = {"data": name, "backbone": backbone, "fold": fold, "advice": names[-1], "images": len(judge)}
        expected = {"expected_gain": advice.decision.expected_gain, "cross_validated": advice.accuracies}
        print(json.dumps({**line, **expected, "accuracy": found}), file=sys.stderr, flush=True)
        for what, accuracy in found.items():
            right[what] = right.get(what, 0.0) + accuracy * len(judge)
    accuracy = {what: round(count / images, 4) for what, count in right.items()}
    best = max(accuracy, key=lambda what: accuracy[what])
    return {
        "data": name, "backbone": backbone, "images": images, "advice": names, "accuracy": accuracy, "best": best,
        "regret": round(100 * (accuracy[best] - accuracy["advised"]), 2), "advise_seconds": seconds,
    }  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--backbone", default="mobilenet_v1_075")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--images", type=int, default=0, help="draw this many of a data set's images; 0 takes all")
    options = parser.parse_args()
    versions = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    for data in options.data:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            found = measure(data, options, Path(folder))
            print(json.dumps({**found, "versions": versions}), flush=True)


if __name__ == "__main__":
    main()
