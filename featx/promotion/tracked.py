"""What a promotion tells its trackers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from featx._version import __version__
from featx.heads.head_file import short_weights
from featx.metrics.classification import ClassificationReport
from featx.metrics.flat import flat_numbers
from featx.promotion.assemble import Assembly, Proof
from featx.promotion.config import FineTuning
from featx.promotion.finetune_run import FineTuningRun
from featx.tracking.dispatch import Trackers


def params_of(assembly: Assembly, file: Path | None, settings: FineTuning | None) -> dict[str, Any]:
    """The parameters of a promotion that are known before it.

    Args:
        assembly: The assembled network and its data.
        file: File of the head, or None.
        settings: The settings of fine-tuning, or None.
    """
    head, data = assembly.head, assembly.data
    return {
        "featx": __version__,
        "head": file.name if file else head.kind,
        "model": head.kind,
        "dataset": Path(str(assembly.features.dataset.get("name", ""))).name,
        "classes": len(data.classes),
        "backbone": assembly.backbone.name,
        "weights": short_weights(head.backbone_),
        "layer": head.layer_,
        "C": head.parameters["C"],
        "n_train": len(data.rows("train")),
        "test_split": assembly.test_split,
        "n_test": len(data.rows(assembly.test_split)),
        "finetune": settings is not None,
        **({} if settings is None else dataclasses.asdict(settings)),
    }


def log_results(
    trackers: Trackers,
    path: Path,
    *,
    verdict: tuple[str, str],
    proof: Proof,
    head_report: ClassificationReport,
    report: ClassificationReport,
    run: FineTuningRun | None,
    seconds: float,
) -> None:
    """Tell the trackers the results, and give them the files.

    Args:
        trackers: Of the promotion.
        path: File of the model.
        verdict: The verdict and its reason.
        proof: The comparison of the logits.
        head_report: The head on the test split.
        report: The saved model on the test split.
        run: The fine-tuning run, or None.
        seconds: Wall time.
    """
    trackers.log_params({"verdict": verdict[0], "why": verdict[1]})
    trackers.log_metrics({
        **flat_numbers(report, "test_"),
        **flat_numbers(head_report, "head_test_"),
        **(flat_numbers(run.report, "finetuned_test_") if run else {}),
        "largest_logit_difference": proof.largest,
        "best_epoch": run.history.best_epoch if run else None,
        "alpha": run.history.alpha if run else None,
        "p_value": run.paired.p_value if run else None,
        "total_seconds": seconds,
    })  # fmt: skip
    trackers.log_artifact(path)
    trackers.log_artifact(path.with_suffix(".csv") if run else None)
