"""Whether the fine-tuned network takes the head's place."""

from __future__ import annotations

from typing import Any

from featx.metrics.classification import ClassificationReport
from featx.metrics.paired import PairedTest, PromotionCriterion
from featx.promotion.config import FineTuning
from featx.promotion.finetune_run import FineTuningRun


def evidence_of(run: FineTuningRun | None, repeats: tuple[FineTuningRun, ...]) -> dict[str, Any]:
    """What a model's file and ``--json`` say of the training."""
    if not run:
        return dict.fromkeys(("paired", "step_0", "interpolation", "chosen_on", "repeats")) | {"log": []}
    network = run.history.log[0]
    return {
        "paired": run.paired.as_dict(),
        "step_0": {
            "accuracy": network["accuracy"], "accuracy_of_head": run.start.accuracy,
            "log_loss": network["log_loss"], "log_loss_of_head": run.start.log_loss,
        },
        "interpolation": [{"alpha": alpha, "log_loss": loss} for alpha, loss in run.history.curve.items()],
        "chosen_on": run.chosen_on,
        "repeats": {
            **PairedTest.pooled([t.paired for t in repeats]).as_dict(),
            "splits": [
                {"n": t.paired.n, "accuracy_head": t.paired.head_accuracy, "accuracy_finetuned": t.report.accuracy}
                for t in repeats
            ],
        } if repeats else None,
        "log": run.history.log,
    }  # fmt: skip


def verdict_of(
    head: ClassificationReport, run: FineTuningRun | None, repeats: tuple[FineTuningRun, ...], settings: FineTuning
) -> tuple[str, str]:
    """Decide which model is kept, and say why in one sentence."""
    where = f"on the same {head.n} images of split {head.split}"
    if run is None:
        return "assembled", f"the network is the head: accuracy {head.accuracy:.4f} {where}"
    kept = "the model is the head on its backbone"
    if run.history.alpha == 0:
        return "kept-head", (
            f"none of {run.history.epoch} epochs did better than the head on the images that choose, nor did weights on "
            f"the way, so {kept}: accuracy {head.accuracy:.4f} {where}"
        )
    others = [repeat.paired for repeat in repeats]
    judged = PairedTest.pooled(others) if others else run.paired
    reached = (
        f"the fine-tuned network reached {run.report.accuracy:.4f} against the head's {head.accuracy:.4f} {where}: "
        f"{_alone(run.paired)}"
    )
    if others:
        splits = (
            f"{len(others)} other splits, {judged.n} images in all"
            if others[1:]
            else f"another split, {judged.n} images"
        )
        reached += f"; on {splits}, {_alone(judged)}"
    standard = PromotionCriterion(settings.significance, settings.repeats)
    p = f"p = {judged.p_value:.2g} by McNemar's exact test"
    if standard.proved(run.paired, others):
        return "promoted", f"{reached} ({p})"
    lacking = f"{p}, no proof at {standard.level(others):.2g}" if judged.gained > 0 else "it did not win"
    return "kept-head", f"{reached} ({lacking}), so {kept}"


def _alone(paired: PairedTest) -> str:
    return f"it alone gets {len(paired.tuned_only)} right, the head alone {len(paired.head_only)}"
