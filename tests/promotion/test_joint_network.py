"""A head on several backbones as one network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from joint_pair import JointPair

import featx
from featx.errors import BackboneError, CorruptFileError, PromotionError
from featx.promotion.model import PromotedModel
from featx.promotion.promotion import Promotion, promote
from featx.serving.scorer import open_scorer


@pytest.fixture(scope="module")
def promotion(joint_pair: JointPair, tmp_path_factory: pytest.TempPathFactory) -> Promotion:
    out = tmp_path_factory.mktemp("promoted") / "model.safetensors"
    return promote(joint_pair.head, backbone=joint_pair.code, device="cpu", out=out)


def test_the_network_of_all_parts_is_proved_to_be_the_head(promotion: Promotion) -> None:
    assert promotion.verdict == "assembled"
    assert promotion.proof.images == 9
    assert promotion.proof.largest < 1e-4


def test_the_saved_network_predicts_what_the_head_predicts(promotion: Promotion, joint_pair: JointPair) -> None:
    model = PromotedModel.load(promotion.path, backbone=joint_pair.code, device="cpu")
    expected = featx.predict(joint_pair.model(), joint_pair.images, top=3, cache=None)
    for found, wanted in zip(featx.predict(model, joint_pair.images, top=3), expected, strict=True):
        assert found.value == wanted.value
        assert dict(found.top) == pytest.approx(dict(wanted.top), abs=1e-5)
    head, whole = featx.evaluate(joint_pair.head, joint_pair.files), featx.evaluate(model, joint_pair.photos)
    assert (whole.accuracy, whole.n) == (head.accuracy, head.n)


def test_the_classifiers_of_the_backbones_are_left_out(promotion: Promotion) -> None:
    names = [*promotion.model.network.state_dict()]
    assert [name for name in names if name.startswith("head.")] == ["head.weight", "head.bias"]
    assert not [name for name in names if ".fc." in name or ".classifier." in name]


def test_a_file_of_code_is_named_before_it_runs(promotion: Promotion) -> None:
    with pytest.raises(BackboneError, match=r"tiny\.py:tiny"):
        PromotedModel.load(promotion.path, device="cpu")


def test_a_damaged_origin_is_refused(promotion: Promotion, joint_pair: JointPair, tmp_path: Path) -> None:
    model = promotion.model
    parts = [{**part, "layers": ["nowhere"]} for part in model.metadata["origin"]["parts"]]
    damaged = PromotedModel(
        model.network, transform=model.transform, classes=model.classes, train_keys=model.train_keys, device=model.device,
        metadata={**model.metadata, "origin": {**model.metadata["origin"], "parts": parts}},
    )  # fmt: skip
    path = damaged.save(tmp_path / "damaged.safetensors")
    with pytest.raises((CorruptFileError, PromotionError), match="nowhere"):
        PromotedModel.load(path, backbone=joint_pair.code, device="cpu")
    for origin in ({"source": "joint", "name": "x"}, {"source": "joint", "name": "x", "parts": [{}]}):
        damaged.metadata["origin"] = origin
        with pytest.raises(CorruptFileError, match="not a valid model"):
            PromotedModel.load(damaged.save(path), backbone=joint_pair.code, device="cpu")


def test_engines_serve_the_head_and_the_network(promotion: Promotion, joint_pair: JointPair) -> None:
    for model in (joint_pair.model(), promotion.model):
        pixels = np.random.default_rng(0).integers(0, 256, (5, 2, *model.transform.shape), dtype=np.uint8)
        scorer = open_scorer(model, compute="eager", workers=1)
        assert scorer.engine == "eager"
        np.testing.assert_allclose(scorer.compute(pixels), model.predict_values(pixels), atol=1e-5)
