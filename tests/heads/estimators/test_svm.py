"""Support vector machines on a shared kernel matrix, against those of scikit-learn on the rows."""

from __future__ import annotations

import dataclasses
import functools
import warnings

import numpy as np
import pytest
from sklearn.model_selection import KFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC, SVR

from featx.errors import HeadError
from featx.heads.estimators import svm
from featx.heads.estimators.svm import KernelSvmEstimator, LinearSvrEstimator
from featx.heads.predictors import NotConvergedWarning
from featx.heads.solver import interior_point
from featx.heads.training_data import Rows, TrainingData, statistics

SHAPES = pytest.mark.parametrize(("n", "dim"), [(90, 7), (30, 60)], ids=["tall", "wide"])
STRENGTHS = pytest.mark.parametrize("C", [0.1, 10.0])


@pytest.fixture(autouse=True)
def _exact_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the tolerance of scikit-learn's machines, which by default stop within 1e-3 of their optimum."""
    monkeypatch.setattr(svm, "SVC", functools.partial(SVC, tol=1e-8))
    monkeypatch.setattr(svm, "SVR", functools.partial(SVR, tol=1e-8))
    monkeypatch.setattr(svm, "MAX_STEPS", 10_000_000)


def draw(n: int, dim: int, *, task: str = "classification", count: int = 3) -> TrainingData:
    """Draw overlapping classes, labels or targets; weights from 0.2 to 2."""
    rng = np.random.default_rng(n * dim + count)
    X = rng.normal(size=(n, dim)) * 3 + 1
    if task == "classification":
        y = np.arange(n) % count
        X[np.arange(n), y] += 3
    elif task == "multilabel":
        y = (X[:, :count] + rng.normal(size=(n, count)) > 1).astype(np.float32)
    else:
        y = 500 + 30 * np.sin(X[:, :1]) + rng.normal(size=(n, count))
    X = X.astype(np.float32)
    mean, scale = statistics(X)
    folds = tuple(KFold(3, shuffle=True, random_state=0).split(X))
    return TrainingData(Rows(X, mean=mean, scale=scale), y, count, task, rng.uniform(0.2, 2, n), folds)


def gamma(training: TrainingData) -> float:
    return 1 / (training.rows.width * training.rows.whole(np.float64).var())


def reference(training: TrainingData, train: np.ndarray, C: float, *, kind: str = "rbf") -> np.ndarray:
    """Score all rows by scikit-learn's machines, fitted to training rows: (N, C)."""
    Z, weight, y = training.rows.whole(np.float64), training.weight[train], training.y[train]
    options = {"C": C, "kernel": kind, "gamma": gamma(training), "tol": 1e-8}
    if training.task == "regression":
        mean = np.average(y, axis=0, weights=weight)
        deviation = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weight))
        fits = [SVR(**options).fit(Z[train], column, weight) for column in ((y - mean) / deviation).T]
        return np.stack([fit.predict(Z) for fit in fits], axis=1) * deviation + mean
    labels = (y[:, None] == np.arange(training.count)) if training.task == "classification" else y > 0
    return np.stack([SVC(**options).fit(Z[train], has, weight).decision_function(Z) for has in labels.T], axis=1)


@SHAPES
@STRENGTHS
@pytest.mark.parametrize(("task", "count"), [("classification", 4), ("multilabel", 3), ("regression", 2)])
def test_a_fit_has_the_scores_of_scikit_learn(n: int, dim: int, C: float, task: str, count: int) -> None:
    training = draw(n, dim, task=task, count=count)
    predictor = KernelSvmEstimator().fit(training, C)
    expected = reference(training, np.arange(n), C)
    np.testing.assert_allclose(
        predictor.decision_function(training.rows.whole()), expected, atol=1e-4 * max(1.0, expected.std())
    )
    assert predictor.support.dtype == np.float32
    assert predictor.dual.shape == (count, len(predictor.support))
    assert float(predictor.gamma) == pytest.approx(gamma(training))


@SHAPES
@STRENGTHS
def test_two_classes_have_one_machine_whose_score_is_the_difference(n: int, dim: int, C: float) -> None:
    training = draw(n, dim, count=2)
    Z = training.rows.whole(np.float64)
    machine = OneVsRestClassifier(SVC(C=C, gamma="scale", tol=1e-8)).fit(Z, training.y)
    training.weight[:] = 1
    scores = KernelSvmEstimator().fit(training, C).decision_function(Z)
    np.testing.assert_allclose(scores[:, 1] - scores[:, 0], machine.decision_function(Z), atol=1e-4)
    np.testing.assert_array_equal(scores[:, 0], -scores[:, 1])


@SHAPES
@pytest.mark.parametrize(("task", "count"), [("classification", 4), ("multilabel", 3), ("regression", 1)])
def test_held_out_rows_are_scored_by_machines_for_the_other_folds(n: int, dim: int, task: str, count: int) -> None:
    training = draw(n, dim, task=task, count=count)
    actual = dict(KernelSvmEstimator().cross_val_scores(training, (0.1, 10.0)))
    assert tuple(actual) == (0.1, 10.0)
    for C, scores in actual.items():
        expected = np.empty_like(scores)
        for train, test in training.folds:
            expected[test] = reference(training, train, C)[test]
        np.testing.assert_allclose(scores, expected, atol=1e-4 * max(1.0, expected.std()))


@SHAPES
@STRENGTHS
def test_regression_without_a_kernel_gives_a_linear_predictor(n: int, dim: int, C: float) -> None:
    """scikit-learn's scores are accurate to a few 1e-4 deviations; ours have a smaller objective (below)."""
    training = draw(n, dim, task="regression", count=2)
    Z, everything = training.rows.whole(np.float64), np.arange(n)
    predictor = LinearSvrEstimator().fit(training, C)
    expected = reference(training, everything, C, kind="linear")
    np.testing.assert_allclose(predictor.decision_function(Z), expected, atol=5e-4 * expected.std())
    ((_, scores),) = LinearSvrEstimator().cross_val_scores(training, (C,))
    train, test = training.folds[1]
    np.testing.assert_allclose(
        scores[test], reference(training, train, C, kind="linear")[test], atol=5e-4 * expected.std()
    )


def test_the_kernel_matrix_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.metrics.pairwise import rbf_kernel

    monkeypatch.setattr(svm, "_BLOCK", 7)
    rows = draw(90, 60).rows
    np.testing.assert_allclose(svm._rbf_kernel(rows, 0.01), rbf_kernel(rows.whole(np.float64), gamma=0.01), atol=1e-12)


def test_rows_of_weight_0_are_scored_and_change_nothing() -> None:
    training = draw(90, 7, count=3)
    training.weight[training.y == 1] = 0.0
    ((_, scores),) = KernelSvmEstimator().cross_val_scores(training, (1.0,))
    np.testing.assert_array_equal(scores[:, 1], -1.0)  # a class without rows
    train, test = training.folds[0]
    used = train[training.weight[train] > 0]
    binary = dataclasses.replace(training, y=np.where(training.y == 0, 0, 1), count=2)
    expected = reference(binary, used, 1.0)
    np.testing.assert_allclose(scores[test][:, 0], expected[test][:, 0], atol=1e-4)


def test_rows_of_one_class_give_constant_scores_and_a_support_of_one_row() -> None:
    training = draw(30, 7, task="multilabel", count=2)
    training.y[:] = (1, 0)
    predictor = KernelSvmEstimator().fit(training, 1.0)
    assert len(predictor.support) == 1
    np.testing.assert_array_equal(predictor.decision_function(training.rows.whole()), np.tile([1.0, -1.0], (30, 1)))


def test_constant_features_and_targets_give_finite_scores() -> None:
    training = TrainingData(Rows(np.zeros((12, 3))), np.full((12, 1), 7.0), 1, "regression", np.ones(12))
    np.testing.assert_allclose(KernelSvmEstimator().fit(training, 1.0).decision_function(np.ones((2, 3))), 7.0)


def test_the_most_regularised_candidate_comes_first() -> None:
    assert KernelSvmEstimator().candidates == (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0) == LinearSvrEstimator().candidates


def test_too_many_rows_for_a_kernel_matrix_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "MAX_ROWS", 29)
    with pytest.raises(HeadError, match=r"30 rows are too many .* at most 29 rows; --model svm --kernel linear"):
        KernelSvmEstimator().fit(draw(30, 7), 1.0)
    with pytest.raises(HeadError, match=r"for support vector regression: .* --model ridge takes more"):
        LinearSvrEstimator().cross_val_scores(draw(30, 7, task="regression"), (1.0,))


def test_rows_of_weight_0_alone_are_refused() -> None:
    training = draw(30, 7)
    training.weight[:] = 0.0
    with pytest.raises(HeadError, match="no row of weight above 0 is left to fit to"):
        KernelSvmEstimator().fit(training, 1.0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (KernelSvmEstimator, r"at C=1e\+06 the optimum was not reached in 200 steps; a smaller C needs"),
        (LinearSvrEstimator, r"at C=1e\+06 the optimum was not reached: the objective may still fall by"),
    ],
)
def test_a_machine_that_does_not_converge_is_stopped_with_a_warning(
    kind: type[KernelSvmEstimator | LinearSvrEstimator], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a large C and more rows than dimensions, libsvm without a limit runs for hours."""
    monkeypatch.setattr(svm, "MAX_STEPS", 200)
    monkeypatch.setattr(svm, "MAX_STEPS_PER_ROW", 1)
    monkeypatch.setattr(interior_point, "MAX_STEPS", 3)
    training = draw(90, 2, task="regression", count=1)
    with pytest.warns(NotConvergedWarning, match=message):
        predictor = kind().fit(training, 1e6)
    assert np.isfinite(predictor.decision_function(training.rows.whole())).all()
    with pytest.warns(NotConvergedWarning, match=r"\d of 6 fits of the search, from C=\S+ on, had not converged; th"):
        dict(kind().cross_val_scores(training, (1e-4, 1e6)))
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind().fit(training, 1e-4)


@pytest.mark.parametrize(("n", "dim"), [(90, 7), (30, 60), (107, 768)])
@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3, 1e6])
def test_regression_without_a_kernel_converges_at_every_c(n: int, dim: int, C: float) -> None:
    training = draw(n, dim, task="regression", count=1)
    Z, y, weight = training.rows.whole(np.float64), training.y[:, 0], training.weight
    y = (y - np.average(y, weights=weight)) / np.sqrt(np.cov(y, aweights=weight, ddof=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = LinearSvrEstimator().fit(dataclasses.replace(training, y=y[:, None]), C)

    def objective(w: np.ndarray, b: float) -> float:
        return float(0.5 * w @ w + C * weight @ np.maximum(0, np.abs(y - Z @ w - b) - 0.1))

    reached = objective(fitted.weight[0], fitted.bias[0])
    machine = SVR(C=C, kernel="linear", tol=1e-6, max_iter=200_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        machine.fit(Z, y, weight)
    assert reached <= objective(machine.coef_[0], machine.intercept_[0]) * (1 + 1e-6)
    rng = np.random.default_rng(0)
    for size in (1e-4, 1e-2, 1.0):  # the objective is convex: no lower point nearby, no lower point at all
        d, c = rng.normal(size=dim) * np.abs(fitted.weight).max() * size, rng.normal() * size
        assert objective(fitted.weight[0] + d, fitted.bias[0] + c) >= reached * (1 - 1e-9)
