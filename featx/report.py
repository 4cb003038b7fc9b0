"""What a classifier is worth on images it was not fitted to: numbers, tables, a picture."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.errors import OutputError

_CORNER = "true \\ predicted"
_MOST_CLASSES_IN_TEXT = 12
_MOST_CLASSES_WITH_NUMBERS = 30


@dataclass(frozen=True, eq=False)
class Report:
    """Metrics of predictions on one split.

    Attributes:
        classes: (C,) names.
        split: what was judged: "test", "val" or "all".
        confusion: (C, C) int64, rows are the true classes, columns the predicted.
        log_loss: mean of -ln p(true class), in nats.
        notes: what a reader of the numbers should know, one sentence each.
    """

    classes: tuple[str, ...]
    split: str
    confusion: np.ndarray
    log_loss: float
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        labels: np.ndarray,
        probabilities: np.ndarray,
        classes: Sequence[str],
        *,
        split: str,
        notes: Sequence[str] = (),
    ) -> Report:
        """Judge predictions.

        Args:
            labels: (N,) int64, N at least 1.
            probabilities: (N, C), rows sum to 1.
            classes: (C,) names.
            split: what the rows are.
            notes: what a reader of the numbers should know.
        """
        count = len(classes)
        predicted = probabilities.argmax(axis=1)
        confusion = np.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
        true = probabilities[np.arange(len(labels)), labels]
        loss = float(np.log(1.0 / np.clip(true, np.finfo(np.float64).eps, 1.0)).mean())
        return cls(tuple(classes), split, confusion, loss, tuple(notes))

    @property
    def n(self) -> int:
        """Images judged."""
        return int(self.confusion.sum())

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
        return _ratio(np.diag(self.confusion), self.confusion.sum(axis=1))

    @property
    def precision(self) -> np.ndarray:
        """(C,) share of each class's predictions that are right; 0 where it is never predicted."""
        precision: np.ndarray = np.nan_to_num(_ratio(np.diag(self.confusion), self.confusion.sum(axis=0)))
        return precision

    @property
    def f1(self) -> np.ndarray:
        """(C,) harmonic mean of precision and recall; NaN where a class has no images here."""
        support = self.confusion.sum(axis=1)
        f1 = _ratio(2.0 * np.diag(self.confusion), support + self.confusion.sum(axis=0))
        return np.where(support > 0, f1, np.nan)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have images here."""
        return float(np.nanmean(self.recall))

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have images here."""
        return float(np.nanmean(self.f1))

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        per_class = zip(self.classes, self.precision, self.recall, self.f1, self.confusion.sum(axis=1), strict=True)
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "log_loss": self.log_loss,
            "n": self.n,
            "split": self.split,
            "per_class": [
                {"class": name, "precision": _json(p), "recall": _json(r), "f1": _json(f), "support": int(n)}
                for name, p, r, f, n in per_class
            ],
            "confusion": self.confusion.tolist(),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        low, high = self.interval
        right = int(np.trace(self.confusion))
        lines = [
            f"accuracy           {self.accuracy:.4f}  (95 % interval {low:.4f} to {high:.4f}; "
            f"{right} of {self.n} images of split {self.split})",
            f"balanced accuracy  {self.balanced_accuracy:.4f}",
            f"macro F1           {self.macro_f1:.4f}",
            f"log loss           {self.log_loss:.4f}",
            "",
            *self._class_table(),
        ]
        if len(self.classes) <= _MOST_CLASSES_IN_TEXT:
            lines += ["", *self._confusion_table()]
        return "\n".join(lines)

    def save_png(self, path: str | os.PathLike[str]) -> None:
        """Draw the confusion matrix, shaded by the share of each true class.

        Raises:
            OutputError: the picture cannot be written.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        count = len(self.classes)
        side = min(max(3.5, 0.45 * count + 2), 18)
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        share = np.nan_to_num(_ratio(self.confusion, self.confusion.sum(axis=1, keepdims=True)))
        shades = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(shades, ax=axes, label="share of the true class", shrink=0.8)
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_title(f"accuracy {self.accuracy:.4f} on {self.n} images ({self.split})", fontsize=10)
        if count <= _MOST_CLASSES_WITH_NUMBERS:
            names = [_short(name).replace("$", r"\$") for name in self.classes]
            axes.set_xticks(range(count), names, rotation=45, ha="right")
            axes.set_yticks(range(count), names)
            for row, column in np.argwhere(self.confusion > 0):
                colour = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, str(self.confusion[row, column]), ha="center", va="center", color=colour)
        try:
            with warnings.catch_warnings():
                # A box will do for a letter that no font here has.
                warnings.filterwarnings("ignore", "Glyph", UserWarning)
                figure.savefig(path, format="png", dpi=120)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; name another file with -o") from error

    def _class_table(self) -> list[str]:
        width = max(5, *(len(_short(name)) for name in self.classes))
        lines = [f"{'class':<{width}}  precision  recall      F1  images"]
        support = self.confusion.sum(axis=1)
        for name, p, r, f, n in zip(self.classes, self.precision, self.recall, self.f1, support, strict=True):
            lines.append(f"{_short(name):<{width}}  {p:9.3f}  {r:6.3f}  {f:6.3f}  {n:6}")
        return lines

    def _confusion_table(self) -> list[str]:
        names = [_short(name) for name in self.classes]
        left = max(len(_CORNER), *map(len, names))
        widths = [max(len(name), len(str(self.confusion[:, i].max()))) for i, name in enumerate(names)]
        header = "  ".join(f"{name:>{w}}" for name, w in zip(names, widths, strict=True))
        lines = [f"{_CORNER:<{left}}  {header}"]
        for name, row in zip(names, self.confusion, strict=True):
            lines.append(f"{name:<{left}}  " + "  ".join(f"{n:>{w}}" for n, w in zip(row, widths, strict=True)))
        return lines


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, 1927)."""
    z = 1.959963984540054
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient: np.ndarray = np.asarray(part, dtype=np.float64) / whole
        return quotient


def _json(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _short(name: str, most: int = 24) -> str:
    """A class name as a table can show it: no line breaks or control characters, not too long."""
    printable = "".join(c if c.isprintable() else "?" for c in name)
    return printable if len(printable) <= most else printable[: most - 1] + "…"
