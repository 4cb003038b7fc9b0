"""Duplicates across splits or with different labels, and the accuracy with and without them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from inspections import duplicates_of
from made import photos, with_labels
from task_features import TASKS

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inspection.leaks import find_leaks
from featx.metrics.classification import ClassificationReport


def four(splits: str = "train train test val", labels: str = "ant bee ant ant") -> FeatureSet:
    """Four images with splits and labels; - is no label."""
    names = labels.split()
    features = with_labels(photos(classes=("x",), train=2, test=2, dim=3), names)
    numbers = np.where(np.array(names) == "-", -1, features.labels)
    return dataclasses.replace(features, splits=np.array(splits.split(), dtype=object), labels=numbers)


def test_pairs_in_two_splits_are_leaks_and_name_the_closest_training_image() -> None:
    features = four()
    leaks = find_leaks(features, duplicates_of(features, [(0, 2), (1, 2), (0, 3), (2, 3), (0, 1)]))
    assert leaks.across.tolist() == [0, 1, 2, 3]
    assert leaks.between == {"train-val": 1, "train-test": 2, "val-test": 1}
    assert (leaks.held_out, leaks.leaked.tolist()) == ("test", [2])
    assert leaks.is_leaked.tolist() == [False, False, True, True]
    assert leaks.leaked_from.tolist() == ["", "", "0.png", "0.png"]


def test_pairs_of_one_split_or_of_other_splits_are_no_leaks() -> None:
    features = four("train train pretrain fold7")
    leaks = find_leaks(features, duplicates_of(features, [(0, 1), (0, 2), (1, 3)]))
    assert (leaks.across.tolist(), leaks.held_out, leaks.leaked.tolist(), leaks.between) == ([], "", [], {})


def test_unlabelled_images_neither_leak_nor_contradict() -> None:
    features = four(labels="- bee ant bee")
    leaks = find_leaks(features, duplicates_of(features, [(0, 2), (1, 3)]))
    assert (leaks.across.tolist(), leaks.conflicts.tolist()) == ([1], [])
    assert leaks.leaked.tolist() == []


def test_pairs_with_different_labels_are_conflicts() -> None:
    features = four("train train train train")
    leaks = find_leaks(features, duplicates_of(features, [(0, 2), (0, 1), (2, 3)]))
    assert leaks.conflicts.tolist() == [1]
    assert leaks.conflicting_label.tolist() == [True, True, False, False]
    assert {name: len(column) for name, column in leaks.columns().items()} == {
        "is_leaked": 4, "leaked_from": 4, "conflicting_label": 4,
    }  # fmt: skip


def test_lists_of_labels_are_compared_as_sets() -> None:
    features = four("train train train train", "cat|dog dog|cat cat dog|")
    leaks = find_leaks(features, duplicates_of(features, [(0, 1), (0, 2)]))
    assert leaks.conflicts.tolist() == [1]


def test_close_values_contradict_only_between_exact_copies() -> None:
    features = four("train train train train", "1.0 1 1.01 9")
    near = duplicates_of(features, [(0, 1), (0, 2), (0, 3)])
    assert find_leaks(features, near, task="regression").conflicts.tolist() == [2]
    copies = dataclasses.replace(features, keys=np.zeros_like(features.keys))
    assert find_leaks(copies, duplicates_of(copies, [(0, 1), (0, 2)]), task="regression").conflicts.tolist() == [1]


def test_the_head_is_judged_with_and_without_the_leaked_images() -> None:
    features = photos(gap=1.0)
    test = features.rows("test")
    copied = features.features.copy()
    copied[test[:10]] = copied[:10] = copied[test[:10]] + 50 * np.arange(10)[:, None]  # easy to memorise
    features = dataclasses.replace(features, features=copied)
    head = Head("knn", k=1).fit(features)
    leaks = find_leaks(features, duplicates_of(features, [(row, int(test[row])) for row in range(10)]), head=head)
    assert isinstance(leaks.report, ClassificationReport)
    assert isinstance(leaks.report_without, ClassificationReport)
    clean = head.evaluate(features, rows=test[10:])
    assert (leaks.report.n, leaks.report_without.n) == (45, 35)
    assert leaks.report.accuracy == head.evaluate(features).accuracy
    assert (leaks.report_without.accuracy, leaks.report_without.interval) == (clean.accuracy, clean.interval)
    assert leaks.report_without.accuracy < leaks.report.accuracy


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_judged(task: str) -> None:
    features = TASKS[task]()
    test = features.rows("test")
    head = Head("ridge", task=task).fit(features)
    leaks = find_leaks(features, duplicates_of(features, [(0, int(test[0])), (1, int(test[1]))]), head=head)
    assert leaks.report is not None
    assert leaks.report_without is not None
    assert leaks.report_without.n == leaks.report.n - 2 == len(test) - 2


def test_images_that_the_head_cannot_be_judged_on_are_counted_in_a_note() -> None:
    features = photos()
    strange = np.array(["ant", "bee", "cat", "dog"])[features.labels]
    strange[-1] = "dog"
    broken = features.features.copy()
    broken[-2] = np.nan
    features = with_labels(dataclasses.replace(features, features=broken), strange.tolist())
    test = features.rows("test")
    head = Head("ridge", C=0.1).fit(features)
    leaks = find_leaks(features, duplicates_of(features, [(0, int(test[0]))]), head=head)
    assert leaks.report is not None
    assert leaks.report.n == len(test) - 2
    assert leaks.report.notes == ("2 images of split test cannot be judged by this head",)


def test_nothing_is_judged_without_leaks_and_nothing_is_left_where_all_leak() -> None:
    features = photos(train=4, test=1)
    head = Head("ridge", C=0.1).fit(features)
    none = find_leaks(features, duplicates_of(features, [(0, 1)]), head=head)
    assert (none.report, none.report_without) == (None, None)
    every = find_leaks(features, duplicates_of(features, [(0, 12), (1, 13), (2, 14)]), head=head)
    assert every.report is not None
    assert (every.report.n, every.report_without) == (3, None)


def test_a_set_without_duplicates_has_no_leaks() -> None:
    features = photos()
    leaks = find_leaks(features, duplicates_of(features, []))
    assert (len(leaks.across), len(leaks.conflicts), len(leaks.leaked), leaks.held_out) == (0, 0, 0, "test")
    assert not leaks.is_leaked.any()
