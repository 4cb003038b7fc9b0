"""Influences against heads that were fitted again without the image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from made import in_views
from made_heads import measured, photos, tagged
from scipy.stats import spearmanr

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.fitting import prepare
from featx.heads.head import Head
from featx.heads.influence import LeaveOneOut, has_influence, leave_one_out
from featx.heads.influence.restandardised import Restandardised
from featx.heads.predictors import LinearPredictor
from featx.heads.registry import EstimatorOptions, get_kind
from featx.heads.targets import targets_of
from featx.heads.training_data import Rows, TrainingData

TASKS: dict[str, Callable[[], FeatureSet]] = {
    "two classes": lambda: photos(classes=("ant", "bee"), train=14, test=4, gap=1.0),
    "three classes": lambda: photos(train=10, test=3, gap=1.0),
    "labels": lambda: tagged(train=30, test=8),
    "numbers": lambda: measured(train=30, test=8),
}
EVERY_TASK = pytest.mark.parametrize("task", TASKS)


def training_of(head: Head, features: FeatureSet, rows: np.ndarray) -> TrainingData:
    targets = targets_of(features.without_features(rows), head.task_, head.classes_)
    return prepare(features, rows, targets, head.task_, head.get_params(), where="train")


def influences(features: FeatureSet, head: Head, **options: bool) -> np.ndarray:
    """(images to judge, classes, training images) what each training image adds to each score."""
    train, test = features.rows("train"), features.rows("test")
    loo = LeaveOneOut(head, training_of(head, features, train), **options)
    X = features.features[test].reshape(len(test), -1, features.width).astype(np.float64)
    Z = ((X - head.mean_) / head.scale_).mean(axis=1)
    return np.array([[loo.changes(z, along) for along in np.eye(len(head.classes_))] for z in Z])


def refitted(features: FeatureSet, head: Head, **options: object) -> np.ndarray:
    """The same by a head that is fitted again without each training image."""
    train, test = features.rows("train"), features.rows("test")
    C, X = head.C_, features.features[test]
    out = np.empty((len(test), len(head.classes_), len(train)))
    for image in range(len(train)):
        again = Head(head.kind, C=C, task=head.task_, calibrate="none", **options).fit(
            features, rows=np.delete(train, image)
        )
        out[:, :, image] = head._scores(X) - again._scores(X)
    return out


def refitted_to_the_same_standard(features: FeatureSet, head: Head) -> np.ndarray:
    """The same by fits whose features are standardised by all training images."""
    train, test = features.rows("train"), features.rows("test")
    training = training_of(head, features, train)
    estimator = get_kind(head.kind).estimator(EstimatorOptions(head.task_, "linear", "cpu", False))
    Z = ((features.features[test] - head.mean_) / head.scale_).reshape(-1, features.width)
    scores = head._scores(features.features[test])
    out = np.empty((*scores.shape, len(train)))
    for image in range(len(train)):
        left = training.take(np.delete(np.arange(len(train)), image)).views_as_images
        again = estimator.fit(left, float(head.C_ or 1)).decision_function(Z)
        out[:, :, image] = scores - again.reshape(len(test), -1, scores.shape[1]).mean(axis=1)
    return out


def relative_error(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def rank_correlation(found: np.ndarray, true: np.ndarray) -> float:
    """The least over images and scores of the rank correlation over training images."""
    pairs = zip(found.reshape(-1, found.shape[-1]), true.reshape(-1, true.shape[-1]), strict=True)
    return min(float(spearmanr(a, b)[0]) for a, b in pairs)


@EVERY_TASK
@pytest.mark.parametrize("C", [0.01, 10.0])
def test_ridge_without_an_image_is_exact_for_standardised_features(task: str, C: float) -> None:
    features = TASKS[task]()
    head = Head("ridge", C=C, task="regression" if task == "numbers" else "auto", calibrate="none").fit(features)
    found = influences(features, head, restandardise=False)
    np.testing.assert_allclose(found, refitted_to_the_same_standard(features, head), rtol=1e-7, atol=1e-10)


def test_ridge_without_an_image_in_several_views_is_exact_for_standardised_features() -> None:
    features = in_views(TASKS["two classes"]())
    head = Head("ridge", C=0.1, calibrate="none").fit(features)
    found = influences(features, head, restandardise=False)
    np.testing.assert_allclose(found, refitted_to_the_same_standard(features, head), rtol=1e-7, atol=1e-10)


@EVERY_TASK
def test_ridge_without_an_image_is_as_a_head_that_is_fitted_again(task: str) -> None:
    features = TASKS[task]()
    head = Head("ridge", C=0.02, task="regression" if task == "numbers" else "auto", calibrate="none").fit(features)
    found, true = influences(features, head), refitted(features, head)
    assert relative_error(found, true) < 0.01
    # The standardisation matters: without its correction the error is several times as large.
    assert relative_error(influences(features, head, restandardise=False), true) > 3 * relative_error(found, true)


@pytest.mark.parametrize("task", [task for task in TASKS if task != "numbers"])
@pytest.mark.parametrize("kind", ["logreg", "svm"])
def test_a_newton_step_orders_training_images_as_fits_without_them_do(task: str, kind: str) -> None:
    features = TASKS[task]()
    head = Head(kind, C=0.05, calibrate="none").fit(features)
    assert rank_correlation(influences(features, head), refitted(features, head)) > 0.95


def test_logreg_in_several_views_is_as_a_head_that_is_fitted_again() -> None:
    features = in_views(TASKS["three classes"]())
    head = Head("logreg", C=0.05).fit(features)
    assert rank_correlation(influences(features, head), refitted(features, head)) > 0.98


def test_without_one_of_several_copies_there_are_as_many_different_images() -> None:
    features = photos(classes=("ant", "bee"), train=12, test=3, gap=1.0)
    rows = features.rows("train")
    features = features.take(np.concatenate([np.arange(len(features)), rows[:8]]))  # 8 of 24 are there twice
    head = Head("ridge", C=0.02, calibrate="none").fit(features)
    assert relative_error(influences(features, head), refitted(features, head)) < 0.02


def test_balanced_classes_keep_the_weights_of_the_fit() -> None:
    features = photos(classes=("ant", "bee"), train=15, test=3, gap=1.0)
    few = np.flatnonzero((features.labels == 1) & (features.splits == "train"))[5:]
    features = features.take(np.setdiff1d(np.arange(len(features)), few))
    head = Head("ridge", C=0.05, class_weight="balanced", calibrate="none").fit(features)
    found = influences(features, head, restandardise=False)
    np.testing.assert_allclose(found, refitted_to_the_same_standard(features, head), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("kind", ["ridge", "logreg"])
def test_conjugate_gradients_order_images_as_the_inverse_does(
    kind: str, views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = TASKS["three classes"]()
    features = features if views == 1 else in_views(features, views)
    head = Head(kind, C=0.05, calibrate="none").fit(features)
    exact = influences(features, head, restandardise=False)
    monkeypatch.setattr(leave_one_out, "MAX_INVERTED", 0)
    if kind == "ridge":
        np.testing.assert_allclose(influences(features, head, restandardise=False), exact, rtol=1e-5, atol=1e-9)
    assert rank_correlation(influences(features, head), refitted(features, head)) > 0.95


def test_features_that_no_training_image_or_only_one_varies_in_are_no_trouble() -> None:
    features = photos(classes=("ant", "bee"), train=14, test=3, gap=1.0)
    X = np.concatenate([features.features, np.ones((len(features), 1)), np.zeros((len(features), 40))], axis=1)
    X[3, 10] = 5.0  # no other training image differs in this feature
    X[features.rows("test"), 20] = 1.0  # only images that are judged do
    wide = dataclasses.replace(features, features=X.astype(np.float32))
    head = Head("ridge", C=0.05, calibrate="none").fit(wide)
    found = influences(wide, head)
    assert np.isfinite(found).all()
    assert relative_error(found, refitted(wide, head)) < 0.05


def test_changed_labels_are_an_error_and_not_another_answer() -> None:
    features = TASKS["two classes"]()
    head = Head("logreg", C=0.05).fit(features)
    labels = features.labels.copy()
    labels[features.rows("train")[:3]] = 1 - labels[features.rows("train")[:3]]
    with pytest.raises(
        HeadError, match="labels, which have changed since it was fitted; fit a head to them with featx fit-head"
    ):
        influences(dataclasses.replace(features, labels=labels), head)


@pytest.mark.parametrize("options", [{"kind": "knn"}, {"kind": "centroid"}, {"kind": "svm", "kernel": "rbf"}])
def test_heads_that_are_not_linear_have_no_influences(options: dict[str, str]) -> None:
    features = TASKS["two classes"]()
    head = Head(**options).fit(features)
    assert not has_influence(head)
    with pytest.raises(HeadError, match=r"no influence of training images on a .* head; ridge, logreg, svm have it"):
        LeaveOneOut(head, training_of(head, features, features.rows("train")))


@pytest.mark.parametrize("views", [1, 2])
def test_what_centring_anew_changes_about_a_penalised_intercept_is_exact_inside_the_margin(
    views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows are inside the margin, so that the svm's objective is quadratic, and only the mean of the features moves."""
    monkeypatch.setattr(Restandardised, "changes", lambda *_: 0.0)
    rng, n, C = np.random.default_rng(0), 20, 1e-3
    y = np.arange(n) % 2
    X = rng.normal(size=(n * views, 30)) + np.repeat(y, views)[:, None]
    X, z = (X - X.mean(axis=0)) / X.std(axis=0), rng.normal(size=30)
    training = TrainingData(Rows(X), y, 2, "classification", np.ones(n), views=views)

    def fitted(rows: np.ndarray) -> np.ndarray:
        ones, signs = np.hstack([rows_of(rows), np.ones((len(rows) * views, 1))]), np.repeat(2.0 * y[rows] - 1, views)
        found = np.linalg.solve(2 * C * ones.T @ ones + np.eye(31), 2 * C * ones.T @ signs)
        assert (signs * (ones @ found) < 1).all()
        return np.asarray(found)

    def rows_of(rows: np.ndarray) -> np.ndarray:
        own = X.reshape(n, views, 30)[rows].reshape(-1, 30)
        return np.asarray(own - own.mean(axis=0))

    def score(rows: np.ndarray) -> float:
        weights = fitted(rows)
        return float(weights[:-1] @ (z - X.reshape(n, views, 30)[rows].mean(axis=(0, 1))) + weights[-1])

    everything = np.arange(n)
    weight = fitted(everything) / 2
    predictor = LinearPredictor(np.stack([-weight[:-1], weight[:-1]]), np.array([-weight[-1], weight[-1]]))
    found = LeaveOneOut.of(predictor, training, kind="svm", C=C).changes(z, np.array([-1.0, 1.0]))
    exact = [score(everything) - score(np.delete(everything, image)) for image in everything]
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-12)
