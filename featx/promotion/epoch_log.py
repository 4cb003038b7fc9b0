"""The epochs of fine-tuning, written down as they end: as CSV, as a picture, for TensorBoard."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from featx.errors import OutputError
from featx.io.atomic import write_whole
from featx.promotion.trainer import TrainingHistory

NAMES = ("epoch", "loss", "accuracy", "log_loss", "rate", "seconds")
"""Columns of the CSV, and scalars of TensorBoard but for the first."""


class EpochLog:
    """What lies beside a model of the epochs that it was trained for.

    Args:
        model: its file.
        tensorboard: write scalars too, into ``<model>.tensorboard``.

    Raises:
        OutputError: TensorBoard is not installed.
    """

    def __init__(self, model: Path, *, tensorboard: bool = False) -> None:
        self.csv, self.png = model.with_suffix(".csv"), model.with_suffix(".png")
        self.folder = model.with_suffix(".tensorboard")
        self._writer = _writer(self.folder) if tensorboard else None
        self._shown = 0

    def write(self, run: TrainingHistory) -> None:
        """All epochs so far.

        Raises:
            OutputError: they cannot be written.
        """
        text = io.StringIO()
        table = csv.DictWriter(text, NAMES, lineterminator="\n", restval="")
        table.writeheader()
        table.writerows(run.log)
        write_whole(self.csv, text.getvalue().encode())
        if self._writer:
            for entry in run.log[self._shown :]:
                for name in NAMES[1:]:
                    if entry.get(name) is not None:
                        self._writer.add_scalar(name, entry[name], entry["epoch"])
            self._writer.flush()
            self._shown = len(run.log)

    def end(self, run: TrainingHistory) -> None:
        """The picture, when all is done.

        Raises:
            OutputError: it cannot be written.
        """
        from featx.report.plots import as_png, training_figure

        write_whole(self.png, as_png(training_figure(run.log, run.curve)))
        if self._writer:
            self._writer.close()


def _writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OutputError("--tensorboard needs TensorBoard, which is not installed: pip install tensorboard") from error
    try:
        return SummaryWriter(str(folder), purge_step=0)  # a run that goes on writes its first epochs again
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; name another file with -o") from error
