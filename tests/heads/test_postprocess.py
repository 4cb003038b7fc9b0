"""Probabilities that mean what they say, and what is decided by them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from featx.errors import HeadError
from featx.heads import postprocess
from featx.heads.postprocess import (
    KNOTS,
    balanced_weights,
    fit_isotonic,
    fit_postprocess,
    fit_scale,
    fit_sigmoid,
    fit_temperature,
    label_thresholds,
    logit_adjustment,
    smoothed_answers,
    with_promises,
)
from featx.heads.rejection import threshold_for_precision


def scored(count: int, classes: int, *, sure: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose softmax at temperature ``sure`` is the very probability of each class, and labels drawn by it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 2.0, (count, classes))
    y = np.array([rng.choice(classes, p=p) for p in softmax(logits, axis=1)])
    return logits * sure, y


# Temperature


@pytest.mark.parametrize("sure", [0.01, 1.0, 30.0])
def test_the_temperature_is_found_by_which_scores_were_blown_up(sure: float) -> None:
    scores, y = scored(20_000, 4, sure=sure)
    assert fit_temperature(scores, y) == pytest.approx(sure, rel=0.03)
    assert fit_temperature(scores + 100.0 * sure, y) == pytest.approx(fit_temperature(scores, y), rel=1e-4)


def test_the_temperature_has_the_least_loss_to_smoothed_labels() -> None:
    scores, y = scored(40, 3, sure=5.0)
    smoothed = np.where(y[:, None] == np.arange(3), 1 - 1 / 42, 1 / 42 / 2)
    grid = np.exp(np.linspace(-1, 4, 5001))
    losses = [-(smoothed * np.log(softmax(scores / T, axis=1))).sum(axis=1).mean() for T in grid]
    assert fit_temperature(scores, y) == pytest.approx(grid[np.argmin(losses)], rel=2e-3)


def test_the_scale_of_labels_has_the_least_loss_of_sigmoids_to_smoothed_labels_and_of_its_priors() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(-1.0, 2.0, (60, 5))
    y = (rng.random((60, 5)) < expit(logits)).astype(np.float32)
    smoothed = y * (1 - 2 / 62) + 1 / 62
    scores = 7 * (logits + 2.0)

    def loss(T: float, b: float) -> float:
        logits = scores / T - b
        prior = (np.log(T / np.abs(scores).mean()) / 2) ** 2 / 2 + b**2 / 2
        return float(-(smoothed * np.log(expit(logits)) + (1 - smoothed) * np.log(expit(-logits))).mean()) + prior / 60

    T, b = fit_sigmoid(scores, y)
    assert fit_scale(scores, y, "multilabel") == (T, b)
    assert (T, b) == pytest.approx((7.0, 2.0), rel=0.3)
    assert loss(T, b) < min(loss(T * 1.01, b), loss(T / 1.01, b), loss(T, b + 0.01), loss(T, b - 0.01))


def test_the_scale_of_many_labels_is_found_by_which_their_scores_were_moved_and_blown_up() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(-1.0, 2.0, (20_000, 3))
    y = (rng.random(logits.shape) < expit(logits)).astype(np.float32)
    assert fit_sigmoid(7 * (logits + 2.0), y) == pytest.approx((7.0, 2.0), rel=0.03)
    assert fit_sigmoid(1e-4 * (logits + 2.0), y) == pytest.approx((1e-4, 2.0), rel=0.03)


def test_weights_of_the_scale_of_labels_count_rows_as_often() -> None:
    scores, y = scored(200, 3, sure=2.0)
    labels, times = np.eye(3)[y], np.arange(200) % 3
    twice = fit_sigmoid(np.repeat(scores, times, axis=0), np.repeat(labels, times, axis=0))
    assert fit_sigmoid(scores, labels, weight=times) == pytest.approx(twice, rel=2e-2)


def test_weights_of_the_temperature_count_rows_as_often() -> None:
    scores, y = scored(200, 3, sure=2.0)
    times = np.arange(200) % 3
    twice = fit_temperature(np.repeat(scores, times, axis=0), np.repeat(y, times))
    assert fit_temperature(scores, y, weight=times) == pytest.approx(twice, rel=1e-2)
    assert fit_temperature(scores, y, weight=np.full(200, 3.0)) == pytest.approx(fit_temperature(scores, y))
    assert abs(fit_temperature(scores, y) / twice - 1) > 0.02  # or the weights would not show


def test_scores_that_are_always_right_ask_for_no_endless_certainty() -> None:
    y = np.arange(30) % 3
    T = fit_temperature(np.eye(3)[y], y)
    assert 0.9 < softmax(np.eye(3) / T, axis=1).max() < 0.99


@pytest.mark.parametrize("count", [2, 3, 10, 200])
def test_the_certainty_of_scores_that_are_always_right_depends_on_the_rows_not_on_the_classes(count: int) -> None:
    y = np.arange(1000) % count
    T = fit_temperature(np.eye(count)[y], y)
    assert 1 - softmax(np.eye(count) / T, axis=1).max() == pytest.approx(1 / 1002, rel=1e-2)


def test_scores_that_are_all_alike_are_left_as_they_are() -> None:
    assert fit_temperature(np.zeros((2, 2)), np.array([0, 1])) == 1.0
    y = np.tile([1.0, 0.0, 0.0, 0.0], (20, 1))
    T, b = fit_sigmoid(np.zeros((20, 4)), y)
    assert (T, expit(-b)) == pytest.approx((1.0, smoothed_answers(y).mean()), abs=0.05)


def test_labels_that_scores_tell_nothing_about_have_about_the_probability_of_their_share() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((19, 4)) < 0.2).astype(np.float64)
    made = fit_postprocess(-y, y, "multilabel", calibrate="temperature")  # out of fold even worse than chance
    assert made.apply(np.eye(4)).mean() == pytest.approx(smoothed_answers(y).mean(), abs=0.1)
    assert made.temperature < 20


# Isotonic curves


def test_a_curve_is_that_of_scikit_learn_but_for_the_doubt() -> None:
    scores, y = scored(300, 3, sure=3.0)
    p = softmax(scores, axis=1)
    weight = np.random.default_rng(0).random(300)
    for given_weight in (None, weight):
        fitted = fit_isotonic(p, y, weight=given_weight)
        assert fitted.x.shape == fitted.y.shape == (3, KNOTS)
        assert fitted.x.dtype == fitted.y.dtype == np.float64
        other = softmax(scored(100, 3, sure=3.0, seed=1)[0], axis=1)
        curves = [
            IsotonicRegression(out_of_bounds="clip").fit(p[:, c], y == c, given_weight).predict(other[:, c])
            for c in range(3)
        ]
        expected = np.stack(curves, axis=1) * (1 - 1 / 302) + other / 302
        doubted = expected * (1 - 1 / 302) + 1 / 302 / 2
        np.testing.assert_allclose(fitted.apply(other, normalise=False), doubted, atol=1e-12)
        summed = expected / expected.sum(axis=1, keepdims=True) * (1 - 1 / 302) + 1 / 302 / 3
        np.testing.assert_allclose(fitted.apply(other), summed, atol=1e-12)


def test_classes_are_calibrated_nearly_as_by_scikit_learn() -> None:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.frozen import FrozenEstimator

    class Given(ClassifierMixin, BaseEstimator):
        def fit(self, X: np.ndarray, y: np.ndarray) -> Given:
            self.classes_ = np.unique(y)
            return self

        def predict(self, X: np.ndarray) -> np.ndarray:
            return X.argmax(axis=1)

        def predict_proba(self, X: np.ndarray) -> np.ndarray:
            return X

    scores, y = scored(500, 4, sure=4.0)
    p = softmax(scores, axis=1)
    theirs = CalibratedClassifierCV(FrozenEstimator(Given().fit(p, y)), method="isotonic").fit(p, y).predict_proba(p)
    np.testing.assert_allclose(fit_isotonic(p, y).apply(p), theirs, atol=0.01)


def test_calibrated_probabilities_mean_what_they_say_on_other_rows() -> None:
    scores, y = scored(20_000, 3, sure=4.0)
    p = softmax(scores, axis=1)
    calibrated = fit_isotonic(p[:10_000], y[:10_000]).apply(p[10_000:])
    for probabilities, most in ((p[10_000:], np.inf), (calibrated, 0.03)):
        said, told = calibration_curve(y[10_000:] == 0, probabilities[:, 0], n_bins=10, strategy="quantile")
        assert np.abs(said - told).max() < most
    assert log_loss(y[10_000:], calibrated) < log_loss(y[10_000:], p[10_000:]) - 0.2


def test_a_curve_of_many_steps_is_thinned_and_still_rises() -> None:
    rng = np.random.default_rng(0)
    p = rng.random((200_000, 1))
    fitted = fit_isotonic(p, (rng.random((200_000, 1)) < p**2).astype(np.float32))
    assert len(np.unique(fitted.x)) == KNOTS
    assert (np.diff(fitted.x) > 0).all()
    assert (np.diff(fitted.y) >= 0).all()
    grid = np.linspace(0.01, 0.99, 50)[:, None]
    np.testing.assert_allclose(fitted.apply(grid, normalise=False), grid**2, atol=0.03)


def test_rows_that_are_surely_wrong_have_a_finite_loss() -> None:
    p = np.array([[1.0, 0.0], [0.0, 1.0]] * 10)
    fitted = fit_isotonic(p, np.arange(20) % 2)
    doubt = 1 / 22
    np.testing.assert_allclose(fitted.apply(p)[:2], [[1 - doubt / 2, doubt / 2], [doubt / 2, 1 - doubt / 2]])


def test_a_row_that_no_curve_has_anything_for_stays_as_it_was() -> None:
    p = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]] * 5)
    fitted = fit_isotonic(p, np.arange(15) % 3)
    assert (fitted.y[:, 0] == 0).all()
    low = np.array([[0.05, 0.04, 0.03]])
    np.testing.assert_allclose(fitted.apply(low), low / 0.12 * (16 / 17) + 1 / 17 / 3)


def test_a_class_that_no_held_out_row_has_keeps_its_probabilities() -> None:
    p = softmax(scored(100, 3, sure=1.0)[0], axis=1)
    y = np.arange(100) % 2
    fitted = fit_isotonic(p, y)
    np.testing.assert_allclose(fitted.apply(p, normalise=False)[:, 2], p[:, 2], atol=1 / 102)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 5), st.floats(0.1, 50))
def test_whatever_the_rows_calibrated_ones_sum_to_one_and_none_is_zero(
    seed: int, count: int, classes: int, sure: float
) -> None:
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal(0, sure, (count, classes)), axis=1)
    fitted = fit_isotonic(p, rng.integers(0, classes, count))
    q = fitted.apply(softmax(rng.normal(0, sure, (50, classes)), axis=1))
    np.testing.assert_allclose(q.sum(axis=1), 1.0)
    assert (q > 0).all()
    assert (np.diff(fitted.x, axis=1) >= 0).all()
    assert (np.diff(fitted.y, axis=1) >= 0).all()


# Thresholds of labels


def test_each_label_has_the_threshold_of_its_best_f1() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.3], [0.2, 0.4]])
    targets = np.array([[1, 1], [1, 0], [0, 0], [0, 0]], dtype=np.float32)
    # The first: 2 of 2 from 0.8 on. The second: all four, F1 = 0.4; no fewer has its only row.
    np.testing.assert_allclose(label_thresholds(p, targets), [0.6, 0.05])


def f1_of(true: np.ndarray, said: np.ndarray) -> float:
    return float(2 * (said * true).sum() / (said.sum() + true.sum()))


def test_a_label_that_no_row_has_keeps_one_half() -> None:
    assert label_thresholds(np.array([[0.1], [0.9]]), np.zeros((2, 1))).tolist() == [0.5]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_no_other_threshold_has_a_better_f1(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.round(rng.random((count, 1)), 1 if seed % 2 else 8)
    true = (rng.random((count, 1)) < 0.4).astype(np.float32)
    (threshold,) = label_thresholds(p, true)
    if not true.any():
        return
    assert f1_of(true, p >= threshold) == pytest.approx(max(f1_of(true, p >= t) for t in p.ravel()))


# Imbalance


def test_logits_are_adjusted_by_the_log_of_the_prior() -> None:
    prior = np.array([900, 90, 10])
    np.testing.assert_allclose(logit_adjustment(prior, 1.0), np.log([0.9, 0.09, 0.01]))
    np.testing.assert_allclose(logit_adjustment(prior / 1000, 0.5), np.log([0.9, 0.09, 0.01]) / 2)
    assert logit_adjustment(prior, 0.0).tolist() == [0, 0, 0]


def test_adjusted_by_one_the_posterior_is_that_of_equally_frequent_classes() -> None:
    likelihood, prior = np.array([0.2, 0.5, 0.3]), np.array([0.7, 0.2, 0.1])
    adjusted = softmax(np.log(likelihood * prior) - logit_adjustment(prior, 1.0))
    np.testing.assert_allclose(adjusted, likelihood)


def test_an_adjustment_that_means_nothing_is_an_error() -> None:
    with pytest.raises(HeadError, match="tau is -1; logit adjustment takes a number of at least 0"):
        logit_adjustment(np.array([1, 1]), -1.0)
    with pytest.raises(HeadError, match="1 class has no rows; logit adjustment needs some of each"):
        logit_adjustment(np.array([1, 0]), 1.0)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    y = np.repeat([0, 1, 2], [70, 20, 10])
    weights = balanced_weights(y, 3)
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=y))
    assert weights[y].mean() == pytest.approx(1.0)
    with pytest.raises(HeadError, match="1 of 4 classes has no rows"):
        balanced_weights(y, 4)


# All of it together


def test_a_postprocess_without_held_out_rows_changes_nothing_but_the_offset() -> None:
    made = fit_postprocess(
        np.empty((0, 3)), np.empty(0, np.int64), "classification", calibrate="isotonic", reject_below=0.4
    )
    assert (made.temperature, made.isotonic, made.thresholds, made.reject_below) == (1.0, None, None, 0.4)
    scores = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_array_equal(made.apply(scores), postprocess.softmax(scores))
    assert fit_postprocess(np.empty((0, 2)), np.empty((0, 2)), "multilabel").thresholds.tolist() == [0.5, 0.5]
    none = np.empty((0, 3)), np.empty(0, np.int64)
    with pytest.raises(
        HeadError, match=r"no rows could be held out to choose the rejection threshold by; .* --reject-b"
    ):
        with_promises(fit_postprocess(*none, "classification"), *none, target_precision=0.9)


def test_a_postprocess_is_its_parts_one_after_the_other() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 200)
    scores = 5 * (np.eye(3)[y] + rng.normal(size=(200, 3)))
    offset, folds = np.array([0.1, 0.0, -0.2]), np.arange(200) % 4
    made = fit_postprocess(scores, y, "classification", calibrate="isotonic", offset=offset)
    made = with_promises(made, scores, y, target_precision=0.7, folds=folds)
    assert made.temperature == fit_temperature(scores, y)
    p = postprocess.softmax(scores / made.temperature - offset)
    np.testing.assert_array_equal(made.logits(scores), scores / made.temperature - offset)
    weight = np.exp(-0.2 - offset)[y]
    expected = fit_isotonic(p, y, weight=weight).apply(p)
    np.testing.assert_allclose(made.apply(scores), expected, rtol=1e-12)
    unseen = np.empty_like(p)  # of each fold by the curves of the others
    for fold in range(4):
        out, rest = folds == fold, folds != fold
        unseen[out] = fit_isotonic(p[rest], y[rest], weight=weight[rest]).apply(p[out])
    assert made.reject_below == pytest.approx(threshold_for_precision(unseen, y, 0.7).threshold)
    row = expected[expected.max(axis=1).argmin()]
    assert made.decide(row, "abc") is None
    assert made.decide(np.array([0.0, 0.99, 0.01]), "abc") == "b"


def test_numbers_pass_and_labels_are_decided_one_by_one() -> None:
    numbers = fit_postprocess(np.ones((3, 1)), np.ones((3, 1)), "regression", calibrate="temperature")
    assert (numbers.temperature, numbers.decide(numbers.apply(np.array([[7.5]]))[0], ("value",))) == (1.0, 7.5)
    y = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    labels = fit_postprocess(4.0 * y - 2.0, y, "multilabel")
    assert labels.decide(labels.apply(np.array([[1.0, 3.0]]))[0], ("cat", "dog")) == ["dog", "cat"]
    assert labels.decide(labels.apply(np.array([[-2.0, -2.0]]))[0], ("cat", "dog")) == []


@pytest.mark.parametrize("count", [1, 2, 5, 300])
def test_softmax_is_the_quotient_of_exponentials_bit_for_bit(count: int) -> None:
    logits = np.random.default_rng(count).normal(scale=30, size=(50, count))
    logits[3], logits[4, 0], logits[5, -1] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = shifted / shifted.sum(axis=1, keepdims=True)
    assert postprocess.softmax(logits).tobytes() == expected.tobytes()
    assert np.isnan(postprocess.softmax(logits)[3:5]).all()


def test_isotonic_curves_do_not_undo_a_logit_adjustment() -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(3, 3000, p=[0.8, 0.15, 0.05])
    scores = rng.normal(size=(3000, 3)) + 1.5 * np.eye(3)[y] + np.log([0.8, 0.15, 0.05])
    offset = logit_adjustment(np.bincount(y), 1.0)

    def balanced_accuracy(calibrate: str, offset: np.ndarray | None) -> float:
        made = fit_postprocess(scores, y, "classification", calibrate=calibrate, offset=offset)
        right = made.apply(scores).argmax(axis=1) == y
        return float(np.mean([right[y == label].mean() for label in range(3)]))

    assert balanced_accuracy("temperature", offset) > balanced_accuracy("temperature", None) + 0.05
    assert balanced_accuracy("isotonic", offset) == pytest.approx(balanced_accuracy("temperature", offset), abs=0.02)
