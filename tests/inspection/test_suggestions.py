"""Which images to label next."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import write_image
from made import in_views, photos
from task_features import TASKS

import featx
from featx.errors import CacheMissError, HeadError, SettingsError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inspection.suggestions import suggest


def hidden(features: FeatureSet, shown: int = 0) -> FeatureSet:
    """The same with the labels of all but the first so many training images taken away."""
    labels = features.labels.copy()
    labels[np.flatnonzero(features.splits == "train")[shown:]] = -1
    return dataclasses.replace(features, labels=labels)


def test_without_labels_one_image_of_each_cluster_comes_first() -> None:
    features = photos(gap=30.0)
    found = suggest(hidden(features), budget=3)
    assert sorted(features.labels[found.rows].tolist()) == [0, 1, 2]
    assert found.stands_for.tolist() == [20, 20, 20]
    assert found.why.tolist() == ["stands for 20 images"] * 3
    assert found.head is None
    assert "no training image has a label, so the centres of the set are suggested" in found.notes


def test_with_labels_images_that_the_head_is_unsure_of_come_first() -> None:
    features = photos(gap=2.0, train=60)
    found = suggest(hidden(features, 60), budget=10)
    margin = np.sort(found.head.predict_proba(features.features[found.rows]), axis=1)
    rest = np.setdiff1d(np.flatnonzero(features.splits == "train")[60:], found.rows)
    others = np.sort(found.head.predict_proba(features.features[rest]), axis=1)
    assert (margin[:, -1] - margin[:, -2]).mean() < (others[:, -1] - others[:, -2]).mean() - 0.1
    assert found.labelled == 60
    assert found.unlabelled == 120
    assert any(why.startswith("unsure: ") for why in found.why)
    assert np.allclose(found.probability, margin[:, -1])


def test_images_that_judge_are_not_chosen_but_drawn_at_random() -> None:
    features = hidden(photos())
    features = dataclasses.replace(features, labels=np.full(len(features), -1))
    found = suggest(features, budget=5, test=4)
    assert (features.splits[found.rows[:5]] == "train").all()
    assert (features.splits[found.rows[5:]] == "test").all()
    assert found.why[5:].tolist() == ["drawn at random, to judge heads"] * 4
    assert suggest(features, budget=5, test=4, seed=1).rows[5:].tolist() != found.rows[5:].tolist()
    assert any(
        "no head can be judged; --test 45 also draws 45 images of test" in note for note in suggest(features).notes
    )
    assert "split test has 45 images without a label, fewer than the 60 to draw" in suggest(features, test=60).notes


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_suggestions_with_predictions_as_a_table_has_them(task: str) -> None:
    features = TASKS[task]()
    found = suggest(hidden(features, 30), budget=7, task=task)
    assert len(set(found.rows.tolist())) == 7
    assert found.head.task_ == task
    assert (found.predicted != "").all()
    if task == "regression":
        assert np.isnan(found.probability).all()
        assert all(np.isfinite(float(value)) for value in found.predicted)
    else:
        assert ((found.probability > 0) & (found.probability <= 1)).all()
    if task == "multilabel":
        assert set(found.predicted.tolist()) <= {"|", "cat", "dog", "cat|dog"}


def test_a_given_head_predicts_and_must_fit_the_features() -> None:
    features = photos()
    head = Head("ridge").fit(features)
    assert suggest(hidden(features), head=head, budget=2).head is head
    other = dataclasses.replace(hidden(features), identity="beef" * 16)
    with pytest.raises(StaleCacheError, match="was fitted to other features"):
        suggest(other, head=head)


def test_a_head_that_cannot_be_fitted_leaves_the_cover() -> None:
    features = photos(gap=30.0)
    labels = np.where(features.labels == 0, 0, -1)
    found = suggest(dataclasses.replace(features, labels=labels), budget=2)
    assert sorted(features.labels[found.rows].tolist()) == [1, 2]
    assert any(note.startswith("no head can be fitted, so images unlike the labelled ones") for note in found.notes)


def test_a_budget_above_the_pool_suggests_all() -> None:
    found = suggest(hidden(photos()), budget=500)
    assert sorted(found.rows.tolist()) == list(range(60))
    assert "only 60 images without a label can be chosen, and all are suggested" in found.notes


def test_images_without_finite_features_are_left_out() -> None:
    features = hidden(photos())
    features.features[3] = np.nan
    found = suggest(features, budget=60)
    assert 3 not in found.rows
    assert any(note.startswith("the features of 1 image without a label are NaN or infinite") for note in found.notes)


def test_copies_of_one_image_are_suggested_once() -> None:
    features = hidden(photos(gap=5.0))
    features.features[:30] = features.features[0]
    found = suggest(features, budget=31)
    assert np.count_nonzero(found.rows < 30) == 1


def test_groups_are_respected() -> None:
    groups = np.array([f"p{row // 6}" for row in range(105)], dtype=object)
    features = dataclasses.replace(hidden(photos()), groups=groups, group="patient")
    rows = suggest(features, budget=10, group="patient").rows
    assert len(set(groups[rows])) == 10


def test_views_and_single_images_work() -> None:
    features = in_views(photos())
    assert len(suggest(hidden(features, 20), budget=4)) == 4
    one = hidden(photos()).take(np.array([0]))
    assert suggest(one, budget=4).rows.tolist() == [0]


def test_what_cannot_be_suggested_is_an_error() -> None:
    features = photos()
    with pytest.raises(HeadError, match="all 105 images have a label, so there is none to suggest"):
        suggest(features)
    judging = dataclasses.replace(features, labels=np.where(features.splits == "test", -1, features.labels))
    with pytest.raises(HeadError, match="the 45 images without a label are in val or test, which judge heads"):
        suggest(judging)
    assert len(suggest(judging, test=5)) == 5
    with pytest.raises(SettingsError, match="budget is 0; expected a number of images, at least 1"):
        suggest(features, budget=0)
    with pytest.raises(SettingsError, match="test is -1"):
        suggest(features, test=-1)
    with pytest.raises(SettingsError, match="budget is '3'"):
        suggest(features, budget="3")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="seed is -1; expected 0 to 4294967295"):
        suggest(hidden(features), seed=-1)


def test_a_data_set_without_features_is_an_error(photos: object, tmp_path: object) -> None:
    with pytest.raises(CacheMissError, match=r"has no features of .*; featx extract .* computes them"):
        featx.suggest(str(photos), cache=str(tmp_path))


def test_images_of_other_splits_may_be_chosen() -> None:
    features = photos(gap=30.0)
    splits = features.splits.copy()
    splits[:60] = "unlabelled"
    found = suggest(dataclasses.replace(hidden(features), splits=splits), budget=3)
    assert (found.features.splits[found.rows] == "unlabelled").all()


def test_the_command_names_the_layers_and_views_that_are_stored(tmp_path: Path) -> None:
    for number in range(6):
        write_image(tmp_path / "flat" / f"{number}.png", seed=number)
    network = featx.load_backbone("lenet5", layers=["features.3"], views="flip")
    file = featx.extract(tmp_path / "flat", network, cache=tmp_path / "cache").file
    found = suggest(file, budget=2, out=tmp_path / "todo.csv")
    options = f"--backbone lenet5 --layer features.3 --views flip --cache {tmp_path / 'cache'}"
    assert found.command == f"featx extract {tmp_path / 'todo.csv'} {options}"
