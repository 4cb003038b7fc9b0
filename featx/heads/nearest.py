"""Exact nearest neighbours by cosine, with blocked matrix products, and their votes. numpy and scipy only.

N is the number of query rows, S of support rows, D the width, C the number of classes, labels or targets.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK_BYTES = 64 << 20
"""Bytes of similarities that are processed at a time."""
_GROUP = 16  # columns that are represented by their largest when the k-th largest is bounded


def unit(Z: np.ndarray) -> np.ndarray:
    """Divide (N, D) rows by their length, as float32; a row of zeros stays zero, so its cosine with any other is 0."""
    out: np.ndarray = Z.astype(np.float32)
    length = np.sqrt(np.einsum("nd,nd->n", out, out))
    out /= np.where(length > 0, length, 1)[:, None]
    return out


def search(Z: np.ndarray, support: np.ndarray, k: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Find the k support rows with the largest cosine to each row of Z.

    Args:
        Z: (N, D), of any length.
        support: (S, D) float32, of length 1.
        k: the number of neighbours, at most S.

    Yields:
        A slice of Z's rows; (n, k) int64, their neighbours among the support rows, the most similar first and equally similar
        ones in ascending order; and (n, k) float32 cosines.

    Examples:
        >>> import numpy as np
        >>> support = unit(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        >>> [neighbours.tolist() for _, neighbours, _ in search(np.array([[2.0, 0.1]]), support, 2)]
        [[[0, 2]]]
    """
    step = block_rows(len(support))
    for at in range(0, len(Z), step):
        rows = slice(at, min(at + step, len(Z)))
        yield rows, *top(unit(Z[rows]) @ support.T, k)


def search_others(support: np.ndarray, k: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Find the k other rows with the largest cosine to each row. The cosine of two rows is computed once.

    Args:
        support: (S, D) float32, of length 1.
        k: the number of neighbours, at most S - 1.

    Yields:
        A slice of rows; (n, k) int64, their neighbours, as ``search`` orders them; and (n, k) float32 cosines.

    Examples:
        >>> support = unit(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.1]]))
        >>> [neighbours.tolist() for _, neighbours, _ in search_others(support, 1)]
        [[[2], [2], [1]]]
    """
    count = len(support)
    numbers = np.full((count, k), np.iinfo(np.int64).max)
    values = np.full((count, k), -np.inf, dtype=np.float32)
    at = 0
    while at < count:
        end = min(at + block_rows(count - at), count)
        rows, later = slice(at, end), slice(end, count)
        similarities = support[rows] @ support[at:].T
        np.fill_diagonal(similarities, -np.inf)
        found = top(similarities, min(k, count - at), order=np.arange(at, count))
        numbers[rows], values[rows] = _best(k, (numbers[rows], values[rows]), found)
        if end < count:
            similarities = similarities[:, end - at :]
            if at == 0:
                found = top(np.ascontiguousarray(similarities.T), min(k, end))
                numbers[later, : min(k, end)], values[later, : min(k, end)] = found
            else:
                _improve(numbers[later], values[later], similarities, at)
        yield rows, numbers[rows], values[rows]
        at = end


def _improve(numbers: np.ndarray, values: np.ndarray, similarities: np.ndarray, first: int) -> None:
    """Replace the k best of some rows where those of a further block are better.

    Args:
        numbers: (n, k) int64, changed in place.
        values: (n, k) float32, changed in place, the largest first.
        similarities: (b, n), of the rows ``first`` and following to each of these rows.
        first: a row after all of ``numbers``.
    """
    hits = np.flatnonzero(similarities > np.ascontiguousarray(values[:, -1]))
    row, column = np.divmod(hits, similarities.shape[1])
    order = np.argsort(column, kind="stable")
    row, column = row[order], column[order]
    better, counts = np.unique(column, return_counts=True)
    place = np.repeat(np.arange(len(better)), counts)
    places = np.arange(len(column)) - np.repeat(np.cumsum(counts) - counts, counts)
    further = np.full((len(better), int(counts.max(initial=0))), np.iinfo(np.int64).max)
    cosines = np.full(further.shape, -np.inf, dtype=np.float32)
    further[place, places], cosines[place, places] = row + first, similarities[row, column]
    numbers[better], values[better] = _best(numbers.shape[1], (numbers[better], values[better]), (further, cosines))


def _best(k: int, *found: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The k best of several neighbours of the same rows, given as (n, k') numbers and values each."""
    numbers = np.concatenate([each for each, _ in found], axis=1)
    values = np.concatenate([each for _, each in found], axis=1)
    order = np.lexsort((numbers, -values))[:, :k]
    return np.take_along_axis(numbers, order, axis=1), np.take_along_axis(values, order, axis=1)


def block_rows(count: int) -> int:
    """The number of query rows that are processed at a time for ``count`` support rows."""
    return max(16, BLOCK_BYTES // (4 * max(count, 1)))


def top(similarities: np.ndarray, k: int, *, order: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Find the k largest entries of each row, the largest first.

    All entries that reach a lower bound of the k-th largest are sorted, so that ties are broken by ``order``, which
    ``argpartition`` does not guarantee.

    Args:
        similarities: (n, S) float32.
        k: at most S.
        order: (S,) int64, the numbers of the columns, by which ties are broken; 0..S-1 by default.

    Returns:
        (n, k) int64 from ``order``, and (n, k) float32.
    """
    order = np.arange(similarities.shape[1]) if order is None else order
    reached = similarities >= _bounds(similarities, k)[:, None]
    counts = np.count_nonzero(reached, axis=1)
    for row in np.flatnonzero(counts > 4 * k + 64):  # of very many ties, the first are enough
        chosen = _first_of_equal(similarities[row], k, order)
        reached[row] = False
        reached[row, chosen] = True
        counts[row] = k
    rows = np.repeat(np.arange(len(reached)), counts)
    columns = np.flatnonzero(reached) - rows * reached.shape[1]
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    numbers = np.full((len(similarities), int(counts.max(initial=k))), np.iinfo(np.int64).max)
    values = np.full(numbers.shape, -np.inf, dtype=np.float32)
    numbers[rows, places], values[rows, places] = order[columns], similarities[rows, columns]
    best = np.lexsort((numbers, -values))[:, :k]
    return np.take_along_axis(numbers, best, axis=1), np.take_along_axis(values, best, axis=1)


def _bounds(similarities: np.ndarray, k: int) -> np.ndarray:
    """Bound the k-th largest entry of each row from below, (n,): by the k-th largest of the maxima of groups of columns."""
    count = similarities.shape[1]
    group = min(_GROUP, count // (4 * k))
    if group > 1:
        width = count // group
        similarities = similarities[:, : group * width].reshape(-1, group, width).max(axis=1)
    at = similarities.shape[1] - k
    bounds: np.ndarray = np.partition(similarities, at, axis=1)[:, at]
    return bounds


def _first_of_equal(similarities: np.ndarray, k: int, order: np.ndarray) -> np.ndarray:
    """Find the columns of the k largest entries of one row, (S,); of those equal to the k-th, the first by ``order``."""
    least = np.partition(similarities, len(similarities) - k)[len(similarities) - k]
    above, equal = np.flatnonzero(similarities > least), np.flatnonzero(similarities == least)
    return np.concatenate([above, equal[np.argsort(order[equal])[: k - len(above)]]])


def votes(similarities: np.ndarray, weight: np.ndarray, sharpness: float) -> np.ndarray:
    """Compute votes: weight exp(sharpness (cosine - the nearest row's cosine)), as Wu et al. (2018).

    Args:
        similarities: (n, k) cosines, the largest first.
        weight: (n, k), the weight of each neighbour.
        sharpness: the inverse temperature; 0 for votes that do not depend on the cosine.

    Returns:
        (n, k) float64.
    """
    apart = similarities.astype(np.float64)
    apart -= apart[:, :1]
    out: np.ndarray = weight * np.exp(sharpness * apart)
    return out


def log_shares(cast: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Compute the log of each class's share of the votes, with one more vote spread evenly over the classes.

    Args:
        cast: (n, k) votes.
        labels: (n, k) int64 in 0..C-1, the class that each vote is for.
        count: C.

    Returns:
        (n, C) float64.
    """
    cells = (labels + count * np.arange(len(labels))[:, None]).ravel()
    tally = np.bincount(cells, cast.ravel(), len(labels) * count).reshape(len(labels), count)
    shares: np.ndarray = np.log((tally + 1.0 / count) / (cast.sum(axis=1, keepdims=True) + 1.0))
    return shares


def logit_shares(cast: np.ndarray, neighbours: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the logit of each label's share of the votes, with half a vote added for the label and half against it.

    Args:
        cast: (n, k) votes.
        neighbours: (n, k) int64, the support rows that cast them.
        labels: (S, C) of 0 and 1, the labels of each support row.

    Returns:
        (n, C) float64.
    """
    has = _sums(cast, neighbours, labels)
    logits: np.ndarray = np.log(has + 0.5) - np.log(np.maximum(cast.sum(axis=1, keepdims=True) - has, 0) + 0.5)
    return logits


def means(cast: np.ndarray, neighbours: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Average the values of the neighbours, weighted by their votes.

    Args:
        cast: (n, k) votes.
        neighbours: (n, k) int64, the support rows that cast them.
        values: (S, C), the values of each support row.

    Returns:
        (n, C) float64.
    """
    out: np.ndarray = _sums(cast, neighbours, values) / cast.sum(axis=1, keepdims=True)
    return out


def _sums(cast: np.ndarray, neighbours: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum the values of the neighbours, weighted by their votes: (n, C)."""
    starts = np.arange(0, cast.size + 1, cast.shape[1])
    from scipy import sparse  # a file of a head is read without it

    matrix = sparse.csr_matrix((cast.ravel(), neighbours.ravel(), starts), shape=(len(cast), len(values)))
    sums: np.ndarray = matrix @ values.astype(np.float64, copy=False)
    return sums
