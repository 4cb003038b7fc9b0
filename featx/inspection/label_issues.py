"""Labels that are probably wrong, ranked by the out-of-fold probability of the given label.

N is the number of images of a set, n of those with an out-of-fold prediction, C of classes or labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from featx.inspection.neighbours import NEIGHBOURS, Neighbours
from featx.inspection.out_of_fold import OutOfFold, label_strings

LABEL_THRESHOLD = 0.5
"""The probability above which a label of a multi-label image is suggested (Datalab's)."""
WORST_WEIGHT = 0.8
"""The weight of the worst label in the score of a multi-label image; the others have a share of the rest (cleanlab's)."""
FAR = 0.05
"""The score of a regression's label below which, as a share of the median, it is an issue (Datalab's)."""

NEAR = 2.0
"""The difference up to which a regression's suggestion counts as the given number, in medians of all differences."""

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
        ranked: (n,) int64, the judged rows whose suggestion differs from the given label, the most suspicious first; of a
            regression, by more than ``NEAR`` medians of all differences.
        missing: (N, C) bool, labels that an image of a multi-label set probably lacks; (N, 0) for other tasks.
        superfluous: (N, C) bool, labels that it probably has without reason.
        scores_of_labels: (N, C) float64, the probability that the image rightly has, or rightly lacks, each label; NaN for
            images that were not judged.
    """

    scores: np.ndarray
    is_issue: np.ndarray
    given: np.ndarray
    suggested: np.ndarray
    confidence: np.ndarray
    expected: int
    ranked: np.ndarray
    missing: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype=bool))
    superfluous: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype=bool))
    scores_of_labels: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    def columns(self) -> dict[str, np.ndarray]:
        """The findings by the names of Datalab's columns, (N,) each."""
        return {
            "is_label_issue": self.is_issue,
            "label_score": self.scores,
            "given_label": self.given,
            "predicted_label": self.suggested,
            "confidence": self.confidence,
        }


def find_label_issues(out_of_fold: OutOfFold, count: int, neighbours: Neighbours | None = None) -> LabelIssues:
    """Judge the labels of a set of ``count`` images by their out-of-fold predictions, and by the labels of their neighbours.

    The probability of a label is the head's, averaged with the votes of the nearest labelled images of other groups: the head's
    counts as ``NEIGHBOURS`` votes. That ranks wrong labels better than either alone. Numbers are judged by the head alone:
    neighbours do not improve that.

    Args:
        out_of_fold: predictions of the labelled images.
        count: N, the number of images of the set.
        neighbours: of all N images; None: the head alone judges.

    Example:

        features = featx.FeatureSet.load("cache/photos--resnet50.h5")
        out_of_fold = predict_out_of_fold(features, featx.Head("logreg"))
        found = find_label_issues(out_of_fold, len(features), nearest_neighbours(features))
        print(found.expected, features.paths[found.ranked[:10]], found.suggested[found.ranked[:10]])
    """
    outputs = out_of_fold.outputs
    if neighbours is not None and out_of_fold.task != "regression":
        outputs = with_votes(out_of_fold, count, neighbours)
    judged = {"classification": _of_classes, "multilabel": _of_label_sets, "regression": _of_numbers}
    found = judged[out_of_fold.task](out_of_fold, outputs)
    rows, scores = out_of_fold.rows, found.scores
    order = found.differs[np.argsort(scores[found.differs], kind="stable")]
    return LabelIssues(
        _spread(scores, rows, count, np.nan),
        _spread(found.is_issue, rows, count, False),
        _spread(out_of_fold.given, rows, count, ""),
        _spread(found.suggested, rows, count, ""),
        _spread(found.confidence, rows, count, np.nan),
        int(np.count_nonzero(found.is_issue)),
        rows[order],
        *_of_each_label(out_of_fold, found, count),
    )


def with_votes(predicted: OutOfFold, count: int, neighbours: Neighbours) -> np.ndarray:
    """Average the outputs of the head with the labels of the nearest images of other groups: (n, C).

    Args:
        predicted: n images of the set.
        count: N, the number of images of the set.
        neighbours: of all N images. Those without a label, of the image's own group, or without features have no vote.
    """
    is_class = predicted.task == "classification"
    labels = np.eye(len(predicted.classes))[predicted.y] if is_class else predicted.y
    place = np.full(count + 1, -1)  # the last is that of a neighbour that is missing
    place[predicted.rows] = np.arange(len(predicted.rows))
    total, votes = NEIGHBOURS * predicted.outputs, np.full(len(labels), float(NEIGHBOURS))
    for column in neighbours.indices[predicted.rows].T:
        voter = place[column]
        counts = (voter >= 0) & (predicted.groups[voter] != predicted.groups)
        total[counts] += labels[voter[counts]]
        votes += counts
    averages: np.ndarray = total / votes[:, None]
    return averages


@dataclass(frozen=True, eq=False)
class _Judged:
    """What is found about n labels.

    Attributes:
        scores: (n,) float64.
        is_issue: (n,) bool.
        suggested: (n,) object array of str.
        confidence: (n,) float64.
        differs: int64, those whose suggestion is not the given label.
        of_labels: (n, C) float64, the score of each label of a multi-label image; None for other tasks.
        wrong: (n, C) bool, whether each label is an issue; None for other tasks.
    """

    scores: np.ndarray
    is_issue: np.ndarray
    suggested: np.ndarray
    confidence: np.ndarray
    differs: np.ndarray
    of_labels: np.ndarray | None = None
    wrong: np.ndarray | None = None


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


def _of_classes(predicted: OutOfFold, p: np.ndarray) -> _Judged:
    y, best = predicted.y, p.argmax(axis=1)
    suggested = label_strings(best, predicted.classes, predicted.task)
    own = p[np.arange(len(y)), y]
    return _Judged(own, confident_errors(y, p), suggested, p.max(axis=1), np.flatnonzero(best != y))


def _of_label_sets(predicted: OutOfFold, p: np.ndarray) -> _Judged:
    y = predicted.y > 0
    each = np.where(y, p, 1 - p)
    worst_last = -np.sort(-each, axis=1)
    scores = worst_last[:, 0]
    for label in worst_last[:, 1:].T:
        scores = WORST_WEIGHT * label + (1 - WORST_WEIGHT) * scores
    both = np.stack([1 - p, p], axis=2)
    wrong = np.column_stack([confident_errors(y[:, c].astype(np.int64), both[:, c]) for c in range(p.shape[1])])
    best = p > LABEL_THRESHOLD
    suggested = label_strings(best, predicted.classes, predicted.task)
    confidence = np.maximum(p, 1 - p).min(axis=1)
    differs = np.flatnonzero((best != y).any(axis=1))
    return _Judged(scores, np.array(wrong.any(axis=1)), suggested, confidence, differs, each, wrong)


def _of_numbers(predicted: OutOfFold, values: np.ndarray) -> _Judged:
    apart = np.abs(values - predicted.y)[:, 0]
    spread = max(float(np.median(apart)), _TINY * float(np.abs(predicted.y).max(initial=_TINY)))
    scores = np.exp(-apart / spread)
    suggested = label_strings(values, predicted.classes, predicted.task)
    unknown = np.full(len(scores), np.nan)
    return _Judged(scores, scores < FAR * np.median(scores), suggested, unknown, np.flatnonzero(apart > NEAR * spread))


def _of_each_label(predicted: OutOfFold, found: _Judged, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels that are missing, labels that are superfluous, and the score of each: (N, C), or (N, 0) without such labels."""
    if found.wrong is None or found.of_labels is None:
        return np.empty((count, 0), dtype=bool), np.empty((count, 0), dtype=bool), np.empty((count, 0))
    rows, has = predicted.rows, predicted.y > 0
    missing, superfluous = (_spread(found.wrong & state, rows, count, False) for state in (~has, has))
    return missing, superfluous, _spread(found.of_labels, rows, count, np.nan)


def _spread(values: np.ndarray, rows: np.ndarray, count: int, fill: object) -> np.ndarray:
    """(count, ...) with the values at some rows, and ``fill`` elsewhere."""
    out = np.full((count, *values.shape[1:]), fill, dtype=values.dtype)
    out[rows] = values
    return out
