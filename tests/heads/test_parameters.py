"""The parameters of a head: checked at once, and read and changed as in scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made_heads import photos
from sklearn.base import clone

from featx.errors import HeadError
from featx.heads.head import Head


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kind": "tree"},
            "there is no head 'tree'; expected one of logreg, linear, svm, ridge, knn, centroid, bilinear, mlp",
        ),
        ({"kind": "knn", "C": 1.0}, "C is only for logreg, svm, ridge, bilinear; knn has none"),
        ({"kind": "centroid", "C": 1.0}, "C is only for logreg, svm, ridge, bilinear; centroid has none"),
        ({"kind": "linear", "C": 1.0}, "C is only for logreg, svm, ridge, bilinear; linear has none"),
        ({"kind": "mlp", "C": 1.0}, "C is only for logreg, svm, ridge, bilinear; mlp has none"),
        ({"kind": "svm", "C": 0.0}, "C is 0.0; expected a positive number"),
        ({"kind": "svm", "C": -1.0}, "C is -1.0; expected a positive number"),
        ({"kind": "svm", "C": float("nan")}, "C is nan; expected a positive number"),
        ({"kind": "svm", "C": float("inf")}, "C is inf; expected a positive number"),
        (
            {"kind": "logreg", "k": 3},
            "k is 3 for logreg; expected a number of neighbours, at least 1, and only for knn",
        ),
        ({"kind": "knn", "k": 0}, "k is 0 for knn; expected a number of neighbours, at least 1, and only for knn"),
        ({"kind": "svm", "kernel": "poly"}, "kernel is 'poly' for svm; expected linear or rbf, and only for svm"),
        ({"kind": "logreg", "kernel": "rbf"}, "kernel is 'rbf' for logreg; expected linear or rbf, and only for svm"),
        (
            {"task": "ranking"},
            "there is no task 'ranking'; expected one of auto, classification, multilabel, regression",
        ),
        (
            {"kind": "logreg", "task": "regression"},
            "logreg cannot do regression; expected one of ridge, svm, linear, knn, bilinear, mlp",
        ),
        ({"kind": "centroid", "task": "multilabel"}, "centroid cannot do multilabel; expected one of ridge, logreg"),
        ({"class_weight": "even"}, "class_weight is 'even'; expected balanced, or a weight for each class"),
        ({"calibrate": "platt"}, "calibrate is 'platt'; expected one of temperature, isotonic, none"),
        ({"kind": "random_forest"}, "there is no head 'random_forest'; expected one of logreg"),
        ({"kind": np.zeros((2, 2))}, "kind is an ndarray.*; expected a name"),
        ({"C": "1"}, "C is a str, '1'; expected a number"),
        ({"C": True}, "C is a bool, True; expected a number"),
        ({"kind": "knn", "k": 2.5}, "k is a float, 2.5; expected a whole number"),
        ({"seed": 1.5}, "seed is a float, 1.5; expected a whole number"),
        ({"seed": -1}, "seed is -1; expected 0 to 4294967295"),
        ({"calibrate": True}, "calibrate is a bool, True; expected a name"),
        ({"logit_adjustment": None}, "logit_adjustment is None; expected a number"),
        ({"logit_adjustment": -1.0}, "logit_adjustment is -1.0; expected a number of at least 0, usually 1"),
        ({"logit_adjustment": float("nan")}, "logit_adjustment is nan; expected a number of at least 0, usually 1"),
        ({"reject_below": 0.0}, "reject_below is 0.0; expected a share above 0 and at most 1"),
        ({"reject_below": 1.5}, "reject_below is 1.5; expected a share above 0 and at most 1"),
        ({"target_precision": -0.5}, "target_precision is -0.5; expected a share above 0 and below 1, such as 0.95"),
        (
            {"target_precision": 0.9, "reject_below": 0.5},
            "both decide when a prediction is rejected; expected one of them",
        ),
        (
            {"class_weight": "balanced", "logit_adjustment": 1.0},
            "class_weight='balanced' and logit_adjustment .* together they correct twice; give one of them",
        ),
        (
            {"kind": "centroid", "logit_adjustment": 1.0},
            "a centroid head treats all classes as equally likely already.*leave out --logit-adjustment",
        ),
        (
            {"kind": "ridge", "task": "multilabel", "class_weight": "balanced"},
            "class_weight is only for classification, .*, not for multilabel; leave out --class-weight$",
        ),
        (
            {"kind": "ridge", "task": "regression", "logit_adjustment": 1.0, "target_precision": 0.9},
            "are only for classification, .*, not for regression; leave out --logit-adjustment and --target-precision$",
        ),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        Head(**options).fit(photos())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kind": "random_forest"},
            "there is no head 'random_forest'; expected one of logreg, linear, svm, ridge, knn",
        ),
        ({"kind": "knn", "C": 1.0}, "C is only for logreg, svm, ridge, bilinear; knn has none, so leave out -C"),
        ({"kind": "logreg", "k": 3}, "k is 3 for logreg"),
        ({"kernel": "rbf"}, "kernel is 'rbf' for logreg"),
        ({"task": "ranking"}, "there is no task 'ranking'"),
        ({"calibrate": "platt"}, "calibrate is 'platt'; expected one of temperature, isotonic, none"),
        ({"class_weight": "even"}, "class_weight is 'even'"),
        ({"logit_adjustment": -1.0}, "logit_adjustment is -1.0"),
        ({"target_precision": 1.5}, "target_precision is 1.5; expected a share above 0 and below 1"),
        ({"reject_below": 0.5, "target_precision": 0.9}, "reject_below and target_precision both decide"),
    ],
)
def test_arguments_are_checked_where_they_are_given(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        Head(**options)
    head = Head()
    with pytest.raises(HeadError, match=message):
        head.set_params(**options)
    assert head.get_params() == Head().get_params()  # all are checked before any is changed


def test_what_depends_on_the_task_is_checked_when_the_task_is_known() -> None:
    head = Head("logreg", task="regression", class_weight="balanced")
    with pytest.raises(HeadError, match="logreg cannot do regression"):
        head.fit(photos())


def test_parameters_are_read_and_changed_as_in_scikit_learn() -> None:
    head = Head("svm", C=0.5)
    assert head.get_params() == {
        "kind": "svm", "C": 0.5, "kernel": "linear", "k": None, "seed": 0, "task": "auto", "class_weight": None,
        "logit_adjustment": 0.0, "calibrate": None, "reject_below": None, "target_precision": None,
        "conformal": None, "conformal_per_class": False, "device": "cpu", "texts": None,
    }  # fmt: skip
    assert head.set_params(kind="knn", C=None, k=3) is head
    assert (head.kind, head.C, head.k) == ("knn", None, 3)
    with pytest.raises(HeadError, match="a head has no parameter depth, trees; it has C, calibrate, class_weight"):
        head.set_params(trees=10, depth=3)


def test_the_default_kind_suits_the_task() -> None:
    assert [Head(task=task).kind for task in ("auto", "classification", "multilabel", "regression")] == [
        "logreg", "logreg", "logreg", "ridge"
    ]  # fmt: skip
    assert clone(Head(task="regression")).get_params() == Head("ridge", task="regression").get_params()


def test_only_changed_parameters_are_shown() -> None:
    assert repr(Head()) == "Head(kind='logreg')"
    assert repr(Head("svm", C=0.1, seed=0)) == "Head(C=0.1, kind='svm')"
    assert repr(Head("ridge").fit(photos())) == "Head(kind='ridge')"


def test_a_copy_by_scikit_learn_has_the_arguments_and_a_clone_has_the_choices() -> None:
    head = Head("ridge", target_precision=0.9, calibrate="isotonic").fit(photos(gap=2.0, train=60))
    copy = clone(head)
    assert copy.get_params() == head.get_params()
    assert not hasattr(copy, "predictor_")
    chosen = head.clone()
    assert not hasattr(chosen, "predictor_")
    assert (chosen.C, chosen.task, chosen.reject_below) == (head.C_, "classification", head.reject_below_)
    assert (chosen.kind, chosen.calibrate, chosen.target_precision) == ("ridge", "isotonic", None)


def test_a_precision_that_all_rows_reach_rejects_none_in_a_clone() -> None:
    head = Head("logreg", target_precision=0.5).fit(photos(gap=9.0))
    assert head.reject_below_ == 0.0
    assert head.clone().fit(photos(gap=9.0)).reject_below_ is None
