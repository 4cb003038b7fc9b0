"""What backbones add to one another, in words."""

from __future__ import annotations

import pytest

from featx.advice.backbone_gains import Gain


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
