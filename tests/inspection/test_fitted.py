"""The inspection beside a head that was just fitted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made_heads import measured, photos, tagged

from featx.features.feature_set import FeatureSet
from featx.heads.groups import with_splits
from featx.heads.head import Head
from featx.inspection import fitted
from featx.inspection.fitted import inspect_fit
from featx.inspection.label_issues import find_label_issues
from featx.inspection.result import Inspection, JudgedHead


def inspected(features: FeatureSet, head: Head, *, held_out: bool = True) -> Inspection:
    head.fit(features, cross_validate=True)
    judged = JudgedHead(head, *head.judge(features)) if held_out else None
    return inspect_fit(with_splits(features, head.task_), head, judged=judged, notes=("Mind this.",))


@pytest.mark.parametrize("kind", ["logreg", "knn", "centroid"])
def test_training_images_are_predicted_out_of_fold_and_all_others_by_the_head(kind: str) -> None:
    features, head = photos(train=30, test=20), Head(kind)
    features.splits[::7] = "val"
    features.labels[5] = -1
    found = inspected(features, head).out_of_fold
    assert found.rows.tolist() == np.flatnonzero(features.labels >= 0).tolist()
    assert found.y.tolist() == features.labels[found.rows].tolist()
    is_train = features.splits[found.rows] == "train"
    np.testing.assert_array_equal(found.outputs[is_train], head.out_of_fold_[1])
    np.testing.assert_array_equal(found.outputs[~is_train], head.predict_rows(features, found.rows[~is_train]))


@pytest.mark.parametrize(("features", "kind"), [(tagged(), "ridge"), (measured(), "ridge"), (tagged(), "logreg")])
def test_labels_and_numbers_are_judged_too(features: FeatureSet, kind: str) -> None:
    head = Head(kind, task="regression" if features.classes[0][:1].isdigit() else "auto")
    found = inspected(features, head)
    assert found.out_of_fold.task == head.task_
    assert len(found.out_of_fold.rows) == len(features)
    assert found.labels.scores.shape == (len(features),)
    assert np.isfinite(found.labels.scores).all()
    assert found.notes == ("Mind this.",)


def test_where_nothing_is_held_out_the_training_images_alone_are_judged() -> None:
    features = photos(train=30, test=0)
    found = inspected(features, Head("logreg"), held_out=False)
    assert found.judged is None
    assert len(found.out_of_fold.rows) == len(features)


def test_a_head_that_was_not_cross_validated_judges_only_what_it_was_not_fitted_to() -> None:
    features = photos(train=30, test=20)
    head = Head("logreg").fit(features)
    found = inspect_fit(with_splits(features, head.task_), head)
    assert set(features.splits[found.out_of_fold.rows]) == {"test"}


def test_of_many_images_those_are_shown_that_the_head_finds_hardest(monkeypatch: pytest.MonkeyPatch) -> None:
    features, head = photos(train=30, test=40, gap=1.0), Head("logreg")
    everything = inspected(features, Head("logreg"))
    monkeypatch.setattr(fitted, "MOST_SHOWN", 25)
    found = inspected(features, head)
    assert len(found.features) == len(found.neighbours.indices) == 25
    test = np.flatnonzero(features.splits == "test")
    hardest = test[np.argsort(everything.labels.scores[test], kind="stable")[:25]]
    assert sorted(found.features.paths) == sorted(features.paths[hardest])
    assert found.judged.outputs.shape == (25, 3)
    np.testing.assert_allclose(found.judged.outputs, head.predict_rows(found.features, found.judged.rows))
    np.testing.assert_allclose(found.out_of_fold.outputs, found.judged.outputs)
    again = find_label_issues(found.out_of_fold, 25)
    assert found.labels.suggested.tolist() == again.suggested.tolist()
    assert found.judged.report.n == len(test)
    assert found.notes[1] == (
        f"the page shows 25 images of split test, of {len(features)} in all, and compares them with each other alone; "
        "featx inspect --page compares all"
    )


def test_images_with_a_finding_are_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    features = photos(train=30, test=40, gap=1.0)
    X = features.features.copy()
    X[-1], X[-2] = X[3], X[3] + 1e-4
    features = dataclasses.replace(features, features=X)
    found = inspected(features, Head("logreg"))
    order = fitted._worth_reading(found)
    assert sorted(order.tolist()) == list(range(len(features)))
    ranked = len(found.labels.ranked)
    assert order[:ranked].tolist() == found.labels.ranked.tolist()
    monkeypatch.setattr(fitted, "MOST_READ", ranked)
    found = inspected(features, Head("logreg"))
    asked = set(found.labels.ranked.tolist())
    assert {row for row, why in found.pixels.why.items() if why == "the image was not read"} == (
        set(range(len(features))) - asked
    )
    assert found.pixels.unread == len(asked)
