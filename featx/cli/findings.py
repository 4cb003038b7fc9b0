"""What ``featx inspect`` prints: the first findings of each sort, and how many more there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from featx.cli.output import print_columns
from featx.text import counted, listed

if TYPE_CHECKING:
    from featx.inspection.corrected_table import CorrectedTable
    from featx.inspection.result import Inspection
    from featx.metrics.reports import Report

FIRST = 10
"""The findings of each sort that are printed."""


def print_findings(inspection: Inspection) -> None:
    """Print every sort of finding, the most telling first."""
    from featx.inspection.result import describe_labels

    features = inspection.features
    labelled = f" with {described}" if (described := describe_labels(inspection)) else ""
    click.echo(
        f"{inspection.file or 'features in memory'}: {counted(len(features), 'image')}{labelled}, "
        f"layer {features.layer}, inspected in {inspection.seconds:.1f} s"
    )
    _print_duplicates(inspection)
    _print_leaks(inspection)
    _print_conflicts(inspection)
    _print_labels(inspection)
    _print_outliers(inspection)
    _print_odd_images(inspection)
    click.echo()
    for path in inspection.files:
        click.echo(f"{'page' if path.suffix == '.html' else 'table'}: {path}")


def print_corrected(corrected: CorrectedTable) -> None:
    """Print what the corrected table changes, and what to run next."""
    click.echo(f"corrected table: {corrected.path}")
    for change in corrected.summary:
        click.echo(f"  {change}")
    for command in corrected.commands:
        click.echo(f"next: {command}")


def _section(title: str, head: Sequence[str] = (), lines: Sequence[Sequence[Any]] = (), *, total: int = 0) -> None:
    """Print a title, a table, and how many lines it does not show."""
    click.echo(f"\n{title}")
    if lines:
        text = [name for name in head if name in _TEXT]
        print_columns([f"  {head[0]}", *head[1:]], [[f"  {line[0]}", *line[1:]] for line in lines], text=text)
    if total > len(lines):
        click.echo(f"  … and {total - len(lines):,} more")


_TEXT = ("image", "duplicate", "training image", "split", "label", "its label", "given", "suggested", "what", "size")
"""The headings of columns that hold text."""


def _print_duplicates(inspection: Inspection) -> None:
    duplicates, paths = inspection.duplicates, inspection.features.paths
    counts = inspection.counts
    if not len(duplicates.pairs):
        _section(f"duplicates: none (no two images are closer than a distance of {duplicates.threshold:.4g})")
        return
    lines = [
        ["same file" if exact else f"{distance:.4f}", *paths[pair]]
        for pair, distance, exact in zip(
            duplicates.pairs[:FIRST], duplicates.distances.tolist(), duplicates.exact.tolist(), strict=False
        )
    ]
    _section(
        f"duplicates: {counted(counts['exact duplicates'], 'pair')} of the same file and "
        f"{counted(counts['near-duplicates'], 'pair')} closer than {duplicates.threshold:.4g}, in "
        f"{counted(len(duplicates.groups), 'group')}",
        ["distance", "image", "duplicate"],
        lines,
        total=len(duplicates.pairs),
    )


def _print_leaks(inspection: Inspection) -> None:
    leaks, features = inspection.leaks, inspection.features
    if not len(leaks.across):
        if len(set(features.splits.tolist())) > 1:
            _section("leaks: none (no duplicates are in different splits)")
        return
    lines = []
    for at in leaks.across[:FIRST].tolist():
        first, second = inspection.duplicates.pairs[at].tolist()
        lines.append([features.splits[first], features.paths[first], features.splits[second], features.paths[second]])
    _section(
        f"leaks: {counted(len(leaks.across), 'pair')} of duplicates in different splits",
        ["split", "image", "split", "duplicate"],
        lines,
        total=len(leaks.across),
    )
    for name, report in (("with", leaks.report), ("without", leaks.report_without)):
        if report is not None:
            click.echo(
                f"  {_headline(report)} on {counted(report.n, 'image')} of {leaks.held_out}, {name} the "
                f"{counted(len(leaks.leaked), 'leaked one')}"
            )


def _headline(report: Report) -> str:
    """The main metric of a report, with its interval where it has one."""
    metric, value = report.headline
    interval = getattr(report, "interval", None)
    return f"{metric} {value:.4f}" + (" ({:.4f} to {:.4f})".format(*interval) if interval else "")


def _print_conflicts(inspection: Inspection) -> None:
    places = inspection.leaks.conflicts
    if not len(places):
        return
    labels, paths = inspection.given_labels, inspection.features.paths
    lines = []
    for at in places[:FIRST].tolist():
        first, second = inspection.duplicates.pairs[at].tolist()
        lines.append([labels[first], paths[first], labels[second], paths[second]])
    _section(
        f"conflicting labels: {counted(len(places), 'pair')} of duplicates with different labels",
        ["label", "image", "its label", "duplicate"],
        lines,
        total=len(places),
    )


def _print_labels(inspection: Inspection) -> None:
    labels = inspection.labels
    if labels is None or inspection.out_of_fold is None:
        return
    judged = len(inspection.out_of_fold.rows)
    if not labels.expected and not len(labels.ranked):
        _section(f"label errors: none in {counted(judged, 'judged image')}")
        return
    regression = inspection.out_of_fold.task == "regression"
    head = ["score", "image", "split", "given", "suggested", *([] if regression else ["probability"])]
    lines = [
        [
            f"{labels.scores[row]:.4f}",
            inspection.features.paths[row],
            inspection.features.splits[row],
            labels.given[row],
            labels.suggested[row],
            *([] if regression else [f"{labels.confidence[row]:.4f}"]),
        ]
        for row in labels.ranked[:FIRST].tolist()
    ]
    number = f"{labels.expected:,} in {counted(judged, 'judged image')}"
    _section(
        f"label errors: {number} far from the prediction; the most suspicious first"
        if regression
        else f"label errors: about {number}, by confident learning; the most suspicious first",
        head,
        lines,
        total=len(labels.ranked),
    )


def _print_outliers(inspection: Inspection) -> None:
    outliers, features = inspection.outliers, inspection.features
    if not len(outliers.ranked):
        _section("outliers: none")
        return
    labels = inspection.given_labels
    lines = [
        [f"{outliers.distances[row]:.4f}", features.paths[row], labels[row]] for row in outliers.ranked[:FIRST].tolist()
    ]
    _section(
        f"outliers: {counted(len(outliers.ranked), 'image')} whose mean distance to ten neighbours is above "
        f"{outliers.threshold:.4g}",
        ["distance", "image", "label"],
        lines,
        total=len(outliers.ranked),
    )


def _print_odd_images(inspection: Inspection) -> None:
    if inspection.pixels is None:
        return
    lines = _odd(inspection)
    unread = inspection.pixels.unread
    left = f" ({counted(unread, 'image')} could not be read)" if unread else ""
    if not lines:
        _section(f"odd images: none{left}")
        return
    counts = {inspection.pixels.names[kind]: int(flags.sum()) for kind, flags in inspection.pixels.is_issue.items()}
    kinds = [f"{count:,} {name}" for name, count in counts.items() if count]
    _section(
        f"odd images: {listed(kinds, most=len(kinds))}{left}",
        ["score", "what", "size", "image"],
        lines[:FIRST],
        total=len(lines),
    )


def _odd(inspection: Inspection) -> list[list[str]]:
    """One line for each odd image and kind: the oddest of each kind, then the second of each, and so on."""
    pixels, lines = inspection.pixels, list[tuple[int, list[str]]]()
    assert pixels is not None
    for kind, flags in pixels.is_issue.items():
        rows = np.flatnonzero(flags)
        for place, row in enumerate(rows[np.argsort(pixels.scores[kind][rows], kind="stable")].tolist()):
            width, height = pixels.sizes[row].tolist()
            score, path = f"{pixels.scores[kind][row]:.4f}", inspection.features.paths[row]
            lines.append((place, [score, pixels.names[kind], f"{width} x {height}", path]))
    return [line for _, line in sorted(lines, key=lambda placed: placed[0])]
