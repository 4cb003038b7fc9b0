"""The inputs of training: augmented images, or cached activations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made import Recorder

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.promotion.assemble import assemble, backbone_of
from featx.promotion.batches import ImageBatches
from featx.promotion.config import FineTuning
from featx.promotion.prefix_cache import ActivationCache
from featx.promotion.promotion import promote


@pytest.mark.parametrize("augment", ["none", "randaugment"])
def test_training_images_are_augmented_reproducibly(features: FeatureSet, augment: str) -> None:
    head = Head("logreg").fit(features)
    assembly = assemble(head, features, backbone_of(head))
    settings = FineTuning(augment=augment, batch_size=8)
    rows = assembly.data.rows("train")

    def epoch(number: int) -> torch.Tensor:
        torch.manual_seed(number)
        source = ImageBatches(assembly.data, assembly.network, settings, train=rows, validation=rows)
        return torch.cat([x.flatten(1) for x, _ in source.batches(number)])

    assert torch.equal(epoch(1), epoch(1))
    assert torch.equal(epoch(1).sum(1).sort().values, epoch(2).sum(1).sort().values) == (augment == "none")


def test_training_on_cached_activations_is_training_on_images(features: FeatureSet, tmp_path: Path) -> None:
    head = Head("logreg").fit(features)
    recorder = Recorder()
    states = []
    for crops in (0, 1):
        settings = FineTuning(epochs=2, lr=1e-3, batch_size=8, last=1, augment="none", cached_crops=crops)
        result = promote(
            head, finetune=True, settings=settings, out=tmp_path / f"{crops}.safetensors", reporter=recorder
        )
        states.append([(entry["loss"], entry["log_loss"]) for entry in result.log[1:]])
        assert [note.split(" on ")[0] for note in result.notes] == ["the verdict fell"]
    np.testing.assert_allclose(states[0], states[1], rtol=1e-2)
    assert len(recorder.notes) == 1
    assert recorder.notes[0].startswith("caching the activations of 32 crops, which enter hidden.1: ")
    assert len(list(Path("cache/frozen").glob("*.h5"))) == 1


@pytest.mark.parametrize("why", ["disk", "randaugment"])
def test_where_activations_cannot_be_cached_the_frozen_blocks_run_in_every_epoch(
    features: FeatureSet, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("logreg").fit(features)
    if why == "disk":
        monkeypatch.setattr(ActivationCache, "has_room", lambda *_: False)
    settings = FineTuning(epochs=1, last=1, augment="randaugment" if why == "randaugment" else "crop")
    result = promote(head, finetune=True, settings=settings)
    assert result.epochs == 1
    assert {"disk": "more than half of the free disk", "randaugment": "not for randaugment"}[why] in result.notes[0]
    assert not Path("cache/frozen").exists()
