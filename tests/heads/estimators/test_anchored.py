"""Logistic regression towards the texts of the classes, against a generic optimiser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from featx.heads.estimators.anchored import AnchoredEstimator
from featx.heads.head import Head
from featx.heads.predictors import CosinePredictor
from featx.heads.texts import ClassTexts
from featx.heads.training_data import Rows, TrainingData

RNG = np.random.default_rng(0)


def texts_of(count: int, width: int, scale: float = 10.0) -> ClassTexts:
    vectors = np.random.default_rng(1).normal(size=(count, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = tuple(f"c{number}" for number in range(count))
    return ClassTexts(names, names, ("{}",), vectors, scale)


def training_of(texts: ClassTexts, n: int, *, folds: int = 3, noise: float = 0.8) -> TrainingData:
    rng = np.random.default_rng(2)
    y = np.arange(n) % len(texts.names)
    X = (texts.vectors[y] + noise * rng.normal(size=(n, texts.vectors.shape[1]))) * rng.uniform(1, 5, (n, 1))
    parts = np.arange(n) // len(texts.names) % folds
    split = tuple((np.flatnonzero(parts != part), np.flatnonzero(parts == part)) for part in range(folds))
    return TrainingData(Rows(X, unit=True), y, len(texts.names), "classification", rng.uniform(0.5, 1.5, n), split)


def by_scipy(training: TrainingData, texts: ClassTexts, C: float) -> tuple[np.ndarray, np.ndarray]:
    """The optimum of the sum of weighted log losses + |W - W0|^2 / (2 C) + |b|^2 / (2 C), by a generic optimiser."""
    Z, K, D = training.rows.whole(np.float64), training.count, training.rows.width
    Y = np.eye(K)[training.y]
    if K == 2:  # one weight vector, that of the second class against the first
        sign, w0 = 2.0 * training.y - 1, texts.weight[1] - texts.weight[0]

        def binary(p: np.ndarray) -> tuple[float, np.ndarray]:
            margin = sign * (Z @ p[:-1] + p[-1])
            away = p - np.append(w0, 0.0)
            slope = -training.weight * sign / (1 + np.exp(margin))
            gradient = np.append(Z.T @ slope, slope.sum()) + away / C
            return float((training.weight * np.logaddexp(0, -margin)).sum() + away @ away / (2 * C)), gradient

        found = minimize(
            binary,
            np.append(w0, 0.0),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 20000, "ftol": 1e-15, "gtol": 1e-9},
        )
        return found.x[:-1], found.x[-1:]

    def objective(p: np.ndarray) -> tuple[float, np.ndarray]:
        W, b = p[: K * D].reshape(K, D), p[K * D :]
        logits = Z @ W.T + b
        residual = training.weight[:, None] * (softmax(logits, axis=1) - Y)
        value = -(training.weight[:, None] * Y * log_softmax(logits, axis=1)).sum()
        value += (((W - texts.weight) ** 2).sum() + (b**2).sum()) / (2 * C)
        gradient = np.concatenate([(residual.T @ Z + (W - texts.weight) / C).ravel(), residual.sum(0) + b / C])
        return float(value), gradient

    start = np.concatenate([texts.weight.ravel(), np.zeros(K)])
    found = minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 20000, "ftol": 1e-15, "gtol": 1e-9}
    )
    return found.x[: K * D].reshape(K, D), found.x[K * D :]


@pytest.mark.parametrize("C", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_weights_are_the_optimum_of_a_generic_optimiser(count: int, C: float) -> None:
    texts = texts_of(count, 8)
    training = training_of(texts, 20 * count)
    found = AnchoredEstimator(texts).fit(training, C)
    weight, bias = by_scipy(training, texts, C)
    if count == 2:
        np.testing.assert_allclose(found.weight[1] - found.weight[0], weight, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.bias[1] - found.bias[0], bias[0], rtol=1e-3, atol=1e-4)
    else:
        np.testing.assert_allclose(found.weight, weight, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.bias, bias, rtol=1e-3, atol=1e-4)


def test_more_features_than_rows_leave_the_zero_shot_weights_beside_the_rows() -> None:
    texts = texts_of(3, 50)
    training = training_of(texts, 12)
    found = AnchoredEstimator(texts).fit(training, 1.0)
    weight, _ = by_scipy(training, texts, 1.0)
    np.testing.assert_allclose(found.weight, weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [2, 4])
def test_an_infinite_penalty_is_the_zero_shot_head(count: int) -> None:
    texts = texts_of(count, 8)
    training = training_of(texts, 40)
    found = AnchoredEstimator(texts).fit(training, 1e-9)
    scores = found.decision_function(training.rows.whole(np.float64))
    expected = CosinePredictor(texts.weight, np.zeros(count)).decision_function(training.rows.whole(np.float64))
    np.testing.assert_allclose(scores - scores[:, :1], expected - expected[:, :1], atol=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_held_out_rows_are_scored_by_fits_without_them(count: int) -> None:
    texts = texts_of(count, 8)
    training = training_of(texts, 60)
    ((_, scores),) = AnchoredEstimator(texts).cross_val_scores(training, (1.0,))
    for train, test in training.folds:
        alone = AnchoredEstimator(texts).fit(training.take(train), 1.0)
        expected = alone.decision_function(training.rows.block(test, np.float64))
        np.testing.assert_allclose(scores[test] - scores[test][:, :1], expected - expected[:, :1], atol=2e-2)


def test_with_few_images_the_anchor_helps_where_the_texts_are_right(tmp_path: Path) -> None:
    from featx import FeatureSet

    rng, texts = np.random.default_rng(5), texts_of(4, 32, scale=30.0)
    y = np.arange(216) % 4
    X = texts.vectors[y] * 0.6 + 0.25 * rng.normal(size=(216, 32))
    splits = np.where(np.arange(216) < 16, "train", "test").astype(object)
    features = FeatureSet(
        X.astype(np.float32), y, splits, texts.names, np.arange(216).astype(str).astype(object),
        keys=rng.integers(0, 256, (216, 16), dtype=np.uint8),
    )  # fmt: skip
    plain = Head("logreg").fit(features)
    anchored = Head("logreg", texts=texts).fit(features)
    assert anchored.evaluate(features).accuracy > plain.evaluate(features).accuracy + 0.02
    again = Head.load(anchored.save(tmp_path / "h.safetensors"))
    np.testing.assert_array_equal(again.predict_proba(X), anchored.predict_proba(X))
    assert again.C_ == anchored.C_
    assert isinstance(again.predictor_, CosinePredictor)
