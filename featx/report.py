"""What a head is worth on images it was not fitted to: numbers with intervals and tables, for every task."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.errors import HeadError, listed

_MOST_IN_TABLE = 30  # classes of a table; of more, those with the least F1
_CORNER = "true \\ predicted"
_MOST_CLASSES_IN_TEXT = 12

BINS = 15
"""Of equal width, into which confidences are sorted (Guo et al., 2017)."""

_TOP = 5
_RESAMPLES = 1000
_MOST_RESAMPLED = 10_000  # images; of more, the quantiles are those of the normal distribution, to two digits
_BLOCK_BYTES = 64 << 20
_Z = 1.959963984540054  # the standard normal's 97.5 % quantile

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


@dataclass(frozen=True)
class Bin:
    """One bar of a reliability diagram: the images whose confidence is above ``low`` and at most ``high``.

    Attributes:
        low: left edge; a confidence of 0 is in the first bin.
        high: right edge.
        count: images (or decisions on a label) in it.
        right: how many of them are right (or have the label).
        confidence: their mean confidence; NaN where there are none.
    """

    low: float
    high: float
    count: int
    right: int
    confidence: float

    @property
    def accuracy(self) -> float:
        """Share that is right; that of a calibrated model is the confidence. NaN where there are none."""
        return self.right / self.count if self.count else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy (Wilson, 1927); None where there are none."""
        return wilson(self.right, self.count) if self.count else None

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        facts = {"low": self.low, "high": self.high, "count": self.count, "confidence": finite(self.confidence)}
        interval = None if self.interval is None else list(self.interval)
        return {**facts, "accuracy": finite(self.accuracy), "interval": interval}


@dataclass(frozen=True, eq=False)
class Report:
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
    ) -> Report:
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
        auroc, average_precision = _ranking(probabilities, own)
        kept = np.full(len(labels), True) if reject_below is None else confidence >= reject_below
        return cls(
            classes=tuple(classes),
            split=split,
            confusion=np.bincount(labels * count + predicted, minlength=count * count).reshape(count, count),
            log_loss=_loss(true),
            auroc=auroc,
            average_precision=average_precision,
            reliability=_reliability(confidence, right),
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
        return _ratio(np.diag(self.confusion), self.support)

    @property
    def precision(self) -> np.ndarray:
        """(C,) share of each class's predictions that are right; 0 where it is never predicted."""
        precision: np.ndarray = np.nan_to_num(_ratio(np.diag(self.confusion), self.confusion.sum(axis=0)))
        return precision

    @property
    def f1(self) -> np.ndarray:
        """(C,) harmonic mean of precision and recall; NaN where a class has no images here."""
        f1 = _ratio(2.0 * np.diag(self.confusion), self.support + self.confusion.sum(axis=0))
        return np.where(self.support > 0, f1, np.nan)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have images here."""
        return _mean(self.recall)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have images here."""
        return _mean(self.f1)

    @property
    def overall_auroc(self) -> float:
        """Of two classes that of the second, of more the mean over those that have one; NaN where none has."""
        return _overall(self.auroc)

    @property
    def overall_average_precision(self) -> float:
        """Of two classes that of the second, of more the mean over those that have images here."""
        return _overall(self.average_precision)

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al., 2017): how far accuracy is from confidence, on average over 15 bins."""
        return _calibration_error(self.reliability)

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

    def with_notes(self, notes: Sequence[str]) -> Report:
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
            _line("accuracy", self.accuracy, f"95 % interval {low:.4f} to {high:.4f}; {of}"),
            _line("balanced accuracy", self.balanced_accuracy),
            _line("macro F1", self.macro_f1),
            _line("log loss", self.log_loss),
            _line("AUROC", self.overall_auroc, self._against(self.auroc)),
            _line("average precision", self.overall_average_precision, self._against(self.average_precision)),
            *([] if self.top5 is None else [_line("top-5", self.top5)]),
            _line("calibration error", self.ece, f"mean confidence {self.mean_confidence:.4f}"),
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
            return f"{_short(self.classes[1])} against {_short(self.classes[0])}"
        return f"one class against the rest, mean of {int(np.isfinite(values).sum())} classes"

    def _selection(self) -> list[str]:
        if self.coverage is None:
            return []
        of = f"probability at least {self.reject_below:.4g}: {self.accepted} of {self.n} images"
        lines = [_line("accepted", self.coverage, of)]
        if self.selective_accuracy is not None and self.selective_interval is not None:
            low, high = self.selective_interval
            of = f"95 % interval {low:.4f} to {high:.4f}; {self.accepted_right} of {self.accepted} images"
            lines.append(_line("accuracy of these", self.selective_accuracy, of))
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
        width = max(5, *(len(_short(name)) for name in self.classes))
        lines = [f"{'class':<{width}}  precision  recall      F1  images"]
        precision, recall, f1, support = self.precision, self.recall, self.f1, self.support
        shown = _worst(f1)
        for i in shown:
            name = _short(self.classes[i])
            lines.append(f"{name:<{width}}  {precision[i]:9.3f}  {recall[i]:6.3f}  {f1[i]:6.3f}  {support[i]:6}")
        return [*lines, *_how_many_more(len(f1) - len(shown))]

    def _confusion_table(self) -> list[str]:
        names = [_short(name) for name in self.classes]
        left = max(len(_CORNER), *map(len, names))
        widths = [max(len(name), len(str(self.confusion[:, i].max()))) for i, name in enumerate(names)]
        header = "  ".join(f"{name:>{w}}" for name, w in zip(names, widths, strict=True))
        lines = [f"{_CORNER:<{left}}  {header}"]
        for name, row in zip(names, self.confusion, strict=True):
            lines.append(f"{name:<{left}}  " + "  ".join(f"{n:>{w}}" for n, w in zip(row, widths, strict=True)))
        return lines


@dataclass(frozen=True, eq=False)
class MultiLabelReport:
    """Metrics of predictions of any number of labels for each image, on one split. N images, C labels.

    Means over labels are over those that have an image here; ``notes`` says how many have none.

    Attributes:
        classes: (C,) names of the labels.
        split: what was judged: "test", "val" or "all".
        n: images judged.
        thresholds: (C,) float64; a label is predicted where its probability is at least this.
        found: (C,) int64, images that have the label and for which it is predicted.
        predicted: (C,) int64, images for which the label is predicted.
        support: (C,) int64, images that have the label.
        exact: images of which every label is right.
        log_loss: mean over images and labels of -ln p(what is true), in nats.
        auroc: (C,) float64; NaN where no image, or every image, has the label.
        average_precision: (C,) float64, as scikit-learn defines it (no interpolation); NaN where no image has the label.
        reliability: the 15 bins of the probability, over all images and labels; their accuracy is the share in which the
            label is there.
        notes: what a reader of the numbers should know, one sentence each.
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
    reliability: tuple[Bin, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        targets: np.ndarray,
        probabilities: np.ndarray,
        classes: Sequence[str],
        *,
        thresholds: np.ndarray,
        split: str,
        notes: Sequence[str] = (),
    ) -> MultiLabelReport:
        """Judge predictions.

        Args:
            targets: (N, C) of 0 and 1, any dtype, N at least 1.
            probabilities: (N, C), each of its own.
            classes: (C,) names of the labels.
            thresholds: (C,), the least probability at which each label is predicted; chosen on other rows than these.
            split: what the rows are.
            notes: what a reader of the numbers should know.
        """
        truth = targets > 0.5
        predicted = probabilities >= thresholds
        support = truth.sum(axis=0)
        absent = [_short(name) for name, images in zip(classes, support, strict=True) if not images]
        if absent:
            left_out = f"{len(absent)} of {len(classes)} labels are on no image of split {split}"
            notes = [*notes, f"{left_out} and do not count in means over labels: {listed(absent)}"]
        auroc, average_precision = _ranking(probabilities, [np.flatnonzero(column) for column in truth.T])
        return cls(
            classes=tuple(classes),
            split=split,
            n=len(truth),
            thresholds=np.asarray(thresholds, dtype=np.float64),
            found=(truth & predicted).sum(axis=0),
            predicted=predicted.sum(axis=0),
            support=support,
            exact=int((truth == predicted).all(axis=1).sum()),
            log_loss=_loss(np.where(truth, probabilities, 1.0 - probabilities)),
            auroc=auroc,
            average_precision=average_precision,
            reliability=_reliability(probabilities.ravel(), truth.ravel()),
            notes=tuple(notes),
        )

    @property
    def mean_average_precision(self) -> float:
        """The mAP: mean average precision over the labels that are on an image here; NaN where none is."""
        return _mean(self.average_precision)

    @property
    def macro_auroc(self) -> float:
        """Mean over the labels that some images here have, and some not; NaN where there is no such label."""
        return _mean(self.auroc)

    @property
    def recall(self) -> np.ndarray:
        """(C,) share of each label's images for which it is predicted; NaN where it is on none."""
        return _ratio(self.found, self.support)

    @property
    def precision(self) -> np.ndarray:
        """(C,) share of each label's predictions that are right; 0 where it is never predicted."""
        precision: np.ndarray = np.nan_to_num(_ratio(self.found, self.predicted))
        return precision

    @property
    def f1(self) -> np.ndarray:
        """(C,) harmonic mean of precision and recall; NaN where the label is on no image here."""
        return np.where(self.support > 0, _ratio(2.0 * self.found, self.support + self.predicted), np.nan)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the labels that are on an image here; NaN where none is."""
        return _mean(self.f1)

    @property
    def micro_f1(self) -> float:
        """F1 of all decisions together, on labels without an image too; NaN where no label is there and none predicted."""
        return float(_ratio(2.0 * self.found.sum(), self.support.sum() + self.predicted.sum()))

    @property
    def exact_match(self) -> float:
        """Share of images of which every label is right (subset accuracy)."""
        return self.exact / self.n

    @property
    def exact_match_interval(self) -> tuple[float, float]:
        """The 95 % interval of the exact match (Wilson, 1927)."""
        return wilson(self.exact, self.n)

    @property
    def hamming_loss(self) -> float:
        """Share of decisions, one for each image and label, that are wrong."""
        wrong = self.support.sum() + self.predicted.sum() - 2 * self.found.sum()
        return float(wrong / (self.n * len(self.classes)))

    @property
    def ece(self) -> float:
        """Expected calibration error: how far the share of a label is from its probability, over 15 bins of all decisions."""
        return _calibration_error(self.reliability)

    @property
    def headline(self) -> tuple[str, float]:
        """The first number that a reader asks for, and its name."""
        return "mAP", self.mean_average_precision

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers that folds are averaged in; NaN where one is undefined."""
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
        """The same with more to know."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            **{key: finite(value) for key, value in self.metrics.items()},
            "exact_match_interval": list(self.exact_match_interval),
            "ece": finite(self.ece),
            "n": self.n,
            "split": self.split,
            "per_label": self._per_label(),
            "reliability": [b.as_dict() for b in self.reliability],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        low, high = self.exact_match_interval
        labels = int(np.isfinite(self.average_precision).sum())
        of = f"{self.exact} of {self.n} images"
        lines = [
            _line(
                "mAP", self.mean_average_precision, f"mean of {labels} labels; {self.n} images of split {self.split}"
            ),
            _line("micro F1", self.micro_f1),
            _line("macro F1", self.macro_f1),
            _line("exact match", self.exact_match, f"95 % interval {low:.4f} to {high:.4f}; {of}"),
            _line("Hamming loss", self.hamming_loss),
            _line("log loss", self.log_loss, "of each label"),
            _line("AUROC", self.macro_auroc, f"mean of {int(np.isfinite(self.auroc).sum())} labels"),
            _line("calibration error", self.ece),
            "",
            *self._label_table(),
        ]
        return "\n".join(lines)

    @property
    def _columns(self) -> dict[str, np.ndarray]:
        return {
            "threshold": self.thresholds,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "average_precision": self.average_precision,
            "auroc": self.auroc,
        }

    def _per_label(self) -> list[dict[str, Any]]:
        return [
            {
                "label": name,
                **{key: finite(v[row]) for key, v in self._columns.items()},
                "support": int(self.support[row]),
            }
            for row, name in enumerate(self.classes)
        ]

    def _label_table(self) -> list[str]:
        width = max(5, *(len(_short(name)) for name in self.classes))
        lines = [f"{'label':<{width}}  threshold  precision  recall      F1      AP   AUROC  images"]
        shown = _worst(self.f1)
        for row in shown:
            t, p, r, f, ap, auroc = (values[row] for values in self._columns.values())
            numbers = f"{t:9.3f}  {p:9.3f}  {r:6.3f}  {f:6.3f}  {ap:6.3f}  {auroc:6.3f}  {self.support[row]:6}"
            lines.append(f"{_short(self.classes[row]):<{width}}  {numbers}")
        return [*lines, *_how_many_more(len(self.classes) - len(shown))]


@dataclass(frozen=True, eq=False)
class RegressionReport:
    """Metrics of predicted numbers on one split, in the target's unit.

    Attributes:
        split: what was judged: "test", "val" or "all".
        n: images judged.
        rmse: root of the mean squared error.
        mae: mean absolute error.
        interval: the 95 % interval of the RMSE, or None where so few (or so equal) errors tell none.
        baseline_rmse: of predicting for every image the mean of these targets: their standard deviation.
        r2: 1 less the squared ratio of RMSE and baseline; None where all targets are equal.
        notes: what a reader of the numbers should know, one sentence each.
    """

    split: str
    n: int
    rmse: float
    mae: float
    interval: tuple[float, float] | None
    baseline_rmse: float
    r2: float | None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, targets: np.ndarray, predictions: np.ndarray, *, split: str, notes: Sequence[str] = ()
    ) -> RegressionReport:
        """Judge predictions.

        The interval is a bootstrap-t's (Efron and Tibshirani, 1993, chapter 12) on the log of the mean squared error, from
        1,000 resamples of a fixed seed. Unlike chi-square's it does not take the errors for normal, and unlike a percentile
        bootstrap's it keeps nearly its 95 % with 30 images.

        Args:
            targets: (N,), N at least 1; (N, 1) will do.
            predictions: (N,), as the targets.
            split: what the rows are.
            notes: what a reader of the numbers should know.

        Raises:
            HeadError: anything but one number for each image.
        """
        targets, predictions = _one_column(targets), _one_column(predictions)
        if len(targets) != len(predictions):
            raise HeadError(f"{len(predictions)} predictions for {len(targets)} targets; expected as many")
        errors = predictions - targets
        rmse = math.sqrt((errors**2).mean())
        # Of equal numbers the deviation is rarely 0 exactly.
        constant = bool((targets == targets[0]).all())
        baseline = 0.0 if constant else float(targets.std())
        if constant:
            notes = [*notes, f"all targets of split {split} are equal, so that R2 says nothing"]
        return cls(
            split=split,
            n=len(targets),
            rmse=rmse,
            mae=float(np.abs(errors).mean()),
            interval=_rmse_interval(errors),
            baseline_rmse=baseline,
            r2=None if constant else 1.0 - (rmse / baseline) ** 2,
            notes=tuple(notes),
        )

    @property
    def headline(self) -> tuple[str, float]:
        """The first number that a reader asks for, and its name."""
        return "RMSE", self.rmse

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers that folds are averaged in; NaN where one is undefined."""
        return {"rmse": self.rmse, "mae": self.mae, "r2": math.nan if self.r2 is None else self.r2}

    def with_notes(self, notes: Sequence[str]) -> RegressionReport:
        """The same with more to know."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "rmse": finite(self.rmse),
            "interval": None if self.interval is None else list(self.interval),
            "mae": finite(self.mae),
            "r2": finite(self.metrics["r2"]),
            "baseline_rmse": finite(self.baseline_rmse),
            "n": self.n,
            "split": self.split,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        told = "no interval can be told"
        if self.interval is not None:
            told = "95 % interval {:.6g} to {:.6g}, bootstrap".format(*self.interval)
        lines = [
            _line("RMSE", f"{self.rmse:.6g}", f"{told}; {self.n} images of split {self.split}"),
            _line("MAE", f"{self.mae:.6g}"),
            _line("R2", "none" if self.r2 is None else self.r2),
            _line("RMSE of the mean", f"{self.baseline_rmse:.6g}", "what always predicting the mean target would give"),
        ]
        return "\n".join(lines)


AnyReport = Report | MultiLabelReport | RegressionReport
"""What all three have: n, split, notes, headline, metrics, with_notes, as_dict and a text."""


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
    def of(cls, reports: Sequence[AnyReport], *, repeats: int = 1, notes: Sequence[str] = ()) -> CrossValidated:
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
        return _mean(self.values[metric])

    def deviation(self, metric: str) -> float:
        """Standard deviation over all folds of all repeats; NaN for fewer than two."""
        return _deviation(self.values[metric])

    def between_repeats(self, metric: str) -> float:
        """Standard deviation of the repeats' means: what the drawing of the folds alone does. NaN for one repeat."""
        return _deviation(np.array([_mean(repeat) for repeat in self.values[metric]]))

    def range(self, metric: str) -> tuple[float, float]:
        """The lowest and the highest of all folds; NaN where none has one."""
        known = _known(self.values[metric])
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
        return _line(_WORDS[metric], value, remark)


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, 1927)."""
    z = _Z
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _ranking(scores: np.ndarray, positives: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision of each column against its own positive rows.

    Args:
        scores: (N, C).
        positives: (C,) arrays of rows.

    Returns:
        (C,) and (C,) float64; NaN where undefined.
    """
    auroc, average_precision = np.full(len(positives), np.nan), np.full(len(positives), np.nan)
    step = max(1, _BLOCK_BYTES // (len(scores) * scores.itemsize))
    for first in range(0, len(positives), step):
        # Turned over, a block at a time: a column of a wide matrix would be read from memory once for each of its numbers.
        columns = np.ascontiguousarray(scores[:, first : first + step].T)
        for label, column in enumerate(columns, first):
            auroc[label], average_precision[label] = _areas(column, positives[label])
    return auroc, average_precision


def _areas(scores: np.ndarray, positives: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve, from ranks (Mann and Whitney, 1947), and average precision; ties share a rank.

    Args:
        scores: (N,).
        positives: (P,) rows.
    """
    everyone, own = np.sort(scores), np.sort(scores[positives])
    n, count = len(everyone), len(own)
    if not count or np.isnan(everyone[-1]):
        return math.nan, math.nan
    below = np.searchsorted(everyone, own, side="left")
    precision = (count - np.searchsorted(own, own, side="left")) / (n - below)
    if count == n:
        return math.nan, float(precision.mean())
    ranks = (below + np.searchsorted(everyone, own, side="right") + 1) / 2
    wins = ranks.sum() - count * (count + 1) / 2
    return float(wins / (count * (n - count))), float(precision.mean())


def _reliability(confidence: np.ndarray, right: np.ndarray) -> tuple[Bin, ...]:
    """The bins of (M,) confidences, each with how many of its (M,) bool are true."""
    edges = np.arange(BINS + 1) / BINS
    counts, rights, sums = np.zeros(BINS, dtype=np.int64), np.zeros(BINS), np.zeros(BINS)
    step = _BLOCK_BYTES // 64
    for at in range(0, len(confidence), step):
        values, hits = confidence[at : at + step], right[at : at + step]
        which = np.minimum(np.searchsorted(edges[1:], values, side="left"), BINS - 1)
        counts += np.bincount(which, minlength=BINS)
        rights += np.bincount(which, weights=hits, minlength=BINS)
        sums += np.bincount(which, weights=values, minlength=BINS)
    means = _ratio(sums, counts)
    return tuple(
        Bin(float(edges[i]), float(edges[i + 1]), int(counts[i]), int(rights[i]), float(means[i])) for i in range(BINS)
    )


def _calibration_error(bins: Sequence[Bin]) -> float:
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins if b.count) / sum(b.count for b in bins)


def _among_the_first(probabilities: np.ndarray, true: np.ndarray) -> float:
    """Share of rows in which at most five of (N, C) probabilities are as high as the true class's (N,)."""
    as_high = (probabilities >= true[:, None]).sum(axis=1)
    return float(((as_high > 0) & (as_high <= _TOP)).mean())  # 0 where it is NaN


def _loss(true: np.ndarray) -> float:
    """Mean of -ln of probabilities, which a certain 0 does not make infinite."""
    return float(np.log(1.0 / np.clip(true, np.finfo(np.float64).eps, 1.0)).mean())


def _rmse_interval(errors: np.ndarray) -> tuple[float, float] | None:
    """The 95 % bootstrap-t interval of the root of the mean of (N,) squared errors, on a log scale."""
    squares = errors**2
    mean, deviation = squares.mean(), squares.std()
    if not np.isfinite(deviation) or deviation <= 1e-12 * mean:
        return None
    low, high = _quantiles(squares / mean)
    error = deviation / mean / math.sqrt(len(squares))
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return math.sqrt(mean * math.exp(-high * error)), math.sqrt(mean * math.exp(-low * error))


def _quantiles(values: np.ndarray) -> tuple[float, float]:
    """2.5 and 97.5 % quantiles of the studentised log of resampled means of (N,) values of mean 1.

    A resample of one value over and over has no deviation, so its quotient is infinite; where that is not rare, as with
    three values, so is a quantile.
    """
    n = len(values)
    if n > _MOST_RESAMPLED:
        return -_Z, _Z
    rng = np.random.default_rng(0)
    t = np.empty(_RESAMPLES)
    step = max(1, _MOST_RESAMPLED * 10 // n)
    for at in range(0, _RESAMPLES, step):
        some = t[at : at + step]
        drawn = values[rng.integers(n, size=(len(some), n))]
        mean, deviation = drawn.mean(axis=1), drawn.std(axis=1)
        varied = deviation > 1e-12 * mean
        some[~varied] = np.copysign(np.inf, mean[~varied] - 1.0)
        some[varied] = np.log(mean[varied]) * mean[varied] * math.sqrt(n) / deviation[varied]
    low, high = np.quantile(t, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def _one_column(values: np.ndarray) -> np.ndarray:
    """(N,) float64 of (N,) or (N, 1)."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise HeadError(f"numbers of shape {values.shape}; a report is of one number for each image, (N,)")
    return values


def _undefined(reports: Sequence[AnyReport], values: Mapping[str, np.ndarray]) -> list[str]:
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


def _known(values: np.ndarray) -> np.ndarray:
    known: np.ndarray = values[~np.isnan(values)]
    return known


def _mean(values: np.ndarray) -> float:
    """Of those that are not NaN; NaN where all are."""
    known = _known(values)
    return float(known.mean()) if known.size else math.nan


def _deviation(values: np.ndarray) -> float:
    """Standard deviation of those that are not NaN, with a divisor of one less; NaN for fewer than two."""
    known = _known(values)
    return float(known.std(ddof=1)) if known.size > 1 else math.nan


def _overall(values: np.ndarray) -> float:
    """One number for (C,) classes, each against the rest."""
    return float(values[1]) if len(values) == 2 else _mean(values)


def _line(name: str, value: float | str, remark: str = "") -> str:
    number = value if isinstance(value, str) else f"{value:.4f}"
    return f"{name:<17}  {number}" + (f"  ({remark})" if remark else "")


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient: np.ndarray = np.asarray(part, dtype=np.float64) / whole
        return quotient


def finite(value: Any) -> Any:
    """As JSON has it: None for NaN and infinity."""
    if not isinstance(value, float):
        return value
    return float(value) if math.isfinite(value) else None


def _short(name: str, most: int = 24) -> str:
    """A class name as a table can show it: no line breaks or control characters, not too long."""
    printable = "".join(c if c.isprintable() else "?" for c in name)
    return printable if len(printable) <= most else printable[: most - 1] + "…"


def _worst(f1: np.ndarray) -> np.ndarray:
    """The classes that a table shows: all in their order, or of many those with the least F1, those first."""
    if len(f1) <= _MOST_IN_TABLE:
        return np.arange(len(f1))
    return np.argsort(f1, kind="stable")[:_MOST_IN_TABLE]  # NaN, of a class without images, comes last


def _how_many_more(count: int) -> list[str]:
    return [f"and {count:,} more, with no less F1 or no images here"] if count else []
