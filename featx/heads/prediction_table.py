"""The table of what a model predicts for each labelled image of a data set, beside the label.

n is the number of images of the table, C of classes or labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featx.data.cells import BETWEEN_LABELS
from featx.data.columns import beside
from featx.data.image_set import UNLABELLED
from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.out_of_fold import predict_held_out
from featx.heads.seen import SeenImages, are_copies, with_splits_of_head
from featx.heads.targets import label_sets
from featx.io.tables import table_kind, write_table

PREDICTION_COLUMNS = (
    "path",
    "split",
    "label",
    "prediction",
    "probability",
    "label_probability",
    "correct",
    "predicted_by",
    "fold",
    "trained_on",
    "validated_on",
    "key",
)
"""The columns of every such table. One for each class or label follows, ``p_<class>``; of a regression, ``error``; last come
the further columns of the data set."""

EACH_IMAGE = table_kind("table of predictions for each image", PREDICTION_COLUMNS, more=("",), option="--predictions")
"""That table, as an output."""

OUT_OF_FOLD, BY_HEAD, BY_MODEL = "out of fold", "head", "model"
"""What a prediction is by: a head fitted without the image's fold, the head itself, or a promoted model."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What is predicted for n labelled images of a set.

    Attributes:
        rows: (n,) int64, of the set, ascending.
        outputs: (n, C) float64, as ``Head.predict_values`` gives them; NaN where nothing was predicted.
        by: (n,) object array of str: "out of fold", "head", "model", or "" where nothing was predicted.
        fold: (n,) int64, the fold that held the image out; -1 for none.
    """

    rows: np.ndarray
    outputs: np.ndarray
    by: np.ndarray
    fold: np.ndarray

    @classmethod
    def of_one(cls, rows: np.ndarray, outputs: np.ndarray, by: str) -> Predictions:
        """Predictions that are all by the same head or model."""
        return cls(rows, outputs, np.full(len(rows), by, dtype=object), np.full(len(rows), -1))


@dataclass(frozen=True, eq=False)
class PredictedBy:
    """What a table needs to know about a head or a model.

    Attributes:
        task: one of ``TASKS``.
        classes: (C,) names.
        decide: turns (C,) outputs into a class name or None, a list of label names, or a number.
        seen: the images that it has seen.
    """

    task: str
    classes: Sequence[str]
    decide: Callable[[np.ndarray], Any]
    seen: SeenImages


def predict_each(head: Head, features: FeatureSet, train: np.ndarray) -> Predictions:
    """Predict all labelled images of a set: training images out of fold, the others by the head itself.

    Args:
        head: fitted to the training images.
        features: the set.
        train: (m,) int64, its training rows.
    """
    rows = np.flatnonzero(features.labels != UNLABELLED)
    outputs = np.full((len(features), len(head.names_)), np.nan)
    by, fold = np.full(len(features), "", dtype=object), np.full(len(features), -1)
    held_out = predict_held_out(head, features, train)
    held = train[held_out.rows]
    outputs[held], fold[held], by[held] = held_out.outputs, held_out.fold, OUT_OF_FOLD
    others = np.setdiff1d(rows, train)
    outputs[others], by[others] = head.predict_rows(features, others), BY_HEAD
    by[~np.isfinite(outputs).all(axis=1)] = ""
    return Predictions(rows, outputs[rows], by[rows], fold[rows])


def splits_in_use(head: Head, features: FeatureSet) -> FeatureSet:
    """The same set in the splits by which the head was fitted; as it is, if the groups of that fit are not known."""
    try:
        return with_splits_of_head(features, head.task_, head.seen)[0]
    except HeadError:
        return features


def write_predictions(path: Path, features: FeatureSet, predicted: Predictions, by: PredictedBy) -> Path:
    """Write the table: one row for each image.

    Args:
        path: of a .csv or .parquet file.
        features: the set, in the splits that the model uses. Its features are not read.
        predicted: images of the set.
        by: what predicted them.

    Returns:
        The path.

    Raises:
        OutputError: the file cannot be written, or another file is at the path.
    """
    write_table(path, prediction_columns(features, predicted, by), EACH_IMAGE)
    return path


def prediction_columns(features: FeatureSet, predicted: Predictions, by: PredictedBy) -> dict[str, Any]:
    """Make the columns of the table, (n,) each; arguments as ``write_predictions``."""
    facts = features.without_features(predicted.rows)
    labels = np.array([*facts.classes, None], dtype=object)[facts.labels]
    made = {"classification": _of_classes, "multilabel": _of_label_sets, "regression": _of_numbers}[by.task]
    prediction, probability, own, correct, further = made(facts, labels, predicted.outputs, by)
    known = np.isfinite(predicted.outputs).all(axis=1)
    columns = {
        "path": facts.paths,
        "split": facts.splits,
        "label": labels,
        "prediction": [value if is_known else None for value, is_known in zip(prediction, known, strict=True)],
        "probability": probability,
        "label_probability": own,
        "correct": [value if is_known else None for value, is_known in zip(correct, known, strict=True)],
        "predicted_by": predicted.by,
        "fold": [fold if fold >= 0 else None for fold in predicted.fold.tolist()],
        "trained_on": are_copies(facts.keys, by.seen.train).tolist(),
        "validated_on": are_copies(facts.keys, by.seen.validation).tolist(),
        "key": [bytes(key).hex() for key in facts.keys],
        **further,
    }
    return {**columns, **beside(facts.columns, columns)}


_Made = tuple[Sequence[Any], Any, Any, Sequence[Any], dict[str, Any]]
"""Predictions, their probabilities, those of the labels, whether the predictions are right, and further columns."""


def _of_classes(facts: FeatureSet, labels: np.ndarray, outputs: np.ndarray, by: PredictedBy) -> _Made:  # noqa: ARG001
    index = {name: place for place, name in enumerate(by.classes)}
    y = np.array([index.get(label, -1) for label in labels.tolist()], dtype=np.int64)
    own = np.where(y >= 0, outputs[np.arange(len(y)), y], math.nan) if len(y) else np.empty(0)
    prediction = [_decided(by, row) for row in outputs]
    correct = [None if value is None else value == label for value, label in zip(prediction, labels, strict=True)]
    return prediction, outputs.max(axis=1, initial=-math.inf), own, correct, _each(outputs, by)


def _of_label_sets(facts: FeatureSet, labels: np.ndarray, outputs: np.ndarray, by: PredictedBy) -> _Made:  # noqa: ARG001
    names, has = label_sets(facts)
    given = [{name for name, is_there in zip(names, row, strict=True) if is_there} for row in has]
    found = [set(_decided(by, row) or ()) for row in outputs]
    prediction = [BETWEEN_LABELS.join(c for c in by.classes if c in labels) or BETWEEN_LABELS for labels in found]
    probability, own = (
        np.array([_least(outputs[row], by.classes, labels) for row, labels in enumerate(sets)])
        for sets in (found, given)
    )
    return prediction, probability, own, [a == b for a, b in zip(found, given, strict=True)], _each(outputs, by)


def _of_numbers(facts: FeatureSet, labels: np.ndarray, outputs: np.ndarray, by: PredictedBy) -> _Made:  # noqa: ARG001
    nothing = [None] * len(labels)
    values = outputs[:, 0]
    return values.tolist(), nothing, nothing, nothing, {"error": values - np.array([_number(name) for name in labels])}


def _decided(by: PredictedBy, outputs: np.ndarray) -> Any:
    return by.decide(outputs) if np.isfinite(outputs).all() else None


def _least(p: np.ndarray, classes: Sequence[str], labels: set[str]) -> float:
    """The probability of the least probable of an image's labels, present or absent; NaN if one is unknown."""
    if not labels <= set(classes):
        return math.nan
    return float(np.where([name in labels for name in classes], p, 1 - p).min())


def _each(outputs: np.ndarray, by: PredictedBy) -> dict[str, np.ndarray]:
    return {f"p_{name}": outputs[:, place] for place, name in enumerate(by.classes)}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
