"""The summary of a repeated cross-validation: mean and spread of each metric over the folds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.errors import MetricError
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report
from featx.metrics.scores import finite, nan_deviation, nan_mean, without_nan
from featx.metrics.tables import metric_line
from featx.text import printable

_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "top5": "top-5",
    "mAP": "mAP",
    "micro_f1": "micro F1",
    "exact_match": "exact match",
    "hamming_loss": "Hamming loss",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R2",
}
_WITH_UNIT = ("rmse", "mae")  # in the target's unit, so of any magnitude


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """The metrics of R repeats of K-fold cross-validation; each repeat evaluates every image once.

    K is 1 if each repeat holds out one random set of images.

    A metric's mean and standard deviation (``ddof=1``) are those over all R x K folds (Kohavi, 1995). The deviation measures
    how much the metric varies on so few images; it is not the standard error of the mean, because folds share training rows
    and no formula for independent draws applies (Bengio and Grandvalet, 2004). Scores are not pooled over folds, because
    separately fitted models need not share a scale (Forman and Scholz, 2010).

    Attributes:
        values: metric name to (R, K) float64; NaN where a fold leaves the metric undefined. Means skip NaN.
        n: number of images evaluated in one repeat.
        notes: caveats about the numbers, one sentence each.
        column: the column of the data set's table that names the folds, or None where they are drawn at random.
        fold_names: (K,) its names, or ().

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

    @classmethod
    def from_reports(
        cls,
        reports: Sequence[Report],
        *,
        repeats: int = 1,
        notes: Sequence[str] = (),
        column: str | None = None,
        fold_names: tuple[str, ...] = (),
    ) -> CrossValidated:
        """Summarise the reports of all folds.

        Args:
            reports: R x K reports of one task: all folds of the first repeat, then those of the next. Their notes are
                dropped.
            repeats: R.
            notes: caveats about the numbers.
            column: as in the attributes.
            fold_names: as there.

        Raises:
            MetricError: the reports belong to several tasks, or their number is not a multiple of ``repeats``.
        """
        if repeats < 1 or not reports or len(reports) % repeats:
            raise MetricError(
                f"{len(reports)} reports of {repeats} repeats; expected equally many for each, and at least one"
            )
        metrics = [report.metrics for report in reports]
        if len(set(map(tuple, metrics))) > 1:
            raise MetricError("reports with different metrics; expected those of one cross-validation, all of one task")
        folds = len(reports) // repeats
        values = {
            key: np.array([fold[key] for fold in metrics], dtype=np.float64).reshape(repeats, folds)
            for key in metrics[0]
        }
        notes = [*notes, *_undefined(reports, values)]
        return cls(values, sum(report.n for report in reports[:folds]), tuple(notes), column, fold_names)

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

    @property
    def headline(self) -> tuple[str, float]:
        """Name and mean of the most important metric."""
        first = next(iter(self.values))
        return _NAMES[first], self.mean(first)

    def as_dict(self) -> dict[str, Any]:
        """The summary as ``--json`` prints it."""
        metrics = {}
        for metric, values in self.values.items():
            low, high = self.range(metric)
            metrics[metric] = {
                "mean": finite(self.mean(metric)),
                "deviation": finite(self.deviation(metric)),
                "between_repeats": finite(self.between_repeats(metric)),
                "lowest": finite(low),
                "highest": finite(high),
                "values": [[finite(value) for value in repeat] for repeat in values],
            }
        counts = {"repeats": self.repeats, "folds": self.folds, "n": self.n}
        named = {"column": self.column, "fold_names": list(self.fold_names)}
        return {**counts, **named, "metrics": metrics, "notes": list(self.notes)}

    def __str__(self) -> str:
        if self.column is not None:
            count = f"{self.folds} fold{'s' * (self.folds > 1)}"
            design = f"cross-validated ({count} of the column {printable(self.column)!r}, {self.n} images)"
        elif self.folds == 1:
            design = f"repeated ({self.repeats} times, {self.n} images each)"
        else:
            times = f"{self.repeats} x " if self.repeats > 1 else ""
            design = f"cross-validated ({times}{self.folds} folds, {self.n} images)"
        units = "folds" if self.folds > 1 or self.column is not None else "repeats"
        return "\n".join([f"{design}: mean ± standard deviation over the {units}", *map(self._line, self.values)])

    def _line(self, metric: str) -> str:
        def number(value: float) -> str:
            return f"{value:.6g}" if metric in _WITH_UNIT else f"{value:.4f}"

        low, high = self.range(metric)
        spread = self.deviation(metric)
        value = number(self.mean(metric)) + ("" if math.isnan(spread) else f" ± {number(spread)}")
        remark = f"lowest {number(low)}, highest {number(high)}"
        if self.repeats > 1 and self.folds > 1:
            remark += f"; ± {number(self.between_repeats(metric))} between repeats"
        return metric_line(_NAMES[metric], value, remark)


def _undefined(reports: Sequence[Report], values: Mapping[str, np.ndarray]) -> list[str]:
    """Notes on the classes and metrics that folds of few images lack."""
    lacking = sum(bool((r.support == 0).any()) for r in reports if not isinstance(r, RegressionReport))
    notes = (
        [f"{lacking} of {len(reports)} folds lack a class; it does not count in that fold's means"] if lacking else []
    )
    for metric, table in values.items():
        missing = int(np.isnan(table).sum())
        if missing:
            notes.append(
                f"{_NAMES[metric]} is undefined in {missing} of {table.size} folds, which do not count in its mean"
            )
    return notes
