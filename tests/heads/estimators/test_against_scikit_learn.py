"""Each kind of head against the estimator of scikit-learn, on seeded random data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from estimator_fits import draw, fit
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.svm import SVC, LinearSVC

from featx.heads import predictors
from featx.heads.estimators import linear
from featx.heads.estimators.knn import KNearestEstimator
from featx.heads.postprocess import sigmoid, softmax
from featx.heads.registry import EstimatorOptions, get_kind
from featx.heads.solver import finite_newton, matrices
from featx.heads.training_data import Rows, TrainingData

SHAPES = pytest.mark.parametrize(("n", "dim"), [(90, 7), (30, 60)], ids=["tall", "wide"])
CLASSES = pytest.mark.parametrize("count", [2, 4])
STRENGTHS = pytest.mark.parametrize("C", [0.01, 1.0])


def decision(scores: np.ndarray) -> np.ndarray:
    """(N, C) scores as scikit-learn's decision_function gives them: for two classes one column, the difference."""
    return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores


def objective(scores: np.ndarray, weight: np.ndarray, y: np.ndarray, C: float) -> float:
    """Multinomial logistic regression's penalised loss as scikit-learn defines it."""
    weight = weight[1:] - weight[:1] if len(weight) == 2 else weight
    losses = -np.log(softmax(scores)[np.arange(len(y)), y])
    return float(losses.sum() + (weight**2).sum() / (2 * C))


@SHAPES
@CLASSES
@STRENGTHS
def test_logreg_is_the_logistic_regression_of_scikit_learn(n: int, dim: int, count: int, C: float) -> None:
    Z, y, other = draw(n, dim, count)
    reference = LogisticRegression(C=C, tol=1e-12, max_iter=100_000).fit(Z, y)
    predictor = fit("logreg", Z, y, count, C)
    np.testing.assert_allclose(softmax(predictor.decision_function(other)), reference.predict_proba(other), atol=2e-4)
    coefficients = np.concatenate([-reference.coef_, reference.coef_]) / 2 if count == 2 else reference.coef_
    expected = objective(np.log(reference.predict_proba(Z)), coefficients, y, C)
    assert objective(predictor.decision_function(Z), predictor.weight, y, C) == pytest.approx(expected, rel=1e-6)


@SHAPES
@CLASSES
@STRENGTHS
def test_logreg_of_labels_is_one_logistic_regression_each(n: int, dim: int, count: int, C: float) -> None:
    Z, _, other = draw(n, dim, count)
    y = (Z[:, :count] + np.random.default_rng(0).normal(size=(n, count)) > 0).astype(np.float32)
    model = get_kind("logreg").estimator(EstimatorOptions("multilabel"))
    scores = model.fit(TrainingData(Rows(Z), y, count, "multilabel", np.ones(n)), C).decision_function(other)
    for label in range(count):
        reference = LogisticRegression(C=C, tol=1e-12, max_iter=100_000).fit(Z, y[:, label])
        np.testing.assert_allclose(sigmoid(scores)[:, label], reference.predict_proba(other)[:, 1], atol=1e-3)


@SHAPES
@CLASSES
@STRENGTHS
def test_svm_is_the_linear_svc_of_scikit_learn(n: int, dim: int, count: int, C: float) -> None:
    Z, y, other = draw(n, dim, count)
    reference = LinearSVC(C=C, tol=1e-10, max_iter=1_000_000, dual=False).fit(Z, y)
    scores = fit("svm", Z, y, count, C).decision_function(other)
    np.testing.assert_allclose(decision(scores), reference.decision_function(other), atol=1e-3)


@SHAPES
@CLASSES
@STRENGTHS
def test_ridge_is_the_ridge_classifier_of_scikit_learn(n: int, dim: int, count: int, C: float) -> None:
    Z, y, other = draw(n, dim, count)
    reference = RidgeClassifier(alpha=1 / (2 * C)).fit(Z, y)
    scores = fit("ridge", Z, y, count, C).decision_function(other)
    np.testing.assert_allclose(decision(scores), reference.decision_function(other), atol=1e-8)


@SHAPES
@CLASSES
@STRENGTHS
def test_rbf_is_the_one_vs_rest_svc_of_scikit_learn(n: int, dim: int, count: int, C: float) -> None:
    Z, y, other = draw(n, dim, count)
    reference = OneVsRestClassifier(SVC(C=C, kernel="rbf", gamma="scale")).fit(Z, y)
    scores = fit("svm", Z, y, count, C, kernel="rbf").decision_function(other)
    np.testing.assert_allclose(decision(scores), reference.decision_function(other), atol=1e-5)


@SHAPES
@CLASSES
def test_centroid_chooses_as_the_nearest_centroid_of_scikit_learn(n: int, dim: int, count: int) -> None:
    Z, y, other = draw(n, dim, count)
    reference = NearestCentroid().fit(Z, y)
    np.testing.assert_array_equal(
        fit("centroid", Z, y, count).decision_function(other).argmax(1), reference.predict(other)
    )


@SHAPES
@CLASSES
@pytest.mark.parametrize("k", [1, 5])
def test_knn_of_equal_votes_chooses_as_the_cosine_neighbours_of_scikit_learn(
    n: int, dim: int, count: int, k: int
) -> None:
    Z, y, other = draw(n, dim, count)
    reference = KNeighborsClassifier(k, metric="cosine").fit(Z, y)
    votes = np.sort(reference.predict_proba(other), axis=1)
    untied = votes[:, -1] > votes[:, -2] + 1e-9
    model = KNearestEstimator(temperatures=(math.inf,))
    scores = model.fit(TrainingData(Rows(Z), y, count, "classification", np.ones(n)), k).decision_function(other)
    assert untied.sum() >= 20
    np.testing.assert_array_equal(scores.argmax(1)[untied], reference.predict(other)[untied])


def test_knn_uses_no_more_neighbours_than_there_are_rows() -> None:
    Z, y, other = draw(6, 5, 2)
    predictor = KNearestEstimator(temperatures=(math.inf,)).fit(
        TrainingData(Rows(Z), y, 2, "classification", np.ones(6)), 50
    )
    np.testing.assert_allclose(np.exp(predictor.decision_function(other)), 0.5)


@pytest.mark.parametrize("name", ["logreg", "svm", "ridge"])
def test_two_classes_get_one_row_of_weights_each_and_opposite_ones(name: str) -> None:
    Z, y, _ = draw(60, 7, 2)
    predictor = fit(name, Z, y, 2, 0.1)
    assert predictor.weight.shape == (2, 7)
    np.testing.assert_array_equal(predictor.weight[0], -predictor.weight[1])
    assert predictor.bias[0] == -predictor.bias[1]


@CLASSES
@pytest.mark.parametrize("name", ["logreg", "svm"])
def test_a_fit_in_rotated_axes_has_the_weights_of_the_fit_without_rotation(
    name: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Z, y, _ = draw(30, 60, count)
    rotated = fit(name, Z, y, count, 0.1)
    monkeypatch.setattr(matrices.Rotated, "of", lambda rows: matrices.Rotated(rows.whole(np.float64), None))
    plain = fit(name, Z, y, count, 0.1)
    np.testing.assert_allclose(rotated.weight, plain.weight, atol=1e-3 * np.abs(plain.weight).max())
    np.testing.assert_allclose(rotated.bias, plain.bias, atol=1e-3)


@pytest.mark.parametrize("name", ["logreg", "svm"])
def test_a_solver_that_stops_before_its_optimum_warns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Z, y, _ = draw(30, 60, 4)
    minimise = linear.minimise
    monkeypatch.setattr(linear, "minimise", lambda *a, **o: minimise(*a, **{**o, "max_iter": 1}))
    monkeypatch.setattr(linear, "NEWTON_STEPS", 0)
    monkeypatch.setattr(finite_newton, "MAX_STEPS", 0)
    with pytest.warns(
        predictors.NotConvergedWarning, match="at C=1 the optimum was not reached: the objective may still"
    ):
        fit(name, Z, y, 4, 1.0)
