"""Heads as classifiers and regressors of scikit-learn."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx.errors import CorruptFileError, HeadError
from featx.heads.head import Head
from featx.sklearn import HeadClassifier, HeadRegressor, ImageEmbedder

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])

ESTIMATORS = [
    HeadClassifier(),
    HeadClassifier("centroid"),
    HeadRegressor(),
    ImageEmbedder("lenet5", cache=None, device="cpu"),
]


def expected_to_fail(estimator: Any) -> dict[str, str]:
    if getattr(estimator, "kind", "") == "centroid":
        return {"check_class_weight_classifiers": "the nearest class mean does not depend on the weights of classes"}
    return {}


if tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 6):

    @parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_to_fail)
    def test_an_estimator_passes_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
        check(estimator)


@pytest.mark.parametrize(
    "y", [Y, NAMES[Y], Y > 0, Y.astype(float), NAMES[Y].astype(object)], ids=lambda y: str(y.dtype)
)
def test_a_classifier_is_the_head_that_it_fits(y: np.ndarray) -> None:
    classifier, head = HeadClassifier("ridge", C=1.0).fit(X, y), Head("ridge", C=1.0).fit(X, y)
    np.testing.assert_array_equal(classifier.predict_proba(X), head.predict_proba(X))
    np.testing.assert_array_equal(classifier.decision_function(X), head.decision_function(X))
    np.testing.assert_array_equal(classifier.predict(X), head.predict(X))
    np.testing.assert_array_equal(classifier.classes_, np.unique(y))
    assert classifier.score(X, y) == head.score(X, y) > 0.8
    assert classifier.head_.task_ == "classification"


def test_parameters_are_checked_by_fit_and_not_before() -> None:
    with pytest.raises(HeadError, match="there is no head 'forest'"):
        HeadClassifier("forest").fit(X, Y)
    with pytest.raises(HeadError, match="C is only for logreg, svm, ridge, bilinear; knn has none"):
        HeadClassifier().set_params(kind="knn", C=1.0).fit(X, Y)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        HeadClassifier().fit(X, X[:, 0])


@pytest.mark.parametrize("as_table", [np.asarray, sparse.csr_matrix, lambda table: table.tolist()])
def test_a_table_of_labels_is_several_labels_even_where_each_row_has_one(as_table: Any) -> None:
    table = np.eye(3, dtype=np.int64)[Y]
    classifier = HeadClassifier("ridge", C=1.0).fit(X, as_table(table))
    assert classifier.head_.task_ == "multilabel"
    assert classifier.predict(X).shape == classifier.predict_proba(X).shape == (150, 3)
    assert classifier.score(X, table) > 0.5
    assert classifier.classes_.tolist() == [0, 1, 2]


def test_the_weights_of_classes_are_those_of_scikit_learn() -> None:
    weights = {0: 1.0, 1: 5.0, 2: 0.2}
    classifier = HeadClassifier("logreg", C=0.3, class_weight=weights).fit(X, Y)
    by_name = Head("logreg", C=0.3, class_weight={"0": 1, "1": 5, 2: 0.2}).fit(X, Y)
    np.testing.assert_allclose(classifier.predict_proba(X), by_name.predict_proba(X))
    Z = StandardScaler().fit_transform(X)
    theirs = sklearn.linear_model.LogisticRegression(C=0.3, class_weight=weights, tol=1e-10, max_iter=10_000).fit(Z, Y)
    np.testing.assert_allclose(classifier.predict_proba(X), theirs.predict_proba(Z), atol=1e-4)


def test_a_rejected_class_is_none_and_counts_as_wrong() -> None:
    classifier = HeadClassifier("ridge", C=1.0, reject_below=0.9).fit(X, Y)
    predicted = classifier.predict(X)
    assert set(predicted.tolist()) >= {None, 0}
    assert classifier.score(X, Y) == np.mean([found == own for found, own in zip(predicted, Y, strict=True)]) < 0.9
    weights = np.array([found is not None for found in predicted], dtype=float)
    assert classifier.score(X, Y, sample_weight=weights) > 0.95
    with pytest.raises(HeadError, match="found 150 rows of X and 149 of y"):
        classifier.score(X, Y[1:])


def test_the_tools_of_scikit_learn_take_the_estimators() -> None:
    ridge = HeadClassifier("ridge", C=1.0)
    search = GridSearchCV(make_pipeline(StandardScaler(), ridge), {"headclassifier__C": [1e-6, 1.0]}, cv=3).fit(X, Y)
    assert search.best_params_ == {"headclassifier__C": 1.0}
    kinds = [{"kind": ["ridge"], "C": [0.1]}, {"kind": ["centroid"], "C": [None]}]
    assert len(GridSearchCV(HeadClassifier(), kinds, cv=3).fit(X, Y).cv_results_["params"]) == 2
    assert cross_val_predict(ridge, X, Y, cv=3, method="predict_proba").shape == (150, 3)
    for tool in (
        CalibratedClassifierCV(ridge, cv=3),
        VotingClassifier([("a", ridge), ("b", HeadClassifier("centroid"))], voting="soft"),
        StackingClassifier([("a", ridge), ("b", HeadClassifier("centroid"))], ridge, cv=3),
    ):
        assert tool.fit(X, Y).score(X, Y) > 0.7
    with sklearn.config_context(enable_metadata_routing=True):
        scores = cross_validate(
            make_pipeline(StandardScaler(), HeadRegressor(C=1.0)), X, X @ [1.0, 2.0, 3.0, 4.0], cv=3
        )
    assert scores["test_score"].min() > 0.9


@pytest.mark.parametrize(
    "y", [Y, NAMES[Y], Y > 0, np.eye(3, dtype=int)[Y], X[:, 0] * 2], ids=lambda y: str(y.dtype) + str(y.ndim)
)
def test_a_pickle_and_a_copy_predict_the_same(y: np.ndarray) -> None:
    new = HeadRegressor(C=1.0) if y.dtype == np.float64 else HeadClassifier("ridge", C=1.0)
    for again in (pickle.loads(pickle.dumps(new.fit(X, y))), copy.deepcopy(new)):
        np.testing.assert_array_equal(again.predict(X), new.predict(X))
        assert again.predict(X).dtype == new.predict(X).dtype
        assert again.get_params() == new.get_params() == clone(again).get_params()


def test_an_estimator_of_a_head_predicts_what_the_head_predicts(tmp_path: Path) -> None:
    head = Head("svm").fit(X, NAMES[Y])
    classifier = HeadClassifier.from_head(Head.load(head.save(tmp_path / "head.safetensors")))
    np.testing.assert_array_equal(classifier.predict_proba(X), head.predict_proba(X))
    assert classifier.predict(X[:1]).tolist() == classifier.classes_[:1].tolist() == ["setosa"]
    assert classifier.score(X, NAMES[Y]) > 0.9
    assert (classifier.kind, classifier.C, classifier.n_features_in_) == ("svm", head.C_, 4)
    numbers = Head(task="regression").fit(X, X[:, 0] / 3)
    np.testing.assert_array_equal(HeadRegressor.from_head(numbers).predict(X), numbers.predict(X))
    with pytest.raises(HeadError, match=r"this head is a regression; HeadRegressor\.from_head takes it"):
        HeadClassifier.from_head(numbers)
    with pytest.raises(HeadError, match=r"this head does classification; HeadClassifier\.from_head takes it"):
        HeadRegressor.from_head(head)
    with pytest.raises(HeadError, match=r"takes a fitted Head; Head\.load"):
        HeadClassifier.from_head(Head())


def test_a_damaged_state_is_an_error_and_no_estimator() -> None:
    state = HeadClassifier("ridge", C=1.0).fit(X, Y).__getstate__()
    file = bytearray(state["head_"]["file"])
    file[-1] ^= 1
    labels = {**state["head_"]["labels"], "classes": ("0", "1")}
    for head, message in (
        ({**state["head_"], "file": bytes(file)}, "do not match their checksum"),
        ({**state["head_"], "labels": labels}, "do not fit its head"),
        ({**state["head_"], "labels": [1]}, "the labels of this estimator are a list"),
        ("head", "the head of this estimator is a str"),
    ):
        with pytest.raises(CorruptFileError, match=message):
            HeadClassifier().__setstate__({**state, "head_": head})
