"""Printing: results on stdout, notes on stderr."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import click

from featx.confidential import without_secrets_in
from featx.layer_spec import VIEWS
from featx.text import cell, columns_of, noted, printable, shown


def print_result(json_object: dict[str, Any] | None, show: Callable[[], None]) -> None:
    """Print a result as one JSON object, or where there is none, as text by ``show``."""
    if json_object is None:
        show()
    else:
        click.echo(json.dumps(without_secrets_in(json_object), ensure_ascii=True))


def print_notes(*sentences: str) -> None:
    """Print each note on a line of stderr."""
    for sentence in sentences:
        click.echo(noted(sentence), err=True)


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as CSV, their cells safe in a spreadsheet."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell(str(value)) for value in row])


def digits(value: float | None) -> str:
    """Format a number with four decimals; None is "-"."""
    return "-" if value is None else f"{value:.4f}"


def print_columns(head: Sequence[str], lines: Sequence[Sequence[Any]], *, text: Collection[str] = ()) -> None:
    """Print a table: the first column and those named in ``text`` are aligned to the left, all others to the right."""
    texts = [[printable(cell) if isinstance(cell, str) else f"{cell:,}" for cell in line] for line in (head, *lines)]
    widths = [max(columns_of(line[column]) for line in texts) for column in range(len(head))]
    left = [column == 0 or name in text for column, name in enumerate(head)]
    for line in texts:
        gaps = [" " * (w - columns_of(cell)) for cell, w in zip(line, widths, strict=True)]
        cells = [
            f"{cell}{gap}" if is_left else f"{gap}{cell}" for cell, gap, is_left in zip(line, gaps, left, strict=True)
        ]
        click.echo("  ".join(cells).rstrip() if text else "  ".join(cells))


def print_places(places: Mapping[str, str]) -> None:
    """Print where each tool that tracks a run has it."""
    for tool, place in places.items():
        click.echo(f"tracked by {tool}: {shown(place)}")


def in_views(views: str) -> str:
    """The views of each image, as the end of a sentence; nothing for a single view."""
    return f", each image in {len(VIEWS[views])} views ({views})" if views != "plain" else ""
