"""Labels that are probably wrong, ranked by the out-of-fold probability of the given label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.inspection.out_of_fold import OutOfFold


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """How probable the given label of each image is, and what the head suggests instead.

    Attributes:
        scores: (N,) float64 between 0 and 1, low for labels that are probably wrong; NaN for images that were not judged.
        is_issue: (N,) bool, found by confident learning (regression: by its counterpart).
        given: (N,) object array of str, the label as the data set has it; "" for none.
        suggested: (N,) object array of str, the label that the head suggests, as a data set would have it (a class, labels with
            ``|`` between them, a number); "" where nothing was judged.
        confidence: (N,) float64, the probability of the suggested label; NaN for a regression and where nothing was judged.
        expected: the expected number of wrong labels.
        ranked: (n,) int64, the judged rows whose suggestion differs from the given label, the most suspicious first.
    """

    scores: np.ndarray
    is_issue: np.ndarray
    given: np.ndarray
    suggested: np.ndarray
    confidence: np.ndarray
    expected: int
    ranked: np.ndarray


def find_label_issues(out_of_fold: OutOfFold, count: int) -> LabelIssues:
    """Judge the labels of a set of ``count`` images by their out-of-fold predictions."""
    raise NotImplementedError
