"""The log of the epochs, written as they end: a CSV file, TensorBoard scalars, and at the end a figure."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from featx.errors import OutputError
from featx.io.outputs import TRAINING_CURVES, Output, table, write_output
from featx.promotion.history import TrainingHistory

COLUMNS = ("epoch", "loss", "accuracy", "log_loss", "rate", "seconds")
"""Columns of the CSV file; all but the first are TensorBoard scalars too."""

LOG = table("log of the epochs", COLUMNS)
"""The CSV file, as an output."""


class EpochLog:
    """The log files beside a model.

    Args:
        model: Path of the model.
        subject: Title of the figure.
        tensorboard: Also write scalars for TensorBoard, into ``<model>.tensorboard``.

    Attributes:
        subject: Title of the figure.
        csv: Path of the table.
        png: Path of the figure.
        folder: Path of TensorBoard's folder.

    Raises:
        OutputError: TensorBoard is not installed.
    """

    def __init__(self, model: Path, *, subject: str = "", tensorboard: bool = False) -> None:
        (self.csv, self.png), self.folder = (
            (output.path for output in log_files(model)),
            model.with_suffix(".tensorboard"),
        )
        self.subject = subject
        self._writer = _summary_writer(self.folder) if tensorboard else None
        self._written = 0

    def write(self, history: TrainingHistory) -> None:
        """Write all epochs so far.

        Raises:
            OutputError: A file cannot be written.
        """
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
        table.writeheader()
        table.writerows(history.log)
        write_output(self.csv, text.getvalue().encode(), LOG)
        if self._writer:
            for entry in history.log[self._written :]:
                for name in COLUMNS[1:]:
                    if entry.get(name) is not None:
                        self._writer.add_scalar(name, entry[name], entry["epoch"])
            self._writer.flush()
            self._written = len(history.log)

    def close(self, history: TrainingHistory) -> None:
        """Write the figure, and close TensorBoard's file.

        Raises:
            OutputError: A file cannot be written.
        """
        from featx.report.plots import save_png, training_figure

        figure = training_figure(
            history.log, history.curve, best_epoch=history.best_epoch, alpha=history.alpha, subject=self.subject
        )
        save_png(figure, self.png, TRAINING_CURVES)
        if self._writer:
            self._writer.close()


def log_files(model: Path) -> tuple[Output, Output]:
    """The table and the figure beside a model."""
    return Output(model.with_suffix(".csv"), LOG), Output(model.with_suffix(".png"), TRAINING_CURVES)


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OutputError("--tensorboard needs TensorBoard, which is not installed: pip install tensorboard") from error
    try:
        return SummaryWriter(str(folder), purge_step=0)  # a resumed run writes its first epochs again
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; name another file with -o") from error
