"""Whether the fine-tuned network takes the head's place."""

from __future__ import annotations

from typing import Any

from featx.metrics.classification import Report
from featx.metrics.paired import Paired, Standard
from featx.promotion.config import FineTuning
from featx.promotion.finetune_run import Trial


def evidence_of(trial: Trial | None, repeats: tuple[Trial, ...]) -> dict[str, Any]:
    """What a model's file and ``--json`` say of the training."""
    if not trial:
        return dict.fromkeys(("paired", "step_0", "interpolation", "chosen_on", "repeats")) | {"log": []}
    network = trial.tuning.log[0]
    return {
        "paired": trial.paired.as_dict(),
        "step_0": {
            "accuracy": network["accuracy"], "accuracy_of_head": trial.start.accuracy,
            "log_loss": network["log_loss"], "log_loss_of_head": trial.start.log_loss,
        },
        "interpolation": [{"alpha": alpha, "log_loss": loss} for alpha, loss in trial.tuning.curve.items()],
        "chosen_on": trial.chosen_on,
        "repeats": {
            **Paired.together([t.paired for t in repeats]).as_dict(),
            "splits": [
                {"n": t.paired.n, "accuracy_head": t.paired.head_accuracy, "accuracy_finetuned": t.report.accuracy}
                for t in repeats
            ],
        } if repeats else None,
        "log": trial.tuning.log,
    }  # fmt: skip


def verdict_of(head: Report, trial: Trial | None, repeats: tuple[Trial, ...], settings: FineTuning) -> tuple[str, str]:
    """Decide which model is kept, and say why in one sentence."""
    where = f"on the same {head.n} images of split {head.split}"
    if trial is None:
        return "assembled", f"the network is the head: accuracy {head.accuracy:.4f} {where}"
    kept = "the model is the head on its backbone"
    if trial.tuning.alpha == 0:
        return "kept-head", (
            f"none of {trial.tuning.epoch} epochs did better than the head on the images that choose, nor did weights on "
            f"the way, so {kept}: accuracy {head.accuracy:.4f} {where}"
        )
    others = [repeat.paired for repeat in repeats]
    judged = Paired.together(others) if others else trial.paired
    reached = (
        f"the fine-tuned network reached {trial.report.accuracy:.4f} against the head's {head.accuracy:.4f} {where}: "
        f"{_alone(trial.paired)}"
    )
    if others:
        splits = (
            f"{len(others)} other splits, {judged.n} images in all"
            if others[1:]
            else f"another split, {judged.n} images"
        )
        reached += f"; on {splits}, {_alone(judged)}"
    standard = Standard(settings.significance, settings.repeats)
    p = f"p = {judged.p_value:.2g} by McNemar's exact test"
    if standard.proved(trial.paired, others):
        return "promoted", f"{reached} ({p})"
    lacking = f"{p}, no proof at {standard.level(others):.2g}" if judged.gained > 0 else "it did not win"
    return "kept-head", f"{reached} ({lacking}), so {kept}"


def _alone(paired: Paired) -> str:
    return f"it alone gets {len(paired.tuned_only)} right, the head alone {len(paired.head_only)}"
