"""Two classifiers on the same images: counts, names, and McNemar's test."""

from __future__ import annotations

import math

import numpy as np
import pytest

from featx.metrics.paired import MOST_NAMED, PairedTest, PromotionCriterion


def paired(head_only: int, tuned_only: int, both: int = 3, neither: int = 2) -> PairedTest:
    """All labels are 1; a wrong classifier predicts 0."""
    n = head_only + tuned_only + both + neither
    head = np.array([1] * (head_only + both) + [0] * (tuned_only + neither))
    tuned = np.array([0] * head_only + [1] * (both + tuned_only) + [0] * neither)
    return PairedTest.from_predictions([f"{i}.jpg" for i in range(n)], np.ones(n, dtype=np.int64), head, tuned)


def test_each_image_is_counted_once_and_discordant_images_are_named() -> None:
    found = paired(2, 3)
    assert (found.n, found.both_right, found.gained) == (10, 3, 1)
    assert found.first_only == ("0.jpg", "1.jpg")
    assert found.second_only == ("5.jpg", "6.jpg", "7.jpg")


@pytest.mark.parametrize(("head_only", "tuned_only"), [(0, 5), (1, 8), (3, 4), (10, 2), (5, 5)])
def test_p_is_twice_the_smaller_binomial_tail(head_only: int, tuned_only: int) -> None:
    apart, fewer = head_only + tuned_only, min(head_only, tuned_only)
    tail = sum(math.comb(apart, k) for k in range(fewer + 1)) / 2**apart
    assert paired(head_only, tuned_only).p_value == pytest.approx(min(1.0, 2 * tail))


def test_equal_predictions_have_a_p_value_of_one() -> None:
    assert paired(0, 0).p_value == 1.0


def test_at_most_100_paths_are_listed_in_a_file() -> None:
    facts = paired(0, MOST_NAMED + 5).as_dict()
    assert facts["finetuned_only"] == MOST_NAMED + 5
    assert len(facts["finetuned_only_images"]) == MOST_NAMED
    assert facts["head_only_images"] == []


def test_tests_of_disjoint_sets_of_images_are_pooled() -> None:
    one = PairedTest.from_predictions(["a", "b"], np.array([0, 1]), np.array([0, 0]), np.array([0, 1]))
    other = PairedTest.from_predictions(["c", "d"], np.array([0, 1]), np.array([0, 1]), np.array([1, 1]))
    both = PairedTest.pooled([one, other])
    assert (both.n, both.both_right, both.first_only, both.second_only, both.gained) == (4, 2, ("c",), ("b",), 0)
    assert (one.first_accuracy, other.first_accuracy, both.first_accuracy) == (0.5, 1.0, 0.75)


@pytest.mark.parametrize("repeats", [0, 2, 5])
@pytest.mark.parametrize("significance", [0.05, 1e-9, 1.0])
def test_all_tests_together_have_the_significance(repeats: int, significance: float) -> None:
    criterion = PromotionCriterion(significance, repeats)
    passes_none = (
        (1 - criterion.first_level) * (1 - criterion.later_level) ** repeats if repeats else 1 - criterion.first_level
    )
    assert 1 - passes_none == pytest.approx(significance, abs=1e-15)


def test_a_gain_is_proved_on_the_test_split_or_on_all_further_splits_pooled() -> None:
    criterion = PromotionCriterion(0.05, 5)
    assert criterion.proved(paired(0, 7))  # p = 0.016 <= 0.025
    assert not criterion.proved(paired(0, 6))  # 0.031
    assert PromotionCriterion(0.05, 0).proved(paired(0, 6))
    assert not criterion.proved(paired(0, 6), [paired(0, 7)])  # 0.016 > 0.0051
    assert criterion.proved(paired(0, 6), [paired(0, 3), paired(0, 6)])
    assert not criterion.proved(paired(7, 0)), "a loss"
    assert not criterion.proved(paired(1, 0), [paired(0, 9)]), "a network that loses on the test split is not promoted"


def test_a_further_split_is_needed_only_where_it_may_prove_the_gain() -> None:
    criterion = PromotionCriterion(0.05, 5)
    unsure, losing = paired(7, 12, neither=158), paired(12, 2)
    assert criterion.undecided(unsure, [], 887)
    assert not criterion.undecided(unsure, [], 250), "a somewhat larger gain on so few images would be no proof"
    assert not criterion.undecided(paired(9, 10, neither=158), [], 887), "nor would a very small one on all of them"
    assert not criterion.undecided(paired(0, 7), [], 1000), "it is proved"
    assert not criterion.undecided(losing, [], 1000)
    assert not criterion.undecided(unsure, [losing], 1000), "the other split contradicts it"
    assert criterion.undecided(unsure, [paired(4, 7, neither=170)], 887), "the gain is not proved yet"
    assert criterion.undecided(unsure, [unsure], 1000)
    assert not criterion.undecided(unsure, [unsure] * 5, 1000), "no further split is allowed"
    assert not PromotionCriterion(0.05, 0).undecided(unsure, [], 1000)


def test_luck_promotes_at_most_as_often_as_the_significance_allows() -> None:
    """Two equal classifiers, on a split of 60 images and five more: the rate of promotions is at most the significance."""
    rng, criterion, promoted = np.random.default_rng(0), PromotionCriterion(0.2, 5), 0
    for _ in range(2000):
        parts = [paired(int(lost), 20 - int(lost), both=40, neither=0) for lost in rng.binomial(20, 0.5, 6)]
        first, others = parts[0], list[PairedTest]()
        while criterion.undecided(first, others, 400):
            others.append(parts[len(others) + 1])
        promoted += criterion.proved(first, others)
    assert 0.01 < promoted / 2000 <= 0.2 / 2 + 0.02, "half of it: a loss promotes nothing"


# Groups


def grouped(gains: list[int], size: int = 10) -> PairedTest:
    """Groups of images, in each of which one classifier is right on some more than the other: network if positive."""
    images = np.arange(len(gains)).repeat(size)
    place = np.tile(np.arange(size), len(gains))
    gain = np.array(gains)[images]
    return PairedTest.from_predictions(
        images.astype(str), np.ones(len(images), dtype=np.int64),
        (place < -gain).astype(int), (place < gain).astype(int), images,
    )  # fmt: skip


def test_groups_and_not_images_are_the_units_of_the_test() -> None:
    found = grouped([10, 10, 10, -10, 0, 0])
    assert (len(found.second_only), len(found.first_only), found.gained) == (30, 10, 20)
    assert (found.groups, found.gains, found.variance) == (6, (10, 10, 10, -10), 400)
    assert found.p_value == pytest.approx(2 * (1 + 4) / 16)
    assert found.method == "the sign-flip test of 6 groups"
    assert found.as_dict()["groups"] == 6
    images = paired(10, 30)
    assert images.p_value < 0.01
    assert (images.method, images.as_dict()["groups"]) == ("McNemar's exact test", images.n)


def test_images_that_are_groups_of_their_own_are_tested_by_mcnemar() -> None:
    labels, head, tuned = np.ones(20, int), np.arange(20) % 3 == 0, np.arange(20) % 2 == 0
    alone = PairedTest.from_predictions([""] * 20, labels, head, tuned, np.arange(20))
    assert alone == PairedTest.from_predictions([""] * 20, labels, head, tuned)


def test_pooled_tests_keep_their_groups() -> None:
    both = PairedTest.pooled([grouped([3, -1]), paired(1, 2)])
    assert (both.groups, sorted(both.gains or ())) == (2 + 8, [-1, -1, 1, 1, 3])
    assert PairedTest.pooled([paired(1, 2), paired(2, 3)]).gains is None


def test_equal_classifiers_are_promoted_falsely_in_at_most_5_percent_by_groups() -> None:
    rng, criterion = np.random.default_rng(0), PromotionCriterion(0.05, 0)
    drawn = [rng.binomial(10, rng.beta(0.3, 0.3, 12)) for _ in range(400)]
    tests = [grouped((2 * right - 10).tolist()) for right in drawn]
    assert np.mean([criterion.proved(test) for test in tests]) <= 0.05
    by_images = [PairedTest(test.n, 0, test.first_only, test.second_only) for test in tests]
    assert np.mean([criterion.proved(test) for test in by_images]) > 0.1


def test_a_further_split_is_needed_only_where_the_groups_may_prove_the_gain() -> None:
    criterion = PromotionCriterion(0.05, 5)
    few = grouped([10, 10, -10, 10, 0, 0])
    assert criterion.undecided(few, [], 60 * 20)
    assert not criterion.undecided(few, [], 60 * 2), "so few groups prove nothing, however many images they hold"
    as_images = PairedTest(few.n, few.both_right, few.first_only, few.second_only)
    assert criterion.proved(as_images)
    balanced = grouped([3, -3, 0])
    assert not criterion.undecided(balanced, [], 10**6)
