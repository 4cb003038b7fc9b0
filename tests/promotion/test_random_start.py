"""The network from random weights, beside the pretrained one."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.promotion.config import FineTuning
from featx.promotion.promotion import promote
from featx.promotion.random_start import figure_file, reset


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(4, 4), nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.full((3,), 7.0))


def test_no_weight_of_the_pretrained_network_is_left() -> None:
    network = Scaled()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 7.0)
    network.norm.running_mean.fill_(7.0)
    reset(network)
    assert not any((tensor == 7).any() for tensor in network.state_dict().values())


def test_random_starts_are_trained_for_both_schedules_on_the_same_images(features: FeatureSet) -> None:
    head = Head("logreg", C=0.1).fit(features)
    settings = FineTuning(epochs=2, from_random=3, last=1, batch_size=8, cached_crops=1, repeats=0)
    result = promote(head, finetune=True, settings=settings)
    assert result.run is not None
    pretrained, same, longer = result.run.courses
    assert [len(course.log) - 1 for course in (pretrained, same, longer)] == [2, 2, 6]
    assert pretrained.log is result.run.history.log
    assert {course.report.n for course in result.run.courses} == {16}
    assert same.log[0]["log_loss"] != pretrained.log[0]["log_loss"]
    assert same.log[0] == longer.log[0], "both start at the same random weights"
    assert [each["epochs"] for each in result.as_dict()["from_random"]] == [2, 2, 6]
    assert figure_file(result.path).path.stat().st_size > 1000
    again = promote(head, finetune=True, settings=dataclasses.replace(settings, from_random=1), out="one.safetensors")
    assert again.run is not None
    assert [entry["log_loss"] for entry in again.run.courses[1].log] == pytest.approx(
        [entry["log_loss"] for entry in same.log]
    )
    assert len(again.run.courses) == 2
