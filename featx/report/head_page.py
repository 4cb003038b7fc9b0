"""The HTML page about a head: what it is, how well it predicts, and where it errs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from featx._version import __version__
from featx.data.decode import thumbnail
from featx.data.known_image import read_known_image
from featx.data.transform import Transform
from featx.errors import ImageError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.targets import targets_of
from featx.metrics.classification import ClassificationReport
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.regression import RegressionReport
from featx.metrics.reports import Report
from featx.report import html, plots
from featx.report.html import Mistake, Page, Picture, Section, Table, decimals
from featx.report.sections import headline_of, numbers_of, sections_of

_SIDE = 192  # pixels, the longer side of a thumbnail


def write_head_page(
    path: Path,
    head: Head,
    features: FeatureSet,
    *,
    report: Report | None,
    rows: np.ndarray | None,
    predictions: np.ndarray | None,
    notes: Sequence[str],
    compared: Sequence[Sequence[str]] = (),
    cross_validated: CrossValidated | None = None,
    shots: Sequence[tuple[int, CrossValidated]] = (),
    images: Sequence[str | os.PathLike[str]] = (),
) -> Path:
    """Write a self-contained HTML page about a fitted head, and return its path.

    Args:
        path: of the page.
        head: fitted.
        features: the features that the head was fitted to and evaluated on.
        report: the evaluation on the held-out rows; None shows the cross-validation on the training rows instead.
        rows: (n,) int64, the evaluated rows; None without a report.
        predictions: (n, C) float64, the head's probabilities for these rows; predicted numbers for a regression.
        notes: caveats for the reader.
        compared: rows of the table of ``--model auto``: (kind, parameters, loss, error, value, seconds).
        cross_validated: the result of ``--cv``.
        shots: the results of ``--shots``: (images of each class, repeated results).
        images: folders besides that of the data set whose images may be shown.

    Raises:
        OutputError: the page cannot be written.

    Example:

        head = Head("logreg").fit(features)
        write_head_page(Path("head.html"), head, features, report=None, rows=None, predictions=None, notes=[])
    """
    shown = report or head.held_out_
    sections = list(sections_of(shown)) if shown else []
    if report is not None and rows is not None and predictions is not None:
        sections += _prediction_sections(head, features, report, rows, predictions, images)
    sections += _search_sections(head) + _compared_sections(compared)
    sections += _cross_validated_sections(cross_validated) + _shots_sections(shots)
    return html.write_page(
        path,
        Page(
            title=f"{head.dataset_.get('name', 'features')}: {head.kind}",
            summary=_summary(head, shown),
            facts=_facts(head, features),
            headline=headline_of(shown) if shown else "",
            numbers=numbers_of(shown) if shown else (),
            notes=tuple(notes),
            sections=tuple(sections),
        ),
    )


def _summary(head: Head, report: Report | None) -> str:
    what = f"A {head.kind} head on features of {_backbone(head)}, for {head.task_}"
    if not report:
        return f"{what}; it was not evaluated."
    return f"{what}; evaluated on split {report.split}, on images that it was not fitted to."


def _backbone(head: Head) -> str:
    return str(head.backbone_.get("name", "an unknown backbone"))


def _facts(head: Head, features: FeatureSet) -> dict[str, str]:
    parameters = {
        key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in head.parameters.items() if value
    }
    facts = {
        "model": head.kind,
        "task": head.task_,
        **parameters,
        "classes": f"{len(head.classes_):,}",
        "training images": f"{head.n_train_:,}",
        "data set": f"{head.dataset_.get('name', '')} ({head.dataset_.get('root', '')})",
        "features": str(features.source or "in memory"),
        "layer": head.layer,
        "views": head.views,
        "backbone": _backbone(head),
        "weights": str(head.backbone_.get("weights", "")),
        "identity": head.identity_,
        "seed": str(head.seed),
        "fitted in": f"{head.seconds_:.2f} s",
        "featx": __version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    if head.convergence_:
        facts["convergence"] = (
            f"{head.convergence_['iterations']} iterations, to a relative gap of {head.convergence_['gap']:.1g}"
        )
    if head.reject_below_ is not None:
        facts["rejects below"] = f"{head.reject_below_:.4f}"
    return {key: value for key, value in facts.items() if value}


# Sections


def _prediction_sections(
    head: Head,
    features: FeatureSet,
    report: Report,
    rows: np.ndarray,
    predictions: np.ndarray,
    images: Sequence[str | os.PathLike[str]],
) -> list[Section]:
    """Predictions against targets for a regression, the most confident mistakes for a classifier."""
    facts = features.without_features(rows)
    if isinstance(report, RegressionReport):
        y = targets_of(facts, "regression", head.classes_).y
        picture = Picture(plots.as_svg(plots.scatter_figure(y, predictions)), "Predictions against targets")
        return [Section("Predictions", pictures=(picture,))]
    if not isinstance(report, ClassificationReport):
        return []
    y = targets_of(facts, "classification", head.classes_).y
    predicted, confidence = predictions.argmax(axis=1), predictions.max(axis=1)
    wrong = np.flatnonzero(predicted != y)
    if not len(wrong):
        return []
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][: html.MOST_MISTAKES]
    root, transform = str(features.dataset.get("root", "")), _transform_of(features)
    mistakes = tuple(
        Mistake(
            path=str(facts.paths[i]),
            **_thumbnail(root, str(facts.paths[i]), bytes(facts.keys[i]), images, transform),
            true=head.classes_[y[i]],
            predicted=head.classes_[predicted[i]],
            probability=float(confidence[i]),
        )
        for i in worst
    )
    text = f"{len(wrong):,} of {len(y):,} images are misclassified. The most confident of these predictions come first."
    return [Section("The most confident mistakes", text, mistakes=mistakes)]


def _transform_of(features: FeatureSet) -> Transform:
    """The transform that the images were read with; the default one for features that are not from a backbone."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return Transform.from_dict(features.backbone["parts"]["transform"])
    return Transform()


def _thumbnail(
    root: str, path: str, key: bytes, images: Sequence[str | os.PathLike[str]], transform: Transform
) -> dict[str, Any]:
    """The fields of a mistake that hold a small JPEG of an image, or the reason why there is none."""
    try:
        data = read_known_image(root, path, key, also=images)
    except ImageError as error:
        return {"thumbnail": None, "why": str(error)}
    try:
        return {"thumbnail": thumbnail(data, _SIDE, transform)}
    except (ImageError, OSError, ValueError) as error:
        return {"thumbnail": None, "why": f"the image cannot be decoded: {error}"}


def _search_sections(head: Head) -> list[Section]:
    """The cross-validated loss of every candidate for the hyperparameter."""
    candidates = [(tried.candidate, tried.loss, tried.error) for tried in head.search_]
    if len(candidates) < 2 or not head.chosen:
        return []
    ((name, chosen),) = head.chosen.items()
    loss = "squared error" if head.task_ == "regression" else "log loss"
    figure = plots.as_svg(plots.path_figure(candidates, float(chosen), name=name, loss=loss))
    rows = [(f"{c:.4g}", f"{mean:.4f}", f"{error:.4f}") for c, mean, error in candidates]
    text = (
        "Candidates are compared by cross-validation on the training images. The one with the lowest loss is chosen; if "
        "several are equally good, the most regularised of them."
    )
    return [
        Section(
            f"Choice of {name}",
            text,
            pictures=(Picture(figure, f"Loss against {name}"),),
            tables=(Table((name, loss, "standard error"), rows, "All candidates"),),
        )
    ]


def _compared_sections(compared: Sequence[Sequence[str]]) -> list[Section]:
    """The heads that ``--model auto`` compared."""
    if not compared:
        return []
    header = ("head", "chosen", "loss", "standard error", "value", "seconds")
    text = (
        "Every head is cross-validated on the same training images. The simplest one within one standard error of the "
        "best is kept."
    )
    return [Section("Heads compared", text, tables=(Table(header, [tuple(row) for row in compared]),))]


def _cross_validated_sections(result: CrossValidated | None) -> list[Section]:
    if not result:
        return []
    rows = [(name, f"{result.mean(name):.4f}", decimals(result.deviation(name))) for name in result.values]
    text = (
        f"{result.repeats} x {result.folds} folds over {result.n:,} images; each image is predicted by a head that was "
        "fitted without it."
    )
    table = Table(("metric", "mean", "standard deviation"), rows)
    return [Section("Cross-validated", text, tables=(table,))]


def _shots_sections(shots: Sequence[tuple[int, CrossValidated]]) -> list[Section]:
    """Accuracy by the number of training images of each class."""
    if not shots:
        return []
    points = [(n, result.mean("accuracy"), result.deviation("accuracy")) for n, result in shots]
    rows = [(str(n), f"{mean:.4f}", decimals(deviation)) for n, mean, deviation in points]
    picture = Picture(plots.as_svg(plots.shots_figure(points)), "Accuracy by shots")
    table = Table(("images of each class", "accuracy", "standard deviation"), rows)
    return [Section("With few images", pictures=(picture,), tables=(table,))]
