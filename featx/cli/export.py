"""``featx export``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import click

from featx.cli.job import JobCommand
from featx.cli.needs import CHECKED, Needs, with_option
from featx.cli.option_groups import option
from featx.cli.options import MODELS_SOURCE, SOURCE_BACKBONE, WORKERS, cache_folder, needing
from featx.constants import EXPORT_PIXELS, EXPORT_PRECISIONS, MAPS, TASKS, TOOLS
from featx.deployment.formats import expected, format_of
from featx.errors import FeatxError, SettingsError
from featx.layer_spec import PENULTIMATE
from featx.reporter import Reporter, stage_of_import
from featx.text import counted, printable, size_text

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.deployment.job import ModelExport
    from featx.features.exchange.exporting import FeatureExport
    from featx.inspection.exports import Export

_FOR = with_option("tool", "--for")
_FINDINGS = (_FOR, Needs("with --no-findings", lambda options: bool(options["findings"])))
_MODEL = Needs("with features; it is for models", lambda options: is_of_model(options))
_FEATURES = Needs("with a model; it is for features", lambda options: not is_of_model(options))
_READS = Needs(
    "with features but for --for, nor with --pixels none",
    lambda options: is_of_model(options) or bool(options["tool"] and options["pixels"] != "none"),
)


def is_of_model(options: Mapping[str, Any]) -> bool:
    """Whether the command exports a model, and not features: the first argument is one, or --to names such a format."""
    from featx.io.file_kinds import HEAD, MODEL, kind_of_file

    if options["tool"]:
        return False
    given = options["features"]
    return bool(format_of(options["to"] or "")) or (given is not None and kind_of_file(given) in (HEAD, MODEL))


def _check(options: Mapping[str, Any]) -> None:
    """Refuse a command without a file to write, or with two."""
    if bool(options["to"]) == bool(options["tool"]):
        raise SettingsError(
            "expected either --to FILE, which writes the features (x.parquet, x.npy, x.csv, x.h5ad, x.safetensors) or a model "
            f"({expected()}), or --for TOOL with -o FILE, which writes features for {' or '.join(TOOLS)}"
        )
    if options["tool"] and not options["out"]:
        raise SettingsError(
            f"--for {options['tool']} needs a file to write; name it with -o, such as -o photos.parquet"
        )


def _show(exported: Export | FeatureExport | ModelExport) -> None:
    """Print what was written, and what opens it."""
    facts = exported.as_dict()
    if "proof" in facts:
        _show_model(cast("ModelExport", exported))
        return
    if facts.get("for") is None:
        _show_features(cast("FeatureExport", exported))
        return
    exported = cast("Export", exported)
    pictures = f", {exported.pictures:,} of them with their pixels" if exported.pictures else ""
    click.echo(f"{counted(exported.images, 'image')}{pictures}: {printable(str(exported.path))}")
    click.echo(f"columns: {', '.join(map(printable, exported.columns))}")
    click.echo(f"next: {printable(exported.command)}")


def _show_model(exported: ModelExport) -> None:
    """Print what was written, and how it was proved."""
    for path, size in exported.files:
        click.echo(f"{printable(str(path))} ({size_text(size)})")
    proof = exported.proof
    what = "value" if exported.facts["task"] == "regression" else "probability"
    same = (
        "all labels are the same"
        if proof.same_labels == proof.images
        else f"{counted(proof.same_labels, 'label is', 'labels are')} the same"
    )
    before = " in float32" if exported.precision != "float32" else ""
    click.echo(
        f"compared with featx{before} on {counted(proof.images, 'image')} of split {printable(proof.split)}: {same}, the "
        f"largest difference of a {what} is {proof.largest:.2g}"
    )
    for line in exported.comparison.lines() if exported.comparison else ():
        click.echo(line)


def _show_features(exported: FeatureExport) -> None:
    """Print what was written."""
    layers = ", ".join(f"{printable(name)} ({width:,})" for name, width in exported.layers.items())
    click.echo(f"{counted(exported.images, 'image')}: {printable(str(exported.path))} ({size_text(exported.bytes)})")
    click.echo(f"layers: {layers}")
    where = f" in {printable(str(exported.names))}" if exported.names else ""
    click.echo(f"columns{where}: {', '.join(map(printable, exported.columns))}")


@click.command(
    "export", cls=JobCommand, show=_show, progress=("export", "images"), check=_check,
    short_help="Write features for other tools, or a model that runs without featx.",
    examples=(
        "featx export models/photos--resnet50--logreg.safetensors --to photos.onnx",
        "featx export --to photos.onnx --precision int8",
        "featx export models/photos--resnet50--logreg.safetensors --to photos/",
        "featx export cache/photos--resnet50.h5 --to photos.parquet",
        "featx export --to photos.h5ad",
        "featx export cache/photos--resnet50.h5 --for embedding-atlas -o photos.parquet",
    ),
)  # fmt: skip
@click.argument("features", required=False, metavar="[FEATURES|MODEL]")
@option(
    "--to", section="Output", needs=CHECKED, metavar="FILE",
    help="File to write; its ending is the format. Of features and all that is known of the images: .parquet, .h5ad "
    "(AnnData) and .safetensors hold all layers, .npy and .csv one matrix. Of a model: .onnx; .xml (OpenVINO); "
    ".pt2 (torch.export); or a folder/ to hand over.",
)  # fmt: skip
@option(
    "--for", "tool", type=click.Choice(TOOLS), section="Output", needs=CHECKED, metavar="TOOL",
    help=f"Tool to write a file for instead, with what it shows besides features: {', '.join(TOOLS)}.",
)  # fmt: skip
@option("-o", "--out", section="Output", needs=_FOR, metavar="FILE", help="File to write for the tool (.parquet).")
@option(
    "--precision", type=click.Choice(EXPORT_PRECISIONS), default=EXPORT_PRECISIONS[0], show_default=True, section="Output",
    needs=_MODEL, metavar="NAME",
    help="Precision of the network of a model: float32, float16 or int8, whose ranges are measured on training images. "
    "Accuracy, size and speed are measured before and after.",
)  # fmt: skip
@option(
    "--batch-only", is_flag=True, section="Output",
    needs=Needs("without --to model.onnx", lambda options: format_of(options["to"] or "") == "onnx"),
    help="Declare the input as (N, H, W, 3). By default a single image (H, W, 3) is taken too, for which an ONNX model's input "
    "has no declared rank; TensorRT and Triton need one.",
)  # fmt: skip
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
    "--layer", multiple=True, section="Input", needs=_FEATURES, metavar="NAME",
    show_default="all; penultimate with .npy, .csv and --for",
    help="Layer of the feature file. May be repeated; where the file holds one matrix, several layers are concatenated.",
)  # fmt: skip
@option(
    "--images", multiple=True, section="Input", needs=_READS, metavar="FOLDER",
    help="Folder besides that of the data set in which images may lie. May be repeated.",
)  # fmt: skip
@option(
    "--features", "of_data", section="Input", needs=_MODEL, metavar="FILE",
    help="Feature file of a model's data set, where the one that it was fitted to is gone.",
)  # fmt: skip
@option(
    "--seed", default=0, show_default=True, section="Advanced", needs=_FOR, metavar="N",
    help="Seed of the map and of the folds.",
)  # fmt: skip
@needing(_READS, WORKERS)
@needing(_MODEL, SOURCE_BACKBONE)
@needing(_MODEL, MODELS_SOURCE)
@cache_folder("Input", or_url="whose newest file is fetched")
def export(
    reporter: Reporter, features: str | None, to: str | None, layer: tuple[str, ...], cache: str, **options: Any
) -> Export | FeatureExport | ModelExport:
    """Write features for other tools, or a model as a file that runs without featx.

    FEATURES is a feature file, by default the newest in the cache folder. MODEL is a head, with its backbone, or a promoted
    model; with --to model.onnx, model.pt2 or model/ it is by default the newest in the folder of models.

    --to with the ending of features writes them with the path, label, split and key of each image, and the further columns of
    the data set. Beside x.npy, which is a bare matrix, these are written as x.csv. Images that failed are left out.

    --to model.onnx writes a model that takes the pixels of decoded images, (N, H, W, 3) or (H, W, 3) uint8 RGB of any size, and
    gives probabilities, label and embedding. Resizing, the network, calibration and rejection are inside. Before it is
    written, it is compared with featx on 64 images of the data set. --to model.pt2 writes the same for torch.export.
    --to model/ writes a folder to hand over: that program, the network's weights for timm, transformers or torchvision, a model
    card, and a script that predicts with torch alone.

    --for embedding-atlas writes a Parquet file with a row for each image: its path, label and split, its place on a map (x, y),
    its nearest neighbours (neighbors), the image itself (image), and what featx inspect found.
    """
    taken = {name: options.pop(name) for name in _OF_MODELS}
    if is_of_model({"features": features, "to": to, "tool": options["tool"]}):
        return _export_model(features, str(to), taken, options, reporter)
    if to is not None:
        from featx.features.exchange.exporting import export_features

        return export_features(features, to, layers=layer or None, cache=cache, reporter=reporter)
    stage_of_import(reporter, "sklearn", "scikit-learn")
    from featx.inspection.exports import export as run

    return run(features, layer=layer or (PENULTIMATE,), cache=cache, **options, reporter=reporter)


_OF_MODELS = ("precision", "batch_only", "of_data", "backbone", "weights", "models")
"""The parameters that are for models alone."""


def _export_model(
    model: str | None, to: str, taken: Mapping[str, Any], options: Mapping[str, Any], reporter: Reporter
) -> ModelExport:
    from featx.cli.choice import newest_model
    from featx.io.file_kinds import HEAD, MODEL, misplaced

    if model is not None and (
        found := misplaced(model, f"a head or a promoted model for --to {to}", fits=(HEAD, MODEL))
    ):
        raise FeatxError(found)
    stage_of_import(reporter, "torch", "torch")
    from featx.deployment.exporting import export_model as run

    named = dict(taken)
    path = model if model is not None else newest_model(named["models"], reporter)
    return run(
        path, to, precision=named["precision"], batch_only=named["batch_only"], features=named["of_data"],
        backbone=named["backbone"], weights=named["weights"], images=options["images"], workers=options["workers"],
        reporter=reporter,
    )  # fmt: skip
