"""The losses of the solver, against finite differences, scikit-learn and scipy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import log_loss
from solver_problems import ALL, LOSSES, K, make_loss

from featx.heads.solver.losses import Logistic, Softmax, SquaredHinge

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # numpy must not warn

N, P = 5, 2


def differences(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray, h: float) -> np.ndarray:
    """Central differences, (K, P, N), of a function from (K, P, N) scores to (P, N) values, by each score."""
    out = np.empty_like(at)
    for k in range(len(at)):
        step = np.zeros_like(at)
        step[k] = h
        out[k] = (function(at + step) - function(at - step)) / (2 * h)
    return out


def off_the_hinge(L: np.ndarray) -> np.ndarray:
    """Set scores near the margin, where the second derivative of the squared hinge jumps, to 0."""
    return np.where(np.abs(np.abs(L) - 1) < 0.01, 0.0, L)


scores_and_labels = st.tuples(
    arrays(np.float64, (K, P, N), elements=st.floats(-30, 30, width=32)),
    arrays(np.int64, N, elements=st.integers(0, K - 1)),
)


@LOSSES
@settings(max_examples=40, deadline=None)
@given(drawn=scores_and_labels)
def test_the_derivative_matches_finite_differences_of_the_loss(kind: str, drawn: tuple[np.ndarray, np.ndarray]) -> None:
    L, labels = off_the_hinge(drawn[0]), drawn[1]
    loss = make_loss(kind, labels)
    value, derivative = loss.value_and_derivative(L.copy(), ALL)
    assert value.shape == (P, N)
    expected = differences(lambda at: loss.value_and_derivative(at, ALL)[0], L, 1e-5)
    np.testing.assert_allclose(derivative, expected, rtol=1e-6, atol=3e-7)


@LOSSES
@settings(max_examples=40, deadline=None)
@given(drawn=scores_and_labels)
def test_the_hessian_diagonal_matches_finite_differences_of_the_derivative(
    kind: str, drawn: tuple[np.ndarray, np.ndarray]
) -> None:
    L, labels = off_the_hinge(drawn[0]), drawn[1]
    loss = make_loss(kind, labels)
    before = L.copy()
    actual = loss.hessian_diagonal(L, ALL)
    np.testing.assert_array_equal(L, before)
    expected = np.empty_like(L)
    for k in range(K):
        expected[k] = differences(lambda at, k=k: loss.value_and_derivative(at, ALL)[1][k], L, 1e-4)[k]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


@LOSSES
@settings(max_examples=40, deadline=None)
@given(drawn=scores_and_labels, seed=st.integers(0, 100))
def test_the_hessian_product_matches_finite_differences_of_the_derivative_along_a_step(
    kind: str, drawn: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    L, labels = off_the_hinge(drawn[0]), drawn[1]
    loss, M, h = make_loss(kind, labels), np.random.default_rng(seed).uniform(-1, 1, L.shape), 1e-4
    before = L.copy(), M.copy()
    actual = loss.hessian_product(L, M, ALL)
    np.testing.assert_array_equal((L, M), before)
    expected = (loss.value_and_derivative(L + h * M, ALL)[1] - loss.value_and_derivative(L - h * M, ALL)[1]) / (2 * h)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


@LOSSES
@settings(max_examples=20, deadline=None)
@given(drawn=scores_and_labels)
def test_a_block_of_rows_has_the_values_that_it_has_among_all_rows(
    kind: str, drawn: tuple[np.ndarray, np.ndarray]
) -> None:
    L, labels = drawn
    loss, rows = make_loss(kind, labels), slice(1, 4)
    value, derivative = loss.value_and_derivative(L.copy(), ALL)
    some_value, some_derivative = loss.value_and_derivative(L[:, :, rows].copy(), rows)
    np.testing.assert_array_equal(some_value, value[:, rows])
    np.testing.assert_array_equal(some_derivative, derivative[:, :, rows])
    np.testing.assert_array_equal(loss.hessian_diagonal(L[:, :, rows], rows), loss.hessian_diagonal(L, ALL)[:, :, rows])


def test_the_softmax_loss_is_the_log_loss() -> None:
    rng = np.random.default_rng(0)
    L, labels = rng.normal(0, 3, (K, P, 50)), rng.integers(0, K, 50)
    value, derivative = Softmax(labels, K).value_and_derivative(L.copy(), ALL)
    for problem in range(P):
        p = scipy.special.softmax(L[:, problem].T, axis=1)
        assert value[problem].mean() == pytest.approx(log_loss(labels, p, labels=range(K)), rel=1e-12)
        np.testing.assert_allclose(derivative[:, problem].T, p - np.eye(K)[labels], atol=1e-14)


def test_the_logistic_loss_is_the_sum_of_the_log_losses_of_the_labels() -> None:
    rng = np.random.default_rng(0)
    L, positive = rng.normal(0, 3, (3, P, 50)), rng.integers(0, 2, (3, 50)) > 0
    value, derivative = Logistic(positive).value_and_derivative(L.copy(), ALL)
    for problem in range(P):
        p = scipy.special.expit(L[:, problem])
        expected = sum(log_loss(positive[k], p[k]) for k in range(3))
        assert value[problem].mean() == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(derivative[:, problem], p - positive, atol=1e-14)


def test_the_squared_hinge_loss_is_the_sum_over_labels_of_squared_distances_to_the_margin() -> None:
    rng = np.random.default_rng(0)
    L, positive = rng.normal(0, 3, (3, P, 50)), rng.integers(0, 2, (3, 50)) > 0
    value, _ = SquaredHinge(positive).value_and_derivative(L.copy(), ALL)
    expected = np.maximum(0, 1 - np.where(positive, 1, -1)[:, None] * L) ** 2
    np.testing.assert_allclose(value, expected.sum(axis=0), rtol=1e-13)


@LOSSES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_scores_give_finite_losses_of_the_right_size(kind: str, dtype: type) -> None:
    labels = np.array([0, 1, 2, 3, 0])
    L = np.zeros((K, 1, 5), dtype)
    L[0, 0] = [1e4, 1e4, -1e4, 0, -1e4]
    L[3, 0] = [-1e4, -1e4, 1e4, 1e4, 1e4]
    loss = make_loss(kind, labels)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        value, derivative = loss.value_and_derivative(L.copy(), ALL)
        diagonal = loss.hessian_diagonal(L, ALL)
    assert value.dtype == derivative.dtype == diagonal.dtype == dtype
    assert np.isfinite(derivative).all()
    assert np.isfinite(diagonal).all()
    assert (diagonal >= 0).all()
    expected, _ = make_loss(kind, labels).value_and_derivative(L.astype(np.longdouble), ALL)
    np.testing.assert_allclose(value, expected.astype(np.float64), rtol=1e-6)
    if kind == "softmax":
        np.testing.assert_allclose(value[0], [0, 1e4, 1e4, 0, 2e4], atol=1e-30)


def test_the_loss_of_a_nearly_certain_class_is_accurate_in_float32() -> None:
    L = np.array([30.0, 0.0, -2.0], np.float32).reshape(3, 1, 1)
    value, derivative = Softmax(np.array([0]), 3).value_and_derivative(L.copy(), ALL)
    missing = np.exp(-30.0) + np.exp(-32.0)
    np.testing.assert_allclose(value, missing, rtol=1e-5)
    np.testing.assert_allclose(derivative[:, 0, 0], [-missing, np.exp(-30.0), np.exp(-32.0)], rtol=1e-5)
    sign = np.array([[True], [False]])
    value, derivative = Logistic(sign).value_and_derivative(np.array([30.0, -32.0], np.float32).reshape(2, 1, 1), ALL)
    np.testing.assert_allclose(value, missing, rtol=1e-5)
    np.testing.assert_allclose(derivative[:, 0, 0], [-np.exp(-30.0), np.exp(-32.0)], rtol=1e-5)


@pytest.mark.parametrize("certain", [10.0, 15.0, 20.0, 30.0])
def test_the_second_derivative_of_a_nearly_certain_class_is_accurate_in_float32(certain: float) -> None:
    L = np.array([certain, 0.0, -2.0]).reshape(3, 1, 1)
    M = np.array([0.5, -1.0, 2.0]).reshape(3, 1, 1)
    for loss in (Softmax(np.array([0]), 3), Logistic(np.array([[True], [False], [False]]))):
        small = L.astype(np.float32), M.astype(np.float32)
        np.testing.assert_allclose(loss.hessian_diagonal(small[0], ALL), loss.hessian_diagonal(L, ALL), rtol=1e-4)
        np.testing.assert_allclose(loss.hessian_product(*small, ALL), loss.hessian_product(L, M, ALL), rtol=1e-4)


def test_the_derivatives_of_softmax_sum_to_0_over_the_classes() -> None:
    rng = np.random.default_rng(0)
    L = rng.normal(0, 20, (K, P, 200)).astype(np.float32)
    _, derivative = Softmax(rng.integers(0, K, 200), K).value_and_derivative(L, ALL)
    np.testing.assert_allclose(derivative.sum(axis=0), 0.0, atol=1e-6)
