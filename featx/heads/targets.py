"""What a head is to say of an image: the label strings of a data set as classes, lists of labels, or numbers. numpy only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featx.constants import TASKS
from featx.data.image_set import UNLABELLED
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.text import listed, printable

AUTO = "auto"
"""The task that is read from the labels themselves."""

BETWEEN_LABELS = "|"
"""What stands between the labels of an image that has several. Alone it says that the image has none of them."""

_TOO_MANY_NUMBERS = 10
"""Classes that are numbers, up to which nobody is asked whether they were meant as numbers."""


@dataclass(frozen=True, eq=False)
class Targets:
    """What a head is to say of each row.

    Attributes:
        names: (C,) of the classes or labels, sorted; of a regression the one name "value".
        y: (N,) int64 into the names for classification; (N, C) float32 of 0 and 1 for multilabel; (N, 1) float64 for
            regression.
    """

    names: tuple[str, ...]
    y: np.ndarray


def task_of(features: FeatureSet, asked: str = AUTO) -> tuple[str, tuple[str, ...]]:
    """The task of a data set, and notes for the user.

    "auto" is multilabel where a label holds ``|``, else classification: numbers are never guessed to be targets of a
    regression, but a note asks where they look like it.

    Raises:
        HeadError: an unknown task.
    """
    if asked not in (AUTO, *TASKS):
        raise HeadError(f"there is no task {asked!r}; expected one of {', '.join((AUTO, *TASKS))}")
    if asked != AUTO:
        return asked, ()
    labels = features.labels[features.labels != UNLABELLED]
    present = [features.classes[label] for label in np.unique(labels).tolist()]
    if any(BETWEEN_LABELS in name for name in present):
        return "multilabel", ()
    values = [_number(name) for name in present]
    numbers = [value for value in values if value is not None]
    telling = 2 * len(present) > len(labels) or any(not value.is_integer() for value in numbers)
    if len(present) > _TOO_MANY_NUMBERS and len(numbers) == len(present) and telling:
        note = f"the labels are {len(present)} different numbers on {len(labels)} images, and each is taken for a class"
        return "classification", (f"{note}; if they are values to predict, say --task regression",)
    return "classification", ()


def targets_of(rows: FeatureSet, task: str, known: Sequence[str] | None = None, *, where: str = "this set") -> Targets:
    """The targets of labelled rows, such as ``FeatureSet.split`` gives.

    Args:
        rows: what a head is to be fitted to, or judged on.
        task: one of ``TASKS``.
        known: (C,) names of the classes or labels that the head knows; None: it is to be fitted to these rows, so that
            its names are those that are here, and there must be something to learn.
        where: which rows these are, in words, for messages.

    Raises:
        HeadError: rows without a label, labels that mean nothing for the task, that the head does not know, or (to fit
            to) that are all alike.
    """
    unlabelled = np.count_nonzero(rows.labels == UNLABELLED)
    if unlabelled:
        raise HeadError(f"{unlabelled} images of {where} have no label; FeatureSet.split takes those that have one")
    if task == "multilabel":
        return _multilabel(rows, known, where)
    if task == "regression":
        return _regression(rows, known, where)
    return _classification(rows, known, where)


def label_sets(rows: FeatureSet) -> tuple[tuple[str, ...], np.ndarray]:
    """Labels that are lists of labels, taken apart: split at ``|``, without the spaces around them, empty ones left out.

    Returns:
        (C,) the names that any row has, sorted; and (N, C) float32 of 0 and 1, all 0 for a row without a label.
    """
    present, of_row = np.unique(rows.labels, return_inverse=True)
    sets = [_parts(rows.classes[label]) if label != UNLABELLED else set() for label in present.tolist()]
    names = sorted(set[str]().union(*sets))
    index = {name: label for label, name in enumerate(names)}
    table = np.zeros((len(sets), len(names)), dtype=np.float32)
    for row, labels in enumerate(sets):
        table[row, [index[name] for name in labels]] = 1
    return tuple(names), table[of_row]


def known_labels(labels: np.ndarray, classes: Sequence[str], known: Sequence[str], *, where: str) -> np.ndarray:
    """Labels of a data set's classes as indices into a head's classes, matched by name.

    Args:
        labels: (N,) int64 into ``classes``.
        classes: names.
        known: the head's names.
        where: which rows these are, in words, for messages.

    Returns:
        (N,) int64 into ``known``.

    Raises:
        HeadError: images of a class that the head does not know.
    """
    index = {name: i for i, name in enumerate(known)}
    mapped: np.ndarray = np.array([index.get(name, -1) for name in classes] or [-1], dtype=np.int64)[labels]
    if (mapped < 0).any():
        strange = sorted({printable(classes[label]) for label in labels[mapped < 0]})
        raise HeadError(
            f"{np.count_nonzero(mapped < 0)} images of {where} are of classes that the head does not know "
            f"({listed(strange, most=8)}); it knows {listed([printable(name) for name in known], most=8)}"
        )
    return mapped


def require_train_classes(features: FeatureSet, task: str) -> None:
    """Stop before a fit where val or test would judge a class, or a label, that has no images in train.

    Raises:
        HeadError: it does; the names and how many images are said.
    """
    if task == "regression":
        return
    several = task == "multilabel"
    sets = [_parts(name) if several else (name,) for name in features.classes]
    found: dict[str, Counter[str]] = {split: Counter() for split in ("train", "val", "test")}
    for split, counts in found.items():
        labels = features.labels[(features.splits == split) & (features.labels != UNLABELLED)]
        for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
            counts.update(dict.fromkeys(sets[label], int(count)))
    judged = found["val"] + found["test"]
    strange = sorted(name for name in judged if name not in found["train"])
    if not strange or not found["train"]:
        return
    shown = [
        f"{printable(name)} ({' and '.join(f'{found[s][name]} in {s}' for s in ('val', 'test') if found[s][name])})"
        for name in strange
    ]
    kind, hint = ("labels", "") if several else ("classes", _hint([*judged, *found["train"]]))
    raise HeadError(
        f"{len(strange)} {kind} have images to judge a head by, and none in train to learn them from: {listed(shown, most=5)}. "
        f"Add images of them to train, or take those out{hint}"
    )


def _classification(rows: FeatureSet, known: Sequence[str] | None, where: str) -> Targets:
    if known is not None:
        return Targets(tuple(known), known_labels(rows.labels, rows.classes, known, where=where))
    present, y = np.unique(rows.labels, return_inverse=True)
    names = tuple(rows.classes[label] for label in present)
    if len(names) < 2:
        raise HeadError(f"{where} has one class only, {listed(list(map(repr, names)))}; a head needs at least two")
    return Targets(names, y.astype(np.int64))


def _multilabel(rows: FeatureSet, known: Sequence[str] | None, where: str) -> Targets:
    names, y = label_sets(rows)
    if known is not None:
        strange = sorted(set(names) - set(known))
        if strange:
            count = np.count_nonzero(y[:, [names.index(name) for name in strange]].any(axis=1))
            raise HeadError(
                f"{count} images of {where} have labels that the head does not know "
                f"({listed(list(map(printable, strange)), most=8)}); it knows {listed(list(map(printable, known)), most=8)}"
            )
        of_known = np.zeros((len(y), len(known)), dtype=np.float32)
        of_known[:, [list(known).index(name) for name in names]] = y
        return Targets(tuple(known), of_known)
    if not (len(y) and (y.min(axis=0) < y.max(axis=0)).any()):
        shown = listed(list(map(printable, names)), most=8)
        found = f"every image of {where} has the same labels ({shown})" if names else f"no image of {where} has a label"
        raise HeadError(
            f"{found}: there is nothing to learn. --task multilabel takes labels with {BETWEEN_LABELS} between them "
            f"(cat{BETWEEN_LABELS}dog), and {BETWEEN_LABELS} alone for none"
        )
    return Targets(names, y)


def _regression(rows: FeatureSet, known: Sequence[str] | None, where: str) -> Targets:
    present, of_row, counts = np.unique(rows.labels, return_inverse=True, return_counts=True)
    names = [rows.classes[label] for label in present]
    values = [_number(name) for name in names]
    bad = [name for name, value in zip(names, values, strict=True) if value is None]
    if bad:
        images = sum(n for n, value in zip(counts.tolist(), values, strict=True) if value is None)
        comma = any(_number(name.replace(",", ".")) is not None for name in bad)
        raise HeadError(
            f"{images} of {len(rows)} images of {where} have labels that are no finite numbers "
            f"({listed([repr(name) for name in bad], most=5)}); --task regression takes numbers alone"
            f"{': write decimals with a point, 3.5 for 3,5' if comma else ''}. Leave the label empty where a value is unknown"
        )
    if known is None and len(set(values)) < 2:
        raise HeadError(f"every image of {where} has the value {names[0]}: there is nothing to learn")
    return Targets(("value",), np.array(values, dtype=np.float64)[of_row][:, None])


def _parts(name: str) -> set[str]:
    """The labels that a label string holds."""
    return {part.strip() for part in name.split(BETWEEN_LABELS)} - {""}


def _number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = math.nan if "_" in text else float(text)  # Python reads 1_000; tables do not mean it
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _hint(names: Sequence[str]) -> str:
    if any(BETWEEN_LABELS in name for name in names):
        return "; if they are lists of labels, say --task multilabel"
    return (
        "; if they are values to predict, say --task regression" if all(_number(n) is not None for n in names) else ""
    )
