"""Splits by the hash of the content, and groups of images that stay together."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listings import keys_named, keys_of, words

from featx.data.image_set import UNLABELLED
from featx.data.splits import FEW, hash_group_splits, hash_splits, join_groups, quotas, straddling


def key_at(position: float, last: int = 0) -> list[int]:
    """A key whose hash lies at a given share of the range."""
    return [*int(position * 2**64).to_bytes(8, "big"), *[0] * 7, last]


def test_the_shares_of_the_splits_are_about_70_10_and_20_percent() -> None:
    splits = hash_splits(keys_of(20_000), np.arange(20_000) % 4)
    shares = {split: np.mean(splits == split) for split in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.012)
    assert sum(shares.values()) == pytest.approx(1)


def test_an_image_of_a_class_of_100_stays_in_its_split_when_others_are_added() -> None:
    labels = np.arange(1000) % 3
    few, many = hash_splits(keys_of(300), labels[:300]), hash_splits(keys_of(1000), labels)
    np.testing.assert_array_equal(few, many[:300])


@pytest.mark.parametrize("count", [5, 10, 25, 50, 99])
def test_a_small_class_is_divided_by_count(count: int) -> None:
    test, val = {5: (1, 0), 10: (2, 1), 25: (5, 2), 50: (10, 5), 99: (20, 10)}[count]
    for start in range(0, 1000, count):
        splits = hash_splits(keys_of(count, start), np.zeros(count, np.int64)).tolist()
        assert (splits.count("test"), splits.count("val"), splits.count("train")) == (test, val, count - test - val)


def test_an_image_that_is_added_to_a_small_class_moves_at_most_one_other_across_each_boundary() -> None:
    for count in range(1, FEW - 1):
        before, after = (hash_splits(keys_of(n, 7), np.zeros(n, np.int64)) for n in (count, count + 1))
        moved = Counter(zip(before.tolist(), after[:count].tolist(), strict=True))
        assert sum(times for (old, new), times in moved.items() if old != new) <= 2


def test_a_class_that_grows_from_small_to_large_keeps_nearly_all_its_splits() -> None:
    before, after = (hash_splits(keys_of(n), np.zeros(n, np.int64)) for n in (FEW - 1, FEW))
    assert (before != after[: FEW - 1]).mean() < 0.15


def test_large_classes_are_split_as_if_there_were_no_small_ones() -> None:
    labels = np.r_[np.zeros(400, np.int64), np.arange(1, 31).repeat(10)]
    splits = hash_splits(keys_of(700), labels)
    np.testing.assert_array_equal(splits[:400], hash_splits(keys_of(400), labels[:400]))


def test_classes_that_arrive_in_pieces_are_split_as_at_once_when_all_are_known() -> None:
    labels, order = np.arange(200) % 8, np.random.default_rng(0).permutation(200)
    whole = hash_splits(keys_of(200), labels)
    np.testing.assert_array_equal(hash_splits(keys_of(200)[order], labels[order]), whole[order])


def test_copies_with_labels_of_two_small_classes_and_without_a_label_share_a_split() -> None:
    for start in range(0, 2000, 20):
        keys = keys_of(20, start)
        labels = np.arange(20) % 2
        splits = hash_splits(np.concatenate([keys, keys, keys]), np.r_[labels, 1 - labels, np.full(20, UNLABELLED)])
        assert (splits.reshape(3, 20) == splits[:20]).all()


def test_an_image_stays_in_its_split_whatever_its_place_and_label() -> None:
    keys, order = keys_of(500), np.random.default_rng(0).permutation(500)
    splits = hash_splits(keys, np.arange(500) % 2)
    np.testing.assert_array_equal(hash_splits(keys[order], np.arange(500) % 2), splits[order])
    np.testing.assert_array_equal(hash_splits(keys, np.full(500, UNLABELLED)), splits)


def test_copies_of_an_image_share_a_split() -> None:
    for start in range(0, 400, 2):
        keys = np.repeat(keys_of(2, start), 3, axis=0)
        splits = hash_splits(keys, np.zeros(6, np.int64)).reshape(2, 3)
        assert (splits == splits[:, :1]).all()


def test_every_class_of_two_images_or_more_has_train_and_test_images() -> None:
    for count in (2, 3, 5):
        for start in range(0, 1000, count):
            splits = hash_splits(keys_of(count, start), np.zeros(count, np.int64))
            assert {"train", "test"} <= set(splits)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([0.05, 0.1], ["test", "train"]),
        ([0.21, 0.29], ["test", "train"]),
        ([0.9, 0.5, 0.25], ["train", "train", "test"]),
        ([0.1], ["train"]),
        ([0.1, 0.1], ["train", "train"]),
    ],
)
def test_a_class_without_train_or_test_images_gets_those_of_extreme_hash_there(
    positions: list[float], expected: list[str]
) -> None:
    keys = np.array([key_at(position) for position in positions], np.uint8)
    assert hash_splits(keys, np.zeros(len(keys), np.int64)).tolist() == expected


def test_unlabelled_images_are_split_by_their_hash_alone() -> None:
    keys = np.array([key_at(position) for position in (0.05, 0.1, 0.15)], np.uint8)
    assert hash_splits(keys, np.full(3, UNLABELLED)).tolist() == ["test", "test", "test"]
    assert hash_splits(keys, np.array([UNLABELLED, 0, 0])).tolist() == ["test", "test", "train"]


def test_copies_are_a_group() -> None:
    assert join_groups(keys_named("a", "b", "a", "c", "b")).tolist() == [0, 1, 0, 2, 1]


def test_a_copy_in_two_groups_joins_them() -> None:
    keys = keys_named("a", "b", "b", "c", "d")
    assert join_groups(keys, words("p", "p", "q", "q", "r")).tolist() == [0, 0, 0, 0, 1]


def test_unknown_keys_and_empty_values_join_nothing() -> None:
    assert join_groups(np.zeros((3, 16), np.uint8)).tolist() == [0, 1, 2]
    assert join_groups(np.zeros((4, 16), np.uint8), words("", "p", "", "p")).tolist() == [0, 1, 2, 1]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=25))
def test_groups_are_the_connected_parts(rows: list[tuple[int, int]]) -> None:
    column = words(*(f"p{name}" if name else "" for _, name in rows))
    found = join_groups(keys_named(*(key for key, _ in rows)), column)
    expected = list(range(len(rows)))  # by brute force: the lowest number spreads until nothing changes
    for _ in rows:
        for a, (key, name) in enumerate(rows):
            for b, (other_key, other) in enumerate(rows):
                if key == other_key or (name == other and name):
                    expected[a] = expected[b] = min(expected[a], expected[b])
    assert [found.tolist().index(group) for group in found] == expected
    assert list(dict.fromkeys(found.tolist())) == list(range(max(found) + 1))


def test_groups_in_two_splits_straddle() -> None:
    splits = words("train", "test", "train", "val", "train", "test")
    assert straddling(splits, np.array([0, 0, 1, 2, 1, 2])).tolist() == [0, 2]
    assert straddling(splits, np.arange(6)).tolist() == []


def test_without_groups_images_are_split_as_each_alone() -> None:
    labels = np.arange(600) % 7 - 1
    np.testing.assert_array_equal(
        hash_group_splits(keys_named(*range(600)), None, labels), hash_splits(keys_named(*range(600)), labels)
    )
    for start in range(0, 300, 3):  # small classes, of which some need an image moved
        keys, labels = keys_named(*range(start, start + 3)), np.array([0, 0, 1])
        np.testing.assert_array_equal(hash_group_splits(keys, None, labels), hash_splits(keys, labels))


def test_groups_stay_whole_and_their_shares_are_about_70_10_and_20_percent() -> None:
    rng = np.random.default_rng(0)
    column = words(*(f"patient {n}" for n in rng.integers(0, 3000, 9000)))
    splits = hash_group_splits(keys_named(*range(9000)), column, np.zeros(9000, np.int64))
    assert len(straddling(splits, join_groups(keys_named(*range(9000)), column))) == 0
    shares = [np.mean(splits == name) for name in ("train", "val", "test")]
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.03)


def test_few_groups_are_divided_by_count_whatever_their_sizes() -> None:
    rng = np.random.default_rng(3)
    for start in range(0, 3000, 100):
        column = words(*(f"patient {start} {n}" for n in np.r_[np.arange(12), rng.integers(0, 12, 88)]))
        splits = hash_group_splits(keys_named(*range(start, start + 100)), column, np.zeros(100, np.int64))
        own = Counter(dict(zip(column.tolist(), splits.tolist(), strict=True)).values())
        assert own == {"train": 8, "val": 2, "test": 2}


def test_of_several_labels_the_rarest_gets_its_share_first_and_all_get_one() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        labels = (rng.random((80, 4)) < [0.8, 0.4, 0.2, 0.08]).astype(np.int64)
        splits = hash_group_splits(keys_named(*range(80 * seed, 80 * seed + 80)), None, labels)
        for label in labels.T:
            own, count = splits[label == 1], int(label.sum())
            assert count < 2 or 1 <= (own == "test").sum() <= 0.2 * count + 3
            assert not count or (own == "train").sum() >= max(1, 0.6 * count - 3)
        rare = labels.sum(axis=0).argmin()
        assert (splits[labels[:, rare] == 1] == "test").sum() == quotas(int(labels[:, rare].sum()))[0]


def test_a_group_stays_in_its_split_when_images_are_added_to_it_and_to_others() -> None:
    rng = np.random.default_rng(1)
    names, labels = rng.integers(0, 300, 1600), rng.integers(0, 2, 1600)
    names[:800] = np.r_[np.arange(300), np.arange(300), rng.integers(0, 300, 200)]
    labels[:600] = np.arange(2).repeat(300)
    column = words(*(f"p{n}" for n in names))
    few = hash_group_splits(keys_named(*range(800)), column[:800], labels[:800])
    more = hash_group_splits(keys_named(*range(1600)), column, labels)
    np.testing.assert_array_equal(few, more[:800])


def test_images_of_no_group_stand_alone() -> None:
    keys, labels = keys_named(*range(300)), np.zeros(300, np.int64)
    np.testing.assert_array_equal(hash_group_splits(keys, words(*[""] * 300), labels), hash_splits(keys, labels))


@pytest.mark.parametrize("named", [True, False])
def test_images_that_cannot_be_read_change_the_split_of_no_other(named: bool) -> None:
    for start in range(0, 400, 40):
        keys, labels = keys_named(*range(start, start + 40)), np.arange(40) // 2 % 2
        column = words(*(f"p{start + n // 2}" for n in range(40)))
        whole = hash_group_splits(keys, column, labels)
        unread = np.zeros((9, 16), np.uint8)
        more = np.r_[column, words(*(f"q{start + n}" if named else "" for n in range(8))), column[:1]]
        splits = hash_group_splits(np.r_[keys, unread], more, np.r_[labels, np.zeros(9, np.int64)])
        np.testing.assert_array_equal(splits[:40], whole)
        assert splits[-1] == whole[0], "it shares the split of its group"
        both = np.stack([labels == 0, labels == 1], axis=1).astype(np.int64)
        several = hash_group_splits(np.r_[keys, unread], more, np.r_[both, np.ones((9, 2), np.int64)])
        np.testing.assert_array_equal(several[:40], hash_group_splits(keys, column, both))


def test_groups_of_images_whose_keys_are_all_unknown_are_divided_by_their_names() -> None:
    column = words(*(f"p{n}" for n in range(50)))
    splits = hash_group_splits(np.zeros((50, 16), np.uint8), column, np.zeros(50, np.int64)).tolist()
    assert (splits.count("test"), splits.count("val"), splits.count("train")) == (10, 5, 35)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_each_class_has_train_images_and_no_group_is_torn(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 25))
    labels = np.array(data.draw(st.lists(st.integers(-1, 4), min_size=count, max_size=count)))
    column = words(*(f"p{n}" for n in data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))))
    start = data.draw(st.integers(0, 100))
    splits = hash_group_splits(keys_named(*range(start, start + count)), column, labels)
    assert set(splits[labels >= 0]) <= {"train", "val", "test"}
    assert len(straddling(splits, join_groups(keys_named(*range(count)), column))) == 0
    for label in set(labels.tolist()) - {-1}:
        assert "train" in splits[labels == label]


def test_a_class_of_two_groups_is_in_train_and_in_test() -> None:
    for start in range(0, 200, 4):
        column = words("a", "a", "b", "b")
        column = words(*(f"{name}{start}" for name in column))
        splits = hash_group_splits(keys_named(*range(4)), column, np.zeros(4, np.int64))
        assert {"train", "test"} == set(splits)


def test_a_group_is_not_moved_to_test_with_the_only_train_images_of_another_class() -> None:
    for start in range(50):
        column = words(*(f"{name}{start}" for name in "aabc"))
        splits = hash_group_splits(keys_named(*range(4)), column, np.array([0, 1, 0, 0]))
        assert splits[1] == "train"  # of class 1 there is this group alone
        assert "test" in splits[[2, 3]]
