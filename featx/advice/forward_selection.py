"""Greedy forward selection of backbones: the best alone, then whichever adds most, as long as a paired test shows a gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from featx.advice.backbone_gains import SIGNIFICANCE, Gain, JudgedSet, gain_of, judge_set
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head


@dataclass(frozen=True, eq=False)
class SelectionStep:
    """One step: a set of backbones, and what it gains over the one before.

    Attributes:
        judged: the backbones, in the order in which they were added, and what heads on all of them predict.
        gain: over the step before, with the p-value of one test; None at the first step.
        candidates: number of backbones that could have been added instead, and that one.
        p_value: of the gain, corrected for the choice among so many candidates (Šidák, 1967); None at the first step.
    """

    judged: JudgedSet
    gain: Gain | None = None
    candidates: int = 1
    p_value: float | None = None

    @property
    def added(self) -> bool:
        """Whether the step is taken: it is the first, or its gain is shown."""
        return self.gain is None or (self.gain.is_better and self.p_value is not None and self.p_value <= SIGNIFICANCE)

    @property
    def sentence(self) -> str:
        """The step in words."""
        last = self.judged.backbones[-1]
        if self.gain is None or self.p_value is None:
            return f"{last} alone: {self.judged.metric} {self.judged.value:.4f}"
        chosen = f", corrected for the choice among {self.candidates}" if self.candidates > 1 else ""
        verdict = "added" if self.added else "not shown to add anything, so not added"
        return (
            f"{' + '.join(self.judged.backbones)}: {self.judged.metric} {self.judged.value:.4f}, "
            f"{100 * self.gain.difference:+.1f} points (p = {self.p_value:.2g}, {self.gain.method}{chosen}): "
            f"{last} is {verdict}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The step as ``--json`` prints it."""
        return {
            **self.judged.as_dict(),
            "adds": self.gain.as_dict() if self.gain else None,
            "candidates": self.candidates,
            "p_value": self.p_value,
            "added": self.added,
        }


def select_forward(sets: Sequence[FeatureSet], head: Head, names: Sequence[str]) -> tuple[SelectionStep, ...]:
    """Add backbones one by one to the first, each time the one with the lowest cross-validated loss.

    Everything is judged on the training images, by heads that choose their C within their own folds. The second step is the
    best pair with the first backbone, whether or not its gain is shown; it is the best of several, so its accuracy is a little
    optimistic, and its p-value is corrected for that.

    Args:
        sets: the features of each backbone, the most accurate first.
        head: unfitted.
        names: of the backbones.

    Returns:
        The steps; the last one may be one that is not taken.

    Raises:
        HeadError: the sets have no image in common, or a head cannot be fitted.
    """
    joined = FeatureSet.join(sets)

    def judged(numbers: Sequence[int]) -> JudgedSet:
        return judge_set(joined.parts(numbers), head, "classification", [names[number] for number in numbers])

    chosen = [0]
    steps = [SelectionStep(judged(chosen))]
    while steps[-1].added and len(chosen) < len(sets):
        left = [number for number in range(len(sets)) if number not in chosen]
        tried = {number: judged([*chosen, number]) for number in left}
        best = min(left, key=lambda number: tried[number].loss)
        gain = gain_of(steps[-1].judged, tried[best])
        steps.append(SelectionStep(tried[best], gain, len(left), corrected(gain.p_value, len(left))))
        chosen.append(best)
    return tuple(steps)


def corrected(p_value: float, tests: int) -> float:
    """The p-value of the best of several tests (Šidák, 1967).

    Examples:
        >>> round(corrected(0.01, 3), 4), corrected(1.0, 2)
        (0.0297, 1.0)
    """
    return -math.expm1(tests * math.log1p(-p_value)) if p_value < 1 else 1.0
