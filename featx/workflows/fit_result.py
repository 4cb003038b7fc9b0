"""What a fit gave: the head, its evaluation, and the files that were written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featx.advice.backbone_gains import BackboneGains
from featx.heads.head import Head
from featx.heads.refits import Replaced
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.reports import Report
from featx.workflows.comparison import Compared
from featx.workflows.head_comparison import HeadComparison


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted head, its evaluation, and the files that were written.

    Attributes:
        head: the fitted head.
        report: evaluation on the held-out split; None where there is none, and cross-validation or nothing evaluates the head.
        path: file of the head.
        picture: file of the confusion matrix, or None.
        features: the feature file, or None.
        notes: what the user should know, one sentence each.
        compared: the kinds of head that ``model="auto"`` compared.
        layers: the layers that ``layer="best"`` compared; the kind of each line is the layer.
        cross_validated: result of ``cv``.
        shots: results of ``shots``: (images of each class, evaluation of the repeated draws).
        shots_picture: file of the few-shot curve, or None.
        card: file of the HTML page, or None.
        unlabelled: CSV file of predictions for images without a label, or None.
        predictions: file of predictions for each labelled image, or None.
        against: the comparison with an earlier head, or None.
        gains: what each of several backbones side by side adds, or None.
        files: the feature files of these; () for one.
        replaced: the head whose file was overwritten, if it was of other options, images or labels; else None.
        tracked: where each tool of ``track`` has the run, in words.
    """

    head: Head
    report: Report | None
    path: Path
    picture: Path | None
    features: Path | None
    notes: tuple[str, ...]
    compared: tuple[Compared, ...] = ()
    layers: tuple[Compared, ...] = ()
    cross_validated: CrossValidated | None = None
    shots: tuple[tuple[int, CrossValidated], ...] = ()
    shots_picture: Path | None = None
    card: Path | None = None
    unlabelled: Path | None = None
    predictions: Path | None = None
    against: HeadComparison | None = None
    replaced: Replaced | None = None
    gains: BackboneGains | None = None
    files: tuple[Path, ...] = ()
    tracked: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The object that ``featx fit-head --json`` prints."""
        head = self.head
        report = self.report.as_dict() if self.report else {}
        return {
            "head": str(self.path),
            "model": head.kind,
            "task": head.task_,
            "layer": head.layer,
            "views": head.views,
            **head.parameters,
            "n_train": head.n_train_,
            "n_test": report.pop("n", 0),
            "test_split": report.pop("split", None),
            **{key: value for key, value in report.items() if key != "notes"},
            "search": [tried.as_dict() for tried in head.search_],
            "convergence": head.convergence_,
            "temperature": head.temperature_,
            "compared": [line.as_dict() for line in self.compared],
            "compared_layers": [{"layer": line.kind, **line.as_dict(less="kind")} for line in self.layers],
            "cross_validated": self.cross_validated.as_dict() if self.cross_validated else None,
            "shots": [{"shots": n, **result.as_dict()} for n, result in self.shots],
            "compare": self.against.as_dict() if self.against else None,
            "picture": _text(self.picture),
            "card": _text(self.card),
            "unlabelled": _text(self.unlabelled),
            "predictions": _text(self.predictions),
            "features": _text(self.features),
            "files": [str(file) for file in self.files or ([self.features] if self.features else [])],
            "side_by_side": self.gains.as_dict() if self.gains else None,
            "replaced": self.replaced.as_dict() if self.replaced else None,
            "tracked": dict(self.tracked),
            "seconds": round(head.seconds_, 4),
            "notes": list(self.notes),
        }


def _text(path: Path | None) -> str | None:
    """A path as JSON has it."""
    return str(path) if path else None
