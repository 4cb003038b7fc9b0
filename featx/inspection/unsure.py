"""How unsure a head is of unlabelled images.

M is the number of unlabelled images, C of classes or labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.data.cells import BETWEEN_LABELS
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.text import counted

_UNSURE = 0.5
"""The difference of the two highest probabilities below which both classes are named as a reason."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The predictions of M unlabelled images, and how much each should count.

    Attributes:
        weight: (M,) float64, how unsure the head is; 1 for all where there is no head, and for a regression.
        labels: (M,) object array of str, as a data set would have them; "" without a head.
        probability: (M,) float64, of the predicted class, or of the least sure of several labels; NaN without a head and for
            numbers.
        doubt: (M,) object array of str, what the head is unsure of, in words; "" where it is sure.
        head: the head, or None.
        notes: for the user.
    """

    weight: np.ndarray
    labels: np.ndarray
    probability: np.ndarray
    doubt: np.ndarray
    head: Head | None = None
    notes: tuple[str, ...] = ()


def predict_unlabelled(
    features: FeatureSet, pool: np.ndarray, train: np.ndarray, head: Head | None, *, task: str, seed: int
) -> Prediction:
    """Predict unlabelled images by a head, which is fitted to the labelled ones unless it is given.

    Args:
        features: N images.
        pool: (M,) int64, the unlabelled rows.
        train: (n,) int64, the labelled rows.
        head: a fitted head, or None.
        task: one of ``TASKS``.
        seed: of the folds of the fit.
    """
    if head is None:
        if not len(train):
            return _without_head(len(pool), "no training image has a label, so the centres of the set are suggested")
        try:
            head = Head(task=task, seed=seed).fit(features, rows=train, coarse=True)
        except HeadError as error:
            return _without_head(
                len(pool), f"no head can be fitted, so images unlike the labelled ones are suggested: {error}"
            )
    weight, labels, probability, doubt = _read(head.predict_rows(features, pool), head)
    return Prediction(weight, labels, probability, doubt, head)


def predicted_labels(outputs: np.ndarray, head: Head) -> tuple[np.ndarray, np.ndarray]:
    """The labels that (M, C) outputs of a head mean, and their probabilities, as ``Prediction`` describes them."""
    _, labels, probability, _ = _read(outputs, head)
    return labels, probability


def reasons(predicted: Prediction, chosen: np.ndarray, stands_for: np.ndarray) -> np.ndarray:
    """Why each of some images is suggested, in words: (n,) object array of str."""
    out = np.empty(len(chosen), dtype=object)
    for number, (place, count) in enumerate(zip(chosen.tolist(), stands_for.tolist(), strict=True)):
        like = f"stands for {counted(count, 'image')}"
        out[number] = f"unsure: {doubt}; {like}" if (doubt := predicted.doubt[place]) else like
    return out


def _without_head(count: int, note: str) -> Prediction:
    nothing = np.full(count, "", dtype=object)
    return Prediction(np.ones(count), nothing, np.full(count, np.nan), nothing, None, (note,))


_Reading = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""The weights, labels, probabilities and doubts of M images."""


def _read(outputs: np.ndarray, head: Head) -> _Reading:
    """What (M, C) outputs mean; outputs that are not finite count as the least sure."""
    known = np.isfinite(outputs).all(axis=1)
    weight, labels, probability, doubt = _READINGS[head.task_](np.where(known[:, None], outputs, 0), head)
    weight[~known] = weight[known].max(initial=1e-12)
    labels[~known], probability[~known], doubt[~known] = "", np.nan, ""
    return weight, labels, probability, doubt


def _of_classes(p: np.ndarray, head: Head) -> _Reading:
    """By the margin: 1 less the difference of the two highest probabilities."""
    order = np.argsort(-p, axis=1, kind="stable")
    highest = np.take_along_axis(p, order, axis=1)
    weight = 1 - (highest[:, 0] - highest[:, 1])
    names = np.array(head.names_, dtype=object)
    doubt = np.array(
        [f"{names[first]} or {names[second]}" for first, second in order[:, :2].tolist()] or [""], dtype=object
    )[: len(p)]
    doubt[weight <= 1 - _UNSURE] = ""
    return weight, names[order[:, 0]], highest[:, 0].copy(), doubt


def _of_label_sets(p: np.ndarray, head: Head) -> _Reading:
    """By the expected number of wrong labels."""
    names = np.array(head.names_, dtype=object)
    least = np.abs(p - 0.5).argmin(axis=1)
    doubt = np.array([f"{name}?" for name in names[least].tolist()] or [""], dtype=object)[: len(p)]
    probability = np.maximum(p, 1 - p).min(axis=1)
    doubt[probability >= 1 - _UNSURE / 2] = ""
    labels = np.empty(len(p), dtype=object)
    for row, each in enumerate(p):
        labels[row] = BETWEEN_LABELS.join(sorted(head.decide(each))) or BETWEEN_LABELS
    return np.minimum(p, 1 - p).sum(axis=1), labels, probability, doubt


def _of_numbers(values: np.ndarray, head: Head) -> _Reading:  # noqa: ARG001 - as the others
    """A prediction of a number has no uncertainty of its own."""
    labels = np.array([f"{value:.6g}" for value in values[:, 0].tolist()] or [""], dtype=object)[: len(values)]
    return np.ones(len(values)), labels, np.full(len(values), np.nan), np.full(len(values), "", dtype=object)


_READINGS = {"classification": _of_classes, "multilabel": _of_label_sets, "regression": _of_numbers}
