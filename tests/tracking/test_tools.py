"""MLflow, Weights & Biases and TensorBoard: what a run leaves there, read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made import photos

from featx.tracking.mlflow_tracker import MLflowTracker
from featx.tracking.tensorboard_tracker import TensorBoardTracker
from featx.tracking.tracker import TrackedRun
from featx.workflows.fit import fit_head


@pytest.fixture
def _clean(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, and no settings of MLflow and Weights & Biases but those of the test."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "WANDB_")):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("_clean")
def test_a_fit_is_found_in_mlflow_with_its_path_of_c_and_its_files(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs MLflow")
    store = (in_tmp / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    fit = fit_head(photos(), "ridge", track="mlflow", experiment="pets")
    assert "MLFLOW_ALLOW_FILE_STORE" not in os.environ
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("pets").experiment_id])
    assert fit.tracked == {"mlflow": f"run {run.info.run_id} of experiment pets in {store}"}
    assert (run.info.status, run.info.run_name) == ("FINISHED", "pets--ridge")
    assert (run.data.params["n_train"], run.data.params["C"]) == ("60", str(fit.head.C_))
    assert run.data.metrics["test_accuracy"] == fit.report.accuracy
    assert run.data.metrics["test_accuracy_low"] == fit.report.interval[0]
    losses = sorted(client.get_metric_history(run.info.run_id, "search_loss"), key=lambda metric: metric.step)
    assert [metric.value for metric in losses] == [tried.loss for tried in fit.head.search_]
    files = {each.path for folder in ("model", "pictures") for each in client.list_artifacts(run.info.run_id, folder)}
    assert files == {"model/pets--ridge.safetensors", "pictures/pets--ridge.png", "pictures/search.png"}
    assert run.data.tags["featx.job"] == "fit-head"


@pytest.mark.usefixtures("_clean")
def test_mlflow_that_is_away_or_has_no_database_costs_a_note(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="needs MLflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:9")
    (note,) = fit_head(photos(), "centroid", track="mlflow").notes
    assert note.startswith("mlflow failed in on_start, and receives nothing more of this run, which goes on: ")
    assert "secret" not in note
    monkeypatch.setattr("featx.tracking.mlflow_tracker.find_spec", lambda name: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    (note,) = fit_head(photos(), "centroid", track="mlflow").notes
    assert "sqlite:///runs.db is a database, which mlflow-skinny cannot open: pip install mlflow" in note
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    fit = fit_head(photos(), "centroid", track="mlflow")
    assert fit.notes == ()
    assert fit.tracked["mlflow"].endswith(f"of experiment featx in {(in_tmp / 'mlruns').as_uri()}")


@pytest.mark.usefixtures("_clean")
@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("https://a:b@c/d"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_run_that_fails_or_is_interrupted_has_ended_in_mlflow(
    error: BaseException, status: str, in_tmp: Path
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs MLflow")
    tracker = MLflowTracker()
    tracker.on_start(TrackedRun("promote", "m", in_tmp / "m.safetensors"))
    tracker.on_error(error)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = mlflow.MlflowClient((in_tmp / "mlruns").as_uri())
        (run,) = client.search_runs([client.get_experiment_by_name("featx").experiment_id])
    assert run.info.status == status
    assert run.data.tags.get("featx.error") == ("https://c/d" if status == "FAILED" else None)


def records_of(data: bytes) -> Iterator[bytes]:
    """The records of a file of Weights & Biases, which has the format of LevelDB's log: blocks of 32 kB, with fragments."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last fragment
            yield whole
            whole = b""
        left = -at % 32768
        at += left if left < 7 else 0


@pytest.mark.usefixtures("_clean")
def test_a_fit_is_found_in_the_offline_folder_of_wandb(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="needs Weights & Biases")
    records = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(in_tmp / name))
    fit = fit_head(photos(), "ridge", track="wandb")
    assert fit.notes == ()
    wandb.teardown()  # as at the end of a process: waits until the file is written
    (folder,) = (in_tmp / "wandb").glob("offline-run-*")
    assert fit.tracked == {"wandb": f"{folder} (wandb sync {folder} uploads it)"}
    (file,) = folder.glob("*.wandb")
    config, summary, losses, artifacts = {}, {}, [], []
    for data in records_of(file.read_bytes()):
        record = records.Record()
        record.ParseFromString(data)
        config |= {each.key: json.loads(each.value_json) for each in record.config.update}
        config |= {each.key: json.loads(each.value_json) for each in record.run.config.update}
        summary |= {each.key: each.value_json for each in record.summary.update}
        losses += [each.value_json for each in record.history.item if (each.key or each.nested_key[0]) == "search_loss"]
        artifacts += [record.artifact.name] if record.HasField("artifact") else []
        if record.HasField("run"):
            assert record.run.project == "featx"
            assert (record.run.display_name, record.run.job_type) == ("pets--ridge", "fit-head")
    assert (config["C"], config["n_train"]) == (fit.head.C_, 60)
    assert json.loads(summary["test_accuracy"]) == fit.report.accuracy
    assert len(losses) > 20
    assert "pets--ridge" in artifacts
    assert not list(folder.rglob("requirements.txt")), "packages may be installed from private places"


@pytest.mark.usefixtures("_clean")
def test_tensorboard_has_the_search_the_picture_and_the_parameters(in_tmp: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs TensorBoard")
    fit = fit_head(photos(), "ridge", track=["tensorboard"])
    folder = fit.path.with_suffix(".tensorboard")
    assert fit.tracked == {"tensorboard": f"{folder} (tensorboard --logdir models)"}
    found = events.EventAccumulator(str(folder))
    found.Reload()
    assert [event.value for event in found.Scalars("search_loss")] == pytest.approx([t.loss for t in fit.head.search_])
    assert found.Scalars("test_accuracy")[0].value == pytest.approx(fit.report.accuracy)
    (image,) = found.Images("confusion_matrix")
    assert image.encoded_image_string == fit.picture.read_bytes()
    assert (image.width, image.height) > (100, 100)
    text = found.Tensors("parameters/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| n_train | 60 |" in text
    assert "_hparams_/session_start_info" in found.summary_metadata


@pytest.mark.usefixtures("_clean")
def test_tensorboard_has_each_epoch_once_after_a_resumed_run_too(in_tmp: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs TensorBoard")
    for epochs in (2, 3):
        tracker = TensorBoardTracker()
        tracker.on_start(TrackedRun("promote", "model", in_tmp / "model.safetensors"))
        for step in range(epochs):
            tracker.log_metrics({"accuracy": 0.5 + step / 8}, step)
    tracker.on_error(KeyboardInterrupt())
    found = events.EventAccumulator(str(in_tmp / "model.tensorboard"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("accuracy")] == [(0, 0.5), (1, 0.625), (2, 0.75)]


def test_the_tools_are_imported_only_when_they_are_used() -> None:
    code = "import sys, featx.tracking.dispatch as d; d.Trackers.of(['mlflow', 'wandb', 'tensorboard'])\n"
    code += "print(sorted({'mlflow', 'wandb', 'tensorboard', 'torch'} & {*sys.modules}))"
    for tool in ("mlflow", "wandb", "tensorboard"):
        pytest.importorskip(tool, reason="needs all three tools")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
