"""Greedy forward selection of backbones, and the paired tests of its steps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from joint_features import part

from featx.advice.backbone_gains import backbone_gains
from featx.advice.forward_selection import SelectionStep, corrected, select_forward
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head

HEAD = Head("ridge")


def half(name: str, columns: list[int], *, count: int = 240) -> FeatureSet:
    """A backbone that sees some of the three classes only."""
    whole = part(name, count=count, signal=2.0)
    X = np.random.default_rng(len(name)).normal(size=whole.features.shape).astype(np.float32)
    X[:, columns] = whole.features[:, columns]
    return dataclasses.replace(whole, features=X)


def test_what_adds_is_added_and_what_does_not_ends_the_selection() -> None:
    sets = [half("one", [0]), half("three", []), half("two", [1])]
    steps = select_forward(sets, HEAD, ["one", "noise", "two"])
    assert [step.judged.backbones for step in steps] == [("one",), ("one", "two"), ("one", "two", "noise")]
    assert [step.added for step in steps] == [True, True, False]
    assert [step.candidates for step in steps] == [1, 2, 1]
    assert steps[1].gain is not None
    assert steps[1].p_value == pytest.approx(corrected(steps[1].gain.p_value, 2))
    assert steps[1].judged.value > steps[0].judged.value + 0.1
    assert "two is added" in steps[1].sentence
    assert "corrected for the choice among 2" in steps[1].sentence
    assert "not shown to add anything" in steps[2].sentence


def test_the_best_pair_is_there_even_if_nothing_is_added() -> None:
    steps = select_forward([half("one", [0, 1, 2]), half("two", [])], HEAD, ["one", "two"])
    assert len(steps) == 2
    assert not steps[1].added


def test_backbones_are_compared_on_the_images_that_all_have() -> None:
    sets = [half("one", [0]).take(np.arange(10, 240)), half("two", [1]).take(np.arange(230))]
    first, second = select_forward(sets, HEAD, ["one", "two"])
    assert len(first.judged.losses) == len(second.judged.losses)
    np.testing.assert_array_equal(first.judged.paths, second.judged.paths)


def test_each_of_three_backbones_is_left_out_in_turn() -> None:
    joined = FeatureSet.join([half("one", [0]), half("two", [1]), half("three", [])])
    gains = backbone_gains(joined, HEAD, "classification", ["one", "two", "noise"], (1.0, 1.0, 0.25))
    assert [gain.proved for gain in gains.gains] == [True, True, False]
    heading, *lines = gains.lines
    assert {len(line) for line in lines} == {len(heading)}
    assert [line[0] for line in lines] == ["one", "two", "noise", "together"]
    assert lines[2][-1] == "0.25"


def test_groups_decide_together() -> None:
    sets = [half("one", [0]), half("two", [1])]
    groups = np.array([f"g{row // 60}" for row in range(240)], dtype=object)
    grouped = [
        dataclasses.replace(each, groups=groups, group="g", splits=np.full(240, "train", dtype=object)) for each in sets
    ]
    _, step = select_forward(grouped, HEAD, ["one", "two"])
    assert isinstance(step, SelectionStep)
    assert step.gain is not None
    assert "sign-flip test" in step.gain.method
    assert not step.added, "four groups or fewer can show nothing"
