"""Learning curves: how a head's error falls with the number of its training images, and what more of them would give.

Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.folds import make_folds
from featx.heads.groups import row_groups
from featx.heads.head import Head
from featx.heads.targets import targets_of
from featx.reporter import SILENT, Reporter

SIZES = 6
"""At most so many points, evenly apart in the logarithm."""

LEAST_SHARE = 1 / 32
"""Of the images: the first point, where each class may have two of so many."""

FOLDS, FOLDINGS = 5, 2
"""Each size is measured by so many folds, dealt anew so often: that many seeds."""

MANY = 1000
"""Training images from which on they are dealt once: their folds tell enough."""

MORE = 2
"""Times as many images: what the curve is asked for."""

_POOR, _FEWEST = 2.0, 4
"""Mean squared misfit, in standard errors, from which on the smallest size is left out, down to so many: a curve that is no
power law from the start on may be one at its end, which is what is asked."""

_EXPONENTS = np.geomspace(0.05, 2.0, 60)  # of the power law: from hardly falling to faster than any that is seen
_DRAWS = 400


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """error(n) = floor + scale * n ** -exponent, with what else the measurements allow.

    Three parameters, floor and scale not below 0: pow3 of Viering and Loog (2023, "The Shape of Learning Curves: a Review"); an
    error that falls as a power of the data is what Hestness et al. (2017) saw over many tasks.

    Attributes:
        floor, scale, exponent: (1 + draws,) float64: of the fit, then of fits to measurements redrawn by their errors.
        since: the smallest size that it was fitted to.
    """

    floor: np.ndarray
    scale: np.ndarray
    exponent: np.ndarray
    since: float

    @classmethod
    def fit(cls, sizes: np.ndarray, errors: np.ndarray, deviations: np.ndarray, *, seed: int = 0) -> PowerLaw:
        """Weighted least squares: exact in floor and scale, over a grid of exponents.

        Where the fit is worse than the errors allow, the smallest sizes are left out; where it still is, the errors are taken
        to be larger (Birge, 1932), so that the interval tells.

        Args:
            sizes: (S,) images.
            errors: (S,) shares of wrong predictions, the means.
            deviations: (S,) their standard errors, above 0.
            seed: of the draws.
        """
        while True:
            best = _fitted(sizes, errors[None], deviations)[:, 0]
            misfit = ((best[0] + best[1] * sizes ** -best[2] - errors) / deviations) ** 2
            poor = float(misfit.sum()) / max(len(sizes) - 3, 1)
            if poor <= _POOR or len(sizes) <= _FEWEST:
                break
            sizes, errors, deviations = sizes[1:], errors[1:], deviations[1:]
        noise = np.random.default_rng(seed).normal(size=(_DRAWS, len(sizes))) * max(1.0, poor) ** 0.5
        floor, scale, exponent = _fitted(sizes, np.vstack([errors, errors + deviations * noise]), deviations)
        return cls(floor, scale, exponent, float(sizes[0]))

    def at(self, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Error at (S,) sizes: of the fit, and the ends of the interval that holds 95 % of the draws."""
        each = self.floor[:, None] + self.scale[:, None] * sizes ** -self.exponent[:, None]
        low, high = np.percentile(each[1:], [2.5, 97.5], axis=0)
        return each[0], low, high

    def gain(self, size: float, times: float = MORE) -> tuple[float, float, float]:
        """By how much the error falls from ``size`` images to ``times`` as many: of the fit, and its 95 % interval."""
        before, after = (self.floor + self.scale * n**-self.exponent for n in (size, size * times))
        fallen = before - after
        low, high = np.percentile(fallen[1:], [2.5, 97.5])
        return float(fallen[0]), float(low), float(high)


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """A head's accuracy by the number of images that it was fitted to, on images held out.

    Attributes:
        sizes: (S,) images, ascending.
        accuracy: (S,) mean over the seeds.
        deviation: (S,) its standard error.
        seeds: how often each was measured, on other images each time.
        images: that there are to train on.
        layer: that the head is on.
        law: fitted to the errors.
    """

    sizes: np.ndarray
    accuracy: np.ndarray
    deviation: np.ndarray
    seeds: int
    images: int
    layer: str
    law: PowerLaw

    @property
    def points(self) -> tuple[tuple[int, float, float], ...]:
        """(images, accuracy, its standard error) of each size."""
        return tuple(zip(self.sizes.tolist(), self.accuracy.tolist(), self.deviation.tolist(), strict=True))

    def drawn(self, count: int = 100) -> np.ndarray:
        """(count, 4) images up to ``MORE`` times as many as there are, accuracy by the law, and the ends of its interval."""
        x = np.geomspace(self.law.since, MORE * self.images, count)
        mean, low, high = self.law.at(x)
        return np.stack([x, 1 - mean, 1 - high, 1 - low], axis=1)

    @property
    def twice(self) -> tuple[float, float, float]:
        """What twice the images would add to the accuracy, and its 95 % interval."""
        return self.law.gain(self.images)

    def as_dict(self) -> dict[str, Any]:
        """As ``featx advise --json`` has it."""
        gain, low, high = self.twice
        return {
            "layer": self.layer,
            "points": [{"images": n, "accuracy": mean, "standard_error": error} for n, mean, error in self.points],
            "seeds": self.seeds,
            "floor": float(self.law.floor[0]),
            "scale": float(self.law.scale[0]),
            "exponent": float(self.law.exponent[0]),
            "since": self.law.since,
            "images": self.images,
            "twice": {"images": MORE * self.images, "gain": gain, "interval": [low, high]},
        }


def learning_curve(
    features: FeatureSet, head: Head, rows: np.ndarray, *, images: int | None = None, reporter: Reporter = SILENT
) -> LearningCurve | None:
    """Fit a head again and again, to more and more of some rows.

    Each fold of a cross-validation judges fits to nested, stratified shares of its training rows; copies of an image and
    images of one group stay together. The hyper-parameter is the one that the head has: it stands for what is known of the
    weights before any image is seen, which does not change with their number.

    Args:
        features: of one layer.
        head: a fitted head of classification.
        rows: (n,) int64, labelled training rows.
        images: that there are to train on, where ``rows`` are a share of them.
        reporter: gets the progress, in fits.

    Returns:
        None where there are too few images for three sizes.
    """
    targets = targets_of(features.facts(rows), head.task_)
    groups = row_groups(features, rows)
    again = head.clone()
    dealt = [
        fold
        for turn in range(FOLDINGS if len(rows) < MANY else 1)
        for fold in make_folds(targets.y, groups, folds=FOLDS, seed=head.seed, repeat=turn)
    ]
    sizes = _sizes(min((len(train) for train, _ in dealt), default=0), len(targets.names))
    if len(sizes) < 3:
        return None
    accuracy = np.zeros((len(dealt), len(sizes)))
    rng = np.random.default_rng(head.seed)
    for number, (train, test) in enumerate(dealt):
        order = train[_stratified(targets.y[train], rng)]
        X = np.asarray(features.features[rows[test]])
        truth = np.array(targets.names, dtype=object)[targets.y[test]]
        for at, size in enumerate(sizes.tolist()):
            accuracy[number, at] = _right(again, features, rows[np.sort(order[:size])], X, truth)
            reporter.progress(number * len(sizes) + at + 1, len(dealt) * len(sizes))
    mean = accuracy.mean(axis=0)
    # Folds of one folding share no test image, but foldings judge the same: never less than what so few images allow.
    count = len({int(row) for _, test in dealt for row in test})
    tossed = np.sqrt(np.maximum(mean * (1 - mean), 1 / count) / count)
    deviation = np.maximum(accuracy.std(axis=0, ddof=1) / np.sqrt(len(dealt)), tossed)
    law = PowerLaw.fit(sizes, 1 - mean, deviation, seed=head.seed)
    return LearningCurve(sizes, mean, deviation, len(dealt), images or len(rows), features.layer, law)


def _right(head: Head, features: FeatureSet, rows: np.ndarray, X: np.ndarray, truth: np.ndarray) -> float:
    """The accuracy of a coarse fit to some rows; where they are all of one class, that class is what it says."""
    try:
        head.fit(features, rows=rows, coarse=True)
    except HeadError:
        only = features.classes[int(np.bincount(features.labels[rows]).argmax())]
        return float((truth == only).mean())
    said = np.array(head.classes_, dtype=object)[head.predict_values(X).argmax(axis=1)]
    return float((said == truth).mean())


def _sizes(most: int, classes: int) -> np.ndarray:
    """(S,) int64, ascending, up to ``most``."""
    least = max(4.0, 2.0 * classes, most * LEAST_SHARE)
    if least >= most:
        return np.empty(0, dtype=np.int64)
    return np.unique(np.geomspace(least, most, SIZES).round().astype(np.int64))


def _stratified(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An order, (N,) int64, whose every beginning has the classes in their shares, as far as it can."""
    place = np.empty(len(labels))
    for label in np.unique(labels).tolist():
        own = rng.permutation(np.flatnonzero(labels == label))
        place[own] = (np.arange(len(own)) + rng.random(len(own))) / len(own)
    return np.argsort(place, kind="stable")


def _fitted(sizes: np.ndarray, drawn: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """(3, R) floor, scale and exponent that fit each of (R, S) errors best."""
    weight = 1 / deviations**2
    least = np.full(len(drawn), np.inf)
    found = np.zeros((3, len(drawn)))
    for exponent in _EXPONENTS:
        x = sizes**-exponent
        for floor, scale in _lines(x, drawn, weight):
            cost = (weight * (floor[:, None] + scale[:, None] * x - drawn) ** 2).sum(axis=1)
            better = (cost < least - 1e-12) & (floor >= 0) & (scale >= 0)
            least = np.where(better, cost, least)
            found = np.where(better, np.stack([floor, scale, np.full(len(drawn), exponent)]), found)
    return found


def _lines(x: np.ndarray, drawn: np.ndarray, weight: np.ndarray) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """(floor, scale), (R,) each, of the weighted straight lines through (x, each row): free, through 0, and level."""
    total = weight.sum()
    mean_x, mean_y = (weight * x).sum() / total, (drawn * weight).sum(axis=1) / total
    slope = ((drawn - mean_y[:, None]) * (weight * (x - mean_x))).sum(axis=1) / max(
        (weight * (x - mean_x) ** 2).sum(), 1e-300
    )
    through = (drawn * weight * x).sum(axis=1) / (weight * x**2).sum()
    zero = np.zeros(len(drawn))
    return (mean_y - slope * mean_x, slope), (zero, through), (mean_y, zero)
