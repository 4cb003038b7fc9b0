"""A head on its backbone as one network, proved to be the head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import featx
from featx.errors import HeadError, PromotionError, StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.promotion.model import PromotedModel
from featx.promotion.promotion import promote


def small_backbone(name: str, crop: int) -> featx.Backbone:
    return featx.load_backbone(name, weights="random", resize=crop, crop=crop)


@pytest.mark.parametrize("kind", ["logreg", "linear", "svm", "ridge", "centroid"])
def test_every_linear_head_becomes_a_network_with_its_logits(features: FeatureSet, kind: str, pixels_of) -> None:
    head = Head(kind).fit(features)
    result = promote(head)
    assert result.verdict == "assembled"
    assert result.proof.largest < 1e-3
    assert result.report.accuracy == result.head_report.accuracy
    model = PromotedModel.load(result.path)
    logits = model.logits(pixels_of(features, model.transform))
    np.testing.assert_allclose(
        logits, head.decision_function(features.features), atol=1e-3 * max(1, np.abs(logits).max())
    )


@pytest.mark.parametrize(
    ("name", "crop"),
    [("squeezenet1_1", 64), ("alexnet", 64), ("densenet121", 32), ("inception_v3", 80), ("swin_t", 32)],
)
def test_networks_of_every_build_take_the_head(split_photos: Path, in_tmp: Path, name: str, crop: int) -> None:
    head = Head("logreg", C=1.0).fit(featx.extract(split_photos, small_backbone(name, crop)).load())
    result = promote(head)
    assert result.verdict == "assembled"
    assert 0 < result.proof.images <= 16
    again = PromotedModel.load(result.path)
    batch = np.random.default_rng(0).integers(0, 255, (2, 3, crop, crop), dtype=np.uint8)
    np.testing.assert_allclose(again.logits(batch), result.model.logits(batch), rtol=1e-5, atol=1e-5)


def test_half_precision_features_are_proved_too(split_photos: Path, in_tmp: Path) -> None:
    backbone = featx.load_backbone("lenet5", dtype="float16")
    result = promote(Head("logreg").fit(featx.extract(split_photos, backbone).load()))
    assert 0 < result.proof.largest < 0.5


def test_a_network_whose_logits_are_not_the_heads_is_refused(features: FeatureSet) -> None:
    head = Head("logreg").fit(features)
    honest = head.decision_function
    head.decision_function = lambda X: honest(X) + 1.0  # type: ignore[method-assign]
    with pytest.raises(PromotionError, match=r"differ from the head's by up to 1 on 16 images"):
        promote(head)
    assert not Path("models").exists()


@pytest.mark.parametrize(("kind", "kernel"), [("knn", "linear"), ("svm", "rbf"), ("bilinear", "linear")])
def test_a_head_that_is_not_linear_is_refused_with_the_command_that_helps(
    features: FeatureSet, kind: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featx.promotion.promotion.backbone_of", lambda *_, **__: pytest.fail("it was built"))
    remedy = (
        r"featx fit-head --model logreg makes one that is, which this head can teach \(featx promote --finetune --t"
    )
    with pytest.raises(HeadError, match=remedy):
        promote(Head(kind, kernel=kernel).fit(features))


def test_an_image_that_changed_since_extraction_is_named(features: FeatureSet, split_photos: Path, make_image) -> None:
    head = Head("logreg").fit(features)
    make_image(split_photos / "val" / "dark" / "00.png", seed=999)
    with pytest.raises(StaleCacheError, match=r"val/dark/00\.png has changed since its features were extracted"):
        promote(head)
