"""Trackers of a run: what they are told, and that none of them can stop it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made import Recorder, photos
from task_features import measured, tagged

from featx.errors import SettingsError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.tracking import dispatch
from featx.tracking.dispatch import Trackers
from featx.tracking.tracker import TrackedRun, Tracker
from featx.workflows.fit import fit_head


class Told(Tracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.params: dict[str, Any] = {}
        self.results: dict[str, float] = {}
        self.steps: dict[int, dict[str, float]] = {}
        self.files: dict[str, bytes] = {}
        self.run: TrackedRun | None = None
        self.error: BaseException | None = None

    def on_start(self, run: TrackedRun) -> None:
        self.calls.append("on_start")
        self.run = run

    def log_params(self, params: Mapping[str, Any]) -> None:
        assert not self.params.keys() & params.keys(), "each parameter once: MLflow refuses another value"
        self.params |= params

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert all(type(value) is float for value in metrics.values())
        (self.results if step is None else self.steps.setdefault(step, {})).update(metrics)

    def log_image(self, name: str, path: Path) -> None:
        self.files[name] = path.read_bytes()

    def log_artifact(self, path: Path) -> None:
        self.files[path.name] = path.read_bytes()

    def on_end(self) -> None:
        self.calls.append("on_end")

    def on_error(self, error: BaseException) -> None:
        self.calls.append("on_error")
        self.error = error


def test_a_fit_tells_its_parameters_its_search_its_results_and_its_files(tmp_path: Path) -> None:
    told = Told()
    fit = fit_head(photos(), "logreg", class_weight="balanced", cv=3, shots=[2], models=tmp_path, callbacks=[told])
    assert told.calls == ["on_start", "on_end"]
    assert told.run == TrackedRun("fit-head", "pets--logreg--balanced", fit.path)
    expected = {
        "dataset": "pets",
        "backbone": "lenet5",
        "n_train": 60,
        "n_test": 45,
        "class_weight": "balanced",
        "classes": 3,
    }
    assert {name: told.params[name] for name in expected} == expected
    assert told.params["C"] == fit.head.C_
    low, high = fit.report.interval
    numbers = {
        "test_accuracy": fit.report.accuracy, "test_accuracy_low": low, "test_accuracy_high": high,
        "test_log_loss": fit.report.log_loss, "cv_accuracy": fit.cross_validated.mean("accuracy"),
    }  # fmt: skip
    assert {name: told.results[name] for name in numbers} == pytest.approx(numbers)
    path = [(s["search_candidate"], s["search_loss"]) for _, s in sorted(told.steps.items()) if "search_loss" in s]
    assert path == [(tried.candidate, tried.loss) for tried in fit.head.search_]
    assert told.steps[2]["shots_accuracy"] == fit.shots[0][1].mean("accuracy")
    assert told.files[fit.path.name] == fit.path.read_bytes()
    assert told.files["confusion_matrix"] == fit.picture.read_bytes()
    assert told.files["search"].startswith(b"\x89PNG")
    assert fit.tracked == {}


@pytest.mark.parametrize(
    ("features", "kind", "numbers"),
    [
        (measured(), "ridge", {"test_rmse", "test_rmse_low", "test_rmse_high", "test_mae", "test_r2"}),
        (tagged(), "logreg", {"test_mAP", "test_exact_match", "test_exact_match_low", "test_exact_match_high"}),
        (photos(train=8, test=5), "auto", {"test_accuracy", "kind_loss/centroid", "kind_loss/ridge"}),
    ],
)
def test_each_task_tells_its_own_numbers(
    features: FeatureSet, kind: str, numbers: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    few = [("centroid", "linear"), ("ridge", "linear")]
    monkeypatch.setattr("featx.workflows.comparison.auto_candidates", lambda *_: few)
    task = "regression" if "test_rmse" in numbers else "auto"
    fit_head(features, kind, task=task, models=tmp_path, callbacks=[told])
    assert numbers <= told.results.keys()


class Broken(Tracker):
    """Fails in one method."""

    def __init__(self, method: str, error: BaseException) -> None:
        self.closed = False

        def fail(*_: object) -> None:
            raise error

        setattr(self, method, fail)

    def on_error(self, error: BaseException) -> None:
        self.closed = True


@pytest.mark.parametrize("method", ["on_start", "log_params", "log_metrics", "log_image", "log_artifact", "on_end"])
def test_a_tracker_that_fails_costs_a_note_and_nothing_else(method: str, tmp_path: Path) -> None:
    broken, told, recorder = Broken(method, OSError(28, "No space left on device")), Told(), Recorder()
    fit = fit_head(photos(), "ridge", models=tmp_path, callbacks=[broken, told], reporter=recorder)
    assert Head.load(fit.path).kind == "ridge"
    assert told.calls == ["on_start", "on_end"]
    note = (
        f"Broken failed in {method}, and receives nothing more of this run, which goes on: OSError: [Errno 28] No space left "
        "on device"
    )
    assert fit.notes[-1] == note
    assert note in recorder.notes
    assert broken.closed == (method not in ("on_start", "on_end"))


def test_a_note_about_a_server_lacks_its_password(tmp_path: Path) -> None:
    broken = Broken("on_start", ConnectionError("https://ann:secret@mlflow.example/api?token=abc refused"))
    fit = fit_head(photos(), "centroid", models=tmp_path, callbacks=[broken])
    assert fit.notes[-1].endswith("ConnectionError: https://mlflow.example/api refused")


def test_an_interrupt_in_a_tracker_passes(tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(KeyboardInterrupt):
        fit_head(photos(), "centroid", models=tmp_path, callbacks=[Broken("log_params", KeyboardInterrupt()), told])
    assert told.calls == ["on_start", "on_error"]
    assert isinstance(told.error, KeyboardInterrupt)


def test_a_run_that_fails_is_told_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(Head, "fit", fail)
    told = Told()
    with pytest.raises(Exception, match="no room"):
        fit_head(photos(), "centroid", models=tmp_path, callbacks=[told])
    assert told.calls == ["on_start", "on_error"]
    assert isinstance(told.error, MemoryError)


def test_any_object_with_one_of_the_methods_is_a_callback(tmp_path: Path) -> None:
    found: list[object] = []
    only = SimpleNamespace(log_artifact=found.append)
    fit = fit_head(photos(), "centroid", models=tmp_path, callbacks=[only])
    assert (found, fit.notes) == ([fit.path], ())


def test_parameters_are_told_without_secrets_and_not_at_any_length() -> None:
    told = Told()
    with Trackers([told]).run("fit-head", Path("m/h.safetensors")) as trackers:
        trackers.log_params(
            {"a": "https://ann:pass@server/x?sig=1", "b": "x" * 9000, "c": None, "d": 1.5, "e": Path("q")}
        )
        trackers.log_metrics({"x": float("nan"), "y": None, "z": 2, "t": True, "u": float("inf")})
    assert told.params == {"a": "https://server/x", "b": f"{'x' * 497}...", "c": None, "d": 1.5, "e": "q"}
    assert told.results == {"z": 2.0}


def test_wrong_arguments_are_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, message in (
        ({"track": "mlflwo"}, r"there is no tracker 'mlflwo'; did you mean mlflow\?; expected one of mlflow, wandb"),
        ({"callbacks": [3]}, r"callbacks holds an int, 3; expected objects with methods of featx\.Tracker"),
        ({"callbacks": [Told]}, "callbacks holds a type"),
        ({"callbacks": 3}, "callbacks holds an int"),
        ({"experiment": "pets"}, r"experiment \(--experiment\) is for track \(--track\) mlflow and wandb"),
    ):
        with pytest.raises(SettingsError, match=message):
            fit_head("no such file", **arguments)  # type: ignore[arg-type]
    monkeypatch.setattr(dispatch, "find_spec", lambda name: SimpleNamespace(origin=None))  # a folder of that name
    with pytest.raises(
        SettingsError, match=r"needs Weights & Biases, which is not installed: pip install 'featx\[wandb\]'"
    ):
        fit_head("no such file", track="wandb")


def test_other_processes_than_the_first_have_no_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    monkeypatch.setattr(dispatch, "started", lambda: (1, 2))
    trackers = Trackers.of(callbacks=[told])
    with trackers.run("promote", Path("m.safetensors")):
        trackers.log_params({"a": 1})
    assert (bool(trackers), told.calls) == (False, [])
