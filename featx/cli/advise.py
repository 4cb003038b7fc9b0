"""``featx advise``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featx.arguments import backbone_name, path_of
from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, Needs
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
    refuse_data_options,
)
from featx.cli.output import print_columns
from featx.reporter import Reporter, stage_of_import
from featx.text import counted

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.advice.advice import Advice
    from featx.advice.evidence import Measurements
    from featx.data.image_set import ImageSet
    from featx.data.scan_options import ScanOptions


def _show_advice(result: Advice) -> None:
    """Print what was measured, the advice, and its reasons."""
    measured, counts = result.measurements, result.measurements.class_counts
    click.echo(
        f"{measured.dataset} through {measured.backbone}: {counted(measured.images, 'training image')} of "
        f"{counted(len(counts), 'class', 'classes')}, "
        f"{counts.min()} to {counts.max()} of each\n"
    )
    _show_layers(measured)
    if curve := measured.curve:
        points = [[n, f"{mean:.4f}", f"{error:.4f}"] for n, mean, error in curve.points]
        print_columns(["images", "accuracy", "± error"], points)
        click.echo(f"a head on {curve.layer}; twice as many images would add {_points(*curve.doubling_gain)}\n")
    click.echo(f"advice: {result.what_to_do}")
    if result.recommendation != "none":
        click.echo(f"expected accuracy: {_expected_accuracy(result)}")
    click.echo(f"certainty: {100 * result.confidence:.0f} % of resamples of the images lead to the same advice")
    click.echo(f"next: {result.command}")
    click.echo("why:")
    for reason in result.reasons:
        click.echo(f"- {reason}")
    click.echo(f"picture: {result.picture}")


def _expected_accuracy(result: Advice) -> str:
    """The accuracy that the advice is expected to give, and by how much it exceeds a head on the penultimate."""
    expected = f"{result.decision.expected_accuracy:.4f}"
    if result.recommendation == "head":
        return expected
    return f"{expected}, {_points(result.decision.expected_gain, *result.gain_interval)} over a head on the penultimate"


def _show_layers(measured: Measurements) -> None:
    """Print what a head on each layer is worth."""
    random_weights, joint = measured.random_weights, measured.joint_accuracies
    untrained = random_weights.untrained if random_weights else {}
    rows = [
        [
            score.layer, score.width, f"{score.held_out.accuracy:.4f}", f"{score.held_out.loss:.4f}",
            f"{joint[score.layer]:.4f}", f"{untrained[score.layer]:.4f}" if score.layer in untrained else "",
        ]
        for score in measured.layer_scores
    ]  # fmt: skip
    print_columns(["layer", "width", "accuracy", "log loss", "with all later ones", "random weights"], rows)
    grouped = (
        f" in {counted(measured.held_out_groups, 'group')}"
        if measured.held_out_groups < measured.held_out_images
        else ""
    )
    few = f" (random weights: on {random_weights.images} of them)" if random_weights else ""
    click.echo(
        f"logistic regression, cross-validated on {measured.held_out_images} training images{grouped}{few}; always"
    )
    click.echo(f"predicting the commonest class is right in {measured.evidence.majority.accuracy:.4f}\n")


def _points(gain: float, low: float, high: float) -> str:
    """A gain in accuracy and its interval, in percentage points."""
    return f"{100 * gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


_NO_FILE = Needs(
    "with a feature file, which is of any folder", lambda options: not str(options["data"]).endswith(".h5")
)


@click.command(
    "advise", cls=JobCommand, show=_show_advice, progress=("advise", "images"),
    short_help="Recommend a layer, and how far to fine-tune.",
    examples=("featx advise photos/ --backbone mobilenet_v3_small", "featx advise cache/photos--resnet50.h5"),
)  # fmt: skip
@click.argument("data", required=False)
@data_options()
@option(
    "-b", "--backbone", show_default="resnet50; lenet5 for digits", section="Backbone", needs=ALWAYS, metavar="NAME",
    help="Name of the backbone of a data set; featx backbones lists them.",
)  # fmt: skip
@option(
    "--weights", default="default", show_default=True, section="Backbone", needs=ALWAYS, metavar="NAME",
    help="Weights of the backbone, as in featx extract; for a feature file, where their file has moved.",
)  # fmt: skip
@GROUPS
@PIXEL_VALUES
@FIT
@DEVICE
@option(
    "--seed",
    default=0,
    show_default=True,
    section="Advanced",
    needs=ALWAYS,
    metavar="N",
    help="Seed of folds and draws.",
)
@WORKERS
@needing(
    _NO_FILE,
    cache_folder("Output", or_url="to which finished files are copied and from which other machines fetch them"),
)
@MODELS_FOLDER
@option(
    "-o", "--out", show_default="<models>/<features>--advice.png", section="Output", needs=ALWAYS, metavar="FILE",
    help="Picture to write.",
)  # fmt: skip
def advise(
    reporter: Reporter, data: str | None, backbone: str | None, cache: str, scan: ScanOptions, **options: Any
) -> Advice:  # fmt: skip
    """Measure what the features of a backbone are worth on DATA, and recommend what to do next.

    DATA is a data set, whose images pass through every stage of the backbone once, or a feature file, whose layers are taken as
    they are; by default the newest feature file in the cache folder. Heads on each layer and on several, a learning curve, and
    the same network with random weights are compared by cross-validation on the training images; val and test take no part.
    """
    from featx.features.folder import require_writable
    from featx.features.remote_folder import folder_here, newest_file
    from featx.io.file_kinds import is_feature_file

    named = str(newest_file(cache, reporter)) if data is None else path_of(data, "DATA")
    source: ImageSet | str = named
    if is_feature_file(named):
        refuse_data_options(scan, "with a feature file, whose data set was read already")
    else:  # before torch is imported, so that a wrong path is reported at once
        from featx.data.scan import scan_images

        reporter.stage(f"looking for images in {named}")
        source = scan_images(named, scan)
        require_writable(folder_here(cache))
        backbone = backbone_name(named, backbone)

    stage_of_import(reporter)
    from featx.advice.advice import advise as run

    return run(source, backbone, cache=cache, reporter=reporter, **options)
