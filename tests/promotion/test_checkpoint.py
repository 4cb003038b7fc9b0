"""Checkpoints: whole and of the same run, or ignored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featx.errors import OutputError
from featx.promotion.checkpoint import Checkpoint

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "step": np.array(3.0, np.float32), "n": np.arange(3)}
FACTS = {"steps": 7, "run": {"log": [{"epoch": 0, "loss": None, "rate": 0.1 + 0.2}]}}


def test_what_was_saved_is_loaded_to_the_last_bit(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "m.safetensors", {"seed": 0})
    assert checkpoint.load() is None
    checkpoint.save({"a": np.zeros(1)}, {})
    checkpoint.save(ARRAYS, FACTS)
    state = Checkpoint(tmp_path / "m.safetensors", {"seed": 0}).load()
    assert state is not None
    arrays, facts = state
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert facts.items() >= FACTS.items()
    checkpoint.remove()
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_runs_of_other_settings_have_files_of_their_own(tmp_path: Path) -> None:
    first, second = (Checkpoint(tmp_path / "m.safetensors", {"seed": seed}) for seed in (0, 1))
    first.save(ARRAYS, FACTS)
    assert second.load() is None
    second.save({}, {})
    assert first.load() is not None
    first.path.replace(second.path)
    assert second.load() is None, "a file under another run's name is ignored"


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "m.safetensors", {})
    checkpoint.save(ARRAYS, FACTS)
    data = checkpoint.path.read_bytes()
    assert checkpoint.load() is not None
    for at in range(0, len(data), 3):
        checkpoint.path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        state = checkpoint.load()
        # A space of the header, or a letter's case in an escape, may be another without meaning anything else.
        assert state is None or all(np.array_equal(state[0][name], ARRAYS[name]) for name in ARRAYS)
    for end in (0, 7, 100, len(data) - 1):
        checkpoint.path.write_bytes(data[:end])
        assert checkpoint.load() is None


def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        Checkpoint(tmp_path / "file" / "m.safetensors", {}).save(ARRAYS, FACTS)
