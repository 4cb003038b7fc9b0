"""The command line: parse, call, print. Results go to stdout, progress and warnings to stderr."""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from featx._version import __version__
from featx.constants import CACHE, CALIBRATIONS, DTYPES, ENGINES, KERNELS, KINDS, MAX_SIDE, POOLINGS, PRECISIONS, TASKS
from featx.errors import FeatxError
from featx.layer_spec import VIEWS, by_depth
from featx.promotion.config import AUGMENTATIONS, OPTIMIZERS
from featx.system import started
from featx.text import cell, printable, size_text
from featx.workflows.recipe import ExtractStep, FitHeadStep, PromoteStep, as_command, load_recipe, run_recipe

if TYPE_CHECKING:  # commands import what they need when they run: --help answers at once
    from featx.advice.advice import Advice
    from featx.advice.ranking import Ranking
    from featx.data.image_set import ImageSet
    from featx.extraction.extraction import Extraction
    from featx.features.folder import Entry
    from featx.promotion.finetune_run import FineTuningRun
    from featx.promotion.promotion import Promotion
    from featx.promotion.trainer import TrainingProgress
    from featx.workflows.fit import Fit

_MOST_NAMED, _MOST_CLASSES = 10, 20


class _Featx(click.Group):
    """Turns featx's errors into one line and exit code 1, Ctrl-C into exit code 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FeatxError as error:
            raise click.ClickException("\n".join(map(printable, str(error).split("\n")))) from error
        except KeyboardInterrupt:
            kept = " What is done is kept: the same command goes on from there." if _goes_on(ctx) else ""
            click.echo(f"\nInterrupted.{kept}", err=True)
            ctx.exit(130)


def _goes_on(ctx: click.Context) -> bool:
    return ctx.invoked_subcommand in ("extract", "rank", "advise", "run", "evaluate", "promote")


@click.group(cls=_Featx, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="featx")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Image transfer learning on cached features.

    Extract once, fit heads in seconds, promote the one that deserves it:

    \b
        featx extract photos/ --backbone resnet50
        featx fit-head --model logreg
        featx promote --finetune
        featx predict models/photos--resnet50--logreg--promoted.safetensors new.jpg
    """  # noqa: D301 - click needs the real backspace
    if started()[1] > 1 and ctx.invoked_subcommand != "promote":
        raise click.UsageError(
            f"torchrun is for featx promote --finetune; featx {ctx.invoked_subcommand} is one process"
        )


def _options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several decorators as one, the first outermost."""
    return lambda command: functools.reduce(lambda decorated, option: option(decorated), reversed(decorators), command)


class _BatchSize(click.ParamType):  # type: ignore[type-arg]
    """A whole number above 0, or auto."""

    name = "batch size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return "auto" if value == "auto" else click.IntRange(min=1).convert(value, param, ctx)


class _Numbers(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers above 0 with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        number = click.IntRange(min=1)
        return tuple(number.convert(part.strip(), param, ctx) for part in value.split(","))


_POSITIVE = click.FloatRange(min=0, min_open=True)
_SHARE = click.FloatRange(0, 1, min_open=True)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
_DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
_WORKERS = click.option(
    "-j", "--workers", type=click.IntRange(min=1), help="Threads that read and decode.  [default: one per core]"
)
_CACHE = click.option("--cache", default=CACHE, show_default=True, help="Folder of feature files.")
_MODELS = click.option("--models", default=FitHeadStep.models, show_default=True, help="Folder of heads and models.")
_AGAIN = _options(
    click.option("--backbone", "-b", help="The backbone, where the stored name is a file of code (file.py:factory)."),
    click.option("--weights", help="The backbone's weights, where the file has moved."),
)


def _tuned(name: str, **how: Any) -> Callable[[Any], Any]:
    """An option of promote with the default of its step."""
    default = getattr(PromoteStep, name.removeprefix("--").replace("-", "_"))
    return click.option(name, default=default, show_default=True, **how)


@main.command(short_help="Run a frozen backbone once over a data set.")
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
    "--batch-size", type=_BatchSize(), metavar="N|auto",
    help="Images per forward pass.  [default: what the engine does best with; 64 on a GPU]",
)  # fmt: skip
@_DEVICE
@click.option(
    "-j", "--workers", type=click.IntRange(min=1),
    help="Threads that decode and, on the CPU, run the network.  [default: one per core]",
)  # fmt: skip
@click.option(
    "--rehash", is_flag=True, help="Trust no modification time and no row: read every image, check every row."
)
@click.option("--strict", is_flag=True, help="Stop at the first image that fails, with exit code 1.")
@click.option("--wait", is_flag=True, help="Wait while another process writes the same file.")
@_CACHE
@click.option("-o", "--out", metavar="FILE", help="The feature file, instead of one named in the cache folder.")
@_JSON
def extract(as_json: bool, **options: Any) -> None:
    """Run a frozen backbone once over DATA and keep its embeddings.

    DATA is a folder class/..., a folder train|val|test/class/..., a folder of images, a table (.csv, .tsv, .jsonl,
    .parquet) with the columns path, label and, if wanted, split, or digits, the built-in scans. Images whose features
    are in any file of the cache folder, made in the same way, are not computed again. A bad image fails alone; what an
    interrupted run has done is kept, and the same command goes on from there.

    Example: featx extract photos/ --backbone mobilenet_v3_small --layer features.9
    """
    step = ExtractStep(**options)
    from featx.data.throughput import ThroughputMeter

    meter = ThroughputMeter()
    with _bar("extract", "images", meter.limit) as progress:
        result = step.run(progress, _warn, meter)
    _print(result.as_dict() if as_json else None, lambda: _show_extraction(result))
    _warn(*result.remarks)


@main.command("fit-head", short_help="Fit a light classifier to cached features.")
@click.argument("features", required=False)
@click.option(
    "--model", type=click.Choice((*KINDS, "auto")), default=FitHeadStep.model, show_default=True,
    help="Kind of head; auto compares all that suit, and keeps the simplest within one standard error of the best.",
)  # fmt: skip
@click.option(
    "--layer", multiple=True, default=FitHeadStep.layer, show_default=True, metavar="NAME",
    help="Layer of the feature file. Repeated: several, side by side; best: the one that cross-validation prefers.",
)  # fmt: skip
@click.option(
    "--views", type=click.Choice(tuple(VIEWS)),
    help="Fit to these views of each image, and average over them.  [default: all that the file has]",
)  # fmt: skip
@click.option(
    "-C", "C", type=_POSITIVE, help="Inverse penalty of logreg, svm, ridge.  [default: chosen on training rows]"
)
@click.option("--kernel", type=click.Choice(KERNELS), default=FitHeadStep.kernel, show_default=True, help="Of svm.")
@click.option("--k", type=click.IntRange(min=1), help="Neighbours of knn.  [default: chosen on training rows]")
@click.option(
    "--task", type=click.Choice(("auto", *TASKS)), default=FitHeadStep.task, show_default=True,
    help="What the labels are; auto: several labels where one holds | (cat|dog), else classes.",
)  # fmt: skip
@click.option(
    "--class-weight", type=click.Choice(("balanced",)), help="Each class counts alike, however many images it has."
)
@click.option(
    "--logit-adjustment", type=click.FloatRange(min=0), default=FitHeadStep.logit_adjustment, show_default=True,
    metavar="TAU", help="Take TAU times the log of each class's share from its logit; 1 judges all classes as equally likely.",
)  # fmt: skip
@click.option(
    "--calibrate", type=click.Choice(CALIBRATIONS), is_flag=False, flag_value="temperature",
    help="Probabilities by held-out training rows.  [default: temperature for svm, ridge, centroid, knn]",
)  # fmt: skip
@click.option("--reject-below", type=_SHARE, metavar="P", help="Say nothing where the highest probability is below P.")
@click.option(
    "--precision", type=_SHARE, metavar="SHARE",
    help="Choose that P so that SHARE of what is said is right, on held-out training rows.",
)  # fmt: skip
@click.option("--cv", type=click.IntRange(min=2), metavar="K", help="Also judge by K folds over all labelled images.")
@click.option(
    "--repeat", type=click.IntRange(min=1), default=FitHeadStep.repeat, show_default=True, help="Of --cv and --shots."
)
@click.option(
    "--shots",
    type=_Numbers(),
    default=FitHeadStep.shots,
    metavar="N,N…",
    help="Also fit to N images of each class, drawn --repeat times.",
)
@click.option(
    "--group", metavar="COLUMN", help="Of the table: images that belong together, and never straddle a split."
)
@click.option("--table", metavar="FILE", help="With that column, where it is not the data set's own table.")
@click.option("--report", is_flag=True, help="Also write an HTML page about the head, beside it.")
@click.option("--seed", default=FitHeadStep.seed, show_default=True, help="Of folds, draws and minibatches.")
@click.option(
    "--device", default=FitHeadStep.device, show_default=True,
    help="Of the products of logreg, svm, linear and mlp: auto, cpu, cuda, cuda:1 or mps.",
)  # fmt: skip
@_CACHE
@_MODELS
@click.option("-o", "--out", metavar="FILE", help="The head's file, instead of one named in the models folder.")
@_JSON
def fit_head(as_json: bool, **options: Any) -> None:
    """Fit a light classifier to the training rows of FEATURES and judge it on the held-out ones.

    FEATURES is a feature file; left out, the newest in the cache folder. The held-out split is test where there is one,
    else val. Nothing is chosen on it. Images without a label are ignored, then predicted into a CSV file beside the head.

    Example: featx fit-head --model auto --report
    """
    step = FitHeadStep(**options)
    with _bar("fit", "heads") as progress:
        result = step.run(progress)
    _print(result.as_dict() if as_json else None, lambda: _show_fit(result))
    _warn(*result.notes)


@main.command(short_help="Compare backbones on one data set.")
@click.argument("data", required=False, default=ExtractStep.data)
@click.option(
    "-b", "--backbone", "backbones", multiple=True, required=True, metavar="NAME[=WEIGHTS]",
    help="To be repeated; see featx backbones. Weights as extract --weights.",
)  # fmt: skip
@_DEVICE
@click.option("--seed", default=0, show_default=True, help="Of the folds.")
@click.option("-j", "--workers", type=click.IntRange(min=1), help="As of extract.  [default: one per core]")
@_CACHE
@_MODELS
@click.option("-o", "--out", metavar="FILE", help="The picture, instead of <models>/<data>--rank.png.")
@_JSON
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
    with _bar("extract", "images") as progress:
        result = run(images, wanted, notify=_warn, progress=progress, **options)
    _print(result.as_dict() if as_json else None, lambda: _show_ranking(result))
    _warn(*result.notes)


@main.command(short_help="Say which layer to take, and how far to tune.")
@click.argument("data", required=False)
@click.option("-b", "--backbone", help="Of a data set.  [default: resnet50; lenet5 for digits]")
@click.option(
    "--weights",
    default=ExtractStep.weights,
    show_default=True,
    help="As of extract; of a feature file, where they have moved.",
)
@_DEVICE
@click.option("--seed", default=0, show_default=True, help="Of folds and draws.")
@click.option("-j", "--workers", type=click.IntRange(min=1), help="As of extract.  [default: one per core]")
@_CACHE
@_MODELS
@click.option("-o", "--out", metavar="FILE", help="The picture, instead of <models>/<features>--advice.png.")
@_JSON
def advise(data: str | None, backbone: str | None, cache: str, as_json: bool, **options: Any) -> None:
    """Measure what a backbone's features are worth on DATA, and say what to do next.

    DATA is a data set, whose images go through every stage of the backbone once, or a feature file, whose layers are taken
    as they are; left out, the newest in the cache folder. Heads on each layer and on several, a learning curve, and the
    same network with random weights are compared by cross-validation on the training images; val and test have no part.

    Example: featx advise photos/ --backbone mobilenet_v3_small
    """
    from featx.features.folder import newest, require_place

    named = data or str(newest(Path(cache)))
    source: ImageSet | str = named
    if not named.endswith(".h5"):  # before torch is imported, as extract does it
        from featx.data.scan import scan_images

        source = scan_images(named)
        require_place(Path(cache))
        backbone = ExtractStep(data=named, backbone=backbone).backbone_name()

    from featx.advice.advice import advise as run

    with _bar("advise", "images") as progress:
        result = run(source, backbone, cache=cache, notify=_warn, progress=progress, **options)
    _print(result.as_dict() if as_json else None, lambda: _show_advice(result))
    _warn(*result.notes)


@main.command(short_help="Turn a head and its backbone into one network.")
@click.argument("head", required=False)
@click.option("--finetune", is_flag=True, help="Train the network, from the head on.")
@_tuned("--epochs", type=click.IntRange(min=1), help="At most.")
@_tuned("--lr", type=_POSITIVE, help="Of the head, at its highest.")
@_tuned("--backbone-lr", type=_POSITIVE, help="Share of it for the backbone's last block.")
@_tuned("--layer-decay", type=_SHARE, help="Share of a block's rate for the block before it.")
@click.option(
    "--from",
    "--from-layer",
    "from_layer",
    metavar="BLOCK",
    help="Train from this block on, such as layer4; by default all.",
)
@click.option("--last", type=click.IntRange(min=0), metavar="N", help="Train the last N blocks; 0 is the head alone.")
@click.option(
    "--train-bn/--freeze-bn",
    default=PromoteStep.train_bn,
    show_default=True,
    help="Whether batch norm's statistics move.",
)
@_tuned("--optimizer", type=click.Choice(OPTIMIZERS), help="AdamW, or SGD with Nesterov's momentum.")
@_tuned("--weight-decay", type=click.FloatRange(min=0), help="Not on norms and biases.")
@_tuned("--clip", type=_POSITIVE, help="Largest norm of the gradient.")
@_tuned("--batch-size", type=click.IntRange(min=1), help="Images per step.")
@_tuned("--warmup", type=click.FloatRange(0, 1, max_open=True), help="Share of all steps; then cosine.")
@_tuned("--patience", type=click.IntRange(min=1), help="Epochs without a better one.")
@_tuned("--augment", type=click.Choice(AUGMENTATIONS), help="How training images are varied.")
@_tuned("--crop-scale", type=_SHARE, help="Least share of the image kept.")
@click.option("--flip/--no-flip", default=PromoteStep.flip, show_default=True, help="Mirror half of the images.")
@_tuned("--mixup", type=click.FloatRange(min=0), help="Mix pairs by shares of Beta(mixup, mixup).")
@_tuned("--label-smoothing", type=click.FloatRange(0, 1, max_open=True), help="Share spread over all classes.")
@click.option("--class-weight", type=click.Choice(["balanced"]), help="Each class counts alike in the loss.")
@_tuned("--ema", type=click.FloatRange(0, 1, max_open=True), help="Decay per step of an average of the weights.")
@_tuned(
    "--views",
    type=click.IntRange(min=0),
    help="Random crops of each image that a frozen part's outputs are cached of; 0 caches none.",
)
@click.option("--compile", is_flag=True, help="Train by torch.compile: for long runs, since it takes a minute first.")
@click.option(
    "--interpolate/--no-interpolate",
    default=PromoteStep.interpolate,
    show_default=True,
    help="Try weights between the head's and the tuned ones (WiSE-FT).",
)
@_tuned("--significance", type=_SHARE, help="Promote where luck would do as well this often at most.")
@_tuned(
    "--repeats",
    type=click.IntRange(min=0),
    metavar="K",
    help="Where a gain may be luck, ask up to K other splits; together they judge every image.",
)
@_tuned("--seed", help="Of order, crops, mixing and dropout.")
@click.option("--features", help="The feature file, where it is not the one that the head names.")
@_AGAIN
@_DEVICE
@_WORKERS
@click.option("--tensorboard", is_flag=True, help="Write the epochs for TensorBoard too, into <model>.tensorboard.")
@_MODELS
@click.option("-o", "--out", metavar="FILE", help="The model's file, instead of one named in the models folder.")
@_JSON
def promote(as_json: bool, **options: Any) -> None:
    """Move HEAD onto its backbone as one network, prove that it is the same classifier, and fine-tune it if asked.

    HEAD is a head's file; left out, the newest in the models folder. The epoch is chosen on split val, or on training
    images that are held back; the verdict falls on images that chose nothing. A fine-tuned network that is not proved to
    beat the head on them is not kept: the model is then the head on its backbone. An interrupted run goes on from its last
    epoch when the same command is given again. On several GPUs: torchrun --nproc-per-node 4 -m featx promote --finetune

    Example: featx promote --finetune --last 3 --epochs 20
    """
    with _training_bar() as progress:
        result = PromoteStep(**options).run(progress, _warn)
    if started()[0] == 0:
        _print(result.as_dict() if as_json else None, lambda: _show_promotion(result))
        _warn(*result.notes)


@main.command(short_help="Classify images.")
@click.argument("model")
@click.argument("images", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(min=1), default=1, show_default=True, help="Classes to give for each image.")
@_AGAIN
@_DEVICE
@_WORKERS
@_JSON
def predict(
    model: str, images: tuple[str, ...], top: int, backbone: str | None, weights: str | None, device: str,
    workers: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Classify IMAGES (files and folders) with MODEL, a head or a promoted model.

    Prints CSV: path, rank, label, probability, error. An image that cannot be decoded gets a row that says why, and so does
    one whose class is not probable enough for a head that rejects. Of several labels each that is said has a row. So that
    no spreadsheet runs a path or a class as a formula, an apostrophe stands before those that begin with = + - or @, and
    what cannot be printed is escaped; --json gives every name as it is.

    Example: featx predict models/photos--resnet50--logreg.safetensors new.jpg more/ --top 3
    """
    from featx.inference import load_model
    from featx.inference import predict as predict_images

    loaded = load_model(model, backbone=backbone, weights=weights, device=device)
    with _bar("predict", "images") as progress:
        predictions = predict_images(loaded, images, top=top, workers=workers, progress=progress)

    def show() -> None:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(["path", "rank", "label", "probability", "error"])
        for p in predictions:
            if p.error:
                rows.writerow([cell(p.path), "", "", "", cell(p.error)])
            for rank, (label, probability, why) in enumerate(p.rows(), start=1):
                shown = f"{probability:.6f}" if probability is not None else ""
                rows.writerow([cell(p.path), rank, cell(label), shown, cell(why)])

    _print({"predictions": [p.as_dict() for p in predictions]} if as_json else None, show)


@main.command(short_help="Judge a head or model on labelled images.")
@click.argument("model")
@click.argument("data")
@click.option("--split", help="train, val, test or all.  [default: what the model was not trained on]")
@_CACHE
@_AGAIN
@_DEVICE
@_WORKERS
@_JSON
def evaluate(
    model: str, data: str, split: str | None, cache: str, backbone: str | None, weights: str | None, device: str,
    workers: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Judge MODEL, a head or a promoted model, on the labelled images of DATA.

    Left to itself it takes the split test, or val where there is no test. DATA without splits is judged whole, unless the
    model was trained on some of it: then on the part that featx holds out.

    Example: featx evaluate models/photos--resnet50--logreg.safetensors photos/
    """
    from featx.inference import evaluate as judge
    from featx.inference import load_model

    loaded = load_model(model, backbone=backbone, weights=weights, device=device)
    with _bar("evaluate", "images") as progress:
        report = judge(loaded, data, split=split, cache=cache, workers=workers, progress=progress)
    _print(report.as_dict() if as_json else None, lambda: click.echo(str(report)))
    _warn(*report.notes)


@main.command(short_help="Say what a file is.")
@click.argument("file")
@click.option("--failed", is_flag=True, help="Every image that failed, and why, as CSV.")
@_JSON
def info(file: str, failed: bool, as_json: bool) -> None:
    """Say what FILE is: a feature file, a head or a promoted model.

    Example: featx info cache/digits--lenet5.h5
    """
    from featx.inspection.info import describe_file

    facts = describe_file(file)
    if failed:
        failures = facts.get("failures")
        if failures is None:
            raise FeatxError(f"{file} is a {facts['kind']}; --failed is for feature files")
        _print({"failures": failures} if as_json else None, lambda: _show_table(["path", "error"], failures.items()))
        return
    _print(facts if as_json else None, lambda: _show_info(facts, file))


@main.command(short_help="Check every row of a feature file.")
@click.argument("file")
@click.option(
    "--recompute", type=click.IntRange(min=1), default=None, metavar="N", help="Also extract N random rows again."
)
@_AGAIN
@_DEVICE
@_JSON
def verify(
    file: str, recompute: int | None, backbone: str | None, weights: str | None, device: str, as_json: bool
) -> None:
    """Check every row of the feature file FILE against its checksum; exit 1 if anything is wrong.

    Also its structure and size, the digest of its tables, NaN and infinity, and that copies of an image have the same
    features.

    Example: featx verify cache/digits--lenet5.h5 --recompute 16
    """
    from featx.inspection.verify import verify_file

    found = verify_file(file, recompute=recompute or 0, backbone=backbone, weights=weights, device=device)

    def show() -> None:
        click.echo(
            f"{file}: {found['rows']:,} rows, {found['bad_rows']:,} bad" + (", all is well" if found["ok"] else "")
        )
        if recompute and found.get("largest_difference") is not None:
            click.echo(
                f"  {found['recomputed']} rows extracted again; the largest difference is "
                f"{found['largest_difference']:.2g} of the row's length (relative L2)"
            )
        if found.get("changed"):
            click.echo(f"  {found['changed']} drawn images are gone or have changed since, and were passed over")
        for problem in found["problems"]:
            click.echo(f"  {printable(problem)}")

    _print(found if as_json else None, show)
    if not found["ok"]:
        raise click.exceptions.Exit(1)


@main.group(invoke_without_command=True, short_help="List the feature files, and remove what nothing needs.")
@_CACHE
@_JSON
@click.pass_context
def cache(ctx: click.Context, cache: str, as_json: bool) -> None:
    """List the feature files of the cache folder, the newest first: size, age, state, images, data set and backbone.

    Example: featx cache
    """
    from featx.features.folder import list_folder

    if ctx.invoked_subcommand is None:
        entries = list_folder(Path(cache))
        _print({"files": [e.as_dict() for e in entries]} if as_json else None, lambda: _show_entries(entries, cache))


@cache.command("rm", short_help="Remove feature files.")
@click.argument("files", nargs=-1)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--cache", help="Folder of feature files.  [default: cache]")
@_JSON
@click.pass_context
def cache_rm(ctx: click.Context, files: tuple[str, ...], yes: bool, cache: str | None, as_json: bool) -> None:
    """Remove FILES, or what nothing needs; asks first.

    Nothing needs damaged files, what a run left that was killed before it began to compute, unfinished files whose rows the
    finished one has, and files of a data set that is gone if another file, of one that is there, has all their features.

    Example: featx cache rm
    """
    from featx.features.folder import describe_files, list_folder, remove

    assert ctx.parent
    folder = cache or str(ctx.parent.params["cache"])
    entries = describe_files(map(Path, files)) if files else [e for e in list_folder(Path(folder)) if e.removable]
    if entries and not yes:
        for entry in entries:
            why = f": {entry.removable}" if entry.removable else ""
            click.echo(f"{size_text(entry.bytes):>10}  {printable(f'{entry.path}{why}')}", err=True)
        click.confirm(f"Remove {_files(len(entries))}?", abort=True, err=True)
    freed = sum(remove(entry.path) for entry in entries)
    removed = {"removed": [str(entry.path) for entry in entries], "bytes": freed}
    text = (
        f"{_files(len(entries))} removed, {size_text(freed)} freed"
        if entries
        else f"there is nothing to remove in {folder}"
    )
    _print(removed if as_json else None, lambda: click.echo(text))


@main.command(short_help="List the backbones.")
@click.argument("pattern", required=False)
@click.option("--layers", is_flag=True, help="The stages of the backbone of just that name, to extract with --layer.")
@_JSON
def backbones(pattern: str | None, layers: bool, as_json: bool) -> None:
    """List the backbones whose name contains PATTERN (or fits it, with *); timm/PATTERN asks timm.

    The first call measures each by a forward pass without data and remembers it.

    Example: featx backbones resnet
    """
    from featx.backbones import catalog

    if layers:
        _show_layers(pattern, as_json)
        return

    names = catalog.matching(pattern)
    if not names:
        raise FeatxError(f"no backbone's name contains {pattern!r}; featx backbones lists them all")
    with _bar("measure", "backbones") as progress:
        entries = catalog.describe(names, progress=progress)

    def show() -> None:
        width = max(len(e.name) for e in entries)
        family = max(len(e.family) for e in entries)
        click.echo(
            f"{'name':<{width}}  {'family':<{family}}  embedding  parameters  input  ImageNet top-1  weights here"
        )
        for e in entries:
            top1 = f"{e.top1:.1f} %" if e.top1 is not None else "-"
            click.echo(
                f"{e.name:<{width}}  {e.family:<{family}}  {e.embedding:9}  {e.parameters / 1e6:8.2f} M"
                f"  {e.input_size:5}  {top1:>14}  {'yes' if e.local else 'no':>12}"
            )

    _print({"backbones": [e.as_dict() for e in entries]} if as_json else None, show)


def _show_layers(name: str | None, as_json: bool) -> None:
    from featx.backbones.backbone import layers_of

    if not name:
        raise FeatxError("--layers needs the name of one backbone, as in featx backbones resnet50 --layers")
    stages, blocks = layers_of(name)
    rows = [[s.layer, " x ".join(map(str, s.shape)), s.width, f"{s.blocks} of {len(blocks)}"] for s in stages]

    def show() -> None:
        _show_columns(["layer", "gives", "width", "blocks"], rows)
        click.echo(f"\nall of them in one pass: featx extract DATA --backbone {name} --stages")
        click.echo(f"blocks: {', '.join(blocks)}")

    found = [{"layer": s.layer, "shape": s.shape, "width": s.width, "blocks": s.blocks} for s in stages]
    _print({"layers": found, "blocks": blocks} if as_json else None, show)


@main.command(short_help="Run the steps of a TOML recipe.")
@click.argument("recipe")
@click.option("--dry-run", is_flag=True, help="Show the commands that would run.")
@_JSON
def run(recipe: str, dry_run: bool, as_json: bool) -> None:
    """Run the steps of RECIPE, a TOML file with the tables extract, fit-head and promote.

    Example: featx run pipelines/quickstart.toml
    """
    loaded = load_recipe(recipe)
    commands = {name: as_command(name, step) for name, step in loaded.steps.items()}
    if dry_run:
        _print(
            {"commands": list(commands.values())} if as_json else None, lambda: click.echo("\n".join(commands.values()))
        )
        return
    results = {}
    with contextlib.ExitStack() as bars:

        def bar(name: str) -> Callable[..., None]:
            bars.close()
            if not as_json:
                click.echo(f"{'' if name == next(iter(commands)) else chr(10)}$ {commands[name]}")
            context: Any = (
                _training_bar() if name == "promote" else _bar(name, "heads" if name == "fit-head" else "images")
            )
            return cast("Callable[..., None]", bars.enter_context(context))

        for name, result in run_recipe(loaded, progress=bar, notify=_warn):
            bars.close()
            results[name] = result.as_dict()
            if not as_json:
                _SHOW[name](result)
            _warn(*result.notes)
    if as_json:
        _print(results, lambda: None)


# What is printed


def _print(json_object: dict[str, Any] | None, show: Callable[[], None]) -> None:
    """One JSON object, or text."""
    if json_object is None:
        show()
    else:
        click.echo(json.dumps(json_object, ensure_ascii=True))


def _warn(*sentences: str) -> None:
    for sentence in sentences:
        click.echo(f"Note: {printable(sentence)}", err=True)


def _show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """CSV."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell(str(value)) for value in row])


def _show_info(facts: dict[str, Any], file: str) -> None:
    """The facts; of a feature file its rows as a table, and the first few failed images; of a head what was tried."""
    if "rows" not in facts:
        tried = facts.get("search") or []
        _show_facts({key: value for key, value in facts.items() if key != "search"})
        if tried:
            click.echo()
            lines = [[f"{t['candidate']:g}", _digits(t["mean"]), _digits(t["standard_error"])] for t in tried]
            _show_columns(["tried", "mean loss", "standard error"], lines)
        return
    failures, rows, classes = facts["failures"], facts["rows"], facts["classes"]
    tables = ("failures", "rows", "splits", "classes")
    _show_facts({**{k: v for k, v in facts.items() if k not in tables}, "bytes": size_text(facts["bytes"])})
    names = sorted({name for counts in rows.values() for name in counts}, key=lambda n: (n not in classes, n))
    lines = [[name, *(counts.get(name, 0) for counts in rows.values())] for name in names[:_MOST_CLASSES]]
    if len(names) > _MOST_CLASSES:
        others = names[_MOST_CLASSES:]
        lines.append([f"({len(others)} more)", *(sum(c.get(n, 0) for n in others) for c in rows.values())])
    lines.append(["all", *(sum(counts.values()) for counts in rows.values())])
    click.echo()
    _show_columns(["rows", *rows, "all"], [[*line, sum(line[1:])] for line in lines])
    if failures:
        click.echo(f"\n{len(failures):,} failed:")
        for path, error in list(failures.items())[:_MOST_NAMED]:
            click.echo(f"  {printable(path)}: {printable(error)}")
        if len(failures) > _MOST_NAMED:
            click.echo(f"  and {len(failures) - _MOST_NAMED} more (featx info --failed {file} lists them)")


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _show_columns(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    """Names to the left, numbers to the right."""
    texts = [[printable(cell) if isinstance(cell, str) else f"{cell:,}" for cell in line] for line in (head, *lines)]
    widths = [max(len(line[column]) for line in texts) for column in range(len(head))]
    for line in texts:
        cells = [line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]
        click.echo("  ".join(cells))


def _show_entries(entries: Sequence[Entry], folder: str) -> None:
    if not entries:
        click.echo(f"there is no feature file in {folder}")
        return
    names = [printable(str(entry.path.relative_to(folder))) for entry in entries]
    width = max(map(len, names))
    click.echo(f"{'file':<{width}}  {'size':>10}  {'age':>7}  {'state':<9}  {'images':>11}  data set, backbone")
    for name, e in zip(names, entries, strict=True):
        images = f"{e.images:,}" if e.done == e.images else f"{e.done:,}/{e.images:,}"
        about = printable(f"{e.root}, {e.backbone}" if e.root else e.removable or "not featx's")
        click.echo(
            f"{name:<{width}}  {size_text(e.bytes):>10}  {_age(e.modified):>7}  {e.state:<9}  {images:>11}  {about}"
        )
    click.echo(f"{_files(len(entries))}, {size_text(sum(e.bytes for e in entries))}")
    if unneeded := [e for e in entries if e.removable]:
        click.echo(
            f"{len(unneeded)} of no use, {size_text(sum(e.bytes for e in unneeded))} (featx cache rm removes them)"
        )


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"


def _age(modified: float) -> str:
    """How long ago, as people say it."""
    seconds = max(0.0, time.time() - modified)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _show_extraction(result: Extraction) -> None:
    layers = ", ".join(f"{name} ({result.layers[name]})" for name in sorted(result.layers, key=by_depth))
    click.echo(f"{result.dataset} through {result.backbone}: {layers}{_seen(result.views)}")
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


def _seen(views: str) -> str:
    """How each image is seen, where that is more than once."""
    return f", each image in {len(VIEWS[views])} views ({views})" if views != "plain" else ""


def _show_fit(result: Fit) -> None:
    head = result.head
    name = head.held_out_.headline[0] if head.held_out_ else "value"
    for what, tried, kept in (
        ("head", result.compared, f"Kept is {head.kind}, the simplest\nwithin one standard error of the least loss."),
        ("layer", result.layers, f"Kept is {head.layer}:\nthe least loss, or the penultimate where none is less by two "
         "standard errors, image by image."),
    ):  # fmt: skip
        if tried:
            _show_columns([what, "chosen", "loss", "± error", name, "seconds"], [line.cells() for line in tried])
            click.echo(f"loss and {name}: cross-validated on the training images. {kept}\n")
    chosen = [f"{name}={value:g}" for name, value in head.chosen.items()]
    chosen += ["rbf kernel"] if head.kernel == "rbf" else []
    count = len(head.classes_)
    of = {"classification": f" of {count} classes", "multilabel": f" with {count} labels", "regression": ""}[head.task_]
    click.echo(
        f"{head.kind}{' (' + ', '.join(chosen) + ')' if chosen else ''} on {head.layer} of {result.features}: "
        f"fitted to {head.n_train_} images{of}{_seen(head.views)} in {head.seconds_:.2f} s"
    )
    if head.reject_below_ is not None:
        click.echo(f"says nothing where the highest probability is below {head.reject_below_:.4f}")
    for part in (result.report, result.cross_validated):
        if part:
            click.echo(f"\n{part}")
    if result.shots:
        click.echo()
        lines = [
            [str(n), f"{r.mean('accuracy'):.4f}", f"{r.deviation('accuracy'):.4f}", r.repeats] for n, r in result.shots
        ]
        _show_columns(["shots", "accuracy", "± std", "draws"], lines)
    click.echo()
    click.echo(f"head: {result.path}")
    files = {
        "confusion matrix": result.picture, "few-shot curve": result.shots_picture, "page": result.card,
        "predictions for images without a label": result.unlabelled,
    }  # fmt: skip
    for name, file in files.items():
        if file:
            click.echo(f"{name}: {file}")


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
    _show_columns(
        ["backbone", "accuracy", "95 % interval", "kNN", "LogME", "H-score", "width", "parameters", "images/s"], rows
    )
    click.echo(f"\naccuracy: logistic regression, cross-validated on {result.images} training images")
    click.echo("*: no other is as accurate and faster, or as fast and more accurate")
    click.echo("LogME and H-score: higher is better, and hints at most")
    for row in result.rows:
        if row.why:
            click.echo(f"{row.backbone} failed: {row.why}")
    click.echo(f"picture: {result.picture}")


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
    _show_columns(["layer", "width", "accuracy", "log loss", "with all later ones", "random weights"], rows)
    few = f" (random weights: on {result.baseline.images} of them)" if result.baseline else ""
    click.echo(f"logistic regression, cross-validated on {result.judged} training images{few}; naming the commonest")
    click.echo(f"class is right in {result.guess:.4f}\n")
    if result.curve:
        points = [[n, f"{mean:.4f}", f"{error:.4f}"] for n, mean, error in result.curve.points]
        _show_columns(["images", "accuracy", "± error"], points)
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


def _show_promotion(result: Promotion) -> None:
    click.echo(
        f"assembled {result.head}: on {result.proof.images} images the network's logits are the head's "
        f"(largest difference {result.proof.largest:.2g}, mean {result.proof.mean:.2g})"
    )
    if result.run:
        _show_trial(result, result.run)
    click.echo(f"{result.verdict}: {result.why} ({result.seconds:.1f} s)")
    click.echo(f"model: {result.path}")
    if result.run:
        click.echo(f"epochs: {result.path.with_suffix('.csv')}, {result.path.with_suffix('.png')}")


def _show_trial(result: Promotion, run: FineTuningRun) -> None:
    history = run.history
    click.echo(f"chosen on {run.chosen_on}; there the head's accuracy is {run.start.accuracy:.4f} by its features:")
    click.echo("epoch  training loss  log loss  accuracy")
    for entry in history.log:
        loss = f"{entry['loss']:13.4f}" if entry["epoch"] else "     the head"
        mark = "  *" if entry["epoch"] == history.best_epoch else ""
        click.echo(f"{entry['epoch']:5}  {loss}  {entry['log_loss']:8.4f}  {entry['accuracy']:8.4f}{mark}")
    if len(history.curve) > 1:
        shown = ", ".join(f"{alpha:g}: {loss:.4f}" for alpha, loss in history.curve.items())
        click.echo(f"log loss from the head's weights (0) to epoch {history.best_epoch}'s (1): {shown}")
    click.echo()
    rows = [("head", result.head_report), ("fine-tuned", run.report)][: 2 if history.alpha else 1]
    click.echo(
        f"{'':<10}  accuracy  95 % interval     log loss  (same {result.report.n} images of split {result.report.split})"
    )
    for name, report in rows:
        low, high = report.interval
        click.echo(f"{name:<10}  {report.accuracy:8.4f}  {low:.4f} to {high:.4f}  {report.log_loss:8.4f}")
    if result.report.reject_below is not None:
        accepted = ", ".join(f"{name} {report.accepted} ({report.accepted_right} right)" for name, report in rows)
        click.echo(f"of probability at least {result.report.reject_below:.4g}, where something is said: {accepted}")
    if result.repeats:
        click.echo("\nother splits  images    head  fine-tuned")
        for number, other in enumerate(result.repeats, start=1):
            click.echo(
                f"{number:12}  {other.paired.n:6}  {other.paired.head_accuracy:.4f}  {other.report.accuracy:10.4f}"
            )
    click.echo()


def _show_facts(facts: dict[str, Any], indent: str = "") -> None:
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        if isinstance(value, dict) and value:
            click.echo(f"{indent}{printable(key)}:")
            _show_facts(value, indent + "  ")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            click.echo(f"{indent}{printable(key) + ':':<{width + 1}} {printable(str(shown))}")


_SHOW: dict[str, Callable[[Any], None]] = {
    "extract": _show_extraction,
    "fit-head": _show_fit,
    "promote": _show_promotion,
}


@contextlib.contextmanager
def _bar(title: str, unit: str, limit: Callable[[], str] | None = None) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr for what takes over two seconds: share done, time left, speed, and what limits it."""
    from tqdm import tqdm

    with tqdm(desc=title, unit=f" {unit}", delay=2, file=sys.stderr, leave=False, disable=None) as bar:

        def show(done: int, total: int) -> None:
            if bar.total != total:
                bar.total, bar.initial = total, done
                bar.n = done
            if limit and (what := limit()):
                bar.set_postfix_str(f"limit: {what}", refresh=False)
            bar.update(done - bar.n)

        yield show


@contextlib.contextmanager
def _training_bar() -> Iterator[Callable[[TrainingProgress], None]]:
    """A progress bar over all epochs, with the epoch, its loss and the best accuracy so far."""
    from tqdm import tqdm

    with tqdm(desc="finetune", unit=" images", delay=2, file=sys.stderr, leave=False, disable=None) as bar:

        def show(step: TrainingProgress) -> None:
            if not step.epoch:
                bar.total = step.total
                bar.set_postfix_str("the frozen part, once", refresh=False)
                bar.update(step.done - bar.n)
                return
            bar.total = step.epochs * step.total
            bar.set_postfix_str(
                f"epoch {step.epoch}/{step.epochs}, loss {step.loss:.3f}, rate {step.rate:.1e}, best {step.accuracy:.4f}",
                refresh=False,
            )
            bar.update((step.epoch - 1) * step.total + step.done - bar.n)

        yield show
