"""Groups of a column of the table, and the splits of a task."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from listings import keys_named, words
from made import photos

from featx.data.splits import hash_group_splits, hash_splits
from featx.errors import DatasetError, HeadError
from featx.features.feature_set import FeatureSet
from featx.heads import groups
from featx.heads.groups import (
    match_groups,
    notes_on_splits,
    read_column,
    row_groups,
    splits_for,
    with_groups,
    with_splits,
)
from featx.heads.head import Head
from featx.metrics.grouped import proportion_interval


def pets(labels: list[int], classes: tuple[str, ...], **changes: object) -> FeatureSet:
    count = len(labels)
    features = FeatureSet(
        features=np.zeros((count, 2), dtype=np.float32),
        labels=np.array(labels),
        splits=np.array(["train"] * count, dtype=object),
        classes=classes,
        paths=np.array([f"{row}.png" for row in range(count)], dtype=object),
        keys=keys_named(*range(count)),
        dataset={"name": "pets", "root": "/pets", "splits": "hash"},
    )
    return dataclasses.replace(features, **changes)  # type: ignore[arg-type]


# A column of the table


def with_table(path: Path, text: str) -> FeatureSet:
    path.write_text(text)
    return pets([0, 1, 0], ("a", "b"), dataset={"root": str(path.parent), "splits": "given", "table": str(path)})


def test_a_column_is_joined_by_path_whatever_the_order_of_the_table(tmp_path: Path) -> None:
    features = with_table(tmp_path / "t.csv", "path,label,who\n2.png,a,  z \n./0.png,a,x\n1.png,b,\nother.png,b,y\n")
    assert read_column(features, "who").tolist() == ["x", "", "z"]


def test_a_column_may_stand_in_a_table_of_its_own(tmp_path: Path) -> None:
    rows = [{"path": "1.png"}, {"path": "0.png", "who": 7}, {"path": "2.png", "who": "é"}]
    (tmp_path / "groups.jsonl").write_text("\n".join(map(json.dumps, rows)))
    features = pets([0, 1, 0], ("a", "b"))
    assert read_column(features, "who", table=tmp_path / "groups.jsonl").tolist() == ["7", "", "é"]


def test_a_column_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    features = with_table(tmp_path / "t.csv", "path,label,split,scene,who\n0.png,a,train,s,x\n")
    with pytest.raises(
        HeadError, match=r"t\.csv has no column 'patient'; .* it has 'scene', 'who'\. .* with --group, or"
    ):
        read_column(features, "patient")
    features = with_table(tmp_path / "t.csv", "path,label\n0.png,a\n")
    with pytest.raises(HeadError, match=r"it has none\. Name one of them with --by, or another table with --table"):
        read_column(features, "patient", option="--by")


def test_images_that_the_table_does_not_name_are_counted(tmp_path: Path) -> None:
    features = with_table(tmp_path / "t.csv", "path,label,who\n1.png,a,x\n")
    with pytest.raises(HeadError, match=r"t\.csv lacks 2 of 3 images \(0\.png, 2\.png\); .* --table"):
        read_column(features, "who")


def test_an_image_of_two_values_is_an_error_that_names_both_lines(tmp_path: Path) -> None:
    features = with_table(tmp_path / "t.csv", "path,who\n0.png,x\n1.png,x\n2.png,x\n./0.png,y\n")
    with pytest.raises(HeadError, match=r"'0\.png' has the who 'x' on line 2 but 'y' on line 5; keep one"):
        read_column(features, "who")


def test_features_without_a_table_say_how_one_is_named() -> None:
    with pytest.raises(
        HeadError,
        match=r"no table to read the column 'who' from: .* Name one with --table FILE: .*\(relative to /pets\)",
    ):
        read_column(pets([0], ("a",)), "who")


def test_a_table_that_is_gone_or_none_is_never_waited_for(tmp_path: Path) -> None:
    features = with_table(tmp_path / "t.csv", "path,who\n")
    (tmp_path / "t.csv").unlink()
    with pytest.raises(HeadError, match=r"cannot read the column 'who' from the table .*t\.csv: there is no such file"):
        read_column(features, "who")
    os.mkfifo(tmp_path / "t.csv")  # opening it would wait for ever
    with pytest.raises(HeadError, match="it is not a regular file; name another with --table"):
        read_column(features, "who")
    (tmp_path / "passwd").write_text("root:x:0")
    with pytest.raises(HeadError, match=r"passwd: its name does not end in \.csv"):
        read_column(features, "who", table=tmp_path / "passwd")


def test_groups_are_attached_once_and_follow_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, read_cells = [], groups.read_cells
    monkeypatch.setattr(groups, "read_cells", lambda *args: read.append(args) or read_cells(*args))
    features = with_table(tmp_path / "t.csv", "path,who,site\n0.png,x,s\n1.png,,s\n2.png,x,t\n")
    assert with_groups(features, None) is features
    grouped = with_groups(features, "who")
    assert (grouped.group, grouped.groups.tolist()) == ("who", ["x", "", "x"])
    assert with_groups(grouped, "who") is grouped
    assert len(read) == 1
    assert grouped.take(np.array([2, 1])).groups.tolist() == ["x", ""]
    assert grouped.without_features(np.array([0])).group == "who"
    assert row_groups(grouped, np.arange(3)).tolist() == [0, 1, 0]
    assert row_groups(features, np.arange(3)).tolist() == [0, 1, 2]
    assert with_groups(grouped, "site").groups.tolist() == ["s", "s", "t"]
    (tmp_path / "u.csv").write_text("path,who\n0.png,a\n1.png,b\n2.png,c\n")
    assert with_groups(grouped, "who", tmp_path / "u.csv").groups.tolist() == ["a", "b", "c"]


def test_features_get_the_groups_that_a_head_was_fitted_with(tmp_path: Path) -> None:
    features = with_table(tmp_path / "t.csv", "path,who,site\n0.png,x,s\n1.png,,s\n2.png,x,t\n")
    assert match_groups(features, None) is features
    assert match_groups(features, "who").groups.tolist() == ["x", "", "x"]
    grouped = with_groups(features, "site")
    assert match_groups(grouped, "site") is grouped
    plain = match_groups(grouped, None)
    assert (plain.groups, plain.group) == (None, None)
    anonymous = dataclasses.replace(features, groups=words("p", "p", "q"))
    assert match_groups(anonymous, None) is anonymous


def test_splits_of_a_task_replace_those_of_the_features(tmp_path: Path) -> None:
    features = pets([0, 1] * 20, ("a", "b"), groups=words(*["p", "q"] * 20), group="who")
    split = with_splits(features, "classification")
    np.testing.assert_array_equal(split.splits, splits_for(features, "classification"))
    assert split.groups is features.groups


def test_a_table_without_paths_is_malformed(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no column path; found 'where', 'who'"):
        read_column(with_table(tmp_path / "t.csv", "where,who\n0.png,x\n"), "who")


# Splits of a task


def test_splits_by_content_stay_for_classes_of_images_that_stand_alone() -> None:
    labels = [row % 3 for row in range(60)]
    features = pets(labels, ("a", "b", "c"), splits=words(*hash_splits(keys_named(*range(60)), np.array(labels))))
    assert splits_for(features, "classification") is features.splits


def test_splits_by_content_that_tear_copies_apart_are_made_again() -> None:
    keys = keys_named(*range(40)).copy()
    labels = np.arange(40) // 20
    keys[20] = keys[0]
    splits = hash_splits(keys, labels)
    splits[0], splits[20] = "test", "train"
    features = pets(labels.tolist(), ("a", "b"), keys=keys, splits=splits.astype(object))
    np.testing.assert_array_equal(splits_for(features, "classification"), hash_group_splits(keys, None, labels))


def test_splits_by_content_are_made_again_for_numbers_which_are_no_classes() -> None:
    count = 300
    classes = tuple(sorted(f"{row / 7:.4f}" for row in range(count)))
    keys, labels = keys_named(*range(count)), np.arange(count)
    features = pets(labels.tolist(), classes, splits=hash_splits(keys, labels).astype(object))
    assert set(features.splits) == {"train"}  # each number a class of one image
    splits = splits_for(features, "regression")
    np.testing.assert_array_equal(splits, hash_splits(keys, np.zeros(count, np.int64)))
    assert {"train", "val", "test"} == set(splits)


def test_splits_by_content_give_each_label_of_a_list_images_in_train() -> None:
    rng = np.random.default_rng(0)
    strings = ["|".join(f"l{n}" for n in rng.integers(0, 30, 2)) for _ in range(60)] + ["rare|l0", "|"]
    classes = tuple(sorted(set(strings)))
    features = pets([*(classes.index(name) for name in strings), -1], classes)
    splits = splits_for(features, "multilabel")
    assert "test" in splits
    parts = [set(name.split("|")) - {""} for name in strings]
    trained = set().union(*(p for p, split in zip(parts, splits, strict=False) if split == "train"))
    assert trained == set().union(*parts)


def test_splits_by_content_are_made_again_by_group() -> None:
    column = words(*(f"p{row // 10}" for row in range(100)))
    features = pets([row % 2 for row in range(100)], ("a", "b"))
    splits = splits_for(dataclasses.replace(features, groups=column), "classification")
    assert all(len(set(splits[row : row + 10])) == 1 for row in range(0, 100, 10))
    assert {"train", "test"} <= set(splits)


def test_splits_that_the_data_set_names_stay_as_they_are() -> None:
    splits = words("train", "test", "train", "val")
    features = pets([0, 1, 0, 1], ("a", "b"), splits=splits, dataset={"splits": "given"})
    for task in ("classification", "multilabel", "regression"):
        assert splits_for(dataclasses.replace(features, groups=words("p", "q", "p", "r")), task) is splits
    copies = dataclasses.replace(features, keys=keys_named("a", "a", "b", "c"))
    assert splits_for(copies, "classification") is splits  # the verdict counts them


def test_groups_that_named_splits_tear_apart_are_an_error_that_names_a_few() -> None:
    splits = words(*["train", "test"] * 5)
    column = words(*(f"p{row // 2}" for row in range(10)))
    features = pets([0] * 10, ("a",), splits=splits, dataset={"splits": "given"})
    with pytest.raises(
        HeadError,
        match=r"5 of 5 groups have images in more than one split \('p0' in test and train, 'p1' .*'p2' .* and 2 more\)",
    ):
        splits_for(dataclasses.replace(features, groups=column), "classification")


def test_images_that_take_no_part_tear_no_group_apart() -> None:
    splits = words("train", "pretrain", "fold 7", "test")
    features = pets([0, 0, 0, -1], ("a",), splits=splits, dataset={"splits": "given"})
    features = dataclasses.replace(features, groups=words("p", "p", "p", "p"))
    assert splits_for(features, "classification") is splits


@pytest.mark.parametrize(("huge", "test"), [("big0", 7), ("big1", 7)])
def test_a_huge_group_that_makes_splits_uneven_is_named(huge: str, test: int) -> None:
    column = words(*[huge] * 200, *(f"p{row // 10}" for row in range(200, 300)))
    features = pets([row % 2 for row in range(300)], ("a", "b"), groups=column, group="patient")
    split = with_splits(features, "classification")
    (note,) = notes_on_splits(split)
    assert note.startswith(f"the largest group, patient '{huge}', has 200 of 300 images and is in split ")
    assert f"test {test} %" in note
    assert split.splits.tolist() == hash_group_splits(features.keys, column, features.labels).tolist(), "as before"


def test_even_splits_and_named_ones_have_no_note() -> None:
    column = words(*(f"p{row // 5}" for row in range(300)))
    features = pets([row % 2 for row in range(300)], ("a", "b"), groups=column, group="patient")
    assert notes_on_splits(with_splits(features, "classification")) == []
    copies = pets([row % 2 for row in range(300)], ("a", "b"), keys=keys_named(*[0] * 200, *range(1, 101)))
    assert (
        "200 of 300 images are exact copies of one image" in notes_on_splits(with_splits(copies, "classification"))[0]
    )
    given = dataclasses.replace(features, groups=words(*["p"] * 300), dataset={"splits": "given"})
    assert notes_on_splits(given) == []


def test_a_typed_column_groups_by_value_and_a_list_is_no_group(tmp_path: Path) -> None:
    features = pets([0, 1, 0], ("a", "b"))
    file = tmp_path / "groups.jsonl"
    rows = [{"path": "0.png", "who": 7}, {"path": "1.png", "who": 7.0}, {"path": "2.png", "who": float("nan")}]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert read_column(features, "who", table=file).tolist() == ["7", "7", ""]
    file.write_text(json.dumps({"path": "0.png", "who": ["x"]}))
    with pytest.raises(DatasetError, match=r"line 1: the who holds the list \['x'\]; expected text or a number"):
        read_column(features, "who", table=file)


# Reports


def test_a_heads_reports_are_by_groups_and_by_copies() -> None:
    features = photos(train=40, test=40, gap=1.0)
    column = words(*(f"p{row // 6}" for row in range(len(features))))
    grouped = dataclasses.replace(features, groups=column, group="patient")
    head = Head("centroid").fit(grouped, cross_validate=True)
    report, rows, outputs = head.judge(grouped)
    right = outputs.argmax(axis=1) == features.labels[rows]
    assert report.interval == proportion_interval(right, column[rows])
    assert (report.n, report.groups) == (120, 20)
    assert (head.held_out_.n, head.held_out_.groups) == (120, 20)
    copied = dataclasses.replace(features, keys=features.keys[np.arange(len(features)) // 2 * 2])
    assert Head("centroid").fit(copied).evaluate(copied).groups == 60
    assert Head("centroid").fit(features).evaluate(features).groups == 120


def test_a_target_precision_is_kept_by_groups() -> None:
    features = photos(train=200, test=20, gap=3.0)
    alone = Head("centroid", target_precision=0.9).fit(features)
    assert alone.reject_below_ == 0.0
    column = words(*(f"p{row // 60}" for row in range(len(features))))
    with pytest.raises(HeadError, match=r"on the 600 held-out rows in 10 groups\. .* at least 29 accepted groups"):
        Head("centroid", target_precision=0.9).fit(dataclasses.replace(features, groups=column, group="patient"))
