"""``featx export``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import click

from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, CHECKED, Needs, with_option
from featx.cli.option_groups import option
from featx.cli.options import WORKERS, cache_folder, needing
from featx.constants import EXPORT_PIXELS, MAPS, TASKS, TOOLS
from featx.errors import SettingsError
from featx.layer_spec import PENULTIMATE
from featx.reporter import Reporter, stage_of_import
from featx.text import counted, printable, size_text

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.features.exchange.exporting import FeatureExport
    from featx.inspection.exports import Export

_FOR = with_option("tool", "--for")
_FINDINGS = (_FOR, Needs("with --no-findings", lambda options: bool(options["findings"])))
_PIXELS = (_FOR, Needs("with --pixels none", lambda options: options["pixels"] != "none"))


def _check(options: Mapping[str, Any]) -> None:
    """Refuse a command without a file to write, or with two."""
    if bool(options["to"]) == bool(options["tool"]):
        raise SettingsError(
            "expected either --to FILE, which writes the features (x.parquet, x.npy, x.csv, x.h5ad, x.safetensors), or --for "
            f"TOOL with -o FILE, which writes them for {' or '.join(TOOLS)}"
        )
    if options["tool"] and not options["out"]:
        raise SettingsError(
            f"--for {options['tool']} needs a file to write; name it with -o, such as -o photos.parquet"
        )


def _show(exported: Export | FeatureExport) -> None:
    """Print what was written, and what opens it."""
    if exported.as_dict().get("for") is None:
        _show_features(cast("FeatureExport", exported))
        return
    exported = cast("Export", exported)
    pictures = f", {exported.pictures:,} of them with their pixels" if exported.pictures else ""
    click.echo(f"{counted(exported.images, 'image')}{pictures}: {printable(str(exported.path))}")
    click.echo(f"columns: {', '.join(map(printable, exported.columns))}")
    click.echo(f"next: {printable(exported.command)}")


def _show_features(exported: FeatureExport) -> None:
    """Print what was written."""
    layers = ", ".join(f"{printable(name)} ({width:,})" for name, width in exported.layers.items())
    click.echo(f"{counted(exported.images, 'image')}: {printable(str(exported.path))} ({size_text(exported.bytes)})")
    click.echo(f"layers: {layers}")
    where = f" in {printable(str(exported.names))}" if exported.names else ""
    click.echo(f"columns{where}: {', '.join(map(printable, exported.columns))}")


@click.command(
    "export", cls=JobCommand, show=_show, progress=("export", "images"), check=_check,
    short_help="Write features for other tools.",
    examples=(
        "featx export cache/photos--resnet50.h5 --to photos.parquet",
        "featx export --to photos.h5ad",
        "featx export cache/photos--resnet50.h5 --for embedding-atlas -o photos.parquet",
    ),
)  # fmt: skip
@click.argument("features", required=False)
@option(
    "--to", section="Output", needs=CHECKED, metavar="FILE",
    help="File to write with the features and all that is known of the images; its ending is the format: .parquet, .h5ad "
    "(AnnData) and .safetensors hold all layers, .npy and .csv one matrix.",
)  # fmt: skip
@option(
    "--for", "tool", type=click.Choice(TOOLS), section="Output", needs=CHECKED, metavar="TOOL",
    help=f"Tool to write a file for instead, with what it shows besides features: {', '.join(TOOLS)}.",
)  # fmt: skip
@option("-o", "--out", section="Output", needs=_FOR, metavar="FILE", help="File to write for the tool (.parquet).")
@option(
    "--map", "method", type=click.Choice(MAPS), default=MAPS[0], show_default=True, section="Output", needs=_FOR,
    metavar="NAME",
    help="Map of the images: pca, principal components; or tsne, by their neighbours (pip install 'featx[map]').",
)  # fmt: skip
@option(
    "--pixels", type=click.Choice(EXPORT_PIXELS), default=EXPORT_PIXELS[0], show_default=True, section="Output",
    needs=_FOR, metavar="NAME",
    help="What the file has of each image: thumbnail, a small JPEG; full, the image file; or none.",
)  # fmt: skip
@option(
    "--findings/--no-findings", default=True, show_default=True, section="Output", needs=_FOR,
    help="Inspect the images, and add a column for each finding of featx inspect.",
)  # fmt: skip
@option(
    "--task", type=click.Choice(("auto", *TASKS)), default="auto", show_default=True, section="Input", needs=_FINDINGS,
    metavar="NAME",
    help=f"Task of the findings: {', '.join(TASKS)}; or auto: multilabel where a label contains | (cat|dog), else "
    "classification.",
)  # fmt: skip
@option(
    "--head", section="Input", needs=_FOR, metavar="HEAD",
    help="Head whose predictions are added as the columns prediction and probability.",
)  # fmt: skip
@option(
    "--layer", multiple=True, section="Input", needs=ALWAYS, metavar="NAME",
    show_default="all; penultimate with .npy, .csv and --for",
    help="Layer of the feature file. May be repeated; where the file holds one matrix, several layers are concatenated.",
)  # fmt: skip
@option(
    "--images", multiple=True, section="Input", needs=_PIXELS, metavar="FOLDER",
    help="Folder besides that of the data set in which images may lie. May be repeated.",
)  # fmt: skip
@option(
    "--seed", default=0, show_default=True, section="Advanced", needs=_FOR, metavar="N",
    help="Seed of the map and of the folds.",
)  # fmt: skip
@needing(_PIXELS, WORKERS)
@cache_folder("Input", or_url="whose newest file is fetched")
def export(
    reporter: Reporter, features: str | None, to: str | None, layer: tuple[str, ...], cache: str, **options: Any
) -> Export | FeatureExport:
    """Write the features FEATURES, by default the newest in the cache folder, for other tools.

    --to writes the features with the path, label, split and key of each image, and the further columns of the data set. Beside
    x.npy, which is a bare matrix, these are written as x.csv. Images that failed are left out.

    --for embedding-atlas writes a Parquet file with a row for each image: its path, label and split, its place on a map (x, y),
    its nearest neighbours (neighbors), the image itself (image), and what featx inspect found.
    """
    if to is not None:
        from featx.features.exchange.exporting import export_features

        return export_features(features, to, layers=layer or None, cache=cache, reporter=reporter)
    stage_of_import(reporter, "sklearn", "scikit-learn")
    from featx.inspection.exports import export as run

    return run(features, layer=layer or (PENULTIMATE,), cache=cache, **options, reporter=reporter)
