"""``featx advise``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.options import CACHE_FOLDER, DEVICE, JSON, MODELS_FOLDER
from featx.cli.output import print_columns, print_notes, print_result
from featx.cli.progress import progress_bar
from featx.workflows.recipe import ExtractStep

if TYPE_CHECKING:  # commands import what they need when they run: --help answers at once
    from featx.advice.advice import Advice
    from featx.data.image_set import ImageSet


def _show_advice(result: Advice) -> None:
    click.echo(
        f"{result.data} through {result.backbone}: {result.images} training images of {result.classes} classes, "
        f"{result.smallest} to {result.largest} of each\n"
    )
    untrained = result.baseline.untrained if result.baseline else {}
    rows = [
        [
            depth.layer, depth.width, f"{depth.outcome.accuracy:.4f}", f"{depth.outcome.loss:.4f}",
            f"{result.together[depth.layer]:.4f}", f"{untrained[depth.layer]:.4f}" if depth.layer in untrained else "",
        ]
        for depth in result.layers
    ]  # fmt: skip
    print_columns(["layer", "width", "accuracy", "log loss", "with all later ones", "random weights"], rows)
    few = f" (random weights: on {result.baseline.images} of them)" if result.baseline else ""
    click.echo(f"logistic regression, cross-validated on {result.judged} training images{few}; naming the commonest")
    click.echo(f"class is right in {result.guess:.4f}\n")
    if result.curve:
        points = [[n, f"{mean:.4f}", f"{error:.4f}"] for n, mean, error in result.curve.points]
        print_columns(["images", "accuracy", "± error"], points)
        click.echo(
            f"a head on {result.curve.layer}; twice the images there are would give {_points(*result.curve.twice)}\n"
        )
    recommendation = result.choice.recommendation
    where = {"tune-part": f" from {result.layer} on", "head-inner": f" on {result.layer}"}.get(recommendation, "")
    click.echo(
        f"{result.cell}: {recommendation}{where} (so say {100 * result.confidence:.0f} % of redraws of the images)"
    )
    if recommendation not in ("none", "head"):
        click.echo(f"expected: {_points(result.choice.gain, *result.gain_interval)} over a head on the penultimate")
    for reason in result.reasons:
        click.echo(f"- {reason}")
    click.echo(f"\nnext: {result.command}")
    click.echo(f"picture: {result.picture}")


def _points(gain: float, low: float, high: float) -> str:
    """A gain in accuracy and its interval, in points."""
    return f"{100 * gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


@click.command(short_help="Say which layer to take, and how far to tune.")
@click.argument("data", required=False)
@click.option("-b", "--backbone", help="Of a data set.  [default: resnet50; lenet5 for digits]")
@click.option(
    "--weights",
    default=ExtractStep.weights,
    show_default=True,
    help="As of extract; of a feature file, where they have moved.",
)
@DEVICE
@click.option("--seed", default=0, show_default=True, help="Of folds and draws.")
@click.option("-j", "--workers", type=click.IntRange(min=1), help="As of extract.  [default: one per core]")
@CACHE_FOLDER
@MODELS_FOLDER
@click.option("-o", "--out", metavar="FILE", help="The picture, instead of <models>/<features>--advice.png.")
@JSON
def advise(data: str | None, backbone: str | None, cache: str, as_json: bool, **options: Any) -> None:
    """Measure what a backbone's features are worth on DATA, and say what to do next.

    DATA is a data set, whose images go through every stage of the backbone once, or a feature file, whose layers are taken
    as they are; left out, the newest in the cache folder. Heads on each layer and on several, a learning curve, and the
    same network with random weights are compared by cross-validation on the training images; val and test have no part.

    Example: featx advise photos/ --backbone mobilenet_v3_small
    """
    from featx.features.folder import newest, require_writable

    named = data or str(newest(Path(cache)))
    source: ImageSet | str = named
    if not named.endswith(".h5"):  # before torch is imported, as extract does it
        from featx.data.scan import scan_images

        source = scan_images(named)
        require_writable(Path(cache))
        backbone = ExtractStep(data=named, backbone=backbone).backbone_name()

    from featx.advice.advice import advise as run

    with progress_bar("advise", "images") as reporter:
        result = run(source, backbone, cache=cache, reporter=reporter, **options)
    print_result(result.as_dict() if as_json else None, lambda: _show_advice(result))
    print_notes(*result.notes)
