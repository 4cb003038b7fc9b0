"""How often intervals cover the truth, and how often tests err, with groups of images. Prints one JSON line with versions.

    OMP_NUM_THREADS=1 python benchmarks/bench_groups.py             # a minute
    OMP_NUM_THREADS=1 python benchmarks/bench_groups.py --runs 4000

All numbers are simulated from fixed seeds, and all are shares. The truth is known, so the shares are what the docs claim:

``coverage``: of the 95 % interval of the accuracy (``proportion_interval``; ``wilson`` beside it takes images as independent).
Images are right by a beta-binomial model: each group has its own share of right images, with the intraclass correlation rho.
``equal`` groups have 10 images, ``uneven`` ones a log-normal number, ``huge`` means that one group has as many as all others
together. The lowest and the mean coverage over accuracies of 0.7, 0.9 and 0.97 and rho of 0.1, 0.3 and 0.6, and over 0 too.

``rmse``: of the 95 % interval of the RMSE, without groups for several kinds of errors and 30 images (``bca`` is the BCa
bootstrap's of scipy; ``noted`` how often heavy tails are noted), and with groups of 10 images that share half of their error's
variance.

``false_promotion``: two equal classifiers differ on a fifth of the images, all in the same direction within most groups. How
often the second is taken for better at a significance of 0.05, by McNemar's test of images and by the sign-flip test of groups.

``false_layer``: two layers with equal losses, whose difference has heavy tails and is shared by the images of a group. How
often one named beforehand beats the other by two standard errors (one-sided 0.023), of images and of groups.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np
from scipy.stats import bootstrap

from featx.advice.layer_scores import HeldOutResult
from featx.metrics.grouped import proportion_interval
from featx.metrics.paired import PairedTest, PromotionCriterion
from featx.metrics.regression import RegressionReport

SIZES = {
    "equal": lambda count, rng: np.full(count, 10),  # noqa: ARG005
    "uneven": lambda count, rng: np.maximum(1, rng.lognormal(2.0, 0.8, count).round()).astype(int),
    "huge": lambda count, rng: np.r_[10 * (count - 1), np.full(count - 1, 10)],  # noqa: ARG005
}
ERRORS = {
    "normal": (lambda rng, n: rng.normal(size=n), 1.0),
    "laplace": (lambda rng, n: rng.laplace(size=n), 2.0),
    "student_t3": (lambda rng, n: rng.standard_t(3, size=n), 3.0),
    "one_in_20_six_times": (lambda rng, n: rng.normal(size=n) * np.where(rng.random(n) < 0.05, 6, 1), 0.95 + 0.05 * 36),
}


def right_images(sizes: np.ndarray, share: float, rho: float, rng: np.random.Generator) -> np.ndarray:
    """Which images are right, (N,) bool, group by group."""
    own = np.full(len(sizes), share)
    if rho:
        own = rng.beta(share * (1 - rho) / rho, (1 - share) * (1 - rho) / rho, len(sizes))
    return rng.random(sizes.sum()) < own.repeat(sizes)


def coverage(runs: int) -> Iterator[dict[str, object]]:
    """The coverage of the interval of the accuracy."""
    for kind, count in itertools.product(SIZES, (12, 30, 60)):
        found = {}
        for share, rho in itertools.product((0.7, 0.9, 0.97), (0.0, 0.1, 0.3, 0.6)):
            rng = np.random.default_rng([count, int(100 * share), int(10 * rho)])
            hits = np.zeros(2)
            for _ in range(runs):
                sizes = SIZES[kind](count, rng)
                right = right_images(sizes, share, rho, rng)
                intervals = proportion_interval(right), proportion_interval(right, np.arange(count).repeat(sizes))
                hits += [low <= share <= high for low, high in intervals]
            found[share, rho] = hits / runs
        by_images, by_groups = np.array([value for (_, rho), value in found.items() if rho]).T
        yield {
            "sizes": kind, "groups": count, "lowest": round(by_groups.min(), 3), "mean": round(by_groups.mean(), 3),
            "independent": round(float(np.mean([value[1] for (_, rho), value in found.items() if not rho])), 3),
            "wilson_mean": round(by_images.mean(), 3), "wilson_lowest": round(by_images.min(), 3),
        }  # fmt: skip


def rmse(runs: int) -> Iterator[dict[str, object]]:
    """The coverage of the interval of the RMSE."""
    for name, (draw, variance) in ERRORS.items():
        rng, hits, noted, bca = np.random.default_rng(0), 0, 0, 0
        for _ in range(runs):
            errors = draw(rng, 30)
            report = RegressionReport.from_predictions(np.zeros(30), errors, split="test")
            other = bootstrap((errors**2,), np.mean, method="BCa", n_resamples=999, rng=rng).confidence_interval
            bca += other.low <= variance <= other.high
            low, high = report.interval or (0.0, np.inf)
            hits += low**2 <= variance <= high**2
            noted += any("tails" in note for note in report.notes)
        yield {"errors": name, "images": 30, "coverage": hits / runs, "bca": bca / runs, "noted": noted / runs}
    for count in (12, 30, 60):
        rng, hits = np.random.default_rng(count), np.zeros(2)
        groups = np.arange(count).repeat(10)
        for _ in range(runs):
            errors = rng.normal(size=10 * count) + rng.normal(size=count)[groups]
            for at, each in enumerate((None, groups)):
                found = RegressionReport.from_predictions(0 * errors, errors, split="test", groups=each).interval
                low, high = found or (0.0, np.inf)
                hits[at] += low**2 <= 2.0 <= high**2
        yield {"errors": "normal", "groups": count, "coverage": hits[1] / runs, "by_images": hits[0] / runs}


def false_promotion(runs: int) -> Iterator[dict[str, object]]:
    """How often a network that equals the head is promoted."""
    criterion = PromotionCriterion(0.05, repeats=0)
    for count, size in ((60, 5), (30, 10), (15, 20), (8, 40)):
        rng, promoted = np.random.default_rng(size), np.zeros(2)
        groups = np.arange(count).repeat(size)
        labels, paths = np.ones(count * size, dtype=np.int64), [""] * (count * size)
        for _ in range(runs):
            differ = rng.random(count * size) < 0.2
            better = rng.random(count * size) < rng.beta(0.5, 0.5, count)[groups]
            both = np.where(rng.random(count * size) < 0.9, 1, 0)
            head, tuned = np.where(differ, ~better, both), np.where(differ, better, both)
            for at, each in enumerate((None, groups)):
                promoted[at] += criterion.proved(PairedTest.from_predictions(paths, labels, head, tuned, each))
        yield {"groups": count, "images": size, "by_images": promoted[0] / runs, "by_groups": promoted[1] / runs}


def false_layer(runs: int) -> Iterator[dict[str, object]]:
    """How often a layer beats one of the same loss."""
    for count, size in ((300, 1), (60, 5), (30, 10), (8, 40)):
        rng, beaten = np.random.default_rng(size), np.zeros(2)
        groups = np.arange(count).repeat(size)
        for _ in range(runs):
            losses = np.exp(rng.normal(size=(2, count * size)) + rng.normal(size=(2, count))[:, groups])
            for at, each in enumerate((None, groups)):
                one, other = (HeldOutResult(own, own < 1, each) for own in losses)
                beaten[at] += one.beats(other)
        yield {"groups": count, "images": size, "by_images": beaten[0] / runs, "by_groups": beaten[1] / runs}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="simulated data sets for each setting")
    runs = parser.parse_args().runs
    versions = {name: version(name) for name in ("featx", "numpy", "scipy")} | {"python": sys.version.split()[0]}
    results = {each.__name__: list(each(runs)) for each in (coverage, rmse, false_promotion, false_layer)}
    print(json.dumps({"versions": versions, "runs": runs, **results}))


if __name__ == "__main__":
    main()
