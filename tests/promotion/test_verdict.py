"""The verdict in words, and its evidence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inspection.info import describe_file
from featx.metrics.classification import ClassificationReport
from featx.metrics.paired import PairedTest
from featx.promotion.config import FineTuning
from featx.promotion.finetune_run import FineTuningRun
from featx.promotion.history import TrainingHistory, ValidationScore
from featx.promotion.promotion import promote
from featx.promotion.verdict import evidence_of, notes_on_few, verdict_of


def test_the_evidence_is_in_the_file_and_the_epochs_beside_it(digits: FeatureSet, tmp_path: Path) -> None:
    head = Head("centroid").fit(digits)
    settings = FineTuning(epochs=2, lr=2e-2, flip=False, crop_scale=0.8)
    result = promote(head, finetune=True, settings=settings, out=tmp_path / "model.safetensors")
    facts = describe_file(result.path)
    assert result.run is not None
    paired = result.run.paired
    assert facts["paired"]["p_value"] == paired.p_value
    assert {name: facts[name] for name in ("interpolation", "step_0")} == {
        name: result.as_dict()[name] for name in ("interpolation", "step_0")
    }
    assert paired.n == result.report.n == 173
    head_right, tuned_right = (round(r.accuracy * 173) for r in (result.head_report, result.run.report))
    assert paired.both_right + len(paired.first_only) == head_right
    assert paired.both_right + len(paired.second_only) == tuned_right
    lines = (tmp_path / "model.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,accuracy,log_loss,rate,seconds"
    assert len(lines) == result.epochs + 2
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")


def report(right: int, n: int = 100) -> ClassificationReport:
    labels = np.zeros(n, dtype=np.int64)
    p = np.where(np.arange(n)[:, None] < right, [0.9, 0.1], [0.1, 0.9])
    return ClassificationReport.from_predictions(labels, p, ["a", "b"], split="test")


def run_of(tuned_only: int, head_only: int, *, alpha: float = 1.0, n: int = 100) -> FineTuningRun:
    """A run whose network and head are both right on half of the images, and each on some more."""
    paths = [f"{i}.jpg" for i in range(n)]
    paired = PairedTest(n, n // 2, tuple(paths[:head_only]), tuple(paths[head_only : head_only + tuned_only]))
    log: list[dict[str, float | None]] = [{"epoch": 0, "accuracy": 0.5, "log_loss": 0.7}, {"epoch": 1}]
    history = TrainingHistory(log, best_epoch=1, alpha=alpha)
    return FineTuningRun(history, report(n // 2 + tuned_only, n), paired, ValidationScore(0.5, 0.7), "10 images", 60.0)


@pytest.mark.parametrize(
    ("run", "repeats", "settings", "verdict", "why"),
    [
        (None, (), FineTuning(), "assembled",
         "the network is the head on its backbone, with accuracy 0.5000 on the 100 images of split test"),
        (run_of(20, 0, alpha=0), (), FineTuning(), "kept-head",
         "neither the one epoch, nor any weights between the head's and the best epoch's, had a lower log loss on the "
         "validation images than the head, so the model is the head on its backbone, with accuracy 0.5000 on the 100 images of "
         "split test"),
        (run_of(20, 0), (), FineTuning(), "promoted",
         "the fine-tuned network has accuracy 0.7000 and the head 0.5000 on the 100 images of split test, where the network "
         "alone is right on 20 and the head alone on 0 (p = 1.9e-06 by McNemar's exact test)"),
        (run_of(3, 0), (), FineTuning(), "kept-head",
         "the fine-tuned network has accuracy 0.5300 and the head 0.5000 on the 100 images of split test, where the network "
         "alone is right on 3 and the head alone on 0 (p = 0.25 by McNemar's exact test, above the 0.025 that would be proof), "
         "so the model is the head on its backbone"),
        (run_of(0, 0), (), FineTuning(), "kept-head",
         "the fine-tuned network has accuracy 0.5000 and the head 0.5000 on the 100 images of split test, where the network "
         "alone is right on 0 and the head alone on 0: no gain, so the model is the head on its backbone"),
        (run_of(3, 0), (run_of(20, 1), run_of(20, 1)), FineTuning(), "promoted",
         "the fine-tuned network has accuracy 0.5300 and the head 0.5000 on the 100 images of split test, where the network "
         "alone is right on 3 and the head alone on 0; on the 200 test images of 2 other splits in all, the network alone is "
         "right on 40 and the head alone on 2 (p = 4.1e-10 by McNemar's exact test)"),
    ],
)  # fmt: skip
def test_the_verdict_is_one_sentence(
    run: FineTuningRun | None, repeats: tuple[FineTuningRun, ...], settings: FineTuning, verdict: str, why: str
) -> None:
    assert verdict_of(report(50), run, repeats, settings) == (verdict, why)


def test_without_fine_tuning_there_is_no_evidence() -> None:
    names = ("paired", "step_0", "interpolation", "chosen_on", "repeats", "gain_per_minute", "training_seconds")
    nothing = dict.fromkeys((*names, "search", "teacher", "from_random"))
    assert evidence_of(None, ()) == nothing | {"log": []}


def test_a_verdict_by_groups_names_the_groups() -> None:
    run = run_of(20, 0)
    by_groups = dataclasses.replace(run, paired=dataclasses.replace(run.paired, groups=4, gains=(10, 5, 5)))
    verdict, why = verdict_of(report(50), by_groups, (), FineTuning())
    assert verdict == "kept-head", "three groups prove nothing, though 20 images would"
    assert "(p = 0.25 by the sign-flip test of 4 groups, above the 0.025 that would be proof)" in why


@pytest.mark.parametrize(("n", "noted"), [(199, True), (200, False), (3, False)])
def test_a_verdict_on_few_images_states_what_these_can_show(n: int, noted: bool) -> None:
    labels = np.arange(n) % 2
    report = ClassificationReport.from_predictions(labels, np.eye(2)[labels], ["a", "b"], split="test")
    notes = notes_on_few(report, FineTuning(repeats=0))
    assert len(notes) == noted
    if noted:
        assert "right on 6 or more of them and the head alone on none" in notes[0]  # 2 / 2**6 < 0.05 < 2 / 2**5
