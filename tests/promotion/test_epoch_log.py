"""The log of the epochs beside a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from featx.errors import OutputError
from featx.promotion.epoch_log import EpochLog
from featx.promotion.history import TrainingHistory
from featx.tracking.dispatch import Trackers
from featx.tracking.tracker import Tracker

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


def test_trackers_are_told_each_epoch_once_and_the_picture(tmp_path: Path) -> None:
    told: list[object] = []

    class Told(Tracker):
        def log_metrics(self, metrics: object, step: int | None = None) -> None:
            told.append((step, metrics))

        def log_image(self, name: str, path: Path) -> None:
            told.append((name, path))

    log = EpochLog(tmp_path / "model.safetensors", trackers=Trackers([Told()]))
    log.write(TrainingHistory(LOG[:1]))
    log.write(TrainingHistory(LOG[:2]))
    log.write(TrainingHistory(LOG))
    log.close(TrainingHistory(LOG, curve={0.0: 0.7, 1.0: 0.25}))
    assert told == [
        (0, {"accuracy": 0.5, "log_loss": 0.7}),
        (1, {"loss": 0.6, "accuracy": 0.75, "log_loss": 0.5, "rate": 1e-3, "seconds": 2.0}),
        (2, {"loss": 0.4, "accuracy": 1.0, "log_loss": 0.25, "rate": 5e-4, "seconds": 2.0}),
        ("epochs", tmp_path / "model.png"),
    ]


def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"model\.csv: Not a directory"):
        EpochLog(tmp_path / "file" / "model.safetensors").write(TrainingHistory(LOG))
