"""``featx evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from featx.cli.choice import model_and_data
from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, CHECKED, refuse
from featx.cli.option_groups import option
from featx.cli.options import (
    DEVICE,
    HEAD_TABLE,
    MODELS_SOURCE,
    SOURCE_BACKBONE,
    WORKERS,
    cache_folder,
    data_options,
    needing,
    scanned,
)
from featx.reporter import Reporter, stage_of_import

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.data.scan_options import ScanOptions
    from featx.metrics.reports import Report


class _Evaluated(NamedTuple):
    """A report, and the file of the predictions that it is made of, or None."""

    report: Report
    predictions: str | None

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of the report."""
        return self.report.notes

    def as_dict(self) -> dict[str, Any]:
        """The object that ``featx evaluate --json`` prints."""
        return {**self.report.as_dict(), "predictions": self.predictions}


def _show(result: _Evaluated) -> None:
    """Print a report, and where the predictions are."""
    click.echo(str(result.report))
    if result.predictions:
        click.echo(f"\npredictions for each image: {result.predictions}")


@click.command(
    "evaluate", cls=JobCommand, show=_show, progress=("evaluate", "images"),
    short_help="Evaluate a head or model on labelled images.",
    examples=("featx evaluate models/photos--resnet50--logreg.safetensors photos/",),
)  # fmt: skip
@click.argument("words", nargs=-1, metavar="[MODEL] DATA...")
@data_options()
@option(
    "--split", show_default="images that the model was not trained on", section="Input", needs=ALWAYS, metavar="NAME",
    help="Split to evaluate on: train, val, test or all.",
)  # fmt: skip
@option(
    "--group", show_default="the column that the model was fitted with", section="Evaluation", needs=ALWAYS, metavar="COLUMN",
    help="Column of the table that names groups, such as patients: intervals are by groups.",
)  # fmt: skip
@HEAD_TABLE
@option(
    "--predictions", section="Output", needs=ALWAYS, metavar="FILE",
    help="Write the prediction for each image, its probability and that of the label to FILE (.csv or .parquet).",
)  # fmt: skip
@needing(CHECKED, cache_folder("Advanced", or_url="where finished files are copied and fetched"))
@needing(CHECKED, MODELS_SOURCE)
@SOURCE_BACKBONE
@DEVICE
@WORKERS
def evaluate(
    reporter: Reporter, words: tuple[str, ...], split: str | None, group: str | None, table: str | None,
    predictions: str | None, cache: str, models: str, backbone: str | None, weights: str | None, device: str,
    workers: int | None, scan: ScanOptions,
) -> _Evaluated:  # fmt: skip
    """Evaluate MODEL, a head or a promoted model, on the labelled images of DATA.

    MODEL is by default the newest in the models folder. DATA is a data set as extract takes it; for a head, a feature file too.
    For a head on several backbones, DATA are their feature files: a.h5 b.h5, or one of them, beside which the others lie.
    The split is test by default, or val where there is no test. DATA without splits is evaluated as a whole, unless the model
    was trained on some of it: then on the part that featx holds out.
    """
    from featx.io.file_kinds import is_feature_file

    several = sum(map(is_feature_file, words)) > 1
    model, data = model_and_data(words, models, reporter, missing="DATA", most=None if several else 1)
    if model in words:
        refuse(models="with MODEL, which is a file of any folder")
    stage_of_import(reporter)
    from featx.heads.head import Head
    from featx.inference import HeadOnBackbone, load_model, load_scorer
    from featx.inference import evaluate as run

    reporter.stage(f"loading {model}")
    on_features = all(map(is_feature_file, data))
    if len(data) > 1 and not on_features:
        found = f"found {len(data)} data sets, {', '.join(data)}"
        expected = "expected one, or the feature files of a head on several backbones"
        raise click.UsageError(f"{found}; {expected}", click.get_current_context())
    loaded = load_scorer(model) if on_features else load_model(model, backbone=backbone, weights=weights, device=device)
    if on_features:
        refuse(cache="with a feature file, which is of any folder")
    if not isinstance(loaded, HeadOnBackbone | Head):
        refuse(
            cache="with a promoted model, which uses no features",
            weights="with a promoted model, which holds its weights",
        )
    report = run(
        loaded, data if len(data) > 1 else scanned(data[0], scan),
        split=split, group=group, table=table, predictions=predictions, cache=cache,
        workers=workers, reporter=reporter,
    )  # fmt: skip
    return _Evaluated(report, predictions)
