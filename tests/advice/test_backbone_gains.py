"""What backbones add to one another, in words."""

from __future__ import annotations

import numpy as np
import pytest

from featx.advice.backbone_gains import Gain, JudgedSet, gain_of


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (Gain(0.1, 0.01, "test", is_better=True), "it adds something"),
        (Gain(0.1, 0.2, "test", is_better=True), "not shown to add anything"),
        (Gain(-0.1, 0.2, "test"), "not shown to add anything"),
        (Gain(0.0, 0.01, "test"), "not shown to add anything"),
        (Gain(-0.1, 0.01, "test"), "it makes the predictions worse"),
    ],
)
def test_a_backbone_that_does_harm_is_told_from_one_that_adds_nothing(gain: Gain, verdict: str) -> None:
    assert gain.verdict == verdict


def test_copies_of_an_image_are_compared_as_one_group() -> None:
    def judged(right: list[bool], groups: list[int]) -> JudgedSet:
        paths = np.array([f"{number}.png" for number in range(4)])
        return JudgedSet(("a",), "classification", np.zeros(4), np.array(right), paths, np.array(groups), None)

    for groups, method in (([0, 1, 2, 3], "McNemar's exact test"), ([0, 1, 2, 2], "the sign-flip test of 3 groups")):
        first, second = (judged(right, groups) for right in ([False, True, True, True], [True, True, False, False]))
        assert gain_of(first, second).method == method
