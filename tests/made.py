"""Features and heads that several test files are about."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from featx.data.transform import Transform
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.reporter import Reporter

HEADS = {
    "logreg": {"kind": "logreg"},
    "linear": {"kind": "linear"},
    "svm": {"kind": "svm"},
    "svm-rbf": {"kind": "svm", "kernel": "rbf"},
    "ridge": {"kind": "ridge"},
    "knn": {"kind": "knn"},
    "centroid": {"kind": "centroid"},
    "bilinear": {"kind": "bilinear"},
    "mlp": {"kind": "mlp"},
}
EVERY_HEAD = pytest.mark.parametrize("name", HEADS)
PARTS = {"dtype": "float32", "weights_sha256": "abc", "transform": Transform(resize=32, crop=32).as_dict()}


class Recorder(Reporter):
    """Keeps what a job reports.

    Attributes:
        stages: the names of the stages.
        milestones: the sentences.
        notes: the sentences.
        calls: (done, total) of each call of ``progress``.
        details: its details.
    """

    def __init__(self, then: Callable[[object], object] = lambda _: None) -> None:
        self.stages: list[str] = []
        self.milestones: list[str] = []
        self.notes: list[str] = []
        self.calls: list[tuple[int, int]] = []
        self.details: list[Any] = []
        self.then = then

    def progress(self, done: int, total: int, detail: object = "") -> None:
        self.calls.append((done, total))
        self.details.append(detail)
        self.then(detail)

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def milestone(self, sentence: str) -> None:
        self.milestones.append(sentence)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def new(name: str, **options: Any) -> Head:
    """An unfitted head."""
    return Head(**HEADS[name], **options)


def photos(
    *,
    train: int = 20,
    test: int = 15,
    classes: tuple[str, ...] = ("ant", "bee", "cat"),
    dim: int = 6,
    gap: float = 2.5,
    seed: int = 0,
    stretched: bool = False,
    **changes: Any,
) -> FeatureSet:
    """Features with so many rows of each class in the splits train and test; stretched, far from standardised."""
    rng = np.random.default_rng(seed)
    count, n = len(classes), len(classes) * (train + test)
    labels = np.arange(n) % count
    X = rng.normal(size=(n, dim))
    X[np.arange(n), labels] += gap
    if stretched:
        X = X * np.linspace(0.5, 20.0, dim) + np.linspace(-30.0, 30.0, dim)
    made = FeatureSet(
        features=X.astype(np.float32),
        labels=labels,
        splits=np.array(["train"] * (count * train) + ["test"] * (count * test), dtype=object),
        classes=classes,
        paths=np.array([f"{row}.png" for row in range(n)], dtype=object),
        keys=rng.integers(0, 256, (n, 16), dtype=np.uint8),
        identity="f00d" * 16,
        backbone={"name": "lenet5", "weights": "default", "parts": PARTS},
        dataset={"name": "pets", "root": "photos"},
    )
    return dataclasses.replace(made, **changes)


def with_labels(features: FeatureSet, strings: Sequence[str]) -> FeatureSet:
    """The same with a label string for each row."""
    classes, labels = np.unique(np.array(strings, dtype=object), return_inverse=True)
    return dataclasses.replace(features, classes=tuple(classes), labels=labels.astype(np.int64))


def in_views(features: FeatureSet, count: int = 3, *, noise: float = 0.3, seed: int = 0) -> FeatureSet:
    """The same images, each seen so many times with noise of its own; the first time as it was."""
    rng = np.random.default_rng(seed)
    X = features.features[:, None] + noise * rng.normal(size=(len(features), count, features.width)).astype(np.float32)
    X[:, 0] = features.features
    return dataclasses.replace(features, features=X, layer="penultimate@flip", identity="5ee" * 21 + "5")
