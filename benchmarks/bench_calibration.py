"""Whether probabilities and losses can be believed, by simulation: heads on features of which any number can be drawn.

    python benchmarks/bench_calibration.py --only easy    # each takes a minute or two on one core
    python benchmarks/bench_calibration.py --only separable
    python benchmarks/bench_calibration.py --only classes --kinds centroid ridge knn
    python benchmarks/bench_calibration.py --only classes # all kinds; a quarter of an hour, most of it svm-rbf and mlp

Prints one JSON line for each row of these tables:

``classes``: many classes with few images each, class means drawn from a normal distribution. The calibration error of each kind
of head and its log loss on 40 fresh rows per class; the calibration error should be at most 0.05. Where half of the predictions
are wrong (means 0.35 apart in the last shape), it is 0.06 for centroid and 0.12 for knn: their fits to four fifths of the rows
are less accurate than the head.

``easy``: 60 training rows of few classes, of which cross-validation classifies almost all correctly, and 60 rows of wine.
``claimed`` is the mean log loss of the held-out report, over all sets, and ``true`` that on fresh rows; they should be
within a factor of 1.5. ``C`` is the median of the chosen values.

``separable``: sets that are separable only along directions of small variance, so that a large C is right. ``accuracy`` is that
on fresh rows, ``best_accuracy`` that of the best C on the path.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.datasets import load_wine

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.metrics.classification import ClassificationReport

KINDS = ("centroid", "ridge", "logreg", "svm", "svm-rbf", "linear", "knn", "mlp")
SHAPES = ((102, 10, 64, 0.6), (100, 20, 128, 0.4), (200, 5, 64, 0.9), (200, 10, 128, 0.5))
"""Classes, training rows of each, columns, and the deviation of the class means in units of the deviation within a class."""
WINE = 60
"""Training rows of wine, drawn at random; the other 118 judge."""
SETS = 40
"""Easy sets of each sort."""
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
"""Draws rows and their classes."""


def feature_set(draw: Draw, rng: np.random.Generator, train: int, test: int) -> FeatureSet:
    """So many training rows, and fresh rows as the split test."""
    parts = [draw(rng, train), draw(rng, test)]
    X, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    return FeatureSet(
        features=X.astype(np.float32),
        labels=y,
        splits=np.array(["train"] * train + ["test"] * test, dtype=object),
        classes=tuple(f"c{label:03d}" for label in range(int(y.max()) + 1)),
        paths=np.arange(len(y)).astype(str).astype(object),
        keys=rng.integers(0, 256, (len(y), 16), dtype=np.uint8),
    )


def head(kind: str, **options: Any) -> Head:
    """An unfitted head."""
    name, _, kernel = kind.partition("-")
    return Head(name, kernel=kernel or "linear", **options)


def report(fitted: Head, features: FeatureSet) -> ClassificationReport:
    """The report on the fresh rows."""
    judged = fitted.evaluate(features)
    assert isinstance(judged, ClassificationReport)
    return judged


def many_classes(kinds: Sequence[str], seeds: int) -> Iterator[dict[str, Any]]:
    """The calibration of each kind with many classes."""
    for count, each, width, apart in SHAPES:
        for kind in kinds:
            found, started = [], time.perf_counter()
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                means = rng.normal(size=(count, width)) * apart

                def draw(
                    rng: np.random.Generator, rows: int, means: np.ndarray = means
                ) -> tuple[np.ndarray, np.ndarray]:
                    y = np.arange(rows) % len(means)
                    return means[y] + rng.normal(size=(rows, means.shape[1])), y

                features = feature_set(draw, rng, count * each, count * 40)
                found.append(report(head(kind).fit(features), features))
            yield {
                "table": "classes",
                "classes": count,
                "rows_of_each": each,
                "kind": kind,
                "accuracy": round(float(np.mean([r.accuracy for r in found])), 4),
                "ece": round(float(np.mean([r.ece for r in found])), 4),
                "log_loss": round(float(np.mean([r.log_loss for r in found])), 4),
                "seconds": round((time.perf_counter() - started) / seeds, 2),
            }


def easy_sets() -> dict[str, tuple[Callable[[np.random.Generator], Draw], int]]:
    """Sorts of easy sets, each a function that draws one distribution, and its training rows."""

    def gaussian(count: int, width: int, apart: float) -> Callable[[np.random.Generator], Draw]:
        def one(rng: np.random.Generator) -> Draw:
            means = rng.normal(size=(count, width)) * apart

            def draw(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
                y = np.arange(rows) % count
                return means[y] + rng.normal(size=(rows, width)), y

            return draw

        return one

    def wine(_: np.random.Generator) -> Draw:
        X, y = load_wine(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(y))

        def draw(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
            nonlocal order
            if rows == WINE:  # the training rows, which leave the others for the test
                order = rng.permutation(len(y))
                return X[order[:WINE]], y[order[:WINE]]
            return X[order[WINE:]], y[order[WINE:]]

        return draw

    return {
        "wine": (wine, WINE),
        "2 classes": (gaussian(2, 10, 1.2), 60),
        "3 classes": (gaussian(3, 20, 1.0), 60),
        "4 classes": (gaussian(4, 32, 0.9), 60),
        "3 classes, wide": (gaussian(3, 256, 0.35), 60),
    }


def easy(kinds: Sequence[str], sets: int) -> Iterator[dict[str, Any]]:
    """Claimed and true log loss of heads on easy sets."""
    for kind in kinds:
        all_claimed, all_true = [], []
        for name, (one, rows) in easy_sets().items():
            claimed, true, chosen, errorless = [], [], [], 0
            for seed in range(sets):
                rng = np.random.default_rng(seed)
                features = feature_set(one(rng), rng, rows, 118 if name == "wine" else 4000)
                fitted = head(kind).fit(features, cross_validate=True)
                held_out = fitted.held_out_
                errorless += held_out.accuracy == 1
                claimed.append(held_out.log_loss)
                true.append(report(fitted, features).log_loss)
                chosen.append(fitted.C_ or fitted.k_ or fitted.weight_decay_ or 0.0)
            all_claimed += claimed
            all_true += true
            yield _claims(kind, name, claimed, true, errorless=errorless / sets, C=float(np.median(chosen)))
        yield _claims(kind, "all", all_claimed, all_true)


def _claims(kind: str, name: str, claimed: list[float], true: list[float], **more: float) -> dict[str, Any]:
    ratio = float(np.mean(true) / np.mean(claimed))
    facts = {"claimed": float(np.mean(claimed)), "true": float(np.mean(true)), "ratio": ratio, **more}
    return {"table": "easy", "kind": kind, "sets": name, **{key: round(value, 4) for key, value in facts.items()}}


def separable(kinds: Sequence[str], sets: int) -> Iterator[dict[str, Any]]:
    """The accuracy where a large C is right."""

    def one(rng: np.random.Generator) -> Draw:
        basis = np.linalg.qr(rng.normal(size=(30, 30)))[0]

        def draw(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
            y = np.arange(rows) % 2
            hidden = rng.normal(size=(rows, 30)) * 10.0
            hidden[:, 0] = (2 * y - 1) * (
                0.05 + 0.02 * rng.random(rows)
            )  # a gap along a direction of 1/100 of the deviation
            return hidden @ basis, y

        return draw

    for kind in kinds:
        found: list[tuple[float, float, float]] = []
        for seed in range(sets):
            rng = np.random.default_rng(seed)
            features = feature_set(one(rng), rng, 200, 4000)
            fitted = head(kind).fit(features)
            path = [report(head(kind, C=C).fit(features), features).accuracy for C in (1.0, 10.0, 1e3, 1e5, 1e7)]
            found.append((report(fitted, features).accuracy, max(path), fitted.C_ or 0.0))
        accuracy, best, chosen = np.array(found).T
        yield {
            "table": "separable",
            "kind": kind,
            "accuracy": round(float(accuracy.mean()), 4),
            "best_accuracy": round(float(best.mean()), 4),
            "C": float(np.median(chosen)),
        }


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("classes", "easy", "separable"))
    parser.add_argument("--kinds", nargs="*")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sets", type=int, default=SETS)
    args = parser.parse_args()
    tables = {
        "classes": lambda: many_classes(args.kinds or KINDS, args.seeds),
        "easy": lambda: easy(args.kinds or ("logreg", "ridge", "svm", "centroid"), args.sets),
        "separable": lambda: separable(args.kinds or ("logreg", "svm", "ridge"), max(2, args.sets // 8)),
    }
    for name, table in tables.items():
        if args.only in (None, name):
            for row in table():
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
