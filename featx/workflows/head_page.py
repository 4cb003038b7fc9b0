"""The page about a head, which is the page of an inspection of its images with the head's part first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from featx.constants import FEW_HELD_OUT
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.inspection.coordinates import map_coordinates
from featx.inspection.fitted import inspect_fit
from featx.inspection.page import write_inspection_page
from featx.inspection.result import JudgedHead
from featx.metrics.cross_validation import CrossValidated
from featx.metrics.reports import Report
from featx.report.head_parts import cross_validated_number, head_facts, head_sections, head_summary
from featx.report.html import Section
from featx.report.sections import headline_of, numbers_of
from featx.reporter import SILENT, Reporter

_MOST_BYTES = 256 << 20
"""Of thumbnails in the page. So few images are read that it is never reached, and the page is one file."""


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
    reporter: Reporter = SILENT,
) -> Path:
    """Inspect the images of a fitted head, write a self-contained HTML page about both, and return its path.

    Args:
        path: of the page.
        head: fitted, with ``cross_validate``.
        features: the features that the head was fitted to and evaluated on, in the splits that it used.
        report: the evaluation on the held-out rows; None shows the cross-validation on the training rows instead.
        rows: (n,) int64, the evaluated rows; None without a report.
        predictions: (n, C) float64, the head's probabilities for these rows; predicted numbers for a regression.
        notes: caveats for the reader.
        compared: rows of the table of ``--model auto``: (kind, parameters, loss, error, value, seconds).
        cross_validated: the result of ``--cv``.
        shots: the results of ``--shots``: (images of each class, repeated results).
        images: folders besides that of the data set whose images may be shown.
        first: further sections, which come first.
        reporter: receives the stages.

    Raises:
        OutputError: the page cannot be written.

    Example:

        head = Head("logreg").fit(features, cross_validate=True)
        write_head_page(Path("head.html"), head, features, report=None, rows=None, predictions=None, notes=[])
    """
    judged = None
    if report is not None and rows is not None and predictions is not None:
        judged = JudgedHead(head, report, rows, predictions)
    inspection = inspect_fit(features, head, judged=judged, images=images, notes=notes, reporter=reporter)
    if inspection.pixels is not None and inspection.pixels.unread:
        for note in inspection.pixels.notes:
            reporter.note(note)
    shown = report or head.held_out_
    # Where few images are held out, or none, the number of all of them comes first.
    few = cross_validated is not None and (report is None or report.n < FEW_HELD_OUT)
    crossed = (cross_validated_number(cross_validated),) if few and cross_validated else ()
    sections = head_sections(
        head, features, report=report, rows=rows, predictions=predictions, compared=compared,
        cross_validated=cross_validated, shots=shots,
    )  # fmt: skip
    reporter.stage(f"writing {path}")
    return write_inspection_page(
        path,
        inspection,
        coordinates=map_coordinates(inspection.features),
        sections=(*first, *sections),
        numbers=(*crossed, *(numbers_of(shown) if shown else ())),
        headline="; ".join(
            [*(f"{n.name} {n.value} ({n.detail})" for n in crossed), *([headline_of(shown)] if shown else [])]
        ),
        facts=head_facts(head, features),
        title=f"{head.dataset_.get('name', 'features')}: {head.kind}",
        head_report=head_summary(head, shown),
        inline_limit=_MOST_BYTES,
    )
