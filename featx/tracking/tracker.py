"""``Tracker``: the methods that a run calls, and that MLflow, Weights & Biases and TensorBoard implement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Value = str | float | int | bool | None
"""The value of a parameter."""


@dataclass(frozen=True)
class TrackedRun:
    """A run that begins.

    Attributes:
        job: "fit-head" or "promote".
        name: of the file that the run will write, without its ending.
        path: of that file.
        experiment: the name of the experiment or project, as ``experiment=`` gives it; None leaves it to the tool.
    """

    job: str
    name: str
    path: Path
    experiment: str | None = None


class Tracker:
    """Receives what a run does. This class ignores everything; override what you need, and pass objects as ``callbacks=``.

    The methods are called in this order, in the process that started the run; of several processes only in the first. An
    exception in one of them ends the calls to this object, becomes a note, and never stops the run; ``KeyboardInterrupt`` and
    ``SystemExit`` pass.

    Attributes:
        place: where the run can be looked at, in words; "" before ``on_start``.

    Examples:
        >>> class Printer(Tracker):
        ...     def log_metrics(self, metrics, step=None):
        ...         print(step, dict(metrics))
        >>> Printer().log_metrics({"test_accuracy": 0.5})
        None {'test_accuracy': 0.5}
    """

    place = ""

    def on_start(self, run: TrackedRun) -> None:
        """Called once, before the work begins."""

    def log_params(self, params: Mapping[str, Value]) -> None:
        """Called with parameters: those that are known before the work, and later those that it chose, each once."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Called with finite numbers.

        Args:
            metrics: by name.
            step: number of the epoch, of the candidate of a search, or of images of each class; None for the result of the run.
        """

    def log_image(self, name: str, path: Path) -> None:
        """Called with a PNG file, such as the confusion matrix, which may be gone after the call."""

    def log_artifact(self, path: Path) -> None:
        """Called with a file that the run wrote, such as the model."""

    def on_end(self) -> None:
        """Called once, after the files are written."""

    def on_error(self, error: BaseException) -> None:
        """Called instead of ``on_end`` when the run fails or is interrupted, before the error goes on."""
