"""The parameters of a head: checked at once, and read and changed as in scikit-learn."""

from __future__ import annotations

from typing import Any

import pytest
from made_heads import photos

from featx.errors import HeadError
from featx.heads.head import Head


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "tree"}, "there is no head 'tree'; expected one of logreg, linear, svm, ridge, knn, centroid, mlp"),
        ({"kind": "knn", "C": 1.0}, "C is only for logreg, svm, ridge; knn has none"),
        ({"kind": "centroid", "C": 1.0}, "C is only for logreg, svm, ridge; centroid has none"),
        ({"kind": "linear", "C": 1.0}, "C is only for logreg, svm, ridge; linear has none"),
        ({"kind": "mlp", "C": 1.0}, "C is only for logreg, svm, ridge; mlp has none"),
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
        ({"task": "regression"}, "logreg cannot do regression; expected one of ridge, svm, linear, knn, mlp"),
        ({"kind": "centroid", "task": "multilabel"}, "centroid cannot do multilabel; expected one of ridge, logreg"),
        ({"class_weight": "even"}, "class_weight is 'even'; expected one of balanced"),
        ({"calibrate": "platt"}, "calibrate is 'platt'; expected one of temperature, isotonic, none"),
        ({"logit_adjustment": -1.0}, "logit_adjustment is -1.0; expected a number of at least 0, usually 1"),
        ({"logit_adjustment": float("nan")}, "logit_adjustment is nan; expected a number of at least 0, usually 1"),
        ({"reject_below": 0.0}, "reject_below is 0.0; expected a share above 0 and at most 1"),
        ({"reject_below": 1.5}, "reject_below is 1.5; expected a share above 0 and at most 1"),
        ({"target_precision": -0.5}, "target_precision is -0.5; expected a share above 0 and at most 1"),
        (
            {"target_precision": 0.9, "reject_below": 0.5},
            "both decide when a prediction is rejected; expected one of them",
        ),
        (
            {"kind": "ridge", "task": "multilabel", "class_weight": "balanced"},
            "class_weight is only for classification, not for multilabel",
        ),
        (
            {"kind": "ridge", "task": "regression", "logit_adjustment": 1.0, "target_precision": 0.9},
            "logit_adjustment, target_precision are only for classification, not for regression",
        ),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        Head(**options).fit(photos())
