"""A model on its way into a file: what every format is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from featx.data.joint_transform import parts_of
from featx.deployment.own_images import OwnImages
from featx.deployment.precision import Comparison
from featx.deployment.proof import Proof, Reference
from featx.deployment.whole import WholeModel
from featx.inference import Model, conformal_of
from featx.io.outputs import Output, require_outputs
from featx.reporter import Reporter
from featx.text import counted


@dataclass(frozen=True, eq=False)
class ModelExport:
    """A model that was written for use without featx.

    Attributes:
        path: the file, or the folder.
        format: "onnx", "openvino", "torch-export" or "folder".
        precision: "float32", "float16" or "int8".
        files: all files that were written, with their sizes in bytes.
        proof: the comparison with featx, of the model in float32.
        comparison: what less precision does to accuracy; None in float32, or where no image of the data set has a label.
        facts: what the file says of the model.
        notes: for the user, one sentence each.
        seconds: the duration.
    """

    path: Path
    format: str
    precision: str
    files: tuple[tuple[Path, int], ...]
    proof: Proof
    comparison: Comparison | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The object that ``featx export --json`` prints."""
        return {
            "file": str(self.path),
            "format": self.format,
            "precision": self.precision,
            "files": [{"file": str(path), "bytes": size} for path, size in self.files],
            "proof": self.proof.as_dict(),
            "comparison": self.comparison.as_dict() if self.comparison else None,
            "model": {name: self.facts.get(name) for name in ("name", "task", "classes", "identity", "report")},
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, eq=False)
class ExportJob:
    """A model on its way into a file: what every format is given.

    Attributes:
        model: what is exported, on the CPU.
        path: where it goes.
        precision: "float32", "float16" or "int8".
        inputs: the files that are read, which no result may take the place of.
        stored: the metadata of the model's file, with its report; empty for a model in memory.
        name: what to call it.
        find: finds the images of its data set.
        batch_only: declare the input of an ONNX model as (N, H, W, 3).
        reporter: receives the progress.
    """

    model: Model
    path: Path
    precision: str
    inputs: tuple[str, ...]
    stored: dict[str, Any]
    name: str
    find: Callable[[], OwnImages]
    batch_only: bool
    reporter: Reporter

    def whole(self, dtype: torch.dtype = torch.float64) -> WholeModel:
        """The model as one torch module, whose head computes in a floating-point type."""
        whole = WholeModel.of(self.model, report=self.stored.get("report"), name=self.name, dtype=dtype)
        if self.stored:
            whole.facts["sha256"] = self.stored["sha256"]
        return whole.cpu()

    @cached_property
    def own(self) -> OwnImages:
        """The images of its data set."""
        self.reporter.stage("finding the images of the model's data set")
        return self.find()

    @cached_property
    def reference(self) -> Reference:
        """What featx predicts for the images of the proof."""
        own = self.own
        self.reporter.stage("predicting the images of the proof")
        return Reference.of(self.model, own, reporter=self.reporter)

    def require(self, *outputs: Output) -> None:
        """Check before the work that the files can be written, and that none of the user's is lost under one."""
        require_outputs(outputs, self.inputs)

    def notes(self) -> list[str]:
        """What to know of the exported model, whatever the format."""
        found = []
        parts = parts_of(self.model.transform)
        decoding, bands = next((part.decoding for part in parts if part.decoding != "exact"), "exact"), parts[0].bands
        if decoding != "exact":
            found.append(
                f"the model's features are of images decoded by --decoding {decoding}, which has no meaning inside the "
                "exported model: it takes whole images, and was compared with featx on these"
            )
        if bands:
            found.append(f"the channels of the input are the bands {', '.join(map(str, bands))} of the image files")
        if conformal_of(self.model) is not None:
            found.append(
                "prediction sets are no output of the exported model; its facts have their thresholds, under conformal: a "
                "class is in the set if the classes that are more probable have at most its threshold of probability together, "
                "and the interval of a number is the number plus and minus the threshold"
            )
        if self.reference.unreadable:
            lost = "image of the proof could not be read and was", "images of the proof could not be read and were"
            found.append(f"{counted(self.reference.unreadable, *lost)} left out")
        return found
