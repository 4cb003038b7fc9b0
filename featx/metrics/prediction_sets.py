"""How often prediction sets and intervals contain the truth, and how large they are.

N is the number of images, C of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.metrics.grouped import number_groups, proportion_interval
from featx.metrics.scores import finite
from featx.metrics.tables import Line, interval_text, short_name


@dataclass(frozen=True, eq=False)
class SetReport:
    """The coverage and the size of prediction sets on one split.

    Attributes:
        wanted: the share of sets that should contain the true class.
        coverage: the share that does.
        interval: its 95 % interval, by groups where there are any.
        sizes: (C + 1,) int64, the number of sets of each size from 0 on.
        classes: (C,) names.
        class_coverage: (C,) float64, the share among the images of each class; NaN for a class without images.
        class_intervals: (C, 2) float64, the 95 % intervals of these.

    Examples:
        >>> sets = np.array([[True, False], [True, True], [True, False]])
        >>> report = SetReport.of(np.array([0, 1, 1]), sets, ("ant", "bee"), alpha=0.1)
        >>> round(report.coverage, 3), round(report.mean_size, 3), round(report.singletons, 3)
        (0.667, 1.333, 0.667)
    """

    wanted: float
    coverage: float
    interval: tuple[float, float]
    sizes: np.ndarray
    classes: tuple[str, ...]
    class_coverage: np.ndarray
    class_intervals: np.ndarray

    @classmethod
    def of(
        cls, y: np.ndarray, sets: np.ndarray, classes: Sequence[str], *, alpha: float, groups: np.ndarray | None = None
    ) -> SetReport:
        """Compare sets with the truth.

        Args:
            y: (N,) int64, the true classes; N is at least 1.
            sets: (N, C) bool, which classes are in each set.
            classes: (C,) names.
            alpha: the share of sets that may miss.
            groups: (N,) the group of each image; None: each image is a group of its own.
        """
        hit, groups = sets[np.arange(len(y)), y], number_groups(groups)
        of_class = [np.flatnonzero(y == label) for label in range(len(classes))]

        def interval_of(rows: np.ndarray) -> tuple[float, float]:
            return proportion_interval(hit[rows], None if groups is None else groups[rows])

        return cls(
            wanted=1.0 - alpha,
            coverage=float(hit.mean()),
            interval=interval_of(np.arange(len(y))),
            sizes=np.bincount(sets.sum(axis=1), minlength=len(classes) + 1),
            classes=tuple(classes),
            class_coverage=np.array([hit[rows].mean() if len(rows) else np.nan for rows in of_class]),
            class_intervals=np.array([interval_of(rows) if len(rows) else (np.nan, np.nan) for rows in of_class]),
        )

    @property
    def mean_size(self) -> float:
        """The mean number of classes in a set."""
        return float(self.sizes @ np.arange(len(self.sizes)) / self.sizes.sum())

    @property
    def singletons(self) -> float:
        """The share of sets of a single class."""
        return float(self.sizes[1] / self.sizes.sum())

    def as_dict(self) -> dict[str, Any]:
        """The report as ``--json`` prints it and head files store it."""
        return {
            "wanted": self.wanted,
            "coverage": self.coverage,
            "interval": list(self.interval),
            "mean_size": self.mean_size,
            "singletons": self.singletons,
            "sizes": self.sizes.tolist(),
            "per_class": [
                {"class": name, "coverage": finite(share), "interval": None if np.isnan(share) else ends}
                for name, share, ends in zip(
                    self.classes, self.class_coverage.tolist(), self.class_intervals.tolist(), strict=True
                )
            ],
        }

    @property
    def lines(self) -> list[Line]:
        """The report as lines for people."""
        worst = int(np.nanargmin(self.class_coverage))
        return [
            ("set coverage", f"{self.coverage:.4f}", f"{self.wanted:.4g} wanted; {interval_text(self.interval)}"),
            (
                "set size",
                f"{self.mean_size:.4f}",
                f"classes in a set, on average; {100 * self.singletons:.1f} % have one",
            ),
            ("least class coverage", f"{self.class_coverage[worst]:.4f}", short_name(self.classes[worst])),
        ]


@dataclass(frozen=True)
class IntervalReport:
    """The coverage and the width of prediction intervals on one split.

    Attributes:
        wanted: the share of intervals that should contain the true number.
        coverage: the share that does.
        interval: its 95 % interval, by groups where there are any.
        mean_width: the mean distance of the ends, in the target's unit.

    Examples:
        >>> report = IntervalReport.of(np.array([1.0, 5.0]), np.array([[0.0, 2.0], [1.0, 3.0]]), alpha=0.1)
        >>> report.coverage, report.mean_width
        (0.5, 2.0)
    """

    wanted: float
    coverage: float
    interval: tuple[float, float]
    mean_width: float

    @classmethod
    def of(
        cls, y: np.ndarray, intervals: np.ndarray, *, alpha: float, groups: np.ndarray | None = None
    ) -> IntervalReport:
        """Compare intervals with the truth.

        Args:
            y: (N,) or (N, 1), the true numbers; N is at least 1.
            intervals: (N, 2), the ends.
            alpha: the share of intervals that may miss.
            groups: (N,) the group of each image; None: each image is a group of its own.
        """
        y = y.reshape(-1)
        hit = (intervals[:, 0] <= y) & (y <= intervals[:, 1])
        width = float((intervals[:, 1] - intervals[:, 0]).mean())
        return cls(1.0 - alpha, float(hit.mean()), proportion_interval(hit, number_groups(groups)), width)

    def as_dict(self) -> dict[str, Any]:
        """The report as ``--json`` prints it and head files store it."""
        return {
            "wanted": self.wanted,
            "coverage": self.coverage,
            "interval": list(self.interval),
            "mean_width": finite(self.mean_width),
        }

    @property
    def lines(self) -> list[Line]:
        """The report as lines for people."""
        return [
            ("coverage", f"{self.coverage:.4f}", f"{self.wanted:.4g} wanted; {interval_text(self.interval)}"),
            ("width", f"{self.mean_width:.6g}", "of the prediction intervals, on average"),
        ]
