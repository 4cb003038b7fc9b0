"""``featx rank``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featx.cli.options import CACHE_FOLDER, DEVICE, JSON, MODELS_FOLDER
from featx.cli.output import print_columns, print_notes, print_result
from featx.cli.progress import progress_bar
from featx.workflows.recipe import ExtractStep

if TYPE_CHECKING:  # commands import what they need when they run: --help answers at once
    from featx.advice.ranking import Ranking


def _show_ranking(result: Ranking) -> None:
    rows: list[list[Any]] = []
    for row in result.rows:
        if row.why:
            rows.append([f"  {row.backbone}", "failed", "", "", "", "", "", "", ""])
            continue
        low, high = row.interval
        rows.append([
            f"{'*' if row.front else ' '} {row.backbone}", f"{row.accuracy:.4f}", f"{low:.4f} to {high:.4f}", f"{row.knn:.4f}",
            f"{row.logme:.4f}", f"{row.h_score:.3f}", row.embedding, f"{row.parameters / 1e6:.2f} M",
            f"{row.images_per_second:.0f}",
        ])  # fmt: skip
    print_columns(
        ["backbone", "accuracy", "95 % interval", "kNN", "LogME", "H-score", "width", "parameters", "images/s"], rows
    )
    click.echo(f"\naccuracy: logistic regression, cross-validated on {result.images} training images")
    click.echo("*: no other is as accurate and faster, or as fast and more accurate")
    click.echo("LogME and H-score: higher is better, and hints at most")
    for row in result.rows:
        if row.why:
            click.echo(f"{row.backbone} failed: {row.why}")
    click.echo(f"picture: {result.picture}")


@click.command(short_help="Compare backbones on one data set.")
@click.argument("data", required=False, default=ExtractStep.data)
@click.option(
    "-b", "--backbone", "backbones", multiple=True, required=True, metavar="NAME[=WEIGHTS]",
    help="To be repeated; see featx backbones. Weights as extract --weights.",
)  # fmt: skip
@DEVICE
@click.option("--seed", default=0, show_default=True, help="Of the folds.")
@click.option("-j", "--workers", type=click.IntRange(min=1), help="As of extract.  [default: one per core]")
@CACHE_FOLDER
@MODELS_FOLDER
@click.option("-o", "--out", metavar="FILE", help="The picture, instead of <models>/<data>--rank.png.")
@JSON
def rank(data: str, backbones: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Extract the features of each backbone once, and compare what heads on them are worth, and what they cost.

    Logistic regression and nearest neighbours are cross-validated on the training images of DATA; val and test have no part
    in the choice. LogME and the H-score are hints.

    Example: featx rank photos/ --backbone mobilenet_v3_small --backbone resnet50 --backbone convnext_tiny
    """
    from featx.advice.ranking import rank as run
    from featx.data.scan import scan_images

    wanted = {name: weights or "default" for name, _, weights in (each.partition("=") for each in backbones)}
    images = scan_images(data)
    with progress_bar("extract", "images") as reporter:
        result = run(images, wanted, reporter=reporter, **options)
    print_result(result.as_dict() if as_json else None, lambda: _show_ranking(result))
    print_notes(*result.notes)
