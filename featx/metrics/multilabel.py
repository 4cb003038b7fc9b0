"""The report of a multi-label head: what it is worth on images it was not fitted to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.metrics.calibration import Bin, calibration_error, reliability_bins
from featx.metrics.scores import auroc_and_average_precision, finite, log_loss, mean_known, ratio, wilson
from featx.metrics.tables import line, rows_left_out, rows_to_show, short_name
from featx.text import listed


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
        absent = [short_name(name) for name, images in zip(classes, support, strict=True) if not images]
        if absent:
            left_out = f"{len(absent)} of {len(classes)} labels are on no image of split {split}"
            notes = [*notes, f"{left_out} and do not count in means over labels: {listed(absent)}"]
        auroc, average_precision = auroc_and_average_precision(
            probabilities, [np.flatnonzero(column) for column in truth.T]
        )
        return cls(
            classes=tuple(classes),
            split=split,
            n=len(truth),
            thresholds=np.asarray(thresholds, dtype=np.float64),
            found=(truth & predicted).sum(axis=0),
            predicted=predicted.sum(axis=0),
            support=support,
            exact=int((truth == predicted).all(axis=1).sum()),
            log_loss=log_loss(np.where(truth, probabilities, 1.0 - probabilities)),
            auroc=auroc,
            average_precision=average_precision,
            reliability=reliability_bins(probabilities.ravel(), truth.ravel()),
            notes=tuple(notes),
        )

    @property
    def mean_average_precision(self) -> float:
        """The mAP: mean average precision over the labels that are on an image here; NaN where none is."""
        return mean_known(self.average_precision)

    @property
    def macro_auroc(self) -> float:
        """Mean over the labels that some images here have, and some not; NaN where there is no such label."""
        return mean_known(self.auroc)

    @property
    def recall(self) -> np.ndarray:
        """(C,) share of each label's images for which it is predicted; NaN where it is on none."""
        return ratio(self.found, self.support)

    @property
    def precision(self) -> np.ndarray:
        """(C,) share of each label's predictions that are right; 0 where it is never predicted."""
        precision: np.ndarray = np.nan_to_num(ratio(self.found, self.predicted))
        return precision

    @property
    def f1(self) -> np.ndarray:
        """(C,) harmonic mean of precision and recall; NaN where the label is on no image here."""
        return np.where(self.support > 0, ratio(2.0 * self.found, self.support + self.predicted), np.nan)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the labels that are on an image here; NaN where none is."""
        return mean_known(self.f1)

    @property
    def micro_f1(self) -> float:
        """F1 of all decisions together, on labels without an image too; NaN where no label is there and none predicted."""
        return float(ratio(2.0 * self.found.sum(), self.support.sum() + self.predicted.sum()))

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
        return calibration_error(self.reliability)

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
            line("mAP", self.mean_average_precision, f"mean of {labels} labels; {self.n} images of split {self.split}"),
            line("micro F1", self.micro_f1),
            line("macro F1", self.macro_f1),
            line("exact match", self.exact_match, f"95 % interval {low:.4f} to {high:.4f}; {of}"),
            line("Hamming loss", self.hamming_loss),
            line("log loss", self.log_loss, "of each label"),
            line("AUROC", self.macro_auroc, f"mean of {int(np.isfinite(self.auroc).sum())} labels"),
            line("calibration error", self.ece),
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
        width = max(5, *(len(short_name(name)) for name in self.classes))
        lines = [f"{'label':<{width}}  threshold  precision  recall      F1      AP   AUROC  images"]
        shown = rows_to_show(self.f1)
        for row in shown:
            t, p, r, f, ap, auroc = (values[row] for values in self._columns.values())
            numbers = f"{t:9.3f}  {p:9.3f}  {r:6.3f}  {f:6.3f}  {ap:6.3f}  {auroc:6.3f}  {self.support[row]:6}"
            lines.append(f"{short_name(self.classes[row]):<{width}}  {numbers}")
        return [*lines, *rows_left_out(len(self.classes) - len(shown))]
