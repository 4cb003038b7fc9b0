"""Prediction sets and intervals that contain the truth as often as wished: conformal prediction on held-out rows.

N is the number of rows, C of classes. What a set or interval is made of are a head's outputs, as ``Postprocess.apply`` gives
them; so whatever has the outputs of an image has its set too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from featx.errors import HeadError
from featx.io.schema import SHARE as SHARE_RULE
from featx.io.schema import ArraySpec, one_of, value_fault, whole
from featx.metrics.grouped import count_groups, number_groups
from featx.text import counted, listed, printable

OUT_OF_FOLD, UNSEEN = "out of fold", "unseen"
"""What a conformal head was calibrated on: its training rows, each scored by a fit without it; or rows that no fit has seen."""

_EVERYTHING = 1.0
"""The threshold of a class that is in every set: no class has more than this probability before it."""


@dataclass(frozen=True, eq=False)
class Conformal:
    """Thresholds from which prediction sets or intervals follow.

    A set holds each class for which the classes that are more probable have at most ``thresholds`` of probability together:
    adaptive prediction sets (APS; Romano, Sesia and Candès, 2020) without their random part. So the same image always gets the
    same set, sets grow with doubt, and the most probable class is in every set. The interval of a regression is the number
    plus and minus the threshold.

    Attributes:
        alpha: the share of sets that may miss the truth.
        thresholds: (C,) float64; of a regression (1,).
        per_class: whether each class has a threshold of its own, so that each is covered as often as wished (Mondrian
            conformal prediction; Vovk, 2003).
        rows: the number of rows that the thresholds were chosen on.
        groups: the number of groups that these belong to; ``rows`` where each is its own.
        source: ``OUT_OF_FOLD`` or ``UNSEEN``.

    Examples:
        >>> conformal = Conformal(0.1, np.array([0.8, 0.8, 0.8]), per_class=False, rows=100, groups=100, source=OUT_OF_FOLD)
        >>> conformal.sets(np.array([[0.9, 0.06, 0.04], [0.5, 0.2, 0.3]])).tolist()
        [[True, False, False], [True, True, True]]
    """

    RULES: ClassVar[Mapping[str, Any]] = {
        "alpha": SHARE_RULE, "rows": whole(1), "groups": whole(1), "source": one_of(OUT_OF_FOLD, UNSEEN),
    }  # fmt: skip
    """What a file must hold of it besides the thresholds."""
    THRESHOLDS: ClassVar[ArraySpec] = ArraySpec("F64", "C", 0)

    alpha: float
    thresholds: np.ndarray
    per_class: bool
    rows: int
    groups: int
    source: str

    def sets(self, probabilities: np.ndarray) -> np.ndarray:
        """The sets of (N, C) probabilities: (N, C) bool, which classes are in each; none where probabilities are NaN."""
        with np.errstate(invalid="ignore"):
            inside: np.ndarray = mass_before(probabilities) <= self.thresholds
        return inside

    def members(self, probabilities: np.ndarray) -> list[int]:
        """The classes in the set of (C,) probabilities, the most probable first."""
        inside = self.sets(probabilities[None])[0]
        return [label for label in np.argsort(-probabilities, kind="stable").tolist() if inside[label]]

    def intervals(self, values: np.ndarray) -> np.ndarray:
        """The intervals of (N, 1) numbers: (N, 2), their lower and upper ends."""
        ends: np.ndarray = np.concatenate([values - self.thresholds, values + self.thresholds], axis=1)
        return ends

    @property
    def sentence(self) -> str:
        """What is promised, and on what the thresholds were chosen, in words."""
        of = "those of each class" if self.per_class else "them"
        rows = counted(self.rows, "image") + (f" in {counted(self.groups, 'group')}" if self.groups < self.rows else "")
        where = "out of fold" if self.source == OUT_OF_FOLD else "that the head was not fitted to"
        return f"a share of {self.alpha:.4g} of {of} may miss the truth; chosen on {rows} {where}"

    @property
    def facts(self) -> dict[str, Any]:
        """All but the thresholds, as JSON holds it."""
        return {
            "alpha": self.alpha, "per_class": self.per_class, "rows": self.rows, "groups": self.groups, "source": self.source
        }  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return {**self.facts, "thresholds": self.thresholds.tolist()}

    @classmethod
    def of(cls, facts: Any, thresholds: np.ndarray) -> Conformal:
        """Read ``facts`` of a file.

        Raises:
            ValueError: they are not those of a conformal head.
        """
        if fault := value_fault(facts, cls.RULES, "conformal"):
            raise ValueError(fault)
        if type(facts.get("per_class")) is not bool or not 0 < facts["alpha"] < 1:
            raise ValueError("conformal has no alpha between 0 and 1, or per_class is neither true nor false")
        return cls(thresholds=thresholds, **{name: facts[name] for name in (*cls.RULES, "per_class")})

    def always(self, classes: Sequence[str]) -> list[str]:
        """The classes that are in every set, because too few rows of them were there to choose their threshold by."""
        return [
            name for name, threshold in zip(classes, self.thresholds.tolist(), strict=True) if threshold >= _EVERYTHING
        ]


def mass_before(probabilities: np.ndarray) -> np.ndarray:
    """The probability of all classes that are more probable than each class: (N, C) float64, 0 for the most probable.

    Args:
        probabilities: (N, C), rows that sum to 1.

    Examples:
        >>> mass_before(np.array([[0.25, 0.5, 0.25]])).tolist()
        [[0.5, 0.0, 0.5]]
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1).astype(np.float64)
    before = np.concatenate([np.zeros((len(ranked), 1)), np.cumsum(ranked, axis=1)[:, :-1]], axis=1)
    tied = np.concatenate([np.zeros((len(ranked), 1), bool), ranked[:, 1:] == ranked[:, :-1]], axis=1)
    before = np.maximum.accumulate(np.where(tied, 0.0, before), axis=1)  # equally probable classes count alike
    mass = np.empty_like(before)
    np.put_along_axis(mass, order, before, axis=1)
    mass = np.asarray(np.minimum(mass, _EVERYTHING))  # sums are a digit off
    mass[np.isnan(probabilities).any(axis=1)] = np.nan
    return mass


def fit_conformal(
    outputs: np.ndarray,
    y: np.ndarray,
    task: str,
    alpha: float,
    *,
    per_class: bool = False,
    groups: np.ndarray | None = None,
    source: str = OUT_OF_FOLD,
) -> Conformal:
    """Choose thresholds on rows that the outputs were not fitted to.

    Args:
        outputs: (N, C) probabilities of classes, or (N, 1) numbers.
        y: (N,) int64 of classes, or (N, 1) numbers.
        task: "classification" or "regression".
        alpha: the share of sets that may miss.
        per_class: choose a threshold for each class, on its own rows. A class with too few of them is in every set.
        groups: (N,) int64, which rows belong together; None: each row is a group of its own.
        source: ``OUT_OF_FOLD`` or ``UNSEEN``: what the rows are.

    Raises:
        HeadError: the rows are too few for this alpha.
    """
    check_alpha(alpha)
    groups = number_groups(groups)
    found = count_groups(groups, len(outputs))
    if found < _fewest(alpha):
        raise HeadError(_why_too_few(task, alpha, found, "row" if groups is None else "group"))
    if task == "regression":
        thresholds = np.array([coverage_quantile(np.abs(outputs - y)[:, 0], alpha, groups)])
        return Conformal(alpha, thresholds, False, len(outputs), found, source)
    count = outputs.shape[1]
    scores = mass_before(outputs)[np.arange(len(y)), y]
    thresholds = np.full(count, _EVERYTHING)
    for label in range(count) if per_class else (slice(None),):
        rows = slice(None) if isinstance(label, slice) else y == label
        own = None if groups is None else groups[rows]
        thresholds[label] = min(coverage_quantile(scores[rows], alpha, own), _EVERYTHING)
    return Conformal(alpha, thresholds, per_class, len(outputs), found, source)


def coverage_quantile(scores: np.ndarray, alpha: float, groups: np.ndarray | None = None) -> float:
    """The score that a new row exceeds with a probability of at most ``alpha``; infinite if the rows are too few to tell.

    Without groups this is the ceil((N + 1) (1 - alpha))-th smallest of N scores (Vovk, Gammerman and Shafer, 2005): exact for
    exchangeable rows. With groups it is the quantile at which each group, and the new one, has the same weight, divided
    evenly among its rows (hierarchical conformal prediction; Lee, Barber and Willett, 2023): exact for a row of a new group,
    where groups are exchangeable, however alike the rows of a group are.

    Args:
        scores: (N,) float.
        alpha: above 0 and below 1.
        groups: (N,) of any kind of name, or None.

    Examples:
        >>> coverage_quantile(np.arange(1.0, 20.0), 0.1)  # 19 rows, of which a new one exceeds the 18th in 2 of 20 cases
        18.0
        >>> coverage_quantile(np.arange(8.0), 0.1)
        inf
        >>> coverage_quantile(np.array([0.0] * 90 + [1.0, 2.0, 3.0]), 0.25, np.array([0] * 90 + [1, 2, 3]))
        3.0
    """
    groups = number_groups(groups)
    of_row = np.arange(len(scores)) if groups is None else groups
    sizes = np.bincount(of_row)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1.0 / sizes[of_row[order]])  # in groups, of which there are one more
    needed = (1.0 - alpha) * (len(sizes) + 1)
    at = int(np.searchsorted(reached, needed - 1e-9))
    return float(scores[order[at]]) if at < len(scores) else math.inf


def name_of_sets(task: str) -> str:
    """What a head of a task predicts besides the most probable answer: sets of classes, or intervals of numbers."""
    return f"prediction {'intervals' if task == 'regression' else 'sets'}"


def check_alpha(alpha: float) -> None:
    """Raise HeadError unless a share of sets that may miss is above 0 and below 1."""
    if not 0.0 < alpha < 1.0:
        raise HeadError(
            f"conformal is {alpha:g}; expected the share of prediction sets, or of intervals, that may miss the truth, above 0 "
            "and below 1, such as 0.1"
        )


def require_conformal(conformal: Conformal | None) -> Conformal:
    """Raise HeadError if a head has no prediction sets; else return what they follow from."""
    if conformal is None:
        raise HeadError(
            "this head has no prediction sets or intervals; Head(conformal=0.1), or featx fit-head --conformal 0.1, makes one "
            "with such, of which at most a tenth miss the truth"
        )
    return conformal


def notes_on_sets(conformal: Conformal, classes: Sequence[str]) -> list[str]:
    """Say which classes are in every set, because they have too few rows."""
    if not conformal.per_class or not (always := conformal.always(classes)):
        return []
    names = listed([printable(name) for name in always], most=5)
    return [
        f"{counted(len(always), 'class is', 'classes are')} in every prediction set, because it takes "
        f"{counted(_fewest(conformal.alpha), 'held-out image')} of a class, or groups of them, to tell when it can be "
        f"left out: {names}"
    ]


def _why_too_few(task: str, alpha: float, found: int, unit: str) -> str:
    possible = math.ceil(1000 / (found + 1)) / 1000
    use = f"a larger --conformal, from {possible:g} on, or more images" if possible < 1 else "more images"
    return (
        f"{name_of_sets(task)} that miss at most a share of {alpha:g} take {counted(_fewest(alpha), f'held-out {unit}')} or "
        f"more, and there {'is' if found == 1 else 'are'} {found}; use {use}"
    )


def _fewest(alpha: float) -> int:
    """The fewest rows or groups that can choose a threshold."""
    return max(1, math.ceil((1.0 - alpha) / alpha - 1e-9))
