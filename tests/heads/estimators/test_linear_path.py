"""The search along a path of C of logistic regression and the linear SVM, against scikit-learn."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from linear_training import CS, EACH_PRECISION, draw, folded, log_loss, noisy, objective, problem, single
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import KFold
from sklearn.svm import LinearSVC

from featx.heads.estimators import linear
from featx.heads.estimators.linear import C_PATH, LinearPathEstimator
from featx.heads.predictors import NotConvergedWarning
from featx.heads.solver import blockwise, matrices
from featx.heads.training_data import TrainingData

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # numpy must not warn


def reference_path(training: TrainingData, C: float) -> np.ndarray:
    """Score held-out rows by fits of scikit-learn to the other folds: (N, C)."""
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
def test_held_out_scores_are_those_of_fits_of_scikit_learn_to_the_other_folds(
    name: str, exact: bool, exact_search: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = folded(problem(name))
    if not exact:
        monkeypatch.setattr(matrices, "_SMALL", 0)
        monkeypatch.setattr(linear, "SEARCH_TOL", 1e-8)  # the smallest gap that float32 can resolve
    for C, scores in LinearPathEstimator().cross_val_scores(training, (1e-6, 1e-2, 1.0, 100.0)):
        expected = reference_path(training, C)
        assert scores.shape == expected.shape
        assert scores.dtype == np.float64
        probabilities = softmax(scores, axis=1)
        np.testing.assert_allclose(probabilities, softmax(expected, axis=1), atol=1e-4 if exact else 5e-3)
        assert log_loss(training, scores) == pytest.approx(log_loss(training, expected), rel=1e-4 if exact else 5e-3)


@pytest.mark.parametrize("name", ["five classes, weighted", "three classes, wide", "a class of one row"])
def test_held_out_scores_of_svm_are_those_of_scikit_learn(name: str, exact_search: None) -> None:
    training = folded(problem(name))
    if name == "a class of one row":  # no fold holds out this row
        folds = tuple((np.union1d(train, [7]), np.setdiff1d(test, [7])) for train, test in training.folds)
        training = dataclasses.replace(training, folds=folds)
    Z = training.rows.whole(np.float64)
    for C, scores in LinearPathEstimator(hinge=True).cross_val_scores(training, (1e-4, 0.1)):
        for train, test in training.folds:
            fit = LinearSVC(C=C, dual=False, tol=1e-12, max_iter=100_000)
            fit.fit(Z[train], training.y[train], training.weight[train])
            np.testing.assert_allclose(scores[test], fit.decision_function(Z[test]), atol=1e-3)


@pytest.mark.parametrize("name", ["two classes", "five classes, weighted", "two classes, wide, weighted"])
def test_a_search_of_the_whole_path_is_close_to_the_exact_one_and_closest_near_its_best(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = folded(noisy(problem(name)), 5)
    actual = [log_loss(training, scores) for _, scores in LinearPathEstimator().cross_val_scores(training, C_PATH)]
    monkeypatch.setattr(linear, "SEARCH_TOL", 1e-10)
    monkeypatch.setattr(linear, "SEARCH_ITERATIONS", 3000)
    exact = [log_loss(training, scores) for _, scores in LinearPathEstimator().cross_val_scores(training, C_PATH)]
    best = int(np.argmin(exact))
    assert 0 < best < 44
    near = slice(max(0, best - 3), best + 4)
    np.testing.assert_allclose(actual[near], exact[near], rtol=5e-3)
    np.testing.assert_allclose(actual, exact, rtol=0.05)
    assert exact[int(np.argmin(actual))] <= exact[best] + 1e-4


@pytest.mark.parametrize("name", ["two classes", "five classes, weighted", "three classes, wide"])
def test_the_chosen_c_is_that_of_logistic_regression_cv(name: str) -> None:
    training = folded(noisy(problem(name)), 5)
    grid = C_PATH[14:37:2]
    losses = [log_loss(training, scores) for _, scores in LinearPathEstimator().cross_val_scores(training, grid)]
    parameters = inspect.signature(LogisticRegressionCV).parameters
    options = {"l1_ratios": (0.0,), "use_legacy_attributes": False} if "use_legacy_attributes" in parameters else {}
    search = LogisticRegressionCV(
        Cs=grid, cv=training.folds, scoring="neg_log_loss", tol=1e-8, max_iter=10_000, **options
    )
    search.fit(training.rows.whole(np.float64), training.y)
    assert grid[int(np.argmin(losses))] == np.ravel(search.C_)[0]


def test_rows_that_no_fold_holds_out_have_no_score() -> None:
    training = folded(problem("five classes, weighted"))
    always = np.arange(10)
    folds = tuple((np.union1d(train, always), np.setdiff1d(test, always)) for train, test in training.folds)
    ((_, scores),) = LinearPathEstimator().cross_val_scores(dataclasses.replace(training, folds=folds), (0.1,))
    assert np.isnan(scores[always]).all()
    assert np.isfinite(scores[10:]).all()


WAYS: dict[str, Callable[[LinearPathEstimator, TrainingData, tuple[float, ...]], dict[float, np.ndarray]]] = {
    "one by one": lambda model, training, path: {
        C: scores for single_C in path for C, scores in model.cross_val_scores(training, (single_C,))
    },
    "by new models": lambda model, training, path: {
        C: scores for single_C in path for C, scores in LinearPathEstimator().cross_val_scores(training, (single_C,))
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
    way: str, name: str, exact_search: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, path = folded(noisy(problem(name))), (1e-5, 1e-3, 0.1, 0.3, 1.0, 1e2)
    expected = dict(LinearPathEstimator().cross_val_scores(training, path))
    monkeypatch.setattr(linear, "MAX_COLUMNS", 30)  # two at once, or ten
    actual = WAYS[way](LinearPathEstimator(), training, path)
    assert sorted(actual) == sorted(path)
    for C in path:
        np.testing.assert_allclose(softmax(actual[C], axis=1), softmax(expected[C], axis=1), atol=1e-4)


def test_candidates_are_yielded_in_the_requested_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MAX_COLUMNS", 30)  # two at once
    training, path = folded(problem("five classes, weighted")), (1.0, 0.1, 3.0, 0.1)
    assert [C for C, _ in LinearPathEstimator().cross_val_scores(training, path)] == list(path)


@pytest.mark.parametrize(
    ("setting", "value"), [("MAX_COLUMNS", 1), ("MAX_COLUMNS", 31), ("MAX_SCORES", 1), ("MAX_SCORES", 13_000)]
)
def test_the_number_of_problems_solved_together_changes_no_score(
    setting: str, value: int, exact_search: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, path = folded(noisy(problem("five classes, weighted"))), C_PATH[4:32:6]
    expected = dict(LinearPathEstimator().cross_val_scores(training, path))
    monkeypatch.setattr(linear, setting, value)
    for C, scores in LinearPathEstimator().cross_val_scores(training, path):
        np.testing.assert_allclose(softmax(scores, axis=1), softmax(expected[C], axis=1), atol=1e-4)


def test_many_blocks_change_no_score(exact_search: None, monkeypatch: pytest.MonkeyPatch) -> None:
    training = folded(noisy(problem("five classes, weighted")))
    expected = dict(LinearPathEstimator().cross_val_scores(training, (1e-3, 1.0)))
    monkeypatch.setattr(blockwise, "BLOCK", 1)
    for C, scores in LinearPathEstimator().cross_val_scores(training, (1e-3, 1.0)):
        np.testing.assert_allclose(scores, expected[C], atol=1e-3)


@pytest.mark.parametrize("name", ["five classes, weighted", "three classes, wide"])
@EACH_PRECISION
def test_a_search_and_a_fit_repeat_bit_for_bit(name: str, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "BLOCK", 2000)  # several threads
    if not exact:
        monkeypatch.setattr(matrices, "_SMALL", 0)
    training = folded(problem(name))

    def run() -> list[np.ndarray]:
        model = LinearPathEstimator()
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
    model, path = LinearPathEstimator(), (0.01, 1.0, 100.0)
    list(model.cross_val_scores(training, path))
    for C in (1.0, 0.5):  # of the path, and not of it
        predictor, alone = model.fit(training, C), LinearPathEstimator().fit(training, C)
        np.testing.assert_allclose(predictor.weight, alone.weight, atol=2e-3)
        assert objective(training, *single(predictor), C) < objective(training, *single(alone), C) * (1 + 1e-7)


def test_solutions_of_other_training_data_are_not_reused(exact_search: None) -> None:
    model, one, other = LinearPathEstimator(), folded(problem("two classes")), folded(problem("five classes, weighted"))
    list(model.cross_val_scores(one, (0.1, 1.0)))
    model.fit(one, 1.0)
    ((_, scores),) = model.cross_val_scores(other, (0.1,))
    ((_, expected),) = LinearPathEstimator().cross_val_scores(other, (0.1,))
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_array_equal(model.fit(other, 2.0).weight, LinearPathEstimator().fit(other, 2.0).weight)


def test_a_search_that_does_not_converge_warns_with_the_smallest_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "SEARCH_ITERATIONS", 6)
    training = folded(problem("five classes, weighted"))
    with pytest.warns(NotConvergedWarning, match=r"\d of 9 fits of the search, from C=.*0 on, had not converged"):
        list(LinearPathEstimator().cross_val_scores(training, (1e-6, 100.0, 10_000.0)))


def test_fits_that_converge_do_not_warn() -> None:
    training = folded(problem("five classes, weighted"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LinearPathEstimator()
        list(model.cross_val_scores(training, C_PATH[::4]))
        for C in CS:
            model.fit(training, C)


@pytest.mark.parametrize("C", [1e-6, 1.0, 1e5])
def test_a_label_without_positives_in_a_fold_changes_no_other_label(C: float, exact_search: None) -> None:
    training = folded(draw(90, 6, 3, apart=0.0, task="multilabel"))
    training.y[:, 1] = 0.0
    training.y[training.folds[0][1][0], 1] = 1.0  # its only positive row is held out
    both = dataclasses.replace(training, y=training.y[:, [0, 2]], count=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        ((_, scores),) = LinearPathEstimator().cross_val_scores(training, (C,))
        ((_, expected),) = LinearPathEstimator().cross_val_scores(both, (C,))
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores[:, [0, 2]], expected, atol=2e-2 * np.abs(expected).max())


@pytest.mark.parametrize("hinge", [False, True])
@pytest.mark.parametrize("never_held_out", [0, 30])
@EACH_PRECISION
def test_skipping_the_held_out_rows_of_a_fold_changes_nothing(
    hinge: bool, never_held_out: int, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exact:
        monkeypatch.setattr(matrices, "_SMALL", 0)
    monkeypatch.setattr(matrices._BlockMatrix, "most", 1)  # many blocks
    training = draw(400, 12, 3, apart=0.3, weighted=True)
    parts = KFold(3, shuffle=True, random_state=0).split(
        np.zeros(400 - never_held_out)
    )  # the last rows no fold holds out
    rest = np.arange(400 - never_held_out, 400)
    training = dataclasses.replace(
        training, folds=tuple((np.concatenate([train, rest]), held_out) for train, held_out in parts)
    )
    actual = []
    for skipped in (10**9, 1):
        monkeypatch.setattr(linear, "_MIN_SKIPPED", skipped)
        model = LinearPathEstimator(hinge=hinge)
        scores = dict(model.cross_val_scores(training, (1e-3, 0.1, 1.0)))
        actual.append((scores, model.fit(training, 0.1)))
    (scores, predictor), (skipped_scores, skipped_predictor) = actual
    for C, expected in scores.items():
        assert np.isnan(expected[400 - never_held_out :]).all()
        np.testing.assert_allclose(skipped_scores[C], expected, atol=2e-2)
    np.testing.assert_allclose(skipped_predictor.weight, predictor.weight, atol=1e-4)
    np.testing.assert_allclose(skipped_predictor.bias, predictor.bias, atol=1e-4)


def test_the_path_is_45_values_of_c_from_1e_minus_6_to_1e5() -> None:
    assert len(LinearPathEstimator.candidates) == 45
    np.testing.assert_allclose(LinearPathEstimator.candidates, np.logspace(-6, 5, 45), rtol=1e-5)
