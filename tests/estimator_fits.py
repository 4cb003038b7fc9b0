"""Training rows and fits of each kind of head, for the tests of estimators and predictors."""

from __future__ import annotations

from typing import Any

import numpy as np

from featx.heads.registry import EstimatorOptions, get_kind
from featx.heads.training_data import Rows, TrainingData


def draw(n: int, dim: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, dim) training rows of overlapping classes, (n,) their labels, and (40, dim) other rows."""
    rng = np.random.default_rng(n * dim + count)
    y = np.arange(n) % count
    Z = rng.normal(size=(n, dim))
    Z[np.arange(n), y] += 1.0
    return Z, y, rng.normal(size=(40, dim))


def fit(name: str, Z: np.ndarray, y: np.ndarray, count: int, C: float = 0.0, *, kernel: str = "linear") -> Any:
    """The predictor of one kind of head."""
    model = get_kind(name).estimator(EstimatorOptions("classification", kernel))
    return model.fit(TrainingData(Rows(Z), y, count, "classification", np.ones(len(y))), C)
