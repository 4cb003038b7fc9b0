"""The report of a classifier: accuracy with its interval, per-class scores, confusion matrix, calibration, rejection."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.metrics.baseline import Baseline
from featx.metrics.calibration import ReliabilityBin, calibration_error, reliability_bins
from featx.metrics.grouped import count_groups, number_groups, proportion_interval
from featx.metrics.prediction_sets import SetReport
from featx.metrics.scores import auroc_and_average_precision, finite, log_loss, nan_mean, overall, ratio
from featx.metrics.tables import (
    Line,
    class_table,
    confusion_table,
    images_text,
    interval_text,
    metric_lines,
    metric_table,
)
from featx.text import counted

_MOST_CLASSES_IN_TEXT = 12  # the text shows the confusion matrix of up to so many classes
_TOP = 5


@dataclass(frozen=True, eq=False)
class ClassificationReport:
    """Metrics of a classifier's predictions on one split: N images of C classes.

    Attributes:
        classes: (C,) names.
        split: the evaluated split: "test", "val" or "all".
        confusion: (C, C) int64; rows are the true classes, columns the predicted ones.
        log_loss: mean of -ln p(true class), in nats.
        auroc: (C,) float64, one-vs-rest area under the ROC curve; NaN for a class with no image or with every image.
        average_precision: (C,) float64, one-vs-rest, not interpolated, as in scikit-learn; NaN for a class without images.
        reliability: 15 bins of the confidence, which is the highest probability.
        top5: share of images whose true class is among the five most probable, where a tie counts as a miss; None for up
            to five classes.
        reject_below: the confidence that an accepted prediction must reach, or None.
        accepted: number of images whose prediction is accepted; N if nothing is rejected.
        accepted_right: how many of the accepted predictions are correct.
        groups: number of groups that the images belong to, such as patients; N where each image is its own. All intervals
            treat groups, not images, as drawn independently (``proportion_interval``).
        interval: the 95 % interval of the accuracy; without groups that of Wilson (1927).
        selective_interval: the 95 % interval of the selective accuracy; None where there is no such accuracy.
        recall_intervals: (C, 2) float64, the 95 % interval of the recall of each class; NaN for a class without images.
        baseline: always the commonest class, on the same images.
        notes: caveats about the numbers, one sentence each.
        sets: the coverage of prediction sets; None without any.

    Examples:
        >>> probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
        >>> report = ClassificationReport.from_predictions(
        ...     np.array([0, 0, 1]), probabilities, ["ants", "bees"], split="test"
        ... )
        >>> round(report.accuracy, 4), report.confusion.tolist()
        (0.6667, [[1, 1], [0, 1]])
    """

    classes: tuple[str, ...]
    split: str
    confusion: np.ndarray
    log_loss: float
    auroc: np.ndarray
    average_precision: np.ndarray
    reliability: tuple[ReliabilityBin, ...]
    top5: float | None
    reject_below: float | None
    accepted: int
    accepted_right: int
    groups: int
    interval: tuple[float, float]
    selective_interval: tuple[float, float] | None
    recall_intervals: np.ndarray
    baseline: Baseline
    notes: tuple[str, ...] = ()
    sets: SetReport | None = None

    @classmethod
    def from_predictions(
        cls,
        labels: np.ndarray,
        probabilities: np.ndarray,
        classes: Sequence[str],
        *,
        split: str,
        reject_below: float | None = None,
        groups: np.ndarray | None = None,
        commonest: int | None = None,
        notes: Sequence[str] = (),
    ) -> ClassificationReport:
        """Compute all metrics of predicted probabilities.

        Args:
            labels: (N,) int64, the true classes; N is at least 1.
            probabilities: (N, C) float; rows sum to 1.
            classes: (C,) names.
            split: name of the evaluated split.
            reject_below: predictions with a lower probability are rejected.
            groups: (N,) the group of each image, such as its patient; None: each image is a group of its own.
            commonest: the commonest class of the training images, for the baseline; None: that of these images.
            notes: caveats about the numbers.
        """
        count = len(classes)
        predicted = probabilities.argmax(axis=1)
        true, confidence = probabilities[np.arange(len(labels)), labels], probabilities.max(axis=1)
        correct, groups = predicted == labels, number_groups(groups)
        by_class = np.split(np.argsort(labels, kind="stable"), np.bincount(labels, minlength=count).cumsum()[:-1])
        auroc, average_precision = auroc_and_average_precision(probabilities, by_class)
        accepted = np.full(len(labels), True) if reject_below is None else confidence >= reject_below

        def interval_of(rows: np.ndarray) -> tuple[float, float]:
            return proportion_interval(correct[rows], None if groups is None else groups[rows])

        always = int(np.bincount(labels, minlength=count).argmax()) if commonest is None else commonest
        return cls(
            classes=tuple(classes),
            split=split,
            confusion=np.bincount(labels * count + predicted, minlength=count * count).reshape(count, count),
            log_loss=log_loss(true),
            auroc=auroc,
            average_precision=average_precision,
            reliability=reliability_bins(confidence, correct, groups),
            top5=_top_accuracy(probabilities, true) if count > _TOP else None,
            reject_below=reject_below,
            accepted=int(accepted.sum()),
            accepted_right=int(correct[accepted].sum()),
            groups=count_groups(groups, len(labels)),
            interval=interval_of(np.arange(len(labels))),
            selective_interval=None if reject_below is None or not accepted.any() else interval_of(accepted),
            recall_intervals=np.array([interval_of(rows) if len(rows) else (np.nan, np.nan) for rows in by_class]),
            baseline=Baseline.judge(
                classes[always], labels == always, correct, groups, is_trained=commonest is not None
            ),
            notes=tuple(notes),
        )

    @property
    def n(self) -> int:
        """Number of evaluated images."""
        return int(self.confusion.sum())

    @property
    def support(self) -> np.ndarray:
        """(C,) int64, images of each class."""
        support: np.ndarray = self.confusion.sum(axis=1)
        return support

    @property
    def accuracy(self) -> float:
        """Share of images whose class is predicted correctly."""
        return float(np.trace(self.confusion) / self.n)

    @property
    def recall(self) -> np.ndarray:
        """(C,) float64, share of each class's images that are predicted as it; NaN for a class without images."""
        return ratio(np.diag(self.confusion), self.support)

    @property
    def precision(self) -> np.ndarray:
        """(C,) float64, share of each class's predictions that are correct; 0 for a class that is never predicted."""
        precision: np.ndarray = np.nan_to_num(ratio(np.diag(self.confusion), self.confusion.sum(axis=0)))
        return precision

    @property
    def f1(self) -> np.ndarray:
        """(C,) float64, harmonic mean of precision and recall; NaN for a class without images."""
        f1 = ratio(2.0 * np.diag(self.confusion), self.support + self.confusion.sum(axis=0))
        return np.where(self.support > 0, f1, np.nan)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have images."""
        return nan_mean(self.recall)

    @property
    def baseline_balanced_accuracy(self) -> float:
        """Balanced accuracy of always the same class that has images: 1 divided by the number of such classes."""
        return 1.0 / int((self.support > 0).sum())

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have images."""
        return nan_mean(self.f1)

    @property
    def overall_auroc(self) -> float:
        """AUROC of the second of two classes, otherwise the mean over the classes that have one; NaN if none has."""
        return overall(self.auroc)

    @property
    def overall_average_precision(self) -> float:
        """Average precision of the second of two classes, otherwise the mean over the classes that have images."""
        return overall(self.average_precision)

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al., 2017): the mean distance of accuracy and confidence over 15 bins."""
        return calibration_error(self.reliability)

    @property
    def mean_confidence(self) -> float:
        """Mean of the highest probabilities; a calibrated model's accuracy equals it."""
        return sum(b.count * b.confidence for b in self.reliability if b.count) / self.n

    @property
    def coverage(self) -> float | None:
        """Share of images whose prediction is accepted; None without a rejection threshold."""
        return None if self.reject_below is None else self.accepted / self.n

    @property
    def selective_accuracy(self) -> float | None:
        """Accuracy of the accepted predictions; None if there are none, or without a rejection threshold."""
        return None if self.reject_below is None or not self.accepted else self.accepted_right / self.accepted

    @property
    def headline(self) -> tuple[str, float]:
        """Name and value of the most important metric."""
        return "accuracy", self.accuracy

    @property
    def baseline_headline(self) -> float:
        """The accuracy of the baseline."""
        return self.baseline.share

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics that cross-validation averages over its folds; NaN where one is undefined.

        The calibration error is not among them: on the few images of a fold it is mostly noise, and biased upwards.
        """
        return {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "log_loss": self.log_loss,
            "auroc": self.overall_auroc,
            "average_precision": self.overall_average_precision,
            **({} if self.top5 is None else {"top5": self.top5}),
        }

    def with_notes(self, notes: Sequence[str]) -> ClassificationReport:
        """A copy with more notes, after those it has."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))

    def as_dict(self) -> dict[str, Any]:
        """The report as ``--json`` prints it and head files store it."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            **self.baseline.as_dict("accuracy"),
            "balanced_accuracy": self.balanced_accuracy,
            "baseline_balanced_accuracy": self.baseline_balanced_accuracy,
            "macro_f1": self.macro_f1,
            "log_loss": finite(self.log_loss),
            "auroc": finite(self.overall_auroc),
            "average_precision": finite(self.overall_average_precision),
            "top5": self.top5,
            "ece": finite(self.ece),
            "reject_below": self.reject_below,
            "coverage": self.coverage,
            "selective_accuracy": self.selective_accuracy,
            "selective_interval": None if self.selective_interval is None else list(self.selective_interval),
            "n": self.n,
            "groups": self.groups,
            "split": self.split,
            "per_class": _per_class(self),
            "confusion": self.confusion.tolist(),
            "reliability": [b.as_dict() for b in self.reliability],
            "notes": list(self.notes),
            **({} if self.sets is None else {"sets": self.sets.as_dict()}),
        }

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _top_accuracy(probabilities: np.ndarray, true: np.ndarray) -> float:
    """Share of rows in which at most five of (N, C) probabilities are as high as the true class's, (N,)."""
    as_high = (probabilities >= true[:, None]).sum(axis=1)
    return float(((as_high > 0) & (as_high <= _TOP)).mean())  # as_high is 0 where the probability is NaN


def _per_class(report: ClassificationReport) -> list[dict[str, Any]]:
    columns = {
        "precision": report.precision,
        "recall": report.recall,
        "f1": report.f1,
        "auroc": report.auroc,
        "average_precision": report.average_precision,
    }
    return [
        {"class": name, **{key: finite(values[row]) for key, values in columns.items()}, "support": int(n)}
        for row, (name, n) in enumerate(zip(report.classes, report.support, strict=True))
    ]


def _lines(report: ClassificationReport) -> list[str]:
    """The report as lines of text."""
    correct = f"{int(np.trace(report.confusion))} of {report.n:,} right"
    columns = {"precision": report.precision, "recall": report.recall, "F1": report.f1}
    columns |= {} if report.sets is None else {"in its set": report.sets.class_coverage}
    accuracy = f"{interval_text(report.interval)}; {correct}; {report.baseline}"
    stated = [("accuracy", f"{report.accuracy:.4f}", accuracy), *_rejection_lines(report)]
    lines = [
        f"Evaluated on {images_text(report)}",
        *metric_lines(stated if report.sets is None else [*stated, *report.sets.lines]),
        *metric_table({**report.metrics, "ece": report.ece}),
        "",
        *class_table("class", report.classes, columns, report.f1, report.support),
    ]
    if len(report.classes) <= _MOST_CLASSES_IN_TEXT:
        lines += ["", *confusion_table(report.classes, report.confusion)]
    return lines


def _rejection_lines(report: ClassificationReport) -> list[Line]:
    if report.coverage is None:
        return []
    accepted = f"probability at least {report.reject_below:.4g}: {report.accepted} of {counted(report.n, 'image')}"
    lines = [("accepted", f"{report.coverage:.4f}", accepted)]
    if report.selective_accuracy is not None and report.selective_interval is not None:
        correct = f"{report.accepted_right} of {counted(report.accepted, 'image')}"
        remark = f"{interval_text(report.selective_interval)}; {correct}"
        lines.append(("accuracy of these", f"{report.selective_accuracy:.4f}", remark))
    return lines
