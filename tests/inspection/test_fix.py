"""What a corrected data set holds: duplicates grouped or dropped, leaks moved, accepted labels applied."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from inspections import inspection_of
from made import photos, with_labels

from featx.errors import SettingsError
from featx.features.feature_set import FeatureSet
from featx.inspection.fix import Decisions, Fix, fix


def some(splits: str, labels: str = "", *, groups: Sequence[str] | None = None) -> FeatureSet:
    """Images with splits and labels; - is no label. Row 0 is 0.png."""
    names = splits.split()
    strings = labels.split() or ["ant" if row % 2 else "bee" for row in range(len(names))]
    features = with_labels(photos(classes=("x",), train=len(names), test=0, dim=3), strings)
    return dataclasses.replace(
        features,
        splits=np.array(names, dtype=object),
        labels=np.where(np.array(strings) == "-", -1, features.labels),
        groups=None if groups is None else np.array(groups, dtype=object),
        group=None if groups is None else "patient",
    )


def fixed(features: FeatureSet, pairs: Sequence[tuple[int, int]] = (), **options: Any) -> Fix:
    made = {name: options.pop(name) for name in ("suggested", "sizes", "task") if name in options}
    return fix(inspection_of(features, pairs, **made), **options)


def test_duplicates_get_a_group_named_by_their_content_and_other_images_none() -> None:
    features = some("train train train train train", "a b a a a")
    result = fixed(features, [(0, 2), (2, 3)])
    name = f"dup-{min(bytes(features.keys[row]).hex() for row in (0, 2, 3))}"
    assert result.groups.tolist() == [name, "", name, name, ""]
    assert (result.relabelled, result.moved, result.dropped, result.notes) == (0, 0, {}, ())
    assert result.changes.tolist() == [""] * 5


def test_groups_of_the_user_are_kept_and_joined_by_duplicates() -> None:
    features = some("train train train train train", "a a a a a", groups=["p2", "p1", "p3", "", ""])
    assert fixed(features, [(0, 1), (3, 4)]).groups[:3].tolist() == ["p1", "p1", "p3"]
    assert fixed(features, [(2, 3)]).groups.tolist() == ["p2", "p1", "p3", "p3", ""]


def test_leaks_move_to_the_earliest_split_of_their_chain() -> None:
    features = some("train test test val test test", "a a a a a a")
    result = fixed(features, [(0, 1), (1, 2), (3, 4)])
    assert result.splits.tolist() == ["train", "train", "train", "val", "val", "test"]
    assert result.changes.tolist() == ["", "split: test -> train", "split: test -> train", "", "split: test -> val", ""]
    assert (result.moved, len(result.rows)) == (3, 6)


def test_a_whole_group_of_the_user_moves_with_its_leaked_image() -> None:
    features = some("train test test test", "a a a a", groups=["", "p1", "p1", ""])
    assert fixed(features, [(0, 1)]).splits.tolist() == ["train", "train", "train", "test"]


def test_dropped_leaks_leave_the_test_set_whole() -> None:
    features = some("train test train val train test", "a a a a a a")
    result = fixed(features, [(0, 1), (2, 3), (0, 2)], leaks="drop")
    assert result.rows.tolist() == [1, 3, 4, 5]
    assert result.dropped == {"a duplicate in test": 1, "a duplicate in val": 1}
    assert result.groups.tolist() == [""] * 4


def test_kept_leaks_stay_and_belong_to_no_common_group() -> None:
    features = some("train test train", "a a a")
    result = fixed(features, [(0, 1), (0, 2)], leaks="keep")
    assert result.splits.tolist() == ["train", "test", "train"]
    assert result.groups[0] == result.groups[2] != ""
    assert result.groups[1] == ""


def test_moving_may_not_empty_the_test_set() -> None:
    features = some("train train test test", "a a a a")
    with pytest.raises(SettingsError, match=r"2 of 2 labelled images of split test .* --leaks drop keeps them"):
        fixed(features, [(0, 2), (1, 3)])
    assert fixed(features, [(0, 2), (1, 3)], leaks="drop").rows.tolist() == [2, 3]


def test_moves_that_leave_less_than_half_of_a_split_are_warned_of() -> None:
    features = some("train train train val test test", "a a a a a a")
    (note,) = fixed(features, [(0, 3)]).notes
    assert note.startswith(
        "Warning: 1 of 1 labelled image of split val has a duplicate in an earlier split and was moved"
    )


def test_groups_in_several_splits_are_noted() -> None:
    decisions = Decisions(groups={0: "g", 2: "g"})
    assert fixed(some("train train test", "a b a"), decisions=decisions, leaks="keep").notes == (
        "1 group has images in more than one split, which featx fit-head --group refuses",
    )


def test_unlabelled_images_and_other_splits_are_not_moved() -> None:
    features = some("train test fold7 pretrain test", "a - a a a")
    result = fixed(features, [(0, 1), (0, 2), (0, 3)])
    assert (result.moved, result.splits.tolist()) == (0, ["train", "test", "fold7", "pretrain", "test"])
    assert len(set(result.groups[:4].tolist())) == 1


def test_dropped_duplicates_leave_the_largest_image_of_each_set() -> None:
    features = some("train train train train", "a a a a")
    sizes = np.array([[10, 10], [30, 30], [20, 20], [5, 5]])
    assert fixed(features, [(0, 1), (1, 2)], duplicates="drop", sizes=sizes).rows.tolist() == [1, 3]
    chain = fixed(features, [(0, 1), (1, 2)], duplicates="drop")
    assert chain.rows.tolist() == [0, 2, 3]  # 0 and 2 are no duplicates of each other
    assert chain.dropped == {"a duplicate of an image that remains": 1}


def test_a_labelled_image_remains_rather_than_an_unlabelled_duplicate() -> None:
    features = some("train train train", "- a a")
    assert fixed(features, [(0, 1)], duplicates="drop", sizes=np.array([[9, 9], [1, 1], [1, 1]])).rows.tolist() == [
        1,
        2,
    ]


def test_duplicates_with_different_labels_are_kept_and_reported() -> None:
    features = some("train train train train", "a b a a")
    result = fixed(features, [(0, 1), (2, 3)], duplicates="drop")
    assert result.rows.tolist() == [0, 1, 2]
    assert result.conflicts.tolist() == [0, 1]
    assert len({*result.groups[:2].tolist()}) == 1


def test_accepted_labels_are_applied_in_order_to_training_images_alone() -> None:
    features = some("train test train train train", "a a a a a")
    suggested = {1: "b", 2: "b", 0: "c", 3: "b"}
    result = fixed(features, suggested=suggested, accept=2)
    assert result.labels.tolist() == ["c", "a", "b", "a", "a"]
    assert (result.relabelled, result.changes[2]) == (2, "label: a -> b")
    assert fixed(features, suggested=suggested, accept=9).notes == (
        "training images have 3 suggestions, fewer than the 9 to accept",
    )


def test_as_many_are_accepted_as_confident_learning_expects() -> None:
    features = some("train test train train", "a a a a")
    inspection = inspection_of(features, suggested={1: "b", 2: "b", 0: "c", 3: "b"})
    assert inspection.labels is not None
    inspection.labels.is_issue[3] = False
    assert fix(inspection, accept="expected").labels.tolist() == ["c", "a", "b", "a"]
    assert fixed(features, accept="expected").notes == ("no label was judged, so none is accepted",)


def test_an_accepted_label_resolves_a_conflict_before_duplicates_are_dropped() -> None:
    features = some("train train train", "a b a")
    result = fixed(features, [(0, 1)], suggested={1: "a"}, accept=1, duplicates="drop")
    assert (result.rows.tolist(), result.conflicts.tolist()) == ([0, 2], [])


def test_decisions_come_first_and_are_not_overruled_by_suggestions() -> None:
    features = some("train train train test", "a b a a")
    decisions = Decisions(labels={0: "b", 1: "b"}, splits={2: "test"}, groups={3: "g"}, dropped=frozenset({1}))
    result = fixed(features, suggested={0: "c", 1: "c"}, accept=5, decisions=decisions)
    assert result.rows.tolist() == [0, 2, 3]
    assert (result.labels.tolist(), result.splits.tolist()) == (["b", "a", "a"], ["train", "test", "test"])
    assert (result.groups.tolist(), result.dropped) == (["", "", "g"], {"left out by a decision": 1})


def test_a_label_may_be_taken_away() -> None:
    result = fixed(some("train test", "a a"), decisions=Decisions(labels={0: ""}))
    assert (result.labels.tolist(), result.changes[0]) == (["", "a"], "label: a -> none")


def test_classes_that_lose_their_training_images_are_named() -> None:
    features = some("train test train test", "a a b b")
    assert fixed(features, [(0, 1)], leaks="drop").notes == (
        "Warning: 1 class of val or test lost all training images: a",
    )


def test_values_of_a_regression_conflict_as_leaks_have_it() -> None:
    features = some("train train train train", "1 1.01 9 1.0")
    result = fixed(features, [(0, 1), (0, 2), (0, 3)], task="regression", duplicates="drop")
    assert (result.rows.tolist(), result.conflicts.tolist()) == ([0, 2], [0, 2])


def test_lists_of_labels_are_compared_as_sets() -> None:
    features = some("train train train train", "cat|dog dog|cat cat 5|6")
    assert fixed(features, [(0, 1), (0, 2)], duplicates="drop").rows.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duplicates": "merge"}, "duplicates is 'merge'; expected one of group, drop"),
        ({"leaks": "train"}, "leaks is 'train'; expected one of move, drop, keep"),
        ({"accept": -1}, "accept is -1; expected a number of suggestions, at least 0, or 'expected'"),
        ({"accept": "all"}, "accept is 'all'; expected a number"),
        ({"accept": 1}, "no label was judged, so there are no suggestions to accept"),
    ],
)
def test_unknown_ways_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        fixed(some("train test"), **options)
