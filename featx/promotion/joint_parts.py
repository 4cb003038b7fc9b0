"""Which one of several backbones side by side is fine-tuned, while the others stay as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from featx.backbones.joint import JointBackbone
from featx.errors import SettingsError
from featx.features.joint_sets import blocks_of, is_joint, part_names
from featx.heads.head import Head
from featx.heads.postprocess import softmax
from featx.metrics.classification import ClassificationReport
from featx.promotion.assemble import Assembly
from featx.promotion.config import FineTuning
from featx.promotion.splits import standard_split
from featx.text import counted


def with_part(settings: FineTuning, assembly: Assembly) -> tuple[FineTuning, list[str]]:
    """The settings with the number of the backbone that is fine-tuned, and a note that names it.

    Of several backbones the one is chosen whose features alone give the least log loss on the validation images: a head on them
    is fitted to the training images. The test images have no part in it.

    Args:
        settings: of fine-tuning; ``part`` is the name of a backbone or its number, from 1.
        assembly: the assembled network and its data.

    Raises:
        SettingsError: there is no such backbone, or a setting is of a network that stands alone.
    """
    require_possible(settings, assembly.head.backbone_)
    if not isinstance(assembly.backbone, JointBackbone):
        return settings, []
    names = part_names(assembly.head.backbone_)
    others = "the others stay as they are, and run in every epoch"
    if settings.part is not None:
        chosen = _number(settings.part, names)
        return dataclasses.replace(settings, part=str(chosen + 1)), [f"{names[chosen]} is fine-tuned; {others}"]
    losses, count = _alone(assembly)
    chosen = int(np.argmin(losses))
    listed = ", ".join(f"{name} {loss:.4f}" for name, loss in zip(names, losses, strict=True))
    why = (
        f"alone it has the least log loss on {counted(count, 'validation image')} ({listed}); --part NAME names another"
    )
    return dataclasses.replace(settings, part=str(chosen + 1)), [f"{names[chosen]} is fine-tuned: {why}; {others}"]


def _number(part: str, names: list[str]) -> int:
    if part in names:
        return names.index(part)
    if part.isascii() and part.isdigit() and 1 <= int(part) <= len(names):
        return int(part) - 1
    raise SettingsError(f"part is {part!r}; expected one of {', '.join(names)}, or its number from 1")


def _alone(assembly: Assembly) -> tuple[list[float], int]:
    """The log loss of a head on the features of each backbone alone, and the number of validation images."""
    features, head, labels = assembly.features, assembly.head, assembly.data.labels
    split = standard_split(assembly)
    losses = []
    for block in blocks_of(head.backbone_, features.width):
        some = dataclasses.replace(
            features, features=np.asarray(features.features)[..., block], backbone={}, identity="", source=None
        )
        alone = Head("logreg", C=head.C_ or 1.0, class_weight=head.class_weight).fit(some, rows=split.train)
        logits = alone.decision_function(np.asarray(some.plain[split.validation]))
        columns = [alone.names_.index(name) for name in head.names_]
        report = ClassificationReport.from_predictions(
            labels[split.validation], softmax(logits[:, columns]), head.names_, split="validation"
        )
        losses.append(report.log_loss)
    return losses, len(split.validation)


def require_possible(settings: FineTuning, backbone: Mapping[str, Any]) -> None:
    """Raise SettingsError where settings ask for a backbone that the head is not on, or for a network that stands alone.

    Args:
        settings: of fine-tuning.
        backbone: the stored description of the head's backbone, or of several side by side.
    """
    if not is_joint(backbone):
        if settings.part is not None:
            raise SettingsError(
                f"part is {settings.part!r}; this head is on one backbone, which is fine-tuned as a whole"
            )
        return
    if settings.part is not None:
        _number(settings.part, part_names(backbone))
    faults = {
        "--search": bool(settings.search),
        "--from-random": bool(settings.from_random),
        "--augment randaugment": settings.augment == "randaugment",
        "--compile": settings.compile,
    }
    for option, given in faults.items():
        if given:
            raise SettingsError(
                f"{option} is for a network that stands alone, and this head is on several; leave it out, or fit a head to the "
                "features of one backbone: featx promote can teach its network by this head (--teacher)"
            )
