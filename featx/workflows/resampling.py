"""One head fitted to other rows: repeated cross-validation, and few images of each class."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from featx.data.image_set import PRETRAIN, UNLABELLED
from featx.data.splits import straddling
from featx.errors import FoldError, HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.folds import draw_shots, make_folds, predefined_folds
from featx.heads.groups import row_groups
from featx.heads.head import Head
from featx.heads.parameters import WITHOUT_GUARANTEES
from featx.heads.targets import Constant, constant_of, targets_of
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.grouped import effective_size, group_sums, number_groups
from featx.metrics.reports import Report
from featx.text import counted, form, listed, printable


@dataclass(frozen=True, eq=False)
class Resampling:
    """Fits heads like one head to other rows; each chooses its hyper-parameter anew.

    Attributes:
        features: all rows.
        split: the same rows, in the splits that the head uses.
        head: the head; its task is known.
        done: called after each fit.
        coarse: whether to search and fit less exactly, where the kind can.
    """

    features: FeatureSet
    split: FeatureSet
    head: Head
    done: Callable[[], None]
    coarse: bool = False

    def judge_by(self, cv: int | str | None, repeat: int, names: np.ndarray | None) -> CrossValidated | None:
        """Evaluate by random folds, or by those of a column; None where neither is asked for.

        Args:
            cv: the number of folds, or the column.
            repeat: how often random folds are drawn.
            names: (N,) str, the cells of the column.

        Raises:
            HeadError: as ``cross_validate`` and ``judge_folds``.
        """
        if isinstance(cv, str) and names is not None:
            return self.judge_folds(cv, names)
        return self.cross_validate(cv, repeat) if isinstance(cv, int) and cv else None

    def judge_all(self, folds: int, repeat: int) -> CrossValidated | None:
        """As ``cross_validate``, with a coarse search; None where the labels cannot be cross-validated."""
        try:
            found = dataclasses.replace(self, coarse=True).cross_validate(folds, repeat)
        except HeadError:
            return None
        return dataclasses.replace(found, is_automatic=True)

    def cross_validate(self, folds: int, repeat: int) -> CrossValidated:
        """Evaluate every labelled row once in each repeat, by a head that was fitted to no row of its group.

        Raises:
            HeadError: fewer than two classes have two images that may be in different folds.
        """
        started = time.perf_counter()
        rows = np.flatnonzero((self.features.labels != UNLABELLED) & (self.features.splits != PRETRAIN))
        groups = row_groups(self.features, rows)
        right = np.zeros(len(rows))
        targets = targets_of(self.features.without_features(rows), self.head.task_)
        strata = None if self.head.task_ == "regression" else targets.y
        reports = []
        notes: tuple[str, ...] = ()
        for turn in range(repeat):
            made = make_folds(strata, groups, folds=folds, seed=self.head.seed, repeat=turn)
            if not made:
                raise HeadError(_no_folds(self.head.task_))
            judged = np.concatenate([test for _, test in made])
            if self.head.task_ == "classification" and len(np.unique(targets.y[judged])) < 2:
                raise HeadError(_no_folds(self.head.task_))
            left_out = len(rows) - sum(len(test) for _, test in made)
            if left_out:
                which = counted(
                    left_out, "image is the only one of its class", "images are the only ones of their class"
                )
                notes = (
                    f"cross-validation leaves out what it cannot judge: {which}, or grouped with all others of it",
                )
            for train, test in made:
                report, is_right = self._judged(rows[train], rows[test])
                reports.append(report)
                right[test] += is_right
                self.done()
        judged.sort()
        found = CrossValidated.from_reports(
            reports, repeats=repeat, notes=notes, effective=_effective(right[judged] / repeat, groups[judged])
        )
        return dataclasses.replace(found, seconds=time.perf_counter() - started)

    def judge_folds(self, column: str, names: np.ndarray) -> CrossValidated:
        """Evaluate the labelled rows by the folds of a column.

        Args:
            column: its name.
            names: (N,) str, its cells, as ``predefined_folds`` takes them.

        Raises:
            HeadError: there are no such folds, or a head cannot be fitted or judged in one.
        """
        rows = np.flatnonzero((self.features.labels != UNLABELLED) & (self.features.splits != PRETRAIN))
        try:
            folds = predefined_folds(names[rows])
        except FoldError as error:
            raise HeadError(f"--cv {column}: {error}") from error
        started, right = time.perf_counter(), np.full(len(rows), np.nan)
        reports, notes = [], []
        for name, (train, test) in folds.items():
            if self.head.task_ == "classification":
                _require_classes(self.features, rows[train], rows[test], f"--cv {column}, the fold {printable(name)!r}")
            try:
                report, right[test] = self._judged(rows[train], rows[test])
                reports.append(report)
            except HeadError as error:
                raise HeadError(
                    f"--cv {column}, the fold {name!r} of {counted(len(test), 'image')}: {error}"
                ) from error
            self.done()
        torn = straddling(names[rows], row_groups(self.features, rows))
        if len(torn):
            notes.append(
                f"{counted(len(torn), 'group')} (copies of an image, or images of one value of --group) "
                f"{form(len(torn), 'lies', 'lie')} in several folds of the column {column!r}, so the result is optimistic"
            )
        if left_out := len(rows) - sum(len(test) for _, test in folds.values()):
            notes.append(
                f"{counted(left_out, 'image is', 'images are')} in no fold of the column {column!r}: heads are fitted to "
                f"{form(left_out, 'it', 'them')}, none is judged by {form(left_out, 'it', 'them')}"
            )
        judged = ~np.isnan(right)
        found = CrossValidated.from_reports(
            reports, notes=notes, column=column, fold_names=tuple(folds),
            effective=_effective(right[judged], row_groups(self.features, rows[judged])),
        )  # fmt: skip
        return dataclasses.replace(found, seconds=time.perf_counter() - started)

    def few_shot(self, shots: int, repeat: int, held_out: str) -> CrossValidated:
        """Evaluate heads on the held-out split that are fitted to some training rows of each class, drawn anew each time.

        Raises:
            HeadError: the task is no classification, there is no held-out split, or a class has too few images.
        """
        if self.head.task_ != "classification":
            raise HeadError(f"--shots draws images of each class; it is not for {self.head.task_}")
        if not held_out:
            raise HeadError("--shots evaluates on a held-out split, and there is none; name one in the table")
        rows = self.split.rows("train")
        targets = targets_of(self.split.without_features(rows), "classification")
        groups, seed = row_groups(self.features, rows), self.head.seed
        reports = []
        for turn in range(repeat):
            drawn = draw_shots(targets.y, groups, shots=shots, classes=targets.names, seed=seed, repeat=turn)
            try:
                fitted = self._fitted(rows[drawn])
            except HeadError as error:
                raise HeadError(
                    f"--shots {shots}, a head fitted to {counted(shots, 'image')} of each class: {error}"
                ) from error
            reports.append(fitted.evaluate(self.features, rows=self.split.rows(held_out)))
            self.done()
        return CrossValidated.from_reports(reports, repeats=repeat)

    def _fitted(self, rows: np.ndarray) -> Head:
        """A copy of the head, fitted to (n,) int64 rows.

        It has neither a rejection threshold of its own nor prediction sets: none of the metrics that are averaged depends on
        them, and few rows show no precision. All have the same baseline.
        """
        head = Head(**{**self.head.get_params(), **WITHOUT_GUARANTEES})
        head.fit(self.features, rows=rows, coarse=self.coarse)
        head.constant_ = self._constant
        return head

    @cached_property
    def _constant(self) -> Constant:
        """The baseline: the commonest answer of the head's training images; of all images if it was fitted to none."""
        if self.head.constant_ is not None:
            return self.head.constant_
        rows = np.flatnonzero((self.features.labels != UNLABELLED) & (self.features.splits != PRETRAIN))
        return constant_of(targets_of(self.features.without_features(rows), self.head.task_), self.head.task_)

    def _judged(self, train: np.ndarray, test: np.ndarray) -> tuple[Report, np.ndarray]:
        """The report on some rows of a head that was fitted to others, and which of them it has right, (n,) bool."""
        head = self._fitted(train)
        report, _, outputs = head.judge(self.features, rows=test)
        if head.task_ == "regression":
            return report, np.zeros(len(test), dtype=bool)
        y = targets_of(self.features.without_features(test), head.task_, head.names_).y
        if head.thresholds_ is None:
            return report, outputs.argmax(axis=1) == y
        return report, ((outputs >= head.thresholds_) == (y > 0.5)).all(axis=1)


def _no_folds(task: str) -> str:
    """What cross-validation needs, where there is too little of it."""
    needed = {
        "classification": "two classes or more, each with two images or more",
        "multilabel": "a label that two images or more have",
        "regression": "two images or more",
    }[task]
    return f"cross-validation needs {needed} that are no copies and belong to different groups"


def _effective(right: np.ndarray, groups: np.ndarray) -> tuple[float, float] | None:
    """The number of independent images that tell as much as (n,) shares of right predictions; None without groups."""
    numbers = number_groups(groups)
    return None if numbers is None else effective_size(*group_sums(right, numbers))


def _require_classes(features: FeatureSet, train: np.ndarray, test: np.ndarray, where: str) -> None:
    """Raise HeadError if all images of a class are among those that are held out."""
    lacking = np.setdiff1d(features.labels[test], features.labels[train])
    if len(lacking):
        names = [printable(features.classes[label]) for label in lacking.tolist()]
        raise HeadError(
            f"{where} holds all images of {listed(names, most=3)}, so no head could learn what it is judged by; expected "
            "images of each class in two folds or more"
        )
