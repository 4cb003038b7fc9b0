"""Data sets for tests of heads, and what such tests read off a fitted head."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import made
import numpy as np
from listings import keys_of
from made import with_labels

from featx.data.splits import hash_splits
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head

INSECTS = ("ant", "bee", "wasp")

photos = partial(made.photos, stretched=True)


def state(head: Head) -> dict[str, np.ndarray]:
    """All that a head computes with."""
    parts = {f.name: np.asarray(getattr(head.predictor_, f.name)) for f in dataclasses.fields(head.predictor_)}
    calibration = {"temperature": np.array(head.temperature_), "offset": head.offset_}
    return {**parts, "mean": head.mean_, "scale": head.scale_, **calibration}


def assert_same_state(one: Head, other: Head) -> None:
    for name, array in state(one).items():
        np.testing.assert_array_equal(array, state(other)[name], err_msg=name)


def tried(head: Head) -> dict[float, float]:
    """Cross-validated losses by candidate."""
    return {t.candidate: t.loss for t in head.search_}


def tagged(*, train: int = 150, test: int = 100, noise: float = 0.3, seed: int = 0, **changes: Any) -> FeatureSet:
    """Images with any of the labels cat, dog and red, each by a feature of its own; some with none."""
    features = photos(classes=("x",), train=train, test=test, dim=5, seed=seed, **changes)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(len(features), 5)).astype(np.float32)
    has = X[:, :3] + rng.normal(scale=noise, size=(len(X), 3)) > [0.0, 0.3, 0.9]
    names = np.array(["cat", "dog", "red"])
    strings = ["|".join(names[row]) or "|" for row in has]
    return dataclasses.replace(with_labels(features, strings), features=X * [1, 5, 25, 0.2, 3] + 7)


def truth(features: FeatureSet) -> np.ndarray:
    """(N, 3) which of cat, dog and red each image has."""
    return np.array([[name in features.classes[label] for name in ("cat", "dog", "red")] for label in features.labels])


def measured(*, train: int = 150, test: int = 100, noise: float = 0.3, seed: int = 0) -> FeatureSet:
    """Images with a number each, which two features make."""
    features = photos(classes=("x",), train=train, test=test, dim=5, seed=seed)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(len(features), 5)).astype(np.float32)
    values = 100 + 20 * (X[:, 0] - 0.5 * X[:, 1] + noise * rng.normal(size=len(X)))
    found = with_labels(features, [f"{value:.4f}" for value in values])
    return dataclasses.replace(found, features=X)


def uneven(*, test: int = 100) -> FeatureSet:
    """Three classes of 80, 30 and 10 training images that overlap."""
    features = photos(train=80, test=test, gap=1.0)
    few = [np.flatnonzero((features.labels == c) & (features.splits == "train"))[n:] for c, n in ((1, 30), (2, 10))]
    return features.take(np.setdiff1d(np.arange(len(features)), np.concatenate(few)))


def insects(count: int, *, gap: float = 3.0, first: int = 0) -> FeatureSet:
    """Images of three small classes, half of which are ants, split by featx."""
    keys = keys_of(count, first)
    labels = np.array([0, 1, 0, 2] * count)[:count]
    rng = np.random.default_rng(5)
    features = rng.normal(size=(1000, 6))[:count].astype(np.float32)
    features[np.arange(count), labels] += gap
    splits = hash_splits(keys, labels)
    found = FeatureSet.from_arrays(features, [INSECTS[label] for label in labels], splits=splits, keys=keys)
    return dataclasses.replace(found, dataset={**found.dataset, "splits": "hash"})
