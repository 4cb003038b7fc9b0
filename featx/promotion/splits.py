"""Which images train a network, which validate it and which test it; and the heads that it starts from and competes with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from featx.data.splits import hash_group_splits
from featx.errors import PromotionError
from featx.heads.folds import make_folds
from featx.heads.groups import row_groups
from featx.heads.head import Head
from featx.promotion.assemble import Assembly
from featx.text import counted


@dataclass(frozen=True, eq=False)
class RunSplit:
    """The images and the heads of one fine-tuning run. No image has two roles.

    Attributes:
        start: The head that training starts from; it was not fitted to the validation images.
        rival: The head that the fine-tuned network is compared with; it was not fitted to the test images.
        train: (n,) int64 rows to train on.
        validation: (m,) int64 rows that choose the best epoch and the interpolation.
        test: (t,) int64 rows that the verdict falls on.
        chosen_on: The validation images, in words.
        repeat: 0 for the data set's own split, k for the k-th repeat on another split.
        searched: (n,) int64, all rows that a search for settings may use, where this is one of its folds; else None.
        taught: (N, C) log-probabilities of the teacher on all rows of the data set, NaN on those that are not in ``train``;
            None without a teacher.
    """

    start: Head
    rival: Head
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    chosen_on: str
    repeat: int = 0
    searched: np.ndarray | None = None
    taught: np.ndarray | None = None


def standard_split(assembly: Assembly) -> RunSplit:
    """Return the data set's own split.

    The split "val" validates. Where there is none, or where it is the test split, a fifth of the training images does, and
    training starts from a head that is fitted without these.

    Raises:
        PromotionError: There are too few training images to hold some back.
    """
    head, data = assembly.head, assembly.data
    train, val, test = data.rows("train"), data.rows("val"), data.rows(assembly.test_split)
    if assembly.test_split != "val" and len(val):
        return RunSplit(head, head, train, val, test, f"the {counted(len(val), 'image')} of split val")
    start, train, validation, chosen_on = _hold_back(assembly, train)
    return RunSplit(start, head, train, validation, test, chosen_on)


def repeated_splits(assembly: Assembly, repeats: int, seed: int) -> Iterator[RunSplit]:
    """Yield further splits, whose test images are disjoint and together all labelled images.

    On each split, both the head that training starts from and the head that the network is compared with are fitted anew.

    Args:
        assembly: The assembled network.
        repeats: Number of splits, at least 2.
        seed: Seed of the splits.

    Raises:
        FoldError, HeadError, PromotionError: A split has too few images.
    """
    features, labelled = assembly.features, assembly.data.labelled_rows
    groups = row_groups(features, labelled)
    folds = make_folds(assembly.data.labels[labelled], groups, folds=repeats, seed=seed)
    for number, (rest, test) in enumerate(folds, start=1):
        rival = assembly.head.clone().fit(features, rows=labelled[rest])
        start, train, validation, chosen_on = _hold_back(assembly, labelled[rest])
        yield RunSplit(start, rival, train, validation, labelled[test], chosen_on, repeat=number)


def _hold_back(assembly: Assembly, rows: np.ndarray) -> tuple[Head, np.ndarray, np.ndarray, str]:
    """Hold back a fifth of some rows, by content, and fit the head to the others.

    Returns:
        The head, the rows to train on, the validation rows, and the latter in words.
    """
    head, features, labels = assembly.head, assembly.features, assembly.data.labels
    groups = None if features.groups is None else features.groups[rows]
    is_validation = hash_group_splits(features.keys[rows], groups, labels[rows]) == "test"
    validation, train = rows[is_validation], rows[~is_validation]
    start = head.clone().fit(features, rows=train) if len(validation) else head
    if not len(validation) or start.names_ != head.names_:
        raise PromotionError(
            "there are too few training images to hold some back for validation; add images, or a split val beside test"
        )
    return start, train, validation, f"{len(validation)} of the training images, held back by their content"
