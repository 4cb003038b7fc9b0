"""What it is worth to choose the images to label: accuracy against the number of labels, for ``featx suggest`` and other rules.

    python benchmarks/inspect_suggest.py cache/trashnet--mobilenet_v1_075.h5 cache/trashnet--timm-tf_efficientnet_lite0.h5

The labels of all training images are hidden, and revealed in rounds: 25, 50, 100, 200 and 400 labels. After each round a
head is fitted to the revealed labels, and judged on test images that no rule sees. The rules:

- random: drawn evenly;
- suggest: ``featx.suggest``;
- uncertainty: the smallest differences of the two highest probabilities of the head of the round before, after a first round
  at random;
- k-centre: the image that is furthest from all revealed ones, one after the other, after a first one at random.

"own_split" takes the training and test images of the data set (val where there is no test): one curve of suggest, which draws
nothing, and the mean and standard error of the runs of each other rule. "redrawn" divides all labelled images anew into 70 %
for training and 30 % for the test in each run, the same for each rule: means, and the mean difference to random with its
standard error. ``digits`` instead of a file stands for the pixels of scikit-learn's digits. Prints one JSON line; one to two
minutes for each file with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits

from featx import FeatureSet, Head, __version__, suggest
from featx.heads.nearest import unit

BUDGETS = (25, 50, 100, 200, 400)
TEST_SHARE = 0.3


class Round(NamedTuple):
    """What a rule may see.

    Attributes:
        hidden: the features, without the labels that are hidden.
        pool: (M,) int64, the rows that may be chosen.
        count: how many to choose.
        head: of the round before, or None.
        rng: for what is drawn.
    """

    hidden: FeatureSet
    pool: np.ndarray
    count: int
    head: Head | None
    rng: np.random.Generator


Rule = Callable[[Round], np.ndarray]
"""Chooses rows."""


def by_suggest(now: Round) -> np.ndarray:
    """As ``featx suggest`` does."""
    return suggest(now.hidden, budget=now.count).rows


def at_random(now: Round) -> np.ndarray:
    """Evenly."""
    return now.rng.choice(now.pool, now.count, replace=False)


def by_uncertainty(now: Round) -> np.ndarray:
    """The smallest margins."""
    if now.head is None:
        return at_random(now)
    highest = np.sort(now.head.predict_rows(now.hidden, now.pool), axis=1)
    return now.pool[np.argsort(highest[:, -1] - highest[:, -2], kind="stable")[: now.count]]


def by_k_centre(now: Round) -> np.ndarray:
    """The furthest from those that are known."""
    Z, known = unit(now.hidden.plain), np.flatnonzero((now.hidden.labels >= 0) & (now.hidden.splits == "train"))
    chosen = [] if len(known) else [int(now.rng.integers(len(now.pool)))]
    nearest = (Z[now.pool] @ Z[known if len(known) else now.pool[chosen]].T).max(axis=1)
    while len(chosen) < now.count:
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, Z[now.pool] @ Z[now.pool[chosen[-1]]])
    return now.pool[chosen]


RULES: dict[str, Rule] = {
    "random": at_random,
    "suggest": by_suggest,
    "uncertainty": by_uncertainty,
    "k-centre": by_k_centre,
}


def curve(
    features: FeatureSet, test: np.ndarray, rule: Rule, seed: int, budgets: Sequence[int] = BUDGETS
) -> list[float]:
    """The accuracy on the test rows after each round of one rule; the pool is the split train."""
    rng, labels = np.random.default_rng(seed), np.where(features.splits == "train", -1, features.labels)
    accuracies, head = list[float](), None
    for budget in budgets:
        hidden = dataclasses.replace(features, labels=labels)
        pool = np.flatnonzero((labels < 0) & (features.splits == "train"))
        count = min(budget - int(np.count_nonzero((labels >= 0) & (features.splits == "train"))), len(pool))
        chosen = rule(Round(hidden, pool, count, head, rng)) if count > 0 else pool[:0]
        labels = labels.copy()
        labels[chosen] = features.labels[chosen]
        revealed = dataclasses.replace(features, labels=labels)
        rows = np.flatnonzero((labels >= 0) & (features.splits == "train"))
        head = Head("logreg").fit(revealed, rows=rows, coarse=True) if len(set(labels[rows].tolist())) > 1 else None
        accuracies.append(_accuracy(features, test, head, labels[rows]))
    return accuracies


def _accuracy(features: FeatureSet, test: np.ndarray, head: Head | None, known: np.ndarray) -> float:
    """The share of test rows that a head gets right; a class that it does not know is wrong."""
    if head is None:
        return float(np.mean(features.labels[test] == known[0]))
    names = np.array(features.classes, dtype=object)[features.labels[test]]
    predicted = np.array(head.classes_, dtype=object)[head.predict_rows(features, test).argmax(axis=1)]
    return float(np.mean(predicted == names))


def measure(features: FeatureSet, *, runs: int = 20, budgets: Sequence[int] = BUDGETS) -> dict[str, Any]:
    """Measure the curves of all rules.

    Args:
        features: of a classification, whose labels are all known.
        runs: number of runs of each rule.
        budgets: number of labels after each round.
    """
    found: dict[str, Any] = {"images": len(features), "budgets": list(budgets)}
    if features.dataset.get("splits") is not None:
        held_out = features.held_out()
        test = features.rows(held_out)
        own = {
            name: np.array(
                [curve(features, test, rule, seed, budgets) for seed in range(1 if name == "suggest" else runs)]
            )
            for name, rule in RULES.items()
        }
        found["own_split"] = {"test": len(test), **{name: _summary(each) for name, each in own.items()}}
    redrawn = {
        name: np.array([_redrawn(features, rule, seed, budgets) for seed in range(runs)])
        for name, rule in RULES.items()
    }
    found["redrawn"] = {
        name: {**_summary(each), "difference": _summary(each - redrawn["random"])} for name, each in redrawn.items()
    }
    return found


def _redrawn(features: FeatureSet, rule: Rule, seed: int, budgets: Sequence[int]) -> list[float]:
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(features.labels >= 0))
    splits = np.full(len(features), "train", dtype=object)
    test = np.sort(rows[: round(TEST_SHARE * len(rows))])
    splits[test] = "test"
    given = {**features.dataset, "splits": "given"}
    return curve(dataclasses.replace(features, splits=splits, dataset=given), test, rule, seed, budgets)


def _summary(values: np.ndarray) -> dict[str, Any]:
    """Mean and standard error of (runs, budgets) values, in percent."""
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
    return {
        "mean": (100 * values.mean(axis=0)).round(2).tolist(),
        "error": None if error is None else (100 * error).round(2).tolist(),
    }


def load(name: str) -> FeatureSet:
    """The features of a file, or the pixels of the digits."""
    if name != "digits":
        return FeatureSet.load(name)
    pixels, labels = load_digits(return_X_y=True)
    count = len(labels)
    return FeatureSet(
        features=pixels.astype(np.float32),
        labels=labels,
        splits=np.full(count, "train", dtype=object),
        classes=tuple("0123456789"),
        paths=[f"{row}.png" for row in range(count)],
        keys=np.random.default_rng(0).integers(0, 256, (count, 16), dtype=np.uint8),
    )


def main() -> None:
    """Measure each set of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", nargs="+", help="feature files of classifications, or digits")
    parser.add_argument("--runs", type=int, default=20, help="number of runs of each rule")
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS)), help="number of labels after each round")
    options = parser.parse_args()
    budgets = [int(number) for number in options.budgets.split(",")]
    found = {Path(name).stem: measure(load(name), runs=options.runs, budgets=budgets) for name in options.features}
    print(json.dumps({"featx": __version__, "numpy": np.__version__, "suggest": found}))


if __name__ == "__main__":
    main()
