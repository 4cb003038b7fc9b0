"""Checkpoints of an unfinished fine-tuning run: one file of arrays and JSON, either whole or ignored.

A checkpoint is a safetensors file. Its JSON, under the metadata key "featx", identifies the run (settings, images, start) and
holds the SHA-256 of arrays and JSON. The file lies beside the model that the run is to make, and is removed once the model is
saved.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from featx.io.model_file import digest, stored_format
from featx.io.outputs import OutputKind, write_output
from featx.io.strict_json import strict_json
from featx.io.tensor_file import read_header, read_tensor

FORMAT, VERSION = "featx-checkpoint", 1

KIND = OutputKind("checkpoint", ".checkpoint", lambda path: stored_format(path) == FORMAT)
"""A checkpoint, as an output."""


class Checkpoint:
    """The checkpoint file of one fine-tuning run.

    Args:
        model: Path of the model that the run is to make.
        run: Everything that determines the run (settings, images, start), as JSON; another run has another file.

    Attributes:
        path: Path of the file, ``<model>.<8 digits>.checkpoint``.
        run_sha256: SHA-256 of ``run``.
    """

    def __init__(self, model: Path, run: Mapping[str, Any]) -> None:
        self.run_sha256 = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
        self.path = model.with_name(f"{model.stem}.{self.run_sha256[:8]}.checkpoint")

    def save(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Replace the stored state by a later one.

        Args:
            arrays: Tensors by name.
            facts: Everything else, as JSON.

        Raises:
            OutputError: The file cannot be written.
        """
        contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        stored = json.loads(json.dumps({**facts, "format": FORMAT, "version": VERSION, "asked": self.run_sha256}))
        stored["sha256"] = digest(contiguous, stored)
        write_output(self.path, save(contiguous, metadata={"featx": json.dumps(stored)}), KIND)

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Return the arrays and the facts of the last save, or None if there is no undamaged file of this run."""
        try:
            with self.path.open("rb") as file:
                strings, tensors = read_header(file, self.path.stat().st_size)
                facts = strict_json(strings["featx"])
                arrays = {name: read_tensor(file, tensor) for name, tensor in tensors.items()}
            sha256 = facts.pop("sha256")
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return None
        identity = (facts.get("format"), facts.get("version"), facts.get("asked"))
        is_own = identity == (FORMAT, VERSION, self.run_sha256)
        return (arrays, facts) if is_own and sha256 == digest(arrays, facts) else None

    def set_aside(self) -> Path | None:
        """Rename a file that ``load`` cannot use, rather than overwrite it, and return its new path; None if there is none."""
        aside = self.path.with_name(f"{self.path.name}.unusable")
        try:
            self.path.replace(aside)
        except OSError:
            return None
        return aside

    def remove(self) -> None:
        """Delete the file, if there is one."""
        with contextlib.suppress(OSError):
            self.path.unlink()


class MemoryCheckpoint:
    """The last state of a run that is too short to be resumed, in memory."""

    def __init__(self) -> None:
        self._state: tuple[dict[str, np.ndarray], dict[str, Any]] | None = None

    def save(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Keep a copy of a state, in place of the last one."""
        self._state = ({name: array.copy() for name, array in arrays.items()}, copy.deepcopy(dict(facts)))

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Return the last state, if there is one."""
        return self._state
