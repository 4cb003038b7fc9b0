"""Features of each task, for the tests of ``fit_head``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from made import photos, with_labels

from featx.features.feature_set import FeatureSet


def tagged() -> FeatureSet:
    """Images with any of the labels cat and dog, each by a feature of its own."""
    features = photos(classes=("x",), train=100, test=60, gap=0.0)
    has = features.features[:, :2] > 0.3
    return with_labels(features, ["|".join(np.array(["cat", "dog"])[row]) or "|" for row in has])


def measured() -> FeatureSet:
    """Images with a number each."""
    features = photos(classes=("x",), train=100, test=60, gap=0.0)
    return with_labels(features, [f"{x:.3f}" for x in features.features[:, 0] - 2 * features.features[:, 1]])


TASKS: dict[str, Callable[[], FeatureSet]] = {
    "classification": lambda: photos(gap=1.0),
    "multilabel": tagged,
    "regression": measured,
}
