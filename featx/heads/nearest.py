"""The nearest rows by cosine, exactly, by blocked matrix products; and what they vote. numpy and scipy only.

N is the number of rows that ask, S of those that are asked, D the width, C the number of classes, labels or targets.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

BLOCK_BYTES = 64 << 20
"""Of similarities that are looked at, at once."""
_GROUP = 16  # columns whose largest stands for them when the k-th largest is bounded


def unit(Z: np.ndarray) -> np.ndarray:
    """(N, D) rows divided by their length, as float32; a row of zeros stays one, and so is like no other (cosine 0)."""
    out: np.ndarray = Z.astype(np.float32)
    length = np.sqrt(np.einsum("nd,nd->n", out, out))
    out /= np.where(length > 0, length, 1)[:, None]
    return out


def search(Z: np.ndarray, support: np.ndarray, k: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """The k rows of ``support`` with the largest cosine to each row of Z.

    Args:
        Z: (N, D), of any length.
        support: (S, D) float32, of length 1.
        k: at most S.

    Yields:
        Which rows of Z; (n, k) int64 rows of support, the most similar first and equally similar ones in their order;
        (n, k) float32 cosines.
    """
    step = block_rows(len(support))
    for at in range(0, len(Z), step):
        rows = slice(at, min(at + step, len(Z)))
        yield rows, *top(unit(Z[rows]) @ support.T, k)


def block_rows(count: int) -> int:
    """How many rows ask at once where ``count`` rows are asked."""
    return max(16, BLOCK_BYTES // (4 * max(count, 1)))


def top(similarities: np.ndarray, k: int, *, order: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k largest of each row, largest first.

    Every entry that reaches a lower bound of the k-th largest is sorted; so equal ones are told apart by their order,
    which ``argpartition`` does not promise.

    Args:
        similarities: (n, S) float32.
        k: at most S.
        order: (S,) int64, by which equal ones are told apart, and which names the columns; 0..S-1, unless given.

    Returns:
        (n, k) int64 from ``order`` and (n, k) float32.
    """
    order = np.arange(similarities.shape[1]) if order is None else order
    reached = similarities >= _bounds(similarities, k)[:, None]
    counts = np.count_nonzero(reached, axis=1)
    for row in np.flatnonzero(counts > 4 * k + 64):  # of very many equal ones, those that come first are enough
        chosen = _first_of_equal(similarities[row], k, order)
        reached[row] = False
        reached[row, chosen] = True
        counts[row] = k
    rows = np.repeat(np.arange(len(reached)), counts)
    columns = np.flatnonzero(reached) - rows * reached.shape[1]
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    found = np.full((len(similarities), int(counts.max(initial=k))), np.iinfo(np.int64).max)
    values = np.full(found.shape, -np.inf, dtype=np.float32)
    found[rows, places], values[rows, places] = order[columns], similarities[rows, columns]
    best = np.lexsort((found, -values))[:, :k]
    return np.take_along_axis(found, best, axis=1), np.take_along_axis(values, best, axis=1)


def _bounds(similarities: np.ndarray, k: int) -> np.ndarray:
    """(n,) values that at least k entries of each row reach: the k-th largest of the largest of groups of columns."""
    count = similarities.shape[1]
    group = min(_GROUP, count // (4 * k))
    if group > 1:
        width = count // group
        similarities = similarities[:, : group * width].reshape(-1, group, width).max(axis=1)
    at = similarities.shape[1] - k
    bounds: np.ndarray = np.partition(similarities, at, axis=1)[:, at]
    return bounds


def _first_of_equal(similarities: np.ndarray, k: int, order: np.ndarray) -> np.ndarray:
    """(k,) columns of the k largest of one row, (S,), the first by ``order`` of those equal to the k-th."""
    least = np.partition(similarities, len(similarities) - k)[len(similarities) - k]
    above, equal = np.flatnonzero(similarities > least), np.flatnonzero(similarities == least)
    return np.concatenate([above, equal[np.argsort(order[equal])[: k - len(above)]]])


def votes(similarities: np.ndarray, weight: np.ndarray, sharpness: float) -> np.ndarray:
    """(n, k) votes, weight exp(sharpness (cosine - the nearest's cosine)): Wu et al. (2018), with temperature 1 / sharpness.

    Args:
        similarities: (n, k) cosines, the largest first.
        weight: (n, k), what each neighbour counts.
        sharpness: 0 for votes that do not depend on the cosine.
    """
    apart = similarities.astype(np.float64)
    apart -= apart[:, :1]
    out: np.ndarray = weight * np.exp(sharpness * apart)
    return out


def log_shares(cast: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Log of each class's share of the votes, one more vote being spread evenly over the classes.

    Args:
        cast: (n, k) votes.
        labels: (n, k) int64 in 0..C-1, whom they are for.
        count: C.
    """
    cells = (labels + count * np.arange(len(labels))[:, None]).ravel()
    tally = np.bincount(cells, cast.ravel(), len(labels) * count).reshape(len(labels), count)
    shares: np.ndarray = np.log((tally + 1.0 / count) / (cast.sum(axis=1, keepdims=True) + 1.0))
    return shares


def logit_shares(cast: np.ndarray, found: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Logit of the share of the votes that each label has, with half a vote more for it and half against.

    Args:
        cast: (n, k) votes.
        found: (n, k) int64, the rows that cast them.
        labels: (S, C) of 0 and 1, what labels each row has.
    """
    has = _sums(cast, found, labels)
    logits: np.ndarray = np.log(has + 0.5) - np.log(np.maximum(cast.sum(axis=1, keepdims=True) - has, 0) + 0.5)
    return logits


def means(cast: np.ndarray, found: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of the rows' values, (n, C), each counted by its vote; ``values`` are (S, C), the rest as in ``logit_shares``."""
    out: np.ndarray = _sums(cast, found, values) / cast.sum(axis=1, keepdims=True)
    return out


def _sums(cast: np.ndarray, found: np.ndarray, values: np.ndarray) -> np.ndarray:
    starts = np.arange(0, cast.size + 1, cast.shape[1])
    matrix = sparse.csr_matrix((cast.ravel(), found.ravel(), starts), shape=(len(cast), len(values)))
    sums: np.ndarray = matrix @ values.astype(np.float64, copy=False)
    return sums
