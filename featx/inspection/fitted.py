"""The inspection beside a head that was just fitted: no head is fitted again, and the time that it takes is bounded.

N is the number of images, C of the head's classes or labels.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence

import numpy as np

from featx.data.image_set import PRETRAIN, UNLABELLED
from featx.features.feature_set import FeatureSet
from featx.heads.evaluation import predict_known
from featx.heads.head import Head
from featx.heads.targets import targets_of
from featx.inspection.duplicates import find_duplicates
from featx.inspection.label_issues import find_label_issues
from featx.inspection.leaks import find_leaks
from featx.inspection.neighbours import nearest_neighbours
from featx.inspection.out_of_fold import OutOfFold
from featx.inspection.outliers import find_outliers
from featx.inspection.pixels import inspect_pixels
from featx.inspection.result import Inspection, JudgedHead
from featx.reporter import SILENT, Reporter
from featx.text import counted

MOST_SHOWN = 20_000
"""The most images that are compared with each other; of more, those that judged the head and that it finds hardest."""

MOST_READ = 3_000
"""The most images that are read; those with a finding come first."""


def inspect_fit(
    features: FeatureSet,
    head: Head,
    *,
    judged: JudgedHead | None = None,
    images: Sequence[str | os.PathLike[str]] = (),
    notes: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> Inspection:
    """Inspect the images that a head was fitted to and judged on.

    Labels of training images are judged by the head's own cross-validation, which must have been asked for
    (``Head.fit(..., cross_validate=True)``), all others by the head, which was not fitted to them. What is suggested is what
    the head predicts, without the votes of neighbours, so that a mistake is one of the head.

    Args:
        features: N images, in the splits that the head was fitted and judged by.
        head: fitted to the training images.
        judged: its evaluation; None where nothing is held out.
        images: folders besides that of the data set in which the images may lie.
        notes: about the head, one sentence each.
        reporter: receives the stages.

    Example:

        head = Head("logreg").fit(features, cross_validate=True)
        inspection = inspect_fit(features, head, judged=JudgedHead(head, *head.judge(features)))
    """
    started = time.perf_counter()
    predicted = _predictions(features, head, judged)
    if len(features) > MOST_SHOWN:
        rows = _hardest(predicted, features)
        notes = (*notes, _note_on(rows, features, judged))
        features, judged, predicted = _take(features, rows, judged, predicted)
    reporter.stage(f"comparing {counted(len(features), 'image')}")
    neighbours = nearest_neighbours(features)
    duplicates = find_duplicates(features, neighbours)
    inspection = Inspection(
        features=features,
        neighbours=neighbours,
        duplicates=duplicates,
        leaks=find_leaks(features, duplicates, head=head),
        outliers=find_outliers(neighbours, duplicates),
        out_of_fold=predicted,
        labels=find_label_issues(predicted, len(features)) if predicted else None,
        pixels=None,
        judged=judged,
        notes=(*notes, *duplicates.notes),
    )
    rows = _worth_reading(inspection)[:MOST_READ]
    reporter.stage(f"reading {counted(len(rows), 'image')}")
    pixels = inspect_pixels(features, rows=rows, thumbnails=True, images=images)
    return dataclasses.replace(inspection, pixels=pixels, seconds=time.perf_counter() - started)


def _predictions(features: FeatureSet, head: Head, judged: JudgedHead | None) -> OutOfFold | None:
    """What is predicted of labelled images by heads that were not fitted to them.

    Of more than ``MOST_SHOWN`` images, only of those that judged the head; where there are none, of those it was fitted to.
    """
    is_large = len(features) > MOST_SHOWN
    train = np.empty(0, dtype=np.int64)
    outputs = np.empty((0, len(head.names_)))
    if head.out_of_fold_ is not None and not (is_large and judged):
        held_out, outputs = head.out_of_fold_
        train = features.rows("train")[held_out]
    takes_part = (features.labels != UNLABELLED) & ~np.isin(features.splits, ("train", PRETRAIN))
    others = judged.rows if is_large and judged else np.flatnonzero(takes_part & (not is_large))
    others, y, others_outputs = predict_known(head, features, others)
    rows = np.concatenate([train, others])
    if not len(rows):
        return None
    y = np.concatenate([targets_of(features.without_features(train), head.task_, head.names_).y, y])
    order = np.argsort(rows, kind="stable")
    outputs = np.concatenate([outputs, others_outputs])
    return OutOfFold(rows[order], y[order], outputs[order], head.names_, head.task_, head)


def _hardest(predicted: OutOfFold | None, features: FeatureSet) -> np.ndarray:
    """The ``MOST_SHOWN`` predicted rows whose labels are the least probable, ascending; the first rows without predictions."""
    if predicted is None:
        return np.arange(MOST_SHOWN)
    scores = find_label_issues(predicted, len(features)).scores[predicted.rows]
    return np.sort(predicted.rows[np.argsort(scores, kind="stable")[:MOST_SHOWN]])


def _note_on(rows: np.ndarray, features: FeatureSet, judged: JudgedHead | None) -> str:
    of = f"split {judged.report.split}" if judged else "the training images"
    return (
        f"the page shows {counted(len(rows), 'image')} of {of}, of {len(features):,} in all, and compares them with each other "
        "alone; featx inspect --page compares all"
    )


def _take(
    features: FeatureSet, rows: np.ndarray, judged: JudgedHead | None, predicted: OutOfFold | None
) -> tuple[FeatureSet, JudgedHead | None, OutOfFold | None]:
    """Some rows, in ascending order, of everything."""
    place = np.full(len(features), -1)
    place[rows] = np.arange(len(rows))
    if judged is not None:
        kept = place[judged.rows] >= 0
        judged = dataclasses.replace(judged, rows=place[judged.rows[kept]], outputs=judged.outputs[kept])
    if predicted is not None:
        kept = place[predicted.rows] >= 0
        parts = {name: getattr(predicted, name)[kept] for name in ("rows", "y", "outputs", "fold", "groups", "given")}
        predicted = dataclasses.replace(predicted, **parts | {"rows": place[parts["rows"]]})
    return features.take(rows), judged, predicted


def _worth_reading(inspection: Inspection) -> np.ndarray:
    """All rows: first those that a gallery shows."""
    duplicates, leaks = inspection.duplicates, inspection.leaks
    rows = [
        *([inspection.labels.ranked] if inspection.labels else []),
        duplicates.pairs[np.concatenate([leaks.across, leaks.conflicts])].ravel(),
        *duplicates.groups,
        inspection.outliers.ranked,
        np.arange(len(inspection.features)),
    ]
    every = np.concatenate(rows).astype(np.int64)
    _, first = np.unique(every, return_index=True)
    return every[np.sort(first)]
