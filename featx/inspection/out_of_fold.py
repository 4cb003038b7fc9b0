"""Out-of-fold predictions: each labelled image predicted by a head that was fitted without it and its like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.data.image_set import PRETRAIN, UNLABELLED
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.targets import targets_of


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Predictions of labelled images by heads that were fitted to images of other groups only.

    Attributes:
        rows: (n,) int64, the rows of the set, ascending; images that no fold could hold out are missing.
        y: (n,) int64, (n, C) float32 or (n, 1) float64, the given targets, as ``Targets.y``.
        outputs: (n, C) float64, probabilities of classes or labels, or the values of a regression.
        classes: (C,) names.
        task: one of ``TASKS``.
        head: fitted to all labelled rows; its hyper-parameter was chosen on them.
    """

    rows: np.ndarray
    y: np.ndarray
    outputs: np.ndarray
    classes: tuple[str, ...]
    task: str
    head: Head


def predict_out_of_fold(features: FeatureSet, head: Head) -> OutOfFold:
    """Fit a head to all labelled rows, and predict each by the fold that holds it out.

    Args:
        features: N images; images of one of its ``groups`` never straddle a fold, and neither do copies.
        head: unfitted; it is fitted here.

    Raises:
        HeadError: too few labelled images, or nothing can be held out.
    """
    rows = np.flatnonzero((features.labels != UNLABELLED) & (features.splits != PRETRAIN))
    if not len(rows):
        raise HeadError(f"there are no labelled images to predict; {features.describe_splits()}")
    head.fit(features, rows=rows, cross_validate=True, coarse=True)
    if head.out_of_fold_ is None:
        raise HeadError("no class has two images that could be told apart, so none can be predicted out of fold")
    held_out, outputs = head.out_of_fold_
    targets = targets_of(features.without_features(rows), head.task_, head.classes_)
    return OutOfFold(rows[held_out], targets.y[held_out], outputs, head.classes_, head.task_, head)
