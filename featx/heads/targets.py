"""The targets of a head: the label strings of a data set as classes, lists of labels, or numbers. numpy only."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.constants import TASKS
from featx.data.cells import BETWEEN_LABELS
from featx.data.image_set import UNLABELLED
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.metrics.multilabel import commonest_set
from featx.text import counted, form, listed, printable

AUTO = "auto"
"""The name that lets the labels decide the task."""

_MAX_NUMBER_CLASSES = 10
"""The most classes that are numbers for which nothing asks whether a regression was meant."""


@dataclass(frozen=True, eq=False)
class Targets:
    """The targets of some rows.

    Attributes:
        names: (C,) names of the classes or labels, sorted; of a regression the one name "value".
        y: (N,) int64 into the names for classification; (N, C) float32 of 0 and 1 for multilabel; (N, 1) float64 for
            regression.
    """

    names: tuple[str, ...]
    y: np.ndarray


Constant = str | tuple[str, ...] | float | None
"""The best answer without an image: the commonest class, the commonest set of labels, or the mean number; None if unknown."""


def constant_of(targets: Targets, task: str) -> Constant:
    """The best answer without an image, of N training images, N at least 1.

    Examples:
        >>> constant_of(Targets(("ant", "bee"), np.array([1, 1, 0])), "classification")
        'bee'
    """
    if task == "regression":
        return float(targets.y.mean())
    if task == "multilabel":
        return tuple(itertools.compress(targets.names, commonest_set(targets.y > 0.5)))
    return targets.names[int(np.bincount(targets.y).argmax())]


def place_of(constant: Any, names: Sequence[str]) -> int | None:
    """The place of a constant class among the names of classes; None where it is no class of them."""
    return names.index(constant) if isinstance(constant, str) and constant in names else None


def task_of(features: FeatureSet, requested: str = AUTO, *, ask: bool = True) -> tuple[str, tuple[str, ...]]:
    """Determine the task of a data set.

    "auto" gives multilabel if a label holds ``|``, regression if the labels were given as numbers with fractions in Python
    (``FeatureSet.from_arrays``), else classification. More than ten different numbers in a table may be
    classes or values, and only the user can tell: "auto" is an error there. Folders whose names are numbers are classes.

    Args:
        features: with labels.
        requested: "auto", or one of ``TASKS``.
        ask: raise where numbers in a table may be values; False: take them for classes, with a note.

    Returns:
        The task, and notes for the user.

    Raises:
        HeadError: an unknown task, or labels that may be classes or values.
    """
    if requested not in (AUTO, *TASKS):
        raise HeadError(f"there is no task {requested!r}; expected one of {', '.join((AUTO, *TASKS))}")
    if requested != AUTO:
        return requested, ()
    labels = features.labels[features.labels != UNLABELLED]
    present = [features.classes[label] for label in np.unique(labels).tolist()]
    if any(BETWEEN_LABELS in name for name in present):
        return "multilabel", ()
    if features.dataset.get("labels") == "numbers":
        return "regression", ()
    numbers = [value for value in map(number_of, present) if value is not None]
    if len(present) <= _MAX_NUMBER_CLASSES or len(numbers) < len(present) or any(map(_is_padded, present)):
        return "classification", ()
    found = f"the labels are {len(present)} different numbers on {len(labels)} images"
    table = features.dataset.get("table")
    if table and ask:
        raise HeadError(
            f"{found} of {printable(Path(table).name)}, which may be classes or values to predict; expected --task "
            "classification or --task regression (in Python: task=...)"
        )
    if table or 2 * len(present) > len(labels) or any(not value.is_integer() for value in numbers):
        # A head's file holds this note, so its words are part of its bytes.
        note = f"{found}, and each is taken for a class"
        return "classification", (f"{note}; if they are values to predict, say --task regression",)
    return "classification", ()


def targets_of(rows: FeatureSet, task: str, known: Sequence[str] | None = None, *, where: str = "this set") -> Targets:
    """Turn the labels of some rows into targets.

    Args:
        rows: labelled rows, such as ``FeatureSet.split`` gives, to fit a head to or to judge it on.
        task: one of ``TASKS``.
        known: (C,) names of the classes or labels of a fitted head; None: a head is to be fitted to these rows, so that the
            names are those that occur, and the labels must differ.
        where: which rows these are, in words, for messages.

    Raises:
        HeadError: a row has no label; labels do not suit the task or are none of the head's; or, for a fit, all labels are
            the same.
    """
    unlabelled = np.count_nonzero(rows.labels == UNLABELLED)
    if unlabelled:
        images = f"{counted(unlabelled, 'image')} of {where} {form(unlabelled, 'has', 'have')} no label"
        raise HeadError(f"{images}; FeatureSet.split takes those that have one")
    if task == "multilabel":
        return _multilabel(rows, known, where)
    if task == "regression":
        return _regression(rows, known, where)
    return _classification(rows, known, where)


def labels_alone(features: FeatureSet, rows: np.ndarray) -> FeatureSet:
    """Select rows with their labels alone, for ``targets_of``: of very many, the other columns take memory."""
    count = len(rows)
    nothing = np.broadcast_to(np.array("", dtype=object), count)
    return dataclasses.replace(
        features, features=np.empty((count, 0), dtype=np.float32), labels=features.labels[rows], splits=nothing, paths=nothing,
        keys=np.broadcast_to(np.zeros(16, dtype=np.uint8), (count, 16)), groups=None, columns={},
    )  # fmt: skip


def label_sets(rows: FeatureSet) -> tuple[tuple[str, ...], np.ndarray]:
    """Split labels such as ``cat|dog`` at the ``|``, strip spaces, and drop empty parts.

    Returns:
        (C,) the names that occur, sorted; and (N, C) float32 of 0 and 1, all 0 for a row without a label.
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
    """Match the labels of a data set with a head's classes, by name.

    Args:
        labels: (N,) int64 into ``classes``.
        classes: names of the data set's classes.
        known: names of the head's classes.
        where: which rows these are, in words, for messages.

    Returns:
        (N,) int64 into ``known``.

    Raises:
        HeadError: images are of classes that the head was not fitted to.

    Examples:
        >>> import numpy as np
        >>> known_labels(np.array([0, 1, 1]), ("bee", "ant"), ("ant", "bee"), where="the test set").tolist()
        [1, 0, 0]
    """
    index = {name: i for i, name in enumerate(known)}
    mapped: np.ndarray = np.array([index.get(name, -1) for name in classes] or [-1], dtype=np.int64)[labels]
    if (mapped < 0).any():
        strange = sorted({printable(classes[label]) for label in labels[mapped < 0]})
        count = np.count_nonzero(mapped < 0)
        raise HeadError(
            f"{counted(count, 'image')} of {where} {form(count, 'is of a class', 'are of classes')} that the head was not "
            f"fitted to ({listed(strange, most=8)}); its classes are {listed([printable(name) for name in known], most=8)}. "
            "Give it images of its classes, or leave out the labels of the others"
        )
    return mapped


def is_known_label(name: str, task: str, known: Sequence[str]) -> bool:
    """Whether a head with these classes can be judged on images with this label.

    Examples:
        >>> is_known_label("cat|dog", "multilabel", ("bird", "cat", "dog")), is_known_label("3,5", "regression", ("value",))
        (True, False)
    """
    if task == "regression":
        return number_of(name) is not None
    return _parts(name) <= set(known) if task == "multilabel" else name in known


def require_train_classes(features: FeatureSet, task: str) -> None:
    """Check before a fit that every class or label of val and test has images in train.

    Raises:
        HeadError: some have none; the message names them with the number of their images.
    """
    if task == "regression":
        return
    several = task == "multilabel"
    sets = [_parts(name) if several else (name,) for name in features.classes]
    by_split: dict[str, Counter[str]] = {split: Counter() for split in ("train", "val", "test")}
    for split, counts in by_split.items():
        labels = features.labels[(features.splits == split) & (features.labels != UNLABELLED)]
        for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
            counts.update(dict.fromkeys(sets[label], int(count)))
    judged = by_split["val"] + by_split["test"]
    strange = sorted(name for name in judged if name not in by_split["train"])
    if not strange or not by_split["train"]:
        return
    shown = [
        f"{printable(name)} ({' and '.join(f'{by_split[s][name]} in {s}' for s in ('val', 'test') if by_split[s][name])})"
        for name in strange
    ]
    count = (
        counted(len(strange), "label has", "labels have")
        if several
        else counted(len(strange), "class has", "classes have")
    )
    hint = "" if several else _hint([*judged, *by_split["train"]])
    raise HeadError(
        f"{count} images in val or test but none in train: {listed(shown, most=5)}. Add such images to train, or remove these"
        f"{hint}"
    )


def _classification(rows: FeatureSet, known: Sequence[str] | None, where: str) -> Targets:
    if known is not None:
        return Targets(tuple(known), known_labels(rows.labels, rows.classes, known, where=where))
    present = np.flatnonzero(np.bincount(rows.labels, minlength=len(rows.classes)))
    number = np.zeros(len(rows.classes), dtype=np.int64)
    number[present] = np.arange(len(present))
    y = number[rows.labels]
    names = tuple(rows.classes[label] for label in present)
    if len(names) < 2:
        raise HeadError(f"{where} has one class only, {listed(list(map(repr, names)))}; expected at least two")
    return Targets(names, y)


def _multilabel(rows: FeatureSet, known: Sequence[str] | None, where: str) -> Targets:
    names, y = label_sets(rows)
    if known is not None:
        strange = sorted(set(names) - set(known))
        if strange:
            count = np.count_nonzero(y[:, [names.index(name) for name in strange]].any(axis=1))
            raise HeadError(
                f"{counted(count, 'image')} of {where} {form(count, 'has', 'have')} labels that the head was not fitted to "
                f"({listed(list(map(printable, strange)), most=8)}); its labels are "
                f"{listed(list(map(printable, known)), most=8)}"
            )
        of_known = np.zeros((len(y), len(known)), dtype=np.float32)
        of_known[:, [list(known).index(name) for name in names]] = y
        return Targets(tuple(known), of_known)
    if not (len(y) and (y.min(axis=0) < y.max(axis=0)).any()):
        shown = listed(list(map(printable, names)), most=8)
        alike = f"every image of {where} has the same labels ({shown})" if names else f"no image of {where} has a label"
        raise HeadError(
            f"{alike}, so there is nothing to learn. --task multilabel takes labels separated by {BETWEEN_LABELS} "
            f"(cat{BETWEEN_LABELS}dog), and {BETWEEN_LABELS} alone for none"
        )
    return Targets(names, y)


def _regression(rows: FeatureSet, known: Sequence[str] | None, where: str) -> Targets:
    present, of_row, counts = np.unique(rows.labels, return_inverse=True, return_counts=True)
    names = [rows.classes[label] for label in present]
    values = [number_of(name) for name in names]
    bad = [name for name, value in zip(names, values, strict=True) if value is None]
    if bad:
        images = sum(n for n, value in zip(counts.tolist(), values, strict=True) if value is None)
        comma = any(number_of(name.replace(",", ".")) is not None for name in bad)
        raise HeadError(
            f"{images} of {counted(len(rows), 'image')} of {where} "
            f"{form(images, 'has a label that is not a finite number', 'have labels that are not finite numbers')} "
            f"({listed([repr(name) for name in bad], most=5)}), which --task regression requires"
            f"{': write decimals with a point, 3.5 for 3,5' if comma else ''}. Leave the label empty if a value is unknown"
        )
    if known is None and len(set(values)) < 2:
        raise HeadError(f"every image of {where} has the value {names[0]}, so there is nothing to learn")
    return Targets(("value",), np.array(values, dtype=np.float64)[of_row][:, None])


def _parts(name: str) -> set[str]:
    """Split a label string into its labels."""
    return {part.strip() for part in name.split(BETWEEN_LABELS)} - {""}


def number_of(text: str) -> float | None:
    """Parse a finite number, as a label of a regression; None if the text is none.

    Examples:
        >>> number_of("3.5"), number_of("3,5")
        (3.5, None)
    """
    try:
        value = math.nan if "_" in text else float(text)  # Python accepts 1_000, which no table means
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _is_padded(text: str) -> bool:
    """Whether a number is written with zeros in front, such as 007, as the number of a class may be but no value is."""
    return len(text) > 1 and text.startswith("0") and text.isdigit()


def _hint(names: Sequence[str]) -> str:
    if any(BETWEEN_LABELS in name for name in names):
        return "; if they are lists of labels, use --task multilabel"
    return (
        "; if they are values to predict, use --task regression" if all(number_of(n) is not None for n in names) else ""
    )
