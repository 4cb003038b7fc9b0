"""Two classifiers on the same images: counts, names, and McNemar's test."""

from __future__ import annotations

import math

import numpy as np
import pytest

from featx.evidence import MOST_NAMED, Paired


def paired(head_only: int, tuned_only: int, both: int = 3, neither: int = 2) -> Paired:
    """Labels are 1; a classifier that is wrong says 0."""
    n = head_only + tuned_only + both + neither
    head = np.array([1] * (head_only + both) + [0] * (tuned_only + neither))
    tuned = np.array([0] * head_only + [1] * (both + tuned_only) + [0] * neither)
    return Paired.of([f"{i}.jpg" for i in range(n)], np.ones(n, dtype=np.int64), head, tuned)


def test_each_image_is_counted_once_and_those_of_one_alone_are_named() -> None:
    found = paired(2, 3)
    assert (found.n, found.both, found.gained) == (10, 3, 1)
    assert found.head_only == ("0.jpg", "1.jpg")
    assert found.tuned_only == ("5.jpg", "6.jpg", "7.jpg")


@pytest.mark.parametrize(("head_only", "tuned_only"), [(0, 5), (1, 8), (3, 4), (10, 2), (5, 5)])
def test_p_is_twice_the_smaller_binomial_tail(head_only: int, tuned_only: int) -> None:
    apart, fewer = head_only + tuned_only, min(head_only, tuned_only)
    tail = sum(math.comb(apart, k) for k in range(fewer + 1)) / 2**apart
    assert paired(head_only, tuned_only).p_value == pytest.approx(min(1.0, 2 * tail))


def test_classifiers_that_say_the_same_are_not_told_apart() -> None:
    assert paired(0, 0).p_value == 1.0


def test_of_very_many_images_the_first_are_named_in_the_file() -> None:
    facts = paired(0, MOST_NAMED + 5).as_dict()
    assert facts["finetuned_only"] == MOST_NAMED + 5
    assert len(facts["finetuned_only_images"]) == MOST_NAMED
    assert facts["head_only_images"] == []


def test_disjoint_sets_of_images_add_up() -> None:
    one = Paired.of(["a", "b"], np.array([0, 1]), np.array([0, 0]), np.array([0, 1]))
    other = Paired.of(["c", "d"], np.array([0, 1]), np.array([0, 1]), np.array([1, 1]))
    both = Paired.together([one, other])
    assert (both.n, both.both, both.head_only, both.tuned_only, both.gained) == (4, 2, ("c",), ("b",), 0)
    assert (one.head_accuracy, other.head_accuracy, both.head_accuracy) == (0.5, 1.0, 0.75)
