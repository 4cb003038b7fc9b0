"""``--track`` and ``--experiment`` of ``fit-head`` and ``promote``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import featx


def test_fit_head_prints_where_the_run_is_tracked(fitted: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs TensorBoard")
    shown = featx("fit-head", "--model", "centroid", "--track", "tensorboard").stdout.splitlines()
    folder = "models/split--lenet5--centroid.tensorboard"
    assert shown[-1] == f"tracked by tensorboard: {folder} (tensorboard --logdir models)"
    assert list(Path(folder).glob("events.*"))


def test_promote_has_its_epochs_in_tensorboard_once_however_it_is_asked(fitted: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs TensorBoard")
    tuned = ("promote", "--finetune", "--epochs", "1", "--last", "0", "--repeats", "0", "-o", "m.safetensors")
    facts = json.loads(featx(*tuned, "--tensorboard", "--track", "tensorboard", "--json").stdout)
    assert facts["tracked"] == {"tensorboard": "m.tensorboard (tensorboard --logdir .)"}
    found = events.EventAccumulator("m.tensorboard")
    found.Reload()
    assert {"loss", "accuracy", "log_loss", "rate", "seconds", "test_accuracy"} <= set(found.Tags()["scalars"])
    assert [event.step for event in found.Scalars("accuracy")] == [0, 1]
    assert found.Scalars("test_accuracy")[0].value == pytest.approx(facts["accuracy"])
    assert {"epochs"} == set(found.Tags()["images"])
    text = found.Tensors("parameters/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert f"| verdict | {facts['verdict']} |" in text


def test_an_experiment_without_a_tracker_is_a_mistake(in_tmp: Path) -> None:
    assert "--experiment has no effect without --track mlflow or wandb" in (
        featx("fit-head", "--experiment", "x", "--track", "tensorboard", status=2).stderr
    )
    assert (
        "'mlflwo' is not one of 'mlflow', 'wandb', 'tensorboard'"
        in featx("promote", "--track", "mlflwo", status=2).stderr
    )
