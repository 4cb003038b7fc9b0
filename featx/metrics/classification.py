"""What a head is worth on images it was not fitted to: numbers with intervals and tables, for every task."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.metrics.calibration import Bin, calibration_error, reliability_bins
from featx.metrics.scores import auroc_and_average_precision, finite, log_loss, mean_known, overall, ratio, wilson
from featx.metrics.tables import line, rows_left_out, rows_to_show, short_name

_CORNER = "true \\ predicted"
_MOST_CLASSES_IN_TEXT = 12

_TOP = 5


@dataclass(frozen=True, eq=False)
class ClassificationReport:
    """Metrics of a classifier's predictions on one split. N images of C classes.

    Attributes:
        classes: (C,) names.
        split: what was judged: "test", "val" or "all".
        confusion: (C, C) int64, rows are the true classes, columns the predicted.
        log_loss: mean of -ln p(true class), in nats.
        auroc: (C,) float64, area under the ROC curve of each class against the rest; NaN where a class has no image here, or
            every one.
        average_precision: (C,) float64, of each class against the rest, as scikit-learn defines it (no interpolation); NaN
            where a class has no image here.
        reliability: the 15 bins of the confidence, which is the highest probability.
        top5: share of images whose true class is among the five most probable, a tie counted as a miss; None for up to five
            classes.
        reject_below: the confidence that a prediction must reach to be accepted, or None.
        accepted: images whose prediction is accepted; all where nothing is rejected.
        accepted_right: how many of these are right.
        notes: what a reader of the numbers should know, one sentence each.
    """

    classes: tuple[str, ...]
    split: str
    confusion: np.ndarray
    log_loss: float
    auroc: np.ndarray
    average_precision: np.ndarray
    reliability: tuple[Bin, ...]
    top5: float | None
    reject_below: float | None
    accepted: int
    accepted_right: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        labels: np.ndarray,
        probabilities: np.ndarray,
        classes: Sequence[str],
        *,
        split: str,
        reject_below: float | None = None,
        notes: Sequence[str] = (),
    ) -> ClassificationReport:
        """Judge predictions.

        Args:
            labels: (N,) int64, N at least 1.
            probabilities: (N, C), rows sum to 1.
            classes: (C,) names.
            split: what the rows are.
            reject_below: predictions with a lower probability than this are not accepted.
            notes: what a reader of the numbers should know.
        """
        count = len(classes)
        predicted = probabilities.argmax(axis=1)
        true = probabilities[np.arange(len(labels)), labels]
        confidence = probabilities.max(axis=1)
        right = predicted == labels
        own = np.split(np.argsort(labels, kind="stable"), np.bincount(labels, minlength=count).cumsum()[:-1])
        auroc, average_precision = auroc_and_average_precision(probabilities, own)
        kept = np.full(len(labels), True) if reject_below is None else confidence >= reject_below
        return cls(
            classes=tuple(classes),
            split=split,
            confusion=np.bincount(labels * count + predicted, minlength=count * count).reshape(count, count),
            log_loss=log_loss(true),
            auroc=auroc,
            average_precision=average_precision,
            reliability=reliability_bins(confidence, right),
            top5=_among_the_first(probabilities, true) if count > _TOP else None,
            reject_below=reject_below,
            accepted=int(kept.sum()),
            accepted_right=int(right[kept].sum()),
            notes=tuple(notes),
        )

    @property
    def n(self) -> int:
        """Images judged."""
        return int(self.confusion.sum())

    @property
    def support(self) -> np.ndarray:
        """(C,) int64, images of each class."""
        support: np.ndarray = self.confusion.sum(axis=1)
        return support

    @property
    def accuracy(self) -> float:
        """Share of images whose class is right."""
        return float(np.trace(self.confusion) / self.n)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy (Wilson, 1927)."""
        return wilson(int(np.trace(self.confusion)), self.n)

    @property
    def recall(self) -> np.ndarray:
        """(C,) share of each class that is found; NaN where a class has no images here."""
        return ratio(np.diag(self.confusion), self.support)

    @property
    def precision(self) -> np.ndarray:
        """(C,) share of each class's predictions that are right; 0 where it is never predicted."""
        precision: np.ndarray = np.nan_to_num(ratio(np.diag(self.confusion), self.confusion.sum(axis=0)))
        return precision

    @property
    def f1(self) -> np.ndarray:
        """(C,) harmonic mean of precision and recall; NaN where a class has no images here."""
        f1 = ratio(2.0 * np.diag(self.confusion), self.support + self.confusion.sum(axis=0))
        return np.where(self.support > 0, f1, np.nan)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have images here."""
        return mean_known(self.recall)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have images here."""
        return mean_known(self.f1)

    @property
    def overall_auroc(self) -> float:
        """Of two classes that of the second, of more the mean over those that have one; NaN where none has."""
        return overall(self.auroc)

    @property
    def overall_average_precision(self) -> float:
        """Of two classes that of the second, of more the mean over those that have images here."""
        return overall(self.average_precision)

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al., 2017): how far accuracy is from confidence, on average over 15 bins."""
        return calibration_error(self.reliability)

    @property
    def mean_confidence(self) -> float:
        """What the accuracy would be, were the model calibrated."""
        return sum(b.count * b.confidence for b in self.reliability if b.count) / self.n

    @property
    def coverage(self) -> float | None:
        """Share of images whose prediction is accepted; None where nothing may be rejected."""
        return None if self.reject_below is None else self.accepted / self.n

    @property
    def selective_accuracy(self) -> float | None:
        """Accuracy of the accepted predictions; None where there are none, or nothing may be rejected."""
        return None if self.reject_below is None or not self.accepted else self.accepted_right / self.accepted

    @property
    def selective_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the selective accuracy (Wilson, 1927)."""
        return None if self.selective_accuracy is None else wilson(self.accepted_right, self.accepted)

    @property
    def headline(self) -> tuple[str, float]:
        """The first number that a reader asks for, and its name."""
        return "accuracy", self.accuracy

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers that folds are averaged in; NaN where one is undefined.

        Without the calibration error: of the few images of a fold it is mostly chance, and always upwards.
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
        """The same with more to know."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "balanced_accuracy": self.balanced_accuracy,
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
            "split": self.split,
            "per_class": self._per_class(),
            "confusion": self.confusion.tolist(),
            "reliability": [b.as_dict() for b in self.reliability],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        low, high = self.interval
        right = int(np.trace(self.confusion))
        of = f"{right} of {self.n} images of split {self.split}"
        lines = [
            line("accuracy", self.accuracy, f"95 % interval {low:.4f} to {high:.4f}; {of}"),
            line("balanced accuracy", self.balanced_accuracy),
            line("macro F1", self.macro_f1),
            line("log loss", self.log_loss),
            line("AUROC", self.overall_auroc, self._against(self.auroc)),
            line("average precision", self.overall_average_precision, self._against(self.average_precision)),
            *([] if self.top5 is None else [line("top-5", self.top5)]),
            line("calibration error", self.ece, f"mean confidence {self.mean_confidence:.4f}"),
            *self._selection(),
            "",
            *self._class_table(),
        ]
        if len(self.classes) <= _MOST_CLASSES_IN_TEXT:
            lines += ["", *self._confusion_table()]
        return "\n".join(lines)

    def _against(self, values: np.ndarray) -> str:
        """What the one number for several classes is."""
        if len(values) == 2:
            return f"{short_name(self.classes[1])} against {short_name(self.classes[0])}"
        return f"one class against the rest, mean of {int(np.isfinite(values).sum())} classes"

    def _selection(self) -> list[str]:
        if self.coverage is None:
            return []
        of = f"probability at least {self.reject_below:.4g}: {self.accepted} of {self.n} images"
        lines = [line("accepted", self.coverage, of)]
        if self.selective_accuracy is not None and self.selective_interval is not None:
            low, high = self.selective_interval
            of = f"95 % interval {low:.4f} to {high:.4f}; {self.accepted_right} of {self.accepted} images"
            lines.append(line("accuracy of these", self.selective_accuracy, of))
        return lines

    def _per_class(self) -> list[dict[str, Any]]:
        columns = {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "auroc": self.auroc,
            "average_precision": self.average_precision,
        }
        return [
            {"class": name, **{key: finite(values[row]) for key, values in columns.items()}, "support": int(n)}
            for row, (name, n) in enumerate(zip(self.classes, self.support, strict=True))
        ]

    def _class_table(self) -> list[str]:
        width = max(5, *(len(short_name(name)) for name in self.classes))
        lines = [f"{'class':<{width}}  precision  recall      F1  images"]
        precision, recall, f1, support = self.precision, self.recall, self.f1, self.support
        shown = rows_to_show(f1)
        for i in shown:
            name = short_name(self.classes[i])
            lines.append(f"{name:<{width}}  {precision[i]:9.3f}  {recall[i]:6.3f}  {f1[i]:6.3f}  {support[i]:6}")
        return [*lines, *rows_left_out(len(f1) - len(shown))]

    def _confusion_table(self) -> list[str]:
        names = [short_name(name) for name in self.classes]
        left = max(len(_CORNER), *map(len, names))
        widths = [max(len(name), len(str(self.confusion[:, i].max()))) for i, name in enumerate(names)]
        header = "  ".join(f"{name:>{w}}" for name, w in zip(names, widths, strict=True))
        lines = [f"{_CORNER:<{left}}  {header}"]
        for name, row in zip(names, self.confusion, strict=True):
            lines.append(f"{name:<{left}}  " + "  ".join(f"{n:>{w}}" for n, w in zip(row, widths, strict=True)))
        return lines


def _among_the_first(probabilities: np.ndarray, true: np.ndarray) -> float:
    """Share of rows in which at most five of (N, C) probabilities are as high as the true class's (N,)."""
    as_high = (probabilities >= true[:, None]).sum(axis=1)
    return float(((as_high > 0) & (as_high <= _TOP)).mean())  # 0 where it is NaN
