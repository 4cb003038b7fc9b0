"""Paired comparison of two classifiers on the same images, and the criterion for a promotion.

The test is McNemar's exact one; where images come in groups, it is the sign-flip test of the groups' gains.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.metrics.grouped import group_sums, number_groups, sign_flip_test
from featx.text import counted

MOST_NAMED = 100
"""Number of image paths that ``PairedTest.as_dict`` lists for each classifier; the counts are always complete."""


@dataclass(frozen=True)
class PairedTest:
    """Predictions of two classifiers on the same images, compared by an exact test.

    Without groups it is McNemar's test (1947). With groups, such as patients, it is the sign-flip test of the groups' gains
    (``sign_flip_test``): two equal classifiers may differ on all images of a group, but either may be the better one there.

    Attributes:
        n: number of images.
        both_right: number of images that both predict correctly.
        first_only: paths of the images that only the first classifier predicts correctly.
        second_only: paths of the images that only the second classifier predicts correctly.
        groups: number of groups that the images belong to; None where each image is a group of its own.
        gains: how many more images of each group the second classifier predicts correctly, without the groups of 0; None
            where each image is a group of its own.

    Examples:
        >>> labels = np.array([0, 0, 1, 1])
        >>> first, second = np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1])
        >>> test = PairedTest.from_predictions(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], labels, first, second)
        >>> test.gained, test.second_only, test.p_value
        (2, ('b.jpg', 'd.jpg'), 0.5)
    """

    n: int
    both_right: int
    first_only: tuple[str, ...]
    second_only: tuple[str, ...]
    groups: int | None = None
    gains: tuple[int, ...] | None = None

    @classmethod
    def from_predictions(
        cls,
        paths: Sequence[str],
        labels: np.ndarray,
        first: np.ndarray,
        second: np.ndarray,
        groups: np.ndarray | None = None,
    ) -> PairedTest:
        """Compare two predictions image by image.

        Args:
            paths: N image paths.
            labels: (N,) int64, the true classes.
            first: (N,) int64, the classes that the first classifier predicts.
            second: (N,) int64, the classes that the second classifier predicts.
            groups: (N,) the group of each image, such as its patient; None: each image is a group of its own.
        """
        first_right, second_right = first == labels, second == labels

        def selected(mask: np.ndarray) -> tuple[str, ...]:
            return tuple(str(path) for path, chosen in zip(paths, mask, strict=True) if chosen)

        both = int((first_right & second_right).sum())
        test = cls(len(labels), both, selected(first_right & ~second_right), selected(second_right & ~first_right))
        numbers = number_groups(groups)
        if numbers is None:
            return test
        gains, _ = group_sums(second_right.astype(np.int64) - first_right, numbers)
        return dataclasses.replace(test, groups=len(gains), gains=tuple(int(gain) for gain in gains if gain))

    @classmethod
    def pooled(cls, tests: Sequence[PairedTest]) -> PairedTest:
        """Pool the tests of disjoint sets of images, and of groups, into one."""
        grouped = any(test.gains is not None for test in tests)
        return cls(
            sum(test.n for test in tests),
            sum(test.both_right for test in tests),
            tuple(path for test in tests for path in test.first_only),
            tuple(path for test in tests for path in test.second_only),
            sum(test.n if test.groups is None else test.groups for test in tests) if grouped else None,
            tuple(gain for test in tests for gain in test.gains_of_groups) if grouped else None,
        )

    @property
    def gains_of_groups(self) -> tuple[int, ...]:
        """The gain of each group that has one; without groups, of each image: 1 or -1."""
        if self.gains is not None:
            return self.gains
        return (1,) * len(self.second_only) + (-1,) * len(self.first_only)

    @property
    def first_accuracy(self) -> float:
        """Share of the images that the first classifier predicts correctly."""
        return (self.both_right + len(self.first_only)) / self.n

    @property
    def gained(self) -> int:
        """How many more images the second classifier predicts correctly; negative if fewer."""
        return len(self.second_only) - len(self.first_only)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the exact test: the chance of so large a difference between equal classifiers."""
        if self.gains is None:
            return mcnemar(len(self.first_only), len(self.second_only))
        return sign_flip_test(np.array(self.gains, dtype=np.int64))

    @property
    def method(self) -> str:
        """The test in words."""
        return (
            "McNemar's exact test" if self.groups is None else f"the sign-flip test of {counted(self.groups, 'group')}"
        )

    @property
    def variance(self) -> int:
        """Variance of ``gained`` between equal classifiers; without groups, the number of images on which they differ."""
        return sum(gain * gain for gain in self.gains_of_groups)

    def as_dict(self, first: str = "head", second: str = "finetuned") -> dict[str, Any]:
        """The test as JSON has it, with at most 100 paths a side.

        Args:
            first: the name of the first classifier in the keys; by default, those of ``featx promote --json`` and model files.
            second: the name of the second one.
        """
        return {
            "n": self.n,
            "groups": self.n if self.groups is None else self.groups,
            "both_right": self.both_right,
            f"{first}_only": len(self.first_only),
            f"{second}_only": len(self.second_only),
            "p_value": self.p_value,
            f"{first}_only_images": list(self.first_only[:MOST_NAMED]),
            f"{second}_only_images": list(self.second_only[:MOST_NAMED]),
        }


def mcnemar(first: int, second: int) -> float:
    """The two-sided p-value of McNemar's exact test, which is a binomial test of the discordant pairs.

    Args:
        first: number of images that only the first classifier predicts correctly.
        second: number of images that only the second classifier predicts correctly.

    Examples:
        >>> mcnemar(0, 5)
        0.0625
    """
    from scipy.special import bdtr  # scipy.stats.binomtest gives the same, and takes half a second to import

    return min(1.0, 2.0 * float(bdtr(min(first, second), first + second, 0.5))) if first + second else 1.0


@dataclass(frozen=True)
class PromotionCriterion:
    """When a gain counts as proved, if it may be tested several times: on the test split, then on further splits pooled.

    Repeated tests raise the chance of a false promotion, so the significance is divided among them by the formula of
    Šidák (1967): half for the test split, the other half for all later tests together.

    Attributes:
        significance: the highest accepted probability that two equal classifiers lead to a promotion.
        repeats: the largest number of further splits.

    Examples:
        >>> criterion = PromotionCriterion(significance=0.05, repeats=0)
        >>> criterion.proved(PairedTest(20, 10, first_only=(), second_only=tuple("abcdef")))  # p = 0.03
        True
    """

    significance: float
    repeats: int

    @property
    def first_level(self) -> float:
        """The largest p-value that proves a gain on the test split."""
        return _sidak(self.significance, 2) if self.repeats else self.significance

    @property
    def later_level(self) -> float:
        """The largest p-value that proves a gain on the further splits, each time that one is added."""
        return _sidak(self.first_level, self.repeats)

    def level(self, later: Sequence[PairedTest]) -> float:
        """The largest p-value that proves a gain now, after these further splits."""
        return self.later_level if later else self.first_level

    def proved(self, first: PairedTest, later: Sequence[PairedTest] = ()) -> bool:
        """Whether the fine-tuned network is proved to be better than the head.

        Args:
            first: the test on the test split.
            later: the tests on the further splits so far, which are pooled.
        """
        latest = PairedTest.pooled(later) if later else first
        return first.gained > 0 and latest.gained > 0 and latest.p_value <= self.level(later)

    def undecided(self, first: PairedTest, later: Sequence[PairedTest], images: int) -> bool:
        """Whether a further split may still prove the gain.

        It may if the gain is not proved yet, but would be on all images if it were one standard error larger than so far: a
        smaller gain may be bad luck.

        Args:
            first: the test on the test split.
            later: the tests on the further splits so far.
            images: number of images that all splits hold together.
        """
        if len(later) == self.repeats or self.proved(first, later) or first.gained <= 0:
            return False
        latest = PairedTest.pooled(later) if later else first
        discordant, variance = len(latest.first_only) + len(latest.second_only), latest.variance
        hopeful = min(discordant, latest.gained + math.sqrt(variance))
        if hopeful <= 0:
            return False
        # As many independent pairs, on all images, as give the ratio of a gain and its standard deviation.
        scale = images / latest.n * discordant / max(variance, 1)
        pair = (round((discordant + sign * hopeful) / 2 * scale) for sign in (-1, 1))
        return mcnemar(*pair) <= self.later_level


def _sidak(significance: float, tests: int) -> float:
    """The level of each of several tests that together have a significance (Šidák, 1967)."""
    return -math.expm1(math.log1p(-significance) / tests) if significance < 1 else 1.0
