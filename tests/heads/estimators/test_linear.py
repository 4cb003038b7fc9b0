"""Logistic regression and the linear support vector machine against scikit-learn's, alone and along a path of C."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import KFold
from sklearn.svm import LinearSVC

from featx.heads import training_data
from featx.heads.estimators import linear
from featx.heads.estimators.linear import C_PATH, PenalisedModel
from featx.heads.predictors import LinearPredictor, NotConvergedWarning
from featx.heads.solver import lbfgs, matrices
from featx.heads.solver.matrices import Rotated
from featx.heads.training_data import Rows, TrainingData, statistics

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # numpy must have nothing to say

CS = (1e-6, 1e-3, 1.0, 1e3, 1e5)
CLOSE = 1e-6
"""How far above scikit-learn's an objective may be, relative to it."""


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
    """Correlated features of classes whose centres are that many deviations apart; weights of mean 1."""
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
    """What is penalised: of two classes, one weight vector, of the second against the first."""
    if len(predictor.weight) == 2:
        return predictor.weight[1:] - predictor.weight[:1], predictor.bias[1:] - predictor.bias[:1]
    return predictor.weight, predictor.bias


def objective(training: TrainingData, W: np.ndarray, b: np.ndarray, C: float) -> float:
    """scikit-learn's, in float64: |W|^2 / 2 + C sum_i w_i loss_i."""
    scores = training.rows.whole(np.float64) @ W.T + b
    if len(W) == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    loss = logsumexp(scores, axis=1) - scores[np.arange(len(scores)), training.y]
    return float(0.5 * (W**2).sum() + C * training.weight @ loss)


def hinge_objective(training: TrainingData, W: np.ndarray, b: np.ndarray, C: float) -> float:
    """LIBLINEAR's: (|W|^2 + |b|^2) / 2 + C sum_i w_i sum_k max(0, 1 - y_ik s_ik)^2."""
    scores = training.rows.whole(np.float64) @ W.T + b
    positive = training.y[:, None] == (np.arange(len(W)) if len(W) > 1 else [1])
    loss = np.maximum(0, 1 - np.where(positive, 1, -1) * scores) ** 2
    return float(0.5 * (W**2).sum() + 0.5 * (b**2).sum() + C * training.weight @ loss.sum(axis=1))


def reference(training: TrainingData, C: float, solver: str = "newton-cg") -> LogisticRegression:
    fit = LogisticRegression(C=C, tol=1e-10, max_iter=100_000, solver=solver)
    return fit.fit(training.rows.whole(np.float64), training.y, training.weight)


@cache
def solved(name: str, C: float, exact: bool) -> tuple[LinearPredictor, float, LogisticRegression]:
    """A head, its gap as it is estimated, and scikit-learn's."""
    with pytest.MonkeyPatch.context() as patch:
        if not exact:
            patch.setattr(matrices, "_SMALL", 0)
        model = PenalisedModel()
        predictor = model.fit(problem(name), C)
    return predictor, float(model.solution_.gap[0]), reference_at(name, C)


@cache
def reference_at(name: str, C: float) -> LogisticRegression:
    return reference(problem(name), C)


@cache
def reference_machine(name: str, C: float) -> LinearSVC:
    training, fit = problem(name), LinearSVC(C=C, loss="squared_hinge", dual=False, tol=1e-12, max_iter=100_000)
    return fit.fit(training.rows.whole(np.float64), training.y, training.weight)


def true_gap(name: str, C: float, exact: bool) -> float:
    training, (predictor, _, best) = problem(name), solved(name, C, exact)
    return objective(training, *single(predictor), C) / objective(training, best.coef_, best.intercept_, C) - 1


def folded(training: TrainingData, folds: int = 3) -> TrainingData:
    split = KFold(folds, shuffle=True, random_state=0).split(np.zeros(len(training)))
    return dataclasses.replace(training, folds=tuple(split))


def log_loss(training: TrainingData, scores: np.ndarray) -> float:
    """Of the rows that have a score."""
    rows = np.flatnonzero(np.isfinite(scores[:, 0]))
    each = -log_softmax(scores[rows], axis=1)[np.arange(len(rows)), training.y[rows]]
    return float(np.average(each, weights=training.weight[rows]))


@pytest.fixture
def to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that solves each problem as exactly as it can."""
    monkeypatch.setattr(linear, "SEARCH_TOL", 1e-12)
    monkeypatch.setattr(linear, "SEARCH_ITERATIONS", 3000)


@EACH_PROBLEM
@EACH_PRECISION
def test_the_objective_is_scikit_learn_s_at_every_c(name: str, exact: bool) -> None:
    gaps = {C: true_gap(name, C, exact) for C in CS}
    assert max(gaps.values()) < CLOSE, gaps


@EACH_PROBLEM
@EACH_PRECISION
def test_the_gap_that_is_said_is_honest(name: str, exact: bool) -> None:
    said = {C: (true_gap(name, C, exact), solved(name, C, exact)[1]) for C in CS}
    assert all(true <= 20 * gap + 1e-9 for true, gap in said.values()), said  # to which the reference itself is exact
    assert all(gap < CLOSE for _, gap in said.values()), said


@pytest.mark.parametrize("name", ["two classes", "five classes, weighted", "three classes, wide"])
@pytest.mark.parametrize("C", [1e-6, 1.0, 1e5])
def test_the_objective_is_that_of_scikit_learn_s_own_solver(name: str, C: float) -> None:
    training, (predictor, _, _) = problem(name), solved(name, C, True)
    best = reference(training, C, "lbfgs")
    found = objective(training, *single(predictor), C)
    assert found < objective(training, best.coef_, best.intercept_, C) * (1 + CLOSE)


@EACH_PROBLEM
@EACH_PRECISION
@pytest.mark.parametrize("C", [1e-6, 1e-3, 1.0])
def test_coefficients_and_probabilities_are_scikit_learn_s(name: str, exact: bool, C: float) -> None:
    training, (predictor, _, best) = problem(name), solved(name, C, exact)
    W, b = single(predictor)
    np.testing.assert_allclose(W, best.coef_, atol=1e-3 * np.abs(best.coef_).max())
    if len(b) > 1:  # of many classes, a number may be added to all intercepts
        b, expected = b - b.mean(), best.intercept_ - best.intercept_.mean()
    else:
        expected = best.intercept_
    np.testing.assert_allclose(b, expected, atol=2e-3)
    Z = training.rows.whole(np.float64)
    np.testing.assert_allclose(softmax(predictor.decision_function(Z), axis=1), best.predict_proba(Z), atol=3e-4)


@EACH_PROBLEM
@pytest.mark.parametrize("C", [1e3, 1e5])
def test_probabilities_are_scikit_learn_s_where_the_penalty_is_weak(name: str, C: float) -> None:
    training, (predictor, _, best) = problem(name), solved(name, C, True)
    Z = training.rows.whole(np.float64)
    np.testing.assert_allclose(softmax(predictor.decision_function(Z), axis=1), best.predict_proba(Z), atol=2e-3)


@pytest.mark.parametrize("C", [1e-3, 1.0])
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_coarse_fit_is_as_exact_as_the_search(name: str, C: float) -> None:
    training = problem(name)
    model = PenalisedModel(coarse=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor = model.fit(training, C)
    assert predictor.weight.dtype == predictor.bias.dtype == np.float64
    exact = PenalisedModel().fit(training, C)
    reached, least = (objective(training, *single(found), C) for found in (predictor, exact))
    assert reached <= least * (1 + 1e-4)
    Z = training.rows.whole(np.float64)
    p, wanted = (softmax(found.decision_function(Z), axis=1) for found in (predictor, exact))
    assert np.abs(p - wanted).mean() < 5e-3


def test_two_classes_have_opposite_weights_and_a_head_is_float64() -> None:
    predictor, _, _ = solved("two classes", 1.0, False)
    np.testing.assert_array_equal(predictor.weight[0], -predictor.weight[1])
    np.testing.assert_array_equal(predictor.bias[0], -predictor.bias[1])
    assert predictor.weight.dtype == predictor.bias.dtype == np.float64
    assert predictor.weight.shape == (2, 20)


def test_class_weights_are_those_of_scikit_learn() -> None:
    training = draw(300, 8, 3, apart=0.3, y=np.minimum(np.arange(300) % 10, 2))
    share = np.bincount(training.y) / 300
    balanced = dataclasses.replace(training, weight=(1 / (3 * share))[training.y])
    fit = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000, class_weight="balanced")
    fit.fit(training.rows.whole(np.float64), training.y)
    np.testing.assert_allclose(PenalisedModel().fit(balanced, 0.5).weight, fit.coef_, atol=1e-4)


@pytest.mark.parametrize("C", [1e-6, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize(
    "name",
    [
        "two classes", "two classes, separable, weighted", "five classes, weighted", "four classes, far apart",
        "three classes, wide", "a class of one row",
    ],
)  # fmt: skip
@EACH_PRECISION
def test_the_support_vector_machine_is_scikit_learn_s(
    name: str, C: float, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = problem(name)
    if not exact:
        monkeypatch.setattr(matrices, "_SMALL", 0)
    model = PenalisedModel(hinge=True)
    W, b = single(model.fit(training, C))
    best = reference_machine(name, C)
    expected = hinge_objective(training, best.coef_, best.intercept_, C)
    true = hinge_objective(training, W, b, C) / expected - 1
    assert true < CLOSE
    # LIBLINEAR itself is exact to 1e-9; a Newton step measures a hinge as if no row would change sides.
    assert true <= 20 * model.solution_.gap[0] + (1e-9 if exact else CLOSE)
    largest = np.abs(best.coef_).max()
    np.testing.assert_allclose(W, best.coef_, atol=2e-3 * largest)
    np.testing.assert_allclose(b, best.intercept_, atol=2e-3 * max(largest, np.abs(best.intercept_).max()))


@pytest.mark.parametrize(("n", "dim"), [(200, 12), (40, 90)])
@pytest.mark.parametrize("C", [1e-6, 1e-2, 10.0])
@EACH_PRECISION
def test_labels_are_fitted_one_by_one(n: int, dim: int, C: float, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exact:
        monkeypatch.setattr(matrices, "_SMALL", 0)
    training = draw(n, dim, 4, apart=0.0, task="multilabel", weighted=True)
    predictor = PenalisedModel().fit(training, C)
    assert predictor.weight.shape == (4, dim)
    for label in range(4):
        alone = dataclasses.replace(training, y=training.y[:, label].astype(np.int64), count=2, task="classification")
        best = reference(alone, C)
        found = objective(alone, predictor.weight[[label]], predictor.bias[[label]], C)
        assert found < objective(alone, best.coef_, best.intercept_, C) * (1 + CLOSE)
        np.testing.assert_allclose(predictor.weight[label], best.coef_[0], atol=2e-3 * np.abs(best.coef_).max())


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize(("n", "dim"), [(40, 90), (90, 40)])
@pytest.mark.parametrize("C", [1.0, 1e5])
def test_columns_that_are_nearly_copies_are_told_apart_where_the_penalty_allows(
    noise: float, n: int, dim: int, C: float
) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 1)) + noise * rng.normal(size=(n, dim))
    mean, scale = statistics(X)
    training = TrainingData(Rows(X, mean=mean, scale=scale), rng.integers(0, 2, n), 2, "classification", np.ones(n))
    best = reference(training, C)
    found = objective(training, *single(PenalisedModel().fit(training, C)), C)
    assert found < objective(training, best.coef_, best.intercept_, C) * (1 + CLOSE)


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("kind", ["a row far out", "heavy tails", "weights of all sizes"])
def test_awkward_features_and_weights_are_fitted_as_exactly(kind: str, C: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_cauchy((300, 20)) if kind == "heavy tails" else rng.normal(size=(300, 20))
    X[0] *= 1e4 if kind == "a row far out" else 1
    weight = 10 ** rng.uniform(-6, 2, 300) if kind == "weights of all sizes" else np.ones(300)
    mean, scale = statistics(X)
    training = TrainingData(Rows(X, mean=mean, scale=scale), rng.integers(0, 3, 300), 3, "classification", weight)
    best = reference(training, C)
    found = objective(training, *single(PenalisedModel().fit(training, C)), C)
    assert found < objective(training, best.coef_, best.intercept_, C) * (1 + CLOSE)


@pytest.mark.parametrize("hinge", [False, True])
@pytest.mark.parametrize(("n", "dim"), [(60, 8), (20, 40)])
def test_rows_of_weight_0_are_as_if_they_were_not_there(hinge: bool, n: int, dim: int, to_the_end: None) -> None:
    training = folded(draw(n, dim, 3, apart=0.3, weighted=True, y=np.arange(n) % 3))
    training.weight[::4] = 0.0
    kept = np.flatnonzero(training.weight)
    place = np.cumsum(training.weight > 0) - 1
    few = dataclasses.replace(
        training.take(kept),
        folds=tuple((place[np.intersect1d(a, kept)], place[np.intersect1d(b, kept)]) for a, b in training.folds),
    )
    one, other = (PenalisedModel(hinge=hinge).fit(t, 0.1) for t in (training, few))
    np.testing.assert_allclose(one.weight, other.weight, atol=2e-4)
    one, other = (dict(PenalisedModel(hinge=hinge).cross_val_scores(t, (0.1,)))[0.1] for t in (training, few))
    np.testing.assert_allclose(one[kept], other, atol=1e-4)


def test_a_weight_of_2_is_a_row_twice() -> None:
    training = draw(60, 8, 3, apart=0.3)
    times = 1 + np.arange(60) % 2
    heavy = dataclasses.replace(training, weight=times.astype(np.float64))
    one, other = (
        PenalisedModel().fit(heavy, 1.0),
        PenalisedModel().fit(training.take(np.repeat(np.arange(60), times)), 1.0),
    )
    np.testing.assert_allclose(one.weight, other.weight, atol=1e-3)


def reference_path(training: TrainingData, C: float) -> np.ndarray:
    """(N, C) scores by scikit-learn's fits to the other folds."""
    Z, out = training.rows.whole(np.float64), np.full((len(training), training.count), np.nan)
    for train, test in training.folds:
        fit = LogisticRegression(C=C, tol=1e-9, max_iter=10_000, solver="newton-cg")
        scores = fit.fit(Z[train], training.y[train], training.weight[train]).decision_function(Z[test])
        out[test] = np.stack([-scores / 2, scores / 2], axis=1) if scores.ndim == 1 else scores
    return out


@pytest.mark.parametrize(
    "name", ["two classes", "five classes, weighted", "two classes, wide, weighted", "three classes, wide"]
)
@EACH_PRECISION
def test_held_out_scores_are_those_of_scikit_learn_s_fits_to_the_other_folds(
    name: str, exact: bool, to_the_end: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = folded(problem(name))
    if not exact:
        monkeypatch.setattr(matrices, "_SMALL", 0)
        monkeypatch.setattr(linear, "SEARCH_TOL", 1e-8)  # float32 sees no smaller gap
    for C, scores in PenalisedModel().cross_val_scores(training, (1e-6, 1e-2, 1.0, 100.0)):
        expected = reference_path(training, C)
        assert scores.shape == expected.shape
        assert scores.dtype == np.float64
        probabilities = softmax(scores, axis=1)
        np.testing.assert_allclose(probabilities, softmax(expected, axis=1), atol=1e-4 if exact else 5e-3)
        assert log_loss(training, scores) == pytest.approx(log_loss(training, expected), rel=1e-4 if exact else 5e-3)


@pytest.mark.parametrize("name", ["five classes, weighted", "three classes, wide", "a class of one row"])
def test_held_out_machines_are_scikit_learn_s(name: str, to_the_end: None) -> None:
    training = folded(problem(name))
    if name == "a class of one row":  # which every fit has
        folds = tuple((np.union1d(train, [7]), np.setdiff1d(test, [7])) for train, test in training.folds)
        training = dataclasses.replace(training, folds=folds)
    Z = training.rows.whole(np.float64)
    for C, scores in PenalisedModel(hinge=True).cross_val_scores(training, (1e-4, 0.1)):
        for train, test in training.folds:
            fit = LinearSVC(C=C, dual=False, tol=1e-12, max_iter=100_000)
            fit.fit(Z[train], training.y[train], training.weight[train])
            np.testing.assert_allclose(scores[test], fit.decision_function(Z[test]), atol=1e-3)


@pytest.mark.parametrize("name", ["two classes", "five classes, weighted", "two classes, wide, weighted"])
def test_a_search_of_the_whole_path_is_close_to_the_exact_one_and_closest_near_its_best(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = folded(noisy(problem(name)), 5)
    found = [log_loss(training, scores) for _, scores in PenalisedModel().cross_val_scores(training, C_PATH)]
    monkeypatch.setattr(linear, "SEARCH_TOL", 1e-10)
    monkeypatch.setattr(linear, "SEARCH_ITERATIONS", 3000)
    exact = [log_loss(training, scores) for _, scores in PenalisedModel().cross_val_scores(training, C_PATH)]
    best = int(np.argmin(exact))
    assert 0 < best < 44
    near = slice(max(0, best - 3), best + 4)
    np.testing.assert_allclose(found[near], exact[near], rtol=5e-3)
    np.testing.assert_allclose(found, exact, rtol=0.05)
    assert exact[int(np.argmin(found))] <= exact[best] + 1e-4


def noisy(training: TrainingData) -> TrainingData:
    """A fifth of its labels at random, so that some penalty is best."""
    rng = np.random.default_rng(1)
    y = np.where(rng.random(len(training)) < 0.2, rng.integers(0, training.count, len(training)), training.y)
    return dataclasses.replace(training, y=y, weight=np.ones(len(training)))


@pytest.mark.parametrize("name", ["two classes", "five classes, weighted", "three classes, wide"])
def test_the_chosen_c_is_that_of_logistic_regression_cv(name: str) -> None:
    training = folded(noisy(problem(name)), 5)
    grid = C_PATH[14:37:2]
    losses = [log_loss(training, scores) for _, scores in PenalisedModel().cross_val_scores(training, grid)]
    known = inspect.signature(LogisticRegressionCV).parameters
    options = {"l1_ratios": (0.0,), "use_legacy_attributes": False} if "use_legacy_attributes" in known else {}
    search = LogisticRegressionCV(
        Cs=grid, cv=training.folds, scoring="neg_log_loss", tol=1e-8, max_iter=10_000, **options
    )
    search.fit(training.rows.whole(np.float64), training.y)
    assert grid[int(np.argmin(losses))] == np.ravel(search.C_)[0]


def test_rows_that_no_fold_holds_out_have_no_score() -> None:
    training = folded(problem("five classes, weighted"))
    always = np.arange(10)
    folds = tuple((np.union1d(train, always), np.setdiff1d(test, always)) for train, test in training.folds)
    ((_, scores),) = PenalisedModel().cross_val_scores(dataclasses.replace(training, folds=folds), (0.1,))
    assert np.isnan(scores[always]).all()
    assert np.isfinite(scores[10:]).all()


WAYS: dict[str, Callable[[PenalisedModel, TrainingData, tuple[float, ...]], dict[float, np.ndarray]]] = {
    "one by one": lambda model, training, path: {
        C: scores for wanted in path for C, scores in model.cross_val_scores(training, (wanted,))
    },
    "by new models": lambda model, training, path: {
        C: scores for wanted in path for C, scores in PenalisedModel().cross_val_scores(training, (wanted,))
    },
    "in two calls": lambda model, training, path: {
        **dict(model.cross_val_scores(training, path[:3])),
        **dict(model.cross_val_scores(training, path[3:])),
    },
    "beyond the lower end": lambda model, training, path: {
        **dict(model.cross_val_scores(training, path[3:])),
        **dict(model.cross_val_scores(training, path[:3])),
    },
    "downwards": lambda model, training, path: dict(model.cross_val_scores(training, path[::-1])),
    "the same twice": lambda model, training, path: dict(
        [*model.cross_val_scores(training, path), *model.cross_val_scores(training, path)]
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["five classes, weighted", "two classes, wide, weighted"])
def test_neither_the_start_nor_the_order_changes_held_out_scores(
    way: str, name: str, to_the_end: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, path = folded(noisy(problem(name))), (1e-5, 1e-3, 0.1, 0.3, 1.0, 1e2)
    expected = dict(PenalisedModel().cross_val_scores(training, path))
    monkeypatch.setattr(linear, "COLUMNS", 30)  # two at once, or ten
    found = WAYS[way](PenalisedModel(), training, path)
    assert sorted(found) == sorted(path)
    for C in path:
        np.testing.assert_allclose(softmax(found[C], axis=1), softmax(expected[C], axis=1), atol=1e-4)


def test_candidates_come_in_the_order_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "COLUMNS", 30)  # two at once
    training, path = folded(problem("five classes, weighted")), (1.0, 0.1, 3.0, 0.1)
    assert [C for C, _ in PenalisedModel().cross_val_scores(training, path)] == list(path)


@pytest.mark.parametrize(("setting", "value"), [("COLUMNS", 1), ("COLUMNS", 31), ("SCORES", 1), ("SCORES", 13_000)])
def test_how_many_are_solved_together_changes_no_score(
    setting: str, value: int, to_the_end: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, path = folded(noisy(problem("five classes, weighted"))), C_PATH[4:32:6]
    expected = dict(PenalisedModel().cross_val_scores(training, path))
    monkeypatch.setattr(linear, setting, value)
    for C, scores in PenalisedModel().cross_val_scores(training, path):
        np.testing.assert_allclose(softmax(scores, axis=1), softmax(expected[C], axis=1), atol=1e-4)


def test_threads_change_no_score(to_the_end: None, monkeypatch: pytest.MonkeyPatch) -> None:
    training = folded(noisy(problem("five classes, weighted")))
    expected = dict(PenalisedModel().cross_val_scores(training, (1e-3, 1.0)))
    monkeypatch.setattr(lbfgs, "BLOCK", 1)
    for C, scores in PenalisedModel().cross_val_scores(training, (1e-3, 1.0)):
        np.testing.assert_allclose(scores, expected[C], atol=1e-3)


@pytest.mark.parametrize("name", ["five classes, weighted", "three classes, wide"])
@EACH_PRECISION
def test_a_search_and_a_fit_repeat_bit_for_bit(name: str, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lbfgs, "BLOCK", 2000)  # several threads
    if not exact:
        monkeypatch.setattr(matrices, "_SMALL", 0)
    training = folded(problem(name))

    def run() -> list[np.ndarray]:
        model = PenalisedModel()
        scores = [scores for _, scores in model.cross_val_scores(training, C_PATH[10:30:4])]
        predictor = model.fit(training, C_PATH[22])
        return [*scores, predictor.weight, predictor.bias]

    for one, other in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(one, other)


@EACH_PRECISION
def test_a_fit_after_a_search_is_the_fit_without_one(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exact:
        monkeypatch.setattr(matrices, "_SMALL", 0)
    training = folded(problem("five classes, weighted"))
    model, path = PenalisedModel(), (0.01, 1.0, 100.0)
    list(model.cross_val_scores(training, path))
    for C in (1.0, 0.5):  # of the path, and not of it
        predictor, alone = model.fit(training, C), PenalisedModel().fit(training, C)
        np.testing.assert_allclose(predictor.weight, alone.weight, atol=2e-3)
        assert objective(training, *single(predictor), C) < objective(training, *single(alone), C) * (1 + 1e-7)


def test_another_training_is_not_mistaken_for_the_last(to_the_end: None) -> None:
    model, one, other = PenalisedModel(), folded(problem("two classes")), folded(problem("five classes, weighted"))
    list(model.cross_val_scores(one, (0.1, 1.0)))
    model.fit(one, 1.0)
    ((_, scores),) = model.cross_val_scores(other, (0.1,))
    ((_, expected),) = PenalisedModel().cross_val_scores(other, (0.1,))
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_array_equal(model.fit(other, 2.0).weight, PenalisedModel().fit(other, 2.0).weight)


def test_a_fit_that_ends_early_says_so_with_its_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lbfgs.minimise.__kwdefaults__, "most_iterations", 2)
    monkeypatch.setattr(linear, "NEWTON_STEPS", 1)
    training, model = problem("five classes, weighted"), PenalisedModel()
    with pytest.warns(
        NotConvergedWarning, match=r"at C=1000 the optimum was not reached: the objective may still fall"
    ):
        predictor = model.fit(training, 1e3)
    best = reference_at("five classes, weighted", 1e3)
    true = objective(training, *single(predictor), 1e3) / objective(training, best.coef_, best.intercept_, 1e3) - 1
    assert 1e-5 < true <= 20 * model.solution_.gap[0]


def test_a_search_that_ends_early_says_from_which_c_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "SEARCH_ITERATIONS", 6)
    training = folded(problem("five classes, weighted"))
    with pytest.warns(NotConvergedWarning, match=r"\d of 9 fits of the search, from C=.*0 on, had not converged"):
        list(PenalisedModel().cross_val_scores(training, (1e-6, 100.0, 10_000.0)))


def test_what_converges_is_fitted_without_a_warning() -> None:
    training = folded(problem("five classes, weighted"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = PenalisedModel()
        list(model.cross_val_scores(training, C_PATH[::4]))
        for C in CS:
            model.fit(training, C)


@pytest.mark.parametrize("hinge", [False, True])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("C", [1e-6, 1.0, 1e5])
def test_classes_without_rows_leave_finite_scores(hinge: bool, count: int, C: float) -> None:
    training = draw(60, 5, count, apart=0.5)
    y = np.where(training.y == count - 1, 0, training.y)
    training = folded(dataclasses.replace(training, y=y))
    model = PenalisedModel(hinge=hinge)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # the intercept of what never happens has no optimum
        ((_, scores),) = model.cross_val_scores(training, (C,))
        predictor = model.fit(training, C)
    assert np.isfinite(scores).all()
    assert np.isfinite(predictor.weight).all()
    assert np.isfinite(predictor.bias).all()
    assert (scores.argmax(axis=1) != count - 1).all()


@pytest.mark.parametrize("C", [1e-6, 1.0, 1e5])
def test_a_label_that_a_fold_never_sees_spoils_no_other(C: float, to_the_end: None) -> None:
    training = folded(draw(90, 6, 3, apart=0.0, task="multilabel"))
    training.y[:, 1] = 0.0
    training.y[training.folds[0][1][0], 1] = 1.0  # held out, it is unknown
    both = dataclasses.replace(training, y=training.y[:, [0, 2]], count=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        ((_, scores),) = PenalisedModel().cross_val_scores(training, (C,))
        ((_, expected),) = PenalisedModel().cross_val_scores(both, (C,))
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores[:, [0, 2]], expected, atol=2e-2 * np.abs(expected).max())


@pytest.mark.parametrize("hinge", [False, True])
@pytest.mark.parametrize("C", [1e-6, 1.0, 1e5])
def test_features_without_information_give_the_classes_shares(hinge: bool, C: float) -> None:
    y = np.repeat([0, 1, 2], [10, 20, 30])
    training = TrainingData(Rows(np.zeros((60, 4))), y, 3, "classification", np.ones(60))
    predictor = PenalisedModel(hinge=hinge).fit(training, C)
    np.testing.assert_array_equal(predictor.weight, 0.0)
    if not hinge:
        np.testing.assert_allclose(softmax(predictor.bias), [1 / 6, 1 / 3, 1 / 2], rtol=1e-3)


@pytest.mark.parametrize("hinge", [False, True])
@pytest.mark.parametrize(("n", "dim"), [(300, 10), (40, 90)])
def test_rows_that_do_not_fit_in_memory_are_fitted_from_their_file(
    hinge: bool, n: int, dim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = draw(n, dim, 3, apart=0.3, dtype=np.float16, weighted=True)
    expected = PenalisedModel(hinge=hinge).fit(training, 1.0)
    training.rows.features.tofile(tmp_path / "features")
    training.rows.features = np.memmap(tmp_path / "features", np.float16, "r", shape=(n, dim))
    monkeypatch.setattr(training_data, "MOST_IN_MEMORY", 0)
    monkeypatch.setitem(Rows.blocks.__kwdefaults__, "most", 2000)
    found = PenalisedModel(hinge=hinge).fit(training, 1.0)
    np.testing.assert_allclose(found.weight, expected.weight, atol=2e-3)
    np.testing.assert_allclose(found.bias, expected.bias, atol=2e-3)


@pytest.mark.parametrize(("n", "dim"), [(60, 10), (30, 50)])
def test_matrices_too_large_to_rotate_are_fitted_as_they_are(
    n: int, dim: int, to_the_end: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = folded(draw(n, dim, 3, apart=0.3))
    expected, scores = (
        PenalisedModel().fit(training, 1.0),
        dict(PenalisedModel().cross_val_scores(training, (1.0,)))[1.0],
    )
    monkeypatch.setattr(matrices, "_MOST_ROTATED", 5)
    assert Rotated.of(training.rows).basis is None
    np.testing.assert_allclose(PenalisedModel().fit(training, 1.0).weight, expected.weight, atol=1e-3)
    ((_, found),) = PenalisedModel().cross_val_scores(training, (1.0,))
    np.testing.assert_allclose(found, scores, atol=1e-3)


def test_the_path_is_45_values_of_c_from_1e_minus_6_to_1e5() -> None:
    assert len(PenalisedModel.candidates) == 45
    np.testing.assert_allclose(PenalisedModel.candidates, np.logspace(-6, 5, 45), rtol=1e-5)


@pytest.mark.parametrize("hinge", [False, True])
@pytest.mark.parametrize("unjudged", [0, 30])
@EACH_PRECISION
def test_skipping_the_rows_that_a_fold_holds_out_changes_nothing(
    hinge: bool, unjudged: int, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exact:
        monkeypatch.setattr(matrices, "_SMALL", 0)
    monkeypatch.setattr(matrices._Blockwise, "most", 1)  # many blocks
    training = draw(400, 12, 3, apart=0.3, weighted=True)
    parts = KFold(3, shuffle=True, random_state=0).split(np.zeros(400 - unjudged))  # the last rows no fold holds out
    rest = np.arange(400 - unjudged, 400)
    training = dataclasses.replace(
        training, folds=tuple((np.concatenate([train, rest]), held_out) for train, held_out in parts)
    )
    found = []
    for skipped in (10**9, 1):
        monkeypatch.setattr(linear, "_SKIPPED", skipped)
        model = PenalisedModel(hinge=hinge)
        scores = dict(model.cross_val_scores(training, (1e-3, 0.1, 1.0)))
        found.append((scores, model.fit(training, 0.1)))
    (scores, predictor), (skipped_scores, skipped_scorer) = found
    for C, expected in scores.items():
        assert np.isnan(expected[400 - unjudged :]).all()
        np.testing.assert_allclose(skipped_scores[C], expected, atol=2e-2)
    np.testing.assert_allclose(skipped_scorer.weight, predictor.weight, atol=1e-4)
    np.testing.assert_allclose(skipped_scorer.bias, predictor.bias, atol=1e-4)
