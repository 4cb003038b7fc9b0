"""How often ``--target-precision`` is kept on other images. Prints one JSON line with versions.

    OMP_NUM_THREADS=1 python benchmarks/bench_target_precision.py             # two minutes
    OMP_NUM_THREADS=1 python benchmarks/bench_target_precision.py --runs 500

In every run a head is fitted to overlapping classes, and its precision above the chosen threshold is measured on 20,000 other
rows. ``missed`` is the share of runs in which it is below the wish, and should be at most 0.05; ``refused`` the share of runs
without a threshold, which count as kept; ``coverage`` the mean share of accepted rows where there is a threshold. ``best`` is
the coverage of the lowest threshold that keeps the wish on the other rows, which only they can tell.

``grouped`` settings have 150 groups of 10 rows, such as patients, each with a shift of its own in all its rows; the other rows
come from other groups.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version

import numpy as np

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head

CLASSES, WIDTH, OTHERS = 3, 12, 20_000
SETTINGS = (
    ("centroid", 0.9, 300, 1), ("centroid", 0.95, 600, 1), ("ridge", 0.95, 600, 1), ("logreg", 0.95, 600, 1),
    ("logreg", 0.98, 1200, 1), ("knn", 0.95, 600, 1), ("ridge", 0.8, 1500, 10), ("centroid", 0.85, 1500, 10),
)  # fmt: skip
"""Kind of head, wished precision, rows, rows of each group."""


def sample(rows: int, each: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and groups of rows; a group has one class and one shift."""
    groups = np.arange(rows) // each
    labels = rng.permutation(np.arange(rows // each) % CLASSES)[groups]
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


def setting(kind: str, target: float, rows: int, each: int, runs: int) -> dict[str, object]:
    """One line of results."""
    missed, refused, coverage, best = 0, 0, [], []
    for run in range(runs):
        rng = np.random.default_rng([run, rows, each])
        features = feature_set(*sample(rows, each, rng), rng)
        X, labels, _ = sample(OTHERS, each, rng)
        try:
            head = Head(kind, target_precision=target).fit(features)
        except HeadError:
            refused += 1
            continue
        p = head.predict_values(X)
        confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
        accepted = confidence >= head.reject_below_
        missed += bool(accepted.any() and right[accepted].mean() < target)
        coverage.append(accepted.mean())
        order = np.argsort(-confidence)
        kept = np.flatnonzero(np.cumsum(right[order]) >= target * np.arange(1, OTHERS + 1))
        best.append((kept[-1] + 1) / OTHERS if len(kept) else 0.0)
    return {
        "kind": kind, "target": target, "rows": rows, "grouped": each > 1, "missed": missed / runs, "refused": refused / runs,
        "coverage": round(float(np.mean(coverage)), 3) if coverage else None,
        "best": round(float(np.mean(best)), 3) if best else None,
    }  # fmt: skip


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="heads fitted in each setting")
    runs = parser.parse_args().runs
    versions = {name: version(name) for name in ("featx", "numpy", "scipy")} | {"python": sys.version.split()[0]}
    print(json.dumps({"versions": versions, "runs": runs, "settings": [setting(*each, runs) for each in SETTINGS]}))


if __name__ == "__main__":
    main()
