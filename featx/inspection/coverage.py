"""Choose images that represent all others, each counted by a weight: generalised coverage, chosen greedily. numpy only.

M is the number of images to choose from, L of labelled ones, D the width of the features.

The rule is that of Bae et al. ("Generalized Coverage for More Robust Low-Budget Active Learning", ECCV 2024, and "Uncertainty
Herding: One Active Learning Method for All Label Budgets", ICLR 2025): an image covers another the more, the closer they are;
each image counts as much as its label is unknown; and the next image is always the one that adds most to what the labelled and
the chosen ones cover. It finds the centres of the set where nothing is labelled, and regions of unsure images later, without
choosing two that are alike. The greedy choice reaches at least 1 - 1/e of the best coverage (Nemhauser et al., 1978).
"""

from __future__ import annotations

import numpy as np

from featx.heads import nearest
from featx.inspection.neighbours import SHARE_OF_MEDIAN

MOST_COMPARED = 8_192
"""The most images that are compared with one another; of more, a sample represents them, drawn by their weights."""

_BLOCK = 512  # rows that are compared at a time
_TOGETHER = 32  # candidates whose gain is computed at a time
_LEAST_SCALE = 1e-6  # cosine distance
_CERTAIN = 1e-3  # the least weight of an image, as a share of the largest


def choose_covering(
    unit: np.ndarray,
    weight: np.ndarray,
    labelled: np.ndarray,
    budget: int,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Choose images that cover all images together with the labelled ones.

    How far an image covers others follows from the budget: to the distance at which as many evenly spread images as are
    labelled or chosen would just cover the set. Of near-duplicates, and of images of one group, a second one is chosen only
    when all others are.

    Args:
        unit: (M, D) float32, rows of length 1.
        weight: (M,) float64, how much each image counts; not negative.
        labelled: (L, D) float32, rows of length 1.
        budget: the number of images to choose, at most M.
        groups: (M,) int64, images that belong together; -1 for an image that belongs to none.
        seed: of the sample where there are more than ``MOST_COMPARED`` images.

    Returns:
        (budget,) int64, in the order in which they were chosen.

    Examples:
        >>> points = nearest.unit(np.array([[9.0, 1.0], [9.0, 2.0], [9.0, 3.0], [1.0, 9.0]]))
        >>> choose_covering(points, np.ones(4), points[:0], 2).tolist()
        [1, 3]
    """
    weight = np.maximum(weight, _CERTAIN * max(float(weight.max(initial=0)), 1e-12))
    rng = np.random.default_rng(seed)
    chosen = np.empty(0, dtype=np.int64)
    while len(chosen) < budget:
        rest = np.setdiff1d(np.arange(len(unit)), chosen)
        number = budget - len(chosen)
        sampled = len(rest) > MOST_COMPARED
        if sampled:  # an image that is drawn by its weight counts as any other
            keys = rng.exponential(size=len(rest)) / weight[rest]
            rest, number = np.sort(rest[np.argsort(keys)[:MOST_COMPARED]]), min(number, MOST_COMPARED // 4)
        known = np.concatenate([labelled, unit[chosen]])
        spent = np.isin(groups[rest], groups[chosen]) & (groups[rest] >= 0) if groups is not None else None
        cover = _Cover(unit[rest], np.ones(len(rest)) if sampled else weight[rest], known, number)
        chosen = np.concatenate([chosen, rest[cover.choose(number, None if groups is None else groups[rest], spent)]])
    return chosen


class _Cover:
    """What some images cover, and how much more each other image would.

    Attributes:
        weight: (M,) how much each image counts.
        kernel: (M, M) float32, how far each image covers each other, between 0 and 1.
        covered: (M,) float32, how far each image is covered.
        close: the value of the kernel from which on two images are near-duplicates.
        spent: (M,) bool, images that are like one that is labelled or chosen.
    """

    def __init__(self, unit: np.ndarray, weight: np.ndarray, labelled: np.ndarray, budget: int) -> None:
        count = len(unit)
        distances = np.empty((count, count), dtype=np.float32)
        reach, apart = np.empty(count, dtype=np.float32), np.empty(count, dtype=np.float32)
        share = min(count - 1, max(1, count // (len(labelled) + budget)))
        for at in range(0, count, _BLOCK):
            rows = slice(at, at + _BLOCK)
            block = np.maximum(1 - unit[rows] @ unit.T, 0)
            block[np.arange(len(block)), np.arange(at, at + len(block))] = 0
            distances[rows] = block
            order = np.partition(block, (min(1, count - 1), share), axis=1)
            apart[rows], reach[rows] = order[:, min(1, count - 1)], order[:, share]
        scale = max(float(np.median(reach)), _LEAST_SCALE)
        distances /= -scale
        self.kernel = np.exp(distances, out=distances)
        self.weight = weight
        self.covered = _largest_kernel(unit, labelled, scale)
        threshold = max(SHARE_OF_MEDIAN * float(np.median(apart)), _LEAST_SCALE)
        self.close = float(np.exp(-threshold / scale))
        self.spent = self.covered >= self.close

    def choose(self, number: int, groups: np.ndarray | None, spent: np.ndarray | None) -> np.ndarray:
        """Choose one image after the other, that of the largest gain: (number,) int64."""
        if spent is not None:
            self.spent |= spent
        taken = np.zeros(len(self.weight), dtype=bool)
        gains = np.concatenate([self._gains(slice(at, at + _BLOCK)) for at in range(0, len(taken), _BLOCK)])
        chosen = []
        for _ in range(number):
            if (self.spent | taken).all():
                self.spent = taken.copy()
            best = self._best(gains, self.spent | taken)
            chosen.append(best)
            taken[best] = True
            self.covered = np.maximum(self.covered, self.kernel[best])
            self.spent |= self.kernel[best] >= self.close
            if groups is not None and groups[best] >= 0:
                self.spent |= groups == groups[best]
        return np.array(chosen, dtype=np.int64)

    def _gains(self, images: slice | np.ndarray) -> np.ndarray:
        """How much more each of some images would cover: (n,) float64."""
        gains: np.ndarray = np.maximum(self.kernel[images] - self.covered, 0) @ self.weight
        return gains

    def _best(self, gains: np.ndarray, excluded: np.ndarray) -> int:
        """Find the image of the largest gain. Gains only ever shrink, so that most need not be computed again (Minoux, 1978).

        Args:
            gains: (M,) upper bounds, which are lowered here.
            excluded: (M,) bool.
        """
        order = np.flatnonzero(~excluded)
        order = order[np.argsort(-gains[order], kind="stable")]
        best, most = int(order[0]), -np.inf
        for at in range(0, len(order), _TOGETHER):
            some = order[at : at + _TOGETHER]
            if gains[some[0]] <= most:
                break
            gains[some] = self._gains(some)
            place = int(gains[some].argmax())
            if gains[some[place]] > most:
                best, most = int(some[place]), float(gains[some[place]])
        return best


def _largest_kernel(unit: np.ndarray, labelled: np.ndarray, scale: float) -> np.ndarray:
    """How far each image is covered by the labelled ones: (M,) float32."""
    nearest_cosine = np.full(len(unit), -np.inf, dtype=np.float32)
    step = nearest.block_rows(len(unit))
    for at in range(0, len(labelled), step):
        nearest_cosine = np.maximum(nearest_cosine, (unit @ labelled[at : at + step].T).max(axis=1))
    covered: np.ndarray = np.exp(-np.maximum(1 - nearest_cosine, 0) / scale)
    return covered
