"""``featx fit-head``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featx.cli.options import CACHE_FOLDER, JSON, MODELS_FOLDER, POSITIVE, SHARE, Numbers
from featx.cli.output import in_views, print_columns, print_notes, print_result
from featx.cli.progress import progress_bar
from featx.constants import CALIBRATIONS, KERNELS, KINDS, TASKS
from featx.layer_spec import VIEWS
from featx.workflows.recipe import FitHeadStep

if TYPE_CHECKING:  # commands import what they need when they run: --help answers at once
    from featx.workflows.fit import Fit


def show_fit(result: Fit) -> None:
    """Print what a fit gave."""
    head = result.head
    name = head.held_out_.headline[0] if head.held_out_ else "value"
    for what, tried, kept in (
        ("head", result.compared, f"Kept is {head.kind}, the simplest\nwithin one standard error of the least loss."),
        ("layer", result.layers, f"Kept is {head.layer}:\nthe least loss, or the penultimate where none is less by two "
         "standard errors, image by image."),
    ):  # fmt: skip
        if tried:
            print_columns([what, "chosen", "loss", "± error", name, "seconds"], [line.cells() for line in tried])
            click.echo(f"loss and {name}: cross-validated on the training images. {kept}\n")
    chosen = [f"{name}={value:g}" for name, value in head.chosen.items()]
    chosen += ["rbf kernel"] if head.kernel == "rbf" else []
    count = len(head.classes_)
    of = {"classification": f" of {count} classes", "multilabel": f" with {count} labels", "regression": ""}[head.task_]
    click.echo(
        f"{head.kind}{' (' + ', '.join(chosen) + ')' if chosen else ''} on {head.layer} of {result.features}: "
        f"fitted to {head.n_train_} images{of}{in_views(head.views)} in {head.seconds_:.2f} s"
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
        print_columns(["shots", "accuracy", "± std", "draws"], lines)
    click.echo()
    click.echo(f"head: {result.path}")
    files = {
        "confusion matrix": result.picture, "few-shot curve": result.shots_picture, "page": result.card,
        "predictions for images without a label": result.unlabelled,
    }  # fmt: skip
    for name, file in files.items():
        if file:
            click.echo(f"{name}: {file}")


@click.command("fit-head", short_help="Fit a light classifier to cached features.")
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
    "-C", "C", type=POSITIVE, help="Inverse penalty of logreg, svm, ridge.  [default: chosen on training rows]"
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
@click.option("--reject-below", type=SHARE, metavar="P", help="Say nothing where the highest probability is below P.")
@click.option(
    "--precision", type=SHARE, metavar="SHARE",
    help="Choose that P so that SHARE of what is said is right, on held-out training rows.",
)  # fmt: skip
@click.option("--cv", type=click.IntRange(min=2), metavar="K", help="Also judge by K folds over all labelled images.")
@click.option(
    "--repeat", type=click.IntRange(min=1), default=FitHeadStep.repeat, show_default=True, help="Of --cv and --shots."
)
@click.option(
    "--shots",
    type=Numbers(),
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
@CACHE_FOLDER
@MODELS_FOLDER
@click.option("-o", "--out", metavar="FILE", help="The head's file, instead of one named in the models folder.")
@JSON
def fit_head(as_json: bool, **options: Any) -> None:
    """Fit a light classifier to the training rows of FEATURES and judge it on the held-out ones.

    FEATURES is a feature file; left out, the newest in the cache folder. The held-out split is test where there is one,
    else val. Nothing is chosen on it. Images without a label are ignored, then predicted into a CSV file beside the head.

    Example: featx fit-head --model auto --report
    """
    step = FitHeadStep(**options)
    with progress_bar("fit", "heads") as reporter:
        result = step.run(reporter)
    print_result(result.as_dict() if as_json else None, lambda: show_fit(result))
    print_notes(*result.notes)
