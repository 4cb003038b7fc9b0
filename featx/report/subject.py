"""What a figure about a head is about, for its title."""

from __future__ import annotations

from pathlib import Path

from featx.heads.head import Head
from featx.layer_spec import PENULTIMATE


def subject_of(head: Head, *more: str) -> str:
    """The data set, backbone, layer and kind of a fitted head, as far as they are known.

    Args:
        head: fitted.
        more: what else belongs into the title.

    Example:

        subject_of(head, "fine-tuned")  # photos, resnet50, logreg, fine-tuned
    """
    parts = [Path(head.dataset_.get("name", "")).name, str(head.backbone_.get("name", ""))]
    parts += [head.layer] if head.layer != PENULTIMATE else []
    return ", ".join(part for part in [*parts, head.kind, *more] if part)
