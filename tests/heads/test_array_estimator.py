"""A head as an estimator of scikit-learn."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_iris, make_multilabel_classification
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])

EXPECTED_TO_FAIL = {
    "check_do_not_raise_errors_in_init_or_set_params": "Head(...) refuses unknown values at once, not at fit",
    "check_parameters_default_constructible": "the default kind depends on the task, so it is decided in Head(...)",
    "check_dtype_object": "a HeadError is a ValueError, where a TypeError is expected",
    "check_class_weight_classifiers": "the nearest class mean does not depend on the weights of classes",
}
"""The checks of scikit-learn that a head does not pass, and why."""


@pytest.mark.skipif(not hasattr(estimator_checks, "estimator_checks_generator"), reason="scikit-learn 1.6 or later")
@pytest.mark.parametrize("head", [Head("ridge", C=1.0), Head("centroid"), Head(task="regression", C=1.0)], ids=repr)
def test_a_head_passes_the_checks_of_scikit_learn_but_for_three(head: Head) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = estimator_checks.check_estimator(head, on_skip=None, on_fail=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    assert failed <= set(EXPECTED_TO_FAIL)
    assert sum(result["status"] == "passed" for result in results) > 40


@pytest.mark.parametrize(
    "y", [Y, NAMES[Y], NAMES[Y].astype(object), (Y > 0), Y.astype(np.float64), (Y - 1).astype(np.int8)]
)
def test_predictions_have_the_type_of_the_labels(y: np.ndarray) -> None:
    head = Head("ridge", C=1.0).fit(X, y)
    np.testing.assert_array_equal(head.classes_, np.unique(y))
    predicted = head.predict(X)
    assert predicted.dtype.kind == (y.dtype.kind if y.dtype.kind != "O" else "U")
    assert head.score(X, y) == np.mean(predicted == y) > 0.8
    assert head.predict_proba(X).shape == (len(X), len(head.classes_))


def test_one_hot_labels_come_back_one_hot_and_an_empty_column_stays_empty() -> None:
    table = np.eye(4, dtype=int)[Y]
    head = Head("ridge", C=1.0).fit(X, table)
    predicted = head.predict(X)
    assert predicted.shape == table.shape
    assert (predicted.sum(axis=1) == 1).all()
    assert not predicted[:, 3].any()
    assert head.task_ == "classification"
    assert head.score(X, table) > 0.8


def test_a_table_of_labels_keeps_its_columns_even_those_that_no_row_has() -> None:
    matrix, table = make_multilabel_classification(200, n_classes=11, random_state=0)
    table[:, 7] = 0
    head = Head("ridge", C=0.1).fit(matrix, table)
    assert head.task_ == "multilabel"
    assert head.predict(matrix).shape == table.shape
    probabilities = head.predict_proba(matrix)
    assert (probabilities[:, 7] == 0).all()
    agreement = [np.corrcoef(probabilities[:, column], table[:, column])[0, 1] for column in range(11) if column != 7]
    assert min(agreement) > 0.3  # each column is judged by its own label
    assert np.isfinite(cross_val_score(Head("ridge", C=0.1), matrix, table, scoring="f1_micro", cv=3)).all()


def test_lists_of_labels_come_back_as_lists() -> None:
    own = [[["a"], ["a", "b"], []][label] for label in Y]
    head = Head("ridge", C=1.0).fit(X, own)
    assert head.classes_.tolist() == ["a", "b"]
    assert head.predict(X[:1]).tolist() == [["a"]]
    assert head.score(X, own) > 0.5


def test_the_tools_of_scikit_learn_take_a_head() -> None:
    head = Head("ridge", C=0.1)
    assert is_classifier(head)
    assert is_regressor(Head(task="regression"))
    assert cross_val_score(make_pipeline(StandardScaler(), head), X, Y, cv=3).mean() > 0.7
    assert cross_val_score(head, X, NAMES[Y], scoring="roc_auc_ovr", cv=3).mean() > 0.8
    assert cross_val_score(head, X[:100], Y[:100], scoring="roc_auc", cv=3).mean() > 0.99
    search = GridSearchCV(head, {"C": [1e-6, 0.1], "kind": ["ridge", "svm"]}, cv=3).fit(X, Y)
    assert search.best_params_["C"] == 0.1
    assert clone(head).get_params() == head.get_params()


def test_a_regression_scores_r2_and_has_no_probabilities() -> None:
    target = X @ [1.0, -2.0, 0.5, 3.0]
    head = Head(task="regression").fit(X, target)
    assert head.predict(X).dtype == np.float64
    assert head.score(X, target) > 0.99
    assert not hasattr(head, "predict_proba")
    assert not hasattr(head, "classes_")
    with pytest.raises(HeadError, match="predicts numbers, not probabilities"):
        head.predict_proba(X)
    whole = Head(task="regression").fit(X, np.round(target).astype(int))  # whole numbers are values if the task says so
    assert whole.score(X, target) > 0.98


def test_a_data_frame_names_its_features() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is an extra")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    head = Head("ridge", C=1.0).fit(frame, pandas.Series(NAMES[Y]))
    assert head.feature_names_in_.tolist() == list("abcd")
    with pytest.raises(HeadError, match="feature names should match"):
        head.predict(frame[list("dcba")])


def test_a_rejected_class_is_none_among_the_labels() -> None:
    head = Head("ridge", C=1.0, reject_below=0.99).fit(X, Y)
    predicted = head.predict(X)
    assert set(predicted.tolist()) >= {None, 0}


def test_a_fit_to_a_feature_set_forgets_the_arrays_of_the_fit_before() -> None:
    features = FeatureSet.from_arrays(X, NAMES[Y], splits="train")
    head = Head("ridge", C=1.0).fit(X, Y).fit(features)
    assert head.classes_ == tuple(NAMES)
    assert head.predict(X[:1]).tolist() == ["setosa"]
    fresh = Head("ridge", C=1.0).fit(features)
    np.testing.assert_array_equal(head.predict_proba(X), fresh.predict_proba(X))


def test_a_pickled_head_keeps_the_type_and_a_saved_one_the_names(tmp_path: Path) -> None:
    head = Head("ridge", C=1.0).fit(X, Y)
    assert pickle.loads(pickle.dumps(head)).predict(X[:1]).tolist() == [0]
    loaded = Head.load(head.save(tmp_path / "head.safetensors"))
    assert loaded.predict(X[:1]).tolist() == ["0"]
    np.testing.assert_array_equal(loaded.predict_proba(X), head.predict_proba(X))


def test_the_same_head_of_arrays_and_of_a_feature_set_computes_the_same() -> None:
    rng = np.random.default_rng(0)
    matrix, labels = rng.normal(size=(90, 5)), np.arange(90) % 3
    matrix[:, 0] += labels
    of_arrays = Head("logreg").fit(matrix, labels)
    of_set = Head("logreg").fit(FeatureSet.from_arrays(matrix, labels, splits="train"))
    np.testing.assert_allclose(of_arrays.predict_proba(matrix), of_set.predict_proba(matrix), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Head().predict(X), "this head is not fitted; call fit"),
        (lambda: Head("ridge").fit(X, Y).predict(X[:, :2]), "X has 2 features, but Head is expecting 4"),
        (lambda: Head("ridge").fit(X, Y).predict(np.full((1, 4), np.nan)), "contains NaN"),
        (lambda: Head("ridge").fit(np.full_like(X, np.nan), Y), "contains NaN"),
        (lambda: Head("ridge").fit(X, Y).score(X, Y[:3]), "150 rows of features and 3 labels"),
        (lambda: Head("ridge").fit(X, np.zeros(150)), "has one class only"),
        (lambda: Head("ridge").fit(FeatureSet.from_arrays(X, Y)).score(FeatureSet.from_arrays(X, Y), Y), "evaluate"),
    ],
)
def test_unsuitable_arrays_are_named(call: Any, message: str) -> None:
    with pytest.raises(HeadError, match=message):
        call()


def test_an_unfitted_head_raises_what_scikit_learn_expects() -> None:
    with pytest.raises(NotFittedError, match="not fitted"):
        Head().predict(X)
