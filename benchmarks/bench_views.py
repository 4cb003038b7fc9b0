"""What several views of each image are worth, and what they cost. Prints one JSON line per data set.

    python benchmarks/bench_views.py ../shared/datasets/hymenoptera ../shared/datasets/trashnet \
        --weights ../shared/weights/mobilenet_v1_075.safetensors

All labelled images are dealt into five folds, ``--repeat`` times; each fold is judged by a head that was fitted to the others,
its C chosen there. For each set of views: ``accuracy`` and ``log_loss`` of heads that are fitted to all views and average over
them; ``train_only`` and ``predict_only``, the accuracy where the views are used for the one and not the other; ``gain``, of the
first over plain ones in points, with its ``standard_error`` over the images (each image's mean over the repeats is one number);
``fit_seconds``, the median over the fits. ``extract_seconds`` are of three runs, each in a new folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from importlib.metadata import version
from typing import Any

import numpy as np

import featx
from featx.data.splits import join_groups
from featx.features.feature_set import FeatureSet
from featx.heads.folds import make_folds
from featx.heads.head import Head
from featx.layer_spec import VIEWS


def extracted(data: str, backbone: str, weights: str, views: str) -> tuple[FeatureSet, list[float]]:
    """The features, and the seconds of three runs."""
    network = featx.load_backbone(backbone, weights=weights, views=views)
    seconds = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            features = featx.extract(data, network, cache=folder).load()
            seconds.append(round(time.perf_counter() - began, 2))
            features = dataclasses.replace(features, features=np.array(features.features))
    return features, seconds


def in_views(features: FeatureSet, count: int) -> FeatureSet:
    """The first of its views; a single one as if there were no others."""
    some = features.features[:, :count]
    return dataclasses.replace(features, features=some if count > 1 else some[:, 0])


def judged(features: FeatureSet, fitted: int, seen: int, repeat: int) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """(repeat, N) bool, which images were right; (repeat, N) log losses; and what each fit took.

    Args:
        features: in all views.
        fitted: how many of them a head is fitted to.
        seen: how many of them it averages over.
        repeat: how often the folds are dealt.
    """
    train, judge, y = in_views(features, fitted), in_views(features, seen), features.labels
    right, losses, seconds = np.zeros((repeat, len(y)), dtype=bool), np.zeros((repeat, len(y))), []
    for turn in range(repeat):
        for rest, test in make_folds(y, join_groups(features.keys, None), folds=5, seed=1, repeat=turn):
            head = Head("logreg").fit(train, rows=rest)
            seconds.append(head.seconds_)
            p = head.predict_values(judge.features[test])
            right[turn, test] = p.argmax(axis=1) == y[test]
            losses[turn, test] = -np.log(np.clip(p[np.arange(len(test)), y[test]], 1e-12, 1.0))
    return right, losses, seconds


def measured(data: str, backbone: str, weights: str, repeat: int) -> dict[str, Any]:
    """One line."""
    found: dict[str, Any] = {}
    seconds = {}
    for name in VIEWS:
        features, seconds[name] = extracted(data, backbone, weights, name)
    plain, _, _ = judged(features, 1, 1, repeat)
    for name, views in VIEWS.items():
        count = len(views)
        right, losses, fits = judged(features, count, count, repeat)
        gain = right.mean(axis=0) - plain.mean(axis=0)
        found[name] = {
            "accuracy": round(float(right.mean()), 4),
            "log_loss": round(float(losses.mean()), 4),
            "gain": round(100 * float(gain.mean()), 2),
            "standard_error": round(100 * float(gain.std(ddof=1)) / len(gain) ** 0.5, 2),
            "fit_seconds": round(statistics.median(fits), 3),
            "extract_seconds": seconds[name],
        }
        if count > 1:
            found[name]["train_only"] = round(float(judged(features, count, 1, repeat)[0].mean()), 4)
            found[name]["predict_only"] = round(float(judged(features, 1, count, repeat)[0].mean()), 4)
    return {"data": data, "images": len(features), "views": found}


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--backbone", default="mobilenet_v1_075")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    versions = {name: version(name) for name in ("featx", "torch", "numpy")}
    for data in options.data:
        line = measured(data, options.backbone, options.weights, options.repeat)
        print(json.dumps({"benchmark": "views", **line, "versions": versions}), flush=True)


if __name__ == "__main__":
    main()
