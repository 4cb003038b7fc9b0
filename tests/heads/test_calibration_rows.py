"""Thresholds that labelled rows choose which no fit has seen."""

from __future__ import annotations

import numpy as np
import pytest
from made_heads import photos

from featx.errors import HeadError
from featx.heads.conformal import UNSEEN, fit_conformal
from featx.heads.head import Head
from featx.heads.rejection import threshold_for_precision
from featx.heads.texts import ClassTexts


def test_the_thresholds_are_those_of_the_rows_that_are_given() -> None:
    features = photos(gap=1.0)
    rows = features.rows("test")
    head = Head("logreg", conformal=0.2, target_precision=0.3).fit(features)
    before = head.predict_values(features.features)
    assert head.conformalize(features, split="test") is head
    assert head.conformal_ is not None
    assert (head.conformal_.rows, head.conformal_.source) == (len(rows), UNSEEN)
    y, p = features.labels[rows], before[rows]
    assert head.conformal_.as_dict() == fit_conformal(p, y, "classification", 0.2, source=UNSEEN).as_dict()
    assert head.reject_below_ == threshold_for_precision(p, y, 0.3).threshold
    np.testing.assert_array_equal(head.predict_values(features.features), before)
    assert "which no fit has seen" in head.notes_[-1]


def test_images_that_were_trained_on_choose_nothing() -> None:
    features = photos(gap=1.0)
    head = Head("logreg", conformal=0.2).fit(features)
    with pytest.raises(HeadError, match="all labelled images of split train were trained on"):
        head.conformalize(features, split="train")
    features.keys[features.rows("test")[:3]] = features.keys[features.rows("train")[:3]]
    head.conformalize(features, split="test")
    assert head.conformal_ is not None
    assert head.conformal_.rows == len(features.rows("test")) - 3
    assert "3 images of split test were trained on, and so choose no threshold" in head.notes_


def test_a_head_that_promises_nothing_has_nothing_to_choose() -> None:
    features = photos(gap=1.0)
    with pytest.raises(HeadError, match="this head promises nothing that could be calibrated"):
        Head("logreg").fit(features).conformalize(features, split="test")
    with pytest.raises(HeadError, match="this head is not fitted; call fit before conformalize"):
        Head("logreg", conformal=0.1).conformalize(features)


def test_a_zero_shot_head_chooses_on_the_training_rows_which_it_has_not_seen() -> None:
    features = photos(gap=1.0)
    texts = ClassTexts(
        features.classes, features.classes, ("{}",), _unit(np.eye(len(features.classes), features.width)), 5.0
    )
    head = Head("zeroshot", texts=texts, conformal=0.2).fit(features)
    assert head.conformal_ is not None
    assert (head.conformal_.rows, head.conformal_.source) == (len(features.rows("train")), UNSEEN)
    assert head.evaluate(features).as_dict()["sets"]["wanted"] == 0.8


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
