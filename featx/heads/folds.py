"""Folds for cross-validation, and few-shot draws. numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featx.errors import FoldError
from featx.heads.training_data import Folds
from featx.text import counted, listed, printable

ALWAYS_TRAINING = "-1"
"""The name of a fold whose rows are never held out."""

_NOWHERE = -1  # the fold of a row that is never held out


def make_folds(
    strata: np.ndarray | None, groups: np.ndarray | None, *, folds: int, seed: int, repeat: int = 0
) -> Folds:
    """Make shuffled, stratified folds for cross-validation that keep each group in one fold.

    Every row is held out once, by a fold whose training rows have none of its group and some of each of its classes. Where
    that is impossible, rows are in the training rows of every fold and never held out (``judged`` tells which): the only
    group of a class, and the smallest group of a class whose groups would all fall into one fold. So a class with a single
    image does not prevent the cross-validation of the others, and no loss is counted for a class that could not be learned.

    A class with fewer groups than folds is held out only in some of the folds. If no two rows share a group, the folds are
    those of scikit-learn's ``StratifiedKFold(shuffle=True, random_state=seed)``.

    Args:
        strata: (N,) int64, classes; or (N, C) of 0 and 1, labels, where the rarest label of a row counts most; None: no
            stratification.
        groups: (N,) int64, from ``groups.row_groups``; None: each row is a group of its own. Either strata or groups must be
            given.
        folds: their number; there are fewer if no class has as many groups, and () if none has two.
        seed: of the shuffling, 0..2^32 - 1.
        repeat: the number of the repetition, for several foldings with one seed.

    Returns:
        (training rows, held-out rows) of each fold, int64.

    Raises:
        FoldError: fewer than two folds, or neither strata nor groups.

    Examples:
        >>> import numpy as np
        >>> folds = make_folds(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 2, 3, 4]), folds=2, seed=0)
        >>> [held_out.tolist() for _, held_out in folds]
        [[0, 1, 5], [2, 3, 4]]
    """
    if folds < 2:
        raise FoldError(f"{counted(folds, 'fold')}; cross-validation needs at least 2")
    if strata is None and groups is None:
        raise FoldError("neither strata nor groups are given; folds need one of them to know the number of rows")
    groups = np.arange(len(strata)) if groups is None else np.unique(groups, return_inverse=True)[1]  # type: ignore[arg-type]
    member = _membership(strata, len(groups))
    lone = [groups[rows[:1]] for rows in member if (groups[rows] == groups[rows[:1]]).all()]
    fold_of = np.where(np.isin(groups, np.concatenate(lone)) if lone else np.zeros(len(groups), bool), _NOWHERE, 0)
    free = np.flatnonzero(fold_of != _NOWHERE)
    stratum = _rarest(member, len(groups))[free]
    count = min(folds, _most_groups(stratum, groups[free]))
    if count < 2:
        return ()
    rng = np.random.RandomState(seed if repeat == 0 else [seed, repeat])
    fold_of[free] = _assigned(stratum, groups[free], count, rng)
    for rows in member:
        _keep_learnable(fold_of, groups, rows)
    held_out = [np.flatnonzero(fold_of == fold) for fold in range(count)]
    pairs = tuple((np.flatnonzero(fold_of != fold), rows) for fold, rows in enumerate(held_out) if len(rows))
    return pairs if len(pairs) > 1 else ()


def predefined_folds(names: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The folds that the names of rows define, as scikit-learn's ``PredefinedSplit`` reads them.

    Args:
        names: (N,) str; rows of ``-1`` or without a name are in the training rows of every fold, and never held out.

    Returns:
        (training rows, held-out rows) of each fold, int64, by its name: numbers in their order, then names in theirs.

    Raises:
        FoldError: no row names a fold, or one fold holds out every row.

    Examples:
        >>> import numpy as np
        >>> folds = predefined_folds(np.array(["1", "0", "1", "", "0", "-1"], dtype=object))
        >>> {name: held_out.tolist() for name, (_, held_out) in folds.items()}
        {'0': [1, 4], '1': [0, 2]}
    """
    found = sorted(set(names.tolist()) - {"", ALWAYS_TRAINING}, key=lambda name: (not name.isdigit(), len(name), name))
    if not any(not name.isdigit() for name in found):
        found.sort(key=int)
    if not found:
        raise FoldError(f"no image names a fold; expected a name or number for each, and {ALWAYS_TRAINING} for none")
    folds = {name: (np.flatnonzero(names != name), np.flatnonzero(names == name)) for name in found}
    if len(found) == 1 and not len(folds[found[0]][0]):
        raise FoldError(f"every image is in the fold {found[0]!r}, so none is left to fit a head to")
    return folds


def judged(folds: Folds, count: int) -> np.ndarray:
    """Mark the rows that some fold holds out, and that so have scores of a fit without them: (count,) bool."""
    mask = np.zeros(count, dtype=bool)
    for _, rows in folds:
        mask[rows] = True
    return mask


def draw_shots(
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    shots: int,
    classes: Sequence[str],
    seed: int,
    repeat: int = 0,
) -> np.ndarray:
    """Draw a few rows of each class at random, from different groups as far as the class has enough.

    Draws with the same seed and repeat are nested: the rows for 1 shot are among those for 2.

    Args:
        labels: (N,) int64 into ``classes``, without unlabelled rows.
        groups: (N,) int64 from 0 on, from ``groups.row_groups``; None: each row is a group of its own.
        shots: rows to draw from each class that occurs.
        classes: (C,) names, for messages.
        seed: of the draw, at least 0.
        repeat: the number of the repetition, for several draws with one seed.

    Returns:
        (shots x classes,) int64 rows, ascending.

    Raises:
        FoldError: a class has fewer rows.

    Examples:
        >>> import numpy as np
        >>> draw_shots(np.array([0, 0, 0, 1, 1]), shots=1, classes=("ant", "bee"), seed=0).tolist()
        [2, 4]
    """
    present, counts = np.unique(labels, return_counts=True)
    if shots < 1:
        raise FoldError(f"{shots} shots; expected at least 1 image of each class")
    few = [f"{printable(classes[label])} ({n})" for label, n in zip(present, counts, strict=True) if n < shots]
    if few:
        raise FoldError(
            f"{shots} shots are more than the training images of {len(few)} of {len(present)} classes: "
            f"{listed(few, most=5)}; use at most {counts.min()}"
        )
    groups = np.arange(len(labels)) if groups is None else groups
    order = np.random.default_rng([seed, repeat]).permutation(len(labels))
    turn = _turns((labels * (groups.max() + 1) + groups)[order])
    order = order[np.lexsort((turn, labels[order]))]  # stable: rows of one turn stay shuffled
    return np.sort(order[_turns(labels[order]) < shots])


def _turns(values: np.ndarray) -> np.ndarray:
    """Number the occurrences of each value in their order: (N,) int64 from 0 on."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    turns = np.empty(len(values), dtype=np.int64)
    turns[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return turns


def _membership(strata: np.ndarray | None, count: int) -> list[np.ndarray]:
    """List the rows of each class or label that occurs, ascending."""
    if strata is None:
        return [np.arange(count)] if count else []
    if strata.ndim == 2:
        return [rows for column in strata.T if len(rows := np.flatnonzero(column))]
    order = np.argsort(strata, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(strata[order])) + 1) if count else []


def _rarest(member: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Find the class of each row, (count,) int64: of several labels the rarest; rows without any share one more class."""
    stratum = np.full(count, len(member))
    for label in sorted(range(len(member)), key=lambda label: -len(member[label])):
        stratum[member[label]] = label
    return stratum


def _most_groups(stratum: np.ndarray, groups: np.ndarray) -> int:
    """Count the groups of the stratum that has the most."""
    if not len(stratum):
        return 0
    width = groups.max() + 1
    return int(np.bincount(np.unique(stratum * width + groups) // width).max())


def _assigned(stratum: np.ndarray, groups: np.ndarray, count: int, rng: np.random.RandomState) -> np.ndarray:
    """Assign rows to folds, (N,) int64: groups of several rows first, where they fit best; then single rows, which even out."""
    _, first, stratum = np.unique(stratum, return_index=True, return_inverse=True)
    stratum = np.argsort(np.argsort(first))[stratum]  # numbered in order of appearance, as scikit-learn does
    fold_of = np.zeros(len(groups), dtype=np.int64)
    shared = np.bincount(groups)[groups] > 1
    placed = np.zeros((count, len(first)))
    if shared.any():
        fold_of[shared], placed = _fitted_in(stratum[shared], groups[shared], np.bincount(stratum), count, rng)
    single = np.flatnonzero(~shared)
    by_stratum = single[np.argsort(stratum[single], kind="stable")]
    ends = np.cumsum(np.bincount(stratum[single], minlength=len(first)))
    for label, rows in enumerate(np.split(by_stratum, ends[:-1])):
        dealt = _levelling(placed[:, label], placed.sum(axis=1), len(rows))
        folds = np.arange(count).repeat(dealt)
        rng.shuffle(folds)
        fold_of[rows] = folds
        placed[:, label] += dealt
    return fold_of


def _fitted_in(
    stratum: np.ndarray, groups: np.ndarray, sizes: np.ndarray, count: int, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Assign groups greedily, large ones first: each to the fold that keeps the shares of strata and rows most even.

    Unevenness is measured by least squares.

    Returns:
        (N,) int64 folds; and (count, S), the rows of each stratum in each fold.
    """
    _, groups = np.unique(groups, return_inverse=True)
    rows_of = np.bincount(groups)
    pairs, weight = np.unique(groups * len(sizes) + stratum, return_counts=True)
    starts = np.searchsorted(pairs // len(sizes), np.arange(len(rows_of) + 1))
    order = rng.permutation(len(rows_of))
    order = order[np.argsort(-rows_of[order], kind="stable")]
    placed, total, chosen = np.zeros((count, len(sizes))), np.zeros(count), np.empty(len(rows_of), dtype=np.int64)
    for group in order.tolist():
        part = slice(starts[group], starts[group + 1])
        inside = pairs[part] % len(sizes)
        uneven = placed[:, inside] @ (weight[part] / sizes[inside] ** 2) + total * rows_of[group] / sizes.sum() ** 2
        fold = chosen[group] = int(np.argmin(uneven))
        placed[fold, inside] += weight[part]
        total[fold] += rows_of[group]
    return chosen[groups], placed


def _levelling(own: np.ndarray, total: np.ndarray, rows: int) -> np.ndarray:
    """Distribute single rows of a stratum, (K,) int64: each goes to the fold with the fewest of the stratum, then of all."""
    most = int(own.max() - own.min()) + -(-rows // len(own))
    height = own[:, None] + np.arange(most)
    fold = np.broadcast_to(np.arange(len(own))[:, None], height.shape)
    first = np.lexsort((fold.ravel(), total[fold.ravel()], height.ravel()))[:rows]
    return np.bincount(fold.ravel()[first], minlength=len(own))


def _keep_learnable(fold_of: np.ndarray, groups: np.ndarray, rows: np.ndarray) -> None:
    """Keep a class's smallest group in all training rows if one fold would otherwise hold out the whole class."""
    if fold_of[rows[0]] == _NOWHERE or (fold_of[rows] != fold_of[rows[0]]).any():
        return
    own, sizes = np.unique(groups[rows]), np.bincount(groups)
    fold_of[groups == own[np.argmin(sizes[own])]] = _NOWHERE
