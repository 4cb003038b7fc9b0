"""What an inspection of a data set found."""

from __future__ import annotations

from dataclasses import dataclass

from featx.features.feature_set import FeatureSet
from featx.inspection.duplicates import Duplicates
from featx.inspection.label_issues import LabelIssues
from featx.inspection.leaks import Leaks
from featx.inspection.neighbours import Neighbours
from featx.inspection.out_of_fold import OutOfFold
from featx.inspection.outliers import Outliers
from featx.inspection.pixels import PixelIssues


@dataclass(frozen=True, eq=False)
class Inspection:
    """What an inspection of N images found.

    Attributes:
        features: the images, in the splits that heads are fitted and judged by; groups of near-duplicates are not in it.
        neighbours: of each image.
        duplicates: exact copies and near-duplicates.
        leaks: duplicates across splits or with different labels.
        outliers: images far from all others.
        out_of_fold: predictions of labelled images; None where there are no labels to learn.
        labels: labels that are probably wrong; None where there are no labels to learn.
        pixels: odd images; None where no image was read.
        notes: for the user, one sentence each.
        seconds: the duration of the inspection.
    """

    features: FeatureSet
    neighbours: Neighbours
    duplicates: Duplicates
    leaks: Leaks
    outliers: Outliers
    out_of_fold: OutOfFold | None
    labels: LabelIssues | None
    pixels: PixelIssues | None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
