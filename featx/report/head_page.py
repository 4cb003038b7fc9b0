"""The HTML page about a head: what it is, how well it predicts, and where it errs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.data.decode import thumbnail
from featx.data.known_image import read_known_image
from featx.data.transform import Transform
from featx.errors import ImageError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.targets import targets_of
from featx.metrics.classification import ClassificationReport
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.reports import Report
from featx.report import html
from featx.report.head_parts import head_facts, head_sections, head_summary
from featx.report.html import Mistake, Page, Section
from featx.report.sections import headline_of, numbers_of

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
    first: Sequence[Section] = (),
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
        first: further sections, which come first.

    Raises:
        OutputError: the page cannot be written.

    Example:

        head = Head("logreg").fit(features)
        write_head_page(Path("head.html"), head, features, report=None, rows=None, predictions=None, notes=[])
    """
    shown = report or head.held_out_
    sections = [
        *first,
        *head_sections(
            head, features, report=report, rows=rows, predictions=predictions, compared=compared,
            cross_validated=cross_validated, shots=shots,
        )
    ]  # fmt: skip
    if report is not None and rows is not None and predictions is not None:
        sections += _mistakes_sections(head, features, report, rows, predictions, images)
    return html.write_page(
        path,
        Page(
            title=f"{head.dataset_.get('name', 'features')}: {head.kind}",
            summary=head_summary(head, shown),
            facts=head_facts(head, features),
            headline=headline_of(shown) if shown else "",
            numbers=numbers_of(shown) if shown else (),
            notes=tuple(notes),
            sections=tuple(sections),
        ),
    )


def _mistakes_sections(
    head: Head,
    features: FeatureSet,
    report: Report,
    rows: np.ndarray,
    predictions: np.ndarray,
    images: Sequence[str | os.PathLike[str]],
) -> list[Section]:
    """The most confident mistakes of a classifier."""
    facts = features.without_features(rows)
    if not isinstance(report, ClassificationReport):
        return []
    y = targets_of(facts, "classification", head.classes_).y
    predicted, confidence = predictions.argmax(axis=1), predictions.max(axis=1)
    wrong = np.flatnonzero(predicted != y)
    if not len(wrong):
        return []
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][: html.MOST_MISTAKES]
    names = np.array(head.classes_, dtype=object)[predicted[worst]]
    text = f"{len(wrong):,} of {len(y):,} images are misclassified. The most confident of these predictions come first."
    mistakes = gallery(features, rows[worst], names, confidence[worst], images)
    return [Section("The most confident mistakes", text, mistakes=mistakes)]


def gallery(
    features: FeatureSet,
    rows: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    images: Sequence[str | os.PathLike[str]] = (),
) -> tuple[Mistake, ...]:
    """Show some labelled images with what is predicted for them.

    Args:
        features: N images.
        rows: (n,) int64.
        predicted: (n,) str, the prediction in words.
        confidence: (n,) float64, its probability.
        images: folders besides that of the data set whose images may be shown.
    """
    facts = features.without_features(rows)
    root, transform = str(features.dataset.get("root", "")), _transform_of(features)
    return tuple(
        Mistake(
            path=str(facts.paths[i]),
            **_thumbnail(root, str(facts.paths[i]), bytes(facts.keys[i]), images, transform),
            true=facts.classes[facts.labels[i]],
            predicted=predicted[i],
            probability=float(confidence[i]),
        )
        for i in range(len(rows))
    )


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
