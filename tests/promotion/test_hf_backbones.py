"""Heads on models of transformers and open_clip, as one network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import vision_models

import featx
from featx.promotion.model import PromotedModel


@pytest.mark.parametrize("make", [vision_models.vit, vision_models.clip])
def test_a_head_on_a_model_of_transformers_is_promoted_fine_tuned_saved_and_loaded_without_its_folder(
    make: vision_models.Maker, tmp_path: Path, split_photos: Path
) -> None:
    make(tmp_path / "model")
    found = featx.extract(split_photos, f"hf/{tmp_path}/model", cache=tmp_path / "cache")
    fit = featx.fit_head(found.file, models=tmp_path / "models")
    promotion = featx.promote(fit.path, finetune=True, settings=featx.FineTuning(epochs=1, last=1), device="cpu")
    assert promotion.model.metadata["max_logit_difference"] < 1e-3
    (tmp_path / "model").rename(tmp_path / "gone")
    again = PromotedModel.load(promotion.path, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    np.testing.assert_allclose(again.predict_proba(pixels), promotion.model.predict_proba(pixels), atol=1e-6)


def test_a_head_on_an_image_tower_of_open_clip_is_promoted(tmp_path: Path, split_photos: Path) -> None:
    arch = vision_models.register_open_clip()
    vision_models.open_clip_model(tmp_path / "w.safetensors")
    backbone = featx.load_backbone(f"open_clip/{arch}", weights=str(tmp_path / "w.safetensors"), device="cpu")
    fit = featx.fit_head(
        featx.extract(split_photos, backbone, cache=tmp_path / "cache").file, models=tmp_path / "models"
    )
    promotion = featx.promote(fit.path, device="cpu")
    assert promotion.model.metadata["max_logit_difference"] < 1e-3
    again = PromotedModel.load(promotion.path, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    np.testing.assert_allclose(again.predict_proba(pixels), promotion.model.predict_proba(pixels), atol=1e-6)
