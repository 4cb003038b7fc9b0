"""The decision that follows from the evidence."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from featx.advice.decision import (
    FEW_IMAGES,
    MAX_SHARE,
    MUCH_DATA,
    SHARE_PER_DOUBLING,
    WORTHWHILE_GAIN,
    Evidence,
    _resampled,
    bootstrap,
    decide,
)
from featx.advice.layer_scores import HeldOutResult

COUNT = 600


def outcome(accuracy: float, seed: int = 0) -> HeldOutResult:
    """A result of some accuracy: the harder images are wrong for every head, but for a little noise."""
    rng = np.random.default_rng(seed)
    hardness = np.random.default_rng(99).permutation(np.linspace(0, 1, COUNT)) + rng.normal(0, 0.02, COUNT)
    right = np.argsort(np.argsort(hardness)) < accuracy * COUNT
    return HeldOutResult(np.where(right, 0.1, 2.0) + rng.normal(0, 0.02, COUNT), right)


def evidence(
    alone: tuple[float, float, float], together: tuple[float, float], *, images: int = COUNT, **more: float
) -> Evidence:
    names = ("early", "middle", "penultimate")
    single = {name: outcome(accuracy, seed) for seed, (name, accuracy) in enumerate(zip(names, alone, strict=True))}
    joint = {"early": outcome(together[0], 7), "middle": outcome(together[1], 8), "penultimate": single["penultimate"]}
    majority = HeldOutResult(np.full(COUNT, math.log(4)), np.arange(COUNT) % 4 == 0)
    return Evidence(images, majority, single, joint, {"early": 0.1, "middle": 0.7, "penultimate": 1.0}, **more)


def test_few_images_similar_to_those_of_the_pretraining_need_a_head() -> None:
    decision = decide(evidence((0.6, 0.8, 0.93), (0.93, 0.93), images=250))
    assert (decision.recommendation, decision.layer, decision.expected_gain) == ("head", "penultimate", 0.0)
    hard = evidence((0.3, 0.4, 0.5), (0.5, 0.5), images=FEW_IMAGES)
    assert decide(hard, realised=2.0).recommendation == "head", "however many errors there are"


def test_many_errors_and_images_are_worth_fine_tuning_though_earlier_layers_add_nothing() -> None:
    found = evidence((0.2, 0.5, 0.75), (0.75, 0.75), images=4 * FEW_IMAGES)
    decision = decide(found)
    assert (decision.recommendation, decision.layer) == ("tune-all", "")
    assert decision.expected_gain == pytest.approx(2 * SHARE_PER_DOUBLING * 0.25, abs=0.001), "two doublings"
    assert decide(found, realised=0.0).recommendation == "head"
    more = dataclasses.replace(found, images=1000 * FEW_IMAGES)
    assert decide(more).expected_gain == pytest.approx(MAX_SHARE * 0.25, abs=0.001), "and no more than that"
    confidence, (low, high) = bootstrap(found)
    assert 0.5 < confidence < 1
    assert WORTHWHILE_GAIN <= low < decision.expected_gain < high


def test_an_earlier_layer_that_is_far_ahead_beats_fine_tuning() -> None:
    assert decide(evidence((0.6, 0.9, 0.7), (0.86, 0.85))).recommendation == "head-inner"
    assert decide(evidence((0.2, 0.54, 0.5), (0.54, 0.54))).recommendation == "tune-all", (
        "but one that is hardly ahead is"
    )


def test_fine_tuning_begins_where_the_last_layers_lose_something() -> None:
    found = evidence((0.6, 0.75, 0.77), (0.84, 0.84))
    assert (decide(found).recommendation, decide(found).layer) == ("tune-part", "middle"), (
        "the early layer adds nothing"
    )
    decision = decide(evidence((0.6, 0.7, 0.77), (0.84, 0.79)))
    assert (decision.recommendation, decision.layer) == ("tune-all", "early")
    assert decision.expected_gain == pytest.approx(decision.expected_accuracy - 0.77, abs=0.002)
    assert decision.expected_accuracy > 0.84 + WORTHWHILE_GAIN
    unfrozen = dataclasses.replace(found, frozen_share={})
    assert decide(unfrozen).recommendation == "tune-all", "the blocks are unknown"


def test_few_images_unlike_those_of_the_pretraining_need_an_earlier_layer() -> None:
    found = evidence((0.6, 0.9, 0.7), (0.86, 0.85))
    decision = decide(found)
    assert (decision.recommendation, decision.layer) == ("head-inner", "middle")
    assert decision.expected_gain == pytest.approx(0.2, abs=0.002)
    assert found.unlike_pretraining
    assert found.peaks_early


def test_many_images_unlike_those_of_the_pretraining_are_worth_fine_tuning() -> None:
    few = evidence((0.6, 0.72, 0.6), (0.80, 0.79))
    assert few.unlike_pretraining
    assert decide(few).recommendation == "head-inner"
    many = dataclasses.replace(few, images=MUCH_DATA)
    assert decide(many).recommendation.startswith("tune")


def test_a_head_is_enough_where_fine_tuning_would_add_less_than_a_point() -> None:
    decision = decide(evidence((0.6, 0.9, 0.95), (0.985, 0.98)))
    assert decision.recommendation == "head-inner"
    assert decision.layer in ("early,middle,penultimate", "middle,penultimate")
    one = decide(evidence((0.6, 0.982, 0.95), (0.982, 0.982)))
    assert one.layer == "middle", "one layer, where several are no better"


def test_labels_that_no_head_learns_are_chance() -> None:
    found = evidence((0.25, 0.25, 0.25), (0.25, 0.25))
    noise = {name: HeldOutResult(found.majority.losses + 0.01, outcome(0.27, 5).correct) for name in found.single}
    found = dataclasses.replace(found, single=noise, joint=noise)
    assert not found.beats_chance
    decision = decide(found)
    assert (decision.recommendation, decision.layer, decision.expected_gain) == ("none", "", 0.0)
    sure = {**noise, "early": HeldOutResult(found.majority.losses + 0.01, outcome(0.5, 5).correct)}
    assert dataclasses.replace(found, single=sure).beats_chance, "by its predictions, though its losses are no lower"


def test_features_that_random_weights_nearly_match_are_unlike() -> None:
    found = evidence((0.6, 0.9, 0.97), (0.97, 0.97), transfer_gain=0.02)
    assert found.unlike_pretraining
    assert not found.peaks_early
    assert not evidence((0.6, 0.9, 0.97), (0.97, 0.97), transfer_gain=0.3).unlike_pretraining


def test_the_bootstrap_shows_how_stable_the_decision_is() -> None:
    sure, interval = bootstrap(evidence((0.6, 0.9, 0.7), (0.86, 0.85)))
    assert sure > 0.95
    assert interval[0] < 0.2 < interval[1]
    close, _ = bootstrap(evidence((0.6, 0.75, 0.77), (0.79, 0.782)))
    assert close < sure
    assert bootstrap(evidence((0.6, 0.75, 0.77), (0.79, 0.782))) == bootstrap(
        evidence((0.6, 0.75, 0.77), (0.79, 0.782))
    )


def test_resamples_and_tests_are_of_groups_where_images_have_some() -> None:
    found = evidence((0.6, 0.7, 0.75), (0.75, 0.75), images=4 * FEW_IMAGES)
    groups = np.arange(COUNT) // 60
    by_group = found.take(np.arange(COUNT), groups)
    assert by_group.single["middle"].groups is groups
    (_, narrow), (_, wide) = bootstrap(found), bootstrap(found.take(np.argsort(found.majority.correct), groups))
    assert wide[1] - wide[0] >= narrow[1] - narrow[0]
    assert found.beats_chance
    one = np.zeros(COUNT, dtype=np.int64)
    assert not found.take(np.arange(COUNT), one).beats_chance, "one patient shows nothing about others"


def test_a_group_is_drawn_with_all_its_images() -> None:
    found = evidence((0.6, 0.7, 0.75), (0.75, 0.75)).take(np.arange(COUNT), np.arange(COUNT) // 100)
    drawn = _resampled(found, np.random.default_rng(0)).majority
    assert np.bincount(drawn.groups).tolist() == [100] * 6
    firsts = drawn.correct.reshape(6, 100)
    assert all(
        any((first == found.majority.correct[at : at + 100]).all() for at in range(0, COUNT, 100)) for first in firsts
    )
