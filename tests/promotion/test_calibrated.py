"""Networks are compared at the temperature that suits each, and the chosen one gets its temperature."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.promotion.assemble import assemble, backbone_of
from featx.promotion.finetune_run import soften


def test_a_network_that_is_only_surer_of_the_same_classes_scores_the_same(features: FeatureSet) -> None:
    head = Head("logreg", C=0.1).fit(features)
    data = assemble(head, features, backbone_of(head)).data
    rows = data.labelled_rows
    logits = np.random.default_rng(0).normal(size=(len(rows), 2)) + 2 * np.eye(2)[data.labels[rows]]
    score, surer = data.score(rows, logits), data.score(rows, 20 * logits)
    assert surer.log_loss == pytest.approx(score.log_loss, rel=1e-4)
    assert surer.accuracy == score.accuracy
    assert surer.raw_log_loss is not None
    assert surer.raw_log_loss > 1.2 * surer.log_loss
    broken = data.score(rows, np.full_like(logits, np.nan))
    assert np.isnan(broken.log_loss)
    assert not np.isfinite(dataclasses.astuple(broken)[2])


def test_a_temperature_becomes_a_part_of_the_last_layer() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    images = torch.randn(5, 3)
    before = network(images)
    soften(network, "2", 2.5)
    torch.testing.assert_close(network(images), before / 2.5)
