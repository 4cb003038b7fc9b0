"""The history of a fine-tuning run."""

from __future__ import annotations

from featx.promotion.history import TrainingHistory, TrainingProgress


def test_a_checkpoint_stores_accumulation_steps_under_their_first_name() -> None:
    history = TrainingHistory(
        [{"epoch": 0}], best_epoch=0, halved=1, accumulation_steps=4, curve={0.0: 1.0}, notes=["a"]
    )
    stored = history.as_stored()
    assert list(stored) == ["log", "best_epoch", "halved", "pieces", "alpha", "curve", "notes"]
    assert (stored["pieces"], stored["curve"]) == (4, {})
    again = TrainingHistory.from_stored(stored)
    assert (again.accumulation_steps, again.halved, again.notes, again.epoch) == (4, 1, ["a"], 0)


def test_progress_fits_beside_a_bar() -> None:
    assert str(TrainingProgress.caching(3, 9)) == "caching activations of the frozen blocks"
    progress = TrainingProgress(2, 10, 64, 128, 0.25, 0.875, 1e-3)
    assert str(progress) == "epoch 2/10, loss 0.250, rate 1.0e-03, best 0.8750"
