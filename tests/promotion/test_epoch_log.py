"""The log of the epochs beside a model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from featx.errors import OutputError
from featx.promotion.epoch_log import EpochLog
from featx.promotion.history import TrainingHistory

LOG = [
    {"epoch": 0, "loss": None, "accuracy": 0.5, "log_loss": 0.7},
    {"epoch": 1, "loss": 0.6, "accuracy": 0.75, "log_loss": 0.5, "rate": 1e-3, "seconds": 2.0},
    {"epoch": 2, "loss": 0.4, "accuracy": 1.0, "log_loss": 0.25, "rate": 5e-4, "seconds": 2.0},
]


def test_the_csv_is_whole_after_each_epoch(tmp_path: Path) -> None:
    log = EpochLog(tmp_path / "model.safetensors")
    for epochs in (1, 2, 3):
        log.write(TrainingHistory(LOG[:epochs]))
        lines = (tmp_path / "model.csv").read_text().splitlines()
        assert lines[0] == "epoch,loss,accuracy,log_loss,rate,seconds"
        assert lines[1] == "0,,0.5,0.7,,"
        assert len(lines) == epochs + 1
    log.close(TrainingHistory(LOG, curve={0.0: 0.7, 1.0: 0.25}))
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "model.tensorboard").exists()


def test_tensorboard_has_each_epoch_once_after_a_resumed_run_too(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = EpochLog(tmp_path / "model.safetensors", tensorboard=True)
    first.write(TrainingHistory(LOG[:1]))
    first.write(TrainingHistory(LOG[:2]))
    again = EpochLog(tmp_path / "model.safetensors", tensorboard=True)
    again.write(TrainingHistory(LOG))
    again.close(TrainingHistory(LOG, curve={0.0: 0.7, 1.0: 0.25}))
    found = events.EventAccumulator(str(tmp_path / "model.tensorboard"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "accuracy", "log_loss", "rate", "seconds"}
    assert [(e.step, e.value) for e in found.Scalars("accuracy")] == [(0, 0.5), (1, 0.75), (2, 1.0)]
    assert [e.step for e in found.Scalars("loss")] == [1, 2]


def test_without_tensorboard_the_option_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(OutputError, match=r"not installed: pip install tensorboard"):
        EpochLog(tmp_path / "model.safetensors", tensorboard=True)


def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"model\.csv: Not a directory"):
        EpochLog(tmp_path / "file" / "model.safetensors").write(TrainingHistory(LOG))
