"""Reports of many folds in one: means and how far the folds spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.errors import HeadError
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report
from featx.metrics.scores import deviation, finite, mean_known, without_nan
from featx.metrics.tables import line

_WORDS = {
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
_WITH_UNIT = ("rmse", "mae")  # in the target's own unit, so of any size


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """Repeated cross-validation in sum: the reports of R repeats of K folds, in each of which every image is judged once.

    K is 1 where each repeat holds out its own images.

    A metric's mean is that over the K x R folds, and its spread their standard deviation (Kohavi, 1995), whose divisor is one
    less. That is how far the verdict on so few images swings, not the error of the mean: folds share their training rows,
    so no formula for independent draws gives it (Bengio and Grandvalet, 2004). Scores are not pooled over folds: models that
    were fitted apart need not share a scale (Forman and Scholz, 2010).

    Attributes:
        values: {metric: (R, K) float64}; NaN where a fold leaves it undefined, which then does not count.
        n: images judged in one repeat.
        notes: what a reader of the numbers should know, one sentence each.
    """

    values: Mapping[str, np.ndarray]
    n: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, reports: Sequence[Report], *, repeats: int = 1, notes: Sequence[str] = ()) -> CrossValidated:
        """Sum up.

        Args:
            reports: of all folds of the first repeat, then of the next; all of one task. Their own notes are left behind.
            repeats: how many there are.
            notes: what a reader of the numbers should know.

        Raises:
            HeadError: reports of several tasks, or not as many for each repeat.
        """
        if repeats < 1 or not reports or len(reports) % repeats:
            raise HeadError(f"{len(reports)} reports of {repeats} repeats; expected as many for each, and at least one")
        metrics = [report.metrics for report in reports]
        if len(set(map(tuple, metrics))) > 1:
            raise HeadError("reports of several tasks; expected one cross-validation's, all of the same metrics")
        folds = len(reports) // repeats
        values = {
            key: np.array([found[key] for found in metrics], dtype=np.float64).reshape(repeats, folds)
            for key in metrics[0]
        }
        notes = [*notes, *_undefined(reports, values)]
        return cls(values, sum(report.n for report in reports[:folds]), tuple(notes))

    @property
    def repeats(self) -> int:
        """R."""
        return len(next(iter(self.values.values())))

    @property
    def folds(self) -> int:
        """K, in each repeat."""
        return int(next(iter(self.values.values())).shape[1])

    def mean(self, metric: str) -> float:
        """Over all folds of all repeats."""
        return mean_known(self.values[metric])

    def deviation(self, metric: str) -> float:
        """Standard deviation over all folds of all repeats; NaN for fewer than two."""
        return deviation(self.values[metric])

    def between_repeats(self, metric: str) -> float:
        """Standard deviation of the repeats' means: what the drawing of the folds alone does. NaN for one repeat."""
        return deviation(np.array([mean_known(repeat) for repeat in self.values[metric]]))

    def range(self, metric: str) -> tuple[float, float]:
        """The lowest and the highest of all folds; NaN where none has one."""
        known = without_nan(self.values[metric])
        return (float(known.min()), float(known.max())) if known.size else (math.nan, math.nan)

    @property
    def headline(self) -> tuple[str, float]:
        """The first number that a reader asks for, and its name."""
        first = next(iter(self.values))
        return _WORDS[first], self.mean(first)

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
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
        return {**counts, "metrics": metrics, "notes": list(self.notes)}

    def __str__(self) -> str:
        if self.folds == 1:
            what = f"repeated ({self.repeats} times, {self.n} images each)"
        else:
            times = f"{self.repeats} x " if self.repeats > 1 else ""
            what = f"cross-validated ({times}{self.folds} folds, {self.n} images)"
        rows = "folds" if self.folds > 1 else "repeats"
        return "\n".join([f"{what}: mean ± standard deviation over the {rows}", *map(self._row, self.values)])

    def _row(self, metric: str) -> str:
        def number(value: float) -> str:
            return f"{value:.6g}" if metric in _WITH_UNIT else f"{value:.4f}"

        low, high = self.range(metric)
        spread = self.deviation(metric)
        value = number(self.mean(metric)) + ("" if math.isnan(spread) else f" ± {number(spread)}")
        remark = f"lowest {number(low)}, highest {number(high)}"
        if self.repeats > 1 and self.folds > 1:
            remark += f"; ± {number(self.between_repeats(metric))} between repeats"
        return line(_WORDS[metric], value, remark)


def _undefined(reports: Sequence[Report], values: Mapping[str, np.ndarray]) -> list[str]:
    """What folds of few images leave out, in words."""
    unseen = sum(bool((r.support == 0).any()) for r in reports if not isinstance(r, RegressionReport))
    notes = [f"{unseen} of {len(reports)} folds lack a class; it does not count in that fold's means"] if unseen else []
    for metric, table in values.items():
        missing = int(np.isnan(table).sum())
        if missing:
            notes.append(
                f"{_WORDS[metric]} is undefined in {missing} of {table.size} folds, which do not count in its mean"
            )
    return notes
