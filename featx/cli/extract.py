"""``featx extract``."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.arguments import backbone_name
from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, CHECKED, Needs, with_option
from featx.cli.option_groups import option
from featx.cli.options import (
    COUNT,
    DEVICE,
    FIT,
    PIXEL_VALUES,
    SIZE_TYPE,
    BatchSize,
    PoolingName,
    cache_folder,
    data_options,
)
from featx.cli.output import in_views
from featx.constants import DTYPES, MAX_CHANNELS, MAX_SIDE, POOLINGS, PRECISIONS
from featx.errors import SettingsError
from featx.extraction.engine_table import ENGINES
from featx.layer_spec import VIEWS, by_depth
from featx.reporter import Reporter, stage_of_import
from featx.text import counted

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.data.scan_options import ScanOptions
    from featx.extraction.result import Extraction


def show_extraction(result: Extraction) -> None:
    """Print what an extraction did."""
    layers = ", ".join(f"{name} ({result.layers[name]})" for name in sorted(result.layers, key=by_depth))
    click.echo(f"{result.dataset} through {result.backbone}: {layers}{in_views(result.views)}")
    if result.computed or result.removed:
        engine = f", {result.engine}" if result.engine else ""
        click.echo(
            f"{counted(result.images, 'image')}: {result.computed:,} computed, {result.reused:,} reused, "
            f"{result.failed:,} failed, {result.removed:,} removed, in {result.seconds:.1f} s "
            f"({result.images_per_second:,.0f} images/s{engine})"
        )
    else:
        click.echo(
            f"{counted(result.images, 'image')}: {result.reused:,} reused, {result.failed:,} failed; "
            f"no forward pass was needed ({result.seconds:.2f} s)"
        )
    click.echo(f"features: {result.file}")


_NO_DIGITS = Needs("on the built-in digits, which are opaque PNG files", lambda options: options["data"] != "digits")


def _one_or_several(context: click.Context, param: click.Parameter, words: tuple[str, ...]) -> str | list[str]:  # noqa: ARG001 - of click
    """The data set, or several image files; digits by default."""
    return list(words) if len(words) > 1 else next(iter(words), "digits")


def _check(options: Mapping[str, Any]) -> None:
    if options["size"] and options["crop"]:
        raise SettingsError("size and crop both set the size of the images; expected one of them")
    if options["resize"] == 0 and options["fit"] in ("crop", "pad"):
        raise SettingsError(f"a resize of 0 squashes, and fit is {options['fit']}; expected one of them")
    if options["devices"] and options["device"] != "auto":
        raise SettingsError("device and devices both name where the network runs; expected one of them")
    if options["shard"]:
        from featx.data.shard import Shard

        Shard.parse(options["shard"])
    if options["ray"]:
        from featx.extraction.cluster.settings import RaySettings

        RaySettings(options["ray"], options["ray_actors"], options["ray_gpus"])
    if options["fast_decode"] and options["nvjpeg"]:
        raise SettingsError("fast-decode and nvjpeg are two ways to decode a JPEG; expected one of them")


@click.command(
    "extract", cls=JobCommand, show=show_extraction, progress=("extract", "images"), check=_check,
    notes=attrgetter("remarks"), short_help="Run a frozen backbone once over a data set.",
    examples=(
        "featx extract photos/ --backbone resnet50",
        "featx extract photos/ --backbone mobilenet_v3_small --layer features.9",
        "featx extract 'shards/train-{000..150}.tar' --backbone hf/facebook/dinov2-small",
        "featx extract labels.csv --path-column file --label-column species --root s3://bucket/photos",
    ),
)  # fmt: skip
@click.argument("data", nargs=-1, callback=_one_or_several)
@data_options()
@option(
    "-b", "--backbone", show_default="resnet50; lenet5 for digits", section="Backbone", needs=ALWAYS, metavar="NAME",
    help="Name of the backbone; featx backbones lists them.",
)  # fmt: skip
@option(
    "--weights", default="default", show_default=True, section="Backbone", needs=ALWAYS, metavar="NAME",
    help="Weights of the backbone: default (downloaded once), random (a baseline), a torchvision name such as "
    "IMAGENET1K_V1, or a .safetensors or .pth file.",
)  # fmt: skip
@option(
    "--layer", multiple=True, section="Backbone", needs=ALWAYS, metavar="NAME[:POOLING]",
    help="Store this layer too, in the same pass. May be repeated; featx backbones NAME --layers lists the layers.",
)  # fmt: skip
@option(
    "--stages", is_flag=True, section="Backbone", needs=ALWAYS,
    help="Store every stage of the network too: one layer for each size of its feature maps.",
)  # fmt: skip
@option(
    "--pooling", type=PoolingName(), default=POOLINGS[0], show_default=True,
    section="Backbone", needs=ALWAYS, metavar="NAME",
    help=f"How the feature map or the tokens of a layer become one vector: {', '.join(POOLINGS)}, or the means of cells side "
    "by side: grid2 (2 x 2), grid3, ..., tokens:16 (in the shape of the images). Without --layer and --stages, that of the "
    "last map, which is stored as penultimate:NAME.",
)  # fmt: skip
@option(
    "--views", type=click.Choice(tuple(VIEWS)), default="plain", show_default=True, section="Input", needs=ALWAYS,
    help="Views of each image (test-time augmentation): the image itself (plain), also its mirror image (flip), or its "
    "centre and corners and their mirror images (10crop).",
)  # fmt: skip
@option(
    "--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, section="Output", needs=ALWAYS,
    help="Data type of the stored features.",
)  # fmt: skip
@DEVICE
@option(
    "--devices", section="Compute", needs=ALWAYS, metavar="all|NAME,...",
    help="Devices of this machine that run the network together, in a process each: all (GPUs), or names such as 0,1 or "
    "cuda:0,cuda:1 or cpu,cpu. The file is that of one device.",
)  # fmt: skip
@option(
    "--size", type=SIZE_TYPE, show_default="as the weights require", section="Input", needs=ALWAYS, metavar="N|HxW",
    help="Size of the network's input: the side of a square, or height x width, such as 224x448. The length to which images "
    "are resized changes in proportion. Position embeddings of vision transformers are interpolated.",
)  # fmt: skip
@FIT
@option(
    "--in-chans", type=click.IntRange(1, MAX_CHANNELS), show_default="3 in most networks", section="Input", needs=ALWAYS,
    metavar="N",
    help="Number of channels to which the first layer of a network of timm is adapted: 1 is grey, others are the bands of "
    "--bands.",
)  # fmt: skip
@option(
    "--resize", type=click.IntRange(0, MAX_SIDE), show_default="as the weights require",
    section="Input", needs=ALWAYS, metavar="PIXELS",
    help="Length to which the shorter edge of an image is resized; 0 squashes it.",
)  # fmt: skip
@option(
    "--crop", type=click.IntRange(1, MAX_SIDE), show_default="as the weights require",
    section="Input", needs=ALWAYS, metavar="PIXELS",
    help="Side of the centre crop, without a change of --resize.",
)  # fmt: skip
@PIXEL_VALUES
@option(
    "--background", show_default="white", section="Advanced", needs=_NO_DIGITS, metavar="COLOUR",
    help="Colour behind transparent pixels: a name or #rrggbb.",
)  # fmt: skip
@option(
    "--max-pixels", type=COUNT, show_default="178956970", section="Advanced", needs=ALWAYS, metavar="N",
    help="Largest number of pixels (width x height); a larger image fails.",
)  # fmt: skip
@option(
    "--fast-decode", is_flag=True, section="Advanced", needs=_NO_DIGITS,
    help="Decode large JPEGs at a fraction of their size. The features differ, and the file records this.",
)  # fmt: skip
@option(
    "--nvjpeg", is_flag=True, section="Advanced", needs=_NO_DIGITS,
    help="Decode JPEGs on the GPU. The features differ, and the file records this.",
)  # fmt: skip
@option(
    "--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True,
    section="Compute", needs=ALWAYS, metavar="NAME",
    help=f"Data type in which the network computes: {', '.join(PRECISIONS)}. A lower precision is faster on a GPU, and the "
    "features differ.",
)  # fmt: skip
@option(
    "--compute", type=click.Choice(("auto", *ENGINES)), default="auto", show_default=True, section="Compute", needs=CHECKED,
    metavar="NAME",
    help=f"Engine that runs the network: {', '.join(ENGINES)}; or auto, the fastest, which is measured once if the run is "
    "long enough. The features are the same.",
)  # fmt: skip
@option(
    "--batch-size", type=BatchSize(), show_default="the engine's best; 64 on a GPU",
    section="Compute", needs=ALWAYS, metavar="N|auto",
    help="Number of images per forward pass.",
)  # fmt: skip
@option(
    "-j", "--workers", type=COUNT, show_default="one per core", section="Compute", needs=ALWAYS, metavar="N",
    help="Number of threads that decode images and, on the CPU, run the network.",
)  # fmt: skip
@option(
    "--rehash", is_flag=True, section="Advanced", needs=ALWAYS,
    help="Read every image and check every row, instead of trusting the times of files.",
)  # fmt: skip
@option(
    "--strict",
    is_flag=True,
    section="Advanced",
    needs=ALWAYS,
    help="Stop at the first image that fails, with exit status 1.",
)
@option(
    "--wait", is_flag=True, section="Advanced", needs=ALWAYS, help="Wait while another process writes the same file."
)
@option(
    "--shard", section="Output", needs=ALWAYS, metavar="K/N",
    help="Extract one part of the images only, such as 3/16, the third of 16, on one of several machines that share the cache "
    "folder. featx cache merge joins the parts.",
)  # fmt: skip
@option(
    "--split-rows", type=COUNT, section="Output", needs=ALWAYS, metavar="N",
    help="Keep the data set in several feature files of at most N images each, in a folder that ends in .set, which all "
    "commands take as one.",
)  # fmt: skip
@option(
    "--ray", section="Compute", needs=ALWAYS, metavar="auto|HOST:PORT|local",
    help="Read, decode and run the network on a cluster of Ray: the one that this machine belongs to (auto), that of a head "
    "node, or processes of this machine (local). This process plans and writes.",
)  # fmt: skip
@option(
    "--ray-actors", type=COUNT, show_default="one per GPU, or most of the cores", section="Compute",
    needs=with_option("ray", "--ray"), metavar="N", help="Number of processes of the cluster that run the network.",
)  # fmt: skip
@option(
    "--ray-gpus", type=click.FloatRange(0), show_default="1 where the cluster has GPUs", section="Compute",
    needs=with_option("ray", "--ray"), metavar="G", help="GPUs of each of these processes; 0.5 lets two share one.",
)  # fmt: skip
@cache_folder("Output", or_url="to which finished files are copied and from which other machines fetch them")
@option(
    "-o", "--out", section="Output", needs=ALWAYS, metavar="FILE",
    help="Feature file to write, instead of one named in the cache folder; with --split-rows a folder.",
)  # fmt: skip
def extract(
    reporter: Reporter, data: str | list[str], backbone: str | None, layer: tuple[str, ...], fast_decode: bool, nvjpeg: bool,
    cache: str, out: str | None, max_pixels: int | None, scan: ScanOptions, **options: Any,
) -> Extraction:  # fmt: skip
    """Run a frozen backbone once over DATA and store its embeddings.

    DATA is a folder class/..., a folder train|val|test/class/..., a folder of images, a table (.csv, .tsv, .txt, .json,
    .jsonl, .parquet) with the columns path, label and optionally split, or others that the options name, image files, an
    archive (.zip, .tar), shards of WebDataset, Parquet with image bytes, a Hugging Face data set (hf://org/name@split), the
    URL of any of these, or digits, the built-in scans. Images whose features are in a file of the cache folder already, made
    in the same way, are not computed again. An image that cannot be read fails without stopping the others. An interrupted
    run keeps what it has done: the same command resumes it.
    """
    # The first line comes before anything large is imported, and the images before torch, so that a wrong path or an unwritable
    # folder is reported at once.
    reporter.stage(f"looking for images in {data if isinstance(data, str) else counted(len(data), 'place')}")
    from featx.data.scan import scan_images
    from featx.data.urls import is_url
    from featx.features.folder import require_named, require_writable

    images = scan_images(data, scan)
    if out and not options["split_rows"]:
        require_named(Path(out), images.table, options["weights"], (backbone or "").rpartition(":")[0])
    if not is_url(cache):  # what a server takes is known when it is asked
        require_writable(Path(cache), Path(out) if out and not options["split_rows"] else None)

    stage_of_import(reporter)
    from featx.backbones.backbone import load_backbone
    from featx.data.decode import MAX_PIXELS
    from featx.devices import pick_devices
    from featx.extraction.pipeline import extract as run

    running = {
        name: options.pop(name)
        for name in (
            *("compute", "batch_size", "workers", "rehash", "strict", "wait", "devices", "shard", "split_rows"),
            *("ray", "ray_actors", "ray_gpus"),
        )
    }
    if running["devices"]:
        options["device"] = str(pick_devices(running["devices"])[0])
    name = backbone_name(data, backbone)
    reporter.stage(f"loading {name}")
    loaded = load_backbone(
        name,
        layers=layer,
        decoding="scaled" if fast_decode else "nvjpeg" if nvjpeg else None,
        **options,
    )
    return run(images, loaded, cache=cache, out=out, max_pixels=max_pixels or MAX_PIXELS, reporter=reporter, **running)
