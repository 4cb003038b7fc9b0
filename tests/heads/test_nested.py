"""Heads judged on rows that chose nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made import photos

from featx.errors import HeadError
from featx.heads.folds import make_folds
from featx.heads.head import Head
from featx.heads.nested import nested_report


def test_a_nested_report_is_what_a_loop_by_hand_gives() -> None:
    features = photos(gap=1.0)
    rows = features.rows("train")
    outputs = np.empty((len(rows), 3))
    for train, test in make_folds(features.labels[rows], None, folds=5, seed=2):
        head = Head("knn", seed=2).fit(features, rows=rows[train])
        outputs[test] = head.predict_values(features.features[rows[test]])
    report = nested_report(Head("knn", seed=2), features)
    assert report.accuracy == (outputs.argmax(axis=1) == features.labels[rows]).mean()
    assert report.log_loss == pytest.approx(-np.log(outputs[np.arange(len(rows)), features.labels[rows]]).mean())
    assert (report.n, report.split) == (60, "train, cross-validated")


def test_noise_is_not_flattered_by_the_choice_of_k() -> None:
    simple, nested = [], []
    for seed in range(8):
        features = photos(train=30, gap=0.0, dim=10, seed=seed)
        simple.append(Head("knn").fit(features, cross_validate=True).held_out_.accuracy)
        nested.append(nested_report(Head("knn"), features).accuracy)
    assert np.mean(simple) > np.mean(nested) + 0.02
    assert np.mean(nested) == pytest.approx(1 / 3, abs=0.04)


def test_images_of_one_group_are_judged_together_and_by_groups() -> None:
    features = photos(gap=1.0)
    column = np.array([f"p{row // 4}" for row in range(len(features))], dtype=object)
    report = nested_report(Head("centroid"), dataclasses.replace(features, groups=column, group="patient"))
    assert report.groups < report.n


def test_where_no_image_can_be_held_out_that_is_an_error() -> None:
    with pytest.raises(HeadError, match="no class has two training images that are no copies"):
        nested_report(Head("centroid"), photos(train=1))
