"""What each predictor computes from its arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from estimator_fits import draw, fit
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel

from featx.heads import nearest, predictors
from featx.heads.postprocess import sigmoid
from featx.heads.registry import get_kind, predictor_classes


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
    "cosine": lambda: predictors.CosinePredictor(np.zeros((2, 3)), np.zeros(2)),
    "hidden": lambda: predictors.HiddenLayerPredictor(
        np.ones((2, 5), np.float32), np.zeros(2, np.float32), np.ones((3, 2)), np.zeros(3)
    ),
    "bilinear": lambda: fit("bilinear", *draw(30, 5, 3)[:2], 3, 0.1),
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
        for name in ("logreg", "linear", "svm", "ridge", "knn", "centroid", "bilinear", "mlp", "zeroshot")
        for task in get_kind(name).tasks
        for kernel in (("linear", "rbf") if name == "svm" else ("linear",))
    }
    assert forms == predictor_classes().keys() == MADE.keys()
