"""What the user should know about a fit, one sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from featx.data.image_set import PRETRAIN
from featx.errors import FeatxError
from featx.features.feature_set import FeatureSet
from featx.features.file_set import open_features
from featx.features.joint_sets import is_joint
from featx.features.label_changes import label_changes
from featx.heads.evaluation import notes_on_baseline
from featx.heads.head import Head
from featx.layer_spec import PENULTIMATE, LayerSpec, plain_layers
from featx.metrics.classification import ClassificationReport
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.reports import Report
from featx.text import counted, form, listed
from featx.workflows.class_texts import notes_on_texts
from featx.workflows.fit_options import BEST
from featx.workflows.small_data import more_in_folds, notes_on_few


def notes_on_fit(
    file: Path | None,
    split: FeatureSet,
    head: Head,
    report: Report | None,
    *,
    used: Sequence[str | None],
    chosen: Sequence[str],
    cross_validated: CrossValidated | None,
) -> list[str]:
    """The notes of the head and its report, unused images, and what makes a result optimistic.

    Args:
        file: the feature file, or None.
        split: the rows, in the splits that the head uses.
        head: fitted.
        report: on the held-out split, or None.
        used: the splits that had a part in the head or its report; "" and None stand for none.
        chosen: what was chosen by cross-validation besides the hyper-parameter: "kind of head", "layer".
        cross_validated: the cross-validation that evaluates the head too, or None.
    """
    notes = [
        *notes_on_few(report, cross_validated, head, split),
        *(cross_validated.notes if cross_validated else ()),
        *([cross_validated.baseline_note] if cross_validated and cross_validated.baseline_note else ()),
        *label_changes(file),
        *([] if "layer" in chosen else _notes_on_layers(file, head)),
        *head.notes_,
        *(notes_on_texts(head.texts, split, head.task_) if head.texts else ()),
        *(
            _notes_of_report(report, cross_validated if _is_alike(cross_validated, head, split) else None)
            if report
            else ()
        ),
    ]
    names, counts = np.unique(split.splits[split.labels >= 0].astype(str), return_counts=True)
    notes += [
        f"{counted(int(count), 'image')} of split {name} {form(count, 'was', 'were')} not used"
        f"{_why_left_out(name, head.task_)}"
        for name, count in zip(names, counts, strict=True)
        if name not in used
    ]
    if chosen and cross_validated:
        notes.append(
            f"the {' and the '.join(chosen)} {'were' if chosen[1:] else 'was'} chosen on training images that cross-validation "
            "evaluates too, so its result is optimistic"
        )
    return notes + _note_on_fonts(report)


def _is_alike(found: CrossValidated | None, head: Head, split: FeatureSet) -> bool:
    """Whether the cross-validated heads are fitted to about as many images as the head, so that they stand for it."""
    return found is not None and bool(head.n_train_) and not more_in_folds(split, head, found.folds)


def _notes_of_report(report: Report, cross_validated: CrossValidated | None) -> list[str]:
    """The notes of a report. What its few images do not show is no verdict on the head where cross-validation shows it."""
    doubts = notes_on_baseline(report)
    if not doubts or cross_validated is None or not cross_validated.is_better_than_baseline:
        return list(report.notes)
    alone = (
        f"the {counted(report.n, 'image')} of split {report.split} alone {form(report.n, 'does', 'do')} not show the head to "
        f"be better than {cross_validated.baseline_text.rpartition(' ')[0]}, cross-validation does"
    )
    return [alone if note in doubts else note for note in report.notes]


def _notes_on_layers(file: Path | None, head: Head) -> list[str]:
    """Say which other layers a feature file holds, where a head of one backbone was fitted to the penultimate layer alone."""
    is_comparable = head.texts is None and not is_joint(head.backbone_)  # what --layer best can take
    if file is None or not is_comparable or LayerSpec.parse(head.layer_).layer != PENULTIMATE:
        return []
    try:
        others = [name for name in plain_layers(open_features(file).layers) if name != PENULTIMATE]
    except FeatxError:  # features that were loaded from a file that is gone
        return []
    if not others:
        return []
    return [
        f"the head was fitted to the penultimate layer; the feature file holds {listed(others)} too: --layer {BEST} compares "
        "them by cross-validation"
    ]


def _note_on_fonts(report: Report | None) -> list[str]:
    """Say which characters of class names the confusion matrix shows as boxes."""
    from featx.report import plots  # it imports matplotlib

    if not isinstance(report, ClassificationReport) or not (missing := plots.missing_characters(report.classes)):
        return []
    return [
        f"no font that is installed here has the characters {listed(missing)} of the class names, so pictures show boxes; "
        "install one, such as Noto Sans CJK (apt install fonts-noto-cjk); the page of --report shows the names"
    ]


def _why_left_out(split: str, task: str) -> str:
    """Why the images of a split that neither fits nor evaluates a head were not used, as the end of a sentence."""
    if split == PRETRAIN:
        return ", since the backbone was made with that split"
    if split == "val" and task == "classification":  # the only heads that can be promoted
        return ", but kept as the validation set of promote --finetune"
    return ""
