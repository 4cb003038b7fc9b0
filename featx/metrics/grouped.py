"""Intervals and paired tests of images in groups, such as one patient's: groups, not images, are drawn independently.

Images of one group tend to be all right or all wrong, so that N of them are worth fewer than N independent ones. Without
groups, every formula here is the usual one for independent images.
"""

from __future__ import annotations

import math

import numpy as np

from featx.metrics.scores import Z95, wilson_interval

_MOST_ENUMERATED = 16
"""Groups up to which all flips of a sign-flip test of real numbers are enumerated."""

_MOST_STEPS = 50_000_000
"""Additions up to which the distribution of a sign-flip test is computed exactly; beyond, it is normal to many digits."""


def number_groups(groups: np.ndarray | None) -> np.ndarray | None:
    """Number groups from 0 on, without gaps; None where no two images share a group.

    Args:
        groups: (N,) of any kind of name, or None.

    Returns:
        (N,) int64, or None.
    """
    if groups is None:
        return None
    if groups.dtype.kind == "i" and len(groups) and groups.min() >= 0 and groups.max() <= 8 * len(groups):
        present = np.bincount(groups) > 0  # much faster than the sort of np.unique
        count, numbers = int(np.count_nonzero(present)), (np.cumsum(present) - 1)[groups]
    else:
        names, numbers = np.unique(groups, return_inverse=True)
        count = len(names)
    return None if count == len(groups) else numbers.astype(np.int64)


def count_groups(groups: np.ndarray | None, n: int) -> int:
    """Count the groups of n images; without groups, each image is its own."""
    return n if groups is None else len(np.unique(groups))


def proportion_interval(right: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """Compute the 95 % interval of the share of images that are right, drawn group by group.

    Without groups this is the Wilson score interval (1927). With groups, the images count as so many independent ones as
    ``effective_size`` finds, and Student's t replaces the normal distribution, as Korn and Graubard (1998) do for surveys.

    Args:
        right: (N,) bool, N at least 1.
        groups: (N,) of any kind of name; None: each image is a group of its own.

    Returns:
        (low, high), both between 0 and 1. One group alone shows nothing about others: (0, 1).

    Examples:
        >>> right = np.arange(60) % 10 > 0
        >>> [round(bound, 2) for bound in proportion_interval(right)]
        [0.8, 0.95]
        >>> wrong_patients = np.arange(60) // 10 > 0  # the same share for each image, but a sixth of the patients
        >>> [round(bound, 2) for bound in proportion_interval(wrong_patients, np.arange(60) // 10)]
        [0.28, 0.98]
    """
    numbers = number_groups(groups)
    if numbers is None:
        return wilson_interval(int(np.count_nonzero(right)), len(right))
    size, freedom = effective_size(*group_sums(right, numbers))
    if not freedom:
        return 0.0, 1.0
    return wilson_interval(float(right.mean()) * size, size, student_quantile(0.975, freedom))


def group_sums(values: np.ndarray, numbers: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum (N,) values over each group, by (N,) numbers from 0 on: (G,) sums and (G,) sizes, both float64.

    Numbers that no value has are left out.
    """
    if numbers is None:
        return np.asarray(values, dtype=np.float64), np.ones(len(values))
    sizes = np.bincount(numbers)
    sums = np.bincount(numbers, weights=values)
    return sums[sizes > 0], sizes[sizes > 0].astype(np.float64)


def effective_size(right: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """Compute how many independent images tell as much about the share of right ones as these groups do.

    The number of images is divided by the design effect: the larger one of two estimates, and at least 1. One is the variance
    between groups relative to the binomial one (the cluster-robust estimate), the other 1 + rho (m - 1) for groups of mean
    size m, weighted by size, and the intraclass correlation rho by analysis of variance (Kish, 1965; Donner, 1986). The first
    holds whatever the groups, the second where one group is very large. If all images are right, or all wrong, rho is unknown
    and counts as 1.

    Args:
        right: (G,) images of each group that are right.
        sizes: (G,) images of each group, at least 1.

    Returns:
        The number of images, and the degrees of freedom of its estimate: fewer than G - 1 where few groups make most of the
        variance (by the fourth moment, as Satterthwaite does), and infinite if each image is its own group. Both are 0 for
        one group.

    Examples:
        >>> effective_size(np.array([9.0, 9, 9, 9]), np.array([10.0, 10, 10, 10]))
        (40.0, 3.0)
        >>> effective_size(np.array([10.0, 10, 10, 0]), np.array([10.0, 10, 10, 10]))[0] < 4
        True
    """
    count, n = len(sizes), float(sizes.sum())
    if count < 2:
        return 0.0, 0.0
    share, weighted = float(right.sum()) / n, float(sizes @ sizes) / n
    if weighted == 1.0:
        return n, math.inf
    if not 0.0 < share < 1.0:
        return n / weighted, count - 1.0
    squares = (right - share * sizes) ** 2
    total = float(squares.sum())
    robust = count / (count - 1) * total / (n * share * (1 - share))
    effect = max(1.0, robust, 1.0 + _intraclass_correlation(right, sizes, share) * (weighted - 1.0))
    spread = float(squares @ squares) - total**2 / count
    freedom = 2.0 * total**2 / spread if spread > 1e-12 * total**2 else count - 1.0
    freedom *= weighted / (weighted - 1.0)  # the binomial part of the variance is not estimated
    return n / effect, min(max(freedom, 1.0), count - 1.0)


def _intraclass_correlation(right: np.ndarray, sizes: np.ndarray, share: float) -> float:
    """The correlation of two images of one group, from 0 to 1, by one-way analysis of variance."""
    count, n = len(sizes), float(sizes.sum())
    between = float((sizes * (right / sizes - share) ** 2).sum()) / (count - 1)
    within = float((right - right**2 / sizes).sum()) / max(n - count, 1.0)
    size = (n - float(sizes @ sizes) / n) / (count - 1)
    whole = between + (size - 1.0) * within
    return min(max((between - within) / whole, 0.0), 1.0) if whole > 0 else 0.0


def student_quantile(level: float, freedom: float) -> float:
    """The quantile of Student's t distribution; of the normal distribution for infinite freedom."""
    if math.isinf(freedom) and level == 0.975:
        return Z95
    from scipy.special import ndtri, stdtrit  # not needed by reports of independent images

    return float(ndtri(level) if math.isinf(freedom) else stdtrit(freedom, level))


def mean_and_error(values: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """Compute the mean of (N,) values of images and its standard error; both NaN for fewer than two groups.

    The error is that of a ratio of sums over groups, the cluster-robust one; without groups, of a plain mean.
    """
    sums, sizes = group_sums(values, number_groups(groups))
    count = len(sums)
    if count < 2:
        return math.nan, math.nan
    mean = float(sums.sum() / sizes.sum())
    rest = sums - mean * sizes
    return mean, math.sqrt(count / (count - 1) * float(rest @ rest)) / float(sizes.sum())


def flip_ratio(differences: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Compute the sum of paired differences in units of its standard deviation when each group's sign is flipped at random.

    This is the statistic of a sign-flip (permutation) test in its normal approximation. It needs no correction for few or
    unequal groups: with G groups it is never above sqrt(G), and one dominating group never gives more than 1.

    Args:
        differences: (N,) float, of two models on the same images.
        groups: (N,) of any kind of name; None: each image is a group of its own.

    Returns:
        The ratio; 0 if all sums are 0.

    Examples:
        >>> flip_ratio(np.full(9, 0.5)), round(flip_ratio(np.full(9, 0.5), np.array([0] * 7 + [1, 2])), 2)
        (3.0, 1.26)
    """
    sums, _ = group_sums(differences, number_groups(groups))
    deviation = math.sqrt(float(sums @ sums))
    return float(sums.sum()) / deviation if deviation > 0 else 0.0


def sign_flip_test(gains: np.ndarray) -> float:
    """Compute the two-sided p-value of the sign-flip test of paired gains: each gain is as likely with the other sign.

    The distribution of the sum over all flips is exact. Gains of single images, 1 and -1, make this McNemar's exact test.

    Args:
        gains: (G,) int64, of each group: how many more of its images one model predicts correctly than the other.

    Examples:
        >>> sign_flip_test(np.array([1, 1, 1, 1, 1]))
        0.0625
        >>> sign_flip_test(np.array([5]))
        1.0
        >>> round(sign_flip_test(np.array([5, 1, 1, 1, -1, 2])), 6)
        0.15625
    """
    sizes = np.abs(gains[gains != 0]).astype(np.int64)
    observed = abs(int(gains.sum()))
    if not observed:
        return 1.0
    singles, larger = int(np.count_nonzero(sizes == 1)), np.sort(sizes[sizes > 1])
    from scipy.special import ndtr
    from scipy.stats import binom  # takes half a second to import

    if (len(larger) + 1) * int(sizes.sum()) > _MOST_STEPS:
        deviation = math.sqrt(float((sizes.astype(np.float64) ** 2).sum()))
        return min(1.0, 2.0 * float(ndtr(-(observed - 0.5) / deviation)))
    # The chances of each sum of the gains that are positive after a flip, from 0 on.
    chances = binom.pmf(np.arange(singles + 1), singles, 0.5)
    for size in larger.tolist():
        wider = np.zeros(len(chances) + size)
        wider[: len(chances)] = chances
        wider[size:] += chances
        chances = wider / 2
    total = int(sizes.sum())
    return min(1.0, 2.0 * float(chances[(total + observed) // 2 :].sum()))


def flip_test(differences: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Compute the two-sided p-value of the sign-flip test of paired differences, such as those of two models' losses.

    Each group's sum of differences is as likely with the other sign. Up to 16 groups, all flips are enumerated; beyond, the
    distribution counts as normal (``flip_ratio``).

    Args:
        differences: (N,) float, of two models on the same images.
        groups: (N,) of any kind of name; None: each image is a group of its own.

    Examples:
        >>> flip_test(np.array([0.1, 0.2, 0.3, 0.4])), round(flip_test(np.full(25, 0.5)), 9)
        (0.125, 5.73e-07)
    """
    sums, _ = group_sums(differences, number_groups(groups))
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    if len(sums) <= _MOST_ENUMERATED:
        totals = np.zeros(1)
        for value in sums.tolist():
            totals = np.concatenate([totals + value, totals - value])
        observed = abs(float(sums.sum())) * (1 - 1e-9)  # sums of floats differ by their order
        return float((np.abs(totals) >= observed).mean())
    from scipy.special import ndtr

    return 2.0 * float(ndtr(-abs(flip_ratio(differences, groups))))


def lower_bound(right: np.ndarray, groups: np.ndarray | None = None, *, confidence: float = 0.95) -> float:
    """Compute the one-sided lower bound of the share of images that are right, drawn group by group.

    Without groups this is the exact bound of Clopper and Pearson (1934). With groups, it is that of the effective number of
    images, reduced by Student's t (Korn and Graubard, 1998).

    Args:
        right: (N,) bool, N at least 1.
        groups: (N,) of any kind of name; None: each image is a group of its own.
        confidence: the chance that the bound is not above the true share.

    Examples:
        >>> round(lower_bound(np.full(59, True)), 4)
        0.9505
        >>> lower_bound(np.full(59, True), np.arange(59) // 10) < 0.6  # 6 groups
        True
    """
    from scipy.special import betaincinv, ndtri

    size, freedom = effective_size(*group_sums(right, number_groups(groups)))
    if not freedom or not right.any():
        return 0.0
    if not math.isinf(freedom):
        size *= (float(ndtri(confidence)) / student_quantile(confidence, freedom)) ** 2
    hits = float(right.mean()) * size
    return float(betaincinv(hits, size - hits + 1, 1 - confidence))
