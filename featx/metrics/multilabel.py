"""The report of a multi-label classifier: mAP, F1, exact match with its interval, per-label scores, calibration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.metrics.baseline import Baseline
from featx.metrics.calibration import ReliabilityBin, calibration_error, reliability_bins
from featx.metrics.grouped import count_groups, number_groups, proportion_interval
from featx.metrics.scores import auroc_and_average_precision, finite, log_loss, nan_mean, ratio
from featx.metrics.tables import (
    baseline_text,
    class_table,
    images_text,
    interval_text,
    metric_lines,
    metric_table,
    short_name,
)
from featx.text import counted, form, listed


@dataclass(frozen=True, eq=False)
class MultiLabelReport:
    """Metrics of multi-label predictions on one split: N images, any number of C labels on each.

    Means over labels leave out the labels that are on no image; ``notes`` names them.

    Attributes:
        classes: (C,) names of the labels.
        split: the evaluated split: "test", "val" or "all".
        n: number of evaluated images.
        thresholds: (C,) float64; a label is predicted where its probability is at least this.
        found: (C,) int64, true positives: images that have the label and for which it is predicted.
        predicted: (C,) int64, images for which the label is predicted.
        support: (C,) int64, images that have the label.
        exact: number of images whose labels are all correct.
        log_loss: mean over images and labels of -ln p(true decision), in nats.
        auroc: (C,) float64; NaN for a label on no image or on every image.
        average_precision: (C,) float64, not interpolated, as in scikit-learn; NaN for a label on no image.
        reliability: 15 bins of the probability, over all images and labels; the accuracy of a bin is the share of its
            decisions whose image has the label.
        groups: number of groups that the images belong to, such as patients; N where each image is its own. All intervals
            treat groups, not images, as drawn independently (``proportion_interval``).
        exact_match_interval: the 95 % interval of the exact match; without groups that of Wilson (1927).
        recall_intervals: (C, 2) float64, the 95 % interval of the recall of each label; NaN for a label on no image.
        baseline: always the commonest set of labels, on the same images, by exact matches.
        notes: caveats about the numbers, one sentence each.

    Examples:
        >>> targets = np.array([[1, 0], [0, 1], [1, 1]])
        >>> probabilities = np.array([[0.9, 0.2], [0.6, 0.8], [0.7, 0.7]])
        >>> report = MultiLabelReport.from_predictions(
        ...     targets, probabilities, ["cat", "dog"], thresholds=np.array([0.5, 0.5]), split="test"
        ... )
        >>> report.mean_average_precision, report.exact
        (1.0, 2)
    """

    classes: tuple[str, ...]
    split: str
    n: int
    thresholds: np.ndarray
    found: np.ndarray
    predicted: np.ndarray
    support: np.ndarray
    exact: int
    log_loss: float
    auroc: np.ndarray
    average_precision: np.ndarray
    reliability: tuple[ReliabilityBin, ...]
    groups: int
    exact_match_interval: tuple[float, float]
    recall_intervals: np.ndarray
    baseline: Baseline
    notes: tuple[str, ...] = ()

    @classmethod
    def from_predictions(
        cls,
        targets: np.ndarray,
        probabilities: np.ndarray,
        classes: Sequence[str],
        *,
        thresholds: np.ndarray,
        split: str,
        groups: np.ndarray | None = None,
        commonest: Sequence[str] | None = None,
        notes: Sequence[str] = (),
    ) -> MultiLabelReport:
        """Compute all metrics of predicted probabilities.

        Args:
            targets: (N, C) of 0 and 1, any dtype; N is at least 1.
            probabilities: (N, C) float, one independent probability per label.
            classes: (C,) names of the labels.
            thresholds: (C,) float; each label is predicted from this probability on. They must not be chosen on these rows.
            split: name of the evaluated split.
            groups: (N,) the group of each image, such as its patient; None: each image is a group of its own.
            commonest: the commonest set of labels of the training images, for the baseline; None: that of these images.
            notes: caveats about the numbers.
        """
        groups, count = number_groups(groups), len(targets)
        truth = targets > 0.5
        predicted = probabilities >= thresholds
        support, exact = truth.sum(axis=0), (truth == predicted).all(axis=1)
        rows_of = [np.flatnonzero(column) for column in truth.T]
        absent = [short_name(name) for name, images in zip(classes, support, strict=True) if not images]
        if absent:
            of_all, number = f"{len(absent)} of {counted(len(classes), 'label')}", len(absent)
            left_out = f"{of_all} {form(number, 'is', 'are')} on no image of split {split} and {form(number, 'does', 'do')} not"
            notes = [*notes, f"{left_out} count in means over labels: {listed(absent)}"]
        auroc, average_precision = auroc_and_average_precision(probabilities, rows_of)
        always = (
            commonest_set(truth) if commonest is None else np.isin(np.array(classes, dtype=object), list(commonest))
        )
        answer = "|".join(name for name, has in zip(classes, always, strict=True) if has) or "|"
        return cls(
            classes=tuple(classes),
            split=split,
            n=count,
            thresholds=np.asarray(thresholds, dtype=np.float64),
            found=(truth & predicted).sum(axis=0),
            predicted=predicted.sum(axis=0),
            support=support,
            exact=int(exact.sum()),
            log_loss=log_loss(np.where(truth, probabilities, 1.0 - probabilities)),
            auroc=auroc,
            average_precision=average_precision,
            reliability=reliability_bins(probabilities.ravel(), truth.ravel(), groups, each=len(classes)),
            groups=count_groups(groups, count),
            exact_match_interval=proportion_interval(exact, groups),
            recall_intervals=_recall_intervals(predicted, rows_of, groups),
            baseline=Baseline.judge(
                answer, (truth == always).all(axis=1), exact, groups, is_trained=commonest is not None
            ),
            notes=tuple(notes),
        )

    @property
    def mean_average_precision(self) -> float:
        """Mean average precision (mAP) over the labels that are on an image; NaN if none is."""
        return nan_mean(self.average_precision)

    @property
    def macro_auroc(self) -> float:
        """Mean AUROC over the labels that some images have and others do not; NaN if there is no such label."""
        return nan_mean(self.auroc)

    @property
    def recall(self) -> np.ndarray:
        """(C,) float64, share of each label's images for which it is predicted; NaN for a label on no image."""
        return ratio(self.found, self.support)

    @property
    def precision(self) -> np.ndarray:
        """(C,) float64, share of each label's predictions that are correct; 0 for a label that is never predicted."""
        precision: np.ndarray = np.nan_to_num(ratio(self.found, self.predicted))
        return precision

    @property
    def f1(self) -> np.ndarray:
        """(C,) float64, harmonic mean of precision and recall; NaN for a label on no image."""
        return np.where(self.support > 0, ratio(2.0 * self.found, self.support + self.predicted), np.nan)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the labels that are on an image; NaN if none is."""
        return nan_mean(self.f1)

    @property
    def micro_f1(self) -> float:
        """F1 of all decisions pooled, labels on no image included; NaN if no label is present or predicted."""
        return float(ratio(2.0 * self.found.sum(), self.support.sum() + self.predicted.sum()))

    @property
    def exact_match(self) -> float:
        """Share of images whose labels are all correct (subset accuracy)."""
        return self.exact / self.n

    @property
    def baseline_average_precision(self) -> float:
        """The mAP of scores that are the same for all images: the mean share of images that have a label."""
        return float(self.support[self.support > 0].mean() / self.n) if self.support.any() else math.nan

    @property
    def hamming_loss(self) -> float:
        """Share of wrong decisions, of one decision for each image and label."""
        wrong = self.support.sum() + self.predicted.sum() - 2 * self.found.sum()
        return float(wrong / (self.n * len(self.classes)))

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean distance of label frequency and probability over 15 bins of all decisions."""
        return calibration_error(self.reliability)

    @property
    def headline(self) -> tuple[str, float]:
        """Name and value of the most important metric."""
        return "mAP", self.mean_average_precision

    @property
    def baseline_headline(self) -> float:
        """The mAP of scores that are the same for all images."""
        return self.baseline_average_precision

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics that cross-validation averages over its folds; NaN where one is undefined."""
        return {
            "mAP": self.mean_average_precision,
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "exact_match": self.exact_match,
            "hamming_loss": self.hamming_loss,
            "log_loss": self.log_loss,
            "auroc": self.macro_auroc,
        }

    def with_notes(self, notes: Sequence[str]) -> MultiLabelReport:
        """A copy with more notes, after those it has."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))

    def as_dict(self) -> dict[str, Any]:
        """The report as ``--json`` prints it and head files store it."""
        return {
            **{key: finite(value) for key, value in self.metrics.items()},
            "exact_match_interval": list(self.exact_match_interval),
            **self.baseline.as_dict("exact_match"),
            "baseline_mAP": finite(self.baseline_average_precision),
            "ece": finite(self.ece),
            "n": self.n,
            "groups": self.groups,
            "split": self.split,
            "per_label": _per_label(self),
            "reliability": [b.as_dict() for b in self.reliability],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def commonest_set(truth: np.ndarray) -> np.ndarray:
    """The commonest row of (N, C) bool labels, N at least 1: (C,) bool.

    Examples:
        >>> commonest_set(np.array([[True, False], [False, True], [False, True]])).tolist()
        [False, True]
    """
    packed = np.packbits(truth, axis=1)
    _, first, counts = np.unique(packed, axis=0, return_index=True, return_counts=True)
    found: np.ndarray = truth[first[counts.argmax()]]
    return found


def _recall_intervals(predicted: np.ndarray, rows_of: Sequence[np.ndarray], groups: np.ndarray | None) -> np.ndarray:
    """The (C, 2) intervals of the recall of each label, from (N, C) decisions and the rows that have the label."""
    intervals = [(np.nan, np.nan)] * len(rows_of)
    for label, rows in enumerate(rows_of):
        if len(rows):
            intervals[label] = proportion_interval(predicted[rows, label], None if groups is None else groups[rows])
    return np.array(intervals)


def _per_label(report: MultiLabelReport) -> list[dict[str, Any]]:
    columns = {
        "threshold": report.thresholds,
        "precision": report.precision,
        "recall": report.recall,
        "f1": report.f1,
        "average_precision": report.average_precision,
        "auroc": report.auroc,
    }
    return [
        {"label": name, **{key: finite(values[row]) for key, values in columns.items()}, "support": int(n)}
        for row, (name, n) in enumerate(zip(report.classes, report.support, strict=True))
    ]


def _lines(report: MultiLabelReport) -> list[str]:
    """The report as lines of text."""
    chance = baseline_text("mAP", report.baseline_average_precision, "")
    labels = counted(int(np.isfinite(report.average_precision).sum()), "label")
    exact = f"{interval_text(report.exact_match_interval)}; {report.exact} of {report.n:,} right; {report.baseline}"
    stated = [
        ("mAP", f"{report.mean_average_precision:.4f}", f"mean of {labels}; {chance}"),
        ("exact match", f"{report.exact_match:.4f}", exact),
    ]
    columns = {
        "threshold": report.thresholds,
        "precision": report.precision,
        "recall": report.recall,
        "F1": report.f1,
        "AP": report.average_precision,
        "AUROC": report.auroc,
    }
    return [
        f"Evaluated on {images_text(report)}",
        *metric_lines(stated),
        *metric_table({**report.metrics, "ece": report.ece}),
        "",
        *class_table("label", report.classes, columns, report.f1, report.support),
    ]
