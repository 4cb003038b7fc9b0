"""From a predictor's scores to calibrated probabilities, and from probabilities to decisions; fitted to held-out rows.

N is the number of rows, C of classes or labels. numpy, scipy and scikit-learn only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from featx.errors import HeadError
from featx.heads.conformal import Conformal, fit_conformal
from featx.heads.rejection import threshold_for_precision
from featx.io.schema import TINY, ArraySpec
from featx.text import counted, form

KNOTS = 128
"""The knots of each class's isotonic curve; of a curve with more, evenly spaced ones are stored."""
_LOG_SPREADS = (-6.0, 6.0)  # of a temperature in units of the mean absolute score
_DEVIATIONS = (2.0, 1.0)  # of the priors of log T and b


# All of it together


@dataclass(frozen=True, eq=False)
class Postprocess:
    """What becomes of a predictor's scores: logits, then probabilities, then a decision.

    Attributes:
        task: one of ``TASKS``.
        temperature: what scores are divided by.
        offset: (C,) float64, what is then subtracted: a logit adjustment of classes, or the offset of calibrated labels.
        isotonic: curves that map probabilities to calibrated ones, or None.
        thresholds: (C,) float64, the probability from which on a label is predicted; None unless the task is multilabel.
        reject_below: the probability below which no class is predicted, or None.
        conformal: what prediction sets or intervals follow from, or None.

    Examples:
        >>> import numpy as np
        >>> postprocess = Postprocess("classification", temperature=2.0, offset=np.zeros(2), reject_below=0.6)
        >>> probabilities = postprocess.apply(np.array([[4.0, 0.0], [0.4, 0.0]]))
        >>> probabilities.round(2)
        array([[0.88, 0.12],
               [0.55, 0.45]])
        >>> [postprocess.decide(p, ("ant", "bee")) for p in probabilities]
        ['ant', None]
    """

    task: str
    temperature: float
    offset: np.ndarray
    isotonic: Isotonic | None = None
    thresholds: np.ndarray | None = None
    reject_below: float | None = None
    conformal: Conformal | None = None

    def logits(self, scores: np.ndarray) -> np.ndarray:
        """(N, C) scores to (N, C) logits."""
        with np.errstate(over="ignore", invalid="ignore"):
            logits: np.ndarray = scores / self.temperature - self.offset
        return logits

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """(N, C) scores to (N, C) probabilities of classes or labels, or the numbers of a regression."""
        if self.task == "regression":
            return scores
        exclusive = self.task == "classification"
        p = softmax(self.logits(scores)) if exclusive else sigmoid(self.logits(scores))
        if self.isotonic is None:
            return p
        finite = np.isfinite(p).all(axis=1)
        p[finite] = self.isotonic.apply(p[finite], normalise=exclusive)
        return p

    def decide(self, p: np.ndarray, classes: Sequence[str]) -> Any:
        """Turn one row of ``apply``, (C,), into a class name or None, a list of label names, or a number."""
        if self.task == "regression":
            return float(p[0])
        if self.thresholds is not None:
            return [classes[i] for i in np.argsort(-p, kind="stable") if p[i] >= self.thresholds[i]]
        return most_probable(p, classes, self.reject_below)


def fit_postprocess(
    scores: np.ndarray,
    y: np.ndarray,
    task: str,
    *,
    calibrate: str = "none",
    weight: np.ndarray | None = None,
    offset: np.ndarray | None = None,
    reject_below: float | None = None,
) -> Postprocess:
    """Fit temperature, curves and the thresholds of labels to held-out rows.

    Args:
        scores: (N, C) float64, of rows that were held out; N may be 0, and then nothing is fitted.
        y: (N,) int64 for classification; (N, C) of 0 and 1 for multilabel; (N, C) float64 for regression.
        task: one of ``TASKS``.
        calibrate: "temperature" (of labels also an offset), "isotonic" (curves after these), or "none".
        weight: (N,) the weight of each row; equal by default.
        offset: (C,) what is subtracted from the logits; 0 by default.
        reject_below: the probability below which no class is predicted, or None.
    """
    count = scores.shape[1]
    offset = np.zeros(count) if offset is None else offset
    if not len(scores):
        thresholds = np.full(count, 0.5) if task == "multilabel" else None
        return Postprocess(task, 1.0, offset, None, thresholds, reject_below)
    temperature, isotonic, thresholds = 1.0, None, None
    if task != "regression" and calibrate != "none":
        temperature, shift = fit_scale(scores, y, task, weight=weight)
        offset = offset + shift
    if task != "regression" and calibrate == "isotonic":
        p = Postprocess(task, temperature, offset).apply(scores)
        isotonic = fit_isotonic(p, y, weight=_weight_of_curves(y, task, offset, weight))
    if task == "multilabel":
        thresholds = label_thresholds(Postprocess(task, temperature, offset, isotonic).apply(scores), y)
    return Postprocess(task, temperature, offset, isotonic, thresholds, reject_below)


def _weight_of_curves(y: np.ndarray, task: str, offset: np.ndarray, weight: np.ndarray | None) -> np.ndarray | None:
    """The weight of each row for isotonic curves: of classes as frequent as the offset makes them, or they would undo it."""
    if task != "classification" or not offset.any():
        return weight
    adjusted: np.ndarray = np.exp(offset.min() - offset)[y]
    return adjusted if weight is None else weight * adjusted


def with_promises(
    postprocess: Postprocess,
    scores: np.ndarray,
    y: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    target_precision: float | None = None,
    conformal: float | None = None,
    per_class: bool = False,
    groups: np.ndarray | None = None,
    folds: np.ndarray | None = None,
) -> Postprocess:
    """Choose the thresholds of what a head promises, on held-out rows.

    Args:
        postprocess: fitted.
        scores: (N, C) float64, of rows that were held out.
        y: (N,) int64 for classification; (N, C) float64 for regression.
        weight: (N,) the weight of each row in isotonic curves; equal by default.
        target_precision: choose ``reject_below`` so that this share of the predictions is right, with 95 % confidence.
        conformal: the share of prediction sets, or intervals, that may miss the truth; None: there are none.
        per_class: cover each class as often as wished.
        groups: (N,) int64, which rows belong together; None: each row is a group of its own.
        folds: (N,) int64, the fold that held each row out; None: any five.

    Raises:
        HeadError: ``target_precision`` cannot be shown on so many rows, or they are too few for ``conformal``; or no rows were
            held out to choose by.
    """
    if target_precision is None and conformal is None:
        return postprocess
    if not len(scores):
        raise HeadError(
            "no rows could be held out to choose prediction sets by; use more images"
            if target_precision is None
            else "no rows could be held out to choose the rejection threshold by; give the threshold with --reject-below"
        )
    p = dataclasses.replace(postprocess, isotonic=None).apply(scores)
    if postprocess.isotonic is not None:
        p = _by_other_folds(p, y, _weight_of_curves(y, postprocess.task, postprocess.offset, weight), folds)
    reject_below, sets = postprocess.reject_below, None
    if target_precision is not None:
        reject_below = threshold_for_precision(p, y, target_precision, groups).threshold
    if conformal is not None:
        sets = fit_conformal(p, y, postprocess.task, conformal, per_class=per_class, groups=groups)
    return dataclasses.replace(postprocess, reject_below=reject_below, conformal=sets)


def _by_other_folds(p: np.ndarray, y: np.ndarray, weight: np.ndarray | None, folds: np.ndarray | None) -> np.ndarray:
    """Calibrate (N, C) probabilities of each fold by curves that were fitted to the other folds.

    Curves that have seen the labels of the rows are too sure of them: thresholds that are chosen on these rows would promise
    more than they keep.
    """
    calibrated, folds = np.empty_like(p), np.arange(len(p)) % 5 if folds is None else folds
    for fold in np.unique(folds):
        out, rest = folds == fold, folds != fold
        some = rest if rest.any() else out  # of a single fold nothing else is left
        curves = fit_isotonic(p[some], y[some], weight=None if weight is None else weight[some])
        calibrated[out] = curves.apply(p[out])
    return calibrated


# Logits to probabilities


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C) logits to (N, C) probabilities of classes; a row with NaN or positive infinity becomes NaN."""
    from scipy import special  # this and the imports of scikit-learn here take longer than reading a hundred heads

    with np.errstate(over="ignore", invalid="ignore"):
        probabilities: np.ndarray = special.softmax(logits, axis=1)
    return probabilities


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """(N, C) logits to (N, C) probabilities of labels, which do not exclude each other."""
    # Not scipy.special.expit: it differs in the last digit of some probabilities, and so in files and --json.
    with np.errstate(over="ignore"):
        probabilities: np.ndarray = 1.0 / (1.0 + np.exp(-logits))
    return probabilities


def most_probable(p: np.ndarray, classes: Sequence[str], reject_below: float | None) -> str | None:
    """The class with the largest of (C,) probabilities; None if that probability is below ``reject_below``."""
    best = int(p.argmax())
    return None if reject_below is not None and not p[best] >= reject_below else classes[best]


# Calibration


def smoothed_own_scores(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Average the scores of each row over the classes of its smoothed label.

    N right answers do not support more certainty than 1 - 1 / (N + 2) (Platt, 1999). So that much of each label is spread
    evenly over the other classes, however many there are.

    Args:
        scores: (N, C) float64.
        y: (N,) int64.

    Returns:
        (N,) float64.

    Examples:
        >>> smoothed_own_scores(np.array([[3.0, 0.0, 6.0], [0.0, 9.0, 0.0]]), np.array([0, 1]))
        array([3.  , 6.75])
    """
    wrong = 1.0 / (len(y) + 2.0)
    own = scores[np.arange(len(y)), y]
    others = (scores.sum(axis=1) - own) / max(1, scores.shape[1] - 1)
    average: np.ndarray = (1.0 - wrong) * own + wrong * others
    return average


def smoothed_answers(y: np.ndarray) -> np.ndarray:
    """Smooth (N, C) labels of 0 and 1 as ``smoothed_own_scores`` does: 1 / (N + 2) and 1 - 1 / (N + 2)."""
    wrong = 1.0 / (len(y) + 2.0)
    smoothed: np.ndarray = y * (1.0 - 2.0 * wrong) + wrong
    return smoothed


def fit_scale(scores: np.ndarray, y: np.ndarray, task: str, *, weight: np.ndarray | None = None) -> tuple[float, float]:
    """The T and b for which scores / T - b are the logits of the least log loss: of classes ``fit_temperature``, and b is 0."""
    if task == "multilabel":
        return fit_sigmoid(scores, y, weight=weight)
    return fit_temperature(scores, y, weight=weight), 0.0


def fit_temperature(scores: np.ndarray, y: np.ndarray, *, weight: np.ndarray | None = None) -> float:
    """Find the T for which softmax(scores / T) has the least log loss (Guo et al., 2017); 1 where all scores are alike.

    The labels are smoothed by 1 / (N + 2) of each. With unsmoothed labels, the best T would be 0 where every row is classified
    correctly.

    Args:
        scores: (N, C) float64, of held-out rows.
        y: (N,) int64.
        weight: (N,) the weight of each row; equal by default.
    """
    from scipy.optimize import minimize_scalar

    scores = scores - scores.mean(axis=1, keepdims=True)  # changes no softmax
    own = smoothed_own_scores(scores, y)
    spread = float(np.abs(scores).mean())
    if not spread:
        return 1.0
    top = scores.max(axis=1, keepdims=True)

    def loss(t: float) -> float:
        inverse = float(np.exp(-t)) / spread
        # Not scipy.special.logsumexp: it differs in the last digits, and so would temperatures in files.
        normal = np.log(np.exp((scores - top) * inverse).sum(axis=1)) + top[:, 0] * inverse
        return float(np.average(normal - own * inverse, weights=weight))

    fit = minimize_scalar(loss, bounds=_LOG_SPREADS, method="bounded")
    return spread * float(np.exp(fit.x))


def fit_sigmoid(scores: np.ndarray, y: np.ndarray, *, weight: np.ndarray | None = None) -> tuple[float, float]:
    """Find the T and b for which sigmoid(scores / T - b) has the least log loss (Platt, 1999), both shared by all labels.

    Scores of labels need b as well: where they tell little, T is large, and without b every probability would be 1/2, however
    rare the labels are. Labels are smoothed as for ``fit_temperature``. A few rows determine neither well, so each has a normal
    prior that counts once among N rows: log T of deviation 2 around the log of the mean absolute score, b of 1 around 0.

    Args:
        scores: (N, C) float64, of held-out rows.
        y: (N, C) of 0 and 1.
        weight: (N,) the weight of each row; equal by default.
    """
    from scipy.optimize import minimize

    smoothed = smoothed_answers(y)
    spread = float(np.abs(scores).mean()) or 1.0
    share = (np.ones(len(y)) if weight is None else weight)[:, None]
    share = share / (share.sum() * y.shape[1])
    tightness = 1.0 / (len(y) * np.array(_DEVIATIONS) ** 2)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = scores * (float(np.exp(-parameters[0])) / spread)
        logits = scaled - parameters[1]
        excess = share * (sigmoid(logits) - smoothed)
        gradient = tightness * parameters - np.array([float((excess * scaled).sum()), float(excess.sum())])
        prior = float((tightness * parameters**2).sum()) / 2.0
        return prior + float((share * (np.logaddexp(0.0, logits) - smoothed * logits)).sum()), gradient

    options = {"ftol": 1e-12, "gtol": 1e-8}
    fit = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=(_LOG_SPREADS, (None, None)), options=options)
    return spread * float(np.exp(fit.x[0])), float(fit.x[1])


@dataclass(frozen=True, eq=False)
class Isotonic:
    """A rising curve for each class, from the probability that a head gives to the share of rows for which it was right.

    Attributes:
        x: (C, K) float64, ascending: probabilities. A curve with fewer than K knots repeats its last.
        y: (C, K) float64, ascending: shares in 0..1.
        doubt: () float64, how much of the uncalibrated probability, and then of an even one, is mixed in.
    """

    ARRAYS: ClassVar[Mapping[str, ArraySpec]] = {
        "x": ArraySpec("F64", "CJ", 0, 1),
        "y": ArraySpec("F64", "CJ", 0, 1),
        "doubt": ArraySpec("F64", "", TINY, 1),
    }

    x: np.ndarray
    y: np.ndarray
    doubt: np.ndarray

    def apply(self, probabilities: np.ndarray, *, normalise: bool = True) -> np.ndarray:
        """Calibrate (N, C) probabilities.

        Args:
            probabilities: (N, C), as the head gives them.
            normalise: divide each row by its sum, as classes exclude each other; not for labels, which do not.

        Returns:
            (N, C) float64, none of them 0. A row for which every curve is 0 keeps its probabilities, but for the doubt.
        """
        curves = zip(probabilities.T, self.x, self.y, strict=True)
        steps = np.stack([np.interp(column, x, y) for column, x, y in curves], axis=1)
        mixed: np.ndarray = (1.0 - self.doubt) * steps + self.doubt * probabilities
        if normalise:
            mixed /= mixed.sum(axis=1, keepdims=True)
        doubted: np.ndarray = (1.0 - self.doubt) * mixed + self.doubt / (probabilities.shape[1] if normalise else 2)
        return doubted


def fit_isotonic(probabilities: np.ndarray, y: np.ndarray, *, weight: np.ndarray | None = None) -> Isotonic:
    """Fit isotonic calibration, one class against the rest (Zadrozny & Elkan, 2002), by ``IsotonicRegression``.

    A step is 0 or 1 wherever all rows at one end are alike, a certainty that N rows do not support; so the curves are doubted
    by 1 / (N + 2). The uncalibrated probability that is mixed in keeps the order of rows on one step; the even one keeps the
    log loss of a wrong row finite. A class that no row has, or every row, gets a straight line for a curve.

    Args:
        probabilities: (N, C), of held-out rows.
        y: (N,) int64 of classes; or (N, C) of 0 and 1, labels.
        weight: (N,) the weight of each row; equal by default.
    """
    from sklearn.isotonic import IsotonicRegression

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
            selected = np.rint(np.linspace(0, len(x) - 1, KNOTS)).astype(np.int64)
            x, share = x[selected], share[selected]
        knots[0, label] = np.pad(x, (0, KNOTS - len(x)), mode="edge")
        knots[1, label] = np.pad(share, (0, KNOTS - len(share)), mode="edge")
    return Isotonic(knots[0], knots[1], np.array(1.0 / (len(y) + 2.0)))


# Decisions


def label_thresholds(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Find for each label the probability from which on it is predicted: that of the best F1 on held-out rows.

    The threshold lies half-way between the lowest row that gets the label and the next row; of equally good ones it is the
    highest. A label that no row has gets 0.5.

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
        thresholds[label] = middle if middle > below else p[last]  # adjacent floats have no middle
    return thresholds


# Classes of unequal size


def logit_adjustment(prior: np.ndarray, tau: float) -> np.ndarray:
    """Compute what to subtract from logits so that rare classes are predicted more often (Menon et al., 2021).

    The offset is tau log(prior). With tau = 1 the head predicts as if all classes were equally frequent, which is best for the
    balanced accuracy; with 0 nothing changes.

    Args:
        prior: (C,) rows of each class that the head was fitted to, or their shares, all above 0.
        tau: the strength, at least 0.

    Returns:
        (C,) float64.

    Raises:
        HeadError: a class has no rows, or tau is out of range.

    Examples:
        >>> import numpy as np
        >>> logit_adjustment(np.array([90, 10]), 1.0).round(2)
        array([-0.11, -2.3 ])
    """
    if not 0.0 <= tau < np.inf:
        raise HeadError(f"tau is {tau:g}; logit adjustment takes a number of at least 0, and 1 balances the classes")
    if not (prior > 0).all():
        none = counted(np.count_nonzero(~(prior > 0)), "class has", "classes have")
        raise HeadError(f"{none} no rows; logit adjustment needs some of each")
    adjustment: np.ndarray = tau * np.log(prior / prior.sum())
    return adjustment


def class_weights(setting: str | Mapping[Any, float], y: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The weight of a row of each class.

    Args:
        setting: "balanced", as ``balanced_weights``; or the weight of each class by its name, where others have weight 1.
        y: (N,) int64 in 0..C - 1, each of which some row has.
        names: (C,) of the classes.

    Returns:
        (C,) float64.

    Raises:
        HeadError: a class has no rows, or no class has a weight above 0.

    Examples:
        >>> class_weights({"cat": 3, 7: 0.5}, np.array([0, 1]), ("7", "cat")).tolist()
        [0.5, 3.0]
    """
    if isinstance(setting, str):
        return balanced_weights(y, len(names))
    by_name = {class_name(name): float(weight) for name, weight in setting.items()}
    weights = np.array([by_name.get(name, 1.0) for name in names])
    if not (weights > 0).any():
        raise HeadError("class_weight gives every class the weight 0; expected a weight above 0 for some class")
    return weights


def class_name(value: Any) -> str:
    """The name of a class that is text, a number or a boolean, as ``featx.features.array_labels`` names it."""
    value = value.item() if isinstance(value, np.generic) else value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def balanced_weights(y: np.ndarray, count: int) -> np.ndarray:
    """Compute the weight of a row of each class so that all classes count equally: N / (C n), scikit-learn's "balanced".

    Args:
        y: (N,) int64 in 0..count - 1, each of which some row has.
        count: C.

    Returns:
        (C,) float64; ``[y]`` of it is 1 on average.

    Raises:
        HeadError: a class has no rows.

    Examples:
        >>> import numpy as np
        >>> balanced_weights(np.array([0, 0, 0, 1]), 2).round(2)
        array([0.67, 2.  ])
    """
    rows = np.bincount(y, minlength=count)
    if not rows.all():
        raise HeadError(
            f"{(none := np.count_nonzero(rows == 0))} of {counted(count, 'class', 'classes')} "
            f"{form(none, 'has', 'have')} no rows; balanced weights need some of each"
        )
    return len(y) / (count * rows.astype(np.float64))
