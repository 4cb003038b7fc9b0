"""The confidence below which no class is predicted, chosen so that a wished precision is kept on other images.

N is the number of held-out rows.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from featx.errors import HeadError
from featx.metrics.grouped import count_groups, lower_bound, number_groups
from featx.text import counted, form

CONFIDENCE = 0.95
"""The chance, at least, that the chosen threshold keeps the precision."""

_MOST_THRESHOLDS = 500
_ROWS_PER_START, _MOST_STARTS = 4, 8
"""There is one sequence of tests for every so many times the fewest rows that can pass, up to so many sequences."""


class Rejection(NamedTuple):
    """A confidence below which no class is predicted, and what it achieves on the rows it was chosen on.

    Attributes:
        threshold: the least confidence that is accepted.
        coverage: the share of rows that are accepted.
        precision: the share of the accepted rows that are right.
    """

    threshold: float
    coverage: float
    precision: float


def threshold_for_precision(
    probabilities: np.ndarray, y: np.ndarray, target: float, groups: np.ndarray | None = None
) -> Rejection:
    """Find a low confidence such that rows of at least that confidence are right as often as required, with 95 % confidence.

    A threshold passes if the lower confidence bound of its precision (``lower_bound``; Clopper and Pearson, 1934) reaches the
    target. Many thresholds are tried, of which the luckiest would be chosen; so they are tested in a fixed order, from the
    strictest on, until the first that fails (fixed-sequence testing: Bauer, 1991; Angelopoulos et al., 2021, "Learn then
    Test"). The strictest threshold is the first that could pass if all its rows were right. With many rows, up to eight such
    sequences begin at different numbers of rows and share the error among them (the fallback procedure; Wiens, 2003).

    Args:
        probabilities: (N, C), of held-out rows; a row's confidence is its largest.
        y: (N,) int64, classes.
        target: the precision, above 0 and below 1.
        groups: (N,) int64, which rows belong together; None: each row is a group of its own.

    Raises:
        HeadError: no confidence is shown to give that precision; the message names the best that one gives.

    Examples:
        >>> import numpy as np
        >>> confidence = np.linspace(1.0, 0.5, 200)
        >>> p, y = np.stack([confidence, 1 - confidence], axis=1), (np.arange(200) >= 150).astype(int)
        >>> found = threshold_for_precision(p, y, 0.95)
        >>> round(found.threshold, 2), found.coverage, round(found.precision, 3)
        (0.62, 0.765, 0.98)
    """
    check_target(target)
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    groups = number_groups(groups)
    ranked = _Ranked(
        confidence[order],
        (probabilities.argmax(axis=1) == y)[order],
        None if groups is None else groups[order],
    )
    last = ranked.search(target)
    if last is None:
        raise HeadError(ranked.why_none(target))
    threshold = float(ranked.confidence[last]) if last + 1 < len(y) else 0.0
    return Rejection(threshold, (last + 1) / len(y), float(ranked.right[: last + 1].mean()))


def rejected_text(threshold: float) -> str:
    """The predictions that a threshold rejects, in words.

    Examples:
        >>> rejected_text(0.5), rejected_text(0.0)
        ('predictions of a probability below 0.5000', 'nothing, since all predictions together are precise enough')
    """
    if threshold <= 0:
        return "nothing, since all predictions together are precise enough"
    return f"predictions of a probability below {threshold:.4f}"


def check_target(target: float) -> None:
    """Raise HeadError unless a target precision can be shown on some number of images."""
    if not 0.0 < target < 1.0:
        raise HeadError(
            f"target_precision is {target:g}; expected a share above 0 and below 1, such as 0.95: no number of images shows "
            "that a head is always right"
        )


class _Ranked(NamedTuple):
    """Held-out rows, the most confident first.

    Attributes:
        confidence: (N,) float, descending.
        right: (N,) bool.
        groups: (N,) int64, or None.
    """

    confidence: np.ndarray
    right: np.ndarray
    groups: np.ndarray | None

    @property
    def ends(self) -> np.ndarray:
        """The last row of each threshold, at most ``_MOST_THRESHOLDS``; rows of equal confidence are accepted together."""
        ends = np.flatnonzero(np.diff(self.confidence, append=-1.0))
        if len(ends) > _MOST_THRESHOLDS:
            ends = ends[np.linspace(0, len(ends) - 1, _MOST_THRESHOLDS).round().astype(np.int64)]
        return ends

    def bound(self, last: int, level: float, *, all_right: bool = False) -> float:
        """The lower bound, at an error level, of the precision of the rows up to one; or as if all of them were right."""
        right = self.right[: last + 1]
        groups = None if self.groups is None else self.groups[: last + 1]
        return lower_bound(np.full(len(right), True) if all_right else right, groups, confidence=1 - level)

    def first_that_can_pass(self, target: float, level: float) -> int:
        """The position in ``ends`` of the strictest threshold that passes if all its rows are right; their number if none."""
        ends = self.ends
        low, high = 0, len(ends)
        while low < high:  # more rows or groups never lower that bound by much, so that a bisection finds it
            middle = (low + high) // 2
            if self.bound(int(ends[middle]), level, all_right=True) >= target:
                high = middle
            else:
                low = middle + 1
        return low

    def search(self, target: float) -> int | None:
        """The last row of the lowest threshold that passes, or None. What is tested does not depend on which rows are right."""
        ends, level = self.ends, 1 - CONFIDENCE
        first = self.first_that_can_pass(target, level)
        if first == len(ends):
            return None
        rows = len(self.right) / (int(ends[first]) + 1)
        starts = min(max(int(rows / _ROWS_PER_START), 1), _MOST_STARTS)
        first = self.first_that_can_pass(target, level / starts)
        if first == len(ends):
            return None
        edges = np.geomspace(int(ends[first]) + 1, len(self.right) + 1, starts + 1)[:-1]
        begins = [*np.maximum(np.searchsorted(ends + 1, edges), first).tolist(), len(ends)]
        found, carried = None, 0.0
        for begin, end in itertools.pairwise(begins):
            share = level / starts + carried
            carried = share
            for at in range(begin, end):
                if self.bound(int(ends[at]), share) < target:
                    carried = 0.0
                    break
                found = int(ends[at])
        return found

    def why_none(self, target: float) -> str:
        """Explain that no threshold passes, and what is possible."""
        count = len(self.right)
        grouped = "" if self.groups is None else f" in {counted(count_groups(self.groups, count), 'group')}"
        needed = math.ceil(math.log(1 - CONFIDENCE) / math.log(target))
        unit = "row" if self.groups is None else "group"
        return (
            f"no confidence is shown to give a precision of {target:g}, with 95 % confidence, on the "
            f"{counted(count, 'held-out row')}{grouped}. {self._possible(target)}A precision of {target:g} takes at least "
            f"{counted(needed, f'accepted {unit}')} without an error. Use a lower target, more images, a better head, or "
            "--reject-below, which promises nothing"
        )

    def _possible(self, target: float) -> str:
        """A sentence on a precision below the target that is shown, the highest as far as bisection finds it; "" if none is."""
        low, high = 0, math.ceil(1000 * target)  # what is shown is sought between them; 0 is shown by no row at all
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.search(middle / 1000) is None else (middle, high)
        last = self.search(low / 1000) if low else None
        if last is None:
            return ""
        right = int(self.right[: last + 1].sum())
        return (
            f"What is shown is a precision of {low / 1000:g}: of the {counted(last + 1, 'row')} with a confidence of "
            f"{self.confidence[last]:.4g} or more, {right:,} {form(right, 'is', 'are')} right. "
        )
