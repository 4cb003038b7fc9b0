"""Heads on two backbones side by side: each alone, together with equal scales, and with the scales that are chosen.

    python benchmarks/bench_joint.py cache/trashnet--a.h5 cache/trashnet--b.h5 [...] [--seeds 5] [--kind logreg]

The files are of one data set through different backbones. For each seed the images are split anew, 70 % for training, by
class. The test images of all seeds are pooled for the paired tests, by image: an image that is tested by several seeds is one
group. "useless" is the first backbone beside the features of the last one in random order, which is what chosen scales guard
against. On two cores it takes about a minute a data set.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any
from unittest import mock

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.features.joint_sets import part_names
from featx.heads import block_factors
from featx.heads.head import Head
from featx.metrics.paired import PairedTest

SHARE = 0.7


def measure(files: Sequence[str], *, seeds: int = 5, kind: str = "logreg") -> dict[str, Any]:
    """Fit and judge heads of one kind on each backbone and on all.

    Args:
        files: of one data set.
        seeds: of the splits.
        kind: of the heads.

    Returns:
        For each choice its mean accuracy and log loss; paired tests; the scales; and CPU seconds of all.
    """
    joined = FeatureSet.join([FeatureSet.load(file) for file in files])
    joined = joined.take(np.flatnonzero(joined.labels >= 0))
    names = part_names(joined.backbone)
    order = np.random.default_rng(0).permutation(len(joined))
    last = joined.parts([len(names) - 1])
    useless = FeatureSet.join([joined.parts([0]), dataclasses.replace(last, features=last.features[order])])
    sets = {name: (joined.parts([number]), False) for number, name in enumerate(names)}
    sets |= {"equal": (joined, True), "chosen": (joined, False)}
    sets |= {"useless, equal": (useless, True), "useless, chosen": (useless, False)}
    started, rows, right, losses, factors = _cpu(), list[np.ndarray](), _lists(sets), _lists(sets), _lists(sets)
    for train, test in _splits(joined.labels, seeds):
        rows.append(test)
        for name, (features, is_equal) in sets.items():
            head = _fitted(features, kind, train, is_equal=is_equal)
            p = head.predict_rows(features, test)
            own = p[np.arange(len(test)), joined.labels[test]]
            right[name].append(p.argmax(axis=1) == joined.labels[test])
            losses[name].append(-np.log(np.clip(own, 1e-12, 1)))
            factors[name].append(head.factors_)
    pooled = {name: np.concatenate(each) for name, each in right.items()}
    images = np.concatenate(rows)

    def paired(first: str, second: str) -> dict[str, Any]:
        test = PairedTest.from_predictions(
            joined.paths[images].tolist(), np.full(len(images), True), pooled[first], pooled[second], images
        )
        return {"points": round(100 * test.gained / test.n, 2), "p_value": test.p_value}

    best = max(names, key=lambda name: pooled[name].mean())
    return {
        "data": joined.dataset["name"], "kind": kind, "seeds": seeds, "images": len(joined), "best_alone": best,
        "accuracy": {name: round(float(each.mean()), 4) for name, each in pooled.items()},
        "log_loss": {name: round(float(np.concatenate(each).mean()), 4) for name, each in losses.items()},
        "scales": {name: [list(each) for each in factors[name]] for name in sets if "chosen" in name},
        **{f"together_against_{name}": paired(name, "equal") for name in names},
        "chosen_against_equal": paired("equal", "chosen"),
        "useless_chosen_against_equal": paired("useless, equal", "useless, chosen"),
        "cpu_seconds": round(_cpu() - started, 1),
    }  # fmt: skip


def _lists(sets: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [] for name in sets}


def _fitted(features: FeatureSet, kind: str, train: np.ndarray, *, is_equal: bool) -> Head:
    """A head; with equal scales no gain is large enough for others."""
    significant = np.inf if is_equal else block_factors.SIGNIFICANT
    with mock.patch.object(block_factors, "SIGNIFICANT", significant):
        return Head(kind).fit(features, rows=train)


def _splits(labels: np.ndarray, seeds: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows for training and for testing, drawn class by class."""
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        members = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
        train = np.sort(np.concatenate([rows[: round(SHARE * len(rows))] for rows in members]))
        yield train, np.setdiff1d(np.arange(len(labels)), train)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print the measurements as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kind", default="logreg")
    options = parser.parse_args()
    measured = measure(options.files, seeds=options.seeds, kind=options.kind)
    versions = {name: version(name) for name in ("featx", "numpy", "scikit-learn")}
    print(json.dumps({**measured, "versions": versions}))


if __name__ == "__main__":
    main()
