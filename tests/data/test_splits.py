"""Splits by the hash of the content."""

from __future__ import annotations

import numpy as np
import pytest
from listings import keys_of

from featx.data.image_set import UNLABELLED
from featx.data.splits import hash_splits


def key_at(position: float, last: int = 0) -> list[int]:
    """A key whose hash lies at a given share of the range."""
    return [*int(position * 2**64).to_bytes(8, "big"), *[0] * 7, last]


def test_the_shares_of_the_splits_are_about_70_10_and_20_percent() -> None:
    splits = hash_splits(keys_of(20_000), np.arange(20_000) % 4)
    shares = {split: np.mean(splits == split) for split in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.012)
    assert sum(shares.values()) == pytest.approx(1)


def test_an_image_stays_in_its_split_when_others_are_added() -> None:
    labels = np.arange(1000) % 3
    few, many = hash_splits(keys_of(200), labels[:200]), hash_splits(keys_of(1000), labels)
    np.testing.assert_array_equal(few, many[:200])


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
