"""Predictions of training images by the folds that hold them out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made import EVERY_HEAD, in_views, new
from made_heads import measured, photos, tagged

from featx.heads import search
from featx.heads.head import Head
from featx.heads.out_of_fold import predict_held_out


@EVERY_HEAD
def test_folds_that_are_fitted_anew_give_what_the_fit_kept(name: str) -> None:
    features = photos(train=20, gap=3.0)
    rows = features.rows("train")
    head = new(name, calibrate="temperature").fit(features, cross_validate=True)
    kept = predict_held_out(head, features, rows)
    np.testing.assert_array_equal(kept.outputs, head.out_of_fold_[1])
    head.out_of_fold_ = None
    anew = predict_held_out(head, features, rows)
    np.testing.assert_array_equal(anew.rows, kept.rows)
    np.testing.assert_array_equal(anew.fold, kept.fold)
    np.testing.assert_allclose(anew.outputs, kept.outputs, atol=0.02)


@pytest.mark.parametrize("make", [tagged, measured])
def test_labels_numbers_and_views_are_predicted_alike(make: object) -> None:
    features = in_views(make(train=60, test=0))  # type: ignore[operator]
    rows = features.rows("train")
    head = Head(task="multilabel" if make is tagged else "regression").fit(features, cross_validate=True)
    kept = predict_held_out(head, features, rows)
    head.out_of_fold_ = None
    np.testing.assert_allclose(predict_held_out(head, features, rows).outputs, kept.outputs, rtol=0.02, atol=0.02)


def test_all_images_are_predicted_where_a_share_chose_the_hyper_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_SEARCH_BYTES", 4 * 6 * 30)
    monkeypatch.setattr(search, "_MIN_SEARCH_ROWS", 30)
    features = photos(train=40)
    head = Head("logreg").fit(features, cross_validate=True)
    assert len(head.out_of_fold_[0]) == 30
    found = predict_held_out(head, features, features.rows("train"))
    assert found.rows.tolist() == list(range(120))
    assert np.isfinite(found.outputs).all()
    assert len(set(found.fold)) == 5


def test_nothing_is_predicted_where_nothing_can_be_held_out() -> None:
    features = photos(train=20)
    features = dataclasses.replace(features, keys=np.ones_like(features.keys))
    head = Head("logreg").fit(features, cross_validate=True)
    found = predict_held_out(head, features, features.rows("train"))
    assert len(found.rows) == len(found.fold) == 0
    assert found.outputs.shape == (0, 3)
