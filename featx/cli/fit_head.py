"""``featx fit-head``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, CHECKED, NO_OUT, Needs, with_option
from featx.cli.option_groups import option
from featx.cli.options import (
    COUNT,
    GROUPS,
    MODELS_FOLDER,
    POSITIVE,
    SHARE,
    TRACKING,
    FoldsType,
    Numbers,
    cache_folder,
    needing,
    task_option,
)
from featx.cli.output import digits, in_views, print_columns, print_places
from featx.constants import CALIBRATIONS, DEFAULT_TEMPLATE, FEW_HELD_OUT, KERNELS, KINDS, ZERO_SHOT
from featx.layer_spec import PENULTIMATE, VIEWS, LayerSpec
from featx.reporter import Reporter, stage_of_import
from featx.text import counted, listed, printable
from featx.workflows.fit_options import AUTO, CV_FOLDS, CV_REPEATS, require_compatible, require_texts

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.workflows.comparison import Compared
    from featx.workflows.fit_result import Fit


def show_fit(result: Fit) -> None:
    """Print what a fit gave."""
    head = result.head
    unit = "group" if head.group_ else "image"
    options = f"{head.kind} --kernel {head.kernel}" if head.kernel != "linear" else head.kind
    _show_comparison(
        "head", result.compared, f"--model {options}",
        f"Selected: --model {options}, the simplest head within one standard error of the lowest loss.", result,
    )  # fmt: skip
    _show_comparison(
        "layer", result.layers, head.layer,
        f"Selected: {head.layer}, the layer of the lowest loss, or the penultimate one where no loss is lower by two standard "
        f"errors,\n{unit} by {unit}.", result,
    )  # fmt: skip
    _show_head(result)
    _show_gains(result)
    _show_shots(result)  # what was requested comes before what every fit prints
    _show_against(result)
    for part in (result.cross_validated, result.report):
        if part:
            click.echo(f"\n{part}")
    click.echo()
    _show_files(result)


def _show_gains(result: Fit) -> None:
    """Print what each of several backbones is worth alone, all together, and what each adds."""
    gains = result.gains
    if gains is None:
        return
    click.echo(f"\n{gains.judged}")
    header, *lines = gains.lines
    print_columns(header, lines)
    for sentence in gains.sentences:
        click.echo(sentence)


def _show_shots(result: Fit) -> None:
    """Print the accuracy with few images of each class."""
    if not result.shots:
        return
    lines = [
        [str(n), f"{r.mean('accuracy'):.4f}", digits(r.deviation("accuracy") if r.repeats > 1 else None), r.repeats]
        for n, r in result.shots
    ]
    click.echo()
    print_columns(["shots", "accuracy", "± std", "draws"], lines)


def _show_against(result: Fit) -> None:
    """Print how the head compares with an earlier one."""
    against = result.against
    if against is None:
        return
    images = counted(against.paired.n, "image")
    click.echo(
        f"\ncompared with {printable(against.earlier)} on {images} of split {against.split} that neither head has seen:"
    )
    header, *lines = against.lines
    print_columns(header, lines)
    for name, paths in (("earlier", against.paired.first_only), ("new", against.paired.second_only)):
        if paths:
            click.echo(f"only the {name} head is {against.good} on: {listed([printable(path) for path in paths])}")
    for remark in against.remarks:
        click.echo(remark)
    click.echo(against.sentence)


def _show_comparison(what: str, compared: tuple[Compared, ...], first: str, selected: str, result: Fit) -> None:
    """Print the table of the heads or layers that were compared, and which was selected."""
    if not compared:
        return
    if not any(math.isfinite(line.loss) for line in compared):
        click.echo(
            f"No {what} could be compared with another, since no training image can be held out. Selected: {first}.\n"
        )
        return
    name = result.head.held_out_.headline[0] if result.head.held_out_ else "value"
    print_columns([what, "chosen", "loss", "± error", name, "seconds"], [line.cells() for line in compared])
    click.echo(
        f"loss and {name}: cross-validated on the training images, which chose C or k too, so a little optimistic.\n"
        f"{selected}\n"
    )


def _show_head(result: Fit) -> None:
    """Print what the head is, and what it was fitted to."""
    from featx.heads.conformal import name_of_sets
    from featx.heads.rejection import rejected_text

    head = result.head
    chosen = [f"{name}={value:g}" for name, value in head.chosen.items()]
    chosen += ["rbf kernel"] if head.kernel == "rbf" else []
    count = len(head.names_)
    of = {
        "classification": f" of {counted(count, 'class', 'classes')}",
        "multilabel": f" with {counted(count, 'label')}",
        "regression": "",
    }[head.task_]
    made = f"fitted to {counted(head.n_train_, 'image')}{of}" if head.n_train_ else f"the texts{of}, fitted to no image"
    click.echo(
        f"{head.kind}{' (' + ', '.join(chosen) + ')' if chosen else ''} on {_features_text(result)}: "
        f"{made}{in_views(head.views)} in {head.seconds_:.2f} s"
    )
    if head.reject_below_ is not None:
        click.echo(f"rejects {rejected_text(head.reject_below_)}")
    if head.conformal_ is not None:
        click.echo(f"{name_of_sets(head.task_)}: {head.conformal_.sentence}")


def _features_text(result: Fit) -> str:
    """The layer and the file that a head was fitted to; of several backbones the layer of each, unless all are the same."""
    from featx.features.joint_sets import is_joint

    files, backbone = [str(file) for file in result.files] or [str(result.features)], result.head.backbone_
    parts = backbone["parts"] if is_joint(backbone) else [{"layer": result.head.layer_}]
    layers = [LayerSpec.parse(part["layer"]).layer for part in parts]
    if len({*layers}) > 1 and len(layers) == len(files):
        return " and ".join(f"{layer} of {file}" for layer, file in zip(layers, files, strict=True))
    return f"{'+'.join(dict.fromkeys(layers))} of {' and '.join(files)}"


def _show_files(result: Fit) -> None:
    """Print which files were written."""
    files = {
        "head": result.path, "confusion matrix": result.picture, "few-shot curve": result.shots_picture,
        "page": result.card, "predictions for images without a label": result.unlabelled,
        "predictions for each labelled image": result.predictions,
    }  # fmt: skip
    for name, file in files.items():
        if file:
            click.echo(f"{name}: {file}")
    print_places(result.tracked)


_ON_DEVICE = Needs(
    "without --model logreg, svm, linear, bilinear, mlp or auto",
    lambda options: options["model"] not in ("ridge", "knn", "centroid", ZERO_SHOT),
)


# A value other than the default is refused by the head and by the fit, in words of their own.
_KERNEL = Needs("without --model svm", lambda options: options["model"] == "svm" or options["kernel"] != "linear")
_FROM_CACHE = Needs(
    "with FEATURES, which is a file of any folder, and without --with",
    lambda options: not options["features"] or options["with_backbones"],
)
_REPEAT = Needs("without --cv or --shots", lambda options: options["cv"] or options["shots"] or options["repeat"] > 1)


def _check(options: Mapping[str, Any]) -> None:
    require_compatible(**{name: options[name] for name in ("model", "C", "k", "kernel", "cv", "repeat", "shots")})
    require_texts(**{name: options[name] for name in ("model", "prompts", "class_names", "anchor")})


@click.command(
    "fit-head", cls=JobCommand, show=show_fit, progress=("fit-head", "fits"), check=_check,
    short_help="Fit a light classifier to cached features.",
    examples=(
        "featx fit-head --model logreg",
        "featx fit-head --model auto --report",
        "featx fit-head cache/photos--resnet50.h5 --cv 5 --repeat 10",
        "featx fit-head cache/photos--resnet50.h5 --with vit_b_16",
        "torchrun --nproc-per-node 2 -m featx fit-head --model logreg",
        "featx fit-head --model zeroshot --prompt 'a photo of a {}' --prompt 'a drawing of a {}'",
    ),
)  # fmt: skip
@click.argument("features", nargs=-1)
@option(
    "--with", "with_backbones", multiple=True, section="Input", needs=ALWAYS, metavar="BACKBONE",
    help="Put the features of another backbone beside FEATURES: those of the same data set, in the folder of FEATURES or else "
    "in the cache folder. May be repeated. What each backbone adds is printed, with a paired test and its speed.",
)  # fmt: skip
@option(
    "--model", type=click.Choice((*KINDS, ZERO_SHOT, AUTO)), show_default="logreg; ridge for --task regression",
    section="Head", needs=ALWAYS,
    metavar="KIND",
    help=f"Kind of head: {', '.join(KINDS)}; {ZERO_SHOT}, the texts of the classes; or auto, which compares all that suit the "
    "data and selects the simplest within one standard error of the best.",
)  # fmt: skip
@option(
    "--layer", multiple=True, default=(PENULTIMATE,), show_default=True, section="Input", needs=ALWAYS, metavar="NAME",
    help="Layer of the feature file. May be repeated: several layers are concatenated. best selects a layer by "
    "cross-validation. Of several files each has it; BACKBONE=NAME is a layer of that backbone's file alone.",
)  # fmt: skip
@option(
    "--views", type=click.Choice(tuple(VIEWS)), show_default="all that the file has", section="Input", needs=ALWAYS,
    help="Views of each image (test-time augmentation): the head is fitted to each, and averages over them.",
)  # fmt: skip
@option(
    "-C", "C", type=POSITIVE, show_default="chosen by cross-validation", section="Head", needs=CHECKED, metavar="C",
    help="Inverse strength of the penalty of logreg, svm, ridge and bilinear.",
)  # fmt: skip
@option(
    "--kernel", type=click.Choice(KERNELS), default="linear", show_default=True, section="Head", needs=_KERNEL,
    help="Kernel of an svm head.",
)  # fmt: skip
@option(
    "--k", type=COUNT, show_default="chosen by cross-validation", section="Head", needs=CHECKED, metavar="N",
    help="Number of neighbours of a knn head.",
)  # fmt: skip
@task_option("Input")
@option(
    "--class-weight", type=click.Choice(("balanced",)), section="Head", needs=CHECKED,
    help="Weight all classes equally in the loss, however many images each has.",
)  # fmt: skip
@option(
    "--logit-adjustment", type=click.FloatRange(min=0), default=0.0, show_default=True,
    section="Advanced", needs=CHECKED, metavar="TAU",
    help="Subtract TAU times the log of each class's share from its logit; 1 treats all classes as equally likely.",
)  # fmt: skip
@option(
    "--calibrate", type=click.Choice(CALIBRATIONS), is_flag=False, flag_value="temperature",
    show_default="temperature; none for logreg and bilinear", section="Advanced", needs=CHECKED,
    help="Calibrate probabilities on held-out training rows: by a temperature (of several labels with an offset), which "
    "--calibrate alone means, or by isotonic curves after it.",
)  # fmt: skip
@option(
    "--reject-below", type=SHARE, section="Head", needs=CHECKED, metavar="P",
    help="Reject a prediction, giving no class, where the highest probability is below P.",
)  # fmt: skip
@option(
    "--target-precision", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    section="Head", needs=CHECKED, metavar="SHARE",
    help="Choose the P of --reject-below so that, with 95 % confidence, SHARE of the accepted predictions are right.",
)  # fmt: skip
@option(
    "--conformal", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    section="Head", needs=CHECKED, metavar="ALPHA",
    help="Make prediction sets, or intervals of numbers, too: a share of at most ALPHA of them misses the truth.",
)  # fmt: skip
@option(
    "--conformal-per-class", is_flag=True, section="Head", needs=with_option("conformal", "--conformal"),
    help="Let the sets miss at most ALPHA of each class.",
)  # fmt: skip
@option(
    "--calibrate-on", section="Advanced", metavar="SPLIT", show_default="out-of-fold predictions of the training images",
    needs=Needs(
        "without --conformal or --target-precision",
        lambda options: options["conformal"] is not None or options["target_precision"] is not None,
    ),
    help="Split whose labelled images choose the thresholds of --conformal and --target-precision; the head must not be fitted "
    "to them.",
)  # fmt: skip
@option(
    "--prompt", "prompts", multiple=True, show_default=DEFAULT_TEMPLATE, section="Head", needs=CHECKED, metavar="TEXT",
    help=f"Template of the texts of --model {ZERO_SHOT} and --anchor {ZERO_SHOT}, with {{}} for the class. May be repeated: "
    "their vectors are averaged.",
)  # fmt: skip
@option(
    "--class-names", section="Head", needs=CHECKED, metavar="FILE",
    help="Words for the classes in those texts: a JSON object, or a CSV file with a class and its words in each row. By "
    "default the names of the classes, with spaces for underscores.",
)  # fmt: skip
@option(
    "--anchor", type=click.Choice((ZERO_SHOT,)), section="Head", needs=CHECKED,
    help="Penalise the distance of logreg's weights from the zero-shot weights instead of their size.",
)  # fmt: skip
@option(
    "--cv", type=FoldsType(), section="Evaluation", needs=ALWAYS, metavar="K|COLUMN|none",
    show_default=f"{CV_REPEATS} times {CV_FOLDS}, where under {FEW_HELD_OUT} images are held out and it takes seconds",
    help="Evaluate by K-fold cross-validation over all labelled images too, or by the folds that a column of the table names; "
    "images of -1 or no fold are always trained on. none: never.",
)  # fmt: skip
@option(
    "--repeat", type=COUNT, default=1, show_default=True, section="Evaluation", needs=_REPEAT, metavar="N",
    help="Number of times that --cv and --shots are repeated.",
)  # fmt: skip
@option(
    "--shots", type=Numbers(), default=(), section="Evaluation", needs=ALWAYS, metavar="N,N…",
    help="Evaluate heads fitted to N images of each class too, drawn --repeat times.",
)  # fmt: skip
@option(
    "--compare", section="Evaluation", needs=ALWAYS, metavar="HEAD",
    help="Compare with an earlier head, on the held-out images that are new to both: accuracies, a paired test, and the images "
    "that each gets right alone.",
)  # fmt: skip
@option(
    "--predictions", section="Output", needs=ALWAYS, metavar="FILE",
    help="Write what is predicted for each labelled image to FILE (.csv or .parquet): training images out of fold, the others "
    "by the head.",
)  # fmt: skip
@GROUPS
@option(
    "--report",
    is_flag=True,
    section="Output",
    needs=ALWAYS,
    help="Write an HTML page about the head and its images too, beside its file.",
)
@option(
    "--images", multiple=True, section="Output", needs=with_option("report", "--report"), metavar="FOLDER",
    help="Folder besides that of the data set whose images the page of --report may show. May be repeated.",
)  # fmt: skip
@option(
    "--seed", default=0, show_default=True, section="Advanced", needs=ALWAYS, metavar="N",
    help="Seed of folds, draws and minibatches.",
)  # fmt: skip
@option(
    "--device", default="cpu", show_default=True, section="Compute", needs=_ON_DEVICE, metavar="NAME",
    help="Device of the matrix products of logreg, svm, linear, bilinear and mlp: auto, cpu, cuda, cuda:1 or mps.",
)  # fmt: skip
@needing(
    _FROM_CACHE,
    cache_folder("Input", or_url="whose newest file is fetched"),
)
@needing(NO_OUT, MODELS_FOLDER)
@TRACKING
@option(
    "-o",
    "--out",
    section="Output",
    needs=ALWAYS,
    metavar="FILE",
    help="Head file to write, instead of one named in the models folder.",
)
def fit_head(reporter: Reporter, **options: Any) -> Fit:
    """Fit a light classifier to the training rows of FEATURES and evaluate it on the held-out ones.

    FEATURES is a feature file, by default the newest in the cache folder; or several of the same images through different
    backbones, which are put side by side. The held-out split is test where there is one, else
    val; nothing is chosen on it. Images without a label are ignored by the fit, then predicted into a CSV file beside the
    head.
    """
    stage_of_import(reporter, "sklearn", "scikit-learn")
    from featx.workflows.fit import fit_head as run

    files = options.pop("features")
    return run(files[0] if len(files) == 1 else files or None, **options, reporter=reporter)
