"""Learning curves: a head's accuracy by the number of training images, and an estimate of what more images would add.

Numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.folds import make_folds
from featx.heads.groups import row_groups
from featx.heads.head import Head
from featx.heads.targets import targets_of
from featx.metrics.grouped import effective_size, group_sums
from featx.reporter import SILENT, Reporter

MAX_SIZES = 6
"""Largest number of points on the curve, evenly spaced on a logarithmic scale."""

SMALLEST_SHARE = 1 / 32
"""Share of the images at the first point, if that leaves at least two images per class."""

FOLDS, REPEATS = 5, 2
"""Each size is measured on so many folds, in so many repetitions of the cross-validation."""

MANY_IMAGES = 1000
"""Number of training images from which on the cross-validation is not repeated: its folds are precise enough."""

FACTOR = 2
"""How many times as many images the curve is extrapolated to."""

_POOR_FIT, _FEWEST_SIZES = 2.0, 4
"""Mean squared misfit, in standard errors, above which the smallest size is dropped, and the number of sizes to keep at least:
a curve that is no power law from the start may follow one at its end, which is the part that counts."""

_EXPONENTS = np.geomspace(0.05, 2.0, 60)  # of the power law: from nearly flat to steeper than any observed
_DRAWS = 400


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """The power law error(n) = floor + scale * n ** -exponent, with parametric bootstrap draws of its parameters.

    Three parameters, floor and scale not below 0: pow3 of Viering and Loog (2023, "The Shape of Learning Curves: a Review").
    Hestness et al. (2017) observed on many tasks that the error falls as a power of the amount of data.

    Attributes:
        floor, scale, exponent: (1 + draws,) float64. The first is the fit; the others are fits to errors redrawn within their
            standard errors.
        smallest_size: the smallest number of images that the law was fitted to.

    Examples:
        >>> sizes = np.array([20.0, 40.0, 80.0, 160.0, 320.0])
        >>> law = PowerLaw.fit(sizes, 0.1 + sizes**-0.5, np.full(5, 0.005))
        >>> gain, low, high = law.gain(320)
        >>> low < gain < high
        True
        >>> round(gain, 2)
        0.02
    """

    floor: np.ndarray
    scale: np.ndarray
    exponent: np.ndarray
    smallest_size: float

    @classmethod
    def fit(cls, sizes: np.ndarray, errors: np.ndarray, standard_errors: np.ndarray, *, seed: int = 0) -> PowerLaw:
        """Fit by weighted least squares, exactly in floor and scale, over a grid of exponents.

        If the fit is worse than the standard errors allow, the smallest sizes are dropped one by one. If it still is, the
        standard errors are scaled up (Birge, 1932), so that the interval shows the misfit.

        Args:
            sizes: (S,) numbers of images, ascending.
            errors: (S,) mean shares of wrong predictions.
            standard_errors: (S,) standard errors of these means, above 0.
            seed: of the bootstrap draws.
        """
        while True:
            best = _fit_power_laws(sizes, errors[None], standard_errors)[:, 0]
            misfit = ((best[0] + best[1] * sizes ** -best[2] - errors) / standard_errors) ** 2
            mean_misfit = float(misfit.sum()) / max(len(sizes) - 3, 1)
            if mean_misfit <= _POOR_FIT or len(sizes) <= _FEWEST_SIZES:
                break
            sizes, errors, standard_errors = sizes[1:], errors[1:], standard_errors[1:]
        noise = np.random.default_rng(seed).normal(size=(_DRAWS, len(sizes))) * max(1.0, mean_misfit) ** 0.5
        drawn = np.vstack([errors, errors + standard_errors * noise])
        floor, scale, exponent = _fit_power_laws(sizes, drawn, standard_errors)
        return cls(floor, scale, exponent, float(sizes[0]))

    def errors_at(self, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the error at (S,) sizes: (S,) by the fit, and the (S,) lower and upper ends of the 95 % interval."""
        errors = self.floor[:, None] + self.scale[:, None] * sizes ** -self.exponent[:, None]
        low, high = np.percentile(errors[1:], [2.5, 97.5], axis=0)
        return errors[0], low, high

    def gain(self, size: float, factor: float = FACTOR) -> tuple[float, float, float]:
        """Return by how much the error falls from ``size`` images to ``factor`` times as many, with its 95 % interval."""
        before, after = (self.floor + self.scale * n**-self.exponent for n in (size, size * factor))
        gains = before - after
        low, high = np.percentile(gains[1:], [2.5, 97.5])
        return float(gains[0]), float(low), float(high)


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """A head's held-out accuracy by the number of images that it was fitted to.

    Attributes:
        sizes: (S,) int64, numbers of images, ascending.
        accuracy: (S,) float64, the mean over all folds.
        standard_error: (S,) float64, the standard error of that mean.
        fits: how often each size was measured, on different images each time.
        images: number of training images that there are.
        layer: the layer that the head is on.
        law: the power law fitted to the errors.
    """

    sizes: np.ndarray
    accuracy: np.ndarray
    standard_error: np.ndarray
    fits: int
    images: int
    layer: str
    law: PowerLaw

    @property
    def points(self) -> tuple[tuple[int, float, float], ...]:
        """The number of images, the accuracy and its standard error at each size."""
        return tuple(zip(self.sizes.tolist(), self.accuracy.tolist(), self.standard_error.tolist(), strict=True))

    def band(self, count: int = 100) -> np.ndarray:
        """Return points of the power law for a figure, up to ``FACTOR`` times as many images as there are.

        Returns:
            (count, 4) float64: number of images, accuracy, and the lower and upper ends of its 95 % interval.
        """
        sizes = np.geomspace(self.law.smallest_size, FACTOR * self.images, count)
        mean, low, high = self.law.errors_at(sizes)
        return np.stack([sizes, 1 - mean, 1 - high, 1 - low], axis=1)

    @property
    def doubling_gain(self) -> tuple[float, float, float]:
        """The accuracy that twice as many images would add, and its 95 % interval."""
        return self.law.gain(self.images)

    def as_dict(self) -> dict[str, Any]:
        """Return the curve as ``featx advise --json`` prints it."""
        gain, low, high = self.doubling_gain
        return {
            "layer": self.layer,
            "points": [{"images": n, "accuracy": mean, "standard_error": error} for n, mean, error in self.points],
            "seeds": self.fits,
            "floor": float(self.law.floor[0]),
            "scale": float(self.law.scale[0]),
            "exponent": float(self.law.exponent[0]),
            "since": self.law.smallest_size,
            "images": self.images,
            "twice": {"images": FACTOR * self.images, "gain": gain, "interval": [low, high]},
        }


def measure_learning_curve(
    features: FeatureSet, head: Head, rows: np.ndarray, *, images: int | None = None, reporter: Reporter = SILENT
) -> LearningCurve | None:
    """Fit a head to increasing numbers of images, and measure its accuracy on held-out ones.

    Each fold of a cross-validation evaluates fits to nested, stratified shares of its training rows. Copies of an image and
    images of one group stay in one fold. The hyper-parameter is the one of the given head: it expresses what is known about
    the weights before any image is used, which does not change with the number of images.

    Args:
        features: the features of one layer.
        head: a fitted head for classification.
        rows: (n,) int64, labelled training rows.
        images: number of training images that there are, if ``rows`` is a sample of them.
        reporter: receives the progress, in fits.

    Returns:
        The curve; None if there are too few images for three sizes.
    """
    targets = targets_of(features.without_features(rows), head.task_)
    groups = row_groups(features, rows)
    folds = [
        fold
        for repeat in range(REPEATS if len(rows) < MANY_IMAGES else 1)
        for fold in make_folds(targets.y, groups, folds=FOLDS, seed=head.seed, repeat=repeat)
    ]
    sizes = _curve_sizes(min((len(train) for train, _ in folds), default=0), len(targets.names))
    if len(sizes) < 3:
        return None
    unfitted, rng = head.clone(), np.random.default_rng(head.seed)
    accuracy = np.zeros((len(folds), len(sizes)))
    correct = np.full((len(sizes), len(rows)), np.nan)
    for number, (train, test) in enumerate(folds):
        order = train[_stratified_order(targets.y[train], rng)]
        X = np.asarray(features.features[rows[test]])
        truth = np.array(targets.names, dtype=object)[targets.y[test]]
        for at, size in enumerate(sizes.tolist()):
            correct[at, test] = _fit_and_score(unfitted, features, rows[np.sort(order[:size])], X, truth)
            accuracy[number, at] = correct[at, test].mean()
            reporter.progress(number * len(sizes) + at + 1, len(folds) * len(sizes))
    mean = accuracy.mean(axis=0)
    standard_error = _standard_error(accuracy, _effective_images(correct, groups))
    law = PowerLaw.fit(sizes, 1 - mean, standard_error, seed=head.seed)
    return LearningCurve(sizes, mean, standard_error, len(folds), images or len(rows), features.layer, law)


def _effective_images(correct: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return as how many independent images the test images of each size count: (S,) float64.

    Args:
        correct: (S, N) whether the last fit of each size predicts each image correctly; NaN for images that were not held out.
        groups: (N,) int64, which images belong together.
    """
    held_out = ~np.isnan(correct[0])
    sums = [group_sums(each[held_out], groups[held_out]) for each in correct]
    return np.array([max(effective_size(right, sizes)[0], 1.0) for right, sizes in sums])


def _standard_error(accuracy: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the (S,) standard errors of the mean of (F, S) accuracies on as many independent images, (S,).

    Folds of one repetition share no test image, but repetitions share all of them; so the error is never below that of a
    binomial proportion of so many images.
    """
    mean = accuracy.mean(axis=0)
    binomial = np.sqrt(np.maximum(mean * (1 - mean), 1 / count) / count)
    standard_error: np.ndarray = np.maximum(accuracy.std(axis=0, ddof=1) / np.sqrt(len(accuracy)), binomial)
    return standard_error


def _fit_and_score(head: Head, features: FeatureSet, rows: np.ndarray, X: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return which rows of X a coarse fit to some rows predicts correctly, (n,) bool.

    If the fitted rows are all of one class, that class is the prediction.
    """
    try:
        head.fit(features, rows=rows, coarse=True)
    except HeadError:
        only = features.classes[int(np.bincount(features.labels[rows]).argmax())]
        return np.asarray(truth == only)
    predicted = np.array(head.names_, dtype=object)[head.predict_values(X).argmax(axis=1)]
    return np.asarray(predicted == truth)


def _curve_sizes(largest: int, classes: int) -> np.ndarray:
    """Return (S,) int64 sizes, ascending, up to ``largest``; none if the smallest one would not fit."""
    smallest = max(4.0, 2.0 * classes, largest * SMALLEST_SHARE)
    if smallest >= largest:
        return np.empty(0, dtype=np.int64)
    return np.unique(np.geomspace(smallest, largest, MAX_SIZES).round().astype(np.int64))


def _stratified_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an order, (N,) int64, of which every prefix has the classes in their shares, as nearly as possible."""
    position = np.empty(len(labels))
    for label in np.unique(labels).tolist():
        rows = rng.permutation(np.flatnonzero(labels == label))
        position[rows] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(position, kind="stable")


def _fit_power_laws(sizes: np.ndarray, errors: np.ndarray, standard_errors: np.ndarray) -> np.ndarray:
    """Return the (3, R) floor, scale and exponent that fit each row of (R, S) errors best."""
    weight = 1 / standard_errors**2
    lowest_cost = np.full(len(errors), np.inf)
    parameters = np.zeros((3, len(errors)))
    for exponent in _EXPONENTS:
        x = sizes**-exponent
        for floor, scale in _weighted_lines(x, errors, weight):
            cost = (weight * (floor[:, None] + scale[:, None] * x - errors) ** 2).sum(axis=1)
            better = (cost < lowest_cost - 1e-12) & (floor >= 0) & (scale >= 0)
            lowest_cost = np.where(better, cost, lowest_cost)
            parameters = np.where(better, np.stack([floor, scale, np.full(len(errors), exponent)]), parameters)
    return parameters


def _weighted_lines(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (floor, scale), (R,) each, of the weighted straight lines through x and each row of (R, S) y.

    First the unconstrained lines, then those through the origin, then the horizontal ones.
    """
    total = weight.sum()
    mean_x, mean_y = (weight * x).sum() / total, (y * weight).sum(axis=1) / total
    covariance = ((y - mean_y[:, None]) * (weight * (x - mean_x))).sum(axis=1)
    slope = covariance / max((weight * (x - mean_x) ** 2).sum(), 1e-300)
    zero = np.zeros(len(y))
    yield mean_y - slope * mean_x, slope
    yield zero, (y * weight * x).sum(axis=1) / (weight * x**2).sum()
    yield mean_y, zero
