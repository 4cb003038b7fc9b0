"""Several trackers of one run, whose failures never stop it."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from featx.arguments import names_of
from featx.confidential import without_secrets, without_secrets_in
from featx.constants import TRACKERS
from featx.errors import SettingsError
from featx.reporter import SILENT, Reporter
from featx.system import started
from featx.text import brief, described, did_you_mean
from featx.tracking.tracker import TrackedRun, Tracker, Value

_METHODS = tuple(name for name in vars(Tracker) if name.startswith(("on_", "log_")))
_TOOLS = {"mlflow": "MLflow", "wandb": "Weights & Biases", "tensorboard": "TensorBoard"}
_MOST_OF_TEXT = 500
"""Characters of a parameter; MLflow takes no more."""


class Trackers:
    """The trackers of one run.

    Args:
        trackers: objects with some of the methods of ``Tracker``.
        experiment: the name of the experiment or project.
        reporter: receives a note when a tracker fails.

    Attributes:
        notes: what failed, one sentence each.
    """

    def __init__(
        self, trackers: Sequence[Any] = (), *, experiment: str | None = None, reporter: Reporter = SILENT
    ) -> None:
        self._trackers, self._experiment, self._reporter = list(trackers), experiment, reporter
        self._places: dict[str, str] = {}
        self.notes: list[str] = []

    @classmethod
    def of(
        cls,
        track: str | Sequence[str] = (),
        callbacks: Sequence[Any] = (),
        *,
        experiment: str | None = None,
        reporter: Reporter = SILENT,
    ) -> Trackers:
        """Make the trackers that a run is given; in other processes of torchrun than the first, none.

        Args:
            track: names of ``TRACKERS``, one or several.
            callbacks: further objects with some of the methods of ``Tracker``.
            experiment: the name of the experiment or project.
            reporter: receives a note when a tracker fails.

        Raises:
            SettingsError: an unknown name, a tool that is not installed, an object that has none of the methods, or an
                experiment without a tracker.
        """
        names = dict.fromkeys(names_of(track, "track"))
        given = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
        for name in names:
            _require_installed(name)
        for each in given:
            if isinstance(each, type) or not any(callable(getattr(each, method, None)) for method in _METHODS):
                raise SettingsError(
                    f"callbacks holds {described(each)}; expected objects with methods of featx.Tracker, such as log_metrics"
                )
        if experiment is not None and not (names.keys() - {"tensorboard"} or given):
            raise SettingsError(
                "experiment (--experiment) is for track (--track) mlflow and wandb; expected one of them"
            )
        if started()[0]:
            return cls()
        return cls([*map(_new, names), *given], experiment=experiment, reporter=reporter)

    def __bool__(self) -> bool:
        return bool(self._trackers)

    @property
    def places(self) -> dict[str, str]:
        """Where each tool has the run, in words."""
        return dict(self._places)

    @contextlib.contextmanager
    def run(self, job: str, path: Path) -> Iterator[Trackers]:
        """Track what happens in the block, which ends with the run or its error.

        Args:
            job: "fit-head" or "promote".
            path: of the file that the run will write.
        """
        self._call("on_start", TrackedRun(job, without_secrets(path.stem), path, self._experiment))
        self._places = {_name(each): each.place for each in self._trackers if getattr(each, "place", "")}
        try:
            yield self
        except BaseException as error:
            self._call("on_error", error)
            raise
        self._call("on_end")

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters without secrets, each as a number or a text."""
        if self._trackers:
            self._call("log_params", {name: _value(value) for name, value in params.items()})

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log those of some values that are finite numbers."""
        if self._trackers:
            finite = {_metric(name): float(value) for name, value in metrics.items() if _is_number(value)}
            if finite:
                self._call("log_metrics", finite, step)

    def log_image(self, name: str, path: Path | None) -> None:
        """Log a picture, if there is one."""
        if path is not None:
            self._call("log_image", name, path)

    def log_artifact(self, path: Path | None) -> None:
        """Log a file, if there is one."""
        if path is not None:
            self._call("log_artifact", path)

    def _call(self, method: str, *arguments: Any) -> None:
        """Call a method of all trackers; one that fails is left out from then on."""
        for each in list(self._trackers):
            function = getattr(each, method, None)
            if function is None:
                continue
            try:
                function(*arguments)
            except Exception as error:  # whatever a tool or a user's class raises, the run goes on
                self._trackers.remove(each)
                self._places.pop(_name(each), None)
                why = f"{type(error).__name__}: {without_secrets(brief(error))}"
                note = f"{_name(each)} failed in {method}, and receives nothing more of this run, which goes on: {why}"
                self.notes.append(note)
                self._reporter.note(note)
                if method not in ("on_start", "on_end", "on_error"):
                    with contextlib.suppress(Exception):  # so that the tool does not show the run as going on for ever
                        getattr(each, "on_error", lambda _: None)(error)


def _name(tracker: Any) -> str:
    """The name of a tracker for people: the tool's, or that of the class."""
    return str(getattr(tracker, "tool", "") or type(tracker).__name__)


def _require_installed(name: str) -> None:
    """Check that a tool is known and installed.

    Raises:
        SettingsError: it is not.
    """
    if name not in TRACKERS:
        raise SettingsError(
            f"there is no tracker {name!r}{did_you_mean(name, TRACKERS)}; expected one of {', '.join(TRACKERS)}"
        )
    found = find_spec(name)
    if found is None or found.origin is None:  # a folder wandb/ that runs were written to looks like a package
        raise SettingsError(
            f"tracking by {name} needs {_TOOLS[name]}, which is not installed: pip install 'featx[{name}]'"
        )


def _new(name: str) -> Tracker:
    """A tracker for a tool, whose package is imported when the run begins."""
    if name == "mlflow":
        from featx.tracking.mlflow_tracker import MLflowTracker

        return MLflowTracker()
    if name == "wandb":
        from featx.tracking.wandb_tracker import WandbTracker

        return WandbTracker()
    from featx.tracking.tensorboard_tracker import TensorBoardTracker

    return TensorBoardTracker()


def _value(value: Any) -> Value:
    """A parameter as every tool takes it."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = without_secrets_in(str(value))
    return text if len(text) <= _MOST_OF_TEXT else f"{text[: _MOST_OF_TEXT - 3]}..."


def _metric(name: str) -> str:
    """The name of a metric with the characters alone that every tool takes: layers have commas and colons.

    Examples:
        >>> _metric("layer_loss/layer3:gem,penultimate")
        'layer_loss/layer3_gem_penultimate'
    """
    return re.sub(r"[^A-Za-z0-9_./ -]+", "_", name)


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, int | float) or hasattr(value, "__float__")
    return is_real and not isinstance(value, bool | str) and math.isfinite(float(value))
