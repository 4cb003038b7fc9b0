"""What ``featx.sklearn`` costs: images from the cache against the network, and heads against scikit-learn's own estimator.

    python benchmarks/bench_sklearn.py                           # 400 made JPEG files through resnet18, five rounds
    python benchmarks/bench_sklearn.py --images folder/ --limit 200
    python benchmarks/bench_sklearn.py --features cache/trashnet--mobilenet_v1_075.h5

Prints one JSON line. "embedder" is images/s of the first ``transform``, of the second, of one in a process that has loaded the
network anew, and of one image at a time. "heads" are medians of interleaved rounds at the same C: seconds of a fit, the
accuracy on held-out rows, and how far the objective (the mean log loss with its penalty) is above the lowest of the three.
Without --features the features are drawn: 2,000 rows of 512 numbers, 10 classes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import FeatureSet, Head
from featx.sklearn import HeadClassifier, ImageEmbedder

C = 0.1


def make_images(folder: Path, count: int) -> list[str]:
    """JPEG files of 320 x 240 pixels: smooth noise, so that they are about as large as photos are."""
    rng = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(folder / f"{number:05}.jpg", quality=90)
    return sorted(map(str, folder.glob("*.jpg")))


def _rate(images: int, function: Any) -> float:
    started = time.perf_counter()
    function()
    return images / (time.perf_counter() - started)


def measure_embedder(paths: list[str], backbone: str, weights: str, cache: Path, rounds: int) -> dict[str, Any]:
    """Images per second, computed and from the cache."""
    params = {"backbone": backbone, "weights": weights, "cache": str(cache), "device": "cpu"}
    embedder = ImageEmbedder(**params).fit(paths)
    first = _rate(len(paths), lambda: embedder.transform(paths))
    again = [_rate(len(paths), lambda: embedder.transform(paths)) for _ in range(rounds)]
    code = (
        "import json, sys, time; from featx.sklearn import ImageEmbedder; p, paths = json.load(sys.stdin);"
        "e = ImageEmbedder(**p).fit(paths); t = time.perf_counter(); e.transform(paths); print(time.perf_counter() - t)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps([params, paths]), capture_output=True, text=True, check=True
    )
    single = [_rate(1, lambda path=path: embedder.transform([path])) for path in paths[:20]]
    new = [path.read_bytes() + b"\0" for path in map(Path, paths[:20])]  # other bytes, so other images
    new_single = [_rate(1, lambda data=data: embedder.transform([data])) for data in new]
    return {
        "images": len(paths),
        "backbone": backbone,
        "first, images/s": round(first, 1),
        "second, images/s": round(statistics.median(again), 1),
        "ratio": round(statistics.median(again) / first, 1),
        "in another process, images/s": round(len(paths) / float(done.stdout), 1),
        "one known image, ms": round(1000 / statistics.median(single), 1),
        "one new image, ms": round(1000 / statistics.median(new_single), 1),
        "files": len(list(cache.glob("embedded/*.h5"))),
    }


def _objective(probabilities: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """scikit-learn's: the mean log loss, and |W|^2 / (2 C n)."""
    picked = np.log(np.maximum(probabilities[np.arange(len(y)), y], 1e-300))
    return float(-picked.mean() + (weight**2).sum() / (2 * C * len(y)))


def measure_heads(X: np.ndarray, y: np.ndarray, rounds: int) -> dict[str, Any]:
    """Fits at one C: HeadClassifier, Head, and scikit-learn's LogisticRegression behind a StandardScaler."""
    train = np.arange(len(y)) % 4 > 0
    estimators = {
        "HeadClassifier": lambda: HeadClassifier("logreg", C=C),
        "Head": lambda: Head("logreg", C=C),
        "LogisticRegression": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in estimators}
    fitted: dict[str, Any] = {}
    for _ in range(rounds):
        for name, new in estimators.items():
            started = time.perf_counter()
            fitted[name] = new().fit(X[train], y[train])
            seconds[name].append(time.perf_counter() - started)
    found = {}
    for name, estimator in fitted.items():
        head = getattr(estimator, "head_", estimator)
        weight = head.predictor_.weight if isinstance(head, Head) else estimator[-1].coef_
        weight = (
            weight[1] - weight[0] if len(weight) == 2 else weight
        )  # two classes have one vector, as in scikit-learn
        probabilities = estimator.predict_proba(X[train])
        found[name] = {
            "fit, s": round(statistics.median(seconds[name]), 4),
            "accuracy": round(float(estimator.score(X[~train], y[~train])), 4),
            "objective": _objective(probabilities, y[train], weight),
        }
    lowest = min(facts["objective"] for facts in found.values())
    return {name: {**facts, "objective": f"{facts['objective'] - lowest:.1e} above"} for name, facts in found.items()}


def measure(
    paths: list[str], backbone: str, weights: str, features: tuple[np.ndarray, np.ndarray], rounds: int, cache: Path
) -> dict[str, Any]:
    """Both parts."""
    return {
        "embedder": measure_embedder(paths, backbone, weights, cache, rounds),
        "heads": {"rows": len(features[1]), "width": features[0].shape[1], **measure_heads(*features, rounds)},
    }


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of images instead of made ones")
    parser.add_argument("--limit", type=int, default=400, help="images")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--features", help="a feature file instead of drawn features")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.features:
        loaded = FeatureSet.load(given.features).split("all")
        features = np.asarray(loaded.features, dtype=np.float32), np.unique(loaded.labels, return_inverse=True)[1]
    else:
        features = make_classification(
            2000, 512, n_informative=40, n_redundant=0, n_classes=10, class_sep=3.0, random_state=0
        )
    with tempfile.TemporaryDirectory() as temporary:
        if given.images:
            found = [
                path for path in sorted(given.images.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")
            ]
            paths = list(map(str, found))[: given.limit]
        else:
            paths = make_images(Path(temporary), given.limit)
        facts = measure(paths, given.backbone, given.weights, features, given.rounds, Path(temporary) / "cache")
    versions = {name: version(name) for name in ("scikit-learn", "numpy", "torch")}
    print(json.dumps({**facts, "cores": os.cpu_count(), "machine": platform.processor(), "versions": versions}))


if __name__ == "__main__":
    main()
