"""What a model card states, gathered from the model, its file and its data set, without a path of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from featx._version import __version__
from featx.deployment.job import ExportJob
from featx.deployment.published import backbone_name, last_part, published, without_paths
from featx.features.joint_sets import is_joint
from featx.inference import HeadOnBackbone, Model
from featx.layer_spec import LayerSpec


@dataclass(frozen=True, eq=False)
class CardFacts:
    """What a model card states of a model.

    Attributes:
        facts: of the whole model, published: name, task, classes, backbone, layer, views, reject_below, dataset, ...
        kind: the kind of head, with its kernel.
        verdict: of a promoted model: "assembled", "promoted" or "kept-head"; "" of a head.
        why: the reason for the verdict.
        parameters: the hyper-parameters in use.
        weights: the name of the backbone's weights: "default", "random", or that of a file.
        calibration: how probabilities are calibrated, in words.
        thresholds: of a multilabel model, by label.
        report: the report on the held-out split with its tables, or None.
        searched: whether a hyper-parameter was chosen by cross-validation.
        validation: the report of the cross-validation on training images, or None.
        counts: the images of each class by split, as far as the data set was found.
        group: the column of the groups, or None.
        trained_on: the number of training images.
        torch: its version.
        notes: further sentences.
        transform: how an image becomes the network's input.
    """

    facts: dict[str, Any]
    kind: str
    verdict: str
    why: str
    parameters: dict[str, Any]
    weights: str
    calibration: str
    thresholds: dict[str, float]
    report: dict[str, Any] | None
    searched: bool
    validation: dict[str, Any] | None
    counts: dict[str, dict[str, int]]
    group: str | None
    trained_on: int
    torch: str
    notes: tuple[str, ...] = field(default=())
    featx: str = __version__

    @classmethod
    def of(cls, job: ExportJob, facts: Mapping[str, Any], stored: Mapping[str, Any]) -> CardFacts:
        """Gather them.

        Args:
            job: the export.
            facts: of the whole model.
            stored: the metadata of the model's file; empty for a model in memory.
        """
        model = job.model
        common = {
            "facts": published(facts),
            "report": without_paths(_with_names(stored.get("report") or _own_report(model), facts["classes"])),
            "counts": _counts(job),
            "torch": str(facts.get("torch", "")),
            "searched": bool(stored.get("search")),
            "notes": tuple(without_paths([*stored.get("notes", ()), *job.notes()])),
        }
        if not isinstance(model, HeadOnBackbone):
            meta = model.metadata
            parameters = meta["head"]["parameters"]
            return cls(
                kind=meta["head"]["kind"], verdict=meta["verdict"], why=without_paths(meta["why"]),
                parameters=_given(parameters), weights="", calibration="", thresholds={}, validation=None,
                group=parameters.get("group"), trained_on=int(meta["n_train"]), **common,
            )  # fmt: skip
        head = model.head
        kernel = f" with the kernel {head.kernel}" if head.kernel != "linear" else ""
        thresholds = (
            {} if head.thresholds_ is None else dict(zip(head.names_, map(float, head.thresholds_), strict=True))
        )
        return cls(
            kind=f"{head.kind}{kernel}", verdict="", why="", parameters=_given(head.parameters),
            weights=_weights(head.backbone_), calibration=_calibration(model),
            thresholds=thresholds, validation=without_paths(stored.get("held_out")), group=head.group_,
            trained_on=head.n_train_, **common,
        )  # fmt: skip

    @property
    def classes(self) -> list[str]:
        """Names of the C classes or labels."""
        return list(self.facts["classes"])

    @property
    def task(self) -> str:
        """Its task: "classification", "multilabel" or "regression"."""
        return str(self.facts["task"])

    @property
    def backbone(self) -> str:
        """The backbone's name."""
        return backbone_name(str(self.facts["backbone"]))

    @property
    def backbones(self) -> list[tuple[str, str]]:
        """The name and the layers of each of several backbones side by side; empty where there is one."""
        return [(backbone_name(str(p["name"])), ", ".join(p["layers"])) for p in self.facts.get("backbones", ())]

    @property
    def data(self) -> str:
        """The data set's name."""
        return str((self.facts.get("dataset") or {}).get("name") or "the data set")

    @property
    def views(self) -> str:
        """The name of the set of views."""
        return LayerSpec.parse(str(self.facts["layer"])).views_name


def _with_names(report: Any, classes: Any) -> dict[str, Any] | None:
    return {**report, "classes": list(classes)} if report else None


def _own_report(model: Model) -> dict[str, Any] | None:
    return None if isinstance(model, HeadOnBackbone) else model.metadata["report"]


def _given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters that a head has."""
    return {name: value for name, value in parameters.items() if value not in (None, 0.0) and name != "group"}


def _weights(backbone: Mapping[str, Any]) -> str:
    """The names of the weights of a stored backbone: of several side by side one that all have, or one for each."""
    each = [part["backbone"] for part in backbone["parts"]] if is_joint(backbone) else [backbone]
    return ", ".join(dict.fromkeys(last_part(str(one.get("weights", ""))) for one in each))


def _calibration(model: HeadOnBackbone) -> str:
    """How the probabilities of a head are calibrated."""
    head = model.head
    if head.task_ == "regression":
        return ""
    if head.isotonic_ is not None:
        return f"calibrated by a temperature of {head.temperature_:.4g} and isotonic curves fitted to held-out images"
    if head.temperature_ != 1.0:
        return f"calibrated by a temperature of {head.temperature_:.4g}, which divides the scores, fitted to held-out images"
    return "not calibrated further: the loss that the head was fitted with is that of probabilities"


def _counts(job: ExportJob) -> dict[str, dict[str, int]]:
    """The images of each class by split; of a regression all under ""."""
    found = job.own.features
    counts: dict[str, dict[str, int]] = {}
    task = job.model.head.task_ if isinstance(job.model, HeadOnBackbone) else "classification"
    regression, multilabel = task == "regression", task == "multilabel"
    for split in dict.fromkeys(found.splits.tolist()):
        labels = found.labels[(found.splits == split) & (found.labels >= 0)]
        if not len(labels):
            continue
        rows = np.bincount(labels, minlength=len(found.classes)).tolist()
        each: dict[str, int] = {"": len(labels)} if regression else {}
        for name, count in zip(found.classes, rows, strict=True) if not regression else ():
            for label in filter(None, name.split("|")) if multilabel else (name,):  # "cat|dog" counts for both
                each[label] = each.get(label, 0) + count
        counts[str(split)] = {name: count for name, count in each.items() if count}
    return counts
