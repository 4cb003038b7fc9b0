"""From label strings to what a head learns to say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.targets import known_labels, label_sets, require_train_classes, targets_of, task_of


def labelled(*strings: str | None, splits: str = "") -> FeatureSet:
    """Features of rows with these labels, None for none; splits by their first letters (r, v, t)."""
    classes = tuple(sorted({string for string in strings if string is not None}))
    names = {"r": "train", "v": "val", "t": "test"}
    return FeatureSet(
        features=np.zeros((len(strings), 2), dtype=np.float32),
        labels=np.array([-1 if string is None else classes.index(string) for string in strings]),
        splits=np.array([names[letter] for letter in splits or "r" * len(strings)], dtype=object),
        classes=classes,
        paths=np.array([f"{row}.png" for row in range(len(strings))], dtype=object),
        keys=np.zeros((len(strings), 16), dtype=np.uint8),
    )


# The task


def test_labels_with_a_bar_are_lists_of_labels() -> None:
    assert task_of(labelled("a", "a|b", "c")) == ("multilabel", ())
    assert task_of(labelled("a", "b")) == ("classification", ())


def test_a_task_that_is_asked_for_is_taken() -> None:
    assert task_of(labelled("a|b", "c"), "classification") == ("classification", ())
    assert task_of(labelled("1", "2"), "regression") == ("regression", ())
    with pytest.raises(
        HeadError, match="no task 'ranking'; expected one of auto, classification, multilabel, regression"
    ):
        task_of(labelled("1", "2"), "ranking")


def test_a_class_that_no_image_has_does_not_decide_the_task() -> None:
    assert task_of(labelled("a", "b", "c|d").take(np.array([0, 1])))[0] == "classification"


def test_many_different_numbers_are_classes_and_a_note_asks() -> None:
    task, (note,) = task_of(labelled(*map(str, range(30))))
    assert task == "classification"
    assert note == (
        "the labels are 30 different numbers on 30 images, and each is taken for a class; if they are values to predict, "
        "say --task regression"
    )
    assert task_of(labelled(*[f"{n}.5" for n in range(12)] * 20))[1] != ()


@pytest.mark.parametrize(
    "strings",
    [[str(n) for n in range(10)], [str(n) for n in range(12)] * 3, [*map(str, range(30)), "unknown"]],
    ids=["few", "often", "not all numbers"],
)
def test_numbers_that_name_classes_are_no_cause_for_a_note(strings: list[str]) -> None:
    assert task_of(labelled(*strings)) == ("classification", ())


# Classes


def test_classes_are_those_that_the_rows_have() -> None:
    rows = labelled("c", "a", "b", "c").take(np.array([0, 1, 3]))
    targets = targets_of(rows, "classification")
    assert targets.names == ("a", "c")
    assert targets.y.tolist() == [1, 0, 1]
    assert targets.y.dtype == np.int64


def test_classes_are_matched_by_name_with_those_that_a_head_knows() -> None:
    targets = targets_of(labelled("c", "a"), "classification", ("a", "b", "c"))
    assert (targets.names, targets.y.tolist()) == (("a", "b", "c"), [2, 0])
    with pytest.raises(
        HeadError, match=r"1 image of the split 'test' is of a class that the head was not fitted to \(c\)"
    ):
        targets_of(labelled("c", "a"), "classification", ("a", "b"), where="the split 'test'")
    assert known_labels(np.array([1, 0]), ("x", "y"), ("y", "x"), where="").tolist() == [0, 1]


def test_one_class_is_nothing_to_learn() -> None:
    with pytest.raises(HeadError, match="the split 'train' has one class only, 'a'; expected at least two"):
        targets_of(labelled("a", "a"), "classification", where="the split 'train'")


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_rows_without_a_label_are_no_targets(task: str) -> None:
    with pytest.raises(HeadError, match=r"1 image of this set has no label; FeatureSet\.split takes those"):
        targets_of(labelled("1", "2", None), task)


# Lists of labels


def test_lists_are_taken_apart_at_bars() -> None:
    targets = targets_of(labelled("dog|cat", "cat", " emu |dog| ", "|"), "multilabel")
    assert targets.names == ("cat", "dog", "emu")
    assert targets.y.tolist() == [[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert targets.y.dtype == np.float32


def test_a_label_named_twice_counts_once() -> None:
    assert targets_of(labelled("a|a", "b"), "multilabel").y.tolist() == [[1, 0], [0, 1]]


def test_one_label_that_some_have_can_be_learned() -> None:
    targets = targets_of(labelled("a", "|"), "multilabel")
    assert (targets.names, targets.y.tolist()) == (("a",), [[1], [0]])


def test_labels_are_matched_by_name_with_those_that_a_head_knows() -> None:
    targets = targets_of(labelled("c|a", "|"), "multilabel", ("a", "b", "c"))
    assert targets.y.tolist() == [[1, 0, 1], [0, 0, 0]]
    with pytest.raises(
        HeadError,
        match=r"2 images of the split 'test' have labels that the head was not fitted to \(d, e\); its labels are a, b",
    ):
        targets_of(labelled("a|d", "e|d", "b"), "multilabel", ("a", "b"), where="the split 'test'")


@pytest.mark.parametrize(
    ("strings", "message"),
    [
        (["a|b", "b|a"], r"every image of this set has the same labels \(a, b\), so there is nothing to learn"),
        (["|", "||"], "no image of this set has a label, so there is nothing to learn"),
    ],
)
def test_labels_that_are_all_alike_are_nothing_to_learn(strings: list[str], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        targets_of(labelled(*strings), "multilabel")


def test_sets_of_labels_leave_unlabelled_rows_empty() -> None:
    names, y = label_sets(labelled("b|a", None, "b"))
    assert (names, y.tolist()) == (("a", "b"), [[1, 1], [0, 0], [0, 1]])


# Numbers


def test_numbers_are_read_as_they_stand() -> None:
    targets = targets_of(labelled("3.5", "-2", "1e3", "3.50"), "regression")
    assert (targets.names, targets.y.tolist()) == (("value",), [[3.5], [-2.0], [1000.0], [3.5]])
    assert targets.y.dtype == np.float64


@pytest.mark.parametrize("bad", ["nan", "inf", "-Infinity", "tall", "1_000", "5 cm"])
def test_what_is_no_finite_number_is_shown_and_counted(bad: str) -> None:
    with pytest.raises(
        HeadError,
        match=rf"2 of 3 images of this set have labels that are not finite numbers \('{bad}'\), which --task .* requires\.",
    ):
        targets_of(labelled("1", bad, bad), "regression")


def test_a_decimal_comma_is_hinted_at() -> None:
    with pytest.raises(
        HeadError, match=r"\('2,5'\), which --task regression requires: write decimals with a point, 3\.5 for 3,5\. "
    ):
        targets_of(labelled("1", "2,5"), "regression")


def test_one_value_is_nothing_to_learn_but_can_be_judged() -> None:
    with pytest.raises(HeadError, match="every image of this set has the value 7, so there is nothing to learn"):
        targets_of(labelled("7", "7.0"), "regression")
    assert targets_of(labelled("7", "7"), "regression", ("value",)).y.tolist() == [[7], [7]]


# What is judged must have been there to learn


def test_a_class_to_be_judged_and_not_in_train_is_an_error_that_counts_it() -> None:
    features = labelled("a", "b", "emu", "emu", "yak", splits="rrvtt")
    with pytest.raises(
        HeadError,
        match=r"2 classes have images in val or test but none in train: emu \(1 in val and 1 in test\), yak \(1 in test\)",
    ):
        require_train_classes(features, "classification")
    require_train_classes(labelled("a", "b", "b", "a", splits="rrvt"), "classification")
    require_train_classes(labelled("a", "b", splits="vt"), "classification")  # nothing in train is said elsewhere


@pytest.mark.parametrize(
    ("strings", "hint"), [(["1.5", "2.5", "3.5"], "--task regression"), (["a", "b", "a|b"], "--task multilabel")]
)
def test_labels_that_are_no_classes_are_hinted_at(strings: list[str], hint: str) -> None:
    with pytest.raises(HeadError, match=rf"remove these; if they are .*, use {hint}"):
        require_train_classes(labelled(*strings, splits="rrt"), "classification")


def test_lists_of_labels_are_compared_label_by_label() -> None:
    require_train_classes(labelled("a", "b", "a|b", splits="rrt"), "multilabel")
    with pytest.raises(HeadError, match=r"1 label has images .*: c \(2 in test\)\. Add .* or remove these$"):
        require_train_classes(labelled("a", "b", "a|c", "c", splits="rrtt"), "multilabel")


def test_numbers_need_not_have_been_there() -> None:
    require_train_classes(labelled("1", "2", "3", splits="rrt"), "regression")


# Numbers of a table


def of_table(*strings: str | None) -> FeatureSet:
    return dataclasses.replace(labelled(*strings), dataset={"name": "t", "root": "/t", "table": "/t/t.csv"})


@pytest.mark.parametrize(
    "strings",
    [
        [str(n) for n in range(95)] * 4,
        [f"{n}.5" for n in range(11)] * 20,
        [str(n) for n in range(-5, 6)] * 9,
        [f"{n}e3" for n in range(12)],
    ],
    ids=["ages", "decimals", "negative", "once each"],
)
def test_many_different_numbers_of_a_table_may_be_classes_or_values_so_the_task_is_asked_for(
    strings: list[str],
) -> None:
    features = of_table(*strings)
    count = len(set(strings))
    message = (
        rf"the labels are {count} different numbers on {len(strings)} images of t\.csv, which may be classes or values "
        r"to predict; expected --task classification or --task regression \(in Python: task=\.\.\.\)"
    )
    with pytest.raises(HeadError, match=message):
        task_of(features)
    task, (note,) = task_of(features, ask=False)
    assert task == "classification"
    assert note.endswith("each is taken for a class; if they are values to predict, say --task regression")
    assert task_of(features, "classification") == ("classification", ())
    assert task_of(features, "regression") == ("regression", ())


@pytest.mark.parametrize(
    "strings",
    [[str(n) for n in range(10)] * 5, [f"{n:03}" for n in range(95)], [*map(str, range(95)), "other"]],
    ids=["digits", "padded", "a name among them"],
)
def test_numbers_of_a_table_that_can_only_name_classes_are_classes(strings: list[str]) -> None:
    assert task_of(of_table(*strings)) == ("classification", ())
