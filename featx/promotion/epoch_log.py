"""The log of the epochs, written as they end: a CSV file, the trackers of the run, and at the end a figure."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from featx.io.outputs import TRAINING_CURVES, Output, table, write_output
from featx.promotion.history import TrainingHistory
from featx.tracking.dispatch import Trackers

COLUMNS = ("epoch", "loss", "accuracy", "log_loss", "rate", "seconds")
"""Columns of the CSV file; all but the first are metrics of trackers too."""

LOG = table("log of the epochs", COLUMNS)
"""The CSV file, as an output."""


class EpochLog:
    """The log files beside a model.

    Args:
        model: Path of the model.
        subject: Title of the figure.
        trackers: Are told the epochs too.

    Attributes:
        subject: Title of the figure.
        csv: Path of the table.
        png: Path of the figure.
    """

    def __init__(self, model: Path, *, subject: str = "", trackers: Trackers | None = None) -> None:
        self.csv, self.png = (output.path for output in log_files(model))
        self.subject, self._trackers = subject, trackers or Trackers()
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
        for entry in history.log[self._written :]:
            self._trackers.log_metrics({name: entry.get(name) for name in COLUMNS[1:]}, int(entry["epoch"] or 0))
        self._written = len(history.log)

    def close(self, history: TrainingHistory) -> None:
        """Write the figure.

        Raises:
            OutputError: A file cannot be written.
        """
        from featx.report.plots import save_png, training_figure

        figure = training_figure(
            history.log, history.curve, best_epoch=history.best_epoch, alpha=history.alpha, subject=self.subject
        )
        save_png(figure, self.png, TRAINING_CURVES)
        self._trackers.log_image("epochs", self.png)


def log_files(model: Path) -> tuple[Output, Output]:
    """The table and the figure beside a model."""
    return Output(model.with_suffix(".csv"), LOG), Output(model.with_suffix(".png"), TRAINING_CURVES)
