"""Duplicates across splits, or with different labels, and the accuracy with and without them.

N is the number of images of the set, P of its pairs of duplicates.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from featx.data.image_set import UNLABELLED
from featx.features.feature_set import FeatureSet
from featx.heads.evaluation import make_report, predict_known
from featx.heads.groups import row_groups
from featx.heads.head import Head
from featx.heads.targets import label_sets, number_of, task_of
from featx.inspection.duplicates import Duplicates
from featx.metrics.reports import Report
from featx.text import counted

SPLITS = ("train", "val", "test")
"""The splits that a model is fitted to, chosen on and judged by."""

SAME_VALUE = 0.1
"""The values of two near-duplicates count as equal in a regression up to this share of the standard deviation of all values."""


@dataclass(frozen=True, eq=False)
class Leaks:
    """Duplicates that straddle splits or contradict one another, and what they do to the accuracy.

    Only labelled images count: the others are neither fitted to nor judged.

    Attributes:
        across: (L,) int64, places in ``Duplicates.pairs`` of the pairs whose images are in two of train, val, test.
        conflicts: (M,) int64, places of the pairs whose images have different labels. Values of a regression differ where the
            images are exact copies, or else where they are ``SAME_VALUE`` standard deviations apart.
        held_out: the split that judges, "test" or "val"; "" if there is none.
        leaked: (m,) int64, rows of the held-out split with a duplicate among the training rows.
        report: of the head on the held-out split; None where there is none, or where it has no leaked images.
        report_without: of the same head on the held-out split without the leaked images; None where there are none left.
        between: the number of pairs of ``across`` for each two splits, such as ``{"train-test": 3}``.
        is_leaked: (N,) bool, rows of val and test with a duplicate among the training rows. Those of val matter where val
            chooses, as it does in fine-tuning.
        conflicting_label: (N,) bool, rows with a duplicate of another label.
        leaked_from: (N,) object array of str, the path of the closest training image of each leaked row; "" for the others.
    """

    across: np.ndarray
    conflicts: np.ndarray
    held_out: str
    leaked: np.ndarray
    report: Report | None = None
    report_without: Report | None = None
    between: Mapping[str, int] = field(default_factory=dict)
    is_leaked: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    conflicting_label: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    leaked_from: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=object))

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of the table of images: name to (N,) array."""
        return {
            "is_leaked": self.is_leaked,
            "leaked_from": self.leaked_from,
            "conflicting_label": self.conflicting_label,
        }


def find_leaks(features: FeatureSet, duplicates: Duplicates, *, head: Head | None = None, task: str = "auto") -> Leaks:
    """Find the duplicates that straddle splits or have different labels.

    Args:
        features: N images, in the splits that heads are fitted and judged by.
        duplicates: of these images.
        head: fitted to the training rows, to be judged with and without the leaked images; None judges nothing.
        task: "auto", or one of ``TASKS``; a head's task counts first.

    Raises:
        HeadError: an unknown task.
    """
    task = head.task_ if head is not None else task_of(features, task, ask=False)[0]
    splits, labelled = np.asarray(features.splits).astype(str), features.labels != UNLABELLED
    pairs = duplicates.pairs[labelled[duplicates.pairs].all(axis=1)]
    places = np.flatnonzero(labelled[duplicates.pairs].all(axis=1))
    first, second = splits[pairs].T
    apart = (first != second) & np.isin(first, SPLITS) & np.isin(second, SPLITS)
    differ = different_labels(features, pairs, duplicates.exact[places], task)
    leaked_from = _leaked_from(features, pairs[apart], splits)
    is_leaked = leaked_from != ""
    conflicting = np.zeros(len(features), dtype=bool)
    conflicting[pairs[differ].ravel()] = True
    held_out = next((name for name in ("test", "val") if (labelled & (splits == name)).any()), "")
    leaked = np.flatnonzero(is_leaked & (splits == held_out))
    report, report_without = (None, None)
    if head is not None and len(leaked):
        report, report_without = _judge(
            head, features, np.flatnonzero(labelled & (splits == held_out)), leaked, held_out
        )
    return Leaks(
        across=places[apart],
        conflicts=places[differ],
        held_out=held_out,
        leaked=leaked,
        report=report,
        report_without=report_without,
        between=_between(first[apart], second[apart]),
        is_leaked=is_leaked,
        conflicting_label=conflicting,
        leaked_from=leaked_from,
    )


def label_numbers(features: FeatureSet, task: str) -> np.ndarray:
    """Number labels so that equal ones have equal numbers: (N,) float64, NaN for an image without a label.

    ``cat|dog`` and ``dog|cat`` are equal, and so are ``1.0`` and ``1`` in a regression, whose numbers are its values.

    Args:
        features: N images.
        task: one of ``TASKS``. Labels of a regression that are no numbers count as missing.
    """
    known = features.labels != UNLABELLED
    numbers = np.where(known, features.labels, np.nan).astype(np.float64)
    if task == "multilabel":
        numbers[known] = np.unique(label_sets(features)[1][known], axis=0, return_inverse=True)[1].ravel()
    elif task == "regression":
        values = np.array([number_of(name) for name in features.classes] or [None], dtype=np.float64)
        numbers[known] = values[features.labels[known]]
    return numbers


def different_labels(features: FeatureSet, pairs: np.ndarray, exact: np.ndarray, task: str) -> np.ndarray:
    """Mark the (P, 2) pairs of labelled images whose labels contradict each other: (P,) bool."""
    numbers = label_numbers(features, task)
    apart = np.abs(
        numbers[pairs[:, 0]] - numbers[pairs[:, 1]]
    )  # NaN, which is never larger, where a label is no number
    values = numbers[np.isfinite(numbers)]
    tolerance = SAME_VALUE * values.std() if task == "regression" and len(values) else 0.0
    differ: np.ndarray = apart > np.where(exact, 0.0, tolerance)
    return differ


def _leaked_from(features: FeatureSet, pairs: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """The path of the closest training image of each leaked row, (N,) object; "" for the others.

    Args:
        features: N images.
        pairs: (L, 2) int64, rows of labelled images in two splits, the closest pair first.
        splits: (N,) str.
    """
    train = splits[pairs] == "train"
    pairs, train = pairs[train.any(axis=1)], train[train.any(axis=1)]
    trained, other = np.where(train[:, 0], pairs.T, pairs[:, ::-1].T)
    leaked, closest = np.unique(other, return_index=True)
    found = np.full(len(features), "", dtype=object)
    found[leaked] = features.paths[trained[closest]]
    return found


def _between(first: np.ndarray, second: np.ndarray) -> dict[str, int]:
    """Count the pairs between each two splits, by (L,) str each."""
    return {
        f"{one}-{other}": count
        for one, other in itertools.combinations(SPLITS, 2)
        if (count := int((((first == one) & (second == other)) | ((first == other) & (second == one))).sum()))
    }


def _judge(
    head: Head, features: FeatureSet, rows: np.ndarray, leaked: np.ndarray, split: str
) -> tuple[Report | None, Report | None]:
    """Judge a head on (n,) rows, and on those of them that are not leaked."""
    head.require_identity(features)
    judged, y, outputs = predict_known(head, features, rows)
    groups, clean = row_groups(features, judged), ~np.isin(judged, leaked)
    without = len(rows) - len(judged)
    notes = [f"{counted(without, 'image')} of split {split} cannot be judged by this head"] if without else []

    def report(which: np.ndarray) -> Report | None:
        if not which.any():
            return None
        return make_report(
            head.postprocess_, head.names_, y[which], outputs[which], split=split, groups=groups[which], notes=notes
        )

    return report(np.ones(len(judged), dtype=bool)), report(clean)
