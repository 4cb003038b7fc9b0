"""``featx evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from featx.cli.choice import model_and_data
from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, CHECKED, refuse
from featx.cli.option_groups import option
from featx.cli.options import DEVICE, HEAD_TABLE, MODELS_SOURCE, SOURCE_BACKBONE, WORKERS, cache_folder, needing
from featx.reporter import Reporter, stage_of_import

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.metrics.reports import Report


def _show(report: Report) -> None:
    """Print a report."""
    click.echo(str(report))


@click.command(
    "evaluate", cls=JobCommand, show=_show, progress=("evaluate", "images"),
    short_help="Evaluate a head or model on labelled images.",
    examples=("featx evaluate models/photos--resnet50--logreg.safetensors photos/",),
)  # fmt: skip
@click.argument("words", nargs=-1, metavar="[MODEL] DATA")
@option(
    "--split", show_default="images that the model was not trained on", section="Input", needs=ALWAYS, metavar="NAME",
    help="Split to evaluate on: train, val, test or all.",
)  # fmt: skip
@option(
    "--group", show_default="the column that the model was fitted with", section="Evaluation", needs=ALWAYS, metavar="COLUMN",
    help="Column of the table that names groups, such as patients: intervals are by groups.",
)  # fmt: skip
@HEAD_TABLE
@needing(CHECKED, cache_folder("Advanced"))
@needing(CHECKED, MODELS_SOURCE)
@SOURCE_BACKBONE
@DEVICE
@WORKERS
def evaluate(
    reporter: Reporter, words: tuple[str, ...], split: str | None, group: str | None, table: str | None, cache: str,
    models: str, backbone: str | None, weights: str | None, device: str, workers: int | None,
) -> Report:  # fmt: skip
    """Evaluate MODEL, a head or a promoted model, on the labelled images of DATA.

    MODEL is by default the newest in the models folder. DATA is a data set as extract takes it; for a head, a feature file too.
    The split is test by default, or val where there is no test. DATA without splits is evaluated as a whole, unless the model
    was trained on some of it: then on the part that featx holds out.
    """
    model, (data,) = model_and_data(words, models, reporter, missing="DATA", most=1)
    if model in words:
        refuse(models="with MODEL, which is a file of any folder")
    stage_of_import(reporter)
    from featx.inference import HeadOnBackbone, load_model
    from featx.inference import evaluate as run

    reporter.stage(f"loading {model}")
    loaded = load_model(model, backbone=backbone, weights=weights, device=device)
    if data.endswith(".h5"):
        refuse(cache="with a feature file, which is of any folder")
    if not isinstance(loaded, HeadOnBackbone):
        refuse(
            cache="with a promoted model, which uses no features",
            weights="with a promoted model, which holds its weights",
        )
    return run(loaded, data, split=split, group=group, table=table, cache=cache, workers=workers, reporter=reporter)
