"""Each fit against scikit-learn itself, on seeded random data."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.svm import SVC, LinearSVC

from featx import scorers
from featx.head import softmax

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
    scorer = scorers.fit_logreg(Z, y, count, C)
    np.testing.assert_allclose(softmax(scorer.scores(other)), reference.predict_proba(other), atol=1e-3)
    coefficients = np.concatenate([-reference.coef_, reference.coef_]) / 2 if count == 2 else reference.coef_
    expected = objective(np.log(reference.predict_proba(Z)), coefficients, y, C)
    assert objective(scorer.scores(Z), scorer.weight, y, C) == pytest.approx(expected, rel=1e-5)


@SHAPES
@CLASSES
@STRENGTHS
def test_svm_is_the_linear_svc_of_scikit_learn(n: int, dim: int, count: int, C: float) -> None:
    Z, y, other = draw(n, dim, count)
    reference = LinearSVC(C=C, tol=1e-10, max_iter=1_000_000, dual=False).fit(Z, y)
    scores = scorers.fit_svm(Z, y, count, C).scores(other)
    np.testing.assert_allclose(decision(scores), reference.decision_function(other), atol=1e-3)


@SHAPES
@CLASSES
@STRENGTHS
def test_ridge_is_the_ridge_classifier_of_scikit_learn(n: int, dim: int, count: int, C: float) -> None:
    Z, y, other = draw(n, dim, count)
    reference = RidgeClassifier(alpha=1 / (2 * C)).fit(Z, y)
    scores = scorers.fit_ridge(Z, y, count, C).scores(other)
    np.testing.assert_allclose(decision(scores), reference.decision_function(other), atol=1e-8)


@SHAPES
@CLASSES
@STRENGTHS
def test_rbf_is_the_one_vs_rest_svc_of_scikit_learn(n: int, dim: int, count: int, C: float) -> None:
    Z, y, other = draw(n, dim, count)
    reference = OneVsRestClassifier(SVC(C=C, kernel="rbf", gamma="scale")).fit(Z, y)
    scores = scorers.fit_rbf(Z, y, count, C).scores(other)
    np.testing.assert_allclose(decision(scores), reference.decision_function(other), atol=1e-5)


@SHAPES
@CLASSES
def test_centroid_chooses_as_the_nearest_centroid_of_scikit_learn(n: int, dim: int, count: int) -> None:
    Z, y, other = draw(n, dim, count)
    reference = NearestCentroid().fit(Z, y)
    np.testing.assert_array_equal(scorers.fit_centroid(Z, y, count).scores(other).argmax(1), reference.predict(other))


def test_centroid_scores_differ_as_the_squared_distances_do() -> None:
    Z, y, other = draw(90, 7, 4)
    centres = np.stack([Z[y == label].mean(axis=0) for label in range(4)])
    distances = ((other[:, None, :] - centres) ** 2).sum(axis=2)
    scores = scorers.fit_centroid(Z, y, 4).scores(other)
    np.testing.assert_allclose(scores - scores[:, :1], (distances[:, :1] - distances) / 2, atol=1e-10)


@SHAPES
@CLASSES
@pytest.mark.parametrize("k", [1, 5])
def test_knn_chooses_as_the_cosine_neighbours_of_scikit_learn(n: int, dim: int, count: int, k: int) -> None:
    Z, y, other = draw(n, dim, count)
    reference = KNeighborsClassifier(k, metric="cosine").fit(Z, y)
    votes = np.sort(reference.predict_proba(other), axis=1)
    untied = votes[:, -1] > votes[:, -2] + 1e-9
    scores = scorers.fit_knn(Z, y, count, k).scores(other)
    assert untied.sum() >= 20
    np.testing.assert_array_equal(scores.argmax(1)[untied], reference.predict(other)[untied])


def test_knn_scores_are_log_shares_of_the_votes_with_one_vote_spread_evenly() -> None:
    Z = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    y = np.array([0, 0, 1, 1])
    scores = scorers.fit_knn(Z, y, 2, 3).scores(np.array([[2.0, 0.0]]))
    np.testing.assert_allclose(np.exp(scores), [[2.5 / 4, 1.5 / 4]])


def test_knn_asks_no_more_neighbours_than_there_are_rows() -> None:
    Z, y, other = draw(6, 5, 2)
    scores = scorers.fit_knn(Z, y, 2, 50).scores(other)
    np.testing.assert_allclose(np.exp(scores), 0.5)


def test_knn_scores_a_class_without_rows_in_its_fold_lowest() -> None:
    Z, y, other = draw(20, 5, 2)
    scores = scorers.fit_knn(Z, y * 2, 3, 5).scores(other)  # labels 0 and 2
    assert (scores[:, 1] <= scores.min(axis=1)).all()
    assert np.isfinite(scores).all()


def test_two_classes_get_one_row_of_weights_each_and_opposite_ones() -> None:
    Z, y, _ = draw(60, 7, 2)
    for fit in (scorers.fit_logreg, scorers.fit_svm, scorers.fit_ridge):
        scorer = fit(Z, y, 2, 0.1)
        assert scorer.weight.shape == (2, 7)
        np.testing.assert_array_equal(scorer.weight[0], -scorer.weight[1])
        assert scorer.bias[0] == -scorer.bias[1]


@CLASSES
@pytest.mark.parametrize("fit", [scorers.fit_logreg, scorers.fit_svm, scorers.fit_ridge])
def test_a_fit_in_the_span_of_its_rows_gives_the_weights_of_the_fit_outside_it(fit, count: int) -> None:
    Z, y, _ = draw(30, 60, count)
    coordinates, basis = scorers.row_space(Z)
    plain, rotated = fit(Z, y, count, 0.1), fit(coordinates, y, count, 0.1)
    np.testing.assert_allclose(rotated.weight @ basis, plain.weight, atol=1e-3 * np.abs(plain.weight).max())
    np.testing.assert_allclose(rotated.bias, plain.bias, atol=1e-3)


def test_row_space_keeps_the_rows() -> None:
    Z, _, _ = draw(30, 60, 2)
    coordinates, basis = scorers.row_space(Z)
    assert coordinates.shape == (30, 30)
    np.testing.assert_allclose(coordinates @ basis, Z, atol=1e-12)


def test_row_space_leaves_alone_what_has_as_many_rows_as_columns() -> None:
    Z, _, _ = draw(30, 60, 2)
    assert scorers.row_space(Z[:, :30]) is None
    assert scorers.row_space(Z[:, :31]) is not None


@pytest.mark.parametrize(
    ("fit", "solver"), [(scorers.fit_logreg, LogisticRegression), (scorers.fit_svm, LinearSVC)], ids=["logreg", "svm"]
)
def test_a_solver_that_stops_before_its_optimum_says_so(fit, solver, monkeypatch: pytest.MonkeyPatch) -> None:
    Z, y, _ = draw(30, 60, 4)
    name = solver.__name__
    monkeypatch.setattr(scorers, name, lambda **options: solver(**{**options, "max_iter": 1}))
    with pytest.warns(scorers.NotConvergedWarning, match=f"{name} at C=1 had not converged after 1 iterations"):
        fit(Z, y, 4, 1.0)
