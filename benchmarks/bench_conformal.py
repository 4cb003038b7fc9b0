"""How often the sets and intervals of ``--conformal`` contain the truth. Prints one JSON line with versions.

    OMP_NUM_THREADS=1 python benchmarks/bench_conformal.py                        # made data, four minutes
    OMP_NUM_THREADS=1 python benchmarks/bench_conformal.py --only made --runs 400
    OMP_NUM_THREADS=1 python benchmarks/bench_conformal.py --real cache/*.h5      # feature files too, a minute for each

``made``: in every run a head is fitted to rows of overlapping classes of unequal size, and its sets are judged on 5,000 other
rows. ``grouped`` rows come in groups of 10, such as patients, each with a shift of its own, and the other rows are of other
groups; ``ungrouped`` are the same rows without their groups. ``coverage`` is the mean over the runs, ``low`` its 5 %
quantile, ``least_class`` the coverage of the class that is covered least on average, ``size`` the mean size of a set (of an
interval, its width over the targets' deviation), and ``singletons`` the share of sets of one class.

``real``: the labelled rows of a feature file are divided anew in every run, 60 % to fit and the rest to judge. ``featx`` and
``per class`` are the head's own sets. ``methods`` has other rules too, on the probabilities of five folds: APS with the class's
own probability counted (Romano et al., 2020, without the random part), with the random part, RAPS (Angelopoulos et al., 2021;
lambda 0.1 from the second class on), and LAC (Sadinle et al., 2019), the most probable class being added where a set is empty.
``hard`` is the coverage of the quarter of images with the least confidence. ``shift``: coverage on judged rows of which the
third of the classes that are right least often make up two thirds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.heads.conformal import coverage_quantile, mass_before
from featx.heads.head import Head

SHARES, WIDTH, OTHERS = (0.55, 0.3, 0.15), 12, 5_000
SETTINGS: tuple[tuple[str, int, float, dict[str, Any]], ...] = (
    *((kind, 300, 0.1, {}) for kind in ("logreg", "ridge", "svm", "knn", "centroid")),
    *(("logreg", rows, 0.1, {}) for rows in (40, 100, 1000)),
    ("logreg", 300, 0.02, {}),
    ("logreg", 300, 0.1, {"conformal_per_class": True}),
    ("logreg", 1000, 0.1, {"conformal_per_class": True}),
    ("logreg", 300, 0.1, {"calibrate": "isotonic"}),
    ("logreg", 300, 0.1, {"class_weight": "balanced"}),
    ("logreg", 300, 0.1, {"logit_adjustment": 1.0}),
)
"""Kind of head, rows, alpha, further arguments of ``Head``."""
MANY = ("logreg", 1000, 0.1, {}, 50)
"""The same with many classes, and their number."""
GROUPED = (("logreg", 300), ("logreg", 1000), ("ridge", 600))
NUMBERS = (("ridge", 40), ("ridge", 300), ("knn", 300), ("svm", 300))


def sample(
    rows: int, each: int, shares: Sequence[float], rng: np.random.Generator, gap: float = 1.7
) -> tuple[np.ndarray, ...]:
    """Features, labels and groups of rows; a group has one class and one shift."""
    groups = np.arange(rows) // each
    labels = rng.choice(len(shares), size=rows // each, p=shares)[groups]
    width = max(WIDTH, len(shares))
    shift = rng.normal(size=(rows // each, width))[groups] if each > 1 else 0.0
    noise = rng.normal(size=(rows, width)) * (0.6 if each > 1 else 1.0)
    return (gap * np.eye(len(shares), width)[labels] + noise + 0.8 * shift).astype(np.float32), labels, groups


def feature_set(
    X: np.ndarray, labels: np.ndarray, names: Sequence[str], groups: np.ndarray | None = None
) -> FeatureSet:
    """All rows in the split "train"."""
    keys = np.random.default_rng(0).integers(0, 256, (len(X), 16), dtype=np.uint8)
    own = {} if groups is None else {"groups": groups.astype(str).astype(object), "group": "patient"}
    return FeatureSet(
        X, labels, np.full(len(X), "train", dtype=object), tuple(names), np.arange(len(X)).astype(str).astype(object), keys,
        dataset={"splits": "given"}, **own,
    )  # fmt: skip


def judged(sets: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Coverage, coverage by class, size and share of singletons of (N, C) sets."""
    hit = sets[np.arange(len(y)), y]
    by_class = [hit[y == label].mean() if (y == label).any() else np.nan for label in range(sets.shape[1])]
    sizes = sets.sum(axis=1)
    return {"coverage": hit.mean(), "by_class": by_class, "size": sizes.mean(), "singletons": (sizes == 1).mean()}


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The means over the runs."""
    coverage = np.array([each["coverage"] for each in found])
    facts = {"coverage": coverage.mean(), "low": np.quantile(coverage, 0.05)}
    if "by_class" in found[0]:
        facts["least_class"] = np.nanmin(np.nanmean([each["by_class"] for each in found], axis=0))
    facts |= {
        name: np.mean([each[name] for each in found]) for name in ("size", "singletons", "hard") if name in found[0]
    }
    return {name: round(float(value), 3) for name, value in facts.items()}


def made_classes(
    kind: str, rows: int, alpha: float, params: dict[str, Any], runs: int, *, each: int = 1, groups: bool = False,
    shares: Sequence[float] = SHARES, gap: float = 1.7,
) -> dict[str, Any]:  # fmt: skip
    """One setting of classes."""
    found, names = [], [str(label) for label in range(len(shares))]
    for run in range(runs):
        rng = np.random.default_rng([run, rows, each])
        X, labels, group = sample(rows, each, shares, rng, gap)
        features = feature_set(X, labels, names, group if groups else None)
        head = Head(kind, conformal=alpha, **params).fit(features, coarse=True)
        other, y, _ = sample(OTHERS, each, shares, rng, gap)
        sets = np.zeros((len(y), len(shares)), dtype=bool)  # few groups may lack a class
        sets[:, [names.index(name) for name in head.names_]] = head.predict_set(other)
        known = np.isin(np.array(names)[y], head.names_)
        found.append(judged(sets[known], y[known]))
    return {"kind": kind, "rows": rows, "alpha": alpha, **params, **summary(found)}


def made_numbers(kind: str, rows: int, alpha: float, runs: int) -> dict[str, Any]:
    """One setting of numbers, whose noise grows with them."""
    found = []
    for run in range(runs):
        rng = np.random.default_rng([run, rows])
        X = rng.normal(size=(rows + OTHERS, WIDTH)).astype(np.float32)
        y = X[:, 0] - 0.5 * X[:, 1] + 0.4 * rng.normal(size=len(X)) * np.exp(0.4 * X[:, 0])
        head = Head(kind, task="regression", conformal=alpha).fit(X[:rows], y[:rows], coarse=True)
        ends = head.predict_set(X[rows:])
        hit = (ends[:, 0] <= y[rows:]) & (y[rows:] <= ends[:, 1])
        found.append({"coverage": hit.mean(), "size": (ends[:, 1] - ends[:, 0]).mean() / y.std()})
    return {"kind": kind, "rows": rows, "alpha": alpha, "numbers": True, **summary(found)}


def made(runs: int) -> list[dict[str, Any]]:
    """All settings of made data."""
    lines = [made_classes(*setting, runs) for setting in SETTINGS]
    many = [1 / MANY[-1]] * MANY[-1]
    lines.append({"classes": MANY[-1], **made_classes(*MANY[:4], max(1, runs // 5), shares=many, gap=3.0)})
    for kind, rows in GROUPED:
        for groups in (True, False):
            line = made_classes(kind, rows, 0.1, {}, runs, each=10, groups=groups)
            lines.append({"grouped" if groups else "ungrouped": True, **line})
    return lines + [made_numbers(kind, rows, 0.1, runs) for kind, rows in NUMBERS]


# Other rules on the same probabilities


def _with_own(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001 - as every rule
    return mass_before(p) + p


def _random(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return mass_before(p) + rng.random((len(p), 1)) * p


def _raps(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    place = np.argsort(np.argsort(-p, axis=1, kind="stable"), axis=1)
    return _random(p, rng) + 0.1 * place


METHODS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "APS, own probability counted": _with_own,
    "APS, random": _random,
    "RAPS, random": _raps,
    "LAC": lambda p, _: 1 - p,
}
"""The score of each class; those of at most the threshold are in the set."""


def divided(features: FeatureSet, share: float, runs: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The number of a run, its rows to fit and its rows to judge."""
    labelled = np.flatnonzero(features.labels >= 0)
    for run in range(runs):
        order = np.random.default_rng([run, 17]).permutation(labelled)
        cut = int(share * len(order))
        yield run, np.sort(order[:cut]), np.sort(order[cut:])


def real(file: Path, kind: str, alpha: float, runs: int, share: float = 0.6) -> dict[str, Any]:
    """One feature file, divided anew in every run."""
    features = FeatureSet.load(file)
    names = ("featx", "per class", *METHODS, "shift", "shift, per class")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    accuracy = []
    for run, train, test in divided(features, share, runs):
        head = Head(kind, conformal=alpha, seed=run).fit(features, rows=train, cross_validate=True, coarse=True)
        each = Head(kind, conformal=alpha, conformal_per_class=True, C=head.C_, k=head.k_, seed=run)
        each.fit(features, rows=train, coarse=True)
        place = np.array([head.names_.index(name) for name in features.classes])
        y, p = place[features.labels[test]], head.predict_rows(features, test)
        judge, (rows, held) = place[features.labels[train]], head.out_of_fold_ or ((), ())
        right = p.argmax(axis=1) == y
        accuracy.append(right.mean())
        hard = np.argsort(p.max(axis=1), kind="stable")[: len(p) // 4]
        rng = np.random.default_rng(run)
        for name, score in METHODS.items():
            limit = coverage_quantile(score(held, rng)[np.arange(len(rows)), judge[rows]], alpha)
            sets = score(p, rng) <= limit
            sets[np.arange(len(p)), p.argmax(axis=1)] = True
            line = judged(sets, y)
            found[name].append({**line, "hard": sets[hard, y[hard]].mean()})
        worst = np.argsort([right[y == label].mean() for label in range(p.shape[1])])[: max(1, p.shape[1] // 3)]
        is_worst = np.isin(y, worst)
        drawn = np.concatenate([
            rng.choice(np.flatnonzero(is_worst), 2 * len(y)), rng.choice(np.flatnonzero(~is_worst), len(y))
        ])  # fmt: skip
        for prefix, own in (("", head), ("per class", each)):
            sets = own.predict_set(features.features[test])
            found[prefix or "featx"].append({**judged(sets, y), "hard": sets[hard, y[hard]].mean()})
            found[", ".join(filter(None, ("shift", prefix)))].append(judged(sets[drawn], y[drawn]))
    return {
        "file": file.stem, "kind": kind, "alpha": alpha, "rows": int(share * (features.labels >= 0).sum()),
        "accuracy": round(float(np.mean(accuracy)), 3), "methods": {name: summary(lines) for name, lines in found.items()},
    }  # fmt: skip


def measure(runs: int, files: Sequence[Path], kinds: Sequence[str], *, only: str = "") -> dict[str, Any]:
    """All settings, and each feature file with each kind of head."""
    divisions = max(1, runs // 5)
    return {
        "versions": {name: version(name) for name in ("featx", "numpy", "scipy")} | {"python": sys.version.split()[0]},
        "runs": runs,
        "made": made(runs) if only != "real" else [],
        "real": [
            real(file, kind, alpha, divisions) for file in files for kind in kinds for alpha in (0.1, 0.05) if only != "made"
        ],
    }  # fmt: skip


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=int, default=100, help="heads fitted in each setting; a fifth of it to real features"
    )
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="feature files")
    parser.add_argument("--kinds", nargs="*", default=["logreg"], help="kinds of head on real features")
    parser.add_argument("--only", choices=("made", "real"), default="", help="one part")
    args = parser.parse_args()
    print(json.dumps(measure(args.runs, args.real, args.kinds, only=args.only)))


if __name__ == "__main__":
    main()
