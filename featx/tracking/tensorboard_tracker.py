"""Runs as event files of TensorBoard, beside the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featx.tracking.tracker import TrackedRun, Tracker, Value


class TensorBoardTracker(Tracker):
    """Writes scalars, pictures, parameters and HPARAMS of a run for TensorBoard, into ``<model>.tensorboard``.

    ``tensorboard --logdir models`` shows all runs of a folder. A run that is resumed or repeated replaces what its folder
    showed before.

    Args:
        folder: instead of the one beside the model.

    Example:

        featx.fit_head("cache/photos--resnet50.h5", callbacks=[TensorBoardTracker()])
    """

    tool = "tensorboard"

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._writer: Any = None
        self._params: dict[str, Value] = {}
        self._results: dict[str, float] = {}

    def on_start(self, run: TrackedRun) -> None:
        """Open the event file."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self._folder or run.path.with_suffix(".tensorboard")
        self._writer = SummaryWriter(str(folder), purge_step=0)  # what a resumed or repeated run wrote before is hidden
        self.place = f"{folder} (tensorboard --logdir {folder.parent})"

    def log_params(self, params: Mapping[str, Value]) -> None:
        """Write parameters as a table of the tab TEXT; ``on_end`` writes them for HPARAMS."""
        self._params |= params
        lines = [f"| {name} | {_escaped(value)} |" for name, value in self._params.items()]
        self._writer.add_text("parameters", "\n".join(["| parameter | value |", "|---|---|", *lines]), 0)
        self._writer.flush()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars."""
        if step is None:
            self._results |= metrics
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step or 0)
        self._writer.flush()

    def log_image(self, name: str, path: Path) -> None:
        """Write a PNG file as it is."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        data = path.read_bytes()
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=data)
        self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), 0)

    def on_end(self) -> None:
        """Write the parameters and results for HPARAMS, and close the file."""
        from torch.utils.tensorboard.summary import hparams

        values = {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in
                  self._params.items()}  # fmt: skip
        for summary in hparams(values, self._results):
            self._writer.file_writer.add_summary(summary)
        self._writer.close()

    def on_error(self, error: BaseException) -> None:  # noqa: ARG002 - TensorBoard has no place for it
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def _escaped(value: Value) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
