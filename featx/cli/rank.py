"""``featx rank``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, NO_OUT
from featx.cli.option_groups import option
from featx.cli.options import (
    DEVICE,
    FIT,
    GROUPS,
    MODELS_FOLDER,
    PIXEL_VALUES,
    WORKERS,
    cache_folder,
    data_options,
    needing,
)
from featx.cli.output import print_columns
from featx.reporter import Reporter, stage_of_import
from featx.text import counted

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.advice.ranking import Ranking
    from featx.data.scan_options import ScanOptions


def _show_ranking(result: Ranking) -> None:
    rows: list[list[Any]] = []
    for row in result.rows:
        if row.why:
            rows.append([f"  {row.label}", "failed", "", "", "", "", "", "", ""])
            continue
        low, high = row.interval
        rows.append([
            f"{'*' if row.front else ' '} {row.label}", f"{row.accuracy:.4f}", f"{low:.4f} to {high:.4f}", f"{row.knn:.4f}",
            f"{row.logme:.4f}", f"{row.h_score:.3f}", row.embedding, f"{row.parameters / 1e6:.2f} M",
            f"{row.images_per_second:.0f}",
        ])  # fmt: skip
    if len(result.steps) > 1:
        rows.append(_pair_row(result))
    print_columns(
        ["backbone", "accuracy", "95 % interval", "kNN", "LogME", "H-score", "width", "parameters", "images/s"], rows
    )
    grouped = f" in {counted(result.groups, 'group')}" if result.groups < result.images else ""
    click.echo(f"\naccuracy: logistic regression, cross-validated on {result.images} training images{grouped}")
    click.echo(f"{result.baseline}, on the same images")
    click.echo("*: no other is as accurate and faster, or as fast and more accurate")
    click.echo("LogME and H-score: higher is better; both are hints at most")
    for step in result.steps:
        click.echo(f"step: {step.sentence}")
    for row in result.rows:
        if row.why:
            click.echo(f"{row.label} failed: {row.why}")
    click.echo(f"\nnext: {result.command}")
    click.echo(f"picture: {result.picture}")


def _pair_row(result: Ranking) -> list[Any]:
    """The row of the two backbones that are best side by side."""
    from featx.metrics.grouped import proportion_interval  # numpy

    pair = result.steps[1].judged
    widths = {row.label: row.embedding for row in result.rows}
    sizes = {row.label: row.parameters for row in result.rows}
    low, high = proportion_interval(pair.right, pair.groups) if pair.right is not None else (0.0, 1.0)
    speed = "" if pair.images_per_second is None else f"{pair.images_per_second:.0f}"
    return [
        f"  best pair: {' + '.join(pair.backbones)}", f"{pair.value:.4f}", f"{low:.4f} to {high:.4f}", "", "", "",
        sum(widths[name] for name in pair.backbones), f"{sum(sizes[name] for name in pair.backbones) / 1e6:.2f} M", speed,
    ]  # fmt: skip


@click.command(
    "rank", cls=JobCommand, show=_show_ranking, progress=("rank", "images"),
    short_help="Compare backbones on one data set.",
    examples=("featx rank photos/ --backbone mobilenet_v3_small --backbone resnet50 --backbone convnext_tiny",),
)  # fmt: skip
@click.argument("data", required=False, default="digits")
@data_options()
@option(
    "-b", "--backbone", "backbones", multiple=True, required=True, section="Backbone", needs=ALWAYS, metavar="NAME[=WEIGHTS]",
    help="Backbone to compare, and its weights as in featx extract. May be repeated; featx backbones lists the names.",
)  # fmt: skip
@GROUPS
@PIXEL_VALUES
@FIT
@DEVICE
@option(
    "--seed", default=0, show_default=True, section="Advanced", needs=ALWAYS, metavar="N", help="Seed of the folds."
)
@WORKERS
@cache_folder("Output", or_url="to which finished files are copied and from which other machines fetch them")
@needing(NO_OUT, MODELS_FOLDER)
@option(
    "-o",
    "--out",
    show_default="<models>/<data>--rank.png",
    section="Output",
    needs=ALWAYS,
    metavar="FILE",
    help="Picture to write.",
)
def rank(reporter: Reporter, data: str, backbones: tuple[str, ...], scan: ScanOptions, **options: Any) -> Ranking:
    """Extract the features of each backbone once, and compare the accuracy of heads on them and their cost.

    Logistic regression and nearest neighbours are cross-validated on the training images of DATA; val and test take no part in
    the choice. LogME and the H-score are hints.
    """
    stage_of_import(reporter)
    from featx.advice.ranking import rank as run
    from featx.data.scan import scan_images

    pairs = [(name, weights or "default") for name, _, weights in (each.partition("=") for each in backbones)]
    return run(scan_images(data, scan), pairs, reporter=reporter, **options)
