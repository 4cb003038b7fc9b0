"""``featx predict``."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING

import click

from featx.cli.options import BACKBONE_AGAIN, DEVICE, JSON, WORKERS
from featx.cli.output import print_result
from featx.cli.progress import progress_bar
from featx.text import cell

if TYPE_CHECKING:  # commands import what they need when they run: --help answers at once
    pass


@click.command(short_help="Classify images.")
@click.argument("model")
@click.argument("images", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(min=1), default=1, show_default=True, help="Classes to give for each image.")
@BACKBONE_AGAIN
@DEVICE
@WORKERS
@JSON
def predict(
    model: str, images: tuple[str, ...], top: int, backbone: str | None, weights: str | None, device: str,
    workers: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Classify IMAGES (files and folders) with MODEL, a head or a promoted model.

    Prints CSV: path, rank, label, probability, error. An image that cannot be decoded gets a row that says why, and so does
    one whose class is not probable enough for a head that rejects. Of several labels each that is said has a row. So that
    no spreadsheet runs a path or a class as a formula, an apostrophe stands before those that begin with = + - or @, and
    what cannot be printed is escaped; --json gives every name as it is.

    Example: featx predict models/photos--resnet50--logreg.safetensors new.jpg more/ --top 3
    """
    from featx.inference import load_model
    from featx.inference import predict as predict_images

    loaded = load_model(model, backbone=backbone, weights=weights, device=device)
    with progress_bar("predict", "images") as reporter:
        predictions = predict_images(loaded, images, top=top, workers=workers, reporter=reporter)

    def show() -> None:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(["path", "rank", "label", "probability", "error"])
        for p in predictions:
            if p.error:
                rows.writerow([cell(p.path), "", "", "", cell(p.error)])
            for rank, (label, probability, why) in enumerate(p.rows(), start=1):
                shown = f"{probability:.6f}" if probability is not None else ""
                rows.writerow([cell(p.path), rank, cell(label), shown, cell(why)])

    print_result({"predictions": [p.as_dict() for p in predictions]} if as_json else None, show)
