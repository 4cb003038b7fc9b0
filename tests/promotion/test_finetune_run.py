"""Fine-tuning runs: from the head on, resumed, judged on the test images; never worse than the head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made import Recorder

import featx
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inference import evaluate
from featx.promotion.config import FineTuning
from featx.promotion.history import TrainingProgress
from featx.promotion.image_data import ImageData
from featx.promotion.model import PromotedModel
from featx.promotion.promotion import promote


def test_fine_tuning_that_fails_keeps_the_head(features: FeatureSet, pixels_of) -> None:
    head = Head("logreg").fit(features)
    result = promote(head, finetune=True, settings=FineTuning(epochs=2, lr=50.0))
    assert result.verdict == "kept-head"
    assert result.run is not None
    assert result.run.report.accuracy <= result.report.accuracy == result.head_report.accuracy
    logits = PromotedModel.load(result.path).logits(pixels_of(features, result.model.transform))
    np.testing.assert_allclose(
        logits, head.decision_function(features.features), atol=1e-3 * max(1, np.abs(logits).max())
    )


def test_fine_tuning_that_wins_is_saved_as_it_was_tested(digits: FeatureSet, tmp_path: Path) -> None:
    head = Head("centroid").fit(digits)
    settings = FineTuning(epochs=6, lr=2e-2, flip=False, crop_scale=0.8)
    result = promote(head, finetune=True, settings=settings, out=tmp_path / "model.safetensors")
    assert result.verdict == "promoted"
    assert result.report.accuracy > result.head_report.accuracy
    report = featx.evaluate(PromotedModel.load(result.path), "digits")
    assert (report.n, report.split) == (173, "test")
    assert report.accuracy == result.report.accuracy
    np.testing.assert_array_equal(report.confusion, result.report.confusion)


def test_the_best_epoch_by_log_loss_on_val_is_the_one_that_is_kept(digits: FeatureSet, tmp_path: Path) -> None:
    head = Head("centroid").fit(digits)
    settings = FineTuning(epochs=6, lr=2e-2, flip=False, crop_scale=0.8)
    result = promote(head, finetune=True, settings=settings, out=tmp_path / "model.safetensors")
    best = min(result.log, key=lambda entry: entry["log_loss"])
    val = featx.evaluate(PromotedModel.load(result.path), "digits", split="val")
    assert val.log_loss == pytest.approx(best["log_loss"], rel=1e-4)


def test_two_runs_of_one_seed_end_at_the_same_weights(features: FeatureSet, tmp_path: Path) -> None:
    head = Head("logreg").fit(features)
    settings = FineTuning(epochs=2, lr=1e-3, batch_size=8)
    states = []
    for number in range(2):
        out = tmp_path / f"{number}.safetensors"
        result = promote(head, finetune=True, settings=settings, out=out)
        states.append([entry["log_loss"] for entry in result.log])
    assert states[0] == states[1]


def test_validation_scores_of_nan_halve_the_rate_twice_and_then_keep_the_head(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("logreg").fit(features)
    honest, calls = ImageData.logits, iter(range(100))
    # The proof, epoch 0, and then three tries of epoch 1.
    monkeypatch.setattr(ImageData, "logits", lambda *given: honest(*given) * (np.nan if 2 <= next(calls) < 5 else 1))
    result = promote(head, finetune=True, settings=FineTuning(epochs=3))
    assert (result.verdict, result.epochs) == ("kept-head", 0)
    diverged = "the validation log loss became nan in epoch 1"
    assert result.notes[:-1] == (
        *[f"{diverged}; training resumed from epoch 0 at half the learning rate"] * 2,
        f"{diverged}, even at a learning rate of 0.00025; training ended there",
    )


def test_an_interrupted_promotion_is_resumed_and_ends_at_the_same_network(features: FeatureSet, tmp_path: Path) -> None:
    head = Head("logreg").fit(features)
    settings = FineTuning(epochs=3, lr=1e-3, batch_size=8)

    def stop(step: TrainingProgress) -> None:
        if (step.epoch, step.done) == (2, 14):
            raise KeyboardInterrupt

    expected = promote(head, finetune=True, settings=settings, out=tmp_path / "whole.safetensors")
    out = tmp_path / "model.safetensors"
    with pytest.raises(KeyboardInterrupt):
        promote(head, finetune=True, settings=settings, out=out, reporter=Recorder(stop))
    assert not out.exists()
    assert {path.suffix for path in tmp_path.glob("model.*")} == {".checkpoint", ".csv"}
    assert [line.split(",")[0] for line in (tmp_path / "model.csv").read_text().splitlines()] == ["epoch", "0", "1"]
    other = promote(head, finetune=True, settings=FineTuning(epochs=1), out=out)
    assert not any("resumed" in note for note in other.notes), "of other settings"
    result = promote(head, finetune=True, settings=settings, out=out)
    assert result.replaced is not None
    assert result.notes[:2] == (result.replaced.sentence, "resumed from the checkpoint of epoch 1")
    assert not list(tmp_path.glob("*.checkpoint"))
    for name, tensor in expected.model.network.state_dict().items():
        assert torch.equal(tensor, result.model.network.state_dict()[name]), name
    assert result.run is not None
    assert expected.run is not None
    assert result.run.report.log_loss == expected.run.report.log_loss


def test_before_the_first_step_the_network_is_as_right_as_the_head(features: FeatureSet) -> None:
    result = promote(Head("logreg").fit(features), finetune=True, settings=FineTuning(epochs=1))
    assert result.run is not None
    start, first = result.run.start, result.log[0]
    assert first["accuracy"] == start.accuracy
    assert first["log_loss"] == pytest.approx(start.log_loss, abs=1e-4)
    assert result.as_dict()["step_0"] == {
        "accuracy": first["accuracy"], "accuracy_of_head": start.accuracy,
        "log_loss": first["log_loss"], "log_loss_of_head": start.log_loss,
    }  # fmt: skip


def test_progress_counts_the_images_of_every_epoch(features: FeatureSet) -> None:
    recorder = Recorder()
    settings = FineTuning(epochs=2, batch_size=8, patience=5)
    promote(Head("logreg").fit(features), finetune=True, settings=settings, reporter=recorder)
    assert [(s.epoch, s.done, s.total) for s in recorder.details] == [
        (e, d, 26) for e in (1, 2) for d in (7, 14, 20, 26)
    ], "6 of 32 validate, in batches of one size but for an image"
    assert all(np.isfinite(s.loss) for s in recorder.details)


@pytest.mark.parametrize("last", [None, 1])
def test_a_network_fine_tuned_from_a_head_on_views_is_tested_in_them(
    split_photos: Path, in_tmp: Path, last: int | None
) -> None:
    features = featx.extract(split_photos, featx.load_backbone("lenet5", views="flip", weights="random")).load()
    head = Head("logreg", C=1e-3).fit(features)
    settings = FineTuning(epochs=2, lr=1e-2, last=last, significance=1.0, interpolate=False)
    result = promote(head, finetune=True, settings=settings)
    assert result.run is not None
    # Epoch 0 is the network while it is the head, both in the plain view of the validation images.
    assert result.log[0]["log_loss"] == pytest.approx(result.run.start.log_loss, abs=1e-3)
    judged = evaluate(result.path, split_photos)
    assert judged.as_dict()["confusion"] == result.report.as_dict()["confusion"]
    assert judged.as_dict()["log_loss"] == pytest.approx(result.report.as_dict()["log_loss"], abs=1e-5)
