"""``featx export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, Needs
from featx.cli.option_groups import option
from featx.cli.options import LAYERS, WORKERS, cache_folder, needing
from featx.constants import EXPORT_PIXELS, MAPS, TASKS, TOOLS
from featx.reporter import Reporter, stage_of_import
from featx.text import counted, printable

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.inspection.exports import Export

_FINDINGS = Needs("with --no-findings", lambda options: bool(options["findings"]))
_PIXELS = Needs("with --pixels none", lambda options: options["pixels"] != "none")


def _show(exported: Export) -> None:
    """Print what was written, and what opens it."""
    pictures = f", {exported.pictures:,} of them with their pixels" if exported.pictures else ""
    click.echo(f"{counted(exported.images, 'image')}{pictures}: {printable(str(exported.path))}")
    click.echo(f"columns: {', '.join(map(printable, exported.columns))}")
    click.echo(f"next: {printable(exported.command)}")


@click.command(
    "export", cls=JobCommand, show=_show, progress=("export", "images"),
    short_help="Write features for another tool.",
    examples=(
        "featx export cache/photos--resnet50.h5 --for embedding-atlas -o photos.parquet",
        "featx export --for embedding-atlas --map tsne -o photos.parquet",
    ),
)  # fmt: skip
@click.argument("features", required=False)
@option(
    "--for", "tool", type=click.Choice(TOOLS), required=True, section="Output", needs=ALWAYS, metavar="TOOL",
    help=f"Tool that will read the file: {', '.join(TOOLS)}.",
)  # fmt: skip
@option("-o", "--out", required=True, section="Output", needs=ALWAYS, metavar="FILE", help="File to write (.parquet).")
@option(
    "--map", "method", type=click.Choice(MAPS), default=MAPS[0], show_default=True, section="Output", needs=ALWAYS,
    metavar="NAME",
    help="Map of the images: pca, principal components; or tsne, by their neighbours (pip install 'featx[map]').",
)  # fmt: skip
@option(
    "--pixels", type=click.Choice(EXPORT_PIXELS), default=EXPORT_PIXELS[0], show_default=True, section="Output",
    needs=ALWAYS, metavar="NAME",
    help="What the file has of each image: thumbnail, a small JPEG; full, the image file; or none.",
)  # fmt: skip
@option(
    "--findings/--no-findings", default=True, show_default=True, section="Output", needs=ALWAYS,
    help="Inspect the images, and add a column for each finding of featx inspect.",
)  # fmt: skip
@option(
    "--task", type=click.Choice(("auto", *TASKS)), default="auto", show_default=True, section="Input", needs=_FINDINGS,
    metavar="NAME",
    help=f"Task of the findings: {', '.join(TASKS)}; or auto: multilabel where a label contains | (cat|dog), else "
    "classification.",
)  # fmt: skip
@option(
    "--head", section="Input", needs=ALWAYS, metavar="HEAD",
    help="Head whose predictions are added as the columns prediction and probability.",
)  # fmt: skip
@LAYERS
@option(
    "--images", multiple=True, section="Input", needs=_PIXELS, metavar="FOLDER",
    help="Folder besides that of the data set in which images may lie. May be repeated.",
)  # fmt: skip
@option(
    "--seed", default=0, show_default=True, section="Advanced", needs=ALWAYS, metavar="N",
    help="Seed of the map and of the folds.",
)  # fmt: skip
@needing(_PIXELS, WORKERS)
@cache_folder("Input")
def export(reporter: Reporter, **options: Any) -> Export:
    """Write the features FEATURES, by default the newest in the cache folder, for another tool.

    embedding-atlas reads a Parquet file with a row for each image: its path, label and split, its place on a map (x, y), its
    nearest neighbours (neighbors), the image itself (image), and what featx inspect found.
    """
    stage_of_import(reporter, "sklearn", "scikit-learn")
    from featx.inspection.exports import export as run

    return run(**options, reporter=reporter)
