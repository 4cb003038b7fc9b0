"""A head on several backbones as one network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joint_pair import JointPair

import featx
from featx.errors import BackboneError, CorruptFileError, PromotionError, SettingsError
from featx.promotion.config import FineTuning
from featx.promotion.joint_network import joint_network
from featx.promotion.model import PromotedModel
from featx.promotion.param_groups import modules_in_eval_mode, parameter_groups, trained_blocks
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
        model.network, transform=model.transform, classes=model.classes, seen=model.seen, device=model.device,
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


def tuned(joint_pair: JointPair, out: Path, **settings: Any) -> Promotion:
    chosen = FineTuning(epochs=2, batch_size=8, lr=0.01, significance=1.0, repeats=0, interpolate=False, **settings)
    return promote(joint_pair.head, backbone=joint_pair.code, finetune=True, settings=chosen, device="cpu", out=out)


@pytest.mark.parametrize("settings", [{}, {"last": 1}, {"from_layer": "conv2"}])
def test_one_backbone_is_fine_tuned_while_the_other_stays_as_it_is(
    joint_pair: JointPair, settings: dict[str, Any]
) -> None:
    network = joint_network(joint_pair.model().backbone)
    chosen = FineTuning(part="2", **settings)
    trained = trained_blocks(network, network.CLASSIFIER, chosen)
    parameter_groups(network, trained, chosen)
    names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    blocks = ["conv2"] if settings else ["conv1", "norm", "conv2"]
    assert {name.rpartition(".")[0].removeprefix("parts.1.extractor.network.") for name in names} == {"head", *blocks}
    assert network.parts[0] in [*modules_in_eval_mode(network, trained, train_bn=True)]


def test_a_block_that_the_backbone_does_not_have_is_refused_with_those_that_it_has(joint_pair: JointPair) -> None:
    network = joint_network(joint_pair.model().backbone)
    with pytest.raises(SettingsError, match="no block 'layer4' to train from; the blocks are conv1, norm, conv2"):
        trained_blocks(network, network.CLASSIFIER, FineTuning(part="2", from_layer="layer4"))


def test_a_head_is_fine_tuned_on_the_named_backbone(joint_pair: JointPair, tmp_path: Path) -> None:
    found = tuned(joint_pair, tmp_path / "tuned.safetensors", part="lenet5")
    assert found.run is not None
    assert len(found.run.history.log) == 3
    assert any(note.startswith("lenet5 is fine-tuned; the others stay as they are") for note in found.notes)
    assert (
        PromotedModel.load(found.path, backbone=joint_pair.code, device="cpu").metadata["settings"]["part"] == "lenet5"
    )


def test_by_default_the_backbone_is_fine_tuned_that_is_best_alone(joint_pair: JointPair, tmp_path: Path) -> None:
    found = tuned(joint_pair, tmp_path / "tuned.safetensors", last=0)
    (note,) = [note for note in found.notes if "is fine-tuned" in note]
    losses = {float(loss): name for name, loss in re.findall(r"(lenet5|tiny\.py:tiny) (\d\.\d{4})", note)}
    assert losses[min(losses)] in note.partition(" is fine-tuned")[0]


def test_what_needs_a_network_that_stands_alone_is_refused_before_the_backbones_are_built(
    joint_pair: JointPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featx.promotion.promotion.backbone_of", lambda *_, **__: pytest.fail("they were built"))
    for settings in ({"search": 2}, {"augment": "randaugment"}, {"from_random": 1}, {"compile": True}):
        with pytest.raises(SettingsError, match="is for a network that stands alone, and this head is on several"):
            tuned(joint_pair, tmp_path / "x.safetensors", **settings)
    with pytest.raises(SettingsError, match="part is 'resnet50'; expected one of lenet5, "):
        tuned(joint_pair, tmp_path / "x.safetensors", part="resnet50")
