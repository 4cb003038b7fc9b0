"""Out-of-fold predictions: each labelled image predicted by a head that was fitted without it and its like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head


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
    raise NotImplementedError
