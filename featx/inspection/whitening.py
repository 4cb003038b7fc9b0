"""Whitened features: those in which near-duplicates stand out. numpy and scipy only.

N is the number of images, n of selected ones, D the width of the features.

In the features of a network a few directions, such as those of the object's class, have most of the variance, and the details
that tell two photographs of one object from two copies of one photograph have little. Whitening evens out the variances, as is
usual in image retrieval and copy detection (Jégou and Chum, 2012; Pizzi et al., 2022). Two random images then have a cosine
distance of about 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from featx.heads import nearest

SHRINKAGE = 1.0
"""What is added to the variance of each direction, as a multiple of the mean variance of the directions that the images span.

So directions that are mostly noise do not count as much as the others, and near-duplicates in a small set stay near.
"""


def whiten(Z: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Centre and whiten rows of (N, D) features, by their own covariance, and divide them by their length: (n, D) float32.

    Features that are never negative, as after a ReLU, are replaced by their square roots first (the Hellinger kernel: Perronnin
    et al., 2010; Arandjelovic and Zisserman, 2012), because a few large ones would otherwise outweigh all others.

    Args:
        Z: (N, D), any floats.
        rows: (n,) int64, rows whose features are finite.

    Examples:
        >>> Z = np.random.default_rng(0).normal(size=(50, 3)) + [5, 0, 0]  # all in one direction
        >>> whitened = whiten(Z, np.arange(50))
        >>> whitened.shape, bool(abs(whitened.mean(axis=0)).max() < 0.2)
        ((50, 3), True)
    """
    width = Z.shape[1]
    roots = all((block >= 0).all() for _, block in blocks(Z, rows))
    total, covariance = np.zeros(width), np.zeros((width, width))
    for _, block in blocks(Z, rows):
        total += _unit(block, roots).sum(axis=0, dtype=np.float64)
    mean = (total / max(len(rows), 1)).astype(np.float32)
    for _, block in blocks(Z, rows):
        centred = _unit(block, roots) - mean
        covariance += centred.T @ centred / len(rows)
    spanned = max(min(width, len(rows) - 1), 1)
    least = SHRINKAGE * max(np.trace(covariance), np.finfo(np.float32).eps) / spanned
    factor = cholesky(covariance + least * np.eye(width), lower=True)
    whitening = solve_triangular(factor, np.eye(width), lower=True).T.astype(np.float32)
    out = np.empty((len(rows), width), dtype=np.float32)
    for at, block in blocks(Z, rows):
        out[at] = nearest.unit((_unit(block, roots) - mean) @ whitening)
    return out


def blocks(Z: np.ndarray, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Read rows of (N, D) features block by block, so that they are never all copied: their places, and the block."""
    step = max(1, nearest.BLOCK_BYTES // (8 * max(Z.shape[1], 1)))
    for at in range(0, len(rows), step):
        yield slice(at, min(at + step, len(rows))), Z[rows[at : at + step]]


def _unit(block: np.ndarray, roots: bool) -> np.ndarray:
    return nearest.unit(np.sqrt(block, dtype=np.float32) if roots else block)
