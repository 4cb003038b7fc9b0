"""The choice of a hyper-parameter: held-out losses along a path of candidates. numpy only.

Of all candidates that are as good as the best, the simplest is chosen.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featx.heads.folds import judged
from featx.heads.postprocess import fit_scale, smoothed_answers, smoothed_own_scores
from featx.heads.training_data import Estimator, TrainingData

EQUAL_LOSS = 1e-4
"""The difference of losses that does not count, in nats (or as a share of a squared error): no solver of a search is closer."""
STANDARD_ERRORS = 2.0
"""Of their paired difference, by which a candidate has lost to a simpler one, so that none beyond it is tried."""
C_LIMITS = (1e-9, 1e8)
"""The bounds within which a path of C is extended beyond its ends."""
MAX_SEARCH_BYTES = 1 << 28
"""The most bytes of float32 features that hyper-parameters are chosen on; of larger data, a stratified share of the rows."""
_MIN_SEARCH_ROWS = 1000  # the share has at least as many
_MIN_OF_CLASS = 10  # images of each class or label in a share that is drawn at random
_EXTENSION = 4  # values of C that are added at a time
_MAX_CALIBRATION_SCORES = 1_000_000  # scores that a candidate's temperature is fitted to; the chosen one's, to all


@dataclass(frozen=True)
class Tried:
    """One candidate and its cross-validated loss.

    Attributes:
        candidate: the hyper-parameter.
        loss: mean held-out loss (``held_out_losses``): log loss of smoothed labels in nats, or squared error of a regression.
        error: standard error of that mean, from the spread over the folds; NaN with fewer than two folds.
    """

    candidate: float
    loss: float
    error: float

    def as_dict(self) -> dict[str, float | None]:
        """The candidate as in ``--json`` and in a head's file."""
        mean, error = (value if math.isfinite(value) else None for value in (self.loss, self.error))
        return {"candidate": self.candidate, "mean": mean, "standard_error": error}

    @classmethod
    def from_dict(cls, facts: Mapping[str, float | None]) -> Tried:
        """Read what ``as_dict`` gave."""
        values = (facts[key] for key in ("candidate", "mean", "standard_error"))
        return cls(*(math.nan if value is None else value for value in values))


@dataclass(frozen=True, eq=False)
class Search:
    """The candidates that were tried, and the one that was chosen.

    Attributes:
        tried: in ascending order of the candidate; () where nothing could be compared.
        chosen: the candidate.
        rows: (n,) int64, the training images that were held out; empty where none were.
        scores: (n, C) float64, the chosen candidate's scores of these images, each the mean over the image's views.
    """

    tried: tuple[Tried, ...]
    chosen: float
    rows: np.ndarray
    scores: np.ndarray

    @property
    def best(self) -> Tried | None:
        """The chosen candidate with its loss."""
        return next((tried for tried in self.tried if tried.candidate == self.chosen), None)


def search(
    estimator: Estimator,
    training: TrainingData,
    *,
    candidates: Sequence[float] | None = None,
    gives_logits: bool,
    extends: bool,
) -> Search:
    """Compare the candidates of an estimator by their loss on held-out images.

    All are tried, or, of an estimator with ``first_looks``, those around the best (``_Trials.close_in``).

    Args:
        estimator: that fits them.
        training: with folds; without, the middle candidate is chosen untried.
        candidates: the simplest first; by default the estimator's own.
        gives_logits: whether scores are logits already; else each candidate's are calibrated by ``fit_scale``.
        extends: whether to continue the path beyond an end, as far as ``C_LIMITS``, while that end alone is the best.
    """
    candidates = estimator.candidates if candidates is None else candidates
    if not training.folds:
        nothing = np.empty(0, dtype=np.int64)
        return Search((), candidates[len(candidates) // 2], nothing, np.empty((0, training.count)))
    rows = np.flatnonzero(judged(training.folds, len(training)))
    trials = _Trials(estimator, training, rows, gives_logits=gives_logits, order=candidates)
    begin, stride = getattr(estimator, "first_looks", (0, 0))
    if stride and len(candidates) > 1:
        trials.close_in(begin, stride)
    else:
        trials.run(candidates)
    while extends and (more := _beyond(trials.order, trials.simplest())):
        trials.order = sorted({*trials.order, *more})
        trials.run(more)
    while (
        chosen := trials.simplest()[0]
    ) not in trials.held_out:  # it was not among the best until the best was solved exactly
        trials.run([chosen])
    tried = tuple(sorted(trials.tried.values(), key=lambda t: t.candidate))
    return Search(tried, chosen, rows, trials.held_out[chosen])


class _Trials:
    """The candidates that were tried so far.

    Args:
        estimator: that fits them.
        training: with folds.
        rows: (n,) int64, the images that are held out.
        gives_logits: as ``search`` has it.
        order: the candidates, the simplest first.

    Attributes:
        tried: by candidate.
        rough: those that were fitted less exactly.
        held_out: (n, C) float64 scores of the held-out images, of the candidates that are as good as the best.
    """

    def __init__(
        self,
        estimator: Estimator,
        training: TrainingData,
        rows: np.ndarray,
        *,
        gives_logits: bool,
        order: Sequence[float],
    ) -> None:
        self.estimator, self.training, self.rows, self.gives_logits = estimator, training, rows, gives_logits
        self.order = list(order)
        self.tried: dict[float, Tried] = {}
        self.rough: set[float] = set()
        self.held_out: dict[float, np.ndarray] = {}
        self._losses: dict[float, np.ndarray] = {}

    def run(self, candidates: Sequence[float], **options: bool) -> None:
        """Try some candidates, roughly with ``rough=True``."""
        by_view = self.training.views_as_images
        for candidate, view_scores in self.estimator.cross_val_scores(by_view, candidates, **options):
            scores = self.training.mean_over_views(view_scores)[self.rows]
            each = held_out_losses(scores, self.training, self.rows, gives_logits=self.gives_logits)
            self.tried[candidate] = _summary(candidate, each, self.training, self.rows)
            self.held_out[candidate], self._losses[candidate] = scores, each
            best = self.simplest()
            self.held_out = {c: s for c, s in self.held_out.items() if c in best}
        (self.rough.update if options.get("rough") else self.rough.difference_update)(candidates)

    def simplest(self) -> list[float]:
        """The candidates that are as good as the best, the simplest first: on a plateau, the most regularised is chosen."""
        return _simplest([self.tried[c] for c in self.order if c in self.tried], self.training.task)

    def close_in(self, begin: int, stride: int) -> None:
        """Try every so many candidates, then those around the best, nearer each time, and in the end its neighbours exactly.

        The first are tried in their order. Where the loss flattens out or rises, those around the best are tried before any
        further ones, and if the last has lost to the best by ``STANDARD_ERRORS``, there are none. Candidates are solved exactly
        only where they are chosen or next to those that may be.
        """
        at, last, further, found = begin, len(self.order) - 1, stride, list[float]()
        while True:
            self.run(self.order[at : at + 1], rough=True)
            found = [*found[-2:], self.tried[self.order[at]].loss]
            if _flattens(found):
                self._close_in_roughly(stride, at)
                if self._has_lost(self.order[at]):
                    break
                further = stride if self.order[at] in self.simplest() else 2 * stride
            if at == last:
                break
            at = min(at + further, last)
        self._close_in_roughly(stride, at)
        while asked := [c for c in self._around(1) if c not in self.tried or c in self.rough]:
            self.run(asked, rough=False)

    def _close_in_roughly(self, distance: int, most: int) -> None:
        """Try those around the best, nearer each time, up to a number."""
        while distance > 1:
            places = np.array([self.order.index(c) for c in self.tried])
            asked = [
                c
                for c in self._around(distance)
                if (at := self.order.index(c)) <= most and np.abs(places - at).min() > distance // 2
            ]
            if asked:
                self.run(asked, rough=True)
            else:
                distance //= 2

    def _around(self, distance: int) -> list[float]:
        """The best candidate and the simplest as good, with their neighbours at a distance, in the order of all."""
        simplest = self.simplest()
        best = min(simplest, key=lambda c: self.tried[c].loss)
        places = {self.order.index(c) + step for c in (best, simplest[0]) for step in (-distance, 0, distance)}
        return [self.order[at] for at in sorted(places) if 0 <= at < len(self.order)]

    def _has_lost(self, candidate: float) -> bool:
        """Whether a candidate is worse than the best by ``STANDARD_ERRORS`` of their paired difference.

        Images of one group count as one.
        """
        best = self.simplest()[0]
        if candidate == best or best not in self._losses:
            return False
        weight, groups = self.training.weight[self.rows], self.training.groups_of(self.rows)
        difference = (self._losses[candidate] - self._losses[best]) * weight
        if groups is not None:
            difference = np.bincount(np.unique(groups, return_inverse=True)[1], difference)
        error = float(difference.std() * math.sqrt(len(difference)))
        return bool(difference.sum() > max(STANDARD_ERRORS * error, EQUAL_LOSS * weight.sum()))


def search_share(training: TrainingData) -> tuple[TrainingData, np.ndarray]:
    """Draw the rows that hyper-parameters are chosen on: all, or the same share of each fold where all would be too many.

    Returns:
        The data of these rows; and (n,) int64, which of the rows they are.
    """
    if training.share is not None:
        return training.share
    most = most_searched(training)
    if len(training) <= most or not training.folds:
        return training, np.arange(len(training))
    rng = np.random.default_rng(training.seed)
    share = most / len(training)
    drawn = np.sort(
        np.concatenate([rng.permutation(test)[: max(1, int(share * len(test)))] for _, test in training.folds])
    )
    fold_of = training.fold_of[drawn]
    folds = tuple(
        (np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(len(training.folds))
    )
    return dataclasses.replace(training.take(drawn), folds=folds), drawn


def most_searched(training: TrainingData) -> int:
    """The most images that hyper-parameters are chosen on."""
    return max(_MIN_SEARCH_ROWS, MAX_SEARCH_BYTES // (4 * training.rows.width * training.views))


def draw_share(y: np.ndarray, task: str, *, most: int, seed: int) -> np.ndarray:
    """Draw images of data that are too large to be divided into folds as a whole.

    Args:
        y: targets, as in ``TrainingData``.
        task: one of ``TASKS``.
        most: images, but for a few of rare classes or labels.
        seed: of the draw.

    Returns:
        (n,) int64, ascending: each image with the same chance, and at least ``_MIN_OF_CLASS`` of each class or label that has
        as many.

    Examples:
        >>> y = np.array([0] * 1000 + [1] * 3)
        >>> drawn = draw_share(y, "classification", most=100, seed=0)
        >>> np.bincount(y[drawn])[1], 50 < len(drawn) < 150
        (np.int64(3), True)
    """
    if len(y) <= most:
        return np.arange(len(y))
    chance = np.random.default_rng(seed).random(len(y), dtype=np.float32)
    drawn = chance < most / len(y)
    if task == "classification":
        present = np.bincount(y)
        rare = np.flatnonzero(np.bincount(y[drawn], minlength=len(present)) < np.minimum(present, _MIN_OF_CLASS))
        members = [np.flatnonzero(y == label) for label in rare] if len(rare) < 20 else _members(y, rare)
    elif task == "multilabel":
        rare = np.flatnonzero(y[drawn].sum(axis=0) < np.minimum(y.sum(axis=0), _MIN_OF_CLASS))
        members = [np.flatnonzero(y[:, label]) for label in rare]
    else:
        members = []
    for rows in members:
        drawn[rows[np.argsort(chance[rows], kind="stable")[:_MIN_OF_CLASS]]] = True
    return np.flatnonzero(drawn)


def _members(y: np.ndarray, classes: np.ndarray) -> list[np.ndarray]:
    """The images of each of some classes."""
    rows = np.flatnonzero(np.isin(y, classes))
    order = rows[np.argsort(y[rows], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(y[order])) + 1)


def losses(scores: np.ndarray, y: np.ndarray, task: str, *, smoothed: bool = False) -> np.ndarray:
    """Compute the loss of each row: log loss in nats (of labels, their mean), or squared error.

    Args:
        scores: (n, C) logits, or the numbers of a regression.
        y: targets, as in ``TrainingData``.
        task: one of ``TASKS``.
        smoothed: whether labels are smoothed, as ``fit_temperature`` does.

    Returns:
        (n,) float64.

    Examples:
        >>> import numpy as np
        >>> losses(np.array([[2.0, 0.0], [0.0, 0.0]]), np.array([0, 1]), "classification").round(3)
        array([0.127, 0.693])
    """
    if task == "regression":
        return ((scores - y) ** 2).mean(axis=1)  # type: ignore[no-any-return]
    if task == "multilabel":
        if smoothed:
            y = smoothed_answers(y)
        return (np.logaddexp(0.0, scores) - y * scores).mean(axis=1)  # type: ignore[no-any-return]
    top = scores.max(axis=1)
    # Not scipy.special.logsumexp: it differs in the last digits, and so would losses in files.
    normal = np.log(np.exp(scores - top[:, None]).sum(axis=1))
    own = smoothed_own_scores(scores, y) if smoothed else scores[np.arange(len(y)), y]
    return top + normal - own  # type: ignore[no-any-return]


def held_out_losses(
    scores: np.ndarray, training: TrainingData, rows: np.ndarray, *, gives_logits: bool = False
) -> np.ndarray:
    """Compute the losses by which candidates are compared: of smoothed labels, at the scale that fits the scores best.

    Labels are smoothed (``smoothed_own_scores``) so that no candidate gains by more certainty than the rows support: where
    every held-out row is right, the log loss of plain labels would fall with C for ever.

    Args:
        scores: (n, C) of the held-out rows.
        training: N rows.
        rows: (n,) int64, which rows were held out.
        gives_logits: whether scores are logits already, which need no scale.

    Returns:
        (n,) float64; for regression, squared errors.
    """
    y, task = training.y[rows], training.task
    if not (gives_logits or task == "regression"):
        some = slice(None, None, max(1, len(rows) * training.count // _MAX_CALIBRATION_SCORES))
        temperature, shift = fit_scale(scores[some], y[some], task, weight=training.weight[rows[some]])
        scores = scores / temperature - shift
    return losses(scores, y, task, smoothed=True)


def _summary(candidate: float, losses_of_rows: np.ndarray, training: TrainingData, rows: np.ndarray) -> Tried:
    """Average a candidate's losses of the held-out rows, with the standard error."""
    each, weight = np.zeros(len(training)), training.weight
    each[rows] = losses_of_rows
    folds = [float(np.average(each[test], weights=weight[test])) for _, test in training.folds if weight[test].any()]
    error = float(np.std(folds, ddof=1) / math.sqrt(len(folds))) if len(folds) > 1 else math.nan
    return Tried(float(candidate), float(np.average(each[rows], weights=weight[rows])), error)


def _simplest(tried: Sequence[Tried], task: str) -> list[float]:
    """The candidates that are as good as the best, the simplest first: on a plateau, the most regularised is chosen."""
    least = min((t.loss for t in tried if math.isfinite(t.loss)), default=math.nan)
    most = least * (1 + EQUAL_LOSS) if task == "regression" else least + EQUAL_LOSS
    return [t.candidate for t in tried if t.loss <= most] or [tried[0].candidate]


def _flattens(found: Sequence[float]) -> bool:
    """Whether the last of three losses has risen, or fallen so little that their parabola is least before it."""
    return len(found) > 1 and found[-1] - found[-2] > (min(found[-2] - found[-3], 0) / 3 if len(found) > 2 else 0)


def _beyond(order: Sequence[float], best: Sequence[float]) -> tuple[float, ...]:
    """Values of C beyond the end at which the best one is, with the path's own ratio, ascending; () if it is at no end.

    Of several that are as good, none beyond is tried: with ever smaller C, scores would only shrink, in the end to 0.
    """
    if len(order) < 2 or len(best) > 1 or best[0] not in (order[0], order[-1]):
        return ()
    low = best[0] == order[0]
    step = order[1] / order[0] if low else order[-1] / order[-2]
    powers = range(-_EXTENSION, 0) if low else range(1, _EXTENSION + 1)
    return tuple(c for p in powers if C_LIMITS[0] <= (c := float(f"{best[0] * step**p:.6g}")) <= C_LIMITS[1])
