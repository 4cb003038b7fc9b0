"""``featx evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from featx.cli.options import BACKBONE_AGAIN, CACHE_FOLDER, DEVICE, JSON, WORKERS
from featx.cli.output import print_notes, print_result
from featx.cli.progress import progress_bar

if TYPE_CHECKING:  # commands import what they need when they run: --help answers at once
    pass


@click.command(short_help="Judge a head or model on labelled images.")
@click.argument("model")
@click.argument("data")
@click.option("--split", help="train, val, test or all.  [default: what the model was not trained on]")
@CACHE_FOLDER
@BACKBONE_AGAIN
@DEVICE
@WORKERS
@JSON
def evaluate(
    model: str, data: str, split: str | None, cache: str, backbone: str | None, weights: str | None, device: str,
    workers: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Judge MODEL, a head or a promoted model, on the labelled images of DATA.

    Left to itself it takes the split test, or val where there is no test. DATA without splits is judged whole, unless the
    model was trained on some of it: then on the part that featx holds out.

    Example: featx evaluate models/photos--resnet50--logreg.safetensors photos/
    """
    from featx.inference import evaluate as judge
    from featx.inference import load_model

    loaded = load_model(model, backbone=backbone, weights=weights, device=device)
    with progress_bar("evaluate", "images") as reporter:
        report = judge(loaded, data, split=split, cache=cache, workers=workers, reporter=reporter)
    print_result(report.as_dict() if as_json else None, lambda: click.echo(str(report)))
    print_notes(*report.notes)
