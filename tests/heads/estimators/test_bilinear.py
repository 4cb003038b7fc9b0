"""Bilinear heads: what they minimise, and what their predictors compute."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from featx.deployment.layers import predictor_layers
from featx.heads import training_data
from featx.heads.estimators import bilinear
from featx.heads.estimators.bilinear import BilinearEstimator
from featx.heads.head import Head
from featx.heads.training_data import Rows, TrainingData, statistics


def draw(task: str = "classification", rows: int = 240, dim: int = 6) -> TrainingData:
    """Rows whose class is a product of two columns."""
    rng = np.random.default_rng(0)
    X = rng.normal(2, 3, (rows, dim)).astype(np.float32)
    mean, scale = statistics(X)
    product = ((X[:, 0] - 2) * (X[:, 1] - 2)).astype(np.float64)
    y = {
        "classification": np.digitize(product, [-3.0, 3.0]),
        "multilabel": np.stack([product > 0, X[:, 2] > 2], axis=1).astype(np.float32),
        "regression": product[:, None],
    }[task]
    count = {"classification": 3, "multilabel": 2, "regression": 1}[task]
    folds = tuple((np.setdiff1d(np.arange(rows), np.arange(k, rows, 3)), np.arange(k, rows, 3)) for k in range(3))
    return TrainingData(Rows(X, mean=mean, scale=scale), y, count, task, rng.uniform(0.5, 2, rows), folds)


def by_hand(Z: np.ndarray) -> np.ndarray:
    """The standardised features and pairs, from the singular value decomposition."""
    U, S, _ = np.linalg.svd(Z - Z.mean(axis=0), full_matrices=False)
    y = U * np.sqrt(len(Z)) * (S > 0)
    first, second = np.triu_indices(y.shape[1])
    pairs = y[:, first] * y[:, second] / np.linalg.norm(y, axis=1, keepdims=True)
    columns = np.concatenate([Z, pairs], axis=1)
    return np.asarray((columns - columns.mean(axis=0)) / columns.std(axis=0))


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_a_fit_is_that_of_scikit_learn_on_features_and_pairs(task: str) -> None:
    training, C = draw(task), 0.05
    Z = training.rows.whole(np.float64)
    found = BilinearEstimator(task).fit(training, C).decision_function(Z)
    columns, weight = by_hand(Z), training.weight
    if task == "regression":
        deviation = np.sqrt(np.cov(training.y[:, 0], aweights=weight, ddof=0))
        ridge = Ridge(alpha=1 / (2 * C)).fit(columns, training.y[:, 0] / deviation, weight)
        np.testing.assert_allclose(found[:, 0], ridge.predict(columns) * deviation, rtol=1e-6, atol=1e-6)
        return
    for label, y in enumerate(training.y.T) if task == "multilabel" else [(None, training.y)]:
        model = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(columns, y, weight)
        expected = model.decision_function(columns)
        own = found if label is None else found[:, label]
        centred = own - own.mean(axis=1, keepdims=True) if label is None else own
        np.testing.assert_allclose(centred, expected, atol=2e-3)


def test_products_are_learnt_that_no_linear_head_can_learn() -> None:
    training = draw(rows=600)
    test = np.arange(0, 600, 2)
    train = np.arange(1, 600, 2)
    accuracy = {}
    for kind in ("logreg", "bilinear"):
        head = Head(kind).fit(training.rows.features[train], training.y[train])
        accuracy[kind] = (head.predict(training.rows.features[test]) == training.y[test]).mean()
    assert accuracy["bilinear"] > 0.85 > 0.6 > accuracy["logreg"]


def test_columns_that_never_vary_and_rows_at_the_mean_do_no_harm() -> None:
    training = draw()
    X = training.rows.features.copy()
    X[:, 3] = 7.0
    mean, scale = statistics(X)
    constant = dataclasses.replace(training, rows=Rows(X, mean=mean, scale=scale))
    predictor = BilinearEstimator("classification").fit(constant, 0.1)
    assert predictor.projection.shape == (5, 6)
    assert np.isfinite(predictor.decision_function(np.zeros((2, 6)))).all()
    blank = dataclasses.replace(training, rows=Rows(np.ones((240, 6))))
    scores = BilinearEstimator("classification").fit(blank, 0.1).decision_function(np.zeros((1, 6)))
    shares = np.bincount(training.y, training.weight) / training.weight.sum()
    np.testing.assert_allclose(np.exp(scores[0]) / np.exp(scores[0]).sum(), shares, atol=1e-4)


def test_there_are_as_many_components_as_asked_for_and_one_for_each_four_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = draw(rows=30, dim=80)
    assert BilinearEstimator("classification").fit(wide, 0.1).projection.shape == (7, 80)
    monkeypatch.setattr(bilinear, "COMPONENTS", 4)
    assert BilinearEstimator("classification").fit(wide, 0.1).projection.shape == (4, 80)
    assert BilinearEstimator("classification").fit(draw(), 0.1).projection.shape == (4, 6)


def test_rows_that_stay_in_their_file_give_the_same_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = draw(rows=400)
    expected = BilinearEstimator("classification").fit(training, 0.1)
    training.rows.features.tofile(tmp_path / "features")
    mapped = np.memmap(tmp_path / "features", np.float32, "r", shape=training.rows.features.shape)
    rows = Rows(mapped, mean=training.rows.mean, scale=training.rows.scale)
    monkeypatch.setattr(training_data, "MOST_IN_MEMORY", 1)
    found = BilinearEstimator("classification").fit(dataclasses.replace(training, rows=rows), 0.1)
    Z = training.rows.whole(np.float64)
    np.testing.assert_allclose(found.decision_function(Z), expected.decision_function(Z), atol=1e-3)


def test_the_layers_of_a_network_compute_the_same() -> None:
    training = draw()
    predictor = BilinearEstimator("classification").fit(training, 0.1)
    Z = np.concatenate([training.rows.whole(np.float64), np.zeros((1, 6))])
    layers = predictor_layers(predictor, torch.float64)
    np.testing.assert_allclose(layers(torch.from_numpy(Z)).numpy(), predictor.decision_function(Z), atol=1e-10)
