"""``featx inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, CHECKED, with_option
from featx.cli.option_groups import option
from featx.cli.options import DEVICE, GROUPS, POSITIVE, WORKERS, cache_folder
from featx.constants import KINDS, TASKS
from featx.layer_spec import PENULTIMATE
from featx.reporter import Reporter, stage_of_import

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.inspection.result import Inspection


def _show(result: Inspection) -> None:
    from featx.cli.findings import print_findings

    print_findings(result)


@click.command(
    "inspect", cls=JobCommand, show=_show, progress=("inspect", "images"),
    short_help="Find duplicates, leaks, wrong labels and outliers.",
    examples=(
        "featx inspect photos/",
        "featx inspect cache/photos--resnet50.h5 --threshold 0.02",
    ),
)  # fmt: skip
@click.argument("data", required=False)
@option(
    "--layer", multiple=True, default=(PENULTIMATE,), show_default=True, section="Input", needs=ALWAYS, metavar="NAME",
    help="Layer of the feature file. May be repeated: several layers are concatenated.",
)  # fmt: skip
@option(
    "--task", type=click.Choice(("auto", *TASKS)), default="auto", show_default=True,
    section="Input", needs=ALWAYS, metavar="NAME",
    help=f"Task: {', '.join(TASKS)}; or auto: multilabel where a label contains | (cat|dog), else classification.",
)  # fmt: skip
@option(
    "--threshold", type=POSITIVE, show_default="half the median distance to the nearest neighbour", section="Evaluation",
    needs=ALWAYS, metavar="DISTANCE",
    help="Cosine distance below which two images are near-duplicates.",
)  # fmt: skip
@option(
    "--model", type=click.Choice(KINDS), show_default="logreg; ridge for --task regression", section="Evaluation",
    needs=ALWAYS, metavar="KIND",
    help=f"Kind of the head that judges the labels: {', '.join(KINDS)}.",
)  # fmt: skip
@GROUPS
@option(
    "--pixels/--no-pixels", default=True, show_default=True, section="Input", needs=ALWAYS,
    help="Read the images too, to find blank, dark, bright, blurred ones and odd sizes.",
)  # fmt: skip
@option(
    "--images", multiple=True, section="Input", needs=with_option("pixels", "--pixels"), metavar="FOLDER",
    help="Folder besides that of the data set in which images may lie. May be repeated.",
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
@DEVICE
@option(
    "-o", "--out", multiple=True, section="Output", needs=ALWAYS, metavar="FILE",
    help="Table of all images and findings to write (.csv or .parquet). May be repeated.",
)  # fmt: skip
@option(
    "--seed", default=0, show_default=True, section="Advanced", needs=ALWAYS, metavar="N", help="Seed of the folds."
)
@WORKERS
@cache_folder("Input")
def inspect(reporter: Reporter, **options: Any) -> Inspection:
    """Find duplicates, leaks between splits, labels that are probably wrong, outliers and odd images in DATA.

    DATA is a feature file, by default the newest in the cache folder, or a data set, whose newest feature file is taken; where
    there is none, its features are extracted first. Findings are ranked; nothing is changed or deleted.
    """
    stage_of_import(reporter, "sklearn", "scikit-learn")
    from featx.inspection.pipeline import inspect as run

    return run(**options, reporter=reporter)
