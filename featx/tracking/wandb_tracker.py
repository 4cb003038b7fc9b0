"""Runs in Weights & Biases, offline unless ``WANDB_MODE`` says otherwise."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featx.tracking.tracker import TrackedRun, Tracker, Value

PROJECT = "featx"
"""The project where neither ``experiment`` nor ``WANDB_PROJECT`` names one."""


class WandbTracker(Tracker):
    """Logs a run to Weights & Biases: offline, into the folder ``wandb`` or ``WANDB_DIR``, unless ``WANDB_MODE`` is set.

    ``wandb sync FOLDER`` uploads an offline run. What Weights & Biases collects by itself (the command line, the git remote,
    installed packages, the output of the terminal) is turned off.

    Example:

        featx.fit_head("cache/photos--resnet50.h5", callbacks=[WandbTracker()])
    """

    tool = "wandb"

    def __init__(self) -> None:
        self._run: Any = None
        self._steps: set[str] = set()

    def on_start(self, run: TrackedRun) -> None:
        """Begin the run."""
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or "offline"
        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, save_code=False, disable_job_creation=True,
            x_disable_meta=True, x_disable_stats=True, x_save_requirements=False,
        )  # fmt: skip
        self._run = wandb.init(
            project=run.experiment or os.environ.get("WANDB_PROJECT") or PROJECT,
            name=run.name,
            job_type=run.job,
            mode=mode,
            reinit="create_new",
            settings=settings,
        )
        if self._run.offline:
            folder = self._run.settings.sync_dir
            self.place = f"{folder} (wandb sync {folder} uploads it)"
        else:
            self.place = str(self._run.url or "")

    def log_params(self, params: Mapping[str, Value]) -> None:
        """Add parameters to the configuration of the run."""
        self._run.config.update(dict(params))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers of a step, or into the summary."""
        if step is None:
            self._run.summary.update(dict(metrics))
            return
        for name in metrics.keys() - self._steps:
            self._run.define_metric(name, step_metric="step")  # steps of a search and of epochs both begin at 0
            self._steps.add(name)
        self._run.log({**metrics, "step": step})

    def log_image(self, name: str, path: Path) -> None:
        """Log a picture."""
        import wandb

        self._run.log({name: wandb.Image(str(path))})

    def log_artifact(self, path: Path) -> None:
        """Log a file as an artifact."""
        import wandb

        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem)[:100]
        artifact = wandb.Artifact(name, type="model" if path.suffix == ".safetensors" else "file")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def on_end(self) -> None:
        """End the run."""
        self._run.finish(exit_code=0)

    def on_error(self, error: BaseException) -> None:
        """End the run as crashed."""
        if self._run is not None:
            self._run.finish(exit_code=1 if isinstance(error, Exception) else 130)
