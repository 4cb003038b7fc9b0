"""Runs in MLflow: a server, a database, or the folder ``mlruns``."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from featx.confidential import without_secrets
from featx.errors import OutputError
from featx.text import brief
from featx.tracking.tracker import TrackedRun, Tracker, Value

EXPERIMENT = "featx"
"""The experiment where none is named."""

_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""MLflow's own settings would wait for minutes for a server that is away, and report its use to its makers. What the
environment sets is left as it is."""

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SECONDS = 5.0
"""How long metrics are collected, so that the path of a search is one request."""


class MLflowTracker(Tracker):
    """Logs a run to MLflow, where ``MLFLOW_TRACKING_URI`` or ``mlflow.set_tracking_uri`` says.

    Without either, MLflow's default is used; where mlflow-skinny is installed alone, which has no database, the folder
    ``mlruns``. The experiment is ``MLFLOW_EXPERIMENT_NAME`` or ``MLFLOW_EXPERIMENT_ID``, else "featx". Inside of
    ``with mlflow.start_run():`` the run is a child of the active one.

    Example:

        featx.fit_head("cache/photos--resnet50.h5", callbacks=[MLflowTracker()])
    """

    tool = "mlflow"

    def __init__(self) -> None:
        self._uri, self._run, self._waiting, self._sent = "", "", [], 0.0  # type: tuple[str, str, list[Any], float]
        self._client: Any = None

    def on_start(self, run: TrackedRun) -> None:
        """Create the run."""
        with self._settings():
            import mlflow
            from mlflow.tracking import MlflowClient

        self._uri = _tracking_uri(mlflow)
        with self._settings():
            client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            parent = mlflow.active_run()
            experiment = parent.info.experiment_id if parent and run.experiment is None else _experiment(client, run)
            tags = {"mlflow.source.name": "featx", "featx.job": run.job}
            tags |= {"mlflow.parentRunId": parent.info.run_id} if parent else {}
            self._run = client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
            name = client.get_experiment(experiment).name
        self._client = client
        self.place = f"run {self._run} of experiment {name} in {without_secrets(self._uri)}"

    def log_params(self, params: Mapping[str, Value]) -> None:
        """Log parameters."""
        from mlflow.entities import Param

        self._send(params=[Param(name, str(value)) for name, value in params.items()])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers; those of many steps go together."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step or 0) for name, value in metrics.items()]
        if len(self._waiting) > 500 or time.monotonic() - self._sent > _SECONDS:
            self._send()

    def log_image(self, name: str, path: Path) -> None:  # noqa: ARG002 - the file has a name
        """Log a picture as an artifact."""
        self._send()
        with self._settings():
            self._client.log_artifact(self._run, str(path), "pictures")

    def log_artifact(self, path: Path) -> None:
        """Log a file as an artifact."""
        self._send()
        with self._settings():
            self._client.log_artifact(self._run, str(path), "model")

    def on_end(self) -> None:
        """End the run as finished."""
        self._send()
        with self._settings():
            self._client.set_terminated(self._run)

    def on_error(self, error: BaseException) -> None:
        """End the run as failed, or as killed where the user interrupted it."""
        if self._client is None:
            return
        with self._settings():
            if isinstance(error, Exception):
                self._client.set_tag(self._run, "featx.error", without_secrets(brief(error)))
            self._client.set_terminated(self._run, "FAILED" if isinstance(error, Exception) else "KILLED")

    def _send(self, params: list[Any] | None = None) -> None:
        metrics, self._waiting, self._sent = self._waiting, [], time.monotonic()
        if metrics or params:
            with self._settings():
                for at in range(0, max(len(metrics), 1), 900):  # a request takes a thousand
                    self._client.log_batch(
                        self._run, metrics=metrics[at : at + 900], params=(params or []) if not at else []
                    )

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        """MLflow's settings for the calls in the block, as far as the environment does not set them."""
        wanted = dict(_SETTINGS)
        if self._uri and (self._uri.startswith("file:") or "://" not in self._uri):
            wanted["MLFLOW_ALLOW_FILE_STORE"] = "true"  # a folder was asked for, or is all that there is
        added = {name: value for name, value in wanted.items() if name not in os.environ}
        os.environ.update(added)
        try:
            yield
        finally:
            for name in added:
                os.environ.pop(name, None)


def _tracking_uri(mlflow: Any) -> str:
    """Where runs go.

    Raises:
        OutputError: a database, which mlflow-skinny alone cannot open.
    """
    has_database = find_spec("sqlalchemy") is not None
    if not mlflow.is_tracking_uri_set() and not has_database:
        return Path("mlruns").absolute().as_uri()
    uri = str(mlflow.get_tracking_uri())
    if uri.partition(":")[0].partition("+")[0] in _DATABASES and not has_database:
        raise OutputError(
            f"{without_secrets(uri)} is a database, which mlflow-skinny cannot open: pip install mlflow, or set "
            "MLFLOW_TRACKING_URI to a folder, such as file:mlruns, or to a server"
        )
    return uri


def _experiment(client: Any, run: TrackedRun) -> str:
    """The id of the experiment, which is created where it does not exist."""
    if run.experiment is None and (known := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        return known
    name = run.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    if (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except Exception:  # another process has created it meanwhile
        if (found := client.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        raise
