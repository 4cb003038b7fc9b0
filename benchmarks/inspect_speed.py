"""Time of an inspection against cleanlab's Datalab on the same features. Prints one JSON line with versions.

    python benchmarks/inspect_speed.py                        # 10,000 x 768, both in turns, three times: two minutes
    python benchmarks/inspect_speed.py --images 100000 --alone  # featx alone, with its peak of memory

Each measurement is a process of its own; seconds are those of the work, without imports. ``featx`` is ``featx.inspect``
without pixels: duplicates, leaks, outliers, out-of-fold predictions with the choice of C, label errors, and a head judged on
the test split. ``datalab`` is what the same findings take with scikit-learn and cleanlab: out-of-fold predictions by
``cross_val_predict`` (standardised features, logistic regression at its default C), then ``find_issues`` with them and the
features for labels, outliers and near-duplicates. ``find_issues`` alone is beside it, and so is featx's part of the same work
(``featx_given``: duplicates, outliers and label errors from given predictions).

The features are made: ten overlapping classes of rectified Gaussians, of which 5 % have a wrong label.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
from common import peak_bytes

import featx
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inspection.duplicates import find_duplicates
from featx.inspection.label_issues import find_label_issues
from featx.inspection.neighbours import nearest_neighbours
from featx.inspection.out_of_fold import OutOfFold
from featx.inspection.outliers import find_outliers

CLASSES = 10


def made(images: int, width: int, seed: int = 0) -> FeatureSet:
    """Features of ten classes, with wrong labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, images)
    X = rng.normal(size=(images, 64), scale=1 / 8).astype(np.float32) @ rng.normal(size=(64, width)).astype(np.float32)
    X += 0.5 * rng.standard_normal((images, width), dtype=np.float32)
    X += 0.1 * rng.normal(size=(CLASSES, width)).astype(np.float32)[labels]
    wrong = rng.random(images) < 0.05
    return FeatureSet(
        features=np.maximum(X, 0),
        labels=np.where(wrong, (labels + 1) % CLASSES, labels),
        splits=np.where(rng.random(images) < 0.8, "train", "test").astype(object),
        classes=tuple("abcdefghij"),
        paths=np.array([f"{row}.jpg" for row in range(images)], dtype=object),
        keys=rng.integers(0, 256, (images, 16), dtype=np.uint8),
    )


def by_featx(features: FeatureSet) -> dict[str, Any]:
    """Inspect, without pixels."""
    began = time.perf_counter()
    found = featx.inspect(features, pixels=False)
    return {"featx": time.perf_counter() - began, "counts": found.counts, "peak_bytes": peak_bytes()}


def by_datalab(features: FeatureSet) -> dict[str, Any]:
    """The same findings with scikit-learn and cleanlab; and what featx takes for the given predictions."""
    from cleanlab import Datalab
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    Datalab(data={"y": features.labels[:100]}, label_name="y", verbosity=0).find_issues(
        features=features.features[:100], issue_types={"outlier": {}}
    )  # its first call imports
    began = time.perf_counter()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    p = cross_val_predict(model, features.features, features.labels, method="predict_proba")
    predicted = time.perf_counter()
    lab = Datalab(data={"y": features.labels}, label_name="y", verbosity=0)
    lab.find_issues(features=features.features, pred_probs=p, issue_types={name: {} for name in _TYPES})
    done = time.perf_counter()
    given = OutOfFold(np.arange(len(p)), features.labels, p, features.classes, "classification", Head())
    neighbours = nearest_neighbours(features)
    find_duplicates(features, neighbours)
    find_outliers(neighbours)
    find_label_issues(given, len(p), neighbours)
    return {
        "datalab": done - began,
        "find_issues": done - predicted,
        "featx_given": time.perf_counter() - done,
    }


_TYPES = ("label", "outlier", "near_duplicate")
_SUBJECTS = {"featx": by_featx, "datalab": by_datalab}


def measure(images: int = 10_000, width: int = 768, *, repeats: int = 3, alone: bool = False) -> dict[str, Any]:
    """Medians of the seconds, in turns."""
    found: dict[str, list[Any]] = {}
    for _ in range(repeats):
        for subject in ("featx",) if alone else _SUBJECTS:
            command = [sys.executable, __file__, "--images", str(images), "--width", str(width), "--only", subject]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            for name, value in json.loads(done.stdout.splitlines()[-1]).items():
                found.setdefault(name, []).append(value)
    counts = found.pop("counts")[0]
    result: dict[str, Any] = {name: round(statistics.median(values), 2) for name, values in found.items()}
    if not alone:
        result["ratio"] = round(statistics.median(np.divide(found["featx"], found["datalab"]).tolist()), 3)
        result["ratio_given"] = round(
            statistics.median(np.divide(found["featx_given"], found["find_issues"]).tolist()), 3
        )
    return {"images": images, "width": width, "repeats": repeats, **result, "counts": counts}


def main() -> None:
    """Measure, or be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="without Datalab")
    parser.add_argument("--only", choices=tuple(_SUBJECTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        warnings.simplefilter("ignore")
        print(json.dumps(_SUBJECTS[options.only](made(options.images, options.width))))
        return
    result = measure(options.images, options.width, repeats=options.repeats, alone=options.alone)
    versions = {name: version(name) for name in ("numpy", "scikit-learn", *([] if options.alone else ["cleanlab"]))}
    print(json.dumps({"benchmark": "inspect_speed", **result, "versions": {"featx": featx.__version__, **versions}}))


if __name__ == "__main__":
    main()
