"""``featx import``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, CHECKED, with_option
from featx.cli.option_groups import option
from featx.cli.options import WORKERS, cache_folder, data_options, needing
from featx.reporter import Reporter
from featx.text import counted, form, printable

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.data.scan_options import ScanOptions
    from featx.features.exchange.importing import FeatureImport


def _show(imported: FeatureImport) -> None:
    """Print what was written, and what may follow."""
    layers = ", ".join(f"{printable(name)} ({width:,})" for name, width in imported.layers.items())
    failed = f", {imported.failed:,} failed" if imported.failed else ""
    known = (
        f", {imported.with_images:,} with {form(imported.with_images, 'its image', 'their images')}"
        if imported.with_images
        else ""
    )
    splits = ", ".join(f"{count:,} {printable(split)}" for split, count in imported.splits.items() if split)
    unlabelled = f", {imported.unlabelled:,} unlabelled" if imported.unlabelled else ""
    click.echo(
        f"{counted(imported.images, 'vector')} of {printable(imported.tool)}{known}{failed}: {printable(str(imported.path))}"
    )
    click.echo(f"layers: {layers}")
    click.echo(f"{counted(imported.classes, 'class', 'classes')}{unlabelled}; splits: {splits}")
    command = "fit-head" if imported.classes > 1 else "inspect"
    click.echo(f"next: featx {command} {printable(shlex.quote(str(imported.path)))}")


@click.command(
    "import", cls=JobCommand, show=_show, progress=("import", "images"),
    short_help="Make a feature file of another tool's vectors.",
    examples=(
        "featx import thingsvision/features/ --images photos/",
        "featx import embeddings.npy --names names.txt --labels labels.csv",
        "featx import clip/ --backbone 'ViT-B-32 laion2b' --name photos",
    ),
)  # fmt: skip
@click.argument("vectors")
@option(
    "--names", section="Input", needs=ALWAYS, metavar="FILE",
    help="Names of the images in the order of the vectors: one on each line, or a table.",
)  # fmt: skip
@option(
    "--labels", section="Input", needs=ALWAYS, metavar="TABLE",
    help="Table with labels, splits and further columns of the images, which are found by their names.",
)  # fmt: skip
@option(
    "--images", section="Input", needs=ALWAYS, metavar="DATA",
    help="The images, which are found by their names: inspect and search then show them, and copies of an image share a split.",
)  # fmt: skip
@option(
    "--vector-column", section="Input", needs=CHECKED, metavar="NAME", show_default="features, embedding or the like",
    help="Column of a table with the vectors, as lists of numbers; or the array of a file.",
)  # fmt: skip
@option(
    "--backbone", section="Input", needs=ALWAYS, metavar="NAME",
    help="Network that made the vectors, under a name of your choice. A head fitted to one import can judge others of the same "
    "name. By default each import stands alone.",
)  # fmt: skip
@data_options(only=("path_column", "label_column", "split_column", "label_pattern", "group_level"))
@option(
    "--name",
    section="Output",
    needs=ALWAYS,
    metavar="NAME",
    show_default="that of VECTORS",
    help="Name of the data set.",
)
@option(
    "-o", "--out", section="Output", needs=ALWAYS, metavar="FILE", show_default="NAME--TOOL.h5 in the cache folder",
    help="Feature file to write.",
)  # fmt: skip
@needing(with_option("images", "--images"), WORKERS)
@cache_folder("Output", or_url="to which the file is copied")
def import_(reporter: Reporter, scan: ScanOptions, **options: Any) -> FeatureImport:
    """Make a feature file of VECTORS that another tool computed, a file or a folder.

    It may be a folder of thingsvision, clip-retrieval, TRIDENT, CLAM, kaiko eva or datasets; an array (.npy, .npz, .pt,
    .safetensors, .h5, .h5ad, .mat, .txt) with names; a table (.csv, .tsv, .jsonl, .json, .parquet, .arrow, .feather) with
    a column for each number, as lightly-train writes it, or with lists of numbers; or an export of featx. Nothing in a file is
    run.

    fit-head, evaluate, inspect, search, export, info and verify work on the file. featx cannot compute these features for new
    images, so promote and predict do not.
    """
    from featx.features.exchange.importing import import_features

    vectors = options.pop("vectors")
    return import_features(vectors, options=scan, reporter=reporter, **options)
