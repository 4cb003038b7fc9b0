"""What each predictor computes, and each kind's fit against scikit-learn itself, on seeded random data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.svm import SVC, LinearSVC

from featx.heads import nearest, predictors
from featx.heads.estimators import linear
from featx.heads.estimators.knn import KNearestEstimator
from featx.heads.postprocess import sigmoid, softmax
from featx.heads.registry import EstimatorOptions, get_kind, predictor_classes
from featx.heads.solver import matrices
from featx.heads.training_data import Rows, TrainingData

SHAPES = pytest.mark.parametrize(("n", "dim"), [(90, 7), (30, 60)], ids=["tall", "wide"])
CLASSES = pytest.mark.parametrize("count", [2, 4])
STRENGTHS = pytest.mark.parametrize("C", [0.01, 1.0])


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


def decision(scores: np.ndarray) -> np.ndarray:
    """(N, C) scores as scikit-learn's decision_function gives them: for two classes one column, the difference."""
    return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores


def objective(scores: np.ndarray, weight: np.ndarray, y: np.ndarray, C: float) -> float:
    """Multinomial logistic regression's penalised loss as scikit-learn defines it."""
    weight = weight[1:] - weight[:1] if len(weight) == 2 else weight
    losses = -np.log(softmax(scores)[np.arange(len(y)), y])
    return float(losses.sum() + (weight**2).sum() / (2 * C))


# Fits


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


def test_knn_asks_no_more_neighbours_than_there_are_rows() -> None:
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


def test_turned_axes_keep_the_rows_and_are_no_more_than_either_side() -> None:
    Z, _, _ = draw(30, 60, 2)
    for some in (Z, Z[:, :30], Z[:, :7], np.column_stack([Z[:, :7], Z[:, :7]])):
        turned = matrices.Rotated.of(Rows(some))
        assert turned.coordinates.shape[1] <= min(some.shape)
        np.testing.assert_allclose(turned.coordinates @ turned.basis, some, atol=1e-12)
        np.testing.assert_allclose(turned.basis @ turned.basis.T, np.eye(len(turned.basis)), atol=1e-10)


@CLASSES
@pytest.mark.parametrize("name", ["logreg", "svm"])
def test_a_fit_in_turned_axes_gives_the_weights_of_the_fit_outside_them(
    name: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Z, y, _ = draw(30, 60, count)
    turned = fit(name, Z, y, count, 0.1)
    monkeypatch.setattr(matrices.Rotated, "of", lambda rows: matrices.Rotated(rows.whole(np.float64), None))
    plain = fit(name, Z, y, count, 0.1)
    np.testing.assert_allclose(turned.weight, plain.weight, atol=1e-3 * np.abs(plain.weight).max())
    np.testing.assert_allclose(turned.bias, plain.bias, atol=1e-3)


@pytest.mark.parametrize("name", ["logreg", "svm"])
def test_a_solver_that_stops_before_its_optimum_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Z, y, _ = draw(30, 60, 4)
    minimise = linear.minimise
    monkeypatch.setattr(linear, "minimise", lambda *a, **o: minimise(*a, **{**o, "max_iter": 1}))
    monkeypatch.setattr(linear, "NEWTON_STEPS", 0)
    with pytest.warns(
        predictors.NotConvergedWarning, match="at C=1 the optimum was not reached: the objective may still"
    ):
        fit(name, Z, y, 4, 1.0)


# Predictors


def test_a_linear_predictor_is_one_matrix_and_one_vector() -> None:
    predictor = predictors.LinearPredictor(np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([0.5, 0.0]))
    np.testing.assert_array_equal(predictor.decision_function(np.array([[3.0, 4.0]])), [[11.5, -4.0]])


def test_a_hidden_predictor_passes_on_what_is_above_zero() -> None:
    hidden = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], np.float32), np.array([0.0, 0.0, -3.0], np.float32)
    predictor = predictors.HiddenLayerPredictor(*hidden, np.array([[1.0, 10.0, 100.0]]), np.array([0.25]))
    np.testing.assert_array_equal(
        predictor.decision_function(np.array([[2.0, 5.0], [-2.0, 1.0]])), [[2.0 + 200.0 + 0.25], [20.0 + 0.25]]
    )


def test_a_kernel_predictor_is_a_sum_over_its_support_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    Z, _, other = draw(30, 7, 2)
    rng = np.random.default_rng(0)
    dual, bias = rng.normal(size=(3, 30)), rng.normal(size=3)
    predictor = predictors.KernelPredictor(Z.astype(np.float32), dual, bias, np.array(0.1))
    expected = rbf_kernel(other, Z.astype(np.float32).astype(float), gamma=0.1) @ dual.T + bias
    np.testing.assert_allclose(predictor.decision_function(other), expected, rtol=1e-12)
    monkeypatch.setattr(nearest, "block_rows", lambda columns: 3)
    np.testing.assert_allclose(predictor.decision_function(other), expected, rtol=1e-12)


NEAR = {
    "support": nearest.unit(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])),
    "support_weight": np.ones(4),
    "k": np.array(3),
    "sharpness": np.array(0.0),
}


def test_neighbour_scores_are_log_shares_of_the_votes_with_one_vote_spread_evenly() -> None:
    predictor = predictors.NeighbourPredictor(**NEAR, support_labels=np.array([0, 0, 1, 1]), count=np.array(2))
    np.testing.assert_allclose(np.exp(predictor.decision_function(np.array([[2.0, 0.0]]))), [[2.5 / 4, 1.5 / 4]])


def test_neighbours_vote_by_their_weight_and_by_how_near_they_are() -> None:
    labels, weight = np.array([0, 0, 1, 1]), np.array([2.0, 0.5, 3.0, 1.0])
    parts = {**NEAR, "support_weight": weight, "sharpness": np.array(5.0)}
    predictor = predictors.NeighbourPredictor(**parts, support_labels=labels, count=np.array(2))
    cosine = cosine_similarity([[2.0, 0.0]], NEAR["support"])[0]
    votes = (weight * np.exp(5.0 * (cosine - cosine.max())))[[0, 1, 3]]
    first, all_votes = votes[:2].sum(), votes.sum()
    (found,) = predictor.decision_function(np.array([[2.0, 0.0]]))
    assert found[0] > found[1]
    # One more vote is spread evenly; what it weighs, beside votes that do not sum to k, is the predictor's own affair.
    assert np.exp(found).sum() == pytest.approx(1.0)
    assert 0.5 < np.exp(found[0]) < first / all_votes


def test_a_class_without_a_row_among_the_neighbours_scores_lowest() -> None:
    Z, y, other = draw(20, 5, 2)
    predictor = predictors.NeighbourPredictor(
        nearest.unit(Z), y * 2, np.ones(20), np.array(5), np.array(0.0), np.array(3)
    )  # labels 0 and 2
    scores = predictor.decision_function(other)
    assert (scores[:, 1] <= scores.min(axis=1)).all()
    assert np.isfinite(scores).all()


def test_neighbours_of_labels_give_the_logit_of_each_label_s_share() -> None:
    labels = np.array([[1, 0], [1, 1], [0, 1], [0, 1]], np.uint8)
    predictor = predictors.NeighbourLabelsPredictor(**NEAR, support_labels=labels)
    share = np.array([[2.5 / 4, 2.5 / 4]])  # of the three nearest two have the first label, and two the second
    np.testing.assert_allclose(sigmoid(predictor.decision_function(np.array([[2.0, 0.0]]))), share)


def test_neighbours_of_numbers_give_their_mean() -> None:
    predictor = predictors.NeighbourMeanPredictor(**NEAR, support_values=np.array([[1.0], [2.0], [30.0], [6.0]]))
    np.testing.assert_allclose(predictor.decision_function(np.array([[2.0, 0.0]])), [[3.0]])


MADE: dict[str, Callable[[], Any]] = {
    "linear": lambda: fit("logreg", *draw(30, 5, 3)[:2], 3, 0.1),
    "kernel": lambda: fit("svm", *draw(30, 5, 3)[:2], 3, 1.0, kernel="rbf"),
    "neighbour": lambda: fit("knn", *draw(30, 5, 3)[:2], 3, 3),
    "hidden": lambda: predictors.HiddenLayerPredictor(
        np.ones((2, 5), np.float32), np.zeros(2, np.float32), np.ones((3, 2)), np.zeros(3)
    ),
    "neighbour-labels": lambda: predictors.NeighbourLabelsPredictor(**NEAR, support_labels=np.ones((4, 2), np.uint8)),
    "neighbour-mean": lambda: predictors.NeighbourMeanPredictor(**NEAR, support_values=np.ones((4, 1))),
}


@pytest.mark.parametrize("form", predictor_classes())
def test_a_predictor_is_arrays_alone_of_the_types_that_a_file_holds(form: str) -> None:
    predictor = MADE[form]()
    assert type(predictor) is predictor_classes()[form]
    specs = type(predictor).ARRAYS
    assert {f.name for f in dataclasses.fields(predictor)} == specs.keys()
    codes = {"F64": np.float64, "F32": np.float32, "I64": np.int64, "U8": np.uint8}
    for name, spec in specs.items():
        array = getattr(predictor, name)
        assert (array.dtype, array.ndim) == (codes[spec.dtype], len(spec.shape)), name


def test_every_kind_of_head_has_a_form_that_is_a_predictor() -> None:
    forms = {
        get_kind(name).form(task, kernel)
        for name in ("logreg", "linear", "svm", "ridge", "knn", "centroid", "mlp")
        for task in get_kind(name).tasks
        for kernel in (("linear", "rbf") if name == "svm" else ("linear",))
    }
    assert forms == predictor_classes().keys() == MADE.keys()
