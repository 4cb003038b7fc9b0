"""What it changes about a head that a fit without an image standardises the features anew."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from featx.heads.influence.design import Design
from featx.heads.influence.hessian import Inverse, Iterative
from featx.heads.training_data import steadying

MAX_STORED = 1 << 27
"""The most numbers that are kept to correct the standardisation to second order; otherwise it is corrected to first order."""

_ROUNDING = 1e-4  # the most by which the variance of a standardised feature differs from 1 because numbers are rounded


class Restandardised:
    """The effect of standardising the features anew without an image.

    The penalty on the weight of a feature grows by the share by which the feature's variance grows. Where the inverse Hessian
    is known and not too much is kept, the parameters without the image are corrected, each weight exactly as if it changed
    alone; otherwise the parameters with the image are, to first order.

    Args:
        design: the rows.
        strength: of the penalty.
        count: k.
        hessian: of the objective.
    """

    def __init__(self, design: Design, strength: float, count: int, hessian: Inverse | Iterative) -> None:
        self._design, self._strength = design, strength
        n, m, D = design.images, design.views * count, design.width
        self._hessian = hessian if isinstance(hessian, Inverse) and n * m * count * D <= MAX_STORED else None
        self._growth_of_all: np.ndarray | None = None
        if not self._hessian:
            if n * D <= MAX_STORED:
                self._growth_of_all = np.empty((n, D), dtype=np.float32)
                for images, rows, _ in design.blocks(3):
                    self._growth_of_all[images] = self._growth(rows)
            return
        self._share = np.empty((n, count, D), dtype=np.float32)
        self._rows = np.empty((n, m, count, D), dtype=np.float32)
        self._among = np.empty((n, m, m))
        diagonal = self._hessian.diagonal()
        for images, rows, block in design.blocks(4 * count * count * max(1, D // design.side)):
            inverse = self._hessian.rows(block).reshape(-1, m, count, D)
            spread = self._hessian.spread[images]
            without = diagonal + np.einsum("bmkd,bml,blkd->bkd", inverse, spread, inverse, optimize=True)
            growth = self._growth(rows)[:, None]
            share = growth / np.maximum(1 + strength * growth * without, 1e-3)
            shared = share[:, None] * inverse
            self._share[images], self._rows[images] = share, shared
            self._among[images] = np.einsum("bmkd,blkd->bml", shared, inverse, optimize=True)

    def changes(self, at: np.ndarray, weight: np.ndarray, kernel: np.ndarray, step: np.ndarray) -> np.ndarray:
        """The (n,) effect on a combination of outputs.

        Args:
            at: (k, D), the inverse Hessian times the image and the combination.
            weight: (k, D).
            kernel: (n, m), products of ``at`` with the rows of each image.
            step: (n, m), by which the parameters differ along the rows of each image.
        """
        n, m = kernel.shape
        if self._growth_of_all is not None:
            first = self._growth_of_all @ (at * weight).sum(axis=0).astype(np.float32)
            return np.asarray(self._strength * first.astype(np.float64))
        if not self._hessian:
            out = np.empty(n)
            for images, rows, _ in self._design.blocks(3):
                out[images] = self._growth(rows) @ (at * weight).sum(axis=0)
            return self._strength * out
        both = np.stack([at.ravel(), weight.ravel()], axis=1).astype(np.float32)
        along_at, along_weight = np.moveaxis((self._rows.reshape(n * m, -1) @ both).reshape(n, m, 2), 2, 0)
        spread = np.einsum("nij,nj->ni", self._hessian.spread, kernel)
        change: np.ndarray = (self._share.reshape(n, -1) @ (at * weight).ravel().astype(np.float32)).astype(np.float64)
        change += np.einsum("nm,nm->n", along_weight, spread) - np.einsum("nm,nm->n", along_at, step)
        change -= np.einsum("ni,nij,nj->n", spread, self._among, step, optimize=True)
        return self._strength * change

    def _growth(self, rows: slice) -> np.ndarray:
        """(b, D), the share by which the squared deviation of each feature is larger without each of b images.

        Of few images it has a part that is not of the feature itself (``steadied``), which changes with the number of images
        and with the mean variance of all features.
        """
        Z = self._design.features(rows).reshape(-1, self._design.views, self._design.width)
        left = max(len(self._design) - self._design.views, 1)
        variance = (self._squares - np.square(Z).sum(axis=1)) / left - (Z.sum(axis=1) / left) ** 2
        own = self._squares / len(self._design)
        added = np.where(own > 0, 1 - own, 0.0)
        now = steadying(self._design.different)
        if now and (added > _ROUNDING).any():
            raw, views = self._design.squared_scale, self._design.views
            images = slice(rows.start // views, rows.stop // views)
            then = steadying(self._design.different_without[images])[:, None]
            variance = variance + added * (then / now) * ((variance @ raw) / (own @ raw))[:, None]
        return np.where(self._squares > 0, np.maximum(variance, 1e-6) - 1, 0.0)

    @cached_property
    def _squares(self) -> np.ndarray:
        """(D,), the sum of the squares of each standardised feature.

        It is the number of rows, less where deviations are steadied, and 0 for a constant feature.
        """
        total = np.zeros(self._design.width)
        for _, rows, _ in self._design.blocks():
            total += np.square(self._design.features(rows)).sum(axis=0)
        return total
