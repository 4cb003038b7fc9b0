"""``featx inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.fix_options import FIX
from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, CHECKED, Needs, with_option
from featx.cli.option_groups import option
from featx.cli.options import (
    DEVICE,
    FIT,
    GROUPS,
    LAYERS,
    MODELS_FOLDER,
    PIXEL_VALUES,
    POSITIVE,
    WORKERS,
    cache_folder,
    data_options,
    needing,
    scanned,
    task_option,
)
from featx.constants import KINDS, MAPS
from featx.reporter import Reporter, stage_of_import

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.data.scan_options import ScanOptions
    from featx.inspection.corrected_table import CorrectedTable
    from featx.inspection.result import Inspection


@dataclass(frozen=True, eq=False)
class _Inspected:
    """An inspection, and the corrected table that was written, if any."""

    inspection: Inspection
    corrected: CorrectedTable | None

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of both."""
        return (*self.inspection.notes, *(self.corrected.notes if self.corrected else ()))

    def as_dict(self) -> dict[str, Any]:
        """The object that ``featx inspect --json`` prints."""
        fix = {"fix": self.corrected.as_dict() if self.corrected else None}
        return {**self.inspection.as_dict(), **fix, "notes": list(self.notes)}


def _show(result: _Inspected) -> None:
    from featx.cli.findings import print_corrected, print_findings

    print_findings(result.inspection)
    if result.corrected:
        print_corrected(result.corrected)


_WITH_PAGE = Needs(
    "without --page or --out FILE.html",
    lambda options: options["page"] or any(str(path).lower().endswith(".html") for path in options["out"]),
)


@click.command(
    "inspect", cls=JobCommand, show=_show, progress=("inspect", "images"),
    short_help="Find duplicates, leaks, wrong labels and outliers.",
    examples=(
        "featx inspect photos/",
        "featx inspect cache/photos--resnet50.h5 --page",
        "featx inspect photos/ --fix photos/corrected.csv --accept 20",
    ),
)  # fmt: skip
@click.argument("data", required=False)
@data_options()
@LAYERS
@task_option("Input")
@option(
    "--threshold", type=POSITIVE, show_default="relative to the set", section="Evaluation", needs=ALWAYS, metavar="DISTANCE",
    help="Distance below which two images are near-duplicates: 0 for copies, about 1 for two random images.",
)  # fmt: skip
@option(
    "--model", type=click.Choice(KINDS), show_default="logreg; ridge for --task regression", section="Evaluation",
    needs=ALWAYS, metavar="KIND",
    help=f"Kind of the head that judges the labels: {', '.join(KINDS)}.",
)  # fmt: skip
@GROUPS
@option(
    "--pixels/--no-pixels", default=True, show_default=True, section="Input", needs=ALWAYS,
    help="Read the images too, to find blank, dark, bright or blurred ones and odd sizes, and for the page.",
)  # fmt: skip
@option(
    "--images", multiple=True, section="Input", needs=with_option("pixels", "--pixels"), metavar="FOLDER",
    help="Folder besides that of the data set in which images may lie, such as the one they were moved to. May be repeated.",
)  # fmt: skip
@option(
    "-b", "--backbone", show_default="that of the newest features of DATA", section="Backbone", needs=CHECKED, metavar="NAME",
    help="Backbone of a data set, whose features are extracted where they are missing.",
)  # fmt: skip
@option(
    "--weights", default="default", show_default=True, section="Backbone", needs=with_option("backbone", "--backbone"),
    metavar="NAME",
    help="Weights of the backbone, as in featx extract.",
)  # fmt: skip
@needing(with_option("backbone", "--backbone"), PIXEL_VALUES)
@needing(with_option("backbone", "--backbone"), FIT)
@DEVICE
@option(
    "--page", is_flag=True, section="Output", needs=ALWAYS,
    help="Write a page to look at the findings and decide: <models>/<features>--inspection.html.",
)  # fmt: skip
@option(
    "-o", "--out", multiple=True, section="Output", needs=ALWAYS, metavar="FILE",
    help="Page (.html), or table of all images and findings (.csv or .parquet), to write. May be repeated.",
)  # fmt: skip
@option(
    "--map", type=click.Choice(MAPS), default=MAPS[0], show_default=True, section="Output", needs=_WITH_PAGE,
    help="How the page places the images on its map; tsne needs the extra map.",
)  # fmt: skip
@needing(with_option("page", "--page"), MODELS_FOLDER)
@FIX
@option(
    "--seed", default=0, show_default=True, section="Advanced", needs=ALWAYS, metavar="N",
    help="Seed of the folds and the map.",
)  # fmt: skip
@WORKERS
@cache_folder("Input", or_url="from which the newest file, or those of DATA, are fetched")
def inspect(
    reporter: Reporter,
    data: str | None,
    scan: ScanOptions,
    fix: str | None,
    duplicates: str,
    leaks: str,
    accept: int | str,
    decisions: str | None,
    **options: Any,
) -> _Inspected:
    """Find duplicates, leaks between splits, labels that are probably wrong, outliers and odd images in DATA.

    DATA is a feature file, by default the newest in the cache folder, or a data set, whose newest feature file is taken; where
    there is none, its features are extracted first. Findings are ranked; nothing is changed or deleted. The table of --fix
    holds the corrected data set, and featx extract reads it without a forward pass.
    """
    stage_of_import(reporter, "sklearn", "scikit-learn")
    from featx.inspection.corrected_table import require_writable, write_fixed_table
    from featx.inspection.pipeline import inspect as run

    if fix is not None:
        require_writable(Path(fix))
    inspection = run(scanned(data, scan), **options, reporter=reporter)
    if fix is None:
        return _Inspected(inspection, None)
    ways = {"duplicates": duplicates, "leaks": leaks, "accept": accept, "decisions": decisions}
    return _Inspected(inspection, write_fixed_table(inspection, fix, **ways))  # type: ignore[arg-type]
