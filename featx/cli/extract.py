"""``featx extract``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featx.cli.options import CACHE_FOLDER, DEVICE, JSON, BatchSize
from featx.cli.output import in_views, print_notes, print_result
from featx.cli.progress import progress_bar
from featx.constants import DTYPES, MAX_SIDE, POOLINGS, PRECISIONS
from featx.extraction.engine_table import ENGINES
from featx.layer_spec import VIEWS, by_depth
from featx.workflows.recipe import ExtractStep

if TYPE_CHECKING:  # commands import what they need when they run: --help answers at once
    from featx.extraction.result import Extraction


def show_extraction(result: Extraction) -> None:
    """Print what an extraction did."""
    layers = ", ".join(f"{name} ({result.layers[name]})" for name in sorted(result.layers, key=by_depth))
    click.echo(f"{result.dataset} through {result.backbone}: {layers}{in_views(result.views)}")
    if result.computed or result.removed:
        click.echo(
            f"{result.images:,} images: {result.computed:,} computed, {result.reused:,} reused, {result.failed:,} failed, "
            f"{result.removed:,} removed, in {result.seconds:.1f} s ({result.images_per_second:,.0f} images/s"
            f"{', ' + result.engine if result.engine else ''})"
        )
    else:
        click.echo(
            f"{result.images:,} images: {result.reused:,} reused, {result.failed:,} failed; no forward pass was needed "
            f"({result.seconds:.2f} s)"
        )
    click.echo(f"features: {result.file}")


@click.command(short_help="Run a frozen backbone once over a data set.")
@click.argument("data", default=ExtractStep.data)
@click.option("-b", "--backbone", help="See featx backbones.  [default: resnet50; lenet5 for digits]")
@click.option(
    "--weights", default=ExtractStep.weights, show_default=True,
    help="default (downloaded once), random (a baseline), a torchvision name such as IMAGENET1K_V1, or a .safetensors "
    "or .pth file.",
)  # fmt: skip
@click.option(
    "--layer", multiple=True, metavar="NAME[:POOLING]",
    help="Also this layer, in the same pass; may be repeated. featx backbones NAME --layers lists them.",
)  # fmt: skip
@click.option("--stages", is_flag=True, help="Also every stage of the network, that is every size of its maps.")
@click.option(
    "--pooling", type=click.Choice(POOLINGS), default=ExtractStep.pooling, show_default=True,
    help="How such a layer's map or tokens become one vector.",
)  # fmt: skip
@click.option(
    "--views", type=click.Choice(tuple(VIEWS)), default=ExtractStep.views, show_default=True,
    help="See each image plainly; also mirrored (flip); or centre and corners, and those mirrored (10crop).",
)  # fmt: skip
@click.option("--dtype", type=click.Choice(DTYPES), default=ExtractStep.dtype, show_default=True, help="Of the file.")
@click.option("--resize", type=click.IntRange(0, MAX_SIDE), help="Shorter edge in pixels, instead of the weights' own.")
@click.option("--crop", type=click.IntRange(1, MAX_SIDE), help="Side of the centre crop, instead of the weights' own.")
@click.option(
    "--background", metavar="COLOUR", help="Seen through transparent pixels: a name or #rrggbb.  [default: white]"
)
@click.option(
    "--max-pixels", type=click.IntRange(min=1), help="A larger image (width x height) fails.  [default: 178956970]"
)
@click.option(
    "--fast-decode", is_flag=True,
    help="Decode large JPEGs at a fraction of their size: other features, and said so in the file.",
)  # fmt: skip
@click.option("--nvjpeg", is_flag=True, help="Decode JPEGs on the GPU: other features, and said so too.")
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default=ExtractStep.precision, show_default=True,
    help="Of the network; a lower one is fast on a GPU, and gives other features.",
)  # fmt: skip
@click.option(
    "--compute", type=click.Choice(("auto", *ENGINES)), default=ExtractStep.compute, show_default=True,
    help="What runs the network; auto takes the fastest, and measures that once if the run is long. Same features.",
)  # fmt: skip
@click.option(
    "--batch-size", type=BatchSize(), metavar="N|auto",
    help="Images per forward pass.  [default: what the engine does best with; 64 on a GPU]",
)  # fmt: skip
@DEVICE
@click.option(
    "-j", "--workers", type=click.IntRange(min=1),
    help="Threads that decode and, on the CPU, run the network.  [default: one per core]",
)  # fmt: skip
@click.option(
    "--rehash", is_flag=True, help="Trust no modification time and no row: read every image, check every row."
)
@click.option("--strict", is_flag=True, help="Stop at the first image that fails, with exit code 1.")
@click.option("--wait", is_flag=True, help="Wait while another process writes the same file.")
@CACHE_FOLDER
@click.option("-o", "--out", metavar="FILE", help="The feature file, instead of one named in the cache folder.")
@JSON
def extract(as_json: bool, **options: Any) -> None:
    """Run a frozen backbone once over DATA and keep its embeddings.

    DATA is a folder class/..., a folder train|val|test/class/..., a folder of images, a table (.csv, .tsv, .jsonl,
    .parquet) with the columns path, label and, if wanted, split, or digits, the built-in scans. Images whose features
    are in any file of the cache folder, made in the same way, are not computed again. A bad image fails alone; what an
    interrupted run has done is kept, and the same command goes on from there.

    Example: featx extract photos/ --backbone mobilenet_v3_small --layer features.9
    """
    step = ExtractStep(**options)
    with progress_bar("extract", "images") as reporter:
        result = step.run(reporter)
    print_result(result.as_dict() if as_json else None, lambda: show_extraction(result))
    print_notes(*result.remarks)
