"""Heads on several layers, compared image by image."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import featx
from featx.advice.layer_scores import SIGNIFICANT, HeldOutResult, LayerScore, best_layer, score_layer, score_layers
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head


def score_of(layer: str, losses: np.ndarray) -> LayerScore:
    return LayerScore(layer, 1, Head(), HeldOutResult(losses, losses < 1))


def test_a_gain_is_the_mean_difference_with_its_standard_error() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.gamma(1.0, size=50), rng.gamma(2.0, size=50)
    gain, error = HeldOutResult(one, one < 1).gain_over(HeldOutResult(other, other < 1))
    assert gain == pytest.approx(other.mean() - one.mean())
    assert error == pytest.approx((other - one).std(ddof=1) / math.sqrt(50))
    difference = other - one
    ratio = difference.sum() / math.sqrt((difference**2).sum())
    assert HeldOutResult(one, one < 1).beats(HeldOutResult(other, other < 1)) == (ratio > SIGNIFICANT)
    nothing = HeldOutResult(np.empty(0), np.empty(0, dtype=bool))
    assert math.isnan(nothing.loss)
    assert math.isnan(nothing.accuracy)
    assert not nothing.beats(HeldOutResult(one, one < 1))


def test_the_best_layer_has_a_significantly_lower_loss() -> None:
    rng = np.random.default_rng(1)
    own = rng.gamma(1.0, size=400)
    noisy = own + rng.normal(-0.001, 1.0, size=400)
    lower = own - 0.2 + rng.normal(0, 0.5, size=400)
    assert best_layer([score_of("a", noisy), score_of("penultimate", own)]).layer == "penultimate"
    assert best_layer([score_of("a", lower), score_of("b", noisy), score_of("penultimate", own)]).layer == "a"
    assert best_layer([score_of("a", lower), score_of("b", own)]).layer == "a", (
        "without the penultimate, the lowest loss"
    )


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_score_of_a_layer_is_its_heads_out_of_fold_result(split_photos: Path, in_tmp: Path, task: str) -> None:
    file = featx.extract(split_photos, featx.load_backbone("lenet5", device="cpu", stages=True)).file
    features = FeatureSet.load(file)
    if task == "regression":
        features = FeatureSet(**{**vars(features), "classes": ("1", "2")})
    score = score_layer(features, Head("logreg" if task == "classification" else "ridge", task=task))
    report = score.head.held_out_
    assert report is not None
    assert len(score.held_out.losses) == 32
    if task == "classification":
        assert score.held_out.accuracy == report.headline[1]
        assert score.held_out.loss == pytest.approx(report.log_loss)  # type: ignore[union-attr]
    else:
        assert score.held_out.loss == pytest.approx(report.headline[1] ** 2)
        assert len(score.held_out.correct) == 0
    assert Head("logreg").fit(FeatureSet.load(file)).out_of_fold_ is None, "stored only on request"


def test_every_layer_is_scored_on_the_same_images_and_named_ones_alone(split_photos: Path, in_tmp: Path) -> None:
    file = featx.extract(split_photos, featx.load_backbone("lenet5", device="cpu", stages=True)).file
    scores = score_layers(file, Head("logreg"))
    assert scores[-1].layer == "penultimate"
    assert {len(score.held_out.losses) for score in scores} == {32}
    several = ",".join(score.layer for score in scores)
    (one,) = score_layers(file, Head("logreg"), layers=[several])
    assert (one.layer, one.width) == (several, sum(score.width for score in scores))


def test_layers_are_compared_by_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(12).repeat(20)
    own = rng.gamma(1.0, size=240)
    lower = own - rng.normal(0.4, 1.0, size=12)[groups]
    by_image, by_group = (HeldOutResult(lower, lower < 1, each) for each in (None, groups))
    other = HeldOutResult(own, own < 1, groups)
    assert by_image.beats(other)
    assert not by_group.beats(other), "12 patients differ by chance"
    (gain, error), (same, wide) = by_image.gain_over(other), by_group.gain_over(other)
    assert gain == pytest.approx(same)
    assert wide > 3 * error
    few = HeldOutResult(own - 1.0, own < 1, np.arange(240) // 60)
    assert not few.beats(HeldOutResult(own, own < 1, few.groups)), "four groups prove nothing, even if all agree"
