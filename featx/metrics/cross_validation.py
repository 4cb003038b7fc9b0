"""The summary of a repeated cross-validation: mean, interval and spread of each metric over the folds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.errors import MetricError
from featx.metrics.baseline import SIGNIFICANCE, Baseline
from featx.metrics.classification import ClassificationReport
from featx.metrics.grouped import student_quantile
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report
from featx.metrics.scores import finite, nan_deviation, nan_mean, wilson_interval, without_nan
from featx.metrics.tables import (
    METRIC_NAMES,
    WITH_LINES,
    baseline_text,
    interval_text,
    metric_lines,
    metric_table,
    metric_text,
)
from featx.text import counted, form, printable

_SHARES = ("accuracy", "exact_match", "top5")  # of images, each of which is right or wrong
_LOWEST = {"r2": -math.inf}  # of a metric; 0 for all others
_HIGHEST = {"log_loss": math.inf, "rmse": math.inf, "mae": math.inf}  # 1 for all others


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """The metrics of R repeats of K-fold cross-validation; each repeat evaluates every image once.

    K is 1 if each repeat holds out one random set of images.

    A metric's mean and standard deviation (``ddof=1``) are those over all R x K folds (Kohavi, 1995). The deviation measures
    how much the metric varies on so few images; it is not the standard error of the mean, because folds share training rows
    and no formula for independent draws applies (Bengio and Grandvalet, 2004). Scores are not pooled over folds, because
    separately fitted models need not share a scale (Forman and Scholz, 2010).

    What is estimated is the mean that models reach on new images which are fitted as these were, to (K - 1) / K of as many
    images. Its 95 % interval takes the variance of Nadeau and Bengio (2003), who allow for the training rows that folds share.
    For shares of right images it is Wilson's, of N / (1 / R + K / (K - 1)) images, which holds near 0 and 1 too; for all
    other metrics it is the corrected resampled t interval. ``benchmarks/bench_small.py`` measures how often both cover.

    Attributes:
        values: metric name to (R, K) float64; NaN where a fold leaves the metric undefined. Means skip NaN.
        n: number of images evaluated in one repeat.
        notes: caveats about the numbers, one sentence each.
        column: the column of the data set's table that names the folds, or None where they are drawn at random.
        fold_names: (K,) its names, or ().
        effective: the number of independent images that tell as much as these, and the degrees of freedom of that estimate,
            from ``effective_size``: where images come in groups, fewer than ``n``.
        baseline: of each fold, always the same class or set of labels; () for a regression.
        baseline_headlines: of each fold, the main metric of a model that gives every image the same answer.
        seconds: that it took; 0 if unknown.
        is_automatic: whether it was added because few images are held out, with a coarse search of the hyper-parameter.

    Examples:
        >>> folds = [
        ...     RegressionReport.from_predictions(np.array([0.0, 2.0]), np.array([error, 2.0]), split="cv")
        ...     for error in (1.0, 3.0)
        ... ]
        >>> summary = CrossValidated.from_reports(folds)
        >>> summary.folds, summary.mean("mae"), round(summary.deviation("mae"), 4)
        (2, 1.0, 0.7071)
    """

    values: Mapping[str, np.ndarray]
    n: int
    notes: tuple[str, ...] = ()
    column: str | None = None
    fold_names: tuple[str, ...] = ()
    effective: tuple[float, float] | None = None
    baseline: tuple[Baseline, ...] = ()
    baseline_headlines: tuple[float, ...] = ()
    seconds: float = 0.0
    is_automatic: bool = False

    @classmethod
    def from_reports(
        cls,
        reports: Sequence[Report],
        *,
        repeats: int = 1,
        notes: Sequence[str] = (),
        column: str | None = None,
        fold_names: tuple[str, ...] = (),
        effective: tuple[float, float] | None = None,
    ) -> CrossValidated:
        """Summarise the reports of all folds.

        Args:
            reports: R x K reports of one task: all folds of the first repeat, then those of the next. Their notes are
                dropped.
            repeats: R.
            notes: caveats about the numbers.
            column: as in the attributes.
            fold_names: as there.
            effective: as there.

        Raises:
            MetricError: the reports belong to several tasks, or their number is not a multiple of ``repeats``.
        """
        if repeats < 1 or not reports or len(reports) % repeats:
            raise MetricError(
                f"{counted(len(reports), 'report')} of {counted(repeats, 'repeat')}; expected equally many for each, and at "
                "least one"
            )
        metrics = [report.metrics for report in reports]
        if len(set(map(tuple, metrics))) > 1:
            raise MetricError("reports with different metrics; expected those of one cross-validation, all of one task")
        folds = len(reports) // repeats
        values = {
            key: np.array([fold[key] for fold in metrics], dtype=np.float64).reshape(repeats, folds)
            for key in metrics[0]
        }
        if numbers := [report for report in reports if isinstance(report, RegressionReport)]:
            values["r2"] = _r2_of_folds(numbers, repeats)
        notes = [*notes, *_undefined(reports, values)]
        n = sum(report.n for report in reports[:folds])
        always = tuple(report.baseline for report in reports if not isinstance(report, RegressionReport))
        headlines = tuple(report.baseline_headline for report in reports)
        return cls(values, n, tuple(notes), column, fold_names, effective, always, headlines)

    @property
    def repeats(self) -> int:
        """Number of repeats, R."""
        return len(next(iter(self.values.values())))

    @property
    def folds(self) -> int:
        """Number of folds in each repeat, K."""
        return int(next(iter(self.values.values())).shape[1])

    def mean(self, metric: str) -> float:
        """Mean of a metric over all folds of all repeats; NaN if every fold leaves it undefined."""
        return nan_mean(self.values[metric])

    def deviation(self, metric: str) -> float:
        """Standard deviation of a metric over all folds of all repeats; NaN for fewer than two."""
        return nan_deviation(self.values[metric])

    def between_repeats(self, metric: str) -> float:
        """Standard deviation of the repeats' means, which is due to the random folds alone; NaN for one repeat."""
        return nan_deviation(np.array([nan_mean(repeat) for repeat in self.values[metric]]))

    def range(self, metric: str) -> tuple[float, float]:
        """The lowest and the highest value of a metric over all folds; NaN if every fold leaves it undefined."""
        defined = without_nan(self.values[metric])
        return (float(defined.min()), float(defined.max())) if defined.size else (math.nan, math.nan)

    def interval(self, metric: str) -> tuple[float, float] | None:
        """The 95 % interval of what a metric's mean estimates; None where there is one fold or repeat, or nothing varies."""
        repeats, folds = self.values[metric].shape
        defined, mean = without_nan(self.values[metric]), self.mean(metric)
        if folds < 2 or len(defined) < 2:
            return None
        if metric in _SHARES:
            size, freedom = (float(self.n), math.inf) if self.effective is None else self.effective
            if not freedom:
                return 0.0, 1.0
            size /= 1 / repeats + folds / (folds - 1)
            return wilson_interval(mean * size, size, student_quantile(0.975, freedom))
        margin = student_quantile(0.975, len(defined) - 1) * corrected_error(defined, folds)
        if margin <= 1e-9 * abs(mean):  # values that differ by rounding alone
            return None
        return max(_LOWEST.get(metric, 0.0), mean - margin), min(_HIGHEST.get(metric, 1.0), mean + margin)

    @property
    def estimates(self) -> str:
        """What the means estimate, in words; "" for repeats without folds."""
        if self.folds < 2:
            return ""
        share = 100 * (self.folds - 1) / self.folds
        return f"what heads fitted to {share:.0f} % of so many images reach on new images of the same kind"

    @property
    def baseline_text(self) -> str:
        """The baseline of the share of right images, in words: "always 'glass' 0.2800"; "" for a regression."""
        return baseline_text("accuracy", self.baseline_mean, self.baseline[0].answer) if self.baseline else ""

    @property
    def headline_baseline(self) -> str:
        """The baseline of the most important metric, in words."""
        answer = self.baseline[0].answer if self.baseline else ""
        return baseline_text(next(iter(self.values)), nan_mean(np.array(self.baseline_headlines)), answer)

    @property
    def baseline_mean(self) -> float:
        """The mean share of the baseline; NaN for a regression."""
        return nan_mean(np.array([each.share for each in self.baseline]))

    @property
    def baseline_p_value(self) -> float:
        """Of the corrected resampled t-test of the shares against the baseline's, two-sided; NaN where there is none."""
        return _p_value(self)

    @property
    def is_better_than_baseline(self) -> bool:
        """Whether the heads are shown to be better than the baseline; False where no test can tell."""
        metric, p = next((name for name in _SHARES if name in self.values), ""), self.baseline_p_value
        return p <= SIGNIFICANCE and self.mean(metric) > self.baseline_mean  # NaN is no proof

    @property
    def baseline_note(self) -> str:
        """A sentence, where the heads are not shown to be better than the baseline; else ""."""
        p = self.baseline_p_value
        if math.isnan(p) or self.is_better_than_baseline:
            return ""
        return (
            f"cross-validation does not show the heads to be better than {self.baseline_text} "
            f"(p = {p:.2g}, corrected resampled t-test)"
        )

    @property
    def headline(self) -> tuple[str, float]:
        """Name and mean of the most important metric."""
        first = next(iter(self.values))
        return METRIC_NAMES[first], self.mean(first)

    def as_dict(self) -> dict[str, Any]:
        """The summary as ``--json`` prints it."""
        metrics = {}
        for metric, values in self.values.items():
            low, high = self.range(metric)
            metrics[metric] = {
                "mean": finite(self.mean(metric)),
                "interval": None if (found := self.interval(metric)) is None else list(found),
                "deviation": finite(self.deviation(metric)),
                "between_repeats": finite(self.between_repeats(metric)),
                "lowest": finite(low),
                "highest": finite(high),
                "values": [[finite(value) for value in repeat] for repeat in values],
            }
        counts = {"repeats": self.repeats, "folds": self.folds, "n": self.n}
        named = {"column": self.column, "fold_names": list(self.fold_names)}
        facts = {
            "estimates": self.estimates or None,
            "baseline": self.baseline_text or None,
            "baseline_share": finite(self.baseline_mean),
            "baseline_p_value": finite(self.baseline_p_value),
            "seconds": round(self.seconds, 4),
            "automatic": self.is_automatic,
        }
        return {**counts, **named, **facts, "metrics": metrics, "notes": list(self.notes)}

    def __str__(self) -> str:
        images, times = counted(self.n, "image"), f"{self.repeats} x " if self.repeats > 1 else ""
        source = "" if self.column is None else f", by the column {printable(self.column)!r}"
        heading = f"Cross-validated: {times}{counted(self.folds, 'fold')} of {images}{source}"
        if self.column is None and self.folds == 1:
            heading = f"Repeated {counted(self.repeats, 'time')}, on {images} each time"
        means = {metric: self.mean(metric) for metric in self.values}
        lines = [
            (METRIC_NAMES[metric], metric_text(metric, mean), self._remark(metric))
            for metric, mean in means.items()
            if metric in WITH_LINES
        ]
        return "\n".join([heading, *metric_lines(lines), *metric_table(means)])

    def _remark(self, metric: str) -> str:
        """What a metric is compared with: its interval, or else its spread; and its baseline."""
        remarks = []
        if (interval := self.interval(metric)) is not None:
            remarks.append(interval_text(interval, metric))
        elif not math.isnan(spread := self.deviation(metric)):
            remarks.append(f"standard deviation {metric_text(metric, spread)}")
        is_headline = metric == next(iter(self.values))
        remarks.append(self.headline_baseline if is_headline else self.baseline_text)
        return "; ".join(remark for remark in remarks if remark)


def _r2_of_folds(reports: Sequence[RegressionReport], repeats: int) -> np.ndarray:
    """The (R, K) R2 of folds, each against the baseline's mean squared error over all folds of its repeat.

    Their mean is then the out-of-sample R2 (Hawinkel, Waegeman and Maere, 2023), whereas a fold of two images whose targets
    happen to be close would have an R2 of minus thousands by itself. NaN where the baseline makes no error.
    """
    errors, baselines, sizes = (
        np.array(values, dtype=np.float64).reshape(repeats, -1)
        for values in (
            [report.rmse**2 for report in reports],
            [report.baseline_rmse**2 for report in reports],
            [report.n for report in reports],
        )
    )
    whole = (baselines * sizes).sum(axis=1, keepdims=True) / sizes.sum(axis=1, keepdims=True)
    return 1.0 - errors / np.where(whole > 0, whole, np.nan)


def stored(found: CrossValidated) -> dict[str, Any]:
    """The main number of a cross-validation as a head's file stores it, for ``StoredCrossValidation``."""
    (name, value), metric = found.headline, next(iter(found.values))
    interval = found.interval(metric)
    return {
        "metric": name, "value": finite(value), "interval": None if interval is None else list(interval), "n": found.n,
        "repeats": found.repeats, "folds": found.folds, "column": found.column, "automatic": found.is_automatic,
        "baseline": found.headline_baseline, "estimates": found.estimates,
    }  # fmt: skip


def _p_value(found: CrossValidated) -> float:
    metric = next((name for name in _SHARES if name in found.values), "")
    if not metric or found.folds < 2 or not found.baseline:
        return math.nan
    gains = found.values[metric].ravel() - [each.share for each in found.baseline]
    error = corrected_error(gains, found.folds)
    if not error:
        return float(not gains.any())
    from scipy.special import stdtr

    return 2.0 * float(stdtr(len(gains) - 1, -abs(gains.mean()) / error))


def corrected_error(values: np.ndarray, folds: int) -> float:
    """The standard error of the mean of (M,) values of all folds and repeats (Nadeau and Bengio, 2003).

    Examples:
        >>> round(corrected_error(np.array([0.8, 0.9, 1.0, 0.9]), folds=4), 4)
        0.0624
    """
    return float(values.std(ddof=1)) * math.sqrt(1 / len(values) + 1 / (folds - 1))


def _undefined(reports: Sequence[Report], values: Mapping[str, np.ndarray]) -> list[str]:
    """Notes on the classes and metrics that folds of few images lack."""
    lacking = sum(bool((r.support == 0).any()) for r in reports if not isinstance(r, RegressionReport))
    notes = []
    if lacking:
        chance = [r.baseline_balanced_accuracy for r in reports if isinstance(r, ClassificationReport)]
        always = f", so that always one class has a balanced accuracy of {np.mean(chance):.4f}" if chance else ""
        notes.append(
            f"{lacking} of {len(reports)} folds {form(lacking, 'lacks', 'lack')} a class, which does not "
            f"count in that fold's means{always}"
        )
    for metric, table in values.items():
        missing = int(np.isnan(table).sum())
        if missing:
            notes.append(
                f"{METRIC_NAMES[metric]} is undefined in {missing} of {table.size} folds, which "
                f"{form(missing, 'does', 'do')} not count in its mean"
            )
    return notes
