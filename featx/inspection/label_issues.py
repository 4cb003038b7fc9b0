"""Labels that are probably wrong, ranked by the out-of-fold probability of the given label.

N is the number of images of a set, n of those with an out-of-fold prediction, C of classes or labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.data.cells import BETWEEN_LABELS
from featx.inspection.out_of_fold import OutOfFold

LABEL_THRESHOLD = 0.5
"""The probability above which a label of a multi-label image is suggested (Datalab's)."""
WORST_WEIGHT = 0.8
"""The weight of the worst label in the score of a multi-label image; the others have a share of the rest (cleanlab's)."""
FAR = 0.05
"""The score of a regression's label below which, as a share of the median, it is an issue (Datalab's)."""

_TINY = 1e-6  # thresholds are compared up to this, as cleanlab does


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """How probable the given label of each image is, and what the head suggests instead.

    Attributes:
        scores: (N,) float64 between 0 and 1, low for labels that are probably wrong; NaN for images that were not judged.
        is_issue: (N,) bool, found by confident learning (regression: by its counterpart).
        given: (N,) object array of str, the label as the data set has it; "" for none.
        suggested: (N,) object array of str, the label that the head suggests, as a data set would have it (a class, labels with
            ``|`` between them, a number); "" where nothing was judged.
        confidence: (N,) float64, the probability of the suggested label; NaN for a regression and where nothing was judged.
        expected: the expected number of wrong labels.
        ranked: (n,) int64, the judged rows whose suggestion differs from the given label, the most suspicious first.
    """

    scores: np.ndarray
    is_issue: np.ndarray
    given: np.ndarray
    suggested: np.ndarray
    confidence: np.ndarray
    expected: int
    ranked: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """The findings by the names of Datalab's columns, (N,) each."""
        return {
            "is_label_issue": self.is_issue,
            "label_score": self.scores,
            "given_label": self.given,
            "predicted_label": self.suggested,
            "confidence": self.confidence,
        }


def find_label_issues(out_of_fold: OutOfFold, count: int) -> LabelIssues:
    """Judge the labels of a set of ``count`` images by their out-of-fold predictions."""
    scores, is_issue, given, suggested, confidence = {
        "classification": _of_classes,
        "multilabel": _of_label_sets,
        "regression": _of_numbers,
    }[out_of_fold.task](out_of_fold)
    rows = out_of_fold.rows
    differs = np.flatnonzero(given != suggested)
    order = differs[np.argsort(scores[differs], kind="stable")]
    return LabelIssues(
        _spread(scores, rows, count, np.nan),
        _spread(is_issue, rows, count, False),
        _spread(given, rows, count, ""),
        _spread(suggested, rows, count, ""),
        _spread(confidence, rows, count, np.nan),
        int(np.count_nonzero(is_issue)),
        rows[order],
    )


_Judged = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""(n,) scores, issues, given and suggested labels, and confidence."""


def confident_errors(y: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Find probably wrong labels by confident learning (Northcutt, Jiang and Chuang, 2021).

    A class is confident in an image if its probability reaches the mean probability of the class over the images that are
    given it. A label is an issue if another class is confident and more probable than the given one.

    Args:
        y: (n,) int64, the given classes.
        probabilities: (n, C), predicted out of fold.

    Returns:
        (n,) bool.
    """
    count = probabilities.shape[1]
    own = probabilities[np.arange(len(y)), y]
    sizes = np.bincount(y, minlength=count)
    means = np.bincount(y, weights=own, minlength=count) / np.maximum(sizes, 1)
    thresholds = np.where(sizes > 0, means, np.inf)
    confident = probabilities >= thresholds - _TINY
    best = probabilities.argmax(axis=1)
    guess = np.where(confident.sum(axis=1) > 1, best, confident.argmax(axis=1))
    wrong: np.ndarray = confident.any(axis=1) & (guess != y) & (own < probabilities.max(axis=1) - _TINY)
    return wrong


def _of_classes(predicted: OutOfFold) -> _Judged:
    y, p = predicted.y, predicted.outputs
    names = np.array(predicted.classes, dtype=object)
    best = p.argmax(axis=1)
    return p[np.arange(len(y)), y], confident_errors(y, p), names[y], names[best], p.max(axis=1)


def _of_label_sets(predicted: OutOfFold) -> _Judged:
    y, p = predicted.y > 0, predicted.outputs
    each = np.where(y, p, 1 - p)
    worst_last = -np.sort(-each, axis=1)
    scores = worst_last[:, 0]
    for label in range(1, worst_last.shape[1]):
        scores = WORST_WEIGHT * worst_last[:, label] + (1 - WORST_WEIGHT) * scores
    wrong = [confident_errors(y[:, c].astype(np.int64), np.stack([1 - p[:, c], p[:, c]], 1)) for c in range(p.shape[1])]
    suggested = p > LABEL_THRESHOLD
    confidence = np.where(suggested, p, 1 - p).prod(axis=1)
    return (
        scores,
        np.any(wrong, axis=0),
        _joined(y, predicted.classes),
        _joined(suggested, predicted.classes),
        confidence,
    )


def _of_numbers(predicted: OutOfFold) -> _Judged:
    residuals = (predicted.outputs - predicted.y)[:, 0]
    apart = np.abs(residuals - np.median(residuals))
    scores = np.exp(-apart / max(float(np.median(apart)), np.finfo(np.float64).tiny))
    given, suggested = (
        np.array([f"{value:.6g}" for value in column.tolist()], dtype=object)
        for column in (predicted.y[:, 0], predicted.outputs[:, 0])
    )
    return scores, scores < FAR * np.median(scores), given, suggested, np.full(len(scores), np.nan)


def _joined(has: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """(n,) the label strings of (n, C) bool, as a table has them."""
    out = np.empty(len(has), dtype=object)
    for row, labels in enumerate(has):
        out[row] = BETWEEN_LABELS.join(names[c] for c in np.flatnonzero(labels)) or BETWEEN_LABELS
    return out


def _spread(values: np.ndarray, rows: np.ndarray, count: int, fill: object) -> np.ndarray:
    """(count,) with the values at some rows, and ``fill`` elsewhere."""
    out = np.full(count, fill, dtype=values.dtype)
    out[rows] = values
    return out
