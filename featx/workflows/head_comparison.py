"""A new head and an earlier one, judged on the same images that neither has seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.evaluation import make_report, predict_known
from featx.heads.groups import row_groups
from featx.heads.head import Head
from featx.metrics.grouped import flip_test, mean_and_error, number_groups, student_quantile
from featx.metrics.multilabel import MultiLabelReport
from featx.metrics.paired import PairedTest
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report
from featx.text import counted
from featx.workflows.unseen import EarlierHead, Unseen

if TYPE_CHECKING:  # it imports torch, which a fit does not need
    from featx.promotion.on_images import PromotedOnImages

SIGNIFICANCE = 0.05
"""The largest p-value that shows a difference."""

_ROOT_2 = math.sqrt(2.0)

BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"
"""The verdicts on the new head."""


@dataclass(frozen=True, eq=False)
class HeadComparison:
    """Two heads on the same images, whose present labels count for both.

    Attributes:
        earlier: the file of the earlier head, or its kind.
        difference: of the shares that are right, the second less the first, with its 95 % interval; of a regression and of
            several labels, of the mean losses. None for a single image or group.
        further: more that a reader should know, a sentence each.
        called: what the two are called in sentences.
        short: what they are called in tables.
        task: of both.
        split: the held-out split.
        left_out: number of images of that split that are not compared, by the reason.
        labels_changed: number of compared images whose label was another one in the file that the earlier head was fitted to;
            None where that is not known.
        earlier_report: of the earlier head.
        report: of the new head.
        paired: which images each gets right alone, the earlier head first; of a regression, on which each is closer.
        p_value: of the paired test, two-sided.
        method: that test, in words.
        losses: (earlier, new) mean loss, which the test of labels and numbers compares; None for a classification.
        rows: (n,) int64, the compared rows of the features.
        answers: (n,) object arrays: what the earlier head and the new one predict, in words.
        confidence: (n,) float64 arrays: the probability of these; NaN for a regression.
    """

    earlier: str
    task: str
    split: str
    left_out: Mapping[str, int]
    labels_changed: int | None
    earlier_report: Report
    report: Report
    paired: PairedTest
    p_value: float
    method: str
    losses: tuple[float, float] | None
    rows: np.ndarray
    answers: tuple[np.ndarray, np.ndarray]
    confidence: tuple[np.ndarray, np.ndarray]
    difference: tuple[float, float, float] | None = None
    further: tuple[str, ...] = ()
    called: tuple[str, str] = ("the earlier head", "the new head")
    short: tuple[str, str] = ("earlier", "new")

    @property
    def verdict(self) -> str:
        """Whether the new head is shown to be "better" or "worse", or the test leaves it "undecided"."""
        if self.p_value > SIGNIFICANCE:
            return UNDECIDED
        gain = self.paired.gained if self.losses is None else self.losses[0] - self.losses[1]
        return BETTER if gain > 0 else WORSE

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        found = f"on {counted(self.paired.n, 'image')} of split {self.split}, "
        if self.losses is None:
            first, second = len(self.paired.first_only), len(self.paired.second_only)
            found += f"{self.called[1]} alone is right on {second} and {self.called[0]} alone on {first}"
        else:
            earlier, new = self.losses
            found += f"the mean {_LOSS[self.task]} of {self.called[1]} is {new:.4g} and that of {self.called[0]} {earlier:.4g}"
        p = f"p = {self.p_value:.2g}, {self.method}"
        if self.verdict == UNDECIDED:
            return f"No difference is shown ({p}): {found}; this does not prove that the heads are equally good."
        name = self.called[1]
        subject = f"T{name[1:]}" if name.startswith("the ") else name
        return f"{subject} is {self.verdict} ({p}): {found}."

    @property
    def next_interval(self) -> tuple[float, float] | None:
        """The 95 % prediction interval of the difference that as many new images would show; None without an interval.

        The new images vary as much as these do, so it is the square root of 2 times as wide as the interval of the difference.
        """
        if self.difference is None:
            return None
        middle, low, high = self.difference
        most = math.inf if self.losses is not None else 1.0
        return max(-most, middle - _ROOT_2 * (middle - low)), min(most, middle + _ROOT_2 * (high - middle))

    @property
    def difference_text(self) -> str:
        """The difference with its interval, in words; "" if there is none."""
        if self.difference is None or self.next_interval is None:
            return ""
        measure = "accuracy" if self.losses is None else f"mean {_LOSS[self.task]}"
        middle, low, high = (f"{each:+.4f}" if self.losses is None else f"{each:+.4g}" for each in self.difference)
        lowest, highest = (f"{each:+.4f}" if self.losses is None else f"{each:+.4g}" for each in self.next_interval)
        return (
            f"{measure} of {self.called[1]} less that of {self.called[0]}: {middle} (95 % interval {low} to {high}); as many "
            f"new images would show {lowest} to {highest}, 19 times in 20"
        )

    @property
    def good(self) -> str:
        """What a head is on an image that counts for it, in words."""
        return "closer" if self.task == "regression" else "right"

    def as_pair(self) -> dict[str, Any]:
        """The comparison as ``featx heads --json`` prints it."""
        facts = self.as_dict("first", "second")
        del facts["head"]
        return {"heads": list(self.called), **facts}

    def as_dict(self, first: str = "earlier", second: str = "new") -> dict[str, Any]:
        """The comparison as ``featx fit-head --json`` prints it.

        Args:
            first: the name of the first head in the keys.
            second: the name of the second one.
        """
        return {
            "head": self.earlier,
            "split": self.split,
            "left_out": dict(self.left_out),
            "labels_changed": self.labels_changed,
            first: self.earlier_report.as_dict(),
            second: self.report.as_dict(),
            **self.paired.as_dict(first, second),
            "difference": None if self.difference is None else self.difference[0],
            "difference_interval": None if self.difference is None else list(self.difference[1:]),
            "next_interval": None if self.next_interval is None else list(self.next_interval),
            "p_value": self.p_value,
            "test": self.method,
            "losses": None if self.losses is None else dict(zip((first, second), self.losses, strict=True)),
            "verdict": self.verdict,
            "sentence": self.sentence,
        }

    @property
    def lines(self) -> tuple[tuple[str, ...], ...]:
        """A table: a header, and a line for each head with its metric, the interval, and the number of its images alone."""
        (name, *earlier), (_, *new) = _judged_by(self.earlier_report), _judged_by(self.report)
        return (
            ("head", name, "95 % interval", f"{self.good} alone"),
            (self.short[0], *earlier, f"{len(self.paired.first_only):,}"),
            (self.short[1], *new, f"{len(self.paired.second_only):,}"),
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was compared by what, a sentence each."""
        left = [f"{why} ({count:,})" for why, count in self.left_out.items()]
        sentences = [f"left out of split {self.split}: {', '.join(left)}"] if left else []
        if self.labels_changed:
            sentences.append(
                f"{counted(self.labels_changed, 'compared image')} had another label when {self.called[0]} was fitted; the "
                "present labels count for both heads"
            )
        return (*sentences, *self.further)


def compare_with(
    earlier: EarlierHead, unseen: Unseen, head: Head | PromotedOnImages, features: FeatureSet
) -> HeadComparison:
    """Judge two heads on the same images.

    Args:
        earlier: the earlier head.
        unseen: the images that are new to both.
        head: the new one, fitted to the training images of the features.
        features: N images, with the labels that count.

    Raises:
        HeadError: the heads are of two tasks, or no image has a label that both know.
    """
    old = earlier.head
    if old.task_ != head.task_:
        raise HeadError(
            f"{earlier.name} is a head for {old.task_}, the other one for {head.task_}; expected two of one task"
        )
    theirs, y_old, p_old = predict_known(old, earlier.rows_of(features, unseen.rows), np.arange(len(unseen.rows)))
    ours, y_new, p_new = predict_known(head, features, unseen.rows)
    rows, first, second = np.intersect1d(unseen.rows[theirs], ours, return_indices=True)
    if not len(rows):
        raise HeadError(
            f"no image of split {unseen.split} has a label that both heads know, so they cannot be compared"
        )
    y_old, p_old, y_new, p_new = y_old[first], p_old[first], y_new[second], p_new[second]
    strange = len(unseen.rows) - len(rows)
    groups = row_groups(features, rows)
    reports = [
        make_report(each.postprocess_, each.names_, y, p, split=unseen.split, groups=groups)
        for each, y, p in ((old, y_old, p_old), (head, y_new, p_new))
    ]
    losses = [_losses(head.task_, y, p) for y, p in ((y_old, p_old), (y_new, p_new))]
    if head.task_ == "regression":
        rights = [losses[0] < losses[1], losses[1] < losses[0]]
    else:
        rights = [_right(each, y, p) for each, y, p in ((old, y_old, p_old), (head, y_new, p_new))]
    paths = features.paths[rows].tolist()
    paired = PairedTest.from_predictions(paths, np.full(len(rows), True), rights[0], rights[1], groups)
    by_loss = head.task_ != "classification"
    independent = len(np.unique(groups))
    return HeadComparison(
        earlier=earlier.name,
        task=head.task_,
        split=unseen.split,
        left_out={
            **unseen.left_out,
            **({"with labels or features that one head does not know": strange} if strange else {}),
        },
        labels_changed=_changed(earlier, features, rows),
        earlier_report=reports[0],
        report=reports[1],
        paired=paired,
        p_value=flip_test(losses[0] - losses[1], groups) if by_loss else paired.p_value,
        method=f"the sign-flip test of the {_LOSS[head.task_]} of {_units(groups, independent)}"
        if by_loss
        else paired.method,
        losses=(float(losses[0].mean()), float(losses[1].mean())) if by_loss else None,
        difference=_difference(losses[1] - losses[0], groups)
        if by_loss
        else _difference(rights[1].astype(np.float64) - rights[0], groups, paired),
        rows=rows,
        answers=(_answers(old, p_old), _answers(head, p_new)),
        confidence=(_confidence(old, p_old), _confidence(head, p_new)),
    )


_LOSS = {"multilabel": "log loss", "regression": "squared error"}
"""What the paired test of a task compares."""


def _difference(
    each: np.ndarray, groups: np.ndarray, paired: PairedTest | None = None
) -> tuple[float, float, float] | None:
    """The mean of (n,) differences with its 95 % interval, by groups; None for a single image or group.

    That of the accuracies of ``paired`` is the adjusted interval of Bonett and Price (2012), which holds for few images too.
    """
    independent = len(np.unique(groups))
    if independent < 2:
        return None
    if paired is not None and number_groups(groups) is None:
        return paired.gained / paired.n, *_bonett_price(len(paired.first_only), len(paired.second_only), paired.n)
    mean, error = mean_and_error(each, groups)
    margin = student_quantile(0.975, independent - 1) * error
    return mean, mean - margin, mean + margin


def _bonett_price(first: int, second: int, n: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two shares of the same n images, of which so many are right for one alone.

    Examples:
        >>> low, high = _bonett_price(2, 12, 100)
        >>> round(low, 3), round(high, 3)
        (0.024, 0.173)
    """
    p1, p2 = (first + 1) / (n + 2), (second + 1) / (n + 2)
    margin = 1.959964 * math.sqrt((p1 + p2 - (p2 - p1) ** 2) / (n + 2))
    return max(-1.0, p2 - p1 - margin), min(1.0, p2 - p1 + margin)


def _units(groups: np.ndarray, count: int) -> str:
    return counted(count, "image" if number_groups(groups) is None else "group")


def _losses(task: str, y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """The loss of each image, (n,): squared error, or the mean log loss of its labels; of a classification, 0 or 1."""
    if task == "regression":
        squares: np.ndarray = (outputs - y)[:, 0] ** 2
        return squares
    if task == "multilabel":
        true = np.where(y > 0.5, outputs, 1 - outputs)
        means: np.ndarray = -np.log(np.clip(true, np.finfo(np.float64).eps, 1.0)).mean(axis=1)
        return means
    wrong: np.ndarray = (outputs.argmax(axis=1) != y).astype(np.float64)
    return wrong


def _right(head: Head | PromotedOnImages, y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Whether each image is classified correctly, (n,) bool; with several labels, whether all are."""
    thresholds = head.thresholds_
    if thresholds is None:
        return np.asarray(outputs.argmax(axis=1) == y)
    return np.asarray(((outputs >= thresholds) == (y > 0.5)).all(axis=1))


def _answers(head: Head | PromotedOnImages, outputs: np.ndarray) -> np.ndarray:
    """What a head predicts for each image, in words, (n,) object."""
    if head.task_ == "classification":
        names: np.ndarray = np.array(head.names_, dtype=object)[outputs.argmax(axis=1)]
        return names
    answers = np.empty(len(outputs), dtype=object)
    for row, p in enumerate(outputs):
        decided = head.decide(p)
        answers[row] = f"{decided:.6g}" if isinstance(decided, float) else "|".join(decided or ()) or "|"
    return answers


def _confidence(head: Head | PromotedOnImages, outputs: np.ndarray) -> np.ndarray:
    """The probability of each prediction, (n,); of several labels, that all decisions are right; NaN for a regression."""
    if head.task_ == "regression":
        return np.full(len(outputs), np.nan)
    if head.thresholds_ is None:
        return np.asarray(outputs.max(axis=1))
    return np.asarray(np.where(outputs >= head.thresholds_, outputs, 1 - outputs).prod(axis=1))


def _changed(earlier: EarlierHead, features: FeatureSet, rows: np.ndarray) -> int | None:
    """Count the images whose label was another one in the file that the earlier head was fitted to; None if it is not known."""
    if earlier.features is features and not earlier.others:
        return None  # the same file, whose labels may have been changed in place
    before = earlier.labels_before()
    if not before:
        return None
    now = [features.classes[label] for label in features.labels[rows]]
    keys = map(bytes, features.keys[rows])
    return sum(name not in before.get(key, {name}) for key, name in zip(keys, now, strict=True))


def _judged_by(report: Report) -> tuple[str, str, str]:
    """The metric of the images alone: its name, its value, and its interval."""
    if isinstance(report, RegressionReport):
        return "RMSE", f"{report.rmse:.6g}", "none" if report.interval is None else _range(report.interval, ".6g")
    if isinstance(report, MultiLabelReport):
        return "exact match", f"{report.exact_match:.4f}", _range(report.exact_match_interval, ".4f")
    return "accuracy", f"{report.accuracy:.4f}", _range(report.interval, ".4f")


def _range(interval: tuple[float, float], digits: str) -> str:
    return f"{interval[0]:{digits}} to {interval[1]:{digits}}"
