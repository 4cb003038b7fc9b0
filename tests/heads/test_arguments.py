"""What the methods of a head are given where scikit-learn's would take it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import photos

from featx.errors import HeadError
from featx.heads.head import Head

FEATURES = photos()
X, Y = FEATURES.features, FEATURES.labels


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (
            lambda: Head().fit(X),
            r"Head.fit got an ndarray of shape \(105, 6\) and dtype \w+; expected a FeatureSet: .*from_arrays.*y is None",
        ),
        (lambda: Head().fit(X, Y[:-1]), "found 105 rows of X and 104 of y; expected one label for each row"),
        (lambda: Head().fit(X, Y + 0.5), r"Unknown label type: y holds numbers such as .*Head\(task='regression'\)"),
        (lambda: Head().fit(X, [None, *Y[1:]]), "1 row of y holds no label"),
        (lambda: Head().fit(X.tolist()), "Head.fit got a list; expected a FeatureSet"),
        (
            lambda: Head().fit("cache/x.h5"),
            r"Head.fit got a str, 'cache/x.h5'; expected a FeatureSet: FeatureSet.load\(file\)",
        ),
        (lambda: Head().fit(FEATURES, Y), "got y besides a FeatureSet, which has labels itself"),
        (lambda: Head().fit(FEATURES, rows=[0.5, 1.0]), "dtype float64; expected .* whole numbers"),
        (lambda: Head().fit(FEATURES, rows=Y == 0), "dtype bool; expected .* whole numbers; np.flatnonzero"),
        (lambda: Head().fit(FEATURES, rows=[0, 105]), "there is no row 105; expected 0 to 104"),
        (lambda: Head().fit(FEATURES, rows=[-1]), "there is no row -1; expected 0 to 104"),
    ],
)
def test_a_fit_to_anything_but_a_feature_set_is_refused(fit: Callable[[], Any], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        fit()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (FEATURES, "got a FeatureSet; expected an array, such as features.features"),
        (X[0], r"features of shape \(6,\); expected \(N, 6\).*X\[None\] makes a single row"),
        (X[:, :3], r"features of shape \(105, 3\); expected \(N, 6\)"),
        ([[1, 2], [3]], r"a list.* is no array .*expected \(N, 6\)"),
        (X.astype(str), "features of dtype <U32; expected numbers"),
        ("new.jpg", r"features of shape \(\); expected \(N, 6\)"),
        (None, r"features of shape \(\); expected \(N, 6\)"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_values", "decision_function"])
def test_a_prediction_of_anything_but_a_matrix_is_refused(method: str, wrong: Any, message: str) -> None:
    head = Head("ridge", C=0.1).fit(FEATURES)
    with pytest.raises(HeadError, match=message):
        getattr(head, method)(wrong)


def test_a_list_of_rows_is_predicted_as_an_array() -> None:
    head = Head("ridge", C=0.1).fit(FEATURES)
    np.testing.assert_array_equal(head.predict(X[:2].tolist()), head.predict(X[:2].astype(np.float64)))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_values", "decision_function"])
def test_a_head_that_is_not_fitted_predicts_nothing(method: str) -> None:
    with pytest.raises(HeadError, match=r"this head is not fitted; call fit before (predict|decision_function)"):
        getattr(Head(), method)(X)


def test_a_head_that_is_not_fitted_can_be_neither_judged_nor_saved(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="not fitted; call fit before evaluate"):
        Head().evaluate(FEATURES)
    with pytest.raises(HeadError, match="not fitted; call fit before save"):
        Head().save(tmp_path / "head.safetensors")
    with pytest.raises(HeadError, match="not fitted; call fit before as_linear"):
        Head().as_linear()
    with pytest.raises(HeadError, match=r"Head.evaluate got an ndarray of shape \(105, 6\)"):
        Head("ridge", C=0.1).fit(FEATURES).evaluate(X)
