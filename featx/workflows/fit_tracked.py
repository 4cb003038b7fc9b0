"""What a fit tells its trackers."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featx._version import __version__
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.head_file import short_weights
from featx.heads.registry import get_kind
from featx.metrics.flat import flat_numbers
from featx.tracking.dispatch import Trackers
from featx.workflows.fit_result import Fit

_CHOSEN = ("C", "k", "weight_decay", "kernel", "class_weight", "logit_adjustment", "calibrate", "group", "seed")


def params_before(features: FeatureSet, options: Mapping[str, Any], *, held_out: str) -> dict[str, Any]:
    """The parameters of a fit that are known before it.

    Args:
        features: in the splits of the head.
        options: of the fit; hyper-parameters are logged after it, as they are in use.
        held_out: the split to evaluate on, or "".
    """
    labelled = features.splits[features.labels >= 0]
    given = {name: value for name, value in options.items() if name not in (*_CHOSEN, "layer", "table")}
    layer, _, views = features.layer.partition("@")
    return {
        "featx": __version__,
        **given,
        "dataset": Path(str(features.dataset.get("name", ""))).name,
        "features": features.source.name if features.source else None,
        "classes": len(features.classes),
        "backbone": features.backbone.get("name"),
        "weights": short_weights(features.backbone),
        "layer": layer,
        "views": views or "plain",
        "width": features.width,
        "n_train": int(np.count_nonzero(labelled == "train")),
        "n_test": int(np.count_nonzero(labelled == held_out)),
        "test_split": held_out or None,
    }


def log_fit(trackers: Trackers, fit: Fit) -> None:
    """Tell the trackers what was tried and chosen, and the results; and give them the pictures and the head."""
    if not trackers:
        return
    head = fit.head
    chosen = {"kind": head.kind} if fit.compared else {}
    trackers.log_params({**chosen, **{name: head.parameters[name] for name in _CHOSEN}})
    for step, tried in enumerate(head.search_):
        facts = {"search_candidate": tried.candidate, "search_loss": tried.loss, "search_error": tried.error}
        trackers.log_metrics(facts, step)
    for name, lines in (("kind", fit.compared), ("layer", fit.layers)):
        trackers.log_metrics({f"{name}_loss/{line.kind}": line.as_dict()["loss"] for line in lines})
    for count, few in fit.shots:
        trackers.log_metrics(
            {"shots_accuracy": few.mean("accuracy"), "shots_deviation": few.deviation("accuracy")}, count
        )
    results = {"temperature": head.temperature_, "fit_seconds": head.seconds_}
    if fit.report:
        results |= flat_numbers(fit.report, "test_")
    if fit.cross_validated:
        for name in fit.cross_validated.values:
            results |= {
                f"cv_{name}": fit.cross_validated.mean(name),
                f"cv_{name}_std": fit.cross_validated.deviation(name),
            }
    trackers.log_metrics(results)
    _log_search(trackers, head)
    trackers.log_image("confusion_matrix", fit.picture)
    trackers.log_image("few_shot_curve", fit.shots_picture)
    trackers.log_artifact(fit.path)


def _log_search(trackers: Trackers, head: Head) -> None:
    """Draw the losses of all candidates, for the trackers alone."""
    rows = [(tried.candidate, tried.loss, tried.error) for tried in head.search_]
    rows = [row for row in rows if all(map(math.isfinite, row))]
    name = get_kind(head.kind, kernel=head.kernel).parameter
    if len(rows) < 2 or not name:
        return
    from featx.report.plots import as_png, path_figure  # it imports matplotlib

    loss = "squared error" if head.task_ == "regression" else "log loss"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "search.png")
        file.write_bytes(as_png(path_figure(rows, head.chosen[name], name=name, loss=loss)))
        trackers.log_image("search", file)
