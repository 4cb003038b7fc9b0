"""From scores to probabilities that mean what they say, and from probabilities to decisions; all on held-out rows.

N is the number of rows, C of classes or labels. numpy, scipy and scikit-learn only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression

from featx.errors import HeadError

KNOTS = 128
"""Of each class's isotonic curve; where it has more, evenly spaced ones are kept."""


def fit_temperature(
    scores: np.ndarray, y: np.ndarray, task: str = "classification", *, weight: np.ndarray | None = None
) -> float:
    """The T for which softmax(scores / T), or sigmoid(scores / T), has the least log loss (Guo et al., 2017).

    To smoothed labels, as Platt (1999) has them: each label gives 1 / (N + C) to every other class, and 1 / (N + 2) to the
    other answer where labels are asked one by one. Where every score is right, plain labels would ask for endless certainty.

    Args:
        scores: (N, C) float64, of held-out rows.
        y: (N,) int64 for classification; (N, C) of 0 and 1 for multilabel.
        task: "classification" or "multilabel".
        weight: (N,) how much each row counts; alike, unless given.
    """
    one_by_one, count = task == "multilabel", scores.shape[1]
    share = 1.0 / (len(y) + (2 if one_by_one else count))
    if one_by_one:
        said = ((y * (1.0 - 2.0 * share) + share) * scores).mean(axis=1)
    else:
        scores = scores - scores.mean(axis=1, keepdims=True)  # which no softmax sees; now each row sums to 0
        said = (1.0 - count * share) * scores[np.arange(len(y)), y]
    spread = float(np.abs(scores).mean()) or 1.0
    top = scores.max(axis=1, keepdims=True)

    def loss(t: float) -> float:
        inverse = float(np.exp(-t)) / spread
        if one_by_one:
            normal = np.logaddexp(0.0, scores * inverse).mean(axis=1)
        else:
            normal = np.log(np.exp((scores - top) * inverse).sum(axis=1)) + top[:, 0] * inverse
        return float(np.average(normal - said * inverse, weights=weight))

    fit = minimize_scalar(loss, bounds=(-6.0, 6.0), method="bounded")
    return spread * float(np.exp(fit.x))


@dataclass(frozen=True, eq=False)
class Isotonic:
    """A rising curve for each class, from the probability that a head gives to the share of rows that it was right of.

    Attributes:
        x: (C, K) float64, ascending: probabilities; what is left over of K repeats the last.
        y: (C, K) float64, ascending: shares in 0..1.
        doubt: () float64, how much of the uncalibrated probability, and then of an even one, is mixed in.
    """

    x: np.ndarray
    y: np.ndarray
    doubt: np.ndarray

    def apply(self, probabilities: np.ndarray, *, normalise: bool = True) -> np.ndarray:
        """(N, C) probabilities, calibrated.

        Args:
            probabilities: (N, C), as the head gives them.
            normalise: divide each row by its sum, as classes exclude each other; not for labels, which do not.

        Returns:
            (N, C) float64, none of them 0. A row for which every curve is 0 stays as it was, but for the doubt.
        """
        curves = zip(probabilities.T, self.x, self.y, strict=True)
        steps = np.stack([np.interp(column, x, y) for column, x, y in curves], axis=1)
        mixed: np.ndarray = (1.0 - self.doubt) * steps + self.doubt * probabilities
        if normalise:
            mixed /= mixed.sum(axis=1, keepdims=True)
        doubted: np.ndarray = (1.0 - self.doubt) * mixed + self.doubt / (probabilities.shape[1] if normalise else 2)
        return doubted


def fit_isotonic(probabilities: np.ndarray, y: np.ndarray, *, weight: np.ndarray | None = None) -> Isotonic:
    """Isotonic calibration, one class against the rest (Zadrozny & Elkan, 2002), by scikit-learn's ``IsotonicRegression``.

    A step says 0 or 1 wherever all rows of one end are alike, which N rows cannot know; so the curves are doubted by
    1 / (N + 2). With the uncalibrated probability mixed in, rows on one step keep their order; with an even one, the log loss
    of a row that is wrong stays finite. A class that no row has, or every row, has a straight line for a curve.

    Args:
        probabilities: (N, C), of held-out rows.
        y: (N,) int64 of classes; or (N, C) of 0 and 1, labels.
        weight: (N,) how much each row counts; alike, unless given.
    """
    count = probabilities.shape[1]
    hits = y if y.ndim == 2 else y[:, None] == np.arange(count)
    knots = np.empty((2, count, KNOTS))
    for label in range(count):
        x, share = np.array([0.0, 1.0]), np.array([0.0, 1.0])
        if hits[:, label].min() < hits[:, label].max():
            curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
            curve.fit(probabilities[:, label].astype(np.float64), hits[:, label].astype(np.float64), weight)
            x, share = curve.X_thresholds_, curve.y_thresholds_
        if len(x) > KNOTS:
            kept = np.rint(np.linspace(0, len(x) - 1, KNOTS)).astype(np.int64)
            x, share = x[kept], share[kept]
        knots[0, label] = np.pad(x, (0, KNOTS - len(x)), mode="edge")
        knots[1, label] = np.pad(share, (0, KNOTS - len(share)), mode="edge")
    return Isotonic(knots[0], knots[1], np.array(1.0 / (len(y) + 2.0)))


class Rejection(NamedTuple):
    """Below which confidence a head says nothing, and what that was worth on the rows it was chosen on.

    Attributes:
        threshold: the least confidence that is let through.
        coverage: the share of rows that are.
        precision: the share of those that are right.
    """

    threshold: float
    coverage: float
    precision: float


def threshold_for_precision(probabilities: np.ndarray, y: np.ndarray, wanted: float) -> Rejection:
    """The least confidence P such that rows of confidence P or more are right as often as is wanted.

    Precision is the plain share of these rows, no lower bound of it: what was asked for, measured where it was chosen. On
    few rows it flatters; how it turns out on others, the verdict on the test rows says, with its interval.

    Args:
        probabilities: (N, C), of held-out rows; a row's confidence is its largest.
        y: (N,) int64, classes.
        wanted: precision, above 0 and at most 1.

    Raises:
        HeadError: no confidence gives that precision; the best that one gives is said.
    """
    if not 0.0 < wanted <= 1.0:
        raise HeadError(f"a precision of {wanted:g} is wanted; expected a share above 0 and at most 1, such as 0.95")
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], (probabilities.argmax(axis=1) == y)[order]
    precision = np.cumsum(right) / np.arange(1, len(y) + 1)
    ends = np.flatnonzero(np.diff(confidence, append=-1.0))  # rows of one confidence go through together
    good = ends[precision[ends] >= wanted]
    if not len(good):
        best = ends[np.argmax(precision[ends])]
        raise HeadError(
            f"no confidence gives a precision of {wanted:g} on the {len(y)} held-out rows; the best is {precision[best]:.4g}, "
            f"at a confidence of {confidence[best]:.4g} or more, which {best + 1} rows have. Ask for no more than that, or "
            "for a better head"
        )
    last = int(good[-1])
    threshold = float(confidence[last]) if last + 1 < len(y) else 0.0
    return Rejection(threshold, (last + 1) / len(y), float(precision[last]))


def label_thresholds(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """For each label the probability from which on it is given: that of the best F1 on held-out rows.

    Half-way between the lowest row that gets the label and the next; of equally good ones the highest. 0.5 for a label that
    no row has.

    Args:
        probabilities: (N, C).
        targets: (N, C) of 0 and 1.

    Returns:
        (C,) float64.
    """
    count = probabilities.shape[1]
    thresholds = np.full(count, 0.5)
    for label in np.flatnonzero(targets.any(axis=0)).tolist():
        order = np.argsort(-probabilities[:, label], kind="stable")
        p, true = probabilities[order, label].astype(np.float64), targets[order, label] > 0
        f1 = 2.0 * np.cumsum(true) / (np.arange(1, len(p) + 1) + np.count_nonzero(true))
        ends = np.flatnonzero(np.diff(p, append=-1.0))
        last = ends[np.argmax(f1[ends])]
        below = p[last + 1] if last + 1 < len(p) else 0.0
        middle = (p[last] + below) / 2.0
        thresholds[label] = middle if middle > below else p[last]  # neighbours among floats have no middle
    return thresholds


def logit_adjustment(prior: np.ndarray, tau: float) -> np.ndarray:
    """What to subtract from logits so that rare classes are found as often as common ones (Menon et al., 2021).

    tau log(prior). With tau = 1 the head answers as if all classes were equally frequent, which is best for balanced accuracy;
    with 0 nothing changes.

    Args:
        prior: (C,) rows of each class that the head was fitted to, or their shares, all above 0.
        tau: how far, from 0 on.

    Returns:
        (C,) float64.
    """
    if not 0.0 <= tau < np.inf:
        raise HeadError(f"tau is {tau:g}; logit adjustment takes a number from 0 on, and 1 to balance the classes")
    if not (prior > 0).all():
        raise HeadError(f"{np.count_nonzero(~(prior > 0))} classes have no rows; logit adjustment needs some of each")
    adjustment: np.ndarray = tau * np.log(prior / prior.sum())
    return adjustment


def balanced_weights(y: np.ndarray, count: int) -> np.ndarray:
    """How much a row of each class counts so that all classes count alike: N / (C n), scikit-learn's "balanced".

    Args:
        y: (N,) int64 in 0..count - 1, each of which some row has.
        count: C.

    Returns:
        (C,) float64; ``[y]`` of it is 1 on average.
    """
    rows = np.bincount(y, minlength=count)
    if not rows.all():
        raise HeadError(
            f"{np.count_nonzero(rows == 0)} of {count} classes have no rows; balanced weights need some of each"
        )
    return len(y) / (count * rows.astype(np.float64))
