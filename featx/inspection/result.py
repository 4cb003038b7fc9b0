"""What an inspection of a data set found."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.data.cells import BETWEEN_LABELS
from featx.data.image_set import UNLABELLED
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.targets import task_of
from featx.inspection.duplicates import Duplicates
from featx.inspection.label_issues import LabelIssues
from featx.inspection.leaks import Leaks
from featx.inspection.neighbours import Neighbours
from featx.inspection.out_of_fold import OutOfFold
from featx.inspection.outliers import Outliers
from featx.inspection.pixels import PixelIssues
from featx.metrics.reports import Report
from featx.metrics.scores import finite
from featx.text import counted


@dataclass(frozen=True, eq=False)
class JudgedHead:
    """A head that was fitted to the training images, and what it gives for the held-out ones.

    Attributes:
        head: fitted.
        report: on the held-out split.
        rows: (n,) int64, the held-out rows.
        outputs: (n, C) float64, what the head predicts for them.
    """

    head: Head
    report: Report
    rows: np.ndarray
    outputs: np.ndarray


@dataclass(frozen=True, eq=False)
class Inspection:
    """What an inspection of N images found.

    Attributes:
        features: the images, in the splits that heads are fitted and judged by; its ``groups`` are those of the user.
        neighbours: of each image.
        duplicates: exact copies and near-duplicates.
        leaks: duplicates across splits or with different labels.
        outliers: images far from all others.
        out_of_fold: predictions of labelled images; None where there are no labels to learn.
        labels: labels that are probably wrong; None where there are no labels to learn.
        pixels: odd images; None where no image was read.
        file: the feature file, or None.
        judged: a head fitted to the training images and judged on the held-out ones; None where that is not possible.
        notes: for the user, one sentence each.
        seconds: the duration of the inspection.
        files: the page and the tables that were written.
        failures: (path, reason) of each image of the feature file that has no features; nothing else is found about these.

    Example:

        inspection = featx.inspect("cache/photos--resnet50.h5")
        print(inspection.counts)  # {'exact duplicates': 2, 'near-duplicates': 14, ...}
        print(inspection.features.paths[inspection.labels.ranked[:10]])
    """

    features: FeatureSet
    neighbours: Neighbours
    duplicates: Duplicates
    leaks: Leaks
    outliers: Outliers
    out_of_fold: OutOfFold | None
    labels: LabelIssues | None
    pixels: PixelIssues | None
    file: Path | None = None
    judged: JudgedHead | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    files: tuple[Path, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """The number of findings of each sort, by its name in words: pairs of images, or images."""
        exact = int(np.count_nonzero(self.duplicates.exact))
        counts = {
            "exact duplicates": exact,
            "near-duplicates": len(self.duplicates.pairs) - exact,
            "leaks": len(self.leaks.across),
            "conflicting labels": len(self.leaks.conflicts),
        }
        if self.labels is not None:
            counts["label errors"] = int(np.count_nonzero(self.labels.is_issue))
        counts["outliers"] = len(self.outliers.ranked)
        if self.pixels is not None:
            counts["odd images"] = int(np.count_nonzero(np.any([*self.pixels.is_issue.values()], axis=0)))
        return counts

    @property
    def given_labels(self) -> np.ndarray:
        """The label of each image as the data set has it: (N,) object array of str; "" for none."""
        features = self.features
        names = np.array([*features.classes, ""], dtype=object)  # the label -1 is the last
        given: np.ndarray = names[np.where(features.labels == UNLABELLED, len(features.classes), features.labels)]
        return given

    def columns(self) -> dict[str, np.ndarray]:
        """All findings as one table with a row for each image, under the names of cleanlab's Datalab.

        Returns:
            {name: (N,) array}: path, label and split, then what each part found.
        """
        columns = {"path": self.features.paths, "label": self.given_labels, "split": self.features.splits}
        for part in (self.duplicates, self.leaks, self.labels, self.outliers, self.pixels):
            if part is not None:
                columns |= part.columns()
        return columns

    def is_issue(self) -> np.ndarray:
        """Whether anything was found about each image: (N,) bool."""
        return _any_flag(self.columns())

    def as_dict(self) -> dict[str, Any]:
        """The object that ``featx inspect --json`` prints: numbers, ranked findings, and each image that has one."""
        leaks, duplicates, paths = self.leaks, self.duplicates, self.features.paths
        labels = self.labels
        return {
            "features": str(self.file) if self.file else None,
            "images": len(self.features),
            "counts": self.counts,
            "near_duplicate_threshold": finite(float(duplicates.threshold)),
            "near_duplicate_sets": [paths[group].tolist() for group in duplicates.groups],
            "near_duplicate_pairs": [self._pair(at) for at in range(len(duplicates.pairs))],
            "leaks": [self._pair(at) for at in leaks.across.tolist()],
            "conflicting_labels": [self._pair(at) for at in leaks.conflicts.tolist()],
            "held_out_split": leaks.held_out or None,
            "leaked_images": paths[leaks.leaked].tolist(),
            "report": self.judged.report.as_dict() if self.judged else None,
            "report_without_leaks": leaks.report_without.as_dict() if leaks.report_without else None,
            "expected_label_errors": labels.expected if labels else None,
            "label_issues": [] if labels is None else paths[labels.ranked].tolist(),
            "outlier_threshold": finite(float(self.outliers.threshold)),
            "outliers": paths[self.outliers.ranked].tolist(),
            "failures": [{"path": path, "error": error} for path, error in self.failures],
            "unread_images": self.pixels.unread if self.pixels else None,
            "issues": _issues(self.columns()),
            "files": [str(path) for path in self.files],
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
        }

    def _pair(self, at: int) -> dict[str, Any]:
        """One pair of duplicates by its place, for JSON."""
        first, second = self.features.paths[self.duplicates.pairs[at]].tolist()
        distance = finite(float(self.duplicates.distances[at]))
        return {"images": [first, second], "distance": distance, "exact": bool(self.duplicates.exact[at])}


def _any_flag(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether any of the columns of bool is set, (N,) bool."""
    flags: np.ndarray = np.any([values for values in columns.values() if values.dtype == bool], axis=0)
    return flags


def _issues(columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The rows of the table with a finding, for JSON."""
    rows = np.flatnonzero(_any_flag(columns))
    cells_of = {name: values[rows].tolist() for name, values in columns.items()}
    return [
        {
            name: finite(value) if isinstance(value, float) else value
            for name, value in zip(cells_of, cells, strict=True)
        }
        for cells in zip(*cells_of.values(), strict=True)
    ]


def task_of_labels(inspection: Inspection) -> str:
    """The task of the labels, or "" where no image has one."""
    if inspection.out_of_fold is not None:
        return inspection.out_of_fold.task
    if not (inspection.features.labels != UNLABELLED).any():
        return ""
    with contextlib.suppress(HeadError):
        return task_of(inspection.features, ask=False)[0]
    return "classification"


def describe_labels(inspection: Inspection) -> str:
    """What the labels are, such as "6 classes", "8 labels" of a multi-label set, or "numbers as labels"; "" without labels."""
    features, task = inspection.features, task_of_labels(inspection)
    present = np.unique(features.labels[features.labels != UNLABELLED])
    if task == "regression":
        return "numbers as labels"
    if task == "multilabel":
        found = {name.strip() for label in present for name in features.classes[label].split(BETWEEN_LABELS)} - {""}
        return counted(len(found), "label")
    return counted(len(present), "class", "classes") if len(present) else ""
