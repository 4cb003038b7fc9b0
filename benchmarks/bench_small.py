"""What small data tell: splits of small classes, and how often intervals cover the truth. Prints one JSON line with versions.

    OMP_NUM_THREADS=1 python benchmarks/bench_small.py                       # made data: two minutes
    OMP_NUM_THREADS=1 python benchmarks/bench_small.py --only splits
    OMP_NUM_THREADS=1 python benchmarks/bench_small.py --only cross_validation --features cache/trashnet--resnet50.h5
    OMP_NUM_THREADS=1 python benchmarks/bench_small.py --only quoted --features cache/trashnet--resnet50.h5 --runs 30

All numbers come from fixed seeds, and all coverages are shares of simulated data sets (wanted: 0.95).

``splits``: images of one class in test and val, for classes of 5 to 150 images, by ``hash_splits`` and by thresholds on the
hash alone (``by_hash``): the mean, the 2.5 % and 97.5 % quantiles, and the lowest. ``moved``: of the images that were there,
the share that is in another split after a fifth as many images were added; ``leaked``: the share of the test images that were
training images before, which judge no head that was fitted to them.

``cross_validation``: ridge regression on classes is cross-validated by 5 folds, 4 times. The intervals of the accuracy are that
of ``CrossValidated`` (``featx``), Wilson's of as many images as there are (``wilson``), and the corrected resampled t interval
(``nadeau_bengio``). They should cover the mean accuracy, over all data sets, of heads that are fitted to 80 % of such images.
Beside it the coverage of the accuracy of the head that is fitted to all images of that very data set (``of_all``), and the mean
widths; ``split`` is Wilson's interval of one split of 70 and 20 %. ``balanced_accuracy`` and ``macro_f1`` are the coverages of
the t interval of these metrics. Images are drawn from Gaussians: made ones, or with ``--features`` those with the means and
covariances of the classes of a feature file.

``quoted`` (with ``--features`` alone; ten minutes of ``--runs 30``): a logreg head is fitted to a few images of each class of a
feature file, and images of a test split are cross-validated with them as ``fit-head`` does by itself. ``bias`` is the
cross-validated accuracy minus that of the head on all other images of the file, with its standard error; ``folds_train_on`` the
images of a class in the folds; ``stands_for_head`` whether ``fit-head`` quotes it; ``coverage`` how often the interval has the
accuracy of that very head. The images are drawn at random, or each class has consecutive ones in the order of their names,
which often show one object.

``reports``: the interval of the RMSE of a report on 10 to 200 held-out images, for several kinds of errors. ``width`` is the
median ratio of its ends.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version

import numpy as np
from bench_groups import ERRORS

from featx.data.splits import hash_position, hash_splits, split_at
from featx.features.feature_set import FeatureSet
from featx.heads.folds import make_folds
from featx.heads.head import Head
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.regression import RegressionReport
from featx.metrics.scores import wilson_interval
from featx.workflows.fit_options import CV_FOLDS, CV_REPEATS
from featx.workflows.resampling import Resampling
from featx.workflows.small_data import more_in_folds

Draw = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]
_PENALTY = 0.3


def splits(runs: int) -> Iterator[dict[str, object]]:
    """The images of a class in test and val."""
    rng = np.random.default_rng(0)
    for count in (5, 10, 25, 50, 99, 100, 150):
        found, moved, leaked = {"featx": [], "by_hash": []}, [], []
        for _ in range(runs):
            keys = rng.integers(0, 256, (count + count // 5, 16), dtype=np.uint8)
            own = hash_splits(keys[:count], np.zeros(count, np.int64))
            later = hash_splits(keys, np.zeros(len(keys), np.int64))
            for name, names in (("featx", own), ("by_hash", split_at(hash_position(keys[:count])))):
                found[name].append([(names == "test").sum(), (names == "val").sum()])
            moved.append(np.mean(later[:count] != own))
            test = later == "test"
            leaked.append(np.count_nonzero(test[:count] & (own == "train")) / max(1, test.sum()))
        line: dict[str, object] = {"images": count}
        for name, values in found.items():
            for part, each in zip(("test", "val"), np.array(values).T, strict=True):
                low, high = np.quantile(each, [0.025, 0.975])
                line[f"{name}_{part}"] = [round(float(each.mean()), 1), int(low), int(high), int(each.min())]
        yield {**line, "moved": round(float(np.mean(moved)), 3), "leaked": round(float(np.mean(leaked)), 4)}


def gaussians(X: np.ndarray, y: np.ndarray, classes: int, *, width: int = 48, noise: float = 1.0) -> Draw:
    """Draw new images from Gaussians with the means and covariances of classes, in their first principal axes."""
    X = (X - X.mean(axis=0)) / (X.std(axis=0) + 1e-9)
    X = X @ np.linalg.svd(X, full_matrices=False)[2][:width].T
    means = np.array([X[y == label].mean(axis=0) for label in range(classes)])
    roots = np.array(
        [np.linalg.cholesky(np.cov(X[y == label].T) * noise**2 + 1e-6 * np.eye(X.shape[1])) for label in range(classes)]
    )

    def draw(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(classes, size=count)
        return means[labels] + np.einsum("nij,nj->ni", roots[labels], rng.normal(size=(count, X.shape[1]))), labels

    return draw


def made(classes: int, noise: float) -> Draw:
    """Draw from Gaussians in 48 dimensions whose means lie apart in some of them."""
    rng = np.random.default_rng(classes)
    means = rng.normal(size=(classes, 48)) * np.geomspace(1.0, 0.05, 48)

    def draw(count: int, own: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        labels = own.integers(classes, size=count)
        return means[labels] + noise * own.normal(size=(count, 48)), labels

    return draw


def fitted(X: np.ndarray, y: np.ndarray, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression on standardised rows with a fixed penalty: a function from rows to (n,) int64 classes."""
    mean, scale = X.mean(axis=0), X.std(axis=0) + 1e-9
    Z, targets = (X - mean) / scale, np.where(np.arange(classes) == y[:, None], 1.0, -1.0)
    bias, ridge = targets.mean(axis=0), _PENALTY * X.shape[1]
    if len(Z) < Z.shape[1]:
        weight = Z.T @ np.linalg.solve(Z @ Z.T + ridge * np.eye(len(Z)), targets - bias)
    else:
        weight = np.linalg.solve(Z.T @ Z + ridge * np.eye(Z.shape[1]), Z.T @ (targets - bias))

    return lambda rows: (((rows - mean) / scale) @ weight + bias).argmax(axis=1)


def metrics(y: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro F1, as ``ClassificationReport`` has them; it would take most of the time."""
    confusion = np.bincount(y * classes + predicted, minlength=classes**2).reshape(classes, classes)
    support, right = confusion.sum(axis=1), np.diag(confusion)
    some = support > 0
    f1 = 2 * right / np.maximum(support + confusion.sum(axis=0), 1)
    return {
        "accuracy": float(right.sum() / len(y)),
        "balanced_accuracy": float((right[some] / support[some]).mean()),
        "macro_f1": float(f1[some].mean()),
    }


def cross_validated(X: np.ndarray, y: np.ndarray, classes: int) -> CrossValidated:
    """The cross-validation that ``fit-head`` adds by itself, of a head that takes no time to fit."""
    found = []
    for repeat in range(CV_REPEATS):
        for train, test in make_folds(y, None, folds=CV_FOLDS, seed=0, repeat=repeat):
            found.append(metrics(y[test], fitted(X[train], y[train], classes)(X[test]), classes))
    values = {name: np.array([each[name] for each in found]).reshape(CV_REPEATS, CV_FOLDS) for name in found[0]}
    return CrossValidated(values, len(y))


def _truths(draw: Draw, classes: int, count: int, runs: int, rng: np.random.Generator) -> dict[str, float]:
    """The mean of each metric on new images, of heads fitted to 80 % of ``count`` images; and of accuracy, to 70 %."""
    (new, labels), found = draw(4000, rng), []
    for _ in range(runs):
        X, y = draw(count, rng)
        parts = [round(share * count) for share in (0.8, 0.7)]
        by_80, by_70 = (metrics(labels, fitted(X[:part], y[:part], classes)(new), classes) for part in parts)
        found.append({**by_80, "of_70": by_70["accuracy"]})
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def coverage(draw: Draw, classes: int, count: int, runs: int) -> dict[str, object]:
    """How often the intervals of a cross-validation cover the truth."""
    rng = np.random.default_rng([classes, count])
    truth = _truths(draw, classes, count, max(runs // 2, 20), rng)
    new, labels = draw(4000, rng)
    hits: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}

    def note(name: str, interval: tuple[float, float] | None, value: float) -> None:
        low, high = interval or (-math.inf, math.inf)
        hits.setdefault(name, []).append(low <= value <= high)
        widths.setdefault(name, []).append(high - low)

    for _ in range(runs):
        X, y = draw(count, rng)
        found = cross_validated(X, y, classes)
        mean = found.mean("accuracy")
        values = found.values["accuracy"].ravel()
        margin = 2.093 * values.std(ddof=1) * math.sqrt(1 / len(values) + 1 / (CV_FOLDS - 1))  # t of 19 degrees
        note("featx", found.interval("accuracy"), truth["accuracy"])
        note("wilson", wilson_interval(mean * count, count), truth["accuracy"])
        note("nadeau_bengio", (mean - margin, mean + margin), truth["accuracy"])
        for name in ("balanced_accuracy", "macro_f1"):
            note(name, found.interval(name), truth[name])
        note("of_all", found.interval("accuracy"), float((fitted(X, y, classes)(new) == labels).mean()))
        train, test = round(0.7 * count), round(0.2 * count)
        right = fitted(X[:train], y[:train], classes)(X[-test:]) == y[-test:]
        note("split", wilson_interval(int(right.sum()), test), truth["of_70"])
    return {
        "classes": classes, "images": count, "accuracy": round(truth["accuracy"], 3),
        **{name: round(float(np.mean(each)), 3) for name, each in hits.items()},
        "width": {name: round(float(np.mean(widths[name])), 3) for name in ("featx", "split")},
    }  # fmt: skip


def cross_validation(runs: int, file: str | None = None) -> Iterator[dict[str, object]]:
    """Coverage on made data, or on data like those of a feature file."""
    if file is None:
        draws = [(classes, noise, made(classes, noise)) for classes in (2, 6) for noise in (0.6, 1.5)]
    else:
        features = FeatureSet.load(file)
        X, classes = np.asarray(features.plain[:], dtype=np.float64), len(features.classes)
        draws = [(classes, noise, gaussians(X, features.labels, classes, noise=noise)) for noise in (1.0, 1.6)]
    for classes, noise, draw in draws:
        for count in (50, 100, 200, 400):
            yield {"noise": noise, **coverage(draw, classes, count, runs)}


def quoted(runs: int, file: str | None) -> Iterator[dict[str, object]]:
    """The cross-validated accuracy beside that of the head on all other images of a feature file."""
    if file is None:
        return
    features = FeatureSet.load(file)
    distinct = np.sort(np.unique(features.keys, axis=0, return_index=True)[1])
    by_name = np.array(sorted(distinct, key=lambda row: [int(n) for n in re.findall(r"\d+", str(features.paths[row]))]))
    for neighbours, train, test in (
        *((False, *counts) for counts in ((4, 0), (4, 2), (4, 3), (4, 8), (10, 5), (10, 15))), (True, 4, 0), (True, 4, 2)
    ):  # fmt: skip
        found = []
        for run in range(runs):
            rng = np.random.default_rng(run)
            splits = np.full(len(features), "other", dtype=object)
            for label in range(len(features.classes)):
                own = by_name[features.labels[by_name] == label]
                own = np.roll(own, rng.integers(len(own))) if neighbours else rng.permutation(own)
                splits[own[:train]], splits[own[train : train + test]] = "train", "test"
            found.append(_quoted(features, splits, distinct))
        crossed, truth, covered, stands = np.array(found, dtype=np.float64).T
        bias = crossed - truth
        yield {
            "neighbours": neighbours, "train": train, "test": test,
            "folds_train_on": train + test - max(1.0, (train + test) / CV_FOLDS),
            "cross_validated": round(float(crossed.mean()), 3), "truth": round(float(truth.mean()), 3),
            "bias": round(float(bias.mean()), 3), "error": round(float(bias.std(ddof=1) / math.sqrt(runs)), 3),
            "coverage": round(float(covered.mean()), 3), "stands_for_head": bool(stands.all()),
        }  # fmt: skip


def _quoted(features: FeatureSet, splits: np.ndarray, distinct: np.ndarray) -> tuple[float, float, bool, bool]:
    """The cross-validated accuracy, the head's own, whether the interval has it, and whether the first stands for the head."""
    rows = np.flatnonzero(splits != "other")
    named = {**features.dataset, "splits": "given"}
    few = dataclasses.replace(features.take(rows), splits=splits[rows], dataset=named)
    head = Head("logreg").fit(few)
    found = Resampling(few, few, head, lambda: None).judge_all(CV_FOLDS, CV_REPEATS)
    rest = np.setdiff1d(distinct, np.flatnonzero(splits == "train"))
    truth = float((head.predict_rows(features, rest).argmax(axis=1) == features.labels[rest]).mean())
    low, high = (found.interval("accuracy") if found else None) or (0.0, 1.0)
    mean = found.mean("accuracy") if found else math.nan
    return mean, truth, low <= truth <= high, not more_in_folds(few, head)


def reports(runs: int) -> Iterator[dict[str, object]]:
    """The coverage of the interval of the RMSE."""
    for name, (draw, variance) in ERRORS.items():
        for count in (10, 20, 30, 50, 100, 200):
            rng, hits, ratio = np.random.default_rng(count), 0, []
            for _ in range(runs):
                found = RegressionReport.from_predictions(np.zeros(count), draw(rng, count), split="test").interval
                low, high = found or (0.0, math.inf)
                hits += low**2 <= variance <= high**2
                ratio.append(high / low if low else math.inf)
            yield {"errors": name, "images": count, "coverage": hits / runs, "width": round(float(np.median(ratio)), 2)}


def measure(runs: int = 200, only: str | None = None, file: str | None = None) -> dict[str, object]:
    """All results by the name of their part.

    Args:
        runs: simulated data sets for each setting.
        only: one part.
        file: a feature file, for ``cross_validation`` and ``quoted``.
    """
    parts = {
        "splits": lambda: splits(runs), "cross_validation": lambda: cross_validation(runs, file),
        "quoted": lambda: quoted(runs, file), "reports": lambda: reports(runs),
    }  # fmt: skip
    return {name: list(part()) for name, part in parts.items() if only in (None, name)}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="simulated data sets for each setting")
    parser.add_argument("--only", choices=("splits", "cross_validation", "quoted", "reports"))
    parser.add_argument("--features", help="feature file whose classes are imitated, or whose images are drawn")
    options = parser.parse_args()
    versions = {name: version(name) for name in ("featx", "numpy", "scipy")} | {"python": sys.version.split()[0]}
    results = measure(options.runs, options.only, options.features)
    print(json.dumps({"versions": versions, "runs": options.runs, **results}))


if __name__ == "__main__":
    main()
