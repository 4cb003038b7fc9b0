"""The verdict: whether the fine-tuned network is proved to be better than the head."""

from __future__ import annotations

from typing import Any

from featx.constants import FEW_HELD_OUT
from featx.heads.head import Head
from featx.metrics.classification import ClassificationReport
from featx.metrics.paired import PairedTest, PromotionCriterion, mcnemar
from featx.metrics.tables import images_text
from featx.promotion.config import FineTuning
from featx.promotion.finetune_run import FineTuningRun
from featx.text import counted, form


def evidence_of(run: FineTuningRun | None, repeats: tuple[FineTuningRun, ...]) -> dict[str, Any]:
    """Return what a model's file and ``--json`` record about training; the keys are an interface.

    Args:
        run: The fine-tuning run; None without fine-tuning, which gives None for all keys but an empty "log".
        repeats: The runs on other splits.
    """
    if not run:
        names = ("paired", "step_0", "interpolation", "chosen_on", "repeats")
        return dict.fromkeys((*names, "gain_per_minute", "training_seconds", "search", "teacher", "from_random")) | {
            "log": []
        }
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
            **PairedTest.pooled([repeat.paired for repeat in repeats]).as_dict(),
            "splits": [
                {"n": r.paired.n, "accuracy_head": r.paired.first_accuracy, "accuracy_finetuned": r.report.accuracy}
                for r in repeats
            ],
        } if repeats else None,
        "gain_per_minute": run.gain_per_minute,
        "training_seconds": round(run.seconds, 3),
        "search": run.search.as_dict() if run.search else None,
        "teacher": run.teacher.as_dict() if run.teacher else None,
        "from_random": [course.as_dict() for course in run.courses] or None,
        "log": run.history.log,
    }  # fmt: skip


def verdict_of(
    head: ClassificationReport, run: FineTuningRun | None, repeats: tuple[FineTuningRun, ...], settings: FineTuning
) -> tuple[str, str]:
    """Decide between the fine-tuned network and the head.

    Args:
        head: The head on the test split.
        run: The fine-tuning run on the same split; None without fine-tuning.
        repeats: The runs on other splits.
        settings: ``significance`` and ``repeats`` set how small the p-value has to be.

    Returns:
        "assembled", "promoted" or "kept-head", and the reason in one sentence.
    """
    where = f"the {images_text(head)}"
    if run is None:
        return "assembled", f"the network is the head on its backbone, with accuracy {head.accuracy:.4f} on {where}"
    kept = "so the model is the head on its backbone"
    if run.history.alpha == 0:
        which = form(run.history.epoch, "neither the one epoch", f"none of {run.history.epoch} epochs")
        return "kept-head", (
            f"{which}, nor any weights between the head's and the best epoch's, had a lower log loss on the validation "
            f"images than the head, {kept}, with accuracy {head.accuracy:.4f} on {where}"
        )
    result = (
        f"the fine-tuned network has accuracy {run.report.accuracy:.4f} and the head {head.accuracy:.4f} on {where}, "
        f"where {_compared(run.paired)}"
    )
    others = [repeat.paired for repeat in repeats]
    judged = PairedTest.pooled(others) if others else run.paired
    if others:
        splits = f"{len(others)} other splits" if others[1:] else "another split"
        in_all = " in all" if others[1:] else ""
        result += f"; on the {counted(judged.n, 'test image')} of {splits}{in_all}, {_compared(judged)}"
    criterion = PromotionCriterion(settings.significance, settings.repeats)
    p = f"p = {judged.p_value:.2g} by {judged.method}"
    if criterion.proved(run.paired, others):
        return "promoted", f"{result} ({p})"
    if judged.gained <= 0:
        return "kept-head", f"{result}: no gain, {kept}"
    return "kept-head", f"{result} ({p}, above the {criterion.level(others):.2g} that would be proof), {kept}"


def _compared(paired: PairedTest) -> str:
    network, head = len(paired.second_only), len(paired.first_only)
    return f"the network alone is right on {network} and the head alone on {head}"


def notes_on_few(head: ClassificationReport, settings: FineTuning) -> list[str]:
    """Say how large a gain has to be that few test images can show.

    Args:
        head: The head on the test split.
        settings: ``significance`` and ``repeats``.

    Returns:
        One note, or none where there are many.
    """
    level = PromotionCriterion(settings.significance, settings.repeats).first_level
    least = next((alone for alone in range(1, head.n + 1) if mcnemar(0, alone) <= level), 0)
    if head.n >= FEW_HELD_OUT or not least:
        return []
    return [
        f"the verdict fell on {images_text(head)}, which show a gain only if the network alone is right on {least} or more of "
        "them and the head alone on none; more test images would show smaller gains"
    ]


def note_on_sets(head: Head, verdict: str) -> list[str]:
    """Return a note if the model has no prediction sets, though the head had some."""
    if head.conformal_ is None or verdict != "promoted":
        return []
    return [
        "the model has no prediction sets: those of the head were calibrated for the head, and the validation images chose the "
        "epoch of the fine-tuned network, so that they are no fair sample for it"
    ]
