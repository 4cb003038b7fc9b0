"""Whether one classifier is better than another on the same images, or just luckier. numpy and scipy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

MOST_NAMED = 100
"""Images that are named, of those that one alone gets right."""


@dataclass(frozen=True)
class PairedTest:
    """Head and fine-tuned network on the same images.

    Attributes:
        n: images.
        both: that both get right.
        head_only: paths of those that the head alone gets right.
        tuned_only: paths of those that the fine-tuned network alone gets right.
    """

    n: int
    both: int
    head_only: tuple[str, ...]
    tuned_only: tuple[str, ...]

    @classmethod
    def of(cls, paths: Sequence[str], labels: np.ndarray, head: np.ndarray, tuned: np.ndarray) -> PairedTest:
        """Compare two predictions.

        Args:
            paths: N of them.
            labels: (N,) int64, the true classes.
            head: (N,) int64, what the head says.
            tuned: (N,) int64, what the network says.
        """
        first, second = head == labels, tuned == labels

        def named(which: np.ndarray) -> tuple[str, ...]:
            return tuple(str(path) for path, here in zip(paths, which, strict=True) if here)

        return cls(len(labels), int((first & second).sum()), named(first & ~second), named(second & ~first))

    @classmethod
    def together(cls, parts: Sequence[PairedTest]) -> PairedTest:
        """Of disjoint sets of images, all of them."""
        return cls(
            sum(part.n for part in parts),
            sum(part.both for part in parts),
            tuple(path for part in parts for path in part.head_only),
            tuple(path for part in parts for path in part.tuned_only),
        )

    @property
    def head_accuracy(self) -> float:
        """Share of the images that the head gets right."""
        return (self.both + len(self.head_only)) / self.n

    @property
    def gained(self) -> int:
        """How many more images the fine-tuned network gets right."""
        return len(self.tuned_only) - len(self.head_only)

    @property
    def p_value(self) -> float:
        """Of McNemar's exact test (1947), two-sided: how often chance alone would tear apart two equal classifiers as far."""
        return mcnemar(len(self.head_only), len(self.tuned_only))

    def as_dict(self) -> dict[str, Any]:
        """As ``featx promote --json`` and a model's file have it; of very many images the first are named."""
        return {
            "n": self.n,
            "both_right": self.both,
            "head_only": len(self.head_only),
            "finetuned_only": len(self.tuned_only),
            "p_value": self.p_value,
            "head_only_images": list(self.head_only[:MOST_NAMED]),
            "finetuned_only_images": list(self.tuned_only[:MOST_NAMED]),
        }


def mcnemar(first: int, second: int) -> float:
    """The p-value of McNemar's exact test, two-sided.

    Args:
        first: images that one classifier alone gets right.
        second: those that the other does.
    """
    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def _each(p: float, looks: int) -> float:
    """What each of some looks may have of a p-value (Sidak, 1967)."""
    return -math.expm1(math.log1p(-p) / looks) if p < 1 else 1.0


@dataclass(frozen=True)
class PromotionCriterion:
    """When a gain is proved, if it may be looked at several times: on the split that judges, then on other splits together.

    Each look has a share of the significance, so that luck alone passes one of them no more often than that: the first as
    much as all later ones.

    Attributes:
        significance: how often luck alone may pass.
        repeats: at most so many other splits are asked.
    """

    significance: float
    repeats: int

    @property
    def first(self) -> float:
        """The largest p-value that is proof on the split that judges."""
        return _each(self.significance, 2) if self.repeats else self.significance

    @property
    def later(self) -> float:
        """The same, each time that another split has been asked."""
        return _each(self.first, self.repeats)

    def level(self, others: Sequence[PairedTest]) -> float:
        """The largest p-value that is proof now."""
        return self.later if others else self.first

    def proved(self, first: PairedTest, others: Sequence[PairedTest] = ()) -> bool:
        """Whether the fine-tuned network is better than the head."""
        now = PairedTest.together(others) if others else first
        return first.gained > 0 and now.gained > 0 and now.p_value <= self.level(others)

    def undecided(self, first: PairedTest, others: Sequence[PairedTest], images: int) -> bool:
        """Whether another split may give the proof: it is not there, but on all images a gain would be that is somewhat larger.

        By a standard error, that is, than the one so far: a smaller one may well be luck or the lack of it.

        Args:
            first: on the split that judges.
            others: on the other splits so far.
            images: that all splits hold together.
        """
        if len(others) == self.repeats or self.proved(first, others) or first.gained <= 0:
            return False
        now = PairedTest.together(others) if others else first
        apart = len(now.head_only) + len(now.tuned_only)
        hopeful = min(apart, now.gained + math.sqrt(apart))
        shares = (round((apart + sign * hopeful) / 2 * images / now.n) for sign in (-1, 1))
        return hopeful > 0 and mcnemar(*shares) <= self.later
