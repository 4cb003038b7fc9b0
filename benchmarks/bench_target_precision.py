"""How often ``--target-precision`` is kept on other images. Prints one JSON line with versions.

    OMP_NUM_THREADS=1 python benchmarks/bench_target_precision.py             # two minutes
    OMP_NUM_THREADS=1 python benchmarks/bench_target_precision.py --runs 500
    OMP_NUM_THREADS=1 python benchmarks/bench_target_precision.py --only real --real cache/*.h5

In every run a head is fitted to overlapping classes, and its precision above the chosen threshold is measured on 20,000 other
rows. ``missed`` is the share of runs in which it is below the wish, and should be at most 0.05; ``refused`` the share of runs
without a threshold, which count as kept; ``precision`` its mean and ``coverage`` the mean share of accepted rows where there is
a threshold. ``best`` is the coverage of the lowest threshold that keeps the wish on the other rows, which only they can tell.

``grouped`` settings have 150 groups of 10 rows, such as patients, each with a shift of its own in all its rows; the other rows
come from other groups.

``real``: the labelled rows of a feature file are divided anew in every run, 60 % to fit and the rest to judge. These are few,
so their share of right predictions may be below the wish where the precision is not: ``missed`` is the share of runs in which
so few of them are right that it would be so in at most one of 20 cases if the precision were the wish (a binomial test).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head

CLASSES, WIDTH, OTHERS = 3, 12, 20_000
UNEVEN = (0, 0, 0, 0, 1, 1, 2)
"""Classes of unequal size, for settings that treat these in a way of their own."""
SETTINGS: tuple[tuple[str, float, int, int, dict[str, Any]], ...] = (
    ("centroid", 0.9, 300, 1, {}), ("centroid", 0.95, 600, 1, {}), ("ridge", 0.95, 600, 1, {}), ("logreg", 0.95, 600, 1, {}),
    ("logreg", 0.98, 1200, 1, {}), ("knn", 0.95, 600, 1, {}), ("ridge", 0.8, 1500, 10, {}), ("centroid", 0.85, 1500, 10, {}),
    ("logreg", 0.9, 100, 1, {}), ("logreg", 0.9, 600, 1, {"calibrate": "isotonic"}),
    ("knn", 0.9, 600, 1, {"calibrate": "isotonic"}), ("logreg", 0.9, 600, 1, {"class_weight": "balanced"}),
    ("logreg", 0.9, 600, 1, {"logit_adjustment": 1.0}), ("svm", 0.9, 300, 1, {}),
)  # fmt: skip
"""Kind of head, wished precision, rows, rows of each group, further arguments of ``Head``."""


def sample(
    rows: int, each: int, rng: np.random.Generator, pattern: Sequence[int] = tuple(range(CLASSES))
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and groups of rows; a group has one class and one shift."""
    groups = np.arange(rows) // each
    labels = rng.permutation(np.resize(pattern, rows // each))[groups]
    centres = 1.7 * np.eye(CLASSES, WIDTH)
    shift = rng.normal(size=(rows // each, WIDTH))[groups] if each > 1 else 0.0
    noise = rng.normal(size=(rows, WIDTH)) * (0.6 if each > 1 else 1.0)
    return (centres[labels] + noise + 0.8 * shift).astype(np.float32), labels, groups


def feature_set(X: np.ndarray, labels: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> FeatureSet:
    """All rows in the split "train"."""
    return FeatureSet(
        X, labels, np.full(len(X), "train", dtype=object), tuple(map(str, range(CLASSES))),
        np.arange(len(X)).astype(str).astype(object), rng.integers(0, 256, (len(X), 16), dtype=np.uint8),
        dataset={"splits": "given"}, groups=groups.astype(str).astype(object), group="patient",
    )  # fmt: skip


def setting(kind: str, target: float, rows: int, each: int, params: dict[str, Any], runs: int) -> dict[str, object]:
    """One line of results."""
    missed, refused, precision, coverage, best = 0, 0, [], [], []
    pattern = UNEVEN if {"class_weight", "logit_adjustment"} & params.keys() else range(CLASSES)
    for run in range(runs):
        rng = np.random.default_rng([run, rows, each])
        features = feature_set(*sample(rows, each, rng, pattern), rng)
        X, labels, _ = sample(OTHERS, each, rng, pattern)
        try:
            head = Head(kind, target_precision=target, **params).fit(features, coarse=True)
        except HeadError:
            refused += 1
            continue
        p = head.predict_values(X)
        confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
        accepted = confidence >= head.reject_below_
        missed += bool(accepted.any() and right[accepted].mean() < target)
        precision += [right[accepted].mean()] if accepted.any() else []
        coverage.append(accepted.mean())
        order = np.argsort(-confidence)
        kept = np.flatnonzero(np.cumsum(right[order]) >= target * np.arange(1, OTHERS + 1))
        best.append((kept[-1] + 1) / OTHERS if len(kept) else 0.0)
    return {
        "kind": kind, "target": target, "rows": rows, "grouped": each > 1, **params,
        "missed": missed / runs, "refused": refused / runs,
        "precision": round(float(np.mean(precision)), 3) if precision else None,
        "coverage": round(float(np.mean(coverage)), 3) if coverage else None,
        "best": round(float(np.mean(best)), 3) if best else None,
    }  # fmt: skip


def real(file: Path, kind: str, target: float, params: dict[str, Any], runs: int) -> dict[str, object]:
    """One feature file, divided anew in every run."""
    features = FeatureSet.load(file)
    missed, refused, precision, coverage = 0, 0, [], []
    for run in range(runs):
        order = np.random.default_rng([run, 17]).permutation(np.flatnonzero(features.labels >= 0))
        cut = int(0.6 * len(order))
        train, test = np.sort(order[:cut]), np.sort(order[cut:])
        try:
            head = Head(kind, target_precision=target, seed=run, **params).fit(features, rows=train, coarse=True)
        except HeadError:
            refused += 1
            continue
        p = head.predict_rows(features, test)
        accepted = p.max(axis=1) >= head.reject_below_
        names = np.array([head.names_.index(name) for name in features.classes])
        right = (p.argmax(axis=1) == names[features.labels[test]])[accepted]
        coverage.append(accepted.mean())
        if len(right):
            precision.append(right.mean())
            missed += binomtest(int(right.sum()), len(right), target, alternative="less").pvalue <= 0.05
    return {
        "file": file.stem, "kind": kind, "target": target, **params, "missed": missed / runs, "refused": refused / runs,
        "precision": round(float(np.mean(precision)), 3) if precision else None,
        "coverage": round(float(np.mean(coverage)), 3) if coverage else None,
    }  # fmt: skip


def measure(runs: int, files: Sequence[Path], *, only: str = "") -> dict[str, Any]:
    """All settings, and each feature file."""
    lines = [
        real(file, kind, target, params, runs)
        for file in files
        for kind, params in (("logreg", {}), ("logreg", {"calibrate": "isotonic"}), ("knn", {}))
        for target in (0.9, 0.95)
        if only != "made"
    ]
    return {
        "versions": {name: version(name) for name in ("featx", "numpy", "scipy")} | {"python": sys.version.split()[0]},
        "runs": runs,
        "settings": [setting(*each, runs) for each in SETTINGS] if only != "real" else [],
        "real": lines,
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="heads fitted in each setting")
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="feature files")
    parser.add_argument("--only", choices=("made", "real"), default="", help="one part")
    args = parser.parse_args()
    print(json.dumps(measure(args.runs, args.real, only=args.only)))


if __name__ == "__main__":
    main()
