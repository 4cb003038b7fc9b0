"""The choice that the evidence asks for."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from featx.advice.decision import AT_MOST, DOUBLED, FEW, MUCH, WORTH, Evidence, decide, redrawn
from featx.advice.layer_scores import HeldOutResult

COUNT = 600


def outcome(accuracy: float, seed: int = 0) -> HeldOutResult:
    """Of so many right images: the harder ones are wrong, whoever judges, but for a little noise."""
    rng = np.random.default_rng(seed)
    hardness = np.random.default_rng(99).permutation(np.linspace(0, 1, COUNT)) + rng.normal(0, 0.02, COUNT)
    right = np.argsort(np.argsort(hardness)) < accuracy * COUNT
    return HeldOutResult(np.where(right, 0.1, 2.0) + rng.normal(0, 0.02, COUNT), right)


def evidence(
    depths: tuple[float, float, float], together: tuple[float, float], *, images: int = COUNT, **more: float
) -> Evidence:
    names = ("early", "middle", "penultimate")
    single = {name: outcome(accuracy, seed) for seed, (name, accuracy) in enumerate(zip(names, depths, strict=True))}
    joint = {"early": outcome(together[0], 7), "middle": outcome(together[1], 8), "penultimate": single["penultimate"]}
    guess = HeldOutResult(np.full(COUNT, math.log(4)), np.arange(COUNT) % 4 == 0)
    return Evidence(images, guess, single, joint, {"early": 0.1, "middle": 0.7, "penultimate": 1.0}, **more)


def test_few_images_like_those_of_the_training_ask_for_a_head() -> None:
    choice = decide(evidence((0.6, 0.8, 0.93), (0.93, 0.93), images=250))
    assert (choice.recommendation, choice.layer, choice.gain) == ("head", "penultimate", 0.0)
    hard = evidence((0.3, 0.4, 0.5), (0.5, 0.5), images=FEW)
    assert decide(hard, luck=2.0).recommendation == "head", "however many errors there are"


def test_many_errors_and_images_ask_for_tuning_though_earlier_layers_add_nothing() -> None:
    found = evidence((0.2, 0.5, 0.75), (0.75, 0.75), images=4 * FEW)
    choice = decide(found)
    assert (choice.recommendation, choice.layer) == ("tune-all", "")
    assert choice.gain == pytest.approx(2 * DOUBLED * 0.25, abs=0.001), "two doublings"
    assert decide(found, luck=0.0).recommendation == "head"
    more = dataclasses.replace(found, images=1000 * FEW)
    assert decide(more).gain == pytest.approx(AT_MOST * 0.25, abs=0.001), "and no more than that"
    confidence, (low, high) = redrawn(found)
    assert 0.5 < confidence < 1
    assert WORTH <= low < choice.gain < high


def test_an_earlier_layer_that_is_far_ahead_is_not_left_for_tuning() -> None:
    assert decide(evidence((0.6, 0.9, 0.7), (0.86, 0.85))).recommendation == "head-inner"
    assert decide(evidence((0.2, 0.54, 0.5), (0.54, 0.54))).recommendation == "tune-all", (
        "but one that is hardly ahead is"
    )


def test_what_the_last_layers_lose_asks_for_tuning_from_where_it_is_lost() -> None:
    found = evidence((0.6, 0.75, 0.77), (0.84, 0.84))
    assert (decide(found).recommendation, decide(found).layer) == ("tune-part", "middle"), (
        "the early layer adds nothing"
    )
    choice = decide(evidence((0.6, 0.7, 0.77), (0.84, 0.79)))
    assert (choice.recommendation, choice.layer) == ("tune-all", "early")
    assert choice.gain == pytest.approx(choice.accuracy - 0.77, abs=0.002)
    assert choice.accuracy > 0.84 + WORTH
    unfrozen = dataclasses.replace(found, frozen={})
    assert decide(unfrozen).recommendation == "tune-all", "nobody knows the blocks"


def test_few_images_unlike_those_of_the_training_ask_for_an_earlier_layer() -> None:
    found = evidence((0.6, 0.9, 0.7), (0.86, 0.85))
    choice = decide(found)
    assert (choice.recommendation, choice.layer) == ("head-inner", "middle")
    assert choice.gain == pytest.approx(0.2, abs=0.002)
    assert found.unlike
    assert found.earlier


def test_many_images_unlike_those_of_the_training_ask_for_tuning() -> None:
    few = evidence((0.6, 0.72, 0.6), (0.80, 0.79))
    assert few.unlike
    assert decide(few).recommendation == "head-inner"
    many = dataclasses.replace(few, images=MUCH)
    assert decide(many).recommendation.startswith("tune")


def test_where_tuning_would_add_less_than_a_point_a_head_does() -> None:
    choice = decide(evidence((0.6, 0.9, 0.95), (0.985, 0.98)))
    assert choice.recommendation == "head-inner"
    assert choice.layer in ("early,middle,penultimate", "middle,penultimate")
    one = decide(evidence((0.6, 0.982, 0.95), (0.982, 0.982)))
    assert one.layer == "middle", "one layer, where several are no better"


def test_what_nobody_learns_asks_for_nothing() -> None:
    found = evidence((0.25, 0.25, 0.25), (0.25, 0.25))
    noise = {name: HeldOutResult(found.guess.losses + 0.01, outcome(0.27, 5).right) for name in found.depths}
    found = dataclasses.replace(found, depths=noise, together=noise)
    assert not found.learned
    choice = decide(found)
    assert (choice.recommendation, choice.layer, choice.gain) == ("none", "", 0.0)
    sure = {**noise, "early": HeldOutResult(found.guess.losses + 0.01, outcome(0.5, 5).right)}
    assert dataclasses.replace(found, depths=sure).learned, "by what it says, though its losses are no less"


def test_features_that_random_weights_nearly_match_are_unlike() -> None:
    found = evidence((0.6, 0.9, 0.97), (0.97, 0.97), transferred=0.02)
    assert found.unlike
    assert not found.earlier
    assert not evidence((0.6, 0.9, 0.97), (0.97, 0.97), transferred=0.3).unlike


def test_redrawing_tells_how_sure_the_choice_is() -> None:
    sure, interval = redrawn(evidence((0.6, 0.9, 0.7), (0.86, 0.85)))
    assert sure > 0.95
    assert interval[0] < 0.2 < interval[1]
    close, _ = redrawn(evidence((0.6, 0.75, 0.77), (0.79, 0.782)))
    assert close < sure
    assert redrawn(evidence((0.6, 0.75, 0.77), (0.79, 0.782))) == redrawn(evidence((0.6, 0.75, 0.77), (0.79, 0.782)))
