"""Whether one classifier is better than another on the same images, or just luckier. numpy and scipy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

MOST_NAMED = 100
"""Images that are named, of those that one alone gets right."""


@dataclass(frozen=True)
class Paired:
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
    def of(cls, paths: Sequence[str], labels: np.ndarray, head: np.ndarray, tuned: np.ndarray) -> Paired:
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
    def together(cls, parts: Sequence[Paired]) -> Paired:
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
        apart = len(self.head_only) + len(self.tuned_only)
        return float(binomtest(len(self.head_only), apart).pvalue) if apart else 1.0

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
