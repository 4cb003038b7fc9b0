"""The relative scales of several backbones side by side: equal, unless held-out losses show that others are better.

The columns of each backbone are standardised one by one. A factor multiplies all columns of one backbone: a smaller one makes
weights on them cost more (of neighbours and centroids, makes their distances count less), so it is a penalty of each block.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from featx.heads.registry import HeadKind
from featx.heads.search import held_out_losses, search, search_share
from featx.heads.training_data import Estimator, Rows, TrainingData
from featx.metrics.grouped import flip_ratio

STEP = 4.0
"""The ratio of the factors that are compared; the penalties of their weights differ by its square."""
LEAST_FACTOR = STEP**-3
"""The smallest factor, relative to the largest."""
SIGNIFICANT = 2.0
"""Standard errors by which the held-out loss must be lower for factors that are not equal."""
SCALED_KINDS = ("logreg", "ridge", "svm", "knn", "centroid")
"""The kinds of head whose factors are chosen. Those of the others, which take minutes where these take seconds, are equal."""


@dataclass(frozen=True, eq=False)
class _Judged:
    """Factors, and what they are worth.

    Attributes:
        factors: one for each block; the largest is 1.
        losses: (n,) float64, of each held-out image, times its weight.
        loss: their mean.
        groups: (n,) int64, which of these images belong together, or None.
    """

    factors: tuple[float, ...]
    losses: np.ndarray
    loss: float
    groups: np.ndarray | None


def choose_factors(
    training: TrainingData,
    blocks: Sequence[slice],
    estimator: Estimator,
    kind: HeadKind,
    candidates: Sequence[float] | None = None,
) -> tuple[float, ...]:
    """Choose the factor of each block of columns, on held-out training rows.

    All begin as 1. In each step the factor of one block becomes a fourth or four times as large, whichever has the lowest
    held-out loss, with the best C or k for it; but only if that loss is lower by two standard errors, image by image.

    Args:
        training: with the rows standardised.
        blocks: the columns of each backbone.
        estimator: that compares the candidates of its hyper-parameter.
        kind: of the head.
        candidates: of the hyper-parameter; by default the estimator's own.

    Returns:
        The factors, of which the largest is 1. They are equal where nothing can be compared.
    """
    equal = (1.0,) * len(blocks)
    if len(blocks) < 2 or training.ranks is not None or not training.rows.fits:
        return equal
    some, _ = search_share(training)
    if not some.folds:
        return equal

    def judged(factors: tuple[float, ...]) -> _Judged:
        scaled = with_factors(some, blocks, factors)
        found = search(estimator, scaled, candidates=candidates, gives_logits=kind.gives_logits, extends=False)
        each = held_out_losses(found.scores, scaled, found.rows, gives_logits=kind.gives_logits)
        losses = each * scaled.weight[found.rows]
        return _Judged(factors, losses, float(losses.mean()), some.groups_of(found.rows))

    best, tried = judged(equal), {equal}
    while True:
        nearby = [factors for factors in _nearby(best.factors) if factors not in tried]
        if not nearby:
            return best.factors
        tried |= set(nearby)
        found = min(map(judged, nearby), key=lambda each: each.loss)
        if not found.loss < best.loss or flip_ratio(best.losses - found.losses, best.groups) <= SIGNIFICANT:
            return best.factors
        best = found


def with_factors(training: TrainingData, blocks: Sequence[slice], factors: Sequence[float]) -> TrainingData:
    """The same data with the columns of each block multiplied by its factor."""
    if len(set(factors)) <= 1:
        return training
    rows = training.rows
    scale = rows.scale.copy()
    for block, factor in zip(blocks, factors, strict=True):
        scale[block] /= factor
    return dataclasses.replace(
        training, rows=Rows(rows.features, rows.index, mean=rows.mean, scale=scale, unit=rows.unit)
    )


def _nearby(factors: tuple[float, ...]) -> list[tuple[float, ...]]:
    """The factors that are one step away, each once: only their ratios matter, so the largest is 1."""
    found = []
    for block, step in product(range(len(factors)), (1 / STEP, STEP)):
        moved = [factor * (step if number == block else 1.0) for number, factor in enumerate(factors)]
        largest = max(moved)
        moved = [factor / largest for factor in moved]
        if min(moved) >= LEAST_FACTOR:
            found.append(tuple(moved))
    return list(dict.fromkeys(found))
