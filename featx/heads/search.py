"""Which hyper-parameter: held-out losses of a path of candidates, and the simplest that is as good as the best. numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featx.heads.folds import judged
from featx.heads.postprocess import fit_temperature
from featx.heads.training_data import Model, TrainingData

AS_GOOD = 1e-4
"""Nats of log loss (or share of a squared error) that make no difference: no solver is more exact in a search."""
C_LIMITS = (1e-9, 1e8)
"""How far a path of C is followed beyond its ends."""
_BEYOND = 4  # values of C that are added at once
_MOST_TO_CALIBRATE = 1_000_000  # scores that a candidate's temperature is fitted to; the chosen one's is fitted to all


@dataclass(frozen=True)
class Tried:
    """One candidate.

    Attributes:
        candidate: the hyper-parameter.
        loss: mean held-out loss: log loss in nats, or the squared error of a regression.
        error: standard error of that mean, from the spread over the folds; NaN where there are no folds to spread over.
    """

    candidate: float
    loss: float
    error: float

    def as_dict(self) -> dict[str, float | None]:
        """As ``--json`` and a head's file have it."""
        mean, error = (value if math.isfinite(value) else None for value in (self.loss, self.error))
        return {"candidate": self.candidate, "mean": mean, "standard_error": error}

    @classmethod
    def from_dict(cls, facts: Mapping[str, float | None]) -> Tried:
        """What ``as_dict`` gave."""
        values = (facts[key] for key in ("candidate", "mean", "standard_error"))
        return cls(*(math.nan if value is None else value for value in values))


@dataclass(frozen=True, eq=False)
class Search:
    """What was tried, and what was chosen.

    Attributes:
        tried: in ascending order of the candidate; () where nothing could be compared.
        chosen: the candidate.
        rows: (n,) int64, those of the training images that were held out; none where nothing was.
        scores: (n, C) float64, of the chosen candidate on them, each the mean over the image's views.
    """

    tried: tuple[Tried, ...]
    chosen: float
    rows: np.ndarray
    scores: np.ndarray

    @property
    def best(self) -> Tried | None:
        """The chosen candidate's line."""
        return next((tried for tried in self.tried if tried.candidate == self.chosen), None)


def search(model: Model, training: TrainingData, *, calibrated: bool, grows: bool) -> Search:
    """Compare a model's candidates by their loss on held-out images.

    Args:
        model: whose candidates are tried, the simplest first.
        training: with folds; without, the middle candidate is taken untried.
        calibrated: scores are logits as they are; else each candidate's are divided by the temperature that suits them best.
        grows: the path goes on beyond an end, as far as ``C_LIMITS``, while the best stands there.
    """
    candidates = model.candidates
    if not training.folds:
        nothing = np.empty(0, dtype=np.int64)
        return Search((), candidates[len(candidates) // 2], nothing, np.empty((0, training.count)))
    rows = np.flatnonzero(judged(training.folds, len(training)))
    tried: dict[float, Tried] = {}
    held_out: dict[float, np.ndarray] = {}
    order, by_rows = list(candidates), training.by_rows
    waiting: Sequence[float] = candidates
    while waiting:
        for candidate, of_rows in model.held_out(by_rows, waiting):
            scores = training.over_views(of_rows)
            tried[candidate] = _judge(candidate, scores, training, rows, calibrated)
            held_out[candidate] = scores[rows]
            best = _simplest([tried[c] for c in order if c in tried], training.task)
            held_out = {c: s for c, s in held_out.items() if c in best}
        chosen = best[0]
        waiting = _beyond(order, chosen) if grows else ()
        order = sorted({*order, *waiting}) if grows else order
    return Search(tuple(sorted(tried.values(), key=lambda t: t.candidate)), chosen, rows, held_out[chosen])


def losses(scores: np.ndarray, y: np.ndarray, task: str) -> np.ndarray:
    """(n, C) scores and targets to (n,) losses: log loss in nats (of many labels: their mean), or squared error."""
    if task == "regression":
        return ((scores - y) ** 2).mean(axis=1)  # type: ignore[no-any-return]
    if task == "multilabel":
        return (np.logaddexp(0.0, scores) - y * scores).mean(axis=1)  # type: ignore[no-any-return]
    top = scores.max(axis=1)
    normal = np.log(np.exp(scores - top[:, None]).sum(axis=1))
    return top + normal - scores[np.arange(len(y)), y]  # type: ignore[no-any-return]


def _judge(candidate: float, scores: np.ndarray, training: TrainingData, rows: np.ndarray, calibrated: bool) -> Tried:
    """A candidate's line of the table."""
    if not (calibrated or training.task == "regression"):
        some = rows[:: max(1, len(rows) * training.count // _MOST_TO_CALIBRATE)]
        temperature = fit_temperature(scores[some], training.y[some], training.task, weight=training.weight[some])
        scores = scores / temperature
    each = np.zeros(len(training))
    each[rows] = losses(scores[rows], training.y[rows], training.task)
    weight = training.weight
    folds = [float(np.average(each[test], weights=weight[test])) for _, test in training.folds if weight[test].any()]
    error = float(np.std(folds, ddof=1) / math.sqrt(len(folds))) if len(folds) > 1 else math.nan
    return Tried(float(candidate), float(np.average(each[rows], weights=weight[rows])), error)


def _simplest(tried: Sequence[Tried], task: str) -> list[float]:
    """The candidates that are as good as the best, the simplest first: on a plateau, the more regularised head is chosen."""
    least = min((t.loss for t in tried if math.isfinite(t.loss)), default=math.nan)
    most = least * (1 + AS_GOOD) if task == "regression" else least + AS_GOOD
    return [t.candidate for t in tried if t.loss <= most] or [tried[0].candidate]


def _beyond(order: Sequence[float], chosen: float) -> tuple[float, ...]:
    """Values of C past the end at which the best stands, in the path's own steps, ascending."""
    if len(order) < 2 or chosen not in (order[0], order[-1]):
        return ()
    low = chosen == order[0]
    step = order[1] / order[0] if low else order[-1] / order[-2]
    powers = range(-_BEYOND, 0) if low else range(1, _BEYOND + 1)
    return tuple(c for p in powers if C_LIMITS[0] <= (c := float(f"{chosen * step**p:.6g}")) <= C_LIMITS[1])
