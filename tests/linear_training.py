"""Training data and references for the tests of logistic regression and the linear SVM."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from featx.heads.predictors import LinearPredictor
from featx.heads.training_data import Rows, TrainingData, statistics

CS = (1e-6, 1e-3, 1.0, 1e3, 1e5)
CLOSE = 1e-6
"""The largest relative difference between an objective and that of scikit-learn."""


def draw(
    n: int,
    dim: int,
    count: int,
    *,
    apart: float,
    dtype: type = np.float32,
    weighted: bool = False,
    task: str = "classification",
    y: np.ndarray | None = None,
    seed: int = 0,
) -> TrainingData:
    """Draw correlated features of classes whose centres are ``apart`` deviations apart; weights of mean 1."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) / np.sqrt(dim) + 2
    y = rng.integers(0, count, n) if y is None else y
    X += apart * rng.normal(size=(count, dim))[y]
    if task == "multilabel":
        y = (rng.normal(size=(n, count)) + X[:, :count] > 2.5).astype(np.float32)
    mean, scale = statistics(X.astype(dtype))
    weight = rng.uniform(0.2, 2, n) if weighted else np.ones(n)
    return TrainingData(Rows(X.astype(dtype), mean=mean, scale=scale), y, count, task, weight / weight.mean())


ONE_ROW = (np.arange(500) == 7) + 2 * (np.arange(500) % 50 == 1)
PROBLEMS = {
    "two classes": lambda: draw(300, 20, 2, apart=0.3),
    "two classes, separable, weighted": lambda: draw(200, 20, 2, apart=3, weighted=True),
    "five classes, weighted": lambda: draw(400, 30, 5, apart=0.2, weighted=True),
    "four classes, far apart": lambda: draw(200, 30, 4, apart=6),
    "two classes, wide, weighted": lambda: draw(50, 150, 2, apart=0.3, dtype=np.float16, weighted=True),
    "three classes, wide": lambda: draw(60, 200, 3, apart=0.5, dtype=np.float16),
    "a class of one row": lambda: draw(500, 10, 3, apart=0.3, dtype=np.float16, y=ONE_ROW),
    "one row of many": lambda: draw(2000, 5, 2, apart=0.3, y=(np.arange(2000) == 7).astype(np.int64)),
}
EACH_PROBLEM = pytest.mark.parametrize("name", PROBLEMS)
EACH_PRECISION = pytest.mark.parametrize("exact", [True, False], ids=["float64", "float32 first"])


@cache
def problem(name: str) -> TrainingData:
    return PROBLEMS[name]()


def single(predictor: LinearPredictor) -> tuple[np.ndarray, np.ndarray]:
    """The penalised weights and intercepts; for two classes, those of the second against the first."""
    if len(predictor.weight) == 2:
        return predictor.weight[1:] - predictor.weight[:1], predictor.bias[1:] - predictor.bias[:1]
    return predictor.weight, predictor.bias


def objective(training: TrainingData, W: np.ndarray, b: np.ndarray, C: float) -> float:
    """The objective of scikit-learn, in float64: |W|^2 / 2 + C sum_i w_i loss_i."""
    scores = training.rows.whole(np.float64) @ W.T + b
    if len(W) == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    loss = logsumexp(scores, axis=1) - scores[np.arange(len(scores)), training.y]
    return float(0.5 * (W**2).sum() + C * training.weight @ loss)


def reference(training: TrainingData, C: float, solver: str = "newton-cg") -> LogisticRegression:
    fit = LogisticRegression(C=C, tol=1e-10, max_iter=100_000, solver=solver)
    return fit.fit(training.rows.whole(np.float64), training.y, training.weight)


@cache
def reference_at(name: str, C: float) -> LogisticRegression:
    return reference(problem(name), C)


def folded(training: TrainingData, folds: int = 3) -> TrainingData:
    split = KFold(folds, shuffle=True, random_state=0).split(np.zeros(len(training)))
    return dataclasses.replace(training, folds=tuple(split))


def log_loss(training: TrainingData, scores: np.ndarray) -> float:
    """The weighted log loss of the rows that have a score."""
    rows = np.flatnonzero(np.isfinite(scores[:, 0]))
    each = -log_softmax(scores[rows], axis=1)[np.arange(len(rows)), training.y[rows]]
    return float(np.average(each, weights=training.weight[rows]))


def noisy(training: TrainingData) -> TrainingData:
    """Make a fifth of the labels random, so that the best penalty is inside the path."""
    rng = np.random.default_rng(1)
    y = np.where(rng.random(len(training)) < 0.2, rng.integers(0, training.count, len(training)), training.y)
    return dataclasses.replace(training, y=y, weight=np.ones(len(training)))
