"""What a promotion tells its trackers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featx._version import __version__
from featx.heads.head_file import short_weights
from featx.metrics.classification import ClassificationReport
from featx.metrics.flat import flat_numbers
from featx.promotion.assemble import Assembly, Proof
from featx.promotion.config import FineTuning
from featx.promotion.finetune_run import FineTuningRun
from featx.promotion.search import Trial, search_file, write_trials
from featx.tracking.dispatch import Trackers


def params_of(
    assembly: Assembly, file: Path | None, settings: FineTuning | None, teacher: str | None = None
) -> dict[str, Any]:
    """The parameters of a promotion that are known before it.

    Args:
        assembly: The assembled network and its data.
        file: File of the head, or None.
        settings: The settings of fine-tuning, or None.
        teacher: The teacher's name, if there is one.
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
        **({} if settings is None else {**dataclasses.asdict(settings), "teacher": teacher}),
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
    chosen = {f"chosen_{name}": value for name, value in run.search.changes.items()} if run and run.search else {}
    trackers.log_params({"verdict": verdict[0], "why": verdict[1], **chosen})
    trackers.log_metrics({
        **flat_numbers(report, "test_"),
        **flat_numbers(head_report, "head_test_"),
        **(flat_numbers(run.report, "finetuned_test_") if run else {}),
        "largest_logit_difference": proof.largest,
        "best_epoch": run.history.best_epoch if run else None,
        "alpha": run.history.alpha if run else None,
        "p_value": run.paired.p_value if run else None,
        "gain_per_minute": run.gain_per_minute if run else None,
        "teacher_test_accuracy": run.teacher.accuracy if run and run.teacher else None,
        "total_seconds": seconds,
    })  # fmt: skip
    trackers.log_artifact(path)
    trackers.log_artifact(path.with_suffix(".csv") if run else None)
    trackers.log_artifact(search_file(path).path if run and run.search else None)


class SearchLog:
    """The log of a search, written as it goes: a table beside the model, and the trackers of the run.

    Args:
        model: Path of the model.
        trackers: Are told the trials too.
    """

    def __init__(self, model: Path, trackers: Trackers) -> None:
        self._model, self._trackers, self._written = model, trackers, 0

    def write(self, trials: Sequence[Trial]) -> None:
        """Write all trials so far.

        Raises:
            OutputError: The table cannot be written.
        """
        write_trials(self._model, trials)
        for trial in trials[self._written :]:
            found = {"trial_log_loss": trial.log_loss, "trial_accuracy": trial.accuracy, "trial_seconds": trial.seconds}
            self._trackers.log_metrics(found, trial.trial)
        self._written = len(trials)
