"""The layer that an advice names."""

from __future__ import annotations

import pytest

from featx.advice.decision import Decision
from featx.advice.wording import layer_name

BLOCKS = ("conv1", "layer1.0", "layer1.1", "layer2.0")


@pytest.mark.parametrize(
    ("recommendation", "layer", "expected"),
    [
        ("head", "penultimate", "penultimate"),
        ("head-inner", "layer1,penultimate", "layer1,penultimate"),
        ("none", "", ""),
        ("tune-all", "", "conv1"),
        ("tune-part", "layer1", "layer2.0"),
        ("tune-part", "layer1.0:max", "layer1.1"),
        ("tune-part", "layer2:max", "layer2.0"),
    ],
)
def test_fine_tuning_is_named_by_its_first_block(recommendation: str, layer: str, expected: str) -> None:
    decision = Decision(recommendation, layer, expected_accuracy=0.9, expected_gain=0.0)
    assert layer_name(decision, BLOCKS) == expected
    assert layer_name(decision, ()) == layer, "the blocks of a network that is not there are unknown"
