"""Duplicates across splits, or with different labels, and the accuracy with and without them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inspection.duplicates import Duplicates
from featx.metrics.reports import Report


@dataclass(frozen=True, eq=False)
class Leaks:
    """Duplicates that straddle splits or contradict one another, and what they do to the accuracy.

    Attributes:
        across: (L,) int64, places in ``Duplicates.pairs`` of the pairs whose images are in two of train, val, test.
        conflicts: (M,) int64, places of the pairs whose images have different labels.
        held_out: the split that judges, "test" or "val"; "" if there is none.
        leaked: (m,) int64, rows of the held-out split with a duplicate among the training rows.
        report: of the head on the held-out split; None where there is none, or where it has no leaked images.
        report_without: of the same head on the held-out split without the leaked images; None where there are none left.
    """

    across: np.ndarray
    conflicts: np.ndarray
    held_out: str
    leaked: np.ndarray
    report: Report | None = None
    report_without: Report | None = None


def find_leaks(features: FeatureSet, duplicates: Duplicates, *, head: Head | None = None) -> Leaks:
    """Find the duplicates that straddle splits or have different labels.

    Args:
        features: N images, in the splits that heads are fitted and judged by.
        duplicates: of these images.
        head: fitted to the training rows, to be judged with and without the leaked images; None judges nothing.
    """
    raise NotImplementedError
