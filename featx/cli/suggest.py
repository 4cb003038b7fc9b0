"""``featx suggest``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, with_option
from featx.cli.option_groups import option
from featx.cli.options import COUNT, LAYERS, cache_folder, data_options, scanned, task_option
from featx.cli.output import digits, print_columns
from featx.reporter import Reporter, stage_of_import
from featx.text import counted, printable

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.data.scan_options import ScanOptions
    from featx.inspection.suggestions import Suggestions

SHOWN = 10
"""Suggestions that are printed; the table and ``--json`` have all."""


def _show(found: Suggestions) -> None:
    """Print the first suggestions, and what to do with them."""
    drawn = int((found.stands_for == 0).sum())
    how = f", by a {found.head.kind} head on {counted(found.labelled, 'labelled image')}" if found.head else ""
    also = f", and {counted(drawn, 'image')} to judge heads by" if drawn else ""
    click.echo(
        f"{counted(len(found) - drawn, 'image')} to label next, of {found.unlabelled:,} without a label{how}{also}"
    )
    click.echo()
    columns: dict[str, Any] = {
        "rank": [str(number) for number in range(1, min(SHOWN, len(found)) + 1)],
        "path": found.paths[:SHOWN],
        "predicted": found.predicted[:SHOWN],
        "probability": [digits(None if p != p else p) for p in found.probability[:SHOWN].tolist()],
        "why": found.why[:SHOWN],
    }
    if found.head is None:
        del columns["predicted"]
    if found.head is None or found.head.task_ == "regression":
        del columns["probability"]
    print_columns(list(columns), list(zip(*columns.values(), strict=True)), text=("path", "predicted", "why"))
    if len(found) > SHOWN:
        click.echo(f"… and {len(found) - SHOWN:,} more")
    click.echo()
    if found.table is None:
        click.echo("-o FILE.csv writes them into a table to fill in, --json prints them all")
        return
    click.echo(f"table: {printable(str(found.table))}")
    click.echo(f"next: fill in the column label, then {printable(found.command)}")


@click.command(
    "suggest", cls=JobCommand, show=_show, progress=("suggest", "images"),
    short_help="Suggest which images to label next.",
    examples=(
        "featx suggest cache/photos--resnet50.h5 --budget 100 -o to-label.csv",
        "featx suggest --budget 20 --json",
    ),
)  # fmt: skip
@click.argument("features", required=False)
@data_options()
@option(
    "-n", "--budget", type=COUNT, default=100, show_default=True, section="Input", needs=ALWAYS, metavar="N",
    help="Number of images to choose.",
)  # fmt: skip
@option(
    "--test", type=click.IntRange(min=0), default=0, show_default=True, section="Input", needs=ALWAYS, metavar="N",
    help="Number of images of test (or of val, where there is no test) to draw at random besides, to judge heads by.",
)  # fmt: skip
@option(
    "--head", show_default="one that is fitted to the labelled images", section="Head", needs=ALWAYS, metavar="HEAD",
    help="Head that predicts the unlabelled images.",
)  # fmt: skip
@LAYERS
@task_option("Head")
@option(
    "--group", section="Input", needs=ALWAYS, metavar="COLUMN",
    help="Column of the table that names groups, such as patients: a second image of a group is chosen only when all groups "
    "have one.",
)  # fmt: skip
@option(
    "--table", section="Input", needs=with_option("group", "--group"), metavar="FILE",
    help="Table with the column of --group, where it is not the data set's own table.",
)  # fmt: skip
@option(
    "-o", "--out", section="Output", needs=ALWAYS, metavar="FILE",
    help="Table to write and to fill in (.csv or .parquet): all images of the data set, the suggested ones first.",
)  # fmt: skip
@option(
    "--seed", default=0, show_default=True, section="Advanced", needs=ALWAYS, metavar="N", help="Seed of the draws."
)
@cache_folder("Input", or_url="whose newest file is fetched")
def suggest(reporter: Reporter, features: str | None, scan: ScanOptions, **options: Any) -> Suggestions:
    """Suggest which unlabelled images of FEATURES to label next, so that a batch of labels teaches a head most.

    FEATURES is a feature file, by default the newest in the cache folder, or a data set, whose newest feature file is taken.
    Without labels, the centres of the set are chosen; with labels, images that a head is unsure of and that represent others.
    Of near-duplicates at most one is chosen. Images of val and test, which judge heads, are not chosen.

    The table of -o has an empty column label to fill in. featx extract on it takes the labels over without a forward pass, and
    featx fit-head fits to them. The same featx suggest then chooses the next batch.
    """
    stage_of_import(reporter, "sklearn", "scikit-learn")
    from featx.inspection.suggestions import suggest as run

    return run(scanned(features, scan), **options, reporter=reporter)
