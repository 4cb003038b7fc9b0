"""What mending labels is worth: the accuracy that wrong training labels cost, and the share that accepted suggestions recover.

    python benchmarks/inspect_loop.py cache/trashnet--mobilenet_v1_075.h5 --seeds 2

In each of five folds, a tenth of the training labels are replaced by other classes, drawn evenly. ``featx.inspect`` judges all
labels, and its suggestions for training images are accepted in their order: as many as confident learning expects to be wrong.
Heads on the labels as they were, on the wrong ones and on the mended ones are judged on the same test images, whose labels
nobody touched. The test images of the five folds are disjoint, so the paired test pools them; each seed is tested by itself,
because the seeds share their images. Prints one JSON line. A seed takes about a minute.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featx import FeatureSet, Head, PairedTest, __version__, inspect
from featx.heads.folds import make_folds

SHARE, FOLDS = 0.1, 5


def measure(features: FeatureSet, *, share: float = SHARE, seeds: int = 2) -> dict[str, Any]:
    """Measure how much of the lost accuracy accepted suggestions recover.

    Args:
        features: of a classification, whose labels count as right.
        share: of the training labels, to be replaced.
        seeds: number of seeds of folds and replaced labels.

    Returns:
        Means over the seeds, and the numbers of each.
    """
    runs = [_run(features, share, seed) for seed in range(seeds)]
    mean = {name: float(np.mean([run[name] for run in runs])) for name in ("clean", "wrong", "mended")}
    return {
        "images": len(features),
        "share": share,
        **{f"accuracy_{name}": value for name, value in mean.items()},
        "recovered": (mean["mended"] - mean["wrong"]) / (mean["clean"] - mean["wrong"]),
        "runs": runs,
    }


def _run(features: FeatureSet, share: float, seed: int) -> dict[str, Any]:
    """One seed: all five folds."""
    right: dict[str, list[np.ndarray]] = {"clean": [], "wrong": [], "mended": []}
    tests, counts = [], np.zeros(3, dtype=np.int64)
    for number, (train, test) in enumerate(make_folds(features.labels, None, folds=FOLDS, seed=seed)):
        splits = np.full(len(features), "train", dtype=object)
        splits[test] = "test"
        clean = dataclasses.replace(features, splits=splits, dataset={**features.dataset, "splits": "given"})
        labels = {"clean": features.labels, "wrong": replaced(clean, train, share, [seed, number])}
        labels["mended"], accepted = mended(dataclasses.replace(clean, labels=labels["wrong"]))
        planted = labels["wrong"] != features.labels
        counts += [planted.sum(), len(accepted), planted[accepted].sum()]
        predicted = {
            name: Head("logreg").fit(dataclasses.replace(clean, labels=given)).predict_proba(features.features[test])
            for name, given in labels.items()
        }
        classes = {name: p.argmax(axis=1) for name, p in predicted.items()}
        for name, found in classes.items():
            right[name].append(found == features.labels[test])
        paths = features.paths[test].tolist()
        tests.append(PairedTest.from_predictions(paths, features.labels[test], classes["wrong"], classes["mended"]))
    pooled = PairedTest.pooled(tests)
    return {
        "seed": seed,
        **{name: float(np.concatenate(each).mean()) for name, each in right.items()},
        "wrong_only": len(pooled.first_only),
        "mended_only": len(pooled.second_only),
        "p_value": pooled.p_value,
        **dict(zip(("planted", "accepted", "accepted_planted"), counts.tolist(), strict=True)),
    }


def replaced(features: FeatureSet, train: np.ndarray, share: float, seed: list[int]) -> np.ndarray:
    """The labels, a share of those of the training rows replaced by other classes, drawn evenly."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(train)[: round(share * len(train))]
    labels = features.labels.copy()
    labels[rows] = (labels[rows] + rng.integers(1, len(features.classes), len(rows))) % len(features.classes)
    return labels


def mended(features: FeatureSet) -> tuple[np.ndarray, np.ndarray]:
    """The labels with accepted suggestions for training rows, and these rows."""
    issues = inspect(features, pixels=False).labels
    assert issues is not None
    is_train = features.splits == "train"
    expected = int(np.count_nonzero(issues.is_issue & is_train))
    accepted = issues.ranked[is_train[issues.ranked]][:expected]
    number: Mapping[str, int] = {name: label for label, name in enumerate(features.classes)}
    labels = features.labels.copy()
    labels[accepted] = [number[name] for name in issues.suggested[accepted]]
    return labels, accepted


def main() -> None:
    """Measure each file of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", nargs="+", help="feature files of classifications")
    parser.add_argument("--share", type=float, default=SHARE, help="share of the training labels that are replaced")
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds")
    options = parser.parse_args()
    found = {
        Path(file).stem: measure(FeatureSet.load(file), share=options.share, seeds=options.seeds)
        for file in options.features
    }
    print(json.dumps({"featx": __version__, "numpy": np.__version__, "loop": found}))


if __name__ == "__main__":
    main()
