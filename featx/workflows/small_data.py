"""When few images are held out, and a fit cross-validates by itself. numpy only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from featx.constants import FEW_HELD_OUT
from featx.data.image_set import PRETRAIN, UNLABELLED
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.metrics.classification import ClassificationReport
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.reports import Report
from featx.system import started
from featx.text import counted
from featx.workflows.fit_options import CV_FOLDS, CV_REPEATS

_MOST: Mapping[str, float] = {"centroid": 1e8, "ridge": 1e8, "knn": 1e8, "logreg": 1e7, "svm": 1e6}
"""The kinds that are cross-validated by themselves, up to so many labelled rows x width x classes: a few seconds to half a
minute. All others take longer, and have to be asked for."""


def cross_validates(features: FeatureSet, head: Head, *, held_out: int) -> bool:
    """Whether a fit adds a cross-validation by itself: few images are held out, and the fits take seconds.

    Args:
        features: all rows.
        head: fitted to the training rows.
        held_out: number of labelled images that are held out.
    """
    if not 0 < held_out < FEW_HELD_OUT or not head.n_train_ or started()[1] > 1:
        return False
    rows = np.count_nonzero((features.labels != UNLABELLED) & (features.splits != PRETRAIN))
    return bool(rows * features.views * features.width * len(head.names_) <= _MOST.get(head.kind, 0))


def notes_on_few(report: Report | None, found: CrossValidated | None, head: Head, *, labelled: int) -> list[str]:
    """Say which number to quote where few images are held out, and what else would help.

    Args:
        report: on the held-out split, or None.
        found: of the cross-validation, or None.
        head: that was fitted.
        labelled: number of labelled images, of which cross-validation may leave some out.
    """
    if report is None or report.n >= FEW_HELD_OUT or not head.n_train_:
        return []
    few = f"the split {report.split} has only {counted(report.n, 'image')}, so"
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
