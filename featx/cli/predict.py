"""``featx predict``."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from featx.cli.job import JobCommand
from featx.cli.option_groups import option
from featx.cli.options import COUNT, DEVICE, SOURCE_BACKBONE, WORKERS
from featx.reporter import Reporter, stage_of_import
from featx.text import cell

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.inference import Prediction


def _show(predictions: Sequence[Prediction]) -> None:
    """Print one row of CSV for each class of each image."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["path", "rank", "label", "probability", "error"])
    for prediction in predictions:
        if prediction.error:
            table.writerow([cell(prediction.path), "", "", "", cell(prediction.error)])
        for rank, (label, probability, why) in enumerate(prediction.rows(), start=1):
            shown = f"{probability:.6f}" if probability is not None else ""
            table.writerow([cell(prediction.path), rank, cell(label), shown, cell(why)])


@click.command(
    "predict", cls=JobCommand, show=_show, progress=("predict", "images"), notes=lambda _: (),
    facts=lambda predictions: {"predictions": [prediction.as_dict() for prediction in predictions]},
    short_help="Classify images.",
    examples=("featx predict models/photos--resnet50--logreg.safetensors new.jpg more/ --top 3",),
)  # fmt: skip
@click.argument("model")
@click.argument("images", nargs=-1, required=True)
@option(
    "--top", type=COUNT, default=1, show_default=True, section="Output", metavar="N",
    help="Number of classes to print for each image.",
)  # fmt: skip
@SOURCE_BACKBONE
@DEVICE
@WORKERS
def predict(
    reporter: Reporter, model: str, images: tuple[str, ...], top: int, backbone: str | None, weights: str | None,
    device: str, workers: int | None,
) -> Sequence[Prediction]:  # fmt: skip
    """Classify IMAGES, which are files and folders, with MODEL, a head or a promoted model.

    The output is CSV: path, rank, label, probability, error. An image that cannot be decoded gets a row with the reason, and so
    does one whose prediction a head rejects. A multi-label head gives one row for each predicted label. An apostrophe before
    a cell that begins with = + - or @ keeps a spreadsheet from running it as a formula, and unprintable characters are escaped;
    --json prints every name unchanged.
    """
    stage_of_import(reporter)
    from featx.inference import load_model
    from featx.inference import predict as run

    reporter.stage(f"loading {model}")
    loaded = load_model(model, backbone=backbone, weights=weights, device=device)
    return run(loaded, images, top=top, workers=workers, reporter=reporter)
