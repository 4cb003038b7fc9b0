"""When few images are held out, and a fit cross-validates by itself. numpy only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from featx.constants import FEW_HELD_OUT
from featx.data.image_set import PRETRAIN, UNLABELLED
from featx.features.feature_set import FeatureSet
from featx.heads.groups import row_groups
from featx.heads.head import Head
from featx.metrics.classification import ClassificationReport
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.reports import Report
from featx.metrics.tables import quoted
from featx.system import started
from featx.text import counted
from featx.workflows.fit_options import CV_FOLDS, CV_REPEATS

_MOST: Mapping[str, float] = {"centroid": 1e8, "ridge": 1e8, "knn": 1e8, "logreg": 1e7, "svm": 1e6}
"""The kinds that are cross-validated by themselves, up to so many labelled rows x width x classes: a few seconds to half a
minute. All others take longer, and have to be asked for."""
_MOST_IN_FOLDS = 1.5
"""As many times the images of a head may the folds of a cross-validation that stands for it train on."""


def cross_validates(split: FeatureSet, head: Head, *, held_out: int) -> bool:
    """Whether a fit adds a cross-validation by itself: few images are held out, it tells about this head, and it takes seconds.

    Args:
        split: all rows, in the splits that the head uses.
        head: fitted to the training rows.
        held_out: number of labelled images that are held out.
    """
    if not 0 < held_out < FEW_HELD_OUT or not head.n_train_ or started()[1] > 1:
        return False
    rows = len(_labelled_rows(split))
    if rows * split.views * split.width * len(head.names_) > _MOST.get(head.kind, 0):
        return False
    return can_be_divided(split, head.task_) and not more_in_folds(split, head)


def can_be_divided(split: FeatureSet, task: str) -> bool:
    """Whether folds can judge a head: two classes or more have two images that may be in different folds."""
    rows = _labelled_rows(split)
    groups = row_groups(split, rows)
    if task != "classification":
        return len(np.unique(groups)) > 1
    pairs = np.unique(np.stack([split.labels[rows], groups]), axis=1)  # of a class and a group
    return int(np.count_nonzero(np.bincount(pairs[0]) > 1)) > 1


def more_in_folds(split: FeatureSet, head: Head, folds: int = CV_FOLDS) -> str:
    """What folds would train on many more images of than the head was, in words; "" where they stand for the head.

    Heads of 2 to 2.4 times as many images of each class are 6 to 8 points more accurate, those of 1.2 to 1.4 times as many 0 to
    3 (``benchmarks/bench_small.py --only quoted``). The factor is the mean over all images, so that a class of two or three
    decides little.
    """
    by_class = head.task_ == "classification"
    n_all, n_train = (
        np.bincount(split.labels[rows]) if by_class else np.array([len(rows)])
        for rows in (_labelled_rows(split), split.rows("train"))
    )
    n_train = np.maximum(np.pad(n_train, (0, len(n_all) - len(n_train))), 1)
    in_folds = n_all - np.maximum(1, n_all / folds)  # of a class with fewer images than folds, each holds out one
    excess = n_all * (in_folds / n_train - 1)
    if excess.sum() <= (_MOST_IN_FOLDS - 1) * n_all.sum():
        return ""
    worst = int(excess.argmax())
    of = f" of {quoted(split.classes[worst])}" if by_class else ""
    return f"{in_folds[worst]:.0f} images{of}, the saved one to {n_train[worst]}"


def _labelled_rows(split: FeatureSet) -> np.ndarray:
    """The (n,) int64 rows that a cross-validation judges."""
    return np.flatnonzero((split.labels != UNLABELLED) & (split.splits != PRETRAIN))


def notes_on_few(report: Report | None, found: CrossValidated | None, head: Head, split: FeatureSet) -> list[str]:
    """Say which number to quote where few images are held out, and what else would help.

    Args:
        report: on the held-out split, or None.
        found: of the cross-validation, or None.
        head: that was fitted.
        split: all rows, in the splits that the head uses.
    """
    if not head.n_train_:
        return []
    if report is None:
        alone = (
            f"nothing judges this head: it was fitted to all {counted(head.n_train_, 'labelled image')}, which are too few to "
            "be divided (copies and images of one group count once). Add images of each class to know its accuracy"
        )
        return [] if found else [alone]
    if report.n >= FEW_HELD_OUT:
        return []
    labelled = len(_labelled_rows(split))
    few = f"the split {report.split} has only {counted(report.n, 'image')}, so"
    more = more_in_folds(split, head, found.folds if found else CV_FOLDS)
    if found and more:
        return [
            f"the cross-validated heads are fitted to about {more}, so the saved head is probably less accurate than their "
            f"mean; the {found.headline[0]} to quote is that of split {report.split}, of only {counted(report.n, 'image')}"
        ]
    if not can_be_divided(split, head.task_):
        return [f"{few} its numbers are uncertain, and there are too few images for a cross-validation"]
    if more:
        return [
            f"{few} its numbers are uncertain. Cross-validation (--cv {CV_FOLDS} --repeat {CV_REPEATS}) would judge heads "
            f"fitted to about {more}"
        ]
    if found is None:
        return [f"{few} its numbers are uncertain; --cv {CV_FOLDS} --repeat {CV_REPEATS} judges by all labelled images"]
    count = f"all {labelled:,}" if found.n == labelled else f"{found.n:,} of {labelled:,}"
    to_quote = f"the {found.headline[0]} to quote is the cross-validated one, on {count} labelled images"
    out = "; --cv none leaves it out" if found.is_automatic else ""
    return [f"{few} {to_quote} (computed in {found.seconds:.1f} s{out})", *_note_on_shift(report, found)]


def _note_on_shift(report: Report, found: CrossValidated) -> list[str]:
    """Say that the held-out images are harder, or easier, than chance explains, so that both numbers mean different things."""
    interval = found.interval("accuracy") if isinstance(report, ClassificationReport) else None
    if interval is None or not isinstance(report, ClassificationReport):
        return []
    low, high = report.interval
    if low <= interval[1] and interval[0] <= high:
        return []
    harder = "harder" if high < interval[0] else "easier"
    return [
        f"the images of split {report.split} are {harder} than the others: accuracy {report.accuracy:.4f} there, "
        f"{found.mean('accuracy'):.4f} cross-validated. If they stand for the images to come (another place, camera or "
        "time), the number of the split counts"
    ]
