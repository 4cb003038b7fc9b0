"""Thresholds chosen on labelled rows that a head has not seen: what they promise is exact for rows drawn as those were."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from featx.errors import HeadError
from featx.features.feature_set import FeatureSet
from featx.heads.conformal import UNSEEN, fit_conformal, name_of_sets, notes_on_sets
from featx.heads.evaluation import require_groups
from featx.heads.fitted import FittedHead
from featx.heads.groups import match_groups, row_groups, with_splits
from featx.heads.postprocess import Postprocess
from featx.heads.rejection import threshold_for_precision
from featx.heads.seen import are_copies
from featx.heads.targets import targets_of
from featx.text import counted, form


def chosen_on_rows(
    head: FittedHead, features: FeatureSet, params: Mapping[str, Any], *, split: str, rows: np.ndarray | None
) -> tuple[Postprocess, list[str], np.ndarray]:
    """Choose the thresholds of ``conformal`` and ``target_precision`` on rows that a head was not fitted to.

    Copies of training images are left out. Everything else of the head stays as it is.

    Args:
        head: fitted.
        features: with the identity of those that the head was fitted to.
        params: the arguments of ``Head``.
        split: whose labelled rows to take.
        rows: (n,) int64, the rows to take instead.

    Returns:
        The postprocessing with the new thresholds, notes, and (m, 16) uint8, the content hashes of the rows that chose them.

    Raises:
        HeadError: nothing is promised, there are no such rows, or they are too few.
    """
    alpha, target = params["conformal"], params["target_precision"]
    if alpha is None and target is None:
        raise HeadError(
            "this head promises nothing that could be calibrated; expected Head(conformal=...) or Head(target_precision=...)"
        )
    if rows is None:
        require_groups(head, features)
        features = with_splits(match_groups(features, head.group_), head.task_)
        rows = features.rows(split)
    copied = are_copies(features.keys[rows], head.seen.train)
    rows = rows[~copied]
    if not len(rows):
        raise HeadError(
            f"all labelled images of split {split} were trained on, so that they cannot calibrate this head"
        )
    y = targets_of(features.without_features(rows), head.task_, head.names_, where=f"the split {split!r}").y
    outputs, groups = head.predict_rows(features, rows), row_groups(features, rows)
    if not np.isfinite(outputs).all():
        raise HeadError(f"the head's scores of images of split {split} are NaN or infinite; run featx extract again")
    made, notes = head.postprocess_, list[str]()
    if copied.any():
        notes.append(
            f"{counted(int(copied.sum()), 'image')} of split {split} "
            f"{form(copied.sum(), 'was trained on, and so chooses', 'were trained on, and so choose')} no threshold"
        )
    if target is not None:
        below = threshold_for_precision(outputs, y, target, groups).threshold
        made = dataclasses.replace(made, reject_below=below)
    if alpha is not None:
        sets = fit_conformal(
            outputs, y, head.task_, alpha, per_class=params["conformal_per_class"], groups=groups, source=UNSEEN
        )
        made = dataclasses.replace(made, conformal=sets)
        notes += notes_on_sets(sets, head.names_)
    what = " and ".join(
        name
        for name, value in ((f"the {name_of_sets(head.task_)}", alpha), ("the rejection threshold", target))
        if value is not None
    )
    notes.append(
        f"{what} were chosen on {counted(len(rows), 'labelled image')} of split {split}, which no fit has seen"
    )
    return made, notes, features.keys[rows]
