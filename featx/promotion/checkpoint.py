"""What an interrupted run of fine-tuning goes on from: one file, arrays and JSON, whole or not there.

A safetensors file whose JSON, under the metadata key "featx", names what the run was asked, and the SHA-256 of all of it. It
lies beside the model that is to be made, and goes when that is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from featx.io.atomic import write_whole
from featx.io.model_file import digest
from featx.io.strict_json import strict_json
from featx.io.tensor_file import read_header, read_tensor

FORMAT, VERSION = "featx-checkpoint", 1


class Checkpoint:
    """The file of one run.

    Args:
        model: the file that the run is to make.
        asked: what the run is: settings, images, where it starts; a run of anything else has another file.

    Attributes:
        path: the file.
    """

    def __init__(self, model: Path, asked: Mapping[str, Any]) -> None:
        self.asked = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        self.path = model.with_name(f"{model.stem}.{self.asked[:8]}.checkpoint")

    def save(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Put a later state in the place of the one before.

        Raises:
            OutputError: it cannot be written.
        """
        contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        text = json.loads(json.dumps({**facts, "format": FORMAT, "version": VERSION, "asked": self.asked}))
        text["sha256"] = digest(contiguous, text)
        write_whole(self.path, save(contiguous, metadata={"featx": json.dumps(text)}))

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """The last state; None where there is none, or none that is whole and of this run."""
        try:
            with self.path.open("rb") as file:
                strings, tensors = read_header(file, self.path.stat().st_size)
                facts = strict_json(strings["featx"])
                arrays = {name: read_tensor(file, tensor) for name, tensor in tensors.items()}
            sha256 = facts.pop("sha256")
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return None
        known = (facts.get("format"), facts.get("version"), facts.get("asked")) == (FORMAT, VERSION, self.asked)
        return (arrays, facts) if known and sha256 == digest(arrays, facts) else None

    def remove(self) -> None:
        """It is needed no more."""
        with contextlib.suppress(OSError):
            self.path.unlink()
